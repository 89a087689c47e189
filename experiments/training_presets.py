"""The published recipe against the default: same network, same number of training images, same held-out loss.

    python experiments/training_presets.py --data mnist --data-dir DIR --epochs 3

Prints E|D - x|^2 on test images (fresh noise, the same for both) by noise time, and seconds of training.
"""

from __future__ import annotations

import argparse

import torch

import phasewise as pw

TIMES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--epochs", type=float, default=60)
    parser.add_argument("--radius", type=int, default=3, help="0 for the global network")
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    data = pw.load_images(arguments.data, data_dir=arguments.data_dir, limit=arguments.limit)
    trained: dict[str, pw.Denoiser] = {}
    for preset in ("default", "paper"):
        torch.manual_seed(0)
        shape = data.image_shape
        net = pw.LocalDenoiser(shape, arguments.radius) if arguments.radius else pw.UNetDenoiser(shape, width=24)
        record = pw.train(net, data, preset, epochs=arguments.epochs, name=preset, seed=0)
        trained[preset] = net
        print(f"{preset}: {record.steps} steps of {record.images_seen // record.steps}, {record.seconds:.0f} s")
    table = pw.diagnosis.measure_losses(trained, data.test[:2000], TIMES, reference="default", seed=1)
    print(f"{'t':>5} {'default':>9} {'paper':>9} {'paper - default':>22}   (n = {table.n})")
    for k, t in enumerate(TIMES):
        difference = f"{table.gap[k, 1]:>12.4f} ± {table.gap_stderr[k, 1]:.4f}"
        print(f"{t:>5.2f} {table.loss[k, 0]:>9.4f} {table.loss[k, 1]:>9.4f} {difference}")


if __name__ == "__main__":
    main()
