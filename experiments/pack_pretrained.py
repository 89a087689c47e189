"""Make a shipped set of a finished run: half-precision weights, records, feature moments; and what rounding costs.

    python experiments/pack_pretrained.py runs/mnist mnist --data-dir DIR

Leaves src/phasewise/pretrained/NAME. Prints the size and, per denoiser, the largest relative change of the held-out
loss by rounding (500 test images, same noise).
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

import phasewise as pw
from phasewise.files import read_json, write_bytes, write_json, write_text
from phasewise.metrics import ClassifierFeatures, FrechetReference
from phasewise.pipeline.folder import command, read_config
from phasewise.pretrained.sets import HOME

RECORDS = (
    "data.json", "features.json", "gap.json", "losses.json", "prices.json", "fronts.json", "schedules.json",
    "explanations.json", "recovery.json", "training",
)  # fmt: skip
REAL = 3000
TIMES = (0.05, 0.2, 0.4, 0.6, 0.8)


def order_of(name: str) -> tuple[bool, bool, int]:
    """The global denoiser first, then by radius, the closed form last."""
    return name != "global", name == "wiener", int(name[1:]) if name[1:].isdigit() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--data-dir")
    parser.add_argument("--note", help="what the records do not say of how it was trained, for card.json")
    arguments = parser.parse_args()
    run, target = arguments.run, HOME / arguments.name
    config = read_config(run)
    assert config is not None
    data = pw.load_images(config.data, data_dir=arguments.data_dir, seed=config.seed, limit=config.limit)
    names = [d.name for d in sorted((run / "models").iterdir()) if d.name not in ("features", "control")]
    assert data.fingerprint == read_json(run / "records/data.json")["fingerprint"], "the run used other images"
    shutil.rmtree(target, ignore_errors=True)
    full = {n: pw.load_denoiser(run / "models" / n) for n in names}
    for name, denoiser in full.items():
        pw.save_denoiser(denoiser, target / "models" / name, half=True)
    for record in RECORDS:
        source = run / "records" / record
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (target / "records").mkdir(exist_ok=True)
        copy(source, target / "records" / record)
    (target / "records/training/control.json").unlink(missing_ok=True)
    for file in (target / "records").rglob("*.json"):  # one line each: they are read by programs
        write_text(file, json.dumps(read_json(file), separators=(",", ":")) + "\n")
    info = read_json(run / "run.json")
    info["config"] = replace(config, data_dir=None, networks=None, control=False).to_dict()
    places = {"data_dir": "DIR" if config.data_dir else None, "networks": "NETWORKS" if config.networks else None}
    info["command"] = command(replace(config, **places))
    write_json(target / "run.json", {**info, "version": pw.__version__})
    features = ClassifierFeatures.load(next((run / "models/features").iterdir()))
    features.save(target / "features")
    FrechetReference.of_images(data.train, features).save(target / "features/reference.safetensors")
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:REAL]
    seen = features.extract(data.test[order]).half()
    write_bytes(target / "features/real.safetensors", safetensors.torch.save({"features": seen}))
    half = {n: pw.load_denoiser(target / "models" / n) for n in names}
    both = {**full, **{f"{n} half": d for n, d in half.items()}}
    table = pw.diagnosis.measure_losses(both, data.test[:500], TIMES, reference="global", seed=11)
    change = {
        n: float(np.abs(table.loss[:, table.column(f"{n} half")] / table.loss[:, table.column(n)] - 1).max())
        for n in names
    }
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())
    evaluation = read_json(run / "records/evaluation.json")
    fids = {e["name"]: {k: e[k] for k in ("fid", "fid_stderr", "n", "mflop")} for e in evaluation["evaluations"]}
    write_json(
        target / "card.json",
        {
            "denoisers": sorted(names, key=order_of),
            "data": config.data,
            "trained_by": info["command"],
            **({"note": arguments.note} if arguments.note else {}),
            "loss_change_by_half_precision": change,
            "fid_when_trained": {**fids, "real": evaluation["real"]},
            "license": "Apache-2.0 (weights); trained on images of the set named under data",
        },
    )
    print(f"{target}: {size / 1e6:.2f} MB")
    for name, value in change.items():
        print(f"  {name}: largest relative change of the loss {value:.1e}")


if __name__ == "__main__":
    main()
