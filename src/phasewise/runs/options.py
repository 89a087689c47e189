"""One option, one place: a field of a small frozen dataclass says its default, its help, its flag and its check.

    @dataclass(frozen=True)
    class EvaluateOptions(Options):
        n_samples: int = option(2000, "Samples per schedule to judge it by.", flag="--samples", least=100)

Everything else follows from the fields: the flags of the commands that use the stage and their help, how words become
values and values words again (the command that repeats a run), what is refused, what ``--dry-run`` says, and the hash
by which a finished stage knows that it is up to date.  Nothing here imports torch: ``--help`` is instant.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shlex
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from phasewise.errors import PhasewiseError, unknown
from phasewise.files import parse_json
from phasewise.results import Record

Check = Callable[[Any], str | None]
"""What is wrong with a value, as a sentence after "NAME "; None where nothing is."""


@dataclass(frozen=True)
class Option:
    """What is said of one field.  ``name`` is unique over all stages: in flags, in keyword arguments, in messages."""

    name: str
    field: str
    kind: Any
    default: Any
    help: str
    flag: str
    main: bool
    known: Callable[[], Iterable[str]] | None
    least: float | None
    check: Check | None
    metavar: str
    read: Callable[[Any], Any] | None
    makes_members: bool
    free: bool

    @property
    def repeated(self) -> bool:
        """Whether the flag is given once for every entry: NAME=VALUE pairs, positions."""
        return "dict" in str(self.kind) or "tuple[tuple" in str(self.kind)

    @property
    def switch(self) -> bool:
        return self.kind is bool

    def refuse(self, value: Any) -> None:
        """Raise PhasewiseError where ``value`` is none that this option may have."""
        if value is None:
            return
        if self.known is not None:
            known = tuple(self.known())
            for one in value if isinstance(value, tuple) else (value,):
                if one not in known:
                    raise PhasewiseError(unknown(self.name, one, known))
        if self.least is not None and not value >= self.least:
            raise PhasewiseError(f"{self.name} must be at least {self.least:g}, got {value}")
        wrong = self.check(value) if self.check is not None else None
        if wrong:
            raise PhasewiseError(f"{self.name} {wrong}")

    def parse(self, given: Any) -> Any:
        """The value of what stands on a command line: text, or a list of texts where the flag is repeated."""
        if self.switch:
            return given
        if self.read is not None:
            return self.read(given)
        if "dict" in str(self.kind):
            return named(given, self.flag)
        if self.repeated:
            return tuple(numbers(one, int, self.flag) for one in given)
        if "tuple" not in str(self.kind):
            return self._one(given)
        if given == "none":
            return ()
        if "str" in str(self.kind).replace("| str", "") or self.known is not None:
            return tuple(given.split(","))
        return numbers(given, int if "tuple[int" in str(self.kind) else float, self.flag)

    def _one(self, given: str) -> Any:
        kinds = [k for k in (int, float) if k is self.kind or k in typing.get_args(self.kind)]
        if not kinds:
            return given
        try:
            return kinds[0](given)
        except ValueError as error:
            kind = "a whole number" if kinds[0] is int else "a number"
            raise PhasewiseError(f"{self.flag} takes {kind}, got {given!r}") from error

    @staticmethod
    def shown(value: Any) -> str:
        """A value for people to read."""
        if isinstance(value, (tuple, list)):
            return ",".join(map(str, value)) or "none"
        if isinstance(value, dict):
            return ",".join(f"{k}={v}" for k, v in value.items()) or "none"
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "-" if value is None else str(value)

    def words(self, value: Any) -> list[str]:
        """The flag with a value (as JSON has it), as on a command line."""
        if isinstance(value, bool):
            return [self.flag if value else self.flag.replace("--", "--no-", 1)]
        if isinstance(value, dict):
            return [w for k, v in value.items() for w in (self.flag, shlex.quote(f"{k}={json.dumps(v)}"))]
        if isinstance(value, list) and value and isinstance(value[0], list):
            return [w for pair in value for w in (self.flag, ",".join(map(str, pair)))]
        text = ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        return [self.flag, shlex.quote(text)]


def option(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    main: bool = False,
    known: Callable[[], Iterable[str]] | None = None,
    least: float | None = None,
    check: Check | None = None,
    metavar: str | None = None,
    name: str | None = None,
    read: Callable[[Any], Any] | None = None,
    makes_members: bool = False,
    free: bool = False,
) -> Any:
    """A field of :class:`Options`.

    Args:
        help: one line, as ``--help`` shows it.  flag: default "--" and the option's name with dashes.
        name: where it is not the prefix and the field's name.
        main: shown by ``phasewise run --help``, which shows the most used only.
        known: the names it may be, asked only when one is given.  least: the smallest number it may be.
        read: how its words on a command line become a value, where the type does not say it.
        makes_members: says which members there are; a member's own stage then depends on its fields, not on this.
        free: changes no result, so it may differ from what is in the folder, and no stage depends on it.
    """
    about = {"help": help, "flag": flag, "main": main, "known": known, "least": least, "check": check}
    metadata = {"option": {**about, "metavar": metavar, "read": read, "name": name, "makes_members": makes_members}}
    metadata["option"]["free"] = free
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Options(Record):
    """The options of one stage.  ``prefix`` precedes a field's name where it is used beside those of other stages."""

    prefix: ClassVar[str] = ""

    def check(self) -> None:
        for about in options_of(type(self)):
            about.refuse(getattr(self, about.field))
        self.check_together()

    def check_together(self) -> None:
        """Raise PhasewiseError where values do not go together."""


def options_of(cls: type[Options]) -> tuple[Option, ...]:
    """Every option of a stage, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        about = dict(field.metadata["option"])
        name = about.pop("name") or cls.prefix + field.name
        flag = about.pop("flag") or "--" + name.replace("_", "-")
        default = field.default
        if default is dataclasses.MISSING:
            default = field.default_factory()  # type: ignore[operator]
        about["metavar"] = about["metavar"] or _metavar(hints[field.name])
        found.append(Option(name, field.name, hints[field.name], default, flag=flag, **about))
    return tuple(found)


def _metavar(kind: Any) -> str:
    """What a flag's value looks like, in help."""
    words = {"tuple": "LIST", "int": "N", "float": "X"}
    return next((said for part, said in words.items() if part in str(kind)), "TEXT")


def numbers(text: str, kind: type, flag: str) -> tuple[Any, ...]:
    """ "1,2,3" -> (1, 2, 3); PhasewiseError naming the flag otherwise."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise PhasewiseError(f"{flag} takes numbers separated by commas, got {text!r}") from error


def named(words: Iterable[str], flag: str) -> dict[str, Any]:
    """["epochs=3", "kind=a"] -> {"epochs": 3, "kind": "a"}; PhasewiseError naming the flag otherwise."""
    out: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (re.fullmatch(r"\w[\w.+-]*", name) and equals):
            raise PhasewiseError(f"{flag} takes NAME=VALUE, got {word!r}")
        try:
            out[name] = parse_json(text, word)
        except PhasewiseError:  # plain text
            out[name] = text
        if out[name] is None:
            raise PhasewiseError(f"{flag} {name} takes a value, not null; leave it out to have the usual one")
    return out


# Checks that several options share: what is wrong, in words.


def distinct(value: tuple[Any, ...]) -> str | None:
    if not value or len(set(value)) < len(value):
        return f"must be distinct, at least one; got {list(value)}"
    return None


def noise_times(value: tuple[float, ...]) -> str | None:
    if not all(0 < t <= 1 for t in value):
        return f"are noise times in (0, 1], got {list(value)}"
    return distinct(value)


def measured_times(value: tuple[float, ...]) -> str | None:
    """Times that gaps are measured at: what is integrated over them, and a window, take two."""
    wrong = noise_times(value)
    if wrong is None and sum(t < 1 for t in value) < 2:
        return f"must hold at least two noise times below 1; got {list(value)}"
    return wrong


def kind(of: Callable[[Any, str], Any]) -> Check:
    """A kind of argument (:mod:`phasewise.checks`) as the check of an option."""

    def check(value: Any) -> str | None:
        try:
            of(value, "")
        except PhasewiseError as error:
            return str(error).strip()
        return None

    return check


def positive(value: float) -> str | None:
    return None if 0 < value < math.inf else f"must be a number above 0, got {value}"
