"""How far a network sees, as records: by influence, by the windowed answer, by attention within windows.

Distances are max-norm, in pixels (of attention: in tokens).  A radius that holds a share comes with the interval that
two standard errors either side give it: the smallest and the largest that the errors leave open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from phasewise import display
from phasewise.display import TIME, Head, Rows, View
from phasewise.errors import PhasewiseError
from phasewise.results.base import Array, Record, _at, _cells, _long

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = (0.5, 0.9, 0.99)
"""Shares of the influence whose radii are shown."""
TOLERANCE = 0.1
"""What a windowed answer may change, of the answer's own spread between images, where one radius is shown."""


class Radii(NamedTuple):
    """A radius at each time, (T,), NaN where no measured one will do; ``low`` and ``high`` by two standard errors.

    ``largest`` is the largest that was measured.
    """

    value: Array
    low: Array
    high: Array
    largest: float

    def rows(self) -> list[tuple[float, float, float]]:
        """(value, low, high) at each time."""
        return list(zip(self.value.tolist(), self.low.tolist(), self.high.tolist(), strict=True))

    def cells(self) -> list[str]:
        return [_radius_cell(*row) for row in self.rows()]


def _radius_cell(value: float, low: float, high: float) -> str:
    def said(r: float) -> str:
        return "none" if np.isnan(r) else f"{r:g}"

    return said(value) if said(low) == said(high) else f"{said(value)} ({said(low)} to {said(high)})"


def _smallest(grid: Sequence[int], above: Array, stderr: Array, most: float) -> Radii:
    """The smallest entry of ``grid`` from which on ``above`` (T, R) stays at ``most`` or below."""
    order = np.argsort(grid, kind="stable")
    radii = np.asarray(grid, dtype=float)[order]
    above, spare = above[:, order], display.BAND * np.nan_to_num(stderr[:, order], posinf=0.0)

    def first(values: Array) -> Array:
        good = np.flip(np.logical_and.accumulate(np.flip(values <= most, axis=1), axis=1), axis=1)
        return np.where(good.any(1), radii[good.argmax(1)], np.nan)

    return Radii(first(above), first(above - spare), first(above + spare), float(radii[-1]))


def _check_shapes(record: Record, fields: Sequence[str], shape: tuple[int, ...]) -> None:
    for name in fields:
        if (found := getattr(record, name).shape) != shape:
            raise PhasewiseError(f"{type(record).__name__}.{name} has shape {found}, not {shape}")


def _draw_radii(ax: Axes, times: Array, radii: Radii, scale: float = 1.0, **line: Any) -> None:
    """Radius over time, with its interval; an open triangle at the largest measured one where none will do."""
    order = np.argsort(times, kind="stable")
    none = np.isnan(radii.value[order])
    value, low, high = (scale * np.nan_to_num(part[order], nan=radii.largest) for part in radii[:3])
    ax.plot(times[order], value, marker="o", markersize=3, markevery=np.flatnonzero(~none).tolist(), **line)
    ax.plot(times[order][none], value[none], "^", color=line["color"], markerfacecolor="white", label="_more")
    ax.fill_between(times[order], low, high, color=line["color"], alpha=0.15, linewidth=0)


@dataclass(frozen=True)
class Influence(Record):
    """Squared Jacobian mass ``sum_c,c' (d D_ci / d x_c'j)^2`` of a pixel's answer, by the distance of j from i.

    Shapes (T, K), K = max(H, W), column k for distance k (max-norm, pixels): ``share`` of the mass in ring k,
    ``beyond`` farther than k, exactly 0 where nothing farther has any influence.  ``mass`` (T,): the whole mass, its
    mean over pixels and images.  ``declared``: the radius the denoiser claims, or None.
    ``n`` images, ``pixels`` of each; errors are those of a mean over images.
    """

    times: Array
    share: Array
    share_stderr: Array
    beyond: Array
    beyond_stderr: Array
    mass: Array
    mass_stderr: Array
    n: int
    pixels: int
    seed: int
    path: dict[str, Any]
    declared: int | None = None

    def check(self) -> None:
        shape = (len(self.times), self.share.shape[-1])
        _check_shapes(self, ("share", "share_stderr", "beyond", "beyond_stderr"), shape)
        _check_shapes(self, ("mass", "mass_stderr"), shape[:1])

    def radius(self, part: float = 0.9) -> Radii:
        """Smallest distance within which ``part`` of the mass lies, at each time; 1.0 for all of it."""
        if not 0 < part <= 1:
            raise PhasewiseError(f"part must lie in (0, 1], got {part!r}")
        return _smallest(range(self.share.shape[1]), self.beyond, self.beyond_stderr, 1 - part)

    def leak(self, radius: int | None = None) -> tuple[Array, Array]:
        """Share of the mass beyond ``radius`` (default: the declared one) with its standard error, (T,) each.

        Raises PhasewiseError where none is declared and none given, and for one beyond the image.
        """
        radius = self.declared if radius is None else radius
        if radius is None or not 0 <= radius < self.share.shape[1]:
            known = "the denoiser declares none" if radius is None else f"got {radius}"
            raise PhasewiseError(f"a leak is counted from a radius of 0 to {self.share.shape[1] - 1} pixels; {known}")
        return self.beyond[:, radius], self.beyond_stderr[:, radius]

    def table(self) -> tuple[Head, Rows]:
        """A row for each time and distance."""
        names = ("share", "share_stderr", "beyond", "beyond_stderr")
        rows = _long(self.times, range(self.share.shape[1]), **{name: getattr(self, name) for name in names})
        return ("t", "distance", *names), rows

    def view(self) -> View:
        """Radii that hold 50, 90 and 99 % of the influence, time by time, and what lies beyond the declared radius."""
        heads = ["t", *(f"{100 * part:g} % within" for part in PARTS)]
        columns = [self.times.tolist(), *(self.radius(part).cells() for part in PARTS)]
        if self.declared is not None:
            heads.append(f"beyond {self.declared}")
            columns.append([row[0] for row in _cells(*(part[:, None] for part in self.leak()))])
        title = f"Influence by distance, pixels; {self.n} images, {self.pixels} pixels of each, seed {self.seed}"
        return View(title, tuple(heads), list(zip(*columns, strict=True)))

    def plot(self, ax: Axes | None = None) -> Axes:
        """The radii that hold 50, 90 and 99 % of the influence over time."""
        ax = display.axes_or_new(ax)
        for part, color in zip(PARTS, display.STRONG[2::-1], strict=True):
            _draw_radii(ax, self.times, self.radius(part), color=color, label=f"{100 * part:g} % of the influence")
        _declared_line(ax, self.declared)
        display.label_axes(ax, "How far the answer is influenced from", TIME, "radius (pixels)")
        display.legend(ax)
        return ax


def _declared_line(ax: Axes, radius: int | None) -> None:
    if radius is not None:
        ax.axhline(radius, color=display.STRONG[-1], linewidth=1, linestyle=":", label="declared radius")


@dataclass(frozen=True)
class WindowedAnswer(Record):
    """What a pixel's answer changes by when all beyond ``radii`` of it is another noised image.

    Shapes (T, R): ``change``, root mean square over pixels and channels, pixel units; ``relative``, the same over
    ``spread`` (T,), the standard deviation of that answer from image to image.  Were the pixel itself replaced
    as well, ``relative`` would be the square root of 2.  ``declared``: the radius the denoiser claims, or None.
    ``n`` images, ``pixels`` of each; errors are those of a mean over images.
    """

    times: Array
    radii: tuple[int, ...]
    change: Array
    change_stderr: Array
    relative: Array
    relative_stderr: Array
    spread: Array
    spread_stderr: Array
    n: int
    pixels: int
    seed: int
    path: dict[str, Any]
    declared: int | None = None

    def check(self) -> None:
        shape = (len(self.times), len(self.radii))
        _check_shapes(self, ("change", "change_stderr", "relative", "relative_stderr"), shape)
        _check_shapes(self, ("spread", "spread_stderr"), shape[:1])

    def radius(self, tolerance: float = TOLERANCE) -> Radii:
        """Smallest measured radius from which on ``relative`` stays within ``tolerance``; NaN where none will do."""
        return _smallest(self.radii, self.relative, self.relative_stderr, tolerance)

    def table(self) -> tuple[Head, Rows]:
        """A row for each time and radius."""
        names = ("change", "change_stderr", "relative", "relative_stderr")
        rows = _long(self.times, self.radii, **{name: getattr(self, name) for name in names})
        return ("t", "radius", *names), rows

    def view(self) -> View:
        """The relative change, times down and radii across."""
        cells = _cells(self.relative, self.relative_stderr)
        title = "WindowedAnswer: change of the answer over its spread between images, all beyond r replaced; "
        title += f"{self.n} images, {self.pixels} pixels of each, seed {self.seed}"
        rows = [(t, *row) for t, row in zip(self.times.tolist(), cells, strict=True)]
        return View(title, ("t", *(f"r = {r}" for r in self.radii)), rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Relative change over time, a curve for each radius."""
        ax = display.axes_or_new(ax)
        for k, color in enumerate(display.member_colors([str(r) for r in self.radii], self.radii)):
            line = {"color": color, "marker": "o", "markersize": 3, "label": f"r = {self.radii[k]}"}
            display.draw_band(ax, self.times, self.relative[:, k], self.relative_stderr[:, k], **line)
        title = "All beyond r replaced by another noised image"
        display.label_axes(ax, title, TIME, "change of the answer / its spread")
        display.legend(ax)
        return ax


@dataclass(frozen=True)
class AttentionWindows(Record):
    """What attention within ``windows`` tokens (max-norm) does to the answer and to the held-out loss.

    Shapes (T, L, R) for ``layers`` = ("all", "0", "1", ...), the layers restricted, in the order of the calls of one
    answer: ``distance``, E|D_w - D|^2, and ``loss_rise``, E|D_w - x|^2 - E|D - x|^2, squared error per image,
    differenced image by image.  ``loss`` (T,): of the unrestricted.  Tokens lie on ``grid``, ``patch`` pixels a side.
    ``masked`` calls of attention an answer were restricted where "all" are; ``left`` calls, over tokens that are not
    those of the grid, were left alone.
    """

    times: Array
    windows: tuple[int, ...]
    layers: tuple[str, ...]
    distance: Array
    distance_stderr: Array
    loss_rise: Array
    loss_rise_stderr: Array
    loss: Array
    loss_stderr: Array
    grid: tuple[int, int]
    patch: int
    masked: int
    left: int
    n: int
    seed: int
    path: dict[str, Any]

    def check(self) -> None:
        shape = (len(self.times), len(self.layers), len(self.windows))
        _check_shapes(self, ("distance", "distance_stderr", "loss_rise", "loss_rise_stderr"), shape)
        _check_shapes(self, ("loss", "loss_stderr"), shape[:1])

    def radius(self, tolerance: float = TOLERANCE, layer: str = "all") -> Radii:
        """Smallest measured window, in tokens, from which on the loss rises by no more than ``tolerance`` of itself.

        NaN where none will do.  Raises PhasewiseError for a layer that was not measured.
        """
        if layer not in self.layers:
            raise PhasewiseError(f"no layer {layer!r} was measured; there is {', '.join(self.layers)}")
        at, loss = self.layers.index(layer), self.loss[:, None]
        return _smallest(self.windows, self.loss_rise[:, at] / loss, self.loss_rise_stderr[:, at] / loss, tolerance)

    def table(self) -> tuple[Head, Rows]:
        """A row for each time, layer and window."""
        names = ("distance", "distance_stderr", "loss_rise", "loss_rise_stderr")
        places = [(layer, window) for layer in self.layers for window in self.windows]
        flat = {name: getattr(self, name).reshape(len(self.times), -1) for name in names}
        rows = _long(self.times, places, **flat)
        return ("t", "layer", "window", *names), [(t, *place, *values) for t, place, *values in rows]

    def view(self) -> View:
        """The rise of the loss for every restriction at some of the times."""
        rows = []
        for k, layer in enumerate(self.layers):
            cells = _cells(self.loss_rise[:, k].T, self.loss_rise_stderr[:, k].T)
            rows += [(layer, w, *row) for w, row in zip(self.windows, cells, strict=True)]
        side = "×".join(map(str, self.grid))
        title = f"AttentionWindows: loss above that of full attention, squared error per image; {side} tokens, "
        title += f"{self.masked} calls of attention, n = {self.n}, seed {self.seed}"
        return View(title, ("layer", "window", *_at(self.times)), rows, fixed=2)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The rise of the loss over that of full attention, all layers restricted, a curve for each window."""
        ax = display.axes_or_new(ax)
        rise, error = (part[:, 0] / self.loss[:, None] for part in (self.loss_rise, self.loss_rise_stderr))
        for k, color in enumerate(display.member_colors([str(w) for w in self.windows], self.windows)):
            line = {"color": color, "marker": "o", "markersize": 3, "label": f"{self.windows[k]} tokens"}
            display.draw_band(ax, self.times, rise[:, k], error[:, k], **line)
        display.label_axes(ax, "Attention within a window", TIME, "rise of the loss / loss")
        display.legend(ax)
        return ax


@dataclass(frozen=True)
class Reach(Record):
    """How far one denoiser sees at each time, three ways on the same images; ``attention`` None where there is none."""

    name: str
    influence: Influence
    windowed: WindowedAnswer
    attention: AttentionWindows | None = None

    def check(self) -> None:
        for part in (self.windowed, self.attention):
            if part is not None and not np.array_equal(part.times, self.influence.times):
                raise PhasewiseError("the parts of a Reach are measured at the same times; these are not")

    def _columns(self) -> dict[str, Radii]:
        """Radii over time by what they say; pixels, those of attention in tokens."""
        columns = {f"{100 * part:g} % of the influence": self.influence.radius(part) for part in PARTS[1:]}
        columns[f"answer changed < {100 * TOLERANCE:g} % of its spread"] = self.windowed.radius()
        if self.attention is not None:
            columns[f"loss risen < {100 * TOLERANCE:g} % (attention, tokens)"] = self.attention.radius()
        return columns

    def table(self) -> tuple[Head, Rows]:
        """A row for each time and way of measuring: a radius with the interval that its errors leave open."""
        times = self.influence.times.tolist()
        columns = {measure: radii.rows() for measure, radii in self._columns().items()}
        rows = [(t, measure, *radii[k]) for k, t in enumerate(times) for measure, radii in columns.items()]
        return ("t", "measure", "radius", "low", "high"), rows

    def view(self) -> View:
        """Radii time by time, in pixels, those of attention in tokens; and what lies beyond the declared radius."""
        inner, columns = self.influence, self._columns()
        heads = ["t", "90 % within", "99 % within", f"answer < {100 * TOLERANCE:g} %"]
        heads += [f"loss < {100 * TOLERANCE:g} % (tokens)"] if self.attention is not None else []
        cells = [inner.times.tolist(), *(radii.cells() for radii in columns.values())]
        if inner.declared is not None:
            heads.append(f"beyond {inner.declared}")
            cells.append([row[0] for row in _cells(*(part[:, None] for part in inner.leak()))])
        fewer = "" if self.windowed.n == inner.n else f" ({self.windowed.n} windowed)"
        title = f"Reach of {self.name}: radii in pixels; n = {inner.n}{fewer}, seed {inner.seed}"
        return View(title, tuple(heads), list(zip(*cells, strict=True)))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Reach against time, in pixels; windows of attention are those of one layer."""
        ax = display.axes_or_new(ax)
        scale = 1 if self.attention is None else self.attention.patch
        styles = ("-", "-", "--", "-.")
        for (label, radii), color, style in zip(self._columns().items(), display.STRONG, styles, strict=False):
            tokens = label.endswith("tokens)")
            label = label.replace("tokens", "pixels a layer")
            line = {"color": color, "linestyle": style, "label": label}
            _draw_radii(ax, self.influence.times, radii, scale if tokens else 1.0, **line)
        _declared_line(ax, self.influence.declared)
        display.label_axes(ax, f"How far {self.name} sees", TIME, "radius (pixels)")
        display.legend(ax)
        return ax
