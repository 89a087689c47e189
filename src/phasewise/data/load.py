r"""``load_images``: any source to :class:`ImageData`, split and scaled in a way that the seed fixes.

Scaling: integer levels ``v = 0 .. L`` become ``lo + (hi - lo) v / L`` with ``pixel_range = (lo, hi)``; real-valued
pixels are taken as they stand and never clamped.

Split: a set that comes with a test part keeps it, and a random tenth of its training part (at most 5,000) is put
aside for validation.  A single set is divided 70 / 10 / 20, class by class where there are labels.  Every part comes
in random order, except a given test part, which keeps its order unless it is sorted by class: so the first n images
of a part are a fair sample of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phasewise import checks
from phasewise.data.decode import Array, Color
from phasewise.data.images import PARTS, ImageData, PixelRange, check_pixel_range
from phasewise.data.parts import Part, Parts, encode_labels, tensor_part
from phasewise.data.sources import find
from phasewise.errors import DataError, PhasewiseError

Source = ImageData | Tensor | Array | str | os.PathLike[str]
Rows = dict[str, tuple[str, Array]]

MIN_IMAGES = 20
VALIDATION_FRACTION = 10
MAX_VALIDATION = 5000
PATTERN = np.array([0, 2, 0, 0, 1, 0, 0, 2, 0, 0])  # of every ten: 7 train (0), 1 validation (1), 2 test (2)


def load_images(
    source: Source,
    data_dir: str | os.PathLike[str] | None = None,
    pixel_range: PixelRange | None = None,
    seed: int = 0,
    limit: int | None = None,
    color: Color | None = None,
) -> ImageData:
    """Read an image set.

    Args:
        source: "digits" (embedded), "mnist", "fashion_mnist", "cifar10", "trashnet64", a folder, a .parquet or .npz
            file, a hub id "owner/name", a tensor or array (N, C, H, W), or an ImageData, which is returned as it is.
        data_dir: where named sets are looked for; default: the environment variable PHASEWISE_DATA, then the hub.
        pixel_range: (lo, hi) of black and white. Default: (0, 1); for a real-valued tensor its own least and
            greatest value. Real-valued pixels must lie in it.
        seed: fixes the split. ``limit`` changes neither validation nor test, and smaller limits are subsets of larger.
        limit: largest number of training images, a random subset.
        color: "gray" or "rgb" converts every image; None keeps what the files hold.

    Raises :class:`DataError` for whatever cannot be found, read, or used as images; the message says what to do.
    """
    if isinstance(source, ImageData):
        return source
    _check_arguments(seed, limit, color, data_dir)
    if not isinstance(source, (Tensor, np.ndarray, str, os.PathLike)):
        raise DataError(
            f"cannot load images from a {type(source).__name__}; give a name, a path, or a tensor (N, C, H, W)"
        )
    if isinstance(source, (Tensor, np.ndarray)):
        name, parts = "tensor", {"all": tensor_part(source)}
        pixel_range = parts["all"].span if pixel_range is None else pixel_range
    else:
        base = None if data_dir is None else Path(data_dir)
        name, parts = find(source if isinstance(source, str) else Path(source), base)
    span = check_pixel_range((0.0, 1.0) if pixel_range is None else pixel_range)
    _check_span(parts, span)
    labels = encode_labels(parts)
    fields: dict[str, Any] = {}
    for part, (key, rows) in split_rows(parts, labels, seed, limit).items():
        fields[part] = scale(parts[key], rows, span, color)
        marks = labels[key]
        fields[f"labels_{part}"] = None if marks is None else torch.from_numpy(marks[rows])
    _refuse_constant(fields["train"], name)
    return ImageData(name=name, pixel_range=span, **fields)


def as_images(data: Source) -> ImageData:
    """``data`` itself if it is an ImageData, else :func:`load_images` of it with the defaults."""
    return load_images(data)


def _check_arguments(seed: int, limit: int | None, color: str | None, data_dir: object = None) -> None:
    if color not in (None, "gray", "rgb"):
        raise DataError(f"color must be 'gray', 'rgb' or None (keep), got {color!r}")
    try:
        if limit is not None:
            checks.whole(1, what="None for all, or a whole number of training images")(limit, "limit")
        checks.seed(seed, "seed")
        if data_dir is not None:
            checks.file(data_dir, "data_dir")
    except PhasewiseError as error:
        raise DataError(str(error)) from error


def split_rows(parts: Parts, labels: dict[str, Array | None], seed: int, limit: int | None) -> Rows:
    """Which rows of which part become train, validation and test: ``{"train": (key of parts, rows), ...}``.

    A given validation part without a test part serves as the test part.
    """
    rng = np.random.default_rng(seed)
    key = "all" if "all" in parts else "train"
    count = parts[key].count
    if count < MIN_IMAGES:
        raise DataError(
            f"{parts[key].where} has {count} images; at least {MIN_IMAGES} are needed to split them, "
            "and hundreds for a useful result"
        )
    for part in parts.values():
        if part.count == 0:
            raise DataError(f"{part.where} has no images; fill it or leave it out")
    order = rng.permutation(count)
    held = "test" if "test" in parts else "validation"
    if key == "all" or held not in parts:
        # shuffled once more: _divide sorts by class where there are labels
        rows = {part: (key, rng.permutation(chosen)) for part, chosen in _divide(order, labels[key]).items()}
    else:
        aside = min(MAX_VALIDATION, count // VALIDATION_FRACTION)
        rows = {"train": (key, order[aside:]), "validation": (key, order[:aside])}
        rows["test"] = (held, _fair_order(parts[held].count, labels[held], rng))
        if held == "test" and "validation" in parts:  # all three are given: nothing is put aside
            rows["train"] = (key, order)
            rows["validation"] = ("validation", _fair_order(parts["validation"].count, labels["validation"], rng))
    rows["train"] = (key, rows["train"][1][:limit])  # after the split, which it must not change
    return rows


def _divide(order: Array, labels: Array | None) -> dict[str, Array]:
    """70 / 10 / 20 of a random order: sorted by class first, every ten neighbours are shared out alike."""
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]  # stable: by chance within a class
    share = PATTERN[np.arange(len(order)) % len(PATTERN)]
    return {part: order[share == k] for k, part in enumerate(PARTS)}


def _fair_order(count: int, labels: Array | None, rng: np.random.Generator) -> Array:
    """The order as given, or a random one where labels show that the part is sorted by class."""
    if labels is not None and count > 1 and (np.diff(labels) >= 0).all():
        return rng.permutation(count)
    return np.arange(count)


def scale(part: Part, rows: Array, pixel_range: PixelRange, color: Color | None) -> Tensor:
    """The chosen rows as float32 (n, C, H, W) in ``pixel_range``."""
    low, high = pixel_range
    if part.levels is not None:
        # one float per level, looked up by every pixel
        table = (low + (high - low) * np.arange(part.levels + 1) / part.levels).astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(table[part.read(rows, color)]))
    return torch.from_numpy(np.ascontiguousarray(part.read(rows, color), dtype=np.float32))


def _check_span(parts: Parts, pixel_range: PixelRange) -> None:
    low, high = pixel_range
    slack = 1e-6 * (high - low)  # float32 pixels against ends given in float64
    spans = {part.where: part.span for part in parts.values() if part.span}
    least, most = min((s[0] for s in spans.values()), default=low), max((s[1] for s in spans.values()), default=high)
    if least < low - slack or most > high + slack:
        raise DataError(
            f"{' and '.join(spans)}: pixels lie between {least:.9g} and {most:.9g}, outside pixel_range "
            f"({low:g}, {high:g}); pass pixel_range=({least:.9g}, {most:.9g}), or rescale the pixels"
        )


def _refuse_constant(train: Tensor, name: str) -> None:
    if train.min() == train.max():
        raise DataError(
            f"{name}: every training pixel is {float(train.min()):g}, so there is nothing to learn; check the file"
        )
