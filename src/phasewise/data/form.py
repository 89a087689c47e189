r"""The form images are brought into, whatever they came as: channels, then a central cut, then a smaller side.

Areas are averaged.  Along an axis of ``N`` pixels made ``n``, new pixel i covers ``[i N/n, (i+1) N/n)`` of the old
ones; with ``S(j) = x_0 + ... + x_{j-1}`` and ``i N = j n + r``, in units of 1/n of a pixel,

    T(i) = n S(j) + r x_j,        new_i = (T(i+1) - T(i)) / N

so integer pixels are summed in whole numbers and divided once: a ratio of 2 gives the mean of each 2x2 block exactly,
and a ratio that is no whole number gives every old pixel its share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from phasewise.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]
Color = Literal["gray", "rgb"]
Side = int | tuple[int, ...]
LUMA = (0.299, 0.587, 0.114)
LARGEST = 2**24
"""Values (C * H * W) of one image beyond which no denoiser here could take it."""


@dataclass(frozen=True)
class Form:
    """What is asked of every image.  ``color``: "gray" or "rgb".  ``crop``: central cut, a side, (height, width), or
    "square", the largest there is.  ``resize``: the size after that, a side of square images, or (height, width).

    ``raw``: images of 8 and of 16 bits may not be mixed, since the level of white is stated.
    Raises :class:`DataError` for what is none of these.
    """

    color: Color | None = None
    crop: Side | Literal["square"] | None = None
    resize: Side | None = None
    raw: bool = False

    def __post_init__(self) -> None:
        if self.color not in (None, "gray", "rgb"):
            raise DataError(f"color must be 'gray', 'rgb' or None (keep), got {self.color!r}")
        if self.crop not in (None, "square"):
            object.__setattr__(self, "crop", _side("crop", self.crop, " or 'square'"))
        if self.resize is not None:
            object.__setattr__(self, "resize", _side("resize", self.resize))

    @property
    def keeps(self) -> bool:
        """Whether every image stays as it is."""
        return self.color is None and self.crop is None and self.resize is None

    def apply(self, images: Array, where: str) -> Array:
        """(N, C, H, W) of any kind in this form; float32 after a change of size, else the dtype stays.

        Raises :class:`DataError` naming ``where`` when the images are smaller than what is asked for.
        """
        images = recolour(self._cut(images, where), self.color)
        if self.resize is not None:
            images = self._smaller(images, where)
        if images[0].size > LARGEST:
            raise DataError(
                f"{where} has images of {_shown(images.shape)}, {images[0].size / 1e6:.0f} million values each, more "
                f"than the {LARGEST / 1e6:.0f} million a denoiser could take; make them smaller with resize or crop"
            )
        return images

    def _cut(self, images: Array, where: str) -> Array:
        if self.crop is None:
            return images
        height, width = images.shape[2:]
        rows, columns = (min(height, width),) * 2 if self.crop == "square" else pair(self.crop)
        if rows > height or columns > width:
            raise DataError(
                f"{where} has images of {_shown(images.shape)}, too small to crop {rows}x{columns} from them"
            )
        top, left = (height - rows) // 2, (width - columns) // 2
        return images[:, :, top : top + rows, left : left + columns]

    def _smaller(self, images: Array, where: str) -> Array:
        height, width = images.shape[2:]
        assert self.resize is not None
        if isinstance(self.resize, int) and height != width:
            raise DataError(
                f"{where} has images of {_shown(images.shape)}, not square; crop them first (crop 'square'), or give "
                "the height and the width to resize to, which squeezes them"
            )
        rows, columns = pair(self.resize)
        if rows > height or columns > width:
            raise DataError(
                f"{where} has images of {_shown(images.shape)}; averaging areas only makes them smaller, "
                f"not {rows}x{columns}"
            )
        return average_areas(images, (rows, columns))


def pair(side: Any) -> tuple[int, int]:
    """A side, or (height, width), as (height, width)."""
    return (side, side) if isinstance(side, int) else (side[0], side[-1])


def _side(name: str, value: Any, more: str = "") -> Side:
    given = (value,) if isinstance(value, (int, np.integer)) else value
    whole = isinstance(given, (tuple, list)) and 1 <= len(given) <= 2
    if not whole or not all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) and v >= 1 for v in given):
        raise DataError(f"{name} must be a side in pixels, or height and width{more}; got {value!r}")
    whole_numbers = tuple(int(v) for v in given)
    return whole_numbers[0] if len(whole_numbers) == 1 else whole_numbers


def _shown(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[3]} pixels (height x width)"


def average_areas(images: Array, size: tuple[int, int]) -> Array:
    """(N, C, H, W) averaged over areas to (N, C, *size), float32; the formula stands at the module's head."""
    kind = np.float64 if np.issubdtype(images.dtype, np.floating) else np.int64
    sums = _areas(_areas(images.astype(kind), size[0], 2), size[1], 3)
    return (sums / math.prod(images.shape[2:])).astype(np.float32)


def _areas(x: Array, n: int, axis: int) -> Array:
    """Sums over the n areas that divide an axis, in units of 1/n pixel: each weighs as much as the axis is long."""
    j, r = np.divmod(np.arange(n + 1) * x.shape[axis], n)
    nothing = np.zeros_like(np.take(x, [0], axis))
    before = np.concatenate([nothing, np.cumsum(x, axis)], axis)
    within = np.concatenate([x, nothing], axis)  # the last edge is the border: nothing of a pixel beyond it
    share = r.reshape((-1,) + (1,) * (x.ndim - 1 - axis))
    return np.diff(n * np.take(before, j, axis) + share * np.take(within, j, axis), axis=axis)


def recolour(images: Array, color: Color | None) -> Array:
    """(N, C, H, W) images with the channels that ``color`` asks for; the dtype stays. None: as they are.

    Raises :class:`DataError` when C is neither 1 nor 3.
    """
    channels = images.shape[1]
    if color is None or channels == {"gray": 1, "rgb": 3}[color]:
        return images
    if channels not in (1, 3):
        raise DataError(
            f"images with {channels} channels cannot be made {color}; leave color out or give 1 or 3 channels"
        )
    if color == "rgb":
        return np.repeat(images, 3, axis=1)
    mixed = sum(np.float32(w) * images[:, k : k + 1] for k, w in enumerate(LUMA))
    whole = np.issubdtype(images.dtype, np.integer)
    return np.asarray(np.rint(mixed) if whole else mixed).astype(images.dtype)
