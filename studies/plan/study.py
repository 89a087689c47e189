"""The study: exact fields by side, and networks trained on digits, each with a plan and without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import phasewise as pw
from phasewise.exact import TorusField
from phasewise.results import JudgeScore
from studies import resolution, subject
from studies.options import choice
from studies.plan.fields import PRICED, gaps, members_of, prices_of
from studies.plan.show import excess_table, figure, gap_table, mixed_table, network_table, saving_table
from studies.resolution.study import savings
from studies.study import Answers, Cell, Study

DESIGNS: dict[str, tuple[int, int]] = {"p14r3": (2, 3)}
"""Networks with a plan for 28 x 28 pixels: pixels a side of a number of the plan, radius of the local network."""
TIMES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.44, 0.6, 0.75, 0.9, 0.97)
SHOWN = ("global", "small", "coarse", "r3", "r5")
MIXED: dict[str, str] = {
    "global": "global global global global global global global global",
    "the shipped hybrid": "wiener coarse coarse global global global global r1",
    "planned early": "wiener planned planned global global global global r1",
    "planned early, plan kept once": "wiener planned kept global global global global r1",
    "pooled early": "wiener pooled pooled global global global global r1",
    "planned longer": "wiener planned planned planned global global global r1",
    "planned late": "wiener coarse coarse global global global planned r1",
    "planned throughout": "wiener planned planned planned planned planned planned r1",
}
"""Members of the shipped hybrid's eight steps: its own and those with a plan."""


@dataclass(frozen=True)
class Options:
    sides: tuple[int, ...] = choice((32, 64, 128), "of the fields, pixels", quick=(8,))
    plans: tuple[int, ...] = choice((4, 8, 16, 32), "of the fields' plans, pixels a side", quick=(4,))
    length: float = choice(10.0, "correlation length at the least side, pixels", quick=3)
    measure: str = choice("frechet", "distance between laws", choices=("frechet", "kl"))
    priced: tuple[str, ...] = choice(PRICED, "networks that steps are priced on", quick=PRICED[:1])
    steps: int = choice(12, "of the global reference", quick=3)
    slack: float = choice(0.05, "more error than the reference's that is allowed")
    solvers: tuple[str, ...] = choice(("exp_ab2",), "to choose from; it is the best of four in the resolution study")
    data: str = choice("mnist", "images of the networks, 28 x 28", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds them")
    training: int = choice(2400, "steps of training", quick=1)
    batch: int = choice(64, "images a step", quick=4)
    test: int = choice(1000, "test images of the losses", quick=8)
    n: int = choice(1000, "samples of each schedule", quick=8)
    mixed: tuple[str, ...] = choice(
        tuple(MIXED), "schedules to sample, the first to pair with", quick=tuple(MIXED)[2:4]
    )


class PlanStudy(Study[Options]):
    """Scaling fields as in the resolution study, with further members: a window beside a plan, the p x p longest waves
    of the field.  Networks: a small U-Net on the pooled image, and a local network that sees its plan, trained together
    on the clean images; and that planner alone, its answer lifted by a closed form.  They lie in the study's folder of
    work, where training resumes; then FID of the shipped hybrid with some of its members replaced by these."""

    name = "plan"
    question = "What does a small image seen whole, beside a local network, save and lose?"
    page = "results/plan.md"
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        o = self.options
        for side in o.sides:
            length = o.length * side / min(o.sides)
            asked = {"side": side, "length": length, "plans": o.plans}
            field = TorusField(side, 1 / length)
            yield Cell(f"gaps/{side}", asked, field)
            searched = {"measure": o.measure, "steps": o.steps, "slack": o.slack, "solvers": o.solvers}
            for network in o.priced:
                yield Cell(f"saving/{side}/{network}", {**asked, **searched}, field)
        asked = {"data": o.data, "designs": list(DESIGNS), "steps": o.training, "batch": o.batch, "test": o.test}
        yield Cell("networks", asked)
        for name in o.mixed:
            trained = {"data": o.data, "steps": o.training, "batch": o.batch}
            yield Cell(f"mixed/{name}", {**trained, "members": MIXED[name], "first": o.mixed[0], "n": o.n}, name)

    def measure(self, cell: Cell) -> dict[str, Any]:
        if cell.what is None:
            return self.networks()
        if isinstance(cell.what, str):
            return self.judged(cell.what)
        field, o = cell.what, self.options
        if cell.name.startswith("gaps/"):
            return gaps(field, o.plans)
        members = members_of(field, o.plans)
        asked = resolution.Options(measures=(o.measure,), steps=(o.steps,), slack=o.slack, solvers=o.solvers)
        return {"savings": savings(field, members, prices_of(field.side, members, cell.name.split("/")[2]), asked)}

    @cached_property
    def subject(self) -> subject.Subject:
        return subject.of_shipped("mnist", self.options.data, self.options.data_dir)

    def networks(self) -> dict[str, Any]:
        images = self.subject.data.test[: self.options.test]
        members: dict[str, pw.Denoiser] = {n: self.subject.members[n] for n in SHOWN}
        for name in DESIGNS:
            whole = self.trained(name)
            members[name] = whole
            pooled = pw.PooledDenoiser(whole.planner, whole.image_shape, whole.factor)
            members[f"{name}, pooled"] = pooled.fit(self.subject.data.train)
        table = pw.diagnosis.measure_losses(members, images, TIMES, seed=5)
        flops = {name: pw.count_flops(d, d.image_shape) for name, d in members.items()}
        return {"table": table.to_dict(), "flops": flops}

    @cached_property
    def first(self) -> dict[str, JudgeScore]:
        """The schedule that all are paired with, as judged."""
        return self.subject.judged(self.samples(self.options.mixed[0])[0])

    def judged(self, name: str) -> dict[str, Any]:
        samples, mflop = self.samples(name)
        scores, first = self.subject.judged(samples), self.first
        minus = {judge: score.minus(first[judge]) for judge, score in scores.items()}
        return {
            "mflop": mflop,
            "scores": {judge: [score.value, score.stderr] for judge, score in scores.items()},
            "minus": {judge: [apart.difference, apart.stderr] for judge, apart in minus.items()},
        }

    def samples(self, name: str) -> tuple[Tensor, float]:
        """Images of a schedule, from the same noise for all, and what one costs."""
        whole = self.trained(next(iter(DESIGNS)))
        pooled = pw.PooledDenoiser(whole.planner, whole.image_shape, whole.factor).fit(self.subject.data.train)
        more = {"planned": whole, "kept": pw.ReusedFeatures(whole, "plan"), "pooled": pooled}
        ours = replace(self.subject, members={**self.subject.members, **more})
        plan = replace(pw.load_pretrained("mnist").schedules["hybrid"], assignment=tuple(MIXED[name].split()))
        flops = {m: pw.count_flops(ours.members[m], whole.image_shape) for m in dict.fromkeys(plan.assignment)}
        return ours.samples(plan, self.options.n, 0), sum(flops[m] for m in plan.assignment) / 1e6

    def trained(self, name: str) -> pw.PlanDenoiser:
        folder, data, o = self.work / name, self.subject.data, self.options
        if not (folder / "weights.safetensors").is_file():
            torch.manual_seed(0)
            denoiser = pw.PlanDenoiser.of_shape(data.image_shape, *DESIGNS[name])
            pw.train(denoiser, data, name=name, steps=o.training, batch=o.batch, out=folder, progress=False)
            pw.save_denoiser(denoiser, folder)
        found = pw.load_denoiser(folder)
        assert isinstance(found, pw.PlanDenoiser)
        return found

    def tables(self, answers: Answers) -> dict[str, str]:
        of_fields = {"saving": saving_table(answers), "gap": gap_table(answers)}
        if "networks" not in answers:  # they take their time
            return of_fields
        return {**of_fields, "networks": network_table(answers), "excess": excess_table(answers),
                "mixed": mixed_table(answers)}  # fmt: skip

    def figures(self, answers: Answers) -> dict[str, bytes]:
        return {"plan.png": figure(answers)}
