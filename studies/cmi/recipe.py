"""The published estimate of CMI, changed one thing at a time, beside ours: memory or information?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

import phasewise as pw
from phasewise.information import CMIEstimator, cmi_map, make_estimator
from phasewise.information.critics import MINE
from phasewise.results import CMIMap
from studies import subject
from studies.cmi.truth import estimator_options, pm
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

ROWS = ("published", "fresh", "held-out", "density")
TINY = ("steps=5", "max_scored=50", "draws=1")


@dataclass(frozen=True)
class Options:
    data: str = choice("mnist", "image set")
    data_dir: str | None = choice(None, "folder that holds it")
    field: float | None = choice(None, "mass of a Gaussian field instead of images", quick=0.1)
    side: int = choice(27, "of the field, pixels", quick=8)
    time: float = choice(0.3, "noise time")
    radii: tuple[int, ...] = choice((3,), "of the buffer", quick=(1,))
    steps: tuple[int, ...] = choice((2000, 6000, 20_000), "of MINE", quick=(2,))
    limit: int | None = choice(None, "only so many images: more passes over each for the same steps", quick=200)
    rows: tuple[str, ...] = choice(ROWS, "which", quick=("published", "held-out", "density"))
    density: tuple[str, ...] = choice(("epochs=20",), "NAME=VALUE for the density estimator", quick=TINY)


class CMIRecipe(Study[Options]):
    """Rows: MINE as published (one noise draw frozen per image, averaged over the training images), the same with fresh
    noise, then held out (trained on five sixths of the images, scored on the others); then the density estimator, and
    exact truth for --field."""

    name = "cmi_recipe"
    question = "Does the published estimate of CMI read information or memory of its training images?"
    options_type = Options

    @cached_property
    def field(self) -> pw.exact.GaussianField | None:
        mass, side = self.options.field, self.options.side
        return None if mass is None else pw.exact.GaussianField((side, side), mass=mass)

    @cached_property
    def images(self) -> torch.Tensor:
        if self.field is not None:
            images = self.field.sample(60_000, 1)
        else:
            data = subject.load(self.options.data, self.options.data_dir)
            images = torch.cat([data.train, data.validation])[:, :, 1:, 1:]
        return images[: self.options.limit]

    def cells(self) -> Iterator[Cell]:
        o = self.options
        source = f"field-{o.field}" if o.field is not None else o.data
        where = f"{source}-{o.limit or 'all'}/t{o.time:g}-r{'_'.join(map(str, o.radii))}"
        asked = {k: v for k, v in asdict(o).items() if k in ("data", "field", "side", "time", "radii", "limit")}
        for steps in o.steps:
            for label, estimator in recipes(steps).items():
                if label in o.rows:
                    yield Cell(f"{where}/{label}-{steps}", asked, estimator)
        if "density" in o.rows:
            estimator = make_estimator("density", **estimator_options(o.density))
            yield Cell(f"{where}/density-{'-'.join(o.density)}", asked, estimator)

    def measure(self, cell: Cell) -> dict[str, Any]:
        o = self.options
        start = time.perf_counter()
        found = cmi_map(self.images, o.radii, [o.time], estimator=cell.what)
        answer: dict[str, Any] = {"map": found.to_dict(), "seconds": time.perf_counter() - start}
        return answer if self.field is None else {**answer, "truth": [self.field.cmi(o.time, r) for r in o.radii]}

    def tables(self, answers: Answers) -> dict[str, str]:
        return {"": markdown(("images", "estimate", "r", "nats", "exact", "s"), rows_of(answers))}


def recipes(steps: int) -> dict[str, CMIEstimator]:
    published = MINE.published(steps=steps).options()
    return {
        "published": MINE(**published),
        "fresh": MINE(**{**published, "refresh_noise": True}),
        "held-out": MINE(**{**published, "refresh_noise": True, "hold_out": True, "train_fraction": 5 / 6}),
    }


def rows_of(answers: Answers) -> list[list[str]]:
    rows = []
    for name, content in answers.items():
        where, label = name.rsplit("/", 1)
        found = CMIMap.from_dict(content["map"])
        for j, r in enumerate(found.radii):
            truth = f"{content['truth'][j]:.4f}" if "truth" in content else ""
            value = pm(found.value[0, j], found.stderr[0, j])
            rows.append([where, label, str(r), value, truth, f"{content['seconds']:.0f}"])
    return rows
