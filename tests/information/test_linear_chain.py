"""The Gaussian chain: exact on the true covariance, shrunk where that helps only, stacks nested and guarded."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewise.exact import GaussianField
from phasewise.information import make_problem
from phasewise.information.linear import chain_regression, fit_linear_chain, stationary_covariance
from phasewise.information.stacking import LogDensities, NestedStack, Residuals

FIELD = GaussianField((9, 9), mass=0.2)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_chain_variances_give_the_exact_cmi(block):
    problem = make_problem(FIELD.sample(20, 0), [0.4], [1, 2], block=block)
    q = FIELD.noisy_covariance(0.4)
    a = problem.geometry.a()
    entropy = {r: 0.5 * float(chain_regression(q, problem.geometry.b(r), a)[1].log().sum()) for r in (1, 2, None)}
    for r in (1, 2):
        assert entropy[r] - entropy[None] == pytest.approx(FIELD.cmi(0.4, r, block), abs=1e-12)


def test_chain_weights_are_the_regression_on_context_and_earlier_entries():
    problem = make_problem(FIELD.sample(20, 0), [0.4], [1], block=2)
    q = FIELD.noisy_covariance(0.4)
    a, b = problem.geometry.a(), problem.geometry.b(1)
    weights, variance = chain_regression(q, b, a)
    for i in range(len(a)):
        given_ = torch.cat([b, a[:i]])
        w = torch.linalg.solve(q[given_][:, given_], q[given_, a[i]])
        torch.testing.assert_close(weights[i, given_], w)
        assert int((weights[i] != 0).sum()) == len(given_)
        torch.testing.assert_close(variance[i], q[a[i], a[i]] - w @ q[given_, a[i]])


def test_stationary_covariance_keeps_a_stationary_one_and_the_variances():
    k = FIELD.covariance
    averaged = stationary_covariance(k, (1, 9, 9))
    torch.testing.assert_close(averaged.diagonal(), k.diagonal(), rtol=0.05, atol=0)
    scale = torch.linspace(0.5, 2, 81, dtype=torch.float64)
    scale[3] = 0.0  # a constant pixel
    scaled = k * scale[:, None] * scale
    again = stationary_covariance(scaled, (1, 9, 9))
    assert float(again[3].abs().max()) < 1e-9
    assert float(torch.linalg.eigvalsh(again)[0]) > -1e-9


def test_shrinkage_is_taken_on_a_field_and_refused_on_structure_that_is_not_stationary():
    field = fit(FIELD.sample(1500, 1).flatten(1), (1, 9, 9))
    assert float(field.shrinkage[0, -1]) >= 0.6
    torch.manual_seed(0)
    mixing = torch.randn(81, 81) / 9
    other = fit(torch.randn(1500, 81) @ mixing, (1, 9, 9))
    assert float(other.shrinkage[0, -1]) <= 0.3


def fit(flat, shape):
    problem = make_problem(flat.reshape(-1, *shape), [0.15], [1])
    return fit_linear_chain(problem, problem.a, flat[:1200], flat[1200:], torch.Generator().manual_seed(0))


def normal(mean: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return -0.5 * (value - mean).square() - 0.5 * math.log(2 * math.pi)


def test_a_stack_follows_the_truth_and_ignores_what_is_worse():
    g = torch.Generator().manual_seed(0)
    hint = torch.randn(4000, 1, 1, generator=g)
    value = hint + torch.randn(4000, 1, 1, generator=g)
    right, wrong = normal(hint, value), normal(0 * hint, value)
    values = torch.stack([torch.stack([wrong, right], -1), torch.stack([wrong, wrong - 1], -1)], -2)
    stack = NestedStack(values, [0, 1], LogDensities())  # region 1 holds region 0, but its own models are poor
    assert (stack.main, stack.within[0]) == ({0: 1, 1: 0}, 0.0)
    assert stack.before[1] > 0.95
    assert float(stack.doubt[0]) == 0
    assert 0.005 < float(stack.doubt[1]) < 0.05, "the choice rests on 4,000 images"
    out = stack(values)
    torch.testing.assert_close(out[..., 0], right)
    assert float(out[..., 1].mean()) > float(right.mean()) - 0.01


def test_residuals_mix_to_the_least_square():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3000, 1, 1, generator=g)  # two independent errors: the mean of both is best
    values = torch.stack([a, b], -1)[..., None, :]
    stack = NestedStack(values, [0], Residuals())
    assert stack.within[0] == pytest.approx(0.5, abs=0.05)
    assert float(stack(values).square().mean()) == pytest.approx(0.5, abs=0.05)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), regions=st.integers(1, 4))
def test_a_stack_never_scores_below_its_own_best_model_on_the_images_it_was_fitted_on(seed, regions):
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(200, 2, 1, regions, 2, generator=g)
    out = NestedStack(values, list(range(regions)), LogDensities())(values)
    assert bool((out.mean((0, 1, 2)) >= values.mean((0, 1, 2)).max(-1).values - 1e-5).all())
