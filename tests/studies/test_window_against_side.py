"""The exponent of curves that are known to collapse; the same pictures at other resolutions."""

import numpy as np
import pytest
import torch

from studies.window_against_side.images import resized
from studies.window_against_side.scaling import exponent, measured


def made(nu, fall, noise=0.0):
    rng, out = np.random.default_rng(1), {}
    for side in (16, 32, 64):
        x = np.linspace(-3, 3, 13) - np.log(side) / nu + 0.1 * np.log2(side)
        value = side**-fall * np.exp(-((x + np.log(side) / nu) ** 2) / 2)
        error = np.full(len(x), noise * side**-fall)
        out[side] = {"log_snr": x.tolist(), "value": (value + error * rng.standard_normal(len(x))).tolist(),
                     "stderr": error.tolist(), "n": 2}  # fmt: skip
    return out


@pytest.mark.parametrize(("nu", "fall"), [(0.5, 0.0), (1.0, 1.0), (4 / 7, 0.25)])
def test_curves_that_collapse_give_their_exponent(nu, fall):
    found = exponent(made(nu, fall))
    assert found["nu"] == pytest.approx(nu, rel=0.01)
    assert found["amplitude"] == pytest.approx(-fall, abs=0.02)
    assert found["spread"] < 0.02


def test_noise_is_in_the_error_of_the_exponent():
    found = exponent(made(0.5, 0.0, noise=0.03), draws=8)
    assert 0 < found["error"] < 0.05
    assert abs(found["nu"] - 0.5) < 4 * found["error"]


def test_two_modes_scale_with_the_side():
    found = exponent({side: measured("two modes", side) for side in (16, 32)})
    assert found["nu"] == pytest.approx(0.5, abs=0.01)


def test_the_same_pictures_keep_their_means():
    images = torch.rand(2, 1, 8, 8)
    for side in (4, 8, 16):
        other = resized(images, side)
        assert other.shape == (2, 1, side, side)
        torch.testing.assert_close(other.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=0.02, rtol=0)
