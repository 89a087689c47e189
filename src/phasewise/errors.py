"""Errors a user can act on: each message names the cause and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PhasewiseError(ValueError):
    """Bad input or an impossible request. The message says what is wrong and what to do about it."""


class DataError(PhasewiseError):
    """A data set that cannot be found, read, or used as images."""


class CheckpointError(PhasewiseError):
    """A saved model or training state that is corrupt, of another version, or of another shape."""


class RunFolderError(PhasewiseError):
    """An output folder that is not ours to write into."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """ "unknown solver 'eulr'; known: euler, heun (did you mean 'euler'?)"."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {kind} {name!r}; known: {', '.join(names) or 'none'}{hint}"


class PhasewiseWarning(UserWarning):
    """A result that holds, but not as well as the reader may think. The message says why and what would help."""
