"""The README's picture: digits of three schedules from the same noise, with what each costs and scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

import phasewise as pw
from studies.figures import png
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

FIDS = {"global": "0.412 ± 0.019", "hybrid": "0.466 ± 0.019", "local_only": "20.95 ± 0.21"}
"""As measured: global and hybrid by `front --final 10000` (docs/results/schedules.md, three seeds of 10,000 samples),
local only by the MNIST run (docs/results/mnist.md, 3,000 samples, seed 0)."""


@dataclass(frozen=True)
class Options:
    n: int = choice(14, "digits a row", quick=2)
    seed: int = choice(0, "of the noise")


class ReadmePicture(Study[Options]):
    """A row of digits for each schedule of the shipped MNIST set, from the same starting noise and the same later
    noise.  Its FIDs are those of other studies, not of these few digits."""

    name = "readme_picture"
    question = "What do digits of the global, the hybrid and the local-only schedule look like from the same noise?"
    pictures = ""
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        yield from (Cell(name, {"n": self.options.n, "seed": self.options.seed}) for name in FIDS)

    def measure(self, cell: Cell) -> dict[str, Any]:
        ready = pw.load_pretrained("mnist")
        with torch.no_grad():
            images = pw.sample(ready.hybrid(cell.name), n=self.options.n, seed=self.options.seed).clamp(0, 1)[:, 0]
        return {"mflop": ready.schedules[cell.name].mflop, "images": images.mul(255).round().int().tolist()}

    def tables(self, answers: Answers) -> dict[str, str]:
        rows = [[label(name), f"{answers[name]['mflop']:.0f}", fid] for name, fid in FIDS.items()]
        return {"": markdown(("schedule", "MFLOP an image", "FID"), rows)}

    def figures(self, answers: Answers) -> dict[str, bytes]:
        return {"readme.png": draw(answers)}


def label(name: str) -> str:
    return name.replace("_", " ")


def draw(answers: Answers) -> bytes:
    """One row for each schedule."""
    import matplotlib.pyplot as plt

    with mpl.rc_context(mpl.rcParamsDefault):
        figure, axes = plt.subplots(len(FIDS), 1, figsize=(9.6, 2.05))
        for axis, (name, fid) in zip(axes, FIDS.items(), strict=True):
            axis.imshow(np.hstack(answers[name]["images"]), cmap="gray_r", vmin=0, vmax=255, aspect="equal")
            cost = f"{answers[name]['mflop']:.0f} MFLOP, FID {fid}"
            axis.text(-0.28, 0.72, label(name), transform=axis.transAxes, fontsize=12, va="center", weight="bold")
            axis.text(-0.28, 0.28, cost, transform=axis.transAxes, fontsize=9, va="center")
            axis.set_axis_off()
        figure.subplots_adjust(left=0.223, right=0.998, top=0.995, bottom=0.005, hspace=0.03)
        return png(figure, dpi=115)
