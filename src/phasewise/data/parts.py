"""A part of an image set before it is split and scaled: how many images, their labels, and how to read chosen rows.

Pixels are either integer levels ``0 .. levels`` (files; scaled to the pixel range later) or real values that are
taken as they stand.  Labels are whole numbers or names; a negative number means "no label", the hub's convention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from phasewise.data.decode import Array, Color, decode_rows, recolour
from phasewise.errors import DataError

Parts = dict[str, "Part"]


@dataclass(frozen=True)
class Part:
    """``read(rows, color)`` gives (n, C, H, W).  ``levels`` is None for real values, which then lie in ``span``."""

    where: str
    count: int
    labels: Array | None
    read: Callable[[Array, Color | None], Array]
    levels: int | None = 255
    span: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels.shape != (self.count,):
            raise DataError(
                f"{self.where} has {self.count} images but labels of shape {self.labels.shape}; "
                "give exactly one label per image, or none at all"
            )


def encoded_part(
    where: str,
    count: int,
    labels: Array | None,
    fetch: Callable[[int], bytes | None],
    describe: Callable[[int], str],
) -> Part:
    """A part of encoded images, decoded when read."""
    return Part(where, count, labels, lambda rows, color: decode_rows(fetch, describe, rows, color))


def array_part(values: Array, labels: Array | None, where: str, levels: int | None = None) -> Part:
    """A part held in an array (N, C, H, W).

    Integers are levels: 0..1 where all are 0 or 1, else 0..255 where none is larger, else (uint16) 0..65535.
    Raises :class:`DataError` for integers out of range, non-numbers, NaN or infinite pixels.
    """
    if not len(values) or not values.size:
        raise DataError(f"{where} is empty (shape {values.shape}); give images (N, C, H, W)")
    if np.issubdtype(values.dtype, np.floating):
        # float64 beyond float32's range becomes infinite, and is refused
        with np.errstate(over="ignore", invalid="ignore"):
            values = values.astype(np.float32, copy=False)
            span = (float(values.min()), float(values.max()))
        if not np.isfinite(span).all():  # NaN and infinity reach the least or the greatest value
            bad = ~np.isfinite(values).all(axis=(1, 2, 3))
            raise DataError(
                f"{where}: {int(bad.sum())} of {len(values)} images hold NaN or infinite pixels (first: image "
                f"{int(bad.argmax())}); remove or repair them"
            )
        if span[0] == span[1]:
            raise DataError(f"{where}: every pixel is {span[0]:g}, so there is nothing to learn; check the data")
        return Part(where, len(values), labels, lambda rows, color: recolour(values[rows], color), None, span)
    if values.dtype != np.bool_ and not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{where} holds {values.dtype}, not pixels; save the images as uint8 or float32")
    levels = _levels(values, where) if levels is None else levels
    whole = values.astype(np.uint16 if levels > 255 else np.uint8)
    return Part(where, len(whole), labels, lambda rows, color: recolour(whole[rows], color), levels)


def _levels(values: Array, where: str) -> int:
    low, high = int(values.min()), int(values.max())
    levels = 1 if high <= 1 else 255 if high <= 255 or values.dtype != np.uint16 else 65535
    if low < 0 or high > levels:
        raise DataError(
            f"{where} holds integers from {low} to {high}; integer pixels are read as 0..255 (uint16: 0..65535), "
            "so save it as uint8, or as float32 and state its pixel_range"
        )
    return levels


def tensor_part(images: Tensor | Array) -> Part:
    """A tensor or numpy array (N, C, H, W) as a part without labels."""
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        images = (images.float() if images.is_floating_point() else images).numpy()
    if images.ndim != 4:
        raise DataError(
            f"images must have shape (N, C, H, W), got {tuple(images.shape)}; "
            "for gray images (N, H, W) pass images[:, None]"
        )
    return array_part(images, None, "the tensor")


def encode_labels(parts: Parts) -> dict[str, Array | None]:
    """Labels as int64. Names are numbered in sorted order over all parts; a part with a negative label has none."""
    found = {key: part.labels for key, part in parts.items() if part.labels is not None}
    if any(labels.dtype.kind in "USO" for labels in found.values()):
        names = sorted({str(x) for labels in found.values() for x in labels})
        number = {name: k for k, name in enumerate(names)}
        found = {key: np.array([number[str(x)] for x in labels]) for key, labels in found.items()}
    out: dict[str, Array | None] = dict.fromkeys(parts)
    for key, labels in found.items():
        whole = labels.astype(np.int64) if labels.dtype.kind in "biuf" and np.isfinite(labels).all() else None
        if whole is None or not (whole == labels).all():
            raise DataError(
                f"{parts[key].where} has labels that are not whole numbers; number the classes 0, 1, 2, ..."
            )
        out[key] = None if (whole < 0).any() else whole
    return out
