r"""What every network is: a preconditioned denoiser, whose raw output has unit variance at every noise level.

Networks are preconditioned from the data's mean ``m`` and standard deviation ``s`` so that they learn a
unit-variance residual at every noise level (Karras et al. 2022, arXiv 2206.00364, eq. 7, for a general path)::

    v_t    = alpha^2 s^2 + sigma^2                       variance of x_t
    D(x_t) = m + (alpha s^2 / v_t) (x_t - alpha m)  +  (s sigma / sqrt(v_t)) F((x_t - alpha m) / sqrt(v_t), log-SNR)

At t = 0 this is the identity and at t = 1 the mean plus what F adds; F sees and predicts numbers of order one.  The
first two terms are the best linear guess for pixels taken alone, and ``s sigma / sqrt(v_t)`` is the error it leaves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers.base import Denoiser, as_rows, check_radius
from phasewise.denoisers.trust import on_trust
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath, Time, as_time
from phasewise.shapes import ImageShape, check_image_shape


class NetworkDenoiser(Denoiser):
    """A preconditioned network. Subclasses give ``backbone(h, log_snr) -> F``: (B,C,H,W), (B,) -> (B,C,H,W).

    With ``classes`` = K it takes a condition, the class label of each image, (B,) from 0 to K - 1, and its
    ``backbone(h, log_snr, labels)`` gets them as int64.  A subclass that takes another kind of condition answers
    :attr:`takes_condition` itself and says in :meth:`labels_of` what its backbone is told.

    ``data_mean`` and ``data_std`` (per channel, pixel units) are set once by :meth:`fit_moments`, before training.
    """

    data_mean: Tensor
    data_std: Tensor

    @checks.checked(classes=checks.count)
    def __init__(
        self,
        image_shape: ImageShape,
        path: NoisePath | None = None,
        radius: int | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__(
            image_shape, path, None if radius is None else check_radius(radius, check_image_shape(image_shape))
        )
        channels = self.image_shape[0]
        self.register_buffer("data_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("data_std", torch.ones(1, channels, 1, 1))
        self.classes = classes

    @abstractmethod
    def backbone(self, h: Tensor, log_snr: Tensor) -> Tensor: ...

    @property
    def takes_condition(self) -> bool:
        return self.classes is not None

    def labels_of(self, cond: Tensor | None, x_t: Tensor) -> Tensor | None:
        """What the backbone is told of ``cond``: labels (B,) int64 beside ``x_t``, or None for one without classes.

        Raises PhasewiseError where labels are missing, no whole numbers, of another number, or not in 0..K-1.
        """
        if self.classes is None:
            return None
        if cond is None:
            raise PhasewiseError(
                f"this {type(self).__name__} needs a class label of each image (0 to {self.classes - 1}): pass cond, "
                "or bind one with .given(cond)"
            )
        labels = as_rows(cond, len(x_t))
        if not on_trust():  # looked at where they lie, before they are moved
            self.check_condition(labels)
        return labels.to(x_t.device).long()

    def check_condition(self, cond: Tensor) -> None:
        if self.classes is None:
            return
        known = f"0 to {self.classes - 1}"
        if cond.dim() != 1 or cond.is_floating_point():
            raise PhasewiseError(
                f"class labels must be whole numbers ({known}) of shape ({len(cond)},); got {cond.dtype} of shape "
                f"{tuple(cond.shape)}"
            )
        if not bool(((cond >= 0) & (cond < self.classes)).all()):
            raise PhasewiseError(f"class labels must lie in {known}; got {int(cond.min())} to {int(cond.max())}")

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

    def wrong_state(self) -> str | None:
        return None if bool((self.data_std > 0).all()) else "data_std, a standard deviation, is not above 0"

    def precondition(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(alpha, sqrt(v_t), sigma) broadcast to (1 or B, C, 1, 1)."""
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        return alpha, torch.sqrt((alpha * self.data_std) ** 2 + sigma**2), sigma

    def output_scale(self, t: Tensor) -> Tensor:
        """``c_out = s sigma / sqrt(v_t)``, (1 or B, C, 1, 1), the factor of F at times of shape () or (B,): the error,
        root mean square in pixel units, of a network that says nothing."""
        _, root_v, sigma = self.precondition(t if t.dim() == 0 else t.reshape(-1, 1, 1, 1))
        return self.data_std * sigma / root_v

    def residual(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(F, c_out, skip): the network's raw output, its factor, and the closed-form part; D = skip + c_out F."""
        if tuple(x_t.shape[1:]) != self.image_shape:
            raise PhasewiseError(f"x_t has shape {tuple(x_t.shape)}; this denoiser takes (B, *{self.image_shape})")
        if x_t.dtype == torch.float64 != self.data_std.dtype:
            raise PhasewiseError("x_t is float64 and the network's weights are not; give x_t.float()")
        return self.residual_at(x_t, as_time(t, x_t), self.labels_of(cond, x_t))

    def residual_at(self, x_t: Tensor, s: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """:meth:`residual` at times ``s``, () or (B, 1, 1, 1), and ``labels``, (B,), that are known to be right."""
        alpha, root_v, sigma = self.precondition(s)
        h = (x_t - alpha * self.data_mean) / root_v  # unit variance
        log_snr = relative_log_snr(self.path, s, x_t.shape[0], self.data_std.mean())
        backbone: Callable[..., Tensor] = self.backbone
        out = (backbone(h, log_snr) if labels is None else backbone(h, log_snr, labels)).to(x_t.dtype)
        # E[x | x_t] of one Gaussian pixel: mean + cov(x, x_t) / var(x_t) * (x_t - alpha mean), in terms of h
        skip = self.data_mean + alpha * self.data_std**2 / root_v * h
        return out, self.data_std * sigma / root_v, skip

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        out, c_out, skip = self.residual(x_t, t, cond)
        return skip + c_out * out


def relative_log_snr(path: NoisePath, s: Tensor, batch: int, data_std: Tensor) -> Tensor:
    """log-SNR relative to the data variance, clamped to [-12, 12], shape (batch,)."""
    value = path.log_snr(s) + 2 * data_std.log()  # log of alpha^2 s^2 / sigma^2
    return value.clamp(-12, 12).reshape(-1).expand(batch)  # the infinite ends at t = 0 and 1 as well
