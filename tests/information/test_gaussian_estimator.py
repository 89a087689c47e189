"""The Gaussian estimator against closed forms, and where it is known to fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField, TwoMode
from phasewise.exact.gaussian import gaussian_cmi
from phasewise.information import make_problem
from phasewise.information.gaussian import Fit, GaussianEstimator, _scores
from phasewise.results import Estimate

FIELD = GaussianField((6, 6), 0.3)


def estimates(images: torch.Tensor, times: list[float], radii: list[int], block: int = 1, seed: int = 0, **options):
    problem = make_problem(images, times, radii, block=block, seed=seed)
    cells = [(i, j) for i in range(len(times)) for j in range(len(radii))]
    return dict(GaussianEstimator(**options).estimate(problem, cells))


@pytest.mark.parametrize("shrinkage", [None, "ledoit-wolf", 0.001])
def test_gaussian_field_is_read_exactly(shrinkage: str | float | None) -> None:
    times, radii = [0.3, 0.5, 0.7], [0, 1]
    got = estimates(FIELD.sample(20_000, 1), times, radii, block=2, shrinkage=shrinkage)
    assert len(got) == 6
    for (i, j), estimate in got.items():
        truth = FIELD.cmi(times[i], radii[j], block=2)
        assert estimate.n == 20_000
        assert estimate.value == pytest.approx(truth, abs=3 * estimate.stderr + 0.003)
        assert 0.00005 < estimate.stderr < 0.008
    assert got[1, 1].value > 10 * got[1, 1].stderr


def test_mean_and_channels_are_taken_care_of() -> None:
    plain = FIELD.sample(6000, 1).reshape(6000, 2, 3, 6) + torch.linspace(-5, 5, 36).reshape(2, 3, 6)
    got = estimates(plain, [0.5], [1])[0, 0]
    geometry = make_problem(plain, [0.5], [1]).geometry
    truth = gaussian_cmi(FIELD.noisy_covariance(0.5), geometry.a(), geometry.b(1), geometry.c(1))
    assert got.value == pytest.approx(truth, abs=3 * got.stderr + 0.004)


def test_noise_is_averaged_as_many_draws_would() -> None:
    problem = make_problem(FIELD.sample(20, 1), [0.4], [1], block=2)
    fit = Fit(torch.full((36,), 0.1, dtype=torch.float64), FIELD.covariance + 0.1 * torch.eye(36), torch.arange(3))
    closed = _scores(problem, fit, 0, None) - _scores(problem, fit, 0, 1)
    covariance = 0.36 * fit.covariance + 0.16 * torch.eye(36, dtype=torch.float64)
    noise = torch.randn(20_000, 1, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = 0.6 * (problem.flat[:3].double() - fit.mean) + 0.4 * noise
    a, near, rest = problem.a, problem.geometry.b(1), problem.geometry.b(None)

    def log_density(entries: torch.Tensor) -> torch.Tensor:
        zero = torch.zeros(len(entries), dtype=torch.float64)
        return MultivariateNormal(zero, covariance[entries][:, entries]).log_prob(x[..., entries])

    draws = log_density(torch.cat([a, rest])) - log_density(rest)
    draws = draws - log_density(torch.cat([a, near])) + log_density(near)
    assert torch.allclose(closed, draws.mean(0), atol=4 * float(draws.std(0).max()) / 20_000**0.5)


def test_errors_match_the_scatter_over_image_sets() -> None:
    truth = FIELD.cmi(0.5, 1, block=2)
    got = [estimates(FIELD.sample(3000, s), [0.5], [1], block=2, seed=s, shrinkage=None)[0, 0] for s in range(30)]
    z = [(e.value - truth) / e.stderr for e in got]
    assert 0.6 < np.std(z) < 1.4


def test_few_images_are_read_below_the_truth_and_shrinkage_helps() -> None:
    truth = FIELD.cmi(0.3, 0, block=2)
    images = FIELD.sample(100, 1)
    plain, shrunk = (estimates(images, [0.3], [0], block=2, shrinkage=s)[0, 0] for s in (None, "ledoit-wolf"))
    assert plain.value < shrunk.value < truth


def test_second_moments_are_all_it_sees() -> None:
    model = TwoMode((1, 5))
    got: Estimate = estimates(model.sample(20_000, 1), [0.5], [1])[0, 0]
    noisy = 0.25 * torch.ones(5, 5, dtype=torch.float64) + 0.25 * torch.eye(5, dtype=torch.float64)
    seen = gaussian_cmi(noisy, torch.tensor([2]), torch.tensor([1, 3]), torch.tensor([0, 4]))
    assert got.value == pytest.approx(seen, abs=3 * got.stderr + 0.001)
    assert abs(seen - model.cmi(0.5, 1)) > 5 * got.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [({"shrinkage": "oas"}, "shrinkage"), ({"shrinkage": 1.5}, "shrinkage"), ({"folds": 1}, "folds")],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(PhasewiseError, match=message):
        GaussianEstimator(**options)


def test_singular_covariance_names_the_cell_and_the_mend() -> None:
    images = FIELD.sample(60, 1)
    images[:, :, :, 1] = images[:, :, :, 0]  # a column twice: the clean covariance is singular
    with pytest.raises(PhasewiseError, match=r"gaussian at t = 1e-12, every r .* singular .*larger t or shrinkage"):
        estimates(images, [1e-12], [0], shrinkage=None)
    problem = make_problem(images, [1e-12], [2])
    fit = Fit(torch.zeros(36, dtype=torch.float64), torch.ones(36, 36, dtype=torch.float64), torch.arange(3))
    with pytest.raises(PhasewiseError, match="t = 1e-12, r = 2: "):
        _scores(problem, fit, 0, 2)
    assert estimates(images, [1e-12], [0], shrinkage=0.01)[0, 0].n == 60


def test_folds_are_a_whole_number() -> None:
    assert GaussianEstimator(folds=4.0).options() == GaussianEstimator(folds=4).options()
    for folds in (True, 2.5, "4"):
        with pytest.raises(PhasewiseError, match="folds must be a whole number >= 2"):
            GaussianEstimator(folds=folds)


def test_more_folds_than_images_allow_are_refused() -> None:
    with pytest.raises(PhasewiseError, match="at most 10"):
        estimates(FIELD.sample(20, 1), [0.5], [1], folds=11)
