"""Times that can be compared: every variant in turn, round after round, so that a slow minute slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import numpy as np
import torch

from phasewise.denoisers import Denoiser, NetworkDenoiser
from phasewise.training import denoising_loss

Work = Callable[[], object]


def seconds_of(
    variants: Mapping[str, Work], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of every variant in every round, after one round untimed; by ``time.process_time`` those of the CPU,
    all threads together, which a busy machine does not stretch."""
    seen: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        for name, work in variants.items():
            start = clock()
            work()
            if round_:
                seen[name].append(clock() - start)
    return seen


def ratio(seen: Mapping[str, list[float]], name: str, base: str) -> tuple[float, float]:
    """Median and half the interquartile range of seconds over the base's of the same round."""
    values = np.array(seen[name]) / np.array(seen[base])
    return float(np.median(values)), float(np.subtract(*np.quantile(values, [0.75, 0.25])) / 2)


def step_seconds(
    networks: Mapping[str, NetworkDenoiser], batch: int, rounds: int, teachers: Mapping[str, Denoiser] | None = None
) -> dict[str, float]:
    """Median seconds of a training step of each network, all timed in turn; a teacher's call counts."""
    optimisers = {name: torch.optim.AdamW(n.train().parameters(), fused=True) for name, n in networks.items()}
    x = torch.rand(batch, *next(iter(networks.values())).image_shape)
    t = torch.linspace(0.01, 0.99, batch)

    def step(name: str) -> None:
        if teachers and name in teachers:
            with torch.no_grad():
                teachers[name](x, t)
        denoising_loss(networks[name], x, torch.randn_like(x), t).mean().backward()
        optimisers[name].step()
        optimisers[name].zero_grad(set_to_none=True)

    seen = seconds_of({name: partial(step, name) for name in networks}, rounds)
    return {name: median(values) for name, values in seen.items()}
