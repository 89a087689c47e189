r"""What every denoiser is: a module that maps ``(x_t, t)`` to the posterior mean ``E[x | x_t]``.

Networks are preconditioned from the data's mean ``m`` and standard deviation ``s`` so that they learn a
unit-variance residual at every noise level (Karras et al. 2022, arXiv 2206.00364, eq. 7, for a general path)::

    v_t    = alpha^2 s^2 + sigma^2                       variance of x_t
    D(x_t) = m + (alpha s^2 / v_t) (x_t - alpha m)  +  (s sigma / sqrt(v_t)) F((x_t - alpha m) / sqrt(v_t), log-SNR)

At t = 0 this is the identity and at t = 1 the mean plus what F adds; F sees and predicts numbers of order one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from phasewise.errors import PhasewiseError
from phasewise.paths import LinearPath, NoisePath, Time, as_time
from phasewise.shapes import ImageShape, check_image_shape


class Denoiser(nn.Module, ABC):
    """``denoiser(x_t, t, cond=None) -> posterior mean``.

    x_t: (B, C, H, W) float; t: a float or (B,), in [0, 1] on ``self.path``; returns (B, C, H, W) in pixel units.

    Attributes:
        radius: receptive field in pixels (max-norm), or None when the whole image is seen.
        path: the Gaussian path whose ``x_t`` and ``t`` this denoiser speaks.
        image_shape: (C, H, W).
    """

    def __init__(self, image_shape: ImageShape, path: NoisePath | None = None, radius: int | None = None) -> None:
        super().__init__()
        self.image_shape = check_image_shape(image_shape)
        self.path = LinearPath() if path is None else path
        self.radius = radius if radius is None else check_radius(radius, self.image_shape)

    @abstractmethod
    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor: ...

    def member_at(self, t: float) -> Denoiser:
        """The denoiser that serves a sampling step starting at time t: itself, unless it is a hybrid."""
        return self

    def pixel_moments(self) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation per channel, (C,) each, of the pixels it was made for; None where it is not known
        or was not fitted yet."""
        return None

    @property
    def jumps(self) -> bool:
        """Whether :meth:`jump` knows a closed form."""
        return False

    @property
    def device(self) -> torch.device:
        """Where its weights are; the CPU for one without any."""
        return next((w.device for w in (*self.parameters(), *self.buffers())), torch.device("cpu"))

    def jump(self, x_t: Tensor, t: float, s: float) -> Tensor | None:
        """``x_s`` on this denoiser's own probability-flow ODE from ``x_t``, exactly, where a closed form is known; else
        None, and a solver approximates it."""
        return None

    def config(self) -> dict[str, Any]:
        """JSON-ready constructor arguments (without weights)."""
        raise PhasewiseError(f"{type(self).__name__} cannot be saved")


class NetworkDenoiser(Denoiser):
    """A preconditioned network. Subclasses give ``backbone(h, log_snr) -> F``: (B,C,H,W), (B,) -> (B,C,H,W).

    ``data_mean`` and ``data_std`` (per channel, pixel units) are set once by :meth:`fit_moments`, before training.
    """

    data_mean: Tensor
    data_std: Tensor

    def __init__(self, image_shape: ImageShape, path: NoisePath | None = None, radius: int | None = None) -> None:
        super().__init__(image_shape, path, radius)
        channels = self.image_shape[0]
        self.register_buffer("data_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("data_std", torch.ones(1, channels, 1, 1))

    @abstractmethod
    def backbone(self, h: Tensor, log_snr: Tensor) -> Tensor: ...

    def fit_moments(self, images: Tensor) -> None:
        """Take mean and standard deviation per channel from training images (N, C, H, W)."""
        if tuple(images.shape[1:]) != self.image_shape:
            raise PhasewiseError(
                f"images of shape {tuple(images.shape[1:])} do not fit a denoiser for {self.image_shape}"
            )
        std, mean = torch.std_mean(images.float(), dim=(0, 2, 3), keepdim=True, correction=0)
        if not bool(torch.isfinite(std).all()):
            raise PhasewiseError("the training images hold NaN or infinite pixels; leave those images out")
        if not bool((std > 0).all()):
            raise PhasewiseError("a channel of the training images is constant; drop it or check the data")
        self.data_mean.copy_(mean)
        self.data_std.copy_(std)

    def pixel_moments(self) -> tuple[Tensor, Tensor] | None:
        mean, std = self.data_mean.flatten().cpu(), self.data_std.flatten().cpu()
        untouched = bool((mean == 0).all() and (std == 1).all())
        return None if untouched else (mean, std)

    def precondition(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(alpha, sqrt(v_t), sigma) broadcast to (1 or B, C, 1, 1)."""
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        return alpha, torch.sqrt((alpha * self.data_std) ** 2 + sigma**2), sigma

    def residual(self, x_t: Tensor, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """(F, c_out, skip): the network's raw output, its factor, and the closed-form part; D = skip + c_out F."""
        if tuple(x_t.shape[1:]) != self.image_shape:
            raise PhasewiseError(f"x_t has shape {tuple(x_t.shape)}; this denoiser takes (B, *{self.image_shape})")
        return self.residual_at(x_t, as_time(t, x_t))

    def residual_at(self, x_t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """:meth:`residual` at times ``s`` that are known to be right, of shape () or (B, 1, 1, 1)."""
        alpha, root_v, sigma = self.precondition(s)
        h = (x_t - alpha * self.data_mean) / root_v
        log_snr = relative_log_snr(self.path, s, x_t.shape[0], self.data_std.mean())
        out = self.backbone(h, log_snr).to(x_t.dtype)
        skip = self.data_mean + alpha * self.data_std**2 / root_v * h
        return out, self.data_std * sigma / root_v, skip

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        out, c_out, skip = self.residual(x_t, t)
        return skip + c_out * out


def relative_log_snr(path: NoisePath, s: Tensor, batch: int, data_std: Tensor) -> Tensor:
    """log-SNR relative to the data variance, clamped to [-12, 12], shape (batch,)."""
    value = path.log_snr(s) + 2 * data_std.log()
    return value.clamp(-12, 12).reshape(-1).expand(batch)


def check_radius(radius: int, shape: ImageShape) -> int:
    """``radius`` if 1 <= radius < max(H, W); a larger window sees the whole image already."""
    if isinstance(radius, bool) or not isinstance(radius, Real) or not float(radius).is_integer() or radius < 1:
        raise PhasewiseError(f"radius must be a whole number of pixels >= 1, got {radius!r}")
    largest = max(shape[1:]) - 1
    if radius > largest:
        raise PhasewiseError(
            f"radius {radius} is larger than the image: at {shape[1]}x{shape[2]} the largest is {largest}"
        )
    return int(radius)
