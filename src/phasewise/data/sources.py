"""From the name a user gives to parts: the embedded set, named sets, local paths, and the Hugging Face hub.

A named set is looked for as ``<data_dir>/<name>/{train,test}.parquet``, ``data_dir`` being the argument or else the
environment variable PHASEWISE_DATA.  Once a data dir is named, nothing is downloaded; without one, the hub is asked.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from phasewise.data.parts import Part, Parts, Reading, array_part
from phasewise.data.readers import ALIASES, IMAGE_SUFFIXES, read_path
from phasewise.data.tables import read_parquet, table_part
from phasewise.errors import DataError

DATA_DIR_VARIABLE = "PHASEWISE_DATA"
SUFFIXES = IMAGE_SUFFIXES | {".parquet", ".npz", ".npy"}
HUB_IDS: dict[str, str | None] = {
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "trashnet64": None,
    "clothing128": None,
}
KNOWN = ("digits", *HUB_IDS)
"""Names that ``load_images`` knows; "digits" comes with scikit-learn, the others need files or the hub."""


def find(source: str | Path, data_dir: str | Path | None, reading: Reading) -> tuple[str, Parts]:
    """(name, parts) of what ``source`` names. Raises :class:`DataError` when there is no such thing."""
    if source == "digits":
        return "digits", {"all": digits()}
    if isinstance(source, str) and source in HUB_IDS:
        return source, named_set(source, data_dir, reading)
    if source == "":
        raise DataError(_unknown(source))
    path = expanded(source)
    base = _data_dir(data_dir)
    if not path.exists() and not path.is_absolute() and base is not None and (base / path).exists():
        path = base / path
    if path.exists() or not isinstance(source, str) or _looks_like_path(source):
        parts = read_path(path, reading)
        return path.resolve().stem if path.is_file() else path.resolve().name, parts
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        return source, hub_set(source, reading, f"there is no file or folder {source} here, and as a hub id: ")
    raise DataError(_unknown(source))


def expanded(path: str | Path) -> Path:
    """``path`` with a leading ``~`` or ``~user`` replaced. Raises :class:`DataError` where nobody knows that home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"cannot find the home folder that {path} begins with; write the path out") from error


def source_state(source: str | Path, data_dir: str | Path | None = None) -> str | None:
    """A hash of what the file system says of every file that ``source`` would be read from (size, time of change,
    number); it stays the same as long as none is touched.  None of what is not files here, such as a set of the hub.

    Raises :class:`DataError` where the source is not there.
    """
    base = _data_dir(data_dir)
    if source == "digits" or (source in HUB_IDS and base is None):
        return None
    path = expanded(source)
    if base is not None and not path.is_absolute() and (source in HUB_IDS or not path.exists()):
        path = base / path
    if not path.exists():
        if isinstance(source, str) and not _looks_like_path(source):
            return None
        raise DataError(f"there is no file or folder {path}; check the path")
    files = [path] if path.is_file() else (Path(here, n) for here, _, names in os.walk(path) for n in names)
    digest = hashlib.sha256()
    for line in sorted(f"{file} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}" for file, s in _states(files)):
        digest.update(f"{line};".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _states(files: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    for file in files:
        with contextlib.suppress(OSError):  # a link to nothing
            yield file, file.stat()


def _looks_like_path(source: str) -> bool:
    return (
        source.startswith((".", "/", "~"))
        or source.endswith("/")
        or source.count("/") > 1
        or Path(source).suffix.lower() in SUFFIXES
    )


def _unknown(source: str) -> str:
    simple = {re.sub(r"\W|_", "", name): name for name in KNOWN}  # so that "Fashion-MNIST" finds fashion_mnist
    close = difflib.get_close_matches(re.sub(r"\W|_", "", source.lower()), simple, n=1)
    hint = f"did you mean {simple[close[0]]!r}? " if close else ""
    return (
        f"unknown data set {source!r}: {hint}known sets are {', '.join(KNOWN)}; "
        "or give a folder of images, a .parquet or .npz file, or a hub id such as 'owner/name'"
    )


def digits() -> Part:
    """The 1,797 handwritten 8x8 digits of scikit-learn (UCI optical recognition), 17 gray levels, ten classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return array_part(bunch.images.astype(np.uint8)[:, None], bunch.target, "digits", 16)


def named_set(name: str, data_dir: str | Path | None, reading: Reading) -> Parts:
    """Train and test of a named set, from the data dir if there is one, else from the hub."""
    base = _data_dir(data_dir)
    hub_id = HUB_IDS[name]
    if base is None and hub_id is None:
        raise DataError(
            f"{name} is not on the Hugging Face hub at this size; pass a data dir (--data-dir, data_dir= or "
            f"{DATA_DIR_VARIABLE}) that holds {name}/train.parquet and {name}/test.parquet"
        )
    if base is None:
        return hub_set(str(hub_id), reading, f"no data dir is named for {name}, and on the hub: ")
    files = {part: base / name / f"{part}.parquet" for part in ("train", "test")}
    for path in files.values():
        if not path.is_file():
            where = "the data dir does not exist" if not base.is_dir() else "no such file"
            other = f", or name no data dir to fetch {hub_id} from the hub" if hub_id else ""
            raise DataError(f"{name} needs {path}, but {where}; correct --data-dir (or {DATA_DIR_VARIABLE}){other}")
    return {part: read_parquet([path], reading) for part, path in files.items()}


def _data_dir(data_dir: str | Path | None) -> Path | None:
    chosen = data_dir if data_dir is not None else os.environ.get(DATA_DIR_VARIABLE) or None
    return None if chosen is None else expanded(chosen)


def hub_set(hub_id: str, reading: Reading, before: str = "") -> Parts:
    """A data set of the hub by its id, through the optional library ``datasets`` (its cache and settings apply).

    Raises :class:`DataError` when the library is absent or the set cannot be fetched; ``before`` opens the message.
    """
    mend = "or pass a data dir with train.parquet and test.parquet (--data-dir, data_dir= or PHASEWISE_DATA)"
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{before}fetching {hub_id} from the Hugging Face hub needs the library datasets; "
            f"pip install 'phasewise[hub]', {mend}"
        ) from error
    try:
        splits = datasets.load_dataset(hub_id)
        tables = {str(key): split.with_format("arrow")[:] for key, split in splits.items()}
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{before}cannot fetch {hub_id} from the Hugging Face hub ({type(error).__name__}: {error}); "
            f"check the name and the network, {mend}"
        ) from error
    parts = {
        part: table_part(tables[name], f"{hub_id} [{name}]", reading)
        for part, names in ALIASES.items()
        for name in names
        if name in tables
    }
    if "train" in parts:
        return parts
    if len(tables) == 1:
        return {"all": table_part(next(iter(tables.values())), hub_id, reading)}
    raise DataError(
        f"{hub_id} has the splits {', '.join(tables)}, none of them 'train'; export one to parquet and give that"
    )
