"""What so many samples can tell, held against synthetic features whose true distances are known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phasewise.metrics import FrechetReference, frechet_difference
from phasewise.power import POWER, REACH, Comparison

DIM = 2


def paired_differences(n: int, shift: float, repeats: int) -> list[Comparison]:
    """Two samplers of Gaussian features from one noise, seen from a reference at distance: ``repeats`` comparisons.

    The reference is N(0, I); the samplers' means are (1, 0) and (1 + shift, 0), their covariances I, so the true
    difference of their Frechet distances is (1 + shift)^2 - 1.
    """
    generator = torch.Generator().manual_seed(0)
    reference = FrechetReference(torch.zeros(DIM).double(), torch.eye(DIM).double(), float(DIM), 1, "")
    start = torch.tensor([1.0, 0.0])
    found = []
    for k in range(repeats):
        shared, own = torch.randn(2, n, DIM, generator=generator)
        first = start + shared
        # half of the noise is shared, as by two schedules of one seed
        second = start + torch.tensor([shift, 0.0]) + math.sqrt(0.5) * shared + math.sqrt(0.5) * own
        estimate = frechet_difference(second, first, reference, seed=k, resamples=50)
        found.append(Comparison(estimate.value, estimate.stderr, n))
    return found


def test_the_detectable_difference_is_told_four_times_in_five() -> None:
    n, repeats, shift = 100, 120, 0.0
    for _ in range(3):  # the error is that of samplers which do differ so much
        typical = sorted(c.detectable for c in paired_differences(n, shift, 40))[20]
        shift = math.sqrt(1 + typical) - 1  # a true difference of just that size
    told = sum(c.outcome == "higher" for c in paired_differences(n, shift, repeats)) / repeats
    assert abs(told - POWER) < 3 * math.sqrt(POWER * (1 - POWER) / repeats)


def test_so_many_samples_tell_the_difference_that_they_are_said_to_take() -> None:
    repeats, shift = 120, 0.1
    true = (1 + shift) ** 2 - 1
    few = paired_differences(100, shift, 40)
    assert sum(c.outcome == "higher" for c in few) / 40 < 0.6, "100 are too few"
    needed = sorted(c.samples_for(true) for c in few)[20]
    assert 200 < needed < 2000
    told = sum(c.outcome == "higher" for c in paired_differences(needed, shift, repeats)) / repeats
    assert abs(told - POWER) < 3 * math.sqrt(POWER * (1 - POWER) / repeats)


@given(st.floats(1e-3, 10), st.integers(2, 10_000), st.floats(0.01, 10))
def test_samples_needed_and_detectable_difference_are_each_other_s_inverse(stderr: float, n: int, ratio: float) -> None:
    here = Comparison(0.0, stderr, n)
    wanted = here.detectable * ratio
    needed = here.samples_for(wanted)
    there = Comparison(0.0, stderr * math.sqrt(n / needed), needed)
    assert there.detectable <= wanted * (1 + 1e-9)
    if needed > 1:
        fewer = Comparison(0.0, stderr * math.sqrt(n / (needed - 1)), needed - 1)
        assert fewer.detectable >= wanted * (1 - 1e-9)


def test_outcomes_and_ends() -> None:
    assert [Comparison(d, 0.1, 9).outcome for d in (-0.3, -0.2, 0.0, 0.2, 0.3)] == ["lower", *["level"] * 3, "higher"]
    assert pytest.approx(2.8416, abs=1e-4) == REACH
    assert Comparison(0.0, 0.0, 10).samples_for(1.0) == 1
    assert Comparison(0.0, 1.0, 10).samples_for(0.0) == 2**53
