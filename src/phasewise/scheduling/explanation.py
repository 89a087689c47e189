"""A schedule in words: which member takes which span of noise time, and what the choice saves and costs."""

from __future__ import annotations

import itertools
import math

import numpy as np

from phasewise import checks
from phasewise.power import RESOLVED
from phasewise.results import HybridSchedule, ParetoFront, PriceList, a_price_list, a_schedule
from phasewise.scheduling.charges import Charges, Walk
from phasewise.scheduling.optimise import as_good, best_within, reference_cost
from phasewise.scheduling.penalty import PENALTIES, Penalty
from phasewise.scheduling.prices import prices_at

CHEAP = 0.5
"""A stand-in has to cost less than this share of the one it stands in for."""


@checks.checked(schedule=a_schedule, prices=a_price_list)
def explain(schedule: HybridSchedule, prices: PriceList, *, penalty: str | Penalty | None = None) -> list[str]:
    """One sentence per span of the schedule, in sampling order.

    A span of the reference: what its best stand-in (of at most half its cost) would save and how much it would add to
    the penalty, and where.  A span of another: what the reference would cost more there, and gain.  Penalties are those
    of :func:`phasewise.scheduling.step_penalties`, carried over to the schedule's own grid, by default under
    the penalty that chose the schedule; the solver's own error is not in them.
    What lies within two standard errors is called as good within error.

    Raises PhasewiseError for a member without prices and for times outside the measured span.
    """
    if penalty is None and schedule.penalty_name in PENALTIES:
        penalty = schedule.penalty_name
    here = prices_at(prices, schedule.times)
    charges = Charges(here, penalty, schedule.solver)
    walk = charges.walk(schedule.assignment)
    times, lines = np.append(schedule.times, 0.0), []
    for member, group in itertools.groupby(range(len(schedule.times)), key=schedule.assignment.__getitem__):
        rows = list(group)
        share = float(walk.mflop[rows].sum() / walk.mflop.sum())
        steps = f"{len(rows)} step{'s' if len(rows) > 1 else ''}"
        span = f"t = {times[rows[0]]:.2f} to {times[rows[-1] + 1]:.2f}"
        head = f"{member} takes {span} ({steps}, {share:.0%} of the cost)"
        lines.append(f"{head}: {_why(charges, walk, rows, member, times[rows])}")
    return lines


@checks.checked(schedule=a_schedule, prices=a_price_list)
def explain_ties(schedule: HybridSchedule, prices: PriceList, front: ParetoFront, budget: float) -> list[str]:
    """One sentence where schedules within ``budget`` (of the all-reference cost) are as good as the best within error,
    so that ``schedule`` was taken as the one of least measured milliseconds; none where the best stands alone."""
    limit = budget * reference_cost(prices, schedule.solver, front.cost)
    spent = front.ms if front.cost == "ms" and front.ms is not None else front.mflop
    best = best_within(front, spent, limit)
    tied = as_good(prices, front, best, penalty=schedule.penalty_name, solver=schedule.solver)
    if len(tied) < 2 or schedule.assignment != front.assignments[tied[0]]:
        return []
    unit, taken = "MFLOP" if front.cost == "mflop" else front.cost, tied[0]
    cheapest = "the cheapest was taken"
    if front.ms is not None:
        least, most = front.ms[tied].min(), front.ms[tied].max()
        cheapest += f" by measured time, {front.ms[taken]:.3g} ms an image of {least:.3g} to {most:.3g}"
    return [
        f"{len(tied)} schedules within the budget, from {spent[min(tied)]:.3g} to {spent[best]:.3g} {unit}, are as "
        f"good within error (penalty {front.penalty[taken]:.4g} and {front.penalty[best]:.4g} {front.penalty_unit}, ± "
        f"{front.penalty_stderr[best]:.2g}); {cheapest}"
    ]


def _why(charges: Charges, walk: Walk, rows: list[int], own: str, times: np.ndarray) -> str:
    names, unit = charges.prices.names, charges.penalty.unit
    plain = slice(len(names))
    spent = (charges.calls[rows] * charges.cost["mflop"])[:, plain].sum(0)
    lost, charged = charges.value[rows][:, plain], charges.value[rows][:, plain].sum(0)
    error = np.sqrt((charges.stderr[rows][:, plain] ** 2).sum(0))
    reference = charges.reference
    paid, loses, doubt = walk.mflop[rows].sum(), walk.value[rows].sum(), math.sqrt(walk.variance[rows].sum())
    if own != names[reference]:
        gained = loses - charged[reference]
        more = f"{names[reference]} would cost {spent[reference] - paid:.3g} MFLOP more"
        if abs(gained) <= RESOLVED * np.hypot(doubt, error[reference]):
            return f"{more} and be as good within error"
        return f"{more} and gain {gained:.3g} {unit}" if gained > 0 else f"{more} and be no better"
    cheaper = [n for n in range(len(names)) if spent[n] < CHEAP * paid]
    if not cheaper:
        return "nothing of half its cost could stand in"
    other = min(cheaper, key=lambda n: charged[n])
    added = charged[other] - loses
    saved = f"{names[other]} would save {paid - spent[other]:.3g} MFLOP there"
    if added <= 0:
        return f"{saved} at no loss by this penalty"
    if added <= RESOLVED * np.hypot(doubt, error[other]):
        return f"{saved} and be as good within error"
    worst = int(np.argmax(lost[:, other] - lost[:, reference]))
    return f"{saved} and add {added:.3g} {unit}, most of it from t = {times[worst]:.2f} on"
