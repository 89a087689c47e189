"""Records: frozen, plain, and back from JSON as they were, NaN and infinities included; schedules are checked."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewise import results
from phasewise.results import (
    CMIMap,
    DataRecord,
    Estimate,
    Evaluation,
    HybridSchedule,
    LossTable,
    MarkovFit,
    ParetoFront,
    PriceList,
    Record,
    Recovery,
    StepErrors,
    TrainingRecord,
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
EXAMPLES: list[Record] = [
    Estimate(0.1 + 0.2, 1e-9, 17, unit="pixels", seed=4),
    Estimate(NAN, INF, 1),
    LOSSES,
    PriceList(LOSSES, flops=np.array([1e6, NAN]), ms=np.array([0.5, INF]), device="cuda", batch=7),
    PriceList(LOSSES, flops=np.array([1e6, 2e6]), ms=np.array([0.5, 1.0]), jumps=("r1",),
              growth=np.array([[1.0, NAN]])),
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
    kinds = {c for c in Record.__subclasses__() if c.__module__ == results.__name__}
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
    prices = PriceList(LOSSES, flops=np.zeros(2), ms=np.zeros(2))
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
    for t, server in zip(schedule.times, schedule.assignment, strict=True):
        assert [name for start, end, name in spans if end < t <= start] == [server]
