r"""A map given the class: each class is measured by itself, and the classes are averaged by their shares.

    I(A : C | B, Y) = sum_y p(y) I(A : C | B, Y = y),        stderr^2 = sum_y p(y)^2 stderr_y^2,

with ``p(y)`` the share of class y among the images given, taken as it is.  Classes hold different images and noise of
their own, so their errors are independent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from phasewise.data import ImageData, ask_channels
from phasewise.errors import PhasewiseError
from phasewise.information.base import CMIEstimator, Say
from phasewise.information.cells import Answer, answer_problem
from phasewise.information.problem import LEAST_IMAGES, Problem
from phasewise.seeding import Purpose, mix


@dataclass(frozen=True, eq=False)
class Subset:
    """Images (n, C, H, W) of one class, or (``label`` None) all of them; ``share`` of all images."""

    label: int | None
    share: float
    images: Tensor

    @property
    def title(self) -> str:
        """What messages about this subset begin with."""
        return "" if self.label is None else f"class {self.label}: "

    def seed(self, seed: int) -> int:
        return seed if self.label is None else mix(seed, Purpose.CMI_CLASS, self.label)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors inside say which class they are about."""
        try:
            yield
        except PhasewiseError as error:
            raise (error if self.label is None else PhasewiseError(f"{self.title}{error}")) from error


def subsets_of(data: ImageData | Tensor, cond: Tensor | Sequence[int] | str | None) -> list[Subset]:
    """One subset a class of ``cond``, in ascending order; without ``cond`` one subset, all images.

    Raises :class:`PhasewiseError` for labels that are missing or do not fit the images, and for classes of too few
    images, which are named.
    """
    if isinstance(data, Tensor):
        ask_channels(tuple(data.shape))
    images = torch.cat([data.train, data.validation, data.test]) if isinstance(data, ImageData) else data
    if cond is None:
        return [Subset(None, 1.0, images)]
    labels = _own_labels(data) if isinstance(cond, str) and cond == "labels" else _given_labels(cond, len(images))
    values, counts = labels.unique(return_counts=True)
    few = [f"{y} ({k})" for y, k in zip(values.tolist(), counts.tolist(), strict=True) if k < LEAST_IMAGES]
    if few:
        raise PhasewiseError(
            f"classes with fewer than {LEAST_IMAGES} images (class and number): {', '.join(few)}; leave their images "
            "out, or merge classes"
        )
    return [Subset(int(y), float(k) / len(labels), images[labels == y]) for y, k in zip(values, counts, strict=True)]


def _own_labels(data: ImageData | Tensor) -> Tensor:
    """(n,) labels of all parts of ``data``, in the order in which their images are pooled."""
    if isinstance(data, ImageData):
        labels = [data.labels_train, data.labels_validation, data.labels_test]
        known = [part for part in labels if part is not None]
        if len(known) == len(labels):
            return torch.cat(known)
    raise PhasewiseError(
        'cond="labels" needs an ImageData with a label for every image of all its parts; give the labels themselves, '
        "a tensor (n,) of whole numbers"
    )


def _given_labels(cond: Tensor | Sequence[int] | str, n: int) -> Tensor:
    wanted = f'cond is "labels", or a tensor of whole numbers ({n},), one for each image (train, validation, test)'
    try:
        labels = torch.as_tensor(cond)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PhasewiseError(f"{wanted}; got {cond!r}") from error
    if labels.shape != (n,) or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise PhasewiseError(f"{wanted}; got {labels.dtype} of shape {tuple(labels.shape)}")
    return labels.detach().cpu().long()


def answer_by_class(
    subsets: Sequence[Subset],
    problems: Sequence[Problem],
    estimator: CMIEstimator,
    live: bool,
    folder: str | Path | None,
    say: Say,
) -> tuple[Answer, tuple[Answer, ...]]:
    """The answer over all images, and that of every class (none where the one subset is no class)."""
    answers = []
    for subset, problem in zip(subsets, problems, strict=True):
        with subset.named():
            answers.append(answer_problem(problem, estimator, live, folder, partial(_titled, say, subset.title)))
    if subsets[0].label is None:
        return answers[0], ()
    return over_classes([subset.share for subset in subsets], answers), tuple(answers)


def _titled(say: Say, title: str, line: str) -> None:
    say(title + line)


def over_classes(shares: Sequence[float], answers: Sequence[Answer]) -> Answer:
    """The module's average."""
    value = np.sum([p * found.value for p, found in zip(shares, answers, strict=True)], axis=0)
    variance = np.sum([(p * found.stderr) ** 2 for p, found in zip(shares, answers, strict=True)], axis=0)
    return Answer(value, np.sqrt(variance), sum(found.n for found in answers))
