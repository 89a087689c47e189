"""Files that are either whole or absent: write to a temporary neighbour, then rename over the target."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phasewise.errors import PhasewiseError


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write ``content`` to ``path`` atomically; a full disk raises PhasewiseError and keeps the old file."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PhasewiseError(
                f"no space left to write {path} ({len(content) / 1e6:.1f} MB); free some and run the same command "
                "again: finished work is kept"
            ) from error
        raise PhasewiseError(f"cannot write {path}: {error.strerror or error}") from error
    return path


@contextlib.contextmanager
def filling(path: str | Path) -> Iterator[Path]:
    """A new file beside ``path`` to be filled bit by bit, which takes its place when all went well, else is removed.

    For what is too large to be put together in memory.  Raises OSError as the file system does.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
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


def read_json(path: str | Path) -> Any:
    """Parsed JSON; a missing or broken file raises PhasewiseError naming it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PhasewiseError(f"cannot read {path}: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PhasewiseError(f"{path} is not valid JSON ({error}); delete it and run again") from error
