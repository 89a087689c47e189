"""How the run's denoisers are trained, and in the same precision sample and are priced."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from phasewise.denoisers import Denoiser
from phasewise.denoisers.runtime import for_inference
from phasewise.runs.config import RunConfig
from phasewise.runs.run import Run
from phasewise.shapes import ImageShape
from phasewise.training import TrainPreset, get_preset

MOST, LEAST = 250, 16
NUMBERS = 200_000
"""Of the images of one batch on a processor, whose caches hold what networks make of so many: width 64 at 3 x 32 x 32
takes two thirds of the time an image by 64 that it takes by 250."""


def batch_of(shape: ImageShape, device: str | torch.device) -> int:
    """Images (C, H, W) that are sampled at a time; which images come out does not depend on it."""
    if torch.device(device).type != "cpu":
        return MOST
    return min(MOST, max(LEAST, NUMBERS // math.prod(shape)))


def training_preset(config: RunConfig, epochs: float | None = None, batch: int | None = None) -> TrainPreset:
    """The preset of the run's trainings, for so many passes, in batches of another size where one is given."""
    asked = config.train
    return get_preset(
        asked.preset, batch=batch or asked.batch, epochs=epochs, flip=asked.flip or None, optimizer=asked.optimizer
    )


def in_precision(denoiser: Denoiser, config: RunConfig) -> Denoiser:
    """``denoiser`` with products in bfloat16 where the preset of the run's trainings has them; else as it is."""
    return for_inference(denoiser, precision=training_preset(config).precision)


def samplers(run: Run, names: Iterable[str], config: RunConfig) -> dict[str, Denoiser]:
    """The run's denoisers of these names, on the run's device."""
    found = run.denoisers(list(names), config.machine.device)
    return {name: in_precision(denoiser, config) for name, denoiser in found.items()}
