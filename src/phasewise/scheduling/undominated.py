"""Which of several (cost, penalty) are undominated."""

from __future__ import annotations

import numpy as np


def undominated(cost: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Indices of the undominated points, cost rising and penalty strictly falling."""
    # by cost, ties by penalty; rounded, so that equal costs summed in another order tie
    order = np.lexsort((penalty, np.round(cost, 9)))
    best = np.minimum.accumulate(penalty[order])
    keep = np.ones(len(order), dtype=bool)
    keep[1:] = penalty[order][1:] < best[:-1] - 1e-15  # below every cheaper point's penalty
    return order[keep]
