"""Regions A, B, C of the estimators against those of the exact models, which are written independently."""

from __future__ import annotations

import pytest
import torch

from phasewise.errors import PhasewiseError
from phasewise.exact import regions
from phasewise.information import make_geometry


@pytest.mark.parametrize("shape", [(7, 9), (8, 8), (1, 12), (12, 1)])
@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize("center", [None, (3, 4), (0, 3)])
def test_one_channel_agrees_with_the_exact_models(shape, block, center):
    if center is not None:
        center = tuple(min(c, side - 1) if side > 1 else 0 for c, side in zip(center, shape, strict=True))
    try:
        expected = [regions(shape, r, block, center) for r in (0, 1, 2)]
    except PhasewiseError:
        with pytest.raises(PhasewiseError, match="reaches out"):
            make_geometry((1, *shape), block, center)
        return
    geometry = make_geometry((1, *shape), block, center)
    for r, region in zip((0, 1, 2), expected, strict=True):
        assert geometry.a().tolist() == region.a.tolist()
        assert geometry.b(r).tolist() == region.b.tolist()
        assert geometry.c(r).tolist() == region.c.tolist()


def test_channels_of_a_pixel_stay_together_and_the_regions_part_the_image():
    geometry = make_geometry((3, 6, 7), 2, (2, 3))
    a, b, c = geometry.a(), geometry.b(1), geometry.c(1)
    assert sorted(torch.cat([a, b, c]).tolist()) == list(range(3 * 6 * 7))
    assert a[:3].tolist() == [2 * 7 + 3, 42 + 2 * 7 + 3, 84 + 2 * 7 + 3]
    assert geometry.b(None).tolist() == sorted(torch.cat([b, c]).tolist())
    assert len(geometry.c(geometry.extent)) == 0
    assert len(geometry.c(geometry.extent - 1)) > 0


@pytest.mark.parametrize(
    ("block", "center", "words"),
    [(0, None, "whole number"), (9, None, "from 1"), (3, (0, 0), "reaches out"), (1, (8, 0), "reaches out")],
)
def test_a_block_outside_the_image_is_refused(block, center, words):
    with pytest.raises(PhasewiseError, match=words):
        make_geometry((1, 8, 8), block, center)
