"""How local is the end? An r = 3 expert of low noise, a window per pixel, against the shipped networks.

    python experiments/late_expert.py --data-dir DIR --steps 11000

Taught by the shipped global network on noise times below .5.  Prints the held-out loss of all at the same times and
noise, and FID of the shipped hybrid with its last assignment replaced, from equal noise, paired with the hybrid itself.
Training stops and resumes; leaves OUT/expert.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import phasewise as pw
from phasewise.metrics import frechet_difference, frechet_score
from phasewise.pretrained import load_pretrained

SPAN = (0.0, 0.5)
TIMES = (0.02, 0.05, 0.1, 0.16, 0.2, 0.3, 0.4, 0.44, 0.5)
LASTS = (("r1",), ("expert",), ("expert", "expert"), ("r3", "r1"), ("small", "r1"), ("expert", "expert", "expert"))
"""Who serves the last steps; the first is the shipped hybrid itself."""


def trained(data: pw.data.ImageData, teacher: pw.Denoiser, folder: Path, steps: int) -> pw.Denoiser:
    if not (folder / "weights.safetensors").is_file():
        torch.manual_seed(0)
        expert = pw.LocalDenoiser(data.image_shape, 3, block=1)
        with torch.enable_grad():
            pw.train(expert, data, "compiled", name="expert", steps=steps, out=folder, span=SPAN, teacher=teacher)
        pw.save_denoiser(expert, folder)
    return pw.load_denoiser(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--steps", type=int, default=11_000)
    parser.add_argument("--n", type=int, default=4000, help="samples of each schedule")
    parser.add_argument("--out", type=Path, default=Path("runs/late"))
    arguments = parser.parse_args()
    ready, data = load_pretrained("mnist"), pw.load_images("mnist", data_dir=arguments.data_dir)
    members = ready.members()
    members["expert"] = trained(data, members["global"], arguments.out / "expert", arguments.steps)
    some = {name: members[name] for name in ("global", "small", "r1", "r3", "expert")}
    table = pw.diagnosis.measure_losses(some, data.test[:2000], TIMES, seed=5)
    for t, losses in zip(table.times, table.loss, strict=True):
        print(f"t = {t:g}: " + ", ".join(f"{n} {v:.4g}" for n, v in zip(table.names, losses, strict=True)), flush=True)
    base, features, reference = ready.schedules["hybrid"], ready.features(), ready.reference()
    first = None
    for last in LASTS:
        assignment = (*base.assignment[: -len(last)], *last)
        hybrid = pw.HybridDenoiser(
            {n: members[n] for n in dict.fromkeys(assignment)}, replace(base, assignment=assignment)
        )
        images = pw.sample(hybrid, arguments.n, seed=0, batch=64).clamp(*data.pixel_range)
        seen = features.extract(images)
        first = seen if first is None else first
        score, minus = frechet_score(seen, reference, seed=0), frechet_difference(seen, first, reference, 0)
        paired = f"paired {minus.value:+.3f} ± {minus.stderr:.3f}"
        print(f"last {', '.join(last)}: FID {score.value:.3f} ± {score.stderr:.3f}, {paired}", flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
