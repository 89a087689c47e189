"""Ising chain and strip against enumeration of all states."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewise.errors import PhasewiseError
from phasewise.exact import IsingChain, IsingStrip, regions, windows
from phasewise.exact.ising import _block_kl, _pixel_kl
from phasewise.paths import CosinePath, LinearPath

MODELS = [IsingStrip(2, 3, 0.4), IsingStrip(3, 2, 0.7), IsingChain(5, 0.9), IsingStrip(3, 3, -0.3)]


def enumerate_states(shape: tuple[int, int], beta: float) -> tuple[np.ndarray, np.ndarray]:
    """All states (2^N, N) and their probabilities, bond by bond."""
    height, width = shape
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=height * width)))
    grid = states.reshape(-1, height, width)
    bonds = (grid[:, 1:] * grid[:, :-1]).sum((1, 2)) + (grid[:, :, 1:] * grid[:, :, :-1]).sum((1, 2))
    weight = np.exp(beta * bonds)
    return states, weight / weight.sum()


def plain_means(model, fields: np.ndarray, radius: int | None) -> np.ndarray:
    """(B, N): each spin's posterior mean given the fields in its window, by summing over all states."""
    states, prior = enumerate_states(model.shape, model.beta)
    out = np.empty_like(fields)
    for group in windows(model.shape, radius):
        for i, window in zip(group.pixels.tolist(), group.indices.tolist(), strict=True):
            weight = prior * np.exp(fields[:, window] @ states[:, window].T)
            out[:, i] = weight @ states[:, i] / weight.sum(1)
    return out


def plain_cmi(model, gamma: float, region, nodes: int) -> float:
    """I(A:C|B) by Gauss-Hermite integration over the fields of all pixels and enumeration of all states."""
    states, prior = enumerate_states(model.shape, model.beta)
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    n = states.shape[1]
    noise = np.array(list(itertools.product(z, repeat=n)))
    mass = np.prod(np.array(list(itertools.product(w / w.sum(), repeat=n))), axis=1)
    a, b, c = (r.tolist() for r in (region.a, region.b, region.c))

    def log_z(fields: np.ndarray, seen: list[int]) -> np.ndarray:
        return np.log(np.exp(fields[:, seen] @ states[:, seen].T) @ prior)

    total = 0.0
    for state, weight in zip(states, prior, strict=True):
        f = gamma * state + math.sqrt(gamma) * noise
        score = log_z(f, a + b + c) - log_z(f, b + c) - log_z(f, a + b) + log_z(f, b)
        total += weight * float(mass @ score)
    return total


@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize("radius", [None, 1])
def test_posterior_means_are_sums_over_all_states(model, radius):
    fields = 2 * np.random.default_rng(0).standard_normal((4, model.shape[0] * model.shape[1]))
    means = model.posterior_mean(torch.from_numpy(fields).reshape(4, *model.shape), radius)
    np.testing.assert_allclose(means.reshape(4, -1).numpy(), plain_means(model, fields, radius), atol=1e-12)


def test_block_posterior_is_a_sum_over_all_states():
    model = IsingStrip(3, 3, 0.5)
    states, prior = enumerate_states((3, 3), 0.5)
    fields = np.random.default_rng(1).standard_normal((2, 9))
    block = [1, 2, 4, 5]
    fields[:, block] = 0
    weight = prior * np.exp(fields @ states.T)
    code = ((states[:, block] > 0) @ [8, 4, 2, 1]).astype(int)
    plain = np.stack([weight[:, code == k].sum(1) for k in range(16)], 1)
    fast = model._engine.block_posterior(torch.from_numpy(fields).reshape(2, 3, 3), range(0, 2), range(1, 3))
    np.testing.assert_allclose(fast.numpy(), plain / plain.sum(1, keepdims=True), atol=1e-13)


@pytest.mark.parametrize(
    ("model", "radius", "block", "center", "nodes"),
    [
        (IsingChain(3, 0.8), 1, 1, (0, 0), 32),
        (IsingStrip(2, 2, 0.5), 0, 1, (0, 0), 16),
        (IsingChain(4, 0.8), 1, 2, (0, 0), 16),
        (IsingStrip(4, 1, 0.8), 1, 1, (1, 0), 16),
    ],
)
def test_cmi_is_the_integral_over_all_noise(model, radius, block, center, nodes):
    t = 0.45
    exact = plain_cmi(model, (0.55 / 0.45) ** 2, regions(model.shape, radius, block, center), nodes)
    estimate = model.cmi(t, radius, block, center, n=4000, seed=3)
    assert exact > 0.002
    assert estimate.stderr < 0.2 * exact
    assert abs(estimate.value - exact) < 4 * estimate.stderr
    assert (estimate.n, estimate.unit, estimate.seed) == (4000, "nats", 3)


def test_redraws_of_a_block_agree_with_the_quadrature_of_a_pixel():
    q, p = (torch.tensor([[w, 1 - w]], dtype=torch.float64).expand(4000, 2) for w in (0.7, 0.4))
    for gamma in (0.1, 1.0, 9.0):
        plain = float(_pixel_kl(q[:1], p[:1], gamma))
        drawn = _block_kl(q, p, gamma, 1, np.random.default_rng(2))
        assert abs(float(drawn.mean()) - plain) < 4 * float(drawn.std()) / math.sqrt(4000)
    assert plain == pytest.approx(0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6), abs=2e-3)


def test_clean_information_of_a_chain_is_the_enumerated_one():
    model = IsingChain(5, 0.9)
    states, prior = enumerate_states((1, 5), 0.9)

    def entropy(keep: list[int]) -> float:
        _, member = np.unique(states[:, keep], axis=0, return_inverse=True)
        p = np.bincount(member.reshape(-1), prior)
        return float(-(p * np.log(p)).sum())

    exact = entropy([2]) + entropy([0, 1, 3, 4]) - entropy([0, 1, 2, 3, 4])
    clean = model.cmi(0.0, 0, n=4000)
    assert abs(clean.value - exact) < 4 * clean.stderr
    assert abs(model.cmi(0.0, 1, n=100).value) < 1e-12  # Markov
    assert abs(IsingStrip(6, 5, 0.5).cmi(0.0, 1, n=100).value) < 1e-12
    assert model.cmi(0.5, 1, n=100).value > 1e-3
    assert model.cmi(1.0, 0, n=100).value == pytest.approx(0, abs=1e-12)
    assert model.cmi(0.5, 2, n=100).value == 0  # nothing is left for C


def test_chain_and_strip_of_width_one_agree():
    chain, strip = IsingChain(6, 0.7), IsingStrip(6, 1, 0.7)
    fields = torch.randn(3, 1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for radius in (None, 2):
        means = chain.posterior_mean(fields, radius)
        torch.testing.assert_close(means, strip.posterior_mean(fields.transpose(1, 2), radius).transpose(1, 2))
    assert chain.cmi(0.4, 1, n=64) == strip.cmi(0.4, 1, n=64)


def test_chain_samples_have_correlations_tanh_beta_to_the_distance():
    n = 20000
    x = IsingChain(8, 0.6).sample(n, seed=5)
    assert x.shape == (n, 1, 1, 8)
    assert set(x.unique().tolist()) == {-1.0, 1.0}
    spins = x[:, 0, 0]
    for i, j in ((0, 0), (0, 1), (3, 5), (0, 7)):
        expected = math.tanh(0.6) ** (j - i)
        assert (
            abs(float((spins[:, i] * spins[:, j]).mean()) - expected) < 4.5 * math.sqrt((1 - expected**2) / n) + 1e-12
        )
    assert torch.equal(IsingChain(8, 0.6).sample(9, seed=5), x[:9])


def test_strip_samples_have_the_enumerated_frequencies():
    n = 20000
    x = IsingStrip(3, 2, 0.5).sample(n, seed=6)
    _, prior = enumerate_states((3, 2), 0.5)
    code = (x.reshape(n, -1) > 0).long() @ (2 ** torch.arange(5, -1, -1))
    counts = torch.bincount(code, minlength=64).double().numpy()
    chi2 = float(((counts - n * prior) ** 2 / (n * prior)).sum())
    assert abs(chi2 - 63) < 4.5 * math.sqrt(2 * 63)


@pytest.mark.parametrize("model", [IsingChain(12, 0.8), IsingStrip(5, 4, 0.4)], ids=repr)
@pytest.mark.parametrize("radius", [None, 1])
def test_mmse_is_the_sampled_loss_of_the_denoiser(model, radius):
    n = 2000
    x = model.sample(n, seed=7)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(8))
    loss = ((model.denoiser(radius)(LinearPath().add_noise(x, z, 0.5), 0.5) - x) ** 2).sum((1, 2, 3)).double()
    exact = model.mmse(0.5, radius, n=n, seed=9)
    noise = math.hypot(float(loss.std()) / math.sqrt(n), exact.stderr)
    assert abs(float(loss.mean()) - exact.value) < 4 * noise


def test_gap_is_the_difference_of_errors():
    model = IsingStrip(5, 4, 0.4)
    gap = model.denoising_gap(0.5, 1, n=2000, seed=1)
    local, whole = model.mmse(0.5, 1, n=2000, seed=1), model.mmse(0.5, n=2000, seed=1)
    assert gap.value > 5 * gap.stderr
    assert abs(local.value - whole.value - gap.value) < 4 * math.hypot(gap.stderr, local.stderr)
    assert model.denoising_gap(0.5, 5, n=10).value == pytest.approx(0, abs=1e-20)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.2, 0.95), st.floats(0.1, 1.0), st.integers(0, 1000))
def test_information_falls_with_radius(t, beta, seed):
    cmi = [IsingChain(9, beta).cmi(t, r, n=400, seed=seed) for r in (0, 1, 2, 3, 4)]
    for near, far in itertools.pairwise(cmi):
        assert near.value >= far.value - 4 * math.hypot(near.stderr, far.stderr) - 1e-12
        assert far.value > -1e-12  # every term is a KL divergence
    assert cmi[-1].value == 0


def test_free_spins_are_denoised_one_by_one():
    model = IsingStrip(3, 3, 0.0)
    fields = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(10))
    torch.testing.assert_close(model.posterior_mean(fields), fields.tanh())
    assert model.cmi(0.5, 0, n=50).value == pytest.approx(0, abs=1e-12)


def test_denoiser_with_a_time_per_image_little_noise_and_another_path():
    model = IsingStrip(6, 5, 1.5)
    x = model.sample(4, seed=11)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(12))
    times = torch.tensor([0.0, 1e-3, 0.4, 1.0])
    x_t = LinearPath().add_noise(x, z, times)
    for radius in (None, 1):
        denoiser = model.denoiser(radius)
        together = denoiser(x_t, times)
        assert together.dtype == torch.float32
        assert torch.equal(together[:2], x[:2])
        torch.testing.assert_close(together[2:3], denoiser(x_t[2:3], float(times[2])))
        assert float(together[3].abs().max()) < 1e-12
    u = CosinePath().t_of_log_snr(LinearPath().log_snr(0.4))
    scaled = x_t[2:3] * float(CosinePath().alpha(u)) / 0.6
    torch.testing.assert_close(model.denoiser(path=CosinePath())(scaled, float(u)), model.denoiser()(x_t[2:3], 0.4))


def test_windowed_jacobian_is_exactly_zero_outside_the_window():
    x = torch.randn(1, 1, 5, 4, generator=torch.Generator().manual_seed(13), requires_grad=True)
    (grad,) = torch.autograd.grad(IsingStrip(5, 4, 0.4).denoiser(1)(x, 0.6)[0, 0, 3, 0], x)
    inside = torch.zeros(5, 4, dtype=torch.bool)
    inside[2:5, 0:2] = True
    assert (grad[0, 0][~inside] == 0).all()
    assert (grad[0, 0][inside] != 0).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IsingStrip(4, 11, 0.4), "width"),
        (lambda: IsingChain(0, 0.4), "length must be"),
        (lambda: IsingChain(5, math.nan), "beta"),
        (lambda: IsingStrip(8, 8, 0.4).cmi(0.5, 1, block=3), "at most 4"),
        (lambda: IsingChain(5, 0.4).cmi(2.0, 1), "t must lie"),
        (lambda: IsingChain(5, 0.4).cmi(0.5, 1, n=0), "n must be"),
        (lambda: IsingChain(5, 0.4).mmse(0.5, -1), "radius"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(PhasewiseError, match=words):
        make()
