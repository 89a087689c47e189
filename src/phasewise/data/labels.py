"""Labels of an image set as the condition of a denoiser."""

from __future__ import annotations

from torch import Tensor

from phasewise.data.images import ImageData
from phasewise.errors import DataError, PhasewiseError


def condition_of_part(data: ImageData | Tensor, part: str, cond: Tensor | int | str | None) -> Tensor | int | None:
    """``cond`` itself, or for "labels" those of the ``part`` ("train", "validation", "test") of ``data``, (N,) int64.

    Raises PhasewiseError for another word, DataError where there are no labels.
    """
    if not isinstance(cond, str):
        return cond
    if cond != "labels":
        raise PhasewiseError(f"cond must be 'labels', a label, or a tensor with a row for each image; got {cond!r}")
    labels = getattr(data, f"labels_{part}", None)
    if labels is None:
        name = data.name if isinstance(data, ImageData) else "a bare tensor of images"
        raise DataError(f"{name} has no {part} labels; give cond as a tensor, or load images that come with labels")
    return labels
