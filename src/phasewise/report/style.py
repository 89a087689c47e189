"""How the report looks: one colour per denoiser, numbers with their errors, figures as deterministic SVG.

Local denoisers take a sequential colour map (dark = wide window), the reference one strong colour, Wiener denoisers
grey, the control a dashed near-black. Colours are safe for the common colour-vision deficiencies (Okabe & Ito 2008,
viridis); line styles and markers repeat the distinction.
"""

from __future__ import annotations

import colorsys
import functools
import io
import math
import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from phasewise.display import is_number as is_number
from phasewise.display import num as num
from phasewise.display import percent as percent
from phasewise.display import pm as pm
from phasewise.results import Array
from phasewise.runs.members import MEMBER_KINDS, Member
from phasewise.runs.run import Run

P = ParamSpec("P")
GLOBAL, CONTROL, WIENER, INK, RULE = "#D55E00", "#222222", "#8a8a8a", "#24292f", "#d5d9de"
PAPER, NIGHT = "#fefefe", "#16191d"
"""What figures are drawn on by day, and the page's colour in dark mode."""
OTHERS = ("#CC79A7", "#B8860B", "#6A3D9A", "#A0522D")
BARS = "Bands and bars: 2 standard errors either side."
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
RC: Any = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": "#6b7280",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
}

NARROW: ContextVar[bool] = ContextVar("narrow", default=False)
"""Whether a figure is drawn for a narrow screen: panels below each other, at the width of a telephone."""

SCHEDULE_LOOKS = {
    "hybrid": ("*", "#0072B2"),
    "global": ("o", GLOBAL),
    "global_cheap": ("o", GLOBAL),
    "global_placed": ("p", GLOBAL),
    "own": ("h", "#117733"),
    "window": ("s", "#009E73"),
    "window_gap": ("P", "#B8860B"),
    "window_cmi": ("^", "#6A3D9A"),
    "stitched": ("<", "#7A5195"),
    "spread": (">", "#A0522D"),
    "window_shifted": ("D", "#3A9BD1"),
    "window_inverted": ("v", "#CC79A7"),
    "local_only": ("X", "#555555"),
    "closed_only": ("d", "#8A6D3B"),
}
"""Marker and colour of the schedules that a run compares, in the order they are shown."""


@dataclass(frozen=True)
class Look:
    """How one denoiser is drawn."""

    label: str
    color: str
    linestyle: Any = "-"
    marker: str = "o"

    def line(self) -> dict[str, Any]:
        return {"color": self.color, "linestyle": self.linestyle, "marker": self.marker, "label": self.label}


class Palette:
    """One :class:`Look` per member, the same in every figure, by its kind and radius; ``order`` lists the names."""

    def __init__(self, run: Run) -> None:
        self.reference = run.reference
        members = {m.name: m for m in run.members}
        local = sorted({m.radius for m in members.values() if look_of(m) == "local" and m.radius is not None})
        shades = matplotlib.colormaps["viridis_r"](np.linspace(0.3, 0.97, max(len(local), 2)))
        self._shade = {r: (to_hex(shades[i]), MARKERS[i % len(MARKERS)]) for i, r in enumerate(local)}
        self._windows = sorted({m.radius for m in members.values() if look_of(m) == "closed" and m.radius})
        self._others = iter(OTHERS * 8)
        self._twins: dict[int, int] = {}
        self.order = sorted(members, key=lambda n: (RANKS.index(look_of(members[n])), members[n].radius or 0, n))
        self._looks = {name: self._look(members[name]) for name in self.order}

    def __getitem__(self, name: str) -> Look:
        return self._looks.get(name, Look(name, "#5b6470", ":"))

    def _closed(self, label: str, radius: int) -> Look:
        """A windowed filter, paler the narrower it is; half way to white where it is the only one."""
        k, n = self._windows.index(radius), len(self._windows)
        white = 0.75 - 0.5 * k / (n - 1) if n > 1 else 0.5
        red, green, blue = ((1 - white) * c + white for c in to_rgb(WIENER))
        mixed = to_hex((red, green, blue))
        return Look(label, mixed if n > 1 else paler(WIENER), ("-.", "--", ":")[k % 3], "")

    def _look(self, member: Member) -> Look:
        look, label = look_of(member), member.label
        if look == "reference":
            return Look(label if label == "global" else f"{label} (global)", GLOBAL)
        if look == "control":
            return Look(label, CONTROL, (0, (4, 2)), "")
        if look == "closed":
            return self._closed(label, member.radius) if member.radius else Look(label, WIENER, "-", "")
        if look == "other" or member.radius is None:
            return Look(label, next(self._others), "-.", "")
        nth = self._twins[member.radius] = self._twins.get(member.radius, -1) + 1
        color, marker = self._shade[member.radius]
        return Look(label, paler(color) if nth else color, ("-", ":", "-.")[nth % 3], marker)


RANKS = ("local", "closed", "other", "reference", "control")
"""Order of legends, by how members are drawn."""


def look_of(member: Member) -> str:
    """How a member is drawn, by its kind."""
    return MEMBER_KINDS[member.kind].look if member.kind in MEMBER_KINDS else "other"


def paler(color: str) -> str:
    """Half way to white."""
    red, green, blue = to_rgb(color)
    return to_hex((0.5 + red / 2, 0.5 + green / 2, 0.5 + blue / 2))


def schedule_label(run: Run, name: str) -> str:
    """As its evaluation or the schedule itself says."""
    found = run.evaluations.get(name) or run.schedules.get(name)
    return (found.label if found else "") or {"real": "real test images"}.get(name, name)


def schedule_look(name: str, index: int = 0) -> tuple[str, str]:
    """(marker, colour) of a schedule in scatter plots."""
    return SCHEDULE_LOOKS.get(name, (MARKERS[index % len(MARKERS)], OTHERS[index % len(OTHERS)]))


def ordered(names: Any) -> list[str]:
    """Schedule names in the order of SCHEDULE_LOOKS, unknown ones after, as they came; real images last."""
    names, rank = list(names), list(SCHEDULE_LOOKS)
    return sorted(names, key=lambda n: (n == "real", rank.index(n) if n in rank else len(rank), names.index(n)))


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a drawing function under the report's settings, leaving matplotlib's own untouched."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            figure = draw(*args, **kwargs)
        figure.again = functools.partial(wrapper, *args, **kwargs)  # type: ignore[attr-defined]
        return figure

    return wrapper


def narrow(figure: Figure) -> Figure:
    """The same drawing for a narrow screen."""
    token = NARROW.set(True)
    try:
        return figure.again()  # type: ignore[attr-defined]
    finally:
        NARROW.reset(token)


def hover(ax: Axes, x: Any, y: Any, texts: Iterable[str]) -> None:
    """Let the points (x, y), in data units, tell ``texts`` when the pointer rests on them."""
    tips = ax.figure.__dict__.setdefault("tips", [])
    points = zip(np.atleast_1d(x), np.atleast_1d(y), texts, strict=True)
    tips += [(ax, float(a), float(b), text) for a, b, text in points]


def plain_ticks(axis: Axis, log: bool = False) -> None:
    """Tick labels as plain numbers; on log axes at 1, 2, 5 of each decade."""
    if log:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}".replace("-", "−")))


def noise_y(ax: Axes, values: Array, stderr: Array) -> None:
    """A log axis either side of zero, linear within the typical standard error; linear throughout for short ranges."""
    pool, noise = np.abs(values[np.isfinite(values)]), stderr[np.isfinite(stderr) & (stderr > 0)]
    if not pool.size or not noise.size or pool.max() < 30 * np.median(noise):
        return
    floor = 10.0 ** math.ceil(math.log10(max(float(np.median(noise)), float(pool.max()) / 1e3)))
    ax.set_yscale("symlog", linthresh=floor, linscale=0.6)
    plain_ticks(ax.yaxis)


def log_y(ax: Axes, *values: Array) -> None:
    """A log axis if every finite value is positive and they span a factor of 4 or more."""
    pool = np.concatenate([np.ravel(v) for v in values]) if values else np.array([])
    pool = pool[np.isfinite(pool)]
    if pool.size and pool.min() > 0 and pool.max() > 4 * pool.min():
        ax.set_yscale("log")
        plain_ticks(ax.yaxis, log=True)


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG document, byte-identical from run to run."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    end = svg.rindex("</svg>")
    return svg[:end] + _tips(figure) + svg[end:]


def _tips(figure: Figure) -> str:
    """Invisible circles with the figure's hover texts; a browser shows the title of what the pointer is on."""
    width, height = 72 * figure.get_size_inches()
    circles = []
    for ax, x, y, text in figure.__dict__.get("tips", ()):
        pixels = ax.transData.transform((x, y))
        across, up = figure.transFigure.inverted().transform(pixels)
        if np.isfinite([across, up]).all() and 0 <= across <= 1 and 0 <= up <= 1:
            place = f'cx="{across * width:.1f}" cy="{(1 - up) * height:.1f}"'
            circles.append(f'<circle {place} r="6"><title>{_escaped(text)}</title></circle>')
    return f'<g fill="none" pointer-events="all">{"".join(circles)}</g>\n' if circles else ""


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def night(color: str) -> str:
    """``color``, "#rrggbb", as dark mode shows it: the paper dark, the rest in its hue, light enough (contrast 4)"""
    fixed = {PAPER: NIGHT, INK: "#d4d8dd", RULE: "#343a42"}
    if color in fixed:
        return fixed[color]
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(color))
    while lightness < 1 and _contrast(colorsys.hls_to_rgb(hue, lightness, saturation)) < 4:
        lightness = min(1.0, lightness + 0.02)
    return to_hex(colorsys.hls_to_rgb(hue, lightness, saturation))


def _contrast(rgb: tuple[float, float, float]) -> float:
    """Against NIGHT, as WCAG 2 has it."""
    return (_luminance(rgb) + 0.05) / (_luminance(to_rgb(NIGHT)) + 0.05)


def _luminance(rgb: tuple[float, float, float]) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


COLOR = re.compile(r"((?:fill|stroke): )(#[0-9a-f]{6})")


def with_variables(svg: str) -> str:
    """Colours of an inline SVG as variables that dark mode sets anew; those of heat maps, and pure black and white
    upon them, stay."""
    parts = re.split(r'(<g id="[^"]*QuadMesh_\d+">.*?</g>)', svg, flags=re.S)

    def variable(found: re.Match[str]) -> str:
        prefix, color = found.groups()
        return found[0] if color in ("#000000", "#ffffff") else f"{prefix}var(--c{color[1:]}, {color})"

    return "".join(part if k % 2 else COLOR.sub(variable, part) for k, part in enumerate(parts))


def night_colors(page: str) -> str:
    """The style rules that set every colour variable used in ``page`` for dark mode."""
    used = sorted(set(re.findall(r"var\(--c([0-9a-f]{6}),", page)))
    return " ".join(f"--c{color}: {night('#' + color)};" for color in used)


def inline_svg(svg: str, name: str, alt: str) -> str:
    """The same SVG for use inside HTML: no prolog, no namespaces, ids prefixed by ``name``, scalable, with alt text."""
    body = svg[svg.index("<svg") :]
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(?:xmlns(?::\w+)?|width|height|id)="[^"]*"', "", head)
    rest = re.sub(r"<style.*?</style>", "", rest, flags=re.S).replace("xlink:href", "href")
    rest = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", rest)
    return f'{head} role="img" aria-label="{_escaped(alt)}">{with_variables(rest)}'
