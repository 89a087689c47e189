"""Seconds an image takes through the networks of a run, by trying them on noise for a moment.

A try of a network that is trained here is a step of its training as it will be: batch, loss, optimiser and average of
the weights; and a call as samplers make it.  Those that there is no time to try are taken at the speed of the one
nearest in FLOPs of their kind: an operation of a local network takes longer than one of a network that sees all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from phasewise import seeding
from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, NetworkDenoiser
from phasewise.pipeline.conditions import takes_labels
from phasewise.pipeline.costs import NetworkCost
from phasewise.pipeline.samplers import in_precision, training_preset
from phasewise.results import DataRecord
from phasewise.runs.config import RunConfig
from phasewise.runs.members import MEMBER_KINDS
from phasewise.training.loop import Together
from phasewise.training.settings import TrainSettings
from phasewise.work import own_seconds

TRIAL_S = 3.0
"""Seconds of an idle machine that trying the networks may take in all, about."""
TRIAL_FLOPS = 4e9
"""Size of a tried call: images are added until it costs so much, up to a batch of training."""
TRIES = 3
STEP = 3.0
"""What a step of training is taken to cost, in calls, of a network that is not tried: a backward pass is two."""
TIME = 0.5


@dataclass(frozen=True)
class Speed:
    """Seconds an image on an idle machine: of a ``step`` of training and of a ``call``."""

    step: float
    call: float


def trial_data(about: DataRecord, n: int) -> ImageData:
    """``n`` images of noise that look like those of ``about`` to whatever does not look closely."""
    low, high = about.pixel_range
    noise = torch.rand(n, *about.image_shape, generator=seeding.plain(0)) * (high - low) + low
    return ImageData("trial", noise, noise[:2], noise[:2], pixel_range=about.pixel_range)


def speeds(costs: Mapping[str, NetworkCost], about: DataRecord, config: RunConfig) -> dict[str, Speed]:
    """By name, of every network in ``costs`` on the run's device; about TRIAL_S are spent on trying."""
    order = sorted(costs.values(), key=lambda c: c.flops)
    tried: dict[str, Speed] = {}
    left = TRIAL_S
    for cost in (order[-1], *order[:-1]) if order else ():
        batch = trial_batch(cost, about, config)
        known = next((costs[name].flops / speed.step for name, speed in tried.items()), 0.0)
        # the first is always tried, at least with one image; the others where time is left for a warm-up and a try
        if tried and 2 * batch * cost.flops / known > left:
            continue
        tried[cost.name] = _try(cost, about, batch, config)
        left -= (TRIES + 1) * batch * tried[cost.name].step
    return {
        cost.name: tried.get(cost.name) or _scaled(cost, _alike(cost, costs, tried)) for cost in costs.values() if tried
    }


def trial_batch(cost: NetworkCost, about: DataRecord, config: RunConfig) -> int:
    """Images of a try: a whole batch where that is cheap, and on a GPU, where fewer take no less time."""
    batch = training_batch(about, config)
    if torch.device(config.machine.device).type != "cpu":
        return batch
    return int(min(max(TRIAL_FLOPS / cost.flops, 1), batch))


def training_batch(about: DataRecord, config: RunConfig) -> int:
    """Images of a step of training."""
    return min(training_preset(config).batch, max(about.sizes["train"], 1))


def _alike(cost: NetworkCost, costs: Mapping[str, NetworkCost], tried: Mapping[str, Speed]) -> dict[float, Speed]:
    """Speeds by FLOPs of tried networks that see a window as this one does, or see everything; all, where none does."""
    speeds = {costs[name].flops: speed for name, speed in tried.items()}
    local = cost.member.radius is not None
    own = {costs[n].flops: s for n, s in tried.items() if (costs[n].member.radius is not None) == local}
    return own or speeds


def _scaled(cost: NetworkCost, tried: Mapping[float, Speed]) -> Speed:
    nearest = min(tried, key=lambda flops: abs(flops - cost.flops))
    share = cost.flops / nearest
    return Speed(tried[nearest].step * share, tried[nearest].call * share)


def _try(cost: NetworkCost, about: DataRecord, n: int, config: RunConfig) -> Speed:
    device, data = config.machine.device, trial_data(about, n)
    if cost.taken is not None:
        call = _call(in_precision(cost.taken.to(device), config), data, device) / n
        return Speed(STEP * call, call)
    build = MEMBER_KINDS[cost.member.kind].build
    assert build is not None
    with torch.random.fork_rng(devices=[]):  # the caller's random state is left alone
        network: NetworkDenoiser = build(cost.member, data.image_shape)
    settings = TrainSettings(device=device, progress=False)
    together = Together({cost.name: network}, data, training_preset(config, 1, n), {cost.name: None}, settings)
    trainer = together.trainers[cost.name]
    network.train()
    step = own_seconds(lambda: trainer.train_step(together.batches.draw(0)), device, TRIES)
    trainer.loss(together.batches.draw(0)).backward()
    update = min(own_seconds(trainer.optimiser.step, device, TRIES), step)
    # the update of the weights is one whatever the batch, and a try may have fewer images than one has
    step = (step - update) / n + update / training_batch(about, config)
    return Speed(step, _call(in_precision(network.eval(), config), data, device) / n)


def _call(network: Denoiser, data: ImageData, device: str) -> float:
    # told a class, where it takes one: a call costs the same whatever the label
    told, x = network.given(0) if takes_labels([network]) else network, data.train.to(device)

    @torch.inference_mode()
    def call() -> None:
        told(x, TIME)

    return own_seconds(call, device, TRIES)
