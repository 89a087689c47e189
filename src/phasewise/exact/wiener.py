r"""The exact denoisers of a Gaussian with covariance K and mean m, global and windowed.

::

    D(x)      = m + alpha K (alpha^2 K + sigma^2 I)^{-1} (x - alpha m)            (Wiener filter)
    D_r(x)_i  = m_i + alpha k_i^T (alpha^2 K_ii + sigma^2 I)^{-1} (x - alpha m)_{N_r(i)}

with ``K_ii`` the covariance of the window ``N_r(i)`` and ``k_i`` its column of pixel i.  At sigma = 0 both are
``x / alpha``.  On an anisotropic path ``x_t = A x + noise`` of covariance S, the same with A for alpha and S for
sigma^2 I.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from phasewise.denoisers.base import Denoiser
from phasewise.exact.base import check_images, noise_level
from phasewise.exact.covariance import PixelCovariance
from phasewise.paths import ModePath, NoisePath, Time, as_time


class GaussianDenoiser(Denoiser):
    """The exact posterior mean of a Gaussian image, of the whole image or of each pixel given its window.

    A linear map per noise level, evaluated in float64 and returned in the dtype of ``x_t``.  The global one is
    applied in the eigenbasis of the covariance; windowed ones solve one system per distinct window and keep the
    weights of the last 64 noise levels.
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor

    def __init__(
        self, pixels: PixelCovariance, mean: Tensor, radius: int | None = None, path: NoisePath | None = None
    ) -> None:
        super().__init__(pixels.image_shape, path, radius)
        self.register_buffer("mean", mean, persistent=False)
        self._weights: OrderedDict[float, Tensor] = OrderedDict()
        self._pixels = pixels
        if isinstance(self.path, ModePath):  # no basis is known to all of its times
            return
        if radius is None:
            values, vectors = pixels.spectrum
            self.register_buffer("values", values, persistent=False)
            self.register_buffer("vectors", vectors, persistent=False)
        else:
            self._groups = pixels.windows(radius)
            self._row = torch.cat([g.pixels[:, None].expand_as(g.indices).reshape(-1) for g in self._groups])
            self._col = torch.cat([g.indices.reshape(-1) for g in self._groups])

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        """(B, 1, H, W), t a float or (B,) -> (B, 1, H, W)."""
        x = check_images(x_t, self.image_shape)
        s = as_time(t, x).reshape(-1, 1)
        if isinstance(self.path, ModePath):
            mean = self.mean.double().expand(len(s), -1).view(-1, *self.image_shape)
            signal = self.path.add_noise(mean, torch.zeros_like(mean), s[:, 0])
            out = self._windowed(x.flatten(1) - signal.flatten(1), s)
            return (out + self.mean.double()).reshape(x.shape).to(x_t.dtype)
        alpha, sigma = self.path.alpha(s), self.path.sigma(s)
        centred = x.reshape(len(x), -1) - alpha * self.mean.double()
        out = self._global(centred, alpha, sigma) if self.radius is None else self._windowed(centred, s)
        return (out + self.mean.double()).reshape(x.shape).to(x_t.dtype)

    def _global(self, centred: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        values, vectors = self.values.double(), self.vectors.double()
        # one gain for each eigenmode; at sigma = 0 all are 1 / alpha, those of variance 0 too
        gain = alpha * values / (alpha**2 * values + sigma**2)
        gain = torch.where(sigma == 0, (1 / alpha).expand_as(gain), gain)
        return ((centred @ vectors) * gain) @ vectors.T

    def _windowed(self, centred: Tensor, s: Tensor) -> Tensor:
        times, member = s.reshape(-1).unique(return_inverse=True)
        if len(times) == 1:
            return centred @ self.matrix(float(times[0])).T.to(centred.device)
        out = torch.empty_like(centred)
        for k, time in enumerate(times.tolist()):
            rows = (member == k).nonzero().reshape(-1)
            out = out.index_copy(0, rows, centred[rows] @ self.matrix(time).T.to(centred.device))
        return out

    def matrix(self, t: float) -> Tensor:
        """The windowed map (N, N) float64 at time t, zero outside the windows: ``D_r = m + M (x_t - alpha m)``; on an
        anisotropic path the global one, too."""
        if t not in self._weights:
            self._weights[t] = self._solve(t)
            if len(self._weights) > 64:
                self._weights.popitem(last=False)
        self._weights.move_to_end(t)
        if isinstance(self.path, ModePath):
            return self._weights[t]
        n = self.mean.numel()
        return torch.zeros(n, n, dtype=torch.float64).index_put((self._row, self._col), self._weights[t])

    def _solve(self, t: float) -> Tensor:
        if isinstance(self.path, ModePath):
            return self._pixels.filters(*self._pixels.seen(self.path, t)[1:], self.radius)
        (alpha, sigma), parts = noise_level(t, self.path), []
        for group in self._groups:
            k = self._pixels.within(group)
            if sigma == 0:
                weights = torch.zeros_like(k[:, 0])
                weights[:, group.position] = 1 / alpha
            else:
                noise = sigma**2 * torch.eye(k.shape[-1], dtype=torch.float64)
                weights = alpha * torch.linalg.solve(alpha**2 * k + noise, k[:, :, group.position])
            parts.append(weights.expand(len(group.indices), -1).reshape(-1))
        return torch.cat(parts)
