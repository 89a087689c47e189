"""Finding and loading the sets that are shipped; the folder's layout is in :mod:`phasewise.pretrained`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phasewise.denoisers import Denoiser, HybridDenoiser, load_denoiser
from phasewise.denoisers.io import read_safetensors, schedule_from
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import read_json
from phasewise.metrics import ClassifierFeatures, FrechetReference
from phasewise.results import DataRecord, HybridSchedule, TrainingRecord

HOME = Path(__file__).parent


@dataclass(frozen=True)
class Pretrained:
    """One shipped set, read lazily.

    Attributes:
        name: of the data set it was trained on.
        folder: where it lies; laid out as a run folder.
        names: denoisers in it: "global", "r3" and so on, "wiener".
        schedules: who serves which step, by name, as computed when it was trained.
        training: how each network was trained, with its held-out loss by noise time.
        data: record of the training data: shape (C, H, W), pixel range, fingerprint.
        card: what was measured of it, and where it comes from.
    """

    name: str
    folder: Path
    names: tuple[str, ...]
    schedules: dict[str, HybridSchedule]
    training: dict[str, TrainingRecord]
    data: DataRecord
    card: dict[str, Any]
    _loaded: dict[tuple[str, str], Denoiser] = field(default_factory=dict, repr=False)

    def denoiser(self, name: str, device: str | torch.device = "cpu") -> Denoiser:
        """One denoiser, float32, in eval mode.  Raises :class:`PhasewiseError` for a name the set does not have."""
        if name not in self.names:
            raise PhasewiseError(f"the pretrained set {self.name!r} has no {name!r}; it has {', '.join(self.names)}")
        key = (name, str(device))
        if key not in self._loaded:
            self._loaded[key] = load_denoiser(self.folder / "models" / name, device)
        return self._loaded[key]

    def members(self, device: str | torch.device = "cpu") -> dict[str, Denoiser]:
        """All denoisers by name."""
        return {name: self.denoiser(name, device) for name in self.names}

    def hybrid(self, schedule: str = "hybrid", device: str | torch.device = "cpu") -> HybridDenoiser:
        """The denoisers under one of its schedules.  Raises :class:`PhasewiseError` listing them for another name."""
        if schedule not in self.schedules:
            known = ", ".join(self.schedules)
            raise PhasewiseError(f"the pretrained set {self.name!r} has no schedule {schedule!r}; it has {known}")
        plan = self.schedules[schedule]
        return HybridDenoiser({n: self.denoiser(n, device) for n in dict.fromkeys(plan.assignment)}, plan)

    def features(self) -> ClassifierFeatures:
        """The classifier whose features FID is measured in."""
        return ClassifierFeatures.load(self.folder / "features")

    def reference(self) -> FrechetReference:
        """Feature moments of the training images."""
        return FrechetReference.load(self.folder / "features" / "reference.safetensors")

    def real_features(self) -> Tensor:
        """Features (n, D) of held-out real images: how far those are from the training images is the floor of FID."""
        return read_safetensors(self.folder / "features" / "real.safetensors")["features"].float()


def pretrained_names() -> tuple[str, ...]:
    """Names of the shipped sets."""
    return tuple(sorted(file.parent.name for file in HOME.glob("*/card.json")))


def load_pretrained(name: str) -> Pretrained:
    """A shipped set by name, without training and without a network connection.

    Raises :class:`PhasewiseError` listing the sets for a name that does not exist, and
    :class:`phasewise.errors.CheckpointError` where its files are damaged or of another version.
    """
    if name not in pretrained_names():
        raise PhasewiseError(
            f"no pretrained set {name!r}; there is {', '.join(pretrained_names()) or 'none'}. Train your own with "
            "`phasewise run --data ...` and sample from it with --run"
        )
    folder = HOME / name
    try:
        return _read(name, folder)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise CheckpointError(
            f"the pretrained set in {folder} is damaged or of another version ({error}); install phasewise again"
        ) from error


def _read(name: str, folder: Path) -> Pretrained:
    file = folder / "records" / "schedules.json"
    training = [TrainingRecord.load(path) for path in sorted((folder / "records" / "training").glob("*.json"))]
    card = read_json(folder / "card.json")
    return Pretrained(
        name=name,
        folder=folder,
        names=tuple(card["denoisers"]),
        schedules={key: schedule_from(value, file) for key, value in read_json(file).items()},
        training={record.name: record for record in training},
        data=DataRecord.load(folder / "records" / "data.json"),
        card=card,
    )
