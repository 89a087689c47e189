"""When symmetries break, as records: the speciation time of the covariance, and cloning with the class's survival.

Every time comes with its interval of 95 %, by a bootstrap over images; NaN where it cannot be told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from phasewise import display
from phasewise.display import TIME, Head, Rows, View
from phasewise.errors import PhasewiseError
from phasewise.results.base import Array, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Mark = tuple[str, float, float, float]
"""What happens, its time, and the interval's ends."""
MARKS: Head = ("mark", "t", "low", "high")


def interval(value: float, low: float, high: float) -> str:
    """ "0.61 (0.60 to 0.62)"; "not resolved" for NaN."""
    if math.isnan(value):
        return "not resolved"
    if math.isnan(low) or math.isnan(high):
        return f"{value:.3g}"
    return f"{value:.3g} ({low:.3g} to {high:.3g})"


@dataclass(frozen=True)
class Speciation(Record):
    """The time ``t_s`` at which images part along their leading direction: gamma(t_s) = 1 / Lambda.

    ``eigenvalue``: Lambda, the largest eigenvalue of the covariance of all pixels, squared pixel units, and its
    interval.  ``log_snr``: -log Lambda, that of t_s.  ``between`` and ``t_between``: the same of the covariance of the
    class means, where labels were given; ``classes`` of them.  ``data_std``: of the pixels, for a log-SNR relative to
    their variance.  ``n`` images.
    """

    eigenvalue: float
    eigenvalue_low: float
    eigenvalue_high: float
    t_s: float
    t_s_low: float
    t_s_high: float
    log_snr: float
    data_std: float
    n: int
    seed: int
    path: dict[str, Any]
    classes: int | None = None
    between: float = math.nan
    between_low: float = math.nan
    between_high: float = math.nan
    t_between: float = math.nan
    t_between_low: float = math.nan
    t_between_high: float = math.nan

    def marks(self) -> list[Mark]:
        """(what, t, low, high): speciation, and that of the class means where there are labels."""
        whole: Mark = ("speciation", self.t_s, self.t_s_low, self.t_s_high)
        means: Mark = ("class means", self.t_between, self.t_between_low, self.t_between_high)
        return [whole] if self.classes is None else [whole, means]

    def table(self) -> tuple[Head, Rows]:
        """A row for each mark."""
        return MARKS, list(self.marks())

    def view(self) -> View:
        return View(f"Speciation: times, 95 %; n = {self.n}, seed {self.seed}", *self.table())

    def plot(self, ax: Axes | None = None) -> Axes:
        """The times and their intervals."""
        return _draw_marks(self.marks(), ax, "Speciation")


@dataclass(frozen=True)
class Cloning(Record):
    """Images noised to t and denoised twice: how often the two clones agree on the class, and with their original.

    Shapes (T,): ``agreement`` of the two clones; ``survival``, the share of clones of their original's class; each
    with its standard error over ``n`` images.  ``chance``: agreement of two images drawn at random.  ``threshold``:
    agreement at the cloning time ``t_clone``.  ``t_survival``: where survival passes the same threshold.
    ``t_low`` and ``t_high``: the times at which the class is all but decided and all but open, where the agreement has
    gone a tenth and nine tenths of the way from 1 to chance; NaN outside the measured times.
    """

    times: Array
    log_snr: Array
    agreement: Array
    agreement_stderr: Array
    survival: Array
    survival_stderr: Array
    chance: float
    threshold: float
    t_clone: float
    t_clone_low: float
    t_clone_high: float
    t_survival: float
    t_survival_low: float
    t_survival_high: float
    t_low: float
    t_high: float
    classes: int
    steps: int
    solver: str
    n: int
    seed: int
    path: dict[str, Any]

    def check(self) -> None:
        for name in ("log_snr", "agreement", "agreement_stderr", "survival", "survival_stderr"):
            if getattr(self, name).shape != self.times.shape:
                raise PhasewiseError(f"Cloning.{name} has shape {getattr(self, name).shape}, not {self.times.shape}")

    def marks(self) -> list[Mark]:
        """(what, t, low, high): where clones agree, and where the class survives, at the threshold."""
        return [
            ("cloning", self.t_clone, self.t_clone_low, self.t_clone_high),
            ("survival of the class", self.t_survival, self.t_survival_low, self.t_survival_high),
        ]

    def table(self) -> tuple[Head, Rows]:
        """A row for each time."""
        names = ("log_snr", "agreement", "agreement_stderr", "survival", "survival_stderr")
        columns = [getattr(self, name).tolist() for name in names]
        return ("t", *names), list(zip(self.times.tolist(), *columns, strict=True))

    def view(self) -> View:
        """Agreement and survival at each time."""
        title = f"Cloning: clones agree on the class at {self.threshold:.3g} at t = "
        title += f"{interval(self.t_clone, self.t_clone_low, self.t_clone_high)}; n = {self.n}, seed {self.seed}"
        pairs = [
            [display.measured(v, e) for v, e in zip(getattr(self, k), getattr(self, f"{k}_stderr"), strict=True)]
            for k in ("agreement", "survival")
        ]
        return View(title, ("t", "agreement", "survival"), list(zip(self.times.tolist(), *pairs, strict=True)))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Agreement and survival over time."""
        ax = display.axes_or_new(ax)
        for k, (name, color) in enumerate((("agreement", "#0072B2"), ("survival", "#D55E00"))):
            line = {"color": color, "marker": "os"[k], "markersize": 3, "label": name}
            display.draw_band(ax, self.times, getattr(self, name), getattr(self, f"{name}_stderr"), **line)
        ax.axhline(self.threshold, color=display.STRONG[0], linewidth=1, linestyle=":", label="_threshold")
        display.legend(ax)
        display.label_axes(ax, "Class of clones", TIME, "share")
        return ax


@dataclass(frozen=True)
class SymmetryBreaking(Record):
    """What a run knows of when symmetries break; ``cloning`` is None where no classifier could tell classes."""

    speciation: Speciation
    cloning: Cloning | None = None

    def marks(self) -> list[Mark]:
        """(what, t, low, high) of all that was measured."""
        return self.speciation.marks() + (self.cloning.marks() if self.cloning is not None else [])

    def table(self) -> tuple[Head, Rows]:
        """A row for each mark."""
        return MARKS, list(self.marks())

    def view(self) -> View:
        return View(f"SymmetryBreaking: times, 95 %; seed {self.speciation.seed}", *self.table())

    def plot(self, ax: Axes | None = None) -> Axes:
        """The times and their intervals."""
        return _draw_marks(self.marks(), ax, "When symmetries break")


def _draw_marks(marks: list[Mark], ax: Axes | None, title: str) -> Axes:
    """One line a mark, from the top; those that are not resolved are left out."""
    ax = display.axes_or_new(ax)
    ax.set_yticks(range(len(marks)), [name for name, *_ in marks])
    for k, (_, t, low, high) in enumerate(marks):
        if math.isfinite(t):
            ends = [value if math.isfinite(value) else t for value in (low, high)]
            ax.plot(ends, [k, k], color="#0072B2", linewidth=1.5)
            ax.plot(t, k, "o", color="#0072B2")
    ax.invert_yaxis()
    display.label_axes(ax, title, TIME, "mark")
    return ax


def crossing(x: Array, value: Array, level: float) -> float:
    """Where a curve over ascending ``x`` first falls below ``level``, by linear interpolation; NaN where it begins
    below or never falls."""
    below = np.flatnonzero(value < level)
    if not len(below) or below[0] == 0:
        return math.nan
    j = int(below[0])
    return float(x[j - 1] + (value[j - 1] - level) / (value[j - 1] - value[j]) * (x[j] - x[j - 1]))
