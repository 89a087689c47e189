"""The queue's jobs that time: what they hold, that every way computes the same, and what is shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from studies import attention
from studies.gpu import timing
from studies.gpu.place import Place
from studies.gpu.queue import JOBS


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = Place(tmp_path_factory.mktemp("work"), None, "cpu", quick=True)
    return {"on": "cpu", **timing.time_windows(8)(place, "windows", "64")}


def test_the_queue_times_every_batch_and_number_of_tokens_and_needs_only_what_it_trains() -> None:
    jobs = JOBS["gpu"]
    assert {needed for job in jobs.values() for needed in job.needs} <= set(jobs)
    assert {f"windows/{n}" for n in (64, 256, 1024, 4096, 16384)} <= set(jobs)
    assert {f"{data}/timing-{n}" for data in ("mnist", "fashion_mnist") for n in (1, 64, 1024)} <= set(jobs)
    assert attention.fitting(8, timing.WINDOWS) == [1, 2, 4]


@pytest.mark.parametrize("learning", [False, True])
def test_every_way_computes_the_attention_that_is_timed(learning: bool) -> None:
    layer = attention.Layer(6, 2, 2, learning=learning)
    works, errors = layer.works(("dense", "tiles"))
    assert list(works) == [attention.WHOLE, "dense", "tiles"]
    assert max(errors.values()) < 1e-6
    for work in works.values():
        work()
    _, low = attention.Layer(6, 2, 2, dtype=torch.bfloat16).works(("tiles",))
    assert 1e-4 < low["tiles"] < 2e-2


def test_windows_are_timed_without_and_with_the_gradient(windows: dict[str, Any]) -> None:
    for kind in ("forward", "gradient"):
        (row,) = windows["windows"][kind].values()
        assert list(row["times"]) == [attention.WHOLE, "dense", "tiles"]
        assert all(ms > 0 for ms, _ in row["times"].values())


def test_what_was_timed_is_shown_by_set_and_by_tokens(windows: dict[str, Any], tmp_path: Path) -> None:
    found = {"on": "GPU", **timing.time_set(64)(Place(tmp_path, None, "cpu", quick=True), "mnist", "timing-64")}
    assert all(0 < error < 0.1 for error in found["errors"].values())  # rounding in bfloat16
    shown = timing.tables({"mnist/timing-64": found, "windows/64": windows})
    assert list(shown) == ["members", "schedules", "windows forward", "windows gradient"]
    assert "| mnist | hybrid | 2 |" in shown["schedules"]
    assert "| 64 | 1 |" in shown["windows gradient"]
    assert timing.tables({"mnist/global": {"val_loss": 0.3}}) == {}
