r"""What a scheduler of diffusers says of the noise: the path, what the network predicts, how it is told the time.

Schedulers differ in the steps they take; what a network was trained on is one of three::

    a table of alphas_cumprod   DDPM, DDIM, PNDM, DPM-Solver, UniPC, Euler, Heun, LMS, ...: TablePath, told k = K t - 1
    flow matching               FlowMatch..., or flow sigmas: LinearPath, told K t; a shift moves the steps alone
    EDM                         EDM...: VarianceExplodingPath, preconditioned, told log(sigma) / 4
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phasewise.denoisers.predictions import Clock, Prediction, a_prediction, edm
from phasewise.errors import PhasewiseError
from phasewise.paths import LinearPath, NoisePath, TablePath, VarianceExplodingPath
from phasewise.paths.table import SCHEDULES

KNOWN = "epsilon, sample, v_prediction and flow_prediction"


@dataclass(frozen=True)
class SchedulerNoise:
    """The noise that a scheduler is for, in its own pixels.

    Attributes:
        kind: "table", "flow" or "edm".
        clamp: bounds of the posterior mean, where the scheduler clips samples.
    """

    kind: str
    path: NoisePath
    prediction: Prediction
    clock: Clock
    clamp: tuple[float, float] | None = None

    def time_of_sigma(self, sigma: Tensor) -> Tensor:
        """Our t of what this kind of scheduler calls sigma: the flow's own, or sigma / alpha."""
        if self.kind == "flow":
            return sigma
        return self.path.t_of_log_snr(-2 * sigma.double().log())


def noise_of(scheduler: Any) -> SchedulerNoise:
    """The noise of a scheduler of diffusers.

    Raises PhasewiseError for an unknown prediction type, and by name for a scheduler of another kind of noise.
    """
    config, name = getattr(scheduler, "config", None), type(scheduler).__name__
    if config is None or not hasattr(scheduler, "set_timesteps"):
        raise PhasewiseError(f"scheduler must be one of diffusers, such as DDPMScheduler(); got {name}")
    asked = str(config.get("prediction_type", "flow_prediction" if "FlowMatch" in name else "epsilon"))
    flow = name.startswith("FlowMatch") or asked == "flow_prediction" or bool(config.get("use_flow_sigmas"))
    steps = int(config.get("num_train_timesteps") or 1000)
    if flow:
        if config.get("invert_sigmas"):
            raise PhasewiseError(f"{name} runs time backwards (invert_sigmas); wrap its network by pw.wrap instead")
        path: NoisePath = LinearPath()
        return SchedulerNoise("flow", path, a_prediction("velocity", "prediction_type"), Clock(path, "t", steps))
    if name.startswith("EDM"):
        sign = {"epsilon": 1.0, "v_prediction": -1.0}.get(asked)
        if sign is None:
            raise PhasewiseError(f"{name} has prediction_type {asked!r}; known is epsilon or v_prediction")
        path = VarianceExplodingPath(config["sigma_min"] / 2, config["sigma_max"])  # its last step lies above t = 0
        return SchedulerNoise("edm", path, edm(config["sigma_data"], sign), Clock(path, "log_sigma", 0.25))
    if not isinstance(getattr(scheduler, "alphas_cumprod", None), Tensor):
        raise PhasewiseError(
            f"{name} has neither a table of noise levels nor flow matching nor EDM; wrap its network by pw.wrap"
        )
    if asked not in ("epsilon", "sample", "v_prediction"):
        raise PhasewiseError(f"{name} has prediction_type {asked!r}; known are {KNOWN}")
    table = _table(scheduler)
    continuous = config.get("timestep_type") == "continuous" and asked == "v_prediction"
    clock = Clock(table, "log_sigma", 0.25) if continuous else Clock(table, "t", table.steps, -1.0, steps=table.steps)
    clip = float(config.get("clip_sample_range") or 1.0)
    clamp = (-clip, clip) if config.get("clip_sample") else None
    return SchedulerNoise("table", table, a_prediction(asked, "prediction_type"), clock, clamp)


def _table(scheduler: Any) -> TablePath:
    """Its noise levels, by their recipe where that makes the same ones."""
    config, table = scheduler.config, scheduler.alphas_cumprod.detach().cpu().double()
    name = config.get("beta_schedule")
    if name in SCHEDULES and config.get("trained_betas") is None:
        start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
        zero = bool(config.get("rescale_betas_zero_snr"))
        made = TablePath(betas=name, start=start, end=end, steps=len(table), zero_terminal_snr=zero)
        # Euler's kin put a small number in place of the 0 that a zero terminal SNR ends in
        end = len(table) - 1 if zero else len(table)
        if torch.allclose(made.alphas_cumprod[:end], table[:end], rtol=1e-5, atol=0):
            return made
    return TablePath(table)


def times_of(scheduler: Any, steps: int, **more: Any) -> tuple[float, ...]:
    """Start times of the ``steps`` steps that a scheduler takes, on our clock, descending.

    ``more`` goes to its ``set_timesteps`` (``mu`` for a dynamic shift).  A second call of the same step (Heun) counts
    once.
    """
    noise, ours = noise_of(scheduler), copy.deepcopy(scheduler)
    try:
        ours.set_timesteps(steps, **more)
    except (TypeError, ValueError, IndexError, AssertionError) as error:
        raise PhasewiseError(f"{type(scheduler).__name__} cannot take {steps} steps ({error})") from error
    sigmas = getattr(ours, "sigmas", None)
    if sigmas is not None and len(sigmas) >= len(ours.timesteps):
        values = torch.as_tensor(np.asarray(sigmas), dtype=torch.float64)[: len(ours.timesteps)]
        values = noise.time_of_sigma(values[values > 0])
        if noise.clock.steps and float(torch.as_tensor(ours.timesteps[0])) == noise.clock.steps - 1:
            values[0] = 1.0  # with a zero terminal SNR the sigma there is a number that was put in place of infinity
    else:
        values = noise.clock.times_told(torch.as_tensor(np.asarray(ours.timesteps), dtype=torch.float64))
    found: list[float] = []
    for value in values.tolist():
        t = min(value, 1.0)
        if t > 0 and math.isfinite(t) and (not found or t < found[-1] - 1e-9):
            found.append(t)
    return tuple(found)
