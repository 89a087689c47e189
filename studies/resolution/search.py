"""The cheapest schedule of a given error: the global network's own best grids first, then hybrids that start from them.

Everything here is exact for the law at hand, and the rivals' grids are searched as hard as the hybrids'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from studies.resolution.law import PER_UNIT, Array, Law, candidates

STRIDES = (PER_UNIT, PER_UNIT // 2, PER_UNIT // 4, 1)
"""By how many candidate times a step is moved at once, coarse moves first."""


@dataclass(frozen=True)
class Plan:
    """A schedule: solver, places of its candidate times, the member of each step; its error by the law searched in."""

    solver: str
    times: tuple[int, ...]
    members: tuple[int, ...]
    error: float

    def cost(self, prices: Sequence[float]) -> float:
        """Of an image, in the unit of the members' prices; the call at the start, a constant, is free."""
        return sum(prices[m] for m in self.members[1:])


class Search:
    """One law, one measure."""

    def __init__(self, law: Law, measure: str) -> None:
        self.law, self.measure = law, measure
        self.best: dict[tuple[str, int], Plan] = {}

    def errors(self, solver: str, times: Sequence[Sequence[int]], members: Sequence[Sequence[int]]) -> Array:
        return self.law.error(self.measure, solver, np.array(times), np.array(members))

    def seen(self, plan: Plan) -> Plan:
        """The same schedule with its error by this law."""
        return replace(plan, error=float(self.errors(plan.solver, [plan.times], [plan.members])[0]))

    def polished(self, plan: Plan) -> Plan:
        """The same members with times moved, one by one, as long as the error falls; never the start."""
        for stride in STRIDES:
            moved = True
            while moved:
                ways = list(self._moves(plan.times, stride))
                moved = False
                if ways:
                    found = self.errors(plan.solver, ways, [plan.members] * len(ways))
                    least = int(found.argmin())
                    if found[least] < plan.error * (1 - 1e-4):
                        plan, moved = Plan(plan.solver, ways[least], plan.members, float(found[least])), True
        return plan

    @staticmethod
    def _moves(times: tuple[int, ...], stride: int) -> list[tuple[int, ...]]:
        """Each time moved either way, and each with all that follow it."""
        last, ways = len(candidates()) - 1, []
        for k in range(1, len(times)):
            for by in (-stride, stride):
                for tail in (False, True):
                    way = list(times)
                    for j in range(k, len(times) if tail else k + 1):
                        way[j] += by
                    if way[-1] <= last and all(b > a for a, b in zip(way, way[1:], strict=False)):
                        ways.append(tuple(way))
        return list(dict.fromkeys(ways))

    def global_only(self, solver: str, steps: int) -> Plan:
        """The global network alone (member 0) on its best grid of so many steps, the free one at the start among
        them."""
        if (solver, steps) not in self.best:
            even = np.linspace(0, len(candidates()) - 1 - 2 * PER_UNIT, steps + 1)[[0, *range(2, steps + 1)]]
            starts = [self._plan(solver, tuple(int(p) for p in even))]
            if steps > 2:  # two starts: moves of single steps end in the nearest dip
                starts.append(self._opened(self.global_only(solver, steps - 1)))
            self.best[solver, steps] = min((self.polished(start) for start in starts), key=lambda plan: plan.error)
        return self.best[solver, steps]

    def _plan(self, solver: str, times: tuple[int, ...]) -> Plan:
        members = (0,) * len(times)
        return Plan(solver, times, members, float(self.errors(solver, [times], [members])[0]))

    def _opened(self, plan: Plan) -> Plan:
        """With one global step more, where it helps most."""
        times, last = plan.times, len(candidates()) - 1
        new = [*((a + b) // 2 for a, b in zip(times, times[1:], strict=False) if b - a > 1)]
        new += [p for p in (times[-1] + PER_UNIT, (times[-1] + last) // 2) if times[-1] < p <= last]
        ways = [tuple(sorted((*times, p))) for p in new]
        members = [tuple(plan.members[max(j for j, t in enumerate(times) if t <= p)] for p in way) for way in ways]
        found = self.errors(plan.solver, ways, members)
        least = int(found.argmin())
        return Plan(plan.solver, ways[least], members[least], float(found[least]))

    def cheapened(self, plan: Plan, prices: Sequence[float], bound: float) -> Plan:
        """Steps given to cheaper members, the most saved for each unit of error first, while the error stays within
        ``bound``; then the times are moved, and again, until nothing more is saved."""
        while True:
            plan, before = self._given_away(plan, prices, bound), plan.cost(prices)
            plan = self.polished(plan)
            again = self._given_away(plan, prices, bound)
            if again.cost(prices) >= before and again.cost(prices) >= plan.cost(prices):
                return self._tried_harder(again, prices, bound)
            plan = again

    def _given_away(self, plan: Plan, prices: Sequence[float], bound: float) -> Plan:
        while True:
            ways, saved = self._cheaper(plan, prices)
            if not ways:
                return plan
            found = self.errors(plan.solver, [plan.times] * len(ways), ways)
            room = np.maximum(found - plan.error, 0) / bound
            worth = np.where(found <= bound, np.array(saved) / (room + 1e-3), -1)
            if worth.max() < 0:
                return plan
            best = int(worth.argmax())
            plan = Plan(plan.solver, plan.times, ways[best], float(found[best]))

    def _cheaper(self, plan: Plan, prices: Sequence[float]) -> tuple[list[tuple[int, ...]], list[float]]:
        ways, saved = [], []
        for k in range(1, len(plan.members)):
            for m, price in enumerate(prices):
                if price < prices[plan.members[k]]:
                    ways.append((*plan.members[:k], m, *plan.members[k + 1 :]))
                    saved.append(prices[plan.members[k]] - price)
        return ways, saved

    def _tried_harder(self, plan: Plan, prices: Sequence[float], bound: float, tries: int = 3) -> Plan:
        """One step given away too many, then the times moved: kept where the error comes back within the bound."""
        improved = True
        while improved:
            improved = False
            ways, saved = self._cheaper(plan, prices)
            if not ways:
                return plan
            found = self.errors(plan.solver, [plan.times] * len(ways), ways)
            for i in np.argsort(found / np.array(saved))[:tries]:
                if found[i] < 4 * bound:
                    tried = self.polished(Plan(plan.solver, plan.times, ways[i], float(found[i])))
                    if tried.error <= bound:
                        plan, improved = self._given_away(tried, prices, bound), True
                        break
        return plan
