"""How good samples are and what they cost: distances in a named feature space, paired errors, FLOPs, milliseconds."""

from __future__ import annotations

from phasewise.metrics.classifier import ClassifierFeatures, classifier_summary, train_classifier
from phasewise.metrics.cost import count_flops, measure_ms
from phasewise.metrics.feature_base import FeatureNetwork
from phasewise.metrics.features import (
    InceptionFeatures,
    PCAFeatures,
    RandomFeatures,
    default_features,
    inception_features,
    unseen_features,
)
from phasewise.metrics.frechet import (
    FrechetReference,
    FrechetScore,
    fid,
    frechet_difference,
    frechet_distance,
    frechet_score,
    kid,
    paired_frechet,
    polynomial_mmd,
)
from phasewise.metrics.judges import FrechetJudge, SampleJudge, SlicedJudge, verdict
from phasewise.metrics.manifold import precision_recall
from phasewise.metrics.paired import PairedTest, paired_difference_test, paired_error
from phasewise.metrics.sliced import SlicedReference, sliced_wasserstein
from phasewise.metrics.two_sample import TwoSampleTest, classifier_two_sample

__all__ = [
    "ClassifierFeatures",
    "FeatureNetwork",
    "FrechetJudge",
    "FrechetReference",
    "FrechetScore",
    "InceptionFeatures",
    "PCAFeatures",
    "PairedTest",
    "RandomFeatures",
    "SampleJudge",
    "SlicedJudge",
    "SlicedReference",
    "TwoSampleTest",
    "classifier_summary",
    "classifier_two_sample",
    "count_flops",
    "default_features",
    "fid",
    "frechet_difference",
    "frechet_distance",
    "frechet_score",
    "inception_features",
    "kid",
    "measure_ms",
    "paired_difference_test",
    "paired_error",
    "paired_frechet",
    "polynomial_mmd",
    "precision_recall",
    "sliced_wasserstein",
    "train_classifier",
    "unseen_features",
    "verdict",
]
