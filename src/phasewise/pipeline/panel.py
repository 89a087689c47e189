"""The judges of a run: their networks taken, trained or fitted, and what they compare samples with, kept there."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from phasewise.data import ImageData
from phasewise.errors import CheckpointError
from phasewise.metrics import (
    ClassifierFeatures,
    FeatureNetwork,
    FrechetJudge,
    FrechetReference,
    SampleJudge,
    SlicedJudge,
    SlicedReference,
    default_features,
    unseen_features,
)
from phasewise.metrics.classifier import CONFIG_FILE, UNFINISHED_FILE
from phasewise.metrics.features import kept_name
from phasewise.metrics.judges import FIRST, SLICED, UNSEEN, unseen_measure
from phasewise.metrics.sliced import ATOMS
from phasewise.pretrained.sets import AGAIN, shipped_judges
from phasewise.runs.config import RunConfig
from phasewise.runs.run import Run

SHIPPED = ("auto", "classifier")
"""Kinds of features under which a run takes the classifiers that come with the package for its images."""
OWN = (CONFIG_FILE, UNFINISHED_FILE)
"""What a run's own classifier has in its folder: one of these."""


def first_network(run: Run, data: ImageData, config: RunConfig) -> FeatureNetwork:
    """The feature network of the first judge and of the penalty: from the run, shipped with the package, or made."""
    take_shipped(run, data, config)
    return default_features(
        data, seed=config.data.seed, cache_dir=run.path("networks"), device=config.machine.device,
        kind=config.features.features,
    )  # fmt: skip


def second_network(run: Run, data: ImageData, config: RunConfig) -> FeatureNetwork | None:
    """The feature network that no penalty sees, as :func:`first_network`; None where the run leaves it out."""
    if not config.features.unseen:
        return None
    take_shipped(run, data, config)
    return unseen_features(
        data, seed=config.data.seed, cache_dir=run.path("networks"), device=config.machine.device,
        kind=config.features.features,
    )  # fmt: skip


def take_shipped(run: Run, data: ImageData, config: RunConfig) -> bool:
    """Put the classifiers that come with the package for these images where the run keeps its own; whether any was.

    None is where the run has one there, finished or not, or asks for features of another kind.  Raises
    :class:`CheckpointError` where the package is damaged; then nothing was put.
    """
    if config.features.features not in SHIPPED:
        return False
    about = data.fingerprint, data.image_shape[0], config.data.seed
    places = [run.path("networks", kept_name(*about, unseen)) for unseen in (False, True)]
    missing = [k for k, place in enumerate(places) if not any((place / file).is_file() for file in OWN)]
    shipped = shipped_judges(*about) if missing else None
    if shipped is None:
        return False
    found = {k: _load_shipped(shipped[k]) for k in missing}
    for k, network in found.items():
        network.save(places[k])
    return True


def lone_network(data: ImageData, seed: int, device: str) -> FeatureNetwork:
    """The first judge's feature network where no run keeps one: shipped with the package for these images, or made.

    Raises :class:`CheckpointError` where the package is damaged.
    """
    shipped = shipped_judges(data.fingerprint, data.image_shape[0], seed)
    if shipped is None:
        return default_features(data, seed=seed, device=device)
    return _load_shipped(shipped[0]).to(device)


def _load_shipped(folder: Path) -> ClassifierFeatures:
    try:
        return ClassifierFeatures.load(folder)
    except CheckpointError as error:
        raise CheckpointError(f"a judge that comes with phasewise is damaged ({error}); {AGAIN}") from error


def run_judges(
    run: Run, data: ImageData, features: FeatureNetwork, second: FeatureNetwork | None
) -> dict[str, SampleJudge]:
    """Every judge of the run by name, the first in ``features``, the unseen one in ``second`` where there is one."""
    judges: dict[str, SampleJudge] = {FIRST: _frechet(run, data, features, FIRST, features.distance)}
    if second is not None:
        judges[UNSEEN] = _frechet(run, data, second, UNSEEN, unseen_measure(second))
    judges[SLICED] = _sliced(run, data)
    return judges


def _frechet(run: Run, data: ImageData, features: FeatureNetwork, name: str, measure: str) -> FrechetJudge:
    file, reference = run.moments(name), None
    with suppress(CheckpointError):  # a damaged one is made again
        reference = FrechetReference.load(file) if file.is_file() else None
    if reference is None or (reference.digest, reference.n) != (features.digest(), len(data.train)):
        reference = FrechetReference.of_images(data.train, features)
        reference.save(file)
    return FrechetJudge(features, reference, measure)


def _sliced(run: Run, data: ImageData) -> SlicedJudge:
    file, reference = run.moments(SLICED), None
    with suppress(CheckpointError):
        reference = SlicedReference.load(file) if file.is_file() else None
    if reference is None or (reference.image_shape, reference.n) != (data.image_shape, len(data.train)):
        reference = SlicedReference.of_images(data.train, atoms=ATOMS)
        reference.save(file)
    return SlicedJudge(reference)
