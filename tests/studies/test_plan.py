"""What a window loses beside a plan of pooled pixels, by dense least squares; members and prices of the study."""

import math
from functools import cache

import pytest
import torch

from phasewise.exact import GaussianField, TorusField
from phasewise.paths import LinearPath
from studies.plan.fields import members_of, pooled_share, prices_of

SIDE, MASS = 8, 0.3


@cache
def field():
    return TorusField(SIDE, MASS)


@pytest.mark.parametrize(("radius", "plan"), [(1, 2), (1, 4), (2, 4)])
def test_a_plan_of_pooled_pixels_is_the_dense_best(radius, plan):
    t = float(LinearPath().t_of_log_snr(-1.0))
    covariance = GaussianField((SIDE, SIDE), mass=MASS).covariance
    block, pixels = SIDE // plan, torch.eye(SIDE**2, dtype=torch.float64)
    pool = torch.nn.functional.avg_pool2d(pixels.view(-1, 1, SIDE, SIDE), block).flatten(1).T
    total = 0.0
    for row in range(SIDE):
        for column in range(SIDE):
            near = [
                (row + i) % SIDE * SIDE + (column + j) % SIDE
                for i in range(-radius, radius + 1)
                for j in range(-radius, radius + 1)
            ]
            seen = torch.cat([pixels[near], pool])
            noisy = seen @ ((1 - t) ** 2 * covariance + t**2 * pixels) @ seen.T
            cross = (1 - t) * covariance[row * SIDE + column] @ seen.T
            total += float(1 - cross @ torch.linalg.pinv(noisy, rtol=1e-12, hermitian=True) @ cross)
    whole = field().mmse(t)
    assert pooled_share(field(), radius, plan, -1.0) == pytest.approx((total - whole) / whole, rel=1e-6)


def test_a_plan_of_every_pixel_loses_nothing():
    assert pooled_share(field(), 1, SIDE, 0.0) == pytest.approx(0, abs=1e-9)


def test_a_plan_is_priced_at_its_planner_and_the_local_network():
    members = members_of(TorusField(16, MASS), (4, 8, 16))
    assert members[0] is None
    assert (1, 8) in members
    assert (1, 16) not in members
    prices = prices_of(16, members, "U-Net medium")
    at = {m: k for k, m in enumerate(members)}
    dear, cheap = (prices["U-Net medium"][at[1, p]] for p in (8, 4))
    assert prices["U-Net medium"][0] > dear > cheap > prices["U-Net medium"][at[1]]
    assert all(
        math.isinf(p) == isinstance(m, tuple) for p, m in zip(prices["U-Net medium, no plan"], members, strict=True)
    )
