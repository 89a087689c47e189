"""Designs of networks compared at equal training time: held-out loss by noise time beside FLOPs and wall-clock.

    python experiments/designs.py GROUP --seconds 300 --data mnist --data-dir DIR
    python experiments/designs.py local3 --table docs/networks.md

Every design of a group trains for the same time: the cost of a training step is measured first, all designs in turn on
the same machine, and each gets ``seconds`` divided by its own.  Same images, noise and learning-rate curve (default
preset, cosine to zero).  Losses are of the averaged weights, E|D - x|^2 per test image, the same noise for all.
Stops and resumes; leaves OUT/GROUP/{costs.json, DESIGN.json} and the weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tables import already_answered, replace_table, seconds_of
from window_attention import AttentionLocal

import phasewise as pw
from phasewise.denoisers import Denoiser, NetworkDenoiser, PublishedLocal
from phasewise.files import read_json, write_json
from phasewise.results import LossTable
from phasewise.training import denoising_loss

SHAPE = (1, 28, 28)
TIMES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BATCH = 128
Make = Callable[[], NetworkDenoiser]


def local(radius: int, **choices: Any) -> Make:
    return lambda: pw.LocalDenoiser(SHAPE, radius, **{"norm": True, "mixing": 0, **choices})


def attention(radius: int, **choices: Any) -> Make:
    return lambda: AttentionLocal(SHAPE, radius, **choices)


def unet(**choices: Any) -> Make:
    return lambda: pw.UNetDenoiser(SHAPE, **choices)


GROUPS: dict[str, dict[str, Make]] = {
    "local1": {
        "stem p1 w32 d2": local(1),
        "stem p1 w32 d2 no norm": local(1, norm=False),
        "stem p2 w64 d2 no norm": local(1, block=2, width=64, norm=False),
    },
    "local2": {
        "stem p1 w32 d2 no norm": local(2, block=1, norm=False),
        "stem p2 w64 d2 no norm": local(2, norm=False),
        "depthwise p1 w32 d2 m1 no norm": local(2, block=1, mixing=1, norm=False),
    },
    "local3": {
        "stem p2 w64 d2": local(3),
        "stem p2 w64 d2 no norm": local(3, norm=False),
        "stem p1 w32 d2 no norm": local(3, block=1, norm=False),
        "stem p2 w64 d1 e2": local(3, depth=1, expansion=2),
        "stem p4 w128 d2": local(3, block=4),
        "depthwise p1 w32 d2 m2 no norm": local(3, block=1, mixing=2, norm=False),
        "depthwise p2 w64 d2 m1 no norm": local(3, mixing=1, norm=False),
        "attention p2 w64 d2 m1": attention(3, mixing=1),
    },
    "local5": {
        "stem p1 w32 d2 no norm": local(5, block=1, norm=False),
        "stem p2 w64 d2 no norm": local(5, norm=False),
        "depthwise p2 w64 d2 m2 no norm": local(5, mixing=2, norm=False),
        "stem p4 w128 d2 no norm": local(5, block=4, norm=False),
    },
    "local8": {
        "stem p4 w128 d2": local(8),
        "stem p4 w128 d2 no norm": local(8, norm=False),
        "depthwise p4 w128 d2 m1": local(8, mixing=1),
        "depthwise p4 w128 d2 m1 no norm": local(8, mixing=1, norm=False),
    },
    "local12": {
        "stem p4 w128 d2": local(12),
        "stem p4 w192 d4": local(12, width=192, depth=4),
        "depthwise p4 w128 d2 m2": local(12, mixing=2),
        "depthwise p4 w128 d4 m2 e2": local(12, depth=4, mixing=2, expansion=2),
        "depthwise p2 w64 d5 m5": local(12, block=2, depth=5, mixing=5),
    },
    "norm12": {
        "depthwise p4 w128 d2 m2": local(12, mixing=2),
        "depthwise p4 w128 d2 m2 no norm": local(12, mixing=2, norm=False),
    },
    "training3": {
        "one network": local(3, norm=False),
        "expert below 0.25": local(3, norm=False),
        "expert 0.25 to 0.6": local(3, norm=False),
        "expert above 0.6": local(3, norm=False),
        "taught": local(3, norm=False),
        "taught, as many steps": local(3, norm=False),
    },
    "global": {
        "w16 1-3": unet(width=16, multipliers=(1, 3)),
        "w32 1-2": unet(),
        "w32 1-2 no attention": unet(heads=0),
        "w32 1-2, 2 blocks": unet(blocks=2),
        "w32 1-3": unet(multipliers=(1, 3)),
        "w32 1-2-4": unet(multipliers=(1, 2, 4)),
        "w64 1-2 patch 4": unet(width=64, multipliers=(1, 2), patch=4),
        "w64 1-2": unet(width=64),
    },
    "published": {
        "ours": local(3),
        "strict": lambda: PublishedLocal(SHAPE, 3),
        "leaky": lambda: PublishedLocal(SHAPE, 3, norm="leaky"),
    },
}

SAME_STEPS = {"leaky": "strict", "taught, as many steps": "one network"}
"""Which design takes the steps of which other, not its own: the two norms are compared at equal training."""

SPANS = {"expert below 0.25": (0.0, 0.25), "expert 0.25 to 0.6": (0.25, 0.6), "expert above 0.6": (0.6, 1.0)}
"""Experts: each is trained on these noise times for a third of the time."""


def fresh(make: Make) -> NetworkDenoiser:
    torch.manual_seed(0)
    return make()


def teacher_of(name: str) -> Denoiser | None:
    """The shipped global network, for the designs that learn its posterior mean."""
    return pw.load_pretrained("mnist").denoiser("global") if name.startswith("taught") else None


def step_seconds(designs: dict[str, Make], rounds: int = 21, side: int = 28) -> dict[str, float]:
    """Median seconds of a training step of each design, all timed in turn."""
    networks = {name: fresh(make).train() for name, make in designs.items()}
    optimisers = {name: torch.optim.AdamW(n.parameters(), fused=True) for name, n in networks.items()}
    x, t = torch.rand(BATCH, 1, side, side), torch.linspace(0.01, 0.99, BATCH)
    teachers = {name: teacher_of(name) for name in designs}

    def step(name: str) -> None:
        teacher = teachers[name]
        if teacher is not None:
            with torch.no_grad():
                teacher(x, t)
        denoising_loss(networks[name], x, torch.randn_like(x), t).mean().backward()
        optimisers[name].step()
        optimisers[name].zero_grad(set_to_none=True)

    seen = seconds_of({name: partial(step, name) for name in designs}, rounds)
    return {name: median(values) for name, values in seen.items()}


def costs_of(designs: dict[str, Make], file: Path) -> dict[str, Any]:
    """Measured once and kept: step seconds, MFLOP, ms an image at batch 64 and its error, parameters."""
    if not file.exists():
        networks = {name: fresh(make) for name, make in designs.items()}
        ms = pw.metrics.measure_ms(networks, SHAPE, batch=64, repeats=9)
        write_json(
            file,
            {
                "step_seconds": step_seconds(designs),
                "mflop": {name: pw.count_flops(n, SHAPE) / 1e6 for name, n in networks.items()},
                "ms": ms,
                "parameters": {name: sum(p.numel() for p in n.parameters()) for name, n in networks.items()},
                "threads": torch.get_num_threads(),
            },
        )
    return read_json(file)


def compare(arguments: argparse.Namespace) -> None:
    designs = GROUPS[arguments.group]
    folder = arguments.out / arguments.group
    costs = costs_of(designs, folder / "costs.json")
    data = pw.load_images(arguments.data, data_dir=arguments.data_dir)
    for name, make in designs.items():
        seconds = arguments.seconds / (len(SPANS) if name in SPANS else 1)
        steps = max(round(seconds / costs["step_seconds"][SAME_STEPS.get(name, name)]), 1)
        asked = {"data": arguments.data, "seconds": arguments.seconds, "steps": steps, "batch": BATCH}
        place = folder / name.replace(" ", "_")
        if already_answered(place / "losses.json", asked):
            continue
        network = fresh(make)
        record = pw.train(
            network, data, name=name, steps=steps, batch=BATCH, out=place, progress=False, checkpoint_every=120,
            span=SPANS.get(name, (0.0, 1.0)), teacher=teacher_of(name),
        )  # fmt: skip
        table = pw.diagnosis.measure_losses({name: network}, data.test[:2000], TIMES, reference=name, seed=1)
        pw.save_denoiser(network, place)
        (place / "checkpoint.safetensors").unlink()
        write_json(place / "losses.json", {"asked": asked, "table": table.to_dict(), "val_loss": record.val_loss})
        print(f"{arguments.group} {name}: {steps} steps, validation loss {record.val_loss:.4f}", flush=True)


def markdown(arguments: argparse.Namespace) -> str:
    """Rows: cost as fractions of the group's reference where there is one, then loss by time."""
    folder = arguments.out / arguments.group
    costs = read_json(folder / "costs.json")
    shown = [t for t in TIMES if t not in (0.4, 0.6, 0.8)]
    lines = [
        "| design | MFLOP | ms, of first | parameters | steps | " + " | ".join(f"t = {t:g}" for t in shown) + " |",
        "| --- " * (5 + len(shown)) + "|",
    ]
    first = next(iter(GROUPS[arguments.group]))
    largest, n = 0.0, 0
    for name in GROUPS[arguments.group]:
        file = folder / name.replace(" ", "_") / "losses.json"
        if not file.exists():
            continue
        content = read_json(file)
        table = LossTable.from_dict(content["table"])
        largest, n = max(largest, float(table.loss_stderr.max())), table.n
        low, high = SPANS.get(name, (0.0, 1.0))
        at = {t: table.loss[int(np.argmin(np.abs(table.times - t))), 0] for t in shown}
        cells = [f"{loss:.3g}" if low <= t <= high else "" for t, loss in at.items()]
        lines.append(
            f"| {name} | {costs['mflop'][name]:.1f} | {costs['ms'][name][0] / costs['ms'][first][0]:.2f} "
            f"| {costs['parameters'][name] / 1e3:.0f}k | {content['asked']['steps']} | " + " | ".join(cells) + " |"
        )
    seconds = content["asked"]["seconds"]
    return "\n".join([*lines, "", f"{seconds:g} s of one thread each, n = {n}, largest standard error {largest:.2f}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", choices=list(GROUPS))
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--seconds", type=float, default=300, help="training time of each design")
    parser.add_argument("--out", type=Path, default=Path("runs/designs"))
    parser.add_argument("--table", type=Path, help="write the table into this Markdown page instead of training")
    arguments = parser.parse_args()
    if arguments.table:
        replace_table(arguments.table, f"designs.py {arguments.group}", markdown(arguments))
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
