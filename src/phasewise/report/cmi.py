"""The section on conditional mutual information: what it is, its map, the Markov length, the critical window."""

from __future__ import annotations

import numpy as np

from phasewise.report import cmi_figures
from phasewise.report.blocks import Section, Table, drawing
from phasewise.report.schedule_figures import evenly
from phasewise.report.style import BARS, num, pm
from phasewise.results import CMIMap, MarkovFit
from phasewise.runs.layout import missing
from phasewise.runs.reading import Position, positions
from phasewise.runs.run import Run

TITLE = "Conditional mutual information"
INTRO = (
    "Cut an image into three parts: A, one pixel or a small block; B, the buffer, all pixels within r of it; C, the "
    "rest of the image. All of them are noised to time t. I(A : C | B) is what C still tells about A once B is known, "
    "in nats. Where it is close to zero, a denoiser of radius r misses nothing at A; elsewhere far pixels matter."
)
LENGTH = (
    " The Markov length ξ says how fast this falls when the buffer grows: by a factor e = 2.7 for every ξ pixels. In "
    "the paper's picture it is largest at the transition between the noisy and the data-like phase; in many real data "
    "it grows with noise as long as it can be measured. A time is “not resolved” "
    "where the data do not bear a fit, mostly because the information at the larger radii drowns in its errors; that "
    "does not mean that ξ is short there. “Not exponential” means that the decay has another shape, which one "
    "length does not describe."
)


def section(run: Run) -> Section:
    record, fit = run.cmi, run.markov
    if record is None:
        return Section("cmi", TITLE, INTRO, notes=(missing("cmi"),))
    cropped = _cropped(run, record)
    intro, inside = INTRO + cropped, " of the central square" if cropped else ""
    places = positions(record)
    caption = _caption(record, fit, places, inside)
    figure = drawing("cmi", cmi_figures.cmi(record, fit, places), _alt(record, fit), caption)
    tables = [_positions(record, places)] if places else []
    if fit is None:
        return Section("cmi", TITLE, intro, (figure, *tables), notes=(missing("markov"),))
    return Section("cmi", TITLE, intro + LENGTH, (figure, _lengths(record, fit), *tables), items=findings(record, fit))


def _cropped(run: Run, record: CMIMap) -> str:
    """What the map leaves out of larger images."""
    measured = list(record.config.get("image_shape") or ())
    if run.data is None or measured in ([], list(run.data.image_shape)):
        return ""
    return (
        f" Here it was measured in the central {measured[-2]} × {measured[-1]} pixels, where C ends. Pixels beyond "
        "could only add to it."
    )


def findings(record: CMIMap, fit: MarkovFit) -> tuple[str, ...]:
    """Critical time and critical window, one sentence each."""
    if fit.t_c is None:
        first = f"No critical time: {fit.t_c_note}." if fit.t_c_note else "No critical time."
    else:
        xi = float(fit.xi[int(np.argmin(np.abs(fit.times - fit.t_c)))])
        first = f"Critical time t_c = {fit.t_c:.3g} (95 %: {fit.t_c_low:.3g} to {fit.t_c_high:.3g}), where ξ is "
        first += f"{num(xi)} pixels, the longest resolved."
        first += f" But {fit.t_c_note}." if fit.t_c_note else ""
    if fit.window is None:
        return first, f"No critical window: the CMI {_no_window(record, fit)}."
    at = f"{fit.tolerance:g} nats at r = {fit.window_radius}"
    low, high = fit.window
    edges = (low <= fit.times.min()) + 2 * (high >= fit.times.max())
    beyond = ("", "smaller", "larger", "smaller and larger")[int(edges)]
    open_end = f" It reaches the edge of the measured times: measure {beyond} ones to see its end." if beyond else ""
    return first, (
        f"Critical window: the CMI exceeds {at} for t from {low:.3g} to {high:.3g}; outside it a denoiser of that "
        f"radius misses little about A.{open_end} {_ends_error(record, fit)}"
    )


def _ends_error(record: CMIMap, fit: MarkovFit) -> str:
    """How well the values are known off which the window's ends are read."""
    column = record.stderr[:, list(record.radii).index(fit.window_radius)]
    worst = float(np.nanmax(column))
    text = f"Its ends carry no error of their own; values at that radius have errors of up to {num(worst)} nats"
    return f"{text}, so take them as uncertain." if worst > fit.tolerance / 2 else f"{text}."


def _no_window(record: CMIMap, fit: MarkovFit) -> str:
    """Why there is none, of the CMI: it stays below the tolerance, or one cannot tell from what was measured."""
    at = f"{fit.tolerance:g} nats at r = {fit.window_radius}"
    column = record.value[:, [r == fit.window_radius for r in record.radii]]
    measured = int(np.isfinite(column).sum())
    if not measured:
        return f"at r = {fit.window_radius} is not a number at any measured time"
    if not (column > fit.tolerance).any():
        return f"exceeds {at} at no measured time"
    return f"exceeds {at}, but a window cannot be told from " + ("one time" if measured == 1 else "the fit on record")


def _caption(record: CMIMap, fit: MarkovFit | None, places: list[Position], inside: str) -> str:
    size = f"{record.block} × {record.block} pixels" if record.block > 1 else "one pixel"
    where = (
        f"{len(places)} positions, their mean shown"
        if places
        else f"row {record.center[0]}, column {record.center[1]}{inside}"
    )
    text = (
        "a: estimates over time and radius; in brackets where within 2 standard errors of zero. b: the same against "
        "the radius, one colour per time; linear near zero and logarithmic beyond where the range asks for it. "
    )
    if fit is not None:
        text += (
            f"Lines: exponential fits over r = {min(fit.radii)} to {max(fit.radii)}, dotted where not exponential, "
            f"none where any of these radii is below {fit.min_sigma:g} standard errors. c: Markov length with 95 % "
            "intervals; dashed the critical time with its interval. "
            f"d: CMI at r = {fit.window_radius} by time"
            + (", each position in grey" if places else "")
            + (
                "; tinted, and marked by the bar beside a, the critical window. "
                if fit.window is not None
                else f". No critical window: it {_no_window(record, fit)}. "
            )
        )
    bound = record.config.get("bound")
    said = f" As a bound on the true value: {bound}." if isinstance(bound, str) and bound else ""
    return (
        f"{text}Estimates are unclamped and may come out negative. Estimator: {record.estimator}.{said} A: {size}, "
        f"{where}; n = {num(record.n)} images; seed {record.seed}. {BARS}"
    )


def _alt(record: CMIMap, fit: MarkovFit | None) -> str:
    text = "Heat map of conditional mutual information over time and radius, and its decay with radius."
    if np.isfinite(record.value).any():
        i, j = np.unravel_index(int(np.nanargmax(record.value)), record.value.shape)
        text += f" Largest: {num(float(record.value[i, j]))} nats at t = {record.times[i]:.2g}, r = {record.radii[j]}."
    return text if fit is None else f"{text} {' '.join(findings(record, fit))}"


def _lengths(record: CMIMap, fit: MarkovFit) -> Table:
    rows = []
    for i in np.argsort(fit.times, kind="stable"):
        interval = f"{num(float(fit.low[i]))} to {num(float(fit.high[i]))}" if np.isfinite(fit.xi[i]) else "–"
        verdict = f"{fit.status[i]}: {fit.reason[i]}" if fit.reason[i] else fit.status[i]
        numbers = (num(float(fit.xi[i])), interval, _p(float(fit.p_value[i])))
        rows.append((f"t = {fit.times[i]:.2g}: {verdict}", *numbers))
    head = ("time and verdict", "Markov length ξ (pixels)", "95 % interval (pixels)", "p-value of the fit")
    if record.config.get("covariance") is None:
        errors = (
            "The errors at different radii are treated as independent, though they share their images: the intervals "
            "may be too wide with 3 or 4 radii, and too narrow, up to twice, with many."
        )
    else:
        errors = "The errors at different radii go together, which the intervals and p-values take into account."
    caption = (
        f"Markov length by time, fitted over r = {', '.join(map(str, fit.radii))} at every time. {errors} A small "
        "p-value speaks against an exponential."
    )
    return Table(head, tuple(rows), caption)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else num(value, 2)


def _positions(record: CMIMap, places: list[Position]) -> Table:
    """Largest CMI of each position, with its time, at up to three radii."""
    columns = evenly(len(record.radii), 3)
    rows = []
    for place in places:
        cells = []
        for j in columns:
            column = place.value[:, j]
            k = int(np.nanargmax(column)) if np.isfinite(column).any() else 0
            at = f" at t = {record.times[k]:.2g}" if np.isfinite(column[k]) else ""
            cells.append(pm(float(column[k]), float(place.stderr[k, j])) + at)
        rows.append((f"row {place.center[0]}, column {place.center[1]}", *cells))
    head = ("A at", *(f"r = {record.radii[j]} (nats)" for j in columns))
    return Table(head, tuple(rows), "Largest CMI over the measured times at each position of A, and when it occurs.")
