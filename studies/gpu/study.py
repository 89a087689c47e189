"""The queue as a study: each job is a cell, so what is done stays done and a job that was cut off goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from phasewise.errors import PhasewiseError, RunFolderError, unknown
from phasewise.runs.lock import alone_in
from studies.gpu import recipe, timing
from studies.gpu.pictures import SAMPLES_FILE
from studies.gpu.place import Place
from studies.gpu.queue import JOBS, Job
from studies.gpu.show import (
    NAMED_BY,
    figure,
    finalists_table,
    fronts,
    looks_table,
    network_table,
    penalty_table,
    saving_table,
)
from studies.gpu.sizes import SIZES
from studies.options import choice
from studies.study import Answers, Cell, Study, file_of

TRIED = (
    "clothing32/global", "clothing32/coarse", "clothing32/small", "clothing32/dit", "clothing32/dit-coarse",
    "clothing32/judge", "clothing32/judge-unseen", "clothing32/locals", "clothing32/dit-windows",
    "clothing32/front-unet", "clothing32/front-dit", "cifar10/global", "cifar10/locals", "cifar10/judge",
    "mnist/timing-64", "windows/64", "mnist/recipe-published-3",
)  # fmt: skip
"""Jobs of the quick form: one of every kind."""
FIXED = ("front", "timing", "judge")
"""How the names of jobs begin whose length does not go with --pace."""


@dataclass(frozen=True)
class Options:
    sets: tuple[str, ...] = choice((), "only the jobs of these sets, in their order")
    job: tuple[str, ...] = choice((), "only these jobs, SET/NAME", quick=TRIED)
    next: int = choice(0, "only so many that are not done yet, by itself one; 0: all", bare=1)
    data_dir: str | None = choice(None, "folder of the named sets")
    device: str = choice("auto", "cuda, cpu, or auto", quick="cpu")
    size: str = choice("auto", "for a gpu or for a cpu's two cores; auto: by device", choices=("auto", *SIZES))
    pace: float = choice(1.0, "factor on the length of every training")
    tiny: bool = choice(False, "a few images and steps", quick=True, flag=False)


def _is_there(work: Path, needed: str) -> bool:
    """Whether a job's network lies in its folder; of local ones, which it names by their radii, all of a training that
    is at its end, since checkpoints go last."""
    data, name = needed.split("/")
    if name == "locals":
        found = list((work / data).glob("r[0-9]*/config.json"))
        return bool(found) and not any((work / data).glob("r[0-9]*/checkpoint.safetensors"))
    return any((work / needed / file).exists() for file in ("config.json", "features.json"))


class GPUQueue(Study[Options]):
    """Trains what is shipped and what the pages compare, on whatever GPU there is; at the size of two processor cores
    photographs, and judges the shipped networks of CIFAR-10.  On a large GPU start several jobs at once, each a process
    with --next.  Networks lie in OUT, in a folder of work for each SET/NAME.  A job that is cut off goes on from
    its checkpoint, at most 45 seconds old; a front keeps every answer.  Nothing is downloaded."""

    name = "gpu"
    question = "What can half an hour of one large GPU train?"
    page = "results/photographs.md"
    pages = dict.fromkeys(timing.MARKS, "results/networks.md") | {recipe.MARK: "results/cmi.md"}
    named_by = NAMED_BY
    options_type = Options

    def __init__(self, options: Options, out: Path | None = None) -> None:
        super().__init__(options, out)
        self.held: dict[str, ExitStack] = {}

    def place(self) -> Place:
        o = self.options
        device = o.device if o.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        return Place(self.work, o.data_dir, device, o.pace, o.tiny)

    @property
    def size(self) -> str:
        if self.options.size != "auto":
            return self.options.size
        return "cpu" if self.place().device == "cpu" else "gpu"

    def jobs(self) -> Iterator[Job]:
        """Those asked for, in their order; one that this size does not have is asked for by name, as a GPU has it.
        PhasewiseError for an unknown one, and for a set without jobs."""
        o, own = self.options, JOBS[self.size]
        every = {**JOBS["gpu"], **own}
        sets = dict.fromkeys(job.data for job in own.values())
        for asked, there, what in ((o.job, every, "job"), (o.sets, sets, f"set of size {self.size}")):
            for word in asked:
                if word not in there:
                    raise PhasewiseError(unknown(what, word, there))
        for title in o.job or own:
            if not o.sets or every[title].data in o.sets:
                yield every[title]

    def hold(self, job: Job) -> None:
        """Keep other processes from this job until this one ends.  RunFolderError where another is at it."""
        if job.title not in self.held:
            holding = ExitStack()
            holding.enter_context(alone_in(self.place().folder(job.data, job.name)))
            self.held[job.title] = holding

    def lacking(self, job: Job) -> list[str]:
        """Jobs that it needs and whose networks are not there."""
        return [needed for needed in job.needs if not _is_there(self.place().work, needed)]

    def waits_for(self, job: Job) -> str:
        """Why a queue passes it over: what it needs is not there, or another process is at it; "" of one that is now
        held."""
        if lacking := self.lacking(job):
            return f"{job.title} needs {', '.join(lacking)}"
        try:
            self.hold(job)
        except RunFolderError as error:
            return f"{job.title}: {error}"
        return ""

    def cells(self) -> Iterator[Cell]:
        o = self.options
        left, waiting = o.next or sum(len(jobs) for jobs in JOBS.values()), list[str]()
        for job in self.jobs():
            if not file_of(self, job.title).exists():
                if not left:
                    return
                if o.next and (why := self.waits_for(job)):
                    waiting.append(why)
                    continue
                left -= not file_of(self, job.title).exists()  # another process may have ended it meanwhile
            how = (
                {"size": "cpu", "pace": o.pace, "recipe": job.recipe}
                if job.title in JOBS["cpu"] and self.size == "cpu"
                else {}
            )
            yield Cell(job.title, {"tiny": o.tiny, **how}, job)
        if waiting and left == o.next:
            raise PhasewiseError(f"no job is free: {'; '.join(waiting[:3])}")

    def outline(self) -> str:
        """The jobs in their order: done or not, about how many minutes, what each needs and where its result belongs.
        Minutes of trainings go with --pace."""
        heads, pace = ("job", "", "minutes", "needs", "for"), self.options.pace
        rows = []
        for job in self.jobs():
            done = "done" if file_of(self, job.title).exists() else ""
            needs = " ".join(needed.split("/")[1] for needed in job.needs)
            minutes = job.minutes * (1 if job.name.startswith(FIXED) else pace)
            rows.append((job.title, done, f"{minutes:.1f}", needs, job.belongs))
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)
        )

    def measure(self, cell: Cell) -> dict[str, Any]:
        job, place = cell.what, self.place()
        for needed in self.lacking(job):
            raise PhasewiseError(f"{job.title} needs {needed} first: --job {needed}")
        self.hold(job)
        found: dict[str, Any] = job.work(place, job.data, job.name)
        where = torch.cuda.get_device_name() if place.device.startswith("cuda") else place.device
        return {**found, "on": where, "torch": str(torch.__version__)}

    def tables(self, answers: Answers) -> dict[str, str]:
        trained = network_table(answers)
        tables = {"networks": trained} if trained else {}
        if fronts(answers):
            tables |= {"saving": saving_table(answers), "finalists": finalists_table(answers)}
            tables |= {"penalties": penalty_table(answers)}
            seen = looks_table(answers)
            tables |= {"looks": seen} if seen else {}
        return {**tables, **timing.tables(answers), **recipe.tables(answers)}

    def figures(self, answers: Answers) -> dict[str, bytes]:
        """The saving against side; and the samples of every front that left some, as SET-KIND.png."""
        judged = fronts(answers)
        drawn = {name.replace("/front-", "-"): self.work / name / SAMPLES_FILE for name in judged}
        samples = {f"{name}.png": file.read_bytes() for name, file in drawn.items() if file.is_file()}
        return {"photographs.png": figure(answers), **samples} if judged else {}
