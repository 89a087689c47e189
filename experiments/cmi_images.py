"""CMI maps of real images in the paper's geometry, and what the published recipe would cost for the same map.

    M="python experiments/cmi_images.py --data mnist --data-dir DIR"
    $M                        11 times x 12 radii, centre pixel
    $M --center 7,7
    $M --block 4 --radii 1,2,3,4,6,9 --times .1,.2,.3,.4,.5,.6,.7
    $M --mine-steps 2000      times one MINE estimate as well

The first row and column of 28x28 images are cropped. Stops and resumes; leaves OUT/NAME.json per map.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from tables import already_answered

import phasewise as pw
from phasewise.files import read_json, write_json
from phasewise.information import cmi_map
from phasewise.information.critics import MINE

PUBLISHED_TRAININGS, PUBLISHED_STEPS = 33 + 132, 300_000


def load(name: str, folder: str | None) -> torch.Tensor:
    data = pw.load_images(name, data_dir=folder)
    images = torch.cat([data.train, data.validation, data.test])
    return images[:, :, 1:, 1:] if images.shape[-1] == 28 else images


def mine_seconds(images: torch.Tensor, time_: float, radius: int, steps: int) -> float:
    """Seconds of ``steps`` steps of one critic: two trainings (I(A:BC) and I(A:B)), halved; scoring left out."""

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        cmi_map(images[:2000], [radius], [time_], estimator=MINE.published(steps=steps), accuracy=1.0)
        return time.perf_counter() - start

    return (seconds(steps + 1) - seconds(1)) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--center", help="ROW,COL; default the middle")
    parser.add_argument("--block", type=int, default=1)
    parser.add_argument("--times", default=".05,.1,.2,.3,.4,.5,.6,.7,.8,.9,1")
    parser.add_argument("--radii", default="1,2,3,4,5,6,7,8,9,10,11,12")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the file; default from the options")
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE for the estimator")
    parser.add_argument("--mine-steps", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/cmi"))
    arguments = parser.parse_args()
    center = tuple(int(v) for v in arguments.center.split(",")) if arguments.center else None
    at = f"-at{arguments.center.replace(',', '_')}" if center else ""
    file = arguments.out / f"{arguments.name or f'{arguments.data}-b{arguments.block}{at}'}.json"
    asked = {k: str(v) for k, v in vars(arguments).items() if k not in ("data_dir", "out", "name", "mine_steps")}
    if not already_answered(file, asked):
        images = load(arguments.data, arguments.data_dir)
        times, radii = ([float(v) for v in arguments.times.split(",")], [int(v) for v in arguments.radii.split(",")])
        options = {k: json.loads(v) for k, v in (o.split("=") for o in arguments.option)}
        start = time.perf_counter()
        found = cmi_map(
            images, radii, times, block=arguments.block, center=center, seed=arguments.seed,
            folder=Path("runs/cmi-images"), say=lambda line: print(line, flush=True), **options,
        )  # fmt: skip
        content = {
            "asked": asked,
            "map": found.to_dict(),
            "seconds": time.perf_counter() - start,
            "images": len(images),
        }
        if arguments.mine_steps:
            one = mine_seconds(images, 0.3, 3, arguments.mine_steps)
            whole = PUBLISHED_TRAININGS * PUBLISHED_STEPS / arguments.mine_steps * one
            content["mine"] = {"steps": arguments.mine_steps, "seconds": one, "whole_map_seconds": whole}
        write_json(file, content)
    content = read_json(file)
    found = pw.results.CMIMap.from_dict(content["map"])
    print(f"{file}: {content['seconds']:.0f} s, n = {found.n}, largest stderr {found.stderr.max():.4f}")
    print("   t  " + "  ".join(f"r = {r:<9}" for r in found.radii))
    for t, value, stderr in zip(found.times, found.value, found.stderr, strict=True):
        print(f"{t:.2f}  " + "  ".join(f"{v:+.4f}±{s:.4f}" for v, s in zip(value, stderr, strict=True)))
    if "mine" in content:
        mine = content["mine"]
        print(
            f"{mine['steps']} steps of one MINE critic: {mine['seconds']:.0f} s, so the published map: "
            f"{mine['whole_map_seconds'] / 3600:.0f} h, {mine['whole_map_seconds'] / content['seconds']:.0f} times ours"
        )


if __name__ == "__main__":
    main()
