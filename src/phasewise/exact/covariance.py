"""A covariance of pixels, its spectrum and its blocks on windows: what the Gaussian model and its denoisers rest on."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from phasewise.errors import PhasewiseError
from phasewise.exact.base import Shape, WindowGroup, check_shape, noise_time, windows
from phasewise.paths import ModePath


class PixelCovariance:
    """A covariance over the N = H * W pixels of an (H, W) image.

    Args:
        matrix: (N, N) symmetric positive semi-definite; kept in float64.
        shape: (H, W).
        wrap: close both axes into rings for windows (off: they are clipped at the border).
    """

    def __init__(self, matrix: Tensor, shape: Shape, wrap: bool = False) -> None:
        self.image_shape = check_shape(shape)
        n = self.image_shape[1] * self.image_shape[2]
        k = torch.as_tensor(matrix).detach().to("cpu", torch.float64)
        if tuple(k.shape) != (n, n):
            raise PhasewiseError(f"a {shape[0]}x{shape[1]} image needs a covariance of {n}x{n}, got {tuple(k.shape)}")
        if not bool(torch.isfinite(k).all()) or float((k - k.T).abs().max()) > 1e-8 * float(k.abs().max()):
            raise PhasewiseError("the covariance must be finite and symmetric; symmetrise it as (K + K.T) / 2")
        self.matrix = (k + k.T) / 2
        self.wrap = wrap

    @property
    def shape(self) -> Shape:
        """(H, W)."""
        return self.image_shape[1:]

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (N,) >= 0, ascending, and eigenvectors (N, N) in columns."""
        values, vectors = torch.linalg.eigh(self.matrix)
        if float(values[0]) < -1e-8 * float(values[-1]) or float(values[-1]) <= 0:
            raise PhasewiseError("the covariance has a negative eigenvalue (or is 0), so it is no covariance")
        return values.clamp(min=0), vectors

    @cached_property
    def stationary(self) -> bool:
        """Whether it depends on displacements on the torus only: equal windows then share one solution."""
        k = self.matrix.reshape(*self.shape, *self.shape)
        tolerance = 1e-12 * float(k.abs().max())
        return all(float((k - k.roll((1, 1), axes)).abs().max()) <= tolerance for axes in ((0, 2), (1, 3)))

    def windows(self, radius: int | None) -> list[WindowGroup]:
        """Windows ``N_radius`` of all pixels, grouped by form."""
        return windows(self.shape, radius, self.wrap)

    def within(self, group: WindowGroup) -> Tensor:
        """Covariances (g, m, m) of the group's windows, or (1, m, m), that of all of them, where it is stationary."""
        indices = group.indices[:1] if self.stationary else group.indices
        return self.matrix[indices[:, :, None], indices[:, None, :]]

    def seen(self, path: ModePath, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """On an anisotropic path at time t: (A, K_t, A K), each (N, N), with ``x_t = A x + noise``, ``K_t = A K A^T +
        S`` the covariance of x_t, and A K its covariance with the image, rows x_t."""
        path.check_side(self.shape)
        signal, noise = path.matrices(noise_time(t, "noise time t"))
        cross = signal @ self.matrix
        return signal, cross @ signal.T + noise, cross

    def filters(self, noisy: Tensor, cross: Tensor, radius: int | None) -> Tensor:
        """(N, N): the weights of the best linear guess of each pixel, a row, from x_t on its window."""
        if radius is None:
            return torch.linalg.solve(noisy, cross).T
        out = torch.zeros_like(noisy)
        for group in self.windows(radius):
            seen = group.indices
            of_window = noisy[seen[:, :, None], seen[:, None, :]]
            weights = torch.linalg.solve(of_window, cross[seen, group.pixels[:, None]])
            out[group.pixels[:, None], seen] = weights
        return out
