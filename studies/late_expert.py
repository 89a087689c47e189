"""How local is the end? An r = 3 expert of low noise, a window per pixel, against the shipped networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import phasewise as pw
from phasewise.metrics import frechet_difference, frechet_score
from phasewise.results import LossTable
from studies import subject
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

SPAN = (0.0, 0.5)
TIMES = (0.02, 0.05, 0.1, 0.16, 0.2, 0.3, 0.4, 0.44, 0.5)
SHOWN = ("global", "small", "r1", "r3")
LASTS = ("r1", "expert", "expert expert", "r3 r1", "small r1", "expert expert expert")
"""The members of the last steps; the first is the shipped hybrid itself."""


@dataclass(frozen=True)
class Options:
    data: str = choice("mnist", "image set of 28x28 pixels", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds it")
    preset: str = choice("compiled", "of the training", choices=("compiled", "default"), quick="default")
    steps: int = choice(11_000, "of the training", quick=1)
    batch: int = choice(128, "images a step", quick=4)
    test: int = choice(2000, "test images of the losses", quick=8)
    n: int = choice(4000, "samples of each schedule", quick=8)
    lasts: tuple[str, ...] = choice(LASTS, "members of the last steps, the hybrid's own first", quick=LASTS[:2])


class LateExpert(Study[Options]):
    """The expert is taught by the shipped global network on noise times below .5.  The held-out loss of all at the same
    times and noise, and FID of the shipped hybrid with the members of its last steps replaced, from equal noise, paired
    with the hybrid itself.  Training stops and resumes; the expert lies in OUT/work/expert."""

    name = "late_expert"
    question = "Can a local network made for low noise take more than the last step of the hybrid?"
    options_type = Options

    @cached_property
    def subject(self) -> subject.Subject:
        return subject.of_shipped("mnist", self.options.data, self.options.data_dir)

    @cached_property
    def expert(self) -> pw.Denoiser:
        folder, data, o = self.work / "expert", self.subject.data, self.options
        if not (folder / "weights.safetensors").is_file():
            torch.manual_seed(0)
            expert, teacher = pw.LocalDenoiser(data.image_shape, 3, block=1), self.subject.members["global"]
            pw.train(
                expert, data, o.preset, name="expert", steps=o.steps, batch=o.batch, out=folder, span=SPAN,
                teacher=teacher, progress=False,
            )  # fmt: skip
            pw.save_denoiser(expert, folder)
        return pw.load_denoiser(folder)

    @cached_property
    def first(self) -> Tensor:
        """Features of the shipped hybrid's samples, which all are paired with."""
        return self.features_of(self.options.lasts[0])

    def cells(self) -> Iterator[Cell]:
        o = self.options
        trained = {"data": o.data, "steps": o.steps, "batch": o.batch}
        yield Cell("losses", {**trained, "test": o.test})
        for last in o.lasts:
            yield Cell(f"last/{last}", {**trained, "n": o.n, "first": o.lasts[0]}, last)

    def measure(self, cell: Cell) -> dict[str, Any]:
        with_expert = {**{n: self.subject.members[n] for n in SHOWN}, "expert": self.expert}
        if cell.what is None:
            images = self.subject.data.test[: self.options.test]
            return {"table": pw.diagnosis.measure_losses(with_expert, images, TIMES, seed=5).to_dict()}
        seen = self.first if cell.what == self.options.lasts[0] else self.features_of(cell.what)
        score = frechet_score(seen, self.subject.reference, seed=0)
        minus = frechet_difference(seen, self.first, self.subject.reference, 0)
        return {"fid": [score.value, score.stderr], "minus": [minus.value, minus.stderr]}

    def features_of(self, last: str) -> Tensor:
        base, ends = pw.load_pretrained("mnist").schedules["hybrid"], tuple(last.split())
        plan = replace(base, assignment=(*base.assignment[: -len(ends)], *ends))
        ours = replace(self.subject, members={**self.subject.members, "expert": self.expert})
        with torch.no_grad():
            return ours.features.extract(ours.samples(plan, self.options.n, 0))

    def tables(self, answers: Answers) -> dict[str, str]:
        found = {"losses": losses(LossTable.from_dict(answers["losses"]["table"]))} if "losses" in answers else {}
        lasts = {name.removeprefix("last/"): row for name, row in answers.items() if name.startswith("last/")}
        return {**found, **({"lasts": fids(lasts)} if lasts else {})}


def losses(table: LossTable) -> str:
    rows = [[n, *(f"{v:.4g}" for v in table.loss[:, i])] for i, n in enumerate(table.names)]
    return markdown(["network", *(f"t = {t:g}" for t in table.times)], rows, f"n = {table.n} test images.")


def fids(found: Answers) -> str:
    rows = [
        [last, f"{row['fid'][0]:.3f} ± {row['fid'][1]:.3f}", f"{row['minus'][0]:+.3f} ± {row['minus'][1]:.3f}"]
        for last, row in sorted(found.items(), key=lambda pair: abs(pair[1]["minus"][0]))
    ]
    n = next(iter(found.values()))["asked"]["n"]
    return markdown(["last members", "FID", "minus the hybrid's, paired"], rows, f"n = {n} samples from equal noise.")
