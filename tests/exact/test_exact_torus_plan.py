"""Windows beside a plan of pooled posterior means, by modes, against dense matrices."""

import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField, GaussianModel, PooledPlan, TorusField, gaussian_cmi, regions

MASS = 0.3


@cache
def dense(side, t):
    """Covariances of an image, clean and noisy, and the pooling of side x side pixels to p x p."""
    clean = GaussianField((side, side), mass=MASS).covariance
    return clean, (1 - t) ** 2 * clean + t**2 * torch.eye(side**2, dtype=torch.float64)


def pooling(side, plan):
    pixels = torch.eye(side**2, dtype=torch.float64).view(-1, 1, side, side)
    return torch.nn.functional.avg_pool2d(pixels, side // plan).flatten(1).T


def left_of(covariance, target, given):
    """Var(target | given), by pseudo-inverse, entries scaled to unit variance first."""
    scale = covariance.diagonal().sqrt().clamp(min=1e-300)
    c = covariance / scale[:, None] / scale
    inverse = torch.linalg.pinv(c[given][:, given], rtol=1e-13, hermitian=True)
    left = c[target][:, target] - c[target][:, given] @ inverse @ c[given][:, target]
    return left * scale[target][:, None] * scale[target]


def dense_gap(side, plan, radius, t):
    clean, noisy = dense(side, t)
    answer = (1 - t) * torch.linalg.solve(noisy, clean)  # symmetric on the torus
    seen = torch.cat([torch.eye(side**2, dtype=torch.float64), pooling(side, plan) @ answer])
    total = 0.0
    for pixel in range(side**2):
        rows = [(pixel // side + i) % side * side + (pixel % side + j) % side
                for i in range(-radius, radius + 1) for j in range(-radius, radius + 1)]  # fmt: skip
        own = seen[[*rows, *range(side**2, len(seen))]]
        cross = (1 - t) * own @ clean[:, [pixel]]
        joint = torch.cat(
            [torch.cat([own @ noisy @ own.T, cross], 1), torch.cat([cross.T, clean[[pixel]][:, [pixel]]], 1)]
        )
        total += float(left_of(joint, torch.tensor([len(own)]), torch.arange(len(own))))
    return total - float((clean - (1 - t) * answer @ clean).trace())


def dense_cmi(side, plan, radius, t, block):
    """The plan is the mean given all pixels but A's; averaged over the places of A in a block of the plan."""
    clean, noisy = dense(side, t)
    found, width = [], side // plan
    for row in range(width):
        for column in range(width):
            centre = (row + (block - 1) // 2, column + (block - 1) // 2)
            shift = regions((side, side), radius, block, ((side - 1) // 2, (side - 1) // 2), wrap=True)
            middle = (side - 1) // 2
            moved = [
                (r // side + centre[0] - middle) % side * side + (r % side + centre[1] - middle) % side
                for r in (shift.a, shift.b, shift.c)
            ]
            a, b, c = moved
            rest = torch.cat([b, c])
            answer = (1 - t) * clean[:, rest] @ torch.linalg.inv(noisy[rest][:, rest])
            plan_of = torch.zeros(plan**2, side**2, dtype=torch.float64)
            plan_of[:, rest] = pooling(side, plan) @ answer
            seen = torch.cat([torch.eye(side**2, dtype=torch.float64), plan_of])
            joint = seen @ noisy @ seen.T
            told = torch.cat([b, torch.arange(side**2, len(seen))])
            found.append(0.5 * float(left_of(joint, a, told).logdet() - left_of(joint, a, rest).logdet()))
    return sum(found) / len(found)


@pytest.mark.parametrize(("side", "plan", "radius"), [(8, 1, 1), (8, 2, 1), (8, 4, 2), (6, 3, 1), (6, 2, 0), (8, 8, 1)])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_gap_is_that_of_dense_least_squares(side, plan, radius, t):
    found = PooledPlan(TorusField(side, MASS), plan, t)
    assert found.denoising_gap(radius) == pytest.approx(dense_gap(side, plan, radius, t), abs=1e-8)
    assert found.mmse(radius) == pytest.approx(found.whole + found.denoising_gap(radius))


@pytest.mark.parametrize(
    ("side", "plan", "radius", "block"),
    [(8, 1, 1, 1), (8, 2, 1, 1), (8, 2, 1, 2), (6, 3, 1, 1), (6, 2, 0, 2), (8, 8, 1, 1)],
)
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_cmi_beside_a_plan_is_that_of_dense_schur_complements(side, plan, radius, block, t):
    found = PooledPlan(TorusField(side, MASS), plan, t).cmi(radius, block)
    assert found == pytest.approx(dense_cmi(side, plan, radius, t, block), abs=1e-8)


@pytest.mark.parametrize(("radius", "block"), [(0, 1), (1, 1), (2, 2), (1, 4), (3, 2)])
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_cmi_of_the_torus_is_that_of_the_dense_model(radius, block, t):
    noisy = dense(8, t)[1]
    where = regions((8, 8), radius, block, wrap=True)
    assert TorusField(8, MASS).cmi(t, radius, block) == pytest.approx(
        gaussian_cmi(noisy, where.a, where.b, where.c), abs=1e-10
    )
    assert GaussianModel(dense(8, t)[0], (8, 8), wrap=True).cmi(t, radius, block) == pytest.approx(
        TorusField(8, MASS).cmi(t, radius, block), abs=1e-10
    )


@settings(max_examples=15, deadline=None, derandomize=True)
@given(t=st.floats(0.05, 0.95), plan=st.sampled_from([1, 2, 4, 8]), radius=st.integers(0, 2))
def test_a_plan_leaves_between_nothing_and_all_and_a_finer_one_no_more(t, plan, radius):
    field = TorusField(16, MASS)
    coarse, fine = PooledPlan(field, plan, t), PooledPlan(field, 2 * plan, t)
    assert -1e-9 < fine.denoising_gap(radius) <= coarse.denoising_gap(radius) + 1e-9
    assert coarse.denoising_gap(radius) <= field.denoising_gap(t, radius) + 1e-9
    # coarse pixels are means of fine ones, so all they say the fine ones say
    assert -1e-9 < fine.cmi(radius) <= coarse.cmi(radius) + 1e-9
    assert coarse.cmi(radius) <= field.cmi(t, radius) + 1e-9


def test_at_the_end_of_the_noise_there_is_nothing_to_tell():
    field = TorusField(8, MASS)
    assert PooledPlan(field, 2, 1.0).cmi(1) == field.cmi(1.0, 1) == 0
    assert PooledPlan(field, 2, 1.0).denoising_gap(1) == pytest.approx(0, abs=1e-9)
    assert field.cmi(0.5, 4, 1) == 0  # no pixel is left for C
    assert math.isfinite(field.cmi(0.0, 1))


@pytest.mark.parametrize(("make", "says"), [
    (lambda: PooledPlan(TorusField(8, MASS), 3, 0.5), "divide"),
    (lambda: PooledPlan(TorusField(8, MASS), 2, 0.0), "without noise"),
    (lambda: PooledPlan(TorusField(8, MASS), 2, 0.5).cmi(4), "wider"),
    (lambda: PooledPlan(TorusField(8, MASS), 2, 0.5).denoising_gap(4), "wider"),
    (lambda: TorusField(8, MASS).cmi(0.5, 1, 9), "block"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(make, says):
    with pytest.raises(PhasewiseError, match=says):
        make()
