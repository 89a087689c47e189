r"""What a CMI can be at most, whatever the estimator says; what exceeds it is said, and its error grows by as much.

Noise is added to each pixel alone, so A_t depends on the rest through the clean A only, and by data processing

    I(A_t : C_t | B_t) <= I(A_t : A_0 | B_t) <= min( H(A_0),  1/2 log det(1 + alpha^2 / sigma^2  Cov A_0) )

the first where A has few levels (black and white), from their shares in the images; the second for any images, the
capacity of a Gaussian channel.  Where the levels of A lie so many sigma apart that noise mixes none of them, densities
of A are spikes that learned estimators fit badly, too low or too high with no sign of it; the CMI itself no longer
depends on t there.  What is known then is 0 <= I <= H, so no error is smaller than that of a number drawn from it.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch

from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.information.base import Cell, CMIEstimator
from phasewise.information.problem import Problem
from phasewise.results import Array, Estimate

IMAGES_PER_LEVEL = 10
"""A has few levels where each of its values is there in so many images on average."""
LARGE = 0.3
"""Nats above which learned estimators were seen to miss by more than their refits differ."""
APART = 30.0
"""Standard deviations of the noise between neighbouring levels of A beyond which estimates are not trusted."""


@dataclass(frozen=True, eq=False)
class Limits:
    """``most`` (T,) nats that A can share with anything at the times; ``entropy`` of A, nats, where it has few levels,
    else infinite; ``unmixed`` (T,), whether noise leaves its levels apart."""

    most: Array
    entropy: float
    unmixed: Array


def limits_of(problem: Problem) -> Limits:
    """The limits of all cells of a time."""
    a = problem.flat[:, problem.a].double()
    alpha, sigma = (level.numpy() for level in problem.levels())
    with np.errstate(divide="ignore"):
        ratio = alpha / sigma
    spread = torch.linalg.eigvalsh(torch.cov(a.T, correction=0).reshape(a.shape[1], -1)).clamp(min=0).numpy()
    capacity = 0.5 * np.log1p(np.square(ratio)[:, None] * spread).sum(1)
    entropy, gap = _entropy(a), _gap(a)
    few = math.isfinite(entropy)
    return Limits(np.minimum(capacity, entropy), entropy, np.array(few & (ratio * gap > APART)))


def _entropy(a: torch.Tensor) -> float:
    """Entropy of the rows of (n, P), nats, where there are few different ones; else infinite."""
    counts = torch.unique(a, dim=0, return_counts=True)[1].double()
    if len(counts) * IMAGES_PER_LEVEL > len(a):
        return math.inf
    share = counts / len(a)
    # Miller and Madow: shares of a sample have (K - 1) / 2n nats less than those they are drawn from
    return float(-(share * share.log()).sum()) + (len(counts) - 1) / (2 * len(a))


def _gap(a: torch.Tensor) -> float:
    """The smallest distance of two values of an entry of A, in the entry where it is largest."""
    return max(float(column.unique().diff().min()) for column in a.T)


def checked(problem: Problem, limits: Limits, cell: Cell, found: Estimate, by: CMIEstimator) -> Estimate:
    """``found`` with an error that reaches what is possible, and admits what ``by`` was seen to miss.

    Raises PhasewiseError naming the cell where it is no number.
    """
    time, radius = problem.times[cell[0]], problem.radii[cell[1]]
    if not (math.isfinite(found.value) and math.isfinite(found.stderr)):
        raise PhasewiseError(
            f"{by.name} gives {found.value:g} ± {found.stderr:g} for the cell t = {time:g}, r = {radius}: no "
            "number comes out there; leave that time out, or take a larger one"
        )
    excess = max(found.value - float(limits.most[cell[0]]), 0.0)
    blind = limits.entropy / math.sqrt(12) if limits.unmixed[cell[0]] else 0.0  # of a uniform number in [0, H]
    missed = by.missed * max(found.value - LARGE, 0.0)
    return replace(found, stderr=math.hypot(found.stderr, excess, blind, missed))


def warn_beyond(problem: Problem, limits: Limits, value: Array, stderr: Array, by: str) -> None:
    """Say which of the raw ``value`` and ``stderr`` (T, R) cannot be, and at which times levels are not mixed."""
    over = value - limits.most[:, None]
    bad = over > 2 * stderr
    if bad.any():
        i, j = np.unravel_index(int(np.argmax(np.where(bad, over, -np.inf))), over.shape)
        warnings.warn(
            f"{int(bad.sum())} of {bad.size} cells by '{by}' read more than A can share with anything: "
            f"{value[i, j]:.3g} nats at t = {problem.times[i]:g}, r = {problem.radii[j]}, where at most "
            f"{limits.most[i]:.3g} are possible; their standard errors have grown by the excess. Take another "
            "estimator",
            PhasewiseWarning,
            stacklevel=4,
        )
    if limits.unmixed.any():
        late = [t for t, apart in zip(problem.times, limits.unmixed, strict=True) if apart]
        warnings.warn(
            f"at t = {', '.join(f'{t:g}' for t in late)} the noise mixes none of the few levels of A: the CMI is that "
            "of larger times, and estimators of densities miss it; standard errors have grown to what is possible "
            "there. Take larger times",
            PhasewiseWarning,
            stacklevel=4,
        )
