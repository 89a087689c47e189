"""Readers of local files: image folders, parquet (Hugging Face ``datasets`` convention) and npz, into parts.

The parts found are named "train", "validation" and "test", or "all" when the source is a single undivided set.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from phasewise.data.decode import Array
from phasewise.data.parts import Part, Parts, array_part, encoded_part
from phasewise.errors import DataError

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
ALIASES = {"train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test", "testing")}
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
UNREADABLE_NPZ = (OSError, EOFError, RuntimeError, SyntaxError, TokenError, zipfile.BadZipFile, zlib.error)
NPZ_IMAGES = ("x_{}", "X_{}", "images_{}", "{}_images")
NPZ_LABELS = ("y_{}", "Y_{}", "labels_{}", "{}_labels")


def read_path(path: Path) -> Parts:
    """The parts at ``path``: a folder, a .parquet, or a .npz/.npy file. Raises :class:`DataError`."""
    if path.is_dir():
        return read_folder(path)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}; check the path")
    if path.suffix == ".parquet":
        return {"all": read_parquet([path])}
    if path.suffix in (".npz", ".npy"):
        return read_npz(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{path} is a single image; give the folder that holds the images ({path.parent})")
    raise DataError(f"cannot read {path}: give a folder of images, a .parquet file or an .npz file")


def read_folder(folder: Path) -> Parts:
    """Image files in one of three layouts, or parquet files.

    * ``train/`` and ``test/`` (and ``validation/``), each in one of the layouts below;
    * one subfolder per class, whose names are the labels; or images side by side, without labels;
    * parquet: ``train*.parquet`` with ``test*.parquet`` / ``validation*.parquet``, or any others as one set.

    Files are taken in the order of their names; hidden files and files that are not images are ignored.
    """
    shards = [p for p in sorted(folder.glob("*.parquet")) if not p.name.startswith(".")]
    if shards:
        groups = {part: [p for p in shards if p.name.startswith(names)] for part, names in ALIASES.items()}
        if groups["train"]:
            return {part: read_parquet(files) for part, files in groups.items() if files}
        return {"all": read_parquet(shards)}
    folders = {p.name.lower(): p for p in sorted(folder.iterdir()) if _is_visible_folder(p)}
    parts = {part: next((folders[n] for n in names if n in folders), None) for part, names in ALIASES.items()}
    if parts["train"] and (parts["test"] or parts["validation"]):
        return {part: image_folder(path) for part, path in parts.items() if path}
    alone = parts["train"] if len(folders) == 1 else None  # train/ by itself is the whole set
    return {"all": image_folder(alone or folder)}


def image_folder(folder: Path) -> Part:
    """One folder of images, flat or with one subfolder per class, as a part."""
    loose = sorted(p for p in folder.iterdir() if _is_image(p))
    classes = {
        p.name: sorted(filter(_is_image, p.rglob("*"))) for p in sorted(folder.iterdir()) if _is_visible_folder(p)
    }
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
    return encoded_part(
        str(folder),
        len(files),
        np.array(names) if classes else None,
        lambda k: _bytes(files[k]),
        lambda k: str(files[k]),
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _is_visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "__"))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def read_parquet(paths: Iterable[Path]) -> Part:
    """One part from one or several parquet files of the same columns."""
    paths = list(paths)
    tables = []
    for path in paths:
        if not path.exists():
            raise DataError(f"there is no file {path}; check the path")
        try:
            with pq.ParquetFile(path) as file:
                names = file.schema_arrow.names
                tables.append(file.read(columns=[n for n in names if n in IMAGE_COLUMNS + LABEL_COLUMNS]))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} is not a whole parquet file ({_first_line(error)}); fetch or write it again"
            ) from error
        if not set(names) & set(IMAGE_COLUMNS):
            raise DataError(
                f"{path} has no column 'image' (columns: {', '.join(names) or 'none'}); rename the image column"
            )
    try:
        return table_part(pa.concat_tables(tables), str(paths[0]))
    except pa.ArrowException as error:
        raise DataError(
            f"{paths[0]} and the files beside it differ ({_first_line(error)}); give all the same columns"
        ) from error


def table_part(table: pa.Table, where: str) -> Part:
    """A table with a column image (struct{bytes, path} or binary) and perhaps one of labels, as a part.

    One null label drops all labels.
    """
    name = next((n for n in IMAGE_COLUMNS if n in table.column_names), None)
    if name is None:
        raise DataError(
            f"{where} has no column 'image' (columns: {', '.join(table.column_names)}); rename the image column"
        )
    column = table[name]
    if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(
            f"{where}: column '{name}' is {column.type}, not struct{{bytes, path}} or binary; store encoded images"
        )
    label = next((n for n in LABEL_COLUMNS if n in table.column_names), None)
    labels = None if label is None or table[label].null_count else table[label].to_numpy()
    return encoded_part(where, len(column), labels, lambda k: column[k].as_py(), lambda k: f"{where} row {k}")


def read_npz(path: Path) -> Parts:
    """Arrays ``x_train``, ``x_test`` (or ``train_images``), labels ``y_train`` ...; or ``images``, ``x``, ``arr_0``."""
    arrays = _load_arrays(path)
    parts: Parts = {}
    for part, names in ALIASES.items():
        images = _pick(arrays, [key.format(n) for n in names for key in NPZ_IMAGES])
        labels = _pick(arrays, [key.format(n) for n in names for key in NPZ_LABELS])
        if images:
            parts[part] = _npz_part(arrays, images, labels, path)
    if "train" in parts:
        return parts
    images = _pick(arrays, ["images", "x", "X", "arr_0"])
    if images is None:
        found = ", ".join(arrays) or "none"
        raise DataError(f"{path} has no array 'images', 'x' or 'x_train' (arrays: {found}); rename the image array")
    return {"all": _npz_part(arrays, images, _pick(arrays, ["labels", "y", "Y"]), path)}


def _npz_part(arrays: dict[str, Array], images: str, labels: str | None, path: Path) -> Part:
    where = f"{path} [{images}]"
    marks = None if labels is None else arrays[labels]
    # labels given as a column, as Keras has those of CIFAR
    if marks is not None and marks.ndim == 2 and marks.shape[1] == 1:
        marks = marks[:, 0]
    return array_part(_channels_first(arrays[images], where), marks, where)


def _channels_first(values: Array, where: str) -> Array:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W); C is the axis of at most 4 entries."""
    if values.ndim == 3:
        return values[:, None]
    if values.ndim == 4 and values.shape[1] <= 4:
        return values
    if values.ndim == 4 and values.shape[3] <= 4:
        return values.transpose(0, 3, 1, 2)
    raise DataError(f"{where} has shape {values.shape}; save images as (N, H, W), (N, H, W, C) or (N, C, H, W), C <= 4")


def _pick(arrays: dict[str, Array], names: list[str]) -> str | None:
    return next((name for name in names if name in arrays), None)


def _load_arrays(path: Path) -> dict[str, Array]:
    whole = f"{path} is not a whole npz file"
    if path.suffix == ".npz" and not zipfile.is_zipfile(path):
        raise DataError(f"{whole} (no zip archive, or cut short); write it again with numpy.savez")
    try:
        loaded = np.load(path, allow_pickle=False)
        return {"images": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except ValueError as error:
        if "pickle" not in str(error):
            raise DataError(f"{whole} ({_first_line(error)}); write it again with numpy.savez") from error
        raise DataError(
            f"{path} holds Python objects (pickle), which are never loaded; save plain arrays of one shape and dtype"
        ) from error
    except UNREADABLE_NPZ as error:
        raise DataError(f"{whole} ({_first_line(error)}); write it again with numpy.savez") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
