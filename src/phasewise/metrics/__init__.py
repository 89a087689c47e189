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
from phasewise.metrics.manifold import precision_recall
from phasewise.metrics.paired import PairedTest, paired_difference_test, paired_error

__all__ = [
    "ClassifierFeatures",
    "FeatureNetwork",
    "FrechetReference",
    "FrechetScore",
    "InceptionFeatures",
    "PCAFeatures",
    "PairedTest",
    "RandomFeatures",
    "classifier_summary",
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
    "train_classifier",
]
