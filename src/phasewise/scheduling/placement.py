r"""Which member takes which step, and where the steps lie, together: a shortest path over noise times.

Nodes are candidate times, an edge is one step by one member, and costs and penalties add along a path.  Every node
keeps its undominated (cost, penalty) ways in, so one pass gives the whole Pareto front.

What a step from t to s by member n adds is up to the penalty (:meth:`Penalty.edges`), with e the solver's own error
over that step (:mod:`phasewise.scheduling.step_errors`); integrals over spans, so values here and on a given grid do
not compare:

* ``w2``:   ``integral |v_n - v_ref| growth dt + e``           (the end: ``|D_n - D_ref| + e_stop``)
* ``flow``: ``integral (|v_n - v|^2 - |v_ref - v|^2) dt + e^2 / (t - s)``, an error e being a velocity error
  e / (t - s) held over the step  (the end: ``... + e_stop^2 / t``)
* ``kl``:   ``1/2 (gamma_s - gamma_t) loss_n(t) - 1/2 integral loss_ref d gamma``, the ancestral sampler's own penalty
of
  a finite step (Girsanov; Kingma et al. 2021), which needs no e; its grid ends at the last candidate.

A denoiser that knows its own flow (the Wiener filter) takes a step of any length exactly: its e is 0, its cost one
call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.results import HybridSchedule, PriceList, StepErrors, a_price_list, a_schedule, step_errors
from phasewise.sampling import get_solver
from phasewise.sampling.solvers import solver_name
from phasewise.scheduling.optimise import check_cost
from phasewise.scheduling.penalty import Penalty, check_prices, get_penalty
from phasewise.scheduling.undominated import undominated

END_BY = 0.1
WAYS = 400
"""Most undominated ways kept per node; beyond, the one of least penalty in each of so many classes of cost."""


@checks.checked(
    prices=a_price_list,
    errors=step_errors,
    budget=checks.positive,
    tolerance=checks.number,
    solver=solver_name,
    members=checks.each(checks.text, least=0),
    end_by=checks.unit,
)
def place_steps(
    prices: PriceList,
    errors: StepErrors | None = None,
    *,
    budget: float | None = None,
    tolerance: float | None = None,
    penalty: str | Penalty = "w2",
    cost: str = "mflop",
    solver: str | None = None,
    members: Sequence[str] | None = None,
    end_by: float = END_BY,
) -> HybridSchedule:
    """The best schedule, times and assignment, whose times are candidates of the price list.

    Args:
        prices: at the candidate times, descending; ``errors`` at the same times (None only for penalty "kl").
        budget: the most it may cost an image, in the unit of ``cost``: "mflop" or "ms"; or give
        tolerance: the largest penalty accepted; the cheapest such schedule.
        solver: default that of ``errors``; "ancestral" for "kl".  members: who may take steps, default all.
        end_by: the last step, a denoise, may start at this time at the latest; a denoise from far out is a blurred
            image, which FID on a classifier's features hardly sees (studies/LOG.md).

    Raises PhasewiseError when nothing fits, naming the least cost or penalty there is, and as
    :func:`placement_front` does.
    """
    if (budget is None) == (tolerance is None):
        raise PhasewiseError(f"give either budget (in {cost} an image) or tolerance (largest penalty)")
    front = placement_front(prices, errors, penalty=penalty, cost=cost, solver=solver, members=members, end_by=end_by)
    if budget is not None:
        fits = np.flatnonzero(front.cost <= budget * (1 + 1e-9))
        if not len(fits):
            raise PhasewiseError(f"no schedule fits {budget:g} {cost} an image; the cheapest costs {front.cost[0]:.4g}")
        return front.schedules[int(fits[-1])]
    fits = np.flatnonzero(front.penalty <= float(tolerance or 0.0))
    if not len(fits):
        unit = get_penalty(penalty, prices).unit
        raise PhasewiseError(
            f"no schedule reaches a penalty of {tolerance:g}; the lowest is {front.penalty[-1]:.4g} {unit}"
        )
    return front.schedules[int(fits[0])]


@dataclass(frozen=True)
class PlacementFront:
    """Undominated schedules: ``cost`` (in MFLOP or ms an image) rising, ``penalty`` falling."""

    cost: np.ndarray
    penalty: np.ndarray
    schedules: tuple[HybridSchedule, ...]


@checks.checked(
    prices=a_price_list,
    errors=step_errors,
    solver=solver_name,
    members=checks.each(checks.text, least=0),
    end_by=checks.unit,
)
def placement_front(
    prices: PriceList,
    errors: StepErrors | None = None,
    *,
    penalty: str | Penalty = "w2",
    cost: str = "mflop",
    solver: str | None = None,
    members: Sequence[str] | None = None,
    end_by: float = END_BY,
) -> PlacementFront:
    """Every undominated schedule over the candidate times; exact while a node has at most 400 undominated ways in.

    Arguments as for :func:`place_steps`.  Raises PhasewiseError for unknown members, penalty, cost or solver, for
    step errors measured at other times or for another solver, for a stochastic solver under a penalty other than
    "kl", and where no candidate time is at or below ``end_by``.
    """
    names = list(prices.names if members is None else members)
    unknown = [n for n in names if n not in prices.names]
    if unknown or not names:
        known = ", ".join(prices.names)
        raise PhasewiseError(f"no prices for {', '.join(unknown) or 'an empty list'}; the list has {known}")
    check_cost(cost)
    columns = [prices.names.index(n) for n in names]
    by = get_penalty(penalty, prices)
    solver = solver or _solver_of(by, errors)
    edge, stop = _edges(prices, errors, by, solver)
    edge, stop = edge[:, :, columns], stop[:, columns]
    unit = (prices.flops / 1e6 if cost == "mflop" else prices.ms)[columns]
    jumps = np.array([n in prices.jumps for n in names])
    paid = unit * np.where(jumps, 1, get_solver(solver).calls)  # an exact jump is one call, whatever the solver
    ends = np.flatnonzero(prices.times <= end_by + 1e-9)
    if not len(ends):
        least = float(prices.times[-1])
        raise PhasewiseError(f"no candidate time is at or below end_by {end_by:g}; the last is {least:.3g}")
    # a step costs what the solver calls (paid), the denoise at the end one call (unit)
    found = _Search(edge, stop, paid, unit, ends[-1:] if by.ancestral else ends).run()
    order = undominated(found.cost, found.penalty)
    schedules = tuple(
        _schedule(prices, found.way(k), names, solver, by, float(found.penalty[k])) for k in order.tolist()
    )
    return PlacementFront(found.cost[order], found.penalty[order], schedules)


@checks.checked(
    prices=a_price_list,
    errors=step_errors,
    schedule=a_schedule,
)
def penalty_of(
    prices: PriceList, errors: StepErrors | None, schedule: HybridSchedule, penalty: str | Penalty = "w2"
) -> float | None:
    """What a schedule is charged here; None where it leaves the candidate times or uses another solver.

    Raises PhasewiseError as :func:`placement_front` does, and for a member without prices.
    """
    by = get_penalty(penalty, prices)
    solver = _solver_of(by, errors)
    edge, stop = _edges(prices, errors, by, solver)
    unknown = [n for n in schedule.assignment if n not in prices.names]
    if unknown:
        raise PhasewiseError(f"no prices for {unknown[0]}; the list has {', '.join(prices.names)}")
    distance = np.abs(np.array(schedule.times)[:, None] - prices.times)
    if schedule.solver != solver or (distance.min(1) > 1e-9).any():
        return None
    nodes, taken = distance.argmin(1), [prices.names.index(n) for n in schedule.assignment]
    return float(edge[nodes[:-1], nodes[1:], taken[:-1]].sum() + stop[nodes[-1], taken[-1]])


def _solver_of(penalty: Penalty, errors: StepErrors | None) -> str:
    return "ancestral" if penalty.ancestral else errors.solver if errors else "heun"


def _edges(
    prices: PriceList, errors: StepErrors | None, penalty: Penalty, solver: str
) -> tuple[np.ndarray, np.ndarray]:
    """:meth:`Penalty.edges`, where all it takes is there."""
    if not penalty.places:
        penalty.span(prices)  # says which penalties do
    check_prices(prices, penalty)
    if get_solver(solver).stochastic != penalty.ancestral:
        raise PhasewiseError(
            f"penalty {penalty.name!r} prices {'ancestral' if penalty.ancestral else 'ODE'} steps, not {solver!r}"
        )
    if penalty.ancestral:
        return penalty.edges(prices, errors)  # type: ignore[arg-type]
    if errors is None:
        raise PhasewiseError(
            f"penalty {penalty.name!r} needs step errors: pw.scheduling.measure_step_errors(denoiser, times)"
        )
    if errors.solver != solver or len(errors.times) != len(prices.times):
        raise PhasewiseError(
            f"the step errors are of {errors.solver} at {len(errors.times)} times, asked for is {solver} at "
            f"{len(prices.times)}; measure both alike"
        )
    if not np.allclose(errors.times, prices.times):
        raise PhasewiseError("step errors and prices were measured at different times; measure both on one grid")
    return penalty.edges(prices, errors)


class _Search:
    """Label setting from the first time down; ways end at the nodes ``last``, their sums are ``cost`` and
    ``penalty``."""

    def __init__(
        self, edge: np.ndarray, stop: np.ndarray, paid: np.ndarray, once: np.ndarray, last: np.ndarray
    ) -> None:
        self.edge, self.stop, self.paid, self.once, self.last = edge, stop, paid, once, last
        self.labels: list[dict[str, np.ndarray]] = []

    def run(self) -> _Search:
        size = len(self.stop)
        nothing = np.zeros(1, dtype=int)
        # the one way into the first time: nothing spent, nothing lost
        self.labels = [{"cost": np.zeros(1), "penalty": np.zeros(1), "node": nothing, "label": nothing, "by": nothing}]
        for j in range(1, size):  # edges lead to later times only: in order, each node is final when it is used
            parts = [self._along(i, self.edge[i, j], self.paid) for i in range(j)]
            self.labels.append(_pruned({key: np.concatenate([p[key] for p in parts]) for key in parts[0]}))
        ends = [self._along(int(i), self.stop[i], self.once) for i in self.last]
        self.ends = {key: np.concatenate([p[key] for p in ends]) for key in ends[0]}
        self.cost, self.penalty = self.ends["cost"], self.ends["penalty"]
        return self

    def _along(self, i: int, penalty: np.ndarray, cost: np.ndarray) -> dict[str, np.ndarray]:
        """Every way into node i, taken on by every denoiser."""
        here, n = self.labels[i], len(cost)
        count = len(here["cost"])
        return {
            "cost": (here["cost"][:, None] + cost).ravel(),
            "penalty": (here["penalty"][:, None] + penalty).ravel(),
            "node": np.full(count * n, i),
            "label": np.repeat(np.arange(count), n),
            "by": np.tile(np.arange(n), count),
        }

    def way(self, k: int) -> list[tuple[int, int]]:
        """(time index, denoiser index) of every step of the k-th end, in sampling order."""
        node, label, by = (int(self.ends[key][k]) for key in ("node", "label", "by"))
        steps = [(node, by)]
        while node > 0:
            row = self.labels[node]
            node, label, by = int(row["node"][label]), int(row["label"][label]), int(row["by"][label])
            steps.append((node, by))
        return steps[::-1]


def _pruned(labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    keep = undominated(labels["cost"], labels["penalty"])
    if len(keep) > WAYS:  # from here on the front is no longer exact
        cost = labels["cost"][keep]
        classes = np.floor((cost - cost[0]) / (cost[-1] - cost[0]) * WAYS)
        keep = keep[
            np.append(np.diff(classes) > 0, True)
        ]  # the penalty falls with cost: the last of each class is lowest
    return {key: value[keep] for key, value in labels.items()}


def _schedule(
    prices: PriceList, way: list[tuple[int, int]], names: list[str], solver: str, penalty: Penalty, lost: float
) -> HybridSchedule:
    calls = [1 if names[n] in prices.jumps else get_solver(solver).calls for _, n in way[:-1]] + [1]
    flops = [float(prices.flops[prices.names.index(names[n])]) for _, n in way]
    return HybridSchedule(
        times=tuple(float(prices.times[i]) for i, _ in way),
        assignment=tuple(names[n] for _, n in way),
        solver=solver,
        path=prices.losses.path,
        penalty=lost,
        penalty_unit=penalty.unit,
        penalty_name=penalty.name,
        mflop=float(np.dot(calls, flops)) / 1e6,
    )
