"""One Brownian path per sample: its law on every grid, and samples that converge path by path."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampled import hybrid
from torch import Tensor

from phasewise.denoisers import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import CosinePath, LinearPath, NoisePath, VarianceExplodingPath, as_time
from phasewise.sampling import sample, time_grid
from phasewise.sampling.brownian import path_weights, step_weights
from phasewise.sampling.noise import PathNoise

CPU = torch.device("cpu")
RATIOS = st.floats(1e-6, 1e7)


def covariance(one: dict[int, float], other: dict[int, float]) -> float:
    return math.fsum(weight * other.get(k, 0.0) for k, weight in one.items())


@given(RATIOS, RATIOS)
def test_it_is_a_brownian_motion(a: float, b: float) -> None:
    found = covariance(path_weights(a), path_weights(b))
    assert found == pytest.approx(min(a, b), rel=2e-5)


def test_it_starts_at_zero() -> None:
    assert path_weights(0.0) == {} or all(w == 0 for w in path_weights(0.0).values())


def test_steps_are_independent_and_a_long_one_is_made_of_the_short_ones_in_it() -> None:
    path = LinearPath()
    gammas = [float(path.gamma(t)) for t in time_grid(40)]
    short = [step_weights(a, b) for a, b in pairwise(gammas)]
    assert all(covariance(w, w) == pytest.approx(1) for w in short)
    # what a path that goes on straight below the finest midpoints leaves between neighbours
    assert max(abs(covariance(a, b)) for a, b in pairwise(short)) < 1e-3
    source = PathNoise(2, (1, 3, 3), 5, 0, CPU)
    parts = sum(math.sqrt(b - a) * source((a, b)) for a, b in pairwise(gammas))
    whole = math.sqrt(gammas[-1] - gammas[0]) * source((gammas[0], gammas[-1]))
    assert torch.allclose(parts, whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max()))


def test_rows_have_paths_of_their_own_whatever_the_batch() -> None:
    step = (0.2, 3.0)
    rows = PathNoise(6, (1, 4, 4), 1, 0, CPU)(step)
    assert torch.equal(rows[2:5], PathNoise(3, (1, 4, 4), 1, 2, CPU)(step))
    assert not torch.equal(rows, PathNoise(6, (1, 4, 4), 2, 0, CPU)(step))
    assert len({tuple(row.flatten().tolist()) for row in rows}) == 6
    many = PathNoise(400, (1, 5, 5), 0, 0, CPU)
    values = torch.stack([many((0.0, 0.1)), many((0.1, 5.0)), many((5.0, 300.0))]).flatten(1)
    assert torch.allclose(torch.cov(values), torch.eye(3), atol=5 / math.sqrt(values.shape[1]))
    assert torch.equal(
        rows, PathNoise(6, (1, 4, 4), 1, 0, CPU).path.fill(torch.empty(6, 1, 4, 4), step_weights(*step), 3)
    )


class Normal(Denoiser):
    """Pixels that are independent and normal, of mean .5 and variance .25; it hides its flow."""

    def __init__(self, path: NoisePath | None = None) -> None:
        super().__init__((1, 16, 16), path)

    def forward(self, x_t: Tensor, t: float | Tensor, cond: Tensor | None = None) -> Tensor:
        s = as_time(t, x_t)
        alpha, sigma = self.path.alpha(s), self.path.sigma(s)
        return 0.5 + alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (x_t - alpha * 0.5)


def drawn(path: NoisePath, solver: str, steps: int, noise: str = "path") -> Tensor:
    start = 0.9 if isinstance(path, VarianceExplodingPath) else 1.0
    grid = time_grid(steps, path=path, t_start=start, t_min=0.3, spacing="log_snr")
    return sample(Normal(path), 4, times=grid, solver=solver, noise=noise)


@pytest.mark.parametrize("solver", ["ancestral", "sde_dpmpp_2m"])
@pytest.mark.parametrize("path", [LinearPath(), CosinePath(), VarianceExplodingPath()], ids=lambda p: p.name)
def test_halving_the_steps_converges_path_by_path(path: NoisePath, solver: str) -> None:
    limit = drawn(path, solver, 128)
    errors = [float((drawn(path, solver, steps) - limit).square().mean().sqrt()) for steps in (8, 16, 32)]
    spread = float(limit.std())
    assert errors[0] < 0.5 * spread
    # order 1: a half, but for the error of the limit itself
    assert all(finer < 0.7 * coarser for coarser, finer in pairwise(errors))
    assert errors[-1] < 0.12 * spread
    other = drawn(path, solver, 32, "fresh")
    assert float((other - drawn(path, solver, 128, "fresh")).square().mean().sqrt()) > 0.3 * spread


@pytest.mark.parametrize("solver", ["ancestral", "sde_dpmpp_2m", "heun_churn"])
def test_marginals_stay(solver: str) -> None:
    fresh, path = (sample(Normal(), 60, steps=12, solver=solver, noise=noise) for noise in ("fresh", "path"))
    error = 4 / math.sqrt(fresh.numel())
    assert abs(float(path.mean() - fresh.mean())) < error
    assert abs(float(path.std() - fresh.std())) < error


def test_a_hybrid_takes_it_and_an_unknown_kind_is_refused() -> None:
    denoiser = hybrid("sde_dpmpp_2m")
    assert torch.equal(sample(denoiser, 3, noise="path"), sample(denoiser, 3, noise="path"))
    assert not torch.equal(sample(denoiser, 3, noise="path"), sample(denoiser, 3))
    with pytest.raises(PhasewiseError, match="fresh"):
        sample(denoiser, 3, noise="frehs")
