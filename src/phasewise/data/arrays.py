"""Arrays of numpy files (.npz, .npy) into parts: headers are read before anything is unpacked, pickles never."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

from phasewise import memory
from phasewise.data.form import Array
from phasewise.data.parts import Part, Parts, Reading, array_part, channels_first
from phasewise.data.tables import first_line, need_file
from phasewise.errors import DataError

UNREADABLE = (
    OSError, EOFError, RuntimeError, SyntaxError, TokenError, MemoryError, NotImplementedError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
IMAGES = ("x_{}", "X_{}", "images_{}", "{}_images")
LABELS = ("y_{}", "Y_{}", "labels_{}", "{}_labels")
ALONE, ALONE_LABELS = ("images", "x", "X", "arr_0"), ("labels", "y", "Y")
BOMB_BYTES, BOMB_RATIO = 2**28, 500
"""An archive's member of more bytes than this, packed better than this many times, holds no pictures."""


def read_arrays(path: Path, aliases: dict[str, tuple[str, ...]], reading: Reading) -> Parts:
    """Arrays ``x_train``, ``x_test`` (or ``train_images``), labels ``y_train`` ...; or ``images``, ``x``, ``arr_0``.

    A name that was asked for is taken as the one undivided set.
    """
    need_file(path)
    if path.suffix == ".npy":
        return {"all": _part(channels_first(_mapped(path), str(path), reading.channels), None, str(path), reading)}
    archive = _Archive(path)
    parts: Parts = {}
    if reading.image_column is None:
        for part, names in aliases.items():
            images = reading.pick(archive.names, "image", [k.format(n) for n in names for k in IMAGES], str(path))
            usual = [k.format(n) for n in names for k in LABELS]
            if images is not None:
                labels = next((n for n in usual if n in archive.names), None) if reading.label_column is None else None
                parts[part] = archive.part(images, labels, reading)
        if "train" in parts:
            if reading.label_column not in (None, "none"):
                raise DataError(
                    f"{path} is divided into parts, whose labels are named {', '.join(LABELS)}; name them so"
                )
            return parts
    images = reading.pick(archive.names, "image", ALONE, str(path))
    if images is None:
        raise DataError(
            f"{path} has no array 'images', 'x' or 'x_train' (arrays: {', '.join(archive.names) or 'none'}); rename "
            "the image array, or say which it is with image_column= (--image-column)"
        )
    return {"all": archive.part(images, reading.pick(archive.names, "label", ALONE_LABELS, str(path)), reading)}


def _part(images: Array, labels: Array | None, where: str, reading: Reading) -> Part:
    # labels given as a column, as Keras has those of CIFAR
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return array_part(images, labels, where, chosen=reading.label_column is not None)


def _mapped(path: Path) -> Array:
    """The array of a .npy file, mapped into memory; a header that claims more than the file holds is refused."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise _refused(path, error) from error
    except (*UNREADABLE, OverflowError) as error:
        raise _damaged(path, error) from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path} is not a whole npy file; write it again with numpy.save")
    return found


class _Archive:
    """A .npz file: the names of its arrays, and each of them unpacked when it is taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not zipfile.is_zipfile(path):
            raise _damaged(path, "no zip archive, or cut short")
        try:
            with zipfile.ZipFile(path) as archive:
                self.members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        except (*UNREADABLE, ValueError) as error:
            raise _damaged(path, error) from error
        self.names = list(self.members)

    def part(self, images: str, labels: str | None, reading: Reading) -> Part:
        where = f"{self.path} [{images}]"
        values = channels_first(self.array(images), where, reading.channels)
        return _part(values, None if labels is None else self.array(labels), where, reading)

    def array(self, name: str) -> Array:
        member, where = self.members[name], f"{self.path} [{name}]"
        self._refuse_bomb(member, where)
        try:
            with zipfile.ZipFile(self.path) as archive:
                with archive.open(member) as file:
                    claimed = _claimed(file)
                if claimed is not None and claimed > member.file_size:
                    raise DataError(
                        f"{where} claims {claimed / 1e9:.3g} GB but holds {member.file_size / 1e9:.3g} GB; write it "
                        "again with numpy.savez"
                    )
                with archive.open(member) as file:
                    return np.lib.format.read_array(file, allow_pickle=False)
        except DataError:
            raise
        except ValueError as error:
            raise _refused(self.path, error) from error
        except UNREADABLE as error:
            raise _damaged(self.path, error) from error

    def _refuse_bomb(self, member: zipfile.ZipInfo, where: str) -> None:
        size, packed, free = member.file_size, max(1, member.compress_size), memory.available()
        if size > BOMB_BYTES and size > BOMB_RATIO * packed:
            raise DataError(
                f"{where} would unpack from {packed / 1e6:.3g} MB to {size / 1e9:.3g} GB, which no pictures do; "
                "check where it comes from"
            )
        if free is not None and size > free:
            raise DataError(
                f"{where} takes {size / 1e9:.3g} GB of memory and {free / 1e9:.3g} GB are free; save it with "
                "numpy.save as .npy, which is mapped into memory"
            )


def _claimed(file: IO[bytes]) -> int | None:
    """Bytes of the array that a header announces; None of a version that numpy reads by other means, and of objects."""
    version = np.lib.format.read_magic(file)
    reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if reader is None:
        return None
    shape, _, kind = reader(file)
    if kind.hasobject:
        return None
    size = kind.itemsize
    for n in shape:
        size *= int(n)
    return size


def _refused(path: Path, error: ValueError) -> DataError:
    if "pickle" in str(error) or "Object arrays" in str(error):
        return DataError(
            f"{path} holds Python objects (pickle), which are never loaded; save plain arrays of one shape and dtype"
        )
    return _damaged(path, error)


def _damaged(path: Path, error: BaseException | str) -> DataError:
    why = error if isinstance(error, str) else first_line(error)
    return DataError(f"{path} is not a whole npz file ({why}); write it again with numpy.savez")
