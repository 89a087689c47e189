"""The study: which parts there are, their sizes, and who measures what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.options import choice
from studies.study import Answers, Cell, Study
from studies.theory import classical, mixture, quantum, show

PARTS = ("terms", "recovered", "bridges", "reverse", "quantum", "maps", "mixture")
CHAINS, SQUARES = (6, 8, 10, 12, 14, 16), ((3, 3), (3, 4), (4, 4))


@dataclass(frozen=True)
class Options:
    parts: tuple[str, ...] = choice(PARTS, "which")
    n: int = choice(10_000, "images for the estimators", quick=60)
    steps: int = choice(500, "training steps of learned estimators", quick=1)
    draws: int = choice(200_000, "images that the mixture's truth averages", quick=200, flag=False)
    estimators: tuple[str, ...] = choice(("density", "gaussian", "mmse"), "of CMI", quick=("gaussian",))
    blocks: tuple[int, ...] = choice((1,), "sides of A for them, pixels")
    side: int = choice(4, "of the squares, pixels", quick=2, flag=False)
    chains: tuple[int, ...] = choice(CHAINS, "lengths", quick=(4,), flag=False)
    squares: tuple[tuple[int, int], ...] = choice(SQUARES, "sizes", quick=((2, 2),), flag=False)
    fields: tuple[str, ...] = choice(tuple(classical.FIELDS), "by name", quick=("ring of 24",), flag=False)
    solver: int = choice(60, "steps of the reverse process", quick=20, flag=False)
    qubits: int = choice(6, "of the states", quick=4, flag=False)
    times: tuple[float, ...] = choice(quantum.TIMES, "noise levels of them", quick=(0.0, 0.4), flag=False)
    tries: int = choice(240, "random states", quick=8, flag=False)


class Theory(Study[Options]):
    """Exact, by enumeration or in closed form, but for the mixture's truth, an average of exact posteriors.  All
    reversals go colour by colour, so that each layer is a local circuit.  About ten minutes of one core."""

    name = "theory"
    question = "Do the theorems hold on systems small enough to check, and how tight are they?"
    page = "results/theory.md"
    options_type = Options
    threads = 1

    def cells(self) -> Iterator[Cell]:
        for part in self.options.parts:
            for name, function, *given in getattr(self, f"of_{part}")():
                asked = {"given": [x for x in given if not isinstance(x, Path)]}
                yield Cell(f"{part}/{name}", asked, (function, *given))

    def measure(self, cell: Cell) -> dict[str, Any]:
        function, *given = cell.what
        answer: dict[str, Any] = function(*given)
        return answer

    def of_terms(self) -> Iterator[tuple[Any, ...]]:
        o = self.options
        for name in classical.systems((o.side, o.side)):
            yield f"{o.side} x {o.side}, {name}", classical.terms, name, (o.side, o.side), 1
        for name in ("Ising .7", "GHZ"):
            for radius in (1, 2):
                length = o.chains[len(o.chains) // 2]
                yield f"chain of {length}, {name}, r = {radius}", classical.terms, name, (1, length), radius

    def of_recovered(self) -> Iterator[tuple[Any, ...]]:
        o = self.options
        for name in ("Ising .7", "GHZ"):
            for n in o.chains:
                yield f"chain/{n:02d}/{name}", classical.recovered, name, (1, n), tuple(range(1, min(n - 1, 7)))
        for shape in o.squares:
            for name in ("Ising .3", "Ising .7", "GHZ"):
                yield f"square/{shape[0]} x {shape[1]}/{name}", classical.recovered, name, shape, (1,)

    def of_bridges(self) -> Iterator[tuple[Any, ...]]:
        shape = (self.options.side, self.options.side)
        for name in classical.systems(shape):
            yield name, classical.bridges, name, shape, 1

    def of_reverse(self) -> Iterator[tuple[Any, ...]]:
        o = self.options
        for name in o.fields:
            for radius in (1, 2, 3):
                yield f"{name}/{radius}", classical.field_reversal, name, radius, 2 * o.solver
        length = o.chains[len(o.chains) // 4]
        height = max(o.side - 1, 2)  # a side less: the process is solved for every state at once
        shapes = {f"chain of {length}": (1, length), f"{height} x {o.side}": (height, o.side)}
        for label, shape in shapes.items():
            for name in list(classical.systems(shape))[1:]:
                for radius in (1, 2) if shape[0] == 1 else (1,):
                    yield f"{label}, {name}/{radius}", classical.reversal, name, shape, radius, o.solver

    def of_quantum(self) -> Iterator[tuple[Any, ...]]:
        for name in quantum.STATES:
            yield name, quantum.beside_twin, name, self.options.qubits, self.options.times

    def of_maps(self) -> Iterator[tuple[Any, ...]]:
        yield "random", quantum.tried, self.options.tries

    def of_mixture(self) -> Iterator[tuple[Any, ...]]:
        o = self.options
        for block in o.blocks:
            yield f"{block}x{block}/truth", mixture.truth, block, o.draws
            for name in o.estimators:
                yield f"{block}x{block}/{name}", mixture.measured, name, block, o.n, o.steps, self.work

    def tables(self, answers: Answers) -> dict[str, str]:
        return show.tables(answers)

    def figures(self, answers: Answers) -> dict[str, bytes]:
        return show.figures(answers)
