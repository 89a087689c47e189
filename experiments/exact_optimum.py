"""Local networks against the best that any function of their window can do, on a Gaussian field where it is known.

    python experiments/exact_optimum.py --seconds 120 --docs docs

The field lives on a 28x28 torus (spectrum 1/(m^2 + 4 - 2cos kx - 2cos ky), unit variance); the networks see it cut
open, so the optimum of every block of pixels is that of its own window, cut at the border: E[A | X_t on the window], in
closed form.  Trained on 55,000 samples, judged on 2,000 others; the excess is of the mean over pixels, with its paired
error: both losses on the same images and noise.  Leaves OUT/{rN}.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from tables import already_answered, replace_table
from torch import Tensor

import phasewise as pw
from phasewise.denoisers.base import Denoiser
from phasewise.files import read_json, write_json
from phasewise.paths import Time

SIDE, TIMES, RADII = 28, (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9), (1, 2, 3, 5, 8, 12)


class WindowOptimum(Denoiser):
    """E[x | x_t on the window of each block] of a local network's blocks, for a Gaussian field of covariance ``k``."""

    def __init__(self, local: pw.LocalDenoiser, k: Tensor) -> None:
        super().__init__(local.image_shape, local.path, local.radius)
        self.k, self.block, self.reach = k, local.block, int(local.radius or 0)
        self.filters: dict[float, Tensor] = {}

    def filter(self, t: float) -> Tensor:
        if t not in self.filters:
            alpha, sigma = (float(f(torch.tensor(t, dtype=torch.float64))) for f in (self.path.alpha, self.path.sigma))
            out, p = torch.zeros(SIDE * SIDE, SIDE * SIDE, dtype=torch.float64), self.block
            index, ring = torch.arange(SIDE * SIDE).reshape(SIDE, SIDE), self.reach - self.block + 1
            for i in range(0, SIDE, p):
                for j in range(0, SIDE, p):
                    a = index[i : i + p, j : j + p].flatten()
                    w = index[max(i - ring, 0) : i + p + ring, max(j - ring, 0) : j + p + ring].flatten()
                    noisy = alpha**2 * self.k[w][:, w] + sigma**2 * torch.eye(len(w), dtype=torch.float64)
                    out[a[:, None], w] = alpha * torch.linalg.solve(noisy, self.k[w][:, a]).T
            self.filters = {t: out.float()}
        return self.filters[t]

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        return (x_t.flatten(1) @ self.filter(round(float(t), 6)).T).view_as(x_t)


def measure(radius: int, arguments: argparse.Namespace) -> dict[str, Any]:
    field = pw.exact.GaussianField((SIDE, SIDE), mass=arguments.mass)
    train, test = field.sample(55_000, 0), field.sample(2_000, 1)
    torch.manual_seed(0)
    local = pw.LocalDenoiser((1, SIDE, SIDE), radius)
    steps = round(arguments.seconds / pace(local, train))
    record = pw.train(local, train, steps=steps, name=f"r{radius}", progress=False)
    best = WindowOptimum(local, torch.as_tensor(field.covariance, dtype=torch.float64))
    table = pw.diagnosis.measure_losses({"best": best, "local": local}, test, TIMES, reference="best", seed=2)
    return {"steps": record.steps, "table": table.to_dict()}


def pace(local: pw.LocalDenoiser, images: Tensor) -> float:
    """Seconds of a training step."""
    return pw.train(pw.LocalDenoiser(**{**local.config(), "path": None}), images, steps=20, progress=False).seconds / 20


def markdown(out: Path) -> str:
    lines = [
        "| r | block | steps | " + " | ".join(f"t = {t:g}" for t in TIMES) + " |",
        "| --- " * (3 + len(TIMES)) + "|",
    ]
    for radius in RADII:
        file = out / f"r{radius}.json"
        if file.exists():
            content = read_json(file)
            table = pw.results.LossTable.from_dict(content["table"])
            best, excess, error = table.loss[:, 0], table.gap[:, 1], table.gap_stderr[:, 1]
            cells = [f"{100 * e / b:+.1f} ± {100 * s / b:.1f} %" for e, s, b in zip(excess, error, best, strict=True)]
            block = pw.LocalDenoiser((1, SIDE, SIDE), radius).block
            lines.append(f"| {radius} | {block} | {content['steps']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="training time of each network")
    parser.add_argument("--mass", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=Path("runs/exact-optimum"))
    parser.add_argument("--docs", type=Path, help="put the table into networks.md there")
    arguments = parser.parse_args()
    for radius in RADII:
        file, asked = arguments.out / f"r{radius}.json", {"seconds": arguments.seconds, "mass": arguments.mass}
        if not already_answered(file, asked):
            write_json(file, {"asked": asked, **measure(radius, arguments)})
            print(f"r = {radius} done", flush=True)
    print(markdown(arguments.out))
    if arguments.docs:
        replace_table(arguments.docs / "networks.md", "exact_optimum.py", markdown(arguments.out))


if __name__ == "__main__":
    main()
