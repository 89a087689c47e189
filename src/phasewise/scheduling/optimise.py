r"""Which member takes which step: the exact optimum on a given time grid, and its whole Pareto front.

Costs and penalties add over steps, so the undominated schedules follow from dynamic programming over steps: extend
every undominated (cost, penalty) of the first k steps by each denoiser, drop what is dominated.  Nothing is sampled or
approximated, and the optimum for every budget is on the front (a multiple-choice knapsack).

Penalties are measured, so the least of them may lead by less than its error, and by less than what another number of
threads changes in the last digits.  Of schedules that are as good within that error the cheapest is taken: the
one-standard-error rule (Breiman et al. 1984, section 3.4.3).  Cheapest in measured milliseconds, for these are what is
waited for; they repeat to some hundredths only, so of those that take as long the one of fewest FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.results import DEFAULT_SOLVER, HybridSchedule, ParetoFront, PriceList, a_front, a_price_list
from phasewise.sampling.solvers import calls_per_step, solver_name
from phasewise.scheduling.penalty import PENALTIES, Penalty, get_penalty, step_penalties
from phasewise.scheduling.prices import calls_of

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
) -> ParetoFront:
    """Every undominated assignment of denoisers to steps: cost in ``cost`` an image, penalty as in
    :func:`step_penalties`.

    ``members``: who may take steps (default all).  Cost rises and the penalty falls along the front.
    Raises PhasewiseError as :func:`step_penalties` does, and for an unknown member or cost.
    """
    check_cost(cost)
    chosen = get_penalty(penalty, prices)
    names = list(prices.names if members is None else members)
    unknown = [n for n in names if n not in prices.names]
    if unknown or not names:
        raise PhasewiseError(
            f"no prices for {', '.join(unknown) or 'an empty list'}; the list has {', '.join(prices.names)}"
        )
    columns = [prices.names.index(n) for n in names]
    lost, stderr = (a[:, columns] for a in step_penalties(prices, chosen))
    each = {"mflop": prices.flops[columns] / 1e6, "ms": prices.ms[columns]}
    calls = calls_of(prices, solver, len(lost))[:, columns]
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
    return ParetoFront(
        penalty_name=chosen.name,
        penalty_unit=chosen.unit,
        penalty_label=chosen.label,
        penalty_meaning=chosen.meaning,
        times=prices.times,
        mflop=charged["mflop"],
        ms=charged["ms"],
        cost=cost,
        penalty=total,
        penalty_stderr=error,
        assignments=tuple(tuple(names[i] for i in pick) for pick in picks),
    )


def check_cost(cost: str) -> None:
    if cost not in COSTS:
        raise PhasewiseError(f"cost is counted in {' or '.join(map(repr, COSTS))}, not {cost!r}")


def undominated(cost: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Indices of the undominated points, cost rising and penalty strictly falling."""
    # by cost, ties by penalty; rounded, so that equal costs summed in another order tie
    order = np.lexsort((penalty, np.round(cost, 9)))
    best = np.minimum.accumulate(penalty[order])
    keep = np.ones(len(order), dtype=bool)
    keep[1:] = penalty[order][1:] < best[:-1] - 1e-15  # below every cheaper point's penalty
    return order[keep]


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

    Raises PhasewiseError when no schedule fits, naming the least budget or penalty there is, and for a front that was
    computed for another cost or by another penalty than the one given.
    """
    if (budget is None) == (tolerance is None):
        raise PhasewiseError("give either budget (fraction of the all-reference cost) or tolerance (largest penalty)")
    if front is None:
        front = pareto_front(prices, penalty=penalty, solver=solver, members=members, cost=cost)
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
        chosen = as_good(prices, front, best_within(front, spent, budget * whole), penalty=by, ties=ties)[0]
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
    prices: PriceList, front: ParetoFront, best: int, *, penalty: str | Penalty | None = None, ties: float = 1.0
) -> list[int]:
    """Indices on the front of the schedules up to ``best`` that lose no more than it within error; the one to take
    first, the others as they rise in cost.

    The error is that of the difference: of the steps that the two give to different members, all taken as independent.
    Within ``ties`` of its standard errors they count as equally good; ``best`` itself always does.  The one to take has
    the fewest FLOPs of those whose measured milliseconds lie within 5 % of the least.
    """
    if ties < 0:
        raise PhasewiseError(f"ties is a number of standard errors, at least 0; got {ties:g}")
    _, stderr = step_penalties(prices, penalty)
    steps = np.arange(len(stderr))
    column = {name: i for i, name in enumerate(prices.names)}
    picks = np.array([[column[name] for name in assignment] for assignment in front.assignments[: best + 1]])
    variance = stderr[steps, picks] ** 2 + stderr[steps, picks[best]] ** 2
    error = np.sqrt(np.where(picks != picks[best], variance, 0.0).sum(1))
    lead = front.penalty[: best + 1] - front.penalty[best]
    tied = [int(i) for i in np.flatnonzero(lead <= ties * error)]
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
    chosen = get_penalty(penalty, prices)
    if len(assignment) != len(prices.times):
        raise PhasewiseError(f"{len(assignment)} members for a grid of {len(prices.times)} steps")
    unknown = [n for n in assignment if n not in prices.names]
    if unknown:
        raise PhasewiseError(f"no prices for {unknown[0]!r}; the list has {', '.join(prices.names)}")
    lost, stderr = step_penalties(prices, chosen)
    columns = [prices.names.index(n) for n in assignment]
    steps = np.arange(len(columns))
    calls = calls_of(prices, solver, len(columns))
    return HybridSchedule(
        times=tuple(prices.times.tolist()),
        assignment=tuple(assignment),
        solver=solver,
        path=prices.losses.path,
        penalty=float(lost[steps, columns].sum()),
        penalty_stderr=float(np.sqrt((stderr[steps, columns] ** 2).sum())),
        penalty_unit=chosen.unit,
        penalty_name=chosen.name,
        mflop=float((calls[steps, columns] * prices.flops[columns]).sum() / 1e6),
    )


@checks.checked(prices=a_price_list, solver=solver_name)
def reference_mflop(prices: PriceList, solver: str = DEFAULT_SOLVER) -> float:
    """MFLOP an image of running the reference at every step."""
    return reference_cost(prices, solver, "mflop")


def reference_cost(prices: PriceList, solver: str, cost: str) -> float:
    """MFLOP, or ms, an image of running the reference at every step."""
    calls, column = sum(calls_per_step(solver, len(prices.times))), prices.names.index(prices.losses.reference)
    return calls * float(prices.flops[column] / 1e6 if cost == "mflop" else prices.ms[column])
