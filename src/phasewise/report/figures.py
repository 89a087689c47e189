"""Figures of a run: training, losses and gaps, cost against quality, recovery. Records in, matplotlib Figures out.

Time runs from t = 0 (data, left) to t = 1 (noise, right). Bands and bars are 2 standard errors either side. Nothing
is smoothed or clamped; values that are not finite are left out of the drawing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from phasewise.display import BAND, TIME, draw_band, label_axes
from phasewise.report.compared import is_alone
from phasewise.report.style import (
    GLOBAL,
    INK,
    NARROW,
    PAPER,
    Palette,
    hover,
    is_number,
    log_y,
    noise_y,
    num,
    ordered,
    plain_ticks,
    pm,
    schedule_label,
    schedule_look,
    styled,
)
from phasewise.results import Array, HybridSchedule, LossTable, Recovery, TrainingRecord
from phasewise.runs.run import Run

SLIM = 4.3
"""Inches; at 72 points each about 300 of the 352 pixels that a telephone leaves."""


def new_figure(rows: int, columns: int, height: float, **kwargs: Any) -> tuple[Figure, list[Axes]]:
    """A 9-inch-wide constrained-layout figure and its axes, row by row; on narrow screens one below the other."""
    if NARROW.get():
        ratios = kwargs.pop("height_ratios", [1] * rows)
        # every panel a row of its own, nearly as high as before
        height = 0.85 * height * columns
        kwargs["height_ratios"] = [r for r in ratios for _ in range(columns)]
        rows, columns = rows * columns, 1
    figure = Figure(
        figsize=(SLIM if NARROW.get() else 9.0, height), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08)
    )
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False, **kwargs)))


def draw_point(ax: Axes, x: float, y: float, bar: float, look: tuple[str, str], **style: Any) -> None:
    """One marker (marker, colour) with an error bar; the legend shows the marker alone."""
    marker, color = look
    star = marker == "*"  # above all others, and set off from what lies below it
    ax.errorbar(x, y, bar, color=color, linewidth=1.2, fmt="none", zorder=3)
    edge: dict[str, Any] = {"markeredgecolor": PAPER, "markeredgewidth": 0.8} if star else {}
    (point,) = ax.plot(x, y, color=color, marker=marker, linestyle="none", zorder=6 if star else 4, **edge, **style)
    ax.figure.__dict__.setdefault("marks", []).append(point)


def ring_marks(figure: Figure, near: float = 5.0) -> None:
    """Of marks that lie on one spot, within ``near`` points, draw those below as rings round the one above them."""
    done: list[tuple[Axes, np.ndarray, float]] = []
    for mark in sorted(figure.__dict__.get("marks", ()), key=lambda m: -m.get_zorder()):
        ax = mark.axes
        spot = ax.transData.transform((mark.get_xdata()[0], mark.get_ydata()[0])) * 72 / figure.dpi
        sizes = [size for other, at, size in done if other is ax and np.hypot(*(at - spot)) < near]
        if sizes:
            mark.set(markersize=max(sizes) + 5, markerfacecolor="none", markeredgewidth=1.6)
        done.append((ax, spot, float(mark.get_markersize())))


def shared_legend(figure: Figure, axes: list[Axes], columns: int = 7) -> None:
    """One legend under the figure for all labelled artists, each label once, in rows of even length."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        columns = min(columns, 2) if NARROW.get() else columns
        lines = -(-len(entries) // columns)
        ncols = -(-len(entries) // lines)
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=ncols)


def reference_spans(schedule: HybridSchedule | None, reference: str) -> list[tuple[float, float]]:
    """(t_low, t_high) of the spans that the reference denoiser takes."""
    return [] if schedule is None else [(b, a) for a, b, name in schedule.spans() if name == reference]


@styled
def fid_cost(run: Run) -> Figure:
    """Distance of every schedule's samples against its cost, in MFLOP and in measured milliseconds."""
    shown = [run.evaluations[n] for n in ordered(run.evaluations) if is_number(run.evaluations[n].fid)]
    costs = [("mflop", "MFLOP per image"), ("ms", "milliseconds per image (measured)")]
    costs = [(f, title) for f, title in costs if any(is_number(getattr(e, f)) for e in shown)] or costs[:1]
    figure, axes = new_figure(1, len(costs), 3.9, sharey=True)
    for ax, (cost, title) in zip(axes, costs, strict=True):
        alone = [e for e in shown if is_alone(run, e)]
        alone = sorted((e for e in alone if is_number(getattr(e, cost))), key=lambda e: getattr(e, cost))
        if len(alone) > 1:
            ax.plot([getattr(e, cost) for e in alone], [e.fid for e in alone], color=GLOBAL, linewidth=1, zorder=1)
        for i, e in enumerate(shown):
            if not is_number(getattr(e, cost)):
                continue
            look = schedule_look(e.name, i)
            bar = BAND * e.fid_stderr if is_number(e.fid_stderr) else 0.0
            style = {"markersize": 13 if look[0] == "*" else 7, "label": schedule_label(run, e.name)}
            style |= {"markerfacecolor": PAPER} if e.name == "global_cheap" else {}
            draw_point(ax, getattr(e, cost), e.fid, bar, look, **style)
            said = (
                f"{schedule_label(run, e.name)}: {e.measure} {pm(e.fid, e.fid_stderr)}, {num(getattr(e, cost))} {title}"
            )
            hover(ax, getattr(e, cost), e.fid, [said])
        if is_number(run.real.get("fid")):
            ax.axhline(run.real["fid"], color=INK, linewidth=1, linestyle=(0, (4, 2)), label="real test images (floor)")
        label_axes(ax, "", title, f"{shown[0].measure} (lower is better)")
        log_y(ax, np.array([e.fid for e in shown]))
        _log_x(ax, np.array([getattr(e, cost) for e in shown], dtype=float))
    for ax in axes[1:]:
        ax.set_ylabel("")
    shared_legend(figure, axes, 1 if NARROW.get() else 3)
    ring_marks(figure)
    return figure


def _log_x(ax: Axes, values: Array) -> None:
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0:
        ax.set_xscale("log")
        ax.margins(x=0.08)
        plain_ticks(ax.xaxis, log=True)


@styled
def training(records: dict[str, TrainingRecord], palette: Palette) -> Figure:
    """Loss against step, and held-out loss in bins of time."""
    figure, (left, right) = new_figure(1, 2, 3.7)
    pool: list[Array] = []
    for name in [n for n in palette.order if n in records]:
        record, look = records[name], palette[name]
        line = {"color": look.color, "linestyle": look.linestyle}
        for key, style in (("train_loss", {"alpha": 0.35, "linewidth": 0.9}), ("val_loss", {"label": look.label})):
            rows = [(h["step"], h[key]) for h in record.history if is_number(h.get(key)) and is_number(h.get("step"))]
            if rows:
                x, y = np.array(rows, dtype=float).T
                left.plot(x, y, **line, **style)
                pool.append(y)
        if len(record.bin_edges) == len(record.val_by_time) + 1:
            right.stairs(record.val_by_time, record.bin_edges, baseline=None, linewidth=1.4, **line)
    label_axes(left, "Loss while training", "step", "loss (solid: held out, pale: training)")
    label_axes(right, "Held-out loss by time, at the end", TIME, "loss")
    log_y(left, *pool)
    log_y(right, *[r.val_by_time for r in records.values()])
    shared_legend(figure, [left])
    return figure


def relative_log_snr(table: LossTable) -> Array:
    """log-SNR against the data variance: log(alpha^2 / sigma^2) + 2 log(data_std)."""
    return table.log_snr + 2 * np.log(table.data_std)


@styled
def loss_and_gap(table: LossTable, palette: Palette, hybrid: HybridSchedule | None) -> Figure:
    """Held-out loss, and the denoising gap as measured, in nats per unit log-SNR and in velocity units."""
    linear = table.path.get("name") == "linear"
    figure, axes = new_figure(2, 2, 6.4)
    snr, (nats, velocity) = relative_log_snr(table), _units(table)
    others = [i for i, name in enumerate(table.names) if name != table.reference]
    for name in [n for n in palette.order if n in table.names]:
        i, line = table.column(name), palette[name].line()
        loss, gap = (table.loss[:, i], table.loss_stderr[:, i]), (table.gap[:, i], table.gap_stderr[:, i])
        draw_band(axes[0], table.times, *loss, **line)
        _tell(axes[0], table.times, *loss, palette[name].label, "t")
        if name == table.reference:
            continue
        draw_band(axes[1], table.times, *gap, **line)
        _tell(axes[1], table.times, *gap, palette[name].label, "t")
        draw_band(axes[2], snr, nats * gap[0], nats * gap[1], **line)
        if linear:
            draw_band(axes[3], table.times, velocity * gap[0], velocity * gap[1], **line)
    label_axes(axes[0], "a  Held-out loss", TIME, "E|D − x|²  per image")
    label_axes(axes[1], "b  Denoising gap: loss − loss of the global denoiser", TIME, "gap  per image")
    label_axes(axes[2], "c  Gap as information", "log-SNR relative to the data variance", "nats per unit log-SNR")
    label_axes(axes[3], "d  Gap as velocity error", TIME, "gap / t²  per image")
    axes[2].invert_xaxis()
    log_y(axes[0], table.loss)
    for ax, unit in ((axes[2], nats), (axes[3], velocity)):
        noise_y(ax, unit[:, None] * table.gap[:, others], unit[:, None] * table.gap_stderr[:, others])
    _shade(axes, table, hybrid)
    for ax in axes[1:]:
        ax.axhline(0, color=GLOBAL, linewidth=1, zorder=1)
    if not linear:
        axes[3].remove()
    shared_legend(figure, axes[:1])
    return figure


def _tell(ax: Axes, x: Array, y: Array, stderr: Array, label: str, at: str) -> None:
    """Values of a curve, where the pointer rests."""
    values = zip(x.tolist(), y.tolist(), stderr.tolist(), strict=True)
    hover(ax, x, y, [f"{label}, {at} = {a:.2g}: {pm(b, e)}" for a, b, e in values])


def _units(table: LossTable) -> tuple[Array, Array]:
    """Factors (T,) from a gap to nats per unit log-SNR (SNR / 2) and to velocity error on the linear path (1 / t^2)."""
    with np.errstate(over="ignore", divide="ignore"):
        factors = 0.5 * np.exp(table.log_snr), 1 / table.times**2
    return np.where(np.isfinite(factors[0]), factors[0], np.nan), np.where(np.isfinite(factors[1]), factors[1], np.nan)


def _shade(axes: list[Axes], table: LossTable, hybrid: HybridSchedule | None) -> None:
    """Tint the times at which the optimised schedule calls the reference denoiser."""
    order = np.argsort(table.times)
    snr = relative_log_snr(table)[order]
    keep = np.isfinite(snr)
    for k, (low, high) in enumerate(reference_spans(hybrid, table.reference)):
        label = "hybrid uses the global denoiser" if k == 0 else "_"
        for ax in (axes[0], axes[1], axes[3]):
            ax.axvspan(low, high, color=GLOBAL, alpha=0.09, linewidth=0, label=label, zorder=0)
        if keep.any():
            ends = np.interp([low, high], table.times[order][keep], snr[keep])
            axes[2].axvspan(ends[1], ends[0], color=GLOBAL, alpha=0.09, linewidth=0, zorder=0)


@styled
def recovery(record: Recovery, palette: Palette) -> Figure:
    """Recovery error against the time the images were noised to."""
    figure, (ax,) = new_figure(1, 1, 3.6)
    for name in [n for n in palette.order if n in record.names]:
        i = record.names.index(name)
        draw_band(ax, record.times, record.mse[:, i], record.mse_stderr[:, i], **palette[name].line())
        _tell(ax, record.times, record.mse[:, i], record.mse_stderr[:, i], palette[name].label, "t")
    label_axes(ax, "", "noised to t, then denoised back   (0 data – 1 noise)", "squared error per pixel")
    log_y(ax, record.mse)
    shared_legend(figure, [ax])
    return figure
