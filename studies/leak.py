"""What the published local design sees beyond its radius, and what that buys: leaky norm or strict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasewise as pw
from phasewise.metrics import frechet_score
from phasewise.results import LossTable
from phasewise.scheduling import baselines
from studies import designs, subject
from studies.figures import png, style
from studies.options import choice, make_options
from studies.pages import markdown
from studies.study import Answers, Cell, Study, measure_all

LABELS = {"ours": "ours, 2x2 blocks", "strict": "published, pixel norm", "leaky": "published, group norm"}
COLOURS = {"ours": "#0072B2", "strict": "#009E73", "leaky": "#D55E00"}
PIXELS = ((13, 13), (8, 14), (20, 10))
WINDOW, SOLVER = (0.2, 0.5), "exp_ab2"
SHOWN = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Options:
    data: str = choice("mnist", "image set of 28x28 pixels", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds it")
    times: tuple[float, ...] = choice((0.05, *(round(0.1 * k, 1) for k in range(1, 10))), "noise times", quick=(0.3,))
    jacobians: int = choice(32, "test images whose Jacobians are taken", quick=2)
    n: int = choice(2000, "samples of each schedule", quick=16)
    steps: int = choice(16, "of a schedule", quick=2)
    designs: str | None = choice("runs/studies/designs", "answers of the study designs", quick=None)
    seconds: float = choice(300.0, "training time of each network that is not there", quick=0.01)


class Leak(Study[Options]):
    """For the two published designs of r = 3 and ours, trained for the same time (`designs --group published`, trained
    first where they are not there): the share of the Jacobian that lies outside the radius (sum of |d D_i / d x_j|
    beyond max-norm 3 over the whole sum, mean over pixels and test images), held-out loss, and FID of sampling with the
    local network alone and with the shipped global network inside the published window [0.2, 0.5]."""

    name = "leak"
    question = "How much does the published local design see beyond its radius, and what does that buy?"
    page = "results/networks.md"
    options_type = Options

    @cached_property
    def subject(self) -> subject.Subject:
        return subject.of_shipped("mnist", self.options.data, self.options.data_dir)

    @cached_property
    def networks(self) -> designs.Designs:
        o = self.options
        choices: dict[str, Any] = {"group": "published", "data": o.data, "data_dir": o.data_dir, "seconds": o.seconds}
        if o.designs is None:
            choices |= {"only": (), "batch": 4, "rounds": 1, "timed": 1, "test": 8}
        return designs.Designs(make_options(designs.Options, **choices), Path(o.designs) if o.designs else self.work)

    def cells(self) -> Iterator[Cell]:
        o = self.options
        measure_all(self.networks, print)
        for name in LABELS:
            trained = self.networks.answers[f"published/{name}"]
            asked = {
                "n": o.n,
                "steps": o.steps,
                "times": o.times,
                "jacobians": o.jacobians,
                "training": trained["asked"],
            }
            yield Cell(name, asked, trained)

    def measure(self, cell: Cell) -> dict[str, Any]:
        o, local = self.options, pw.load_denoiser(self.networks.folder(cell.name))
        mass = [mass_outside(local, self.subject.data.test[: o.jacobians], t) for t in o.times]
        found: dict[str, Any] = {"mass": mass, "losses": cell.what["table"], "fid": {}, "samples": {}}
        members = {"local": local, "global": self.subject.members["global"]}
        for title, schedule in schedules(o.steps).items():
            images = pw.sample(pw.HybridDenoiser(members, schedule), o.n, seed=0).clamp(0, 1)
            score = frechet_score(self.subject.features.extract(images), self.subject.reference, seed=0)
            found["fid"][title] = (score.value, score.stderr)
            found["samples"][title] = images[:12].mul(255).round().int().flatten(1).tolist()
        return found

    def tables(self, answers: Answers) -> dict[str, str]:
        return {"": table(answers)}

    def figures(self, answers: Answers) -> dict[str, bytes]:
        return {"leak.png": draw(answers)}


def mass_outside(denoiser: pw.Denoiser, images: Tensor, t: float, seed: int = 0) -> tuple[float, float]:
    """Share of sum_j |d D_i / d x_j| at distances above the radius: mean over images and pixels, and its error."""
    generator = torch.Generator().manual_seed(seed)
    x_t = denoiser.path.add_noise(images, torch.randn(images.shape, generator=generator), t).requires_grad_()
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in images.shape[-2:]), indexing="ij")
    shares = []
    out = denoiser(x_t, t)
    for i, j in PIXELS:
        # images do not see each other, so the gradient of a sum over them holds every image's own
        (slope,) = torch.autograd.grad(out[:, 0, i, j].sum(), x_t, retain_graph=True)
        size = slope.abs().sum(1)
        outside = torch.maximum((rows - i).abs(), (columns - j).abs()) > (denoiser.radius or 0)
        shares.append((size * outside).sum((1, 2)) / size.sum((1, 2)))
    share = torch.stack(shares).mean(0)
    return float(share.mean()), float(share.std() / len(share) ** 0.5)


def schedules(steps: int) -> dict[str, pw.HybridSchedule]:
    times = pw.time_grid(steps)
    window = baselines.window(times, WINDOW, "global", "local")
    plans = {"local only": ("local",) * steps, "published window": window}
    return {name: pw.HybridSchedule(times=times, assignment=who, solver=SOLVER) for name, who in plans.items()}


def table(answers: Answers) -> str:
    asked = next(iter(answers.values()))["asked"]
    shown = [k for k, t in enumerate(asked["times"]) if t in SHOWN]
    heads = ["r = 3", "steps", *(f"mass, t = {asked['times'][k]:g}" for k in shown), "FID local only", "FID window"]
    rows = []
    for name, one in ((n, answers[n]) for n in LABELS if n in answers):
        mass = [f"{100 * one['mass'][k][0]:.1f} ± {100 * one['mass'][k][1]:.1f} %" for k in shown]
        fids = [f"{v:.2f} ± {e:.2f}" for v, e in one["fid"].values()]
        rows.append([LABELS[name], str(one["asked"]["training"]["steps"]), *mass, *fids])
    note = f"{asked['training']['seconds']:g} s of training each; "
    return markdown(heads, rows, f"{note}Jacobians of {asked['jacobians']} test images, FID of {asked['n']} samples.")


def draw(answers: Answers) -> bytes:
    """Above: mass beyond the radius and loss by time. Below: samples of both schedules."""
    import matplotlib.pyplot as plt

    style()
    figure = plt.figure(figsize=(9.5, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, 6, height_ratios=(3, 2))
    mass, loss = figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])
    base = LossTable.from_dict(answers["strict"]["losses"])
    for name, label in LABELS.items():
        share, times = np.array(answers[name]["mass"]), answers[name]["asked"]["times"]
        mass.errorbar(times, share[:, 0], 2 * share[:, 1], marker="o", color=COLOURS[name], label=label)
        table = LossTable.from_dict(answers[name]["losses"])
        loss.plot(table.times, table.loss[:, 0] / base.loss[:, 0], "o-", color=COLOURS[name], label=label)
    mass.set(xlabel="noise time t", ylabel="share of the Jacobian beyond r = 3", title="Seen beyond the radius")
    loss.set(xlabel="noise time t", ylabel="held-out loss, of the strict one", title="What it buys")
    mass.legend()
    for k, (name, title) in enumerate((n, t) for t in ("local only", "published window") for n in LABELS):
        ax = figure.add_subplot(grid[1, k])
        images = np.array(answers[name]["samples"][title]).reshape(4, 3, 28, 28)
        ax.imshow(images.transpose(0, 2, 1, 3).reshape(112, 84), cmap="gray")
        ax.set_title(f"{title}\n{name}: FID {answers[name]['fid'][title][0]:.1f}", fontsize=7.5)
        ax.axis("off")
    return png(figure)
