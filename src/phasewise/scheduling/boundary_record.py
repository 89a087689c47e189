r"""When to switch from one denoiser to another: the record of a measured boundary, and the same in every unit.

On a grid of S steps boundary k gives the steps before k to ``early`` and the others to ``late``, k = 0 .. S.  With d_j
the penalty of early at step j less that of late, its excess over *late alone* is ``P(k) = d_0 + ... + d_{k-1}``, so two
boundaries differ by the steps between them and by nothing else.  The variance of that difference is ``u' C u`` with u
one on these steps and C the covariance of the d: of the same images at every step, so C is not diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from phasewise import checks, display
from phasewise.display import TIME, Head, Rows, View, measured
from phasewise.errors import PhasewiseError, unknown
from phasewise.paths import NoisePath, path_from_config
from phasewise.power import RESOLVED
from phasewise.results import Array, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TIES = 1.0
"""Standard errors within which the cheapest boundary counts as good as the best: the one-standard-error rule."""


class Clock(Protocol):
    """A training's count of time: which of its ``steps_total`` discrete timesteps, 0 at the data, a noise time is.

    One that has a ``path`` (a wrapped network's has) takes times of that path alone.
    """

    @property
    def steps_total(self) -> int | None: ...

    def timestep_of_time(self, t: float) -> float: ...


def a_clock(value: Any, name: str) -> Any:
    """A clock, as an argument."""
    if not callable(getattr(value, "timestep_of_time", None)) or not hasattr(value, "steps_total"):
        raise PhasewiseError(
            f"{name} must tell timesteps: an object with steps_total and timestep_of_time(t), got {checks.shown(value)}"
        )
    return value


def timesteps(clock: Clock, times: Sequence[float], path: NoisePath) -> tuple[list[float], int]:
    """Discrete timesteps at ``times`` on ``path``, and how many a training has.

    Raises PhasewiseError for a clock without discrete timesteps, and for one of another path.
    """
    total, own = clock.steps_total, getattr(clock, "path", path)
    if total is None:
        raise PhasewiseError(
            "this clock counts no discrete timesteps: its network is told the noise itself; leave it out"
        )
    # the same path in other pixel units keeps its times
    if own != path and own != getattr(path, "of", None):
        raise PhasewiseError(
            f"this clock is of {own!r}, the times are on {path!r}; give the clock of a network on that path"
        )
    return [float(clock.timestep_of_time(float(t))) for t in times], checks.count(total, "steps_total")


@dataclass(frozen=True)
class BoundaryUnits(Record):
    """A boundary in every unit, a row each: its value, and those at the low and the high end of its interval in t.

    ``t``, ``sigma/alpha`` and ``log-SNR`` are of the path.  ``timestep`` is of a clock; ``boundary_ratio`` is timestep
    over the number of training timesteps, as two-stage pipelines take it (early takes timesteps at or above it), and
    ``denoising_end`` is 1 less that, as a base and its refiner take it.  ``steps of early`` counts the steps of the
    grid that early takes, so late begins at the step of that index.  NaN where a unit has no value: a boundary ratio
    where one denoiser is alone.
    """

    early: str
    late: str
    units: tuple[str, ...]
    value: Array
    at_low: Array
    at_high: Array
    steps: int

    def check(self) -> None:
        if not len(self.units) == len(self.value) == len(self.at_low) == len(self.at_high):
            raise PhasewiseError(f"{len(self.units)} units do not go with {len(self.value)} values")

    def __getitem__(self, unit: str) -> float:
        """The value in one unit.  PhasewiseError for one that is not there."""
        if unit not in self.units:
            raise PhasewiseError(unknown("unit", unit, self.units))
        return float(self.value[self.units.index(unit)])

    def table(self) -> tuple[Head, Rows]:
        """A row for each unit."""
        rows = zip(self.units, self.value.tolist(), self.at_low.tolist(), self.at_high.tolist(), strict=True)
        return ("unit", "value", "at_low", "at_high"), list(rows)

    def view(self) -> View:
        head = ("unit", "value", "at the low end", "at the high end")
        return View(f"From {self.early} to {self.late}, of {self.steps} steps", head, self.table()[1])


@dataclass(frozen=True)
class Boundary(Record):
    """The time at which to switch from ``early``, which takes the noisy part, to ``late``.

    ``times`` (S,) is the grid, on ``path``.  ``difference`` (S,): penalty of early less that of late at each step, in
    ``penalty_unit``, ``difference_stderr`` its standard error, ``correlation`` (S, S) of these errors between steps;
    None where it was not measured: then they are taken to go together, which bounds every error from above.
    ``mflop`` and ``ms`` (S + 1,) per image of giving the first 0 .. S steps to early.

    ``reference``: the one whose answers count as right, or None, where held-out images judge both.  A boundary is *as
    good* as the best where it is not resolved to lose more than ``tolerance`` (in ``penalty_unit``).
    """

    early: str
    late: str
    times: Array
    path: dict[str, Any]
    difference: Array
    difference_stderr: Array
    mflop: Array
    ms: Array
    penalty_name: str
    penalty_unit: str
    n: int
    seed: int
    solver: str
    tolerance: float = 0.0
    reference: str | None = None
    cost: str = "mflop"
    correlation: Array | None = None

    def check(self) -> None:
        count = len(self.times)
        steps = {"difference": self.difference, "difference_stderr": self.difference_stderr}
        wrong = [name for name, values in steps.items() if values.shape != (count,)]
        wrong += [name for name in ("mflop", "ms") if getattr(self, name).shape != (count + 1,)]
        if self.correlation is not None and self.correlation.shape != (count, count):
            wrong.append("correlation")
        if wrong or not count or (np.diff(self.times) >= 0).any():
            raise PhasewiseError(f"a boundary on {count} steps does not go with its {', '.join(wrong) or 'times'}")
        if self.reference not in (None, self.early, self.late):
            raise PhasewiseError(f"the reference is {self.early} or {self.late}, not {self.reference!r}")

    # --- what follows ---------------------------------------------------------------------------------------------

    @cached_property
    def above_late(self) -> Array:
        """(S + 1,): penalty of every boundary less that of late alone."""
        return np.append(0.0, np.cumsum(self.difference))

    @cached_property
    def best(self) -> int:
        """Steps of early at the boundary of least penalty; of equal ones the first."""
        return int(np.argmin(self.above_late))

    @property
    def excess(self) -> Array:
        """(S + 1,): penalty of every boundary less the least."""
        return self.above_late - self.above_late[self.best]

    @cached_property
    def excess_stderr(self) -> Array:
        """(S + 1,): its standard error, of the steps that lie between the two boundaries."""
        return np.array([self._error(_before(k, len(self.times)) - self._best_steps) for k in self._all])

    @property
    def as_good(self) -> Array:
        """(S + 1,) of bool: within two standard errors and the tolerance of the best."""
        return self.excess <= self.tolerance + RESOLVED * self.excess_stderr

    @cached_property
    def step(self) -> int:
        """How many steps early takes: the best boundary, or with a reference the cheapest that is as good within one
        standard error and the tolerance."""
        if self.reference is None:
            return self.best
        good = np.flatnonzero(self.excess <= self.tolerance + TIES * self.excess_stderr)
        return self._cheapest(good, self.spent, self.excess)

    @property
    def spent(self) -> Array:
        """(S + 1,): what every boundary costs an image, in MFLOP or ms as ``cost`` says."""
        return self.ms if self.cost == "ms" else self.mflop

    @property
    def t(self) -> float:
        """The time to switch: early takes the steps that start at or above it.  1 where late is alone, 0 where early
        is.  Half way between two times of the grid: no sampling on this grid tells more."""
        return self._edge(self.step)

    @property
    def low(self) -> float:
        """The interval is (low, high]: its times switch at the boundaries that are as good as the best, of which it is
        the hull.  0 where early alone is among them, and ``high`` 1 where late alone is."""
        last = int(np.flatnonzero(self.as_good)[-1])
        return float(self.times[last]) if last < len(self.times) else 0.0

    @property
    def high(self) -> float:
        first = int(np.flatnonzero(self.as_good)[0])
        return float(self.times[first - 1]) if first else 1.0

    @cached_property
    def reverse(self) -> tuple[int, float, float] | None:
        """The other order, late first, where it is better: how many steps late then takes, its penalty less that of the
        best boundary, and the standard error of that.

        Better is, without a reference, a lower penalty beyond two standard errors; with one, a lower cost at a penalty
        as good.  None where it is not.
        """
        size, whole = len(self.times), self.above_late[-1]
        inner = range(1, size)  # at both ends it is one denoiser alone, which this order has too
        gained = {k: float(whole - self.above_late[k] - self.above_late[self.best]) for k in inner}
        error = {k: self._error((1.0 - _before(k, size)) - self._best_steps) for k in inner}
        if self.reference is None:
            k = min(inner, key=gained.__getitem__, default=0)
            better = k and gained[k] < -RESOLVED * error[k]
        else:
            good = [k for k in inner if gained[k] <= self.tolerance + TIES * error[k]]
            spent, lost = self._reversed_cost(self.spent), np.array([gained.get(k, 0.0) for k in self._all])
            k = self._cheapest(np.array(good), spent, lost) if good else 0
            better = k and spent[k] < self.spent[self.step] * (1 - 1e-9)
        return (k, gained[k], error[k]) if better else None

    def _reversed_cost(self, spent: Array) -> Array:
        return spent[0] + spent[-1] - spent  # what early does not take, late does, and the other way round

    @property
    def _all(self) -> range:
        return range(len(self.times) + 1)

    @property
    def _best_steps(self) -> Array:
        return _before(self.best, len(self.times))

    def _error(self, u: Array) -> float:
        """Standard error of ``u . difference``."""
        scaled = u * self.difference_stderr
        if self.correlation is None:
            return float(np.abs(scaled).sum())
        return math.sqrt(max(float(scaled @ self.correlation @ scaled), 0.0))

    def _cheapest(self, some: Array, spent: Array, lost: Array) -> int:
        """The one of least cost; of equal costs, of least penalty."""
        return int(min(some, key=lambda k: (round(float(spent[k]), 9), float(lost[k]))))

    def _edge(self, k: int) -> float:
        if k in (0, len(self.times)):
            return 0.0 if k else 1.0
        return float(self.times[k - 1] + self.times[k]) / 2

    # --- in words -------------------------------------------------------------------------------------------------

    def sentences(self) -> list[str]:
        """The answer; where it does not matter; what a boundary too soon and too late costs; the other order."""
        lines = [self._answer(), self._where_it_does_not_matter()]
        lines += [line for line in (self._side(soon=True), self._side(soon=False)) if line]
        if self.reverse is not None:
            k, gained, error = self.reverse
            saved = self.spent[self.step] - self._reversed_cost(self.spent)[k]
            gain = "" if self.reference else f" by {measured(-gained, error)} {self.penalty_unit}"
            costs = f", and costs {display.cell(float(saved))} {self._cost_unit} less" if self.reference else ""
            lines.append(
                f"The other order is better{gain}: first {self.late}, then {self.early} from t = {self._edge(k):.3g} on"
                f"{costs}"
            )
        return lines

    def _answer(self) -> str:
        count = len(self.times)
        if self.step in (0, count):
            alone, other = (self.early, self.late) if self.step else (self.late, self.early)
            return f"{alone} alone is best: no step goes to {other}"
        head = f"Switch from {self.early} to {self.late} at t = {self.t:.3g} ({self.low:.3g} to {self.high:.3g})"
        return f"{head}: {self.early} takes {self.step} of {count} steps"

    def _where_it_does_not_matter(self) -> str:
        good = np.flatnonzero(self.as_good)
        within = (
            "within error"
            if not self.tolerance
            else f"within error and the tolerance of {display.cell(self.tolerance)} "
        )
        within += self.penalty_unit if self.tolerance else ""
        beyond = within.replace("within error", "its error", 1)
        if len(good) == len(self.times) + 1:
            return f"It does not matter where: every boundary is as good {within} (n = {self.n} images)"
        if len(good) == 1:
            return f"It matters: every other boundary of the grid loses more than {beyond} (n = {self.n} images)"
        whole = "it does not matter" if (np.diff(good) == 1).all() else "it matters little"
        return (
            f"Between t = {self.low:.3g} and {self.high:.3g} {whole}: {len(good)} boundaries are as good {within} "
            f"(n = {self.n} images)"
        )

    def _side(self, soon: bool) -> str:
        """What the nearest boundary that is told to be worse costs, on one side."""
        good = np.flatnonzero(self.as_good)
        k = int(good[0]) - 1 if soon else int(good[-1]) + 1
        if k not in self._all:
            return ""
        lost = measured(float(self.excess[k]), float(self.excess_stderr[k]))
        more = float(self.spent[k] - self.spent[self.step])
        costs = f"{display.cell(abs(more))} {self._cost_unit}{' more' if more > 0 else ''}" if more else "the same"
        where = (
            f"{self.early if k else self.late} alone" if k in (0, len(self.times)) else f"at t = {self._edge(k):.3g}"
        )
        how = "Too soon" if soon else "Too late"
        verb = "saves" if more < 0 else "costs"
        return f"{how}, {where}: that loses {lost} {self.penalty_unit}, and {verb} {costs}"

    @property
    def _cost_unit(self) -> str:
        return "ms an image" if self.cost == "ms" else "MFLOP an image"

    # --- shown ----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The fields, and for readers of the file ``t``, ``low``, ``high`` and the sentences that follow from them."""
        return {**super().to_dict(), "t": self.t, "low": self.low, "high": self.high, "says": self.sentences()}

    def table(self) -> tuple[Head, Rows]:
        """A row for each boundary: from late alone to early alone."""
        rows = [
            (k, self._edge(k), lost, error, mflop, ms, good)
            for k, lost, error, mflop, ms, good in zip(
                self._all, self.excess.tolist(), self.excess_stderr.tolist(), self.mflop.tolist(), self.ms.tolist(),
                self.as_good.tolist(), strict=True,
            )
        ]  # fmt: skip
        return ("steps_of_early", "t", "excess", "excess_stderr", "mflop", "ms", "as_good"), rows

    def view(self) -> View:
        """The answer, and a row for each boundary."""
        head = (f"steps of {self.early}", "t", f"excess ({self.penalty_unit})", "MFLOP", "ms", "as good")
        rows = [
            (k, t, measured(lost, error), mflop, ms, "chosen" if k == self.step else "yes" if good else "no")
            for k, t, lost, error, mflop, ms, good in self.table()[1]
        ]
        return View("\n".join(self.sentences()), head, rows, fixed=3)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Excess penalty against the time of the switch, the chosen one and the interval marked."""
        ax = display.axes_or_new(ax)
        t = np.array([self._edge(k) for k in self._all])
        color = display.STRONG[1]
        display.draw_band(ax, t, self.excess, self.excess_stderr, color=color, marker="o", markersize=3)
        ax.axvspan(self.low, self.high, color=display.STRONG[0], alpha=0.1, linewidth=0, label="as good as the best")
        ax.axvline(self.t, color=display.STRONG[0], label=f"t = {self.t:.3g}")
        y = f"penalty {self.penalty_name} above the best ({self.penalty_unit})"
        display.label_axes(ax, f"When to switch from {self.early} to {self.late}", TIME, y)
        display.legend(ax)
        return ax

    # --- in other units -------------------------------------------------------------------------------------------

    @checks.checked(clock=a_clock, grid=checks.times)
    def in_units(self, clock: Clock | None = None, grid: Sequence[float] | None = None) -> BoundaryUnits:
        """The boundary and the ends of its interval in every unit.

        Args:
            clock: adds timestep, ``boundary_ratio`` and ``denoising_end``; its ``timestep_of_time`` takes t on
                this boundary's path, its ``steps_total`` is the number of training timesteps.
            grid: descending start times of a scheduler's steps, on the same path; default the grid it was measured on.

        Raises PhasewiseError for a clock that is none or of another path, and a grid that does not decrease.
        """
        times = np.asarray(self.times if grid is None else grid, dtype=float)
        if (np.diff(times) >= 0).any():
            raise PhasewiseError("the times of a grid decrease strictly, as a sampler takes them")
        path, good = path_from_config(self.path), np.flatnonzero(self.as_good)
        ends = ((self.t, self.step), (self.low, int(good[-1])), (self.high, int(good[0])))
        alone = (0, len(self.times))
        rows: dict[str, list[float]] = {
            "t": [t for t, _ in ends],
            "sigma/alpha": [math.exp(-float(path.log_snr(t)) / 2) if t > 0 else _at_0(path) for t, _ in ends],
            "log-SNR": [float(path.log_snr(torch.tensor(t, dtype=torch.float64))) for t, _ in ends],
        }
        if clock is not None:
            step, total = timesteps(clock, [t for t, _ in ends], path)
            ratio = [math.nan if k in alone else s / total for s, (_, k) in zip(step, ends, strict=True)]
            rows |= {"timestep": step, "boundary_ratio": ratio, "denoising_end": [1 - r for r in ratio]}
        # early takes what starts at or above a boundary; one that lies on the low end is just above it
        counts = [(times >= self.t).sum(), (times > self.low).sum(), (times >= self.high).sum()]
        rows["steps of early"] = [
            float({0: 0, len(self.times): len(times)}.get(k, int(count)))
            for count, (_, k) in zip(counts, ends, strict=True)
        ]
        value, at_low, at_high = (np.array([row[i] for row in rows.values()]) for i in range(3))
        return BoundaryUnits(self.early, self.late, tuple(rows), value, at_low, at_high, len(times))


def _before(k: int, size: int) -> Array:
    """(size,): one on the first k steps."""
    return (np.arange(size) < k).astype(float)


def _at_0(path: NoisePath) -> float:
    """sigma / alpha at the data."""
    zero = torch.zeros((), dtype=torch.float64)
    return float(path.sigma(zero) / path.alpha(zero))
