"""When symmetries break, in a run: speciation of its images, clones of its reference, judged by its feature network."""

from __future__ import annotations

from torch import Tensor

from phasewise.data import ImageData
from phasewise.denoisers import Denoiser
from phasewise.diagnosis import measure_cloning, speciation
from phasewise.errors import PhasewiseError
from phasewise.metrics import ClassifierFeatures, FeatureNetwork
from phasewise.pipeline.telling import VERBOSE, Teller
from phasewise.results import Cloning, SymmetryBreaking
from phasewise.results.symmetry import interval
from phasewise.runs.parts import SymmetryOptions


def symmetry_of(
    reference: Denoiser, data: ImageData, features: FeatureNetwork, asked: SymmetryOptions, seed: int, say: Teller
) -> SymmetryBreaking:
    """Both measures; cloning is left out, and said so, where classes cannot be told or are told to the network."""
    found = speciation(data, path=reference.path, seed=seed)
    cloned: Cloning | None = None
    if asked.images and not isinstance(features, ClassifierFeatures):
        say("no clones: nothing here tells classes; images with labels have a classifier", VERBOSE)
    elif asked.images:
        assert isinstance(features, ClassifierFeatures)
        try:
            cloned = clones_of(reference, data.test[: asked.images], features, asked, seed)
        except PhasewiseError as error:
            say(f"no clones: {error}")
    return SymmetryBreaking(found, cloned)


def clones_of(
    reference: Denoiser, images: Tensor, features: ClassifierFeatures, asked: SymmetryOptions, seed: int
) -> Cloning:
    """Clones whose classes the run's classifier tells."""

    def classify(seen: Tensor) -> Tensor:
        return features.probabilities(seen.to(images.device)).argmax(1)

    return measure_cloning(reference, images, asked.times, classify, steps=asked.steps, seed=seed)


def said_of(found: SymmetryBreaking) -> str:
    """One line."""
    first = found.speciation
    text = f"symmetries break: speciation at t = {interval(first.t_s, first.t_s_low, first.t_s_high)}"
    if found.cloning is not None:
        c = found.cloning
        text += f", clones agree on the class {c.threshold:.3g} of the time at t = "
        text += interval(c.t_clone, c.t_clone_low, c.t_clone_high)
    return text
