"""Is the measured boundary the one that a search by FID finds, in a tenth of its time?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

import phasewise as pw
from phasewise.metrics import frechet_difference, frechet_score
from phasewise.power import RESOLVED
from phasewise.scheduling import Boundary
from studies import subject
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

RULES = {"frechet": "late", "flow": None}
"""Penalty -> the reference; without one, held-out images judge both."""


@dataclass(frozen=True)
class Options:
    sets: tuple[str, ...] = choice(("mnist", "fashion_mnist"), "shipped sets", quick=("mnist",))
    data: str | None = choice(None, "images instead of the set's own", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds the images")
    early: str = choice("coarse", "who takes the noisy part")
    late: str = choice("global", "who takes the rest; the reference")
    steps: int = choice(16, "of the sampler: the search tries one boundary fewer", quick=3)
    solver: str = choice("sde_dpmpp_2m", "of all")
    n: int = choice(3000, "samples of each boundary of the search", quick=8)
    price_n: int = choice(700, "held-out images of a measured boundary", quick=8)
    seed: int = choice(0, "of the noise")


class BoundaryStudy(Study[Options]):
    """Every boundary of the grid is sampled from the same noise and judged by FID in the shipped classifier's features:
    the search.  Beside it ``pw.boundary`` of the same two networks, on held-out images.  Times are of one thread of one
    machine, each measured once; the search's is that of sampling and of extracting features."""

    name = "boundary"
    question = "Does a boundary measured on held-out images do what a search by FID finds, in a tenth of its time?"
    page = "results/boundary.md"
    options_type = Options
    threads = 1

    def cells(self) -> Iterator[Cell]:
        o = self.options
        common = {"early": o.early, "late": o.late, "steps": o.steps, "solver": o.solver, "seed": o.seed}
        for name in o.sets:
            for penalty in RULES:
                yield Cell(f"{name}/measured/{penalty}", {**common, "n": o.price_n}, (self.measured, name, penalty))
            chosen = {p: self.answers[f"{name}/measured/{p}"]["step"] for p in RULES}
            for k in [*range(1, o.steps), *sorted({0, *chosen.values()} - set(range(1, o.steps)))]:
                yield Cell(f"{name}/search/{k:02d}", {**common, "n": o.n}, (self.judged, name, k))
            best = best_of(self.answers, name)
            for penalty, k in chosen.items():
                asked = {**common, "n": o.n, "step": k, "best": best}
                yield Cell(f"{name}/against/{penalty}", asked, (self.against, name, k, best), again=True)

    def measure(self, cell: Cell) -> dict[str, Any]:
        work, *what = cell.what
        with torch.no_grad():
            answer: dict[str, Any] = work(*what)
        return answer

    def measured(self, name: str, penalty: str) -> dict[str, Any]:
        o, ours = self.options, self.subject(name)
        start = time.perf_counter()
        found = pw.boundary(
            ours.members[o.early], ours.members[o.late], ours.data, reference=RULES[penalty], penalty=penalty,
            features=ours.features, steps=o.steps, solver=o.solver, names=(o.early, o.late), n=o.price_n, seed=o.seed,
        )  # fmt: skip
        return {"seconds": time.perf_counter() - start, "step": found.step, "boundary": found.to_dict()}

    def judged(self, name: str, k: int) -> dict[str, Any]:
        start = time.perf_counter()
        seen = features_of(name, self.options, k)
        seconds = time.perf_counter() - start
        score = frechet_score(seen, self.subject(name).reference, seed=self.options.seed)
        return {"step": k, "seconds": seconds, "fid": [score.value, score.stderr]}

    def against(self, name: str, k: int, best: int) -> dict[str, Any]:
        """FID of a measured boundary less that of the best found, from the same noise."""
        here, there = (features_of(name, self.options, step) for step in (k, best))
        minus = frechet_difference(here, there, self.subject(name).reference, self.options.seed)
        return {"minus": [minus.value, minus.stderr]}

    def subject(self, name: str) -> subject.Subject:
        return subject_of(name, self.options.data, self.options.data_dir)

    def tables(self, answers: Answers) -> dict[str, str]:
        names = list(dict.fromkeys(name.split("/")[0] for name in answers))
        whole = [name for name in names if any(key.startswith(f"{name}/against/") for key in answers)]
        return {"": verdict(answers, whole), "search": searched(answers, whole)} if whole else {}


@cache
def subject_of(name: str, data: str | None, data_dir: str | None) -> subject.Subject:
    return subject.of_shipped(name, data, data_dir)


@cache
def features_of(name: str, o: Options, k: int) -> Tensor:
    """(n, D) features of samples whose first k steps are early's."""
    ours = subject_of(name, o.data, o.data_dir)
    plan = pw.HybridSchedule(pw.time_grid(o.steps), (o.early,) * k + (o.late,) * (o.steps - k), o.solver)
    return ours.features.extract(ours.samples(plan, o.n, o.seed))


def search_of(answers: Answers, name: str) -> list[dict[str, Any]]:
    """All judged boundaries of a set, from late alone on."""
    rows = [row for key, row in answers.items() if key.startswith(f"{name}/search/")]
    return sorted(rows, key=lambda row: row["step"])


def best_of(answers: Answers, name: str) -> int:
    """Steps of early at the least FID of the search, which tries no denoiser alone."""
    tried = [row for row in search_of(answers, name) if 0 < row["step"] < row["asked"]["steps"]]
    return int(min(tried, key=lambda row: row["fid"][0])["step"])


def verdict(answers: Answers, names: list[str]) -> str:
    """A column for each set and way to measure."""
    columns = [(name, penalty) for name in names for penalty in RULES]
    rows = [one_verdict(answers, *column) for column in columns]
    asked, price = answers[f"{names[0]}/search/01"]["asked"], answers[f"{names[0]}/measured/flow"]["asked"]
    notes = (
        f"From {asked['early']} to {asked['late']}, {asked['steps']} steps of {asked['solver']}; n = {asked['n']} "
        f"samples of each boundary, from the same noise. Measured on {price['n']} held-out images. One thread.",
        f"`frechet` has {asked['late']} as reference, `flow` none. Differences are paired; one is "
        "told beyond two standard errors.",
    )
    shown = [[head, *(row[head] for row in rows)] for head in rows[0]]
    return markdown(["", *(f"{name}, `{penalty}`" for name, penalty in columns)], shown, *notes)


def one_verdict(answers: Answers, name: str, penalty: str) -> dict[str, str]:
    judged, best = {row["step"]: row for row in search_of(answers, name)}, best_of(answers, name)
    search = sum(row["seconds"] for k, row in judged.items() if 0 < k < row["asked"]["steps"])
    found = answers[f"{name}/measured/{penalty}"]
    b, (lost, error) = Boundary.from_dict(found["boundary"]), answers[f"{name}/against/{penalty}"]["minus"]
    least, at = judged[best]["fid"], [row[1] for row in b.table()[1]]
    return {
        "boundary measured, t": f"{b.t:.3f}",
        "its interval": f"{b.low:.3f} to {b.high:.3f}",
        "best of the search, t": f"{at[best]:.3f}",
        "lies in the interval": "yes" if b.low < at[best] <= b.high else "no",
        "FID at the measured one": value(judged[b.step]["fid"]),
        "FID at the best": value(least),
        "difference": f"{lost:+.3f} ± {error:.3f}",
        "difference, % of the best": f"{100 * lost / least[0]:+.1f} ± {100 * error / least[0]:.1f}",
        "told apart": "yes" if abs(lost) > RESOLVED * error else "no",
        "cost of the measured one, of late alone": f"{b.mflop[b.step] / b.mflop[0]:.0%}",
        "seconds to measure": f"{found['seconds']:.0f}",
        "seconds of the search": f"{search:.0f}",
        "share of its time": f"{found['seconds'] / search:.1%}",
    }


def searched(answers: Answers, names: list[str]) -> str:
    found = {name: {row["step"]: row for row in search_of(answers, name)} for name in names}
    steps = sorted({k for rows in found.values() for k in rows})
    times = (*pw.time_grid(next(iter(found[names[0]].values()))["asked"]["steps"]), 0.0)
    rows = []
    for k in steps:
        t = "late alone" if k == 0 else f"{(times[k - 1] + times[k]) / 2:.3f}" if times[k] else "early alone"
        rows.append([str(k), t, *(value(found[name][k]["fid"]) if k in found[name] else "" for name in names)])
    return markdown(["steps of early", "t", *(f"FID, {name}" for name in names)], rows)


def value(pair: list[float]) -> str:
    return f"{pair[0]:.3f} ± {pair[1]:.3f}"
