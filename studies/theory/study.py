"""The study: which parts there are, their sizes, and who measures what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from studies.options import choice
from studies.study import Answers, Cell, Study
from studies.theory import mixture

PARTS = ("mixture",)


@dataclass(frozen=True)
class Options:
    parts: tuple[str, ...] = choice(PARTS, "which")
    n: int = choice(20_000, "images for the estimators", quick=200)
    steps: int = choice(1000, "training steps of learned estimators", quick=2)
    draws: int = choice(200_000, "images that the mixture's truth averages", quick=500, flag=False)
    estimators: tuple[str, ...] = choice(
        ("gaussian", "knn", "density", "mmse"), "of CMI", quick=("gaussian", "density")
    )
    blocks: tuple[int, ...] = choice((1, 2), "sides of A for them", quick=(1,), flag=False)


class Theory(Study[Options]):
    """Exact, by enumeration or in closed form, but for the mixture's truth, an average of exact posteriors."""

    name = "theory"
    question = "Do the theorems hold on systems small enough to check, and how tight are they?"
    page = "results/theory.md"
    options_type = Options
    threads = 1

    def cells(self) -> Iterator[Cell]:
        o = self.options
        if "mixture" in o.parts:
            for block in o.blocks:
                yield Cell(f"mixture/{block}x{block}/truth", {"draws": o.draws}, (mixture.truth, block, o.draws))
                for name in o.estimators:
                    asked = {"n": o.n, "steps": o.steps}
                    what = (mixture.measured, name, block, o.n, o.steps, self.work)
                    yield Cell(f"mixture/{block}x{block}/{name}", asked, what)

    def measure(self, cell: Cell) -> dict[str, Any]:
        function, *given = cell.what
        answer: dict[str, Any] = function(*given)
        return answer

    def tables(self, answers: Answers) -> dict[str, str]:
        return mixture.tables(answers)
