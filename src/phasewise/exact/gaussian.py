r"""Gaussian fields: every quantity is closed form.

``X_0 ~ N(m, K)``, so ``X_t ~ N(alpha m, K_t)`` with ``K_t = alpha^2 K + sigma^2 I``, and::

    D(x)              = m + alpha K K_t^{-1} (x - alpha m)                       (Wiener filter)
    I(A : C | B)      = 1/2 log( det Var(A|B) / det Var(A|B,C) )                 (Schur complements of K_t)
    mmse_r(t)         = sum_i sum_j (u^i_j)^2 l^i_j sigma^2 / (alpha^2 l^i_j + sigma^2)

where ``l^i_j`` are the eigenvalues of K on the window ``N_r(i)`` and ``u^i_j`` the components of its eigenvectors at
pixel i.  Since ``1/2 int mmse d gamma`` can then be done by hand, so can the path KL of using D_r instead of D,

    K_r = 1/2 int (mmse_r - mmse) d gamma = F_r(t_min) - F_r(t_max),
    F_r(t) = 1/2 sum_i sum_j (u^i_j)^2 log(alpha^2 l^i_j + sigma^2) - 1/2 log det K_t,

which stays finite at t = 0 when K is invertible.  All linear algebra is float64.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.exact.base import Center, ClosedForm, Shape, check_shape, noise_level, regions
from phasewise.exact.covariance import PixelCovariance
from phasewise.exact.wiener import GaussianDenoiser
from phasewise.paths import ModePath, NoisePath


def gaussian_cmi(covariance: Tensor, a: Tensor, b: Tensor, c: Tensor) -> float:
    """``I(A : C | B)`` in nats of a centred Gaussian with positive definite ``covariance`` (N, N); a, b, c are
    disjoint index tensors (b, c may be empty).  ``1/2 log det Var(A|B) - 1/2 log det Var(A|B,C)``."""
    if a.numel() == 0 or c.numel() == 0:
        return 0.0
    return 0.5 * (_conditional_logdet(covariance, a, b) - _conditional_logdet(covariance, a, torch.cat([b, c])))


def _conditional_logdet(covariance: Tensor, a: Tensor, given: Tensor) -> float:
    """``log det Var(A | given)``: the last pivots of the Cholesky factor of (given, A)."""
    order = torch.cat([given, a])
    matrix = covariance[order][:, order]
    factor, info = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal()
    # of a singular matrix a pivot is what rounding leaves, of either sign: which, depends on the processor
    rounding = 10 * len(order) * torch.finfo(matrix.dtype).eps * matrix.diagonal()
    if int(info) != 0 or bool((pivots.square() <= rounding).any()):
        raise PhasewiseError("the covariance is singular here, so the information is not finite; take t > 0")
    return 2 * float(pivots[given.numel() :].log().sum())


class GaussianModel(ClosedForm):
    """A Gaussian with any covariance on an (H, W) image.

    Args:
        covariance: (N, N) symmetric positive semi-definite, N = H * W; kept in float64.
        shape: (H, W).
        mean: a number or (N,) tensor.
        wrap: close both axes into rings for windows and regions (off: they are clipped at the border).
    """

    @checks.checked(covariance=checks.tensor, wrap=checks.flag)
    def __init__(self, covariance: Tensor, shape: Shape, mean: float | Tensor = 0.0, wrap: bool = False) -> None:
        self.pixels = PixelCovariance(covariance, shape, wrap)
        self.image_shape = self.pixels.image_shape
        try:
            self.mean = torch.as_tensor(mean, dtype=torch.float64).expand(len(self.covariance)).clone()
        except (TypeError, ValueError, RuntimeError) as error:
            wanted = f"a number, or a tensor ({len(self.covariance)},)"
            raise PhasewiseError(f"mean must be {wanted}, got {checks.shown(mean)}") from error
        self._rows: dict[int | None, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def covariance(self) -> Tensor:
        """(N, N) float64."""
        return self.pixels.matrix

    @property
    def wrap(self) -> bool:
        return self.pixels.wrap

    @checks.checked(n=checks.count, seed=checks.seed)
    def sample(self, n: int, seed: int) -> Tensor:
        """``m + K^{1/2} z`` with the symmetric root, (n, 1, H, W) float32; z from numpy's default generator."""
        values, vectors = self.pixels.spectrum
        z = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, len(values))))
        x = self.mean + ((z @ vectors) * values.sqrt()) @ vectors.T
        return x.float().reshape(n, *self.image_shape)

    def denoiser(self, radius: int | None = None, path: NoisePath | None = None) -> GaussianDenoiser:
        """The exact (windowed) posterior mean: linear in x_t."""
        return GaussianDenoiser(self.pixels, self.mean, radius, path)

    def cmi(
        self, t: float, radius: int, block: int = 1, center: Center | None = None, path: NoisePath | None = None
    ) -> float:
        """``I(A : C | B)`` at time t in nats; 0 when C is empty.

        Raises :class:`PhasewiseError` at sigma = 0 if the covariance is singular (the massless field): take t > 0.
        """
        region = regions(self.shape, radius, block, center, self.wrap)
        return gaussian_cmi(self.noisy_covariance(t, path), region.a, region.b, region.c)

    def noisy_covariance(self, t: float, path: NoisePath | None = None) -> Tensor:
        """``K_t = alpha^2 K + sigma^2 I``, (N, N) float64; on an anisotropic path ``A K A^T + S``."""
        if isinstance(path, ModePath):
            return self.pixels.seen(path, t)[1]
        alpha, sigma = noise_level(t, path)
        return alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.covariance), dtype=torch.float64)

    def mmse(self, t: float, radius: int | None = None, path: NoisePath | None = None) -> float:
        """``E|D_radius(X_t, t) - X_0|^2`` per image, summed over pixels, in squared pixel units."""
        if isinstance(path, ModePath):
            _, noisy, cross = self.pixels.seen(path, t)
            weights = self.pixels.filters(noisy, cross, radius)
            return float(self.covariance.trace() - (weights * cross.T).sum())
        alpha, sigma = noise_level(t, path)
        count, values, weights = self._window_spectra(radius)
        if sigma == 0:
            return 0.0
        # each eigenmode of a window is a Gaussian of its own, seen through noise
        return float((count[:, None] * weights * values * sigma**2 / (alpha**2 * values + sigma**2)).sum())

    def potential(self, t: float, radius: int, path: NoisePath | None = None) -> float:
        """``F_r(t)`` of the module docstring.  Raises :class:`PhasewiseError` where it is infinite."""
        alpha, sigma = noise_level(t, path)
        total = 0.0
        for sign, r in ((0.5, radius), (-0.5, None)):
            count, values, weights = self._window_spectra(r)
            power = alpha**2 * values + sigma**2
            if float(power.min()) <= 0 or (sigma == 0 and float(values.min()) < 1e-12 * float(values.max())):
                raise PhasewiseError(
                    "the covariance is singular, so the path KL down to t = 0 is infinite; raise t_min"
                )
            total += sign * float((count[:, None] * weights * power.log()).sum())
        return total

    def _window_spectra(self, radius: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """(multiplicity (k,), eigenvalues (k, m), squared components at the pixel (k, m)) of the distinct windows.

        Windows smaller than the largest are filled up with eigenvalue 1 at weight 0.
        """
        if radius is None:
            values = self.pixels.spectrum[0][None]
            return torch.ones(1, dtype=torch.float64), values, torch.ones_like(values)
        if radius not in self._rows:
            counts, eigenvalues, weights = [], [], []
            for group in self.pixels.windows(radius):
                k = self.pixels.within(group)
                values, vectors = torch.linalg.eigh(k)
                counts.append(torch.full((len(k),), len(group.pixels) / len(k), dtype=torch.float64))
                eigenvalues.append(values.clamp(min=0))
                weights.append(vectors[:, group.position, :] ** 2)
            widest = max(v.shape[1] for v in eigenvalues)
            self._rows[radius] = (torch.cat(counts), _widen(eigenvalues, widest, 1.0), _widen(weights, widest, 0.0))
        return self._rows[radius]


def _widen(rows: list[Tensor], width: int, value: float) -> Tensor:
    return torch.cat([torch.nn.functional.pad(r, (0, width - r.shape[1]), value=value) for r in rows])


class GaussianField(GaussianModel):
    r"""The free lattice field of a given mass, scaled to unit variance.

    ``boundary="torus"``: covariance with the lattice spectrum ``1 / (mass^2 + 4 - 2 cos kx - 2 cos ky)`` (stationary).
    ``boundary="open"``: the inverse of ``mass^2 + `` the graph Laplacian of the H x W grid, scaled so that the
    variances *average* to one (they are larger at the border).

    The correlation length is about ``1/mass`` pixels.  ``mass = 0`` is the massless limit: the uniform mode, whose
    variance diverges, is dropped, so pixels sum to zero in every image and the covariance has one eigenvalue 0.
    Both fields are Markov at t = 0 (a ring of width one screens), not at t > 0.
    """

    @checks.checked(mass=checks.not_negative)
    def __init__(self, shape: Shape = (28, 28), mass: float = 0.2, boundary: str = "torus") -> None:
        check_shape(shape)
        if not (mass >= 0 and np.isfinite(mass)):
            raise PhasewiseError(f"mass must be a number >= 0, got {mass!r}")
        if boundary not in ("torus", "open"):
            raise PhasewiseError(f'boundary must be "torus" or "open", got {boundary!r}')
        if mass == 0 and shape[0] * shape[1] == 1:
            raise PhasewiseError("a single pixel has no massless field; give a mass > 0 or a larger shape")
        self.mass, self.boundary = float(mass), boundary
        build = _torus_covariance if boundary == "torus" else _open_covariance
        covariance = build(shape, self.mass)
        super().__init__(covariance / covariance.diagonal().mean(), shape)

    def __repr__(self) -> str:
        return f"GaussianField({self.shape}, mass={self.mass}, boundary={self.boundary!r})"


def _inverse(energy: Tensor, mass: float) -> Tensor:
    """``1 / (mass^2 + energy)``; in the massless limit the mode of zero energy (the first) gets 0."""
    out = 1 / (mass**2 + energy)
    if mass == 0:
        out.view(-1)[0] = 0
    return out


def torus_spectrum(shape: Shape, mass: float) -> Tensor:
    """``1 / (mass^2 + 4 - 2 cos kx - 2 cos ky)``, (H, W) float64, mode by mode as numpy and torch number them."""
    energy = [2 - 2 * torch.cos(2 * torch.pi * torch.arange(n, dtype=torch.float64) / n) for n in shape]
    # the lattice Laplacian of a torus is diagonal in the Fourier basis
    return _inverse(energy[0][:, None] + energy[1][None, :], mass)


def _torus_covariance(shape: Shape, mass: float) -> Tensor:
    height, width = shape
    correlation = torch.fft.ifft2(torus_spectrum(shape, mass)).real
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, cols = rows.reshape(-1), cols.reshape(-1)
    return correlation[(rows[:, None] - rows) % height, (cols[:, None] - cols) % width]


def _open_covariance(shape: Shape, mass: float) -> Tensor:
    energy, modes = [], []
    for n in shape:  # the Laplacian of an open chain is diagonal in the cosine basis
        k = torch.arange(n, dtype=torch.float64)
        energy.append(2 - 2 * torch.cos(torch.pi * k / n))
        mode = torch.cos(torch.pi * (k[:, None] + 0.5) * k / n)
        modes.append(mode / mode.norm(dim=0))
    basis = torch.kron(modes[0], modes[1])
    return basis * _inverse(energy[0][:, None] + energy[1][None, :], mass).reshape(-1) @ basis.T
