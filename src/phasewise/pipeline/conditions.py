"""Class labels for denoisers that are told them: of held-out images their own, of samples as often as in the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from phasewise import seeding
from phasewise.data import ImageData, condition_of_part
from phasewise.denoisers import Denoiser, HybridDenoiser
from phasewise.denoisers.base import OnPath
from phasewise.errors import PhasewiseError

LABELS = "class_labels"


def told_of(denoiser: Denoiser) -> str | None:
    """What a denoiser's condition is: class labels, where it does not say; None where it takes none."""
    return getattr(_inner(denoiser), "cond_name", None) or LABELS if denoiser.takes_condition else None


def needs(denoiser: Denoiser) -> bool:
    """Whether a denoiser answers nothing without its condition."""
    return denoiser.takes_condition and bool(getattr(_inner(denoiser), "needs_condition", True))


def _inner(denoiser: Denoiser) -> Denoiser:
    """Without the translation to another path."""
    return denoiser.member if isinstance(denoiser, OnPath) else denoiser


def takes_labels(denoisers: Iterable[Denoiser]) -> bool:
    """Whether any of them is told classes."""
    return any(told_of(d) == LABELS for d in denoisers)


def check_conditions(denoisers: Mapping[str, Denoiser], data: ImageData) -> None:
    """Refuse a condition that the data cannot give, and classes that a network does not know.  PhasewiseError."""
    told = {name: about for name, d in denoisers.items() if (about := told_of(d)) is not None}
    for name, about in told.items():
        if about != LABELS and (needs(denoisers[name]) or LABELS in told.values()):
            raise PhasewiseError(
                f"the network {name!r} needs a condition ({about}) that a set of images does not give; bind one in "
                "Python: from_diffusers(...).given(cond)"
            )
        if about == LABELS and data.labels_train is None and needs(denoisers[name]):
            raise PhasewiseError(
                f"the network {name!r} needs class labels, and {data.name} has none; give images with labels "
                "(--label-column), or a network without"
            )
        if about == LABELS and data.labels_train is not None:
            try:
                denoisers[name].check_condition(torch.arange(data.classes or 1))
            except PhasewiseError as error:
                raise PhasewiseError(
                    f"{data.name} has {data.classes} classes, which the network {name!r} does not know ({error})"
                ) from error


def labels_of(data: ImageData, part: str, denoisers: Iterable[Denoiser]) -> Tensor | None:
    """The labels of a part ("train", "validation", "test"), (N,), where one of the denoisers is told them and there are
    any; else None."""
    if data.labels_train is None or not takes_labels(denoisers):
        return None
    found: Any = condition_of_part(data, part, "labels")
    return found


def parts_of(denoiser: Denoiser) -> list[Denoiser]:
    """The members of a hybrid, or the denoiser itself."""
    return list(denoiser.members.values()) if isinstance(denoiser, HybridDenoiser) else [denoiser]


def class_counts(data: ImageData) -> tuple[int, ...]:
    """How often each class is among the training images; empty where they have no labels."""
    if data.labels_train is None:
        return ()
    return tuple(torch.bincount(data.labels_train.cpu(), minlength=data.classes or 1).tolist())


def asked_labels(labels: Sequence[int], n: int, counts: Sequence[int]) -> Tensor:
    """(n,) of the ``labels``, in turn.  PhasewiseError for one beyond ``counts``, and where nothing is told a class."""
    if not counts:
        raise PhasewiseError("--label is for networks that are told a class, and none here is; leave it out")
    wrong = [label for label in labels if not 0 <= label < len(counts)]
    if wrong:
        raise PhasewiseError(f"--label must be classes from 0 to {len(counts) - 1}; got {wrong[0]}")
    return torch.tensor([labels[k % len(labels)] for k in range(n)])


def sampled_labels(counts: Sequence[int], n: int, seed: int) -> Tensor | None:
    """(n,) labels drawn as often as ``counts`` says; the first of more are these.  None where there are no counts."""
    if not counts:
        return None
    shares = torch.tensor(counts, dtype=torch.float64).cumsum(0) / sum(counts)
    draw = torch.rand(n, generator=seeding.generator(seed, seeding.Purpose.SAMPLED_LABELS), dtype=torch.float64)
    return torch.searchsorted(shares, draw, right=True).clamp(max=len(counts) - 1)
