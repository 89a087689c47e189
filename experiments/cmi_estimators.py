"""Every estimator on every exact model: error, calibration of its standard error, time. One table.

    python experiments/cmi_estimators.py --out runs/cmi-estimators --table docs/estimators.md

Times 0.3 and 0.6, radii 1 and 2, the centre block; the same images for all. ``rms z`` is the root mean square of
error / standard error over the cells: 1 is a calibrated error, 3 means a bias three times what the error admits.
Seconds are of one thread and mean something only beside each other. Stops and resumes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import already_answered, replace_table

import phasewise as pw
from phasewise.files import read_json, write_json
from phasewise.information import ESTIMATORS, cmi_map, make_estimator

TIMES, RADII = (0.3, 0.6), (1, 2)
COMMAND = "python experiments/cmi_estimators.py"


def models() -> dict[str, tuple[Any, int, dict[str, int]]]:
    """Name -> model, block, and arguments of its ``cmi`` (number of exact posteriors where it is an average)."""
    exact = pw.exact
    return {
        "Gaussian field 8x8, m = .1, pixel": (exact.GaussianField((8, 8), mass=0.1), 1, {}),
        "Gaussian field 8x8, m = .1, 2x2": (exact.GaussianField((8, 8), mass=0.1), 2, {}),
        "two-mode 8x8, pixel": (exact.TwoMode((8, 8)), 1, {}),
        "Ising chain 16, beta = .8": (exact.IsingChain(16, 0.8), 1, {"n": 100_000, "seed": 9}),
        "Ising strip 10x6, beta = .44": (exact.IsingStrip(10, 6, 0.44), 1, {"n": 20_000, "seed": 9}),
    }


def measure(
    file: Path, model: Any, block: int, truth_options: dict[str, int], name: str, asked: dict[str, Any]
) -> None:
    options: dict[str, Any] = {}
    if name in ("mine", "nwj", "infonce", "smile", "classifier"):
        options = {"steps": asked["steps"]}
    elif name in ("density", "mmse"):
        options = {"steps": asked["steps"], "max_scored": asked["n"]}
    images = model.sample(asked["n"], 1)
    start = time.perf_counter()
    found = cmi_map(images, RADII, TIMES, block=block, estimator=name, accuracy=1.0, **options)
    seconds = time.perf_counter() - start
    truth = [[model.cmi(t, r, block, **truth_options) for r in RADII] for t in TIMES]
    write_json(
        file,
        {
            "asked": asked,
            "map": found.to_dict(),
            "truth": [[float(getattr(c, "value", c)) for c in row] for row in truth],
            "truth_stderr": [[float(getattr(c, "stderr", 0.0)) for c in row] for row in truth],
            "seconds": seconds,
        },
    )


def table(folder: Path, names: Sequence[str], known: Sequence[str]) -> str:
    rows = ["| model | estimator | t = .3, r = 1 | r = 2 | t = .6, r = 1 | r = 2 | largest error | rms z | s |"]
    rows.append("|---|---|---|---|---|---|---|---|---|")
    for k, model in enumerate(known):
        truth_shown = False
        for name in names:
            file = folder / f"{k}-{name}.json"
            if not file.exists():
                continue
            content = read_json(file)
            found = pw.results.CMIMap.from_dict(content["map"])
            truth, truth_error = np.array(content["truth"]), np.array(content["truth_stderr"])
            if not truth_shown:
                cells = [f"{v:.4f}" + (f" ± {e:.4f}" if e else "") for v, e in zip(truth.flat, truth_error.flat)]  # noqa: B905
                rows.append(f"| {model} | **exact** | " + " | ".join(cells) + " | | | |")
                truth_shown = True
            error = found.value - truth
            z = float(np.sqrt(((error / np.hypot(found.stderr, truth_error).clip(1e-9)) ** 2).mean()))
            cells = [f"{v:.4f} ± {s:.4f}" for v, s in zip(found.value.flat, found.stderr.flat)]  # noqa: B905
            shown = f"{z:.1f}" if z < 100 else "over 100"
            rows.append(
                f"| | {name} | {' | '.join(cells)} | {np.abs(error).max():.4f} | {shown} | {content['seconds']:.0f} |"
            )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/cmi-estimators"))
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=1000, help="training steps of every learned estimator")
    parser.add_argument("--table", type=Path, help="Markdown file whose marked table is replaced")
    parser.add_argument("--only", default="", help="one estimator")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = models()
    for name in [n for n in ESTIMATORS if arguments.only in n]:
        make_estimator(name)
        for k, (model, block, truth_options) in enumerate(known.values()):
            file = arguments.out / f"{k}-{name}.json"
            asked = {"n": arguments.n, "steps": arguments.steps, "model": list(known)[k]}
            if not already_answered(file, asked):
                measure(file, model, block, truth_options, name, asked)
            print(name, list(known)[k], f"{read_json(file)['seconds']:.0f} s", flush=True)
    text = table(arguments.out, ESTIMATORS, list(known))
    print(text)
    if arguments.table:
        replace_table(arguments.table, COMMAND, text)


if __name__ == "__main__":
    main()
