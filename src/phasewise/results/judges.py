"""What several judges say of samples, and whether two sets of them count as equal: only if all judges agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phasewise import display
from phasewise.display import Head, Rows, View
from phasewise.errors import PhasewiseError
from phasewise.power import RESOLVED, Comparison
from phasewise.results.base import Array, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class JudgeScore(Record):
    """One judge's distance of ``n`` samples from ``reference_n`` real images; lower is better.

    Attributes:
        measure: what the distance is called: "FID", "unseen FID", "sliced Wasserstein distance".
        value: as measured, the bias of finite n included; ``stderr`` by bootstrap over the samples.
        draws: the distances of the bootstrap's draws of the samples.  Scores of equal n and seed draw the same rows, so
            the difference of their draws is that of pairs (:meth:`minus`).
        features: name of the feature network, empty for a judge without one.
    """

    measure: str
    value: float
    stderr: float
    n: int
    reference_n: int
    seed: int = 0
    unit: str = ""
    features: str = ""
    draws: tuple[float, ...] = ()

    def minus(self, other: JudgeScore) -> Comparison:
        """This distance less ``other``'s, of samples from the same noise: paired where both were drawn alike, else with
        their errors taken as independent.

        Raises PhasewiseError where the two are of different judges.
        """
        if (self.measure, self.features) != (other.measure, other.features):
            raise PhasewiseError(
                f"a score of {self.measure} ({self.features or 'no features'}) is not comparable with one of "
                f"{other.measure} ({other.features or 'no features'}); judge both by the same"
            )
        alike = (self.n, self.seed, len(self.draws)) == (other.n, other.seed, len(other.draws))
        if alike and len(self.draws) > 1:
            stderr = float(np.subtract(self.draws, other.draws).std(ddof=1))
        else:
            stderr = math.hypot(self.stderr, other.stderr)
        return Comparison(self.value - other.value, stderr, min(self.n, other.n))

    def table(self) -> tuple[Head, Rows]:
        """One row, without the draws."""
        names = ("measure", "value", "stderr", "n", "reference_n", "seed", "unit", "features")
        return names, [tuple(getattr(self, name) for name in names)]


HEADS = {
    "level": "no judge tells them apart", "lower": "lower", "higher": "higher", "split": "the judges disagree",
}  # fmt: skip


@dataclass(frozen=True)
class JudgesVerdict(Record):
    """Samples of ``first`` against those of ``second``, by several judges, ``n`` samples a side.

    ``difference`` (judges,) is each judge's distance of the first less that of the second, ``stderr`` its (paired)
    standard error, ``beside`` the second's distance.  A judge calls the first "lower", "level" or "higher" by two
    standard errors (:class:`phasewise.power.Comparison`).
    """

    first: str
    second: str
    measures: tuple[str, ...]
    difference: Array
    stderr: Array
    beside: Array
    n: int

    def check(self) -> None:
        for name in ("difference", "stderr", "beside"):
            if getattr(self, name).shape != (len(self.measures),):
                raise PhasewiseError(
                    f"{name} has shape {getattr(self, name).shape}: one number for each of the "
                    f"{len(self.measures)} judges is needed"
                )
        if not self.measures or self.n < 1:
            raise PhasewiseError("a verdict needs at least one judge and one sample")

    @property
    def comparisons(self) -> dict[str, Comparison]:
        """By what each judge measures."""
        pairs = zip(self.measures, self.difference.tolist(), self.stderr.tolist(), strict=True)
        return {name: Comparison(value, error, self.n) for name, value, error in pairs}

    @property
    def outcome(self) -> str:
        """ "level" only where every judge says so; "lower" or "higher" where some judges do and none says the opposite;
        "split" where judges contradict each other."""
        said = {c.outcome for c in self.comparisons.values()} - {"level"}
        return "split" if len(said) > 1 else said.pop() if said else "level"

    def sentence(self) -> str:
        """The verdict in words, with the difference that each judge who finds none could have shown."""
        by: dict[str, list[str]] = {"lower": [], "higher": [], "level": []}
        for (name, found), base in zip(self.comparisons.items(), self.beside.tolist(), strict=True):
            told = f"{name} ({found.difference:+.3g} ± {found.stderr:.2g})"
            by[found.outcome].append(told if found.outcome != "level" else f"{name} ({least(found, base)})")
        parts = [f"{what} by {_listed(by[what])}" for what in ("lower", "higher") if by[what]]
        if by["level"]:
            parts.append(f"not distinguishable by {_listed(by['level'])}")
        return f"{self.first} against {self.second}: {HEADS[self.outcome]}; {'; '.join(parts)}; n = {self.n:,}"

    def table(self) -> tuple[Head, Rows]:
        """A row for each judge; ``detectable`` is the least true difference that so many samples tell 8 times in 10."""
        head = ("measure", "difference", "stderr", "outcome", "detectable", "beside")
        rows = zip(self.comparisons.items(), self.beside.tolist(), strict=True)
        return head, [(name, c.difference, c.stderr, c.outcome, c.detectable, base) for (name, c), base in rows]

    def view(self) -> View:
        head, rows = self.table()
        about = f"{self.first} against {self.second}: {HEADS[self.outcome]}"
        return View(f"JudgesVerdict: {display.clipped(about, 110)}; n = {self.n:,}", head, rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Each judge's difference in standard errors; within the band it is not told."""
        ax = display.axes_or_new(ax)
        ax.axvspan(-RESOLVED, RESOLVED, color="#8a8a8a", alpha=0.2, label="not told")
        known = [(k, c) for k, c in enumerate(self.comparisons.values()) if c.stderr > 0]
        x = [c.difference / c.stderr for _, c in known]
        ax.errorbar(x, [k for k, _ in known], xerr=2, fmt="o", color=display.STRONG[1], label="difference")
        ax.set_yticks(range(len(self.measures)), self.measures)
        display.label_axes(ax, f"{self.first} against {self.second}", "difference, standard errors", "judge")
        display.legend(ax)
        return ax


def _listed(said: list[str]) -> str:
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def least(found: Comparison, base: float) -> str:
    """ "n samples tell D or more, P %": what so many samples could have shown of a distance ``base``."""
    share = f", {display.percent(found.detectable, base)}" if base > 0 else ""
    return f"{display.num(found.n)} samples tell {display.num(found.detectable, 2)} or more{share}"


def weigh(
    first: Mapping[str, JudgeScore], second: Mapping[str, JudgeScore], names: tuple[str, str] = ("first", "second")
) -> JudgesVerdict:
    """The verdict of the judges that saw both sets of samples.  Raises PhasewiseError where there is none."""
    shared = [key for key in first if key in second]
    if not shared:
        raise PhasewiseError("no judge saw both sets of samples; judge both by the same judges")
    found = {first[key].measure: first[key].minus(second[key]) for key in shared}
    return JudgesVerdict(
        first=names[0],
        second=names[1],
        measures=tuple(found),
        difference=np.array([c.difference for c in found.values()]),
        stderr=np.array([c.stderr for c in found.values()]),
        beside=np.array([second[key].value for key in shared]),
        n=min(c.n for c in found.values()),
    )
