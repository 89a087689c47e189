"""The exact room stands on its own: no circle among its modules, and of the denoisers it knows the interface alone."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

from phasewise import exact

ROOM = Path(exact.__file__).parent
MODULES = {path.stem: path.read_text(encoding="utf-8") for path in ROOM.glob("*.py") if path.stem != "__init__"}


def modules_imported(source: str) -> set[str]:
    """Modules named in the import statements of ``source``, those inside functions and under TYPE_CHECKING too."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_the_walker_sees_imports_for_types_alone() -> None:
    source = "if TYPE_CHECKING:\n    from phasewise.exact.gaussian import GaussianModel\ndef f():\n    import numpy"
    assert modules_imported(source) == {"phasewise.exact.gaussian", "numpy"}


def test_no_module_imports_one_that_imports_it() -> None:
    graph = {
        name: {m.removeprefix("phasewise.exact.") for m in modules_imported(source) if m.startswith("phasewise.exact.")}
        for name, source in MODULES.items()
    }
    assert graph["gaussian"] >= {"base", "covariance", "wiener"}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_of_the_denoisers_it_knows_the_interface_alone() -> None:
    seen = {m for source in MODULES.values() for m in modules_imported(source) if "denoisers" in m}
    assert seen == {"phasewise.denoisers.base"}
