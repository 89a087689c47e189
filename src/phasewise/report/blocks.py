"""What a section is made of: drawings, picture tables, number tables. Plain data that the template lays out."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import quote

from markupsafe import Markup
from matplotlib.figure import Figure

from phasewise.report.pictures import Picture
from phasewise.report.style import inline_svg, narrow, to_svg


@dataclass(frozen=True)
class Drawing:
    """A figure, saved as figures/NAME.svg and shown inline."""

    kind: ClassVar[str] = "drawing"
    name: str
    svg: str
    small: str
    alt: str
    caption: str

    @property
    def inline(self) -> Markup:
        """For wide screens, and for narrow ones; the page shows one of them."""
        wide, small = inline_svg(self.svg, self.name, self.alt), inline_svg(self.small, f"{self.name}-s", self.alt)
        return Markup(f'<div class="broad">{wide}</div><div class="slim">{small}</div>')


def small_svg(figure: Figure, name: str) -> str:
    """The same drawing for narrow screens."""
    return to_svg(narrow(figure), f"{name}-s")


def drawing(name: str, figure: Figure, alt: str, caption: str) -> Drawing:
    return Drawing(name, to_svg(figure, name), small_svg(figure, name), alt, caption)


@dataclass(frozen=True)
class Table:
    """Rows of ready text. The first ``left`` columns hold text, the rest numbers (right-aligned)."""

    kind: ClassVar[str] = "table"
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    left: int = 1
    strong: int | None = None

    @property
    def csv(self) -> str:
        """The table as a data URI, for a link that saves it; a minus sign as programs know it."""
        buffer = io.StringIO()
        csv.writer(buffer).writerows([self.head, *([c.replace("−", "-") for c in row] for row in self.rows)])
        return "data:text/csv;charset=utf-8," + quote(buffer.getvalue())


@dataclass(frozen=True)
class Shot:
    """A picture with its label, alt text and a line of detail."""

    label: str
    picture: Picture
    alt: str
    detail: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures: ``layout`` "rows" (one a line, label left) or "cards" (side by side, label above)."""

    kind: ClassVar[str] = "gallery"
    layout: str
    shots: tuple[Shot, ...]
    caption: str


@dataclass(frozen=True)
class Matrix:
    """A table of pictures with column heads and row heads; a cell may be None."""

    kind: ClassVar[str] = "matrix"
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Shot | None, ...]], ...]
    caption: str


@dataclass(frozen=True)
class Pairs:
    """Name and value, one a line."""

    kind: ClassVar[str] = "pairs"
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Listing:
    """Text kept as it is, folded away under ``summary``."""

    kind: ClassVar[str] = "listing"
    summary: str
    text: str


@dataclass(frozen=True)
class Section:
    """``notes`` are one-liners on what is absent; ``absent`` stands for whole sections, as (id, what is not there);
    ``extra_files`` (name -> bytes) are saved under figures/."""

    id: str
    title: str
    intro: str = ""
    blocks: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    absent: tuple[tuple[str, str], ...] = ()
    extra_files: dict[str, bytes] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        """Everything this section saves under figures/."""
        svgs = {f"{b.name}.svg": b.svg.encode("utf-8") for b in self.blocks if isinstance(b, Drawing)}
        return {**svgs, **self.extra_files}
