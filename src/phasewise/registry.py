"""Open tables of named objects of one kind: paths, solvers, denoiser classes, penalties, ...

A user's own object joins under a name of its own; after that everything that takes such a name takes it too::

    SOLVERS = Registry[Solver]("solver")
    SOLVERS.register("euler", Solver(...))
    SOLVERS["euler"]                            # PhasewiseError naming the known ones, where there is none
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from typing import Any, Generic, TypeVar, overload

from phasewise.errors import PhasewiseError, unknown

T = TypeVar("T")
HOMES = {
    "solver": "phasewise.sampling.solvers:SOLVERS",
    "path": "phasewise.paths:PATHS",
    "export": "phasewise.scheduling.exports:EXPORTS",
}
"""Where tables are made whose names stand in records."""


def table(kind: str) -> Registry[Any]:
    """The table of a kind in :data:`HOMES`, found when it is asked for: a record names what it does not import."""
    module, name = HOMES[kind].split(":")
    return getattr(importlib.import_module(module), name)


class Registry(Generic[T]):
    """Named objects of one ``kind``, in the order they joined; read like a dict, written by :meth:`register` alone.

    Args:
        kind: what the objects are, as an error message says it ("solver").
        error: what a missing name raises, PhasewiseError or a class of it.
        mend: what the message about a missing name ends with ("register yours by ...").
    """

    def __init__(self, kind: str, error: type[PhasewiseError] = PhasewiseError, mend: str = "") -> None:
        self.kind, self.error, self.mend = kind, error, mend
        self._entries: dict[str, T] = {}

    @overload
    def register(self, name: str, entry: T) -> T: ...

    @overload
    def register(self, name: str) -> Callable[[T], T]: ...

    def register(self, name: str, entry: T | None = None) -> T | Callable[[T], T]:
        """Add ``entry`` under ``name`` and return it; without ``entry``, a decorator that does.

        Raises PhasewiseError for a name that is no text or is taken by another object.
        """
        if entry is None:
            return lambda decorated: self.register(name, decorated)
        if not isinstance(name, str) or not name:
            raise PhasewiseError(f"a {self.kind} is registered under a name, a text of its own; got {name!r}")
        if name in self._entries and self._entries[name] is not entry:
            raise PhasewiseError(f"there is a {self.kind} named {name!r} already; register yours under another name")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise self.error("; ".join(filter(None, [unknown(self.kind, name, self), self.mend])))
        return self._entries[name]

    get = __getitem__

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def keys(self) -> KeysView[str]:
        return self._entries.keys()

    def values(self) -> ValuesView[T]:
        return self._entries.values()

    def items(self) -> ItemsView[str, T]:
        return self._entries.items()

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(self)})"
