"""Judges without the first's features: sliced distance, two-sample classifier, and a verdict over several judges."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.metrics import (
    FrechetJudge,
    RandomFeatures,
    SlicedJudge,
    SlicedReference,
    classifier_two_sample,
    frechet_difference,
    frechet_score,
    sliced_wasserstein,
    verdict,
)
from phasewise.metrics.sliced import sliced_draws
from phasewise.results import JudgeScore, JudgesVerdict

SHAPE = (1, 4, 5)
seeds = st.integers(0, 10_000)


def noise(n: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed)) + shift


def sliced(a: Tensor, b: Tensor) -> float:
    return sliced_wasserstein(a, b, directions=16, resamples=2).value


# --- sliced Wasserstein ---------------------------------------------------------------------------------------------


@given(seeds, st.integers(8, 40), st.integers(8, 40), st.integers(8, 40))
@settings(max_examples=20, deadline=None)
def test_sliced_distance_is_a_metric(seed: int, n: int, m: int, k: int) -> None:
    a, b, c = noise(n, seed), noise(m, seed + 1, 0.3), noise(k, seed + 2, -0.2)
    assert sliced(a, a) == 0
    assert sliced(a, a[torch.randperm(n)]) == pytest.approx(0, abs=1e-6)
    assert sliced(a, b) == pytest.approx(sliced(b, a), rel=1e-5)
    assert sliced(a, c) <= (sliced(a, b) + sliced(b, c)) * (1 + 1e-5)
    assert sliced(torch.cat([a, a]), b) == pytest.approx(sliced(a, b), rel=1e-4), "a set counted twice is the same"


def test_on_one_pixel_it_is_the_distance_of_sorted_values() -> None:
    a, b = (torch.rand(30, 1, 1, 1, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    apart = a.flatten().sort().values - b.flatten().sort().values
    assert sliced(a, b) == pytest.approx(float(apart.square().mean().sqrt()), rel=1e-5)


def test_a_shift_shows_as_far_as_directions_see_it() -> None:
    """|s|^2 E (v . e)^2 = |s|^2 / d for a shift of every pixel by s / sqrt(d)."""
    a = noise(50, 0)
    found = [sliced_wasserstein(a, a + shift, directions=2000, resamples=2).value for shift in (0.1, 0.2)]
    assert found[1] == pytest.approx(2 * found[0], rel=1e-4)
    assert found[0] == pytest.approx(0.1, rel=0.05)


def test_its_error_is_the_spread_over_samples() -> None:
    reference = SlicedReference.of_images(noise(3000, 0, 0.1), directions=16)
    drawn = [sliced_wasserstein(noise(200, k), reference, resamples=20) for k in range(1, 41)]
    spread = float(torch.tensor([e.value for e in drawn]).std())
    assert sum(e.stderr for e in drawn) / len(drawn) == pytest.approx(spread, rel=0.35)
    assert drawn[0] == sliced_wasserstein(noise(200, 1), reference, resamples=20), "the same seed, the same numbers"


def test_a_kept_reference_is_nearly_the_images_and_comes_back(tmp_path: Path) -> None:
    images, samples = noise(2000, 0), noise(300, 1, 0.2)
    kept = SlicedReference.of_images(images, directions=16, atoms=100)
    assert kept.points.shape == (16, 100)
    assert sliced_wasserstein(samples, kept).value == pytest.approx(sliced(samples, images), rel=1e-2)
    again = SlicedReference.load(kept.save(tmp_path / "kept.safetensors"))
    assert sliced_draws(samples, again, 3)[0] == sliced_draws(samples, kept, 3)[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": "5"}, "directions of this seed are others"),
        ({"image_shape": "1,4,6"}, "directions of this seed are others"),
        ({"image_shape": "1,4"}, "holds no sliced reference"),
        ({"image_shape": "1,400000,400000"}, "for images of shape"),
        ({"n": "0"}, "n = 0"),
    ],
)
def test_a_changed_reference_is_refused(tmp_path: Path, change: dict[str, str], said: str) -> None:
    kept = SlicedReference.of_images(noise(20, 0), directions=4)
    about = {"n": "20", "seed": "0", "image_shape": "1,4,5"} | change
    (tmp_path / "x").write_bytes(safetensors.torch.save({"points": kept.points, "sums": kept.sums}, about))
    with pytest.raises(CheckpointError, match=said):
        SlicedReference.load(tmp_path / "x")


# --- a classifier as two-sample test --------------------------------------------------------------------------------


def test_equal_sets_are_not_told_apart_and_a_shift_is() -> None:
    """Over seeds the accuracy on one distribution spreads about 1/2 as its error says."""
    null = [classifier_two_sample(noise(300, k), noise(300, k + 50), seed=k, epochs=3) for k in range(5)]
    scores = torch.tensor([(t.accuracy - 0.5) / t.stderr for t in null])
    assert abs(float(scores.mean())) < 1.4
    assert float(scores.abs().max()) < 3.5
    small, large = (classifier_two_sample(noise(300, 0), noise(300, 1, s), epochs=5) for s in (0.05, 0.3))
    assert 0.5 < small.accuracy < large.accuracy
    assert large.p_value < 1e-6 < null[0].p_value
    assert large == classifier_two_sample(noise(300, 0), noise(300, 1, 0.3), epochs=5)


def test_it_looks_through_features_and_takes_as_many_of_each() -> None:
    features = RandomFeatures(SHAPE, dim=8)
    a, b = noise(64, 0), noise(200, 1, 0.3)
    through, rows = (
        classifier_two_sample(a, b, features, epochs=3),
        classifier_two_sample(features.extract(a), features.extract(b), epochs=3),
    )
    assert through == rows
    assert through.n == 64, "half of 64 from either set"


# --- several judges -------------------------------------------------------------------------------------------------


def judges() -> dict[str, FrechetJudge | SlicedJudge]:
    images = noise(500, 9)
    frechet = {f"f{k}": FrechetJudge.of_images(images, RandomFeatures(SHAPE, k, 6), f"distance {k}") for k in (0, 1)}
    return {**frechet, "sliced": SlicedJudge.of_images(images)}


def test_a_judge_gives_the_scores_and_paired_differences_of_its_measure() -> None:
    judge = judges()["f0"]
    assert isinstance(judge, FrechetJudge)
    a, b = noise(60, 1, 0.1), noise(60, 1)
    first, second = judge.score(a, seed=4), judge.score(b, seed=4)
    seen = [judge.features.extract(x) for x in (a, b)]
    known = frechet_score(seen[0], judge.reference, seed=4)
    assert (first.value, first.stderr) == pytest.approx((known.value, known.stderr))
    paired, minus = frechet_difference(*seen, judge.reference, seed=4), first.minus(second)
    assert (minus.difference, minus.stderr) == pytest.approx((paired.value, paired.stderr))
    alone = first.minus(judge.score(b, seed=5))
    assert alone.stderr == pytest.approx((first.stderr**2 + judge.score(b, seed=5).stderr ** 2) ** 0.5)


def test_samples_are_equal_only_where_no_judge_tells_them_apart() -> None:
    panel, a = judges(), noise(200, 1)
    itself = verdict(a, a, panel)
    assert itself.outcome == "level"
    assert (itself.difference == 0).all()
    assert "no judge tells them apart" in itself.sentence()
    worse = verdict(a + 0.2, a, panel, names=("shifted", "plain"))
    assert worse.outcome == "higher"
    assert worse.sentence().startswith("shifted against plain: higher")
    assert verdict(a, a + 0.2, panel).outcome == "lower"
    assert JudgesVerdict.from_dict(worse.to_dict()).table() == worse.table()


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [((0, 0), "level"), ((-9, 0), "lower"), ((0, 9), "higher"), ((-9, -9), "lower"), ((-9, 9), "split")],
)
def test_one_judge_is_enough_and_contradiction_is_said(differences: tuple[int, int], outcome: str) -> None:
    found = JudgesVerdict("a", "b", ("FID", "unseen FID"), list(differences), [1.0, 1.0], [20.0, 0.0], 500)  # type: ignore[arg-type]
    assert found.outcome == outcome
    said = found.sentence()
    assert ("500 samples tell 2.8 or more" in said) == (0 in differences), "what could have been told stands beside it"
    assert ("the judges disagree" in said) == (outcome == "split")


def test_scores_of_different_judges_are_not_compared() -> None:
    score = JudgeScore("FID", 1.0, 0.1, 100, 1000, features="one")
    with pytest.raises(PhasewiseError, match="judge both by the same"):
        score.minus(JudgeScore("FID", 1.0, 0.1, 100, 1000, features="another"))


def test_what_cannot_be_judged_is_said() -> None:
    a, panel = noise(20, 0), judges()
    with pytest.raises(PhasewiseError, match="have one shape"):
        verdict(a, a[:10], panel)
    with pytest.raises(PhasewiseError, match="judges is empty: give at least one"):
        verdict(a, a, {})
    with pytest.raises(PhasewiseError, match="at least 8 samples"):
        verdict(a[:4], a[:4], {"sliced": panel["sliced"]})
    with pytest.raises(PhasewiseError, match="at least 16 rows of one size"):
        classifier_two_sample(a[:5], a)
    with pytest.raises(PhasewiseError, match="do not fit"):
        sliced_wasserstein(a, torch.rand(20, 1, 3, 3))
