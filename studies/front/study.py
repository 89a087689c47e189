"""The study: judge every schedule from the same noise, then the finalists again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasewise as pw
from phasewise.metrics import (
    ClassifierFeatures,
    classifier_summary,
    frechet_score,
    paired_error,
    polynomial_mmd,
    precision_recall,
)
from phasewise.metrics.judges import FIRST
from phasewise.results import JudgeScore, PriceList, StepErrors
from phasewise.scheduling import measure_step_errors, penalty_of
from studies import subject
from studies.front.figure import draw
from studies.front.options import Options
from studies.front.plans import PLACED, T_MIN, Space
from studies.front.rows import finalists, rows_of
from studies.front.tables import final_table, first_table
from studies.study import Answers, Cell, Study, answers_on_disk
from studies.timing import seconds_of

Plan = pw.HybridSchedule
Scores = dict[str, JudgeScore]


class Front(Study[Options]):
    """Every schedule is sampled from the same noise and judged by FID in the set's own classifier features against the
    training images (bootstrap error), by FID in a second network's that no penalty sees, by the sliced Wasserstein
    distance of the pixels, KID, precision and recall against test images, and the classifier's confidence.
    With --final, what no cheaper schedule of its kind beats is judged once more, on more samples and other noise,
    beside eight global steps from the same noise: FID (bootstrap over images), pixels, class; the last lines compare
    the cheapest of each kind."""

    name = "front"
    question = "What does a hybrid buy over every global-only choice: quality against cost, from equal noise?"
    page = "results/schedules.md"
    options_type = Options

    @cached_property
    def subject(self) -> subject.Subject:
        o = self.options
        found = subject.subject_of(None if o.run else o.pretrained, o.run, o.data, o.data_dir)
        return replace(found, members={k: d for k, d in found.members.items() if not o.members or k in o.members})

    def cells(self) -> Iterator[Cell]:
        place, o = self.subject.name, self.options
        times = pw.time_grid(o.candidates, t_min=T_MIN)
        yield Cell(f"{place}/prices", {"n": o.price_n, "times": times}, self.prices)
        yield Cell(f"{place}/errors", {"n": o.error_n, "times": times}, self.errors)
        prices = PriceList.from_dict(self.answers[f"{place}/prices"]["prices"])
        errors = StepErrors.from_dict(self.answers[f"{place}/errors"]["errors"])
        for name, plan in Space(prices, errors, o).schedules():
            if re.search(o.only, name):
                asked = {"n": o.n, "seed": 0, **brief(plan)}
                penalty = {p: penalty_of(prices, errors, plan, p) for p in PLACED}
                yield Cell(f"{place}/first/{name}", asked, lambda p=plan, q=penalty: self.first(p, q), again=True)
        if o.final:
            yield from self.final_cells(o.final)

    def final_cells(self, n: int) -> Iterator[Cell]:
        """The finalists: on more samples by every seed, beside ``against``, in milliseconds; and real images."""
        place, o, plans = self.subject.name, self.options, self.finalists()
        for seed in o.seeds:
            for name, plan in plans.items():
                asked = {"n": n, "seed": seed, "against": o.against, **brief(plan)}
                work = lambda k=name, p=plan, s=seed: self.again(k, p, n, s)  # noqa: E731
                yield Cell(f"{place}/final/{name}--seed{seed}", asked, work, again=True)
        for name, plan in plans.items():
            if name != o.against:
                asked = {"n": o.beside, "seed": o.seeds[0], "against": o.against, **brief(plan)}
                yield Cell(f"{place}/beside/{name}", asked, lambda p=plan: self.beside(p), again=True)
        for size in sorted({min(k, len(self.subject.real)) for k in (o.n, n)}):
            yield Cell(f"{place}/real/{size}", {"n": size}, lambda k=size: self.real(k))
        asked = {"schedules": {k: brief(p) for k, p in plans.items()}, "batch": o.timed}
        yield Cell(f"{place}/ms", asked, lambda: ms(self.subject, plans, o.timed, o.rounds), again=True)

    def finalists(self) -> dict[str, Plan]:
        """Chosen among all that has been judged, in this call or before."""
        o, rows = self.options, rows_of(answers_on_disk(self), self.subject.name, "first")
        chosen = [k for k in finalists(rows) if re.search(o.finalists, k)]
        chosen += [k for k in rows if o.also and k not in chosen and re.fullmatch(o.also, k)]
        names = [o.against, *[k for k in chosen if k != o.against]]
        return {name: Plan.from_dict(rows[name]["schedule"]) for name in names}

    def measure(self, cell: Cell) -> dict[str, Any]:
        with torch.no_grad():
            found: dict[str, Any] = cell.what()
        return found

    def prices(self) -> dict[str, Any]:
        ours, o = self.subject, self.options
        choices: dict[str, Any] = {"n": o.price_n, "seed": 3, "features": ours.features, "batch": o.timed}
        found = pw.price_list(ours.members, ours.data, pw.time_grid(o.candidates, t_min=T_MIN), **choices)
        return {"prices": found.to_dict()}

    def errors(self) -> dict[str, Any]:
        """Heun step errors of the global network at the candidate times."""
        o, reference = self.options, self.subject.members["global"]
        times = pw.time_grid(o.candidates, t_min=T_MIN)
        return {"errors": measure_step_errors(reference, times, solver="heun", n=o.error_n, seed=4).to_dict()}

    def first(self, plan: Plan, penalty: dict[str, float]) -> dict[str, Any]:
        row, _ = self.judge(plan, self.options.n, 0)
        return {**row, "penalty": penalty}

    def again(self, name: str, plan: Plan, n: int, seed: int) -> dict[str, Any]:
        itself = name == self.options.against
        row, scores = self.judge(plan, n, seed, None if itself else self.scores_against(n, seed))
        if itself:
            self.kept[n, seed] = scores
        return {**row, "against": self.options.against}

    @cached_property
    def against(self) -> Plan:
        """What the finalists are set beside."""
        return self.finalists()[self.options.against]

    @cached_property
    def kept(self) -> dict[tuple[int, int], Scores]:
        """What the judges say of its samples, by their number and seed."""
        return {}

    def scores_against(self, n: int, seed: int) -> Scores:
        if (n, seed) not in self.kept:
            self.kept[n, seed] = self.subject.judged(self.subject.samples(self.against, n, seed), seed)
        return self.kept[n, seed]

    @cached_property
    def images_against(self) -> Tensor:
        return self.subject.samples(self.against, self.options.beside, self.options.seeds[0])

    def judge(self, plan: Plan, n: int, seed: int, against: Scores | None = None) -> tuple[dict[str, Any], Scores]:
        """Every judge's score (FID is the first's; also less those ``against``, image by image), KID, precision, recall
        and the classifier's view; and the scores as they are."""
        ours, images = self.subject, self.subject.samples(plan, n, seed)
        scores, seen = ours.judged(images, seed), ours.features.extract(images)
        kernel, (precision, recall) = polynomial_mmd(seen, ours.real[:n]), precision_recall(seen, ours.real[:n])
        view = classifier_summary(images, ours.features) if isinstance(ours.features, ClassifierFeatures) else {}
        row: dict[str, Any] = {"fid": [scores[FIRST].value, scores[FIRST].stderr]}
        row |= {k: [v.value, v.stderr] for k, v in (("kid", kernel), ("precision", precision), ("recall", recall))}
        row["judges"] = {name: [score.value, score.stderr] for name, score in scores.items()}
        row["judges_minus"], row["minus"] = None, None
        if against is not None:
            minus = {name: score.minus(against[name]) for name, score in scores.items()}
            row["judges_minus"] = {name: [found.difference, found.stderr] for name, found in minus.items()}
            row["minus"] = row["judges_minus"][FIRST]
        row["classifier"] = {k: v for k, v in view.items() if k != "histogram"}
        return {**row, "mflop": plan.mflop, "schedule": plan.to_dict()}, scores

    def beside(self, plan: Plan) -> dict[str, Any]:
        """Samples and those of ``against`` from the same noise: root mean square difference of a pixel, and how many of
        them the classifier puts into the same class."""
        n, seed, ours = self.options.beside, self.options.seeds[0], self.subject
        images, first = ours.samples(plan, n, seed), self.images_against
        error = paired_error(images, first)
        found: dict[str, Any] = {"paired_error": [error.value, error.stderr]}
        if isinstance(ours.features, ClassifierFeatures):
            a, b = (ours.features.probabilities(x).argmax(1) for x in (images, first))
            share = float((a == b).double().mean())
            found["same_class"] = [share, (share * (1 - share) / n) ** 0.5]
        return found

    def real(self, n: int) -> dict[str, Any]:
        score = frechet_score(self.subject.real[:n], self.subject.reference, seed=0)
        return {"fid": [score.value, score.stderr]}

    def tables(self, answers: Answers) -> dict[str, str]:
        texts = {}
        for place in dict.fromkeys(name.split("/")[0] for name in answers):
            rows, finals = (rows_of(answers, place, part) for part in ("first", "final"))
            prices = PriceList.from_dict(answers[f"{place}/prices"]["prices"])
            texts[place] = first_table(rows, prices)
            if finals:
                sizes = {k.split("/")[2]: v["fid"] for k, v in answers.items() if k.startswith(f"{place}/real/")}
                texts[f"{place} final"] = final_table(finals, prices, sizes)
        return texts

    def figures(self, answers: Answers) -> dict[str, bytes]:
        places = dict.fromkeys(name.split("/")[0] for name in answers)
        return {f"{p}.png": draw(rows_of(answers, p, "first"), rows_of(answers, p, "final")) for p in places}


def brief(plan: Plan) -> dict[str, Any]:
    """What makes a schedule this one: its name says how it was found, not what it is."""
    return {"assignment": plan.assignment, "solver": plan.solver, "times": [round(float(t), 6) for t in plan.times]}


def ms(ours: subject.Subject, plans: dict[str, Plan], batch: int, rounds: int) -> dict[str, Any]:
    """Milliseconds an image of sampling one batch, all in turn."""
    works = {k: partial(pw.sample, ours.of(plan), n=batch, seed=0, batch=batch) for k, plan in plans.items()}
    seen = seconds_of(works, rounds)
    return {"ms": {name: float(np.median(values)) * 1e3 / batch for name, values in seen.items()}}
