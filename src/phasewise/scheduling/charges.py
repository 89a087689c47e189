"""What a schedule is charged step by step, whatever its members lean on: one table for optimiser, ties and words.

Columns are the members of a price list, and after them those that lean on earlier steps, one for each pattern of lags
(:class:`phasewise.results.ReusePrices`).  A step that leans on earlier ones is charged what was measured with the
reference's own answers there, and for what other members gave instead: their penalty at this very step, where their
error is about what it was shortly before, times the weight with which their answers go in.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from phasewise.denoisers.reuse import check_place
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.results import Array, PriceList, ReusePrices
from phasewise.sampling.solvers import get_solver
from phasewise.scheduling.penalty import Penalty, check_prices, get_penalty, step_penalties
from phasewise.scheduling.prices import calls_of

Fresh = tuple[tuple[int, int], ...]
"""Fresh steps so far, the last first: (step, column of the member whose answer it was)."""


@dataclass(frozen=True)
class State:
    """What the steps so far have left: fresh answers, and whole calls of networks that are kept in parts, by member;
    the last first, no more than anything leans on."""

    answers: Fresh = ()
    calls: tuple[tuple[int, tuple[int, ...]], ...] = ()


class Charge(NamedTuple):
    """One step's penalty, the variance of its error, and the column that says what it costs."""

    column: int
    value: float
    variance: float


class Charges:
    """Penalties, their errors and costs of every step of a grid by every member, over a price list with reuse.

    Attributes:
        names: who may take steps: members in the price list's order, then those that lean on earlier steps.
        value, stderr: (S, columns) in the penalty's unit; NaN where the grid has no such steps.
        cost: "mflop" and "ms", (columns,) a call.  calls: (S, columns).
    """

    def __init__(self, prices: PriceList, penalty: str | Penalty | None, solver: str) -> None:
        self.prices, self.penalty, self.solver = prices, get_penalty(penalty, prices), solver
        reuse = prices.reuse
        self.plain = len(prices.names)
        self.names = (*prices.names, *dict.fromkeys(() if reuse is None else reuse.names))
        self.value, self.stderr = step_penalties(prices, self.penalty)
        flops, ms = prices.flops, prices.ms
        self.by: dict[str, dict[tuple[int, ...], int]] = {}
        self.of: dict[str, str] = {}
        if reuse is not None:
            check_place(reuse.names[0], solver)
            if get_solver(solver).stochastic != (reuse.trajectories == "noised"):
                warnings.warn(
                    f"{reuse.names[0]} was priced on {reuse.trajectories} trajectories, which {solver} does not "
                    f"follow; measure with price_list(..., solver={solver!r})",
                    PhasewiseWarning,
                    stacklevel=3,
                )
            lost, error = self._reused(reuse)
            self.value, self.stderr = np.hstack([self.value, lost]), np.hstack([self.stderr, error])
            flops, ms = np.append(flops, reuse.flops), np.append(ms, reuse.ms)
            for c, (name, lags, of) in enumerate(zip(reuse.names, reuse.lags, reuse.of, strict=True)):
                self.by.setdefault(name, {})[lags] = self.plain + c
                self.of[name] = of
        self.cost = {"mflop": flops / 1e6, "ms": ms}
        plain = calls_of(prices, solver, len(prices.times))
        self.calls = np.hstack([plain, np.ones((len(plain), len(flops) - self.plain), dtype=int)])
        self.reference = prices.names.index(prices.losses.reference)
        # how many fresh answers, and whole calls by member, anything leans on, and how far back
        self.depth, self.reach = 0, 0
        self.kept: dict[int, tuple[int, int]] = {}
        for name, columns in self.by.items():
            count, far = max(map(len, columns)), max(lags[-1] for lags in columns)
            if not self.of[name]:
                self.depth, self.reach = max(self.depth, count), max(self.reach, far)
            elif self.of[name] in prices.names:
                base = prices.names.index(self.of[name])
                have = self.kept.get(base, (0, 0))
                self.kept[base] = (max(have[0], count), max(have[1], far))

    def _reused(self, reuse: ReusePrices) -> tuple[Array, Array]:
        """(S, C) value and error of the penalty for the columns of ``reuse``: any penalty takes them for members."""
        prices, table = self.prices, self.prices.losses
        there = np.isfinite(reuse.distance)
        wide: dict[str, Any] = {}
        for field in ("loss", "loss_stderr", "gap", "gap_stderr", "distance", "distance_stderr"):
            found = getattr(reuse, field)
            if field in ("gap", "loss") and reuse.trajectories == "sampled" and self.penalty.needs_losses:
                raise PhasewiseError(
                    f"penalty {self.penalty.name!r} counts held-out losses, which trajectories sampled from noise have "
                    "not; take a penalty by distance ('w2', 'frechet'), or a stochastic solver"
                )
            wide[field] = np.hstack([getattr(table, field), np.nan_to_num(found)])
        labels = [f"{name}@{','.join(map(str, lags))}" for name, lags in zip(reuse.names, reuse.lags, strict=True)]
        growth = prices.growth
        if growth is not None:  # a push by an answer that is off grows like those of the other members there
            others = np.delete(growth, table.column(table.reference), axis=1)
            mean = others.mean(1, keepdims=True) if others.size else np.ones((len(growth), 1))
            growth = np.hstack([growth, np.repeat(mean, len(labels), axis=1)])
        frechet: list[Array | None] = []
        for field in ("frechet", "frechet_stderr"):
            own, found = getattr(prices, field), getattr(reuse, field)
            if own is not None and found is None and self.penalty.missing(replace(prices, frechet=None)) is not None:
                raise PhasewiseError(f"what is reused was priced without features; give them to measure it by {field}")
            both = own is not None and found is not None
            frechet.append(np.hstack([own, np.nan_to_num(found)]) if both else None)
        table = replace(
            table, names=(*table.names, *labels), radii=(*table.radii, *([None] * len(labels))), gap_correlation=None,
            distance_correlation=None, **wide,
        )  # fmt: skip
        whole = replace(
            prices, losses=table, flops=np.append(prices.flops, reuse.flops), ms=np.append(prices.ms, reuse.ms),
            growth=growth, frechet=frechet[0], frechet_stderr=frechet[1], reuse=None,
        )  # fmt: skip
        check_prices(whole, self.penalty)
        value, stderr = (a[:, self.plain :] for a in step_penalties(whole, self.penalty))
        return np.where(there, value, np.nan), np.where(there, stderr, np.nan)

    # --- one step ---------------------------------------------------------------------------------------------------

    def column(self, k: int, name: str, state: State) -> int | None:
        """Which column charges step ``k`` by ``name`` after ``state``; None where that cannot be, or was not priced."""
        if name not in self.by:
            return self.prices.names.index(name)
        columns = self.by[name]
        count = max(map(len, columns))
        if self.of[name]:
            base = self.prices.names.index(self.of[name]) if self.of[name] in self.prices.names else -1
            steps = dict(state.calls).get(base, ())
        else:
            steps = tuple(step for step, _ in state.answers)
        found = columns.get(tuple(k - s for s in steps[:count]))
        return None if found is None or not np.isfinite(self.value[k, found]) else found

    def charged(self, k: int, name: str, state: State) -> Charge | None:
        """What step ``k`` by ``name`` after ``state`` is charged; None where it cannot be."""
        column = self.column(k, name, state)
        if column is None:
            return None
        value, variance = float(self.value[k, column]), float(self.stderr[k, column]) ** 2
        if name in self.by and not self.of[name]:
            assert self.prices.reuse is not None
            weights = self.prices.reuse.weights[k, column - self.plain]
            shares: dict[int, float] = {}
            for (_, member), weight in zip(state.answers, weights.tolist(), strict=False):
                if np.isfinite(weight):
                    shares[member] = shares.get(member, 0.0) + weight
            for member, share in shares.items():
                # two answers of one member err alike: its weights are added before their size counts
                value += abs(share) * max(float(self.value[k, member]), 0.0)
                variance += (share * float(self.stderr[k, member])) ** 2
        return Charge(column, value, variance)

    def after(self, k: int, name: str, state: State) -> State:
        """What step ``k`` by ``name`` leaves for step ``k + 1``; what nothing can lean on any more is forgotten."""
        answers, calls = state.answers, dict(state.calls)
        whole = name not in self.by
        if whole or self.of[name]:
            member = self.prices.names.index(name if whole else self.of[name])
            answers = ((k, member), *answers)
            if whole and member in self.kept:
                calls[member] = (k, *calls.get(member, ()))
        answers = tuple((s, m) for s, m in answers[: self.depth] if k + 1 - s <= self.reach)
        left = {
            m: tuple(s for s in steps[: self.kept[m][0]] if k + 1 - s <= self.kept[m][1]) for m, steps in calls.items()
        }
        return State(answers, tuple(sorted((m, steps) for m, steps in left.items() if steps)))

    # --- whole schedules --------------------------------------------------------------------------------------------

    def walk(self, assignment: Sequence[str]) -> Walk:
        """What a whole assignment is charged, step by step.

        Raises PhasewiseError for a name without prices, a number of steps that is not the grid's, and naming the step
        that leans on what is not there or was not priced.
        """
        if len(assignment) != len(self.prices.times):
            raise PhasewiseError(f"{len(assignment)} members for a grid of {len(self.prices.times)} steps")
        missing = [name for name in assignment if name not in self.names]
        if missing:
            raise PhasewiseError(f"no prices for {missing[0]!r}; the list has {', '.join(self.names)}")
        state, columns, values, variances = State(), [], [], []
        for k, name in enumerate(assignment):
            charged = self.charged(k, name, state)
            if charged is None:
                raise PhasewiseError(
                    f"step {k} by {name} leans on fresh steps that are not there, or too far back to have been priced"
                )
            columns.append(charged.column)
            values.append(charged.value)
            variances.append(charged.variance)
            state = self.after(k, name, state)
        steps = np.arange(len(columns))
        spent = {unit: self.calls[steps, columns] * each[columns] for unit, each in self.cost.items()}
        return Walk(np.array(values), np.array(variances), spent["mflop"], spent["ms"])


@dataclass(frozen=True)
class Walk:
    """Of every step (S,): penalty, the variance of its error, MFLOP and ms an image."""

    value: Array
    variance: Array
    mflop: Array
    ms: Array
