"""The CMI map over times and radii: checks, averaging over positions, of all images or class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phasewise import checks
from phasewise.data import ImageData
from phasewise.errors import PhasewiseError
from phasewise.information.base import CMIEstimator, Say, make_estimator
from phasewise.information.cells import Answer, mean_answer, warn_if_constant
from phasewise.information.classes import Subset, answer_by_class, subsets_of
from phasewise.information.problem import Problem, make_problem, warn_if_too_few
from phasewise.information.regions import Center
from phasewise.paths import LinearPath, NoisePath, a_path
from phasewise.progress import Line
from phasewise.results import CMIMap


@checks.checked(
    block=checks.count, seed=checks.seed, path=a_path, accuracy=checks.positive, folder=checks.file, say=checks.function
)
def cmi_map(
    data: ImageData | Tensor,
    radii: Sequence[int],
    times: Sequence[float],
    *,
    block: int = 1,
    center: Center | Sequence[Center] | None = None,
    estimator: str | CMIEstimator = "density",
    cond: Tensor | Sequence[int] | str | None = None,
    seed: int = 0,
    path: NoisePath | None = None,
    accuracy: float = 0.003,
    folder: str | Path | None = None,
    say: Say = lambda _: None,
    progress: bool = False,
    **options: Any,
) -> CMIMap:
    r"""``I(A : C | B)`` in nats over times x radii (Hu, Liu, Zhang, Gao, arXiv 2508.06614).

    With ``cond``, a class Y for each image: what the far pixels tell beyond the near ones *and* the class, and so what
    is out of reach of a local denoiser that is told the class::

        I(A : C | B, Y) = sum_y p(y) I(A : C | B, Y = y),        stderr^2 = sum_y p(y)^2 stderr_y^2

    Args:
        data: ImageData (all its parts are used; held-out scoring is the estimator's own) or (n, C, H, W).
        radii: widths r of the buffer B in pixels, >= 0 and small enough to leave pixels for C.
        times: noise times in (0, 1]; where alpha(1) = 0 nothing is left of the image at t = 1 and the value is 0.
        block: side of A in pixels.  center: (row, col) of A, see :mod:`phasewise.information.regions`; a list of
            positions gives their average, with each position's own map under ``config["positions"]``.
        estimator: a name from :data:`ESTIMATORS`, with its ``options``, or an estimator.
        cond: labels, whole numbers (n,), in the order train, validation, test; "labels": those of the ImageData.  Each
            class is measured on its own images, so what an estimator reads too little of for want of images grows;
            shares and maps of the classes are under ``config["classes"]``.
        accuracy: standard error asked for, in nats; a warning tells when the images are too few for it.
        say: gets lines on what is being done.  progress: show them on one line, written over in place.
        folder: where finished cells, scores of finished folds and unfinished critics are kept; the same call again
            goes on from there.

    Returns the map; values are never clamped, and where A is constant they are 0 with a warning.

    Raises :class:`PhasewiseError` for bad input, and for a loss that is not finite (the cell is named; cells done
    before are kept in ``folder``).
    """
    times = checks.each(checks.number, least=0)(times, "times")
    radii = checks.each(checks.pixels, least=0)(radii, "radii")
    chosen = make_estimator(estimator, **options)
    line = Line() if progress else None

    def tell(text: str) -> None:
        say(text)
        if line is not None:
            line.show(f"CMI: {text}")

    if not len(times) or len(set(times)) < len(times):
        raise PhasewiseError(f"times must be distinct, at least one; got {list(times)}")
    path = path or LinearPath()
    live = [t for t in times if not _nothing_left(path, t)]
    subsets = subsets_of(data, cond)
    found = []
    for at in _centers(center):
        problems = [
            make_problem(s.images, live or [0.5], radii, block=block, center=at, path=path, seed=s.seed(seed))
            for s in subsets
        ]
        _warn(subsets, problems, chosen, bool(live), accuracy)
        whole, classes = answer_by_class(subsets, problems, chosen, bool(live), folder, tell)
        found.append(Position(problems[0].geometry.center, whole, classes).with_ends(times, live))
    if line is not None:
        line.end()
    average = _over_positions(found)
    config = {
        "options": chosen.options(), "bound": chosen.bound, "path": path.config(),
        "image_shape": list(subsets[0].images.shape[1:]), **average.rows(subsets),
    }  # fmt: skip
    if len(found) > 1:
        config["positions"] = [{"center": list(at.center), **vars(at.whole), **at.rows(subsets)} for at in found]
    return CMIMap(
        times=np.array(times, dtype=float),
        radii=problems[0].radii,
        value=average.whole.value,
        stderr=average.whole.stderr,
        estimator=chosen.name,
        block=block,
        center=average.center,
        n=average.whole.n,
        seed=seed,
        config=config,
    )


@dataclass(frozen=True, eq=False)
class Position:
    """What was found with A at ``center``: over all images, and in each class where there are classes."""

    center: Center
    whole: Answer
    classes: tuple[Answer, ...]

    def with_ends(self, times: Sequence[float], live: Sequence[float]) -> Position:
        """With rows of 0 at those of ``times`` that are not ``live``."""
        rows = [i for i, t in enumerate(times) if t in live]
        whole, *classes = (found.spread(rows, len(times)) for found in (self.whole, *self.classes))
        return Position(self.center, whole, tuple(classes))

    def rows(self, subsets: Sequence[Subset]) -> dict[str, list[dict[str, Any]]]:
        """What the record says of the classes, if there are any: label, share and own map of each."""
        if not self.classes:
            return {}
        pairs = zip(subsets, self.classes, strict=True)
        return {"classes": [{"class": subset.label, "share": subset.share, **vars(found)} for subset, found in pairs]}


def _over_positions(found: Sequence[Position]) -> Position:
    whole, *classes = (mean_answer(same) for same in zip(*[(at.whole, *at.classes) for at in found], strict=True))
    return Position(found[0].center, whole, tuple(classes))


def _warn(
    subsets: Sequence[Subset], problems: Sequence[Problem], estimator: CMIEstimator, live: bool, accuracy: float
) -> None:
    for subset, problem in zip(subsets, problems, strict=True):
        warn_if_constant(problem, subset.title)
    if live and any(len(problem.a) for problem in problems):
        warn_if_too_few(sum(estimator.held_out(len(problem.images)) for problem in problems), accuracy)


def _centers(center: Center | Sequence[Center] | None) -> list[Center | None]:
    if center is None:
        return [None]
    several_or_one = checks.each(lambda value, _: value, least=0)(center, "center")
    if not several_or_one:
        raise PhasewiseError("center must be (row, col) or a list of such positions, got none")
    several: list[Any] = [center] if isinstance(center[0], (int, np.integer)) else list(center)
    try:
        return [checks.position(at, "center") for at in several]
    except PhasewiseError as error:
        raise PhasewiseError(f"center must be (row, col) or a list of such positions, got {center}") from error


def _nothing_left(path: NoisePath, t: float) -> bool:
    return t == 1 and float(path.alpha(torch.tensor(1.0, dtype=torch.float64))) == 0
