r"""A denoiser of small images at work on large ones: its answer on the pooled image, and a closed form for the rest.

The mean over ``f x f`` pixels, P, keeps an image's place on a noise path: ``P x_t = alpha P x + (sigma / f) z'``, z' of
unit variance and white again.  So the pooled image has f^2 times the SNR, at which the small denoiser is asked::

    p = E[P x | P x_t]

What pooling takes away comes back in two parts.  With U, each number repeated f x f times, and m the mean of each
channel, the *lifted* answer adds the best linear guess of the detail from the pooled pixels (A: of each block from the
5 x 5 round it, the same everywhere)::

    L(p) = m + (U + A)(p - m),      P A = 0,  so P L(p) = p

Its error ``e = x - L(P x)`` is uncorrelated with those pooled pixels.  Each pixel of it, of mean square v, follows by
its own best linear guess from the detail of the noisy image, whose noise has variance ``sigma^2 (1 - 1/f^2)``::

    D(x_t) = L(p) + g (1 - U P)(x_t - alpha L(p)),      g = alpha v / (alpha^2 v + sigma^2 (1 - 1/f^2))

At high noise g vanishes and the lifted answer remains: the posterior mean has no other detail there.  At t = 0 all
detail is the input's.  A and v are fitted to images once, in closed form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phasewise import checks
from phasewise.denoisers.base import Denoiser, a_denoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath, Time, a_path, as_scale, as_time, isotropic, translate
from phasewise.shapes import ImageShape, check_image_shape

REACH = 2
"""Pooled pixels to each side from which a block's detail is guessed."""
RIDGE = 1e-6
"""Of the pooled pixels' mean square, added to their covariance."""
FITTED = 10_000
"""Images that a lift is fitted to, at most: it has few numbers."""
factor_kind = checks.whole(2, what="a whole number of pixels")


def pooled_shape(image_shape: ImageShape, factor: int) -> ImageShape:
    """(C, H / factor, W / factor); PhasewiseError where the factor is larger than the image or does not divide it."""
    factor, (channels, height, width) = factor_kind(factor, "factor"), check_image_shape(image_shape)
    if factor > min(height, width):
        raise PhasewiseError(f"factor {factor} is larger than the image: at {height}x{width} nothing is left of it")
    if height % factor or width % factor:
        both = [f for f in range(2, min(height, width) + 1) if not height % f and not width % f]
        mend = f"take one of {', '.join(map(str, both))}" if both else "resize the images"
        raise PhasewiseError(f"images of {height}x{width} cannot be pooled by {factor}, which does not divide; {mend}")
    return (channels, height // factor, width // factor)


@checks.checked(images=checks.images, factor=factor_kind)
def pool_images(images: Tensor, factor: int) -> Tensor:
    """The mean over ``factor x factor`` pixels: (N, C, H, W) -> (N, C, H / factor, W / factor).

    Raises PhasewiseError for a factor that is larger than the images or does not divide them.
    """
    pooled_shape((int(images.shape[1]), int(images.shape[2]), int(images.shape[3])), factor)
    return F.avg_pool2d(images, factor)


class PooledPath(NoisePath):
    """The path of the pooled image: ``sigma / factor`` at the same alpha, so log-SNR is higher by ``2 log(factor)``."""

    name = "pooled"

    def __init__(self, path: NoisePath, factor: int) -> None:
        self.path, self.factor = path, factor

    def alpha(self, t: Tensor) -> Tensor:
        return self.path.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.path.sigma(t) / self.factor

    def alpha_dot(self, t: Tensor) -> Tensor:
        return self.path.alpha_dot(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self.path.sigma_dot(t) / self.factor

    def t_of_log_snr(self, log_snr: Time) -> Tensor:
        lowered = torch.as_tensor(log_snr) - 2 * torch.tensor(float(self.factor), dtype=torch.float64).log()
        return self.path.t_of_log_snr(lowered.to(torch.as_tensor(log_snr).dtype))

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "factor": self.factor, "path": self.path.config()}


class Lift(nn.Module):
    """The lifted answer ``L(p)``, (B, C, h, w) -> (B, C, H, W), and the mean square of what it misses.

    Until :meth:`fit` it repeats pixels, and expects to miss all.
    """

    mean: Tensor
    weight: Tensor
    missed: Tensor

    def __init__(self, image_shape: ImageShape, factor: int) -> None:
        super().__init__()
        self.pooled, self.factor = pooled_shape(image_shape, factor), int(factor)
        channels, side = image_shape[0], 2 * REACH + 1
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("weight", torch.zeros(channels * self.factor**2, channels, side, side))
        self.register_buffer("missed", torch.ones(1, *image_shape))

    def forward(self, pooled: Tensor) -> Tensor:
        deviation = pooled - self.mean.to(pooled.dtype)
        detail = F.conv2d(F.pad(deviation, (REACH,) * 4, mode="replicate"), self.weight.to(pooled.dtype))
        return self.repeated(pooled) + F.pixel_shuffle(detail, self.factor)

    def repeated(self, pooled: Tensor) -> Tensor:
        return F.interpolate(pooled, scale_factor=float(self.factor), mode="nearest")

    def detail(self, x: Tensor) -> Tensor:
        """What pooling takes away, ``(1 - U P) x``."""
        return x - self.repeated(F.avg_pool2d(x, self.factor))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Least squares on images (N, C, H, W): each block's detail from the pooled pixels round it; then what is
        missed, per pixel."""
        images = images[:FITTED]
        self.mean.copy_(images.mean((0, 2, 3), keepdim=True))
        within: Any = 0
        across: Any = 0
        for part in images.split(250):
            deviation = F.avg_pool2d(part, self.factor) - self.mean
            seen = F.unfold(F.pad(deviation, (REACH,) * 4, mode="replicate"), 2 * REACH + 1).double()
            asked = F.pixel_unshuffle(self.detail(part), self.factor).flatten(2).double()
            within = within + torch.einsum("npl,nql->pq", seen, seen)
            across = across + torch.einsum("npl,nql->pq", seen, asked)
        within.diagonal().add_(RIDGE * within.diagonal().mean().clamp_min(1e-12))
        # the targets' mean over a block is 0, so that of what is fitted to them is: P A = 0
        self.weight.copy_(torch.linalg.solve(within, across).T.reshape(self.weight.shape))
        total: Any = 0
        for part in images.split(250):
            total = total + (part - self(F.avg_pool2d(part, self.factor))).double().square().sum(0, keepdim=True)
        self.missed.copy_(total / len(images))


class PooledDenoiser(Denoiser):
    """``member``, a denoiser of pooled images, at work on images ``factor`` times as large (see the module).

    Args:
        member: a denoiser of (C, H / factor, W / factor), such as a network trained on ``pw.pool_images(...)`` or
            somebody else's for smaller images.  Its condition, if any, is passed on.
        image_shape: (C, H, W), of the images it is to denoise.
        factor: pixels a side that a pooled pixel stands for, at least 2; it divides H and W.
        path: whose ``x_t`` and ``t`` it speaks; default the member's.

    :meth:`fit` gives it the closed form for the rest; before, it knows nothing of the detail but what the noisy image
    has.  Raises PhasewiseError for a factor that does not fit the images, and a member for others than the pooled.
    """

    @checks.checked(member=a_denoiser, image_shape=checks.image_shape, factor=factor_kind, path=a_path)
    def __init__(self, member: Denoiser, image_shape: ImageShape, factor: int, path: NoisePath | None = None) -> None:
        wanted = pooled_shape(image_shape, factor)
        if member.image_shape != wanted:
            raise PhasewiseError(
                f"images of {tuple(image_shape)} pooled by {factor} are {wanted}; the member is for "
                f"{member.image_shape}"
            )
        super().__init__(image_shape, member.path if path is None else path)
        isotropic(self.path, "what pooling leaves of the noise")
        self.member, self.factor = member, int(factor)
        self.lift = Lift(self.image_shape, self.factor)

    @checks.checked(images=checks.images)
    def fit(self, images: Tensor) -> PooledDenoiser:
        """Fit the closed form for the rest to training images (N, C, H, W), at most 10,000 of them; returns itself."""
        if tuple(images.shape[1:]) != self.image_shape:
            raise PhasewiseError(
                f"images of shape {tuple(images.shape[1:])} do not fit a denoiser for {self.image_shape}"
            )
        self.lift.fit(images.to(self.device, torch.float32))
        return self

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        if tuple(x_t.shape[1:]) != self.image_shape:
            raise PhasewiseError(f"x_t has shape {tuple(x_t.shape)}; this denoiser takes (B, *{self.image_shape})")
        s = as_time(t, x_t)
        pooled = F.avg_pool2d(x_t, self.factor)
        there, t_there = translate(
            pooled, s.reshape(-1) if s.dim() else s, PooledPath(self.path, self.factor), self.member.path
        )
        lifted = self.lift(self.member(there, t_there, cond))
        alpha, sigma = (as_scale(f(s), x_t) for f in (self.path.alpha, self.path.sigma))
        missed = self.lift.missed.to(x_t.dtype)
        noise = sigma**2 * (1 - 1 / self.factor**2)
        total = alpha**2 * missed + noise
        # at sigma = 0 the limit 1 / alpha, also for v = 0
        gain = torch.where(total > 0, alpha * missed / total.clamp_min(1e-38), 1 / alpha.clamp_min(1e-38))
        return lifted + gain * self.lift.detail(x_t - alpha * lifted)

    @property
    def takes_condition(self) -> bool:
        return self.member.takes_condition

    def check_condition(self, cond: Tensor) -> None:
        self.member.check_condition(cond)

    def pixels_taken(self) -> tuple[float, float] | None:
        return self.member.pixels_taken()

    def wrong_state(self) -> str | None:
        fine = bool((self.lift.missed >= 0).all())
        return self.member.wrong_state() if fine else "a mean square is below 0"

    def config(self) -> dict[str, Any]:
        return {
            "member": {"class": type(self.member).__name__, "config": self.member.config()},
            "image_shape": list(self.image_shape),
            "factor": self.factor,
            "path": self.path.config(),
        }
