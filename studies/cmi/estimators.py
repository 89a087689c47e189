"""Every estimator on every exact model: error, calibration of its standard error, time. One table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import phasewise as pw
from phasewise.information import ESTIMATORS, cmi_map
from studies.cmi.truth import Case, Held, pm
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

TIMES, RADII = (0.3, 0.6), (1, 2)
HEADS = (
    "model", "estimator", "t = .3, r = 1", "r = 2", "t = .6, r = 1", "r = 2", "largest error", "rms z", "s",
)  # fmt: skip
LEARNED = ("mine", "nwj", "infonce", "smile", "classifier")


@dataclass(frozen=True)
class Options:
    n: int = choice(20_000, "images", quick=400)
    steps: int = choice(1000, "training steps of every learned estimator", quick=5)
    estimators: tuple[str, ...] = choice(tuple(ESTIMATORS), "which", quick=("density", "nwj", "gaussian"))
    models: tuple[int, ...] = choice((0, 1, 2, 3, 4, 5), "which, by number", quick=(0,))


class CMIEstimators(Study[Options]):
    """Times 0.3 and 0.6, radii 1 and 2, the centre block; the same images for all.  "rms z" is the root mean square of
    error / standard error over the cells: 1 is a calibrated error, 3 means a bias three times what the error admits.
    Seconds are of one thread and mean something only beside each other."""

    name = "cmi_estimators"
    question = "Which estimator of CMI is to be trusted, and which of their error bars?"
    page = "results/estimators.md"
    options_type = Options
    threads = 1

    def cells(self) -> Iterator[Cell]:
        known = models()
        for name in self.options.estimators:
            for k in self.options.models:
                asked = {"n": self.options.n, "steps": self.options.steps, "model": known[k].name}
                yield Cell(f"{k}-{name}", asked, (name, known[k]))

    def measure(self, cell: Cell) -> dict[str, Any]:
        (name, case), (block,) = cell.what, cell.what[1].blocks
        options: dict[str, Any] = {"steps": self.options.steps} if name in (*LEARNED, "density", "mmse") else {}
        options |= {"max_scored": self.options.n} if name in ("density", "mmse") else {}
        images = case.model.sample(self.options.n, 1)
        start = time.perf_counter()
        found = cmi_map(images, RADII, TIMES, block=block, estimator=name, accuracy=1.0, **options)
        seconds = time.perf_counter() - start
        return {"map": found.to_dict(), **case.exact(block), "seconds": seconds}

    def tables(self, answers: Answers) -> dict[str, str]:
        rows = []
        for k, case in enumerate(models()):
            found = {n: answers[f"{k}-{n}"] for n in ESTIMATORS if f"{k}-{n}" in answers}
            if found:
                rows += [[case.name, "**exact**", *exact_cells(next(iter(found.values()))), "", "", ""]]
                rows += [["", name, *cells_of(content)] for name, content in found.items()]
        return {"": markdown(HEADS, rows)}


def models() -> list[Case]:
    """The models, each with one block."""
    exact = pw.exact

    def case(name: str, model: Any, block: int, truth: dict[str, int] | None = None) -> Case:
        return Case(name, model, (block,), RADII, TIMES, truth)

    return [
        case("Gaussian field 8x8, m = .1, pixel", exact.GaussianField((8, 8), mass=0.1), 1),
        case("Gaussian field 8x8, m = .1, 2x2", exact.GaussianField((8, 8), mass=0.1), 2),
        case("two-mode 8x8, pixel", exact.TwoMode((8, 8)), 1),
        case("Ising chain 16, beta = .8", exact.IsingChain(16, 0.8), 1, {"n": 100_000, "seed": 9}),
        case("Ising strip 10x6, beta = .44", exact.IsingStrip(10, 6, 0.44), 1, {"n": 20_000, "seed": 9}),
        case("two levels, far copy 8x8, pixel", exact.TwoMode.far_copy((8, 8)), 1),
    ]


def exact_cells(content: dict[str, Any]) -> list[str]:
    held = Held.of(content)
    pairs = zip(held.truth.flat, held.truth_error.flat, strict=True)
    return [pm(value, error) if error else f"{value:.4f}" for value, error in pairs]


def cells_of(content: dict[str, Any]) -> list[str]:
    held = Held.of(content)
    z = float(np.sqrt(((held.error / held.stderr.clip(1e-9)) ** 2).mean()))
    values = [pm(v, s) for v, s in zip(held.found.value.flat, held.found.stderr.flat, strict=True)]
    shown = f"{z:.1f}" if z < 100 else "over 100"
    return [*values, f"{np.abs(held.error).max():.4f}", shown, f"{content['seconds']:.0f}"]
