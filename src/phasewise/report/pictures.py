"""uint8 images (n, C, H, W) as PNG files: grids, rows, and the recovery matrix. Pixels are kept, never interpolated.

Images larger than MAX_SIDE are reduced by a whole factor (block means), so that a page stays small.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from phasewise.results import Array

MAX_SIDE = 64
SHOWN_SIDE = 56
BYTES_PER_GRID = 80_000
PAD = 255


@dataclass(frozen=True)
class Picture:
    """A PNG with its native size; ``zoom`` is the whole factor at which the page shows it."""

    png: bytes
    width: int
    height: int
    zoom: int = 1

    @property
    def uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def tile(images: Array, columns: int, *, clear: bool = False) -> Array:
    """(n, C, H, W) -> one (H', W') or (H', W', 3) uint8 canvas, row by row, a white pixel between images.

    ``clear``: one that lets the page show through, by a last channel (H', W', 2) or (H', W', 4).
    """
    n, _, height, width = images.shape
    columns = max(1, min(columns, n))
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, *_tail(images)), PAD, dtype=np.uint8)
    seen = np.zeros(canvas.shape[:2], dtype=np.uint8)
    for k, image in enumerate(images):
        y, x = (k // columns) * (height + 1), (k % columns) * (width + 1)
        canvas[y : y + height, x : x + width] = _last(image)
        seen[y : y + height, x : x + width] = PAD
    return np.dstack([canvas, seen]) if clear else canvas


def _tail(images: Array) -> tuple[int, ...]:
    return (3,) if images.shape[1] >= 3 else ()


def _last(image: Array) -> Array:
    """(C, H, W) -> (H, W, 3) for three or more channels (the first three), else (H, W) of the first."""
    return image[:3].transpose(1, 2, 0) if image.shape[0] >= 3 else image[0]


def shrink(images: Array) -> Array:
    """Block means by the smallest whole factor that brings both sides to MAX_SIDE or less; leading axes are kept."""
    *lead, height, width = images.shape
    factor = math.ceil(max(height, width) / MAX_SIDE)
    if factor == 1:
        return images
    cut = images[..., : height // factor * factor, : width // factor * factor].astype(np.float64)
    blocks = cut.reshape(*lead, height // factor, factor, width // factor, factor)
    return np.rint(blocks.mean(axis=(-3, -1))).astype(np.uint8)


def picture(canvas: Array, zoom: int = 1) -> Picture:
    """PNG of ``canvas``, to be shown at ``zoom``."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(canvas)).save(buffer, format="PNG", compress_level=9)
    height, width = canvas.shape[:2]
    return Picture(buffer.getvalue(), width, height, zoom)


def zoom_for(width: int) -> int:
    """The whole zoom that brings an image nearest to SHOWN_SIDE."""
    return max(1, round(SHOWN_SIDE / width))


def grid(images: Array, target: int = 300) -> Picture:
    """A square of the first images, or the rows of it that BYTES_PER_GRID allows (at least one), ``target`` wide."""
    images = shrink(images)
    zoom = zoom_for(images.shape[-1])
    columns = max(2, target // (zoom * (images.shape[-1] + 1)))
    rows = max(1, min(columns, BYTES_PER_GRID // (columns * int(np.prod(images.shape[1:])))))
    return picture(tile(images[: rows * columns], columns, clear=True), zoom)


def strip(images: Array, target: int = 740) -> Picture:
    """The first images in one row, ``target`` CSS pixels wide at most."""
    images = shrink(images)
    zoom = zoom_for(images.shape[-1])
    count = max(2, min(target // (zoom * (images.shape[-1] + 1)), BYTES_PER_GRID // int(np.prod(images.shape[1:]))))
    return picture(tile(images[:count], count, clear=True), zoom)


def stack(canvases: list[Array], axis: int, pad: int = 3) -> Array:
    """Canvases of equal size across ``axis`` joined with a white gap, a clear one where theirs are."""
    shape = list(canvases[0].shape)
    shape[axis] = pad
    gap = np.full(shape, PAD, dtype=np.uint8)
    if len(shape) == 3 and shape[2] in (2, 4):
        gap[..., -1] = 0
    spaced = [part for c in canvases for part in (gap, c)][1:]
    return np.concatenate(spaced, axis=axis)
