from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from phasewise import fit
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.metrics import (
    ClassifierFeatures,
    InceptionFeatures,
    PCAFeatures,
    RandomFeatures,
    classifier_summary,
    default_features,
    fid,
    frechet_distance,
    inception_features,
    train_classifier,
    unseen_features,
)
from phasewise.metrics.classifier import random_shift
from phasewise.metrics.features import kept_name


@dataclass(frozen=True)
class Images:
    """What the features need of a data set."""

    train: Tensor
    test: Tensor
    labels_train: Tensor | None
    labels_test: Tensor | None
    name: str = "digits"
    fingerprint: str = "0123456789abcdef"
    pixel_range: tuple[float, float] = (0.0, 1.0)

    @property
    def image_shape(self) -> tuple[int, ...]:
        return tuple(self.train.shape[1:])


@pytest.fixture(scope="module")
def digits() -> Images:
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(found.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[:1257], order[1257:]
    return Images(images[train], images[test], labels[train], labels[test])


@pytest.fixture(scope="module")
def classifier(digits: Images) -> ClassifierFeatures:
    return train_classifier(digits, seed=0, epochs=5)


@pytest.fixture
def few(digits: Images) -> Images:
    return replace(digits, train=digits.train[:200], labels_train=digits.labels_train[:200])


def test_classifier_learns_the_digits_and_says_how_well(classifier: ClassifierFeatures, digits: Images) -> None:
    assert classifier.test_accuracy is not None
    assert 0.97 <= classifier.test_accuracy < 1
    assert classifier.test_accuracy == classifier.accuracy(digits.test, digits.labels_test, batch=100)
    assert "digits" in classifier.name
    assert f"{100 * classifier.test_accuracy:.2f} %" in classifier.name


def test_features_have_unit_mean_variance_over_the_training_images(
    classifier: ClassifierFeatures, digits: Images
) -> None:
    features = classifier.extract(digits.train)
    assert features.shape == (1257, 64)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert float(features.double().var(0).mean()) == pytest.approx(1, rel=1e-5)


def test_features_do_not_depend_on_batch_size_or_layout(classifier: ClassifierFeatures, digits: Images) -> None:
    images = digits.test[:50]
    whole = classifier.extract(images)
    for batch in (1, 7, 50):
        torch.testing.assert_close(classifier.extract(images, batch), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(classifier.extract(images.flip(0)).flip(0), whole, rtol=1e-5, atol=1e-5)
    strided = images.repeat(1, 2, 1, 1)[:, ::2]
    torch.testing.assert_close(classifier.extract(strided), whole, rtol=1e-5, atol=1e-5)


def test_extraction_is_in_evaluation_mode_and_puts_the_mode_back(few: Images) -> None:
    network = train_classifier(few, epochs=1)
    expected = network.extract(few.test)
    network.train()
    assert torch.equal(network.extract(few.test), expected)
    assert network.training


def test_save_and_load_give_the_same_bits(classifier: ClassifierFeatures, digits: Images, tmp_path: Path) -> None:
    loaded = ClassifierFeatures.load(classifier.save(tmp_path / "features"))
    assert torch.equal(loaded.extract(digits.test), classifier.extract(digits.test))
    assert loaded.config() == classifier.config()
    assert (loaded.name, loaded.test_accuracy) == (classifier.name, classifier.test_accuracy)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_damaged_files_are_named(classifier: ClassifierFeatures, tmp_path: Path) -> None:
    folder = classifier.save(tmp_path)
    weights, config = folder / "features.safetensors", folder / "features.json"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\0\1\2\3")
    with pytest.raises(CheckpointError, match="does not belong"):
        ClassifierFeatures.load(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match="train the features again"):
        ClassifierFeatures.load(folder)
    weights.write_bytes(content)
    described = json.loads(config.read_text())
    config.write_text(json.dumps({**described, "width": 16}))
    with pytest.raises(CheckpointError, match="train the features again"):
        ClassifierFeatures.load(folder)
    config.write_text(json.dumps({**described, "format": 0}))
    with pytest.raises(CheckpointError, match="another version"):
        ClassifierFeatures.load(folder)


def test_training_is_fixed_by_the_seed_and_leaves_the_random_state_alone(few: Images) -> None:
    state = torch.get_rng_state()
    calls: list[tuple[int, int]] = []
    first = train_classifier(few, seed=1, epochs=2, progress=lambda done, total: calls.append((done, total)))
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    again, other = train_classifier(few, seed=1, epochs=2), train_classifier(few, seed=2, epochs=2)
    assert torch.equal(first.extract(few.test), again.extract(few.test))
    assert not torch.equal(first.extract(few.test), other.extract(few.test))
    assert calls == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 27, 27), (2, 5, 9)])
def test_other_image_sizes_train_too(shape: tuple[int, int, int]) -> None:
    images = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 2
    images[labels == 1] = images[labels == 1].roll(1, 2) * 0.5
    network = train_classifier(Images(images, images, labels, labels), epochs=10)
    assert network.extract(images).shape == (40, 64)
    assert network.test_accuracy is not None
    assert network.test_accuracy > 0.9


def test_distance_orders_samplers_as_the_eye_does(classifier: ClassifierFeatures, digits: Images) -> None:
    g = torch.Generator().manual_seed(0)
    noise = torch.rand(540, 1, 8, 8, generator=g)
    grainy = digits.test + 0.2 * torch.randn(digits.test.shape, generator=g)
    missing = digits.test[digits.labels_test != 3]
    collapsed = digits.test[:1].repeat(540, 1, 1, 1)
    real, lost, rough, one, none = (
        fid(x, digits.train, classifier).value for x in (digits.test, missing, grainy, collapsed, noise)
    )
    assert real < lost < min(one, none)
    assert real < 0.3 * rough
    assert one > 30


def test_summary_counts_missing_classes_and_doubt(classifier: ClassifierFeatures, digits: Images) -> None:
    real = classifier_summary(digits.test, classifier)
    assert "class_seen" not in real
    told = classifier_summary(digits.test, classifier, labels=digits.labels_test)
    assert told == {**real, "class_seen": classifier.accuracy(digits.test, digits.labels_test)}
    assert real["confidence"] > 0.9
    assert math.log(10) - 0.1 < real["histogram_entropy"] <= math.log(10)
    ones = classifier_summary(digits.test[digits.labels_test == 1], classifier)
    assert ones["histogram_entropy"] < 0.3
    noise = classifier_summary(torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0)), classifier)
    assert noise["confidence"] < real["confidence"]
    assert noise["entropy"] > real["entropy"]
    assert sum(noise["histogram"]) == pytest.approx(1)


def test_random_shift_moves_whole_images() -> None:
    image = torch.zeros(64, 1, 9, 9)
    image[:, 0, 4, 4] = 1
    moved = random_shift(image, 2, torch.Generator().manual_seed(0))
    places = moved.flatten(1).argmax(1)
    assert torch.equal(moved.flatten(1).sum(1), torch.ones(64))
    assert {int(p) // 9 for p in places} == {int(p) % 9 for p in places} == {2, 3, 4, 5, 6}


def test_principal_components_keep_all_distances_when_complete(digits: Images) -> None:
    """With every component kept the map is an isometry, so the distance is that of the raw pixels."""
    network = PCAFeatures.fit(digits.train, dim=64)
    a, b = digits.test[:270], digits.test[270:]
    pixels = [x.flatten(1).double() for x in (a, b)]
    raw = frechet_distance(pixels[0].mean(0), pixels[0].T.cov(), pixels[1].mean(0), pixels[1].T.cov())
    assert fid(a, b, network).value == pytest.approx(raw, rel=1e-4)
    assert "not FID" in network.name


def test_principal_components_are_the_leading_eigenvectors(digits: Images) -> None:
    network = PCAFeatures.fit(digits.train, dim=5)
    variances = network.extract(digits.train).double().var(0)
    expected = torch.linalg.eigvalsh(digits.train.flatten(1).double().T.cov()).flip(0)[:5]
    torch.testing.assert_close(variances, expected, rtol=1e-4, atol=0)
    assert PCAFeatures.fit(digits.train[:9]).dim == 8


def test_random_features_are_fixed_by_their_seed(digits: Images) -> None:
    a, b = RandomFeatures((1, 8, 8), seed=3), RandomFeatures((1, 8, 8), seed=3)
    assert torch.equal(a.extract(digits.test), b.extract(digits.test))
    assert not torch.equal(a.extract(digits.test), RandomFeatures((1, 8, 8), seed=4).extract(digits.test))
    assert a.extract(digits.test).shape == (540, 64)
    assert "not FID" in a.name
    noise = torch.rand(540, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert fid(digits.test, digits.train, a).value < 0.1 * fid(noise, digits.train, a).value
    signed = RandomFeatures((1, 8, 8), seed=3, pixel_range=(-1, 1)).extract(2 * digits.test - 1)
    torch.testing.assert_close(signed, a.extract(digits.test), rtol=1e-5, atol=1e-5)
    assert RandomFeatures((3, 64, 64)).extract(torch.rand(2, 3, 64, 64)).shape == (2, 64)


def test_default_trains_once_and_finds_its_classifier_again(few: Images, tmp_path: Path) -> None:
    calls: list[int] = []
    few = replace(few, train=few.train[:100], labels_train=few.labels_train[:100])
    first = default_features(few, seed=0, cache_dir=tmp_path, progress=lambda done, total: calls.append(done))
    trained = len(calls)
    again = default_features(few, seed=0, cache_dir=tmp_path, progress=lambda done, total: calls.append(done))
    assert trained > 0
    assert len(calls) == trained
    assert torch.equal(first.extract(few.test), again.extract(few.test))


CUT = 8
"""Step that is cut off: of passes of two steps, the one before ends none."""


def test_a_classifier_whose_training_was_cut_off_goes_on(
    few: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "EVERY_S", 0.0)
    few = replace(few, train=few.train[:150], labels_train=few.labels_train[:150])
    seen: list[int] = []

    def cut(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == CUT:  # before its snapshot, whose pass is half done
            raise KeyboardInterrupt

    whole = default_features(few, seed=0)
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        default_features(few, seed=0, cache_dir=tmp_path, progress=cut)
    found = default_features(few, seed=0, cache_dir=tmp_path, progress=cut)
    assert seen == [*range(1, CUT + 1), *range(CUT, max(seen) + 1)], "the step that was cut is taken again"
    assert torch.equal(torch.get_rng_state(), before), "the caller's random state"
    assert torch.equal(found.extract(few.test), whole.extract(few.test))
    (folder,) = tmp_path.iterdir()
    assert {file.name for file in folder.iterdir()} == {"features.json", "features.safetensors"}


def test_colour_images_are_judged_by_two_architectures_the_residual_one_first(few: Images, tmp_path: Path) -> None:
    tint = torch.tensor([1.0, 0.7, 0.4]).reshape(1, 3, 1, 1)
    parts = {k: getattr(few, k)[:60] * tint for k in ("train", "test")}
    labels = {f"labels_{k}": getattr(few, f"labels_{k}")[:60] for k in parts}
    colour = replace(few, **parts, **labels)
    first, unseen = default_features(colour, cache_dir=tmp_path), unseen_features(colour, cache_dir=tmp_path)
    assert isinstance(first, ClassifierFeatures)
    assert isinstance(unseen, ClassifierFeatures)
    assert (first.architecture, first.width) == ("residual", 32)
    assert (unseen.architecture, unseen.width) == ("plain", 64)
    kept = {kept_name(colour.fingerprint, 3, 0, unseen) for unseen in (False, True)}
    assert kept == {folder.name for folder in tmp_path.iterdir()}


def test_default_without_labels_is_plainly_named(digits: Images) -> None:
    assert isinstance(default_features(replace(digits, labels_train=None)), PCAFeatures)
    assert isinstance(default_features(digits.train), PCAFeatures)
    one_class = replace(digits, labels_train=torch.zeros(1257, dtype=torch.int64))
    assert isinstance(default_features(one_class), PCAFeatures)


class Bytes(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return images.float().mean((2, 3))


def test_inception_sees_bytes_in_three_channels() -> None:
    network = InceptionFeatures(Bytes(), pixel_range=(-1, 1), dim=3)
    images = torch.tensor([-1.0, 0.0, 0.6, 1.0, 1.5]).reshape(5, 1, 1, 1).expand(5, 1, 2, 2)
    assert network.extract(images).tolist() == [[value] * 3 for value in (0.0, 128.0, 204.0, 255.0, 255.0)]


def test_missing_inception_weights_are_explained(tmp_path: Path) -> None:
    with pytest.raises(PhasewiseError, match="default_features"):
        inception_features(tmp_path / "absent.pth")


def test_bad_input_is_refused_with_a_mend(classifier: ClassifierFeatures, digits: Images) -> None:
    with pytest.raises(PhasewiseError, match=r"PCAFeatures\.fit"):
        train_classifier(replace(digits, labels_train=None))
    with pytest.raises(PhasewiseError, match="all training labels are equal"):
        train_classifier(replace(digits, labels_train=torch.ones(1257, dtype=torch.int64)))
    with pytest.raises(PhasewiseError, match="one per training image"):
        train_classifier(replace(digits, labels_train=digits.labels_train[:5]))
    with pytest.raises(PhasewiseError, match="constant"):
        train_classifier(replace(digits, train=torch.zeros_like(digits.train)))
    with pytest.raises(PhasewiseError, match="epochs"):
        train_classifier(digits, epochs=0)
    with pytest.raises(PhasewiseError, match="do not fit"):
        classifier.extract(torch.zeros(2, 1, 9, 9))
    with pytest.raises(PhasewiseError, match="2 of 3 images"):
        classifier.extract(torch.stack([torch.zeros(1, 8, 8), *[torch.full((1, 8, 8), math.nan)] * 2]))
    with pytest.raises(PhasewiseError, match="floating point"):
        classifier.extract(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(PhasewiseError, match="batch"):
        classifier.extract(digits.test, batch=0)
