"""The classifier estimator: truth after a short training, and what calibration is for."""

from __future__ import annotations

import pytest
import torch

from phasewise.exact import TwoMode
from phasewise.information import make_problem
from phasewise.information.classifier import ClassifierEstimator

SMALL = {"steps": 120, "width": 8, "hidden": 32, "lr": 6e-3}


def test_log_odds_average_to_the_conditional_information() -> None:
    model = TwoMode((1, 5))
    problem = make_problem(model.sample(6000, 1), [0.5], [0])
    got = next(iter(ClassifierEstimator(**SMALL).estimate(problem, [(0, 0)])))[1]
    assert got.value == pytest.approx(model.cmi(0.5, 0), abs=0.02 + 3 * got.stderr)
    assert got.stderr < 0.03
    assert got.n == 3000


def test_calibration_turns_an_over_confident_classifier_down() -> None:
    images = torch.randn(60, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    problem = make_problem(images, [0.3], [0])
    scores = []
    for calibration in (0.0, 0.3):
        estimator = ClassifierEstimator(
            steps=120, lr=3e-3, refits=1, refresh_noise=False, calibration=calibration, train_fraction=0.5
        )
        readings = estimator._readings(problem, 0, None, estimator._split(problem), "")
        scores.append(float(readings.std()))
    assert scores[1] < 0.5 * scores[0]
