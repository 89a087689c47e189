"""A search for start times: it finds what is there to be found, keeps to its budget, and says what luck gave it."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scheduling_optimise import make_prices

import phasewise as pw
from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField
from phasewise.metrics import FrechetReference, RandomFeatures, SlicedReference
from phasewise.paths import CosinePath, LinearPath
from phasewise.results import SearchedGrid
from phasewise.sampling import time_grid
from phasewise.scheduling import baselines, by_frechet, guarded, search_grid, search_times

BEST = (1.0, 0.846, 0.666, 0.508, 0.282, 0.061)


def odds(t):
    return math.log(t / (1 - t))


def apart(times, seed):
    """How far a grid lies from :data:`BEST`; the seed adds luck, the same for all grids."""
    return sum((odds(a) - odds(b)) ** 2 for a, b in zip(times[1:], BEST[1:], strict=True)) + 0.1 * seed


def test_the_best_grid_is_found():
    found = search_times(6, apart, budget=60)
    assert np.allclose(found.times, BEST, atol=0.03)
    assert found == search_times(6, apart, budget=60), "no chance in it"
    assert found.value == min(found.values) == found.values[found.judged.index(found.times)]
    assert found.fresh_value == pytest.approx(found.value + 0.1), "judged again on the other seed"
    assert found.gain == pytest.approx(found.fresh_gain), "this judge gives all grids the same luck"
    assert SearchedGrid.from_dict(json.loads(found.to_json())) == found
    assert "0.061" not in str(found)
    assert "SearchedGrid: best of" in str(found)


def test_a_search_begins_where_it_is_told_to():
    found = search_times(6, apart, budget=60, spacing="shift4")
    assert found.began == found.judged[0] == time_grid(6, spacing="shift4")
    assert np.allclose(found.times, BEST, atol=0.05), "it ends at the best all the same"
    with pytest.raises(PhasewiseError, match="unknown spacing 'even'; known: uniform, shift2"):
        search_times(6, apart, spacing="even")
    slipped = search_times(3, lambda t, s: t[0], begin=(0.9995, 0.5, 0.05))
    assert {times[0] for times in slipped.judged} == {1.0}, "the first step starts at first"


def test_a_given_grid_is_moved_from_where_it_is():
    near = (1.0, *(t + 0.03 for t in BEST[1:]))
    found = search_times(6, apart, budget=30, begin=near)
    assert found.began == found.judged[0] == near
    assert found.value < apart(near, 0) / 4
    once = [sum(abs(a - b) > 1e-9 for a, b in zip(times, near, strict=True)) for times in found.judged[1:3]]
    assert once == [1, 1], "one time is moved, the others stay"
    assert len({tuple(round(t, 8) for t in times) for times in found.judged}) == len(found.judged), "the way back"
    assert search_times(1, lambda t, s: t[0], begin=(1.0,)).times == (1.0,)


def test_luck_that_chose_is_told_by_fresh_noise():
    """A judge that is nothing but luck: the gain of the search is none on noise that chose nothing."""

    def luck(times, seed):
        return float(np.random.default_rng([seed, *(int(1e9 * t) for t in times)]).normal())

    found = [search_times(4, luck, budget=20, seed=10 * k) for k in range(20)]
    assert np.mean([f.gain for f in found]) > 1.0
    assert abs(np.mean([f.fresh_gain for f in found])) < 1.0


@given(
    steps=st.integers(1, 9),
    budget=st.integers(1, 30),
    first=st.floats(0.7, 1.0),
    ends=st.tuples(st.floats(0.002, 0.05), st.floats(0.06, 0.3)),
    path=st.sampled_from([LinearPath(), CosinePath()]),
    seed=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_every_judged_grid_is_one_to_sample_on(steps, budget, first, ends, path, seed):
    asked = []

    def judge(times, noise):
        asked.append((times, noise))
        return abs(sum(times) - 2.0)

    found = search_times(steps, judge, path=path, first=first, ends=ends, budget=budget, seed=seed)
    assert len(found.judged) <= budget
    assert len(asked) == len(set(asked)) <= budget + 2, "no grid is judged twice on one noise"
    assert found.value <= found.began_value
    for times in found.judged:
        assert len(times) == steps
        assert times[0] == first
        assert all(b < a for a, b in zip(times, times[1:], strict=False))
        if steps > 1:
            # times of the odds round on the way back from log-SNR
            assert ends[0] * (1 - 1e-6) <= times[-1] <= ends[1] * (1 + 1e-6) or times == found.began


def test_a_search_that_was_stopped_goes_on(tmp_path):
    whole = search_times(5, lambda t, s: apart((*t, 0.061), s), budget=12)
    calls = []

    def judge(times, seed):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(times)
        return apart((*times, 0.061), seed)

    with pytest.raises(KeyboardInterrupt):
        search_times(5, judge, budget=12, folder=tmp_path / "s", about="mine")
    assert len(list((tmp_path / "s").glob("grid-*.json"))) == 5
    later = []

    def again(times, seed):
        later.append(times)
        return apart((*times, 0.061), seed)

    assert search_times(5, again, budget=12, folder=tmp_path / "s", about="mine") == whole
    assert not set(later) & set(calls[:5]) or len(later) == 12 + 2 - 5, "what was judged is not judged again"
    assert len(later) == len(whole.judged) + 2 - 5
    with pytest.raises(PhasewiseError, match="holds another search"):
        search_times(5, again, budget=12, folder=tmp_path / "s", about="another judge")


@pytest.fixture(scope="module")
def field():
    return GaussianField((4, 4), mass=1.0)


@pytest.mark.parametrize("solver", ["ddim", "sde_dpmpp_2m", "heun"])
def test_samples_get_nearer_to_the_images(field, solver):
    """Few steps of any solver, on the exact denoiser, by the variance that finite steps lose."""
    truth = float(field.covariance.diagonal().mean())

    def judge(images):
        return abs(float(images.var()) - truth)

    found = search_grid(field.denoiser(), 3, judge, solver=solver, n=200, budget=10)
    assert found.fresh_value < found.began_fresh_value
    plan = {"times": found.times, "solver": solver, "n": 200, "seed": found.fresh_seed}
    assert judge(pw.sample(field.denoiser(), **plan)) == pytest.approx(found.fresh_value, abs=1e-6)


def test_members_keep_their_steps(field):
    """A fixed assignment: the first step is another's, whatever the grid."""
    members = [field.denoiser(1), field.denoiser(), field.denoiser()]
    seen = []

    def judge(images):
        seen.append(images)
        return float(images.mean())

    found = search_grid(members, 3, judge, n=8, budget=2)
    plan = pw.HybridSchedule(found.judged[0], ("a", "b", "b"), "exp_ab2", members[-1].path.config())
    own = pw.sample(pw.HybridDenoiser({"a": members[0], "b": members[1]}, plan), n=8, seed=0)
    assert torch.allclose(own, seen[0], atol=1e-6)


def test_the_frechet_judge_is_the_distance(field):
    features, images = RandomFeatures((1, 4, 4)), field.sample(64, 0)
    reference, samples = FrechetReference.of_images(images, features), field.sample(32, 1)
    judge = by_frechet(features, reference, (-1.0, 1.0))
    assert judge(samples) == pytest.approx(pw.fid(samples.clamp(-1, 1), reference, features).value)


def test_a_guard_only_forbids(field):
    """Samples as near as allowed keep their distance; twice as far by their pixels, it counts twice."""
    real, samples = SlicedReference.of_images(field.sample(64, 0)), field.sample(32, 1)
    far = pw.metrics.sliced_wasserstein(samples.clamp(-1, 1), real).value
    assert real.distance(samples.clamp(-1, 1)) == pytest.approx(far)
    for allowed, value in ((2 * far, 3.0), (far, 3.0), (far / 2, 6.0)):
        judge = guarded(lambda images: 3.0, real, allowed, (-1.0, 1.0))
        assert judge(samples) == pytest.approx(value)


def test_a_closed_first_step_costs_its_own_call():
    gap = np.tile([0, 1.0], (8, 1))
    prices = make_prices(gap, gap, [10e6, 1e6])
    plan = baselines.fewer_steps(prices, 40.0, "exp_ab2", first="r1")
    assert plan.assignment == ("r1",) + ("global",) * 4
    assert plan.mflop == pytest.approx(41.0)
    with pytest.raises(PhasewiseError, match="no prices for 'r9'"):
        baselines.fewer_steps(prices, 40.0, "exp_ab2", first="r9")
