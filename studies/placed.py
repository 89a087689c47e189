"""The rival at its best: the global network alone, with fewer steps that are placed by hand, beside the hybrid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

import phasewise as pw
from phasewise.metrics import frechet_difference, frechet_score
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

SOLVER = "sde_dpmpp_2m"
PLACED = {
    "placed 6": (1.0, 0.846, 0.666, 0.508, 0.282, 0.061),
    "placed 5": (1.0, 0.8, 0.55, 0.3, 0.08),
}
"""Start times of the steps; the first set came out of an independent review of this project, the second is a guess."""
EVEN = {"even 8": 8, "even 7": 7, "even 6": 6}


@dataclass(frozen=True)
class Options:
    n: int = choice(10_000, "samples of each schedule", quick=16)
    seeds: tuple[int, ...] = choice((1, 2), "of the noise; none of them chose anything", quick=(1,))
    against: tuple[str, ...] = choice((*EVEN, *PLACED), "grids of the global network", quick=("even 6", "placed 6"))


class Placed(Study[Options]):
    """Shipped MNIST networks and features; every difference is paired with the shipped hybrid from the same noise.  One
    judge only, the shipped classifier, which the penalties of later releases may have seen."""

    name = "placed"
    question = "Does the global network alone, with well-placed steps, do what the hybrid does?"
    page = "results/schedules.md"
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        for seed in self.options.seeds:
            for who in ("hybrid", *self.options.against):
                yield Cell(f"{who}/seed{seed}", {"n": self.options.n, "seed": seed}, (who, seed))

    def measure(self, cell: Cell) -> dict[str, Any]:
        who, seed = cell.what
        ready, plan = pw.load_pretrained("mnist"), plan_of(who)
        seen, base = features_of(who, self.options.n, seed), features_of("hybrid", self.options.n, seed)
        score = frechet_score(seen, ready.reference_moments(), seed=seed)
        minus = frechet_difference(seen, base, ready.reference_moments(), seed)
        fids = {"fid": [score.value, score.stderr], "minus": [minus.value, minus.stderr]}
        return {**fids, "mflop": plan.mflop, "times": list(plan.times)}

    def tables(self, answers: Answers) -> dict[str, str]:
        seeds = sorted({row["asked"]["seed"] for row in answers.values()})
        names = list(dict.fromkeys(name.split("/")[0] for name in answers))
        rows = []
        for who in sorted(names, key=lambda w: -answers[f"{w}/seed{seeds[0]}"]["mflop"]):
            found = [answers[f"{who}/seed{s}"] for s in seeds if f"{who}/seed{s}" in answers]
            cells = [f"{f['fid'][0]:.3f} ± {f['fid'][1]:.3f}" for f in found]
            minus = ["" if who == "hybrid" else f"{f['minus'][0]:+.3f} ± {f['minus'][1]:.3f}" for f in found]
            rows.append([who if who == "hybrid" else f"global, {who}", f"{found[0]['mflop']:.0f}", *cells, *minus])
        head = ["schedule", "MFLOP", *(f"FID, seed {s}" for s in seeds), *(f"minus hybrid, seed {s}" for s in seeds)]
        n = next(iter(answers.values()))["asked"]["n"]
        return {"": markdown(head, rows, f"n = {n} samples each, {SOLVER}, the shipped classifier's features.")}


def plan_of(who: str) -> pw.HybridSchedule:
    """The shipped hybrid, or the global network at every step of a grid."""
    ready = pw.load_pretrained("mnist")
    if who == "hybrid":
        return ready.schedules["hybrid"]
    times = PLACED[who] if who in PLACED else pw.time_grid(EVEN[who])
    assert ready.prices is not None
    per_call = float(ready.prices.flops[ready.prices.names.index("global")]) / 1e6
    return pw.HybridSchedule(times, ("global",) * len(times), SOLVER, mflop=per_call * len(times))


@cache
def features_of(who: str, n: int, seed: int) -> Tensor:
    """(n, D) features of its samples."""
    ready, plan = pw.load_pretrained("mnist"), plan_of(who)
    hybrid = pw.HybridDenoiser(ready.denoisers(list(dict.fromkeys(plan.assignment))), plan)
    with torch.no_grad():
        images = pw.sample(hybrid, n=n, seed=seed, batch=64).clamp(*ready.pixels.pixel_range)
        return ready.features().extract(images)
