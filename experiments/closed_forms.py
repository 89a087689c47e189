"""The shipped local networks against what closed forms make of the same window, on held-out MNIST.

    python experiments/closed_forms.py --data-dir DIR --docs docs

For every radius: the network, the windowed Wiener filter (best linear denoiser of the window), and the windowed
empirical posterior: the training images' centre pixels averaged with the posterior weights of their windows, exact if
the data were the training images.  Squared error on every third pixel each way, times 784 over their number, so in the
unit of the loss tables; the same images and noise for all.  A network that loses to the Wiener filter is undertrained
there.  Leaves OUT/closed_forms.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from tables import already_answered, replace_table
from torch import Tensor
from torch.nn import functional as F

import phasewise as pw
from phasewise.files import read_json, write_json
from phasewise.paths import NoisePath

RADII, TIMES, SIDE, STRIDE = (1, 2, 3, 5, 8, 12), (0.1, 0.3, 0.5, 0.7, 0.9), 28, 3
EMPIRICAL = 5
"""Largest radius of the empirical posterior: 55,000 training windows are too few for more."""
Pixel = tuple[int, int]


def posterior_mean(train: Tensor, x_t: Tensor, t: float, path: NoisePath, pixel: Pixel, radius: int) -> Tensor:
    """E[x_pixel | x_t on its window] were the training images the distribution. (N, H, W), (n, H, W) -> (n,)."""
    row, column = (slice(max(c - radius, 0), c + radius + 1) for c in pixel)
    known, seen = train[:, row, column].flatten(1), x_t[:, row, column].flatten(1)
    time = torch.tensor(t)
    alpha, sigma = float(path.alpha(time)), float(path.sigma(time))
    inner = alpha * seen @ known.T - 0.5 * alpha**2 * known.square().sum(1)  # |seen|^2 is common to all
    return torch.softmax(inner / sigma**2, 1) @ train[:, pixel[0], pixel[1]]


def measure(data: pw.data.ImageData, n: int) -> dict[str, Any]:
    ready, path = pw.load_pretrained("mnist"), pw.LinearPath()
    train, x = data.train[:, 0], data.test[:n]
    pixels = [(i, j) for i in range(0, SIDE, STRIDE) for j in range(0, SIDE, STRIDE)]
    mask = F.one_hot(torch.tensor([i * SIDE + j for i, j in pixels]), SIDE**2).sum(0).view(SIDE, SIDE).bool()
    scale = SIDE**2 / len(pixels)
    rows: dict[str, Any] = {}

    def error(estimate: Tensor) -> Tensor:
        """(n,) squared error on the pixels looked at."""
        return (estimate[:, 0] - x[:, 0])[:, mask].square().sum(1) * scale

    for radius in RADII:
        wiener = pw.WienerDenoiser.fit(data.train, radius=radius)
        for t in TIMES:
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(round(1000 * t)))
            x_t = path.add_noise(x, noise, t)
            network = error(ready.denoiser(f"r{radius}")(x_t, t))
            others = {"Wiener": error(wiener(x_t, t))}
            if radius <= EMPIRICAL:
                means = torch.stack([posterior_mean(train, x_t[:, 0], t, path, p, radius) for p in pixels], 1)
                others["empirical"] = (means - x[:, 0][:, mask]).square().sum(1) * scale
            found = {k: [float(v.mean()), *paired(v - network)] for k, v in others.items()}
            rows[f"{radius}/{t:g}"] = {"network": float(network.mean()), **found}
            print(f"r = {radius}, t = {t:g}: {rows[f'{radius}/{t:g}']}", flush=True)
    return rows


def paired(difference: Tensor) -> list[float]:
    return [float(difference.mean()), float(difference.std()) / len(difference) ** 0.5]


def markdown(content: dict[str, Any]) -> str:
    """A row for every radius; behind each closed form's loss, what it is above the network's, with its paired error."""
    lines = ["| r | by | " + " | ".join(f"t = {t:g}" for t in TIMES) + " |", "| --- " * (2 + len(TIMES)) + "|"]
    for radius in RADII:
        cells = [content["rows"][f"{radius}/{t:g}"] for t in TIMES]
        lines.append(f"| {radius} | network | " + " | ".join(f"{c['network']:.3g}" for c in cells) + " |")
        for kind in ("Wiener", "empirical"):
            if kind in cells[0]:
                shown = " | ".join(f"{c[kind][0]:.3g} ({c[kind][1]:+.2g} ± {c[kind][2]:.1g})" for c in cells)
                lines.append(f"| {radius} | {kind} | {shown} |")
    return "\n".join([*lines, "", f"n = {content['asked']['n']} test images, every third pixel each way."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/designs"))
    parser.add_argument("--docs", type=Path, help="put the table into networks.md there")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    file, asked = arguments.out / "closed_forms.json", {"n": arguments.n}
    if not already_answered(file, asked):
        data = pw.load_images("mnist", data_dir=arguments.data_dir)
        write_json(file, {"asked": asked, "rows": measure(data, arguments.n)})
    text = markdown(read_json(file))
    print(text)
    if arguments.docs:
        replace_table(arguments.docs / "networks.md", "closed_forms.py", text)


if __name__ == "__main__":
    main()
