"""The published estimate of CMI, changed one thing at a time, beside ours: memory or information?

    python experiments/cmi_recipe.py --data mnist --data-dir DIR --time 0.3 --radii 3 --steps 2000,6000,20000
    python experiments/cmi_recipe.py --field 0.03 --time 0.5 --radii 1 --steps 2000,6000,20000

Rows: MINE as published (one noise draw frozen per image, averaged over the training images), the same with fresh noise,
then held out (trained on 50,000 images, scored on the others); then the density estimator, and exact truth for --field.
Stops and resumes; leaves OUT/NAME.json per row.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import phasewise as pw
from phasewise.files import read_json, write_json
from phasewise.information import CMIEstimator, cmi_map, make_estimator
from phasewise.information.critics import MINE


def recipes(steps: int) -> dict[str, CMIEstimator]:
    published = MINE.published(steps=steps).options()
    return {
        "published": MINE(**published),
        "fresh": MINE(**{**published, "refresh_noise": True}),
        "held-out": MINE(**{**published, "refresh_noise": True, "hold_out": True, "train_fraction": 5 / 6}),
    }


def images_of(arguments: argparse.Namespace) -> tuple[str, torch.Tensor, pw.exact.GaussianField | None]:
    if arguments.field is not None:
        field = pw.exact.GaussianField((27, 27), mass=arguments.field)
        return f"field-{arguments.field}", field.sample(60_000, 1), field
    data = pw.load_images(arguments.data, data_dir=arguments.data_dir)
    return arguments.data, torch.cat([data.train, data.validation])[:, :, 1:, 1:], None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--field", type=float, help="mass of a Gaussian field instead of images")
    parser.add_argument("--time", type=float, default=0.3)
    parser.add_argument("--radii", default="3")
    parser.add_argument("--steps", default="2000,6000,20000")
    parser.add_argument("--limit", type=int, help="only so many images: more passes over each for the same steps")
    parser.add_argument("--rows", default="published,fresh,held-out,density", help="which rows to measure")
    parser.add_argument("--density-epochs", type=float, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/cmi-recipe"))
    arguments = parser.parse_args()
    name, images, field = images_of(arguments)
    if arguments.limit:
        name, images = f"{name}-{arguments.limit}", images[: arguments.limit]
    radii = [int(r) for r in arguments.radii.split(",")]

    def row(label: str, estimator: CMIEstimator) -> None:
        file = arguments.out / f"{name}-t{arguments.time:g}-r{arguments.radii}-{label}.json"
        if not file.exists():
            start = time.perf_counter()
            found = cmi_map(images, radii, [arguments.time], estimator=estimator)
            content = {"label": label, "map": found.to_dict(), "seconds": time.perf_counter() - start}
            if field is not None:
                content["truth"] = [field.cmi(arguments.time, r) for r in radii]
            write_json(file, content)
        content = read_json(file)
        found = pw.results.CMIMap.from_dict(content["map"])
        cells = ", ".join(f"r = {r}: {found.value[0, j]:+.4f} ± {found.stderr[0, j]:.4f}" for j, r in enumerate(radii))
        print(f"{name} t = {arguments.time:g} {label}: {cells} ({content['seconds']:.0f} s)", flush=True)

    for steps in (int(s) for s in arguments.steps.split(",")):
        for label, estimator in recipes(steps).items():
            if label in arguments.rows.split(","):
                row(f"{label}-{steps}", estimator)
    if "density" in arguments.rows.split(","):
        row(f"density-{arguments.density_epochs:g}-epochs", make_estimator("density", epochs=arguments.density_epochs))
    if field is not None:
        print("exact:", ", ".join(f"r = {r}: {field.cmi(arguments.time, r):.4f}" for r in radii))


if __name__ == "__main__":
    main()
