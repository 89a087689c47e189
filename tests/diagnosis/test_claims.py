"""Wrong claims about a network are found out, and the right one is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import phasewise as pw
from phasewise.denoisers.predictions import PREDICTIONS, edm
from phasewise.errors import PhasewiseError
from phasewise.paths import LinearPath, NoisePath, TablePath, VarianceExplodingPath


@pytest.fixture(scope="module")
def digits() -> Any:
    return pw.load_images("digits")


@pytest.fixture(scope="module")
def filter_of_wide(digits: Any) -> pw.WienerDenoiser:
    return pw.WienerDenoiser.fit(2 * digits.train - 1)


def network(denoiser: pw.Denoiser, kind: str, path: NoisePath, time_of: Any) -> Any:
    own, one = denoiser.on(path), PREDICTIONS[kind]

    def answer(x: Tensor, told: Tensor) -> Tensor:
        t = time_of(told)
        return one.from_x(path, x, own(x, t), t.reshape(-1, 1, 1, 1))

    return answer


STEPS = TablePath(betas="linear")


def test_a_right_claim_is_right(digits: Any, filter_of_wide: pw.WienerDenoiser) -> None:
    module = network(filter_of_wide, "eps", STEPS, lambda k: (k + 1) / 1000)
    how: dict[str, Any] = {"path": STEPS, "time": "timestep"}
    right = pw.wrap(module, digits.image_shape, predicts="eps", pixel_range=(-1, 1), **how)
    claims = pw.check_claims(right, digits)
    assert claims.ok
    assert claims.ratio == pytest.approx(1, abs=0.05)
    assert "as it should be" in str(claims)
    wide = pw.load_images("digits", pixel_range=(-1, 1))
    assert pw.check_claims(pw.wrap(module, digits.image_shape, predicts="eps", **how), wide).ok


@pytest.mark.parametrize(
    "wrong",
    [
        {"predicts": "v", "pixel_range": (-1, 1), "path": STEPS, "time": "timestep"},
        {"predicts": "eps", "path": STEPS, "time": "timestep"},
    ],
    ids=["prediction", "pixels"],
)
def test_a_wrong_claim_is_answered_with_the_one_that_fits(
    wrong: dict[str, Any], digits: Any, filter_of_wide: pw.WienerDenoiser
) -> None:
    module = network(filter_of_wide, "eps", STEPS, lambda k: (k + 1) / 1000)
    claims = pw.check_claims(pw.wrap(module, digits.image_shape, **wrong), digits)
    assert not claims.ok
    assert "what fits is: predicts eps, 1,000 linear betas, told timestep, pixels -1..1" in str(claims)


def test_the_order_of_time_and_the_sign_of_a_velocity_are_found(digits: Any, filter_of_wide: pw.WienerDenoiser) -> None:
    module = network(filter_of_wide, "-velocity", LinearPath(), lambda u: 1 - u)
    found = pw.guess(module, digits)
    assert found.fits
    assert found.best == {
        "predicts": "-velocity", "path": {"name": "linear"}, "time": "t", "time_scale": -1.0, "time_shift": 1.0,
        "pixel_range": [-1.0, 1.0],
    }  # fmt: skip
    assert found.as_good() == (found.best,)
    assert pw.check_claims(pw.wrap(module, digits.image_shape, **found.best), digits).ok
    assert "the first fits" in str(found)


def test_the_spread_of_the_pixels_that_a_preconditioned_network_was_told_is_found(
    digits: Any, filter_of_wide: pw.WienerDenoiser
) -> None:
    path = VarianceExplodingPath()
    wide = replace(digits, **{part: 2 * getattr(digits, part) - 1 for part in ("train", "validation", "test")})
    spread = round(float(wide.test[:16].std()), 3)
    kind, own = edm(spread), filter_of_wide.on(path)

    def module(shown: Tensor, told: Tensor) -> Tensor:
        t = path.t_of_log_snr(-8 * told)
        s = t.reshape(-1, 1, 1, 1)
        assert kind.takes is not None
        x_t = shown / kind.takes(path, torch.ones_like(shown), s)
        return kind.from_x(path, x_t, own(x_t, t), s)

    found = pw.guess(module, wide, path=path, time="log_sigma", time_scale=0.25)
    assert found.best["predicts"] == f"edm({spread:g})"
    assert pw.check_claims(pw.wrap(module, wide.image_shape, **found.best), wide).ok


def test_what_is_given_is_taken_for_granted(digits: Any, filter_of_wide: pw.WienerDenoiser) -> None:
    module = network(filter_of_wide, "v", STEPS, lambda k: (k + 1) / 1000)
    found = pw.guess(module, digits, path=STEPS, time="timestep", pixel_range=(-1, 1))
    assert found.best["predicts"] == "v"
    assert len(found.settings) == len(PREDICTIONS)
    only = pw.guess(module, digits, path=STEPS, time="timestep", pixel_range=(-1, 1), predicts="eps")
    assert not only.fits


def test_noise_is_no_network(digits: Any) -> None:
    found = pw.guess(lambda x, t: torch.ones_like(x), digits, path=LinearPath(), time="t")
    assert not found.fits
    with pytest.raises(PhasewiseError, match="no way to speak to the network gave an answer"):
        pw.guess(lambda x, t: x / 0 + "x", digits)
    with pytest.raises(PhasewiseError, match="16 images"):
        pw.guess(lambda x, t: x, digits.train[:8])
