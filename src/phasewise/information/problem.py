r"""What is asked: conditional mutual information of one set of images at given times and radii.

I(A : C | B_r) at time t,     all of A, B, C taken from  x_t = alpha(t) x + sigma(t) z.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.information.regions import Center, Geometry, make_geometry
from phasewise.memory import not_finite
from phasewise.paths import LinearPath, NoisePath, a_path, isotropic
from phasewise.shapes import ImageShape

LEAST_IMAGES = 20
TYPICAL = 0.05
"""A CMI in nats, for the error one can expect: the log ratio of two densities has variance near 2 CMI."""


@dataclass(frozen=True, eq=False)
class Problem:
    """``images`` (n, C, H, W) clean float32; ``times`` in (0, 1] that leave a signal; ``radii`` that leave a C."""

    images: Tensor
    times: tuple[float, ...]
    radii: tuple[int, ...]
    geometry: Geometry
    path: NoisePath
    seed: int

    @property
    def image_shape(self) -> ImageShape:
        return self.geometry.image_shape

    @property
    def flat(self) -> Tensor:
        """(n, D) view of the images, D = C * H * W."""
        return self.images.flatten(1)

    @property
    def a(self) -> Tensor:
        """Entries of A that vary over the images; a constant one is pure noise once noised and carries nothing."""
        entries = self.geometry.a()
        return entries[self.flat[:, entries].std(0) > 1e-6]

    def levels(self) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at the times, each (T,) float64.

        Raises PhasewiseError on an anisotropic path, which no estimator knows yet.
        """
        isotropic(self.path, "CMI of images")
        t = torch.tensor(self.times, dtype=torch.float64)
        return self.path.alpha(t), self.path.sigma(t)


@checks.checked(images=checks.tensor, block=checks.count, path=a_path, seed=checks.seed)
def make_problem(
    images: Tensor,
    times: Sequence[float],
    radii: Sequence[int],
    *,
    block: int = 1,
    center: Center | None = None,
    path: NoisePath | None = None,
    seed: int = 0,
) -> Problem:
    """A checked :class:`Problem`; ``images`` (n, C, H, W), any real values.

    Raises :class:`PhasewiseError` for images that are not finite or fewer than 20, times outside (0, 1], radii that
    are negative or leave nothing for C, and a block that does not fit.
    """
    if images.dim() != 4:
        raise PhasewiseError("images must be a tensor (n, C, H, W)")
    if len(images) < LEAST_IMAGES:
        raise PhasewiseError(f"need at least {LEAST_IMAGES} images for an estimate with an error, got {len(images)}")
    images = images.detach().cpu().float()
    if not_finite(images):
        raise PhasewiseError("the images hold NaN or infinite pixels; drop or mend those images")
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    geometry = make_geometry(shape, block, center)
    path = path or LinearPath()
    check_times(times)
    if any(float(path.alpha(torch.tensor(float(t), dtype=torch.float64))) == 0 for t in times):
        raise PhasewiseError(f"nothing of the image is left at t = {max(times):g} on this path: the CMI is 0 there")
    if not len(radii) or len(set(radii)) < len(radii):
        raise PhasewiseError(f"radii must be distinct, at least one; got {list(radii)}")
    for r in radii:
        checks.pixels(r, "a radius")
        if geometry.extent <= 0:
            raise PhasewiseError(
                f"A of {block} x {block} pixels fills the {shape[1]}x{shape[2]} image: nothing is left for B and C; "
                "take a smaller block"
            )
        if r >= geometry.extent:
            raise PhasewiseError(
                f"radius {r} leaves no pixel for C in a {shape[1]}x{shape[2]} image with A at {geometry.center}: the "
                f"CMI is 0 there by definition; the largest radius with something to measure is {geometry.extent - 1}"
            )
    return Problem(images, tuple(float(t) for t in times), tuple(int(r) for r in radii), geometry, path, int(seed))


def check_times(times: Sequence[float]) -> None:
    """Raise unless the times are distinct and in (0, 1]."""
    if not len(times) or len(set(times)) < len(times):
        raise PhasewiseError(f"times must be distinct, at least one; got {list(times)}")
    for t in times:
        if t == 0:
            raise PhasewiseError(
                "t = 0 has no noise, and entropies of pixels with few grey levels are not finite there; the limit "
                "t -> 0 is the CMI of the clean images: take a small time such as 0.02"
            )
        checks.interval(0, 1, low_open=True, hint=" (0 = data, 1 = noise)")(t, "noise times")


def expected_stderr(n: int, cmi: float = TYPICAL) -> float:
    """Standard error to expect from ``n`` held-out images for a given CMI in nats: ``sqrt(2 cmi / n)``."""
    return math.sqrt(2 * cmi / n)


def warn_if_too_few(n: int, accuracy: float) -> None:
    """Warn when ``n`` images cannot give a standard error of ``accuracy`` nats."""
    expected = expected_stderr(n)
    if expected > accuracy:
        warnings.warn(
            f"{n} images give a standard error near {expected:.2g} nats for a CMI of {TYPICAL} nats; an accuracy of "
            f"{accuracy:g} needs about {math.ceil(2 * TYPICAL / accuracy**2)} images",
            PhasewiseWarning,
            stacklevel=5,
        )
