"""Wiener denoisers against plain float64 formulas and against the exact denoiser of a Gaussian field."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from receptive_field import distances
from torch import Tensor

from phasewise.denoisers import WienerDenoiser
from phasewise.denoisers import linear as linear_module
from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField
from phasewise.paths import CosinePath, LinearPath, ModePath, NoisePath, VarianceExplodingPath

SHAPE = (2, 4, 5)
PATHS: list[NoisePath] = [LinearPath(), CosinePath(), VarianceExplodingPath(0.05, 10.0)]
every_path = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)


def noise(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def photographs() -> Tensor:
    """Correlated images (300, 2, 4, 5) with a mean that varies over the image."""
    mix = noise(40, 40, seed=1) / 40**0.5
    x = (noise(300, 40) @ mix) + torch.linspace(-1, 2, 40)
    return x.view(300, *SHAPE)


def alpha_sigma(path: NoisePath, t: float) -> tuple[float, float]:
    s = torch.tensor(t, dtype=torch.float64)
    return float(path.alpha(s)), float(path.sigma(s))


def plain_wiener(images: Tensor, x_t: Tensor, t: float, path: NoisePath, radius: int | None = None) -> Tensor:
    """The formula, pixel by pixel, with numpy in float64."""
    channels, height, width = images.shape[1:]
    flat = images.flatten(1).double().numpy()
    mean, covariance = flat.mean(0), np.cov(flat, rowvar=False, bias=True)
    alpha, sigma = alpha_sigma(path, t)
    noisy = alpha**2 * covariance + sigma**2 * np.eye(len(covariance))
    centred = x_t.flatten(1).double().numpy() - alpha * mean
    place = [(i, j) for _ in range(channels) for i in range(height) for j in range(width)]
    out = np.empty_like(centred)
    for k, (i, j) in enumerate(place):
        near = [m for m, (a, b) in enumerate(place) if radius is None or max(abs(a - i), abs(b - j)) <= radius]
        weights = np.linalg.solve(noisy[np.ix_(near, near)], alpha * covariance[near, k])
        out[:, k] = mean[k] + centred[:, near] @ weights
    return torch.from_numpy(out).view_as(x_t)


@functools.cache
def field() -> GaussianField:
    return GaussianField((6, 5), mass=0.4)


@functools.cache
def field_images() -> Tensor:
    """Images whose sample covariance is the field's own: plus and minus sqrt(N) times the columns of K^(1/2)."""
    values, vectors = torch.linalg.eigh(field().covariance)
    root = (vectors * values.sqrt()) @ vectors.T * len(values) ** 0.5
    return torch.cat([root, -root]).view(-1, 1, 6, 5)


# --- against formulas -----------------------------------------------------------------------------------------------


@every_path
@pytest.mark.parametrize("t", [0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("radius", [None, 1, 2])
def test_it_is_the_wiener_filter(path: NoisePath, t: float, radius: int | None) -> None:
    x_t = noise(6, *SHAPE, seed=2)
    out = WienerDenoiser.fit(photographs(), radius, path=path)(x_t, t)
    torch.testing.assert_close(out.double(), plain_wiener(photographs(), x_t, t, path, radius), atol=2e-4, rtol=2e-4)


@every_path
@pytest.mark.parametrize("radius", [None, 1, 3])
def test_on_a_gaussian_field_it_is_the_exact_denoiser(path: NoisePath, radius: int | None) -> None:
    wiener, exact = WienerDenoiser.fit(field_images(), radius, path=path), field().denoiser(radius, path)
    assert wiener.radius == exact.radius == radius
    times = torch.tensor([0.02, 0.2, 0.5, 0.8, 0.98])
    x_t = path.add_noise(field().sample(5, seed=0), noise(5, 1, 6, 5), times)
    torch.testing.assert_close(wiener(x_t, times), exact(x_t, times), atol=2e-4, rtol=2e-4)


def test_among_linear_denoisers_it_errs_least() -> None:
    x, wiener = photographs(), WienerDenoiser.fit(photographs())
    z, t = noise(300, *SHAPE, seed=3), 0.4
    x_t = LinearPath().add_noise(x, z, t)
    out = wiener(x_t, t)
    error = lambda guess: float((guess - x).square().mean())  # noqa: E731
    assert error(out) < error(WienerDenoiser.fit(x, radius=1)(x_t, t)) < error(x_t / 0.6)
    assert error(out) < min(error(out * 1.1), error(out * 0.9), error(wiener.mean.view(1, *SHAPE).expand_as(x)))


@pytest.mark.parametrize("radius", [None, 1])
def test_at_time_zero_it_is_the_identity_and_at_time_one_the_mean(radius: int | None) -> None:
    wiener, x = WienerDenoiser.fit(photographs(), radius), photographs()[:5]
    torch.testing.assert_close(wiener(x, 0.0), x, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(wiener(x, 1.0), photographs().mean(0).expand_as(x), atol=1e-5, rtol=1e-5)


def test_at_time_zero_the_global_one_is_the_identity_even_where_the_data_never_vary() -> None:
    x = photographs().clone()
    x[:, 0, 0] = 0.25
    other = noise(3, *SHAPE)
    torch.testing.assert_close(WienerDenoiser.fit(x)(other, 0.0), other, atol=1e-4, rtol=1e-4)


# --- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [1, 2])
def test_the_window_is_exact(radius: int) -> None:
    matrix = WienerDenoiser.fit(photographs(), radius).matrix(0.5).view(2, 20, 2, 20)  # (input, output)
    pixels = [(i, j) for i in range(4) for j in range(5)]
    away = distances(pixels, 4, 5).view(20, 20)[None, :, None, :].expand(2, -1, 2, -1)
    assert torch.count_nonzero(matrix[away > radius]) == 0
    assert (matrix[away <= radius] != 0).all()


def test_a_pixel_beyond_the_window_changes_nothing_to_the_last_bit() -> None:
    wiener, x = WienerDenoiser.fit(photographs(), 1), noise(1, *SHAPE)
    moved = x.clone()
    moved[:, :, 0, 0] += 100
    changed = (wiener(moved, 0.5) != wiener(x, 0.5)).any(1)[0]
    assert changed.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
def test_the_largest_window_is_the_whole_image(t: float) -> None:
    x_t = noise(5, *SHAPE)
    wide, whole = WienerDenoiser.fit(photographs(), radius=4), WienerDenoiser.fit(photographs())
    torch.testing.assert_close(wide(x_t, t), whole(x_t, t), atol=1e-4, rtol=1e-4)


# --- calls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [None, 2])
def test_one_time_per_image_is_the_same_as_one_call_per_image(radius: int | None) -> None:
    wiener, x_t = WienerDenoiser.fit(photographs(), radius), noise(6, *SHAPE)
    times = torch.tensor([0.2, 0.9, 0.2, 0.0, 1.0, 0.55])
    alone = torch.cat([wiener(x_t[i : i + 1], float(times[i])) for i in range(6)])
    torch.testing.assert_close(wiener(x_t, times), alone, atol=1e-5, rtol=1e-5)


def test_filters_are_kept_in_bounded_memory_and_forgotten_with_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "CACHE_NUMBERS", 10 * 4**2)
    wiener = WienerDenoiser.fit(noise(20, 1, 2, 2), radius=1)
    x_t = noise(1, 1, 2, 2)
    for t in torch.linspace(0.1, 0.9, 30).tolist():
        wiener(x_t, t)
    assert len(wiener._matrices) == 10
    other = WienerDenoiser.fit(3 * noise(20, 1, 2, 2, seed=9), radius=1)
    wiener.load_state_dict(other.state_dict())
    assert torch.equal(wiener(x_t, 0.9), other(x_t, 0.9))


def test_float64_images_are_denoised_in_float64() -> None:
    x_t = noise(3, *SHAPE).double()
    for radius in (None, 1):
        out = WienerDenoiser.fit(photographs(), radius)(x_t, 0.4)
        assert out.dtype == torch.float64
        expected = plain_wiener(photographs(), x_t, 0.4, LinearPath(), radius)
        torch.testing.assert_close(out, expected, atol=2e-5, rtol=2e-5)


# --- low rank -------------------------------------------------------------------------------------------------------


def low_rank_images(rank: int, floor: float) -> Tensor:
    """Images (2 * 40, 2, 4, 5) whose sample covariance has ``rank`` large eigenvalues, the others ``floor``."""
    vectors = torch.linalg.qr(noise(40, 40, seed=5).double())[0]
    values = torch.full((40,), floor, dtype=torch.float64)
    values[:rank] = torch.linspace(4, 1, rank, dtype=torch.float64)
    root = (vectors * values.sqrt()) @ vectors.T * 40**0.5
    return torch.cat([root, -root]).float().view(80, *SHAPE) + 0.5


def test_full_rank_given_or_not_is_the_same() -> None:
    x_t = noise(5, *SHAPE)
    assert torch.equal(
        WienerDenoiser.fit(photographs(), rank=40)(x_t, 0.3), WienerDenoiser.fit(photographs())(x_t, 0.3)
    )


@pytest.mark.parametrize("floor", [0.0, 0.09])
@pytest.mark.parametrize("dense", [True, False])
def test_few_eigenvectors_suffice_where_the_rest_share_one_variance(
    floor: float, dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_module, "LARGEST_DENSE", 4096 if dense else 30)
    x, x_t = low_rank_images(6, floor), noise(5, *SHAPE)
    short, full = WienerDenoiser.fit(x, rank=6), WienerDenoiser.fit(x)
    assert short.eigenvectors.shape == (40, 6)
    assert float(short.rest) == pytest.approx(floor, abs=1e-4)
    for t in (0.05, 0.5, 1.0):
        torch.testing.assert_close(short(x_t, t), full(x_t, t), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dense", [True, False])
def test_what_is_kept_at_low_rank_are_the_largest_of_all_eigenvalues(
    dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_module, "LARGEST_DENSE", 4096 if dense else 30)
    x = photographs()
    full, short = WienerDenoiser.fit(x), WienerDenoiser.fit(x, rank=6)
    largest = full.eigenvalues.flip(0)
    torch.testing.assert_close(short.eigenvalues, largest[:6], rtol=1e-5 if dense else 0.01, atol=0)
    assert float(short.rest) == pytest.approx(float(largest[6:].mean()), rel=1e-4 if dense else 0.01)


def test_fitting_at_low_rank_is_repeatable_and_leaves_the_random_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "LARGEST_DENSE", 30)  # beyond, directions are found by chance
    torch.manual_seed(0)
    first = WienerDenoiser.fit(photographs(), rank=6)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(WienerDenoiser.fit(photographs(), rank=6).eigenvectors, first.eigenvectors)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), after)


def test_large_images_are_cut_to_a_lower_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "LARGEST_FULL", 30)
    assert WienerDenoiser.fit(photographs()[:20]).rank == 19
    assert WienerDenoiser.fit(photographs()[:20], radius=1).rank == 40  # a window needs them all
    assert WienerDenoiser.fit(photographs()[:20], path=ModePath(SHAPE[1:])).rank == 40
    monkeypatch.setattr(linear_module, "LARGEST_DENSE", 30)
    with pytest.raises(PhasewiseError, match="images of at most 30 numbers"):
        WienerDenoiser.fit(photographs(), radius=1)


# --- what does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choices", [{"rank": 0}, {"rank": 41}, {"rank": 6, "radius": 1}])
def test_a_rank_that_does_not_fit_is_refused(choices: dict[str, int]) -> None:
    with pytest.raises(PhasewiseError, match=r"rank must lie in 1\.\.40"):
        WienerDenoiser(SHAPE, **choices)  # type: ignore[arg-type]


def test_one_image_has_no_covariance_and_another_shape_is_refused() -> None:
    with pytest.raises(PhasewiseError, match="at least 2 images"):
        WienerDenoiser.fit(photographs()[:1])
    with pytest.raises(PhasewiseError, match=r"takes \(B, \*\(2, 4, 5\)\)"):
        WienerDenoiser.fit(photographs())(noise(2, 1, 4, 5), 0.5)
    with pytest.raises(PhasewiseError, match="larger than the image"):
        WienerDenoiser.fit(photographs(), radius=5)


def test_config_is_what_the_constructor_takes() -> None:
    for wiener in (WienerDenoiser(SHAPE, radius=2), WienerDenoiser(SHAPE, rank=3)):
        config = wiener.config()
        assert config.pop("path") == {"name": "linear"}
        assert WienerDenoiser(**config).config() == wiener.config()
