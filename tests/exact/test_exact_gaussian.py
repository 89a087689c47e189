"""Gaussian fields: reference numbers, closed forms against slow plain twins, laws of information."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField, GaussianModel, gaussian_cmi, regions, windows
from phasewise.paths import CosinePath, LinearPath, VarianceExplodingPath

SMALL = (5, 4)


@functools.cache
def light_field() -> GaussianField:
    return GaussianField((28, 28), mass=0.03)


def random_model(seed: int, shape: tuple[int, int] = SMALL) -> GaussianModel:
    rng = np.random.default_rng(seed)
    n = shape[0] * shape[1]
    root = rng.standard_normal((n, n + 2)) / math.sqrt(n)
    return GaussianModel(torch.from_numpy(root @ root.T), shape, mean=torch.from_numpy(rng.standard_normal(n)))


def plain_gain(model: GaussianModel, t: float, i: int, window: list[int]) -> np.ndarray:
    """alpha k^T K_t^{-1} on one window of the linear path, written out with numpy."""
    k = model.covariance.numpy()
    k_t = (1 - t) ** 2 * k + t**2 * np.eye(len(k))
    return (1 - t) * k[i, window] @ np.linalg.inv(k_t[np.ix_(window, window)])


def plain_denoise(model: GaussianModel, x: np.ndarray, t: float, radius: int | None) -> np.ndarray:
    out, mean = np.empty_like(x), model.mean.numpy()
    for group in windows(model.shape, radius, model.wrap):
        for i, window in zip(group.pixels.tolist(), group.indices.tolist(), strict=True):
            out[:, i] = mean[i] + (x - (1 - t) * mean)[:, window] @ plain_gain(model, t, i, window)
    return out


def test_reference_numbers_of_the_block():
    field = light_field()
    for t, expected in ((0.5, [0.106, 0.021, 0.004, 0.001]), (0.8, [0.123, 0.067, 0.038, 0.023])):
        assert [round(field.cmi(t, r, block=4), 3) for r in (1, 2, 3, 4)] == expected


def test_single_pixel_cmi_is_small():
    field = GaussianField((28, 28), mass=0.1)
    largest = max(field.cmi(t, 1) for t in np.linspace(0.2, 0.9, 8))
    assert 0.011 < largest < 0.012


def ring() -> tuple[GaussianModel, VarianceExplodingPath]:
    covariance = GaussianField((1, 24), mass=0.1).covariance
    return GaussianModel(covariance, (1, 24), wrap=True), VarianceExplodingPath(0.03, 40)


def test_ring_spectrum_is_the_one_of_the_check():
    model, _ = ring()
    spectrum = 1 / (2 - 2 * np.cos(2 * np.pi * np.arange(24) / 24) + 0.01)
    np.testing.assert_allclose(np.fft.fft(model.covariance[0].numpy()).real, spectrum / spectrum.mean(), rtol=1e-10)


@pytest.mark.parametrize(("radius", "path_kl", "final_kl"), [(1, 4.029, 3.165), (2, 1.595, 1.120), (4, 0.465, 0.292)])
def test_ring_path_kl_bounds_the_kl_of_the_final_marginals(radius, path_kl, final_kl):
    """Reverse SDE with unit churn, per Fourier mode: in v = sigma^2 going down, dP/d(-log v) = 2 (w - 1) P + v."""
    model, path = ring()
    assert round(model.path_kl(radius, 0.0, 1.0, path), 3) == path_kl
    spectrum = np.fft.fft(model.covariance[0].numpy()).real
    denoiser = model.denoiser(radius, path)

    def slope(t: float, power: np.ndarray) -> np.ndarray:
        gain = np.fft.fft(denoiser.matrix(t)[0].numpy()).real
        return 2 * (gain - 1) * power + (0.03 * (40 / 0.03) ** t) ** 2

    power, steps = spectrum + 40.0**2, 200
    for k in range(steps):  # classical Runge-Kutta in log v, from t = 1 to t = 0
        t, h, du = 1 - k / steps, 1 / steps, 2 * math.log(40 / 0.03) / steps
        k1 = slope(t, power)
        k2 = slope(t - h / 2, power + du / 2 * k1)
        k3 = slope(t - h / 2, power + du / 2 * k2)
        k4 = slope(max(t - h, 0.0), power + du * k3)
        power = power + du / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    ratio = (spectrum + 0.03**2) / power
    kl = 0.5 * float((ratio - 1 - np.log(ratio)).sum())
    assert round(kl, 3) == final_kl
    assert kl < model.path_kl(radius, 0.0, 1.0, path)


def test_cmi_grows_with_the_snr_of_a_by_half_the_gap():
    """d/ds I(A_s : C | B) = 1/2 Delta_A(s), A alone at signal-to-noise s, B and C at time t."""
    field, t = GaussianField((8, 8), mass=0.2), 0.6
    region = regions((8, 8), 1, 2)
    a, b, c = region.a, region.b, region.c

    def mixed(s: float) -> torch.Tensor:
        """Covariance of (sqrt(s) X_A + Z on A, X_t elsewhere)."""
        scale = torch.full((64,), 1 - t, dtype=torch.float64).index_fill(0, a, math.sqrt(s))
        noise = torch.full((64,), t**2, dtype=torch.float64).index_fill(0, a, 1.0)
        return scale[:, None] * field.covariance * scale + noise.diag()

    def error_of_a(s: float, seen: torch.Tensor) -> float:
        k = mixed(s)
        scale = torch.full((64,), 1 - t, dtype=torch.float64).index_fill(0, a, math.sqrt(s))
        cross = field.covariance[a][:, seen] * scale[seen]
        explained = cross @ torch.linalg.solve(k[seen][:, seen], cross.T)
        return float((field.covariance[a][:, a] - explained).trace())

    for s in (0.3, 1.0, 4.0):
        gap = error_of_a(s, torch.cat([a, b])) - error_of_a(s, torch.cat([a, b, c]))
        h = 1e-3 * s
        i = [gaussian_cmi(mixed(s + k * h), a, b, c) for k in (-2, -1, 1, 2)]
        derivative = (i[0] - 8 * i[1] + 8 * i[2] - i[3]) / (12 * h)
        assert gap > 1e-4
        assert derivative == pytest.approx(gap / 2, abs=1e-8)


@pytest.mark.parametrize("radius", [1, 2])
def test_path_kl_is_the_integral_of_the_gap(radius):
    model, path = random_model(1), LinearPath()
    low, high = (float(path.log_snr(t)) for t in (0.9, 0.1))

    def integrand(log_snr: float) -> float:
        return 0.5 * model.denoising_gap(float(path.t_of_log_snr(log_snr)), radius) * math.exp(log_snr)

    integral, _ = quad(integrand, low, high, epsabs=1e-10, epsrel=1e-10)
    assert model.path_kl(radius, 0.1, 0.9) == pytest.approx(integral, rel=1e-8)
    assert model.path_kl(radius, 0.0, 1.0) > integral


@pytest.mark.parametrize("radius", [None, 1, 2])
def test_denoiser_is_the_plain_formula(radius):
    model = random_model(2)
    x = torch.randn(3, 1, *SMALL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t in (1e-3, 0.3, 0.9):
        expected = plain_denoise(model, x.reshape(3, -1).numpy(), t, radius).reshape(x.shape)
        np.testing.assert_allclose(model.denoiser(radius)(x, t).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("radius", [None, 1])
def test_denoiser_at_the_ends_and_with_a_time_per_image(radius):
    model = random_model(3)
    denoiser = model.denoiser(radius)
    x = torch.randn(5, 1, *SMALL, generator=torch.Generator().manual_seed(1))
    times = torch.tensor([0.0, 0.2, 0.7, 0.2, 1.0])
    together = denoiser(x, times)
    assert together.dtype == torch.float32
    for k in range(5):
        torch.testing.assert_close(together[k : k + 1], denoiser(x[k : k + 1], float(times[k])), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together[0], x[0])
    torch.testing.assert_close(together[4].reshape(-1), model.mean.float())


def test_windowed_jacobian_is_exactly_zero_outside_the_window():
    denoiser = GaussianField((7, 7), mass=0.2).denoiser(2)
    x = torch.randn(1, 1, 7, 7, generator=torch.Generator().manual_seed(2), requires_grad=True)
    (grad,) = torch.autograd.grad(denoiser(x, 0.4)[0, 0, 1, 3], x)
    inside = torch.zeros(7, 7, dtype=torch.bool)
    inside[0:4, 1:6] = True
    assert (grad[0, 0][~inside] == 0).all()
    assert (grad[0, 0][inside] != 0).all()


@pytest.mark.parametrize("radius", [None, 1])
def test_mmse_is_the_sampled_loss(radius):
    field, n = GaussianField((6, 6), mass=0.2), 4000
    x = field.sample(n, seed=4)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    loss = ((field.denoiser(radius)(LinearPath().add_noise(x, z, 0.5), 0.5) - x) ** 2).sum((1, 2, 3)).double()
    assert abs(float(loss.mean()) - field.mmse(0.5, radius)) < 5 * float(loss.std()) / math.sqrt(n)


def test_equal_windows_sharing_one_solution_changes_nothing():
    shared, apart = GaussianField((6, 5), mass=0.1), GaussianField((6, 5), mass=0.1)
    apart.pixels.stationary = False
    assert shared.pixels.stationary
    assert not GaussianField((6, 5), mass=0.1, boundary="open").pixels.stationary
    assert shared.mmse(0.3, 1) == pytest.approx(apart.mmse(0.3, 1), rel=1e-12)
    torch.testing.assert_close(shared.denoiser(1).matrix(0.3), apart.denoiser(1).matrix(0.3))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 0.98))
def test_information_and_errors_are_ordered_by_radius(seed, t):
    model = random_model(seed)
    cmi = [model.cmi(t, r) for r in (0, 1, 2)]
    assert cmi[0] >= cmi[1] - 1e-10 >= cmi[2] - 2e-10 >= -3e-10
    assert model.cmi(t, 4) == 0
    errors = [model.mmse(t, r) for r in (0, 1, 2, 4)]
    assert errors[0] > errors[1] > errors[2] > errors[3] - 1e-10
    assert errors[3] == pytest.approx(model.mmse(t), rel=1e-9)
    assert model.denoising_gap(t, 1) > 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 2.0))
def test_more_noise_on_a_or_c_never_adds_information(seed, noise):
    region, k = regions(SMALL, 1), random_model(seed).noisy_covariance(0.3)
    before = gaussian_cmi(k, region.a, region.b, region.c)
    for noised in (region.a, region.c):
        extra = torch.zeros(len(k), dtype=torch.float64).index_fill(0, noised, noise)
        assert gaussian_cmi(k + extra.diag(), region.a, region.b, region.c) <= before + 1e-12
    nothing = region.b[:0]
    whole = gaussian_cmi(k, region.a, nothing, torch.cat([region.b, region.c]))
    assert whole == pytest.approx(gaussian_cmi(k, region.a, nothing, region.b) + before, abs=1e-10)


def test_only_the_snr_matters_not_the_path():
    field, cosine, exploding = GaussianField((6, 6), mass=0.2), CosinePath(), VarianceExplodingPath(0.01, 100)
    for t in (0.2, 0.6):
        for path in (cosine, exploding):
            u = float(path.t_of_log_snr(LinearPath().log_snr(t)))
            assert field.cmi(u, 1, path=path) == pytest.approx(field.cmi(t, 1), rel=1e-9)
            assert field.denoising_gap(u, 1, path=path) == pytest.approx(field.denoising_gap(t, 1), rel=1e-9)


@pytest.mark.parametrize("boundary", ["torus", "open"])
def test_field_is_markov_when_clean_and_not_when_noisy(boundary):
    field = GaussianField((9, 9), mass=0.2, boundary=boundary)
    clean, noisy = field.cmi(0.0, 1, 2), field.cmi(0.6, 1, 2)
    assert abs(clean) < 1e-10
    assert noisy > 1e-3
    assert field.cmi(1.0, 1, 2) == pytest.approx(0, abs=1e-12)


def test_open_field_inverts_mass_plus_laplacian():
    field, (height, width) = GaussianField((4, 3), mass=0.3, boundary="open"), (4, 3)
    energy = torch.zeros(12, 12, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            for row, col in ((i + 1, j), (i, j + 1)):
                if row < height and col < width:
                    bond = torch.zeros(12, dtype=torch.float64)
                    bond[i * width + j], bond[row * width + col] = 1, -1
                    energy += bond[:, None] * bond
    plain = torch.linalg.inv(energy + 0.09 * torch.eye(12, dtype=torch.float64))
    torch.testing.assert_close(field.covariance, plain / plain.diagonal().mean())


def test_massless_field_drops_the_uniform_mode():
    for boundary in ("torus", "open"):
        field = GaussianField((6, 6), mass=0, boundary=boundary)
        assert float(field.covariance.sum(1).abs().max()) < 1e-10
        assert float(field.covariance.diagonal().mean()) == pytest.approx(1)
        assert math.isfinite(field.cmi(0.01, 1))
        with pytest.raises(PhasewiseError, match="t > 0"):
            field.cmi(0.0, 1)
        with pytest.raises(PhasewiseError, match="raise t_min"):
            field.path_kl(1, 0.0, 1.0)
    near = GaussianField((6, 6), mass=1e-3)
    massless = GaussianField((6, 6), mass=0)
    # the zero mode removed by hand from a field of small mass leaves the massless one
    projector = torch.eye(36, dtype=torch.float64) - 1 / 36
    rest = projector @ near.covariance @ projector
    torch.testing.assert_close(rest / rest.diagonal().mean(), massless.covariance, rtol=1e-5, atol=1e-5)


def test_samples_have_the_covariance_and_do_not_depend_on_n():
    field, n = GaussianField((4, 4), mass=0.3), 20000
    x = field.sample(n, seed=6)
    assert x.shape == (n, 1, 4, 4)
    assert x.dtype == torch.float32
    k = torch.cov(x.reshape(n, -1).T.double())
    assert float((k - field.covariance).abs().max()) < 5 * math.sqrt(2 / n)
    assert torch.allclose(field.sample(7, seed=6), x[:7], atol=1e-6)
    assert not torch.allclose(field.sample(7, seed=7), x[:7], atol=1e-2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GaussianField((8, 8), mass=-1), "mass"),
        (lambda: GaussianField((8, 8), boundary="closed"), "boundary"),
        (lambda: GaussianField((8,)), "shape"),
        (lambda: GaussianModel(torch.eye(3), (2, 2)), "4x4"),
        (lambda: GaussianModel(torch.tensor([[1.0, 2.0], [0.0, 1.0]]), (1, 2)), "symmetric"),
        (lambda: GaussianModel(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), (1, 2)).sample(1, 0), "eigenvalue"),
        (lambda: GaussianField((8, 8)).cmi(1.2, 1), "t must lie"),
        (lambda: GaussianField((8, 8)).sample(0, 0), "n must be"),
        (lambda: GaussianField((8, 8)).denoiser()(torch.zeros(1, 1, 7, 8), 0.5), "shape"),
        (lambda: GaussianField((8, 8)).path_kl(1, 0.5, 0.2), "t_min"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(PhasewiseError, match=words):
        make()
