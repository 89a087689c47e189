r"""The critical window: the noise times at which far pixels still matter, read off a map of CMI.

    window = { t : I(A : C | B_r) > tolerance }          (nats; Hu, Liu, Zhang, Gao, arXiv 2508.06614)

The published bound: where the CMI with the ring of width r is small, a channel that sees the ring alone undoes a small
step of noise up to an error of that size; so outside the window a local denoiser of radius r may serve.
"""

from __future__ import annotations

import warnings

import numpy as np

from phasewise import checks
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.results import Array, CMIMap, a_cmi_map


@checks.checked(cmi=a_cmi_map, tolerance=checks.positive, radius=checks.at_least_0)
def critical_window(cmi: CMIMap, tolerance: float = 0.01, radius: int | None = None) -> tuple[float, float]:
    """(t_low, t_high): the noise times where ``I(A : C | B_r)`` exceeds ``tolerance`` nats.

    Ends are interpolated linearly between measured times; where the CMI still exceeds the tolerance at the first or
    last measured time, that time is the end.  If several spans exceed it, the hull of all.  ``radius``: one of the
    map's, default the smallest.  Warns (:class:`PhasewiseWarning`) where a standard error beside an end is larger than
    half the tolerance, so that noise may set it.

    Raises :class:`PhasewiseError` where nothing exceeds the tolerance (naming the largest value), where only a single
    time was measured, and for a radius that the map does not have.
    """
    radius = min(cmi.radii) if radius is None else radius
    if radius not in cmi.radii:
        raise PhasewiseError(f"the map has no radius {radius}; it has {', '.join(map(str, cmi.radii))}")
    column = cmi.radii.index(radius)
    order = [i for i in np.argsort(cmi.times, kind="stable") if np.isfinite(cmi.value[i, column])]
    times, value, stderr = cmi.times[order], cmi.value[order, column], cmi.stderr[order, column]
    above = np.flatnonzero(value > tolerance)
    if not len(above):
        raise PhasewiseError(_nowhere(times, value, tolerance, radius))
    # the cells that the ends are interpolated between
    beside = stderr[[k for k in {above[0] - 1, above[0], above[-1], above[-1] + 1} if 0 <= k < len(stderr)]]
    if float(beside.max()) > tolerance / 2:
        warnings.warn(
            f"the standard errors at r = {radius} beside the ends of the critical window are up to {beside.max():.2g} "
            f"nats, more than half the tolerance of {tolerance:g}: the ends are uncertain; use more images or a larger "
            "tolerance",
            PhasewiseWarning,
            stacklevel=3,
        )
    window = _crossing(times, value, tolerance, above[0], -1), _crossing(times, value, tolerance, above[-1], 1)
    if len(times) == 1:
        raise PhasewiseError(f"a window takes more than one measured time; the map has t = {times[0]:g} alone")
    return window


def _nowhere(times: Array, value: Array, tolerance: float, radius: int) -> str:
    if not len(value):
        return f"the CMI at r = {radius} is not a number at any time; measure it again"
    k = int(np.argmax(value))
    text = f"the CMI at r = {radius} exceeds {tolerance:g} nats at no measured time: there is no critical window; "
    text += f"the largest value is {value[k]:.2g} nats at t = {times[k]:.3g}; "
    return text + (f"try a tolerance of {value[k] / 3:.1g}" if value[k] > 0 else "try a smaller radius or larger A")


def _crossing(times: Array, value: Array, level: float, i: int, step: int) -> float:
    """Where the line from measured time ``i`` (above ``level``) to its neighbour ``i + step`` passes ``level``."""
    j = i + step
    if not 0 <= j < len(times):
        return float(times[i])
    # value[j] <= level < value[i]: ascending, as np.interp takes them
    return float(np.interp(level, [value[j], value[i]], [times[j], times[i]]))


def window_or_none(cmi: CMIMap, tolerance: float, radius: int) -> tuple[float, float] | None:
    """:func:`critical_window` without its warning.

    None where nothing exceeds the tolerance, and where it cannot be told: a single measured time, or no number at any.
    """
    if radius not in cmi.radii or not tolerance > 0:
        return critical_window(cmi, tolerance, radius)  # bad input is an error all the same
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PhasewiseWarning)
            return critical_window(cmi, tolerance, radius)
    except PhasewiseError:
        return None
