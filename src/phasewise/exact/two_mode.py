r"""The two-mode distribution ``X_0 = s a 1``, ``s = +-1`` with equal chance: one global bit, read off noisy pixels.

Given s the pixels of X_t are independent, so a set R of n pixels knows s only through the half log-likelihood ratio
``h = alpha a sum_R x / sigma^2``, and ``h ~ N(s kappa, kappa)`` with ``kappa = n gamma a^2``, gamma = alpha^2/sigma^2.
Everything follows from two integrals over h::

    equivocation  E(kappa) = H(s | x_R)          = e^{-kappa/2} int N(h; 0, kappa) cosh(h) H_2(sigmoid(2h)) dh
    error         M(kappa) = E (s - tanh h)^2    = e^{-kappa/2} int N(h; 0, kappa) / cosh(h) dh

    D_r(x)_i  = a tanh(h of N_r(i))
    I(A:C|B)  = E(B) - E(AB) - E(BC) + E(ABC)
    mmse_r    = a^2 sum_i M(n_i gamma a^2),                                n_i pixels in N_r(i)
    K_r       = 1/2 int Delta_r d gamma = F_r(t_min) - F_r(t_max),         F_r = E(all) - sum_i E(n_i) / n_i

the last because ``d E(n gamma a^2) / d gamma = -1/2 n a^2 M`` (Guo, Shamai, Verdu 2005); E of a set is E at its
kappa.  The whole image knows s once ``N gamma a^2 > 1``, a window only once ``n_B gamma a^2 > 1``; in between only
the global denoiser works, and that span widens with N.

With ``carriers`` only those pixels share s; every other one is +-a by a sign of its own, independent of all, and
read off itself alone: n counts carriers, and the others add ``a^2 M(gamma a^2)`` each to every mmse and nothing else.
Few carriers near A and many far away make a field of two levels whose far pixels tell up to log 2.

**Told a plan.**  Told s itself, a window lacks nothing.  Told one bit read off noisy pixels, the *vote*
``S = sign(h_near + h_far)`` of what it sees and what it does not, a window knows

    log-odds of s = 2 h_near + log Phi((h_near + kappa_far) / sqrt(kappa_far)) - log Phi((h_near - kappa_far) / ...)

where S = 1, so that what it still lacks is one integral over h_near, and ``I(A : C | B, S)``, the vote being that of B
and C, another over h_A.

The integrals are even in h and analytic, so the trapezoidal rule converges geometrically: better here than
Gauss-Hermite, whose nodes are too coarse for the width of ``1/cosh`` at large kappa.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.exact.base import (
    Center,
    ClosedForm,
    Shape,
    check_images,
    check_shape,
    noise_level,
    regions,
    windows,
)
from phasewise.paths import NoisePath, Time, as_time

PLANS = ("mode", "vote")
"""What a window may be told: s, or the more likely s by all pixels that the plan is read off."""


class TwoMode(ClosedForm):
    """Images that are ``+amplitude`` everywhere or ``-amplitude`` everywhere, shape (H, W).

    ``carriers``, bool (H, W): the pixels of which that holds; the others are +-amplitude independently.  None: all.
    """

    @checks.checked(amplitude=checks.positive)
    def __init__(
        self, shape: Shape = (28, 28), amplitude: float = 1.0, carriers: Tensor | np.ndarray | None = None
    ) -> None:
        self.image_shape = check_shape(shape)
        self.amplitude = float(amplitude)
        self.carriers = torch.ones(self.shape, dtype=torch.bool) if carriers is None else torch.as_tensor(carriers)
        if self.carriers.shape != self.shape or self.carriers.dtype != torch.bool:
            raise PhasewiseError(
                f"carriers are yes or no for each pixel of {self.shape}; got {self.carriers.dtype} of shape "
                f"{tuple(self.carriers.shape)}"
            )

    @classmethod
    def far_copy(cls, shape: Shape = (8, 8), amplitude: float = 1.0) -> TwoMode:
        """A sign shared by the middle pixel, the default A, and the border alone: all there is to know is far away."""
        carriers = torch.zeros(check_shape(shape)[1:], dtype=torch.bool)
        carriers[[0, -1]] = True
        carriers[:, [0, -1]] = True
        carriers[(shape[0] - 1) // 2, (shape[1] - 1) // 2] = True
        return cls(shape, amplitude, carriers)

    @checks.checked(n=checks.count, seed=checks.seed)
    def sample(self, n: int, seed: int) -> Tensor:
        """(n, 1, H, W) float32, each image constant on its carriers."""
        rng = np.random.default_rng(seed)
        signs = rng.integers(0, 2, n) * 2 - 1
        values = torch.from_numpy(signs).float() * self.amplitude
        images = values.reshape(n, 1, 1, 1).expand(n, *self.image_shape).clone()
        free = rng.integers(0, 2, (n, int((~self.carriers).sum()))) * 2 - 1
        images[:, 0, ~self.carriers] = torch.from_numpy(free).float() * self.amplitude
        return images

    def denoiser(self, radius: int | None = None, path: NoisePath | None = None) -> TwoModeDenoiser:
        """``a tanh(alpha a sum_window x / sigma^2)``."""
        return TwoModeDenoiser(self, radius, path)

    @checks.checked(given=checks.one_of(PLANS))
    def cmi(
        self,
        t: float,
        radius: int,
        block: int = 1,
        center: Center | None = None,
        path: NoisePath | None = None,
        *,
        given: str | None = None,
    ) -> float:
        """``I(A : C | B)`` at time t, nats; at most log 2, and 0 when A or C holds no carrier.

        ``given`` a plan S, one of :data:`PLANS`: ``I(A : C | B, S)``, 0 where S is the mode, for given it all pixels
        are independent; the vote is that of B and C, without A.
        """
        if given == "mode":
            return 0.0
        region = regions(self.shape, radius, block, center)
        a, b, c = (int(self.carriers.reshape(-1)[r].sum()) for r in (region.a, region.b, region.c))
        if a == 0 or c == 0:
            return 0.0
        snr = self._snr(t, path)
        e = [equivocation(n * snr if n else 0.0) for n in (b, a + b, b + c, a + b + c)]
        if given == "vote":
            near, far = (n * snr if n else 0.0 for n in (b, c))
            e[:2] = voted(near, far)[0], voted(near, far, a * snr)[0]
        # I(A : C | B) = I(s : A | B) - I(s : A | B, C): A and C share s alone; each a fall in what is unknown of s
        return (e[0] - e[1]) - (e[2] - e[3])

    @checks.checked(given=checks.one_of(PLANS))
    def mmse(
        self, t: float, radius: int | None = None, path: NoisePath | None = None, *, given: str | None = None
    ) -> float:
        """``a^2 sum_i M(n_i gamma a^2)``: per image, summed over pixels, in squared pixel units; ``given`` a plan, one
        of :data:`PLANS`, the vote that of all pixels."""
        snr, pixels = self._snr(t, path), int(self.carriers.sum())

        def error(n: int) -> float:
            if given is None:
                return bit_error(n * snr)
            return 0.0 if given == "mode" else voted(n * snr, (pixels - n) * snr if n < pixels else 0.0)[1]

        shared = sum(k * error(n) for n, k in self._window_sizes(radius).items())
        return self.amplitude**2 * (shared + int((~self.carriers).sum()) * bit_error(snr))

    def potential(self, t: float, radius: int, path: NoisePath | None = None) -> float:
        """``F_r(t)`` of the module docstring; finite at t = 0 too."""
        snr = self._snr(t, path)
        pixels = int(self.carriers.sum())
        local = sum(k * equivocation(n * snr) / n for n, k in self._window_sizes(radius).items())
        return equivocation(pixels * snr) - local

    def _snr(self, t: float, path: NoisePath | None) -> float:
        """``gamma a^2``, infinite at sigma = 0."""
        alpha, sigma = noise_level(t, path)
        return math.inf if sigma == 0 else (alpha * self.amplitude / sigma) ** 2

    def _window_sizes(self, radius: int | None) -> Counter[int]:
        """How many carriers have a window with n carriers in it, themselves included."""
        shared = self.carriers.reshape(-1)
        if radius is None:
            pixels = int(shared.sum())
            return Counter({pixels: pixels})
        sizes: Counter[int] = Counter()
        for group in windows(self.shape, radius):
            sizes.update(shared[group.indices].sum(1)[shared[group.pixels]].tolist())
        return sizes

    def __repr__(self) -> str:
        some = "" if bool(self.carriers.all()) else f", {int(self.carriers.sum())} carriers"
        return f"TwoMode({self.shape}, amplitude={self.amplitude}{some})"


class TwoModeDenoiser(Denoiser):
    """The exact posterior mean of a :class:`TwoMode`, global or windowed; float64 inside, dtype of ``x_t`` outside."""

    carriers: Tensor

    def __init__(self, model: TwoMode, radius: int | None = None, path: NoisePath | None = None) -> None:
        super().__init__(model.image_shape, path, radius)
        self.amplitude = model.amplitude
        self.register_buffer("carriers", model.carriers.clone())

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        """(B, 1, H, W), t a float or (B,) -> (B, 1, H, W)."""
        x = check_images(x_t, self.image_shape)
        s = as_time(t, x)
        alpha, sigma = self.path.alpha(s), self.path.sigma(s)
        # a pixel that shares nothing is read off itself alone
        total = torch.where(self.carriers, self._window_sum(x * self.carriers), x)
        clean = (sigma == 0).expand_as(total)
        h = alpha * self.amplitude * total / torch.where(sigma == 0, torch.ones_like(sigma), sigma) ** 2
        return (self.amplitude * torch.where(clean, total.sign(), torch.tanh(h))).to(x_t.dtype)

    def _window_sum(self, x: Tensor) -> Tensor:
        if self.radius is None:
            return x.sum(dim=(2, 3), keepdim=True).expand_as(x)
        r = self.radius
        column = torch.ones(1, 1, 2 * r + 1, 1, dtype=x.dtype, device=x.device)
        summed = torch.nn.functional.conv2d(x, column, padding=(r, 0))
        return torch.nn.functional.conv2d(summed, column.transpose(2, 3), padding=(0, r))


def equivocation(kappa: float) -> float:
    """``H(s | h)`` in nats for ``h ~ N(s kappa, kappa)``: log 2 at kappa = 0, 0 at infinity."""
    h, mass = _half_line(kappa)
    decay = np.exp(-2 * h)
    entropy = 0.5 * np.exp(h) * (1 + decay) * np.log1p(decay) + h * np.exp(-h)  # cosh(h) H_2(sigmoid(2h))
    return float((mass * entropy).sum())


def bit_error(kappa: float) -> float:
    """``E (s - tanh h)^2`` for ``h ~ N(s kappa, kappa)``: 1 at kappa = 0, 0 at infinity."""
    h, mass = _half_line(kappa)
    return float((mass / np.cosh(h)).sum())


def voted(near: float, far: float, more: float = 0.0) -> tuple[float, float]:
    """``H(s | h, S)`` in nats and ``E (s - E[s | h, S])^2``: h of kappa ``near``, S the sign of it and of unseen pixels
    of kappa ``far`` together, and ``more`` the kappa of pixels that are seen and have no vote."""
    if not all(k >= 0 for k in (near, far, more)):
        raise PhasewiseError(f"kappas are signal-to-noise ratios, >= 0, got {near!r}, {far!r} and {more!r}")
    if math.isinf(near + far + more) or near + far == 0:  # nothing is unknown, or nobody votes
        return equivocation(near + far + more), bit_error(near + far + more)
    alone = equivocation(near + more), bit_error(near + more)
    if far == 0 or max(alone) < 1e-15:  # the vote is known already, or tells nothing more
        return alone
    z, mass = _normal(min(0.05, 0.25 / math.sqrt(near), 0.25 * math.sqrt(far / near)) if near else 9.0)
    w, share = _normal(min(0.05, 0.25 / math.sqrt(more)) if more else 9.0)
    h = near + math.sqrt(near) * z[:, None]  # given s = 1
    beside, weight = more + math.sqrt(more) * w[None, :], mass[:, None] * share[None, :]
    entropy, error = 0.0, 0.0
    for vote in (1.0, -1.0):
        likely, unlikely = (torch.special.log_ndtr(vote * (h + s * far) / math.sqrt(far)) for s in (1.0, -1.0))
        odds = 2 * (h + beside) + likely - unlikely
        chance = weight * likely.exp()
        # -log of the posterior of the true s, averaged, and E (1 - tanh)^2 at s = 1: both by symmetry for either s
        entropy += float((chance * torch.nn.functional.softplus(-odds)).sum())
        error += float((chance * (1 - torch.tanh(odds / 2)) ** 2).sum())
    return entropy, error


def _normal(step: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the trapezoidal rule for a standard normal; a step of 9 is for what is never noisy."""
    z = torch.linspace(-9, 9, 2 * min(math.ceil(9 / step), 8000) + 1, dtype=torch.float64)
    mass = torch.exp(-(z**2) / 2)
    return z, mass / mass.sum()


def _half_line(kappa: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes h >= 0 and weights such that ``sum(mass * f(h)) = e^{-kappa/2} int N(h; 0, kappa) f(h) dh``, f even."""
    if not kappa >= 0:
        raise PhasewiseError(f"kappa is a signal-to-noise ratio, >= 0, got {kappa!r}")
    if kappa == 0 or math.isinf(kappa):
        return np.zeros(1), np.full(1, 1.0 if kappa == 0 else 0.0)
    width = math.sqrt(kappa)
    step = 0.1 * min(1.0, width)
    h = step * np.arange(math.ceil(min(12 * width, 50.0) / step) + 1)
    mass = 2 * step * np.exp(-(h**2) / (2 * kappa) - kappa / 2) / (width * math.sqrt(2 * math.pi))
    mass[0] /= 2
    return h, mass
