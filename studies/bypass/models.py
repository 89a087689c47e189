r"""Exact models by size: how far a window must reach on each way round the transition.

A path *needs* the least radius r at which the CMI of all pixels together stays small at every time::

    max over t of  N I(pixel : C | B_r)  <=  NATS

By (2) of :mod:`phasewise.exact.discrete` the sum bounds what recovering all pixels locally costs.  A single pixel's CMI
at a fixed threshold would not do: it falls with the size of the image, for one pixel tells ever less of a shared sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from phasewise.exact import GaussianField, IsingChain, TwoMode
from phasewise.paths import LinearPath, ModePath, NoisePath

NATS = 0.1
"""CMI of all pixels together that is small, nats an image."""
FIELD = 0.05
"""Of the third way: on every pixel of two modes, in units where exp(field * s) weighs a sign."""
ON_CHAINS = 0.2
"""The same of chains, whose correlations it cuts at about 1 / (2 field) pixels."""
RADII = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

MORE = 10
"""Times as many samples of a chain under coloured noise, whose terms are log ratios, not exact divergences."""

Curve = Callable[[float, int], tuple[float, float]]
"""CMI of all pixels together, nats, and its standard error, at a log-SNR (of the linear path's time) and a radius."""


def coloured(height: int, width: int, length: float) -> ModePath:
    """Noise that is a free field of this correlation length."""
    return ModePath((height, width), power=1.0, mass=1 / length)


def time_of(log_snr: float) -> float:
    return float(LinearPath().t_of_log_snr(log_snr))


def field_curves(side: int) -> dict[str, Curve]:
    """Gaussian field whose correlation length is half the side."""
    field = GaussianField((side, side), mass=2 / side, boundary="open")
    own = coloured(side, side, side / 2)

    def curve(path: NoisePath | None) -> Curve:
        return lambda log_snr, radius: (side**2 * field.cmi(time_of(log_snr), radius, path=path), 0.0)

    return {"isotropic": curve(None), "coloured": curve(own)}


def two_mode_curves(side: int) -> dict[str, Curve]:
    """A sign that all pixels share."""
    own, plain = coloured(side, side, side / 2), TwoMode((side, side))
    held = TwoMode((side, side), bias=FIELD * side**2)

    def curve(model: TwoMode, path: NoisePath | None) -> Curve:
        return lambda log_snr, radius: (side**2 * model.cmi(time_of(log_snr), radius, path=path), 0.0)

    return {
        "isotropic": curve(plain, None),
        "coloured": curve(plain, own),
        "field": curve(held, None),
        "given the sign": lambda log_snr, radius: (0.0, 0.0),  # pixels are independent then
    }


def chain_curves(length: int, n: int) -> dict[str, Curve]:
    """An Ising chain whose correlation length is half its own, by ``n`` samples."""
    beta = math.atanh(math.exp(-2 / length))
    plain, held = IsingChain(length, beta), IsingChain(length, beta, field=ON_CHAINS)
    own = coloured(1, length, length / 2)

    def curve(model: IsingChain, path: NoisePath | None) -> Curve:
        many = n if path is None else MORE * n

        def at(log_snr: float, radius: int) -> tuple[float, float]:
            found = model.cmi(time_of(log_snr), radius, path=path, n=many)
            return length * found.value, length * found.stderr

        return at

    return {"isotropic": curve(plain, None), "coloured": curve(plain, own), "field": curve(held, None)}


def needed_radius(curve: Curve, log_snrs: tuple[float, ...], most: int) -> dict[str, Any]:
    """The least radius, None where none up to ``most`` does; the most that is left at radius 1, and at a quarter of
    the side, each as (nats, error, log-SNR)."""
    quarter = max((most + 1) // 2, 1)
    known: dict[int, tuple[float, float, float]] = {}

    def worst(radius: int) -> tuple[float, float, float]:
        if radius not in known:
            known[radius] = max((*curve(x, radius), x) for x in log_snrs)
        return known[radius]

    found = next((r for r in RADII if r <= most and worst(r)[0] <= NATS), None)
    return {"radius": found, "near": worst(1), "far": worst(quarter), "quarter": quarter}
