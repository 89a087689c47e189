"""Distributions of bits small enough to enumerate, each in a phase of its own kind or in the trivial one.

Products are trivial.  ``ghz`` and the cold Ising model share a bit that every pixel shows.  ``loops`` share one that no
window shows: strings of ones that never end inside the image, with the parity of strings through any row the same.
"""

from __future__ import annotations

import math

import numpy as np

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.exact.base import Shape, check_shape
from phasewise.exact.discrete import MAX_BITS, DiscreteSystem

Array = np.ndarray


@checks.checked(chance=checks.unit)
def product(shape: Shape, chance: float = 0.5) -> DiscreteSystem:
    """Independent bits of an (H, W) image, each 1 with ``chance``."""
    ones = _bits(shape).sum((1, 2))
    pixels = math.prod(check_shape(shape))
    return DiscreteSystem(chance**ones * (1 - chance) ** (pixels - ones), shape)


def ghz(shape: Shape) -> DiscreteSystem:
    """All 0 or all 1, equally likely: the classical twin of :meth:`QuantumState.ghz`."""
    ones = _bits(shape).mean((1, 2))
    return DiscreteSystem(((ones == 0) | (ones == 1)) / 2, shape)


@checks.checked(beta=checks.number)
def ising(shape: Shape, beta: float) -> DiscreteSystem:
    """``p(s) ~ exp(beta sum_<ij> s_i s_j)`` over nearest neighbours, free borders, s = 2 x - 1.

    The law of :class:`IsingStrip`, enumerated.  On the infinite lattice it orders above beta = .4407 (Onsager).
    """
    s = 2.0 * _bits(shape) - 1
    bonds = (s[:, 1:] * s[:, :-1]).sum((1, 2)) + (s[:, :, 1:] * s[:, :, :-1]).sum((1, 2))
    weight = np.exp(beta * (bonds - bonds[np.argmax(beta * bonds)]))
    return DiscreteSystem(weight / weight.sum(), shape)


@checks.checked(sector=checks.whole(0, 1))
def loops(shape: Shape, sector: int | None = None) -> DiscreteSystem:
    """Closed strings, all equally likely: the toric code's, measured, on a patch with two kinds of border.

    Bits are the edges of a lattice turned by 45 degrees, whose vertices are the 2 x 2 plaquettes (i, j) with i + j even
    and, at the left and right border, the two pixels of the rows i and i + 1 with i odd.  The bits of every vertex sum
    to an even number, so strings end at the top and bottom border alone, and each row has the same parity.

    Args:
        shape: (H, W), W even.
        sector: that parity; None: either, equally likely, a bit which only whole rows tell.
    """
    x = _bits(shape)
    height, width = shape
    if width % 2:
        raise PhasewiseError(f"loops close on an even number of columns, got {width}")
    closed = np.ones(len(x), dtype=bool)
    for i in range(height - 1):
        pair = x[:, i] + x[:, i + 1]
        starts = range(i % 2, width - 1, 2)
        vertices = [pair[:, j] + pair[:, j + 1] for j in starts] + ([pair[:, 0], pair[:, -1]] if i % 2 else [])
        closed &= (np.stack(vertices) % 2 == 0).all(0)
    if sector is not None:
        closed &= x[:, 0].sum(1) % 2 == sector
    return DiscreteSystem(closed / closed.sum(), shape)


def _bits(shape: Shape) -> Array:
    """All images of bits, (2^n, H, W) int64, in the order of their probabilities."""
    _, height, width = check_shape(shape)
    n = height * width
    if n > MAX_BITS:
        raise PhasewiseError(f"an image of {height}x{width} has {n} bits, too many to enumerate; take {MAX_BITS}")
    return ((np.arange(2**n)[:, None] >> np.arange(n - 1, -1, -1)) & 1).reshape(-1, height, width)
