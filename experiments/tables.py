"""Tables in the docs that a script makes: what stands between two marks is replaced."""

from __future__ import annotations

from pathlib import Path

from phasewise.files import write_text

END = "<!-- end of table -->"


def replace_table(page: Path, command: str, text: str) -> None:
    """Put ``text`` between ``<!-- table: COMMAND -->`` and the next end mark of the Markdown ``page``."""
    start = f"<!-- table: {command} -->"
    before, rest = page.read_text(encoding="utf-8").split(start)
    write_text(page, f"{before}{start}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}")
