"""Speciation and cloning against the two-mode model, where both are known."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewise.data import ImageData
from phasewise.denoisers import LocalDenoiser
from phasewise.diagnosis import measure_cloning, speciation, symmetry
from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField, TwoMode
from phasewise.paths import CosinePath, ModePath
from phasewise.results import Cloning
from phasewise.results.symmetry import crossing

TIMES = (0.5, 0.7, 0.8, 0.9)


def sign(images: torch.Tensor) -> torch.Tensor:
    return (images.mean((1, 2, 3)) > 0).long()


@cache
def cloned(steps: int = 12, seed: int = 0) -> Cloning:
    model = TwoMode((4, 4))
    return measure_cloning(model.denoiser(), model.sample(600, 0), TIMES, sign, steps=steps, seed=seed, batch=1200)


def test_two_modes_part_where_they_should() -> None:
    images = TwoMode((4, 4), 0.5).sample(4000, 0)
    found = speciation(images, labels=sign(images))
    exact = 2.0 / (1 + 2.0)  # Lambda = 16 / 4
    assert found.t_s == pytest.approx(exact, abs=1e-3)
    assert found.t_s_low <= found.t_s <= found.t_s_high
    assert found.between == pytest.approx(found.eigenvalue)  # there is no spread within a mode
    assert found.log_snr == pytest.approx(-math.log(found.eigenvalue))
    other = speciation(images, path=CosinePath())
    assert float(CosinePath().log_snr(other.t_s)) == pytest.approx(found.log_snr)


@given(scale=st.floats(0.1, 50), shift=st.floats(-3, 3))
@settings(max_examples=10, deadline=None)
def test_relative_to_the_data_it_knows_no_scale(scale: float, shift: float) -> None:
    images = GaussianField((4, 4), 0.3).sample(200, 1)
    one, other = speciation(images, draws=2), speciation(scale * images + shift, draws=2)
    assert other.log_snr + 2 * math.log(other.data_std) == pytest.approx(
        one.log_snr + 2 * math.log(one.data_std), abs=1e-4
    )


def test_the_bootstrap_is_as_wide_as_new_data() -> None:
    model = GaussianField((4, 4), 0.3)
    found = speciation(model.sample(500, 0))
    spread = np.std([speciation(model.sample(500, k), draws=2).eigenvalue for k in range(1, 41)])
    assert (found.eigenvalue_high - found.eigenvalue_low) / 3.92 == pytest.approx(spread, rel=0.35)


def test_many_pixels_are_solved_by_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    images = GaussianField((8, 8), 0.1).sample(300, 0)
    dense = speciation(images, labels=torch.arange(300) % 3)
    monkeypatch.setattr(symmetry, "DENSE", 10)
    iterated = speciation(images, labels=torch.arange(300) % 3)
    assert iterated.eigenvalue == pytest.approx(dense.eigenvalue, rel=1e-6)
    assert iterated.eigenvalue_low == pytest.approx(dense.eigenvalue_low, rel=1e-4)
    assert iterated.between == pytest.approx(dense.between, rel=1e-9)


def test_labels_of_a_set_are_its_own() -> None:
    images = TwoMode((4, 4)).sample(60, 0)
    labels = sign(images)
    data = ImageData(
        "modes", images[:40], images[40:50], images[50:], labels_train=labels[:40], labels_validation=labels[40:50],
        labels_test=labels[50:],
    )  # fmt: skip
    assert speciation(data).classes == 2
    assert speciation(data).n == 40
    assert math.isnan(speciation(images).t_between)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: speciation(torch.zeros(1, 1, 4, 4)), "at least 2"),
        (lambda: speciation(torch.zeros(5, 1, 4, 4)), "all images are alike"),
        (lambda: speciation(torch.randn(5, 1, 4, 4), labels=[0, 1]), "one for each of the 5"),
        (lambda: speciation(torch.randn(3, 1, 4, 4), labels=[0.5, 1, 2]), "whole numbers"),
        (lambda: speciation(torch.randn(5, 1, 4, 4), path=ModePath((4, 4))), "isotropic paths alone"),
    ],
)
def test_what_has_no_speciation_is_refused(call, said) -> None:
    with pytest.raises(PhasewiseError, match=said):
        call()


def test_clones_and_their_original_are_draws_from_one_posterior() -> None:
    found, model = cloned(), TwoMode((4, 4))
    exact = np.array([model.class_terms(t, 1).agreement.value for t in TIMES])
    # few steps agree too often, and never by much
    assert (np.abs(found.survival - exact) < 3 * found.survival_stderr + 0.03).all()
    assert (np.abs(found.agreement - exact) < 3 * found.agreement_stderr + 0.06).all()
    assert found.chance == pytest.approx(0.5, abs=0.01)
    assert found.threshold == pytest.approx(0.775, abs=0.01)
    assert found.t_survival == pytest.approx(0.8, abs=0.02)
    assert found.t_clone_low <= found.t_clone <= found.t_clone_high
    assert found.t_low < found.t_clone
    assert math.isnan(found.t_high)  # beyond the last time


def test_equal_seeds_clone_alike_and_others_do_not() -> None:
    model = TwoMode((4, 4))

    def some(seed: int) -> Cloning:
        return measure_cloning(model.denoiser(), model.sample(60, 0), (0.8,), sign, steps=3, seed=seed)

    assert some(1).to_dict() == some(1).to_dict()
    assert some(1).agreement[0] != some(2).agreement[0]
    assert math.isnan(some(1).t_clone)  # one time crosses nothing


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"solver": "exp_ab2"}, "draws noise"),
        ({"denoiser": LocalDenoiser((1, 4, 4), 1, classes=2)}, "told the class"),
        ({"images": torch.ones(4, 1, 4, 4)}, "one class"),
        ({"images": TwoMode((4, 4)).sample(1, 0)}, "at least 2"),
        ({"classify": lambda x: x.mean((1, 2, 3))}, "whole number for each"),
    ],
)
def test_what_cannot_be_cloned_is_refused(change, said) -> None:
    model = TwoMode((4, 4))
    given = {"denoiser": model.denoiser(), "images": model.sample(8, 0), "classify": sign, "solver": "ancestral"}
    given |= change
    with pytest.raises(PhasewiseError, match=said):
        measure_cloning(given["denoiser"], given["images"], (0.5,), given["classify"], solver=given["solver"], steps=2)


def test_a_crossing_is_interpolated() -> None:
    x = np.array([0.0, 1.0, 2.0])
    assert crossing(x, np.array([1.0, 0.8, 0.4]), 0.6) == pytest.approx(1.5)
    assert math.isnan(crossing(x, np.array([1.0, 0.9, 0.8]), 0.6))
    assert math.isnan(crossing(x, np.array([0.5, 0.4, 0.3]), 0.6))
