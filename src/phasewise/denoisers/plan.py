r"""A plan and the rest local: a small global network says what the image is, a local one puts in the pixels.

The *planner* sees the pooled noisy image alone and answers its posterior mean, the plan, as a denoiser of small images
does (:mod:`phasewise.denoisers.pooled`: P the mean over f x f pixels, L the lift of a small image to full size)::

    p = E[P x | P x_t]

The *local* network, of exact radius, sees the noisy pixels and the lifted plan in one window and answers at full size.
At a fixed plan the answer at a pixel depends on noisy pixels within the radius and on no others; through the plan it
depends on all.  The cost that grows with the pixels is the local network's: a local denoiser lacks what far pixels say,
and of that only what the plan does not say either.  A plan may be kept for some steps of a trajectory
(``ReusedFeatures(denoiser, "plan")``): these are then the local network alone.

Preconditioning: were the plan exact, each pixel would have the mean L(p) and the mean square v about it, so the best
linear guess from its noisy value, and its error, are closed forms (Karras et al. 2022, arXiv 2206.00364, eq. 7, about
the lifted plan instead of the data mean), and G is what the local network says::

    D = [sigma^2 L(p) + alpha v x_t] / (alpha^2 v + sigma^2)  +  sigma sqrt(v / (alpha^2 v + sigma^2)) G
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from phasewise import checks
from phasewise.denoisers.kept import site
from phasewise.denoisers.local import LocalDenoiser
from phasewise.denoisers.network import NetworkDenoiser
from phasewise.denoisers.pooled import Lift, factor_kind, pooled_shape
from phasewise.denoisers.unet import UNetDenoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath, isotropic
from phasewise.shapes import ImageShape

PLACES = 8
"""A side, that the usual planner works on at most."""
LEAST = 1e-4
"""Of the pixels' variance: what a lifted plan misses at least, so that the local network can always speak."""


class PlanDenoiser(NetworkDenoiser):
    """``planner`` on the pooled image, ``local`` on the pixels beside its plan (see the module).

    Args:
        planner: a network for (C, H / factor, W / factor): it sees the whole small image.
        local: a :class:`LocalDenoiser` for (C, H, W) with ``context`` = C channels for the lifted plan.
        factor: pixels a side that a number of the plan stands for, at least 2; it divides H and W.
        weight: of the plan's own loss beside that of the answer, where both are trained together; 0: the plan learns
            from the answer alone.
        frozen: a training leaves the planner as it is, trained before on ``pw.pool_images(...)``, and the local network
            learns to use it; else ``pw.train`` trains both.

    ``radius`` is None: through the plan it sees the whole image.  Raises PhasewiseError for parts that do not fit each
    other, and a factor that is larger than the image or does not divide it.
    """

    @checks.checked(
        planner=checks.made(NetworkDenoiser, "a network for the pooled images, such as a UNetDenoiser"),
        local=checks.made(LocalDenoiser, "a LocalDenoiser with context channels"),
        factor=factor_kind,
        weight=checks.not_negative,
        frozen=checks.flag,
    )
    def __init__(
        self,
        planner: NetworkDenoiser,
        local: LocalDenoiser,
        factor: int,
        *,
        weight: float = 1.0,
        frozen: bool = False,
    ) -> None:
        wanted = pooled_shape(local.image_shape, factor)
        if planner.image_shape != wanted:
            raise PhasewiseError(
                f"images of {local.image_shape} pooled by {factor} are {wanted}; the planner is for "
                f"{planner.image_shape}"
            )
        if local.context != local.image_shape[0]:
            raise PhasewiseError(
                f"the local network has {local.context} channels for the plan, which has {local.image_shape[0]}; make "
                f"it by LocalDenoiser(..., context={local.image_shape[0]})"
            )
        if local.classes is not None and local.classes != planner.classes:
            raise PhasewiseError(
                f"the local network is told one of {local.classes} classes, the planner of {planner.classes or 'none'}"
            )
        super().__init__(local.image_shape, local.path, classes=planner.classes)
        isotropic(self.path, "the noise of a pooled plan")
        self.planner, self.local = planner, local
        self.factor, self.weight, self.frozen = int(factor), float(weight), bool(frozen)
        self.lift = Lift(self.image_shape, self.factor)
        if self.frozen:
            planner.requires_grad_(False)

    @classmethod
    @checks.checked(image_shape=checks.image_shape, factor=factor_kind, width=checks.count)
    def of_shape(
        cls,
        image_shape: ImageShape,
        factor: int,
        radius: int,
        *,
        width: int = 16,
        classes: int | None = None,
        path: NoisePath | None = None,
    ) -> PlanDenoiser:
        """The usual parts for images (C, H, W): a local network of its default design, and a U-Net of ``width``
        channels on at most 8 x 8 places and four times as many below, where channels are cheap; multiples of 16 are
        fast."""
        small = pooled_shape(image_shape, factor)
        patch = -(-max(small[1:]) // PLACES)
        planner = UNetDenoiser(small, width=width, patch=patch, multipliers=(1, 4), classes=classes, path=path)
        return cls(planner, LocalDenoiser(image_shape, radius, context=small[0], classes=classes, path=path), factor)

    @property
    def plan_learns(self) -> bool:
        """Whether a training has a loss of the plan's own."""
        return self.weight > 0 and not self.frozen

    def fit_moments(self, images: Tensor) -> None:
        """Moments of images (N, C, H, W), of the pooled ones, unless the planner is frozen, and the lift."""
        super().fit_moments(images)
        self.local.fit_moments(images)
        if not self.frozen:
            self.planner.fit_moments(F.avg_pool2d(images, self.factor))
        elif self.planner.pixel_moments() is None:
            raise PhasewiseError("a frozen planner is one that was trained; train it on pw.pool_images(...) first")
        self.lift.fit(images)

    def backbone(self, h: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Tensor:
        kept = site(self)
        plan = self.plan(h, log_snr, labels) if kept is None else kept("plan", lambda: self.plan(h, log_snr, labels))
        return self.given_plan(h, log_snr, plan, labels)

    def reusable_parts(self) -> tuple[str, ...]:
        """ "plan": a step by the local network alone, with the plan of an earlier one."""
        return ("plan",)

    def plan(self, h: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H / f, W / f) in pixel units: the planner's posterior mean of the pooled image, from what a backbone
        is given."""
        ratio = self.planner.data_std / self.data_std
        alpha, sigma = (part / scale for part, scale in zip(self._levels(log_snr), (1, self.factor), strict=True))
        root = ((alpha * ratio) ** 2 + sigma**2).sqrt()
        seen = F.avg_pool2d(h, self.factor) + alpha * (self.data_mean - self.planner.data_mean) / self.data_std
        # the pooled image's SNR is f^2 times as high, about its own variance
        there = self._pooled_log_snr(log_snr)
        told = (seen / root, there) if labels is None else (seen / root, there, labels)
        out = self.planner.backbone(*told).to(h.dtype)
        mean = alpha * ratio**2 / root**2 * seen + ratio * sigma / root * out
        plan = self.planner.data_mean + self.data_std * mean
        seen_by = _WATCHED.get()
        if seen_by is not None:
            seen_by.append(plan)
        return plan

    def given_plan(self, h: Tensor, log_snr: Tensor, plan: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's raw output F where the plan is known: local, of exactly the radius of :attr:`local`."""
        alpha, sigma = self._levels(log_snr)
        lifted = (self.lift(plan) - self.data_mean) / self.data_std
        missed = (self.lift.missed.mean((2, 3), keepdim=True) / self.data_std**2).clamp(LEAST, 1.0)
        total = alpha**2 * missed + sigma**2
        told = (torch.cat([h, lifted], 1), log_snr)
        said = self.local.backbone(*told) if self.local.classes is None else self.local.backbone(*told, labels)
        # (D - alpha h) / sigma, D as in the module, pixels of variance 1 and alpha^2 + sigma^2 = 1
        return sigma * (lifted - alpha * (1 - missed) * h) / total + (missed / total).sqrt() * said

    def _levels(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of h, (B, C, 1, 1), whose squares sum to 1: h is the noisy image of variance 1."""
        own = log_snr[:, None, None, None] + 2 * (self.data_std / self.data_std.mean()).log()
        return torch.sigmoid(own).sqrt(), torch.sigmoid(-own).sqrt()

    def _pooled_log_snr(self, log_snr: Tensor) -> Tensor:
        higher = 2 * (self.factor * self.planner.data_std.mean() / self.data_std.mean()).log()
        return (log_snr + higher).clamp(-12, 12)

    def plan_scale(self, t: Tensor) -> Tensor:
        """(B, C, 1, 1): error of a planner that says nothing, at the times t, (B,), of this denoiser's path."""
        alpha, sigma = (f(t.reshape(-1, 1, 1, 1)) for f in (self.path.alpha, self.path.sigma))
        sigma, std = sigma / self.factor, self.planner.data_std
        return std * sigma / ((alpha * std) ** 2 + sigma**2).sqrt()

    def config(self) -> dict[str, Any]:
        parts = {"planner": self.planner, "local": self.local}
        return {
            **{k: {"class": type(part).__name__, "config": part.config()} for k, part in parts.items()},
            "factor": self.factor,
            "weight": self.weight,
            **({"frozen": True} if self.frozen else {}),
        }


_WATCHED: ContextVar[list[Tensor] | None] = ContextVar("plans are watched", default=None)


@contextmanager
def watched_plans() -> Iterator[list[Tensor]]:
    """Within it the plans that denoisers make are listed: a training has a loss of them."""
    plans: list[Tensor] = []
    token = _WATCHED.set(plans)
    try:
        yield plans
    finally:
        _WATCHED.reset(token)
