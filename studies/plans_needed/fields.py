"""How many pixels of plan a window needs, where all is known: Gaussian fields, and fields of real images' spectra."""

from __future__ import annotations

from typing import Any

import numpy as np

from phasewise.exact import PooledPlan, TorusField, TwoMode
from phasewise.paths import LinearPath

LOG_SNR = tuple(np.linspace(-11.0, 5.0, 17).round(6).tolist())
SIDES = {"mnist": 28, "fashion_mnist": 28, "cifar10": 32, "clothing128": 128}
"""Pixels a side of the sets that there are."""


def plans_of(side: int) -> tuple[int, ...]:
    """Pixels a side of the plans of an image: those that divide its side, up to half of it."""
    return tuple(p for p in (1, 2, 4, 7, 8, 14, 16, 32, 64) if side % p == 0 and 2 * p <= side)


def left(field: TorusField, radius: int, log_snr: tuple[float, ...] = LOG_SNR) -> dict[str, Any]:
    """By log-SNR a window's gap over the global loss, its CMI in nats, and by plan the share that is left of both."""
    found: dict[str, Any] = {"log_snr": list(log_snr), "gap": [], "cmi": [], "plans": list(plans_of(field.side))}
    found |= {"gap left": [], "cmi left": []}
    for t in (float(LinearPath().t_of_log_snr(x)) for x in log_snr):
        gap, cmi = field.denoising_gap(t, radius), field.cmi(t, radius)
        found["gap"].append(gap / field.mmse(t))
        found["cmi"].append(cmi)
        told = [PooledPlan(field, p, t) for p in found["plans"]]
        found["gap left"].append([plan.denoising_gap(radius) / gap for plan in told])
        found["cmi left"].append([plan.cmi(radius) / cmi for plan in told])
    return found


def modes(side: int, radius: int, log_snr: tuple[float, ...] = LOG_SNR) -> dict[str, Any]:
    """The same of the two-mode model, told by vote which mode it is; told the mode itself nothing is left."""
    model = TwoMode((side, side))
    found: dict[str, Any] = {"log_snr": list(log_snr), "gap": [], "cmi": [], "gap left": [], "cmi left": []}
    for t in (float(LinearPath().t_of_log_snr(x)) for x in log_snr):
        whole, gap = model.mmse(t), model.denoising_gap(t, radius)
        cmi = model.cmi(t, radius)
        found["gap"].append(gap / side**2)
        found["cmi"].append(cmi)
        voted = model.mmse(t, radius, given="vote") - whole
        found["gap left"].append(voted / gap if gap / side**2 > 1e-6 else None)
        found["cmi left"].append(model.cmi(t, radius, given="vote") / cmi if cmi > 1e-9 else None)
    return found


def needed(plans: list[int], shares: list[float], tenth: float = 0.1) -> float:
    """Pixels of plan, p^2, at which the share left falls to a ``tenth``: between two plans by a straight line of the
    logarithms; below the smallest, 1; NaN where the largest leaves more."""
    if shares[0] <= tenth:
        return 1.0
    for before, after, high, low in zip(plans, plans[1:], shares, shares[1:], strict=False):
        if low <= tenth:
            along = np.log(high / tenth) / np.log(high / max(low, 1e-300))
            return float(np.exp(2 * (np.log(before) + along * np.log(after / before))))
    return float("nan")
