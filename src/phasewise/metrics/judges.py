"""Judges of samples: FID in features that a penalty may have used, FID in features none has, and a measure without any.

Schedules are chosen by penalties, one of which looks through the first judge's own features; a network can be fooled
where another is not.  So samples are shown to several judges at once, and two schedules count as equal only where no
judge tells them apart (:class:`phasewise.results.JudgesVerdict`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.metrics.feature_base import FeatureNetwork, a_feature_network
from phasewise.metrics.frechet import SQUARED, FrechetReference, frechet_draws
from phasewise.metrics.sliced import PIXELS, SlicedReference, sliced_draws
from phasewise.results import JudgeScore, JudgesVerdict
from phasewise.results.judges import weigh

FIRST, UNSEEN, SLICED = "first", "unseen", "sliced"
"""The judges a run has, by name: the features that penalties may use, those that none does, and no features at all."""
BY_SLICES = "sliced Wasserstein distance"


@runtime_checkable
class SampleJudge(Protocol):
    """Gives samples (N, C, H, W) a distance from real images, with the draws of a bootstrap seeded by ``seed``."""

    def score(self, images: Tensor, seed: int = 0) -> JudgeScore: ...


@dataclass(frozen=True)
class FrechetJudge:
    """Fréchet distance in the features of a network.  ``measure``: what it is called, else as the network says."""

    features: FeatureNetwork
    reference: FrechetReference
    measure: str = ""

    def __post_init__(self) -> None:
        checks.check_fields(self, features=a_feature_network, reference=a_reference)
        self.reference.check_network(self.features)

    @classmethod
    def of_images(cls, images: Tensor, features: FeatureNetwork, measure: str = "") -> FrechetJudge:
        """Against reference images (M, C, H, W)."""
        return cls(features, FrechetReference.of_images(images, features), measure)

    def score(self, images: Tensor, seed: int = 0) -> JudgeScore:
        """Of samples (N, C, H, W), N >= 8.  Raises :class:`PhasewiseError` on others."""
        return self.of_features(self.features.extract(images), seed)

    def of_features(self, seen: Tensor, seed: int = 0) -> JudgeScore:
        """The same from the samples' features (N, D)."""
        value, draws = frechet_draws(seen, self.reference, seed)
        return JudgeScore(
            measure=self.measure or self.features.distance, value=value, stderr=float(draws.std()), n=len(seen),
            reference_n=self.reference.n, seed=seed, unit=SQUARED, features=self.features.name,
            draws=tuple(draws.tolist()),
        )  # fmt: skip


@dataclass(frozen=True)
class SlicedJudge:
    """Sliced Wasserstein distance of the pixels: no network (:func:`phasewise.metrics.sliced_wasserstein`)."""

    reference: SlicedReference

    def __post_init__(self) -> None:
        checks.check_fields(self, reference=checks.made(SlicedReference, "a SlicedReference"))

    @classmethod
    def of_images(cls, images: Tensor, atoms: int | None = None) -> SlicedJudge:
        """Against reference images (M, C, H, W); ``atoms``: see :meth:`SlicedReference.of_images`."""
        return cls(SlicedReference.of_images(images, atoms=atoms))

    def score(self, images: Tensor, seed: int = 0) -> JudgeScore:
        """Of samples (N, C, H, W), N >= 8.  Raises :class:`PhasewiseError` on others."""
        value, draws = sliced_draws(images, self.reference, seed)
        return JudgeScore(
            measure=BY_SLICES, value=value, stderr=float(draws.std()), n=len(images), reference_n=self.reference.n,
            seed=seed, unit=PIXELS, draws=tuple(draws.tolist()),
        )  # fmt: skip


a_reference = checks.made(FrechetReference, "a FrechetReference", "make one by FrechetReference.of_images")
a_judge = checks.made(SampleJudge, "a judge", "take run.judges(), or make a FrechetJudge or SlicedJudge of images")


def unseen_measure(features: FeatureNetwork) -> str:
    """What the distance in the features that no penalty sees is called."""
    return f"unseen {features.distance}"


def judged(images: Tensor, judges: Mapping[str, SampleJudge], seed: int = 0) -> dict[str, JudgeScore]:
    """The scores of samples (N, C, H, W) by every judge, by the judge's name."""
    return {name: judge.score(images, seed) for name, judge in judges.items()}


@checks.checked(
    first=checks.images,
    second=checks.images,
    judges=checks.by_name(a_judge),
    seed=checks.seed,
    names=checks.each(checks.text, size=2),
)
def verdict(
    first: Tensor,
    second: Tensor,
    judges: Mapping[str, SampleJudge],
    seed: int = 0,
    names: tuple[str, str] = ("first", "second"),
) -> JudgesVerdict:
    """What ``judges`` say of samples ``first`` against ``second``, both (N, C, H, W), row i of both from one noise.

    Equal only if all agree: ``.outcome`` is "level" where no judge tells the two apart, else "lower" or "higher" (the
    distance of the first: lower is better), or "split" where judges contradict each other.  ``.sentence()`` says it
    with the difference that so many samples could have shown.

    Each judge tells at two standard errors, so of two equal samplers each calls one in twenty apart by chance; three
    judges together up to one in seven.

    Args:
        judges: by name, such as ``{"first": FrechetJudge(..), "sliced": SlicedJudge(..)}``.
        seed: of the bootstrap, which draws the same rows of both.
        names: what the two are called in words.

    Raises :class:`PhasewiseError` where the sets differ in shape, there are no judges, or fewer than 8 samples.
    """
    if first.shape != second.shape:
        raise PhasewiseError(
            f"samples from the same noise have one shape, here are {tuple(first.shape)} and {tuple(second.shape)}; "
            "sample both with the same n and seed"
        )
    return weigh(judged(first, judges, seed), judged(second, judges, seed), names)
