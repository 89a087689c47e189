"""How critical time, gap and prices move with the global network that they are measured against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import phasewise as pw
from phasewise.diagnosis import gap_window
from phasewise.results import LossTable
from studies import designs, subject
from studies.options import choice, make_options
from studies.pages import markdown
from studies.study import Answers, Cell, Study, measure_all

TIMES = (0.02, *(round(0.05 * k, 2) for k in range(1, 20)))
LOCAL = "r3"
HEADS = (
    "global network", "MFLOP", "loss, t = 0.3", "t = 0.5", "t = 0.7", "t_c", "gap", "window",
    "penalty w2", "penalty flow",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    against: str = choice("shipped", "global networks", choices=("shipped", "architectures"))
    also: tuple[str, ...] = choice((), "more of them, each NAME=FOLDER")
    n: int = choice(500, "test images", quick=12)
    data: str = choice("mnist", "image set of 28x28 pixels", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds it")
    designs: str = choice("runs/studies/designs", "answers of the study designs, for the architectures")
    seconds: float = choice(240.0, "training time of each architecture that is not there")


class Sensitivity(Study[Options]):
    """The shipped r = 3 network against every shipped global network (they differ in pixel folding, width and
    training), and against others in folders; or against the global architectures of `designs --group global`, which
    differ in channels, depth, attention and pixel folding at equal training time (trained first where they are not
    there).  The same test images and noise for all.  t_c is where the gap is largest (parabola through the three points
    round it), the window where it exceeds a tenth of its peak in velocity units, the prices those of r = 3 at every
    time."""

    name = "sensitivity"
    question = "How do critical time, gap and prices move with the global network they are measured against?"
    page = "results/networks.md"
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        asked: dict[str, Any] = {"data": self.options.data, "n": self.options.n, "also": self.options.also}
        rivals = {}
        if self.options.against == "architectures":
            trained = self.architectures()
            measure_all(trained, print)
            rivals = {name: trained.folder(name) for name in trained.chosen}
            asked["steps"] = {
                k: trained.answers[f"global/{k}"]["asked"]["steps"] for k in rivals
            }  # trained longer: others
        yield Cell(self.options.against, asked, rivals)

    def architectures(self) -> designs.Designs:
        o = self.options
        choices: dict[str, Any] = {"group": "global", "seconds": o.seconds, "data": o.data, "data_dir": o.data_dir}
        return designs.Designs(make_options(designs.Options, **choices), Path(o.designs))

    def measure(self, cell: Cell) -> dict[str, Any]:
        ready = pw.load_pretrained("mnist")
        shipped = (LOCAL,) if cell.what else (LOCAL, "global", "small", "coarse")
        members = {name: ready.denoiser(name) for name in shipped}
        members |= {name: pw.load_denoiser(folder) for name, folder in cell.what.items()}
        members |= {name: pw.load_denoiser(folder) for name, folder in (pair.split("=") for pair in self.options.also)}
        images = subject.load(self.options.data, self.options.data_dir).test[: self.options.n]
        table = pw.diagnosis.measure_losses(members, images, TIMES, reference=LOCAL, seed=5)
        shape = members[LOCAL].image_shape
        return {"table": table.to_dict(), "mflop": {k: pw.count_flops(d, shape) / 1e6 for k, d in members.items()}}

    def tables(self, answers: Answers) -> dict[str, str]:
        return {name: table(content) for name, content in answers.items()}


def table(content: dict[str, Any]) -> str:
    """A row for every global network; gap and prices are those of the local one against it."""
    losses = LossTable.from_dict(content["table"])
    rows = [[n, f"{content['mflop'][n]:.0f}", *cells_of(losses, n)] for n in losses.names if n != LOCAL]
    note = f"Gap and prices of one r = 3 network against each; n = {losses.n} test images."
    return markdown(HEADS, rows, note)


def cells_of(losses: LossTable, name: str) -> list[str]:
    """What the local network shows against the global network ``name``."""
    path, times, i = pw.LinearPath(), losses.times, losses.column(name)
    gain, step = path.velocity_gain(torch.as_tensor(times)).numpy(), np.gradient(times)
    gap, error = -losses.gap[:, i], losses.gap_stderr[:, i]
    against = replace(losses, reference=name, gap=np.repeat(gap[:, None], len(losses.names), 1))
    # of one hardly trained the local one may be ahead everywhere
    k, ahead = int(np.argmax(gap)), bool(gap.max() > 0)
    low, high = gap_window(against, path, LOCAL) if ahead else (0.0, 0.0)
    w2 = float((np.sqrt(losses.distance[:, i]) * gain * step).sum())
    flow = float((gap * gain**2 * step).sum())
    return [
        *(f"{losses.loss[int(np.argmin(np.abs(times - t))), i]:.2f}" for t in (0.3, 0.5, 0.7)),
        f"{peak(times, gap):.3f}" if ahead else "none",
        f"{gap[k]:.2f} ± {error[k]:.2f}",
        f"{low:.2f} to {high:.2f}" if ahead else "none",
        f"{w2:.2f}",
        f"{flow:.1f}",
    ]


def peak(times: np.ndarray, values: np.ndarray) -> float:
    """Where the parabola through the largest value and its neighbours is highest."""
    k = int(np.clip(np.argmax(values), 1, len(values) - 2))
    a, b, _ = np.polyfit(times[k - 1 : k + 2], values[k - 1 : k + 2], 2)
    return float(-b / (2 * a))
