"""Cells of a map: those done before, those still to measure, and where they are kept between calls."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phasewise.errors import CheckpointError, PhasewiseError, PhasewiseWarning
from phasewise.files import read_json, write_json
from phasewise.information.base import Cell, CMIEstimator, Say
from phasewise.information.limits import checked, limits_of, warn_beyond
from phasewise.information.problem import Problem
from phasewise.results import Estimate, Record

REVISION = 1
"""Raised when an estimator changes, so that cells of before are not taken for its own."""


@dataclass(frozen=True, eq=False)
class Answer:
    """``value`` and ``stderr`` (T, R) in nats, resting on ``n`` images."""

    value: np.ndarray
    stderr: np.ndarray
    n: int

    def spread(self, rows: Sequence[int], times: int) -> Answer:
        """The first rows put at ``rows`` of ``times``, 0 elsewhere."""
        value, stderr = (np.zeros((times, self.value.shape[1])) for _ in range(2))
        value[list(rows)], stderr[list(rows)] = self.value[: len(rows)], self.stderr[: len(rows)]
        return Answer(value, stderr, self.n)


def mean_answer(answers: Sequence[Answer]) -> Answer:
    """Of answers about the same images, whose errors are therefore not taken to be independent."""
    value, stderr = (np.mean([getattr(a, name) for a in answers], axis=0) for name in ("value", "stderr"))
    return Answer(value, stderr, answers[0].n)


def answer_problem(
    problem: Problem, estimator: CMIEstimator, live: bool, folder: str | Path | None, say: Say
) -> Answer:
    """All cells of ``problem``, those found in ``folder`` not measured again; 0 where all of A is constant, and where
    no time is ``live``."""
    shape = (len(problem.times), len(problem.radii))
    value, stderr, n = np.zeros(shape), np.zeros(shape), estimator.held_out(len(problem.images))
    if not live or not len(problem.a):
        return Answer(value, stderr, n)
    store, limits = Store(problem, estimator, folder), limits_of(problem)
    missing = [(i, j) for i in range(shape[0]) for j in range(shape[1]) if (i, j) not in store.cells]
    if missing:
        if store.cells:
            say(f"{len(store.cells)} cells done before, {len(missing)} to go")
        for cell, estimate in estimator.estimate(problem, missing, store.folder, say):
            checked(problem, limits, cell, estimate, estimator)  # raises for what is no number
            store.add(cell, estimate)
    for (i, j), estimate in store.cells.items():
        value[i, j], stderr[i, j], n = estimate.value, estimate.stderr, estimate.n
    warn_beyond(problem, limits, value, stderr, estimator.name)
    for cell, estimate in store.cells.items():
        stderr[cell] = checked(problem, limits, cell, estimate, estimator).stderr
    return Answer(value, stderr, n)


def warn_if_constant(problem: Problem, of: str = "") -> None:
    """Say so where entries of A are the same in every image; ``of`` names the images."""
    constant = len(problem.geometry.a()) - len(problem.a)
    if constant:
        effect = "they are left out" if len(problem.a) else "the CMI is exactly 0"
        entries = f"{constant} of the {len(problem.geometry.a())} entries of A at {problem.geometry.center}"
        warnings.warn(
            f"{of}{entries} are constant, the same in every image (zero entropy), "
            f"and share no information with the rest: {effect}",
            PhasewiseWarning,
            stacklevel=5,
        )


@dataclass(frozen=True)
class KeptCell(Record):
    """A finished cell on disk: time, radius and estimate."""

    t: float
    r: int
    estimate: Estimate

    def check(self) -> None:
        found = self.estimate
        if not (math.isfinite(found.value) and 0 <= found.stderr < math.inf and found.n > 0):
            raise PhasewiseError(f"the cell t = {self.t:g}, r = {self.r} reads {found}")


class Store:
    """Finished cells, in memory and, where a folder is given, in ``FOLDER/ESTIMATOR-KEY/cells.json``.

    KEY is a hash of the problem and the estimator's options, so different questions never mix.
    """

    def __init__(self, problem: Problem, estimator: CMIEstimator, folder: str | Path | None) -> None:
        self.problem, self.cells = problem, dict[Cell, Estimate]()
        self.folder: Path | None = None
        if folder is not None:
            self.folder = Path(folder) / f"{estimator.name}-{_key(problem, estimator)}"
            file = self.folder / "cells.json"
            if file.exists():
                self._read(file)

    def _read(self, file: Path) -> None:
        mend = "delete it: its cells are then measured again"
        rows = read_json(file, mend)
        try:
            for row in map(KeptCell.from_dict, rows if isinstance(rows, list) else [rows]):
                cell = (self.problem.times.index(row.t), self.problem.radii.index(row.r))
                self.cells[cell] = row.estimate
        except ValueError as error:  # a PhasewiseError of the record is one, too
            raise CheckpointError(f"{file} holds no cells of this map ({error}); {mend}") from error

    def add(self, cell: Cell, estimate: Estimate) -> None:
        self.cells[cell] = estimate
        if self.folder is not None:
            write_json(
                self.folder / "cells.json",
                [
                    {"t": self.problem.times[i], "r": self.problem.radii[j], "estimate": e.to_dict()}
                    for (i, j), e in self.cells.items()
                ],
            )


def _key(problem: Problem, estimator: CMIEstimator) -> str:
    digest = hashlib.sha256(problem.images.contiguous().numpy().data)
    about = [
        REVISION, problem.image_shape, problem.times, problem.radii, problem.geometry.block, problem.geometry.center,
        problem.path.config(), problem.seed, estimator.name, estimator.options(),
    ]  # fmt: skip
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]
