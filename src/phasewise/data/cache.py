"""Decoded images kept on disk, to be mapped into memory instead of decoded again: one plain ``.npy`` file a part.

A file's name is a hash of the encoded bytes, of the form they are brought into, and of the decoder's version; so a set
that changes gets another file, and no file is ever out of date.  The folder may be removed at any time.  It is that
of the environment variable PHASEWISE_CACHE (set to nothing: none is kept), else ``phasewise`` in the user's own
(XDG_CACHE_HOME, else ``~/.cache``).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from phasewise import files, memory
from phasewise.data.form import Array, Form
from phasewise.errors import DataError, PhasewiseWarning

CACHE_VARIABLE = "PHASEWISE_CACHE"
FORMAT = 1
SMALL = 2**22
"""Bytes below which decoding again is as good as keeping."""

Room = Callable[[tuple[int, ...], Any], Array]


def cache_folder() -> Path | None:
    """Where decoded images are kept; None where they are not."""
    given = os.environ.get(CACHE_VARIABLE)
    if given is not None:
        return Path(given) / "images" if given.strip() else None
    home = os.environ.get("XDG_CACHE_HOME")
    with contextlib.suppress(RuntimeError):  # no home folder
        return (Path(home) if home else Path.home() / ".cache") / "phasewise" / "images"
    return None


def key_of(content: str, form: Form) -> str:
    """Name of what ``content``, a hash of encoded images, becomes in ``form``."""
    about = (FORMAT, PIL.__version__, content, form.color, form.crop, form.resize, form.raw)
    return hashlib.sha256(repr(about).encode()).hexdigest()[:40]


def kept(folder: Path, key: str, count: int, decode: Callable[[Room], Array]) -> Array:
    """The ``count`` images kept in ``folder`` as ``key``, mapped into memory; where there are none, ``decode(room)`` of
    them, kept where that can be."""
    path = folder / f"{key}.npy"
    found = _mapped(path, count)
    if found is not None:
        return found
    made: list[np.memmap] = []

    def room(shape: tuple[int, ...], dtype: Any) -> Array:
        if math.prod(shape) * np.dtype(dtype).itemsize < SMALL:
            return np.empty(shape, dtype)
        made.append(np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape))
        with open(temporary, "r+b") as file:  # a full disk is met here, not while the map is filled, which would crash
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        return made[0]

    try:
        with files.filling(path) as temporary:
            pixels = decode(room)
            if not made:
                raise _TooSmall(pixels)
            made[0].flush()
    except _TooSmall as small:
        return small.pixels
    except OSError as error:
        if CACHE_VARIABLE in os.environ:
            warnings.warn(
                f"decoded images cannot be kept in {folder} ({error.strerror or error}): they are decoded each time",
                PhasewiseWarning,
                stacklevel=2,
            )
        return decode(np.empty)
    again = _mapped(path, count)
    return pixels if again is None else again


class _TooSmall(Exception):
    """Decoded, but not worth keeping."""

    def __init__(self, pixels: Array) -> None:
        self.pixels = pixels


def _mapped(path: Path, count: int) -> Array | None:
    """The array in a file, read only; None where there is no whole one of so many images."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 4 and len(found) == count else None


def large_array(shape: tuple[int, ...]) -> Array:
    """An empty float32 array: in memory, or, where it would take more than half of what is free, in a file that is
    mapped into memory and vanishes with the process.

    Raises :class:`DataError` where neither has room.
    """
    size, free = 4 * math.prod(shape), memory.available()
    if free is None or size <= free / 2:
        return np.empty(shape, np.float32)
    folder = cache_folder()
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.float32, "r+", shape=shape)
    except OSError as error:
        raise DataError(
            f"{shape[0]} images of {'x'.join(map(str, shape[1:]))} take {size / 1e9:.1f} GB as float32, with "
            f"{free / 1e9:.1f} GB of memory free and no room on disk ({error.strerror or error}); use limit, crop or "
            "resize"
        ) from error
