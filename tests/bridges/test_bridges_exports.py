"""Exports against diffusers' own schedulers and guiders: what its pipelines make of them is the schedule."""

import pytest

diffusers = pytest.importorskip("diffusers")

from diffusers.guiders import ClassifierFreeGuidance  # noqa: E402

from phasewise.bridges.diffusers import noise_of, times_of  # noqa: E402
from phasewise.errors import PhasewiseError  # noqa: E402
from phasewise.results import HybridSchedule  # noqa: E402

TABLES = [
    diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    diffusers.DDIMScheduler(timestep_spacing="leading"),
    diffusers.DPMSolverMultistepScheduler(timestep_spacing="linspace"),
]
FLOWS = [diffusers.FlowMatchEulerDiscreteScheduler(shift=shift) for shift in (1.0, 5.0)]


def split(scheduler, first, steps):
    """A schedule on the scheduler's own times that switches after ``first`` steps, and its clock."""
    noise = noise_of(scheduler)
    times = times_of(scheduler, steps)
    scheduler.set_timesteps(steps)
    assert len(times) == len(scheduler.timesteps) == steps
    who = ("high",) * first + ("low",) * (steps - first)
    return HybridSchedule(times, who, path=noise.path.config()), noise.clock


@pytest.mark.parametrize("scheduler", [*TABLES, *FLOWS], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("first", [1, 7, 19])
def test_two_experts_take_the_steps_of_the_schedule(scheduler, first):
    schedule, clock = split(scheduler, first, 20)
    ratio = schedule.export("boundary_ratio", clock=clock)
    # pipeline_wan.py: the first transformer where t >= boundary_ratio * num_train_timesteps
    limit = ratio * scheduler.config.num_train_timesteps
    assert ["high" if t >= limit else "low" for t in scheduler.timesteps.tolist()] == list(schedule.assignment)


@pytest.mark.parametrize("scheduler", TABLES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("first", [1, 7, 19])
def test_a_base_and_its_refiner_take_the_steps_of_the_schedule(scheduler, first):
    schedule, clock = split(scheduler, first, 20)
    end = schedule.export("denoising_end", clock=clock)
    # pipeline_stable_diffusion_xl.py and its img2img twin
    total = scheduler.config.num_train_timesteps
    cutoff = round(total - end * total)
    assert sum(t >= cutoff for t in scheduler.timesteps.tolist()) == first
    assert int((scheduler.timesteps < cutoff).sum()) == 20 - first


def test_a_network_told_the_noise_itself_has_no_timesteps():
    schedule, clock = split(diffusers.EDMEulerScheduler(), 2, 5)
    with pytest.raises(PhasewiseError, match="counts no discrete timesteps"):
        schedule.export("boundary_ratio", clock=clock)


@pytest.mark.parametrize("steps", [3, 20, 29])
def test_a_guider_is_on_where_the_guided_member_runs(steps):
    for first in range(steps):
        for stop in range(first + 1, steps + 1):
            who = ["guided" if first <= k < stop else "plain" for k in range(steps)]
            schedule = HybridSchedule(tuple(1 - k / steps for k in range(steps)), who)
            found = schedule.export("guidance_interval", member="guided")
            guider = ClassifierFreeGuidance(2.0, start=found["start"], stop=found["stop"])
            on = []
            for k in range(steps):
                guider.set_state(k, steps, None)
                on.append(guider.num_conditions == 2)
            assert on == [name == "guided" for name in who]
