"""The shape of one image, in one place: (channels, height, width)."""

from __future__ import annotations

from phasewise.errors import PhasewiseError

ImageShape = tuple[int, int, int]


def check_image_shape(shape: ImageShape) -> ImageShape:
    """``shape`` as three ints; PhasewiseError unless it is (channels, height, width), each at least 1."""
    if len(shape) != 3 or any(int(n) < 1 for n in shape):
        raise PhasewiseError(f"image_shape must be (channels, height, width), got {shape!r}")
    return (int(shape[0]), int(shape[1]), int(shape[2]))
