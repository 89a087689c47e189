"""What a search for the best start times of a sampler's steps found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phasewise import display
from phasewise.display import Head, Rows, View
from phasewise.errors import PhasewiseError
from phasewise.results.base import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class SearchedGrid(Record):
    """The best grid of start times, what the judge says of it, and every grid that was judged.

    ``times`` is the best of ``judged`` on the noise of ``seed``, with ``value`` (quality lost, lower is better);
    ``began`` is the grid the search began with.  ``fresh_value`` and ``began_fresh_value`` are theirs on the noise of
    ``fresh_seed``, which chose nothing.
    """

    times: tuple[float, ...]
    value: float
    began: tuple[float, ...]
    began_value: float
    fresh_value: float
    began_fresh_value: float
    seed: int
    fresh_seed: int
    judged: tuple[tuple[float, ...], ...]
    values: tuple[float, ...]

    def check(self) -> None:
        if len(self.judged) != len(self.values):
            raise PhasewiseError(f"SearchedGrid has {len(self.values)} values for {len(self.judged)} judged grids")

    @property
    def gain(self) -> float:
        """How much better than the first grid the best one is on the search's own noise."""
        return self.began_value - self.value

    @property
    def fresh_gain(self) -> float:
        """The same on noise that chose nothing; what it falls short of :attr:`gain` is the search's optimism."""
        return self.began_fresh_value - self.fresh_value

    def table(self) -> tuple[Head, Rows]:
        """A row for each judged grid, in the order of the search."""
        return ("judged", "value", "times"), [(k + 1, v, list(self.judged[k])) for k, v in enumerate(self.values)]

    def view(self) -> View:
        """The first grid and the best, on both noises."""
        rows = [
            (name, f"{value:.4g}", f"{fresh:.4g}", " ".join(f"{t:.3f}" for t in times))
            for name, value, fresh, times in (
                ("first", self.began_value, self.began_fresh_value, self.began),
                ("best", self.value, self.fresh_value, self.times),
            )
        ]
        title = f"SearchedGrid: best of {len(self.judged)} grids of {len(self.times)} steps"
        return View(title, ("grid", f"seed {self.seed}", f"seed {self.fresh_seed}", "start times"), rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The best value so far against the number of judged grids."""
        ax = display.axes_or_new(ax)
        least, best = math.inf, []
        for value in self.values:
            best.append(least := min(least, value))
        ax.plot(range(1, len(best) + 1), best, color=display.STRONG[1])
        display.label_axes(ax, f"Search for {len(self.times)} start times", "judged grids", "best value so far")
        return ax
