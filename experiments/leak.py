"""What the published local design sees beyond its radius, and what that buys: leaky norm or strict.

    python experiments/designs.py published --seconds 300 --data mnist --data-dir DIR       # trains the three networks
    python experiments/leak.py --data-dir DIR --docs docs

For the two published designs of r = 3 and ours, trained for the same time: the share of the Jacobian that lies outside
the radius (sum of |d D_i / d x_j| beyond max-norm 3 over the whole sum, mean over pixels and test images), held-out
loss, and FID of sampling with the local network alone and with the shipped global network inside the published window
[0.2, 0.5].  Leaves OUT/leak.json and docs/networks/leak.png, and fills the table in docs/networks.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from tables import already_answered, replace_table
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import Denoiser
from phasewise.files import read_json, write_json
from phasewise.metrics import frechet_score
from phasewise.pretrained import load_pretrained
from phasewise.report.style import RC
from phasewise.results import HybridSchedule, LossTable
from phasewise.scheduling import baselines

mpl.use("Agg")
import matplotlib.pyplot as plt

NAMES = ("ours", "strict", "leaky")
LABELS = {"ours": "ours, 2x2 blocks", "strict": "published, pixel norm", "leaky": "published, group norm"}
COLOURS = {"ours": "#0072B2", "strict": "#009E73", "leaky": "#D55E00"}
TIMES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PIXELS = ((13, 13), (8, 14), (20, 10))
WINDOW, SOLVER = (0.2, 0.5), "exp_ab2"


def mass_outside(denoiser: Denoiser, images: Tensor, t: float, seed: int = 0) -> tuple[float, float]:
    """Share of sum_j |d D_i / d x_j| at distances above the radius: mean over images and pixels, and its error."""
    generator = torch.Generator().manual_seed(seed)
    x_t = denoiser.path.add_noise(images, torch.randn(images.shape, generator=generator), t).requires_grad_()
    rows, columns = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    shares = []
    out = denoiser(x_t, t)
    for i, j in PIXELS:
        (slope,) = torch.autograd.grad(out[:, 0, i, j].sum(), x_t, retain_graph=True)
        size = slope.abs().sum(1)
        outside = torch.maximum((rows - i).abs(), (columns - j).abs()) > (denoiser.radius or 0)
        shares.append((size * outside).sum((1, 2)) / size.sum((1, 2)))
    share = torch.stack(shares).mean(0)
    return float(share.mean()), float(share.std() / len(share) ** 0.5)


def schedules(steps: int) -> dict[str, HybridSchedule]:
    times = pw.time_grid(steps)
    assignment = {
        "local only": ("local",) * steps,
        "published window": baselines.window(times, WINDOW, "global", "local"),
    }
    return {name: HybridSchedule(times=times, assignment=who, solver=SOLVER) for name, who in assignment.items()}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    data = pw.load_images("mnist", data_dir=arguments.data_dir)
    ready = load_pretrained("mnist")
    features, reference, reach = ready.features(), ready.reference(), ready.members()["global"]
    found: dict[str, Any] = {}
    for name in NAMES:
        folder = arguments.networks / name
        local = pw.load_denoiser(folder)
        training = read_json(folder / "losses.json")
        one: dict[str, Any] = {
            "training": training["asked"],
            "mass": [mass_outside(local, data.test[:32], t) for t in TIMES],
            "losses": training["table"],
            "fid": {},
        }
        for title, schedule in schedules(arguments.steps).items():
            hybrid = pw.HybridDenoiser({"local": local, "global": reach}, schedule)
            images = pw.sample(hybrid, arguments.n, seed=0)
            score = frechet_score(features.extract(images.clamp(0, 1)), reference, seed=0)
            one["fid"][title] = (score.value, score.stderr)
            one[title] = images[:12].clamp(0, 1).mul(255).round().int().flatten(1).tolist()
            print(f"{name}, {title}: FID {score.value:.2f} ± {score.stderr:.2f}", flush=True)
        found[name] = one
    return found


def draw(found: dict[str, Any], file: Path) -> None:
    plt.rcParams.update(RC)
    figure = plt.figure(figsize=(9.5, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, 6, height_ratios=(3, 2))
    mass, loss = figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])
    base = LossTable.from_dict(found["strict"]["losses"])
    for name in NAMES:
        share = np.array(found[name]["mass"])
        mass.errorbar(TIMES, share[:, 0], 2 * share[:, 1], marker="o", color=COLOURS[name], label=LABELS[name])
        table = LossTable.from_dict(found[name]["losses"])
        loss.plot(table.times, table.loss[:, 0] / base.loss[:, 0], "o-", color=COLOURS[name], label=LABELS[name])
    mass.set(xlabel="noise time t", ylabel="share of the Jacobian beyond r = 3", title="Seen beyond the radius")
    loss.set(xlabel="noise time t", ylabel="held-out loss, of the strict one", title="What it buys")
    mass.legend()
    for k, (name, title) in enumerate((n, t) for t in ("local only", "published window") for n in NAMES):
        ax = figure.add_subplot(grid[1, k])
        images = np.array(found[name][title]).reshape(4, 3, 28, 28)
        ax.imshow(images.transpose(0, 2, 1, 3).reshape(112, 84), cmap="gray")
        value = found[name]["fid"][title]
        ax.set_title(f"{title}\n{name}: FID {value[0]:.1f}", fontsize=7.5)
        ax.axis("off")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=140)


def markdown(found: dict[str, Any], n: int) -> str:
    shown = [TIMES.index(t) for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
    lines = [
        "| r = 3 | steps | "
        + " | ".join(f"mass, t = {TIMES[k]:g}" for k in shown)
        + " | FID local only | FID window |",
        "| --- " * (4 + len(shown)) + "|",
    ]
    for name in NAMES:
        one = found[name]
        cells = [f"{100 * one['mass'][k][0]:.1f} ± {100 * one['mass'][k][1]:.1f} %" for k in shown]
        fids = [f"{v:.2f} ± {e:.2f}" for v, e in one["fid"].values()]
        lines.append(f"| {LABELS[name]} | {one['training']['steps']} | " + " | ".join([*cells, *fids]) + " |")
    seconds = found["ours"]["training"]["seconds"]
    return "\n".join([*lines, "", f"{seconds:g} s of training each; Jacobians of 32 test images, FID of {n} samples."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--networks", type=Path, default=Path("runs/designs/published"))
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/designs"))
    parser.add_argument("--docs", type=Path, help="put figure and table there")
    arguments = parser.parse_args()
    file, asked = arguments.out / "leak.json", {"n": arguments.n, "steps": arguments.steps}
    if not already_answered(file, asked):
        write_json(file, {"asked": asked, "found": measure(arguments)})
    found = read_json(file)["found"]
    print(markdown(found, arguments.n))
    if arguments.docs:
        draw(found, arguments.docs / "networks" / "leak.png")
        replace_table(arguments.docs / "networks.md", "leak.py", markdown(found, arguments.n))


if __name__ == "__main__":
    main()
