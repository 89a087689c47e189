"""A part of an image set before it is split and scaled: how many images, their labels, and how to read chosen rows.

Pixels are either integer levels (scaled to the pixel range later, :mod:`phasewise.data.levels`) or real values that
are taken as they stand.  Labels are whole numbers or names; a negative number means "no label", the hub's convention.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from phasewise.data import cache
from phasewise.data.decode import decode_rows
from phasewise.data.form import Array, Form
from phasewise.errors import DataError, PhasewiseWarning

Parts = dict[str, "Part"]
Channels = Literal["first", "last"]
Stream = Callable[[Array], Iterator[tuple[int, bytes | None]]]
"""``stream(rows)``, rows ascending: their encoded images one after another."""
CHUNK = 2**22
"""Values that are worked on at a time."""


@dataclass(frozen=True)
class Reading:
    """How a source is to be read where it leaves that open: as the arguments of :func:`phasewise.load_images`."""

    channels: Channels | None = None
    image_column: str | None = None
    label_column: str | None = None
    cache: bool = True

    def pick(
        self, names: Iterable[str], kind: Literal["image", "label"], usual: Sequence[str], where: str
    ) -> str | None:
        """The column or array of ``names`` to take, None where there is none: the one asked for, else the first usual.

        Raises :class:`DataError` where the one asked for is not there.
        """
        known, asked = list(names), self.image_column if kind == "image" else self.label_column
        if asked is None:
            return next((name for name in usual if name in known), None)
        if asked == "none" and kind == "label":
            return None
        if asked not in known:
            raise DataError(f"{where} has no {kind} column {asked!r}; it has {', '.join(known) or 'none'}")
        return asked


@dataclass(frozen=True)
class Stored:
    """Pixels (M, C, H, W) in memory or mapped into it, of which those at ``index`` (n,) are meant, in that order."""

    pixels: Array
    index: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.index), *self.pixels.shape[1:])

    def __getitem__(self, part: slice) -> Stored:
        return Stored(self.pixels, self.index[part])

    def chunks(self) -> Iterator[tuple[slice, Array]]:
        """(where, the images there), a few at a time."""
        step = max(1, CHUNK // max(1, self.pixels[0].size)) if len(self.pixels) else 1
        for start in range(0, len(self.index), step):
            where = slice(start, start + step)
            yield where, self.pixels[self.index[where]]


@dataclass(frozen=True)
class Part:
    """``read(rows, form)`` gives the rows.  Integer pixels are of ``kind`` and, in an array, lie in ``extent`` (least,
    greatest); ``white`` is their white level where the source says it.  Real ones (``kind`` None) lie in ``span``.

    ``chosen``: whether the labels were asked for by name, so that they may not be left out.
    """

    where: str
    count: int
    labels: Array | None
    read: Callable[[Array, Form], Stored]
    kind: np.dtype | None = None
    span: tuple[float, float] | None = None
    extent: tuple[int, int] | None = None
    white: int | None = None
    encoded: bool = False
    chosen: bool = False

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
    stream: Stream,
    describe: Callable[[int], str],
    content: Callable[[], str] | None = None,
    *,
    chosen: bool = False,
    keep: bool = True,
) -> Part:
    """A part of encoded images, decoded when read; all of them are kept decoded (:mod:`phasewise.data.cache`) if
    ``keep``.

    ``content()``: a hash of the encoded bytes, where there is a quicker one than over the stream.
    """

    def read(rows: Array, form: Form) -> Stored:
        def decode(room: cache.Room) -> Array:
            return decode_rows(stream(wanted), len(wanted), describe, form, room)

        wanted, index = np.unique(rows, return_inverse=True)
        folder = cache.cache_folder() if keep and len(wanted) == count else None
        if folder is None:
            return Stored(decode(np.empty), index)
        key = cache.key_of(content() if content is not None else _content(stream(wanted)), form)
        return Stored(cache.kept(folder, key, count, decode), index)

    return Part(where, count, labels, read, encoded=True, chosen=chosen)


def _content(blobs: Iterator[tuple[int, bytes | None]]) -> str:
    digest = hashlib.sha256()
    for _, blob in blobs:
        digest.update(len(blob or b"").to_bytes(8, "little"))
        digest.update(blob or b"")
    return digest.hexdigest()


def array_part(
    values: Array, labels: Array | None, where: str, white: int | None = None, *, chosen: bool = False
) -> Part:
    """A part held in an array (N, C, H, W).

    Raises :class:`DataError` for non-numbers, NaN or infinite pixels, and real pixels that are all the same.
    """
    if not len(values) or not values.size:
        raise DataError(f"{where} is empty (shape {values.shape}); give images (N, C, H, W)")

    def read(rows: Array, form: Form) -> Stored:
        stored = Stored(values, rows)
        if form.keeps and values[0].size <= CHUNK:
            return stored
        made = [form.apply(chunk, where) for _, chunk in stored.chunks()]
        return Stored(np.concatenate(made), np.arange(len(rows)))

    if np.issubdtype(values.dtype, np.floating):
        span = _span(values, where)
        return Part(where, len(values), labels, read, None, span, chosen=chosen)
    if values.dtype != np.bool_ and not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"{where} holds {values.dtype}, not pixels; save the images as uint8 or float32")
    extent = (int(values.min()), int(values.max()))
    return Part(where, len(values), labels, read, values.dtype, None, extent, white, chosen=chosen)


def _span(values: Array, where: str) -> tuple[float, float]:
    """(least, greatest) as float32, which is what the pixels become."""
    # float64 beyond float32's range becomes infinite, and is refused
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.float32(values.min()), np.float32(values.max())
    if not np.isfinite([low, high]).all():  # NaN and infinity reach the least or the greatest value
        with np.errstate(over="ignore", invalid="ignore"):
            bad = ~np.isfinite(values.astype(np.float32, copy=False)).all(axis=(1, 2, 3))
        raise DataError(
            f"{where}: {int(bad.sum())} of {len(values)} images hold NaN or infinite pixels (first: image "
            f"{int(bad.argmax())}); remove or repair them"
        )
    if low == high:
        raise DataError(f"{where}: every pixel is {low:g}, so there is nothing to learn; check the data")
    return float(low), float(high)


def tensor_part(images: Tensor | Array, channels: Channels | None = None) -> Part:
    """A tensor or numpy array (N, C, H, W) as a part without labels; ``channels`` "last": (N, H, W, C)."""
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        images = (images.float() if images.is_floating_point() else images).numpy()
    if images.ndim != 4:
        raise DataError(
            f"images must have shape (N, C, H, W), got {tuple(images.shape)}; "
            "for gray images (N, H, W) pass images[:, None]"
        )
    if channels is None:
        ask_channels(tuple(images.shape))
    return array_part(images.transpose(0, 3, 1, 2) if channels == "last" else images, None, "the tensor")


def ask_channels(shape: tuple[int, ...]) -> None:
    """Raise :class:`DataError` for images (N, C, H, W) of a shape that is more likely (N, H, W, C)."""
    if len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3):
        raise DataError(
            f"images of shape {shape} look as if their {shape[3]} channels came last; give them to load_images with "
            "channels='last', or with channels='first' if it is (N, C, H, W)"
        )


def channels_first(values: Array, where: str, channels: Channels | None = None) -> Array:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W); where not said, C is the axis of at most 4 entries."""
    if values.ndim == 3:
        return values[:, None]
    if values.ndim == 4 and channels is None and values.shape[1] in (2, 4) and values.shape[3] in (1, 3):
        raise DataError(
            f"{where} has shape {values.shape}, whose channels may be the second axis or the last; say which with "
            "channels='first' or channels='last' (--channels)"
        )
    if values.ndim == 4 and (channels == "first" or (channels is None and values.shape[1] <= 4)):
        return values
    if values.ndim == 4 and (channels == "last" or values.shape[3] <= 4):
        return values.transpose(0, 3, 1, 2)
    raise DataError(
        f"{where} has shape {values.shape}; save images as (N, H, W), (N, H, W, C) or (N, C, H, W), C <= 4, or say "
        "where more channels are with channels='first' or channels='last' (--channels)"
    )


def encode_labels(parts: Parts) -> tuple[dict[str, Array | None], tuple[str, ...] | None]:
    """Labels as int64, and the names of the classes where the labels are not their own numbers.

    Names are numbered in sorted order over all parts; so are numbers of which one is not below the number of labels,
    which are no count of classes.  A part with a negative label has none.  Labels that are no classes (fractions,
    lists) are left out with a warning, unless they were chosen: then :class:`DataError`.
    """
    found = {key: part.labels for key, part in parts.items() if part.labels is not None}
    odd = [key for key, labels in found.items() if not _names(labels) and not _whole(labels)]
    if odd:
        part = parts[odd[0]]
        wrong = f"{part.where} has labels that are not whole numbers or names"
        if part.chosen:
            raise DataError(f"{wrong}; number the classes 0, 1, 2, ..., or leave the labels out")
        warnings.warn(f"{wrong}; the images are taken without labels", PhasewiseWarning, stacklevel=4)
        return dict.fromkeys(parts), None
    if any(_names(labels) for labels in found.values()):
        return _numbered(parts, {key: np.array([str(x) for x in labels]) for key, labels in found.items()})
    out: dict[str, Array | None] = dict.fromkeys(parts)
    for key, labels in found.items():
        whole = labels.astype(np.int64)
        out[key] = None if (whole < 0).any() else whole
    numbers = {key: labels for key, labels in out.items() if labels is not None and len(labels)}
    if numbers and max(int(x.max()) for x in numbers.values()) >= sum(map(len, numbers.values())):
        return _numbered(parts, numbers)
    return out, None


def _names(labels: Array) -> bool:
    return labels.dtype.kind in "US" or (labels.dtype.kind == "O" and all(isinstance(x, (str, bytes)) for x in labels))


def _whole(labels: Array) -> bool:
    if labels.dtype.kind not in "biuf" or not np.isfinite(labels).all():
        return False
    with np.errstate(invalid="ignore"):
        return bool((labels.astype(np.int64) == labels).all())


def _numbered(parts: Parts, found: dict[str, Array]) -> tuple[dict[str, Array | None], tuple[str, ...]]:
    names = np.unique(np.concatenate(list(found.values())))
    out: dict[str, Array | None] = dict.fromkeys(parts)
    out.update({key: np.searchsorted(names, labels).astype(np.int64) for key, labels in found.items()})
    return out, tuple(map(str, names))
