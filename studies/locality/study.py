"""The study: train every network at every side for the same time, and set its loss against the known optimum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

import phasewise as pw
from studies.locality.networks import NETWORKS, fresh
from studies.locality.show import draw, rows_of, table
from studies.options import choice
from studies.study import Answers, Cell, Study
from studies.timing import step_seconds

MASS, HALF = 0.1, 0.05
SOME = ("local r1", "U-Net coarse", "transformer w32 d2")


@dataclass(frozen=True)
class Options:
    seconds: float = choice(120.0, "training time of each network", quick=0.1)
    sides: tuple[int, ...] = choice((32,), "trained sides, pixels", quick=(8,))
    counted: tuple[int, ...] = choice((28, 32, 64, 128, 256), "sides at which FLOPs are counted", quick=(8, 16))
    times: tuple[float, ...] = choice((0.3, 0.6), "noise times", quick=(0.3,))
    networks: tuple[str, ...] = choice(tuple(NETWORKS), "which", quick=SOME)
    batch: int = choice(128, "images a step", quick=8)
    rounds: int = choice(21, "in which a step of each is timed", quick=1)
    train: int = choice(20_000, "fields to train on", quick=100)
    test: int = choice(1_000, "fields to judge on", quick=20)


class LocalityPays(Study[Options]):
    """Gaussian fields with free borders (precision m^2 + graph Laplacian) have any size and a known optimum at every
    noise time.  At each trained side every network learns the span of times t +- 0.05 for the same nominal time; its
    held-out loss is set against the exact global optimum.  The global network of least loss in every family has as its
    rival the cheapest local one that loses no more; the ratio of their costs is shown by image side, where at sides
    that were not trained the same networks' FLOPs are counted."""

    name = "locality_pays"
    question = "From which image side on is a local network the cheap one at equal held-out loss?"
    page = "results/networks.md"
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        o = self.options
        for side in o.sides:
            pace = Cell(f"{side}/steps", {"networks": o.networks, "batch": o.batch}, (side, None, None))
            yield pace
            seconds = self.answers[pace.name]["seconds"]
            for t in o.times:
                for name in o.networks:
                    steps = max(round(o.seconds / seconds[name]), 1)
                    asked = {"seconds": o.seconds, "steps": steps, "batch": o.batch, "train": o.train, "test": o.test}
                    yield Cell(f"{side}/{t:g}/{name}", asked, (side, t, name))

    def measure(self, cell: Cell) -> dict[str, Any]:
        side, t, name = cell.what
        torch.set_flush_denormal(True)  # far tokens' attention is as good as 0; counted exactly, it halves the speed
        try:
            return self.excess(side, t, name, cell.asked["steps"]) if name else self.pace(side)
        finally:
            torch.set_flush_denormal(False)

    def pace(self, side: int) -> dict[str, Any]:
        networks = {name: fresh(name, side) for name in self.options.networks}
        return {"seconds": step_seconds(networks, self.options.batch, self.options.rounds)}

    def excess(self, side: int, t: float, name: str, steps: int) -> dict[str, Any]:
        """Held-out loss above the exact global optimum's, as a share of it, with its paired error."""
        field, train, test = field_of(side, self.options.train, self.options.test)
        network, span = fresh(name, side), (t - HALF, t + HALF)
        pw.train(network, train, steps=steps, batch=self.options.batch, span=span, name=name, progress=False)
        pair = {"best": field.denoiser(), "network": network}
        table = pw.diagnosis.measure_losses(pair, test, [t], reference="best", seed=2)
        found = {"excess": table.gap[0, 1], "error": table.gap_stderr[0, 1]}
        return {key: float(value / table.loss[0, 0]) for key, value in found.items()}

    def tables(self, answers: Answers) -> dict[str, str]:
        return {"": table(rows_of(answers))}

    def figures(self, answers: Answers) -> dict[str, bytes]:
        return {"locality.png": draw(rows_of(answers), self.options.counted)}


@cache
def field_of(side: int, train: int, test: int) -> tuple[pw.exact.GaussianField, Tensor, Tensor]:
    field = pw.exact.GaussianField((side, side), mass=MASS, boundary="open")
    return field, field.sample(train, 0), field.sample(test, 1)
