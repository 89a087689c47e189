"""Tables inside Markdown pages, between ``<!-- table: STUDY MARK -->`` and the end mark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from phasewise.errors import PhasewiseError
from phasewise.files import write_text

END = "<!-- end of table -->"
MARK = re.compile(r"<!-- table: (\S+?)(?: ([^>]+?))? -->")


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], *notes: str) -> str:
    """A table of ``rows`` (each as long as ``heads``) and paragraphs under it."""
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n\n".join(["\n".join(lines), *notes])


def start_mark(study: str, mark: str) -> str:
    return f"<!-- table: {f'{study} {mark}'.strip()} -->"


def marks_in(page: Path) -> list[tuple[str, str]]:
    """(study, mark) of every table of a page."""
    return [(study, mark or "") for study, mark in MARK.findall(page.read_text(encoding="utf-8"))]


def replace_table(page: Path, study: str, mark: str, text: str) -> None:
    """Put ``text`` between the marks of one table of ``page``; what stood there is gone.

    Raises PhasewiseError where the page, its mark or the end mark is missing.
    """
    start = start_mark(study, mark)
    content = page.read_text(encoding="utf-8") if page.is_file() else ""
    before, found, rest = content.partition(start)
    old, ended, after = rest.partition(END)
    if not (found and ended) or "<!-- table:" in old:
        raise PhasewiseError(f"{page} has no place for this table; put {start} and {END} on lines of their own there")
    write_text(page, f"{before}{start}\n\n{text}\n\n{END}{after}")


def with_others(page: Path, study: str, mark: str, text: str, named_by: Sequence[int]) -> str:
    """``text`` and, in its table, the rows of the page's own table that it does not name: what was measured elsewhere.

    ``named_by``: the columns that name a row; where the first of them is blank it goes with the row above.  Rows come
    in the order of their first cell, whole numbers in it by size.  Nothing is kept where the heads differ.
    """
    own, (heads, rows) = table_of(text), table_in(page, study, mark) if page.is_file() else ([], [])
    if not heads or heads != own[0]:
        return text
    new = _by_name(own[1], named_by)
    every = {**{name: group for name, group in _by_name(rows, named_by).items() if name not in new}, **new}
    ordered = sorted(every.items(), key=lambda item: [(len(d), d) for d in re.split(r"(\d+)", item[0][0])])
    notes = text.split("\n\n")[1:]
    return markdown(heads, [row for _, group in ordered for row in group], *notes)


def _by_name(rows: Sequence[Sequence[str]], named_by: Sequence[int]) -> dict[tuple[str, ...], list[Sequence[str]]]:
    groups: dict[tuple[str, ...], list[Sequence[str]]] = {}
    name: tuple[str, ...] = ()
    for row in rows:
        if row[named_by[0]]:
            name = tuple(row[k] for k in named_by)
        groups.setdefault(name, []).append(row)
    return groups


def table_in(page: Path, study: str, mark: str) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of one table of ``page``; nothing where the page has no such mark."""
    _, _, rest = page.read_text(encoding="utf-8").partition(start_mark(study, mark))
    return table_of(rest.partition(END)[0])


def table_of(text: str) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table in ``text``; nothing where there is none."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return (cells[0], cells[2:]) if cells else ([], [])
