"""Long work as pieces of which one can be tried, so that how long it takes is told before it starts.

A machine that does other things as well makes every step of a clock on the wall too long.  So a try counts the larger
of what the calling thread spent of a processor and the mean of all threads of the process, at most the wall's::

    own = min( wall, max( thread, process / threads ) )

The first holds where one thread works alone, the second where all share; waiting for others' work is in neither.  On a
GPU, whose work the processor does not see, the wall counts, read when the GPU is done.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from phasewise.memory import mean_and_covariance
from phasewise.seeding import plain

SHORTEST_S = 0.01
"""A shorter try is repeated until it takes so long: clocks have a grain."""
LONG_S = 0.5
WARM_S = 2.0
"""A first try above LONG_S is repeated once up to here: libraries make their kernels in it, which can take seconds."""
TRIES = 3
TRIED_SIDE = 1024
"""Side of the largest covariance that is tried, to tell how long a larger one takes."""


@dataclass(frozen=True)
class Work:
    """``times`` repetitions (0 or more, a fraction where a try is larger than what is done) of what ``once`` does."""

    once: Callable[[], object]
    times: float

    def seconds(self, device: str = "cpu") -> float:
        """About how long all of it takes on this machine when nothing else runs there."""
        return self.times * own_seconds(self.once, device) if self.times > 0 else 0.0


def seconds_of(pieces: Iterable[Work], device: str = "cpu") -> float:
    """The sum over ``pieces``."""
    return sum(piece.seconds(device) for piece in pieces)


def own_seconds(once: Callable[[], object], device: str = "cpu", tries: int = TRIES) -> float:
    """Seconds of one ``once()`` on an idle machine: the least of ``tries`` after one that warms up.

    They take LONG_S together, about, by the clock on the wall too: on a busy machine there are fewer; after a first one
    that takes longer there is one more.  A first one above WARM_S is what is answered, its warming up in it.
    """
    on, started = torch.device(device), time.perf_counter()
    first = _elapsed(once, 1, on)
    if first > WARM_S:
        return first
    tried = [_elapsed(once, 1, on)]
    calls = max(1, math.ceil(SHORTEST_S / max(tried[0], 1e-6)))
    while len(tried) < tries and max((len(tried) + 1) * tried[0], time.perf_counter() - started) < LONG_S:
        tried.append(_elapsed(once, calls, on))
    # the least is the one least disturbed
    return min(tried)


def _elapsed(once: Callable[[], object], calls: int, on: torch.device) -> float:
    """Seconds of one of ``calls`` calls, as the module's head says."""
    _finish(on)
    wall, own, every = time.perf_counter(), time.thread_time(), time.process_time()
    for _ in range(calls):
        once()
    _finish(on)
    wall, own, every = time.perf_counter() - wall, time.thread_time() - own, time.process_time() - every
    spent = max(own, every / torch.get_num_threads())
    # where the processors' clocks have too coarse a grain to have moved, the wall's is all there is
    return (min(wall, spent) if on.type == "cpu" and spent > 0 else wall) / calls


def _finish(on: torch.device) -> None:
    if on.type == "cuda":
        torch.cuda.synchronize(on)


def covariance_work(n: int, size: int) -> list[Work]:
    """What :func:`phasewise.memory.mean_and_covariance` of ``n`` rows of ``size`` numbers takes, and the eigenvectors
    of what it gives; above TRIED_SIDE tried on a smaller one, whose cost is the square and the cube of the side."""
    tried = min(size, TRIED_SIDE)
    rows = rows_like(tried)
    covariance = covariance_like(rows)
    return [
        Work(lambda: mean_and_covariance(rows), n / len(rows) * (size / tried) ** 2),
        Work(lambda: torch.linalg.eigh(covariance), (size / tried) ** 3),
    ]


def rows_like(size: int) -> Tensor:
    """Noise (TRIED_SIDE, size), to try a covariance on."""
    return torch.randn(TRIED_SIDE, size, generator=plain(0))


def covariance_like(rows: Tensor) -> Tensor:
    """Of rows (n, D): positive definite (D, D), float64."""
    return mean_and_covariance(rows)[1] + 0.1 * torch.eye(rows.shape[1], dtype=torch.float64)


def busy() -> tuple[float, int] | None:
    """(load average of the last minute, processors to be used) where more runs on this machine than it has processors
    for; None where not, or where the system does not say."""
    with contextlib.suppress(OSError, AttributeError):
        load = os.getloadavg()[0]
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return (load, cores) if load > cores else None
    return None
