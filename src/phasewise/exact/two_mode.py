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

A ``bias`` b makes the two signs unlike, ``p(s) ~ e^{b s}``, as a field that breaks the symmetry does: then ``D = a
tanh(h + b)``, and E and M are means over both signs of ``H_2(sigmoid(2(h + b)))`` and ``(s - tanh(h + b))^2``.

On an anisotropic path given s the noise has a covariance S, and a set R knows s through ``kappa = u_R^T S_RR^{-1} u_R``
with u the image a 1 as the path leaves it, and ``h = u_R^T S_RR^{-1} x_R``.  What A and C share beyond s is noise::

    I(A:C|B) = E(B) - E(AB) - E(BC) + E(ABC) + I(A:C|B) of the noise alone,

which is 0 where the noise is a Markov field.

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
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.exact.base import (
    Center,
    ClassTerms,
    ClosedForm,
    Shape,
    check_images,
    check_shape,
    closed,
    noise_level,
    noise_time,
    regions,
    windows,
)
from phasewise.exact.gaussian import gaussian_cmi
from phasewise.paths import ModePath, NoisePath, Time, as_time

PLANS = ("mode", "vote")
"""What a window may be told: s, or the more likely s by all pixels that the plan is read off."""


class TwoMode(ClosedForm):
    """Images that are ``+amplitude`` everywhere or ``-amplitude`` everywhere, shape (H, W).

    ``carriers``, bool (H, W): the pixels of which that holds; the others are +-amplitude independently.  None: all.
    ``bias``: ``p(+) / p(-) = e^{2 bias}``, for the carriers; 0: equal chance.
    """

    @checks.checked(amplitude=checks.positive, bias=checks.number)
    def __init__(
        self,
        shape: Shape = (28, 28),
        amplitude: float = 1.0,
        carriers: Tensor | np.ndarray | None = None,
        bias: float = 0.0,
    ) -> None:
        self.image_shape = check_shape(shape)
        self.amplitude, self.bias = float(amplitude), float(bias)
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
        if self.bias:
            signs = np.where(rng.random(n) < 1 / (1 + math.exp(-2 * self.bias)), 1, -1)
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
        are independent (not of what coloured noise shares); the vote is that of B and C, without A.

        Raises PhasewiseError for the vote where the signs are unlike or the path is anisotropic.
        """
        self._check_vote(given, path)
        if given == "mode" and not isinstance(path, ModePath):
            return 0.0
        region = regions(self.shape, radius, block, center)
        if isinstance(path, ModePath):
            signal, noise = self._law(t, path)
            sets = (
                region.b,
                torch.cat([region.a, region.b]),
                torch.cat([region.b, region.c]),
                torch.arange(len(signal)),
            )
            apart = gaussian_cmi(noise, region.a, region.b, region.c)
            if given == "mode":  # what they share beyond s
                return apart
            e = [equivocation(_known(signal, noise, r), self.bias) for r in sets]
            return (e[0] - e[1]) - (e[2] - e[3]) + apart
        a, b, c = (int(self.carriers.reshape(-1)[r].sum()) for r in (region.a, region.b, region.c))
        if a == 0 or c == 0:
            return 0.0
        snr = self._snr(t, path)
        e = [equivocation(n * snr if n else 0.0, self.bias) for n in (b, a + b, b + c, a + b + c)]
        if given == "vote":
            near, far = (n * snr if n else 0.0 for n in (b, c))
            e[:2] = voted(near, far)[0], voted(near, far, a * snr)[0]
        # I(A : C | B) = I(s : A | B) - I(s : A | B, C): A and C share s alone; each a fall in what is unknown of s
        return (e[0] - e[1]) - (e[2] - e[3])

    def _check_vote(self, given: str | None, path: NoisePath | None) -> None:
        if given == "vote" and (self.bias or isinstance(path, ModePath)):
            raise PhasewiseError("a vote is for equal signs on an isotropic path; take bias=0, or given='mode'")

    def class_terms(
        self, t: float, radius: int, block: int = 1, center: Center | None = None, path: NoisePath | None = None
    ) -> ClassTerms:
        """What the sign s, as a class, has to do with locality; all closed forms.

        Given s the pixels are independent, so ``given`` is 0; two posterior draws agree with chance
        ``1 - M(N gamma a^2) / 2``, which is .774 at ``N gamma a^2 = 1``.
        """
        region, snr = regions(self.shape, radius, block, center), self._snr(t, path)
        shared = self.carriers.reshape(-1)
        a, b, c = (int(shared[r].sum()) for r in (region.a, region.b, region.c))
        at = {n: n * snr if n else 0.0 for n in (b, a + b, b + c, a + b + c)}
        near = equivocation(at[b], self.bias) - equivocation(at[a + b], self.bias)
        far = equivocation(at[b + c], self.bias) - equivocation(at[a + b + c], self.bias)
        gap = self.amplitude**2 * (bit_error(at[a + b], self.bias) - bit_error(at[a + b + c], self.bias)) if a else 0.0
        lone = len(region.a) == 1
        return ClassTerms(
            cmi=closed(near - far), given=closed(0.0), near=closed(near), far=closed(far),
            gap=closed(gap if lone else math.nan, "squared pixel units"),
            gap_given=closed(0.0 if lone else math.nan, "squared pixel units"),
            agreement=closed(1 - bit_error(at[a + b + c], self.bias) / 2, "share"),
        )  # fmt: skip

    @checks.checked(given=checks.one_of(PLANS))
    def mmse(
        self, t: float, radius: int | None = None, path: NoisePath | None = None, *, given: str | None = None
    ) -> float:
        """``a^2 sum_i M(n_i gamma a^2)``: per image, summed over pixels, in squared pixel units; ``given`` a plan, one
        of :data:`PLANS`, the vote that of all pixels.

        Raises PhasewiseError for the vote where the signs are unlike or the path is anisotropic.
        """
        self._check_vote(given, path)
        if isinstance(path, ModePath):
            signal, noise = self._law(t, path)
            if given == "mode":
                return 0.0
            if radius is None:
                return self.amplitude**2 * len(signal) * bit_error(_known(signal, noise), self.bias)
            seen = [row for group in windows(self.shape, radius) for row in group.indices]
            return self.amplitude**2 * sum(bit_error(_known(signal, noise, row), self.bias) for row in seen)
        snr, pixels = self._snr(t, path), int(self.carriers.sum())

        def error(n: int) -> float:
            if given is None:
                return bit_error(n * snr, self.bias)
            return 0.0 if given == "mode" else voted(n * snr, (pixels - n) * snr if n < pixels else 0.0)[1]

        shared = sum(k * error(n) for n, k in self._window_sizes(radius).items())
        return self.amplitude**2 * (shared + int((~self.carriers).sum()) * bit_error(snr))

    def potential(self, t: float, radius: int, path: NoisePath | None = None) -> float:
        """``F_r(t)`` of the module docstring; finite at t = 0 too."""
        snr = self._snr(t, path)
        pixels = int(self.carriers.sum())
        local = sum(k * equivocation(n * snr, self.bias) / n for n, k in self._window_sizes(radius).items())
        return equivocation(pixels * snr, self.bias) - local

    def _snr(self, t: float, path: NoisePath | None) -> float:
        """``gamma a^2``, infinite at sigma = 0."""
        alpha, sigma = noise_level(t, path)
        return math.inf if sigma == 0 else (alpha * self.amplitude / sigma) ** 2

    def _law(self, t: float, path: ModePath) -> tuple[Tensor, Tensor]:
        """(u, S) of the module docstring, (N,) and (N, N); PhasewiseError at sigma = 0, and where some do not share."""
        path.check_side(self.shape)
        if not bool(self.carriers.all()):
            raise PhasewiseError("on an anisotropic path all pixels are carriers; leave carriers out")
        if noise_time(t, "noise time t") == 0:
            raise PhasewiseError("without noise all is known on an anisotropic path too; take t > 0")
        signal, noise = path.matrices(t)
        return self.amplitude * signal.sum(1), noise

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
        some += f", bias={self.bias}" if self.bias else ""
        return f"TwoMode({self.shape}, amplitude={self.amplitude}{some})"


class TwoModeDenoiser(Denoiser):
    """The exact posterior mean of a :class:`TwoMode`, global or windowed; float64 inside, dtype of ``x_t`` outside."""

    carriers: Tensor

    def __init__(self, model: TwoMode, radius: int | None = None, path: NoisePath | None = None) -> None:
        super().__init__(model.image_shape, path, radius)
        self.amplitude, self.bias, self._model = model.amplitude, model.bias, model
        self.register_buffer("carriers", model.carriers.clone())

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        """(B, 1, H, W), t a float or (B,) -> (B, 1, H, W)."""
        x = check_images(x_t, self.image_shape)
        s = as_time(t, x)
        if isinstance(self.path, ModePath):
            return (self.amplitude * torch.tanh(self._told(x, s) + self.bias)).to(x_t.dtype)
        alpha, sigma = self.path.alpha(s), self.path.sigma(s)
        # a pixel that shares nothing is read off itself alone
        total = torch.where(self.carriers, self._window_sum(x * self.carriers), x)
        clean = (sigma == 0).expand_as(total)
        h = alpha * self.amplitude * total / torch.where(sigma == 0, torch.ones_like(sigma), sigma) ** 2
        return (self.amplitude * torch.where(clean, total.sign(), torch.tanh(h + self.bias))).to(x_t.dtype)

    def _told(self, x: Tensor, s: Tensor) -> Tensor:
        """``h`` of every pixel's window on an anisotropic path, (B, 1, H, W)."""
        out, path = torch.empty_like(x), self.path
        assert isinstance(path, ModePath)
        times = s.reshape(-1).expand(len(x))
        for time in times.unique():
            signal, noise = self._model._law(float(time), path)
            weights = torch.zeros_like(noise)
            if self.radius is None:
                weights[:] = torch.linalg.solve(noise, signal)
            else:
                for group in windows(self.image_shape[1:], self.radius):
                    seen = group.indices
                    solved = torch.linalg.solve(noise[seen[:, :, None], seen[:, None, :]], signal[seen][..., None])
                    weights[group.pixels[:, None], seen] = solved[..., 0]
            rows = times == time
            out[rows] = (x[rows].flatten(1) @ weights.T.to(x.device)).view(-1, *self.image_shape)
        return out

    def _window_sum(self, x: Tensor) -> Tensor:
        if self.radius is None:
            return x.sum(dim=(2, 3), keepdim=True).expand_as(x)
        r = self.radius
        column = torch.ones(1, 1, 2 * r + 1, 1, dtype=x.dtype, device=x.device)
        summed = torch.nn.functional.conv2d(x, column, padding=(r, 0))
        return torch.nn.functional.conv2d(summed, column.transpose(2, 3), padding=(0, r))


def _known(signal: Tensor, noise: Tensor, pixels: Tensor | None = None) -> float:
    """``u_R^T S_RR^{-1} u_R`` of the pixels R, all of them where None."""
    if pixels is not None:
        signal, noise = signal[pixels], noise[pixels][:, pixels]
    return float(signal @ torch.linalg.solve(noise, signal)) if len(signal) else 0.0


def equivocation(kappa: float, bias: float = 0.0) -> float:
    """``H(s | h)`` in nats for ``h ~ N(s kappa, kappa)``, ``p(s) ~ e^{bias s}``: that of s at kappa = 0 (log 2 without
    bias), 0 at infinity."""
    if bias:
        # -log p(s | h) = log(1 + e^{-2 s (h + bias)})
        return _mean(kappa, bias, lambda sign, h: np.logaddexp(0, -2 * sign * (h + bias)))
    h, mass = _half_line(kappa)
    decay = np.exp(-2 * h)
    entropy = 0.5 * np.exp(h) * (1 + decay) * np.log1p(decay) + h * np.exp(-h)  # cosh(h) H_2(sigmoid(2h))
    return float((mass * entropy).sum())


def bit_error(kappa: float, bias: float = 0.0) -> float:
    """``E (s - tanh(h + bias))^2`` for ``h ~ N(s kappa, kappa)``, ``p(s) ~ e^{bias s}``: without bias 1 at kappa = 0; 0
    at infinity."""
    if bias:
        return _mean(kappa, bias, lambda sign, h: (sign - np.tanh(h + bias)) ** 2)
    h, mass = _half_line(kappa)
    return float((mass / np.cosh(h)).sum())


def _mean(kappa: float, bias: float, of: Callable[[float, np.ndarray], np.ndarray]) -> float:
    """The mean over ``p(s) ~ e^{bias s}`` and ``h ~ N(s kappa, kappa)``, by the trapezoidal rule."""
    if not kappa >= 0:
        raise PhasewiseError(f"kappa is a signal-to-noise ratio, >= 0, got {kappa!r}")
    if math.isinf(kappa):
        return 0.0
    total, width = 0.0, math.sqrt(kappa)
    nodes = max(2 * math.ceil(12 * width / 0.1) + 1, 241)
    z = np.linspace(-12, 12, min(nodes, 200_001))
    mass = np.exp(-(z**2) / 2)
    for sign in (-1.0, 1.0):
        share = 1 / (1 + math.exp(-2 * sign * bias))
        total += share * float((mass / mass.sum() * of(sign, sign * kappa + width * z)).sum())
    return total


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
