"""The run's denoisers as they sample and are priced: in the precision that they were trained in."""

from __future__ import annotations

from collections.abc import Iterable

from phasewise.denoisers import Denoiser
from phasewise.denoisers.runtime import for_inference
from phasewise.runs.config import RunConfig
from phasewise.runs.run import Run
from phasewise.training import get_preset


def in_precision(denoiser: Denoiser, config: RunConfig) -> Denoiser:
    """``denoiser`` with products in bfloat16 where the preset of the run's trainings has them; else as it is."""
    return for_inference(denoiser, precision=get_preset(config.train.preset).precision)


def samplers(run: Run, names: Iterable[str], config: RunConfig) -> dict[str, Denoiser]:
    """The run's denoisers of these names, on the run's device."""
    found = run.denoisers(list(names), config.machine.device)
    return {name: in_precision(denoiser, config) for name, denoiser in found.items()}
