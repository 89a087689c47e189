"""One process at a time in a run folder.

The lock is the kernel's, on the folder itself (flock): it leaves no file behind, and it ends with the process however
that ends, by ``kill -9`` too.  Where the system or the file system knows no such locks there is none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from phasewise.errors import RunFolderError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """Hold the folder ``root``, made where it is absent, until the end of the block.

    Raises RunFolderError where another process, or another thread of this one, holds it.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root, os.O_RDONLY) if fcntl is not None else None
    except OSError as error:
        raise RunFolderError(f"cannot write into {root}: {error.strerror or error}; choose another --out") from error
    if handle is None:
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderError(
                f"another process is at work in {root}; wait for it to end, or choose another --out"
            ) from error
        except OSError:  # no locks on this file system
            pass
        yield
    finally:
        os.close(handle)
