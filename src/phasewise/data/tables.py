"""Parquet files and tables (Hugging Face ``datasets`` convention) into parts: encoded images, streamed from disk."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from phasewise.data.form import Array
from phasewise.data.parts import Part, Reading, encoded_part
from phasewise.errors import DataError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target")
BATCH = 256
"""Rows read at a time."""
MAX_PAGE = 2**31
"""Bytes that one row group may unpack to."""
UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)


def read_parquet(paths: Iterable[Path], reading: Reading) -> Part:
    """One part from one or several parquet files of the same columns; the images stay on disk until they are read."""
    paths = list(paths)
    files = [_Shard.open(path, reading) for path in paths]
    ends = np.cumsum([file.rows for file in files])

    def stream(rows: Array) -> Iterator[tuple[int, bytes | None]]:
        for file, end in zip(files, ends, strict=True):
            own = rows[(rows >= end - file.rows) & (rows < end)]
            yield from ((row + int(end) - file.rows, blob) for row, blob in file.blobs(own - (int(end) - file.rows)))

    def content() -> str:
        digest = hashlib.sha256(repr([file.image for file in files]).encode())
        for path in paths:
            with open(path, "rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()

    def describe(row: int) -> str:
        shard = int(np.searchsorted(ends, row, side="right"))
        return f"{paths[shard]} row {row - (int(ends[shard]) - files[shard].rows)}"

    labels = _joined([file.labels() for file in files], paths)
    return encoded_part(
        str(paths[0]), int(ends[-1]), labels, stream, describe, content,
        chosen=reading.label_column is not None, keep=reading.cache,
    )  # fmt: skip


class _Shard:
    """One parquet file: its columns, how many rows, and rows of it one after another."""

    def __init__(self, path: Path, rows: int, image: str, label: str | None, nested: bool) -> None:
        self.path, self.rows, self.image, self.label, self.nested = path, rows, image, label, nested

    @classmethod
    def open(cls, path: Path, reading: Reading) -> _Shard:
        need_file(path)
        try:
            with pq.ParquetFile(path) as file:
                schema, about = file.schema_arrow, file.metadata
                sizes = [about.row_group(k).total_byte_size for k in range(about.num_row_groups)]
                rows = about.num_rows
        except UNREADABLE as error:
            raise _damaged(path, error) from error
        image, label = _columns(schema, str(path), reading)
        if max(sizes, default=0) > MAX_PAGE:
            raise DataError(
                f"{path} has a row group that unpacks to {max(sizes) / 1e9:.1f} GB; write it with row groups of at "
                f"most {MAX_PAGE / 1e9:.1f} GB"
            )
        return cls(path, rows, image, label, pa.types.is_struct(schema.field(image).type))

    def labels(self) -> pa.ChunkedArray | None:
        if self.label is None:
            return None
        try:
            return pq.read_table(self.path, columns=[self.label], partitioning=None)[self.label]
        except UNREADABLE as error:
            raise _damaged(self.path, error) from error

    def blobs(self, rows: Array) -> Iterator[tuple[int, bytes | None]]:
        """(row, bytes) of these rows, ascending; row groups without any are passed over."""
        if not len(rows):
            return
        column = f"{self.image}.bytes" if self.nested else self.image
        try:
            with pq.ParquetFile(self.path) as file:
                lengths = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
                starts = np.cumsum([0, *lengths])
                groups = [k for k in range(len(lengths)) if ((rows >= starts[k]) & (rows < starts[k + 1])).any()]
                at = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in groups])
                done, wanted = 0, set(rows.tolist())
                for batch in file.iter_batches(BATCH, row_groups=groups, columns=[column], use_threads=False):
                    here = at[done : done + len(batch)].tolist()
                    done += len(batch)
                    images = _bytes_of(batch.column(0))
                    yield from ((row, images[k].as_py()) for k, row in enumerate(here) if row in wanted)
        except UNREADABLE as error:
            raise _damaged(self.path, error) from error


def _bytes_of(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _columns(schema: pa.Schema, where: str, reading: Reading) -> tuple[str, str | None]:
    """Names of the columns of images and of labels."""
    image = reading.pick(schema.names, "image", IMAGE_COLUMNS, where)
    if image is None:
        raise DataError(
            f"{where} has no column 'image' (columns: {', '.join(schema.names) or 'none'}); rename the image column, "
            "or say which it is with image_column= (--image-column)"
        )
    kind = schema.field(image).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(
            f"{where}: column '{image}' is {kind}, not struct{{bytes, path}} or binary; store encoded images"
        )
    return image, reading.pick(schema.names, "label", LABEL_COLUMNS, where)


def _joined(columns: list[pa.ChunkedArray | None], paths: list[Path]) -> Array | None:
    """Labels of several files as one array: integers of any width, names, or both kinds of nothing."""
    there = [column for column in columns if column is not None]
    if len(there) < len(columns) or not there:
        return None
    try:
        table = pa.concat_tables([pa.table({"label": c}) for c in there], promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"{paths[0]} and the files beside it differ in their labels ({first_line(error)}); give all the same kind"
        ) from error
    return label_array(table["label"])


def label_array(column: pa.ChunkedArray) -> Array | None:
    """A column of labels as an array of one axis; one null label drops all."""
    if column.null_count:
        return None
    if pa.types.is_nested(column.type):  # lists and records are no labels, and numpy would make objects of them
        return np.full(len(column), None, dtype=object)
    return np.asarray(column.to_numpy())


def table_part(table: pa.Table, where: str, reading: Reading) -> Part:
    """A table with a column image (struct{bytes, path} or binary) and perhaps one of labels, as a part.

    One null label drops all labels.
    """
    image, label = _columns(table.schema, where, reading)
    column = _bytes_of(table[image])
    labels = None if label is None else label_array(table[label])

    def stream(rows: Array) -> Iterator[tuple[int, bytes | None]]:
        return ((row, column[row].as_py()) for row in rows.tolist())

    return encoded_part(
        where, len(column), labels, stream, lambda k: f"{where} row {k}",
        chosen=reading.label_column is not None, keep=reading.cache,
    )  # fmt: skip


def need_file(path: Path) -> None:
    """Raise :class:`DataError` unless ``path`` is a regular file: a pipe or a device might never end."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(f"there is no file {path}; check the path ({error.strerror or error})") from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is no regular file (a pipe, a device or a folder); give a file")


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path} is not a whole parquet file ({first_line(error)}); fetch or write it again")
