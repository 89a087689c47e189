"""Regions and windows against their definitions, pixel by pixel."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewise.errors import PhasewiseError
from phasewise.exact import regions, windows


def max_norm(i: int, j: int, width: int) -> int:
    return max(abs(i // width - j // width), abs(i % width - j % width))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 7), st.integers(1, 4), st.data())
def test_regions_partition_the_image_by_distance(height, width, radius, block, data):
    block = min(block, height, width)
    low, high = (block - 1) // 2, block // 2
    row, col = data.draw(st.integers(low, height - 1 - high)), data.draw(st.integers(low, width - 1 - high))
    region = regions((height, width), radius, block, (row, col))
    a, b, c = (set(r.tolist()) for r in (region.a, region.b, region.c))
    assert a == {i * width + j for i in range(row - low, row + high + 1) for j in range(col - low, col + high + 1)}
    assert a | b | c == set(range(height * width))
    assert len(a) + len(b) + len(c) == height * width
    distance = {i: min(max_norm(i, k, width) for k in a) for i in range(height * width)}
    assert all(1 <= distance[i] <= radius for i in b)
    assert all(distance[i] > radius for i in c)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 8))
def test_windows_are_the_clipped_max_norm_balls(height, width, radius):
    seen = {}
    for group in windows((height, width), radius):
        assert (group.indices[:, group.position] == group.pixels).all()
        seen |= {int(i): w.tolist() for i, w in zip(group.pixels, group.indices, strict=True)}
    n = height * width
    assert seen == {i: [j for j in range(n) if max_norm(i, j, width) <= radius] for i in range(n)}


def test_wrapped_windows_are_balls_on_the_ring():
    (group,) = windows((1, 8), 2, wrap=True)
    assert group.indices[group.pixels == 0].tolist() == [[6, 7, 0, 1, 2]]
    (whole,) = windows((3, 3), 5, wrap=True)
    assert sorted(whole.indices[4].tolist()) == list(range(9))
    assert regions((1, 8), 2, 1, (0, 0), wrap=True).b.tolist() == [1, 2, 6, 7]


def test_default_center_is_the_middle_of_the_image():
    assert regions((27, 27), 1).a.tolist() == [13 * 27 + 13]
    assert regions((28, 28), 1, 4).a.reshape(4, 4)[0].tolist() == [12 * 28 + c for c in range(12, 16)]
    assert regions((1, 9), 1, 2).a.tolist() == [4, 5]


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"radius": -1}, "radius"),
        ({"radius": 1.5}, "radius"),
        ({"radius": 1, "block": 0}, "block"),
        ({"radius": 1, "block": 9}, "block"),
        ({"radius": 1, "block": 3, "center": (0, 4)}, "move the center"),
        ({"radius": 1, "center": (4, 8)}, "move the center"),
    ],
)
def test_bad_regions_are_refused_with_a_mend(kwargs, words):
    with pytest.raises(PhasewiseError, match=words):
        regions((8, 8), **kwargs)
