"""Records: frozen, plain, back from JSON as they were, NaN and infinities included; shown as they are held."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from phasewise import results
from phasewise.display import LINES
from phasewise.errors import PhasewiseError
from phasewise.results import (
    AttentionWindows,
    Cloning,
    CMIMap,
    DataRecord,
    Estimate,
    Evaluation,
    HybridSchedule,
    Influence,
    JudgeScore,
    JudgesVerdict,
    LossTable,
    MarkovFit,
    ParetoFront,
    PriceList,
    Reach,
    Record,
    Recovery,
    ReusePrices,
    SearchedGrid,
    Speciation,
    StepErrors,
    SymmetryBreaking,
    TrainingRecord,
    WindowedAnswer,
)

NAN, INF = math.nan, math.inf
TABLE = np.array([[1.5, NAN], [INF, -INF], [0.1 + 0.2, -1e-300]])

LOSSES = LossTable(
    times=np.array([1.0, 0.5, 0.1]), names=("r1", "global"), radii=(1, None), reference="global", loss=TABLE,
    loss_stderr=TABLE / 3, gap=-TABLE, gap_stderr=np.zeros((3, 2)), distance=TABLE**2, distance_stderr=TABLE,
    log_snr=np.array([-INF, 0.0, INF]), data_std=0.31, n=100, seed=3, path={"name": "linear"}, control="r1",
)  # fmt: skip
SCHEDULE = HybridSchedule(
    (1.0, 0.5, 0.1), ("a", "b", "a"), solver="euler", penalty=0.25, penalty_stderr=0.01, mflop=12.5
)
RINGS = np.array([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]])
INFLUENCE = Influence(
    times=np.array([0.2, 0.8]), share=RINGS, share_stderr=RINGS / 9, beyond=np.array([[0.3, 0.1, 0], [0.5, 0, 0]]),
    beyond_stderr=RINGS / 9, mass=np.array([1.0, 2.0]), mass_stderr=np.array([0.1, NAN]), n=7, pixels=2, seed=3,
    path={"name": "linear"}, declared=1,
)  # fmt: skip
WINDOWED = WindowedAnswer(
    times=np.array([0.2, 0.8]), radii=(1, 2), change=TABLE[:2], change_stderr=TABLE[:2], relative=TABLE[:2],
    relative_stderr=np.array([[0.1, NAN], [0.1, 0.2]]), spread=np.array([1.0, 0.0]), spread_stderr=np.array([0.1, 0.0]),
    n=7, pixels=2, seed=3, path={"name": "linear"},
)  # fmt: skip
ATTENTION = AttentionWindows(
    times=np.array([0.2, 0.8]), windows=(0, 2), layers=("all", "0"), distance=np.ones((2, 2, 2)),
    distance_stderr=np.ones((2, 2, 2)) / 9, loss_rise=np.array([[[0.5, 0.01], [NAN, -INF]], [[0.1, 0.0], [0.1, 0.0]]]),
    loss_rise_stderr=np.ones((2, 2, 2)) / 99, loss=np.array([1.0, 3.0]), loss_stderr=np.array([0.1, 0.1]), grid=(4, 3),
    patch=2, masked=3, left=1, n=7, seed=3, path={"name": "linear"},
)  # fmt: skip
REUSE = ReusePrices(
    times=np.array([0.9, 0.2]),
    names=("on", "deep"), lags=((1, 2), (1,)), of=("", "global"), loss=TABLE[:2], loss_stderr=TABLE[:2],
    gap=np.array([[NAN, NAN], [0.5, 0.1]]), gap_stderr=TABLE[:2], distance=np.array([[NAN, 1.0], [0.5, 0.1]]),
    distance_stderr=np.ones((2, 2)) / 9, weights=np.full((2, 2, 3), NAN), flops=np.array([10.0, 1e6]),
    ms=np.array([0.1, 1.0]),
    n=7, seed=3, trajectories="noised", frechet=TABLE[:2], frechet_stderr=TABLE[:2],
)  # fmt: skip
SPECIATION = Speciation(4.0, 3.5, 4.5, 2 / 3, 0.65, 0.68, -1.4, 0.31, 100, 3, {"name": "linear"}, 2, 1.0, t_between=0.5)
CLONING = Cloning(
    np.array([0.5, 0.9]), np.array([0.0, -4.4]), np.array([1.0, 0.6]), np.array([0.0, 0.1]), np.array([1.0, 0.5]),
    np.array([0.0, 0.1]), 0.5, 0.775, 0.8, NAN, NAN, 0.8, 0.7, INF, 0.6, NAN, 2, 16, "ancestral", 100, 3,
    {"name": "linear"},
)  # fmt: skip
EXAMPLES: list[Record] = [
    Estimate(0.1 + 0.2, 1e-9, 17, unit="pixels", seed=4),
    Estimate(NAN, INF, 1),
    LOSSES,
    PriceList(LOSSES, flops=np.array([1e6, 3e6]), ms=np.array([0.5, 0.7]), device="cuda", batch=7),
    PriceList(LOSSES, flops=np.array([1e6, 2e6]), ms=np.array([0.5, 1.0]), jumps=("r1",),
              growth=np.array([[1.0, NAN], [2.0, 3.0], [INF, 1.0]])),
    StepErrors(np.array([1.0, 0.2]), np.array([[NAN, 0.5], [NAN, NAN]]), np.array([INF, 0.1]), "heun", 16, 3,
               {"name": "linear"}),
    SCHEDULE,
    HybridSchedule((0.5,), ("a",), path={"name": "variance_exploding", "sigma_min": 0.1, "sigma_max": 3.0}),
    ParetoFront("kl", "nats", np.array([1.0, 0.1]), np.array([1.0, 2.0]), np.array([NAN, 0.0]), np.array([0.0, INF]),
                (("a", "a"), ("a", "b")), chosen=1),
    Recovery(np.array([0.2, 0.4]), ("r1", "global"), (1, None), TABLE[:2], TABLE[:2], 16, "heun", 200, 0),
    Evaluation("hybrid", "Hybrid", SCHEDULE, 12.5, NAN, -0.5, "pca", 100, 200, 0, 10.0, 0.5, 15, nats=0.1,
               extra={"accuracy": 0.5, "counts": [1, 2]}),
    Evaluation("global", "Global", None, -INF, 0.1, 0.2, "pca", 100, 200, 0, 10.0, 0.5, 15),
    TrainingRecord("r1", {"lr": 0.1}, 10, 1280, 0.5, 99, ({"step": 5, "train_loss": 0.5, "val_loss": 0.25},), NAN,
                   np.linspace(0, 1, 11), np.array([NAN] * 10), 0),
    DataRecord("digits", (1, 8, 8), (0.0, 1.0), {"train": 1257}, 0.3, 0.37, 10, "00ff"),
    CMIMap(np.array([0.2, 0.4]), (1, 3), np.array([[NAN, -0.01], [0.1, 0.2]]), np.array([[INF, 0.1], [0.1, 0.1]]),
           "density", 2, (13, 14), 1000, 0, config={"steps": 10}),
    MarkovFit(np.array([0.2, 0.4]), np.array([1.5, NAN]), np.array([1.25, 3.0]), np.array([2.0, INF]),
              np.array([0.1, NAN]), np.array([0.5, NAN]), ("ok", "not resolved"), ("", "no decay"), (1, 2, 3), 5.0,
              0.01, 1, window=(0.1, 0.3), t_c=0.2, t_c_low=0.1, t_c_high=0.3, t_c_note="at the edge",
              peak_radii=(1, 2, 3), peak_times=np.array([0.2, 0.4, NAN])),
    MarkovFit(np.array([0.2]), np.array([NAN]), np.array([NAN]), np.array([NAN]), np.array([NAN]), np.array([NAN]),
              ("not resolved",), ("2 radii",), (1, 2), 5.0, 0.01, 1),
    INFLUENCE,
    WINDOWED,
    ATTENTION,
    Reach("r1", INFLUENCE, WINDOWED, ATTENTION),
    Reach("r1", INFLUENCE, dataclasses.replace(WINDOWED, declared=1)),
    REUSE,
    SearchedGrid((1.0, 0.25), 0.1, (1.0, 0.02), 0.1 + 0.2, 0.5, INF, 0, 1, ((1.0, 0.02), (1.0, 0.25)), (0.3, 0.1)),
    Evaluation("hybrid", "Hybrid", None, 12.5, 0.1, 0.5, "pca", 100, 200, 0, 10.0, 0.5, 15,
               judges={"first": JudgeScore("FID", 12.5, 0.1, 100, 200, draws=(12.25, 12.75))}),
    JudgeScore("FID", 0.1 + 0.2, NAN, 100, 200, 3, "squared feature units", "pca", (0.25, INF)),
    JudgeScore("sliced Wasserstein distance", 0.02, 1e-3, 100, 200),
    JudgesVerdict("hybrid", "global", ("FID", "unseen FID"), np.array([-0.5, 0.1]), np.array([0.1, 0.1]),
                  np.array([2.0, NAN]), 100),
    SPECIATION,
    CLONING,
    SymmetryBreaking(SPECIATION, CLONING),
    SymmetryBreaking(dataclasses.replace(SPECIATION, classes=None)),
]  # fmt: skip
every_record = pytest.mark.parametrize("record", EXAMPLES, ids=lambda r: type(r).__name__)


def same(a: Any, b: Any) -> bool:
    """Equal in kind and value, bit for bit; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Record):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))  # type: ignore[arg-type]
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (a != a and b != b)


def test_every_record_has_an_example() -> None:
    kinds = {c for c in Record.__subclasses__() if c.__module__.startswith(results.__name__)}
    assert kinds == {type(e) for e in EXAMPLES}


@every_record
def test_a_record_comes_back_from_json_bit_for_bit(record: Record) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    values = json.loads(record.to_json(), parse_constant=refuse)
    assert same(type(record).from_dict(values), record)


@every_record
def test_a_record_comes_back_from_a_file_and_ignores_what_it_does_not_know(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps({**json.loads(record.to_json()), "added_later": 1}))
    assert same(type(record).load(path), record)


@every_record
def test_records_are_frozen(record: Record) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, 0)  # type: ignore[arg-type]


def test_lists_become_float64_arrays_and_tuples() -> None:
    record = Recovery([0.2], ["r1"], [1], [[1]], [[None]], 16, "heun", 200, 0)  # type: ignore[arg-type, list-item]
    assert record.names == ("r1",)
    assert record.mse.dtype == np.float64
    assert record.mse.shape == record.mse_stderr.shape == (1, 1)
    assert np.isnan(record.mse_stderr).all()


def test_numpy_numbers_are_stored_as_plain_ones() -> None:
    record = Estimate(np.float32(0.5), np.float64(0.25), np.int64(7))  # type: ignore[arg-type]
    assert json.loads(record.to_json()) == {"value": 0.5, "stderr": 0.25, "n": 7, "unit": "nats", "seed": None}


def test_an_estimate_reads_well() -> None:
    assert str(Estimate(0.12345, 0.0067, 100)) == "0.1235 ± 0.0067 nats (n = 100)"


def test_a_column_and_the_short_cuts_of_a_price_list() -> None:
    prices = PriceList(LOSSES, flops=np.ones(2), ms=np.ones(2))
    assert (LOSSES.column("r1"), LOSSES.column("global")) == (0, 1)
    assert prices.names == LOSSES.names
    assert prices.times is LOSSES.times


# --- schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "assignment", "message"),
    [
        ((), (), "one member to every step"),
        ((1.0, 0.5), ("a",), "2 times, 1 members"),
        ((1.0,), ("a", "b"), "1 times, 2 members"),
        ((0.5, 0.5), ("a", "a"), "decrease strictly"),
        ((0.5, 0.6), ("a", "a"), "decrease strictly"),
        ((0.5, 0.0), ("a", "a"), "stay above 0"),
        ((-0.5,), ("a",), "stay above 0"),
        ((1.5, 0.5), ("a", "a"), r"lie in \(0, 1\]"),
        ((INF, 0.5), ("a", "a"), r"lie in \(0, 1\]"),
        ((NAN,), ("a",), "decrease strictly"),
        ((1.0, NAN, 0.5), ("a", "a", "a"), "decrease strictly"),
        ((NAN, 0.5), ("a", "a"), "decrease strictly"),
        ((1.0, NAN), ("a", "a"), "decrease strictly"),
    ],
)
def test_a_schedule_that_cannot_be_run_is_refused(
    times: tuple[float, ...], assignment: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        HybridSchedule(times, assignment)


def test_spans_join_equal_neighbours_and_end_at_zero() -> None:
    schedule = HybridSchedule((1.0, 0.75, 0.5, 0.25), ("a", "b", "b", "a"))
    assert schedule.spans() == [(1.0, 0.75, "a"), (0.75, 0.25, "b"), (0.25, 0.0, "a")]
    assert HybridSchedule((0.5,), ("a",)).spans() == [(0.5, 0.0, "a")]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 1000), st.sampled_from("abc")), min_size=1, unique_by=lambda p: p[0]))
def test_spans_tile_the_grid_and_name_every_step(steps: list[tuple[int, str]]) -> None:
    steps = sorted(steps, reverse=True)
    schedule = HybridSchedule(tuple(t / 1000 for t, _ in steps), tuple(s for _, s in steps))
    spans = schedule.spans()
    assert spans[0][0] == schedule.times[0]
    assert spans[-1][1] == 0
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in zip(spans, spans[1:], strict=False))
    for t, member in zip(schedule.times, schedule.assignment, strict=True):
        assert [name for start, end, name in spans if end < t <= start] == [member]


# --- what does not fit is refused by name ---------------------------------------------------------------------------


def changed(record: Record, **fields: Any) -> dict[str, Any]:
    return {**record.to_dict(), **fields}


RECOVERY = next(e for e in EXAMPLES if isinstance(e, Recovery))


@pytest.mark.parametrize(
    ("record", "fields", "message"),
    [
        (RECOVERY, {"mse": "abc"}, r"Recovery\.mse takes numbers, in lists of equal length, not 'abc'"),
        (RECOVERY, {"mse": "1.5"}, r"Recovery\.mse takes numbers"),
        (RECOVERY, {"mse": None}, r"Recovery\.mse takes numbers"),
        (RECOVERY, {"mse": [[1.0, 2.0], [3.0]]}, r"Recovery\.mse takes numbers, in lists of equal length"),
        (RECOVERY, {"mse": {"a": 1.0}}, r"Recovery\.mse takes numbers"),
        (RECOVERY, {"names": "r1"}, r"Recovery\.names takes tuple\[str, \.\.\.\] not 'r1'"),
        (RECOVERY, {"names": [1, 2]}, r"Recovery\.names takes tuple\[str, \.\.\.\]"),
        (RECOVERY, {"names": 3}, r"Recovery\.names"),
        (RECOVERY, {"radii": [1, "wide"]}, r"Recovery\.radii takes tuple\[int \| None, \.\.\.\]"),
        (RECOVERY, {"n": 2.5}, r"Recovery\.n takes int not 2\.5"),
        (RECOVERY, {"n": "many"}, r"Recovery\.n takes int not 'many'"),
        (RECOVERY, {"solver": None}, r"Recovery\.solver takes str not None"),
        (EXAMPLES[0], {"value": "high"}, r"Estimate\.value takes float not 'high'"),
        (EXAMPLES[0], {"value": [1.0]}, r"Estimate\.value takes float not \[1\.0\]"),
        (LOSSES, {"path": "linear"}, r"LossTable\.path takes dict\[str, .*\] not 'linear'"),
        (EXAMPLES[3], {"losses": 3}, r"PriceList\.losses takes .*LossTable not 3"),
        (EXAMPLES[3], {"losses": changed(LOSSES, gap="x")}, r"PriceList\.losses: LossTable\.gap takes numbers"),
        (EXAMPLES[3], {"losses": {}}, r"PriceList\.losses: LossTable lacks times, names,"),
        (EXAMPLES[13], {"image_shape": [1, 8]}, r"DataRecord\.image_shape .*3 values are needed, here are 2"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_record_and_field(
    record: Record, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(PhasewiseError, match=message):
        type(record).from_dict(changed(record, **fields))


def test_absent_fields_are_named() -> None:
    with pytest.raises(PhasewiseError, match=r"^Estimate lacks stderr, n; was it written by another version\?$"):
        Estimate.from_dict({"value": 1.0, "unit": "nats"})


# --- printed --------------------------------------------------------------------------------------------------------


@every_record
def test_a_record_prints_in_a_line_or_a_small_table(record: Record) -> None:
    lines = str(record).splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 150
    if isinstance(record, Estimate):
        assert len(lines) == 1
    else:
        assert lines[0].startswith(type(record).__name__)
        assert all(head in str(record) for head in record.view().head)


@every_record
def test_a_repr_is_short_and_says_what_it_is(record: Record) -> None:
    assert repr(record).startswith(f"{type(record).__name__}({dataclasses.fields(record)[0].name}=")  # type: ignore[arg-type]
    assert repr(record).endswith(")")
    assert len(repr(record)) <= 300


def test_the_repr_of_a_small_record_can_be_read_back_and_a_class_may_have_its_own() -> None:
    @dataclass(frozen=True)
    class Named(Record):
        name: str

        def __repr__(self) -> str:
            return f"<{self.name}>"

    @dataclass(frozen=True)
    class Deeper(Named):
        depth: int = 1

    assert eval(repr(EXAMPLES[0])) == EXAMPLES[0]
    assert (repr(Named("a")), repr(Deeper("b"))) == ("<a>", "<b>")


def test_a_long_table_is_thinned_evenly_and_says_by_how_much() -> None:
    history = tuple({"step": 10 * i, "train_loss": i, "val_loss": 0.5 + i} for i in range(1, 101))
    record = TrainingRecord("r1", {}, 1000, 1, 1.0, 1, history, 0.1, np.zeros(2), np.zeros(1), 0)
    lines = str(record).splitlines()
    steps = [int(line.split()[0].replace(",", "")) for line in lines[2:-1]]
    assert len(steps) == LINES
    assert (steps[0], steps[-1]) == (10, 1000)
    assert {b - a for a, b in zip(steps, steps[1:], strict=False)} <= {50, 60}
    assert lines[-1] == f"({100 - LINES} rows left out; .table() has every number)"
    assert len(record.table()[1]) == 100


def wide_table() -> LossTable:
    """20 times, 3 members; the gap of member j at time i is i + j / 10."""
    gap = np.arange(20)[:, None] + np.arange(3) / 10
    times = np.linspace(0.05, 1, 20)
    return LossTable(times, ("r1", "r2", "global"), (1, 2, None), "global", gap, 0 * gap + 0.1, gap, 0 * gap + 0.1,  # type: ignore[arg-type]
                     gap, gap, times, 0.3, 10, 0, {"name": "linear"})  # fmt: skip


def test_a_loss_table_prints_every_member_at_some_of_the_times() -> None:
    lines = str(wide_table()).splitlines()
    assert lines[1].split("  ")[0] == "member"
    assert "t = 0.05" in lines[1]
    assert lines[1].endswith("t = 1")
    assert [line.split()[0] for line in lines[2:5]] == ["r1", "r2", "global"]
    assert lines[3].split()[1:5] == ["2", "0.10", "±", "0.10"]
    assert lines[3].endswith("19.10 ± 0.10")
    shown = lines[1].count("t = ")
    assert lines[-1] == f"({20 - shown} columns left out; .table() has every number)"


def test_a_schedule_prints_its_spans_and_what_it_costs() -> None:
    schedule = HybridSchedule((1.0, 0.75, 0.5, 0.25), ("a", "b", "b", "a"), "heun", penalty=0.25, penalty_stderr=0.01,
                              penalty_name="kl", mflop=12.5)  # fmt: skip
    lines = str(schedule).splitlines()
    assert lines[0] == "HybridSchedule: heun, 4 steps, 12.5 MFLOP per image, penalty 0.250 ± 0.010 nats (kl)"
    assert [line.split() for line in lines[2:]] == [["a", "1", "1.00", "0.750"], ["b", "2", "0.750", "0.250"],
                                                    ["a", "1", "0.250", "0"]]  # fmt: skip


# --- notebooks ------------------------------------------------------------------------------------------------------


def cells_of(page: str) -> list[list[str]]:
    """Texts of the table's rows, heads first; raises where the HTML is not well formed or holds any other element."""
    root = ElementTree.fromstring(page)
    assert {e.tag for e in root.iter()} <= {"div", "p", "table", "thead", "tbody", "tr", "th", "td"}
    return [[cell.text or "" for cell in row] for row in root.iter("tr")]


@every_record
def test_a_notebook_shows_a_table(record: Record) -> None:
    head, *rows = cells_of(record._repr_html_())
    assert head == list(record.view().head)
    assert len(rows) == len(record.view().rows)
    assert all(len(row) == len(head) for row in rows)


def test_html_is_escaped() -> None:
    evil = "<script>alert('&')</script>"
    schedule = HybridSchedule((1.0,), (evil,), penalty=1.0, penalty_name=evil)
    data = DataRecord(evil, (1, 8, 8), (0.0, 1.0), {evil: 3}, 0.3, 0.37, None, "00ff")
    losses = dataclasses.replace(LOSSES, names=(evil, "global"))
    for record in (schedule, data, losses, PriceList(losses, np.ones(2), np.ones(2))):
        page = record._repr_html_()
        assert "<script" not in page
        assert evil in [text for row in cells_of(page) for text in row]
    assert evil in "".join(ElementTree.fromstring(schedule._repr_html_()).itertext()).split("from t")[0]  # the title


# --- tables and frames ----------------------------------------------------------------------------------------------


def named_rows(record: Record) -> list[dict[str, Any]]:
    head, rows = record.table()
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_a_loss_table_gives_every_number_of_every_time_and_member() -> None:
    record = wide_table()
    rows = named_rows(record)
    assert len(rows) == 60
    for k, row in enumerate(rows):
        i, j = divmod(k, 3)
        assert (row["t"], row["name"], row["radius"]) == (record.times[i], record.names[j], record.radii[j])
        for name in ("loss", "loss_stderr", "gap", "gap_stderr", "distance", "distance_stderr"):
            assert row[name] == getattr(record, name)[i, j]


def test_a_price_list_gives_costs_and_what_else_was_measured() -> None:
    record = PriceList(wide_table(), np.array([1e6, 2e6, 3e6]), np.array([0.1, 0.2, 0.3]))
    assert set(named_rows(record)[0]) == {"t", "name", "flops", "ms", "gap", "gap_stderr"}
    assert named_rows(record)[4] == {"t": record.times[1], "name": "r2", "flops": 2e6, "ms": 0.2,
                                     "gap": record.losses.gap[1, 1], "gap_stderr": 0.1}  # fmt: skip
    more = dataclasses.replace(record, growth=np.arange(60.0).reshape(20, 3))
    assert [row["growth"] for row in named_rows(more)] == list(range(60))


def test_step_errors_give_steps_forward_alone_and_the_denoise() -> None:
    error = np.array([[NAN, 0.5, 0.7], [NAN, NAN, 0.2], [NAN, NAN, NAN]])
    record = StepErrors(np.array([1.0, 0.6, 0.2]), error, np.array([0.9, 0.8, 0.1]), "heun", 16, 3, {"name": "linear"})
    assert record.table() == (
        ("t_start", "t_end", "error"),
        [(1.0, 0.6, 0.5), (1.0, 0.2, 0.7), (0.6, 0.2, 0.2), (1.0, 0.0, 0.9), (0.6, 0.0, 0.8), (0.2, 0.0, 0.1)],
    )


def test_the_tables_of_the_other_records() -> None:
    by_type = {type(e): e for e in reversed(EXAMPLES)}
    assert SCHEDULE.table()[1] == [(0, 1.0, 0.5, "a"), (1, 0.5, 0.1, "b"), (2, 0.1, 0.0, "a")]
    front = named_rows(by_type[ParetoFront])
    assert [(r["mflop"], r["chosen"], r["assignment"]) for r in front] == [
        (1, False, ("a", "a")),
        (2, True, ("a", "b")),
    ]
    assert [(r["t"], r["name"], r["mse"]) for r in named_rows(by_type[Recovery])][2:] == [
        (0.4, "r1", INF),
        (0.4, "global", -INF),
    ]
    assert by_type[TrainingRecord].table() == (("step", "train_loss", "val_loss"), [(5, 0.5, 0.25)])
    assert by_type[CMIMap].table()[1][1:] == [(0.2, 3, -0.01, 0.1), (0.4, 1, 0.1, 0.1), (0.4, 3, 0.2, 0.1)]
    fit = named_rows(by_type[MarkovFit])
    assert (fit[0]["xi"], fit[0]["low"], fit[1]["high"], fit[1]["reason"]) == (1.5, 1.25, INF, "no decay")
    (judged,) = named_rows(by_type[Evaluation])
    assert (judged["fid"], judged["extra.accuracy"]) == (12.5, 0.5)
    assert named_rows(EXAMPLES[0]) == [EXAMPLES[0].to_dict()]


@every_record
def test_a_frame_holds_the_table(record: Record) -> None:
    pandas = pytest.importorskip("pandas")
    frame = record.to_frame()
    head, rows = record.table()
    assert list(frame.columns) == list(head)
    assert frame.equals(pandas.DataFrame({name: [row[j] for row in rows] for j, name in enumerate(head)}))


def test_without_pandas_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(PhasewiseError, match="pip install pandas"):
        LOSSES.to_frame()


# --- pictures -------------------------------------------------------------------------------------------------------


def drawn(record: Record) -> Axes:
    ax = Figure().subplots()
    assert record.plot(ax) is ax
    return ax


def curves(ax: Axes) -> dict[str, np.ndarray]:
    """Points (2, n) of every labelled line."""
    return {str(line.get_label()): np.array(line.get_data(), float) for line in ax.lines if line.get_label()[:1] != "_"}


@every_record
def test_a_record_draws_itself_or_says_that_it_cannot(record: Record) -> None:
    if isinstance(record, (Estimate, Evaluation, DataRecord, JudgeScore)):
        with pytest.raises(PhasewiseError, match=f"nothing to plot in this {type(record).__name__}"):
            record.plot()
        return
    ax = drawn(record)
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    assert ax.get_xlabel()
    assert ax.get_ylabel() or isinstance(record, HybridSchedule)


def test_a_new_figure_is_made_where_no_axes_are_given() -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    ax = SCHEDULE.plot()
    assert pyplot.gcf() is ax.figure
    pyplot.close(ax.figure)  # type: ignore[arg-type]


def test_a_loss_table_draws_the_gap_of_each_member_with_two_standard_errors() -> None:
    record = wide_table()
    ax = drawn(record)
    assert set(curves(ax)) == {"r1", "r2"}
    for j, name in enumerate(("r1", "r2")):
        np.testing.assert_array_equal(curves(ax)[name], [record.times, record.gap[:, j]])
        corners = ax.collections[j].get_paths()[0].vertices
        at_first = corners[corners[:, 0] == record.times[0], 1]
        np.testing.assert_allclose([at_first.min(), at_first.max()], record.gap[0, j] + np.array([-0.2, 0.2]))


def test_a_price_list_draws_gaps_and_names_costs() -> None:
    record = PriceList(wide_table(), np.array([1e6, 2e6, 3e6]), np.array([0.1, 0.2, 0.3]))
    ax = drawn(record)
    np.testing.assert_array_equal(curves(ax)["r2: 2.00 MFLOP, 0.200 ms"][1], record.losses.gap[:, 1])
    assert "global: 3.00 MFLOP, 0.300 ms" in ax.get_title()


def test_a_recovery_draws_its_errors_in_order_of_time() -> None:
    record = Recovery(np.array([0.4, 0.2]), ("r1", "global"), (1, None), np.array([[1.0, 2.0], [3.0, NAN]]),
                      np.full((2, 2), 0.1), 16, "heun", 200, 0)  # fmt: skip
    assert {k: v.tolist() for k, v in curves(drawn(record)).items()} == {
        "r1": [[0.2, 0.4], [3, 1]],
        "global": [[0.4], [2]],
    }


def test_a_schedule_draws_a_bar_for_each_step() -> None:
    ax = drawn(SCHEDULE)
    spans = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(spans, [(0.5, 1.0), (0.1, 0.5), (0.0, 0.1)])
    colors = [bar.get_facecolor() for bar in ax.patches]
    assert colors[0] == colors[2] != colors[1]
    assert ax.get_legend_handles_labels()[1] == ["a", "b"]


@pytest.mark.parametrize(("cost", "x"), [("mflop", [1.0, 2.0]), ("ms", [0.3, 0.7])])
def test_a_front_draws_penalty_against_its_cost_and_marks_the_chosen(cost: str, x: list[float]) -> None:
    record = ParetoFront("kl", "nats", np.array([1.0, 0.1]), np.array([1.0, 2.0]), np.array([0.5, 0.0]),
                         np.array([0.1, 0.0]), (("a", "a"), ("a", "b")), chosen=1, ms=np.array([0.3, 0.7]),
                         cost=cost)  # fmt: skip
    ax = drawn(record)
    np.testing.assert_array_equal(ax.lines[0].get_data(), [x, [0.5, 0.0]])
    np.testing.assert_array_equal(curves(ax)["chosen"], [[x[1]], [0.0]])
    bars = ax.collections[0].get_segments()  # type: ignore[attr-defined]
    np.testing.assert_allclose(bars[0][:, 1], [0.3, 0.7])
    assert ("ms" if cost == "ms" else "MFLOP") in ax.get_xlabel()


def test_a_map_draws_its_cells_from_small_to_large_times_and_dots_what_may_be_zero() -> None:
    value, stderr = np.array([[0.4, 0.01], [0.3, NAN]]), np.full((2, 2), 0.05)
    ax = drawn(CMIMap(np.array([0.6, 0.2]), (1, 3), value, stderr, "density", 1, (3, 3), 10, 0))
    np.testing.assert_array_equal(ax.collections[0].get_array().filled(NAN), [[0.3, NAN], [0.4, 0.01]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0.2", "0.6"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "3"]
    np.testing.assert_array_equal(curves(ax)["within 2 standard errors of 0"], [[1.5], [1.5]])


def test_step_errors_draw_their_matrix() -> None:
    error = np.array([[NAN, 0.5], [NAN, NAN]])
    record = StepErrors(np.array([1.0, 0.2]), error, np.array([0.9, 0.8]), "heun", 16, 3, {"name": "linear"})
    np.testing.assert_array_equal(drawn(record).collections[0].get_array().filled(NAN), error)


def test_a_fit_draws_lengths_with_intervals_and_lower_bounds_apart() -> None:
    number = np.array([0.5, 0.5, NAN, NAN])
    record = MarkovFit(np.array([0.2, 0.4, 0.6, 0.8]), np.array([1.5, 2.0, NAN, NAN]), np.array([1.25, 1.0, 3.0, NAN]),
                       np.array([2.0, INF, INF, NAN]), number, number, ("ok",) * 4, ("",) * 4, (1, 2), 5.0, 0.01, 1,
                       window=(0.1, 0.3))  # fmt: skip
    ax = drawn(record)
    np.testing.assert_array_equal(ax.lines[0].get_data(), [[0.2, 0.4], [1.5, 2.0]])
    np.testing.assert_array_equal(curves(ax)["lower bound of ξ"], [[0.6], [3.0]])
    (bars,) = [c for c in ax.collections if hasattr(c, "get_segments")]
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [(1.25, 2.0), (1.0, 2.0)])
    assert "critical window" in ax.get_legend_handles_labels()[1]


def test_a_training_draws_both_losses() -> None:
    history = ({"step": 5, "train_loss": 0.5, "val_loss": 0.25}, {"step": 10, "train_loss": 0.4, "val_loss": None})
    record = TrainingRecord("r1", {}, 10, 1, 1.0, 1, history, 0.25, np.zeros(2), np.zeros(1), 0)
    assert {k: v.tolist() for k, v in curves(drawn(record)).items()} == {
        "training": [[5, 10], [0.5, 0.4]],
        "held out": [[5], [0.25]],
    }


def test_records_load_without_what_only_pictures_and_frames_need() -> None:
    code = "import sys, phasewise.results; print({'matplotlib', 'pandas', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
