"""What makes training and sampling faster on this machine: every option against the plain one, as ratios in one run.

    python experiments/speed.py training --docs docs
    python experiments/speed.py inference --docs docs
    python experiments/speed.py sampling --docs docs

All variants are timed in turn, round after round; figures are medians of the ratio to the plain variant of the same
round, with half the interquartile range.  Untrained weights serve: time does not depend on them.  Errors of bfloat16
and ONNX are those of the shipped MNIST networks at t = 0.4.  "sampling" sets a whole call of pw.sample, 8 steps,
against its network calls alone.  Leaves OUT/{training,inference,sampling}.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import already_answered, replace_table, seconds_of
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import Denoiser, NetworkDenoiser
from phasewise.files import read_json, write_json
from phasewise.pretrained import load_pretrained
from phasewise.training import get_preset
from phasewise.training.loop import Together

SHAPE = (1, 28, 28)
RADII = (1, 2, 3, 5, 8, 12)
BATCHES = (1, 64, 1024)
Work = Callable[[], object]


def ratio(seen: Mapping[str, list[float]], name: str, base: str) -> tuple[float, float]:
    """Median and half the interquartile range of seconds over the base's of the same round."""
    values = np.array(seen[name]) / np.array(seen[base])
    return float(np.median(values)), float(np.subtract(*np.quantile(values, [0.75, 0.25])) / 2)


# --- training -------------------------------------------------------------------------------------------------------


def trainer_of(
    nets: dict[str, NetworkDenoiser], images: Tensor, teacher: Denoiser | None = None, **plan: Any
) -> Together:
    preset = replace(get_preset("default"), steps=10**6, batch=128, **plan)
    folders = dict.fromkeys(nets)
    run = Together(nets, images, preset, 0, folders, None, (0.0, 1.0), teacher)
    for trainer in run.trainers.values():
        trainer.resume()
    return run


def step(run: Together) -> Work:
    def work() -> None:
        batch = run.batches.draw(0)
        for trainer in run.trainers.values():
            trainer.train_step(batch)

    return work


def training(rounds: int) -> dict[str, Any]:
    images = torch.rand(2000, *SHAPE, generator=torch.Generator().manual_seed(0))
    make: dict[str, Callable[[], NetworkDenoiser]] = {
        "global": lambda: pw.UNetDenoiser(SHAPE),
        "r3": lambda: pw.LocalDenoiser(SHAPE, 3),
    }
    rows: dict[str, Any] = {}
    for name, fresh in make.items():
        last = fresh().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        plain = step(trainer_of({name: fresh()}, images))
        seen = seconds_of(
            {
                "plain": plain,
                "bfloat16 autocast": step(trainer_of({name: fresh()}, images, precision="bfloat16")),
                "channels_last weights": step(trainer_of({name: last}, images)),
                "compiled": step(trainer_of({name: fresh()}, images, compile=True)),
            },
            rounds,
        )
        rows[name] = {variant: ratio(seen, variant, "plain") for variant in seen}
    locals_ = {f"r{r}": pw.LocalDenoiser(SHAPE, r) for r in RADII}
    for title, teacher in (("six locals", None), ("six locals, taught by the global one", pw.UNetDenoiser(SHAPE))):
        alone = [step(trainer_of({n: d}, images, teacher)) for n, d in locals_.items()]
        together = step(trainer_of(dict(locals_), images, teacher))
        seen = seconds_of({"one by one": lambda work=alone: [w() for w in work], "together": together}, rounds)
        rows[title] = {variant: ratio(seen, variant, "one by one") for variant in seen}
    return rows


# --- inference ------------------------------------------------------------------------------------------------------


def inference(rounds: int) -> dict[str, Any]:
    members = load_pretrained("mnist").members()
    nets = {n: d for n, d in members.items() if isinstance(d, NetworkDenoiser)}
    with tempfile.TemporaryDirectory() as folder:
        exported = {
            n: pw.denoisers.OnnxDenoiser(pw.denoisers.export_onnx(d, Path(folder) / n), torch.get_num_threads())
            for n, d in nets.items()
        }
    kinds: dict[str, dict[str, Denoiser]] = {
        "plain": dict(nets),
        "bfloat16": {n: pw.denoisers.for_inference(d, precision="bfloat16") for n, d in nets.items()},
        "compiled": {n: pw.denoisers.for_inference(d, compile=True) for n, d in nets.items()},
        "ONNX": dict(exported),
    }
    generator = torch.Generator().manual_seed(0)
    clean = pw.sample(members["global"], 64, steps=6)
    x = members["global"].path.add_noise(clean, torch.randn(clean.shape, generator=generator), 0.4)
    flops = {n: pw.count_flops(d, SHAPE, batch=64) for n, d in members.items()}
    rows: dict[str, Any] = {"flops": {n: f / flops["global"] for n, f in flops.items()}, "ms": {}, "error": {}}
    with torch.inference_mode():
        for kind, some in kinds.items():
            rows["error"][kind] = {
                n: float((d(x, 0.4) - nets[n](x, 0.4)).square().mean().sqrt()) for n, d in some.items()
            }
        for batch in BATCHES:
            images = torch.randn(batch, *SHAPE, generator=generator)
            chosen = {(k, n): d for k, some in kinds.items() for n, d in some.items() if batch == 64 or k == "plain"}
            works = {f"{k}/{n}": (lambda d=d, i=images: d(i, 0.5)) for (k, n), d in chosen.items()}
            works["plain/wiener"] = lambda i=images: members["wiener"](i, 0.5)
            seen = seconds_of(works, rounds if batch <= 64 else max(rounds // 3, 3))
            rows["ms"][str(batch)] = {name: ratio(seen, name, "plain/global") for name in works}
    return rows


# --- sampling -------------------------------------------------------------------------------------------------------


def sampling(rounds: int) -> dict[str, Any]:
    """Time of drawing images over that of the denoiser calls in it; and, of the hybrid, over the global network's."""
    ready, times = load_pretrained("mnist"), pw.time_grid(8)
    rows: dict[str, Any] = {}
    for batch in BATCHES:
        x = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(0))
        works: dict[str, Work] = {}
        for solver in ("exp_ab2", "sde_dpmpp_2m"):
            for name in ("global", "hybrid", "local_only"):
                plan = replace(ready.schedules[name], times=times, solver=solver)
                hybrid = pw.HybridDenoiser(ready.members(), plan)
                works[f"{name}/{solver}"] = lambda h=hybrid, n=batch: pw.sample(h, n, batch=n)
                works[f"{name}/calls"] = lambda h=hybrid, x=x: [h.member_at(t)(x, t) for t in times]
        with torch.inference_mode():
            seen = seconds_of(works, rounds if batch <= 64 else max(rounds // 3, 3))
        for name in works:
            kind = name.split("/")[0]
            rows[f"{batch}/{name}"] = [
                ratio(seen, name, f"{kind}/calls"),
                ratio(seen, name, name.replace(kind, "global")),
            ]
    return rows


def sampling_table(rows: dict[str, Any]) -> str:
    lines = ["| batch | schedule | solver | of its network calls | of the global network's |", "| --- " * 5 + "|"]
    for key, (calls, whole) in rows.items():
        batch, name, solver = key.split("/")
        if solver != "calls":
            lines.append(
                f"| {batch} | {name} | {solver} | {calls[0]:.2f} ± {calls[1]:.2f} | {whole[0]:.2f} ± {whole[1]:.2f} |"
            )
    return "\n".join(lines)


# --- tables ---------------------------------------------------------------------------------------------------------


def training_table(rows: dict[str, Any]) -> str:
    lines = ["| what | variant | time of a step, of the first |", "| --- | --- | --- |"]
    for name, variants in rows.items():
        lines += [f"| {name} | {variant} | {value:.2f} ± {error:.2f} |" for variant, (value, error) in variants.items()]
    return "\n".join(lines)


def inference_table(rows: dict[str, Any]) -> str:
    kinds = ("plain", "compiled", "bfloat16", "ONNX")
    lines = [
        "| network | FLOPs | "
        + " | ".join(f"{k}, 64" for k in kinds)
        + " | plain, 1 | plain, 1024 | rms error: bfloat16, ONNX |",
        "| --- " * (5 + len(kinds)) + "|",
    ]
    for name, share in rows["flops"].items():
        cells = [rows["ms"]["64"].get(f"{k}/{name}") for k in kinds] + [
            rows["ms"][b].get(f"plain/{name}") for b in ("1", "1024")
        ]
        shown = ["" if c is None else f"{c[0]:.3f} ± {c[1]:.3f}" for c in cells]
        wrong = [rows["error"][k].get(name) for k in ("bfloat16", "ONNX")]
        errors = "" if wrong[0] is None else ", ".join(f"{e:.1e}" for e in wrong)
        lines.append(f"| {name} | {share:.3f} | " + " | ".join([*shown, errors]) + " |")
    return "\n".join(lines)


TABLES = {
    "training": (training, training_table),
    "inference": (inference, inference_table),
    "sampling": (sampling, sampling_table),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(TABLES))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path, default=Path("runs/speed"))
    parser.add_argument("--docs", type=Path, help="put the table into networks.md there")
    arguments = parser.parse_args()
    measure, table = TABLES[arguments.what]
    file = arguments.out / f"{arguments.what}.json"
    asked = {"rounds": arguments.rounds, "threads": torch.get_num_threads()}
    if not already_answered(file, asked):
        write_json(file, {"asked": asked, "rows": measure(arguments.rounds)})
    text = table(read_json(file)["rows"])
    print(text)
    if arguments.docs:
        about = f"{asked['threads']} threads, {asked['rounds']} rounds."
        replace_table(arguments.docs / "networks.md", f"speed.py {arguments.what}", f"{text}\n\n{about}")


if __name__ == "__main__":
    main()
