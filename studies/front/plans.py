"""Every schedule that is compared: one network alone, mixtures, hybrids, windows, placed steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

import phasewise as pw
from phasewise.results import PriceList, StepErrors
from phasewise.sampling import calls_per_step
from phasewise.scheduling import baselines, placement_front, prices_at, schedule_from_assignment
from studies.front.options import Options

T_MIN = 0.02
JUMP = 0.8
"""Two grids: uniform, and one that goes from t = 1 to here in its first step and is uniform from there."""
WINDOWS = ((0.2, 0.5), (0.2, 0.7), (0.2, 0.9), (0.1, 0.7), (0.1, 0.9), (0.05, 0.9), (0.02, 0.9))
"""The published window and wider ones."""
PENALTIES = ("frechet", "w2")
PLACED = ("w2",)
"""Penalties that steps are placed by."""
Named = tuple[str, pw.HybridSchedule]


@dataclass(frozen=True)
class Space:
    """What the schedules are made of: measured prices and step errors, and the choices of the study."""

    prices: PriceList
    errors: StepErrors
    options: Options

    @property
    def mflop(self) -> dict[str, float]:
        return {n: float(f) / 1e6 for n, f in zip(self.prices.names, self.prices.flops, strict=True)}

    @property
    def cheap(self) -> list[str]:
        """Networks that see the whole image for less than the global one, the cheapest first."""
        table, cost = self.prices.losses, self.mflop
        wide = [
            n for n, r in zip(table.names, table.radii, strict=True) if r is None and n not in ("wiener", "control")
        ]
        return sorted((n for n in wide if cost[n] < cost["global"]), key=cost.__getitem__)

    @property
    def local(self) -> str:
        names = self.prices.names
        return "r3" if "r3" in names else next(n for n in names if n[0] == "r")

    def schedules(self) -> Iterator[Named]:
        """(family/detail, schedule).  Hybrids that another penalty or budget has found already are left out."""
        for name in [*self.cheap, "global"]:
            yield from self.alone(name)
        for solver in self.options.solvers:
            for steps in self.options.steps:
                for which, times in grids(steps).items():
                    yield from self.on_grid(solver, times, which)
            yield from self.windows(solver)
        yield from self.placed()

    def alone(self, name: str) -> Iterator[Named]:
        """One network throughout, by several solvers."""
        plans = self.options.alone if name == "global" else self.options.cheap_alone
        for solver, count in (plan.split("/") for plan in plans):
            yield f"{name} {solver}/{count}", self.even(name, int(count), solver)
        for steps in self.options.steps:
            plan = self.even(name, steps, "sde_dpmpp_2m")
            yield f"{name} sde_dpmpp_2m/{steps}, jump", replace(plan, times=grids(steps)[", jump"])

    def even(self, name: str, steps: int, solver: str) -> pw.HybridSchedule:
        cost, times = self.mflop[name] * sum(calls_per_step(solver, steps)), pw.time_grid(steps, t_min=T_MIN)
        return pw.HybridSchedule(times, (name,) * steps, solver, self.prices.losses.path, mflop=cost)

    def on_grid(self, solver: str, times: tuple[float, ...], which: str) -> Iterator[Named]:
        """Mixtures and hybrids of every cost on one grid."""
        grid, seen, steps = prices_at(self.prices, times), set[tuple[str, ...]](), len(times)
        for share in self.options.shares:
            for small, assignment in self.stitched(times, share):
                if assignment not in seen:
                    found = schedule_from_assignment(grid, assignment, solver=solver)
                    yield f"small then large, {small} {solver}/{steps} at {share}{which}", found
                seen.add(assignment)
            for penalty in PENALTIES:
                found = pw.optimise_schedule(grid, share, penalty=penalty, solver=solver, ties=0)
                if found.assignment not in seen:
                    yield f"hybrid {solver} {penalty}/{steps} at {share}{which}", found
                seen.add(found.assignment)
        spread, alone = baselines.spread(times, self.local, "global", 0.5), (self.local,) * steps
        yield (
            f"{self.local} spread evenly {solver}/{steps}{which}",
            schedule_from_assignment(grid, spread, solver=solver),
        )
        yield f"{self.local} alone {solver}/{steps}{which}", schedule_from_assignment(grid, alone, solver=solver)

    def stitched(self, times: tuple[float, ...], share: float) -> Iterator[tuple[str, tuple[str, ...]]]:
        """A cheap network first, then the global one, at this share of its cost."""
        cost = self.mflop
        for small in (n for n in self.cheap if cost[n] <= share * cost["global"]):
            fraction = (1 - share) / (1 - cost[small] / cost["global"])
            yield small, baselines.t_stitch(times, small, "global", fraction)

    def windows(self, solver: str) -> Iterator[Named]:
        steps = self.options.windowed
        times = pw.time_grid(steps, t_min=T_MIN)
        grid = prices_at(self.prices, times)
        for low, high in WINDOWS[: self.options.windows]:
            assignment = baselines.window(times, (low, high), "global", self.local)
            plan = schedule_from_assignment(grid, assignment, solver=solver)
            yield f"window {low} to {high}, {self.local} outside, {solver}/{steps}", plan

    def placed(self) -> Iterator[Named]:
        """One-step solvers whose steps are placed by step errors, with the global network alone and with all."""
        whole = self.mflop["global"] * sum(calls_per_step("heun", 14))
        for penalty in PLACED:
            alone = placement_front(self.prices, self.errors, penalty=penalty, members=["global"])
            every = placement_front(self.prices, self.errors, penalty=penalty)
            for label, front in (("global placed", alone), ("hybrid placed", every)):
                for budget in self.options.budgets:
                    fits = np.flatnonzero(front.cost <= budget * whole)
                    if len(fits):
                        yield f"{label} {penalty}/{budget}", front.schedules[int(fits[-1])]


def grids(steps: int) -> dict[str, tuple[float, ...]]:
    """Both grids of so many steps, by what a schedule's name says of them."""
    jumped = (1.0, *(float(t) for t in np.linspace(JUMP, T_MIN, steps - 1)))
    return {"": pw.time_grid(steps, t_min=T_MIN), ", jump": jumped}
