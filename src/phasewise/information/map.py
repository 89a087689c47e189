"""The CMI map over times and radii: checks, resuming cell by cell, averaging over positions."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phasewise.data import ImageData
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.files import read_json, write_json
from phasewise.information.base import Cell, CMIEstimator, Say, make_estimator
from phasewise.information.problem import Problem, make_problem, warn_if_too_few
from phasewise.information.regions import Center
from phasewise.paths import LinearPath, NoisePath
from phasewise.results import CMIMap, Estimate


def cmi_map(
    data: ImageData | Tensor,
    radii: Sequence[int],
    times: Sequence[float],
    *,
    block: int = 1,
    center: Center | Sequence[Center] | None = None,
    estimator: str | CMIEstimator = "density",
    seed: int = 0,
    path: NoisePath | None = None,
    accuracy: float = 0.003,
    folder: str | Path | None = None,
    say: Say = lambda _: None,
    **options: Any,
) -> CMIMap:
    r"""``I(A : C | B)`` in nats over times x radii (Hu, Liu, Zhang, Gao, arXiv 2508.06614).

    Args:
        data: ImageData (all its parts are used; held-out scoring is the estimator's own) or (n, C, H, W).
        radii: widths r of the buffer B in pixels, >= 0 and small enough to leave pixels for C.
        times: noise times in (0, 1]; where alpha(1) = 0 nothing is left of the image at t = 1 and the value is 0.
        block: side of A in pixels.  center: (row, col) of A, see :mod:`phasewise.information.regions`; a list of
            positions gives their average, with each position's own map under ``config["positions"]``.
        estimator: a name from :data:`ESTIMATORS`, with its ``options``, or an estimator.
        accuracy: standard error asked for, in nats; a warning tells when the images are too few for it.
        folder: where finished cells and the scores of finished folds are kept; the same call again goes on from there.

    Returns the map; values are never clamped, and where A is constant they are 0 with a warning.

    Raises :class:`PhasewiseError` for bad input, and for a loss that is not finite (the cell is named; cells done
    before are kept in ``folder``).
    """
    if not isinstance(radii, Sequence | np.ndarray) or not isinstance(times, Sequence | np.ndarray):
        raise PhasewiseError(f"radii and times are lists, e.g. radii=[1, 2], times=[0.3]; got {radii!r} and {times!r}")
    chosen = make_estimator(estimator, **options)
    if not len(times) or len(set(times)) < len(times):
        raise PhasewiseError(f"times must be distinct, at least one; got {list(times)}")
    images = torch.cat([data.train, data.validation, data.test]) if isinstance(data, ImageData) else data
    path = path or LinearPath()
    live = [t for t in times if not _nothing_left(path, t)]
    maps = []
    for at in _centers(center):
        problem = make_problem(images, live or [0.5], radii, block=block, center=at, path=path, seed=seed)
        value, stderr, n = _one_position(problem, chosen, bool(live), accuracy, folder, say)
        maps.append((problem, _with_ends(value, times, live), _with_ends(stderr, times, live), n))
    problem = maps[0][0]
    config: dict[str, Any] = {"options": chosen.options(), "bound": chosen.bound, "path": problem.path.config()}
    if len(maps) > 1:
        config["positions"] = [
            {"center": list(p.geometry.center), "value": v, "stderr": s, "n": n} for p, v, s, n in maps
        ]
    return CMIMap(
        times=np.array(times, dtype=float),
        radii=tuple(problem.radii),
        value=np.mean([m[1] for m in maps], axis=0),
        # the positions share their images, so their errors are not taken to be independent
        stderr=np.mean([m[2] for m in maps], axis=0),
        estimator=chosen.name,
        block=block,
        center=problem.geometry.center,
        n=maps[0][3],
        seed=seed,
        config=config,
    )


def _centers(center: Center | Sequence[Center] | None) -> list[Center | None]:
    if center is None:
        return [None]
    if not len(center):
        raise PhasewiseError("center must be (row, col) or a list of such positions, got none")
    several: list[Any] = [center] if isinstance(center[0], (int, np.integer)) else list(center)
    if not all(len(c) == 2 for c in several):
        raise PhasewiseError(f"center must be (row, col) or a list of such positions, got {center}")
    return [(int(row), int(col)) for row, col in several]


def _one_position(
    problem: Problem, estimator: CMIEstimator, live: bool, accuracy: float, folder: str | Path | None, say: Say
) -> tuple[np.ndarray, np.ndarray, int]:
    shape = (len(problem.times), len(problem.radii))
    value, stderr = np.zeros(shape), np.zeros(shape)
    n = estimator.held_out(len(problem.images))
    constant = len(problem.geometry.a()) - len(problem.a)
    if constant:
        everything = not len(problem.a)
        warnings.warn(
            f"{constant} of the {len(problem.geometry.a())} entries of A at {problem.geometry.center} are constant, "
            "the same in every image (zero entropy), and share no information with the rest: "
            + ("the CMI is exactly 0" if everything else "they are left out"),
            PhasewiseWarning,
            stacklevel=4,
        )
    if not live or not len(problem.a):
        return value, stderr, n
    warn_if_too_few(n, accuracy)
    store = Store(problem, estimator, folder)
    missing = [(i, j) for i in range(shape[0]) for j in range(shape[1]) if (i, j) not in store.cells]
    if missing:
        if store.cells:
            say(f"{len(store.cells)} cells done before, {len(missing)} to go")
        for cell, estimate in estimator.estimate(problem, missing, store.folder, say):
            store.add(cell, estimate)
    for (i, j), estimate in store.cells.items():
        value[i, j], stderr[i, j], n = estimate.value, estimate.stderr, estimate.n
    return value, stderr, n


def _nothing_left(path: NoisePath, t: float) -> bool:
    return t == 1 and float(path.alpha(torch.tensor(1.0, dtype=torch.float64))) == 0


def _with_ends(rows: np.ndarray, times: Sequence[float], live: Sequence[float]) -> np.ndarray:
    """Rows of the live times, with rows of 0 for the others."""
    out = np.zeros((len(times), rows.shape[1]))
    out[[i for i, t in enumerate(times) if t in live]] = rows[: len(live)]
    return out


REVISION = 1
"""Raised when an estimator changes, so that cells of before are not taken for its own."""


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
            for row in read_json(file) if file.exists() else []:
                cell = (problem.times.index(row["t"]), problem.radii.index(row["r"]))
                self.cells[cell] = Estimate.from_dict(row["estimate"])

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
