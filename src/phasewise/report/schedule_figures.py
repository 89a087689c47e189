"""Figures of decisions: Pareto fronts and the schedules themselves as colour bands over time."""

from __future__ import annotations

from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path as Outline

from phasewise.report.figures import BAND, TIME, draw_point, label_axes, new_figure, ring_marks, shared_legend
from phasewise.report.style import (
    INK,
    NARROW,
    Palette,
    hover,
    is_number,
    noise_y,
    num,
    ordered,
    plain_ticks,
    schedule_label,
    schedule_look,
    styled,
)
from phasewise.results import HybridSchedule, ParetoFront
from phasewise.runs.run import Run

MAX_ROWS = 12
MAX_POINTS = 200
CHOSEN = "#0072B2"


@styled
def fronts(run: Run, palette: Palette) -> Figure:
    """Above: penalty against cost of all undominated schedules. Below: which member runs when along each front."""
    n = len(run.fronts)
    figure, axes = new_figure(2, n, 6.6, height_ratios=[3, 2])
    grid = np.array(axes).reshape(2, n)
    for k, (key, front) in enumerate(run.fronts.items()):
        _front(grid[0, k], run, front, palette)
        title = front.penalty_label or front.penalty_name or key
        label_axes(grid[0, k], title, "MFLOP per image", f"penalty ({front.penalty_unit})")
        _composition(grid[1, k], front, palette)
    shared_legend(figure, list(grid.ravel()), 1 if NARROW.get() else 2)
    used = {name for front in run.fronts.values() for assignment in front.assignments for name in assignment}
    _member_legend(grid[1, 0], used, palette)
    ring_marks(figure)
    return figure


def evenly(n: int, most: int) -> list[int]:
    """Up to ``most`` of the indices 0 .. n - 1, evenly spaced, both ends among them."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(most, n))})


def _front(ax: Axes, run: Run, front: ParetoFront, palette: Palette) -> None:
    bars = np.nan_to_num(BAND * front.penalty_stderr)
    keep = evenly(len(front.mflop), MAX_POINTS)
    mflop, penalty, around = front.mflop[keep], front.penalty[keep], bars[keep]
    ax.plot(mflop, penalty, color=INK, linewidth=1, drawstyle="steps-post", label="undominated schedules")
    hover(
        ax,
        mflop,
        penalty,
        [f"{num(float(c))} MFLOP: {num(float(p))} {front.penalty_unit}" for c, p in zip(mflop, penalty, strict=True)],
    )
    ax.fill_between(mflop, penalty - around, penalty + around, step="post", color=INK, alpha=0.15, linewidth=0)
    for i, assignment in enumerate(front.assignments):
        if len(set(assignment)) == 1:
            look = palette[assignment[0]]
            label = f"{look.label} at every step"
            draw_point(ax, front.mflop[i], front.penalty[i], bars[i], ("o", look.color), markersize=8, label=label)
    if front.chosen is not None and 0 <= front.chosen < len(front.assignments):
        i = front.chosen
        draw_point(ax, front.mflop[i], front.penalty[i], bars[i], ("*", CHOSEN), markersize=14, label="chosen")
    if front.penalty_unit == "nats":
        _evaluated(ax, run)
    plain_ticks(ax.yaxis)
    plain_ticks(ax.xaxis)
    noise_y(ax, front.penalty, front.penalty_stderr)
    ax.axhline(0, color=INK, linewidth=0.6)


def _evaluated(ax: Axes, run: Run) -> None:
    """The schedules that were sampled, at the penalty predicted for them on their own time grid."""
    for i, name in enumerate(n for n in ordered(run.evaluations) if n != "hybrid"):
        e = run.evaluations[name]
        if is_number(e.nats) and is_number(e.mflop):
            bar = BAND * float(e.nats_stderr) if is_number(e.nats_stderr) else 0.0  # type: ignore[arg-type]
            style = {"markerfacecolor": "none", "markersize": 6, "label": f"sampled: {schedule_label(run, name)}"}
            draw_point(ax, e.mflop, float(e.nats), bar, schedule_look(name, i), **style)  # type: ignore[arg-type]


def _composition(ax: Axes, front: ParetoFront, palette: Palette) -> None:
    """One row per schedule of the front, cheapest at the bottom; MAX_ROWS evenly picked ones and the chosen one."""
    picked = set(evenly(len(front.assignments), MAX_ROWS))
    if front.chosen is not None and front.chosen < len(front.assignments):
        picked.add(front.chosen)
    rows = sorted(picked)
    plans = [HybridSchedule(tuple(front.times), front.assignments[i]) for i in rows]
    draw_spans(ax, [(y + 0.1, plan) for y, plan in enumerate(plans)], palette, 0.8)
    for y, i in enumerate(rows):
        if i == front.chosen:
            ax.annotate("◂ chosen", (1, y + 0.5), xytext=(3, 0), textcoords="offset points", va="center", color=CHOSEN)
    ax.set_ylim(0, len(rows))
    ax.set_yticks(np.arange(len(rows)) + 0.5, [num(float(front.mflop[i])) for i in rows], fontsize=7)
    ax.set_ylabel("MFLOP per image")
    finish_time_axis(ax)
    ax.set_xlabel(TIME)


def draw_spans(ax: Axes, rows: list[tuple[float, HybridSchedule]], palette: Palette, height: float) -> None:
    """Bars from (bottom, schedule) pairs, one compound path per denoiser, which keeps the SVG small."""
    boxes: dict[str, list[Outline]] = {}
    for bottom, schedule in rows:
        for start, end, name in schedule.spans():
            corners = [(end, bottom), (start, bottom), (start, bottom + height), (end, bottom + height), (end, bottom)]
            boxes.setdefault(name, []).append(Outline(corners, closed=True))
    for name, paths in boxes.items():
        ax.add_patch(PathPatch(Outline.make_compound_path(*paths), facecolor=palette[name].color, linewidth=0))


def finish_time_axis(ax: Axes) -> None:
    ax.set_xlim(0, 1)
    ax.grid(False)
    ax.set_xlabel(f"{TIME};  sampling runs from right to left")


def _member_legend(ax: Axes, used: set[str], palette: Palette) -> None:
    names = [n for n in palette.order if n in used] + sorted(used - set(palette.order))
    patches = [Patch(facecolor=palette[n].color, label=palette[n].label) for n in names]
    legend = ax.figure.legend(
        handles=patches, loc="outside upper center", ncols=min(3 if NARROW.get() else 7, len(patches)), title="denoiser"
    )
    legend.get_title().set_fontsize(8.5)


@styled
def schedules(run: Run, palette: Palette) -> Figure:
    """One row per schedule: its assignment as bands over time, white ticks at the step times."""
    every = run.all_schedules()
    names = ordered(every)
    figure, (ax,) = new_figure(1, 1, 1.5 + (0.75 if NARROW.get() else 0.42) * len(names))
    low, height = (0.14, 0.4) if NARROW.get() else (0.14, 0.72)
    draw_spans(ax, [(y + low, every[name]) for y, name in enumerate(reversed(names))], palette, height)
    for y, name in enumerate(reversed(names)):
        schedule = every[name]
        ax.vlines(schedule.times, y + low, y + low + height, color="white", linewidth=0.7)
        note = f"{len(schedule.times)} steps, {schedule.solver}"
        mflop = run.evaluations[name].mflop if name in run.evaluations else schedule.mflop
        note += f", {num(mflop)} MFLOP" if is_number(mflop) else ""
        if NARROW.get():  # no room beside the bars
            said = f"{schedule_label(run, name)}: {note}"
            ax.text(0, y + low + height + 0.03, "\n".join(wrap(said, 62)), fontsize=7.5, va="bottom")
        else:
            ax.annotate(note, (1, y + 0.5), xytext=(6, 0), textcoords="offset points", va="center", fontsize=7.5)
    labels = [schedule_label(run, n) for n in reversed(names)]
    ax.set_yticks([] if NARROW.get() else np.arange(len(names)) + 0.5, [] if NARROW.get() else labels)
    ax.set_ylim(0, len(names))
    ax.tick_params(axis="y", length=0)
    finish_time_axis(ax)
    _member_legend(ax, {s for schedule in every.values() for s in schedule.assignment}, palette)
    return figure
