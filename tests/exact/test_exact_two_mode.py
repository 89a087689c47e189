"""The two-mode distribution against adaptive quadrature, Monte Carlo, and its limits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from phasewise.errors import PhasewiseError
from phasewise.exact import TwoMode
from phasewise.exact.base import regions
from phasewise.exact.two_mode import bit_error, equivocation, voted
from phasewise.paths import CosinePath, LinearPath


def over_noise(kappa: float, f) -> float:
    """E f(h) for h ~ N(kappa, kappa), adaptively."""

    def integrand(z: float) -> float:
        return f(kappa + z * math.sqrt(kappa)) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    return quad(integrand, -30, 30, limit=500, points=[0, -math.sqrt(kappa)], epsabs=0, epsrel=1e-12)[0]


@pytest.mark.parametrize("kappa", [1e-6, 0.1, 1.0, 10.0, 100.0])
def test_one_bit_integrals(kappa):
    assert equivocation(kappa) == pytest.approx(over_noise(kappa, lambda h: np.logaddexp(0, -2 * h)), rel=1e-12)
    assert bit_error(kappa) == pytest.approx(over_noise(kappa, lambda h: (1 - np.tanh(h)) ** 2), rel=1e-12)


def test_limits():
    assert equivocation(0) == pytest.approx(math.log(2))
    assert bit_error(0) == 1
    assert equivocation(math.inf) == bit_error(math.inf) == 0
    model = TwoMode((6, 5), amplitude=0.7)
    assert model.mmse(0) == 0
    assert model.mmse(1, 1) == pytest.approx(30 * 0.49)
    assert model.cmi(0, 1) == model.cmi(1, 1) == 0
    assert model.cmi(0.5, 5) == 0


def test_cmi_is_the_monte_carlo_average_of_log_scores():
    model, t, n = TwoMode((3, 3)), 0.6, 200_000
    gamma = ((1 - t) / t) ** 2
    rng = np.random.default_rng(0)
    # half log-likelihood ratios of A = one pixel, its ring B of radius 0 (empty) and the rest, given s = +1
    h = {k: rng.normal(m * gamma, math.sqrt(m * gamma), n) for k, m in (("a", 1), ("c", 8))}
    known = np.logaddexp(0, -2 * h["c"])
    both = np.logaddexp(0, -2 * (h["a"] + h["c"]))
    alone = np.logaddexp(0, -2 * h["a"])
    terms = (math.log(2) - alone) - (known - both)
    assert abs(terms.mean() - model.cmi(t, 0)) < 5 * terms.std() / math.sqrt(n)
    assert model.cmi(t, 0) > 0.05


@pytest.mark.parametrize("radius", [None, 1])
def test_mmse_is_the_sampled_loss(radius):
    model, n = TwoMode((5, 6), amplitude=0.5), 4000
    x = model.sample(n, seed=1)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    loss = ((model.denoiser(radius)(LinearPath().add_noise(x, z, 0.6), 0.6) - x) ** 2).sum((1, 2, 3)).double()
    assert abs(float(loss.mean()) - model.mmse(0.6, radius)) < 5 * float(loss.std()) / math.sqrt(n)


def test_denoiser_is_the_posterior_mean_of_the_two_modes():
    model = TwoMode((4, 4), amplitude=0.8)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for t in (0.3, 0.7):
        window = x[:, 0, 0:3, 1:4]  # N_1 of pixel (1, 2)
        log_like = [-((window - (1 - t) * s * 0.8) ** 2).sum((1, 2)) / (2 * t**2) for s in (1, -1)]
        weight = torch.softmax(torch.stack(log_like), 0)
        torch.testing.assert_close(model.denoiser(1)(x, t)[:, 0, 1, 2], 0.8 * (weight[0] - weight[1]))
    both = model.denoiser(1)(x, torch.tensor([0.0, 1.0]))
    assert (both[0].abs() == 0.8).all()
    assert (both[1] == 0).all()


def test_windowed_jacobian_is_exactly_zero_outside_the_window():
    x = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(4), requires_grad=True)
    (grad,) = torch.autograd.grad(TwoMode((6, 6)).denoiser(1)(x, 0.7)[0, 0, 0, 2], x)
    inside = torch.zeros(6, 6, dtype=torch.bool)
    inside[0:2, 1:4] = True
    assert (grad[0, 0][~inside] == 0).all()
    assert (grad[0, 0][inside] != 0).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 0.98), st.floats(0.1, 2.0))
def test_information_and_errors_are_ordered_by_radius(t, amplitude):
    model = TwoMode((9, 9), amplitude)
    cmi = [model.cmi(t, r) for r in range(5)]
    assert all(a >= b - 1e-14 for a, b in itertools.pairwise(cmi))
    assert cmi[-1] == 0
    assert -1e-14 <= cmi[0] <= math.log(2)
    errors = [model.mmse(t, r) for r in (0, 1, 2, 8)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(errors))
    assert errors[-1] == pytest.approx(model.mmse(t), rel=1e-12)


def test_path_kl_is_the_integral_of_the_gap():
    model, path = TwoMode((5, 5)), LinearPath()

    def integrand(log_snr: float) -> float:
        return 0.5 * model.denoising_gap(float(path.t_of_log_snr(log_snr)), 1) * math.exp(log_snr)

    integral, _ = quad(integrand, *(float(path.log_snr(t)) for t in (0.9, 0.2)), epsabs=1e-10, epsrel=1e-10)
    assert model.path_kl(1, 0.2, 0.9) == pytest.approx(integral, rel=1e-8)
    # over the whole path every pixel pays for finding s alone: log 2 (sum_i 1/n_i - 1), n_i pixels in a window
    sizes = np.convolve(np.ones(5), np.ones(3), mode="same")
    total = math.log(2) * ((1 / np.outer(sizes, sizes)).sum() - 1)
    assert model.path_kl(1, 0, 1) == pytest.approx(total, rel=1e-12)


def test_the_window_between_local_and_global_widens_with_the_image():
    """The noisiest SNR at which the global denoiser beats the local one falls as 1/N: by log 4 per doubled side."""
    path, grid = LinearPath(), np.arange(-9, 0, 0.25)

    def noisiest(side: int) -> float:
        model = TwoMode((side, side))
        gaps = [model.denoising_gap(float(path.t_of_log_snr(x)), 1) / side**2 for x in grid]
        return float(grid[np.array(gaps) > 0.1][0])

    edges = [noisiest(side) for side in (8, 16, 32)]
    np.testing.assert_allclose(np.diff(edges), -math.log(4), atol=0.4)


def test_only_the_snr_matters_and_samples_are_two_constants():
    model, path = TwoMode((6, 6), 1.5), CosinePath()
    u = float(path.t_of_log_snr(LinearPath().log_snr(0.7)))
    assert model.cmi(u, 1, path=path) == pytest.approx(model.cmi(0.7, 1), rel=1e-9)
    x = model.sample(2000, seed=5)
    assert x.shape == (2000, 1, 6, 6)
    assert (x == x[:, :, :1, :1]).all()
    assert set(x.unique().tolist()) == {-1.5, 1.5}
    assert abs(float(x.mean())) < 5 * 1.5 / math.sqrt(2000)
    assert torch.equal(model.sample(9, seed=5), x[:9])


def test_bad_input_is_refused():
    with pytest.raises(PhasewiseError, match="amplitude"):
        TwoMode((4, 4), amplitude=0)
    with pytest.raises(PhasewiseError, match="t must lie"):
        TwoMode((4, 4)).cmi(-0.1, 1)
    with pytest.raises(PhasewiseError, match="kappa"):
        equivocation(math.nan)


def brute_cmi(model: TwoMode, t: float, radius: int, n: int) -> tuple[float, float]:
    """E log p(a|b,c) - log p(a|b) over noisy samples, from the sum over the shared sign alone."""
    region = regions(model.shape, radius, 1, None)
    x = model.sample(n, 5).double().flatten(1) * (1 - t)
    x = x + t * torch.randn(x.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    carrier = model.carriers.flatten()

    def log_p(pixels: torch.Tensor) -> torch.Tensor:
        """Log density of the carriers among these pixels, up to what does not depend on the sign."""
        h = (1 - t) * model.amplitude / t**2 * x[:, pixels[carrier[pixels]]].sum(1)
        return torch.logaddexp(h, -h)

    a, b, c = region.a, region.b, region.c
    terms = log_p(torch.cat([a, b, c])) - log_p(torch.cat([b, c])) - log_p(torch.cat([a, b])) + log_p(b)
    return float(terms.mean()), float(terms.std()) / math.sqrt(n)


@pytest.mark.parametrize(("t", "radius"), [(0.3, 1), (0.6, 1), (0.6, 3), (0.8, 2)])
def test_carriers_share_what_brute_force_says(t, radius):
    model = TwoMode.far_copy((9, 8), 1.3)
    value, stderr = brute_cmi(model, t, radius, 20_000)
    assert abs(model.cmi(t, radius) - value) < 5 * stderr + 1e-9
    assert model.cmi(1e-3, 1) == pytest.approx(math.log(2))
    assert model.cmi(0.5, 1, center=(1, 1)) == 0, "a pixel of its own sign shares nothing"


@pytest.mark.parametrize("radius", [None, 1, 3])
def test_errors_with_carriers_are_those_of_the_exact_denoiser(radius):
    model, t = TwoMode.far_copy((7, 6), 0.8), 0.55
    x = model.sample(20_000, 1)
    noisy = (1 - t) * x + t * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    errors = (model.denoiser(radius)(noisy, t) - x).square().sum((1, 2, 3))
    assert abs(float(errors.mean()) - model.mmse(t, radius)) < 4 * float(errors.std()) / math.sqrt(len(errors))


def test_all_pixels_carry_by_default():
    every = TwoMode((4, 5), carriers=torch.ones(4, 5, dtype=torch.bool))
    assert every.cmi(0.6, 1) == TwoMode((4, 5)).cmi(0.6, 1)
    assert torch.equal(every.sample(9, 3), TwoMode((4, 5)).sample(9, 3))
    assert every.path_kl(1, 0.2, 0.9) == TwoMode((4, 5)).path_kl(1, 0.2, 0.9)
    with pytest.raises(PhasewiseError, match="carriers are yes or no for each pixel"):
        TwoMode((4, 5), carriers=torch.ones(4, 5))


def seen_by(near: float, far: float, more: float, n: int = 400_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws of the posterior mean of s = 1 given h of ``near`` and of ``more`` and the vote, and what it says of s."""
    z = torch.randn(3, n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    h, unseen, extra = (k + math.sqrt(k) * v for k, v in zip((near, far, more), z, strict=True))
    vote = (h + unseen).sign()
    normal = torch.distributions.Normal(0.0, 1.0)
    # by Bayes over the two signs, from the chances of the vote given h and s alone
    chance = torch.stack(
        [normal.cdf(vote * (h + s * far) / math.sqrt(far)) * torch.exp(s * (h + extra)) for s in (1, -1)]
    )
    right = chance[0] / chance.sum(0)
    return -right.log(), (2 - 2 * right) ** 2


@pytest.mark.parametrize(("near", "far", "more"), [(0.5, 1.0, 0.0), (2.0, 0.3, 0.7), (0.1, 8.0, 0.4), (0.3, 0.2, 0.0)])
def test_what_a_vote_leaves_is_that_of_draws(near, far, more):
    for value, draws in zip(voted(near, far, more), seen_by(near, far, more), strict=True):
        assert abs(value - float(draws.mean())) < 4 * float(draws.std()) / math.sqrt(len(draws))


def test_a_vote_says_less_than_its_voters_and_more_than_nothing():
    for near, far in ((0.2, 0.5), (1.0, 30.0), (5.0, 0.01)):
        for with_vote, alone, all_of_it in zip(
            voted(near, far), (equivocation(near), bit_error(near)), (equivocation(near + far), bit_error(near + far)),
            strict=True,
        ):  # fmt: skip
            assert all_of_it - 1e-9 < with_vote < alone
    assert voted(0.7, 0.0) == (equivocation(0.7), bit_error(0.7))
    # a single bit that nobody sees: the chance that the vote is wrong, as an entropy
    wrong = 0.5 * math.erfc(math.sqrt(2.0 / 2))
    assert voted(0.0, 2.0)[0] == pytest.approx(-(wrong * math.log(wrong) + (1 - wrong) * math.log(1 - wrong)), rel=1e-6)
    assert voted(0.3, math.inf) == (0, 0)


@pytest.mark.parametrize("t", [0.3, 0.6, 0.8, 0.95])
def test_a_window_told_the_mode_lacks_nothing_and_told_the_vote_little(t):
    model = TwoMode((9, 9))
    assert model.cmi(t, 1, given="mode") == model.mmse(t, 1, given="mode") == 0
    assert 0 <= model.cmi(t, 1, given="vote") <= model.cmi(t, 1)
    assert model.mmse(t) - 1e-9 <= model.mmse(t, 1, given="vote") <= model.mmse(t, 1)
    with pytest.raises(PhasewiseError, match="given"):
        model.cmi(t, 1, given="class")
