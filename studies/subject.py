"""What studies look at: images (with a stand-in for MNIST in the quick form), shipped sets, run folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F

import phasewise as pw
from phasewise.data import ImageData
from phasewise.errors import PhasewiseError
from phasewise.metrics import FeatureNetwork, FrechetJudge, FrechetReference, SampleJudge
from phasewise.metrics.judges import FIRST, judged
from phasewise.pipeline.panel import first_network, run_judges, second_network
from phasewise.results import JudgeScore
from phasewise.runs.images import images_of

STAND_IN = "digits28"
"""A few of the embedded 8x8 digits, enlarged to MNIST's 28x28 and its contrast: for the quick form, never an answer."""
FEW = {"train": 256, "validation": 16, "test": 64}


def load(name: str, data_dir: str | None = None, **more: Any) -> ImageData:
    """A set by name, as :func:`phasewise.load_images`, or :data:`STAND_IN`."""
    if name != STAND_IN:
        return pw.load_images(name, data_dir=data_dir, **more)
    data = pw.load_images("digits")
    train, validation, test = (_enlarged(getattr(data, part)[:n]) for part, n in FEW.items())
    labels = {f"labels_{part}": getattr(data, f"labels_{part}")[:n] for part, n in FEW.items()}
    return ImageData(STAND_IN, train, validation, test, **labels)


def _enlarged(images: Tensor) -> Tensor:
    """(n, 1, 8, 8) -> (n, 1, 28, 28), with a dark frame of two pixels as MNIST has one."""
    sharp = (2 * F.interpolate(images, 24, mode="bilinear") - 0.8).clamp(0, 1)
    return F.pad(sharp, (2, 2, 2, 2))


@dataclass(frozen=True)
class Subject:
    """The denoisers to schedule, the data to price them on, the features and reference to judge them in.

    ``judges``: all that samples are shown to, by name, the first in those features (:meth:`phasewise.runs.Run.judges`).
    """

    name: str
    members: dict[str, pw.Denoiser]
    data: ImageData
    features: FeatureNetwork
    reference: FrechetReference
    judges: Mapping[str, SampleJudge]

    @cached_property
    def real(self) -> Tensor:
        """Features of the test images."""
        return self.features.extract(self.data.test)

    def judged(self, images: Tensor, seed: int = 0) -> dict[str, JudgeScore]:
        """The scores of samples (n, C, H, W), n >= 8, by every judge, by its name: "first", "unseen", "sliced".

        Of two sets of equal n and seed, made from the same noise, ``phasewise.results.judges.weigh(one, other)`` is the
        verdict with paired errors, ``one[name].minus(other[name])`` a single judge's difference.
        """
        return judged(images, self.judges, seed)

    def of(self, schedule: pw.HybridSchedule) -> pw.HybridDenoiser:
        """The members under a schedule."""
        return pw.HybridDenoiser({k: self.members[k] for k in dict.fromkeys(schedule.assignment)}, schedule)

    def samples(self, schedule: pw.HybridSchedule, n: int, seed: int) -> Tensor:
        """(n, C, H, W), clamped to the pixel range of the data."""
        return pw.sample(self.of(schedule), n=n, seed=seed, batch=64).clamp(*self.data.pixel_range)


def subject_of(pretrained: str | None, run: str | None, data: str | None, data_dir: str | None) -> Subject:
    """A shipped set or a run folder, on its own images or on ``data``."""
    if (pretrained is None) == (run is None):
        raise PhasewiseError("give either a shipped set with --pretrained or a run folder with --run")
    return of_shipped(pretrained, data, data_dir) if pretrained is not None else of_run(Path(str(run)), data_dir)


def of_shipped(name: str, data: str | None = None, data_dir: str | None = None) -> Subject:
    ready = pw.load_pretrained(name)
    assert ready.config is not None
    images = load(data, data_dir) if data else images_of(ready.config.data, data_dir=data_dir)
    judges = ready.judges()
    first = judges[FIRST]
    assert isinstance(first, FrechetJudge)
    return Subject(ready.name, ready.denoisers(), images, first.features, first.reference, judges)


def of_run(folder: Path, data_dir: str | None = None) -> Subject:
    run = pw.open_run(folder)
    if run.config is None:
        raise PhasewiseError(f"{folder} holds no phasewise run; give the folder of `phasewise run --out`")
    asked = run.config.data
    members = run.denoisers([m.name for m in run.config.members if pw.runs.MEMBER_KINDS[m.kind].scheduled])
    data = images_of(asked, data_dir=data_dir or asked.data_dir)
    features = first_network(run, data, run.config)
    judges = run_judges(run, data, features, second_network(run, data, run.config))
    return Subject(folder.name, members, data, features, run.reference_moments(), judges)
