"""Random schedules with FID as judge: which penalty ranks them best, and does the optimiser keep up with the search?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import phasewise as pw
from phasewise.results import PriceList
from phasewise.scheduling import schedule_from_assignment
from studies import subject
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

PENALTIES = ("frechet", "w2", "flow", "kl")
OPTIMISED = ("frechet", "w2")
"""The optimiser's schedules under these are judged beside the best random ones."""
GOOD = 5
"""Schedules within so many times the best FID are ranked on their own, too."""
Assignment = tuple[str, ...]


@dataclass(frozen=True)
class Options:
    pretrained: str = choice("mnist", "shipped set")
    run: str | None = choice(None, "a run folder instead")
    data: str | None = choice(None, "images instead of the set's own", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds the images")
    members: tuple[str, ...] = choice(
        (), "only these; fewer bad ones make a stronger search", quick=("r1", "r3", "global")
    )
    steps: int = choice(8, "of a schedule", quick=3)
    solver: str = choice("exp_ab2", "of all")
    n: int = choice(2000, "samples of each schedule", quick=8)
    price_n: int = choice(2000, "validation images of the price list", quick=8)
    timed: int = choice(64, "images of the batch that a call is timed on", quick=2)
    growth_trajectories: int = choice(0, "trajectories that the growth of a push is measured on")
    count: int = choice(200, "random schedules", quick=6)
    best: int = choice(10, "judged again in every third of the cost range", quick=1)
    again: int = choice(10_000, "on so many samples", quick=8)
    seed: int = choice(0, "of the draw and of the noise")


class RandomSearch(Study[Options]):
    """On one grid, by one multistep solver, each step gets a member drawn at random (half of the schedules change
    member at most three times, as real ones do).  Every schedule is sampled from the same noise.  Spearman's
    correlation of FID with each penalty tells which to minimise (99 % interval by bootstrap over schedules).  The best
    per third of the cost range are judged again on more samples, beside what the optimiser chooses at their cost."""

    name = "random_search"
    question = "Which penalty ranks schedules as FID does, and does the optimiser keep up with a random search?"
    page = "results/schedules.md"
    options_type = Options

    @cached_property
    def subject(self) -> subject.Subject:
        o = self.options
        found = subject.subject_of(None if o.run else o.pretrained, o.run, o.data, o.data_dir)
        return replace(found, members={n: found.members[n] for n in o.members or found.members})

    def cells(self) -> Iterator[Cell]:
        o, place = self.options, self.subject.name
        common = {"steps": o.steps, "solver": o.solver, "members": list(self.subject.members), "seed": o.seed}
        priced = {"n": o.price_n, "growth_trajectories": o.growth_trajectories}
        yield Cell(f"{place}/prices", {**common, **priced}, self.prices)
        prices = PriceList.from_dict(self.answers[f"{place}/prices"]["prices"])
        for k, assignment in enumerate(draw(list(self.subject.members), o.steps, o.count, o.seed)):
            plan = schedule_from_assignment(prices, assignment, solver=o.solver)
            asked = {**common, "n": o.n, "assignment": assignment}
            yield Cell(f"{place}/random/{k:04d}", asked, lambda p=plan: self.judged(p, o.n, o.seed))
        again = {**common, "n": o.again, "best": o.best, "count": o.count}
        for k, third in enumerate(thirds(self.found(place))):
            yield Cell(f"{place}/best/{k}", again, lambda t=third: self.contest(prices, t))
        for k, row in enumerate(self.answers[f"{place}/best/{k}"] for k in range(3)):
            for penalty in OPTIMISED:
                work = lambda r=row, p=penalty: self.optimised(prices, r["mflop"], p)  # noqa: E731
                yield Cell(f"{place}/optimised/{k}-{penalty}", {**again, "mflop": row["mflop"]}, work)

    def found(self, place: str) -> list[dict[str, Any]]:
        """The random schedules of this call with their FID."""
        return [row for name, row in self.answers.items() if name.startswith(f"{place}/random/")]

    def measure(self, cell: Cell) -> dict[str, Any]:
        work: Callable[[], dict[str, Any]] = cell.what
        with torch.no_grad():
            return work()

    def prices(self) -> dict[str, Any]:
        ours, o = self.subject, self.options
        choices: dict[str, Any] = {"n": o.price_n, "seed": 3, "batch": o.timed, "features": ours.features}
        choices |= {"trajectories": o.growth_trajectories}
        return {"prices": pw.price_list(ours.members, ours.data, pw.time_grid(o.steps), **choices).to_dict()}

    def judged(self, plan: pw.HybridSchedule, n: int, seed: int) -> dict[str, Any]:
        ours = self.subject
        score = pw.fid(ours.samples(plan, n, seed), ours.reference, ours.features, seed=seed)
        return {"assignment": plan.assignment, "mflop": plan.mflop, "fid": [score.value, score.stderr]}

    def contest(self, prices: PriceList, third: list[dict[str, Any]]) -> dict[str, Any]:
        """The best of the most promising, on more samples and other noise."""
        o, rows = self.options, []
        for row in sorted(third, key=lambda r: r["fid"][0])[: o.best]:
            plan = schedule_from_assignment(prices, row["assignment"], solver=o.solver)
            rows.append(self.judged(plan, o.again, o.seed + 1))
        return min(rows, key=lambda r: r["fid"][0])

    def optimised(self, prices: PriceList, mflop: float, penalty: str) -> dict[str, Any]:
        """What the optimiser finds at no higher cost."""
        o = self.options
        front = pw.pareto_front(prices, penalty=penalty, solver=o.solver)
        assignment = front.assignments[int(np.flatnonzero(front.mflop <= mflop * (1 + 1e-9))[-1])]
        plan = schedule_from_assignment(prices, assignment, penalty=penalty, solver=o.solver)
        return self.judged(plan, o.again, o.seed + 1)

    def tables(self, answers: Answers) -> dict[str, str]:
        return {place: table(place, answers) for place in dict.fromkeys(name.split("/")[0] for name in answers)}


def draw(names: list[str], steps: int, count: int, seed: int) -> list[Assignment]:
    """Distinct random assignments; every second one of at most four spans."""
    rng, found = np.random.default_rng(seed), dict[Assignment, None]()
    while len(found) < count:
        if len(found) % 2:
            who = rng.choice(names, steps)
        else:
            cuts = np.sort(rng.integers(0, steps + 1, 3))
            who = np.array(names)[rng.integers(0, len(names), 4)][np.searchsorted(cuts, np.arange(steps), "right")]
        found[tuple(str(s) for s in who)] = None
    return list(found)


def thirds(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Three parts of rising cost."""
    ordered = sorted(rows, key=lambda r: r["mflop"])
    return [[ordered[i] for i in part] for part in np.array_split(np.arange(len(ordered)), 3)]


def table(place: str, answers: Answers) -> str:
    prices = PriceList.from_dict(answers[f"{place}/prices"]["prices"])
    rows = [row for name, row in answers.items() if name.startswith(f"{place}/random/")]
    asked = rows[0]["asked"]
    fid = np.array([r["fid"][0] for r in rows])
    good = int((fid <= GOOD * fid.min()).sum())
    heads = ["price", "Spearman with FID", "99 % interval", "cheapest third", f"FID to {GOOD} times the best ({good})"]
    rng = np.random.default_rng(0)
    shown = [[p, *ranks(rows, prices, p, rng)] for p in PENALTIES]
    note = f"{len(rows)} schedules of {asked['steps']} {asked['solver']} steps, n = {asked['n']} samples each."
    return f"{markdown(heads, shown, note)}\n\n{contests(place, answers)}"


def ranks(rows: list[dict[str, Any]], prices: PriceList, penalty: str, rng: np.random.Generator) -> list[str]:
    """Spearman's correlation of one penalty with FID: all, its 99 % interval, the cheapest third, the good ones."""
    solver = rows[0]["asked"]["solver"]
    plans = [schedule_from_assignment(prices, r["assignment"], penalty=penalty, solver=solver) for r in rows]
    lost = np.array([plan.penalty for plan in plans])
    fid, mflop = np.array([r["fid"][0] for r in rows]), np.array([r["mflop"] for r in rows])

    def rank(some: np.ndarray) -> float:
        return float(spearmanr(lost[some], fid[some]).statistic)

    low, high = np.quantile([rank(k) for k in rng.integers(0, len(rows), (500, len(rows)))], (0.005, 0.995))
    cheap, good = np.argsort(mflop)[: len(rows) // 3], np.flatnonzero(fid <= GOOD * fid.min())
    return [f"{rank(np.arange(len(rows))):.3f}", f"{low:.3f} to {high:.3f}", f"{rank(cheap):.3f}", f"{rank(good):.3f}"]


def contests(place: str, answers: Answers) -> str:
    """The best random schedule of every third of the cost range beside the optimiser's."""
    heads = ["MFLOP", "best random: FID", "who"]
    for penalty in OPTIMISED:
        heads += [f"optimiser, {penalty}: FID", "who"]
    shown, asked = [], {}
    for k in range(3):
        row = answers.get(f"{place}/best/{k}")
        if row is None:
            continue
        cells, asked = [f"{row['mflop']:.0f}", value(row["fid"]), " ".join(row["assignment"])], row["asked"]
        for penalty in OPTIMISED:
            found = answers.get(f"{place}/optimised/{k}-{penalty}")
            who = "" if found is None else " ".join(found["assignment"])
            cells += ["" if found is None else f"{value(found['fid'])} at {found['mflop']:.0f}", who]
        shown.append(cells)
    if not shown:
        return "No third of the cost range has been judged again yet."
    note = (
        f"Judged again on {asked['n']} samples with another seed; best of {asked['best']} by FID, per third of "
        "the cost, and what the optimiser finds at no higher cost."
    )
    return markdown(heads, shown, note)


def value(pair: list[float]) -> str:
    return f"{pair[0]:.2f} ± {pair[1]:.2f}"
