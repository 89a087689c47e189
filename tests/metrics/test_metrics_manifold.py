"""Precision and recall: known shares on sets made for it, the laws they obey, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from phasewise.errors import PhasewiseError
from phasewise.metrics import precision_recall


def cloud(n: int, seed: int, centre: float = 0.0, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + centre


def test_equal_sets_cover_each_other_and_far_ones_do_not() -> None:
    near, far = cloud(200, 0), cloud(200, 1, centre=100.0)
    assert [e.value for e in precision_recall(near, near.clone())] == [1.0, 1.0]
    assert [e.value for e in precision_recall(near, far)] == [0.0, 0.0]
    assert [e.value for e in precision_recall(cloud(400, 2), cloud(400, 3))] == pytest.approx([0.93, 0.93], abs=0.06)


def test_a_missing_mode_costs_recall_and_a_false_one_precision() -> None:
    two = torch.cat([cloud(300, 0), cloud(300, 1, centre=50.0)])
    one = cloud(600, 2)
    precision, recall = precision_recall(one, two)
    assert (precision.value, recall.value) == pytest.approx((0.97, 0.49), abs=0.04)
    assert recall.stderr == pytest.approx((recall.value * (1 - recall.value) / 600) ** 0.5)
    swapped = precision_recall(two, one)
    assert (swapped[0].value, swapped[1].value) == (recall.value, precision.value)


def test_by_hand() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0]])  # with k = 1 the balls reach 1, 1 and 2
    samples = torch.tensor([[1.9], [5.1], [-0.5], [4.9]])
    assert precision_recall(samples, real, k=1)[0].value == 0.75


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.integers(1, 50))
def test_scale_order_and_chunks_do_not_matter(seed: int, scale: float, rows: int) -> None:
    x, y = cloud(40, seed), cloud(30, seed + 1, centre=1.0)
    expected = [e.value for e in precision_recall(x, y)]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    assert [e.value for e in precision_recall(x[order] * scale, y * scale, rows=rows)] == pytest.approx(
        expected, abs=0.06
    )
    assert [e.value for e in precision_recall(x, y, rows=rows)] == expected


@pytest.mark.parametrize(
    ("samples", "real", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(9, 2), r"N > k = 3; the samples have shape \(3, 2\)"),
        (torch.zeros(9, 2), torch.zeros(9, 3), "the real images have shape"),
        (torch.full((9, 2), torch.nan), torch.zeros(9, 2), "features of the samples contain NaN"),
    ],
)
def test_refusals(samples: Tensor, real: Tensor, message: str) -> None:
    with pytest.raises(PhasewiseError, match=message):
        precision_recall(samples, real)
