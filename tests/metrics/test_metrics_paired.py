from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from phasewise.errors import PhasewiseError
from phasewise.metrics import paired_difference_test, paired_error


def noise(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 2, 3, 4, generator=torch.Generator().manual_seed(seed))


def test_a_constant_offset_is_its_own_error() -> None:
    a = noise(5, 0)
    got = paired_error(a, a + 0.25)
    assert got.value == pytest.approx(0.25, rel=1e-6)
    assert got.stderr < 1e-6
    assert (got.n, got.unit) == (5, "pixel units")


def test_identical_sets_have_no_error_at_all() -> None:
    got = paired_error(noise(4, 0), noise(4, 0))
    assert (got.value, got.stderr) == (0.0, 0.0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.1, 10))
def test_symmetric_and_of_first_degree(seed: int, factor: float) -> None:
    a, b = noise(6, seed).double(), noise(6, seed + 1).double()
    plain, scaled = paired_error(a, b), paired_error(factor * b, factor * a)
    assert scaled.value == pytest.approx(factor * plain.value, rel=1e-9)
    assert scaled.stderr == pytest.approx(factor * plain.stderr, rel=1e-9)


def test_standard_error_is_the_spread_of_independent_sets() -> None:
    def draw(seed: int) -> torch.Tensor:
        size = torch.rand(50, 1, 1, 1, generator=torch.Generator().manual_seed(seed))
        return size * noise(50, seed)

    runs = [paired_error(torch.zeros(50, 2, 3, 4), draw(seed)) for seed in range(200)]
    spread = float(torch.tensor([r.value for r in runs]).std())
    assert sum(r.stderr for r in runs) / 200 == pytest.approx(spread, rel=0.15)


def test_difference_test_agrees_with_scipy() -> None:
    a, b = noise(10, 0).flatten(), noise(10, 1).flatten() + 0.1
    got, expected = paired_difference_test(a, b), ttest_rel(a.double().numpy(), b.double().numpy())
    assert got.p_value == pytest.approx(float(expected.pvalue), rel=1e-9)
    assert got.mean / got.stderr == pytest.approx(float(expected.statistic), rel=1e-9)
    assert got.n == 240


def test_constant_differences_need_no_variance() -> None:
    a = torch.tensor([1.0, 2.0, 3.0])
    assert paired_difference_test(a, a).p_value == 1.0
    assert paired_difference_test(a + 1, a).p_value == 0.0


def test_bad_input_is_refused() -> None:
    a = noise(3, 0)
    with pytest.raises(PhasewiseError, match="same n and seed"):
        paired_error(a, noise(4, 0))
    with pytest.raises(PhasewiseError, match="N >= 2"):
        paired_error(a[:1], a[:1])
    with pytest.raises(PhasewiseError, match="1 of 3 pairs"):
        paired_error(a, torch.cat([a[:2], a[2:] * math.inf]))
    with pytest.raises(PhasewiseError, match="paired scores"):
        paired_difference_test(torch.zeros(3), torch.zeros(4))
