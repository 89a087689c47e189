"""What a sampling trajectory keeps from step to step, and the hook by which a network offers its parts to be kept.

A sampler makes one :class:`Memory` for a batch of trajectories where a member of its denoiser leans on earlier steps
(:mod:`phasewise.denoisers.reuse`).  During a call of a network the memory is at hand by :func:`site`: the backbone
names its parts, and the memory computes, keeps or gives them back::

    kept = site(self)
    h = self.below(h) if kept is None else kept("level1", lambda: self.below(h))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from phasewise.errors import PhasewiseError

Key = tuple[object, ...]
Part = Callable[[str, Callable[[], Tensor]], Tensor]
"""``part(name, compute) -> tensor``: what ``compute()`` gives, fresh or kept."""


def key_of(network: nn.Module) -> Key:
    """Which network this is, by its weights: copies that share them are the same one, unless they see less."""
    first = next(network.parameters(), None)
    return (type(network).__name__, id(network if first is None else first), getattr(network, "window", None))


def linear_time(log_snr: float) -> float:
    """``sigma / (alpha + sigma)``, the linear path's time at this log-SNR, in [0, 1]; no overflow at either end."""
    return 1.0 if log_snr == -math.inf else 1 / (1 + math.exp(log_snr / 2)) if log_snr < 1400 else 0.0


def extrapolation_weights(places: Sequence[float], at: float) -> list[float]:
    """Weights of values at ``places`` in the polynomial through them all, at ``at`` (Lagrange); they sum to 1."""
    return [
        math.prod((at - other) / (own - other) for j, other in enumerate(places) if j != i)
        for i, own in enumerate(places)
    ]


VARIABLES: dict[str, Callable[[float], float]] = {"t": linear_time, "log_snr": lambda value: value}
"""In what a kept value is carried on, from the log-SNR: "t" is the linear path's time, whatever the path."""


def carried(values: Sequence[tuple[float, Tensor]], log_snr: float, variable: str) -> Tensor:
    """What (log-SNR, value), newest last, come to at ``log_snr``: held where one is given, on the line or the parabola
    through two or three.  Values at an infinite place of ``variable`` are left out, the newest one aside."""
    place = VARIABLES[variable]
    fit = [(place(at), value) for at, value in values[:-1] if math.isfinite(place(at))]
    newest = (place(values[-1][0]), values[-1][1])
    if not fit or not math.isfinite(newest[0]):
        return newest[1]
    points = [*fit, newest]
    weights = extrapolation_weights([p for p, _ in points], place(log_snr))
    out = weights[-1] * newest[1]
    for weight, (_, value) in zip(weights, points[:-1], strict=False):
        out = out + weight * value
    return out


@dataclass(frozen=True)
class Wanted:
    """What is to be kept of a network: a part by its name, its last ``count`` values."""

    key: Key
    part: str
    count: int

    def holds(self, name: str) -> bool:
        """Whether the place ``name`` of a network belongs to this part: "level1" is itself, "attention" all its
        "attention/3", "blocks/1:5" blocks 1 to 4."""
        if name == self.part or name.startswith(self.part + "/"):
            return True
        stem, _, span = self.part.partition("/")
        low, colon, high = span.partition(":")
        own, _, index = name.partition("/")
        return bool(colon) and own == stem and int(low) <= int(index) < int(high)


@dataclass
class Answer:
    """One fresh answer: the posterior mean and the noise it implies, ``z = (x_t - alpha D) / sigma``."""

    log_snr: float
    mean: Tensor
    noise: Tensor | None


@dataclass
class Memory:
    """What one batch of trajectories keeps: its last ``count`` fresh answers (``noises``: with the noise they imply),
    and the ``wanted`` parts of networks."""

    count: int = 0
    noises: bool = False
    wanted: tuple[Wanted, ...] = ()
    answers: list[Answer] = field(default_factory=list)
    parts: dict[tuple[Key, int, str], list[tuple[float, Tensor]]] = field(default_factory=dict)

    def answered(self, log_snr: float, mean: Tensor, noise: Callable[[], Tensor]) -> None:
        """Keep a fresh answer."""
        if self.count:
            kept = Answer(log_snr, mean, noise() if self.noises else None)
            self.answers = [*self.answers, kept][-self.count :]

    @contextmanager
    def during(self, log_snr: float, key: Key | None = None, part: str | None = None, variable: str = "t",
               count: int = 1) -> Iterator[Call]:  # fmt: skip
        """While a member answers at ``log_snr``: with ``part``, that part of the network ``key`` is read, not made."""
        call = Call(self, log_snr, key, part, variable, count)
        token = _CALL.set(call)
        try:
            yield call
        finally:
            _CALL.reset(token)


@dataclass
class Call:
    """One member's answer at one step, seen from inside its networks."""

    memory: Memory
    log_snr: float
    key: Key | None
    part: str | None
    variable: str
    count: int
    calls: dict[Key, int] = field(default_factory=dict)
    """How often each network was called within this answer: a guided one is called twice."""
    read: int = 0

    def of(self, network: nn.Module) -> Part | None:
        key = key_of(network)
        reading = self.part is not None and key == self.key
        wanted = [w for w in self.memory.wanted if w.key == key]
        if not reading and not wanted:
            return None
        number = self.calls.get(key, 0)
        self.calls[key] = number + 1

        def part(name: str, compute: Callable[[], Tensor]) -> Tensor:
            place = (key, number, name)
            if reading:
                if not Wanted(key, str(self.part), 1).holds(name):
                    return compute()
                values = self.memory.parts.get(place)
                if not values:
                    raise PhasewiseError(
                        f"nothing is kept of {name} of this {type(network).__name__} yet: a step by the whole network "
                        "comes first"
                    )
                self.read += 1
                return carried(values[-self.count :], self.log_snr, self.variable)
            counts = [w.count for w in wanted if w.holds(name)]
            value = compute()
            if counts:
                self.memory.parts[place] = [*self.memory.parts.get(place, []), (self.log_snr, value)][-max(counts) :]
            return value

        return part


_CALL: ContextVar[Call | None] = ContextVar("the answer that is being given", default=None)


def site(network: nn.Module) -> Part | None:
    """The memory at hand for the parts of ``network`` during this call; None where nothing of it is kept, and in code
    that is being compiled, which cannot look."""
    if torch.compiler.is_compiling():
        return None
    call = _CALL.get()
    return None if call is None else call.of(network)


def current() -> Call | None:
    """The answer that is being given, where a memory is at hand."""
    return _CALL.get()
