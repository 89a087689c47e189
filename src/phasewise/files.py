"""Files that are whole or absent, and read with bounds: what a reader gets is regular, of bearable size, and plain."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phasewise.errors import PhasewiseError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
"""Names of files that were being written."""
LONGEST_NAME = 200
LARGEST_TEXT = 1 << 28
DEEPEST = 40
LONGEST_NUMBER = 20
AGAIN = "delete it and run again"


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write ``content`` to ``path`` atomically; a full disk raises PhasewiseError and keeps the old file.

    Any number of threads and processes may write the same file: each has a temporary file of its own beside it, under a
    name that nobody can guess or has taken, and the last to finish wins.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # "x": created here or refused; a link that somebody planted is not followed
            with open(temporary, "xb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PhasewiseError(
                f"no space left to write {path} ({len(content) / 1e6:.1f} MB); free some and run the same command "
                "again: finished work is kept"
            ) from error
        raise PhasewiseError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _beside(path: Path) -> Path:
    """A name for a temporary file that nobody can guess or has taken; :func:`sweep` knows it."""
    # cut: a name may be as long as the file system allows, and gets longer here
    return path.with_name(f".{path.name[:LONGEST_NAME]}.{secrets.token_hex(8)}.tmp")


@contextlib.contextmanager
def filling(path: str | Path) -> Iterator[Path]:
    """A new file beside ``path`` to be filled bit by bit, which takes its place when all went well, else is removed.

    For what is too large to be put together in memory.  Raises OSError as the file system does.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        yield temporary
        os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> Path:
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> Path:
    return write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def sweep(folder: str | Path) -> None:
    """Delete the temporary files, at any depth of ``folder``, that writers left there when they were killed."""
    for place, _, names in os.walk(folder):
        for name in filter(TEMPORARY.fullmatch, names):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(place, name))


def beneath(folder: str | Path, name: str, what: str = "name") -> Path:
    """``folder / name`` where ``name`` is that of a file or folder right in it; PhasewiseError for any other."""
    plain = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")
    if not plain or len(os.fsencode(name)) > LONGEST_NAME:
        raise PhasewiseError(
            f"a {what} becomes a folder, so it may be no path and not be empty; got {str(name)[:80]!r}"
        )
    return Path(folder) / name


def regular(path: str | Path) -> int:
    """Size in bytes of the regular file at ``path``.

    Raises PhasewiseError where there is none, or a folder, a pipe or a device, which a reader might wait for for ever.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise PhasewiseError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise PhasewiseError(f"cannot read {path}: it is {kind}, no file")
    return found.st_size


def read_json(path: str | Path, mend: str = AGAIN) -> Any:
    """Parsed JSON, plain: bounded in size and depth, with finite numbers and text that can be written again.

    Raises PhasewiseError naming the file and the ``mend`` where it is missing, broken or not plain.
    """
    if regular(path) > LARGEST_TEXT:
        raise PhasewiseError(f"{path} is larger than {LARGEST_TEXT >> 20} MB, so nothing that phasewise wrote; {mend}")
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise PhasewiseError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PhasewiseError(f"{path} is not valid JSON ({error}); {mend}") from error
    return parse_json(text, path, mend)


CONFIGS = ("config.json", "model_index.json")
CODE = ("auto_map", "custom_pipelines", "custom_pipeline")
"""Entries of a config that name code to be fetched and run."""


def refuse_remote_code(folder: str | Path) -> None:
    """Raise PhasewiseError, naming the entry, where a config in ``folder`` or right below it asks for code of its own:
    an ``auto_map``, a custom pipeline, or a class out of a file, as ``"unet": ["my_unet", "MyUNet"]`` beside
    ``unet/my_unet.py`` is in the ``model_index.json`` of diffusers.

    Loading such a repository the usual way runs what somebody wrote into it.
    """
    folder = Path(folder)
    for file in (found for name in CONFIGS for found in (folder / name, *sorted(folder.glob(f"*/{name}")))):
        values = read_json(file, "get it again") if file.is_file() else None
        entry = _code_in(values, file.parent) if isinstance(values, dict) else None
        if entry is not None:
            raise PhasewiseError(
                f"{file} asks for code of its own ({entry}), which is never run; build the network in Python from code "
                "that you have read, and give the object instead of the folder"
            )


def _code_in(values: dict[str, Any], folder: Path) -> str | None:
    """The entry of a config in ``folder`` that names code; None where none does."""
    for name, value in values.items():
        if name in CODE and value:
            return f"{name}: {str(value)[:80]}"
        # [file, class]: of the pipeline itself, whose class is else a text, or of a part, whose file lies with it
        if isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value):
            place = folder if name == "_class_name" else folder / name
            if name == "_class_name" or "/" in "".join(value) or (place / f"{value[0]}.py").exists():
                return f"{name}: {str(value)[:80]}"
    return None


def parse_json(text: str, where: object, mend: str = AGAIN) -> Any:
    """``text`` as :func:`read_json` takes it; ``where`` it stands is named in the error."""
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_number)
        for part, depth in _walk(value):
            if depth > DEEPEST:
                raise ValueError(f"nested more than {DEEPEST} deep")
            if isinstance(part, str):
                part.encode("utf-8")
    except RecursionError as error:
        raise PhasewiseError(f"{where} is not valid JSON (nested more than {DEEPEST} deep); {mend}") from error
    except UnicodeEncodeError as error:
        raise PhasewiseError(f"{where} is not valid JSON (half a character, {error.reason}); {mend}") from error
    except ValueError as error:
        raise PhasewiseError(f"{where} is not valid JSON ({error}); {mend}") from error
    return value


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    # written by json as 1e999, NaN or Infinity: no number that JSON has
    if text in ("NaN", "Infinity", "-Infinity") or float(text) in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is no finite number")
    return float(text)


def _walk(value: Any) -> Iterator[tuple[Any, int]]:
    """Every text and container in ``value``, names included, with how deep it lies; without recursion."""
    waiting = [(value, 0)]
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, dict):
            waiting += [(inner, depth + 1) for pair in part.items() for inner in pair]
        elif isinstance(part, list):
            waiting += [(inner, depth + 1) for inner in part if isinstance(inner, (str, list, dict))]
        yield part, depth
