"""What others do instead of optimising: assignments of members to steps by a rule, and the names they are shown
under."""

from __future__ import annotations

from collections.abc import Sequence

from phasewise.errors import PhasewiseError

LABELS = {
    "global": "global at every step",
    "global_cheap": "global, fewer steps",
    "hybrid": "hybrid, optimised",
    "window": "global in the window, else local",
    "window_gap": "global where the gap is, else local",
    "window_cmi": "global where the CMI is, else local",
    "stitched": "cheap first, then global (T-Stitch)",
    "spread": "local and global in turn",
    "window_inverted": "local in the window, else global",
    "window_shifted": "window shifted to more noise",
    "local_only": "local at every step",
}
"""Every schedule that a run compares, in the order it is shown."""


def window(times: Sequence[float], interval: tuple[float, float], inside: str, outside: str) -> tuple[str, ...]:
    """The paper's hybrid: ``inside`` takes the steps that start at a time in [low, high], ``outside`` the others."""
    low, high = interval
    if not 0 <= low < high <= 1:
        raise PhasewiseError(f"a window is an interval inside [0, 1], got [{low}, {high}]")
    return tuple(inside if low <= t <= high else outside for t in times)


def t_stitch(times: Sequence[float], small: str, large: str, fraction: float) -> tuple[str, ...]:
    """Small then large (T-Stitch, Pan et al. 2024, arXiv 2402.14167): ``small`` takes the first ``fraction`` of the
    steps, rounded, ``large`` the rest."""
    count = round(_share(fraction) * len(times))
    return (small,) * count + (large,) * (len(times) - count)


def spread(times: Sequence[float], small: str, large: str, fraction: float) -> tuple[str, ...]:
    """``small`` takes a ``fraction`` of the steps, rounded, spread as evenly as can be; ``large`` the rest."""
    n, count = len(times), round(_share(fraction) * len(times))
    return tuple(small if (k + 1) * count // n > k * count // n else large for k in range(n))


def _share(fraction: float) -> float:
    if not 0 <= fraction <= 1:
        raise PhasewiseError(f"a fraction of the steps lies in [0, 1], got {fraction}")
    return fraction
