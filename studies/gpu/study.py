"""The queue as a study: each job is a cell, so what is done stays done and a job that was cut off goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from phasewise.errors import PhasewiseError, unknown
from studies.gpu import timing
from studies.gpu.place import Place
from studies.gpu.queue import JOBS
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study, file_of

TRIED = (
    "mnist/global", "mnist/judge", "mnist/judge-unseen", "mnist/locals", "mnist/front-unet", "mnist/timing-64",
    "windows/64",
)  # fmt: skip
"""Jobs of the quick form: one of every kind."""


@dataclass(frozen=True)
class Options:
    job: tuple[str, ...] = choice((), "SET/NAME of jobs; none: all, in their order", quick=TRIED)
    next: int = choice(0, "only so many that are not done yet; 0: all")
    data_dir: str | None = choice(None, "folder of the named sets")
    device: str = choice("auto", "cuda, cpu, or auto", quick="cpu")
    pace: float = choice(1.0, "factor on every training's seconds")
    tiny: bool = choice(False, "a few images and steps", quick=True, flag=False)


class GPUQueue(Study[Options]):
    """Trains what is shipped and what the pages compare, on whatever GPU there is.  Jobs are independent processes:
    start several at once, each with its own --job, on one large GPU.  Networks lie in OUT/work/SET/NAME.  A job that is
    cut off goes on from its checkpoint, at most 45 seconds old.  Nothing is downloaded."""

    name = "gpu"
    question = "What can half an hour of one large GPU train?"
    options_type = Options

    def place(self) -> Place:
        o = self.options
        device = o.device if o.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        return Place(self.work, o.data_dir, device, o.pace, o.tiny)

    def cells(self) -> Iterator[Cell]:
        o = self.options
        for title in o.job:
            if title not in JOBS:
                raise PhasewiseError(unknown("job", title, JOBS))
        left = o.next or len(JOBS)
        for title in o.job or JOBS:
            cell = Cell(title, {"tiny": o.tiny}, JOBS[title])
            if not file_of(self, title).exists():
                left -= 1
            if left < 0:
                return
            yield cell

    def measure(self, cell: Cell) -> dict[str, Any]:
        job, place = cell.what, self.place()
        for needed in job.needs:
            folder = place.work / needed
            if not ((folder / "config.json").exists() or (folder / "features.json").exists()):
                raise PhasewiseError(f"{job.title} needs {needed} first: --job {needed}")
        found: dict[str, Any] = job.work(place, job.data, job.name)
        where = torch.cuda.get_device_name() if place.device.startswith("cuda") else place.device
        return {**found, "on": where, "torch": str(torch.__version__)}

    def tables(self, answers: Answers) -> dict[str, str]:
        rows = []
        for name, found in answers.items():
            if {"finals", "ms", "windows"} & set(found):
                continue
            for network, row in found.get("networks", {name.split("/")[-1]: found}).items():
                loss, judged = row.get("val_loss"), row.get("test_accuracy")
                result = f"loss {loss:.4f}" if loss is not None else "" if judged is None else f"accuracy {judged:.3f}"
                rows.append(
                    [name.split("/")[0], network, str(row.get("steps", "")), f"{row.get('seconds', 0):.0f}", result]
                )
        trained = {"": markdown(("images", "network", "steps", "s", "held out"), rows)} if rows else {}
        return {**trained, **timing.tables(answers)}
