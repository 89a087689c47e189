"""Exact laws of samples against dense matrices and the sampler itself; searches that keep what they promise."""

from functools import cache

import numpy as np
import pytest
import torch

import phasewise as pw
from phasewise.exact import GaussianField, GaussianModel, TorusField
from phasewise.sampling import integrate
from studies.resolution import costs
from studies.resolution.law import MEASURES, PER_UNIT, Law, candidates
from studies.resolution.search import Search

SIDE, MASS = 8, 0.3
MEMBERS = (None, 1, 2, 3)
PLACES = (0, 40, 70, 90, 120, 150)
WHO = (0, 2, 0, 3, 1, 1)
PRICES = (10.0, 1.0, 1.5, 2.0)


@cache
def law():
    return Law(TorusField(SIDE, MASS), MEMBERS)


@cache
def search():
    return Search(law(), "frechet")


def dense_covariance(solver):
    """(N, N) covariance of the samples: what the sampler itself, with the dense denoisers, makes of each unit source of
    noise, at the start and at every step."""
    model = GaussianModel(GaussianField((SIDE, SIDE), mass=MASS).covariance, (SIDE, SIDE), wrap=True)
    pixels, times = SIDE**2, tuple(candidates()[p] for p in PLACES)
    schedule = pw.HybridSchedule(times, tuple(f"m{m}" for m in WHO), solver=solver)
    hybrid = pw.HybridDenoiser({f"m{m}": model.denoiser(r) for m, r in enumerate(MEMBERS)}, schedule)
    sources = torch.eye(pixels * len(times), dtype=torch.float64).reshape(-1, len(times), 1, SIDE, SIDE)
    draws = iter(sources[:, 1:].unbind(1))
    out = integrate(hybrid, sources[:, 0], times, solver, noise=lambda: next(draws)).flatten(1)
    return out.T @ out


@pytest.mark.parametrize("solver", ["exp_ab2", "ddim", "dpmpp_2m", "sde_dpmpp_2m", "ancestral"])
def test_the_law_of_the_samples_is_that_of_dense_matrices(solver):
    covariance = dense_covariance(solver)
    shift = covariance[0].reshape(SIDE, SIDE)  # translation: one row says all
    spectrum = torch.fft.fft2(shift).real
    rows, cols = (law_field().waves * SIDE / (2 * torch.pi)).round().long().unbind(1)
    found = law().spectra(solver, np.array([PLACES]), np.array([WHO]))[0]
    np.testing.assert_allclose(found, spectrum[rows, cols].numpy(), rtol=0, atol=1e-8)
    # and the two distances, by eigenvalues of the whole covariance
    field = GaussianField((SIDE, SIDE), mass=MASS).covariance
    product = torch.linalg.eigvals(torch.linalg.solve(covariance, field)).real
    kl = float((product - 1 - product.log()).sum() / 2 / SIDE**2)
    root = torch.linalg.eigvals(covariance @ field).real.clamp(min=0).sqrt().sum()
    frechet = float((covariance.trace() + field.trace() - 2 * root) / SIDE**2)
    for measure, value in (("kl", kl), ("frechet", frechet)):
        error = law().error(measure, solver, np.array([PLACES]), np.array([WHO]))[0]
        assert error == pytest.approx(value, abs=1e-8)


def law_field():
    return TorusField(SIDE, MASS)


def test_fewer_modes_stand_for_all():
    field = TorusField(64, 0.1)
    few, all_ = Law(field, (None, 3), 3), Law(field, (None, 3))
    assert few.count.sum() == all_.count.sum() == 64**2
    assert len(few.count) < len(all_.count) / 2
    plan = np.array([PLACES]), np.array([[0, 0, 0, 1, 1, 1]])
    for measure in MEASURES:
        assert few.error(measure, "exp_ab2", *plan)[0] == pytest.approx(
            all_.error(measure, "exp_ab2", *plan)[0], rel=0.05
        )


@pytest.mark.parametrize("solver", ["exp_ab2", "sde_dpmpp_2m"])
def test_more_steps_lose_less_and_no_single_move_helps(solver):
    plans = [search().global_only(solver, steps) for steps in (2, 3, 4, 5)]
    assert all(b.error < a.error for a, b in zip(plans, plans[1:], strict=False))
    best = plans[-1]
    assert search().seen(best).error == pytest.approx(best.error)
    for k in range(1, 5):
        for by in (-1, 1):
            times = list(best.times)
            times[k] += by
            assert search().errors(solver, [times], [best.members])[0] >= best.error * (1 - 1e-4)


def test_a_hybrid_is_cheaper_and_within_its_bound():
    start = search().global_only("exp_ab2", 5)
    bound = 1.05 * start.error
    hybrid = search().cheapened(start, PRICES, bound)
    assert search().seen(hybrid).error == pytest.approx(hybrid.error)
    assert hybrid.error <= bound
    assert hybrid.cost(PRICES) < start.cost(PRICES) == 40
    assert hybrid.times[0] == 0  # the start is never moved, and free


def test_nothing_is_given_away_where_nothing_is_cheaper():
    start = search().global_only("exp_ab2", 4)
    assert search().cheapened(start, (1.0, 1.0, 2.0, 3.0), 2 * start.error).cost((1.0, 1.0, 2.0, 3.0)) == 3


def test_candidates_descend_from_the_start():
    times = candidates()
    assert times[0] == 1.0
    assert all(b < a for a, b in zip(times, times[1:], strict=False))
    assert len(times) == 24 * PER_UNIT + 2


def test_the_transformer_is_counted_where_it_cannot_be_run(monkeypatch):
    counted = costs.transformer_flops(48)
    monkeypatch.setattr(costs, "COUNTED", (8, 16, 32))
    costs.transformer_flops.cache_clear()
    assert costs.transformer_flops(48) == pytest.approx(counted, rel=1e-12)
    costs.transformer_flops.cache_clear()


def test_a_window_of_attention_is_priced_by_what_it_reaches():
    narrow, wide, whole = costs.windowed_flops(12, 64), costs.windowed_flops(16, 64), costs.transformer_flops(64)
    assert narrow < wide < whole
    assert costs.windowed_flops(13, 64) == narrow
