"""The shipped local networks against what closed forms make of the same window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import phasewise as pw
from phasewise.data import ImageData
from phasewise.paths import NoisePath
from studies import subject
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

EMPIRICAL = 5
"""Largest radius of the empirical posterior: 55,000 training windows are too few for more."""
STRIDE = 3
"""Every third pixel each way is looked at."""
Pixel = tuple[int, int]


@dataclass(frozen=True)
class Options:
    data: str = choice("mnist", "image set", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds it")
    n: int = choice(200, "test images", quick=4)
    radii: tuple[int, ...] = choice((1, 2, 3, 5, 8, 12), "of the shipped networks", quick=(1, 3))
    times: tuple[float, ...] = choice((0.1, 0.3, 0.5, 0.7, 0.9), "noise times", quick=(0.5,))


class ClosedForms(Study[Options]):
    """For every radius: the network, the windowed Wiener filter (best linear denoiser of the window), and the windowed
    empirical posterior: the training images' centre pixels averaged with the posterior weights of their windows, exact
    if the data were the training images.  Squared error on every third pixel each way, times the pixels of an image
    over their number, so in the unit of the loss tables; the same images and noise for all.  A network that loses to
    the Wiener filter is undertrained there."""

    name = "closed_forms"
    question = "Do the shipped local networks beat what closed forms make of the same window?"
    page = "results/networks.md"
    options_type = Options

    @cached_property
    def data(self) -> ImageData:
        return subject.load(self.options.data, self.options.data_dir)

    def cells(self) -> Iterator[Cell]:
        for radius in self.options.radii:
            asked = {"data": self.options.data, "n": self.options.n, "times": self.options.times}
            yield Cell(f"r{radius}", asked, radius)

    def measure(self, cell: Cell) -> dict[str, Any]:
        with torch.no_grad():
            return {"rows": {f"{t:g}": row for t, row in errors_of(self.data, cell.what, self.options).items()}}

    def tables(self, answers: Answers) -> dict[str, str]:
        return {"": table(answers)}


def errors_of(data: ImageData, radius: int, options: Options) -> dict[float, dict[str, Any]]:
    """By time: the network's error, and of each closed form its error and what that is above the network's."""
    network = pw.load_pretrained("mnist").denoiser(f"r{radius}")
    wiener = pw.WienerDenoiser.fit(data.train, radius=radius)
    train, x, path = data.train[:, 0], data.test[: options.n], network.path
    height, width = x.shape[-2:]
    pixels = [(i, j) for i in range(0, height, STRIDE) for j in range(0, width, STRIDE)]
    rows, columns = (torch.tensor(index) for index in zip(*pixels, strict=True))
    true = x[:, 0][:, rows, columns]

    def error(estimate: Tensor) -> Tensor:
        """(n,) squared error of (n, pixels)."""
        return (estimate - true).square().sum(1) * (height * width / len(pixels))

    found = {}
    for t in options.times:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(round(1000 * t)))
        x_t = path.add_noise(x, noise, t)
        ours = error(network(x_t, t)[:, 0][:, rows, columns])
        others = {"Wiener": error(wiener(x_t, t)[:, 0][:, rows, columns])}
        if radius <= EMPIRICAL:
            others["empirical"] = error(
                torch.stack([posterior_mean(train, x_t[:, 0], t, path, p, radius) for p in pixels], 1)
            )
        found[t] = {
            "network": float(ours.mean()),
            **{k: [float(v.mean()), *paired(v - ours)] for k, v in others.items()},
        }
    return found


def posterior_mean(train: Tensor, x_t: Tensor, t: float, path: NoisePath, pixel: Pixel, radius: int) -> Tensor:
    """E[x_pixel | x_t on its window] were the training images the distribution. (N, H, W), (n, H, W) -> (n,)."""
    row, column = (slice(max(c - radius, 0), c + radius + 1) for c in pixel)
    known, seen = train[:, row, column].flatten(1), x_t[:, row, column].flatten(1)
    time = torch.tensor(t)
    alpha, sigma = float(path.alpha(time)), float(path.sigma(time))
    inner = alpha * seen @ known.T - 0.5 * alpha**2 * known.square().sum(1)  # |seen|^2 is common to all
    return torch.softmax(inner / sigma**2, 1) @ train[:, pixel[0], pixel[1]]


def paired(difference: Tensor) -> list[float]:
    """Mean and its standard error."""
    return [float(difference.mean()), float(difference.std()) / len(difference) ** 0.5]


def table(answers: Answers) -> str:
    """A row for every radius; behind each closed form's loss, what it is above the network's, with its paired error."""
    found = {int(name[1:]): content for name, content in answers.items()}
    times = next(iter(found.values()))["asked"]["times"]
    rows = []
    for radius, content in sorted(found.items()):
        cells = [content["rows"][f"{t:g}"] for t in times]
        rows.append([str(radius), "network", *(f"{c['network']:.3g}" for c in cells)])
        for kind in ("Wiener", "empirical"):
            if kind in cells[0]:
                rows.append(
                    [str(radius), kind, *(f"{c[kind][0]:.3g} ({c[kind][1]:+.2g} ± {c[kind][2]:.1g})" for c in cells)]
                )
    n = next(iter(found.values()))["asked"]["n"]
    return markdown(
        ["r", "by", *(f"t = {t:g}" for t in times)], rows, f"n = {n} test images, every third pixel each way."
    )
