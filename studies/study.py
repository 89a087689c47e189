"""The framework: a study is a question, cells to measure one by one, and what is shown of the answers.

Every cell leaves one JSON file (whole or absent) with what was *asked* and the answer, so a study that was stopped goes
on where it was, and one that is called again only shows what is there::

    OUT/CELL.json = {"cell": name, "asked": {...}, ...the answer}

A file that answers another question is never overwritten unawares: the study stops and says so, unless the cell is one
that may be measured ``again``.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import matplotlib as mpl
import torch

from phasewise.errors import PhasewiseError
from phasewise.files import read_json, write_bytes, write_json
from studies.pages import replace_table, with_others

O = TypeVar("O")  # noqa: E741
Answers = dict[str, dict[str, Any]]
"""By name of the cell: what its file holds."""
WORK = "work"
"""Folder under OUT for networks, checkpoints and the like: no answers are looked for there."""


@dataclass(frozen=True)
class Cell:
    """One thing to measure.

    Attributes:
        name: says which; slashes make folders of its file.
        asked: all that the answer depends on, as JSON.
        what: whatever :meth:`Study.measure` needs besides; not written down.
        again: a file that answers another question is measured again instead of stopping the study.
    """

    name: str
    asked: Mapping[str, Any]
    what: Any = field(default=None, compare=False)
    again: bool = False


class Study(ABC, Generic[O]):
    """One question.  A subclass names it, its options and its page, and says what to measure and how to show it.

    Attributes:
        name: of the study on the command line and in the marks of its tables.
        question: one line.
        page: Markdown file under the docs folder that its tables go into; None where no page shows them as a table.
        options_type: dataclass of its choices (:func:`studies.options.choice`).
        pages: by mark of a table, another page that it belongs to.
        pictures: folder under the docs folder that its figures go into; None for the one of the page's name.
        named_by: by mark of a table that is measured in parts, the columns that name a row: rows that the page has of
            other parts stay there.
        threads: so many torch threads while it measures, where times are compared.
        home: folder of its answers; None for runs/studies/NAME.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    options_type: ClassVar[type[Any]]
    page: ClassVar[str | None] = None
    pages: ClassVar[Mapping[str, str]] = {}
    pictures: ClassVar[str | None] = None
    named_by: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    threads: ClassVar[int | None] = None
    home: ClassVar[Path | None] = None

    def __init__(self, options: O, out: Path | None = None) -> None:
        self.options = options
        self.out = out or self.home or Path("runs/studies") / self.name
        self.answers: Answers = {}
        """Filled while the cells are measured in turn: later cells may depend on it."""

    @property
    def work(self) -> Path:
        """Where networks, checkpoints and the like may lie."""
        return self.out / WORK

    @abstractmethod
    def cells(self) -> Iterable[Cell]:
        """What to measure, in this order; a generator may read ``self.answers`` of the cells before."""

    @abstractmethod
    def measure(self, cell: Cell) -> dict[str, Any]:
        """The answer to one cell, as JSON."""

    @abstractmethod
    def tables(self, answers: Answers) -> dict[str, str]:
        """Markdown by mark, of all answers on disk; "" is the mark of a study with one table."""

    def figures(self, answers: Answers) -> dict[str, bytes]:
        """Files by name, of all answers on disk."""
        return {}

    def outline(self) -> str:
        """What there is to measure, and what of it is done, for a study whose ``--list`` says so; "" for others."""
        return ""


def file_of(study: Study[Any], name: str) -> Path:
    """The file of a cell."""
    parts = [re.sub(r"[^\w.,+=-]+", "_", part) for part in name.split("/")]
    return study.out.joinpath(*parts[:-1], f"{parts[-1]}.json")


def answers_on_disk(study: Study[Any]) -> Answers:
    """All that has been answered, whatever the options were, in the order of the files' names."""
    found: Answers = {}
    for file in sorted(study.out.rglob("*.json")):
        inside = file.relative_to(study.out)
        if inside.parts[0] != WORK and "asked" in (content := read_json(file)):
            found[content.get("cell", str(inside.with_suffix("")))] = content
    return found


def answered(study: Study[Any], cell: Cell) -> dict[str, Any] | None:
    """What is on disk of this cell; None where it is to be measured.

    Raises PhasewiseError where the file there answers another question.
    """
    file = file_of(study, cell.name)
    if not file.exists():
        return None
    content: dict[str, Any] = read_json(file)
    asked = json.loads(json.dumps(dict(cell.asked)))
    if content.get("cell", cell.name) == cell.name and content.get("asked") == asked:
        return content
    if cell.again:
        return None
    raise PhasewiseError(
        f"{file} answers {content.get('asked')}, not {asked}; delete it, choose another --out, or see what is there "
        "with --summary"
    )


def measure_all(study: Study[Any], say: Callable[[str], None]) -> int:
    """Measure every cell that is not answered yet; how many those were."""
    measured = 0
    with _threads(study.threads):
        for cell in study.cells():
            content = answered(study, cell)
            if content is None:
                start = time.perf_counter()
                answer = study.measure(cell)
                write_json(file_of(study, cell.name), {"cell": cell.name, "asked": dict(cell.asked), **answer})
                content = read_json(file_of(study, cell.name))
                say(f"{study.name}: {cell.name} ({time.perf_counter() - start:.1f} s)")
                measured += 1
            study.answers[cell.name] = content
    return measured


@dataclass(frozen=True)
class Shown:
    """What a call came to: cells measured in it, tables by mark, files of figures written."""

    measured: int
    tables: dict[str, str]
    figures: list[Path]


def run_study(
    study: Study[Any], *, docs: Path | None = None, summary: bool = False, say: Callable[[str], None] = print
) -> Shown:
    """Measure what is missing (with ``summary`` nothing), then show all that is there.

    Tables are said and, with ``docs``, put into the study's page there; figures go into its folder of pictures, or
    without ``docs`` into OUT.  Raises PhasewiseError where nothing has been answered.
    """
    measured = 0 if summary else measure_all(study, say)
    answers = answers_on_disk(study)
    if not answers:
        raise PhasewiseError(f"{study.out} holds no answers yet; run without --summary")
    tables = study.tables(answers)
    for mark, text in tables.items():
        say(f"\n{f'{study.name} {mark}'.strip()}\n\n{text}")
    if docs and study.page:
        for mark, text in tables.items():
            page = docs / study.pages.get(mark, study.page)
            columns = study.named_by.get(mark)
            whole = text if columns is None else with_others(page, study.name, mark, text, columns)
            replace_table(page, study.name, mark, whole)
    folder = folder_of_pictures(study, docs) or study.out
    with mpl.rc_context():  # a study sets its own style, for itself alone
        drawn = study.figures(answers)
    figures = [write_bytes(folder / name, content) for name, content in drawn.items()]
    return Shown(measured, tables, figures)


def folder_of_pictures(study: Study[Any], docs: Path | None) -> Path | None:
    """Where the docs keep this study's figures; None where they do not."""
    if docs is None or (study.pictures is None and study.page is None):
        return None
    return docs / study.pictures if study.pictures is not None else (docs / str(study.page)).with_suffix("")


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
