"""The torus field by its modes against the dense Gaussian model with windows that close."""

from functools import cache

import pytest
import torch

from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField, GaussianModel, TorusField, periodogram
from phasewise.paths import CosinePath

MASS = 0.3


@cache
def dense(side):
    return GaussianModel(GaussianField((side, side), mass=MASS).covariance, (side, side), wrap=True)


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("radius", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("t", [0.0, 0.02, 0.3, 0.9, 1.0])
def test_errors_and_gaps_are_those_of_the_dense_model(side, radius, t):
    field = TorusField(side, MASS)
    assert field.mmse(t, radius) == pytest.approx(dense(side).mmse(t, radius), abs=1e-10)
    if radius is not None:
        assert field.denoising_gap(t, radius) == pytest.approx(dense(side).denoising_gap(t, radius), abs=1e-10)


@pytest.mark.parametrize("radius", [1, 3])
def test_the_multiplier_is_that_of_the_dense_window(radius):
    field, t = TorusField(8, MASS), 0.4
    row = dense(8).denoiser(radius, CosinePath()).matrix(t)[0].reshape(8, 8)
    everywhere = torch.fft.fft2(row).real
    rows, cols = (field.waves * 8 / (2 * torch.pi)).round().long().unbind(1)
    torch.testing.assert_close(field.gain(t, radius, CosinePath()), everywhere[rows, cols], rtol=0, atol=1e-12)


def test_every_mode_of_the_image_is_counted_once():
    for side in (1, 2, 7, 8):
        field = TorusField(side, MASS)
        assert field.count.sum() == side**2
        assert float((field.count * field.spectrum).sum()) == pytest.approx(side**2)  # unit variance


def test_the_gap_falls_with_the_radius_where_no_matrix_would_fit():
    field = TorusField(256, 0.0125)
    gaps = [field.denoising_gap(0.9, radius) for radius in (1, 4, 16)]
    assert gaps[0] > gaps[1] > gaps[2] > 0


def test_modes_are_denoised_row_by_row():
    field = TorusField(8, MASS)
    x = torch.randn(3, 1, 1, len(field.spectrum), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(field.denoiser(2)(x, 0.4), field.gain(0.4, 2) * x)
    with pytest.raises(PhasewiseError, match="one time"):
        field.denoiser(2)(x, torch.full((3,), 0.4))


@pytest.mark.parametrize(("make", "says"), [
    (lambda: TorusField(8, 0.0), "mass"),
    (lambda: TorusField(0, 0.1), "shape"),
    (lambda: TorusField(8, 0.1).denoiser(4), "wider"),
    (lambda: TorusField(8, 0.1).gain(1.1), "noise time"),
    (lambda: TorusField(8, 0.1).gain(0.5, 1, plan=9), "larger than the torus"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(make, says):
    with pytest.raises(PhasewiseError, match=says):
        make()


def planned_mmse(side, radius, plan, t):
    """By dense least squares: pixel 0 from the noisy window round it and the noisy image's ``plan`` longest waves."""
    covariance, alpha, sigma = GaussianField((side, side), mass=MASS).covariance, 1 - t, t
    waves = torch.fft.fftfreq(side, 1 / side).round().abs()
    long = (torch.maximum(waves[:, None], waves[None, :]) <= (plan - 1) // 2).double()
    pixels = torch.eye(side**2, dtype=torch.float64)
    smooth = torch.fft.ifft2(torch.fft.fft2(pixels.reshape(-1, side, side)) * long).real.reshape(-1, side**2)
    at = torch.arange(-radius, radius + 1) % side
    near = (at[:, None] * side + at[None, :]).reshape(-1)
    seen = torch.cat([pixels[near], smooth])
    noisy = seen @ (alpha**2 * covariance + sigma**2 * pixels) @ seen.T
    cross = alpha * covariance[0] @ seen.T
    return side**2 * float(covariance[0, 0] - cross @ torch.linalg.pinv(noisy, rtol=1e-12, hermitian=True) @ cross)


@pytest.mark.parametrize(("side", "radius", "plan"), [(8, 1, 3), (8, 2, 4), (7, 2, 3), (7, 3, 5), (8, 1, 1)])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_a_window_beside_a_plan_is_the_dense_best(side, radius, plan, t):
    field = TorusField(side, MASS)
    assert field.mmse(t, radius, plan=plan) == pytest.approx(planned_mmse(side, radius, plan, t), abs=1e-8)
    gap = field.mmse(t, radius, plan=plan) - field.mmse(t)
    assert field.denoising_gap(t, radius, plan=plan) == pytest.approx(gap, abs=1e-9)
    assert gap <= field.denoising_gap(t, radius) + 1e-12  # a plan is never in the way


def test_a_plan_of_the_whole_image_is_the_whole_image():
    field = TorusField(8, MASS)
    torch.testing.assert_close(field.gain(0.4, 1, plan=8), field.gain(0.4))
    x = torch.ones(1, 1, 1, len(field.spectrum), dtype=torch.float64)
    torch.testing.assert_close(field.denoiser(1, plan=3)(x, 0.4).flatten(), field.gain(0.4, 1, plan=3))


def test_a_field_of_a_spectrum_is_that_of_its_mass():
    field = TorusField(7, MASS)
    twin = TorusField.of_spectrum(5 * torch.fft.fft2(field.correlation).real)
    torch.testing.assert_close(twin.spectrum, field.spectrum)
    assert twin.mmse(0.4, 2) == pytest.approx(field.mmse(0.4, 2))
    with pytest.raises(PhasewiseError, match="above 0"):
        TorusField.of_spectrum(torch.zeros(4, 4))
    with pytest.raises(PhasewiseError, match="square"):
        TorusField.of_spectrum(torch.ones(4, 5))


def test_a_periodogram_finds_the_spectrum_and_no_edge_where_borders_do_not_meet():
    images = GaussianField((16, 16), MASS).sample(3000, 0)
    spectrum = torch.fft.fft2(TorusField(16, MASS).correlation).real
    found = periodogram(images)
    inner = (torch.fft.fftfreq(16).abs() > 0.1).double()
    short = (inner[:, None] * inner[None, :]).bool()  # long waves are those that a smooth part may take away
    assert float((found / spectrum)[short].sub(1).abs().max()) < 0.15
    # a slope: its jump at the border would be in all waves; a picture of it has the long ones alone
    slope = torch.randn(200, 1, 1, 1, generator=torch.Generator().manual_seed(0)) * torch.linspace(-1, 1, 16).expand(
        16, 16
    )
    jumping = torch.fft.fft2(slope.double()).abs().square().mean((0, 1))
    assert float(periodogram(slope)[0, 8] * 256) < 1e-2 * float(jumping[0, 8])
    with pytest.raises(PhasewiseError, match="square"):
        periodogram(torch.zeros(3, 1, 4, 5))
