"""How numbers, tables and curves are shown, in a terminal, a notebook and a figure. Imports nothing of the package.

Numbers stand with their standard errors, bands are 2 standard errors either side, time runs from t = 0 (data, left) to
t = 1 (noise, right).  A long table is thinned evenly, first and last kept, and says how much it leaves out.
Matplotlib is loaded when something is drawn.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

Head = tuple[str, ...]
Rows = list[tuple[Any, ...]]

LINES, HTML_LINES, WIDTH, CELL = 20, 60, 110, 60
"""Most rows of a printed and of an HTML table, its width, the width of one text cell (characters)."""
BAND = 2.0
TIME = "t   (0 data – 1 noise)"
STRONG = ("#D55E00", "#0072B2", "#222222", "#CC79A7", "#B8860B", "#6A3D9A", "#009E73", "#A0522D", "#8a8a8a")


class View(NamedTuple):
    """A table to be shown: a line above it, heads, rows, and how many columns at the left are never left out."""

    title: str
    head: Head
    rows: Rows
    fixed: int = 1


# --- numbers --------------------------------------------------------------------------------------------------------


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def num(value: Any, digits: int = 3) -> str:
    """``digits`` significant digits, thousands separated; integers in full; an en dash for None, NaN, infinities."""
    if not is_number(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,d}".replace("-", "−")
    places = 0 if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 8)}f}".replace("-", "−")


def pm(value: Any, stderr: Any) -> str:
    """``value ± stderr``, to the first digit of the standard error, to the second where it starts with 1 or 2."""
    if not is_number(value):
        return "–"
    if not is_number(stderr) or stderr <= 0:
        return num(value)
    places = min(8, max(0, 1 - math.floor(math.log10(stderr / 0.3))))
    return f"{value:,.{places}f} ± {stderr:,.{places}f}".replace("-", "−")


def percent(part: Any, whole: Any) -> str:
    if not (is_number(part) and is_number(whole)) or whole <= 0:
        return "–"
    return num(100 * part / whole, 2) + " %"


def cell(value: Any) -> str:
    """One value of a table: 3 significant digits, infinities named, a dash for None and NaN, long text clipped."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if isinstance(value, float) and value and is_number(value) and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.2e}"
    if value is None or isinstance(value, (int, float)):
        return num(value).replace("−", "-")
    if isinstance(value, (list, tuple)):
        value = ", ".join(map(cell, value))
    return clipped(str(value), CELL)


def measured(value: float, stderr: float) -> str:
    """``value ± stderr`` as a cell; the bare value where there is no usable standard error."""
    if not (is_number(value) and is_number(stderr) and stderr > 0):
        return cell(value)
    if not (stderr > 1e-6 and abs(value) < 1e7):
        return f"{value:.2e} ± {stderr:.0e}"
    return pm(value, stderr).replace("−", "-")


def clipped(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def brief(value: Any) -> str:
    """A ``repr`` that stays short: arrays by shape, records by name, the first three of many values."""
    if isinstance(value, np.ndarray):
        return f"array{value.shape}"
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}(…)"
    if isinstance(value, dict):
        return f"{{{_first_three([f'{k!r}: {brief(v)}' for k, v in value.items()])}}}"
    if isinstance(value, (list, tuple)):
        left, right = ("[", "]") if isinstance(value, list) else ("(", ",)" if len(value) == 1 else ")")
        return left + _first_three([brief(v) for v in value]) + right
    return clipped(repr(value), CELL)


def _first_three(parts: list[str]) -> str:
    return ", ".join(parts if len(parts) <= 3 else [*parts[:3], f"… {len(parts)} in all"])


def joined(names: Iterable[str]) -> str:
    """Names with equal neighbours joined: ``a a b`` as "a×2 b"."""
    out: list[tuple[str, int]] = []
    for name in names:
        out = [*out[:-1], (name, out[-1][1] + 1)] if out and out[-1][0] == name else [*out, (name, 1)]
    return " ".join(f"{name}×{n}" if n > 1 else name for name, n in out)


# --- tables ---------------------------------------------------------------------------------------------------------


def thinned(count: int, keep: int) -> list[int]:
    """``keep`` of the numbers 0 .. count - 1, evenly spaced, first and last among them; all where there are no more."""
    if keep >= count:
        return list(range(count))
    return [round(i * (count - 1) / (keep - 1)) for i in range(keep)] if keep > 1 else [0] * keep


def text_table(view: View) -> str:
    """Title, heads, at most LINES rows and about WIDTH characters a line, and what was left out."""
    rows = thinned(len(view.rows), LINES)
    columns = [[head, *(cell(view.rows[i][j]) for i in rows)] for j, head in enumerate(view.head)]
    kept = _fitting([max(map(len, column)) for column in columns], view.fixed)
    padded = [_padded(columns[j]) for j in kept]
    lines = ["  ".join(parts).rstrip() for parts in zip(*padded, strict=True)]
    return "\n".join([view.title, *lines, *_left_out(len(view.rows) - len(rows), len(columns) - len(kept))])


def _fitting(widths: list[int], fixed: int) -> list[int]:
    """Columns to keep: the ``fixed`` first, and as many of the rest, evenly spaced, as WIDTH holds."""
    fixed = min(fixed, len(widths))
    rest = len(widths) - fixed
    for keep in range(rest, 0, -1):
        kept = [*range(fixed), *(fixed + j for j in thinned(rest, keep))]
        if sum(widths[j] + 2 for j in kept) <= WIDTH:
            return kept
    return list(range(fixed))


def _padded(column: list[str]) -> list[str]:
    """Numbers to the right, text to the left."""
    width = max(map(len, column))
    numeric = all(text.lstrip("-")[:1].isdigit() or text in ("–", "inf", "-inf") for text in column[1:])
    return [text.rjust(width) if numeric else text.ljust(width) for text in column]


def _left_out(rows: int, columns: int) -> list[str]:
    parts = [f"{n} {what}" for n, what in ((rows, "rows"), (columns, "columns")) if n]
    return [f"({' and '.join(parts)} left out; .table() has every number)"] if parts else []


def html_table(view: View) -> str:
    """The same as a piece of HTML that needs nothing else, every text escaped; at most HTML_LINES rows."""
    rows = thinned(len(view.rows), HTML_LINES)
    head = _html_row("th", view.head)
    body = "".join(_html_row("td", map(cell, view.rows[i])) for i in rows)
    note = "".join(f"<p>{html.escape(line)}</p>" for line in _left_out(len(view.rows) - len(rows), 0))
    table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
    return f'<div style="overflow-x:auto"><p>{html.escape(view.title)}</p>{table}{note}</div>'


def _html_row(tag: str, texts: Iterable[str]) -> str:
    cells = (f'<{tag} style="white-space:nowrap">{html.escape(text)}</{tag}>' for text in texts)
    return f"<tr>{''.join(cells)}</tr>"


# --- figures --------------------------------------------------------------------------------------------------------


def axes_or_new(ax: Axes | None) -> Axes:
    """``ax``, or the axes of a new figure."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    new: Axes = pyplot.subplots(figsize=(7, 4), layout="constrained")[1]
    return new


def draw_band(ax: Axes, x: np.ndarray, y: np.ndarray, stderr: np.ndarray, **line: Any) -> None:
    """A line through the finite points in order of x, with its band; none where the standard error is not finite."""
    keep = np.isfinite(x) & np.isfinite(y)
    order = np.argsort(x[keep], kind="stable")
    x, y, stderr = x[keep][order], y[keep][order], np.nan_to_num(stderr[keep][order], posinf=0.0)
    if x.size:
        ax.plot(x, y, **line)
        ax.fill_between(x, y - BAND * stderr, y + BAND * stderr, color=line["color"], alpha=0.18, linewidth=0)


def label_axes(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set_title(title)
    ax.set_xlabel(x)
    ax.set_ylabel(y)


def legend(ax: Axes) -> None:
    """A small legend beside the axes, where anything is labelled."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def member_colors(names: Sequence[str], radii: Sequence[int | None] = ()) -> list[str]:
    """A colour for each name: shades by receptive field, dark = wide; strong ones, in turn, where none is given."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    radii = radii or [None] * len(names)
    local = sorted({r for r in radii if r is not None})
    shades = {r: to_hex(c) for r, c in zip(local, colormaps["viridis_r"](np.linspace(0.2, 1, len(local))), strict=True)}
    strong = iter(STRONG * len(names))
    return [next(strong) if r is None else shades[r] for r in radii]


def draw_heat(ax: Axes, values: np.ndarray, columns: Any, rows: Any, label: str, norm: str = "linear") -> QuadMesh:
    """A heat map of values (rows, columns), one square each, what is not finite left white; ``label`` for its scale."""
    mesh = ax.pcolormesh(np.ma.masked_invalid(values), cmap="cividis", norm=norm)
    for place, names in ((ax.set_xticks, columns), (ax.set_yticks, rows)):
        _ticks(place, names)
    ax.figure.colorbar(mesh, ax=ax, label=label)
    return mesh


def _ticks(place: Callable[..., Any], names: Any) -> None:
    shown = range(0, len(names), -(-len(names) // 12))
    place([i + 0.5 for i in shown], [f"{names[i]:.3g}" for i in shown])
