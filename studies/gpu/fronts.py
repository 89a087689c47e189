"""A job that judges: the front of one set and one kind of global network, rivals on the best grids a search finds.

The grids of the rivals, and of everybody, are those of :func:`studies.gpu.bench.grid_of`, shifted by the side.
(solver, high, low, bend) is searched for each network and count of steps, by samples of one seed, with a guard on their
pixels: :attr:`Front.allowed`.  Then the best of every family, rivals and hybrids, are moved to times of their own.  Two
other seeds judge the finalists.
"""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from phasewise.scheduling import pareto_front, prices_at, search_times
from phasewise.scheduling.searched import excess
from phasewise.seeding import mix
from studies.gpu.bench import PRICED, START, Bench, Plan, grid_of, plan_of, shown
from studies.gpu.pictures import draw_samples
from studies.gpu.place import JUDGES, Place
from studies.gpu.sizes import TINY, FrontSize
from studies.gpu.verdict import (
    ALONE,
    BOUND,
    CLOSED,
    FAR,
    Row,
    as_precise,
    best_alone,
    fair,
    finalists,
    promising,
    verdict,
)
from studies.timing import seconds_of

SOLVERS = ("sde_dpmpp_2m", "exp_ab2", "dpmpp_2m")
"""The best stochastic and the best deterministic one of every table so far.  Both carry the answer of t = 1, the mean
image, on to the second step; with few steps that overdoes contrast.  The third does not."""
SHIFT_FROM = 32
"""Side in pixels up to which times are as they are drawn.  Beyond, the same noise hides less of the image's large
shapes, so high times move up (Esser et al. 2024, arXiv 2403.03206, equation 23)."""
SPANS = ((0.6, 0.96), (PRICED[1], 0.16), (0.6, 1.8))
LATER = (0.77, 0.67, 0.55)
"""Where grids begin that are tried while all so far are far: with few steps an early second one overdoes contrast."""
EARLIER = 0.9
"""Where a grid begins that is tried beside the default ones: with many steps there is room for an early second one."""
MOVES = (0.06, 0.25, 0.12)
"""Of the logarithms of high, low and bend, round the best so far."""
MOST_BENT = 2.5
"""More, and the last of ten steps have no room."""
SEEDS = (1, 2)
"""Of the finalists' noise."""
LIMIT = 1.6
"""So many times the base's FID a finalist may have had at first."""
REACH = 1.25
"""So many times the base's FID a schedule may have that could come near it on times of its own."""
LATEST, FREER = 0.2, 1.4
"""Its last step begins before LATEST, or before the time of FREER times the odds it begins with."""
VERY_FAR = 1e6
"""More than any FID."""


def _shifted(t: float, factor: float) -> float:
    """The time whose odds are ``factor`` times those of ``t``."""
    return factor * t / (1 + (factor - 1) * t)


class Grid(NamedTuple):
    """Start times after t = 1, as they are for images of SHIFT_FROM pixels a side; ``low`` is the same for all."""

    solver: str
    high: float
    low: float
    bend: float

    def times(self, steps: int, shift: float = 1.0) -> tuple[float, ...]:
        """``shift``: the odds of a time are so many times what they are for small images, down to ``low`` itself."""
        low = _shifted(self.low, 1 / shift)
        return tuple(_shifted(t, shift) for t in grid_of(steps, self.high, low, self.bend))


DEFAULT = Grid(SOLVERS[0], 0.85, 0.03, 1.0)


def front(kind: str, how: FrontSize) -> Callable[[Place, str, str], dict[str, Any]]:
    """The job for the U-Net ("unet") or the transformer ("dit") as the global network."""

    def job(place: Place, name: str, network: str) -> dict[str, Any]:
        torch.backends.cuda.matmul.allow_tf32 = True
        return Front(Bench(place, name, kind, TINY if place.quick else how)).run()

    return job


class Front:
    """Rivals, hybrids, and those of them that are judged again."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.how = bench, bench.how
        self.shift = max(1.0, max(bench.data.image_shape[1:]) / SHIFT_FROM)
        self.found: dict[tuple[str, int], Grid] = {}
        self.near: dict[tuple[str, int], Grid] = {}
        """Those of ``found`` that a finalist may have."""

    def searched(self, network: str, steps: int) -> Grid:
        """The best grid of one network: what is known already, the default, earlier ones, later ones while all are far,
        by chance, then moves round the best.  Of grids whose pixels are FAR from real ones, which no finalist may have,
        the least far is the best."""
        if (network, steps) in self.found:
            return self.found[network, steps]
        start = self.known(network, steps)
        draw = np.random.default_rng(mix(7, steps, zlib.crc32(network.encode())) % 2**32)
        trials = self.how.trials
        by_chance = 0.3 * trials if start else 0.6 * trials
        begin = start or DEFAULT
        own, usual = ([grid._replace(solver=solver) for solver in SOLVERS] for grid in (begin, DEFAULT))
        early = DEFAULT._replace(solver=begin.solver, high=EARLIER)
        # what the guard was taken from is a trial, too
        firsts = list(dict.fromkeys([*own, *usual, early])) if start else own
        later = [begin._replace(solver=solver, high=high) for high in LATER for solver in SOLVERS[:2]]
        best: tuple[bool, float, Grid] = (True, np.inf, begin)
        for trial in range(trials):
            if trial < len(firsts):
                grid = firsts[trial]
            elif best[0] and later:
                grid = later.pop(0)
            elif trial < by_chance:
                grid = Grid(SOLVERS[trial % len(SOLVERS)], *(float(draw.uniform(*span)) for span in SPANS))
            else:
                moved = [v * float(np.exp(draw.normal(0, s))) for v, s in zip(best[-1][1:], MOVES, strict=True)]
                grid = Grid(best[-1].solver, min(moved[0], 0.97), max(moved[1], PRICED[1]), min(moved[2], MOST_BENT))
            best = min(best, (*self.sought(self.alone(network, steps, grid)), grid))
        self.found[network, steps] = best[-1]
        if not best[0]:
            self.near[network, steps] = best[-1]
        return best[-1]

    def sought(self, plan: Plan) -> tuple[bool, float]:
        """What searches want little of: (whether its pixels are FAR, FID with a guard or else how far they are)."""
        found = self.bench.fids(plan)
        far = found["pixels"] > FAR * self.allowed
        return far, found["pixels"] if far else found["seen"] * excess(found["pixels"], self.allowed)

    @cached_property
    def allowed(self) -> float:
        """Sliced distance of the reference's samples on the grid that searches begin with, of the most steps, by the
        best solver.  With few steps a solver may carry answers on too far: four times the variance of real pixels,
        which judges of small photographs take for objects (studies/LOG.md)."""
        steps = max(self.how.counts)
        plans = (self.alone(self.bench.reference, steps, DEFAULT._replace(solver=solver)) for solver in SOLVERS)
        return min(self.bench.fids(plan)["pixels"] for plan in plans)

    def alone(self, network: str, steps: int, grid: Grid) -> Plan:
        return self.bench.alone(network, self.times(grid, steps), grid.solver)

    def times(self, grid: Grid, steps: int) -> tuple[float, ...]:
        """Those of a grid on images of this size."""
        return grid.times(steps, self.shift)

    def known(self, network: str, steps: int) -> Grid | None:
        """The reference's grid of as many steps, or the network's own of fewer; none that is far."""
        reference = self.bench.reference
        if network != reference and (reference, steps) in self.near:
            return self.near[reference, steps]
        fewer = [count for name, count in self.near if name == network and count < steps]
        return self.near[network, max(fewer)] if fewer else None

    def candidates(self) -> Iterator[tuple[str, Plan]]:
        """(family, plan): one network on its best grids, small then large, hybrids."""
        for network in reversed(self.bench.wide):  # the reference first: the others begin where it ended
            for steps in self.how.counts:
                yield "one network", self.alone(network, steps, self.searched(network, steps))
        for times, solver, network in self.grids():
            yield CLOSED, self.bench.plan(times, (START,) + ("wiener",) * (len(times) - 1), solver)
            yield from self.stitched(times, solver)
            yield from self.hybrids(times, solver, network)

    def grids(self) -> Iterator[tuple[tuple[float, ...], str, str]]:
        """The reference's best of every count of two paid steps and more; and, as a hybrid can pay for more steps,
        those of fewer, finer.  Last that of the best network alone, where it is another one.  With each goes the
        network whose cost at every step hybrids take shares of."""
        reference = self.bench.reference
        own = partial(self.searched, reference)
        for steps in (count for count in self.how.counts if count > 2):
            yield self.times(own(steps), steps), own(steps).solver, reference
            if self.how.finer and steps > 4:
                coarser = own(steps - 1 if steps < 10 else 8)
                yield self.times(coarser, steps), coarser.solver, reference
        best = self.best_searched()
        if best and best[0] != reference:
            yield self.times(self.near[best], best[1]), self.near[best].solver, best[0]

    def best_searched(self) -> tuple[str, int] | None:
        """Network and steps of the best that a search has found, by both judges; None where all are far."""
        rows = []
        for key, grid in sorted(self.near.items()):
            plan = self.alone(*key, grid)
            rows.append({"family": ALONE[0], "mflop": plan.mflop, "fid": self.bench.fids(plan), "key": key})
        return best_alone(rows)["key"] if rows else None

    def stitched(self, times: tuple[float, ...], solver: str) -> Iterator[tuple[str, Plan]]:
        paid = len(times) - 1
        for small in (n for n in self.bench.wide if n != self.bench.reference):
            for count in range(1, paid):
                assignment = (START, *(small,) * count, *(self.bench.reference,) * (paid - count))
                yield "small then large", self.bench.plan(times, assignment, solver)

    def hybrids(self, times: tuple[float, ...], solver: str, network: str) -> Iterator[tuple[str, Plan]]:
        """What the optimiser chooses, of all members or without cheaper global ones, by two penalties."""
        bench = self.bench
        prices, whole = prices_at(bench.prices, times), len(times) * bench.mflop[network]
        for penalty, allowed in itertools.product(("frechet", "w2"), self.mixes()):
            edge = pareto_front(prices, penalty=penalty, solver=solver, members=allowed)
            for share in self.how.shares:
                fits = np.flatnonzero(edge.mflop <= share * whole)
                chosen = edge.assignments[int(fits[-1])] if len(fits) else ()
                members = set(chosen[1:])
                if members - set(bench.wide):
                    yield "hybrid", bench.plan(times, (START, *chosen[1:]), solver)
                elif len(members) > 1:
                    yield "small then large", bench.plan(times, (START, *chosen[1:]), solver)

    def on_times_of_their_own(self, rows: Sequence[Row]) -> Iterator[tuple[str, Plan]]:
        """The cheapest schedules near the bound and within REACH of it, and the best, of every family that pays for
        networks: by the solver that suits each, on times of its own."""
        near = fair(rows)
        if not self.how.own:
            return
        for row in promising(near, best_alone(near), LIMIT, self.how.own, REACH):
            plan = plan_of(self.bench, row)
            plans = (replace(plan, solver=solver) for solver in SOLVERS)
            yield row["family"], self.moved(min(plans, key=self.sought))

    def moved(self, plan: Plan) -> Plan:
        """A plan on the best start times that its own lead to: as many grids as move every time either way once."""

        def value(times: tuple[float, ...], seed: int) -> float:
            far, found = self.sought(replace(plan, times=times))
            return found + float(far) * VERY_FAR

        found = search_times(
            len(plan.times), value, begin=plan.times, budget=2 * len(plan.times) - 1,
            ends=(PRICED[1], max(LATEST, _shifted(plan.times[-1], FREER))),
            fresh_seed=0,  # other seeds judge the finalists
        )  # fmt: skip
        return replace(plan, times=found.times)

    def mixes(self) -> list[list[str]]:
        """Whom the optimiser may choose from: everybody; and no cheaper network that sees the whole image."""
        every = list(self.bench.members)
        smaller = set(self.bench.wide) - {self.bench.reference}
        return [every, [n for n in every if n not in smaller]]

    def run(self) -> dict[str, Any]:
        start = time.perf_counter()
        bench = self.bench
        rows = self.rows([], self.candidates())
        rows = self.rows(rows, self.on_times_of_their_own(rows))
        finals = self.with_whole(self.finals(rows))
        draw_samples(bench, finals)
        table = bench.prices.losses
        return {
            "kind": bench.kind, "side": bench.data.image_shape[1], "n": self.how.n_first, "n_final": self.how.n_final,
            "real": bench.real, "judges": {k: j.name for k, j in bench.judges.items()}, "mflop": bench.mflop,
            "rows": rows, "finals": finals, "clock": self.clock(finals), "allowed": self.allowed,
            "grids": {f"{k[0]}/{k[1]}": list(v) for k, v in self.found.items()}, "prices": bench.prices.to_dict(),
            "loss": {n: [float(v) for v in table.loss[:, i]] for i, n in enumerate(table.names)},
            "seconds": time.perf_counter() - start,
        }  # fmt: skip

    def rows(self, known: Sequence[dict[str, Any]], found: Iterable[tuple[str, Plan]]) -> list[dict[str, Any]]:
        """Those that are known, and those of what was found; what several searches find, as the first found it."""
        rows = {(*row["times"], *row["assignment"], row["solver"]): row for row in known}
        for family, plan in found:
            about = shown(plan)
            key = (*about["times"], *about["assignment"], about["solver"])
            if key not in rows:
                rows[key] = self.row(family, plan)
        return list(rows.values())

    def row(self, family: str, plan: Plan) -> dict[str, Any]:
        """``far``: the distance of the samples' pixels, over what is allowed."""
        found = self.bench.fids(plan)
        return {
            "family": family, **shown(plan), "fid": {k: found[k] for k in JUDGES},
            "far": found["pixels"] / self.allowed, "penalty": self.bench.penalties(plan),
        }  # fmt: skip

    def finals(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The finalists on new seeds, the best global-only schedule marked as the reference; what FID may not see of
        them takes no part in any choice."""
        near = fair(rows)
        base = best_alone(near)
        chosen = finalists(near, base, LIMIT, self.how.most)
        seen = [{"judged": self.judged(row), "looks": self.bench.looks(plan_of(self.bench, row))} for row in chosen]
        return [{**row, "reference": row is base, **found} for row, found in zip(chosen, seen, strict=True)]

    def with_whole(self, finals: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The finalists; beside the hybrid, and the cheapest as precise, the same with the reference at every local
        step, as "whole": what of their saving is locality's, and what that costs."""
        claimed = (verdict(finals, BOUND).hybrid, as_precise(finals, BOUND))
        return [self.beside_whole(row) if any(row is one for one in claimed) else row for row in finals]

    def beside_whole(self, row: dict[str, Any]) -> dict[str, Any]:
        who = tuple(self.bench.reference if self.bench.is_local(n) else n for n in row["assignment"])
        if who == tuple(row["assignment"]):
            return row
        whole = shown(self.bench.plan(tuple(row["times"]), who, row["solver"]))
        return {**row, "whole": {**whole, "judged": self.judged(whole)}}

    def judged(self, row: Row) -> dict[str, list[Any]]:
        plan = plan_of(self.bench, row)
        seeds = [self.bench.draws(plan, seed) for seed in SEEDS]
        return {judge: [list(seen[judge]) for seen in seeds] for judge in seeds[0]}

    def clock(self, finals: list[dict[str, Any]]) -> dict[str, list[float]]:
        """Seconds a batch of the rival and of the hybrid of equal quality, by turns; the rival alone where no hybrid
        is cheaper."""
        found = verdict(finals, BOUND)
        plans = {name: plan_of(self.bench, row) for name, row in (("rival", found.rival), ("hybrid", found.hybrid))}
        works = {name: partial(self.bench.batch_of, plan, self.bench.batch, 0) for name, plan in plans.items()}

        def timed() -> dict[str, list[float]]:
            return seconds_of({name: partial(_done, work) for name, work in works.items()}, self.how.rounds)

        asked = {"clock": [shown(plan) for plan in plans.values()]}
        seconds: dict[str, list[float]] = self.bench.kept(asked, timed)
        return seconds


def _done(work: Callable[[], torch.Tensor]) -> None:
    """Wait for what an accelerator was told to do."""
    float(work().sum())
