"""Numbers, tables and text as they are shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasewise.display import LINES, WIDTH, View, brief, cell, html_table, joined, measured, text_table, thinned


@given(st.integers(0, 300), st.integers(0, 40))
def test_thinned_numbers_rise_evenly_from_first_to_last(count: int, keep: int) -> None:
    kept = thinned(count, keep)
    gaps = {b - a for a, b in zip(kept, kept[1:], strict=False)}
    assert len(kept) == min(count, keep)
    assert not gaps or (min(gaps) > 0 and max(gaps) - min(gaps) <= 1)
    if kept and keep > 1:
        assert (kept[0], kept[-1]) == (0, count - 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (math.nan, "–"), (math.inf, "inf"), (-math.inf, "-inf"), (True, "yes"), (False, "no"),
        (0.0, "0"), (-0.5, "-0.500"), (1e-6, "1.00e-06"), (-3.21e9, "-3.21e+09"), (12345, "12,345"), ("r1", "r1"),
        ((1, None), "1, –"), ("x" * 70, "x" * 59 + "…"),
    ],
)  # fmt: skip
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (1.234, 0.05, "1.23 ± 0.05"),
        (-1.234, 0.0123, "-1.234 ± 0.012"),
        (1.5e-9, 2e-10, "1.50e-09 ± 2e-10"),
        (2e12, 3e10, "2.00e+12 ± 3e+10"),
        (1.5, math.nan, "1.50"),
        (1.5, 0.0, "1.50"),
        (math.inf, 1.0, "inf"),
        (math.nan, 1.0, "–"),
    ],
)
def test_measured_values_stand_to_the_digit_of_their_error(value: float, stderr: float, text: str) -> None:
    assert measured(value, stderr) == text


def test_briefly() -> None:
    assert brief(np.zeros((3, 4))) == "array(3, 4)"
    assert brief({"a": [1, 2, 3, 4]}) == "{'a': [1, 2, 3, … 4 in all]}"
    assert (brief(("x",)), brief(()), brief(None)) == ("('x',)", "()", "None")
    assert len(brief("y" * 500)) <= 60


def test_equal_neighbours_are_joined() -> None:
    assert joined(["a", "a", "b", "a"]) == "a×2 b a"
    assert joined([]) == ""


def test_columns_are_left_out_evenly_but_for_the_fixed_ones() -> None:
    head = ("name", "kind", *(f"c{i:09d}" for i in range(40)))
    view = View("title", head, [tuple(range(42))] * 3, fixed=2)
    title, heads, *rows, note = text_table(view).splitlines()
    kept = heads.split()
    assert title == "title"
    assert kept[:3] == ["name", "kind", "c000000000"]
    assert kept[-1] == "c000000039"
    assert len(heads) <= WIDTH
    assert note == f"({42 - len(kept)} columns left out; .table() has every number)"
    assert [row.split() for row in rows] == [[str(head.index(name)) for name in kept]] * 3


def test_numbers_stand_to_the_right_and_text_to_the_left() -> None:
    view = View("t", ("name", "value"), [("a", 1.5), ("long", math.nan), ("b", -10)])
    assert text_table(view).splitlines()[1:] == ["name  value", "a      1.50", "long      –", "b       -10"]


def test_an_empty_table_shows_its_heads() -> None:
    view = View("t", ("a", "b"), [])
    assert text_table(view) == "t\na  b"
    assert "<tbody></tbody>" in html_table(view)


def test_html_says_how_many_rows_are_left_out() -> None:
    assert "(940 rows left out" in html_table(View("t", ("a",), [(i,) for i in range(1000)]))
    assert len(text_table(View("t", ("a",), [(i,) for i in range(1000)])).splitlines()) == LINES + 3
