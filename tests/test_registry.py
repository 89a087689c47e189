"""A table of named objects: read like a dict, open to others' objects, and plain about a name it does not know."""

from __future__ import annotations

import pytest

from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.registry import Registry


def two() -> Registry[list[int]]:
    table = Registry[list[int]]("list")
    table.register("b", [2])
    table.register("a", [1])
    return table


def test_read_like_a_dict_in_the_order_of_joining():
    table = two()
    assert (list(table), len(table), "a" in table, "c" in table) == (["b", "a"], 2, True, False)
    assert dict(table) == dict(table.items()) == {"b": [2], "a": [1]}
    assert list(table.values()) == [[2], [1]]
    assert table["a"] is table.get("a")


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(PhasewiseError, match="unknown list 'c'; known: b, a"):
        two()["c"]
    with pytest.raises(PhasewiseError, match="unknown list 'c'; known: b, a"):
        two().get("c")
    with pytest.raises(PhasewiseError, match=r"unknown list \['c'\]; known: b, a"):
        two()[["c"]]  # type: ignore[index]  # from a JSON file it may be anything
    with pytest.raises(CheckpointError, match="unknown class 'x'; known: none"):
        Registry[int]("class", CheckpointError)["x"]


def test_register_gives_back_what_it_took_and_decorates():
    table = Registry[type]("class")

    @table.register("mine")
    class Mine: ...

    assert table["mine"] is Mine
    assert table.register("again", Mine) is Mine


def test_a_name_is_taken_once_unless_by_the_same_object():
    table = two()
    table.register("a", table["a"])
    with pytest.raises(PhasewiseError, match="there is a list named 'a' already"):
        table.register("a", [1])
    with pytest.raises(PhasewiseError, match="a text of its own"):
        table.register("", [3])
    assert dict(table) == {"b": [2], "a": [1]}
