"""The schedules a run compares, and their judgement from the same starting noise."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, HybridDenoiser
from phasewise.metrics import (
    ClassifierFeatures,
    FeatureNetwork,
    FrechetReference,
    FrechetScore,
    classifier_summary,
    fid,
    frechet_difference,
    frechet_score,
    paired_error,
)
from phasewise.pipeline.config import RunConfig
from phasewise.results import Evaluation, HybridSchedule, ParetoFront, PriceList
from phasewise.sampling import calls_per_step, sample, time_grid
from phasewise.scheduling import baselines, optimise_schedule, reference_mflop, schedule_from_assignment

RIVALS = ("global", "global_cheap")
"""Schedules that every other one's FID is compared with, sample by sample."""

LABELS = {
    "global": "global at every step",
    "global_cheap": "global, fewer steps",
    "hybrid": "hybrid, optimised",
    "window": "global in the window, else local",
    "window_gap": "global where the gap is, else local",
    "window_cmi": "global where the CMI is, else local",
    "stitched": "cheap first, then global (T-Stitch)",
    "spread": "local and global in turn",
    "window_inverted": "local in the window, else global",
    "window_shifted": "window shifted to more noise",
    "local_only": "local at every step",
}


def plan_schedules(
    prices: PriceList,
    fronts: Mapping[str, ParetoFront],
    config: RunConfig,
    window: tuple[float, float],
    gap: tuple[float, float] | None,
    cmi: tuple[float, float] | None = None,
) -> tuple[dict[str, HybridSchedule], int]:
    """The schedules to compare, by name, and the index of the optimised one on its front.

    ``window`` is the run's; ``gap`` and ``cmi`` are where the denoising gap and the CMI place one, None where unknown.
    """
    times = [float(t) for t in prices.times]
    local = f"r{config.window_radius}"

    def on_grid(assignment: tuple[str, ...]) -> HybridSchedule:
        return schedule_from_assignment(prices, assignment, penalty=config.penalty, solver=config.solver)

    front = fronts[config.penalty]
    hybrid = optimise_schedule(prices, config.budget, penalty=config.penalty, solver=config.solver, front=front)
    chosen = next(i for i, s in enumerate(front.assignments) if s == hybrid.assignment)
    width = window[1] - window[0]
    shifted = (window[1], min(window[1] + width, 1.0)) if window[1] < 1 else (max(window[0] - width, 0.0), window[0])
    schedules = {
        "global": on_grid(("global",) * len(times)),
        "hybrid": hybrid,
        "global_cheap": _cheap_global(prices, hybrid, config),
        "window": on_grid(baselines.window(times, window, "global", local)),
        "window_inverted": on_grid(baselines.window(times, window, local, "global")),
        "window_shifted": on_grid(baselines.window(times, shifted, "global", local)),
        "local_only": on_grid((local,) * len(times)),
    }
    flops = dict(zip(prices.names, prices.flops, strict=True))
    partner = min((n for n in config.cheap_globals if flops[n] < flops["global"]), key=flops.__getitem__, default=local)
    share = {name: _share_at(prices, name, hybrid.mflop or 0.0, config) for name in (partner, local)}
    schedules["stitched"] = on_grid(baselines.t_stitch(times, partner, "global", share[partner]))
    schedules["spread"] = on_grid(baselines.spread(times, local, "global", share[local]))
    for name, span in (("window_gap", gap), ("window_cmi", cmi)):
        if span is not None:
            schedules[name] = on_grid(baselines.window(times, span, "global", local))
    return schedules, chosen


def _share_at(prices: PriceList, small: str, mflop: float, config: RunConfig) -> float:
    """The smallest share of the steps that ``small`` must take from the global one for a cost of at most ``mflop``."""
    calls = sum(calls_per_step(config.solver, config.steps))
    full, less = (calls * float(prices.flops[prices.names.index(name)]) / 1e6 for name in ("global", small))
    needed = (full - mflop) / (full - less) if full > less else 0.0
    return min(max(math.ceil(needed * config.steps - 1e-9) / config.steps, 0.0), 1.0)


def _cheap_global(prices: PriceList, hybrid: HybridSchedule, config: RunConfig) -> HybridSchedule:
    """The global denoiser alone with as many steps as the hybrid's cost pays for (at least 2)."""
    per_call = reference_mflop(prices, config.solver) / sum(calls_per_step(config.solver, config.steps))
    steps = 2
    while sum(calls_per_step(config.solver, steps + 1)) * per_call <= (hybrid.mflop or 0.0) * (1 + 1e-6):
        steps += 1
    return HybridSchedule(
        times=time_grid(steps, t_min=config.t_min, spacing=config.spacing),
        assignment=("global",) * steps,
        solver=config.solver,
        path=prices.losses.path,
        mflop=sum(calls_per_step(config.solver, steps)) * per_call,
    )


@dataclass(frozen=True)
class Judgement:
    evaluations: list[Evaluation]
    real: dict[str, Any]
    samples: dict[str, Tensor]


@dataclass(frozen=True)
class Judge:
    """What samples are held against.

    Attributes:
        features: the network that FID is measured in; ``reference`` the moments of the training images seen by it.
        real: FID of held-out real images, the floor, as the report shows it; ``real_images`` some of them, or None.
    """

    features: FeatureNetwork
    reference: FrechetReference
    pixel_range: tuple[float, float]
    real: dict[str, Any]
    real_images: Tensor | None = None

    @classmethod
    def of_data(cls, data: ImageData, features: FeatureNetwork, config: RunConfig) -> Judge:
        reference = FrechetReference.of_images(data.train, features)
        n = min(len(data.test), config.n_samples)
        floor = fid(data.test[:n], reference, features, seed=config.seed)
        return cls(features, reference, data.pixel_range, real_floor(floor), data.test[: config.n_grid])


def real_floor(score: FrechetScore) -> dict[str, Any]:
    """The FID of real images as records and report keep it."""
    return {"fid": score.value, "fid_stderr": score.stderr, "fid_bias": score.bias, "n": score.n}


def evaluate_all(
    members: Mapping[str, Denoiser],
    schedules: Mapping[str, HybridSchedule],
    prices: PriceList,
    judge: Judge,
    config: RunConfig,
    say: Callable[[str], None] = lambda _: None,
) -> Judgement:
    """Sample every schedule from the same noise; FID against the training images, paired error against all-global."""
    low, high = judge.pixel_range
    features = judge.features
    say(f"real test images: FID {judge.real['fid']:.2f} (n = {judge.real['n']})")
    hybrids = {name: HybridDenoiser(members, s) for name, s in schedules.items()}
    ms = sampling_ms(hybrids, config.seed)
    kept = {} if judge.real_images is None else {"real": judge.real_images}
    base: Tensor | None = None
    rivals: dict[str, Tensor] = {}
    evaluations = []
    for name in sorted(hybrids, key=lambda k: (k not in RIVALS, list(LABELS).index(k))):
        images = sample(hybrids[name], n=config.n_samples, seed=config.seed, batch=250).clamp(low, high)
        base = images if base is None else base
        kept[name] = images[: config.n_grid]
        seen = features.extract(images.to(config.device))
        score = frechet_score(seen, judge.reference, config.seed)
        minus = {
            rival: frechet_difference(seen, known, judge.reference, config.seed) for rival, known in rivals.items()
        }
        if name in RIVALS:
            rivals[name] = seen
        paired = None if name == "global" else paired_error(images, base)
        nats = _nats(prices, schedules[name])
        row = Evaluation(
            name=name,
            label=LABELS[name],
            schedule=schedules[name],
            fid=score.value,
            fid_stderr=score.stderr,
            fid_bias=score.bias,
            features=features.name,
            n=config.n_samples,
            reference_n=judge.reference.n,
            seed=config.seed,
            mflop=schedules[name].mflop or float("nan"),
            ms=ms[name],
            nfe=n_calls(schedules[name]),
            nats=nats.penalty if nats else None,
            nats_stderr=nats.penalty_stderr if nats else None,
            paired_rmse=paired.value if paired else None,
            paired_stderr=paired.stderr if paired else None,
            fid_minus={r: [d.value, d.stderr] for r, d in minus.items()},
            extra=_classifier_view(images.to(config.device), features),
        )
        evaluations.append(row)
        say(f"{name}: FID {row.fid:.2f} ± {row.fid_stderr:.2f}, {row.mflop:.4g} MFLOP, {row.ms:.2f} ms an image")
    return Judgement(evaluations, judge.real, kept)


def _classifier_view(images: Tensor, features: FeatureNetwork) -> dict[str, Any]:
    return classifier_summary(images, features) if isinstance(features, ClassifierFeatures) else {}


def n_calls(schedule: HybridSchedule) -> int:
    return sum(calls_per_step(schedule.solver, len(schedule.times)))


def _nats(prices: PriceList, schedule: HybridSchedule) -> HybridSchedule | None:
    """The schedule priced in nats; None off the price list's grid."""
    if len(schedule.times) != len(prices.times) or not np.allclose(schedule.times, prices.times):
        return None
    return schedule_from_assignment(prices, schedule.assignment, penalty="kl", solver=schedule.solver)


def sampling_ms(
    hybrids: Mapping[str, HybridDenoiser], seed: int, batch: int = 64, repeats: int = 3
) -> dict[str, float]:
    """Milliseconds per image of sampling one batch, median over interleaved rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in hybrids}
    for round_ in range(repeats + 1):
        for name, hybrid in hybrids.items():
            started = time.perf_counter()
            sample(hybrid, n=batch, seed=seed, batch=batch)
            if round_:
                seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) * 1e3 / batch for name, values in seconds.items()}
