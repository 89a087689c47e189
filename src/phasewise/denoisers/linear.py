r"""Wiener denoisers: the best linear denoiser for data of mean ``m`` and covariance ``K``, in closed form.

Global::      D(x_t) = m + alpha K (alpha^2 K + sigma^2 I)^-1 (x_t - alpha m)
Windowed::    D_r(x_t)_i = m_i + alpha K_iN (alpha^2 K_NN + sigma^2 I)^-1 (x_t - alpha m)_N,   N = N_r(i)

Exact for Gaussian data; for other data the optimum among linear denoisers, and nearly free.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.memory import in_parts, mean_and_covariance, mean_and_variance
from phasewise.paths import ModePath, NoisePath, Time, a_path, as_scale, as_time, isotropic
from phasewise.shapes import ImageShape
from phasewise.work import Work, covariance_work

LARGEST_DENSE = 4096
LARGEST_FULL = 2048
"""Numbers in an image up to which all eigenvectors are kept: beyond, they cost what a small network does."""
USUAL_RANK = 256
"""Of those beyond.  On CIFAR-10 its loss is that of 512 from t = .3 on, at half the cost; below, networks serve."""
TRIED_ROWS, PRODUCTS = 64, 12
"""Images that a product of the low-rank fit is tried on; and how many such products it takes, about."""
CACHE_NUMBERS = 1 << 26
"""Numbers kept in windowed filters, all times together: 256 MB of float32."""


class WienerDenoiser(Denoiser):
    """Closed-form linear denoiser, global (``radius=None``) or windowed.

    Build it with :meth:`fit`.  Global: one matrix product with the eigenvectors each way, at any t.  Windowed: one
    matrix per t (the last used are kept), zero outside the window.

    Args:
        image_shape: (C, H, W).  radius: window in pixels (max-norm; all channels of a pixel are in it), or None.
        rank: number of eigenvectors kept (global only); the rest share their mean variance.
    """

    mean: Tensor
    eigenvalues: Tensor
    eigenvectors: Tensor
    rest: Tensor

    @checks.checked(rank=checks.integer)
    def __init__(
        self, image_shape: ImageShape, radius: int | None = None, rank: int | None = None, path: NoisePath | None = None
    ) -> None:
        super().__init__(image_shape, path, radius)
        channels, height, width = self.image_shape
        size = channels * height * width
        self.rank = size if rank is None else int(rank)
        if not 1 <= self.rank <= size or (radius is not None and self.rank != size):
            raise PhasewiseError(f"rank must lie in 1..{size}, and a windowed Wiener denoiser needs full rank")
        if radius is not None and size > LARGEST_DENSE:
            raise PhasewiseError(
                f"a windowed Wiener denoiser stores a {size} x {size} matrix per time; images of at most "
                f"{LARGEST_DENSE} numbers are supported (use the global one, which is low-rank there)"
            )
        if self.path.modes is not None and self.rank < size:
            raise PhasewiseError(
                f"on an anisotropic path a Wiener denoiser keeps all eigenvectors, {LARGEST_DENSE} at most, and was "
                f"asked for {self.rank} of {size}; use smaller images, or an isotropic path"
            )
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("eigenvalues", torch.ones(self.rank))
        self.register_buffer("eigenvectors", torch.eye(size, self.rank))
        self.register_buffer("rest", torch.zeros(()))
        self._matrices: dict[float, Tensor] = {}

    @classmethod
    @checks.checked(images=checks.images, radius=checks.count, rank=checks.integer, path=a_path)
    def fit(
        cls, images: Tensor, radius: int | None = None, rank: int | None = None, path: NoisePath | None = None
    ) -> WienerDenoiser:
        """Mean and covariance of training images (N, C, H, W).  Above 2048 numbers an image the rank is cut to 256,
        unless it is given, or the denoiser is windowed, or its path anisotropic, which take all up to 4096."""
        n = images.shape[0]
        flat = images.reshape(n, -1)
        size = flat.shape[1]
        if n < 2:
            raise PhasewiseError("need at least 2 images to fit a covariance")
        if rank is None and (path is None or path.modes is None or size > LARGEST_DENSE):
            rank = usual_rank(size, radius, n)
        if rank is not None and rank < size and rank > n:
            raise PhasewiseError(f"rank {rank} needs at least as many images; there are {n}")
        shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
        self = cls(shape, radius, rank, path).to(images.device)
        if by_covariance(size, self.rank, n):
            mean, covariance = mean_and_covariance(flat)
            total = covariance.trace()
            values, vectors = torch.linalg.eigh(covariance)  # K = V diag(values) V^T, ascending
            if self.rank < size:
                values, vectors = values[-self.rank :].flip(0), vectors[:, -self.rank :].flip(1)
        else:
            flat = flat.to(torch.float64, copy=True)
            mean = flat.mean(0)
            flat -= mean
            total = torch.stack([part.square().sum() for part in in_parts(flat)]).sum() / n
            # svd_lowrank draws from the global state
            with torch.random.fork_rng([flat.device] if flat.is_cuda else []):
                torch.manual_seed(0)
                # oversampled, with power iterations (Halko et al. 2011, arXiv 0909.4061)
                _, s, v = torch.svd_lowrank(flat, q=min(self.rank + 16, *flat.shape), niter=4)
            values, vectors = s[: self.rank].square() / n, v[:, : self.rank]
        self.mean.copy_(mean)
        self.eigenvalues.copy_(values.clamp_min(0))
        self.eigenvectors.copy_(vectors)
        if self.rank < size:
            # variance outside the kept directions, shared equally
            self.rest.copy_((total - values.sum()).clamp_min(0) / (size - self.rank))
        return self

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        if tuple(x_t.shape[1:]) != self.image_shape:
            raise PhasewiseError(f"x_t has shape {tuple(x_t.shape)}; this denoiser takes (B, *{self.image_shape})")
        s = as_time(t, x_t)
        if self.radius is not None or self.path.modes is not None:
            # a number stays one: a GPU is not asked for it
            return self._windowed(x_t, s, None if isinstance(t, Tensor) else float(torch.tensor(t, dtype=x_t.dtype)))
        mean, values, vectors = (b.to(x_t.dtype) for b in (self.mean, self.eigenvalues, self.eigenvectors))
        alpha, sigma = self.path.alpha(s).reshape(-1, 1), self.path.sigma(s).reshape(-1, 1)
        centred = x_t.flatten(1) - alpha * mean
        rest = _gain(alpha, sigma, self.rest.to(x_t.dtype))
        # rest I + V (gain - rest) V^T: the directions that were not kept need no basis
        gain = _gain(alpha, sigma, values) - rest
        out = mean + rest * centred + ((centred @ vectors) * gain) @ vectors.T
        return out.view_as(x_t)

    def pixel_moments(self) -> tuple[Tensor, Tensor] | None:
        mean, values, vectors = (b.double().cpu() for b in (self.mean, self.eigenvalues, self.eigenvectors))
        if bool((mean == 0).all() and (values == 1).all()):
            return None
        kept = vectors.square()
        # diagonal of V diag(values) V^T + rest (I - V V^T)
        variance = kept @ values + (1 - kept.sum(1)) * self.rest.double().cpu()
        channels = self.image_shape[0]
        per_channel = mean.view(channels, -1)
        # law of total variance: within pixels and between them
        total = variance.view(channels, -1).mean(1) + per_channel.var(1, correction=0)
        return per_channel.mean(1).float(), total.clamp(min=0).sqrt().float()

    def wrong_state(self) -> str | None:
        fine = bool((self.eigenvalues >= 0).all()) and float(self.rest) >= 0
        return None if fine else "a variance is below 0"

    @property
    def jumps(self) -> bool:
        # a windowed filter is no posterior mean of one Gaussian
        return self.radius is None and self.path.modes is None

    def jump(self, x_t: Tensor, t: float, s: float, cond: Tensor | None = None) -> Tensor | None:
        """The Gaussian flow: each eigen-coordinate moves by the ratio of its standard deviations at s and t,
        ``sqrt((alpha_s^2 v + sigma_s^2) / (alpha_t^2 v + sigma_t^2))``.  None for a windowed filter."""
        if not self.jumps:
            return None
        mean, values, basis = self.mean.double(), self.eigenvalues.double(), self.eigenvectors.to(x_t.dtype)
        at, to = torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
        a_t, s_t, a_s, s_s = self.path.alpha(at), self.path.sigma(at), self.path.alpha(to), self.path.sigma(to)

        def ratio(v: Tensor) -> Tensor:
            return ((a_s**2 * v + s_s**2) / (a_t**2 * v + s_t**2)).sqrt()

        rest = ratio(self.rest.double())
        gain = (ratio(values) - rest).to(x_t.dtype)
        centred = x_t.flatten(1) - (a_t * mean).to(x_t.dtype)
        moved = rest.to(x_t.dtype) * centred + ((centred @ basis) * gain) @ basis.T
        return ((a_s * mean).to(x_t.dtype) + moved).view_as(x_t)

    def _windowed(self, x_t: Tensor, s: Tensor, known: float | None) -> Tensor:
        mean = self.mean.to(x_t.dtype)
        signal = mean.view(1, *self.image_shape)
        if self.path.modes is None:
            signal = as_scale(self.path.alpha(s), x_t) * signal
        else:  # what of the mean is in x_t
            signal = signal.expand(s.numel(), -1, -1, -1)
            signal = self.path.add_noise(signal, torch.zeros_like(signal), s.reshape(-1))
        centred = (x_t - signal).flatten(1)
        times = s.reshape(-1)
        if times.numel() == 1:
            time = float(times) if known is None else known
            return (mean + centred @ self.matrix(time).to(x_t.dtype)).view_as(x_t)
        out = torch.empty_like(centred)
        for t in times.unique():
            rows = times == t
            out[rows] = mean + centred[rows] @ self.matrix(float(t)).to(x_t.dtype)
        return out.view_as(x_t)

    def matrix(self, t: float) -> Tensor:
        """The windowed filter at time t as (inputs, outputs), exactly zero outside the window; on an anisotropic path
        the global one, too."""
        if t not in self._matrices:
            if len(self._matrices) >= max(1, CACHE_NUMBERS // self.mean.numel() ** 2):
                self._matrices.pop(next(iter(self._matrices)))
            with torch.inference_mode(False):  # kept: an ordinary tensor, fit for gradients too
                self._matrices[t] = self._solve(t)
        return self._matrices[t].to(self.mean.device)

    def _solve(self, t: float) -> Tensor:
        vectors = self.eigenvectors.double()
        covariance = (vectors * self.eigenvalues.double()) @ vectors.T
        noisy, cross = self._seen(covariance, t)
        if self.radius is None:
            return torch.linalg.solve(noisy, cross).float()
        channels, height, width = self.image_shape
        matrix = torch.zeros_like(covariance)
        plane = torch.arange(channels, device=matrix.device)[:, None] * height * width
        for row in range(height):
            for column in range(width):
                near = _window(row, column, int(self.radius or 0), height, width).to(matrix.device)
                near = (plane + near).reshape(-1)
                here = (plane + row * width + column).reshape(-1)
                # normal equations of pixel i's best guess from its window
                solved = torch.linalg.solve(noisy[near][:, near], cross[near][:, here])
                matrix[near[:, None], here[None, :]] = solved
        return matrix.float()

    def _seen(self, covariance: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Covariances of x_t, and of x_t with the image, (inputs, outputs) float64."""
        ridge = 1e-10 * self.eigenvalues.double().max()  # at sigma = 0 a covariance may be singular
        s = torch.tensor(t, dtype=torch.float64, device=covariance.device)
        if isinstance(self.path, ModePath):
            channels = torch.eye(self.image_shape[0], dtype=torch.float64)
            signal, noise = (torch.kron(channels, m).to(covariance.device) for m in self.path.matrices(s))
            cross = signal @ covariance
            noisy = cross @ signal.T + noise
            noisy.diagonal().add_(ridge)
            return noisy, cross
        alpha, sigma = self.path.alpha(s), self.path.sigma(s)
        noisy = alpha**2 * covariance
        noisy.diagonal().add_(sigma**2 + ridge)
        return noisy, alpha * covariance

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._matrices = {}  # they are on the old device
        return super()._apply(fn, recurse)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._matrices = {}  # they follow from the old moments
        return super().load_state_dict(*args, **kwargs)

    def config(self) -> dict[str, Any]:
        return {
            "image_shape": list(self.image_shape),
            "radius": self.radius,
            "rank": self.rank,
            "path": self.path.config(),
        }


def wiener_work(image_shape: ImageShape, n: int) -> list[Work]:
    """What :meth:`WienerDenoiser.fit` of ``n`` images (C, H, W) takes, in pieces that can be tried."""
    size = math.prod(image_shape)
    rank = usual_rank(size, None, n) or size
    if by_covariance(size, rank, n):
        return covariance_work(n, size)
    rows, basis = (torch.ones(k, m, dtype=torch.float64) for k, m in ((TRIED_ROWS, size), (size, rank)))
    return [Work(lambda: rows @ basis, PRODUCTS * n / TRIED_ROWS)]


class PixelDenoiser(Denoiser):
    """Best linear guess of each number of an image from itself alone, by its own mean and variance: next to no cost.

    ``D_i = m_i + alpha v_i (x_i - alpha m_i) / (alpha^2 v_i + sigma^2)``: the data mean at alpha = 0, where that is the
    posterior mean of everybody, and the input, ``x_t / alpha``, at sigma = 0.  ``radius`` is 0.
    """

    mean: Tensor
    variance: Tensor

    @checks.checked(image_shape=checks.image_shape, path=a_path)
    def __init__(self, image_shape: ImageShape, path: NoisePath | None = None) -> None:
        super().__init__(image_shape, path, 0)
        isotropic(self.path, "what a pixel says of itself alone")
        self.register_buffer("mean", torch.zeros(self.image_shape))
        self.register_buffer("variance", torch.ones(self.image_shape))
        self.flops_per_image = 5 * self.mean.numel()  # two products, two sums and alpha m, for each number

    @classmethod
    @checks.checked(images=checks.images, path=a_path)
    def fit(cls, images: Tensor, path: NoisePath | None = None) -> PixelDenoiser:
        """Mean and variance of every pixel of training images (N, C, H, W); PhasewiseError for fewer than 2."""
        if len(images) < 2:
            raise PhasewiseError("need at least 2 images to fit a variance")
        shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
        self = cls(shape, path).to(images.device)
        mean, variance = mean_and_variance(images)
        self.mean.copy_(mean)
        self.variance.copy_(variance)
        return self

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        if tuple(x_t.shape[1:]) != self.image_shape:
            raise PhasewiseError(f"x_t has shape {tuple(x_t.shape)}; this denoiser takes (B, *{self.image_shape})")
        s = as_time(t, x_t)
        alpha, sigma = as_scale(self.path.alpha(s), x_t), as_scale(self.path.sigma(s), x_t)
        mean, variance = self.mean.to(x_t.dtype), self.variance.to(x_t.dtype)
        return mean + _gain(alpha, sigma, variance) * (x_t - alpha * mean)

    def pixel_moments(self) -> tuple[Tensor, Tensor] | None:
        mean, variance = self.mean.double().cpu().flatten(1), self.variance.double().cpu().flatten(1)
        if bool((mean == 0).all() and (variance == 1).all()):
            return None
        total = variance.mean(1) + mean.var(1, correction=0)  # within pixels and between them
        return mean.mean(1).float(), total.sqrt().float()

    def wrong_state(self) -> str | None:
        return None if bool((self.variance >= 0).all()) else "a variance is below 0"

    def config(self) -> dict[str, Any]:
        return {"image_shape": list(self.image_shape), "path": self.path.config()}


def usual_rank(size: int, radius: int | None, n: int | None = None) -> int | None:
    """Rank that a fit to ``n`` images of ``size`` numbers is cut to; None for the full one."""
    if size <= LARGEST_FULL or radius is not None:
        return None
    return USUAL_RANK if n is None else min(USUAL_RANK, n - 1)


def by_covariance(size: int, rank: int, n: int) -> bool:
    """Whether a fit of ``rank`` to ``n`` images of ``size`` numbers takes the eigenvectors of their covariance, without
    a copy of the images.  Where they are few, or large, their leading directions are found by products with them."""
    return rank == size or (size <= LARGEST_DENSE and n > size // 2)


def _gain(alpha: Tensor, sigma: Tensor, variance: Tensor) -> Tensor:
    """``alpha v / (alpha^2 v + sigma^2)``; at sigma = 0 the limit 1/alpha, also for v = 0."""
    total = alpha**2 * variance + sigma**2
    return torch.where(total > 0, alpha * variance / total.clamp_min(1e-38), 1 / alpha.clamp_min(1e-38))


def _window(row: int, column: int, radius: int, height: int, width: int) -> Tensor:
    rows = torch.arange(max(row - radius, 0), min(row + radius + 1, height))
    columns = torch.arange(max(column - radius, 0), min(column + radius + 1, width))
    return (rows[:, None] * width + columns).reshape(-1)
