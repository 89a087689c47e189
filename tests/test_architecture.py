"""The house stands: imports run one way, and nothing that executes on loading (pickle) is read or written."""

from __future__ import annotations

import ast
import graphlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "phasewise"
MODULES = sorted(SOURCE.rglob("*.py"))

LAW = tomllib.loads((SOURCE.parents[1] / "docs" / "rooms.toml").read_text(encoding="utf-8"))
ROOMS = LAW["rooms"]


PAGE, START, END = SOURCE.parents[1] / "docs" / "architecture.md", "<!-- table: rooms -->", "<!-- end of table -->"


def may_import(room: str) -> set[str]:
    """Rooms that ``room`` may import by the law; "package" stands for the package as a whole, ""."""
    named = set(ROOMS[room]["imports"])
    rooms = named - {"ground", "package"} | (set(LAW["ground"]) if "ground" in named else set())
    return (rooms | {""} if "package" in named else rooms) - {room}


def room_of(path: Path) -> str:
    """The room a module belongs to: its folder or file right under the package; "" for the package itself."""
    first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(source: str, package: str) -> Iterator[str]:
    """Full names of the phasewise modules (or of what is taken from them) that ``source``, inside ``package``, imports.

    Imports inside functions and under TYPE_CHECKING count.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "phasewise")


def rooms_imported(path: Path) -> set[str]:
    """Rooms other than its own that a module imports; "" where it imports the package as a whole."""
    package = ".".join(("phasewise", *path.relative_to(SOURCE).parts[:-1]))
    rooms = {p.stem for p in SOURCE.iterdir()}
    out = set()
    for name in imported(path.read_text(encoding="utf-8"), package):
        part = name.split(".")[1] if "." in name else ""
        out.add(part if part in rooms else "")
    return out - {room_of(path)}


@pytest.mark.parametrize(
    ("source", "package", "names"),
    [
        ("import torch, phasewise.cli as c", "phasewise", ["phasewise.cli"]),
        ("from phasewise import cli, paths", "phasewise", ["phasewise.cli", "phasewise.paths"]),
        ("def f():\n if 1:\n  from phasewise.report.html import build", "phasewise", ["phasewise.report.html.build"]),
        ("from . import grid", "phasewise.sampling", ["phasewise.sampling.grid"]),
        ("from ..scheduling.prices import f", "phasewise.sampling", ["phasewise.scheduling.prices.f"]),
        ("from .. import cli", "phasewise.sampling", ["phasewise.cli"]),
        ("import phasewise", "phasewise.data", ["phasewise"]),
        ("# import phasewise.cli\nx = 'import phasewise.cli'\nimport phasewise_extras", "phasewise", []),
    ],
)  # fmt: skip
def test_the_walker_sees_every_form_of_import(source: str, package: str, names: list[str]) -> None:
    assert list(imported(source, package)) == names


def test_the_walker_sees_this_package() -> None:
    assert {room_of(p) for p in MODULES} - {"", "__main__"} == set(ROOMS), "put a new room into docs/rooms.toml first"
    assert rooms_imported(SOURCE / "training" / "trainer.py") >= {"data", "denoisers", "errors", "files", "results"}


def table() -> str:
    """The law as the page shows it; ``python tests/test_architecture.py`` writes it there."""
    rows = ["| room | what it holds | may import |", "| --- | --- | --- |"]
    for room, about in ROOMS.items():
        ground = " (ground)" if room in LAW["ground"] else ""
        rows.append(f"| `{room}`{ground} | {about['holds']} | {', '.join(about['imports']) or 'nothing'} |")
    return "\n".join(rows)


def test_the_page_shows_the_law() -> None:
    shown = PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0].strip()
    assert shown == table(), "run `python tests/test_architecture.py`"


def test_the_law_runs_one_way() -> None:
    """No room may import one that may, over any way, import it."""
    graph = {room: may_import(room) - {""} for room in ROOMS}
    assert all(set(names) <= set(ROOMS) for names in graph.values()), "the law names a room that is not there"
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_one_way(path: Path) -> None:
    room, seen = room_of(path), rooms_imported(path)
    if room in ("", "__main__"):
        return
    extra = seen - may_import(room)
    assert not extra, f"{room} may not import {sorted(extra)}; the law is docs/rooms.toml"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_is_pickled(path: Path) -> None:
    forbidden = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    read_safely: set[ast.expr] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {a.name.split(".")[0] for a in node.names} & forbidden
        elif isinstance(node, ast.ImportFrom):
            taken = {a.name for a in node.names}
            assert (node.module or "").split(".")[0] not in forbidden
            assert node.module != "torch" or not taken & {"load", "save"}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            only = [k.value for k in node.keywords if k.arg == "weights_only"]
            assert path == SOURCE / "tensors.py", "weights in the old form are read by tensors.read_pickled alone"
            assert [ast.unparse(value) for value in only] == ["True"]
            read_safely.add(node.func)
        elif isinstance(node, ast.Attribute) and node.attr in ("load", "save") and node not in read_safely:
            assert not (isinstance(node.value, ast.Name) and node.value.id == "torch"), f"torch.{node.attr} pickles"
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False


if __name__ == "__main__":
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    PAGE.write_text(f"{before}{START}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")
