"""The map: bad input, constant pixels, the ends of time, warnings, positions, cells kept on disk."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from phasewise import exact
from phasewise.data import as_images
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.information import ESTIMATORS, CMIEstimator, cmi_map, make_estimator, register_estimator
from phasewise.paths import VarianceExplodingPath
from phasewise.results import CMIMap, Estimate

IMAGES = exact.GaussianField((6, 6), mass=0.2).sample(300, 0)
CALM = {"accuracy": 1.0, "estimator": "gaussian"}


class Counting(CMIEstimator):
    """Yields t + 10 r for each cell; breaks before the cell it is told to."""

    name, bound = "counting", "neither"
    broken: tuple[int, int] | None = None
    asked: list[tuple[int, int]] = []  # noqa: RUF012

    def estimate(self, problem, cells, folder=None, say=print):
        for i, j in cells:
            if (i, j) == Counting.broken:
                raise PhasewiseError(f"not finite at t = {problem.times[i]:g}, r = {problem.radii[j]}")
            Counting.asked.append((i, j))
            yield (i, j), Estimate(problem.times[i] + 10 * problem.radii[j], 0.1, 7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"radii": [3]}, r"radius 3 leaves no pixel for C in a 6x6 image with A at \(2, 2\).* largest .* is 2"),
        ({"radii": [-1]}, "whole number of pixels >= 0"),
        ({"radii": [1, 1]}, "distinct"),
        ({"radii": []}, "at least one"),
        ({"times": [0.0]}, "limit"),
        ({"times": [1.5]}, r"must lie in \(0, 1\]"),
        ({"times": [0.5, 0.5]}, "distinct"),
        ({"times": []}, "at least one"),
        ({"center": (7, 7)}, "reaches out of the 6x6 image"),
        ({"center": (2, 2, 2)}, "row, col"),
        ({"block": 9}, "from 1 to the image side 6"),
        ({"estimator": "magic"}, "known: density, mmse"),
        ({"estimator": "gaussian", "charm": 1}, "charm"),
        ({"data": IMAGES[:5]}, "at least 20 images"),
        ({"data": IMAGES * float("nan")}, "NaN"),
        ({"data": IMAGES[:, 0]}, "tensor"),
    ],
)
def test_bad_input_names_cause_and_mend(change, words):
    given = {"data": IMAGES, "radii": [1], "times": [0.5], **CALM, **change}
    with pytest.raises(PhasewiseError, match=words):
        cmi_map(given.pop("data"), given.pop("radii"), given.pop("times"), **given)


def test_at_t_one_the_value_is_zero_by_definition():
    found = cmi_map(IMAGES, [1, 2], [0.5, 1.0], **CALM)
    assert (found.value[1] == 0).all()
    assert (found.stderr[1] == 0).all()
    np.testing.assert_array_equal(found.value[0], cmi_map(IMAGES, [1, 2], [0.5], **CALM).value[0])
    assert (cmi_map(IMAGES, [1], [1.0], **CALM).value == 0).all()


def test_a_path_that_keeps_a_signal_is_measured_at_t_one_too():
    found = cmi_map(100 * IMAGES, [1], [1.0], path=VarianceExplodingPath(), **CALM)
    assert found.stderr[0, 0] > 0


def test_the_same_bytes_in_another_shape_are_another_question(tmp_path):
    Counting.broken, Counting.asked = None, []
    given = {"estimator": Counting(), "accuracy": 1.0, "folder": tmp_path, "center": (1, 2)}
    images = torch.randn(40, 1, 6, 6)
    cmi_map(images, [1], [0.5], **given)
    cmi_map(images.reshape(40, 1, 4, 9), [1], [0.5], **given)
    assert len(Counting.asked) == 2


def test_a_constant_pixel_is_said_to_be_one():
    images = IMAGES.clone()
    images[:, :, 2, 2] = 0.5
    with pytest.warns(PhasewiseWarning, match="zero entropy.*exactly 0"):
        found = cmi_map(images, [1], [0.5], accuracy=1.0)
    assert (found.value[0, 0], found.stderr[0, 0]) == (0.0, 0.0)
    with pytest.warns(PhasewiseWarning, match="1 of the 4 entries of A .* left out"):
        partly = cmi_map(images, [1], [0.5], block=2, **CALM)
    assert np.isfinite(partly.value).all()


def test_too_few_images_are_warned_of_with_the_error_to_expect():
    with pytest.warns(PhasewiseWarning, match=r"300 images give a standard error near 0\.018 .* needs about 4000"):
        cmi_map(IMAGES, [1], [0.5], estimator="gaussian", accuracy=0.005)


def test_positions_are_kept_and_averaged():
    several = cmi_map(IMAGES, [1], [0.4, 0.6], center=[(2, 2), (1, 3)], **CALM)
    parts = [cmi_map(IMAGES, [1], [0.4, 0.6], center=c, **CALM) for c in ((2, 2), (1, 3))]
    np.testing.assert_allclose(several.value, np.mean([p.value for p in parts], axis=0))
    assert [p["center"] for p in several.config["positions"]] == [[2, 2], [1, 3]]
    np.testing.assert_allclose(several.config["positions"][1]["value"], parts[1].value)
    again = CMIMap.from_dict(json.loads(several.to_json()))
    np.testing.assert_array_equal(again.value, several.value)


def test_image_data_and_tensor_agree():
    data = as_images(IMAGES)
    pooled = torch.cat([data.train, data.validation, data.test])
    np.testing.assert_array_equal(cmi_map(data, [1], [0.5], **CALM).value, cmi_map(pooled, [1], [0.5], **CALM).value)


def test_only_the_signal_to_noise_ratio_matters():
    linear = cmi_map(IMAGES, [1], [0.5], **CALM).value
    path = VarianceExplodingPath()
    t = float(path.t_of_log_snr(torch.tensor(0.0, dtype=torch.float64)))
    np.testing.assert_allclose(cmi_map(IMAGES, [1], [t], path=path, **CALM).value, linear, atol=1e-6)


def test_cells_done_before_a_failure_are_kept_and_not_asked_for_again(tmp_path):
    Counting.broken, Counting.asked = (1, 0), []
    given = {"estimator": Counting(), "accuracy": 1.0, "folder": tmp_path}
    with pytest.raises(PhasewiseError, match=r"t = 0\.6, r = 1"):
        cmi_map(IMAGES, [1, 2], [0.5, 0.6], **given)
    assert Counting.asked == [(0, 0), (0, 1)]
    Counting.broken = None
    found = cmi_map(IMAGES, [1, 2], [0.5, 0.6], **given)
    assert Counting.asked == [(0, 0), (0, 1), (1, 0), (1, 1)]
    np.testing.assert_allclose(found.value, [[10.5, 20.5], [10.6, 20.6]])
    assert found.n == 7
    cmi_map(IMAGES, [1, 2], [0.5, 0.6], seed=1, **given)
    assert len(Counting.asked) == 8, "another seed is another question"


def test_estimators_say_what_they_bound():
    for name in ESTIMATORS:
        estimator = make_estimator(name)
        assert estimator.name == name
        assert any(word in estimator.bound for word in ("upper", "lower", "neither"))
        assert (type(estimator).__doc__ or "").strip()
    with pytest.raises(PhasewiseError, match="to the estimator itself"):
        make_estimator(make_estimator("gaussian"), folds=2)


def test_an_estimator_of_ones_own_joins_by_name(monkeypatch):
    monkeypatch.setattr(ESTIMATORS, "_entries", dict(ESTIMATORS.items()))
    Counting.broken, Counting.asked = None, []
    with pytest.raises(PhasewiseError, match="unknown estimator 'counting'; known: density, mmse"):
        make_estimator("counting")
    assert register_estimator("counting", Counting) is Counting
    assert cmi_map(IMAGES, [1], [0.5], estimator="counting", accuracy=1.0).value[0, 0] == 10.5
    for name, kind, words in (
        ("other", Counting, "set name = 'other'"),
        ("mine", type("Mine", (Counting,), {"name": "mine"}), "named 'mine' already"),
        ("list", list, "derived from CMIEstimator"),
    ):
        with pytest.raises(PhasewiseError, match=words):
            register_estimator(name, kind)


def test_estimators_load_only_when_used():
    code = "import sys, phasewise.information; sys.exit('phasewise.information.knn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
