"""The figure of conditional mutual information: map, decay with its fits, Markov length, critical window.

Conventions as in :mod:`phasewise.report.figures`; the critical window is tinted, or ruled off in the heat map.
"""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from phasewise.report.figures import BAND, TIME, draw_band, label_axes, new_figure
from phasewise.report.style import CONTROL, GLOBAL, INK, PAPER, WIENER, log_y, noise_y, styled
from phasewise.results import Array, CMIMap, MarkovFit
from phasewise.runs.reading import Position

LENGTH, MAX_POSITIONS = "#0072B2", 12


@styled
def cmi(record: CMIMap, fit: MarkovFit | None = None, positions: list[Position] | None = None) -> Figure:
    """Heat map and decay with radius; with a fit, also the Markov length and the CMI at the window's radius by time."""
    order = np.argsort(record.times, kind="stable")
    height = max(3.4, 1.4 + 0.24 * len(record.times))
    figure, axes = new_figure(
        2 if fit else 1, 2, height + (3.1 if fit else 0), height_ratios=[height, 3.1][: 1 + bool(fit)]
    )
    _heat(axes[0], record.times[order], record.radii, record.value[order], record.stderr[order])
    _decay(axes[1], record, fit, order)
    if fit is not None:
        if fit.window is not None:
            low, high = np.interp(fit.window, record.times[order], np.arange(len(order)) + 0.5)
            _bracket(axes[0], float(low), float(high))
        _length(axes[2], fit)
        _window(axes[3], record, fit, positions or [])
    return figure


def _bracket(ax: Axes, low: float, high: float) -> None:
    """A bar beside the rows from ``low`` to ``high``, where it strikes through no value."""
    ends: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "clip_on": False, "color": GLOBAL, "linewidth": 2}
    ax.plot([1.02, 1.035, 1.035, 1.02], [low, low, high, high], solid_joinstyle="miter", **ends)


def _heat(ax: Axes, times: Array, radii: tuple[int, ...], value: Array, stderr: Array) -> None:
    finite = value[np.isfinite(value)]
    top = float(finite.max()) if finite.size else 1.0
    low = min(0.0, float(finite.min())) if finite.size else 0.0
    mesh = ax.pcolormesh(np.ma.masked_invalid(value), cmap="cividis", vmin=low, vmax=max(top, low + 1e-12))
    ax.set_xticks(np.arange(len(radii)) + 0.5, [str(r) for r in radii])
    ax.set_yticks(np.arange(len(times)) + 0.5, [f"{t:.2g}" for t in times])
    ax.grid(False)
    label_axes(ax, "a  I(A : C | B) in nats", "radius r of the buffer B (pixels)", "t")
    ax.figure.colorbar(mesh, ax=ax, shrink=0.9)
    if value.size <= 150:
        _write_cells(ax, value, stderr, low + 0.55 * (top - low))


def _write_cells(ax: Axes, value: Array, stderr: Array, middle: float) -> None:
    """Values in the cells; in brackets where within 2 standard errors of zero."""
    for (i, j), v in np.ndenumerate(value):
        if np.isfinite(v):
            text = f"{round(float(v), 3) + 0.0:.3f}".replace("-", "−")
            text = f"({text})" if abs(v) <= BAND * stderr[i, j] else text
            color = "black" if v > middle else "white"
            ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=6.5, color=color)


def _decay(ax: Axes, record: CMIMap, fit: MarkovFit | None, order: Array) -> None:
    shades = matplotlib.colormaps["plasma"](np.linspace(0, 0.85, max(len(order), 2)))
    radii = np.array(record.radii, dtype=float)
    for shade, i in zip(shades, order, strict=False):
        label = f"t = {record.times[i]:.2g}"
        points = {"marker": "o", "linestyle": "none" if fit else "-"}
        draw_band(ax, radii, record.value[i], record.stderr[i], color=shade, label=label, **points)
        if fit is not None and np.isfinite(fit.amplitude[i]) and np.isfinite(fit.xi[i]):
            r = np.linspace(min(fit.radii), max(fit.radii), 40)
            style = "-" if fit.status[i] == "ok" else ":"
            ax.plot(r, fit.amplitude[i] * np.exp(-r / fit.xi[i]), color=shade, linestyle=style, linewidth=1.2)
    ax.axhline(0, color=CONTROL, linewidth=0.8)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_axes(ax, "b  Decay with radius" + (" and its fits" if fit else ""), "radius r (pixels)", "nats")
    noise_y(ax, record.value, record.stderr)
    if len(order) and ax.lines:
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles, labels, fontsize=7, ncols=1 + (len(labels) > 6))


def _length(ax: Axes, fit: MarkovFit) -> None:
    """Markov length with its interval; hollow where not exponential, a cross at the foot where not resolved."""
    for status, face in (("ok", LENGTH), ("not exponential", PAPER)):
        rows = [i for i, s in enumerate(fit.status) if s == status and np.isfinite(fit.xi[i])]
        if rows:
            xi = fit.xi[rows]
            bars = np.abs(np.nan_to_num(np.array([xi - fit.low[rows], fit.high[rows] - xi]), posinf=0.0))
            style: dict[str, Any] = {
                "color": LENGTH,
                "markerfacecolor": face,
                "markersize": 5,
                "linewidth": 1.2,
                "label": status,
            }
            ax.errorbar(fit.times[rows], xi, bars, fmt="o", **style)
    absent = [t for t, s in zip(fit.times, fit.status, strict=True) if s == "not resolved"]
    if absent:
        foot: dict[str, Any] = {
            "transform": ax.get_xaxis_transform(),
            "clip_on": False,
            "linestyle": "none",
            "label": "not resolved",
        }
        ax.plot(absent, [0.03] * len(absent), marker="x", color=WIENER, markersize=6, **foot)
    if fit.t_c is not None:
        ax.axvline(fit.t_c, color=INK, linewidth=1, linestyle=(0, (4, 2)), label="t_c")
        ax.axvspan(fit.t_c_low or fit.t_c, fit.t_c_high or fit.t_c, color=INK, alpha=0.08, linewidth=0)
    label_axes(ax, "c  Markov length", TIME, "ξ (pixels)")
    ax.set_xlim(0, 1)
    if not np.isfinite(fit.xi).any():
        ax.set_yticks([])
        ax.text(0.5, 0.5, "resolved at no time", ha="center", va="center", transform=ax.transAxes, color=WIENER)
    log_y(ax, fit.xi)
    if ax.has_data():
        ax.legend(fontsize=7)


def _window(ax: Axes, record: CMIMap, fit: MarkovFit, positions: list[Position]) -> None:
    """CMI at the window's radius by time, the tolerance, and the window where it is exceeded."""
    if fit.window is not None:
        ax.axvspan(*fit.window, color=GLOBAL, alpha=0.09, linewidth=0, label="critical window")
    if fit.window_radius in record.radii:
        j = record.radii.index(fit.window_radius)
        order = np.argsort(record.times, kind="stable")
        for k, place in enumerate(positions[:MAX_POSITIONS]):
            line: dict[str, Any] = {"color": WIENER, "linewidth": 0.8, "label": "_" if k else "single positions"}
            ax.plot(record.times[order], place.value[order, j], **line)
        label = "mean over positions" if positions else "CMI"
        draw_band(ax, record.times, record.value[:, j], record.stderr[:, j], color=LENGTH, label=label, marker="o")
    ax.axhline(fit.tolerance, color=INK, linewidth=1, linestyle=":", label=f"tolerance {fit.tolerance:g} nats")
    label_axes(ax, f"d  CMI at r = {fit.window_radius}", TIME, "nats")
    ax.set_xlim(0, 1)
    ax.legend(fontsize=7)
