"""What every record is: typed fields in, JSON out and in, a line or a small table when printed."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import operator
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from phasewise import display
from phasewise.display import Head, Rows, View, measured
from phasewise.errors import PhasewiseError
from phasewise.files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Array = np.ndarray
R = TypeVar("R", bound="Record")
T = TypeVar("T")


class Record:
    """Base of all records: typed fields in, JSON out and in, a line or a small table when printed.

    Fields are numbers, strings, arrays, tuples of them, or further records; what is given is turned into the field's
    declared type (lists into tuples or arrays, objects of JSON into records, null into NaN), so every reader of a file
    and every caller gets the same.  What cannot be turned raises PhasewiseError naming record and field.

    A subclass checks itself in :meth:`check`, gives its numbers in :meth:`table`, what is printed of them in
    :meth:`view`, and a picture in :meth:`plot`.
    """

    def __init_subclass__(cls) -> None:
        """Make the inherited ``repr`` the class's own: where there is none, @dataclass writes one of every number."""
        cls.__repr__ = cls.__repr__  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():  # type: ignore[arg-type]
            object.__setattr__(self, name, self._fitted(name, kind))  # a frozen dataclass has no other way
        self.check()

    def _fitted(self, name: str, kind: Any) -> Any:
        value = getattr(self, name)
        try:
            return _coerced(value, kind)
        except PhasewiseError as error:  # of a record within this one
            raise PhasewiseError(f"{type(self).__name__}.{name}: {error}") from error
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            wanted = inspect.formatannotation(kind).replace("numpy.ndarray", "numbers, in lists of equal length,")
            given = display.brief(value)
            raise PhasewiseError(f"{type(self).__name__}.{name} takes {wanted} not {given} ({error})") from error

    def check(self) -> None:
        """Raise PhasewiseError where the fields contradict each other."""

    def to_dict(self) -> dict[str, Any]:
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls: type[R], values: dict[str, Any]) -> R:
        """The record that :meth:`to_dict` wrote; names it does not know are passed over.

        Raises PhasewiseError where a field is absent or does not fit.
        """
        if not isinstance(values, dict):
            raise PhasewiseError(f"{cls.__name__} is read from an object of JSON, not from {display.brief(values)}")
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        known = {f.name: values[f.name] for f in fields if f.name in values}
        absent = [f.name for f in fields if f.name not in known and _required(f)]
        if absent:
            raise PhasewiseError(f"{cls.__name__} lacks {', '.join(absent)}; was it written by another version?")
        return cls(**known)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    @classmethod
    def load(cls: type[R], path: str | Path) -> R:
        """The record whose :meth:`to_json` is in the file; PhasewiseError naming the file where it holds none."""
        values = read_json(path, "give the file of a record, or make it again")
        try:
            return cls.from_dict(values)
        except PhasewiseError as error:
            if not isinstance(values, dict):
                found = f" but a {type(values).__name__}; give another file"
            else:
                found = f"{cls._several(values)}: {error}"
            raise PhasewiseError(f"{path} holds no {cls.__name__}{found}") from error

    @classmethod
    def _several(cls, values: dict[str, Any]) -> str:
        """Where ``values`` are records by name: that they are, and how to take one of them."""
        entries = list(values.values())
        if not entries or not all(isinstance(v, dict) for v in entries):
            return ""
        try:
            cls.from_dict(entries[0])
        except PhasewiseError:
            return ""
        return f" but {len(entries)} of them ({', '.join(values)}); give one of them to {cls.__name__}.from_dict"

    def table(self) -> tuple[Head, Rows]:
        """All that is recorded, as column names and rows of plain values; here one row, one column a plain field."""
        columns = dict(_flat(self))
        return tuple(columns), [tuple(columns.values())]

    def view(self) -> View:
        """What is printed: :meth:`table`, or one line per field where that has a single row."""
        head, rows = self.table()
        if len(rows) == 1:
            return View(type(self).__name__, ("field", "value"), list(zip(head, rows[0], strict=True)), fixed=2)
        return View(type(self).__name__, head, rows)

    def to_frame(self) -> DataFrame:
        """:meth:`table` as a pandas DataFrame.  Raises PhasewiseError where pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise PhasewiseError("to_frame() needs pandas, which is not installed: pip install pandas") from error
        head, rows = self.table()
        return pandas.DataFrame(rows, columns=list(head))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the record on ``ax``, or on a new figure; bands and bars are 2 standard errors either side.

        Returns the axes.  Raises PhasewiseError where a picture would say nothing.
        """
        raise PhasewiseError(f"nothing to plot in this {type(self).__name__}; print it, or see .table()")

    def __str__(self) -> str:
        return display.text_table(self.view())

    def __repr__(self) -> str:
        parts = [f"{f.name}={display.brief(getattr(self, f.name))}" for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        return display.clipped(f"{type(self).__name__}({', '.join(parts)}", 300 - 1) + ")"

    def _repr_html_(self) -> str:
        return display.html_table(self.view())


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _flat(record: Record) -> typing.Iterator[tuple[str, Any]]:
    """Plain fields by name, entries of a dict as "field.key"; arrays and further records are left out."""
    for f in dataclasses.fields(record):  # type: ignore[arg-type]
        value = getattr(record, f.name)
        if isinstance(value, dict):
            yield from ((f"{f.name}.{key}", v) for key, v in value.items() if not isinstance(v, Record))
        elif not isinstance(value, (np.ndarray, Record)):
            yield f.name, value


def plain(value: Any) -> Any:
    """``value`` as JSON has it: records and arrays too, at any depth; NaN as null, infinities by name."""
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")  # JSON has no NaN and no infinity
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def _floats(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_floats(v) for v in value]
    # strings: "inf" and "-inf", as they were written
    return math.nan if value is None else (float(value) if isinstance(value, str) else value)


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    """Declared type of every field."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _coerced(value: Any, kind: Any) -> Any:
    """``value`` as the declared type ``kind``.  Raises TypeError or ValueError where it cannot be that."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _coerced(value, next(k for k in inner if k is not type(None)))
    if kind is np.ndarray:
        return _array(value)
    if origin is tuple:
        return _tuple(value, inner)
    if kind in (float, int) and isinstance(value, (bool, np.bool_)):
        raise TypeError("a yes or no")
    if kind is float:
        return math.nan if value is None else float(value)
    if kind is int:
        return _integer(value)
    if origin is dict and isinstance(value, dict):
        return {str(k): _coerced(v, inner[1]) for k, v in value.items()}
    if origin is list and isinstance(value, list):
        return [_coerced(v, inner[0]) for v in value]
    return _instance(value, origin or kind)


def _array(value: Any) -> Array:
    array = np.array(_floats(value), dtype=np.float64)
    if array.ndim == 0:
        raise TypeError("a single value")
    return array


def _tuple(value: Any, inner: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, (str, dict)):
        raise TypeError(f"a single {type(value).__name__}")
    kinds = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is ... else inner
    if len(kinds) != len(value):
        raise ValueError(f"{len(kinds)} values are needed, here are {len(value)}")
    return tuple(_coerced(v, k) for v, k in zip(value, kinds, strict=True))


def _integer(value: Any) -> int:
    """Whole numbers of any kind; JSON of other programs writes 3.0."""
    whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
    found = int(value) if whole else operator.index(value)  # refuses 3.5 and "3"
    if abs(found) >= 1 << 64:
        raise OverflowError("no number of 64 bits")
    return found


def _instance(value: Any, kind: Any) -> Any:
    """A string, a dict or a record, the last also from its dict; anything where ``kind`` says nothing."""
    if kind is Any or not isinstance(kind, type):
        return value
    if issubclass(kind, Record) and isinstance(value, dict):
        return kind.from_dict(value)
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__}")
    return value


# --- tables and curves that several records share -------------------------------------------------------------------


def _long(times: Array, names: Sequence[Any], **columns: Array) -> Rows:
    """Rows (time, name, values ...) of arrays (T, N), time by time."""
    values = [columns[k].tolist() for k in columns]
    rows = range(len(times))
    return [(float(times[i]), name, *(v[i][j] for v in values)) for i in rows for j, name in enumerate(names)]


def _at(times: Array) -> Head:
    return tuple(f"t = {t:.3g}" for t in times)


def _cells(value: Array, stderr: Array) -> list[list[str]]:
    """Rows of ``value ± stderr``."""
    pairs = zip(value.tolist(), stderr.tolist(), strict=True)
    return [[measured(v, e) for v, e in zip(values, errors, strict=True)] for values, errors in pairs]


class Named(dict[str, T]):
    """Things by name, as a run has them: a dict whose ``repr`` stays short."""

    def __repr__(self) -> str:
        return display.brief(dict(self))

    def _repr_html_(self) -> str:
        rows = [(name, display.brief(value)) for name, value in self.items()]
        return display.html_table(View(f"{len(self)} by name", ("name", "value"), rows, fixed=2))
