r"""``load_images``: any source to :class:`ImageData`, split and scaled in a way that the seed fixes.

Scaling: integer levels ``v = 0 .. L`` become ``lo + (hi - lo) v / L`` with ``pixel_range = (lo, hi)`` and ``L`` by
:mod:`phasewise.data.levels`; real-valued pixels are taken as they stand and never clamped.

Split: a set that comes with a test part keeps it, and a random tenth of its training part (at most 5,000) is put
aside for validation.  A single set is divided 70 / 10 / 20, class by class where there are labels.  Every part comes
in random order, except a given test part, which keeps its order unless it is sorted by class: so the first n images
of a part are a fair sample of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from phasewise import checks
from phasewise.data.form import Array, Color, Form, Side
from phasewise.data.images import PARTS, ImageData, PixelRange, check_pixel_range
from phasewise.data.levels import check_white_level, scale, white_level_of
from phasewise.data.parts import Channels, Parts, Reading, Stored, encode_labels, tensor_part
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
    *,
    crop: Side | Literal["square"] | None = None,
    resize: Side | None = None,
    white_level: int | None = None,
    channels: Channels | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    cache: bool = True,
) -> ImageData:
    """Read an image set.

    Args:
        source: "digits" (embedded), "mnist", "fashion_mnist", "cifar10", "trashnet64", "clothing128", a folder, a
            .parquet, .npz or .npy file, a hub id "owner/name", a tensor or array (N, C, H, W), or an ImageData, which
            is returned as it is.
        data_dir: where named sets are looked for; default: the environment variable PHASEWISE_DATA, then the hub.
        pixel_range: (lo, hi) of black and white. Default: (0, 1); for a real-valued tensor its own least and
            greatest value. Real-valued pixels must lie in it.
        seed: fixes the split. ``limit`` changes neither validation nor test, and smaller limits are subsets of larger.
        limit: largest number of training images, a random subset.
        color: "gray" or "rgb" converts every image; None keeps what the files hold.
        crop: central cut of every image: a side in pixels, (height, width), or "square", the largest there is.
        resize: side of square images, or (height, width), to bring every image to after the crop, by averaging areas;
            only ever smaller.
        white_level: the integer that is white, where the kind of number does not say it: 4095 of 12 bits.
        channels: "first" or "last", the axis of an array's channels, where its shape leaves that open.
        image_column, label_column: names of the columns, or of the arrays in a .npz file, to take; label_column
            "none": no labels. Default: the usual names.
        cache: keep decoded images on disk (:mod:`phasewise.data.cache`); changes nothing but the time it takes.

    Raises :class:`DataError` for whatever cannot be found, read, or used as images; the message says what to do.
    """
    form = Form(color, crop, resize, raw=white_level is not None)
    check_white_level(white_level)
    if isinstance(source, ImageData):
        if not form.keeps or any(v is not None for v in (pixel_range, limit, white_level, channels)):
            raise DataError(
                f"{source.name} is loaded already; give these options to load_images with what it came from"
            )
        return source
    _check_arguments(seed, limit, channels, data_dir)
    found = _found(source, data_dir, Reading(channels, image_column, label_column, cache))
    if pixel_range is None:
        pixel_range = found.parts["all"].span if found.name == TENSOR else None
    span = check_pixel_range((0.0, 1.0) if pixel_range is None else pixel_range)
    _check_span(found.parts, span)
    labels, class_names = encode_labels(found.parts)
    rows = split_rows(found.parts, labels, seed, limit)
    stored = _read(found.parts, rows, form)
    white = white_level_of(found.parts, [(key, stored[part]) for part, (key, _) in rows.items()], white_level)
    fields: dict[str, Any] = {}
    for part, (key, chosen) in rows.items():
        source_part, marks = found.parts[key], labels[key]
        level = None if source_part.span is not None else white
        fields[part] = scale(stored.pop(part), span, level, to_8=source_part.encoded and white_level is None)
        fields[f"labels_{part}"] = None if marks is None else torch.from_numpy(marks[chosen])
    _refuse_constant(fields["train"], found.name)
    return ImageData(name=found.name, pixel_range=span, white_level=white, class_names=class_names, **fields)


TENSOR = "tensor"


@dataclass(frozen=True)
class _Found:
    name: str
    parts: Parts


def _found(source: Source, data_dir: str | os.PathLike[str] | None, reading: Reading) -> _Found:
    if not isinstance(source, (Tensor, np.ndarray, str, os.PathLike)):
        raise DataError(
            f"cannot load images from a {type(source).__name__}; give a name, a path, or a tensor (N, C, H, W)"
        )
    if isinstance(source, (Tensor, np.ndarray)):
        return _Found(TENSOR, {"all": tensor_part(source, reading.channels)})
    base = None if data_dir is None else Path(data_dir)
    return _Found(*find(source if isinstance(source, str) else Path(source), base, reading))


def _read(parts: Parts, rows: Rows, form: Form) -> dict[str, Stored]:
    """The chosen rows by part: each source is read once, for all the parts that take rows of it."""
    out: dict[str, Stored] = {}
    for key in dict.fromkeys(key for key, _ in rows.values()):
        takers = [(part, chosen) for part, (own, chosen) in rows.items() if own == key]
        stored = parts[key].read(np.concatenate([chosen for _, chosen in takers]), form)
        start = 0
        for part, chosen in takers:
            out[part] = stored[start : start + len(chosen)]
            start += len(chosen)
    return out


def first_look(
    source: Source,
    data_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> tuple[tuple[int, int, int], int]:
    """What :func:`load_images` of the same arguments gives, by decoding one image: (C, H, W), and how many images there
    are to train on, whatever the ``limit``; of an ImageData, as many as it has."""
    if isinstance(source, ImageData):
        return source.image_shape, len(source.train)
    asked = {name: options.get(name) for name in ("channels", "image_column", "label_column")}
    form = Form(options.get("color"), options.get("crop"), options.get("resize"))
    parts = _found(source, data_dir, Reading(**asked, cache=False)).parts
    part = parts["all" if "all" in parts else "train"]
    if part.count == 0:
        raise DataError(f"{part.where} has no images; fill it or leave it out")
    channels, height, width = part.read(np.arange(1), form).shape[1:]
    rows = split_rows(parts, dict.fromkeys(parts), 0, None)  # who goes where depends on labels, how many do not
    return (channels, height, width), len(rows["train"][1])


def as_images(data: Source) -> ImageData:
    """``data`` itself if it is an ImageData, else :func:`load_images` of it with the defaults."""
    return load_images(data)


def _check_arguments(seed: int, limit: int | None, channels: str | None, data_dir: object = None) -> None:
    if channels not in (None, "first", "last"):
        raise DataError(f"channels must be 'first', 'last' or None, got {channels!r}")
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


def training_share(count: int) -> int:
    """How many of a single set's images are to train on."""
    return len(_divide(np.arange(count), None)["train"])


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
