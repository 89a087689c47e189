"""Records of what was measured or decided: frozen, plain, written as JSON, and shown. Imports errors, files, display.

Values are stored as measured, never clamped or smoothed.  Every measured number carries its standard error, the
number of images ``n`` it rests on and the seed.  Arrays are float64 numpy; NaN is stored as ``null``.

Every record prints as a line or a small table (``print(record)``, and in a notebook), gives all its numbers as
``record.table()`` and ``record.to_frame()``, and draws itself with ``record.plot()`` where a picture says it.

What a record is stands in :mod:`phasewise.results.base`; how far a network sees, in :mod:`phasewise.results.reach`;
when symmetries break, in :mod:`phasewise.results.symmetry`; what leaning on earlier steps costs, in
:mod:`phasewise.results.reuse`; what several judges say of samples, in :mod:`phasewise.results.judges`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from phasewise import checks, display, registry
from phasewise.display import TIME, Head, Rows, View, measured
from phasewise.errors import PhasewiseError, unknown
from phasewise.results.base import Array, Record, _at, _cells, _long
from phasewise.results.base import Named as Named
from phasewise.results.base import plain as plain
from phasewise.results.judges import JudgeScore as JudgeScore
from phasewise.results.judges import JudgesVerdict as JudgesVerdict
from phasewise.results.judges import weigh
from phasewise.results.reach import AttentionWindows as AttentionWindows
from phasewise.results.reach import Influence as Influence
from phasewise.results.reach import Radii as Radii
from phasewise.results.reach import Reach as Reach
from phasewise.results.reach import WindowedAnswer as WindowedAnswer
from phasewise.results.reuse import ReusePrices as ReusePrices
from phasewise.results.searched import SearchedGrid as SearchedGrid
from phasewise.results.symmetry import Cloning as Cloning
from phasewise.results.symmetry import Speciation as Speciation
from phasewise.results.symmetry import SymmetryBreaking as SymmetryBreaking

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FRECHET = "Fréchet distance"
"""What a distance between sets of images is called where its features are not those of a trained network."""

DEFAULT_SOLVER = "exp_ab2"
"""The solver of everything that is told none: sampling, schedules, fronts, recovery, runs."""


def _curves(ax: Axes, table: LossTable | Recovery, value: Array, stderr: Array, labels: Sequence[str]) -> None:
    """One curve over time for each member, its band around it; no curve where the label is empty."""
    for i, (label, color) in enumerate(zip(labels, display.member_colors(table.names, table.radii), strict=True)):
        if label:
            line = {"color": color, "marker": "o", "markersize": 3, "label": label}
            display.draw_band(ax, table.times, value[:, i], stderr[:, i], **line)
    display.legend(ax)


def _check_table(table: Any, fields: Sequence[str]) -> None:
    """Raise PhasewiseError unless each field has a row for each time and a column for each denoiser."""
    shape = (len(table.times), len(table.names))
    for name in fields:
        if getattr(table, name).shape != shape:
            raise PhasewiseError(
                f"{type(table).__name__}.{name} has shape {getattr(table, name).shape}, not {shape}: times x denoisers"
            )
    if len(table.radii) != len(table.names):
        raise PhasewiseError(f"{type(table).__name__} has {len(table.radii)} radii for {len(table.names)} denoisers")


@dataclass(frozen=True)
class Estimate(Record):
    """One measured number: value, standard error, sample size."""

    value: float
    stderr: float
    n: int
    unit: str = "nats"
    seed: int | None = None

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.stderr:.2g} {self.unit} (n = {self.n})"


@dataclass(frozen=True)
class LossTable(Record):
    """Held-out losses of several denoisers on the same images and the same noise.

    Shapes (T, N) = times x denoisers, squared error per image summed over pixels:
        loss      E|D_n(x_t, t) - x|^2
        gap       loss_n - loss_reference, differenced image by image (so its stderr is the paired one)
        distance  E|D_n - D_reference|^2; in a price list, from the best answer that is known
    ``radii[i]`` is None for a global denoiser.  ``control`` names the local design opened to the whole image, if any.
    ``gap_correlation`` and ``distance_correlation``, (N, T, T), where they were measured: how the errors of one
    denoiser's means at two times go together, as the images are the same.
    """

    times: Array
    names: tuple[str, ...]
    radii: tuple[int | None, ...]
    reference: str
    loss: Array
    loss_stderr: Array
    gap: Array
    gap_stderr: Array
    distance: Array
    distance_stderr: Array
    log_snr: Array
    data_std: float
    n: int
    seed: int
    path: dict[str, Any]
    control: str | None = None
    gap_correlation: Array | None = None
    distance_correlation: Array | None = None

    def check(self) -> None:
        _check_table(self, ("loss", "loss_stderr", "gap", "gap_stderr", "distance", "distance_stderr"))
        shape = (len(self.names), len(self.times), len(self.times))
        for name in ("gap_correlation", "distance_correlation"):
            found = getattr(self, name)
            if found is not None and found.shape != shape:
                raise PhasewiseError(
                    f"LossTable.{name} has shape {found.shape}, not {shape}: denoisers x times x times"
                )

    def column(self, name: str) -> int:
        """Where a denoiser stands among ``names``; PhasewiseError for one that is not there."""
        if name not in self.names:
            raise PhasewiseError(unknown("denoiser", name, self.names))
        return self.names.index(name)

    def table(self) -> tuple[Head, Rows]:
        """A row for each time and denoiser."""
        names = ("loss", "loss_stderr", "gap", "gap_stderr", "distance", "distance_stderr")
        rows = _long(self.times, self.names, **{name: getattr(self, name) for name in names})
        radius = dict(zip(self.names, self.radii, strict=True))
        return ("t", "name", "radius", *names), [(t, name, radius[name], *values) for t, name, *values in rows]

    def view(self) -> View:
        """The gap of every denoiser at some of the times."""
        gaps = _cells(self.gap.T, self.gap_stderr.T)
        title = f"LossTable: gap (loss above that of {self.reference}), squared error per image; n = {self.n}, "
        rows = [(name, r, *gap) for name, r, gap in zip(self.names, self.radii, gaps, strict=True)]
        return View(f"{title}seed {self.seed}", ("member", "radius", *_at(self.times)), rows, fixed=2)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The gap to the reference over time."""
        return self._plot_gap(ax, self.names)

    def _plot_gap(self, ax: Axes | None, labels: Sequence[str]) -> Axes:
        ax = display.axes_or_new(ax)
        ax.axhline(0, color=display.STRONG[0], linewidth=1, label="_reference")
        shown = ["" if name == self.reference else label for name, label in zip(self.names, labels, strict=True)]
        _curves(ax, self, self.gap, self.gap_stderr, shown)
        title = f"Denoising gap: loss − loss of {self.reference}"
        display.label_axes(ax, title, TIME, "squared error per image")
        return ax


@dataclass(frozen=True)
class PriceList(Record):
    """What each denoiser costs and loses at every step of a time grid.

    ``losses.times`` is the grid (descending from 1 to t_min > 0; the step from t_min to 0 is a denoise).
    ``flops`` (N,) per image and call, multiply and add counted as two; ``ms`` (N,) measured milliseconds per image
    and call on ``device`` at ``batch`` images a call.  ``jumps`` names those that know their own flow: one call takes
    them over a step of any length, exactly where the solver keeps no history.  ``growth`` (S, N), where it was
    measured: by what factor a push of denoiser n off the reference's path at times[k] has grown when the path arrives
    at the image.  ``frechet`` (S, N) with ``frechet_stderr``, where it was measured: squared Frechet distance between
    the features of denoiser n's posterior means and of the reference's.  ``reuse``: what members that lean on earlier
    steps lose, where there are any.
    """

    losses: LossTable
    flops: Array
    ms: Array
    device: str = "cpu"
    batch: int = 64
    jumps: tuple[str, ...] = ()
    growth: Array | None = None
    frechet: Array | None = None
    frechet_stderr: Array | None = None
    reuse: ReusePrices | None = None

    def check(self) -> None:
        """Costs are counted or measured: a number above 0 for each denoiser, or every schedule would be wrong."""
        for name in ("flops", "ms"):
            cost = getattr(self, name)
            bad = [n for n, value in zip(self.names, cost.tolist(), strict=False) if not 0 < value < math.inf]
            if cost.shape != (len(self.names),) or bad:
                what = f"that of {bad[0]} is no number above 0" if bad else f"here are {cost.size}"
                raise PhasewiseError(
                    f"a price list holds a cost above 0 for each of its {len(self.names)} denoisers: of {name}, {what}"
                    "; measure it again by phasewise.price_list"
                )
        for name in ("growth", "frechet", "frechet_stderr"):
            if getattr(self, name) is not None and getattr(self, name).shape != self.losses.loss.shape:
                raise PhasewiseError(f"{name} has shape {getattr(self, name).shape}, not {self.losses.loss.shape}")
        if self.reuse is not None and len(self.reuse.loss) != len(self.times):
            raise PhasewiseError(f"the prices of reuse are of {len(self.reuse.loss)} steps, not {len(self.times)}")

    @property
    def names(self) -> tuple[str, ...]:
        return self.losses.names

    @property
    def times(self) -> Array:
        return self.losses.times

    def table(self) -> tuple[Head, Rows]:
        """A row for each step and denoiser: what it loses there, and what one call of it costs."""
        measured_here = {name: getattr(self, name) for name in ("growth", "frechet", "frechet_stderr")}
        per_step = {"gap": self.losses.gap, "gap_stderr": self.losses.gap_stderr}
        per_step |= {name: value for name, value in measured_here.items() if value is not None}
        cost = {n: (f, ms) for n, f, ms in zip(self.names, self.flops.tolist(), self.ms.tolist(), strict=True)}
        rows = [(t, name, *cost[name], *values) for t, name, *values in _long(self.times, self.names, **per_step)]
        return ("t", "name", "flops", "ms", *per_step), rows

    def view(self) -> View:
        """What one call of every denoiser costs, and its gap at some of the steps."""
        gaps = _cells(self.losses.gap.T, self.losses.gap_stderr.T)
        title = f"PriceList: cost of a call per image, on {self.device} at {self.batch} images a call; gap to "
        title += f"{self.losses.reference} at each step, squared error per image (n = {self.losses.n})"
        costs = [(name, flops / 1e6, ms) for name, flops, ms in zip(self.names, self.flops, self.ms, strict=True)]
        rows = [(*cost, *gap) for cost, gap in zip(costs, gaps, strict=True)]
        if self.reuse is not None:
            title += "; below, members that lean on earlier steps, at their youngest"
            rows += self.reuse.youngest()
        return View(title, ("member", "MFLOP", "ms", *_at(self.times)), rows, fixed=3)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The gap to the reference at each step; the cost of a call stands in the legend."""
        costs = zip(self.names, self.flops / 1e6, self.ms, strict=True)
        labels = [f"{name}: {display.cell(f)} MFLOP, {display.cell(ms)} ms" for name, f, ms in costs]
        ax = self.losses._plot_gap(ax, labels)
        reference = labels[self.losses.column(self.losses.reference)]
        ax.set_title(f"Loss at each step and cost of a call,\nagainst {reference}")
        return ax


@dataclass(frozen=True)
class StepErrors(Record):
    """What a solver's finite steps do to the image: one step of each length on the reference denoiser's true ODE path.

    ``error`` (T, T): root mean square, over ``n`` images, of the L2 distance between the image reached with one step
    from times[i] to times[j], j > i, and the image the path leads to, pixel units; NaN elsewhere.  ``stop`` (T,): the
    same for ending with a denoise at times[i].  ``times`` descend.
    """

    times: Array
    error: Array
    stop: Array
    solver: str
    n: int
    seed: int
    path: dict[str, Any]

    def table(self) -> tuple[Head, Rows]:
        """A row for each step from one time to a later one of the grid, and for each denoise from a time to 0."""
        t, error, stop = self.times.tolist(), self.error.tolist(), self.stop.tolist()
        rows: Rows = [(t[i], t[j], error[i][j]) for i in range(len(t)) for j in range(i + 1, len(t))]
        return ("t_start", "t_end", "error"), [*rows, *((start, 0.0, e) for start, e in zip(t, stop, strict=True))]

    def view(self) -> View:
        """Start down, end across; the last column is the denoise that ends it."""
        title = f"StepErrors: RMS error of one step of {self.solver}, pixel units; n = {self.n}, seed {self.seed}"
        heads = [f"to {t:.3g}" for t in self.times[1:]]
        rows = zip(self.times.tolist(), self.error[:, 1:].tolist(), self.stop.tolist(), strict=True)
        return View(title, ("from t", *heads, "denoise"), [(t, *errors, stop) for t, errors, stop in rows])

    def plot(self, ax: Axes | None = None) -> Axes:
        """A heat map: start of the step upwards, its end to the right."""
        ax = display.axes_or_new(ax)
        title = f"One step of {self.solver} on the true path"
        norm = "log" if (self.error > 0).any() else "linear"
        display.draw_heat(ax, self.error, self.times, self.times, "RMS error of the image (pixel units)", norm)
        display.label_axes(ax, title, "to t", "from t")
        return ax


@dataclass(frozen=True)
class HybridSchedule(Record):
    """Which member takes which step, on which time grid, with which solver.

    ``times`` has S entries, descending, all > 0; step k goes from times[k] to times[k + 1] and is taken (predictor and
    corrector) by member ``assignment[k]``; the last step goes to t = 0 and is a plain denoise (one call).
    ``path`` is the path of the grid.  ``penalty`` (quality lost, an excess over the reference at every step, in
    ``penalty_unit``; ``penalty_name`` is the penalty that chose or priced it) and ``mflop`` per image are what the
    price list predicts; None where no price list was used.  ``label``: as a report calls it.
    """

    times: tuple[float, ...]
    assignment: tuple[str, ...]
    solver: str = DEFAULT_SOLVER
    path: dict[str, Any] = field(default_factory=lambda: {"name": "linear"})
    penalty: float | None = None
    penalty_stderr: float | None = None
    penalty_unit: str = "nats"
    penalty_name: str | None = None
    mflop: float | None = None
    label: str = ""

    def check(self) -> None:
        if len(self.times) != len(self.assignment) or not self.times:
            raise PhasewiseError(
                f"a schedule assigns one member to every step: {len(self.times)} times, {len(self.assignment)} members"
            )
        if not all(a > b for a, b in zip(self.times, (*self.times[1:], 0.0), strict=True)):
            raise PhasewiseError(
                "schedule times must decrease strictly and stay above 0 (the last step to 0 is implied)"
            )
        if not self.times[0] <= 1:
            raise PhasewiseError("schedule times must lie in (0, 1]")
        registry.table("solver").get(self.solver)
        registry.table("path").get(str(self.path.get("name")))

    def is_alike(self, other: HybridSchedule) -> bool:
        """Whether both draw the same images from one seed, whatever was predicted of them."""
        a, b = self, other
        return (a.times, a.assignment, a.solver, a.path) == (b.times, b.assignment, b.solver, b.path)

    def step_at(self, t: float) -> int:
        """The step that noise time ``t`` falls into: it starts at or above t and ends below it; 0 above the grid."""
        # 1e-6: a start that was rounded still belongs to its own step
        later = [k for k, start in enumerate(self.times) if t <= start * (1 + 1e-6)]
        return later[-1] if later else 0

    def member_at(self, step: int) -> str:
        """Name of the member that takes step number ``step``."""
        return self.assignment[step]

    def spans(self) -> list[tuple[float, float, str]]:
        """Runs of one member as (t_start, t_end, name), in sampling order, the last ending at 0."""
        edges = (*self.times, 0.0)
        out: list[tuple[float, float, str]] = []
        for k, name in enumerate(self.assignment):
            if out and out[-1][2] == name:
                out[-1] = (out[-1][0], edges[k + 1], name)
            else:
                out.append((edges[k], edges[k + 1], name))
        return out

    def export(self, form: str, *, clock: Any = None, member: str | None = None) -> Any:
        """The schedule as another program takes it; forms and what each needs: :mod:`phasewise.scheduling.exports`.

        ``form``: "boundary_ratio", "denoising_end" (each needs a ``clock``, takes one switch, and is a number),
        "guidance_interval" (a dict; ``member`` is the guided one), "steps_computation_mask" (a list of 0 and 1;
        ``member`` computes, default "global"), "json" (text).  ``clock``: an object with ``steps_total`` and
        ``timestep_of_time(t)``.

        Raises PhasewiseError for an unknown form, and naming the spans of a schedule that does not fit it.
        """
        return registry.table("export").get(form)(self, clock, member)

    def table(self) -> tuple[Head, Rows]:
        """A row for each step."""
        ends = (*self.times[1:], 0.0)
        rows = zip(range(len(self.times)), self.times, ends, self.assignment, strict=True)
        return ("step", "t_start", "t_end", "member"), list(rows)

    def view(self) -> View:
        """The spans of one member."""
        steps = [sum(start >= t > end for t in self.times) for start, end, _ in self.spans()]
        rows = [(name, n, start, end) for (start, end, name), n in zip(self.spans(), steps, strict=True)]
        return View(f"HybridSchedule: {self._said()}", ("member", "steps", "from t", "to t"), rows)

    def _said(self) -> str:
        """Solver, steps, and what the price list predicts."""
        count = len(self.times)
        parts = [f"{self.solver}, {count} step{'s' if count > 1 else ''}"]
        if self.mflop is not None:
            parts.append(f"{display.cell(self.mflop)} MFLOP per image")
        if self.penalty is not None:
            penalty = measured(self.penalty, math.nan if self.penalty_stderr is None else self.penalty_stderr)
            named = f" ({self.penalty_name})" if self.penalty_name else ""
            parts.append(f"penalty {penalty} {self.penalty_unit}{named}")
        return ", ".join(parts)

    def plot(self, ax: Axes | None = None) -> Axes:
        """A bar for each step over its span of time, a colour for each member."""
        ax = display.axes_or_new(ax)
        names = list(dict.fromkeys(self.assignment))
        color = dict(zip(names, display.member_colors(names), strict=True))
        for step, start, end, name in self.table()[1]:
            label = name if self.assignment.index(name) == step else "_"
            ax.barh(0, start - end, left=end, height=1, color=color[name], edgecolor="white", label=label)
        ax.set_yticks([])
        display.label_axes(ax, self._said().replace(", penalty", "\npenalty"), TIME, "")
        display.legend(ax)
        return ax


@dataclass(frozen=True)
class ParetoFront(Record):
    """All undominated schedules on one grid: ``penalty`` falls as the cost rises; ``assignments[i]`` is the i-th one.

    ``mflop`` and ``ms`` (where known) of every schedule, an image; ``cost`` names the one that rises.  What the penalty
    is stands beside it: its name and unit, a short label for figures, and one line that says what it means.
    ``objective``: "sum" of the steps' penalties, or "max", that of the worst step.
    """

    penalty_name: str
    penalty_unit: str
    times: Array
    mflop: Array
    penalty: Array
    penalty_stderr: Array
    assignments: tuple[tuple[str, ...], ...]
    chosen: int | None = None
    ms: Array | None = None
    cost: str = "mflop"
    penalty_label: str = ""
    penalty_meaning: str = ""
    objective: str = "sum"

    def check(self) -> None:
        count, steps = len(self.assignments), len(self.times)
        columns = {"mflop": self.mflop, "penalty": self.penalty, "penalty_stderr": self.penalty_stderr, "ms": self.ms}
        wrong = [name for name, column in columns.items() if column is not None and column.shape != (count,)]
        if wrong or self.times.ndim != 1 or any(len(a) != steps for a in self.assignments):
            raise PhasewiseError(
                f"a front of {count} assignments on {steps} steps does not go with its {', '.join(wrong) or 'times'}"
            )
        if self.chosen is not None and not 0 <= self.chosen < count:
            raise PhasewiseError(f"chosen is {self.chosen}, of {count} assignments")

    def table(self) -> tuple[Head, Rows]:
        """A row for each schedule, in the order of the cost."""
        columns = {"mflop": self.mflop.tolist()} | ({} if self.ms is None else {"ms": self.ms.tolist()})
        columns |= {"penalty": self.penalty.tolist(), "penalty_stderr": self.penalty_stderr.tolist()}
        chosen = [i == self.chosen for i in range(len(self.assignments))]
        rows = zip(*columns.values(), chosen, self.assignments, strict=True)
        return (*columns, "chosen", "assignment"), list(rows)

    def view(self) -> View:
        """Cost, penalty and who runs when."""
        head, rows = self.table()
        # the last four: penalty, its error, chosen, assignment
        costs = ["MFLOP" if name == "mflop" else name for name in head[:-4]]
        shown = [(i, *row[:-4], measured(*row[-4:-2]), display.joined(row[-1])) for i, row in enumerate(rows)]
        title = f"ParetoFront of {self.penalty_label or self.penalty_name} on {len(self.times)} steps, per image"
        if self.chosen is not None:
            *_, penalty, who = shown[self.chosen]
            title += f"; chosen: {self.chosen}, {who}, {penalty} {self.penalty_unit}"
        return View(title, ("index", *costs, f"penalty ({self.penalty_unit})", "assignment"), shown, fixed=9)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Penalty against cost, the chosen schedule marked by a star."""
        ax = display.axes_or_new(ax)
        in_ms = self.cost == "ms" and self.ms is not None
        cost: Array = self.ms if in_ms else self.mflop  # type: ignore[assignment]
        bars = display.BAND * self.penalty_stderr
        ax.errorbar(cost, self.penalty, bars, fmt=".-", color=display.STRONG[1], label="undominated schedules")
        if self.chosen is not None:
            at, color = (cost[self.chosen], self.penalty[self.chosen]), display.STRONG[0]
            ax.plot(*at, "*", color=color, markersize=14, zorder=4, label="chosen")
        lost = self.penalty[self.penalty > 0]
        if lost.size and lost.max() > 100 * lost.min():
            ax.set_yscale("symlog", linthresh=lost.min())  # a log axis that still shows the 0 of the reference
        y = f"{self.penalty_label or 'penalty ' + self.penalty_name} ({self.penalty_unit})"
        display.label_axes(ax, "", "ms per image" if in_ms else "MFLOP per image", y)
        display.legend(ax)
        return ax


@dataclass(frozen=True)
class Recovery(Record):
    """Receptive-field ablation: noise held-out images to t, run the reverse ODE back with each denoiser.

    ``mse`` (T, N): squared error per pixel between the recovered and the original image; ``mse_stderr`` the same shape.
    """

    times: Array
    names: tuple[str, ...]
    radii: tuple[int | None, ...]
    mse: Array
    mse_stderr: Array
    steps: int
    solver: str
    n: int
    seed: int

    def table(self) -> tuple[Head, Rows]:
        """A row for each time and denoiser."""
        radius = dict(zip(self.names, self.radii, strict=True))
        rows = _long(self.times, self.names, mse=self.mse, mse_stderr=self.mse_stderr)
        head = ("t", "name", "radius", "mse", "mse_stderr")
        return head, [(t, name, radius[name], *values) for t, name, *values in rows]

    def view(self) -> View:
        """The error of every denoiser at some of the times."""
        errors = _cells(self.mse.T, self.mse_stderr.T)
        title = f"Recovery: squared error per pixel, noised to t and back in {self.steps} steps of {self.solver}; "
        rows = [(name, r, *error) for name, r, error in zip(self.names, self.radii, errors, strict=True)]
        return View(f"{title}n = {self.n}, seed {self.seed}", ("member", "radius", *_at(self.times)), rows, fixed=2)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Squared error per pixel against the time the images were noised to."""
        ax = display.axes_or_new(ax)
        _curves(ax, self, self.mse, self.mse_stderr, self.names)
        display.label_axes(ax, "Noised to t, then denoised back", TIME, "squared error per pixel")
        return ax


@dataclass(frozen=True)
class Evaluation(Record):
    """One schedule, judged.

    ``fid``: Frechet distance in the features of the network ``features`` from ``reference_n`` training images, of ``n``
    samples; ``distance`` is what it is called: FID for a trained network alone (:attr:`measure` knows it of older
    records, too).
    ``fid_bias`` estimates how much of it is due to finite n (FID(n/2) - FID(n); bias falls as 1/n).
    ``fid_stderr`` by bootstrap over samples. ``paired_rmse``: per-pixel RMS difference from the all-global sample of
    the same starting noise, ``paired_stderr`` its error. ``mflop`` and ``ms`` per image over the whole sampling.
    ``nats``: the path KL that the price list predicts. ``accuracy_entropy``: see ``extra``.  ``fid_minus``: by the
    name of another
    schedule sampled from the same noise, [this FID minus that one, its paired standard error].  ``same_noise``: whether
    the noise is that of the all-global samples at every step, not at the start alone; None where it is not on record.
    ``judges``: what every judge says of the samples, by the judge's name ("first" is that of ``fid``, "unseen" and
    "sliced"); empty where it is not on record.
    """

    name: str
    label: str
    schedule: HybridSchedule | None
    fid: float
    fid_stderr: float
    fid_bias: float
    features: str
    n: int
    reference_n: int
    seed: int
    mflop: float
    ms: float
    nfe: int
    nats: float | None = None
    nats_stderr: float | None = None
    paired_rmse: float | None = None
    paired_stderr: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    fid_minus: dict[str, list[float]] = field(default_factory=dict)
    distance: str = ""
    same_noise: bool | None = None
    judges: dict[str, JudgeScore] = field(default_factory=dict)

    def against(self, other: Evaluation) -> JudgesVerdict:
        """What all judges that saw both say of this schedule's samples against ``other``'s.

        Where no judge is on record of one of them, FID alone: paired where ``fid_minus`` has it, else with its errors
        taken as independent.
        """
        names = (self.label or self.name, other.label or other.name)
        if set(self.judges) & set(other.judges):
            return weigh(self.judges, other.judges, names)
        found = None
        for one, with_, sign in ((self, other, 1), (other, self, -1)):
            known = one.fid_minus.get(with_.name)
            if found is None and known and all(display.is_number(v) for v in known):
                found = (sign * known[0], known[1])
        difference, stderr = found or (self.fid - other.fid, math.hypot(self.fid_stderr, other.fid_stderr))
        return JudgesVerdict(
            first=names[0], second=names[1], measures=(self.measure,), difference=np.array([difference]),
            stderr=np.array([stderr]), beside=np.array([other.fid]), n=min(self.n, other.n),
        )  # fmt: skip

    @property
    def measure(self) -> str:
        """What the number in ``fid`` is called."""
        # older records: networks that are not trained say so in their names
        return self.distance or (FRECHET if "not FID" in self.features else "FID")


def check_history(history: Sequence[dict[str, Any]]) -> None:
    """Raise PhasewiseError for rows of a training's history without a step, or with losses that are no numbers."""
    for row in history:
        step = row.get("step")
        whole = isinstance(step, int) and not isinstance(step, bool)
        others = [v for k, v in row.items() if k != "step" and v is not None]
        if not whole or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in others):
            raise PhasewiseError(f"history has rows of a step and losses; one is {display.brief(row)}")


@dataclass(frozen=True)
class TrainingRecord(Record):
    """How a denoiser was trained. ``history``: rows {"step", "train_loss", "val_loss"}; ``val_by_time``: the last
    validation loss in each time bin, in the unit of the training loss, with the bin edges."""

    name: str
    preset: dict[str, Any]
    steps: int
    images_seen: int
    seconds: float
    parameters: int
    history: tuple[dict[str, Any], ...]
    val_loss: float
    bin_edges: Array
    val_by_time: Array
    seed: int
    device: str = "cpu"

    def check(self) -> None:
        check_history(self.history)

    def table(self) -> tuple[Head, Rows]:
        """The history, row by row; None where a row lacks a value."""
        head = tuple(dict.fromkeys(["step", "train_loss", "val_loss", *(key for row in self.history for key in row)]))
        return head, [tuple(row.get(key) for key in head) for row in self.history]

    def view(self) -> View:
        title = f"TrainingRecord of {self.name}: {self.parameters:,} parameters, {self.steps:,} steps, "
        title += f"{self.images_seen:,} images, {display.cell(self.seconds)} s on {self.device}; "
        head, rows = self.table()
        return View(f"{title}validation loss {display.cell(self.val_loss)}, seed {self.seed}", head, rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Training and held-out loss against the step."""
        ax = display.axes_or_new(ax)
        for key, label, color in (("train_loss", "training", "#8a8a8a"), ("val_loss", "held out", display.STRONG[1])):
            rows = [(row["step"], row[key]) for row in self.history if row.get(key) is not None]
            if rows:
                ax.plot(*zip(*rows, strict=True), color=color, label=label)
        display.label_axes(ax, f"Training of {self.name}", "step", "loss")
        display.legend(ax)
        return ax


@dataclass(frozen=True)
class DataRecord(Record):
    """Which images a run used."""

    name: str
    image_shape: tuple[int, int, int]
    pixel_range: tuple[float, float]
    sizes: dict[str, int]
    mean: float
    std: float
    classes: int | None
    fingerprint: str
    white_level: int | None = None


@dataclass(frozen=True)
class CMIMap(Record):
    """I(A:C|B) in nats over times x radii, shape (T, R), with standard errors; never clamped at 0.

    ``config["covariance"]``, a list of shape (T, R, R), is optional: the covariance of the errors at different radii of
    one time, with the squares of ``stderr`` on its diagonals.
    """

    times: Array
    radii: tuple[int, ...]
    value: Array
    stderr: Array
    estimator: str
    block: int
    center: tuple[int, int]
    n: int
    seed: int
    unit: str = "nats"
    config: dict[str, Any] = field(default_factory=dict)

    def table(self) -> tuple[Head, Rows]:
        """A row for each time and radius."""
        return ("t", "radius", "value", "stderr"), _long(self.times, self.radii, value=self.value, stderr=self.stderr)

    def _what(self) -> str:
        """The information by its symbols; Y is the class, where it was given."""
        return "I(A:C|B,Y)" if self.config.get("classes") else "I(A:C|B)"

    def view(self) -> View:
        """Times down, radii across."""
        cells = _cells(self.value, self.stderr)
        title = f"CMIMap: {self._what()} in {self.unit}, by {self.estimator}; A is {self.block} × {self.block} pixels, "
        rows = [(t, *row) for t, row in zip(self.times.tolist(), cells, strict=True)]
        return View(f"{title}n = {self.n}, seed {self.seed}", ("t", *(f"r = {r}" for r in self.radii)), rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """A heat map over radius and time; a dot where the value is within 2 standard errors of 0."""
        ax = display.axes_or_new(ax)
        order = np.argsort(self.times, kind="stable")
        value, stderr = self.value[order], self.stderr[order]
        display.draw_heat(ax, value, self.radii, self.times[order], f"{self._what()} ({self.unit})")
        rows, columns = np.nonzero(np.abs(value) <= display.BAND * stderr)
        ax.plot(columns + 0.5, rows + 0.5, ".", color="white", label="within 2 standard errors of 0")
        title = "Conditional mutual information" + (" (dots: within 2 standard errors of 0)" if len(rows) else "")
        display.label_axes(ax, title, "radius r of the buffer B (pixels)", "t")
        return ax


@dataclass(frozen=True)
class MarkovFit(Record):
    """Decay of a CMI map with the radius: ``I(r) ~ amplitude * exp(-r / xi)`` at each time, over the fixed ``radii``.

    Shapes (T,), in the order of the map's times: ``xi`` in pixels with its 95 % interval ``low`` .. ``high``,
    ``amplitude`` in nats, ``p_value`` of the chi-square test.  ``status`` is "ok", "not exponential" or "not resolved",
    ``reason`` says why.  Where it is not resolved, all of these are NaN, but for a CMI that does not fall significantly
    with the radius: there ``high`` is infinite and ``low`` a lower bound of xi, or NaN where there is none.
    ``t_c``: time of the largest xi with a 95 % interval, None where it cannot be told; ``t_c_note``: what limits it.
    ``window``: times where the CMI at ``window_radius`` exceeds ``tolerance`` nats; None where it nowhere does, or
    where it cannot be told: a single measured time, or no number at any.
    ``peak_times`` (R,): time of the largest CMI at each radius of the map, ``peak_radii``.
    """

    times: Array
    xi: Array
    low: Array
    high: Array
    amplitude: Array
    p_value: Array
    status: tuple[str, ...]
    reason: tuple[str, ...]
    radii: tuple[int, ...]
    min_sigma: float
    tolerance: float
    window_radius: int
    window: tuple[float, float] | None = None
    t_c: float | None = None
    t_c_low: float | None = None
    t_c_high: float | None = None
    t_c_note: str = ""
    peak_radii: tuple[int, ...] = ()
    peak_times: Array = field(default_factory=lambda: np.zeros(0))

    def table(self) -> tuple[Head, Rows]:
        """A row for each time of the map."""
        numbers = ("times", "xi", "low", "high", "amplitude", "p_value")
        columns = [getattr(self, name).tolist() for name in numbers]
        return ("t", *numbers[1:], "status", "reason"), list(zip(*columns, self.status, self.reason, strict=True))

    def view(self) -> View:
        """Markov length with its interval, time by time; the critical time and window above."""
        head, rows = self.table()
        window = "none" if self.window is None else f"{self.window[0]:.3g} .. {self.window[1]:.3g}"
        t_c = "not told" if self.t_c is None else f"{self.t_c:.3g}"
        title = f"MarkovFit: xi in pixels with its 95 % interval, amplitude in nats; t_c {t_c}; window (CMI at r = "
        title += f"{self.window_radius} above {self.tolerance:g} nats) {window}"
        return View(title, head, rows, fixed=9)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Markov length by time with its 95 % intervals; an arrow where only a lower bound is known."""
        ax = display.axes_or_new(ax)
        found, bound = np.isfinite(self.xi), ~np.isfinite(self.xi) & np.isfinite(self.low)
        xi = self.xi[found]
        # an interval that is open above is drawn as far as its lower end alone
        bars = np.nan_to_num(np.abs(np.array([xi - self.low[found], self.high[found] - xi])), posinf=0.0)
        color = display.STRONG[1]
        if found.any():
            ax.errorbar(self.times[found], xi, bars, fmt="o", color=color, capsize=2, label="ξ, 95 % interval")
        if bound.any():
            ax.plot(
                self.times[bound], self.low[bound], "^", color=color, markerfacecolor="white", label="lower bound of ξ"
            )
        if not (found | bound).any():
            ax.text(0.5, 0.5, "resolved at no time", ha="center", va="center", transform=ax.transAxes)
        ax.set_xlim(0, 1)
        if self.window is not None:
            ax.axvspan(*self.window, color=display.STRONG[0], alpha=0.1, linewidth=0, label="critical window")
        display.label_axes(ax, "Markov length", TIME, "ξ (pixels)")
        display.legend(ax)
        return ax


# --- what public calls take: the records above as kinds of argument (phasewise.checks) --------------------------------

a_loss_table = checks.made(LossTable, "a LossTable", "see phasewise.diagnosis.measure_losses")
a_price_list = checks.made(PriceList, "a PriceList", "see phasewise.price_list")
step_errors = checks.made(StepErrors, "StepErrors", "see phasewise.scheduling.measure_step_errors")
a_schedule = checks.made(HybridSchedule, "a HybridSchedule", "see phasewise.optimise_schedule")
a_front = checks.made(ParetoFront, "a ParetoFront", "see phasewise.pareto_front")
a_cmi_map = checks.made(CMIMap, "a CMIMap", "see phasewise.cmi_map")
a_markov_fit = checks.made(MarkovFit, "a MarkovFit", "see phasewise.markov_length")
