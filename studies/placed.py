"""The rival at its best: one network alone, its start times found by a search, beside the hybrid and even steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

import phasewise as pw
from phasewise.metrics import FeatureNetwork, FrechetReference, frechet_difference, frechet_score
from phasewise.results import SearchedGrid
from phasewise.sampling import calls_per_step, get_solver
from phasewise.scheduling import by_frechet, search_grid
from phasewise.scheduling.searched import BUDGET
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

FIRST = "wiener"
"""Takes the step from t = 1: its answer there is the mean of the images, everybody's exact one, at next to no cost."""
EVEN = 8
"""Steps of the grid that the shipped schedules are on."""
BY_HAND = {"mnist": (1.0, 0.846, 0.666, 0.508, 0.282, 0.061)}
"""Placed without a search, by an independent review of this project."""


@dataclass(frozen=True)
class Options:
    pretrained: str = choice("mnist", "shipped set")
    networks: tuple[str, ...] = choice(("global",), "placed, each alone")
    solvers: tuple[str, ...] = choice(
        ("sde_dpmpp_2m", "dpmpp_2m", "heun"), "one with two calls a step gets as many calls", quick=("sde_dpmpp_2m",)
    )
    steps: tuple[int, ...] = choice((4, 5, 6, 7, 8), "of a solver with one call a step, the closed first one too",
                                    quick=(3,))  # fmt: skip
    n_search: int = choice(1000, "samples of each judged grid", quick=16)
    budget: int = choice(BUDGET, "judged grids of each search", quick=3)
    n: int = choice(10_000, "samples of each schedule in the end", quick=16)
    seeds: tuple[int, ...] = choice((1, 2), "of the noise in the end; none of them chose anything", quick=(1,))


class Placed(Study[Options]):
    """The first step, at t = 1, is the Wiener filter's answer, the mean of the images; one network takes the others.
    Grids are searched by FID at seed 0 in the shipped features, all on one noise, and told again at another.  In the
    end the winners, the evenly spread steps of the network alone and the shipped hybrid are judged on fresh seeds, by
    the shipped judge and by one that no penalty and no search has seen; differences are paired with the hybrid from the
    same starting noise."""

    name = "placed"
    question = "Does one network alone, with well-placed steps, do what the hybrid does?"
    page = "results/schedules.md"
    options_type = Options

    @cached_property
    def ready(self) -> Any:
        return pw.load_pretrained(self.options.pretrained)

    @cached_property
    def judges(self) -> dict[str, tuple[FeatureNetwork, FrechetReference]]:
        return {
            name: (self.ready.features(unseen=unseen), self.ready.reference_moments(unseen=unseen))
            for name, unseen in (("shipped", False), ("unseen", True))
        }

    def cells(self) -> Iterator[Cell]:
        o, home = self.options, self.options.pretrained
        for solver, steps, network in itertools.product(o.solvers, o.steps, o.networks):
            own = own_steps(solver, steps)
            if own:
                asked = {"n": o.n_search, "budget": o.budget, "steps": own, "first": FIRST}
                name = f"{home}/search/{network}/{solver}/{steps}"
                yield Cell(name, asked, partial(self.searched, network, solver, own, name))
        for seed in o.seeds:
            for who, plan in self.plans().items():
                asked = {"n": o.n, "seed": seed, "times": list(plan.times), "judges": list(self.judges)}
                yield Cell(f"{home}/judged/{who}/seed{seed}", asked, partial(self.judged, plan, seed), again=True)

    def plans(self) -> dict[str, pw.HybridSchedule]:
        """The hybrid, the networks on even steps, and what the searches of this call found."""
        o, found = self.options, {"hybrid": self.ready.schedules["hybrid"]}
        base = found["hybrid"].solver
        for network in o.networks:
            for even in dict.fromkeys((EVEN, *sorted(o.steps, reverse=True))):
                found[f"{network}/even/{even}"] = self.plan(network, base, pw.time_grid(even), network)
            hand = BY_HAND.get(o.pretrained, ())
            if len(hand) in o.steps:
                found[f"{network}/by hand/{len(hand)}"] = self.plan(network, base, hand, network)
        for name, row in self.answers.items():
            if name.startswith(f"{o.pretrained}/search/"):
                _, _, network, solver, steps = name.split("/")
                times = SearchedGrid.from_dict(row["search"]).times
                found[f"{network}/{solver}/{steps}"] = self.plan(network, solver, times)
        return found

    def plan(self, network: str, solver: str, times: tuple[float, ...], first: str = FIRST) -> pw.HybridSchedule:
        """``network`` alone on a grid, after a ``first`` step."""
        prices = self.ready.prices
        cost = dict(zip(prices.names, (prices.flops / 1e6).tolist(), strict=True))
        calls = calls_per_step(solver, len(times))
        mflop = (1 if first in prices.jumps else calls[0]) * cost[first] + sum(calls[1:]) * cost[network]
        return pw.HybridSchedule(times, (first,) + (network,) * (len(times) - 1), solver, mflop=mflop)

    def measure(self, cell: Cell) -> dict[str, Any]:
        work: Callable[[], dict[str, Any]] = cell.what
        with torch.no_grad():
            return work()

    def searched(self, network: str, solver: str, steps: int, name: str) -> dict[str, Any]:
        members, o = self.ready.denoisers([FIRST, network]), self.options
        judge = by_frechet(*self.judges["shipped"], self.ready.pixels.pixel_range)
        given = [members[FIRST]] + [members[network]] * (steps - 1)
        found = search_grid(
            given, steps, judge, solver=solver, n=o.n_search, budget=o.budget, folder=self.work / name,
            about=f"{name}, {self.ready.features().digest()}",
        )  # fmt: skip
        return {"search": found.to_dict()}

    def judged(self, plan: pw.HybridSchedule, seed: int) -> dict[str, Any]:
        seen, base = self.seen(plan, seed), self.seen(self.ready.schedules["hybrid"], seed)
        answer: dict[str, Any] = {"mflop": plan.mflop, "assignment": list(plan.assignment), "solver": plan.solver}
        for name, (_, reference) in self.judges.items():
            score = frechet_score(seen[name], reference, seed=seed)
            minus = frechet_difference(seen[name], base[name], reference, seed)
            answer[name] = {"fid": [score.value, score.stderr], "minus": [minus.value, minus.stderr]}
        return answer

    def seen(self, plan: pw.HybridSchedule, seed: int) -> dict[str, Tensor]:
        """(n, D) features of a schedule's samples by every judge; kept, as everybody is compared with the hybrid."""
        key = (plan.times, plan.assignment, plan.solver, seed)
        if key not in self._seen:
            hybrid = pw.HybridDenoiser(self.ready.denoisers(list(dict.fromkeys(plan.assignment))), plan)
            images = pw.sample(hybrid, n=self.options.n, seed=seed, batch=64).clamp(*self.ready.pixels.pixel_range)
            self._seen[key] = {name: features.extract(images) for name, (features, _) in self.judges.items()}
        return self._seen[key]

    @cached_property
    def _seen(self) -> dict[Any, dict[str, Tensor]]:
        return {}

    def tables(self, answers: Answers) -> dict[str, str]:
        found = {}
        for home in dict.fromkeys(name.split("/")[0] for name in answers):
            rows = {name.removeprefix(f"{home}/"): row for name, row in answers.items() if name.startswith(f"{home}/")}
            found[f"{home} search"] = search_table(rows)
            if any(name.startswith("judged/") for name in rows):
                found[f"{home} judged"] = judged_table(rows)
        return found


def search_table(rows: Answers) -> str:
    """What every search found, and what of it fresh noise keeps."""
    shown, asked = [], {}
    for name, row in rows.items():
        if name.startswith("search/"):
            _, network, solver, _ = name.split("/")
            found, asked = SearchedGrid.from_dict(row["search"]), row["asked"]
            calls = sum(calls_per_step(solver, len(found.times))[1:])
            times = " ".join(f"{t:.3f}" for t in found.times)
            cells = [f"{v:.3f}" for v in (found.began_value, found.value, found.began_fresh_value, found.fresh_value)]
            shown.append([network, solver, str(calls), *cells, times])
    head = ["network", "solver", "calls", "even: FID", "best: FID", "even, fresh", "best, fresh", "start times"]
    note = f"Best of {asked['budget']} grids, n = {asked['n']}; the first step is the mean image's, at no call."
    return markdown(head, sorted(shown, key=lambda r: (r[0], r[1], int(r[2]))), note)


def judged_table(rows: Answers) -> str:
    """The finalists by falling cost: FID by every judge, and what it is above the hybrid's, a column a seed."""
    judged = {name: row for name, row in rows.items() if name.startswith("judged/")}
    n = max(row["asked"]["n"] for row in judged.values())
    judged = {name: row for name, row in judged.items() if row["asked"]["n"] == n}
    seeds = sorted({row["asked"]["seed"] for row in judged.values()})
    judges = next(iter(judged.values()))["asked"]["judges"]
    plans = dict.fromkeys(name.split("/", 1)[1].rsplit("/", 1)[0] for name in judged)
    shown = []
    for who in plans:
        found = [judged.get(f"judged/{who}/seed{seed}") for seed in seeds]
        first = next(f for f in found if f is not None)
        cells = []
        for judge in judges:
            there = [f[judge] if f is not None and judge in f else None for f in found]
            cells += ["" if f is None else f"{f['fid'][0]:.3f} ± {f['fid'][1]:.3f}" for f in there]
            cells += [
                "" if f is None or who == "hybrid" else f"{f['minus'][0]:+.3f} ± {f['minus'][1]:.3f}" for f in there
            ]
        network, grid, steps = (*who.split("/"), "", "")[:3]
        label = who if who == "hybrid" else f"{network}, {grid} {steps}"
        shown.append((first["mflop"], [label, f"{first['mflop']:.0f}", *cells]))
    head = ["schedule", "MFLOP"]
    for judge in judges:
        head += [f"{judge}, seed {s}" for s in seeds] + [f"minus hybrid, seed {s}" for s in seeds]
    note = f"n = {n} samples each; even steps by the hybrid's solver, the network at every one of them."
    return markdown(head, [row for _, row in sorted(shown, key=lambda r: -r[0])], note)


def own_steps(solver: str, steps: int) -> int:
    """Start times of ``solver`` with as many network calls as one with one call a step has after its first; 0: none.

    The first step is a closed form's, the last a denoise of one call.
    """
    per_step = get_solver(solver).calls
    between, left = divmod(steps - 2, per_step)
    return between + 2 if left == 0 and steps >= 2 else 0
