"""The section on when symmetries break, on one log-SNR axis with the gap and the CMI: do the two transitions meet?"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phasewise.display import draw_band, label_axes
from phasewise.report.blocks import Section, Table, drawing
from phasewise.report.figures import new_figure, relative_log_snr, shared_legend
from phasewise.report.style import BARS, GLOBAL, INK, Palette, noise_y, num, styled
from phasewise.results import Array, CMIMap, LossTable, MarkovFit, SymmetryBreaking
from phasewise.results.symmetry import interval
from phasewise.runs.reading import log_snr_of
from phasewise.runs.run import Run

AXIS = "log-SNR relative to the data variance   (noise to the right)"
AGREE, SURVIVE, PARTED = "#0072B2", "#D55E00", "#009E73"


def section(run: Run, palette: Palette) -> Section:
    """Of a run that has the record."""
    found = run.symmetry
    assert found is not None
    intro = (
        "Speciation: the time at which images begin to part along the leading direction of their covariance, where the "
        "signal-to-noise ratio is one over its largest eigenvalue. Cloning: an image is noised and denoised twice; how "
        "often do the two agree on the class, as the classifier here sees it? Where the class is decided and where far "
        "pixels matter need not be the same times; here both are on one axis."
    )
    caption = (
        "a: agreement of two clones, and share of clones of their original's class; dotted, the agreement that marks "
        "the cloning time. b: denoising gaps as information, ½ SNR · gap. c: CMI at the window's radius. Dashed: "
        f"speciation, with its 95 % interval; dash-dotted: the cloning time. {BARS}"
    )
    figure = drawing("symmetry", _figure(found, run.losses, run.cmi, run.markov, palette), _alt(found), caption)
    return Section("symmetry", "When symmetries break", intro, (figure, _table(found, run)), items=findings(found, run))


def findings(found: SymmetryBreaking, run: Run) -> tuple[str, ...]:
    """What was found, one sentence each."""
    s, c = found.speciation, found.cloning
    said = [f"Speciation at t = {interval(s.t_s, s.t_s_low, s.t_s_high)}, 95 % in brackets, n = {num(s.n)} images."]
    if s.classes is not None and not math.isnan(s.t_between):
        said.append(f"The class means part at t = {interval(s.t_between, s.t_between_low, s.t_between_high)}.")
    if c is None:
        said.append("No clones: no classifier, a network that is told the class, or none asked for.")
    elif math.isnan(c.t_clone):
        said.append(f"Clones pass an agreement of {num(c.threshold)} at no measured time.")
    else:
        times = interval(c.t_clone, c.t_clone_low, c.t_clone_high)
        said.append(f"Clones agree on the class {num(c.threshold)} of the time at t = {times}, n = {num(c.n)}.")
    if run.markov is not None and run.markov.window is not None:
        low, high = run.markov.window
        inside = "inside" if low <= s.t_s <= high else "outside"
        said.append(f"Speciation lies {inside} the critical window of the CMI, t from {low:.3g} to {high:.3g}.")
    return tuple(said)


def _alt(found: SymmetryBreaking) -> str:
    s = found.speciation
    return f"Class of clones, denoising gap and CMI against log-SNR. Speciation at t = {num(s.t_s)}."


def _table(found: SymmetryBreaking, run: Run) -> Table:
    """Time and relative log-SNR of every mark."""
    s = found.speciation
    rows = found.marks()
    if run.markov is not None and run.markov.t_c is not None:
        m = run.markov
        t, low, high = (math.nan if v is None else v for v in (m.t_c, m.t_c_low, m.t_c_high))
        rows.append(("longest Markov length", t, low, high))
    cells = [
        (name, interval(*times), num(float(log_snr_of(np.array(times[:1]), s.path, s.data_std)[0])))
        for name, *times in rows
        if not math.isnan(times[0])
    ]
    return Table(("mark", "t (95 %)", "relative log-SNR"), tuple(cells), "Times of both transitions.")


@styled
def _figure(
    found: SymmetryBreaking, losses: LossTable | None, cmi: CMIMap | None, fit: MarkovFit | None, palette: Palette
) -> Figure:
    panels = [found.cloning is not None, losses is not None, cmi is not None]
    figure, axes = new_figure(max(sum(panels), 1), 1, 2.3 * max(sum(panels), 1), sharex=True)
    left = list(axes)
    std = found.speciation.data_std
    if found.cloning is not None:
        ax, c = left.pop(0), found.cloning
        snr = c.log_snr + 2 * math.log(std)
        for name, color, marker in (("agreement", AGREE, "o"), ("survival", SURVIVE, "s")):
            look = {"color": color, "marker": marker, "label": f"{name} of the class"}
            draw_band(ax, snr, getattr(c, name), getattr(c, f"{name}_stderr"), **look)
        ax.axhline(c.threshold, color=INK, linewidth=1, linestyle=":")
        label_axes(ax, "a  Class of clones", "", "share")
    if losses is not None:
        ax, snr = left.pop(0), relative_log_snr(losses)
        nats = np.where(np.isfinite(losses.log_snr), 0.5 * np.exp(losses.log_snr), np.nan)
        for name in [n for n in palette.order if n in losses.names and n != losses.reference]:
            i = losses.column(name)
            draw_band(ax, snr, nats * losses.gap[:, i], nats * losses.gap_stderr[:, i], **palette[name].line())
        noise_y(ax, nats[:, None] * losses.gap, nats[:, None] * losses.gap_stderr)
        label_axes(ax, "b  Denoising gap as information", "", "nats per unit log-SNR")
    if cmi is not None:
        ax = left.pop(0)
        radius = fit.window_radius if fit is not None and fit.window_radius in cmi.radii else min(cmi.radii)
        j = cmi.radii.index(radius)
        snr = log_snr_of(cmi.times, cmi.config.get("path"), std)
        look = {"color": AGREE, "marker": "o", "label": f"CMI at r = {radius}"}
        draw_band(ax, snr, cmi.value[:, j], cmi.stderr[:, j], **look)
        label_axes(ax, f"c  CMI at r = {radius}", "", "nats")
    for ax in axes:
        _mark(ax, found)
    axes[0].invert_xaxis()
    axes[-1].set_xlabel(AXIS)
    shared_legend(figure, axes)
    return figure


def _mark(ax: Axes, found: SymmetryBreaking) -> None:
    """Speciation with its interval, and the cloning time."""
    s, c = found.speciation, found.cloning
    ends = log_snr_of(np.array([s.t_s_low, s.t_s, s.t_s_high]), s.path, s.data_std)
    ax.axvspan(ends[2], ends[0], color=PARTED, alpha=0.15, linewidth=0)
    ax.axvline(ends[1], color=PARTED, linewidth=1.2, linestyle=(0, (4, 2)), label="speciation")
    if c is not None and not math.isnan(c.t_clone):
        at: Array = log_snr_of(np.array([c.t_clone]), c.path, s.data_std)
        ax.axvline(at[0], color=GLOBAL, linewidth=1.2, linestyle="-.", label="cloning time")
