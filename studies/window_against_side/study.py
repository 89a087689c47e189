"""The study: finite-size scaling on models that are known, and real pictures at several resolutions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from phasewise.data import ImageData
from studies import resolution, subject
from studies.options import choice
from studies.study import Answers, Cell, Study
from studies.window_against_side import images, scaling
from studies.window_against_side.show import figure, scaling_table, trained_table, window_table

SIDES = {
    "mnist": (14, 28, 56),
    "fashion_mnist": (14, 28, 56),
    "cifar10": (16, 32),
    "clothing128": (32, 64, 128),
    subject.STAND_IN: (14,),
}
"""At which each set's pictures are taken."""


@dataclass(frozen=True)
class Options:
    models: tuple[str, ...] = choice(scaling.MODELS, "to scale", quick=("two modes", "chain"))
    sides: tuple[int, ...] = choice((16, 32, 64, 128), "of the models, pixels", quick=(8, 16))
    share: float = choice(1.0, "of the usual number of images of the models", quick=0.02)
    sets: tuple[str, ...] = choice(
        ("mnist", "fashion_mnist", "cifar10", "clothing128"), "pictures", quick=(subject.STAND_IN,)
    )
    shipped: tuple[str, ...] = choice(
        ("mnist", "fashion_mnist"), "sets whose shipped networks are asked", quick=(subject.STAND_IN,)
    )
    data_dir: str | None = choice(None, "folder that holds the images")
    images: int = choice(3000, "of a spectrum", quick=64)
    test: int = choice(500, "test images of the networks", quick=4)
    log_snr: tuple[float, ...] = choice(
        tuple(float(x) for x in range(-9, 7)), "of the networks, about the pixels' variance", quick=(-4.0, 0.0)
    )
    priced: tuple[str, ...] = choice(
        ("U-Net medium", "transformer, patch 2"), "networks that steps are priced on", quick=("U-Net medium",)
    )
    steps: tuple[int, ...] = choice((6,), "of the global reference", quick=(3,))
    slack: float = choice(0.05, "more error than the reference's that is allowed")


class WindowAgainstSide(Study[Options]):
    """Models: the nearly massless Gaussian field, the two-mode model, the Ising chain and the critical Ising model on a
    torus, by side, and the exponent by which their curves fall on one another.  Pictures: the same ones at several
    resolutions, as Gaussian fields of their spectra, whose windows and cheapest schedules are exact, as in the
    resolution study; and where there are shipped networks, their own losses beside.  All of it takes 10 minutes of an
    idle core and goes on where it was stopped."""

    name = "window_against_side"
    question = "Does the window in which far pixels matter widen with the side, and what is saved then?"
    page = "results/window-against-side.md"
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        o = self.options
        for name in o.sets:
            for side in SIDES[name]:
                asked = {"images": o.images, "steps": o.steps, "slack": o.slack, "priced": o.priced}
                yield Cell(f"images/{name}/{side}", asked)
        for name in o.shipped:
            yield Cell(f"trained/{name}", {"test": o.test, "log_snr": o.log_snr})
        for model in o.models:
            for side in o.sides:
                yield Cell(f"scaling/{model}/{side}", {"share": o.share})

    def measure(self, cell: Cell) -> dict[str, Any]:
        o, (kind, name, *more) = self.options, cell.name.split("/")
        if kind == "scaling":
            return scaling.measured(name, int(more[0]), o.share)
        if kind == "trained":
            return images.trained(name, o.log_snr, o.test, o.data_dir)
        asked = resolution.Options(measures=("frechet",), steps=o.steps, slack=o.slack, solvers=("exp_ab2",))
        return images.measured(images.field_of(self.load(name), int(more[0]), o.images), o.priced, asked)

    @cache  # noqa: B019 - a study lives as long as its sets are needed
    def load(self, name: str) -> ImageData:
        return subject.load(name, self.options.data_dir)

    def tables(self, answers: Answers) -> dict[str, str]:
        return {"window": window_table(answers), "trained": trained_table(answers), "scaling": scaling_table(answers)}

    def figures(self, answers: Answers) -> dict[str, bytes]:
        return {"scaling.png": figure(answers)}
