"""Held-out images, noised, and random pixels of them: what the measures of reach share; and their standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from phasewise import seeding
from phasewise.data import ImageData, condition_of_part
from phasewise.denoisers import Condition, Denoiser, bind, condition_rows
from phasewise.diagnosis.losses import warn_of_pixels
from phasewise.errors import PhasewiseError
from phasewise.results import Array


class HeldOut(NamedTuple):
    """Images (n, C, H, W) on the denoiser's device, and their condition row by row, or None."""

    images: Tensor
    rows: Tensor | None


def held_out(denoiser: Denoiser, data: ImageData | Tensor, cond: Condition | str | None, n: int) -> HeldOut:
    """The first ``n`` test images of ``data`` (of a tensor: of all), or as many as there are.

    Raises PhasewiseError for images that do not fit the denoiser, and for a condition that does not fit.
    """
    cond = condition_of_part(data, "test", cond)
    warn_of_pixels({type(denoiser).__name__: denoiser}, data)
    images = data.test if isinstance(data, ImageData) else data
    if tuple(images.shape[1:]) != denoiser.image_shape:
        raise PhasewiseError(
            f"images of shape {tuple(images.shape[1:])} do not fit a denoiser for {denoiser.image_shape}"
        )
    rows = condition_rows(cond, len(images), [denoiser])
    bind(denoiser, rows)  # which looks at their values; the measures then need not (denoisers.trust)
    return HeldOut(images[:n].to(denoiser.device), None if rows is None else rows[:n])


class Probes(NamedTuple):
    """Noised images (n * m, C, H, W), each image m times, and a pixel of each row: ``at`` (n * m, 2)."""

    x_t: Tensor
    at: Tensor


def probes(denoiser: Denoiser, images: Tensor, t: float, pixels: int, seed: int, step: int) -> Probes:
    """``images`` noised to ``t`` on the denoiser's path, each with ``pixels`` random pixels; noise and pixels follow
    from ``seed`` and ``step``, the number of the time."""
    z = torch.randn(images.shape, generator=seeding.generator(seed, seeding.Purpose.REACH_NOISE, step))
    x_t = denoiser.path.add_noise(images, z.to(images), t)
    places = seeding.generator(seed, seeding.Purpose.REACH_PIXELS, step)
    at = [torch.randint(side, (len(images) * pixels,), generator=places) for side in images.shape[2:]]
    return Probes(x_t.repeat_interleave(pixels, 0), torch.stack(at, 1).to(images.device))


def distances(at: Tensor, height: int, width: int) -> Tensor:
    """Max-norm distance (P, H, W) of every pixel from each of the pixels ``at`` (P, 2)."""
    rows = (torch.arange(height, device=at.device)[None] - at[:, :1]).abs()
    columns = (torch.arange(width, device=at.device)[None] - at[:, 1:]).abs()
    return torch.maximum(rows[:, :, None], columns[:, None, :])


def mean_and_error(values: Array) -> tuple[Array, Array]:
    """Mean over the first axis, images, and its standard error."""
    return values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5


def ratio_and_error(top: Array, bottom: Array) -> tuple[Array, Array]:
    """Ratio of the means of ``top`` (n, ...) and ``bottom`` (n, 1 ...) over images, with its standard error.

    Where all of ``top`` is 0 the ratio is 0 with error 0, whatever ``bottom`` is; over a bottom of 0 alone, infinite.
    """
    above, below = top.mean(0), bottom.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(above == 0, 0.0, above / below)
        # delta method: the ratio's error is that of the mean of what is left over, per unit of the bottom
        error = (top - ratio * bottom).std(0, ddof=1) / len(top) ** 0.5 / below
    return ratio, np.where(above == 0, 0.0, error)


def root_and_error(square: Array, stderr: Array) -> tuple[Array, Array]:
    """Square root of a measured square, with its standard error."""
    root = np.sqrt(square)
    return root, stderr / (2 * np.where(root == 0, 1.0, root))


def refuse_times(what: str, times: Sequence[float]) -> None:
    """Raise PhasewiseError naming ``times`` at which ``what`` of the denoiser held no numbers, where there are any."""
    if times:
        shown = ", ".join(f"{t:.3g}" for t in times)
        raise PhasewiseError(
            f"the {what} hold NaN or infinite values at t = {shown}; leave these times out, or mend the network there"
        )


def check_distances(radii: Sequence[int], largest: int, what: str) -> tuple[int, ...]:
    """``radii`` ascending, each once; PhasewiseError for one beyond ``largest``, which is ``what``."""
    if max(radii) > largest:
        raise PhasewiseError(f"a radius of {max(radii)} lies beyond the image: {what}, {largest} is the largest")
    return tuple(sorted(set(radii)))


def usual_radii(largest: int, least: int = 1) -> tuple[int, ...]:
    """Distances from ``least`` on, two an octave, below ``largest``: 1, 2, 3, 4, 6, 8, 12, ..."""
    steps = sorted({0, 1, *(2**k for k in range(1, 20)), *(3 * 2**k for k in range(20))})
    return tuple(r for r in steps if least <= r < largest) or (largest,)
