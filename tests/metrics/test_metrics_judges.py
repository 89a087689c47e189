"""Classifiers of other architectures: they learn, are kept whole, and never pass for each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import phasewise as pw
from phasewise.errors import PhasewiseError
from phasewise.metrics import ClassifierFeatures, train_classifier
from phasewise.metrics.classifier import TRUNKS

OTHERS = [name for name in TRUNKS if name != "plain"]


@pytest.mark.parametrize("architecture", OTHERS)
def test_it_learns_and_comes_back_from_disk(architecture: str, tmp_path: Path) -> None:
    data = pw.load_images("digits")
    judge = train_classifier(data, epochs=5, architecture=architecture)
    assert judge.test_accuracy is not None
    assert judge.test_accuracy > 0.8
    assert judge.name.startswith(f"{architecture} classifier")
    judge.save(tmp_path)
    again = ClassifierFeatures.load(tmp_path)
    assert again.architecture == architecture
    assert torch.equal(again.extract(data.test[:20]), judge.extract(data.test[:20]))
    assert again.digest() == judge.digest()


@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 28, 28), (3, 50, 40), (3, 128, 128)])
@pytest.mark.parametrize("architecture", TRUNKS)
def test_any_image_size_goes_through(architecture: str, shape: tuple[int, int, int]) -> None:
    network = ClassifierFeatures(shape, 4, width=8, dim=16, architecture=architecture).eval()
    assert network.penultimate(torch.rand(2, *shape)).shape == (2, 16)


def test_mirrored_images_teach_that_a_mirror_image_is_the_same() -> None:
    data = pw.load_images("digits", limit=400)
    gaps = []
    for flip in (False, True):
        judge = train_classifier(data, epochs=8, flip=flip)
        straight, turned = (judge.probabilities(x) for x in (data.test, data.test.flip(3)))
        gaps.append(float((straight - turned).abs().mean()))
    assert gaps[1] < 0.7 * gaps[0]


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(PhasewiseError, match="plain, residual, mixer"):
        ClassifierFeatures((1, 8, 8), 2, architecture="deep")
