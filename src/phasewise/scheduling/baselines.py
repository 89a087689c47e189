"""What others do instead of optimising: assignments of members to steps by a rule, and the names they are shown
under."""

from __future__ import annotations

import math
from collections.abc import Sequence

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.paths import path_from_config
from phasewise.results import HybridSchedule, PriceList, a_price_list
from phasewise.sampling import calls_per_step, time_grid
from phasewise.sampling.solvers import solver_name

LABELS = {
    "hybrid": "hybrid, optimised",
    "global": "global at every step",
    "global_cheap": "global, fewer steps",
    "global_placed": "global at all steps",
    "own": "your schedule",
    "window": "global in the window, else local",
    "window_gap": "global where the gap is, else local",
    "window_cmi": "global where the CMI is, else local",
    "stitched": "cheap first, then global (T-Stitch)",
    "spread": "local and global in turn",
    "window_shifted": "window shifted to more noise",
    "window_inverted": "local in the window, else global",
    "local_only": "local at every step",
    "closed_only": "closed form at every step, no network",
}
"""Every schedule that a run compares, in the order it is shown."""
PLACED = ", placed"
"""Ends the label of a schedule whose start times were searched for (:mod:`phasewise.scheduling.searched`)."""


@checks.checked(times=checks.times, interval=checks.pair_inside(0, 1), inside=checks.text, outside=checks.text)
def window(times: Sequence[float], interval: tuple[float, float], inside: str, outside: str) -> tuple[str, ...]:
    """The paper's hybrid: ``inside`` takes the steps that start at a time in [low, high], ``outside`` the others."""
    low, high = interval
    return tuple(inside if low <= t <= high else outside for t in times)


@checks.checked(times=checks.times, small=checks.text, large=checks.text, fraction=checks.unit)
def t_stitch(times: Sequence[float], small: str, large: str, fraction: float) -> tuple[str, ...]:
    """Small then large (T-Stitch, Pan et al. 2024, arXiv 2402.14167): ``small`` takes the first ``fraction`` of the
    steps, rounded, ``large`` the rest."""
    count = round(fraction * len(times))
    return (small,) * count + (large,) * (len(times) - count)


@checks.checked(times=checks.times, small=checks.text, large=checks.text, fraction=checks.unit)
def spread(times: Sequence[float], small: str, large: str, fraction: float) -> tuple[str, ...]:
    """``small`` takes a ``fraction`` of the steps, rounded, spread as evenly as can be; ``large`` the rest."""
    n, count = len(times), round(fraction * len(times))
    # Bresenham's line: small where the running count k * count / n passes a whole number
    return tuple(small if (k + 1) * count // n > k * count // n else large for k in range(n))


@checks.checked(interval=checks.pair_inside(0, 1))
def shifted(interval: tuple[float, float]) -> tuple[float, float]:
    """The window moved by its own width towards more noise, or towards less where there is none."""
    low, high = interval
    width = high - low
    return (high, min(high + width, 1.0)) if high < 1 else (max(low - width, 0.0), low)


@checks.checked(
    prices=a_price_list,
    small=checks.text,
    large=checks.text,
    mflop=checks.not_negative,
    solver=solver_name,
)
def fraction_for(prices: PriceList, small: str, large: str, mflop: float, solver: str) -> float:
    """The smallest share of the steps that ``small`` must take from ``large`` for a cost of at most ``mflop``."""
    unknown = [name for name in (small, large) if name not in prices.names]
    if unknown:
        raise PhasewiseError(f"no prices for {unknown[0]!r}; the list has {', '.join(prices.names)}")
    steps = len(prices.times)
    calls = sum(calls_per_step(solver, steps))
    full, less = (calls * float(prices.flops[prices.names.index(name)]) / 1e6 for name in (large, small))
    # the cost is linear in the share: full - share * (full - less)
    needed = (full - mflop) / (full - less) if full > less else 0.0
    # 1e-9: a share that is whole already is not rounded up
    return min(max(math.ceil(needed * steps - 1e-9) / steps, 0.0), 1.0)


@checks.checked(
    prices=a_price_list, mflop=checks.not_negative, solver=solver_name, t_min=checks.fraction, first=checks.text
)
def fewer_steps(
    prices: PriceList,
    mflop: float,
    solver: str,
    *,
    t_min: float = 0.02,
    spacing: str = "uniform",
    first: str | None = None,
) -> HybridSchedule:
    """The reference alone with the fewest steps that cost at least ``mflop`` an image: the next higher cost.

    From 2 steps up to one less than the price list's grid has (where that has more than 2): above, they are not fewer.
    A budget that even these do not reach gets them, at a lower cost; compare ``.mflop``.

    ``first``: who takes the first step, at t = 1: a closed form, whose answer there is the data mean like everybody's.
    """
    reference = prices.losses.reference
    first = reference if first is None else first
    if first not in prices.names:
        raise PhasewiseError(f"no prices for {first!r}; the list has {', '.join(prices.names)}")
    opening, per_call = (float(prices.flops[prices.names.index(name)]) / 1e6 for name in (first, reference))

    def cost(steps: int) -> float:
        calls = calls_per_step(solver, steps)
        return (1 if first in prices.jumps else calls[0]) * opening + sum(calls[1:]) * per_call

    steps, most = 2, max(len(prices.times) - 1, 2)
    # 1e-6: rounding of the budget costs no step
    while steps < most and cost(steps) < mflop * (1 - 1e-6):
        steps += 1
    return HybridSchedule(
        times=time_grid(steps, path=path_from_config(prices.losses.path), t_min=t_min, spacing=spacing),
        assignment=(first,) + (reference,) * (steps - 1),
        solver=solver,
        path=prices.losses.path,
        mflop=cost(steps),
    )
