"""The shape of one image, in one place: (channels, height, width)."""

from __future__ import annotations

from phasewise.checks import each, whole
from phasewise.errors import PhasewiseError

ImageShape = tuple[int, int, int]
_three = each(whole(1), size=3)


def check_image_shape(shape: ImageShape) -> ImageShape:
    """``shape`` as three ints; PhasewiseError unless it is (channels, height, width), each at least 1."""
    try:
        channels, height, width = _three(shape, "image_shape")
    except PhasewiseError as error:
        raise PhasewiseError(f"image_shape must be (channels, height, width), got {shape!r}") from error
    return (channels, height, width)
