"""Arguments turned into checked values, in one place: what a public call takes is said beside it, by kind.

    @checked(n=count, seed=seed, times=each(fraction), device=device)
    def sample(denoiser, n=16, *, seed=0, times=None, device=None): ...

A kind is a function ``kind(value, name)`` that gives the value as the function wants it (an int, a float, a tuple, a
float32 tensor) or raises PhasewiseError, naming the argument, what was given and what would do.  Numbers of numpy and
of torch are numbers; ``True`` is none, and neither are NaN and "3".  None is taken where the signature says so.

Nothing here imports torch before a tensor or a device is looked at: the command line's ``--help`` is instant.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from phasewise.errors import PhasewiseError, unknown

if TYPE_CHECKING:
    import torch

Kind = Callable[[Any, str], Any]
F = TypeVar("F", bound=Callable[..., Any])

LARGEST = 2**63 - 1
"""Largest seed, and largest count: what 64 bits with a sign hold."""


def checked(**kinds: Kind) -> Callable[[F], F]:
    """A decorator: the named arguments pass through their kinds before the function sees them.

    Costs some ten microseconds a call.  The kinds stay readable as ``function.checks``.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        nullable = {n for n, p in signature.parameters.items() if p.default is None or "None" in str(p.annotation)}
        missing = kinds.keys() - signature.parameters.keys()
        if missing:
            raise TypeError(f"{function.__qualname__} has no argument {', '.join(sorted(missing))}")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python's own words for an argument too many or too few
            for name, kind in kinds.items():
                if name in given.arguments:
                    value = given.arguments[name]
                    if value is not None or name not in nullable:
                        given.arguments[name] = kind(value, name)
            with _single_precision():
                return function(*given.args, **given.kwargs)

        call.checks = kinds  # type: ignore[attr-defined]
        return call  # type: ignore[return-value]

    return decorate


@contextlib.contextmanager
def _single_precision() -> Iterator[None]:
    """PyTorch's default is float32 inside a public call, whatever the caller has set it to: pixels are float32 here."""
    torch = sys.modules.get("torch")  # not there: nothing has been set
    usual = None if torch is None else torch.get_default_dtype()
    if torch is None or usual == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def check_fields(record: Any, **kinds: Kind) -> None:
    """The same for the fields of a dataclass, from its ``__post_init__``: checked, and kept as checked."""
    for name, kind in kinds.items():
        value = getattr(record, name)
        if value is not None:
            object.__setattr__(record, name, kind(value, name))  # a frozen one has no other way


def shown(value: Any) -> str:
    """A value as a message names it: tensors and arrays by their shape, the rest cut to a line."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None and len(shape):
        return f"{type(value).__name__} of shape {tuple(shape)}, {str(dtype).removeprefix('torch.')}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"the {'class' if isinstance(value, type) else 'function'} {value.__qualname__}"
    try:
        text = repr(value)
    except Exception:  # an int of thousands of digits, and whatever a stranger's object does
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- numbers --------------------------------------------------------------------------------------------------------


def whole(least: int = 0, most: int = LARGEST, what: str = "a whole number") -> Kind:
    """A whole number from ``least`` to ``most``, as an int; 3.0 is 3."""

    def kind(value: Any, name: str) -> int:
        number = _integer(value)
        if number is None or not least <= number <= most:
            low = most == LARGEST or (number is not None and number < least)
            span = "" if least == -LARGEST else f" >= {least}" if low else f" <= {most}"
            raise PhasewiseError(f"{name} must be {what}{span}, got {shown(value)}")
        return number

    return kind


def _integer(value: Any) -> int | None:
    if _is_bool(value):
        return None
    try:
        return operator.index(value)  # ints of Python, of numpy and of torch
    except TypeError:
        number = _real(value)
        return int(number) if number is not None and number.is_integer() else None


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).removeprefix("torch.") == "bool"


def _real(value: Any) -> float | None:
    """``value`` as a float, infinite and NaN too; None where it is no number."""
    if _is_bool(value) or isinstance(value, (str, bytes)) or getattr(value, "shape", ()) != ():
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


integer = whole(-LARGEST)
count = whole(1)
"""How many: a whole number of at least 1."""
at_least_0 = whole(0)
steps = whole(1, 10**6)
"""Steps of a sampler: a million and more are nobody's wish."""
pixels = whole(0, what="a whole number of pixels")
at_least_2 = whole(2)


def seed(value: Any, name: str) -> int:
    """A seed: any whole number from 0 to 2**63 - 1."""
    number = _integer(value)
    if number is None or not 0 <= number <= LARGEST:
        raise PhasewiseError(f"{name} must be a whole number from 0 to 2**63 - 1, got {shown(value)}")
    return number


def interval(low: float, high: float, *, low_open: bool = False, high_open: bool = False, hint: str = "") -> Kind:
    """A number between two ends, which belong to it unless open; an int stays one."""
    if math.isinf(high):
        said = "be a finite number" if math.isinf(low) else f"be a number {'above' if low_open else '>='} {low:g}"
    else:
        said = f"lie in {'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"

    def kind(value: Any, name: str) -> float:
        number = _real(value)
        # asked as "inside", so that NaN, which compares False, is refused too
        above = number is not None and (low < number if low_open else low <= number)
        if number is None or not above or not (number < high if high_open else number <= high):
            raise PhasewiseError(f"{name} must {said}{hint}, got {shown(value)}")
        return value if type(value) is int else number

    return kind


number = interval(-math.inf, math.inf, low_open=True, high_open=True)
"""Any finite number."""
positive = interval(0, math.inf, low_open=True, high_open=True)
not_negative = interval(0, math.inf, high_open=True)
unit = interval(0, 1)
"""A number in [0, 1]."""
fraction = interval(0, 1, low_open=True)
"""A number in (0, 1]: a share, or a noise time."""
epochs = interval(0, 1e6, low_open=True)
"""Passes over the data, a part of one too."""


# --- lists ----------------------------------------------------------------------------------------------------------


def each(kind: Kind, *, least: int = 1, size: int | None = None) -> Kind:
    """A list, tuple, array or tensor (one axis) whose entries are of a kind; as a tuple."""

    def of(value: Any, name: str) -> tuple[Any, ...]:
        entries = _entries(value)
        if entries is None:
            raise PhasewiseError(f"{name} must be a list, got {shown(value)}")
        if len(entries) < least or (size is not None and len(entries) != size):
            wanted = f"at least {least}" if size is None else f"{size}"
            raise PhasewiseError(f"{name} must have {wanted} {'entry' if wanted.endswith(' 1') else 'entries'}; got "
                                 f"{shown(value)}")  # fmt: skip
        return tuple(kind(entry, f"{name}[{k}]") for k, entry in enumerate(entries))

    return of


def _entries(value: Any) -> list[Any] | None:
    if isinstance(value, (str, bytes, Mapping)) or getattr(value, "shape", (0,)) == ():
        return None
    try:
        return list(value)
    except TypeError:
        return None


times = each(fraction)
"""Noise times in (0, 1], at least one; as a tuple of floats."""
position = each(integer, size=2)
"""(row, column), which the image then has or has not."""
image_shape = each(count, size=3)
"""(channels, height, width), each at least 1."""


def pair_inside(low: float, high: float) -> Kind:
    """(a, b) with low <= a < b <= high."""
    within = "" if (low, high) == (-math.inf, math.inf) else f", inside [{low:g}, {high:g}]"

    def kind(value: Any, name: str) -> tuple[float, ...]:
        ends = [_real(v) for v in _entries(value) or ()]
        if len(ends) != 2 or ends[0] is None or ends[1] is None or not low <= ends[0] < ends[1] <= high:
            raise PhasewiseError(f"{name} must be an interval (low, high), low < high{within}, got {shown(value)}")
        return (ends[0], ends[1])

    return kind


# --- names, files, objects ------------------------------------------------------------------------------------------


def text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise PhasewiseError(f"{name} must be a text, got {shown(value)}")
    return value


def one_of(known: Iterable[str], what: str | None = None) -> Kind:
    """One of some names; the near ones are told."""

    def kind(value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in known:
            raise PhasewiseError(unknown(what or name, value if isinstance(value, str) else shown(value), known))
        return value

    return kind


precision = one_of(("float32", "bfloat16"), "precision")
"""Of a network's products."""


def flag(value: Any, name: str) -> bool:
    if not _is_bool(value):
        raise PhasewiseError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def file(value: Any, name: str) -> str | os.PathLike[str]:
    """A path of the file system: text or a ``Path``."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value) or "\0" in str(value):
        raise PhasewiseError(f"{name} must be the path of a file or folder, got {shown(value)}")
    return value


def made(cls: type | tuple[type, ...], what: str, hint: str = "") -> Kind:
    """An object of a class: ``what`` it is in words, and a ``hint`` how to get one."""

    def kind(value: Any, name: str) -> Any:
        if not isinstance(value, cls):
            raise PhasewiseError(f"{name} must be {what}, got {shown(value)}{f'; {hint}' if hint else ''}")
        return value

    return kind


def by_name(kind: Kind, *, least: int = 1) -> Kind:
    """A mapping from names to objects of a kind; as a dict."""

    def of(value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise PhasewiseError(f"{name} must be a dict by name, such as {{'global': ...}}, got {shown(value)}")
        if len(value) < least:
            raise PhasewiseError(f"{name} is empty: give at least one")
        return {text(key, f"a name in {name}"): kind(each, f"{name}[{key!r}]") for key, each in value.items()}

    return of


def either(*kinds: Kind) -> Kind:
    """The first kind that takes the value; what the last says where none does."""

    def kind(value: Any, name: str) -> Any:
        for one in kinds[:-1]:
            try:
                return one(value, name)
            except PhasewiseError:
                continue
        return kinds[-1](value, name)

    return kind


def function(value: Any, name: str) -> Any:
    if not callable(value):
        raise PhasewiseError(f"{name} must be a function, got {shown(value)}")
    return value


# --- tensors and devices --------------------------------------------------------------------------------------------


def tensor(value: Any, name: str) -> torch.Tensor:
    """A tensor; arrays of numpy become one."""
    import numpy as np
    import torch

    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, torch.Tensor) or value.is_complex() or value.is_sparse:
        raise PhasewiseError(f"{name} must be a tensor, got {shown(value)}")
    return value


def real_tensor(value: Any, name: str) -> torch.Tensor:
    """A floating-point tensor without NaN and infinity; arrays of numpy become one."""
    found = tensor(value, name)
    if not found.is_floating_point():
        raise PhasewiseError(f"{name} holds {_dtype(found)}; convert it to float first")
    if not bool(found.isfinite().all()):
        raise PhasewiseError(f"{name} holds NaN or infinite values; mend or drop them")
    return found


def images(value: Any, name: str) -> torch.Tensor:
    """Images (n, C, H, W) in pixel units, n >= 1, without NaN: a tensor or an array of floats, as float32."""
    found = tensor(value, name)
    if found.dim() != 4 or not found.numel():
        raise PhasewiseError(f"{name} must have shape (N, C, H, W) with N >= 1, got {tuple(found.shape)}")
    if not found.is_floating_point():
        raise PhasewiseError(f"{name} are {_dtype(found)}; convert them to float first, in the data's pixel units")
    found = found.float()
    bad = int((~found.isfinite().flatten(1).all(1)).sum())
    if bad:
        raise PhasewiseError(f"{bad} of {len(found)} {name} hold NaN or infinite pixels; mend or drop them")
    return found


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def device(value: Any, name: str) -> torch.device:
    """A device that is there: "cpu", "cuda", "cuda:1", "mps", or a ``torch.device``.

    Raises PhasewiseError for a name that is none, and for an accelerator that this machine has not.
    """
    import torch

    try:
        asked = torch.device(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise PhasewiseError(f"{name} {shown(value)} is no device; try cpu, cuda, cuda:1 or mps") from error
    reason = _unusable(asked)
    if reason:
        raise PhasewiseError(f"device {str(value)!r} is not usable here ({reason}); use cpu (--device cpu)")
    return asked


def _unusable(asked: torch.device) -> str:
    """Why nothing can be computed on a device; empty where it can."""
    import torch

    if asked.type == "cpu":
        return f"there is no processor number {asked.index}" if asked.index else ""
    if asked.type == "meta":
        return "it holds shapes and no numbers"
    if asked.type == "cuda" and torch.cuda.is_available() and (asked.index or 0) >= torch.cuda.device_count():
        return f"there are {torch.cuda.device_count()} of them, counted from 0"
    if asked.type == "mps" and not torch.backends.mps.is_available():
        return "this machine or this PyTorch has no MPS"
    try:
        torch.zeros(1, device=asked)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0][:100]
    return ""
