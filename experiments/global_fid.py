"""What limits the FID of a global network alone: its training, the solver, or the number of samples?

    python experiments/global_fid.py --pretrained mnist --data-dir DIR --docs docs
    python experiments/global_fid.py --pretrained mnist --data-dir DIR --network "large=runs/sizes/large6000"

Every solver starts from the same noise.  FID against the training images, in the set's own classifier features, of all
samples and, as its bias falls with their number, also the mean over disjoint parts of 2,000, dealt out in turn: the
test images of MNIST lie in the order of their writers, and its first 2,000 score .40 where every fifth scores .21.
Real test images are judged the same way.
Leaves OUT/NAME/{NETWORK--SOLVER-STEPS,real}.json; stops and resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import already_answered, replace_table
from torch import Tensor

import phasewise as pw
from phasewise.files import read_json, write_json
from phasewise.metrics import FrechetReference, frechet_score
from phasewise.pretrained import load_pretrained
from phasewise.sampling import calls_per_step

PLANS = (("heun", 8), ("heun", 20), ("exp_ab2", 15), ("sde_dpmpp_2m", 8), ("sde_dpmpp_2m", 15), ("ancestral", 40))
"""Solvers and steps."""
PART = 2000


def judged(seen: Tensor, reference: FrechetReference, seed: int) -> dict[str, Any]:
    """FID of all, and of parts of 2,000: mean, and the standard error of that mean."""
    whole = frechet_score(seen, reference, seed=seed)
    k = len(seen) // PART
    parts = [frechet_score(seen[i::k], reference, seed=seed).value for i in range(k)]
    error = float(np.std(parts, ddof=1) / k**0.5)
    return {"all": [whole.value, whole.stderr], "bias": whole.bias, "parts": [float(np.mean(parts)), error]}


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    real = rows["real"]["result"]
    lines = [
        "| network | solver | evaluations | FID, all | over real | FID, parts of 2,000 | over real |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        asked, result = row["asked"], row["result"]
        cells = [asked.get("network", "test images"), asked.get("solver", ""), str(row.get("evaluations", ""))]
        for kind in ("all", "parts"):
            value, error = result[kind]
            cells += [f"{value:.3f} ± {error:.3f}", "" if name == "real" else f"{value / real[kind][0]:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{rows['real']['asked']['n']} test images, as many samples of each."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--network", action="append", default=[], help="NAME=FOLDER of another global network")
    parser.add_argument("--plans", default=",".join(f"{s}/{n}" for s, n in PLANS), help="SOLVER/STEPS, ...")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/global_fid"))
    parser.add_argument("--docs", type=Path, help="folder of networks.md, whose table is replaced")
    arguments = parser.parse_args()
    ready = load_pretrained(arguments.pretrained)
    data, features, reference = (
        pw.load_images(ready.name, data_dir=arguments.data_dir),
        ready.features(),
        ready.reference(),
    )
    networks: dict[str, Any] = {} if arguments.network else {"global": None}
    networks |= dict(text.split("=", 1) for text in arguments.network)
    out = arguments.out / ready.name
    if not 2 * PART <= arguments.n <= len(data.test):
        raise SystemExit(f"--n must lie between {2 * PART} and the {len(data.test)} test images")
    asked: dict[str, Any] = {"n": arguments.n}
    if not already_answered(out / "real.json", asked):
        seen = features.extract(data.test[: arguments.n])
        write_json(out / "real.json", {"asked": asked, "result": judged(seen, reference, arguments.seed)})
    for name, folder in networks.items():
        denoiser = pw.load_denoiser(folder) if folder else ready.denoiser(name)
        for plan in arguments.plans.split(","):
            solver, steps = plan.split("/")
            file = out / f"{name.replace(' ', '_')}--{solver}-{steps}.json"
            asked = {
                "network": name, "folder": folder, "solver": solver, "steps": int(steps), "n": arguments.n,
                "seed": arguments.seed,
            }  # fmt: skip
            if already_answered(file, asked):
                continue
            x = pw.sample(denoiser, arguments.n, steps=int(steps), solver=solver, seed=arguments.seed, batch=64)
            result = judged(features.extract(x.clamp(*data.pixel_range)), reference, arguments.seed)
            write_json(file, {"asked": asked, "result": result, "evaluations": sum(calls_per_step(solver, int(steps)))})
            print(file.stem, result, flush=True)
    files = sorted(out.glob("*.json"), key=lambda f: (f.stem != "real", f.stem))
    text = table({file.stem: read_json(file) for file in files})
    print(text)
    if arguments.docs:
        replace_table(arguments.docs / "networks.md", "global_fid.py", text)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
