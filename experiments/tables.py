"""What these scripts share: answers kept as JSON, interleaved timing, tables in the docs between two marks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phasewise.files import read_json, write_text

END = "<!-- end of table -->"


def already_answered(file: Path, asked: dict[str, Any]) -> bool:
    """Whether ``file`` holds the answer to this very question; stops where it answers another."""
    if not file.exists():
        return False
    found = read_json(file).get("asked")
    if found != asked:
        raise SystemExit(f"{file} answers {found}, not {asked}; delete it or choose another --out or --name")
    return True


def seconds_of(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant in every round, after one round untimed."""
    seen: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds + 1):
        for name, work in variants.items():
            start = time.perf_counter()
            work()
            if round_:
                seen[name].append(time.perf_counter() - start)
    return seen


def replace_table(page: Path, command: str, text: str) -> None:
    """Put ``text`` between ``<!-- table: COMMAND -->`` and the next end mark of the Markdown ``page``."""
    start = f"<!-- table: {command} -->"
    before, rest = page.read_text(encoding="utf-8").split(start)
    write_text(page, f"{before}{start}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}")
