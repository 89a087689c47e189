"""Finite-size scaling on models that are known: how the log-SNR at which far pixels matter moves with the side.

Near a transition that lies at no signal at all, a scale ``xi ~ gamma^(-nu)`` is all there is, so what a block of a
fixed share of the image lacks is a function of ``gamma L^(1/nu)`` alone.  Every model is measured on its own axis
``u = gamma L^(1/nu)`` of the exponent that theory gives it, and the exponent is then fitted, not put in.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import minimize

from phasewise.exact import IsingChain, IsingTorus, TorusField, TwoMode
from phasewise.exact.gaussian import torus_spectrum
from phasewise.paths import LinearPath

Array = np.ndarray
MODELS = ("field", "two modes", "chain", "Ising")
EXPECTED = {"field": 1 / 2, "two modes": 1 / 2, "chain": 1.0, "Ising": 4 / 7}
"""nu by theory: the massless field's noise enters beside k^2; a sign is known from N gamma pixels; spins at distance d
agree like d^(-eta), so gamma, which couples to two of them, scales with the length to the power dim - eta."""
FALL = {"field": 0.0, "two modes": 0.0, "chain": 1.0, "Ising": 0.0}
"""By which power of the side the curves fall by theory: blocks grow with the image, but on the chain A is one pixel."""
SPAN = {"field": (-3.0, 7.0), "two modes": (-5.0, 6.0), "chain": (-4.0, 5.0), "Ising": (-1.4, 2.8)}
"""log u, from and to."""
POINTS = {"field": 21, "two modes": 23, "chain": 13, "Ising": 7}
IMAGES = {16: 200, 32: 80, 64: 30, 128: 8}
"""Of the Ising model on its torus, by side: they cost what their pixels do."""
CHAINS = 1500
"""Images of a chain, at any length."""
LENGTH = 3 / 8
"""Correlation length of the chain and of the field over the side: all of the image is correlated."""
MASS = 0.1
"""Mass of the field times its side."""


def signals(model: str, side: int) -> Array:
    """gamma, alpha^2 over sigma^2, ascending; of the field, in units of its coupling instead of a pixel's variance."""
    points = np.linspace(*SPAN[model], POINTS[model])
    if model != "Ising":  # so that the points of two sides do not fall on one another where theory is right
        points = points + np.log2(side) % 3 / 3 * (points[1] - points[0])
    return np.exp(points) / side ** (1 / EXPECTED[model])


def measured(model: str, side: int, share: float = 1.0) -> dict[str, Any]:
    """``log_snr`` and by it ``value`` and ``stderr`` (0 where all is exact): I(A : C | B), A a block and B a ring of an
    eighth of the side, A a pixel on the chain; on the Ising torus the slope of that with the log-SNR of A alone.
    ``share`` of the usual number of images."""
    gammas = signals(model, side)
    times = [float(LinearPath().t_of_log_snr(x)) for x in np.log(gammas)]
    ring = max(side // 8, 1)
    if model == "field":
        field = TorusField(side, MASS / side)
        # of unit variance: so much larger than 1 / (k^2 + m^2)
        strength = 1 / float(torus_spectrum((side, side), MASS / side).mean())
        rows = [[field.cmi(float(LinearPath().t_of_log_snr(float(x))), ring, ring)] for x in np.log(gammas / strength)]
    elif model == "two modes":
        modes = TwoMode((side, side))
        rows = [[modes.cmi(t, ring, ring)] for t in times]
    elif model == "chain":
        beta = float(np.arctanh(np.exp(-1 / (LENGTH * side))))
        n = max(round(CHAINS * share), 2)
        found = [IsingChain(side, beta).cmi(t, ring, n=n) for t in times]
        return {"log_snr": np.log(gammas).tolist(), "value": [f.value for f in found],
                "stderr": [f.stderr for f in found], "n": n}  # fmt: skip
    else:
        n = max(round(IMAGES.get(side, 100) * share), 2)
        gap = IsingTorus(side).window_gap(gammas.tolist(), n, 0)
        rows = (0.5 * gammas[:, None] * gap).tolist()
    draws = np.array(rows)
    n = draws.shape[1]
    error = draws.std(1, ddof=1) / np.sqrt(n) if n > 1 else np.zeros(len(draws))
    return {"log_snr": np.log(gammas).tolist(), "value": draws.mean(1).tolist(), "stderr": error.tolist(), "n": n}


def collapsed(
    sides: list[int], log_snr: list[Array], values: list[Array], errors: list[Array], fall: float | None = None
) -> tuple[float, float, float]:
    """(1 / nu, a, spread) for which the curves ``L^a value`` over ``log gamma + log L / nu`` lie on one another best:
    least squares over all pairs of sides where both are known, between points by cubics, each difference weighed by its
    variance and a hundredth of the top; a is ``fall`` where that is known.  The spread is what is left, a root mean
    square over that of the curves."""

    def apart(asked: Array) -> float:
        y, a = asked[0], asked[1] if fall is None else fall
        scale = [(side / sides[0]) ** a for side in sides]
        place = [x + y * np.log(side) for x, side in zip(log_snr, sides, strict=True)]
        height = [v * c for v, c in zip(values, scale, strict=True)]
        lines = [PchipInterpolator(x, h) for x, h in zip(place, height, strict=True)]
        least = 0.01 * max(float(h.max()) for h in height)
        total, size = 0.0, 0.0
        for i, j in itertools.combinations(range(len(sides)), 2):
            low, high = max(place[i][0], place[j][0]), min(place[i][-1], place[j][-1])
            if high <= low:
                return 1e3
            x = np.linspace(low, high, 60)
            one, other = lines[i](x), lines[j](x)
            doubt = [np.interp(x, place[k], errors[k] * scale[k]) for k in (i, j)]
            weight = 1 / (doubt[0] ** 2 + doubt[1] ** 2 + least**2)
            total += float((weight * (one - other) ** 2).mean())
            size += float((weight * (one**2 + other**2)).mean()) / 2
        return total / max(size, 1e-30)

    found = minimize(
        apart,
        np.array([1.5, 0.0][: 1 if fall is not None else 2]),
        method="Nelder-Mead",
        options={"xatol": 1e-4, "fatol": 1e-10, "maxiter": 400},
    )
    return float(found.x[0]), float(found.x[1]) if fall is None else fall, float(np.sqrt(max(found.fun, 0.0)))


def exponent(curves: dict[int, dict[str, Any]], draws: int = 60, fall: float | None = None) -> dict[str, float]:
    """``nu`` with its error, the amplitude's exponent and the spread, of measured curves by side.

    The error is that of fits to curves redrawn with their standard errors, or, where these are 0, half the range of
    fits with one side left out.
    """
    sides = sorted(curves)
    x, v, e = (([np.array(curves[s][k]) for s in sides]) for k in ("log_snr", "value", "stderr"))
    y, a, spread = collapsed(sides, x, v, e, fall)
    if any(part.any() for part in e):
        rng = np.random.default_rng(0)
        drawn = ([p + q * rng.standard_normal(len(p)) for p, q in zip(v, e, strict=True)] for _ in range(draws))
        error = float(np.std([1 / collapsed(sides, x, one, e, fall)[0] for one in drawn], ddof=1))
    else:
        kept = [[k for k in range(len(sides)) if k != out] for out in range(len(sides))] if len(sides) > 2 else []

        def without(some: list[int]) -> float:
            at, height, doubt = ([part[k] for k in some] for part in (x, v, e))
            return 1 / collapsed([sides[k] for k in some], at, height, doubt, fall)[0]

        fits = [without(some) for some in kept]
        error = float(max(fits) - min(fits)) / 2 if fits else float("nan")
    return {"nu": 1 / y, "error": error, "amplitude": -a, "spread": spread}
