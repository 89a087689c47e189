"""Exports, read as the programs that take them do: who runs at which step comes out as the schedule says."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phasewise as pw
from phasewise.errors import PhasewiseError
from phasewise.results import HybridSchedule
from phasewise.scheduling import EXPORTS, export


class Table:
    """Timesteps of a table: t = (k + 1) / K."""

    def __init__(self, total=1000):
        self.steps_total = total

    def timestep_of_time(self, t):
        return t * self.steps_total - 1


class Flow(Table):
    """Timesteps of a flow: K t."""

    def timestep_of_time(self, t):
        return t * self.steps_total


def plan(*groups, times=None):
    """A schedule of (name, steps) groups."""
    who = [name for name, count in groups for _ in range(count)]
    return HybridSchedule(times or pw.time_grid(len(who)), tuple(who))


@given(first=st.integers(1, 30), second=st.integers(1, 30), clock=st.sampled_from([Table(), Flow(), Table(4000)]))
@settings(max_examples=60, deadline=None)
def test_a_switch_is_read_as_it_was_written(first, second, clock):
    schedule = plan(("high", first), ("low", second))
    steps = [clock.timestep_of_time(t) for t in schedule.times]
    ratio = schedule.export("boundary_ratio", clock=clock)
    assert ["high" if s >= ratio * clock.steps_total else "low" for s in steps] == list(schedule.assignment)
    end = schedule.export("denoising_end", clock=clock)
    assert 0 < end < 1
    total = clock.steps_total
    cut = round(total - end * total)  # as the base's pipeline and the refiner's have it
    assert ["high" if s >= cut else "low" for s in steps] == list(schedule.assignment)


@given(before=st.integers(0, 60), inside=st.integers(1, 60), after=st.integers(0, 60))
@settings(max_examples=120, deadline=None)
def test_a_guidance_interval_is_read_as_it_was_written(before, inside, after):
    schedule = plan(("plain", before), ("guided", inside), ("plain", after))
    found, count = schedule.export("guidance_interval", member="guided"), len(schedule.times)
    start, stop = int(found["start"] * count), int(found["stop"] * count)
    assert [start <= k < stop for k in range(count)] == [name == "guided" for name in schedule.assignment]
    sigma = [t / (1 - t) if t < 1 else math.inf for t in schedule.times]
    assert [found["sigma_low"] < s <= found["sigma_high"] for s in sigma] == [
        name == "guided" for name in schedule.assignment
    ]


def test_a_mask_has_a_1_where_the_network_is_computed():
    schedule = plan(("global", 2), ("r1", 1), ("global", 1), ("r1", 2))
    assert schedule.export("steps_computation_mask") == [1, 1, 0, 1, 0, 0]
    assert export(schedule, "steps_computation_mask", member="r1") == [0, 0, 1, 0, 1, 1]


def test_json_is_the_record():
    schedule = plan(("a", 1), ("b", 2))
    assert HybridSchedule.from_dict(json.loads(schedule.export("json"))) == schedule


@pytest.mark.parametrize(
    ("groups", "form", "more", "said"),
    [
        ([("a", 3)], "boundary_ratio", {"clock": Table()}, "stands for one switch.*a from t = 1 to 0"),
        ([("a", 1), ("b", 1), ("a", 1)], "denoising_end", {"clock": Table()}, "b from t = 0.51 to 0.02"),
        ([("a", 1), ("b", 1)], "boundary_ratio", {}, "give clock="),
        ([("a", 1), ("b", 1)], "boundary_ratio", {"clock": 3}, "an object with steps_total"),
        ([("a", 3), ("b", 15)], "denoising_end", {"clock": Table(2)}, "none lies between 0.65.* and 0.7.* of 2"),
        ([("a", 1), ("b", 1), ("a", 1)], "guidance_interval", {"member": "a"}, "a takes several; this schedule has a "),
        ([("a", 1), ("b", 1)], "guidance_interval", {}, "needs member=, the guided one; this schedule has a from"),
        ([("a", 1), ("b", 1)], "guidance_interval", {"member": "c"}, "'c' takes no step"),
        ([("a", 1), ("b", 1)], "steps_computation_mask", {}, "needs member=, the one that is computed"),
        ([("a", 1)], "boundary_ration", {}, r"unknown form of export 'boundary_ration'; .*did you mean"),
    ],
)
def test_a_form_that_does_not_fit_is_refused_naming_the_spans(groups, form, more, said):
    with pytest.raises(PhasewiseError, match=said):
        plan(*groups).export(form, **more)


def test_a_clock_that_stands_still_is_refused():
    class Still(Table):
        def timestep_of_time(self, t):
            return 7.0

    with pytest.raises(PhasewiseError, match="no boundary lies between them"):
        plan(("a", 1), ("b", 1)).export("boundary_ratio", clock=Still())


def test_a_clock_of_another_path_or_without_steps_is_refused():
    schedule = plan(("a", 1), ("b", 1))
    mine, other, plain = Table(), Table(), Table(None)
    mine.path, other.path = pw.paths.LinearPath(), pw.paths.CosinePath()
    assert schedule.export("boundary_ratio", clock=mine) == schedule.export("boundary_ratio", clock=Table())
    with pytest.raises(PhasewiseError, match=r"this clock is of CosinePath.*the times are on LinearPath"):
        schedule.export("boundary_ratio", clock=other)
    with pytest.raises(PhasewiseError, match="counts no discrete timesteps"):
        schedule.export("denoising_end", clock=plain)
    wide = HybridSchedule(schedule.times, schedule.assignment, path=pw.paths.ScaledPath(mine.path, 2.0).config())
    assert wide.export("boundary_ratio", clock=mine) == schedule.export("boundary_ratio", clock=mine)


def test_a_form_of_your_own_joins(monkeypatch):
    monkeypatch.setattr(EXPORTS, "_entries", dict(EXPORTS.items()))
    EXPORTS.register("names", lambda schedule, clock, member: " ".join(schedule.assignment))
    assert plan(("a", 1), ("b", 1)).export("names") == "a b"
