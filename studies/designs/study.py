"""The study: train every design of a group for the same time, then set its losses beside its cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import phasewise as pw
from phasewise.data import ImageData
from phasewise.results import LossTable
from studies import subject
from studies.designs.groups import GROUPS, SAME_STEPS, SHAPE, SPANS, fresh, is_taught
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study
from studies.timing import step_seconds

TIMES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SHOWN = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Options:
    group: str = choice("local3", "of designs", choices=tuple(GROUPS))
    only: tuple[str, ...] = choice((), "designs of it; none: all", quick=("stem p2 w64 d2", "attention p2 w64 d2 m1"))
    data: str = choice("mnist", "image set of 28x28 pixels", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds it")
    seconds: float = choice(300.0, "training time of each design", quick=0.1)
    batch: int = choice(128, "images a step", quick=8)
    rounds: int = choice(21, "in which a step of each is timed", quick=1)
    timed: int = choice(64, "images of the batch that a call is timed on", quick=2)
    test: int = choice(2000, "test images", quick=16)


class Designs(Study[Options]):
    """Every design of a group trains for the same time: the cost of a training step is measured first, all designs in
    turn on the same machine, and each gets ``seconds`` divided by its own.  Same images, noise and learning-rate curve
    (default preset, cosine to zero).  Losses are of the averaged weights, E|D - x|^2 per test image, the same noise for
    all.  The weights lie in OUT/work/GROUP/DESIGN."""

    name = "designs"
    question = "Which design of network loses least after the same training time, and what does a call of it cost?"
    page = "results/networks.md"
    options_type = Options

    @cached_property
    def data(self) -> ImageData:
        return subject.load(self.options.data, self.options.data_dir)

    @property
    def chosen(self) -> list[str]:
        return [name for name in GROUPS[self.options.group] if not self.options.only or name in self.options.only]

    def folder(self, design: str) -> Path:
        """Where the weights of a design of this group lie."""
        return self.work / self.options.group / design.replace(" ", "_")

    def cells(self) -> Iterator[Cell]:
        o = self.options
        costs = Cell(
            f"{o.group}/costs", {"designs": self.chosen, "rounds": o.rounds, "batch": o.batch, "timed": o.timed}
        )
        yield costs
        seconds = self.answers[costs.name]["step_seconds"]
        for design in self.chosen:
            share = o.seconds / (len(SPANS) if design in SPANS else 1)
            steps = max(round(share / seconds[SAME_STEPS.get(design, design)]), 1)
            asked = {"data": o.data, "seconds": o.seconds, "steps": steps, "batch": o.batch}
            yield Cell(f"{o.group}/{design}", asked, design)

    def measure(self, cell: Cell) -> dict[str, Any]:
        return self.trained(cell) if cell.what else self.costs()

    def costs(self) -> dict[str, Any]:
        """Step seconds, MFLOP, ms an image and its error, parameters."""
        networks = {name: fresh(GROUPS[self.options.group][name]) for name in self.chosen}
        ms = pw.metrics.measure_ms(networks, SHAPE, batch=self.options.timed, repeats=min(9, self.options.rounds))
        teachers = {name: shipped_global() for name in networks if is_taught(name)}
        return {
            "step_seconds": step_seconds(networks, self.options.batch, self.options.rounds, teachers),
            "mflop": {name: pw.count_flops(n, SHAPE) / 1e6 for name, n in networks.items()},
            "ms": ms,
            "parameters": {name: sum(p.numel() for p in n.parameters()) for name, n in networks.items()},
            "threads": torch.get_num_threads(),
        }

    def trained(self, cell: Cell) -> dict[str, Any]:
        design, steps, place = cell.what, cell.asked["steps"], self.folder(cell.what)
        network = fresh(GROUPS[self.options.group][design])
        record = pw.train(
            network, self.data, name=design, steps=steps, batch=self.options.batch, out=place, progress=False,
            checkpoint_every=120, span=SPANS.get(design, (0.0, 1.0)),
            teacher=shipped_global() if is_taught(design) else None,
        )  # fmt: skip
        images = self.data.test[: self.options.test]
        table = pw.diagnosis.measure_losses({design: network}, images, TIMES, reference=design, seed=1)
        pw.save_denoiser(network, place)
        (place / "checkpoint.safetensors").unlink()
        return {"table": table.to_dict(), "val_loss": record.val_loss}

    def tables(self, answers: Answers) -> dict[str, str]:
        groups = [group for group in GROUPS if any(name.startswith(f"{group}/") for name in answers)]
        found = {g: {d: answers[f"{g}/{d}"] for d in GROUPS[g] if f"{g}/{d}" in answers} for g in groups}
        return {g: table(answers[f"{g}/costs"], rows) for g, rows in found.items() if rows}


def shipped_global() -> pw.Denoiser:
    return pw.load_pretrained("mnist").denoiser("global")


def table(costs: dict[str, Any], found: Answers) -> str:
    """Rows: cost as fractions of the group's first design, then loss by time where a design was trained for it."""
    first = next(iter(costs["ms"]))
    rows, largest, n = [], 0.0, 0
    for design, content in found.items():
        losses = LossTable.from_dict(content["table"])
        largest, n = max(largest, float(losses.loss_stderr.max())), losses.n
        low, high = SPANS.get(design, (0.0, 1.0))
        at = {t: losses.loss[int(np.argmin(np.abs(losses.times - t))), 0] for t in SHOWN}
        cost = [f"{costs['mflop'][design]:.1f}", f"{costs['ms'][design][0] / costs['ms'][first][0]:.2f}"]
        size = [f"{costs['parameters'][design] / 1e3:.0f}k", str(content["asked"]["steps"])]
        rows.append([design, *cost, *size, *(f"{v:.3g}" if low <= t <= high else "" for t, v in at.items())])
    seconds = next(iter(found.values()))["asked"]["seconds"]
    heads = ["design", "MFLOP", "ms, of first", "parameters", "steps", *(f"t = {t:g}" for t in SHOWN)]
    note = f"{seconds:g} s of {costs['threads']} thread each, n = {n}, largest standard error {largest:.2f}."
    return markdown(heads, rows, note)
