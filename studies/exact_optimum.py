"""Local networks against the best that any function of their window can do, on a Gaussian field where it is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import phasewise as pw
from phasewise.paths import Time
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

Size = tuple[int, int]


@dataclass(frozen=True)
class Options:
    seconds: float = choice(120.0, "training time of each network", quick=0.2)
    mass: float = choice(0.1, "of the field")
    radii: tuple[int, ...] = choice((1, 2, 3, 5, 8, 12), "of the networks", quick=(1, 3))
    times: tuple[float, ...] = choice((0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9), "noise times", quick=(0.1, 0.5))
    side: int = choice(28, "of the field, pixels", quick=8)
    train: int = choice(55_000, "fields to train on", quick=200)
    test: int = choice(2_000, "fields to judge on", quick=50)


class ExactOptimum(Study[Options]):
    """The field lives on a torus (spectrum 1/(m^2 + 4 - 2cos kx - 2cos ky), unit variance); the networks see it cut
    open, so the optimum of every block of pixels is that of its own window, cut at the border, in closed form: E[A |
    X_t on the window].  The excess is of the mean over pixels, with its paired error: equal images and noise."""

    name = "exact_optimum"
    question = "How far are trained local networks from the best that any function of their window can do?"
    page = "results/networks.md"
    options_type = Options

    @cached_property
    def field(self) -> pw.exact.GaussianField:
        return pw.exact.GaussianField((self.options.side, self.options.side), mass=self.options.mass)

    @cached_property
    def fields(self) -> tuple[Tensor, Tensor]:
        """To train on, to judge on."""
        return self.field.sample(self.options.train, 0), self.field.sample(self.options.test, 1)

    def cells(self) -> Iterator[Cell]:
        o = self.options
        asked = {
            "seconds": o.seconds,
            "mass": o.mass,
            "times": o.times,
            "side": o.side,
            "train": o.train,
            "test": o.test,
        }
        for radius in o.radii:
            yield Cell(f"r{radius}", asked, radius)

    def measure(self, cell: Cell) -> dict[str, Any]:
        (train, test), radius = self.fields, int(cell.what)
        torch.manual_seed(0)
        local = pw.LocalDenoiser((1, self.options.side, self.options.side), radius)
        steps = max(round(self.options.seconds / pace(local, train)), 1)
        record = pw.train(local, train, steps=steps, name=cell.name, progress=False)
        best = WindowOptimum(local, torch.as_tensor(self.field.covariance, dtype=torch.float64))
        pair = {"best": best, "local": local}
        table = pw.diagnosis.measure_losses(pair, test, self.options.times, reference="best", seed=2)
        return {"steps": record.steps, "block": local.block, "table": table.to_dict()}

    def tables(self, answers: Answers) -> dict[str, str]:
        rows: list[list[str]] = []
        times: list[float] = []
        for name, content in sorted(answers.items(), key=lambda pair: int(pair[0][1:])):
            table = pw.results.LossTable.from_dict(content["table"])
            best, excess, error = table.loss[:, 0], table.gap[:, 1], table.gap_stderr[:, 1]
            shown = [f"{100 * e / b:+.1f} ± {100 * s / b:.1f} %" for e, s, b in zip(excess, error, best, strict=True)]
            rows.append([name[1:], str(content["block"]), str(content["steps"]), *shown])
            times = table.times.tolist()
        return {"": markdown(["r", "block", "steps", *(f"t = {t:g}" for t in times)], rows)}


def pace(local: pw.LocalDenoiser, images: Tensor, steps: int = 20) -> float:
    """Seconds of a training step."""
    twin = pw.LocalDenoiser(**{**local.config(), "path": None})
    return pw.train(twin, images, steps=steps, progress=False).seconds / steps


class WindowOptimum(pw.Denoiser):
    """E[x | x_t on the window of each block] of a local network's blocks, for a Gaussian field of covariance ``k``."""

    def __init__(self, local: pw.LocalDenoiser, k: Tensor) -> None:
        super().__init__(local.image_shape, local.path, local.radius)
        self.k, self.block, self.ring = k, local.block, int(local.radius or 0) - local.block + 1
        self.size: Size = self.image_shape[1:]
        self.filters: dict[float, Tensor] = {}

    def filter(self, t: float) -> Tensor:
        """(pixels, pixels): Cov(A, X_t) Cov(X_t)^-1 on every block's window, 0 outside."""
        if t not in self.filters:
            alpha, sigma = (float(f(torch.tensor(t, dtype=torch.float64))) for f in (self.path.alpha, self.path.sigma))
            out = torch.zeros(len(self.k), len(self.k), dtype=torch.float64)
            for a, w in self.windows():
                noisy = alpha**2 * self.k[w][:, w] + sigma**2 * torch.eye(len(w), dtype=torch.float64)
                out[a[:, None], w] = alpha * torch.linalg.solve(noisy, self.k[w][:, a]).T
            self.filters = {t: out.float()}
        return self.filters[t]

    def windows(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels of every block, and those of its window."""
        height, width = self.size
        index, p, ring = torch.arange(height * width).reshape(height, width), self.block, self.ring
        for i in range(0, height, p):
            for j in range(0, width, p):
                window = index[max(i - ring, 0) : i + p + ring, max(j - ring, 0) : j + p + ring]
                yield index[i : i + p, j : j + p].flatten(), window.flatten()

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        return (x_t.flatten(1) @ self.filter(round(float(t), 6)).T).view_as(x_t)
