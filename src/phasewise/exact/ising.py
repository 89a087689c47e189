r"""Ising models with +-1 pixels: posteriors by message passing, information as a Monte Carlo average of exact terms.

``p(s) ~ exp(beta sum_<ij> s_i s_j + field sum_i s_i)`` over nearest neighbours, free boundaries, ``X_0 = s``; a
``field`` other than 0 breaks the symmetry of the two signs.  A noisy pixel
``x = alpha s + sigma z`` acts as a field ``f = alpha x / sigma^2`` on its spin; given s, ``f ~ N(gamma s, gamma)`` with
gamma = alpha^2/sigma^2.  Posteriors given any set of noisy pixels are exact (:mod:`phasewise.exact.transfer`).

Given x_B (and x_C), x_A is a mixture over the clean states of A with exactly known weights q, so::

    I(A : C | B) = h(A|B) - h(A|B,C) = E_{x_B, x_C} KL( sum_s q(s|x_B,x_C) N(f; gamma s, gamma)
                                                     || sum_s q(s|x_B)     N(f; gamma s, gamma) )

averaged over samples of the model.  On an anisotropic path whose noise is a free field, a chain's noise is a Markov
chain as the spins are, and densities of any set of pixels come from one forward pass over (s_i, x_i)::

    p(x_j, s_j | x_i, s_i) = P^(j-i)(s_j | s_i) N(x_j - alpha s_j; c (x_i - alpha s_i), v),   c = S_ij / S_ii

For one pixel the inner KL is a one-dimensional quadrature, so every term is
exact and non-negative; for larger blocks x_A is drawn again ``REDRAWS`` times from the first mixture.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.exact.base import (
    Center,
    ClassTerms,
    ExactModel,
    Regions,
    Shape,
    averaged,
    check_images,
    check_radius_or_zero,
    check_shape,
    noise_level,
    regions,
)
from phasewise.exact.transfer import RowChain
from phasewise.paths import ModePath, NoisePath, Time, as_time, isotropic
from phasewise.results import Estimate

MAX_WIDTH = 10
MAX_BLOCK_PIXELS = 4
MAX_SNR = 1000.0  # beyond it a spin is known to float64 precision, and fields of infinite size are avoided
REDRAWS = 16
CHUNK = 512
NOISE_STREAM = 1  # of a seed, beside the one its clean images come from


class IsingModel(ExactModel):
    """What the chain and the strip share. ``_engine`` runs over the rows of a grid; ``_transposed`` lays the image
    (1, 1, L) of a chain on an L x 1 grid."""

    def __init__(self, shape: Shape, beta: float, transposed: bool, field: float = 0.0) -> None:
        self.image_shape = check_shape(shape)
        self.beta, self.field = float(beta), float(field)
        self._transposed = transposed
        height, width = self.shape
        rows = (width, height) if transposed else (height, width)
        self._engine = RowChain(*rows, self.beta, self.field)

    @checks.checked(n=checks.count, seed=checks.seed)
    def sample(self, n: int, seed: int) -> Tensor:
        """Independent perfect samples (n, 1, H, W) float32 of +-1; uniforms from numpy's default generator."""
        uniforms = np.random.default_rng(seed).random((n, self._engine.height))
        return self._grid(self._engine.sample(torch.from_numpy(uniforms))).float()[:, None]

    def denoiser(self, radius: int | None = None, path: NoisePath | None = None) -> IsingDenoiser:
        """The exact posterior mean given the whole noisy image, or each pixel's noisy window."""
        return IsingDenoiser(self, radius, path)

    def posterior_mean(self, fields: Tensor, radius: int | None = None) -> Tensor:
        """``E[s | fields]`` (B, H, W) for fields ``alpha x / sigma^2`` (B, H, W) float64; 0 = not observed."""
        grid = self._grid(fields)
        return self._grid(self._engine.means(grid) if radius is None else self._engine.windowed_means(grid, radius))

    @checks.checked(n=checks.count, seed=checks.seed)
    def cmi(
        self,
        t: float,
        radius: int,
        block: int = 1,
        center: Center | None = None,
        path: NoisePath | None = None,
        n: int = 2048,
        seed: int = 0,
    ) -> Estimate:
        """``I(A : C | B)`` at time t in nats: the mean over ``n`` samples of exact terms, with its standard error.

        A may hold at most four pixels (2 x 2, or 1 x 4 on a chain).  Exactly 0 when C is empty.
        """
        region = regions(self.shape, radius, block, center)
        if len(region.a) > MAX_BLOCK_PIXELS:
            raise PhasewiseError(
                f"a block of {len(region.a)} pixels is too large here; at most {MAX_BLOCK_PIXELS} are allowed"
            )
        gamma = self._snr(t, path)
        if len(region.c) == 0:
            return Estimate(0.0, 0.0, n, seed=seed)
        fields, rng = self._observed(gamma, n, seed)
        q_near, q_far = self._block_posteriors(fields, region)
        if len(region.a) == 1:
            terms = _pixel_kl(q_far, q_near, gamma)
        else:
            terms = _block_kl(q_far, q_near, gamma, len(region.a), rng)
        return averaged(terms, seed)

    @checks.checked(n=checks.count, seed=checks.seed)
    def class_terms(
        self,
        t: float,
        radius: int,
        center: Center | None = None,
        path: NoisePath | None = None,
        n: int = 2048,
        seed: int = 0,
    ) -> ClassTerms:
        """What the sign of the magnetisation, S, has to do with locality at one pixel A: means over ``n`` samples.

        Every term is exact given its sample: the joint posterior of S and of A's spin comes from messages that also
        count the spins that are up (:meth:`RowChain.signed_spin_weights`).  Raises :class:`PhasewiseError` for an even
        number of pixels, whose magnetisation may be 0.
        """
        if self.shape[0] * self.shape[1] % 2 == 0:
            raise PhasewiseError(
                f"the magnetisation of {self.shape[0] * self.shape[1]} spins may be 0 and has no sign then; take an "
                "odd number of pixels"
            )
        region, gamma = regions(self.shape, radius, 1, center), self._snr(t, path)
        fields, _ = self._observed(gamma, n, seed)
        seen = {"b": region.b, "bc": torch.cat([region.b, region.c])}
        seen |= {f"a{name}": torch.cat([region.a, pixels]) for name, pixels in seen.items()}
        joint = {name: self._signed_posterior(fields, pixels, int(region.a)) for name, pixels in seen.items()}
        return _class_terms(joint, gamma, seed)

    def _signed_posterior(self, fields: Tensor, seen: Tensor, pixel: int) -> Tensor:
        """(n, 2, 2): posterior of the spin at flat place ``pixel`` (axis 1: -1, +1) and of S, given those ``seen``."""
        mask = torch.zeros(self.shape[0] * self.shape[1], dtype=torch.float64)
        mask[seen] = 1
        grid = self._grid(fields * mask.reshape(self.shape))
        row, col = divmod(pixel, self.shape[1])
        at = (col, row) if self._transposed else (row, col)
        weights = torch.cat([self._engine.signed_spin_weights(f, *at) for f in grid.split(CHUNK)])
        return weights / weights.sum((1, 2), keepdim=True)

    @checks.checked(n=checks.count, seed=checks.seed)
    def mmse(
        self, t: float, radius: int | None = None, path: NoisePath | None = None, n: int = 2048, seed: int = 0
    ) -> Estimate:
        """``E|D_radius - X_0|^2`` per image: the mean over noisy samples of ``sum_i (1 - D_i^2)``."""
        return averaged((1 - self._means(t, radius, path, n, seed) ** 2).sum((1, 2)), seed, "squared pixel units")

    @checks.checked(n=checks.count, seed=checks.seed)
    def denoising_gap(
        self, t: float, radius: int, path: NoisePath | None = None, n: int = 2048, seed: int = 0
    ) -> Estimate:
        """``E|D - D_radius|^2`` per image; the same as ``mmse_r - mmse`` by orthogonality."""
        difference = self._means(t, None, path, n, seed) - self._means(t, radius, path, n, seed)
        return averaged((difference**2).sum((1, 2)), seed, "squared pixel units")

    def _means(self, t: float, radius: int | None, path: NoisePath | None, n: int, seed: int) -> Tensor:
        gamma = self._snr(t, path)
        if radius is not None:
            check_radius_or_zero(radius)
        fields, _ = self._observed(gamma, n, seed)
        return torch.cat([self.posterior_mean(part, radius) for part in fields.split(CHUNK)])

    def _observed(self, gamma: float, n: int, seed: int) -> tuple[Tensor, np.random.Generator]:
        """Fields (n, H, W) of ``n`` noisy images, and the stream of their noise, to draw on from."""
        rng = np.random.default_rng([seed, NOISE_STREAM])
        spins = self.sample(n, seed)[:, 0].double()
        # given s, f = alpha x / sigma^2 has mean gamma s and variance gamma
        return gamma * spins + math.sqrt(gamma) * torch.from_numpy(rng.standard_normal(spins.shape)), rng

    def _block_posteriors(self, fields: Tensor, region: Regions) -> tuple[Tensor, Tensor]:
        """(q(s_A | x_B), q(s_A | x_B, x_C)), each (n, 2^k)."""
        near = torch.zeros(self.shape[0] * self.shape[1], dtype=torch.float64)
        near[region.b] = 1
        far = near.clone()
        far[region.c] = 1
        block = self._grid(torch.zeros_like(near).index_fill(0, region.a, 1).reshape(1, *self.shape))[0].nonzero()
        rows, cols = (range(int(block[:, k].min()), int(block[:, k].max()) + 1) for k in (0, 1))
        out = []
        for mask in (near, far):
            grid = self._grid(fields * mask.reshape(self.shape))
            out.append(torch.cat([self._engine.block_posterior(f, rows, cols) for f in grid.split(CHUNK)]))
        return out[0], out[1]

    def _snr(self, t: float, path: NoisePath | None) -> float:
        alpha, sigma = noise_level(t, path)
        return MAX_SNR if sigma == 0 else min((alpha / sigma) ** 2, MAX_SNR)

    def _grid(self, images: Tensor) -> Tensor:
        """Between image (B, H, W) and engine grid; its own inverse."""
        return images.transpose(1, 2) if self._transposed else images


class IsingChain(IsingModel):
    """A free chain of ``length`` spins, image shape (1, 1, length): ``E s_i s_j = tanh(beta)^|i-j|`` if field is 0."""

    @checks.checked(length=checks.count, beta=checks.number, field=checks.number)
    def __init__(self, length: int, beta: float, field: float = 0.0) -> None:
        super().__init__((1, length), beta, transposed=True, field=field)

    @checks.checked(n=checks.count, seed=checks.seed)
    def cmi(
        self,
        t: float,
        radius: int,
        block: int = 1,
        center: Center | None = None,
        path: NoisePath | None = None,
        n: int = 2048,
        seed: int = 0,
    ) -> Estimate:
        """As of all Ising models; on an anisotropic path whose noise is a Markov chain the mean of exact log densities,
        a block of any size.

        Raises :class:`PhasewiseError` where it is none: take ``ModePath((1, length), power=1, mass=...)``.
        """
        if not isinstance(path, ModePath):
            return super().cmi(t, radius, block, center, path, n, seed)
        hidden = ColouredChain(self, path, t)
        region = regions(self.shape, radius, block, center)
        if len(region.c) == 0:
            return Estimate(0.0, 0.0, n, seed=seed)
        x = hidden.draw(n, seed)
        a, b, c = (set(r.tolist()) for r in (region.a, region.b, region.c))
        told, near = hidden.log_density(x, a | b | c) - hidden.log_density(x, b | c), a | b
        return averaged(told - hidden.log_density(x, near) + hidden.log_density(x, b), seed)

    def __repr__(self) -> str:
        return f"IsingChain({self.shape[1]}, beta={self.beta}{_in_field(self.field)})"


class ColouredChain:
    """A chain at time t of an anisotropic path whose noise is a Markov chain too: draws, densities of any pixels."""

    def __init__(self, chain: IsingChain, path: ModePath, t: float) -> None:
        path.check_side(chain.shape)
        signal, self.noise = path.matrices(t)
        length = chain.shape[1]
        self.alpha = float(signal[0, 0])
        plain = bool(torch.allclose(signal, self.alpha * torch.eye(length, dtype=torch.float64), atol=1e-9))
        precision = torch.linalg.inv(self.noise)
        beyond = torch.triu(precision, 2).abs().max() if length > 2 else precision.new_zeros(())
        if not plain or chain.field or float(beyond) > 1e-6 * float(precision.abs().max()):
            raise PhasewiseError(
                "a chain on an anisotropic path is exact without a field, where its noise is a Markov chain and the "
                "image is not blurred: ModePath((1, length), power=1, mass=...)"
            )
        self.chain, self.length = chain, length
        self.root = torch.linalg.cholesky(self.noise)

    def draw(self, n: int, seed: int) -> Tensor:
        """``n`` noisy chains (n, length) float64."""
        rng = np.random.default_rng([seed, NOISE_STREAM])
        spins = self.chain.sample(n, seed)[:, 0, 0].double()
        return self.alpha * spins + torch.from_numpy(rng.standard_normal((n, self.length))) @ self.root.T

    def log_density(self, x: Tensor, pixels: set[int]) -> Tensor:
        """(n,): log p(x on ``pixels``), nats; 0 of none."""
        total = x.new_zeros(len(x))
        noise = x[:, :, None] - self.alpha * torch.tensor([-1.0, 1.0], dtype=torch.float64)  # (n, length, s)
        last: int | None = None
        message = x.new_full((len(x), 2), 0.5)
        for j in sorted(pixels):
            if last is None:
                weight = message * _normal(noise[:, j], self.noise[j, j])
            else:
                kept = math.tanh(self.chain.beta) ** (j - last)
                turn = torch.tensor([[1 + kept, 1 - kept], [1 - kept, 1 + kept]], dtype=torch.float64) / 2
                drift = self.noise[last, j] / self.noise[last, last]
                spread = self.noise[j, j] - drift * self.noise[last, j]
                step = turn * _normal(noise[:, j, None, :] - drift * noise[:, last, :, None], spread)
                weight = (message[:, :, None] * step).sum(1)
            scale = weight.sum(1, keepdim=True).clamp_min(1e-300)
            message, total, last = weight / scale, total + scale[:, 0].log(), j
        return total


class IsingStrip(IsingModel):
    """A free ``height x width`` grid, ``width <= 10`` (the transfer matrix has ``2^width`` states), any height."""

    @checks.checked(height=checks.count, width=checks.count, beta=checks.number, field=checks.number)
    def __init__(self, height: int, width: int, beta: float, field: float = 0.0) -> None:
        check_shape((height, width))
        if width > MAX_WIDTH:
            raise PhasewiseError(f"a strip of width {width} needs 2^{width} states; take width <= {MAX_WIDTH}")
        super().__init__((height, width), beta, transposed=False, field=field)

    def __repr__(self) -> str:
        return f"IsingStrip({self.shape[0]}, {self.shape[1]}, beta={self.beta}{_in_field(self.field)})"


class IsingDenoiser(Denoiser):
    """The exact posterior mean of an Ising model; float64 inside, on the CPU; returned like ``x_t``."""

    def __init__(self, model: IsingModel, radius: int | None = None, path: NoisePath | None = None) -> None:
        super().__init__(model.image_shape, path, radius)
        isotropic(self.path, "the posterior mean of an Ising model")
        self._model = model

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        """(B, 1, H, W), t a float or (B,) -> (B, 1, H, W)."""
        x = check_images(x_t, self.image_shape).cpu()[:, 0]
        s = as_time(t.cpu() if isinstance(t, Tensor) else t, x)
        alpha, sigma = self.path.alpha(s), self.path.sigma(s)
        fields = alpha * x / torch.where(sigma == 0, torch.ones_like(sigma), sigma) ** 2
        means = self._model.posterior_mean(fields, self.radius)
        return torch.where((sigma == 0).expand_as(x), x / alpha, means)[:, None].to(x_t)


def _in_field(field: float) -> str:
    return f", field={field}" if field else ""


def _normal(x: Tensor, variance: Tensor) -> Tensor:
    """Density of a centred normal number."""
    return torch.exp(-(x**2) / (2 * variance)) / torch.sqrt(2 * math.pi * variance)


def _pixel_kl(q: Tensor, p: Tensor, gamma: float) -> Tensor:
    """``KL(sum_s q_s N(gamma s, gamma) || sum_s p_s N(gamma s, gamma))`` (n,) for one spin; columns: s = -1, +1.

    The trapezoidal rule on +-9 standard deviations: the integrand is analytic with its nearest pole pi/2 away in f.
    """
    nodes = 2 * math.ceil(9 / min(0.25, 0.5 / math.sqrt(max(gamma, 1e-12)))) + 1
    z = torch.linspace(-9, 9, min(nodes, 801), dtype=torch.float64)
    mass = torch.exp(-(z**2) / 2)
    mass = mass / mass.sum()
    total = torch.zeros(len(q), dtype=torch.float64)
    for column, sign in enumerate((-1.0, 1.0)):
        f = gamma * sign + math.sqrt(gamma) * z
        # N(f; gamma s, gamma) is e^{s f} times what does not depend on s, and cancels
        ratio = _log_mixture(q, f) - _log_mixture(p, f)
        total = total + q[:, column] * (ratio @ mass)
    return total


def _class_terms(joint: dict[str, Tensor], gamma: float, seed: int) -> ClassTerms:
    """From the posteriors (n, 2, 2) of spin and class given B, BC, AB and ABC."""
    near, far = joint["b"], joint["bc"]
    terms = {name: torch.zeros(len(near), dtype=torch.float64) for name in ("given", "near", "far", "gap_given")}
    for k in (0, 1):
        q_near, q_far = _of_class(near, k), _of_class(far, k)
        share_near, share_far = near[:, :, k].sum(1), far[:, :, k].sum(1)
        terms["given"] += share_far * _pixel_kl(q_far, q_near, gamma)
        terms["near"] += share_near * _pixel_kl(q_near, near.sum(2), gamma)
        terms["far"] += share_far * _pixel_kl(q_far, far.sum(2), gamma)
        means = [_of_class(joint[name], k) @ torch.tensor([-1.0, 1.0], dtype=torch.float64) for name in ("abc", "ab")]
        terms["gap_given"] += joint["abc"][:, :, k].sum(1) * (means[0] - means[1]).square()
    spins = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    gap = ((joint["abc"].sum(2) - joint["ab"].sum(2)) @ spins).square()
    return ClassTerms(
        cmi=averaged(_pixel_kl(far.sum(2), near.sum(2), gamma), seed),
        **{name: averaged(terms[name], seed) for name in ("given", "near", "far")},
        gap=averaged(gap, seed, "squared pixel units"),
        gap_given=averaged(terms["gap_given"], seed, "squared pixel units"),
        agreement=averaged(joint["abc"].sum(1).square().sum(1), seed, "share"),
    )


def _of_class(joint: Tensor, k: int) -> Tensor:
    """(n, 2): the spin's posterior given that the class is number ``k``; even where that class has no chance."""
    part = joint[:, :, k]
    total = part.sum(1, keepdim=True)
    return torch.where(
        total > 0, part / torch.where(total > 0, total, torch.ones_like(total)), torch.full_like(part, 0.5)
    )


def _log_mixture(q: Tensor, f: Tensor) -> Tensor:
    """``log sum_s q_s e^{s f}``, (n, 2) and (M,) -> (n, M)."""
    log_q = q.log()
    return torch.logaddexp(log_q[:, :1] - f, log_q[:, 1:] + f)


def _block_kl(q: Tensor, p: Tensor, gamma: float, k: int, rng: np.random.Generator) -> Tensor:
    """Unbiased estimates (n,) of the same KL for k spins, from ``REDRAWS`` draws each of the first mixture."""
    spins = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=k)), dtype=torch.float64)  # (2^k, k)
    uniforms = torch.from_numpy(rng.random((len(q), REDRAWS)))
    state = torch.searchsorted(q.cumsum(1), uniforms, right=True).clamp(max=len(spins) - 1)
    z = torch.from_numpy(rng.standard_normal((len(q), REDRAWS, k)))
    exponent = (gamma * spins[state] + math.sqrt(gamma) * z) @ spins.T  # (n, REDRAWS, 2^k)
    log_q, log_p = (torch.logsumexp(exponent + w.log()[:, None, :], -1) for w in (q, p))
    return (log_q - log_p).mean(1)
