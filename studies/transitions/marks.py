"""Marks on the log-SNR axis: where a curve peaks and how wide it is, with the error of both.

The axis is log-SNR relative to the data variance, ``x = log(alpha^2 / sigma^2) + log Var``: 0 where noise and data are
equally large, negative where noise is the larger.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

SHARE = 0.1
"""Of the peak: the window of a curve is where it lies above."""
DRAWS = 200


def curve_marks(x: Any, value: Any, stderr: Any, seed: int = 0) -> dict[str, Any]:
    """Peak and window of a curve (T,) with errors over ``x``: each as [value, low, high], 95 % by drawing the errors
    anew.  ``edge``: the peak is at an end of what was measured, so it may lie beyond; an end of the window that is not
    reached is None.  All None for a curve that is nowhere above 0 by 2 standard errors.
    """
    order = np.argsort(x)
    x, value, stderr = (np.asarray(v, dtype=float)[order] for v in (x, value, stderr))
    if not (value > 2 * stderr).any():
        return {"peak": None, "low": None, "high": None, "edge": False}
    rng = np.random.default_rng(seed)
    drawn = [_read(x, value + stderr * rng.standard_normal(len(x))) for _ in range(DRAWS)]
    first = _read(x, value)
    found: dict[str, Any] = {"edge": bool(np.argmax(value) in (0, len(x) - 1))}
    for k, name in enumerate(("peak", "low", "high")):
        again = [row[k] for row in drawn if math.isfinite(row[k])]
        there = math.isfinite(first[k]) and len(again) > DRAWS / 2
        found[name] = [first[k], *np.percentile(again, (2.5, 97.5)).tolist()] if there else None
    return found


def _read(x: np.ndarray, value: np.ndarray) -> tuple[float, float, float]:
    """(peak, low end, high end) of the curve through the points; NaN for an end beyond them."""
    fine = np.linspace(x[0], x[-1], 600)
    curve = PchipInterpolator(x, value)(fine)
    top = int(np.argmax(curve))
    below = curve < SHARE * curve[top]
    left, right = np.flatnonzero(below[:top]), np.flatnonzero(below[top:])
    low = float(fine[left[-1]]) if len(left) else math.nan
    return float(fine[top]), low, float(fine[top + right[0]]) if len(right) else math.nan


def falls_at(x: Any, value: Any, level: float) -> float | None:
    """The lowest ``x`` (most noise) down to which a curve that rises with x still is at ``level``; None where it
    nowhere crosses it."""
    order = np.argsort(x)
    x, value = np.asarray(x, dtype=float)[order], np.asarray(value, dtype=float)[order]
    above = np.flatnonzero(value >= level)
    if not len(above) or above[0] == 0:
        return None
    j = int(above[0])
    return float(x[j - 1] + (level - value[j - 1]) / (value[j] - value[j - 1]) * (x[j] - x[j - 1]))
