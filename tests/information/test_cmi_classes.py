r"""The class-conditional map: known answers, the formula, labels that do not fit, resuming.

Images ``x = s 1 + tau z`` with one sign s each: given s their pixels are independent, so I(A : C | B, s) = 0, while
without s the far pixels tell it.  On a path with levels alpha, sigma the noisy image is that of ``s 1`` alone at the
noise level ``sqrt(alpha^2 tau^2 + sigma^2)``, so :class:`exact.TwoMode` knows I(A : C | B).
"""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from phasewise import exact
from phasewise.data import ImageData
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.information import CMIEstimator, cmi_map
from phasewise.results import CMIMap, Estimate

TAU = 0.8
CALM = {"accuracy": 1.0, "estimator": "gaussian"}
FIELD = exact.GaussianField((6, 6), mass=0.2)


def two_signs(n: int, seed: int) -> tuple[exact.TwoMode, Tensor, Tensor]:
    """A chain of 5 pixels, ``n`` images of it, and the sign of each."""
    model = exact.TwoMode((1, 5))
    clean = model.sample(n, seed)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    return model, clean + TAU * noise, clean[:, 0, 0, 0].long()


def truth(model: exact.TwoMode, t: float, radius: int) -> float:
    sigma = math.hypot((1 - t) * TAU, t)
    return model.cmi(sigma / (1 - t + sigma), radius)


class PerClass(CMIEstimator):
    """Reads a hundredth of the mean of the images it is given, with error 0.1 r, and counts its calls."""

    name, bound = "per class", "neither"
    calls = 0

    def estimate(self, problem, cells, folder=None, say=print):
        for i, j in cells:
            PerClass.calls += 1
            yield (i, j), Estimate(float(problem.images.mean()) / 100, 0.1 * problem.radii[j], len(problem.images))


def labelled(counts: dict[int, int]) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 6, 6) of mean y in class y, in mixed order, with their labels."""
    labels = torch.cat([torch.full((k,), y) for y, k in counts.items()])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    noise = torch.randn((len(labels), 1, 6, 6), generator=torch.Generator().manual_seed(1))
    return labels[:, None, None, None] + noise - noise.mean((1, 2, 3), keepdim=True), labels


def test_far_pixels_tell_nothing_once_the_sign_is_given() -> None:
    model, images, signs = two_signs(2000, 0)
    given = {"estimator": "knn", "components": None, "accuracy": 1.0}
    alone, told = (cmi_map(images, [0, 1], [0.4], cond=cond, **given) for cond in (None, signs))
    known = [[truth(model, 0.4, r) for r in (0, 1)]]
    assert (np.abs(alone.value - known) < 3 * alone.stderr).all()
    assert alone.value[0, 0] > 5 * alone.stderr[0, 0]
    assert (np.abs(told.value) < 3 * told.stderr).all()
    gaussian = cmi_map(images, [1], [0.3], cond=signs, **CALM)
    assert abs(gaussian.value[0, 0]) < 3 * gaussian.stderr[0, 0] < 0.01


def test_labels_that_say_nothing_change_nothing() -> None:
    images = FIELD.sample(12_000, 0)
    labels = torch.arange(len(images)) % 3
    times = [0.6, 0.8]  # below, the covariance of fewer images costs more than the error (information.gaussian)
    alone, told = (cmi_map(images, [1, 2], times, cond=cond, **CALM) for cond in (None, labels))
    assert (np.abs(told.value - alone.value) < 2 * alone.stderr).all()
    known = [[FIELD.cmi(t, r) for r in (1, 2)] for t in times]
    assert (np.abs(told.value - known) < 4 * told.stderr).all()


def test_classes_are_averaged_by_their_shares() -> None:
    images, labels = labelled({0: 60, 1: 40, 7: 100})
    found = cmi_map(images, [1, 2], [0.4, 1.0], cond=labels, estimator=PerClass(), accuracy=1.0)
    np.testing.assert_allclose(found.value, [[0.002 * 1 + 0.005 * 7] * 2, [0, 0]], rtol=1e-5)
    root = math.sqrt(0.3**2 + 0.2**2 + 0.5**2)
    np.testing.assert_allclose(found.stderr, [[0.1 * root, 0.2 * root], [0, 0]])
    rows = found.config["classes"]
    assert [(row["class"], row["share"], row["n"]) for row in rows] == [(0, 0.3, 60), (1, 0.2, 40), (7, 0.5, 100)]
    np.testing.assert_allclose([row["value"][0][0] for row in rows], [0, 0.01, 0.07], atol=1e-7)
    assert (found.n, found.seed) == (200, 0)
    again = CMIMap.from_dict(json.loads(found.to_json()))
    np.testing.assert_array_equal(again.value, found.value)
    np.testing.assert_allclose(again.config["classes"][2]["stderr"], rows[2]["stderr"])


def test_the_labels_of_image_data_are_those_given_by_hand() -> None:
    images, labels = labelled({0: 80, 1: 70})
    cut = (90, 120)
    parts = [p for pair in zip(images.tensor_split(cut), labels.tensor_split(cut), strict=True) for p in pair]
    data = ImageData("signs", parts[0], parts[2], parts[4], parts[1], parts[3], parts[5])
    by_name, by_hand = (cmi_map(data, [1], [0.5], cond=cond, **CALM) for cond in ("labels", labels))
    np.testing.assert_array_equal(by_name.value, by_hand.value)
    assert by_name.config["classes"][1]["share"] == pytest.approx(70 / 150)
    apart = cmi_map(images, [1], [0.5], cond=labels.numpy(), **CALM)
    np.testing.assert_array_equal(by_name.value, apart.value)


def test_positions_are_averaged_class_by_class() -> None:
    images, labels = labelled({0: 80, 1: 70})
    centers = [(2, 2), (1, 3)]
    several = cmi_map(images, [1], [0.5], cond=labels, center=centers, **CALM)
    parts = [cmi_map(images, [1], [0.5], cond=labels, center=c, **CALM) for c in centers]
    np.testing.assert_allclose(several.value, np.mean([p.value for p in parts], axis=0))
    for k in (0, 1):
        mean = np.mean([p.config["classes"][k]["value"] for p in parts], axis=0)
        np.testing.assert_allclose(several.config["classes"][k]["value"], mean)
        one = several.config["positions"][1]["classes"][k]
        np.testing.assert_allclose(one["value"], parts[1].config["classes"][k]["value"])


def test_a_second_call_goes_on_from_the_classes_done_before(tmp_path) -> None:
    images, labels = labelled({0: 60, 1: 40})
    given = {"estimator": PerClass(), "accuracy": 1.0, "folder": tmp_path}
    PerClass.calls = 0
    first = cmi_map(images, [1, 2], [0.4], cond=labels, **given)
    assert PerClass.calls == 4
    second = cmi_map(images, [1, 2], [0.4], cond=labels, **given)
    assert PerClass.calls == 4
    np.testing.assert_array_equal(first.value, second.value)
    cmi_map(images, [1, 2], [0.4], **given)
    assert PerClass.calls == 6, "the map of all images is another question"


@pytest.mark.parametrize(
    ("cond", "words"),
    [
        ("signs", 'cond is "labels", or a tensor'),
        ("labels", "needs an ImageData with a label for every image"),
        (torch.zeros(99, dtype=torch.int64), r"whole numbers \(100,\).*got torch.int64 of shape \(99,\)"),
        (torch.zeros(100), "got torch.float32"),
        (torch.zeros(100, dtype=torch.bool), "got torch.bool"),
        (torch.arange(100) // 45, r"classes with fewer than 20 images \(class and number\): 2 \(10\); .*merge"),
        ([0] * 85 + [3] * 15, r"3 \(15\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(cond, words) -> None:
    with pytest.raises(PhasewiseError, match=words):
        cmi_map(FIELD.sample(100, 0), [1], [0.5], cond=cond, **CALM)


def test_what_goes_wrong_in_a_class_names_it() -> None:
    images, labels = labelled({0: 60, 4: 25})
    with pytest.raises(PhasewiseError, match="class 4: 3 folds leave under 10 of 25 images each"):
        cmi_map(images, [1], [0.5], cond=labels, accuracy=1.0, estimator="density", steps=1)
    images[labels == 4, :, 2, 2] = 0.5
    with pytest.warns(PhasewiseWarning, match=r"class 4: 1 of the 1 entries of A .* exactly 0"):
        found = cmi_map(images, [1], [0.5], cond=labels, **CALM)
    assert found.config["classes"][1]["value"][0][0] == 0
    assert found.config["classes"][0]["value"][0][0] != 0
