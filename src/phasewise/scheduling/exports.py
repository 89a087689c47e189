r"""Schedules as other programs take them: ``schedule.export(form, clock=..., member=...)``.

Step k of S starts at t_k, that is at the discrete timestep ``s_k = clock.timestep_of_time(t_k)`` of K.

* ``boundary_ratio`` b (two experts in one pipeline; Wan 2.2): the first expert takes timesteps ``>= b K``.
* ``denoising_end`` e (a base and its refiner; Stable Diffusion XL): the base takes timesteps ``>= round(K - e K)``, the
  refiner, told ``denoising_start = e``, those below.
* ``guidance_interval``: guidance is on at steps k with ``int(start S) <= k < int(stop S)`` (diffusers' guiders), or
  where sigma / alpha lies in ``(sigma_low, sigma_high]`` (Kynkäänniemi et al. 2024, arXiv 2404.07724).
* ``steps_computation_mask``: 1 where the network is computed, 0 where a cache stands in, one entry a step (cache-dit).
  Nothing is cached before the first 1.
* ``json``: the record itself.

A form of your own is a function ``form(schedule, clock, member)`` in :data:`EXPORTS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.paths import path_from_config
from phasewise.registry import Registry
from phasewise.results import HybridSchedule, a_schedule
from phasewise.scheduling.boundary_record import Clock, a_clock, timesteps

Form = Callable[[HybridSchedule, Clock | None, str | None], Any]
EXPORTS: Registry[Form] = Registry("form of export")
"""Every form by name."""


@checks.checked(schedule=a_schedule, form=checks.one_of(EXPORTS, "form of export"), member=checks.text)
def export(schedule: HybridSchedule, form: str, *, clock: Clock | None = None, member: str | None = None) -> Any:
    """``schedule`` in another program's form, as :meth:`phasewise.HybridSchedule.export`."""
    return EXPORTS[form](schedule, clock, member)


@EXPORTS.register("boundary_ratio")
def boundary_ratio(schedule: HybridSchedule, clock: Clock | None, member: str | None) -> float:
    """Between the timesteps of the last step of the first member and of the first step of the second."""
    above, below, total = _switch(schedule, "boundary_ratio", clock)
    return (above + below) / 2 / total


@EXPORTS.register("denoising_end")
def denoising_end(schedule: HybridSchedule, clock: Clock | None, member: str | None) -> float:
    """The share of the timesteps, from the noisy end, that the first member takes."""
    above, below, total = _switch(schedule, "denoising_end", clock)
    middle = (above + below) / 2
    # a pipeline rounds to a whole timestep: one that still lies in (below, above]
    cut = min((c for c in (math.ceil(middle), math.floor(middle)) if below < c <= above), default=None)
    if cut is None:
        raise PhasewiseError(
            f"denoising_end cuts at a whole timestep, and none lies between {below:g} and {above:g} of {total}, "
            "those of the steps at the switch; use fewer steps, or another form"
        )
    return 1 - cut / total


@EXPORTS.register("guidance_interval")
def guidance_interval(schedule: HybridSchedule, clock: Clock | None, member: str | None) -> dict[str, float]:
    """``start`` and ``stop`` as shares of the steps, ``sigma_low`` and ``sigma_high`` as sigma / alpha."""
    guided = _member(schedule, member, "guidance_interval", "the guided one")
    steps = [k for k, name in enumerate(schedule.assignment) if name == guided]
    first, stop, count = steps[0], steps[-1] + 1, len(schedule.times)
    if len(steps) < stop - first:
        raise _misfit(schedule, f"guidance_interval is one span of time, but {guided} takes several")
    path = path_from_config(schedule.path)

    def between(k: int) -> float:
        """sigma / alpha half way between steps k - 1 and k: another's rounding of either does not matter."""
        return math.exp(-float(path.log_snr((schedule.times[k - 1] + schedule.times[k]) / 2)) / 2)

    return {
        "start": _share(first, count),
        "stop": _share(stop, count),
        "sigma_low": between(stop) if stop < count else 0.0,
        "sigma_high": between(first) if first else math.inf,
    }


@EXPORTS.register("steps_computation_mask")
def steps_computation_mask(schedule: HybridSchedule, clock: Clock | None, member: str | None) -> list[int]:
    """1 at the steps of ``member``, default "global", 0 at the others."""
    computed = _member(schedule, member, "steps_computation_mask", "the one that is computed", default="global")
    return [int(name == computed) for name in schedule.assignment]


@EXPORTS.register("json")
def as_json(schedule: HybridSchedule, clock: Clock | None, member: str | None) -> str:
    return schedule.to_json()


def _switch(schedule: HybridSchedule, form: str, clock: Clock | None) -> tuple[float, float, int]:
    """Timesteps of the steps before and after the only switch, and how many a training has."""
    spans = schedule.spans()
    if len(spans) != 2:
        raise _misfit(schedule, f"{form} stands for one switch, from one member to another")
    if clock is None:
        raise PhasewiseError(f"{form} counts discrete timesteps; give clock=, that of the pipeline's scheduler")
    first = next(k for k, name in enumerate(schedule.assignment) if name != schedule.assignment[0])
    around = schedule.times[first - 1 : first + 1]
    (above, below), total = timesteps(a_clock(clock, "clock"), around, path_from_config(schedule.path))
    if not above > below:
        raise PhasewiseError(
            f"the clock has timestep {above:g} at t = {schedule.times[first - 1]:.4g} and {below:g} at "
            f"t = {schedule.times[first]:.4g}: no boundary lies between them; use fewer steps"
        )
    return above, below, total


def _member(schedule: HybridSchedule, member: str | None, form: str, what: str, default: str | None = None) -> str:
    chosen = default if member is None else checks.text(member, "member")
    if chosen is None or chosen not in schedule.assignment:
        named = "" if chosen is None else f", and {chosen!r} takes no step"
        raise _misfit(schedule, f"{form} needs member=, {what}{named}")
    return chosen


def _share(step: int, count: int) -> float:
    """The share f of ``count`` steps with int(f count) = step; step / count may round below it."""
    share = step / count
    return share if int(share * count) == step else math.nextafter(share, 1.0)


def _misfit(schedule: HybridSchedule, reason: str) -> PhasewiseError:
    spans = "; ".join(f"{name} from t = {start:.3g} to {end:.3g}" for start, end, name in schedule.spans())
    return PhasewiseError(f"{reason}; this schedule has {spans}")
