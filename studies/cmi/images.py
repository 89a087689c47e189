"""CMI maps of real images in the paper's geometry, and what the published recipe would cost for the same map."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from phasewise.errors import PhasewiseError
from phasewise.information import cmi_map
from phasewise.information.critics import MINE
from phasewise.results import CMIMap
from studies import subject
from studies.cmi.image_figures import map_table, published_figure, sets_figure
from studies.cmi.truth import estimator_options
from studies.options import choice
from studies.study import Answers, Cell, Study

PUBLISHED_TRAININGS, PUBLISHED_STEPS = 33 + 132, 300_000
SHOWN = {
    "mnist-b1": ("MNIST, centre pixel", (1, 2, 3, 4, 6, 9, 12)),
    "mnist-b4": ("MNIST, 4x4 block", (1, 2, 3, 4, 6, 9)),
    "mnist-b1-at7_7": ("MNIST, pixel (7, 7)", (1, 2, 3, 4, 6, 9, 12)),
    "fashion_mnist-b1": ("Fashion-MNIST, centre pixel", (1, 2, 3, 4, 6, 9, 12)),
    "cifar10-b1": ("CIFAR-10, centre pixel (three colours)", (1, 2, 3, 4, 6, 9, 12)),
    "mnist-b7": ("MNIST, 7x7 block", (1, 2, 3, 4, 6, 9)),
    "mnist-b2": ("MNIST, 2x2 block", (1, 2, 3, 4, 6, 9)),
    "digits-b1": ("digits, centre pixel", (1, 2, 3)),
}
"""Maps that have a table: title and radii."""
FIT_RANGE = (1, 4)


@dataclass(frozen=True)
class Options:
    data: str = choice("mnist", "image set", quick="digits")
    data_dir: str | None = choice(None, "folder that holds it")
    center: tuple[int, ...] = choice((), "row and column of A; none: the middle")
    block: int = choice(1, "side of A, pixels")
    times: tuple[float, ...] = choice(
        (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), "noise times", quick=(0.2, 0.5)
    )
    radii: tuple[int, ...] = choice(tuple(range(1, 13)), "of the buffer", quick=(1, 2))
    seed: int = choice(0, "of noise and estimator")
    option: tuple[str, ...] = choice((), "NAME=VALUE for the estimator", quick=("steps=5", "max_scored=64", "draws=1"))
    name: str | None = choice(None, "of the answer; none: from the options")
    mine_steps: int = choice(0, "time one MINE estimate of so many steps as well", quick=1)


class CMIImages(Study[Options]):
    """The first row and column of 28x28 images are cropped.  The answers are kept with the page, one file a map."""

    name = "cmi_images"
    question = "Is there a transition in the conditional mutual information of real images?"
    page = "results/cmi.md"
    options_type = Options
    home = Path("docs/results/cmi")

    @property
    def work(self) -> Path:
        """Scratch does not belong beside the page."""
        return Path("runs/studies/cmi_images/work") if self.out == self.home else super().work

    def cells(self) -> Iterator[Cell]:
        o = self.options
        if len(o.center) not in (0, 2):
            raise PhasewiseError(f"--center takes a row and a column, e.g. --center 7 7; got {o.center}")
        at = f"-at{o.center[0]}_{o.center[1]}" if o.center else ""
        asked = {
            "data": o.data, "center": o.center, "block": o.block, "times": o.times, "radii": o.radii, "seed": o.seed,
            "option": estimator_options(o.option),
        }  # fmt: skip
        yield Cell(o.name or f"{o.data}-b{o.block}{at}", asked)

    def measure(self, cell: Cell) -> dict[str, Any]:
        o, images = self.options, images_of(self.options.data, self.options.data_dir)
        center = (o.center[0], o.center[1]) if o.center else None
        start = time.perf_counter()
        found = cmi_map(
            images, o.radii, o.times, block=o.block, center=center, seed=o.seed, folder=self.work,
            **estimator_options(o.option),
        )  # fmt: skip
        answer = {"map": found.to_dict(), "seconds": time.perf_counter() - start, "images": len(images)}
        if o.mine_steps:
            one = mine_seconds(images, 0.3, o.radii[min(2, len(o.radii) - 1)], o.mine_steps)
            whole = PUBLISHED_TRAININGS * PUBLISHED_STEPS / o.mine_steps * one
            answer["mine"] = {"steps": o.mine_steps, "seconds": one, "whole_map_seconds": whole}
        return answer

    def tables(self, answers: Answers) -> dict[str, str]:
        texts = {}
        for name, (title, radii) in SHOWN.items():
            if name in answers:
                found = CMIMap.from_dict(answers[name]["map"])
                about = f"{title}, nats; n = {found.n}, seed {found.seed}:"
                texts[name] = f"{about}\n\n{map_table(found, radii, FIT_RANGE)}"
        return texts

    def figures(self, answers: Answers) -> dict[str, bytes]:
        maps = {name: CMIMap.from_dict(content["map"]) for name, content in answers.items()}
        figures = {"sets.png": sets_figure(maps)}
        return {**figures, "published.png": published_figure(maps["mnist-b1"])} if "mnist-b1" in maps else figures


def images_of(name: str, data_dir: str | None) -> torch.Tensor:
    """All images of a set, in the paper's crop."""
    data = subject.load(name, data_dir)
    images = torch.cat([data.train, data.validation, data.test])
    return images[:, :, 1:, 1:] if images.shape[-1] == 28 else images


def mine_seconds(images: torch.Tensor, time_: float, radius: int, steps: int) -> float:
    """Seconds of ``steps`` steps of one critic: two trainings (I(A:BC) and I(A:B)), halved; scoring left out."""

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        cmi_map(images[:2000], [radius], [time_], estimator=MINE.published(steps=steps), accuracy=1.0)
        return time.perf_counter() - start

    return (seconds(steps + 1) - seconds(1)) / 2
