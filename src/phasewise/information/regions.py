"""The three regions of I(A : C | B), for images of any number of channels.

Entries of an image (C, H, W) are numbered as ``x.flatten()`` numbers them; a pixel means all its channels.  Distances
are max-norm in pixels, clipped at the border.  ``center = (row, col)`` is the upper left of A's middle pixels: A covers
rows ``row - (block - 1) // 2 .. row + block // 2`` and columns likewise; default the middle of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.shapes import ImageShape

Center = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """A block A in an image: ``distance`` (H, W) int64, max-norm distance of each pixel from A (0 inside)."""

    image_shape: ImageShape
    block: int
    center: Center
    distance: Tensor

    @property
    def extent(self) -> int:
        """Distance of the farthest pixel from A: C is empty from this radius on."""
        return int(self.distance.max())

    def inside(self, radius: int | None) -> Tensor:
        """Entries of B_radius (None: of B and C together) as a flat bool mask (C*H*W,); A is never in it."""
        near = self.distance > 0
        if radius is not None:
            near = near & (self.distance <= radius)
        return near.expand(self.image_shape).reshape(-1)

    def a(self) -> Tensor:
        """Entries of A, int64, pixel by pixel in reading order, the channels of a pixel together."""
        number = torch.arange(self.distance.numel() * self.image_shape[0]).reshape(self.image_shape)
        return number.movedim(0, -1)[self.distance == 0].reshape(-1)

    def b(self, radius: int | None) -> Tensor:
        """Entries of B_radius (None: of B and C together), int64, ascending."""
        return self.inside(radius).nonzero().reshape(-1)

    def c(self, radius: int) -> Tensor:
        """Entries of C, int64, ascending."""
        far = (self.distance > radius).expand(self.image_shape).reshape(-1)
        return far.nonzero().reshape(-1)


def _where(block: int, height: int, width: int) -> str:
    if block > 1:
        return f"choose the centre at least {block // 2} pixels from the border"
    return f"rows go from 0 to {height - 1}, columns from 0 to {width - 1}"


@checks.checked(image_shape=checks.image_shape, block=checks.count, center=checks.position)
def make_geometry(image_shape: ImageShape, block: int = 1, center: Center | None = None) -> Geometry:
    """The block A in its image.

    In an image thinner than ``block`` the block takes the whole thin side, so on a one-row image A is ``1 x block``.

    Raises :class:`PhasewiseError` for a block that is no whole number >= 1 or does not fit at ``center``.
    """
    _, height, width = image_shape
    if block > max(height, width):
        raise PhasewiseError(f"block must be a whole number from 1 to the image side {max(height, width)}, got {block}")
    row, col = ((height - 1) // 2, (width - 1) // 2) if center is None else (int(center[0]), int(center[1]))
    gaps = []
    for side, at in ((height, row), (width, col)):
        size = min(block, side)
        first = 0 if size == side else at - (size - 1) // 2
        if not 0 <= first <= side - size:
            raise PhasewiseError(
                f"a block of {block} x {block} pixels at ({row}, {col}) reaches out of the {height}x{width} image; "
                + _where(block, height, width)
            )
        at_axis = torch.arange(side)
        gaps.append(torch.maximum(first - at_axis, at_axis - (first + size - 1)).clamp(min=0))
    distance = torch.maximum(gaps[0][:, None], gaps[1][None, :])
    return Geometry(image_shape, int(block), (row, col), distance)
