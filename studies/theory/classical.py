"""Enumerated bits: recovery term by term, phases by local channels both ways, k-local reverse processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import rel_entr

from phasewise.exact import DiscreteSystem, GaussianField, GaussianModel, ensembles, reverse_bits, reverse_field

SQUARE = (4, 4)
LEVELS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Where noise and its reversal stop; the last is noise alone."""
EVEN = tuple(k / 10 for k in range(11))
ENDS = (0.02, 0.98)
LAYERS = (1, 4, 16)
FIELDS: dict[str, tuple[tuple[int, int], float, bool]] = {
    "ring of 24": ((1, 24), 0.1, True),
    "field 8 x 8": ((8, 8), 0.1, False),
}


def systems(shape: tuple[int, int]) -> dict[str, DiscreteSystem]:
    """By name; loops need two dimensions, and an even number of columns."""
    found = {
        "product .8": ensembles.product(shape, 0.8),
        "Ising .3": ensembles.ising(shape, 0.3),
        "Ising .7": ensembles.ising(shape, 0.7),
        "GHZ": ensembles.ghz(shape),
    }
    if shape[0] > 1 and shape[1] % 2 == 0:
        found |= {"loops, even": ensembles.loops(shape, 0), "loops, either": ensembles.loops(shape)}
    return found


def terms(name: str, shape: tuple[int, int], radius: int) -> dict[str, Any]:
    """Inequalities (1) and (2) of :mod:`phasewise.exact.discrete`, step by step: from data to noise and back."""
    found = systems(shape)[name].path_recovery(EVEN, radius, "colours")
    own, lost, cmi = (np.array(x) for x in (found.own, found.terms, found.cmi))
    tight = own[lost > 1e-6] / lost[lost > 1e-6]
    return {
        "kl": found.kl,
        "own": own.sum(),
        "lost": lost.sum(),
        "cmi": cmi.sum(),
        "steps": len(own),
        "obey": int(((own <= lost + 1e-12) & (lost <= cmi + 1e-12)).sum()),
        "tightest": tight.max() if len(tight) else None,
        "loosest": tight.min() if len(tight) else None,
    }


def recovered(name: str, shape: tuple[int, int], radii: tuple[int, ...]) -> dict[str, Any]:
    """``KL(P || recovered from noise alone)`` by radius."""
    system = systems(shape)[name]
    return {"kl": {str(r): _kl(system, system.undone(system.noisy(1.0), EVEN, r, "colours")) for r in radii}}


def bridges(target: str, shape: tuple[int, int], radius: int) -> dict[str, Any]:
    """From every system to ``target``: noised to a level, then undone as the target's noise is.  KL(target || found)
    by level."""
    known = systems(shape)
    to = known[target]
    pairs = [(k, LEVELS[: k + 1]) for k in range(1, len(LEVELS))]
    return {
        "kl": {
            name: [_kl(to, to.undone(start.noisy(path[-1]), path, radius, "colours")) for _, path in pairs]
            for name, start in known.items()
        }
    }


def reversal(name: str, shape: tuple[int, int], radius: int, steps: int) -> dict[str, Any]:
    """The k-local jump process, and the sums of thinner and thinner layers that its bound is the limit of."""
    system = systems(shape)[name]
    found = reverse_bits(system, radius, *ENDS, steps=steps)
    low, high = (np.log(t / (1 - t)) for t in ENDS)
    layered = {}
    for count in LAYERS:
        levels = tuple((1 / (1 + np.exp(-np.linspace(low, high, count + 1)))).tolist())
        path = system.path_recovery(levels, radius, "colours")
        layered[str(count)] = [path.kl, sum(path.terms)]
    return {"kl": found.kl, "bound": found.bound, "layers": layered}


def field_reversal(name: str, radius: int, steps: int) -> dict[str, Any]:
    """The k-local diffusion of a Gaussian field."""
    shape, mass, wrap = FIELDS[name]
    model = GaussianModel(GaussianField(shape, mass).covariance, shape, wrap=wrap)
    found = reverse_field(model, radius, *ENDS, steps=steps)
    return {"kl": found.kl, "bound": found.bound}


def _kl(system: DiscreteSystem, q: np.ndarray) -> float:
    return float(rel_entr(system.p, q).sum())
