r"""Evaluations of one schedule with several seeds, taken together.

Over k seeds with scores ``m_i`` and standard errors ``e_i`` (bootstrap over samples),

    value = mean_i m_i,      stderr^2 = max( var_i(m_i), mean_i e_i^2 ) / k:

few seeds spread by chance less than their own errors say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phasewise.results import Evaluation


@dataclass(frozen=True)
class Score:
    """One schedule over its seeds: FID and, paired seed by seed, FID minus that of all-global, with standard errors."""

    name: str
    seeds: tuple[int, ...]
    n: int
    mflop: float
    fid: tuple[float, float]
    minus_global: tuple[float, float] | None
    features: str


def scores(evaluations: Sequence[Evaluation]) -> dict[str, Score]:
    """Evaluations by name, each over its seeds; of one name, those of the largest number of samples."""
    found = {}
    for name in dict.fromkeys(e.name for e in evaluations):
        rows = [e for e in evaluations if e.name == name]
        n = max(e.n for e in rows)
        rows = list({e.seed: e for e in rows if e.n == n}.values())
        pairs = [e.fid_minus["global"] for e in rows if "global" in e.fid_minus]
        minus = over_seeds(*zip(*pairs, strict=True)) if len(pairs) == len(rows) and pairs else None
        fid = over_seeds([e.fid for e in rows], [e.fid_stderr for e in rows])
        seeds = tuple(sorted(e.seed for e in rows))
        found[name] = Score(name, seeds, n, rows[-1].mflop, fid, minus, rows[-1].features)
    return found


def over_seeds(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error over seeds, as in the module docstring."""
    k = len(values)
    own = float(np.mean(np.square(errors)))
    spread = float(np.var(values, ddof=1)) if k > 1 else 0.0
    return float(np.mean(values)), float(np.sqrt(max(own, spread) / k))
