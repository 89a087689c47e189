"""Readers of local paths into parts: image folders here; parquet and numpy files by their own modules.

The parts found are named "train", "validation" and "test", or "all" when the source is a single undivided set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from phasewise.data.arrays import read_arrays
from phasewise.data.form import Array
from phasewise.data.parts import Part, Parts, Reading, encoded_part
from phasewise.data.tables import read_parquet
from phasewise.errors import DataError

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
ALIASES = {"train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test", "testing")}


def read_path(path: Path, reading: Reading) -> Parts:
    """The parts at ``path``: a folder, a .parquet, or a .npz/.npy file. Raises :class:`DataError`."""
    if path.is_dir():
        return read_folder(path, reading)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}; check the path")
    if path.suffix == ".parquet":
        return {"all": read_parquet([path], reading)}
    if path.suffix in (".npz", ".npy"):
        return read_arrays(path, ALIASES, reading)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{path} is a single image; give the folder that holds the images ({path.parent})")
    raise DataError(f"cannot read {path}: give a folder of images, a .parquet file or an .npz file")


def read_folder(folder: Path, reading: Reading) -> Parts:
    """Image files in one of three layouts, or parquet files.

    * ``train/`` and ``test/`` (and ``validation/``), each in one of the layouts below, or with parquet files in it;
    * one subfolder per class, whose names are the labels; or images side by side, without labels;
    * parquet: ``train*.parquet`` with ``test*.parquet`` / ``validation*.parquet``, or any others as one set.

    A folder that holds a single one and no images is passed through, as ``data/`` of a set of the hub is.
    Files are taken in the order of their names; hidden files and files that are not images are ignored.
    """
    entries = _entries(folder)
    shards = _parquet(entries)
    if shards:
        groups = {part: [p for p in shards if p.name.startswith(names)] for part, names in ALIASES.items()}
        if groups["train"]:
            return {part: read_parquet(files, reading) for part, files in groups.items() if files}
        return {"all": read_parquet(shards, reading)}
    folders = {p.name.lower(): p for p in entries if _is_visible_folder(p)}
    parts = {part: next((folders[n] for n in names if n in folders), None) for part, names in ALIASES.items()}
    if parts["train"] and (parts["test"] or parts["validation"]):
        return {part: _folder_part(path, reading) for part, path in parts.items() if path}
    alone = next(iter(folders.values())) if len(folders) == 1 and not any(map(_is_image, entries)) else None
    if alone is not None and alone != parts["train"] and not any(map(_is_image, _entries(alone))):
        inner = _entries(alone)
        if _parquet(inner) or any(_parquet(_entries(p)) for p in inner if _is_visible_folder(p)):
            return read_folder(alone, reading)
    return {"all": _folder_part((alone and parts["train"]) or folder, reading)}


def _folder_part(folder: Path, reading: Reading) -> Part:
    shards = _parquet(_entries(folder))
    return read_parquet(shards, reading) if shards else image_folder(folder, reading)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror or error}") from error


def _parquet(entries: list[Path]) -> list[Path]:
    return [p for p in entries if p.suffix == ".parquet" and not p.name.startswith(".")]


def image_folder(folder: Path, reading: Reading) -> Part:
    """One folder of images, flat or with one subfolder per class, as a part."""
    entries = _entries(folder)
    loose = [p for p in entries if _is_image(p)]
    classes = {p.name: list(_images_under(p, folder)) for p in entries if _is_visible_folder(p)}
    classes = {name: files for name, files in classes.items() if files}
    if loose and classes:
        raise DataError(
            f"{folder} holds images beside class folders ({loose[0].name} beside {next(iter(classes))}/); "
            "move every image into a class folder, or all of them into one flat folder"
        )
    files = loose or [path for group in classes.values() for path in group]
    if not files:
        raise DataError(
            f"{folder} holds no images; put image files ({', '.join(sorted(IMAGE_SUFFIXES))}) or .parquet files there"
        )
    names = [name for name, group in classes.items() for _ in group]

    def stream(rows: Array) -> Iterator[tuple[int, bytes | None]]:
        return ((row, _bytes(files[row])) for row in rows.tolist())

    labels = np.array(names) if classes and reading.label_column != "none" else None
    return encoded_part(str(folder), len(files), labels, stream, lambda k: str(files[k]), keep=reading.cache)


def _images_under(folder: Path, root: Path) -> Iterator[Path]:
    """Every image in a class folder, sorted as paths are.  Raises :class:`DataError` for a folder that cannot be read,
    and for a link that leads back to one it lies in."""
    if folder.is_symlink() and folder.resolve() in (root.resolve(), *root.resolve().parents):
        raise DataError(f"{folder} is a link that leads back to {folder.resolve()}, which holds it; remove it")

    def stop(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror or error}") from error

    found = [Path(here, name) for here, _, names in os.walk(folder, onerror=stop) for name in names]
    yield from sorted(filter(_is_image, found))


def _is_image(path: Path) -> bool:
    if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
        return False
    try:
        return path.is_file()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _is_visible_folder(path: Path) -> bool:
    return not path.name.startswith((".", "__")) and path.is_dir()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
