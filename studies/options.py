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


def choice(default: Any, help: str, *, quick: Any = _SAME, choices: tuple[str, ...] | None = None) -> Any:
    """One field of an options dataclass: its default, a line of help, its value in the quick form, what it may be."""
    return dataclasses.field(default=default, metadata={"help": help, "quick": quick, "choices": choices})


def make_options(kind: type[O], *, quick: bool = False, **given: Any) -> O:
    """The options of ``kind``: what is ``given``, for the rest the defaults or, with ``quick``, the quick form."""
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        small = field.metadata.get("quick", _SAME)
        if quick and small is not _SAME:
            values[field.name] = small
    return kind(**{**values, **given})


def add_flags(parser: argparse._ActionsContainer, kind: type) -> None:
    """One flag for every field of the options dataclass ``kind``; without defaults: only what is typed counts."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        words, how = _words(field.default), _reading(hints[field.name])
        if field.metadata["choices"]:
            how["choices"] = field.metadata["choices"]
        text = field.metadata["help"] + (f" ({words})" if words else "")
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, dest=field.name, default=argparse.SUPPRESS, help=text.replace("%", "%%"), **how)


def given_options(kind: type, parsed: argparse.Namespace) -> dict[str, Any]:
    """What of ``kind`` was typed, by field; several words as a tuple."""
    typed = {f.name: getattr(parsed, f.name) for f in dataclasses.fields(kind) if hasattr(parsed, f.name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in typed.items()}


def _reading(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of this annotation."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        return {"type": kind, "nargs": "*", "metavar": kind.__name__.upper()}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": hint, "metavar": hint.__name__.upper()}


def _words(value: Any) -> str:
    """A default as one would type it; nothing where there is none."""
    if value is None or value == "" or value == () or isinstance(value, bool):
        return ""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
