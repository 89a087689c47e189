"""No map says more than can be, nor claims to be sure of what it cannot know."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewise import exact
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.exact.two_mode import equivocation
from phasewise.information import CMIEstimator, cmi_map
from phasewise.information.limits import limits_of
from phasewise.information.problem import make_problem
from phasewise.paths import VarianceExplodingPath
from phasewise.results import Estimate

MODEL = exact.TwoMode.far_copy((8, 8))
IMAGES = MODEL.sample(3000, 0)


class Saying(CMIEstimator):
    """Says what it is told to, of every cell."""

    name, bound = "saying", "neither"

    def __init__(self, value: float, stderr: float = 0.001, missed: float = 0.0) -> None:
        self.value, self.stderr, self.missed = value, stderr, missed  # type: ignore[misc]

    def estimate(self, problem, cells, folder=None, say=print):
        yield from ((cell, Estimate(self.value, self.stderr, 100)) for cell in cells)


def said(value: float, t: float = 0.1, **options: float):
    return cmi_map(IMAGES, [1], [t], estimator=Saying(value, **options), accuracy=9.0)


@pytest.mark.parametrize(("value", "stderr"), [(math.nan, 0.1), (math.inf, 0.1), (0.1, math.nan), (0.1, math.inf)])
def test_what_is_no_number_is_refused_with_its_cell(tmp_path, value, stderr):
    with pytest.raises(PhasewiseError, match=r"saying gives .* for the cell t = 0\.1, r = 1: no number"):
        cmi_map(IMAGES, [1], [0.1], estimator=Saying(value, stderr), accuracy=9.0, folder=tmp_path)
    assert not list(tmp_path.rglob("cells.json")), "nor is it kept"


@pytest.mark.filterwarnings("ignore::phasewise.errors.PhasewiseWarning")
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("components", [None, 4])
def test_nearest_neighbours_where_noise_is_lost_in_rounding_give_a_number(level, components):
    images = (IMAGES[:300] + 1) / 2
    images[:, 0, 2:5, 2] = level  # a part of B that is constant but for its noise
    found = cmi_map(images, [1], [1e-8], estimator="knn", accuracy=9.0, components=components)
    assert abs(found.value[0, 0] - math.log(2)) < 2 * found.stderr[0, 0]


def test_more_than_the_entropy_of_two_levels_is_warned_of_and_admitted():
    with pytest.warns(PhasewiseWarning, match=r"1 of 1 cells by 'saying' read more than .* 1\.9 nats .* at most 0\.69"):
        found = said(1.9)
    assert found.value[0, 0] == 1.9, "as measured"
    assert found.stderr[0, 0] >= 1.9 - math.log(2) - 1e-3


def test_gaussian_estimates_of_two_levels_are_never_far_beyond_their_error():
    times = [0.02, 0.05, 0.1, 0.3, 0.6]
    with pytest.warns(PhasewiseWarning, match="more than A can share"):
        found = cmi_map(IMAGES, [1, 2], times, estimator="gaussian", accuracy=9.0)
    truth = np.array([[MODEL.cmi(t, r) for r in (1, 2)] for t in times])
    beyond = found.value > limits_of(make_problem(IMAGES, times, [1])).most[:, None]
    assert beyond.any()
    assert (np.abs(found.value - truth) < 2 * found.stderr)[beyond].all()


def test_what_is_possible_is_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert said(0.6).stderr[0, 0] == 0.001
        assert said(-0.2).stderr[0, 0] == 0.001
        field = exact.GaussianField((6, 6), mass=0.2).sample(500, 0)
        cmi_map(field, [1], [0.02, 0.5, 0.9], estimator="gaussian", accuracy=9.0)


def test_where_noise_mixes_no_levels_nothing_is_known():
    with pytest.warns(PhasewiseWarning, match=r"at t = 0\.005 the noise mixes none of the few levels of A"):
        found = said(0.42, 0.005)
    assert found.stderr[0, 0] == pytest.approx(math.log(2) / math.sqrt(12), rel=1e-2)
    assert abs(found.value[0, 0] - MODEL.cmi(0.005, 1)) < 2 * found.stderr[0, 0]


def test_large_values_of_learned_estimators_admit_what_they_were_seen_to_miss():
    """The cases that were measured: .6415 of .6585, .610 of .619 nats."""
    for value, truth in ((0.6415, 0.6585), (0.610, 0.619)):
        assert abs(value - truth) < 2 * said(value, stderr=0.0024, missed=0.05).stderr[0, 0]
    assert said(0.29, missed=0.05).stderr[0, 0] == 0.001


@settings(max_examples=25, deadline=None)
@given(t=st.floats(0.01, 0.95), share=st.floats(0.1, 0.9), amplitude=st.floats(0.1, 9))
def test_the_limits_hold_for_two_levels(t, share, amplitude):
    """I(A_t : A_0) of a fair sign is known; the limits lie above it, and above nothing less than it."""
    n = 400
    images = torch.zeros(n, 1, 3, 3)
    images[: round(share * n), 0, 1, 1] = 1
    problem = make_problem(images * amplitude, [t], [0])
    found = limits_of(problem)
    p = round(share * n) / n
    assert found.entropy == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p) + 1 / (2 * n))
    snr = ((1 - t) / t * amplitude / 2) ** 2
    assert found.most[0] <= found.entropy
    if share == 0.5:
        assert math.log(2) - equivocation(snr) <= found.most[0]


def test_many_values_have_no_entropy_to_go_by():
    field = exact.GaussianField((6, 6), mass=0.2).sample(500, 0)
    found = limits_of(make_problem(field, [0.5], [1]))
    assert math.isinf(found.entropy)
    assert not found.unmixed.any()
    assert found.most[0] == pytest.approx(0.5 * math.log1p(float(field[:, 0, 2, 2].var(correction=0))), rel=1e-6)


def test_a_path_that_keeps_all_of_the_signal_has_limits_too():
    found = limits_of(make_problem(IMAGES, [0.3, 1.0], [1], path=VarianceExplodingPath()))
    assert np.isfinite(found.most).all()
