"""What fits into memory: how much there is, and a batch that does not fit, answered with one that does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from phasewise.errors import PhasewiseError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
AT_ONCE = 1 << 24
"""Numbers held in float64 at a time: 128 MB."""
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "unable to allocate")


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that an allocation failed, on a CPU or a GPU."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in SIGNS)


def in_parts(rows: Tensor) -> tuple[Tensor, ...]:
    """``rows`` (n, ...) cut into parts of AT_ONCE numbers at the most, or single rows: what is copied at a time."""
    return rows.split(max(1, AT_ONCE // max(1, rows[:1].numel())))


def mean_and_covariance(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of ``rows`` (n, D) in float64, of which only a part at a time is held as such."""
    return _moments(rows, lambda centred: centred.T @ centred)


def mean_and_variance(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every number of ``rows`` (n, ...), held and computed likewise."""
    return _moments(rows, lambda centred: centred.square().sum(0))


def _moments(rows: Tensor, squared: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    total: Any = 0
    squares: Any = 0
    for part in in_parts(rows):
        total = total + part.double().sum(0)
    mean = total / len(rows)
    for part in in_parts(rows):
        squares = squares + squared(part.double() - mean)
    return mean, squares / len(rows)


def not_finite(images: Tensor) -> int:
    """How many of ``images`` (n, ...) hold NaN or infinity, part by part: PyTorch's own check holds a copy of what it
    is given."""
    return sum(int((~part.isfinite().flatten(1).all(1)).sum()) for part in in_parts(images))


def give_back() -> None:
    """Return to the system what this process has freed.  By itself the C library keeps most of it: blocks of some
    megabytes come and go on a heap that only shrinks at its end."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def available() -> int | None:
    """Bytes of memory that may still be taken on this machine, by its own account; None where it gives none."""
    free = []
    with contextlib.suppress(OSError):
        found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
        free += [1024 * int(found[1])] if found else []
    with contextlib.suppress(OSError, ValueError):  # a container's share, where there is one ("max" is no number)
        most, used = (int(Path(f"/sys/fs/cgroup/memory.{k}").read_text()) for k in ("max", "current"))
        free.append(max(0, most - used))
    if not free:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            free.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    return min(free, default=None)


def machine_bytes() -> int:
    """Memory that this machine (or the container, or the limit it runs under) has, in bytes."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(file).read_text(encoding="ascii")))
    return min(found)


def need_bytes(needed: float, what: str, mend: str) -> None:
    """Raise PhasewiseError where ``needed`` bytes are more than the machine has."""
    if needed > machine_bytes():
        has = f"this machine has {machine_bytes() / 1e9:.3g} GB"
        raise PhasewiseError(f"{what} take {needed / 1e9:.3g} GB of memory and {has}; {mend}")


@contextmanager
def fitting(batch: int, attempt: Callable[[int], object], what: str) -> Iterator[None]:
    """Within it, running out of memory becomes a PhasewiseError that names the largest batch ``attempt`` bears.

    ``attempt(k)`` does with k images what was done with ``batch``; it is tried with halves, quarters, ... of it.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # else what the failed attempt allocated lives on through the next
        fits = largest_fitting(batch, attempt)
        advice = f"a batch of {fits} does" if fits else "not even a single image does: make the network smaller"
        raise PhasewiseError(f"{what} with a batch of {batch} does not fit into memory; {advice}") from error


def called(denoiser: Callable[[Any, float], T], x: Any, t: float, what: str) -> T:
    """``denoiser(x, t)``; where it does not fit, a PhasewiseError that names how many images do."""
    with fitting(len(x), lambda k: denoiser(x[:k], t), what):
        return denoiser(x, t)


def largest_fitting(batch: int, attempt: Callable[[int], object]) -> int:
    """The first of batch/2, batch/4, ..., 1 that ``attempt`` gets through; 0 when none does."""
    size = batch // 2
    while size:
        try:
            attempt(size)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            size //= 2
        else:
            return size
    return 0
