"""The study: judge what the optimiser finds, leads, random mixtures and their neighbours, then the finalists again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasewise as pw
from phasewise.files import read_json
from phasewise.results import JudgeScore, PriceList, SearchedGrid
from phasewise.scheduling import schedule_from_assignment, search_grid
from phasewise.scheduling.charges import Charges, State
from studies import subject
from studies.members.options import KINDS, PENALTIES, Assignment, Options
from studies.members.show import final_table, finalists, first_table, lost, neighbours, ranks, rows_of, without
from studies.study import Answers, Cell, Study
from studies.timing import seconds_of


class Members(Study[Options]):
    """On one grid each step is given to a network, a closed form, the answer of the steps before held or carried on, or
    the global network with its inside kept.  Judged from the same noise: what the optimiser finds, leads, random ones.
    Finalists are judged again on other noise by all judges, paired with a rival, and timed."""

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
        for lead in o.own_times:
            asked = {"n": o.n, "seed": o.seed, "grids": o.grids, "first": self.times[0], "solver": o.solver}
            yield Cell(f"{place}/search/{lead}", asked, partial(self.searched, spelt(lead), lead))
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
        for lead in o.own_times:
            # what a schedule costs does not depend on where in time its steps are
            found = SearchedGrid.from_dict(self.answers[f"{self.place}/search/{lead}"]["search"])
            yield "own", lead, replace(made(spelt(lead)), times=found.times)
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

    def searched(self, assignment: Assignment, name: str) -> dict[str, Any]:
        """The best start times of a schedule by all judges together, as the global network gets them too: the mean of
        the judges' distances, each as a share of its value for the global network at every step of the given grid."""
        ours, o = self.subject, self.options
        whole = self.scores(pw.HybridSchedule(self.times, ("global",) * len(self.times), o.solver), o.n, o.seed)

        def lost(images: Tensor) -> float:
            seen = ours.judged(images.clamp(*ours.data.pixel_range), o.seed)
            return float(np.mean([seen[judge].value / whole[judge].value for judge in whole]))

        given = [ours.members[who] for who in assignment]
        found = search_grid(
            given, len(given), lost, solver=o.solver, n=o.n, seed=o.seed, first=self.times[0], budget=o.grids,
            folder=self.work / self.place / name, about=f"all judges, {name}",
        )  # fmt: skip
        return {"search": found.to_dict()}

    def placed(self) -> dict[str, list[float]]:
        if self.options.placed is None:
            return {}
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
        if o.rival not in plans:
            raise pw.PhasewiseError(f"--rival {o.rival!r} is none of the finalists: {', '.join(plans)}")
        rival = plans[o.rival]
        for seed in o.seeds:
            for name, plan in plans.items():
                asked = {"n": o.final, "seed": seed, "assignment": plan.assignment, "times": plan.times}
                if o.rival != Options.rival:
                    asked["rival"] = [rival.assignment, rival.times]
                yield Cell(f"{place}/final/{name}--{seed}", asked, partial(self.again, plan, rival, seed), again=True)
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

    def again(self, plan: pw.HybridSchedule, rival: pw.HybridSchedule, seed: int) -> dict[str, Any]:
        n = self.options.final
        if seed not in self.kept:
            self.kept[seed] = self.scores(rival, n, seed)
        whole, same = self.kept[seed], (plan.assignment, plan.times) == (rival.assignment, rival.times)
        found = whole if same else self.scores(plan, n, seed)
        minus = {k: s.minus(whole[k]) for k, s in found.items()}
        return {
            "mflop": plan.mflop,
            "judges": {k: [s.value, s.stderr] for k, s in found.items()},
            "minus": {k: [m.difference, m.stderr] for k, m in minus.items()},
        }

    @cached_property
    def kept(self) -> dict[int, dict[str, JudgeScore]]:
        """The rival's scores, by seed."""
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
            rows = rows_of(answers, place)
            if sum(bool(row["penalties"]) for row in rows.values()) > 2:
                texts[f"{place} ranks"] = ranks(rows)
            if rows_of(answers, place, ("without",)):
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
