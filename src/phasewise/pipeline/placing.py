"""The start times of a run's schedules, each searched for: the hybrid's, and those of all that it has to beat.

By samples, for what a multistep solver's steps lose does not add up, so no penalty ranks grids (studies/LOG.md).  Every
search judges as many grids, of as many samples, on the same noise, which no judgement of the run uses again.  It looks
for the least FID whose pixels are as near to real ones as those of the reference on the run's grid (:func:`guarded`).

The first step, at t = 1, goes to a closed form wherever there is one: everybody's answer there is the mean of the
images, unless networks are told the class of each.  A closed form that would take several steps in a row takes two:
what lies between is no work for it.

Of the hybrids that the optimiser finds within the budget three are placed, with the reference at all the steps that
the budget allows, at two thirds and at half of them.  The best on fresh noise is taken, and of those as good within
error the cheapest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from phasewise import seeding
from phasewise.denoisers import Denoiser, HybridDenoiser
from phasewise.display import measured
from phasewise.metrics import SlicedReference, frechet_difference, frechet_score
from phasewise.paths import path_from_config
from phasewise.pipeline.estimate import PLACED_BY
from phasewise.pipeline.judging import Judge, cheap_partner
from phasewise.pipeline.samplers import batch_of
from phasewise.pipeline.telling import Teller
from phasewise.results import HybridSchedule, ParetoFront, PriceList, SearchedGrid
from phasewise.runs.config import RunConfig
from phasewise.runs.members import MEMBER_KINDS
from phasewise.sampling import sample
from phasewise.scheduling import baselines, by_frechet, guarded, prices_at, schedule_from_assignment, search_grid
from phasewise.scheduling.optimise import AS_LONG
from phasewise.scheduling.prices import calls_of
from phasewise.scheduling.searched import ENDS, excess

AGAIN = 1000
"""Of each placed hybrid on fresh noise, to choose among them."""
IN_A_ROW = 2
"""Steps that a closed form takes in a row at most."""
SHARES = (1.0, 2 / 3, 1 / 2)
"""Of the reference's steps within the budget, those of the hybrids that are placed."""


@dataclass(frozen=True)
class Placed:
    """A schedule whose start times were searched for, and one sentence on the search."""

    schedule: HybridSchedule
    search: SearchedGrid
    n: int

    def sentence(self) -> str:
        found = self.search
        times = " ".join(f"{t:.3g}" for t in found.times)
        return (
            f"start times {times}, the best of {len(found.judged)} grids by the distance of {self.n} samples, guarded "
            f"by that of their pixels: {found.began_value:.3g} of the first to {found.value:.3g}; on other noise "
            f"{found.began_fresh_value:.3g} to {found.fresh_value:.3g}"
        )


@dataclass(frozen=True)
class Placing:
    """Searches for the start times of the run's schedules."""

    members: Mapping[str, Denoiser]
    prices: PriceList
    judge: Judge
    pixels: SlicedReference
    config: RunConfig
    say: Teller

    @cached_property
    def closed(self) -> list[str]:
        """Closed forms, by rising cost."""
        found = [m.name for m in self.config.members if MEMBER_KINDS[m.kind].look == "closed"]
        return sorted((n for n in found if n in self.prices.names), key=self.flops)

    def flops(self, name: str) -> float:
        return float(self.prices.flops[self.prices.names.index(name)])

    @property
    def n(self) -> int:
        """Samples of each judged grid."""
        return min(PLACED_BY, self.config.evaluate.n_samples)

    @property
    def batch(self) -> int:
        return batch_of(self.pixels.image_shape, self.config.machine.device)

    @property
    def opening(self) -> list[str]:
        """The closed form that takes the first step for nothing: at t = 1 everybody's answer is the mean of the images.
        None where the reference is told the class, whose mean is another."""
        told = self.members[self.prices.losses.reference].takes_condition
        return [] if told else self.closed[:1]

    def opened(self, assignment: Sequence[str]) -> tuple[str, ...]:
        """With a closed form at the first step, where one may open, and none at more than two in a row."""
        first = [name for name in self.opening if self.flops(name) < self.flops(assignment[0])]
        taken = [*first, *assignment[len(first) :]]
        runs = ((name, len(list(steps))) for name, steps in itertools.groupby(taken))
        kept = ((name, min(count, IN_A_ROW) if name in self.closed else count) for name, count in runs)
        return tuple(name for name, count in kept for _ in range(count))

    def allowed(self, n: int, noise: seeding.Stage) -> float:
        """Sliced distance of the reference's samples on the run's grid."""
        reference, times = self.prices.losses.reference, tuple(self.prices.times.tolist())
        who = (reference,) * len(times)
        even = HybridSchedule(times, who, self.config.grid.solver, self.prices.losses.path)
        return self.pixels.distance(self.images(even, n, noise))

    @cached_property
    def value(self) -> Callable[[Tensor], float]:
        """What a search makes small."""
        pixel_range, allowed = self.judge.pixel_range, self.allowed(self.n, seeding.Stage.PLACING)
        distance = by_frechet(self.judge.features, self.judge.reference, pixel_range)
        return guarded(distance, self.pixels, allowed, pixel_range)

    def place(self, name: str, assignment: Sequence[str]) -> Placed:
        """The best grid for a fixed assignment."""
        grid, base = self.config.grid, self.config.data.seed
        low, high = float(self.prices.times.min()), float(self.prices.times.max())
        seed, fresh = (seeding.stage_seed(base, s) for s in (seeding.Stage.PLACING, seeding.Stage.PLACED))
        path = path_from_config(self.prices.losses.path)
        spoken = {n: self.members[n].on(path) for n in dict.fromkeys(assignment)}  # times are those of the price list
        given = [spoken[n] for n in assignment]
        hybrid = HybridDenoiser(self.members, HybridSchedule(self._even(len(assignment)), tuple(assignment)))
        found = search_grid(
            given, len(given), self.value, solver=grid.solver, n=self.n, seed=seed, fresh_seed=fresh, batch=self.batch,
            cond=self.judge.cond(hybrid, self.n, seed), budget=self.config.schedule.grids, first=high,
            ends=(max(low, ENDS[0]), max(ENDS[1], 2 * low)), spacing=grid.spacing,
        )  # fmt: skip
        prices = prices_at(self.prices, found.times)
        penalty = self.config.schedule.penalty
        plan = schedule_from_assignment(prices, assignment, penalty=penalty, solver=grid.solver)
        label = baselines.LABELS.get(name, name) + baselines.PLACED
        placed = Placed(replace(plan, label=label), found, self.n)
        self.say(f"{name}, {placed.schedule.mflop:.4g} MFLOP: {placed.sentence()}")
        return placed

    def _even(self, steps: int) -> tuple[float, ...]:
        return tuple(np.linspace(1.0, float(self.prices.times.min()), steps).tolist())

    def images(self, plan: HybridSchedule, n: int, noise: seeding.Stage) -> Tensor:
        """(n, C, H, W), clamped to the pixel range."""
        seed, hybrid = seeding.stage_seed(self.config.data.seed, noise), HybridDenoiser(self.members, plan)
        images = sample(hybrid, n=n, seed=seed, cond=self.judge.cond(hybrid, n, seed), batch=self.batch)
        return images.clamp(*self.judge.pixel_range)

    def again(self, plans: Sequence[HybridSchedule]) -> tuple[list[Tensor], list[float]]:
        """On noise that no search used: (n, D) features of each, and what the guard multiplies its distance by."""
        n = min(AGAIN, self.config.evaluate.n_samples)
        allowed, seen, factors = self.allowed(n, seeding.Stage.PLACED), [], []
        for plan in plans:
            images = self.images(plan, n, seeding.Stage.PLACED)
            seen.append(self.judge.features.extract(images))
            factors.append(excess(self.pixels.distance(images), allowed))
        return seen, factors

    def leans(self, assignment: Sequence[str]) -> bool:
        """Whether a member of it leans on earlier steps."""
        return self.prices.reuse is not None and bool(set(assignment) & set(self.prices.reuse.names))

    def hybrid(self, front: ParetoFront, chosen: int) -> tuple[Placed | HybridSchedule, int, list[str]]:
        """The placed hybrid, or the one of the front where it leans on earlier steps; which of the front it came from,
        and what was chosen from in words."""
        if self.leans(front.assignments[chosen]):
            plan = schedule_from_assignment(
                self.prices, front.assignments[chosen], penalty=front.penalty_name, solver=self.config.grid.solver
            )
            return plan, chosen, ["it leans on earlier steps, whose distance its prices know: it keeps the run's grid"]
        reference = self.prices.losses.reference
        counts = [a.count(reference) for a in front.assignments]
        wanted = [max(1, round(counts[chosen] * share)) for share in SHARES]
        # along the front the penalty falls: the last one with so many reference steps loses least of them
        fits = {
            c: i
            for i, c in enumerate(counts)
            if c in wanted and front.mflop[i] <= front.mflop[chosen] + 1e-9 and not self.leans(front.assignments[i])
        }
        fits[counts[chosen]] = chosen
        found = {self.opened(front.assignments[i]): i for i in fits.values()}
        placed = [(self.place("hybrid", who), i) for who, i in found.items()]
        seen, factors = self.again([one.schedule for one, _ in placed])
        scores = [frechet_score(s, self.judge.reference) for s in seen]
        lost = [s.value * factor for s, factor in zip(scores, factors, strict=True)]
        best = int(np.argmin(lost))
        errors = [frechet_difference(s, seen[best], self.judge.reference).stderr for s in seen]
        good = [k for k in range(len(lost)) if k == best or lost[k] - lost[best] <= errors[k]]
        ms = [self.ms(one.schedule) for one, _ in placed]
        soon = min(ms[k] for k in good) * (1 + AS_LONG)
        taken = min((k for k in good if ms[k] <= soon), key=lambda k: placed[k][0].schedule.mflop or 0.0)
        told = []
        if len(placed) > 1:
            shown = "; ".join(
                f"{measured(s.value, s.stderr)} at {p.schedule.mflop:.3g} MFLOP"
                for s, (p, _) in zip(scores, placed, strict=True)
            )
            tie = "the cheapest as good within error" if len(good) > 1 else "the best"
            told = [f"{len(placed)} hybrids within the budget were placed and judged on fresh noise ({shown}): {tie}"]
        return placed[taken][0], placed[taken][1], told

    def ms(self, plan: HybridSchedule) -> float:
        """Measured milliseconds of the members' calls, an image."""
        per_call = dict(zip(self.prices.names, self.prices.ms.tolist(), strict=True))
        return sum(per_call[name] for name in plan.assignment)

    def rivals(self, plans: Mapping[str, HybridSchedule], mflop: float) -> dict[str, Placed]:
        """What the hybrid of this cost has to beat, each at its own best: at that cost or the next higher one."""
        reference, grid = self.prices.losses.reference, self.config.grid
        times, steps = self.prices.times.tolist(), len(self.prices.times)
        first = next(iter(self.opening), reference)
        fewer = baselines.fewer_steps(self.prices, mflop, grid.solver, t_min=grid.t_min, first=first)
        assigned = {"global_cheap": fewer.assignment, "global_placed": self.opened((reference,) * steps)}
        if "stitched" in plans:
            partner = cheap_partner(self.config, self.prices)
            assert partner is not None
            stitched = [baselines.t_stitch(times, partner, reference, k / steps) for k in range(steps)]
            dearer = [a for a in stitched if self.cost(a) >= mflop * (1 - 1e-6)]
            assigned["stitched"] = self.opened(dearer[-1] if dearer else plans["stitched"].assignment)
        assigned |= {n: self.opened(plans[n].assignment) for n in plans if n in ("window", "window_gap", "window_cmi")}
        return {name: self.place(name, who) for name, who in assigned.items()}

    def cost(self, assignment: Sequence[str]) -> float:
        """MFLOP an image of the run's solver with these members, opened as every schedule here."""
        who = self.opened(assignment)
        columns = [self.prices.names.index(name) for name in who]
        calls = calls_of(self.prices, self.config.grid.solver, len(who))[range(len(who)), columns]
        return float((calls * self.prices.flops[columns]).sum() / 1e6)


def place_schedules(
    placing: Placing, plans: Mapping[str, HybridSchedule], front: ParetoFront, chosen: int
) -> tuple[dict[str, HybridSchedule], int, dict[str, list[str]]]:
    """``plans`` with the hybrid and its rivals placed, where on the front the hybrid came from, and a few sentences by
    name of the schedule on how its steps were found."""
    best, chosen, told = placing.hybrid(front, chosen)
    hybrid = best.schedule if isinstance(best, Placed) else replace(best, label=baselines.LABELS["hybrid"])
    found = {**({"hybrid": best} if isinstance(best, Placed) else {}), **placing.rivals(plans, hybrid.mflop or 0.0)}
    words = {name: [f"{one.schedule.label}: {one.sentence()}"] for name, one in found.items()}
    words["hybrid"] = [*told, *words.get("hybrid", [])]
    every = {**plans, "hybrid": hybrid, **{name: one.schedule for name, one in found.items()}}
    return {n: every[n] for n in baselines.LABELS if n in every}, chosen, words
