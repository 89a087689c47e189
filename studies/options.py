"""What a study may be asked for: a dataclass of typed choices, from which the command line derives its flags.

    @dataclass(frozen=True)
    class Options:
        n: int = choice(2000, "samples of each schedule", quick=16)

A field is one flag (``--n``): its annotation gives the type, a tuple takes several words (``--times .1 .2``), a bool
has a ``--no-`` twin.  ``quick`` is its value in the quick form; a field without one keeps its default there.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from typing import Any, TypeVar

O = TypeVar("O")  # noqa: E741
_SAME = object()
MANY = 6
"""A default of more words is shown by its ends."""


def choice(
    default: Any, help: str, *, quick: Any = _SAME, choices: tuple[str, ...] | None = None, flag: bool = True,
    bare: Any = _SAME,
) -> Any:  # fmt: skip
    """One field of an options dataclass: its default, a line of help, its value in the quick form, what it may be.

    Without a ``flag`` it is not on the command line: a number of the study's own that only the quick form changes.
    ``bare``: its value where the flag is typed without one.
    """
    about = {"help": help, "quick": quick, "choices": choices, "flag": flag, "bare": bare}
    return dataclasses.field(default=default, metadata=about)


def flags(kind: type) -> list[dataclasses.Field[Any]]:
    """The fields of ``kind`` that the command line has."""
    return [field for field in dataclasses.fields(kind) if field.metadata["flag"]]


def make_options(kind: type[O], *, quick: bool = False, **given: Any) -> O:
    """The options of ``kind``: what is ``given``, for the rest the defaults or, with ``quick``, the quick form."""
    small = {f.name: f.metadata["quick"] for f in dataclasses.fields(kind)} if quick else {}  # type: ignore[arg-type]
    return kind(**{**{name: value for name, value in small.items() if value is not _SAME}, **given})


def add_flags(parser: argparse._ActionsContainer, kind: type) -> None:
    """One flag for every field of the options dataclass ``kind``; without defaults: only what is typed counts."""
    hints = typing.get_type_hints(kind)
    for field in flags(kind):
        words, how = _words(field.default), _reading(hints[field.name])
        if field.metadata["choices"]:
            how["choices"] = field.metadata["choices"]
        if field.metadata["bare"] is not _SAME:
            how |= {"nargs": "?", "const": field.metadata["bare"]}
        text = field.metadata["help"] + (f" ({words})" if words else "")
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, dest=field.name, default=argparse.SUPPRESS, help=text.replace("%", "%%"), **how)


def given_options(kind: type, parsed: argparse.Namespace) -> dict[str, Any]:
    """What of ``kind`` was typed, by field; several words as a tuple."""
    typed = {f.name: getattr(parsed, f.name) for f in flags(kind) if hasattr(parsed, f.name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in typed.items()}


def _reading(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of this annotation."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        return {"type": kind, "nargs": "*", "metavar": "X"}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": hint, "metavar": "X"}


def _words(value: Any) -> str:
    """A default as one would type it, a long one by its ends; nothing where there is none."""
    if value is None or value == "" or value == () or isinstance(value, bool):
        return ""
    if not isinstance(value, tuple):
        return str(value)
    words = [str(word) for word in value]
    return " ".join(words if len(words) <= MANY else [words[0], words[1], "...", words[-1]])
