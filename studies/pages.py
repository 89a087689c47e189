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


def table_in(page: Path, study: str, mark: str) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of one table of ``page``; nothing where the page has no such mark."""
    _, _, rest = page.read_text(encoding="utf-8").partition(start_mark(study, mark))
    lines = [line for line in rest.partition(END)[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return (cells[0], cells[2:]) if cells else ([], [])
