r"""Which member takes which step: the exact optimum on a given time grid, and its whole Pareto front.

Costs and penalties add over steps, so the undominated schedules follow from dynamic programming over steps: extend
every undominated (cost, penalty) of the first k steps by each denoiser, drop what is dominated.  Nothing is sampled or
approximated, and the optimum for every budget is on the front (a multiple-choice knapsack).  Where members lean on
earlier steps, ways that have left the same behind are compared (:mod:`phasewise.scheduling.ways`).

Penalties are measured, so the least of them may lead by less than its error, and by less than what another number of
threads changes in the last digits.  Of schedules that are as good within that error the cheapest is taken: the
one-standard-error rule (Breiman et al. 1984, section 3.4.3).  Cheapest in measured milliseconds, for these are what is
waited for; they repeat to some hundredths only, so of those that take as long the one of fewest FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phasewise import checks
from phasewise.errors import PhasewiseError, unknown
from phasewise.results import DEFAULT_SOLVER, HybridSchedule, ParetoFront, PriceList, a_front, a_price_list
from phasewise.sampling.solvers import calls_per_step, solver_name
from phasewise.scheduling.charges import Charges
from phasewise.scheduling.penalty import PENALTIES, Penalty, get_penalty
from phasewise.scheduling.undominated import undominated
from phasewise.scheduling.ways import OBJECTIVES, ways_through

COSTS = ("mflop", "ms")
"""What a schedule may be charged for: operations, or the milliseconds measured with the price list."""
AS_LONG = 0.05
"""Measured times that differ by no more than this share count as equal."""


@checks.checked(prices=a_price_list, solver=solver_name, members=checks.each(checks.text, least=0))
def pareto_front(
    prices: PriceList,
    *,
    penalty: str | Penalty | None = None,
    solver: str = DEFAULT_SOLVER,
    members: Sequence[str] | None = None,
    cost: str = "mflop",
    objective: str = "sum",
) -> ParetoFront:
    """Every undominated assignment of denoisers to steps: cost in ``cost`` an image, penalty as in
    :func:`step_penalties`.

    ``members``: who may take steps (default all, those that lean on earlier steps included).  ``objective``: "sum" of
    the steps' penalties, or "max", the worst step's (the minimax path of LeMiCa, Gao et al. 2025, arXiv 2511.00090).
    Cost rises and the penalty falls along the front, which is exact for both (:mod:`phasewise.scheduling.ways`).
    Raises PhasewiseError as :func:`step_penalties` does, and for an unknown member, cost or objective.
    """
    check_cost(cost)
    if objective not in OBJECTIVES:
        raise PhasewiseError(unknown("objective", objective, OBJECTIVES))
    charges = Charges(prices, penalty, solver)
    names = list(charges.names if members is None else members)
    missing = [n for n in names if n not in charges.names]
    if missing or not names:
        raise PhasewiseError(
            f"no prices for {', '.join(missing) or 'an empty list'}; the list has {', '.join(charges.names)}"
        )
    leaning = any(name in charges.by for name in names)
    find = _ways if leaning or objective != "sum" else _independent
    total, assignments, walks = find(charges, names, cost, objective)
    chosen = charges.penalty
    return ParetoFront(
        penalty_name=chosen.name,
        penalty_unit=chosen.unit,
        penalty_label=chosen.label,
        penalty_meaning=chosen.meaning,
        times=prices.times,
        mflop=walks["mflop"],
        ms=walks["ms"],
        cost=cost,
        penalty=total,
        penalty_stderr=walks["stderr"],
        assignments=assignments,
        objective=objective,
    )


Found = tuple[np.ndarray, tuple[tuple[str, ...], ...], dict[str, np.ndarray]]
"""Penalties, assignments, and of each mflop, ms and the penalty's stderr."""


def _independent(charges: Charges, names: list[str], cost: str, objective: str) -> Found:
    """The front where no step leans on another: all ways to step k are one set."""
    columns = [charges.names.index(n) for n in names]
    lost, stderr = charges.value[:, columns], charges.stderr[:, columns]
    each = {unit: charges.cost[unit][columns] for unit in COSTS}
    calls = charges.calls[:, columns]
    spent, total = np.zeros(1), np.zeros(1)  # the one way to have taken no step yet
    choices: list[np.ndarray] = []
    parents: list[np.ndarray] = []
    for k in range(len(lost)):
        spent_next = (spent[:, None] + calls[k] * each[cost]).ravel()
        total_next = (total[:, None] + lost[k]).ravel()
        # exact: what follows adds the same to all, so no continuation of a dominated beginning can be undominated
        keep = undominated(spent_next, total_next)
        parents.append(keep // len(names))  # flat index = parent * members + member
        choices.append(keep % len(names))
        spent, total = spent_next[keep], total_next[keep]
    picks = np.zeros((len(spent), len(lost)), dtype=int)
    row = np.arange(len(spent))
    for k in reversed(range(len(lost))):  # from each end on the front back along its parents
        picks[:, k] = choices[k][row]
        row = parents[k][row]
    steps = np.arange(len(lost))
    error = np.sqrt((stderr[steps, picks] ** 2).sum(1))  # steps taken as independent: fresh noise at each
    charged = {name: (calls[steps, picks] * per_call[picks]).sum(1) for name, per_call in each.items()}
    return total, tuple(tuple(names[i] for i in pick) for pick in picks), {**charged, "stderr": error}


def _ways(charges: Charges, names: list[str], cost: str, objective: str) -> Found:
    """The front where steps lean on earlier ones, or the worst step counts."""
    _, total, assignments = ways_through(charges, names, cost, objective)
    walks = [charges.walk(assignment) for assignment in assignments]
    if objective == "sum":
        error = np.array([np.sqrt(w.variance.sum()) for w in walks])
    else:
        error = np.array([np.sqrt(w.variance[int(w.value.argmax())]) for w in walks])
    charged = {"mflop": np.array([w.mflop.sum() for w in walks]), "ms": np.array([w.ms.sum() for w in walks])}
    return total, tuple(assignments), {**charged, "stderr": error}


def check_cost(cost: str) -> None:
    if cost not in COSTS:
        raise PhasewiseError(f"cost is counted in {' or '.join(map(repr, COSTS))}, not {cost!r}")


@checks.checked(
    prices=a_price_list,
    budget=checks.fraction,
    tolerance=checks.number,
    solver=solver_name,
    members=checks.each(checks.text, least=0),
    front=a_front,
)
def optimise_schedule(
    prices: PriceList,
    budget: float | None = None,
    *,
    tolerance: float | None = None,
    penalty: str | Penalty | None = None,
    solver: str = DEFAULT_SOLVER,
    members: Sequence[str] | None = None,
    cost: str = "mflop",
    front: ParetoFront | None = None,
    ties: float = 1.0,
    objective: str = "sum",
) -> HybridSchedule:
    """The schedule of least penalty on the price list's grid within a cost budget, exactly; of those as good within
    the error of the penalty, the cheapest in measured milliseconds (:func:`as_good`).

    Args:
        budget: fraction of the cost of running the reference at every step, in (0, 1]; or give
        tolerance: the largest penalty accepted, in its unit; the cheapest such schedule.
        penalty: "frechet", "w2", "flow", "kl", or your own (:mod:`phasewise.scheduling.penalty`); default "frechet"
            where it was measured, else "w2".
        cost: what the budget is of, "mflop" or "ms" (measured on the price list's device).
        front: a front computed before with the same arguments, to save work.
        ties: standard errors of the difference within which schedules count as equally good under a budget
            (:func:`as_good`); 0 takes the least penalty, however small its lead.
        objective: what the front minimises, as in :func:`pareto_front`.

    Raises PhasewiseError when no schedule fits, naming the least budget or penalty there is, and for a front that was
    computed for another cost or by another penalty than the one given.
    """
    if (budget is None) == (tolerance is None):
        raise PhasewiseError("give either budget (fraction of the all-reference cost) or tolerance (largest penalty)")
    if front is None:
        front = pareto_front(prices, penalty=penalty, solver=solver, members=members, cost=cost, objective=objective)
    elif penalty is None and front.penalty_name in PENALTIES:
        penalty = front.penalty_name
    by = get_penalty(penalty, prices)
    _check_front(front, by, cost)
    spent = front.ms if cost == "ms" else front.mflop
    if budget is not None:
        assert spent is not None
        whole = reference_cost(prices, solver, cost)
        least = spent[0] / whole
        if not budget > 0 or budget < least * (1 - 1e-9):
            raise PhasewiseError(
                f"no schedule fits a budget of {budget:g}; the cheapest costs {least:.4g} of the all-global one"
            )
        best = best_within(front, spent, budget * whole)
        chosen = as_good(prices, front, best, penalty=by, ties=ties, solver=solver)[0]
    else:
        assert tolerance is not None
        fits = np.flatnonzero(front.penalty <= tolerance)
        if not len(fits):
            raise PhasewiseError(
                f"no schedule reaches a penalty of {tolerance:g}; the lowest is {front.penalty[-1]:.4g} "
                f"{front.penalty_unit}"
            )
        chosen = int(fits[0])  # the cheapest that is good enough
    return schedule_from_assignment(prices, front.assignments[chosen], penalty=by, solver=solver)


def best_within(front: ParetoFront, spent: np.ndarray, limit: float) -> int:
    """Index on the front of the least penalty at a cost ``spent`` (K,) of at most ``limit``."""
    # along the front the penalty falls as the cost rises: the most expensive that fits loses least
    return int(np.flatnonzero(spent <= limit * (1 + 1e-9))[-1])


def as_good(
    prices: PriceList,
    front: ParetoFront,
    best: int,
    *,
    penalty: str | Penalty | None = None,
    ties: float = 1.0,
    solver: str = DEFAULT_SOLVER,
) -> list[int]:
    """Indices on the front of the schedules up to ``best`` that lose no more than it within error; the one to take
    first, the others as they rise in cost.

    The error is that of the difference: of the steps that the two give to different members, all taken as independent.
    Within ``ties`` of its standard errors they count as equally good; ``best`` itself always does.  The one to take has
    the fewest FLOPs of those whose measured milliseconds lie within 5 % of the least.
    """
    if ties < 0:
        raise PhasewiseError(f"ties is a number of standard errors, at least 0; got {ties:g}")
    charges = Charges(prices, penalty, solver)
    lead = front.penalty[: best + 1] - front.penalty[best]
    # no difference's error is above both schedules' own together: what lies beyond need not be walked
    near = np.flatnonzero(lead <= ties * np.hypot(front.penalty_stderr[: best + 1], front.penalty_stderr[best]) + 1e-12)
    walks = [charges.walk(front.assignments[i]) for i in near]
    value, variance = np.array([w.value for w in walks]), np.array([w.variance for w in walks])
    who = np.array([[charges.names.index(name) for name in front.assignments[i]] for i in near])
    if front.objective == "max":  # the worst steps alone count
        rows, worst = np.arange(len(walks)), value.argmax(1)
        same = (worst == worst[-1]) & (who[rows, worst] == who[-1, worst[-1]])
        error = np.where(same, 0.0, np.sqrt(variance[rows, worst] + variance[-1, worst[-1]]))
    else:
        differ = (who != who[-1]) | (value != value[-1])
        error = np.sqrt(np.where(differ, variance + variance[-1], 0.0).sum(1))
    tied = [int(i) for i in near[lead[near] <= ties * error]]
    if front.ms is None:  # a record from before times were kept
        return tied
    soon = front.ms[tied].min() * (1 + AS_LONG)
    # rounded, so that equal costs summed in another order tie; then the lower penalty, which is the later one
    taken = min((i for i in tied if front.ms[i] <= soon), key=lambda i: (round(float(front.mflop[i]), 9), -i))
    return [taken, *(i for i in tied if i != taken)]


def _check_front(front: ParetoFront, penalty: Penalty, cost: str) -> None:
    check_cost(cost)
    if front.cost != cost or (cost == "ms" and front.ms is None):
        raise PhasewiseError(f"the front counts {front.cost}, the budget {cost}; give cost={front.cost!r} or no front")
    if penalty.name != front.penalty_name:
        raise PhasewiseError(
            f"the front was computed by the penalty {front.penalty_name}, not {penalty.name}; give that penalty again"
        )


@checks.checked(prices=a_price_list, assignment=checks.each(checks.text, least=0), solver=solver_name)
def schedule_from_assignment(
    prices: PriceList, assignment: Sequence[str], *, penalty: str | Penalty | None = None, solver: str = DEFAULT_SOLVER
) -> HybridSchedule:
    """A schedule on the price list's grid with the given member per step, and what it costs and loses."""
    charges = Charges(prices, penalty, solver)
    walk, chosen = charges.walk(assignment), charges.penalty
    return HybridSchedule(
        times=tuple(prices.times.tolist()),
        assignment=tuple(assignment),
        solver=solver,
        path=prices.losses.path,
        penalty=float(walk.value.sum()),
        penalty_stderr=float(np.sqrt(walk.variance.sum())),
        penalty_unit=chosen.unit,
        penalty_name=chosen.name,
        mflop=float(walk.mflop.sum()),
    )


@checks.checked(prices=a_price_list, solver=solver_name)
def reference_mflop(prices: PriceList, solver: str = DEFAULT_SOLVER) -> float:
    """MFLOP an image of running the reference at every step."""
    return reference_cost(prices, solver, "mflop")


def reference_cost(prices: PriceList, solver: str, cost: str) -> float:
    """MFLOP, or ms, an image of running the reference at every step."""
    calls, column = sum(calls_per_step(solver, len(prices.times))), prices.names.index(prices.losses.reference)
    return calls * float(prices.flops[column] / 1e6 if cost == "mflop" else prices.ms[column])
