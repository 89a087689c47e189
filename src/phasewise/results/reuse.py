"""What members that lean on earlier steps lose, by how old what they lean on is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phasewise import display
from phasewise.display import TIME, Head, Rows
from phasewise.errors import PhasewiseError
from phasewise.results.base import Array, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class ReusePrices(Record):
    """What members that lean on earlier steps lose at every step, by how old what they lean on is.

    A column for each of ``names`` (as a schedule's assignment has them) and each of ``lags``: how many steps back the
    fresh ones lie that it takes from, the nearest first, (1, 2) being the last two.  ``of``: the member whose whole
    call is kept; "" for an answer, which anybody may have given.  Shapes (S, C) = steps x columns, NaN where the grid
    has no such steps: loss, gap and distance as in a :class:`LossTable`, against the reference at the same points of
    the same trajectories; ``frechet`` as in a :class:`PriceList`; ``weights`` (S, C, 3) of the fresh ones, nearest
    first, in what is carried on.  ``flops`` and ``ms`` (C,) of a call.

    ``trajectories``: "noised", held-out images under noise that is a path, which is what exact reverse diffusion
    follows, or "sampled", those of the reference from noise, where no clean image is known: loss and gap are NaN.
    """

    times: Array
    names: tuple[str, ...]
    lags: tuple[tuple[int, ...], ...]
    of: tuple[str, ...]
    loss: Array
    loss_stderr: Array
    gap: Array
    gap_stderr: Array
    distance: Array
    distance_stderr: Array
    weights: Array
    flops: Array
    ms: Array
    n: int
    seed: int
    trajectories: str
    frechet: Array | None = None
    frechet_stderr: Array | None = None

    def check(self) -> None:
        count = len(self.names)
        shape = (len(self.times), count)
        fields = (
            "loss",
            "loss_stderr",
            "gap",
            "gap_stderr",
            "distance",
            "distance_stderr",
            "frechet",
            "frechet_stderr",
        )
        wrong = [f for f in fields if getattr(self, f) is not None and getattr(self, f).shape != shape]
        wrong += [f for f in ("lags", "of", "flops", "ms") if len(getattr(self, f)) != count]
        if wrong or self.weights.shape != (*shape, 3):
            raise PhasewiseError(f"ReusePrices.{(wrong or ['weights'])[0]} does not go with {count} columns")
        if any(not lags or list(lags) != sorted(set(lags)) or lags[0] < 1 for lags in self.lags):
            raise PhasewiseError("lags are numbers of steps back from 1 on, the nearest first")

    def plot(self, ax: Axes | None = None) -> Axes:
        """Distance from the reference's answer over time, of every member at its youngest lags."""
        ax = display.axes_or_new(ax)
        for name, color in zip(self._own(), display.member_colors(self._own()), strict=True):
            column = min((c for c, own in enumerate(self.names) if own == name), key=lambda c: self.lags[c])
            value, error = self.distance[:, column], display.BAND * self.distance_stderr[:, column]
            ax.errorbar(self.times, value, error, fmt=".-", color=color, label=f"{name}, {self.lags[column]} back")
        display.label_axes(ax, "Distance of reused answers from fresh ones", TIME, "squared error per image")
        display.legend(ax)
        return ax

    def youngest(self) -> list[tuple[object, ...]]:
        """A row for each member: name, MFLOP, ms, and its gap at every step where what it leans on is youngest."""
        rows: list[tuple[object, ...]] = []
        for name in self._own():
            columns = sorted((c for c, own in enumerate(self.names) if own == name), key=lambda c: self.lags[c])
            gaps = [next((row[c] for c in columns if np.isfinite(row[c])), np.nan) for row in self.gap]
            first = columns[0]
            rows.append((name, self.flops[first] / 1e6, self.ms[first], *(float(gap) for gap in gaps)))
        return rows

    def _own(self) -> list[str]:
        return list(dict.fromkeys(self.names))

    def table(self) -> tuple[Head, Rows]:
        """A row for each step and column that the grid has."""
        fields = {"gap": self.gap, "gap_stderr": self.gap_stderr, "distance": self.distance}
        fields |= {} if self.frechet is None else {"frechet": self.frechet}
        columns = list(enumerate(zip(self.names, self.lags, strict=True)))
        rows = [
            (float(self.times[k]), name, " ".join(map(str, lags)), *(float(value[k, c]) for value in fields.values()))
            for k in range(len(self.loss))
            for c, (name, lags) in columns
            if np.isfinite(self.distance[k, c])
        ]
        return ("t", "name", "lags", *fields), rows
