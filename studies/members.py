"""Every cheap way to denoise as a member: the front of all, what each kind adds, and which penalty ranks them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import phasewise as pw
from phasewise.results import JudgeScore, PriceList
from phasewise.scheduling import schedule_from_assignment
from phasewise.scheduling.charges import Charges, State
from studies import subject
from studies.front.rows import mean_of
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study
from studies.timing import seconds_of

Assignment = tuple[str, ...]
REUSED = {"on": "answer carried on", "held": "answer held", "deep": "features kept", "deep1": "features carried on"}
KINDS: dict[str, tuple[str, ...]] = {
    "answers reused": ("on", "held"),
    "features kept": ("deep", "deep1"),
    "cheaper global networks": ("coarse", "small"),
    "local networks": ("r1", "r2", "r3", "r5", "r8", "r12"),
    "closed forms": ("pixel", "wiener"),
    "a plan and the rest local": ("plan", "replan"),
    "a lower resolution": ("pooled",),
    "windows of attention": ("w1", "w2", "w3"),
}
"""Kinds of members, by the names that the study gives them."""
PENALTIES = ("frechet", "w2", "kl")
JUDGES = ("first", "unseen", "sliced")
BUDGETS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7)
LEADS = (
    "pixel 6*global global", "pixel 5*global on global", "pixel 5*global deep global", "pixel 5*global on r1",
    "pixel 4*global on on global", "pixel 4*global on on r1", "pixel coarse 4*global on r1",
    "pixel 2*coarse 3*global on r1", "pixel 2*coarse 3*global deep r1", "pixel 2*coarse 3*global on global",
    "pixel 2*coarse 2*global on on r1", "pixel 2*coarse 2*global deep on r1", "pixel 2*coarse global deep global on r1",
    "pixel 2*coarse global deep deep on r1", "pixel 2*coarse 2*global on deep r1", "pixel wiener coarse 3*global on r1",
    "pixel wiener coarse 2*global on on r1", "pixel wiener coarse global deep global on r1",
    "pixel wiener coarse coarse 2*global on r1", "pixel wiener 2*coarse global on on r1",
    "pixel wiener global deep global deep on r1", "pixel wiener global deep global on on r1",
    "pixel coarse global deep global on on r1", "pixel global deep global deep global on r1",
    "pixel wiener coarse 2*global deep on r1", "pixel wiener coarse global 2*deep on r1",
    "pixel 2*coarse 2*global 2*deep r1", "pixel 3*coarse global 2*deep r1", "pixel 3*coarse global deep on r1",
    "pixel 3*coarse global on deep r1", "pixel wiener 2*coarse global on deep r1",
    "pixel wiener 2*coarse global deep on r1",
    "pixel wiener 2*coarse global 2*deep r1", "pixel wiener coarse 2*global on deep r1",
    "pixel wiener coarse 2*global 2*deep r1", "pixel 2*coarse small global on deep r1",
    "pixel 2*coarse small global deep on r1", "pixel wiener coarse small global on deep r1",
)  # fmt: skip
"""Schedules of eight steps that no penalty chose; "5*global" is global five times."""


@dataclass(frozen=True)
class Options:
    pretrained: str | None = choice("mnist", "shipped set")
    run: str | None = choice(None, "a run folder instead")
    data: str | None = choice(None, "images instead of the set's own", quick=subject.STAND_IN, flag=False)
    data_dir: str | None = choice(None, "folder that holds the images")
    members: tuple[str, ...] = choice(
        ("global", "coarse", "small", "r1", "r3", "wiener"), "of the subject", quick=("global", "coarse", "r1")
    )
    also: tuple[str, ...] = choice((), "NAME=FOLDER of further denoisers; global=FOLDER takes the global one's place")
    deep: str = choice("level1", "part of the global network that is kept")
    steps: int = choice(8, "of a schedule, on an even grid", quick=8, flag=False)
    times: tuple[float, ...] = choice((), "start times of the steps instead")
    solver: str = choice("sde_dpmpp_2m", "of all; one call a step", flag=False)
    price_n: int = choice(1000, "validation images of the price list", quick=8)
    n: int = choice(1000, "samples of each schedule, once", quick=8)
    count: int = choice(100, "schedules drawn at random, of all kinds of members", quick=4)
    budgets: tuple[float, ...] = choice(BUDGETS, "of the optimised ones, of all global", quick=(0.4,))
    leads: tuple[str, ...] = choice(LEADS, "schedules of eight steps that no penalty chose", quick=LEADS[5:6])
    climbs: int = choice(0, "rounds of trying the neighbours of the best of every budget", quick=1)
    tries: int = choice(8, "neighbours tried in a round and budget", quick=1, flag=False)
    called: str | None = choice(None, "name of the tables, where the subject's is taken by another grid")
    placed: str | None = choice(None, "JSON of NAME: start times, of the global network alone")
    final: int = choice(0, "then judge the finalists on so many samples", quick=10)
    finalists: int = choice(14, "how many of them", quick=2)
    seeds: tuple[int, ...] = choice((1, 2), "of the finalists' noise", quick=(1,))
    seed: int = choice(0, "of the draw and of the first noise", flag=False)
    timed: tuple[int, ...] = choice(
        (1, 64), "images of the batches that finalists are timed on", quick=(1,), flag=False
    )
    rounds: int = choice(7, "in which they are timed", quick=1, flag=False)


class Members(Study[Options]):
    """On one grid each step is given to a network, a closed form, the answer of the steps before held or carried on, or
    the global network with its inside kept.  Judged from the same noise: what the optimiser finds by each penalty, with
    every kind of member and with each left out; schedules that no penalty chose; random ones of all kinds, for the rank
    correlation of penalty and judges.  Finalists are judged again on other noise by all judges, paired with the global
    network at every step, and timed."""

    name = "members"
    question = "What does every kind of cheap member add to the front, and does the penalty rank mixtures of all kinds?"
    page = "results/members.md"
    options_type = Options

    @cached_property
    def subject(self) -> subject.Subject:
        o = self.options
        found = subject.subject_of(None if o.run else o.pretrained, o.run, o.data, o.data_dir)
        members = {n: found.members[n] for n in o.members if n in found.members}
        for name, folder in (entry.split("=", 1) for entry in o.also):
            members[name] = pw.load_denoiser(folder)
        image, pixels = found.data.image_shape, found.data.pixel_range
        members["pixel"] = pw.PixelDenoiser.fit(found.data.train)
        members["on"] = pw.ReusedAnswer(image, 1, clamp=pixels)
        members["held"] = pw.ReusedAnswer(image, 0, clamp=pixels)
        members["deep"] = pw.ReusedFeatures(members["global"], o.deep)
        members["deep1"] = pw.ReusedFeatures(members["global"], o.deep, 1)
        if "plan" in members:
            members["replan"] = pw.ReusedFeatures(members["plan"], "plan")
        return replace(found, members=members)

    @property
    def place(self) -> str:
        """What its cells and tables are called."""
        return self.options.called or self.subject.name

    @property
    def times(self) -> tuple[float, ...]:
        return self.options.times or pw.time_grid(self.options.steps)

    def cells(self) -> Iterator[Cell]:
        o, place = self.options, self.place
        common = {"times": self.times, "solver": o.solver, "members": list(self.subject.members)}
        yield Cell(f"{place}/prices", {**common, "n": o.price_n}, self.prices)
        prices = PriceList.from_dict(self.answers[f"{place}/prices"]["prices"])
        for part, name, plan in self.plans(prices):
            asked = {
                "n": o.n,
                "seed": o.seed,
                "assignment": plan.assignment,
                "times": plan.times,
                "solver": plan.solver,
            }
            yield Cell(f"{place}/{part}/{name}", asked, partial(self.first, plan, prices), again=True)
        yield from self.climbed(prices)
        if o.final:
            yield from self.final(prices)

    def plans(self, prices: PriceList) -> Iterator[tuple[str, str, pw.HybridSchedule]]:
        """(part, name, schedule) of all that is judged once, every schedule under the first name it has."""
        o, seen = self.options, set[tuple[Any, ...]]()
        made = partial(schedule_from_assignment, prices, solver=o.solver)

        def fresh(plan: pw.HybridSchedule) -> bool:
            key = (plan.assignment, plan.times)
            return key not in seen and not seen.add(key)  # type: ignore[func-returns-value]

        yield "whole", "global", made(("global",) * len(self.times))
        for name, times in self.placed().items():
            cost = float(prices.flops[prices.names.index("global")]) / 1e6 * (len(times) - 1)
            # at t = 1 the answer is the data mean, for rivals too
            who = ("pixel", *("global",) * (len(times) - 1))
            yield "placed", name, pw.HybridSchedule(tuple(times), who, o.solver, prices.losses.path, mflop=cost)
        for lead in o.leads:
            assignment = spelt(lead)
            can = len(assignment) == len(self.times) and set(assignment) <= set(self.subject.members)
            if can and fresh(plan := made(assignment)):
                yield "lead", lead, plan
        for penalty in PENALTIES[: 2 if o.budgets else 0]:
            for budget in o.budgets:
                plan = self.best(prices, penalty, budget, ())
                if fresh(plan):
                    yield "optimised", f"{penalty} at {budget}", plan
        for kind, names in KINDS.items():
            if set(names) & set(self.subject.members):
                for budget in o.budgets[2:8:2] or o.budgets:
                    plan = self.best(prices, "frechet", budget, names)
                    yield "without", f"{kind} at {budget}", plan
        for k, assignment in enumerate(drawn(Charges(prices, None, o.solver), o.count, o.seed)):
            if fresh(plan := made(assignment)):
                yield "random", f"{k:03d}", plan

    def climbed(self, prices: PriceList) -> Iterator[Cell]:
        """Neighbours of what the judges of this noise like best within every budget, the least penalty first: a search
        on samples that begins where penalties and leads end."""
        o, place = self.options, self.place
        charges, whole = Charges(prices, "frechet", o.solver), pw.scheduling.reference_mflop(prices, o.solver)
        for turn in range(o.climbs):
            for budget in o.budgets:
                rows = {k: r for k, r in rows_of(self.answers, place).items() if r["penalties"]}
                can = [k for k in rows if rows[k]["mflop"] <= budget * whole * (1 + 1e-9)]
                if not can:
                    continue
                tried = {tuple(r["schedule"]["assignment"]) for r in rows.values()}
                best = tuple(rows[min(can, key=lambda k: lost(rows[k], rows))]["schedule"]["assignment"])
                found = []
                for near in neighbours(best, charges.names):
                    try:
                        walk = charges.walk(near)
                    except pw.PhasewiseError:
                        continue  # leans on what this change has taken away
                    if near not in tried and float(walk.mflop.sum()) <= budget * whole * (1 + 1e-9):
                        found.append((float(walk.value.sum()), near))
                for k, (_, near) in enumerate(sorted(found)[: o.tries]):
                    plan = schedule_from_assignment(prices, near, solver=o.solver)
                    asked = {"n": o.n, "seed": o.seed, "assignment": near, "times": plan.times, "solver": plan.solver}
                    name = f"{place}/climbed/{turn} at {budget}, {k}"
                    yield Cell(name, asked, partial(self.first, plan, prices), again=True)

    def placed(self) -> dict[str, list[float]]:
        if self.options.placed is None:
            return {}
        from phasewise.files import read_json

        found: dict[str, list[float]] = read_json(Path(self.options.placed))
        return found

    def best(self, prices: PriceList, penalty: str, budget: float, without: tuple[str, ...]) -> pw.HybridSchedule:
        """The optimiser's schedule of least penalty within the budget, without some members."""
        o = self.options
        names = [n for n in Charges(prices, penalty, o.solver).names if n not in without]
        return pw.optimise_schedule(prices, budget, penalty=penalty, solver=o.solver, members=names, ties=0)

    def final(self, prices: PriceList) -> Iterator[Cell]:
        o, place = self.options, self.place
        plans = finalists(self.answers, place, o.finalists)
        for seed in o.seeds:
            for name, plan in plans.items():
                asked = {"n": o.final, "seed": seed, "assignment": plan.assignment, "times": plan.times}
                yield Cell(f"{place}/final/{name}--{seed}", asked, partial(self.again, plan, seed), again=True)
        asked = {"plans": {k: [p.assignment, p.times] for k, p in plans.items()}, "rounds": o.rounds}
        for batch in o.timed:
            yield Cell(f"{place}/ms/{batch}", {**asked, "batch": batch}, partial(self.timed, plans, batch), again=True)

    def measure(self, cell: Cell) -> dict[str, Any]:
        work: Callable[[], dict[str, Any]] = cell.what
        with torch.no_grad():
            return work()

    def prices(self) -> dict[str, Any]:
        ours, o = self.subject, self.options
        found = pw.price_list(
            ours.members, ours.data, self.times, n=o.price_n, seed=3, features=ours.features, solver=o.solver, batch=64
        )
        return {"prices": found.to_dict()}

    def scores(self, plan: pw.HybridSchedule, n: int, seed: int) -> dict[str, JudgeScore]:
        return self.subject.judged(self.subject.samples(plan, n, seed), seed)

    def first(self, plan: pw.HybridSchedule, prices: PriceList) -> dict[str, Any]:
        o = self.options
        found = {k: [s.value, s.stderr] for k, s in self.scores(plan, o.n, o.seed).items()}
        lost = {}
        if np.array_equal(plan.times, prices.times):
            for penalty in PENALTIES:
                priced = schedule_from_assignment(prices, plan.assignment, penalty=penalty, solver=o.solver)
                lost[penalty] = [priced.penalty, priced.penalty_stderr]
        return {"mflop": plan.mflop, "judges": found, "penalties": lost, "schedule": plan.to_dict()}

    def again(self, plan: pw.HybridSchedule, seed: int) -> dict[str, Any]:
        n = self.options.final
        found, whole = self.scores(plan, n, seed), self.whole(seed)
        minus = {k: s.minus(whole[k]) for k, s in found.items()}
        return {
            "mflop": plan.mflop,
            "judges": {k: [s.value, s.stderr] for k, s in found.items()},
            "minus": {k: [m.difference, m.stderr] for k, m in minus.items()},
        }

    def whole(self, seed: int) -> dict[str, JudgeScore]:
        """The judges' scores of the global network at every step."""
        if seed not in self.kept:
            plan = pw.HybridSchedule(self.times, ("global",) * len(self.times), self.options.solver)
            self.kept[seed] = self.scores(plan, self.options.final, seed)
        return self.kept[seed]

    @cached_property
    def kept(self) -> dict[int, dict[str, JudgeScore]]:
        return {}

    def timed(self, plans: dict[str, pw.HybridSchedule], batch: int) -> dict[str, Any]:
        """Milliseconds an image of one batch, all in turn: median, and half the range of the middle half."""
        works = {k: partial(pw.sample, self.subject.of(p), n=batch, seed=0, batch=batch) for k, p in plans.items()}
        seen = seconds_of(works, self.options.rounds)
        low, middle, high = ({k: float(np.quantile(v, q)) for k, v in seen.items()} for q in (0.25, 0.5, 0.75))
        return {"ms": {k: [middle[k] * 1e3 / batch, (high[k] - low[k]) * 500 / batch] for k in seen}}

    def tables(self, answers: Answers) -> dict[str, str]:
        texts = {}
        for place in dict.fromkeys(name.split("/")[0] for name in answers):
            texts[f"{place} ranks"] = ranks(rows_of(answers, place))
            texts[f"{place} without"] = without(answers, place)
            texts[place] = first_table(rows_of(answers, place))
            if any(name.startswith(f"{place}/final/") for name in answers):
                texts[f"{place} final"] = final_table(answers, place)
        return texts


def spelt(lead: str) -> Assignment:
    """ "pixel 2*global" as names."""
    parts = [(part.split("*") if "*" in part else ("1", part)) for part in lead.split()]
    return tuple(name for count, name in parts for _ in range(int(count)))


def drawn(charges: Charges, count: int, seed: int) -> list[Assignment]:
    """Distinct random assignments that can be: every second one of at most four spans, in which some steps lean on
    earlier ones."""
    rng, found = np.random.default_rng(seed), dict[Assignment, None]()
    plain, reused = list(charges.prices.names), [n for n in charges.names if n in charges.by]
    steps = len(charges.prices.times)
    while len(found) < count:
        if len(found) % 2:
            base = [str(n) for n in rng.choice(plain, steps)]
        else:
            cuts = np.sort(rng.integers(0, steps + 1, 3))
            base = [plain[i] for i in rng.integers(0, len(plain), 4)[np.searchsorted(cuts, np.arange(steps), "right")]]
        state, taken = State(), list[str]()
        for k, name in enumerate(base):
            can = [r for r in reused if charges.charged(k, r, state) is not None]
            who = str(rng.choice(can)) if can and rng.random() < 0.35 else name
            taken.append(who)
            state = charges.after(k, who, state)
        found[tuple(taken)] = None
    return list(found)


# --- what is made of the answers -------------------------------------------------------------------------------------

Rows = dict[str, dict[str, Any]]
PARTS = ("whole", "placed", "lead", "optimised", "without", "random", "climbed")


def lost(row: dict[str, Any], rows: Rows) -> float:
    """The mean of the first two judges, each as a share of its value for the global network at every step."""
    whole = rows["whole/global"]["judges"]
    return float(np.mean([row["judges"][j][0] / whole[j][0] for j in JUDGES[:2] if j in whole]))


def neighbours(assignment: Assignment, names: tuple[str, ...]) -> Iterator[Assignment]:
    """Those that differ in one step."""
    for k, own in enumerate(assignment):
        yield from ((*assignment[:k], name, *assignment[k + 1 :]) for name in names if name != own)


def rows_of(answers: Answers, place: str, parts: tuple[str, ...] = PARTS) -> Rows:
    heads = tuple(f"{place}/{part}/" for part in parts)
    return {name.removeprefix(f"{place}/"): row for name, row in answers.items() if name.startswith(heads)}


def finalists(answers: Answers, place: str, count: int) -> dict[str, pw.HybridSchedule]:
    """The global network at every step and placed, and of the rest those that no cheaper one beats by the mean of the
    first two judges, each as a share of its value for the global network; the best of them."""
    rows = rows_of(answers, place)
    kept: list[str] = []
    mixed = [name for name in rows if not name.startswith(("whole/", "placed/"))]
    for name in sorted(mixed, key=lambda k: (rows[k]["mflop"], lost(rows[k], rows))):
        if not kept or lost(rows[name], rows) < lost(rows[kept[-1]], rows):
            kept.append(name)
    best = sorted(kept, key=lambda k: lost(rows[k], rows))[:count]
    rivals = [n for n in rows if n.startswith(("whole/", "placed/"))]
    return {n.replace("/", " "): pw.HybridSchedule.from_dict(rows[n]["schedule"]) for n in [*rivals, *best]}


def ranks(rows: Rows) -> str:
    """Spearman's correlation of every penalty with every judge, over the mixtures of all kinds."""
    priced = [r for r in rows.values() if r["penalties"]]
    mixed = [r for name, r in rows.items() if name.startswith(("random/", "optimised/", "lead/")) and r["penalties"]]
    if len(mixed) < 3:
        return f"{len(priced)} schedules were priced and judged; too few for a correlation."
    rng, shown = np.random.default_rng(0), []
    for penalty in PENALTIES:
        lost = np.array([r["penalties"][penalty][0] for r in mixed])
        cells = [penalty]
        for judge in JUDGES:
            seen = np.array([r["judges"].get(judge, [np.nan])[0] for r in mixed])
            drawn_again = [
                spearmanr(lost[k], seen[k]).statistic for k in rng.integers(0, len(mixed), (300, len(mixed)))
            ]
            low, high = np.quantile(drawn_again, (0.025, 0.975))
            cells.append(f"{spearmanr(lost, seen).statistic:.2f} ({low:.2f} to {high:.2f})")
        shown.append(cells)
    n = mixed[0]["asked"]["n"]
    heads = ["penalty", *(f"with the {judge} judge" for judge in JUDGES)]
    return markdown(heads, shown, f"{len(mixed)} schedules, n = {n} samples each; 95 % interval by bootstrap.")


def who(assignment: Assignment) -> str:
    """Names with their repeats counted."""
    runs = [(name, len(list(group))) for name, group in itertools.groupby(assignment)]
    return " ".join(name if count == 1 else f"{count} × {name}" for name, count in runs)


def shown_value(found: list[float] | None) -> str:
    return "" if found is None else f"{found[0]:.3f} ± {found[1]:.3f}"


def first_table(rows: Rows) -> str:
    """What no cheaper one beats by the first or by the unseen judge, the cheapest first."""
    kept, best = [], dict[str, float]()
    for name in sorted(rows, key=lambda k: rows[k]["mflop"]):
        judges = {j: v[0] for j, v in rows[name]["judges"].items() if j in JUDGES[:2]}
        better = [j for j, v in judges.items() if v < best.get(j, np.inf)]
        best |= {j: judges[j] for j in better}
        if better or name.startswith(("whole/", "placed/")):
            kept.append(name)
    shown = [
        [f"{rows[k]['mflop']:.0f}", *(shown_value(rows[k]["judges"].get(j)) for j in JUDGES[:2]),
         who(tuple(rows[k]["schedule"]["assignment"])), k.split("/")[0]]
        for k in kept
    ]  # fmt: skip
    n = rows[kept[0]]["asked"]["n"]
    note = f"{len(rows)} schedules judged once, n = {n}, one noise; listed is what no cheaper one beats by a judge."
    return markdown(["MFLOP", "FID", "unseen FID", "who", "found as"], shown, note)


def without(answers: Answers, place: str) -> str:
    """The optimum with each kind of member left out."""
    left, every = rows_of(answers, place, ("without",)), rows_of(answers, place)
    by_plan = {tuple(row["schedule"]["assignment"]): row for row in every.values() if row["penalties"]}
    prices = PriceList.from_dict(answers[f"{place}/prices"]["prices"])
    solver, shown = next(iter(every.values()))["schedule"]["solver"], []
    budgets = sorted({name.split(" at ")[1] for name in left}, key=float)
    rows: dict[str, list[str]] = {}
    for budget in budgets:
        plan = pw.optimise_schedule(prices, float(budget), penalty="frechet", solver=solver, ties=0)
        found = by_plan.get(plan.assignment)
        seen = "" if found is None else f"{found['judges']['first'][0]:.2f}"
        rows.setdefault("nothing", []).append(f"{plan.penalty:.3f}; {seen}")
    for name, row in left.items():
        kind, _ = name.removeprefix("without/").split(" at ")
        rows.setdefault(kind, []).append(f"{row['penalties']['frechet'][0]:.3f}; {row['judges']['first'][0]:.2f}")
    shown = [[kind, *cells] for kind, cells in rows.items()]
    note = "The optimum by frechet: its penalty; FID by the first judge."
    return markdown(["left out", *(f"at {b} of the cost" for b in budgets)], shown, note)


def final_table(answers: Answers, place: str) -> str:
    """Finalists, seeds averaged: judges, paired difference to the global network at every step, milliseconds."""
    seeds: dict[str, list[dict[str, Any]]] = {}
    for name, row in answers.items():
        if name.startswith(f"{place}/final/"):
            seeds.setdefault(name.removeprefix(f"{place}/final/").rsplit("--", 1)[0], []).append(row)
    batches = sorted(int(n.split("/")[2]) for n in answers if n.startswith(f"{place}/ms/"))
    ms = {b: answers[f"{place}/ms/{b}"]["ms"] for b in batches}
    shown = []
    for name, rows in sorted(seeds.items(), key=lambda item: item[1][0]["mflop"]):
        cells = [f"{rows[0]['mflop']:.0f}", *(f"{ms[b][name][0]:.2f}" if name in ms[b] else "" for b in batches)]
        for judge in JUDGES:
            if judge in rows[0]["judges"]:
                value, minus = (mean_of([r[key][judge] for r in rows]) for key in ("judges", "minus"))
                digits = 3 if judge != "sliced" else 5
                cells += [
                    f"{value[0]:.{digits}f}",
                    "" if name == "whole global" else f"{minus[0]:+.{digits}f} ± {minus[1]:.{digits}f}",
                ]
        shown.append([who(tuple(rows[0]["asked"]["assignment"])), *cells])
    heads = ["who", "MFLOP", *(f"ms, batch {b}" for b in batches)]
    for judge in JUDGES:
        heads += [{"first": "FID", "unseen": "unseen FID", "sliced": "sliced Wasserstein"}[judge], "minus all global's"]
    first = next(iter(seeds.values()))
    n, count = first[0]["asked"]["n"], len(first)
    return markdown(
        heads, shown, f"n = {n} samples a seed, {count} seeds, none of which chose; differences are paired."
    )
