"""A made-up but complete run folder: every record built through its dataclass, sizes and shapes as in a small run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from phasewise.files import write_json
from phasewise.results import (
    CMIMap,
    DataRecord,
    Estimate,
    Evaluation,
    HybridSchedule,
    LossTable,
    MarkovFit,
    ParetoFront,
    PriceList,
    Recovery,
    TrainingRecord,
)
from phasewise.runs import Member
from phasewise.scheduling import PENALTIES

NAMES = ("r1", "r2", "r3", "wiener", "global", "control")
RADII = (1, 2, 3, None, None, None)
KINDS = ("local", "local", "local", "wiener", "global", "control")
MEMBERS = [Member(n, k, radius=r) for n, k, r in zip(NAMES, KINDS, RADII, strict=True)]
STRENGTH = np.array([9.0, 4.0, 1.8, 14.0, 0.0, 0.25])
FLOPS = np.array([0.4e6, 1.1e6, 2.3e6, 0.02e6, 24e6, 31e6])
GRID = tuple(float(t) for t in np.linspace(1, 0.02, 16))


def loss_table(times: np.ndarray, seed: int = 0) -> LossTable:
    rng = np.random.default_rng(seed)
    bump = np.exp(-(((times - 0.45) / 0.2) ** 2))[:, None]
    bump = np.where(STRENGTH == 14, np.exp(-(((times - 0.3) / 0.25) ** 2))[:, None], bump)
    gap = STRENGTH * bump + rng.normal(0, 0.03, (len(times), 6)) * (STRENGTH > 0)
    loss = 30 * times[:, None] ** 1.3 + gap
    with np.errstate(divide="ignore"):
        log_snr = 2 * (np.log(1 - times) - np.log(times))
    error = 0.02 * loss + 0.02
    return LossTable(
        times, NAMES, RADII, "global", loss, error, gap, 0.03 + 0.04 * gap.clip(0), gap**2, error, log_snr, 0.31, 512,
        seed, {"name": "linear"}, "control",
    )  # fmt: skip


def schedule(low: float, high: float, inside: str, outside: str, **more: Any) -> HybridSchedule:
    assignment = tuple(inside if low <= t <= high else outside for t in GRID)
    return HybridSchedule(GRID, assignment, **more)


def schedules() -> dict[str, HybridSchedule]:
    best = tuple("wiener" if t > 0.8 else "global" if t > 0.25 else "r3" if t > 0.1 else "r1" for t in GRID)
    return {
        "hybrid": HybridSchedule(GRID, best, penalty=1.9, penalty_stderr=0.2, mflop=402.0),
        "global": HybridSchedule(GRID, ("global",) * 16, penalty=0.0, penalty_stderr=0.0, mflop=744.0),
        "global_cheap": HybridSchedule(GRID[::2], ("global",) * 8, penalty=6.5, mflop=410.0),
        "window": schedule(0.2, 0.5, "global", "r2"),
        "window_inverted": schedule(0.2, 0.5, "r2", "global"),
        "window_shifted": schedule(0.5, 0.8, "global", "r2"),
        "local_only": HybridSchedule(GRID, ("r2",) * 16),
    }


def evaluations() -> list[Evaluation]:
    fids = {
        "hybrid": (12.3, 402.0, 0.11, 1.9), "global": (12.1, 744.0, 0.2, 0.0), "global_cheap": (17.9, 410.0, 0.1, 6.5),
        "window": (61.0, 260.0, 0.08, 24.0), "window_inverted": (88.0, 510.0, 0.15, 31.0),
        "window_shifted": (70.0, 255.0, 0.08, 26.0), "local_only": (210.0, 34.1, 0.03, 55.0),
    }  # fmt: skip
    made = schedules()
    labels = {"window": "Global on [0.2, 0.5], r = 2 elsewhere", "hybrid": "Hybrid (optimised)"}
    return [
        Evaluation(
            name, labels.get(name, ""), made[name], fid, 0.4, 0.8, "classifier features", 2000, 10000, 0, mflop, ms,
            2 * len(made[name].times) - 1, nats, 0.2, None if name == "global" else 0.02 + fid / 2000, 0.001,
            {"class_entropy": 2.29, "note": "text is left out"},
        )
        for name, (fid, mflop, ms, nats) in fids.items()
    ]  # fmt: skip


def front(penalty: str, unit: str) -> ParetoFront:
    members = [tuple("global" if k in range(6 - i // 2, 6 + i) else "r2" for k in range(16)) for i in range(10)]
    members = [("r2",) * 16, *members[1:], ("global",) * 16]
    mflop = np.linspace(34, 744, 11)
    lost = 55 * np.exp(-mflop / 130.0)
    lost[-1] = 0
    known = PENALTIES[penalty]
    return ParetoFront(
        penalty, unit, np.array(GRID), mflop, lost, 0.04 * lost, tuple(members), chosen=4,
        penalty_label=known.label, penalty_meaning=known.meaning,
    )  # fmt: skip


def training(name: str, parameters: int) -> TrainingRecord:
    curve = {s: 0.5 * math.exp(-s / 800) + 0.04 * len(name) for s in range(100, 3001, 100)}
    history = tuple(
        {"step": s, "train_loss": v, "val_loss": v + 0.01 if s % 500 == 0 else None} for s, v in curve.items()
    )
    edges = np.linspace(0, 1, 11)
    return TrainingRecord(
        name, {"lr": 1e-3}, 3000, 384000, 91.0, parameters, history, 0.13, edges, 0.1 + edges[1:] ** 2, 0
    )


def pictures(n: int, channels: int, seed: int, noise: float = 0.0) -> np.ndarray:
    """Rings of random radius on a 28 x 28 canvas."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:28, :28] - 13.5
    size = rng.uniform(5, 11, (n, channels, 1, 1))
    ring = np.exp(-(((np.hypot(x, y * 1.2) - size) / 1.5) ** 2))
    blurred = ring + noise * rng.normal(size=ring.shape)
    return np.rint(255 * blurred.clip(0, 1)).astype(np.uint8)


def cmi_map(positions: int = 0) -> CMIMap:
    profile = np.exp(-((np.log(np.array([0.1, 0.3, 0.5, 0.7, 0.9]) / 0.35) / 0.5) ** 2))
    value = np.outer(profile, [0.17, 0.08, 0.03, 0.012]) - 0.001
    places = [
        {"center": [14 + k, 14], "value": (value * (1 + k / 10)).tolist(), "stderr": (0.05 * value).tolist(), "n": 2000}
        for k in range(positions)
    ]
    config: dict[str, Any] = {"bound": "neither"} | ({"positions": places} if places else {})
    return CMIMap(
        np.array([0.1, 0.3, 0.5, 0.7, 0.9]), (1, 2, 3, 4), value, np.full(value.shape, 0.002), "density", 1, (14, 14),
        2000, 0, config=config,
    )  # fmt: skip


def markov_fit() -> MarkovFit:
    nan = math.nan
    return MarkovFit(
        times=np.array([0.1, 0.3, 0.5, 0.7, 0.9]), xi=np.array([nan, 1.2, 1.6, 1.4, nan]),
        low=np.array([nan, 1.1, 1.4, 1.2, 2.0]), high=np.array([nan, 1.3, 1.9, 1.8, math.inf]),
        amplitude=np.array([nan, 0.38, 0.25, 0.1, nan]), p_value=np.array([nan, 0.4, 0.3, 1e-9, nan]),
        status=("not resolved", "ok", "ok", "not exponential", "not resolved"),
        reason=("at r = 4 the CMI is 1.2 standard errors from zero", "", "", "up to 30 % off", "no decay"),
        radii=(1, 2, 3, 4), min_sigma=5.0, tolerance=0.01, window_radius=2, window=(0.13, 0.81), t_c=0.5, t_c_low=0.4,
        t_c_high=0.6, t_c_note="the largest Markov length lies at the edge of the resolved times",
        peak_radii=(1, 2, 3, 4), peak_times=np.array([0.3] * 4),
    )  # fmt: skip


def write_run(root: Path, channels: int = 1) -> Path:
    """The whole folder."""
    config = {"data": "digits", "budget": 0.5, "source": "https://example.org/<b>set</b>"}
    write_json(
        root / "run.json",
        {
            "kind": "phasewise-run",
            "format": 2,
            "version": "0.1.0",
            "config": config,
            "command": "phasewise run --data digits",
            "members": [m.to_dict() for m in MEMBERS],
        },
    )
    shape = (channels, 28, 28)
    write(
        root,
        "data",
        DataRecord(
            "digits", shape, (0.0, 1.0), {"train": 10000, "validation": 500, "test": 2000}, 0.13, 0.31, 10, "ab12"
        ),
    )
    for i, name in enumerate(NAMES):
        write(root, f"training/{name}", training(name, 40000 * (i + 1)))
    write(root, "losses", loss_table(np.linspace(0.03, 0.97, 16)))
    kl = {
        n: Estimate(float(s) * 3.1, 0.05 * float(s) + 0.01, 512).to_dict() for n, s in zip(NAMES, STRENGTH, strict=True)
    }
    write_json(root / "records/gap.json", {"path_kl": kl, "excess_kl": kl})
    write(root, "prices", PriceList(loss_table(np.array(GRID)), FLOPS, FLOPS / 9e7))
    fronts = {"kl": front("kl", "nats").to_dict(), "w2": front("w2", "pixels").to_dict()}
    write_json(root / "records/fronts.json", {**fronts, "chosen": "kl"})
    write_json(root / "records/schedules.json", {k: v.to_dict() for k, v in schedules().items()})
    write_json(root / "records/explanations.json", {"hybrid": ["global takes t = 0.80 to 0.10: told in words"]})
    judged = [e.to_dict() for e in evaluations()]
    real = {"fid": 10.5, "fid_stderr": 0.3, "fid_bias": 0.6, "n": 2000}
    write_json(
        root / "records/evaluation.json",
        {"evaluations": judged, "real": real, "classifier": {"name": "a small network", "test_accuracy": 0.985}},
    )
    times = np.array([0.2, 0.4, 0.6, 0.8])
    mse = 0.002 + np.outer(times**2, STRENGTH + 1) / 40
    write(root, "recovery", Recovery(times, NAMES, RADII, mse, 0.05 * mse, 16, "heun", 256, 0))
    write(root, "cmi", cmi_map())
    write(root, "markov", markov_fit())
    (root / "samples").mkdir()
    for k, name in enumerate(schedules()):
        save_file({"samples": pictures(80, channels, 0, 0.06 * k)}, root / f"samples/{name}.safetensors")
    save_file({"samples": pictures(80, channels, 5)}, root / "samples/real.safetensors")
    original = pictures(4, channels, 7)
    noisy = np.stack([pictures(4, channels, 7, 2 * t) for t in times])
    recovered = np.stack([[pictures(4, channels, 7, 0.02 * s * t) for s in STRENGTH] for t in times])
    save_file({"original": original, "noisy": noisy, "recovered": recovered}, root / "samples/recovery.safetensors")
    return root


def write(root: Path, name: str, record: Any) -> None:
    write_json(root / f"records/{name}.json", record.to_dict())
