"""Finding and loading the sets that are shipped: run folders with a card and a feature network beside."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from phasewise import checks
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import read_json
from phasewise.metrics.classifier import CONFIG_FILE, FeatureConfig
from phasewise.metrics.features import is_judge
from phasewise.results import DataRecord, Named
from phasewise.runs.run import Run
from phasewise.tensors import opened

HOME = Path(__file__).parent
AGAIN = "install phasewise again"
"""What helps where the package's own files are damaged."""


class Pretrained(Run):
    """One shipped set, read lazily: a :class:`phasewise.runs.Run` whose denoisers, schedules and records are ready.

    Attributes:
        name: of the set: that of its images, and perhaps a word on its networks.  folder: where it lies.
        names: denoisers in it: "global", "r3" and so on, "wiener".
        card: what was measured of it, and where it comes from.
    """

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(folder)
        self.name, self.folder = name, folder

    def __repr__(self) -> str:
        return f"Pretrained({self.name!r}: {', '.join(self.names)})"

    @cached_property
    def card(self) -> dict[str, Any]:
        return Named(read_json(self.path("card"), AGAIN))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.card["denoisers"])

    @property
    def pixels(self) -> DataRecord:
        """Record of the images: shape (C, H, W), pixel range."""
        assert self.data is not None
        return self.data

    @cached_property
    def judging(self) -> Run:
        """Where its judges lie: here, or in the set on the same images that the card names."""
        lender = self.card.get("judges_of")
        return self if lender is None else Run(HOME / lender)

    def _kept(self, unseen: bool) -> Path:
        return self.judging.path("shipped_unseen" if unseen else "shipped_features")

    def moments(self, judge: str) -> Path:
        at = self.judging.path
        places = {"first": at("shipped_reference"), "sliced": at("shipped_sliced")}
        return places.get(judge) or at("shipped_unseen_reference")

    @checks.checked(unseen=checks.flag)
    def real_features(self, unseen: bool = False) -> Tensor:
        """Features (n, D) of held-out real images: how far those are from the training images is the floor of FID."""
        place = self.judging.path("shipped_unseen_real" if unseen else "shipped_real")
        with opened(place, mend=AGAIN) as handle:
            return handle.get_tensor("features").float()

    def copy_to(self, run: Run) -> None:
        """Put the weights and records into the folder of ``run``."""
        for item in ("models", "records"):
            shutil.copytree(self.path(item), run.path(item), dirs_exist_ok=True)

    def check(self) -> None:
        """Raise where the set is damaged: everything that is not weights is read."""
        read = (self.card, self.names, self.config, self.data, self.training, self.losses, self.prices, self.schedules)
        missing = [n for n in self.names if not self.has_model(n)]
        missing += [] if self.judging.has("shipped_features") else ["its judges"]
        if missing or any(part is None for part in read):
            raise ValueError(f"without {', '.join(missing) or 'its records'}")


def shipped_judges(fingerprint: str, channels: int, seed: int) -> tuple[Path, Path] | None:
    """Folders of the first and of the unseen judge's classifier that come with the package for the images of this
    ``fingerprint`` (:attr:`phasewise.data.ImageData.fingerprint`) and this ``seed``; None where there are none.

    They are what a run would train, but for weights in half precision, and perhaps the number of passes.  On CIFAR-10
    training them takes over an hour of two cores without matrix instructions.

    Raises :class:`phasewise.errors.CheckpointError` where the package is damaged.
    """
    for folder in sorted(HOME.iterdir()):
        found = Run(folder).path("shipped_features"), Run(folder).path("shipped_unseen")
        if all(_judges_these(place, fingerprint, channels, seed, place is found[1]) for place in found):
            return found
    return None


def _judges_these(place: Path, fingerprint: str, channels: int, seed: int, unseen: bool) -> bool:
    file = place / CONFIG_FILE
    if not file.is_file():
        return False
    try:
        about = FeatureConfig.from_dict(read_json(file, AGAIN))
    except PhasewiseError as error:
        raise CheckpointError(f"{file} is damaged ({error}); {AGAIN}") from error
    return is_judge(about, fingerprint, channels, seed, unseen)


def pretrained_names() -> tuple[str, ...]:
    """Names of the shipped sets."""
    return tuple(sorted(folder.name for folder in HOME.iterdir() if Run(folder).has("card")))


@checks.checked(name=checks.text)
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
    ready = Pretrained(name, HOME / name)
    try:
        ready.check()
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise CheckpointError(
            f"the pretrained set in {ready.folder} is damaged or of another version ({error}); install phasewise again"
        ) from error
    return ready
