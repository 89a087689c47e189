r"""One Brownian path per row, whatever the time grid: the noise that stochastic solvers on different grids can share.

With ``gamma = (alpha / sigma)^2``, the signal-to-noise ratio, ``z = alpha x / sigma^2`` turns the reverse SDE of every
Gaussian path into one with additive noise, whose coefficient is 1::

    dz = D d gamma + dB(gamma),      z = 0 and B = 0 at gamma = 0 (pure noise)

(the stochastic localisation of Eldan 2013, arXiv 1203.0893).  The ancestral step is its Euler step, exactly, and
:func:`phasewise.sampling.steps.sde_dpmpp_2m_step` integrates the same noise.  So the standard normal noise of a step
is ``(B(gamma_s) - B(gamma_t)) / sqrt(gamma_s - gamma_t)``; on one path B it is right on every grid, and noise of a long
step is the sum of those of the short ones in it.

B lives on [0, oo), but ``Z(u) = (1 - u) B(u / (1 - u))`` is a Brownian bridge on [0, 1], 0 at both ends.  Z is built
by midpoints (Levy): the middle of [a, b] is the mean of its ends plus sqrt(b - a) / 2 times a normal number that is
known by the place of the midpoint.  So ``B(gamma)`` is a sum of such numbers with weights that this module gives.
"""

from __future__ import annotations

import math

DEPTH = 16
"""Halvings below min(u, 1 - u), where Z goes on straight: of a step's variance that leaves out about 2^-16 over the
step's length in log gamma."""
DEEPEST = 60


def path_weights(gamma: float) -> dict[int, float]:
    """``B(gamma) = sum of weight * normal number`` over the midpoints, by number: 1 is the middle of [0, 1], those of
    the halves of k are 2 k and 2 k + 1.  ``gamma >= 0``, finite."""
    u, rest = gamma / (1 + gamma), 1 / (1 + gamma)
    # position in [a, b] is told from the end that is nearer, where it has all its digits
    place, near_one = (rest, True) if rest < u else (u, False)
    levels = min(DEPTH + math.ceil(-math.log2(place)), DEEPEST) if place > 0 else 0
    left: dict[int, float] = {}
    right: dict[int, float] = {}
    low, width, node = 0.0, 1.0, 1
    for _ in range(levels):
        middle = {k: (left.get(k, 0.0) + right.get(k, 0.0)) / 2 for k in left | right}
        middle[node] = math.sqrt(width) / 2
        width /= 2
        lower = place < low + width
        if lower:
            right = middle
        else:
            left, low = middle, low + width
        # the far half, counted from 1, is the near one counted from 0
        node = 2 * node + (lower if near_one else not lower)
    share = (place - low) / width
    names = left | right
    return {k: (left.get(k, 0.0) * (1 - share) + right.get(k, 0.0) * share) * (1 + gamma) for k in names}


def step_weights(gamma_t: float, gamma_s: float) -> dict[int, float]:
    """The standard normal noise of a step from ``gamma_t`` up to ``gamma_s``: weights whose squares sum to 1."""
    before, after = path_weights(gamma_t), path_weights(gamma_s)
    moved = {k: after.get(k, 0.0) - before.get(k, 0.0) for k in before | after}
    scale = math.sqrt(math.fsum(w * w for w in moved.values()))
    return {k: w / scale for k, w in moved.items() if w}
