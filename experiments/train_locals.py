"""Train local networks of several radii in one pass over the data, taught by a trained global network.

    python experiments/train_locals.py --teacher runs/nets/global --steps 3500 --data-dir DIR --out runs/nets

Leaves OUT/{r1, r2, ..., control}; control is the design of the largest radius with its window opened to the whole
image.  Resumes where it was stopped.  ``phasewise run --networks OUT`` takes what lies there instead of training it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import phasewise as pw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--radii", default="1,2,3,5,8,12")
    parser.add_argument("--teacher", type=Path, help="folder of a trained network; without one they learn the images")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    data = pw.load_images(arguments.data, data_dir=arguments.data_dir)
    radii, shape = [int(r) for r in arguments.radii.split(",")], data.image_shape
    torch.manual_seed(arguments.seed)
    networks = {f"r{r}": pw.LocalDenoiser(shape, r) for r in radii}
    networks["control"] = networks[f"r{max(radii)}"].opened()
    teacher = pw.load_denoiser(arguments.teacher) if arguments.teacher else None
    records = pw.training.train_together(
        networks, data, steps=arguments.steps, seed=arguments.seed, out=arguments.out, teacher=teacher
    )
    for name, network in networks.items():
        pw.save_denoiser(network, arguments.out / name)
        (arguments.out / name / "checkpoint.safetensors").unlink()
        print(f"{name}: validation loss {records[name].val_loss:.4f}")


if __name__ == "__main__":
    main()
