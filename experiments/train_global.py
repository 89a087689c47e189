"""Train a global network of a named size, or go on with one already trained; resumes where it was stopped.

    python experiments/train_global.py --size coarse --steps 6000 --data mnist --data-dir DIR --out runs/nets/coarse
    python experiments/train_global.py --start runs/mnist/models/global --steps 14000 --lr 1.2e-3 --seed 1 \\
        --data mnist --data-dir DIR --out runs/nets/global

``phasewise run --networks runs/nets --cheap-globals coarse,small`` then takes what lies there instead of training it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import phasewise as pw
from phasewise.denoisers import NetworkDenoiser
from phasewise.denoisers.unet import GLOBAL_SIZES
from phasewise.training import get_preset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--size", choices=list(GLOBAL_SIZES))
    source.add_argument("--start", type=Path, help="folder of a trained network")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    data = pw.load_images(arguments.data, data_dir=arguments.data_dir)
    torch.manual_seed(arguments.seed)
    if arguments.start:
        network = pw.load_denoiser(arguments.start)
        assert isinstance(network, NetworkDenoiser)
    else:
        network = pw.UNetDenoiser.of_size(data.image_shape, arguments.size)
    preset = get_preset("default")
    plan = replace(preset, lr=arguments.lr or preset.lr)
    name = arguments.out.name
    record = pw.train(network, data, plan, name=name, steps=arguments.steps, seed=arguments.seed, out=arguments.out)
    pw.save_denoiser(network, arguments.out)
    (arguments.out / "checkpoint.safetensors").unlink()
    print(f"{name}: validation loss {record.val_loss:.4f} after {record.steps} steps, {record.seconds:.0f} s")


if __name__ == "__main__":
    main()
