"""The queue's jobs that time: what they hold, that every way computes the same, and what is shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from phasewise.errors import PhasewiseError
from phasewise.files import write_json
from studies import attention
from studies.__main__ import main, parser_of
from studies.gpu import timing
from studies.gpu.place import Place
from studies.gpu.queue import JOBS
from studies.gpu.study import GPUQueue, Options
from studies.options import given_options
from studies.study import Cell


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = Place(tmp_path_factory.mktemp("work"), None, "cpu", quick=True)
    return {"on": "cpu", **timing.time_windows(8)(place, "windows", "64")}


def test_the_queue_times_every_batch_and_number_of_tokens_and_needs_only_what_it_trains() -> None:
    jobs = JOBS["gpu"]
    assert {needed for job in jobs.values() for needed in job.needs} <= set(jobs)
    assert {f"windows/{n}" for n in (64, 256, 1024, 4096, 16384)} <= set(jobs)
    assert {
        f"{data}/timing-{n}" for data in ("mnist", "fashion_mnist", "cifar10", "cifar10-dit") for n in (1, 64, 1024)
    } <= set(jobs)
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


def test_jobs_are_listed_in_their_order_and_the_next_one_needs_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "clothing32/dit.json", {"cell": "clothing32/dit", "asked": {}})
    about = ["--device", "cpu", "--sets", "clothing32", "--pace", "0.5", "--out", str(tmp_path)]
    assert main(["gpu", "--list", *about]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [t for t in JOBS["cpu"] if t.startswith("clothing32/")]
    assert [line.split()[0] for line in lines if "done" in line.split()] == ["clothing32/dit"]
    coarse, windows = (next(x for x in lines if f"/{name} " in x).split()[1:] for name in ("coarse", "dit-windows"))
    assert coarse == ["0.5", "docs/results/photographs.md"], "half of its minutes"
    assert windows == ["1.0", "dit", "docs/results/photographs.md"]
    (front,) = (line for line in lines if "/front-unet " in line)
    assert front.split()[2:] == [
        "global", "coarse", "small", "locals", "judge", "judge-unseen", "docs/results/photographs.md",
    ]  # fmt: skip
    parsed = parser_of("gpu").parse_args(["--next"])
    assert given_options(Options, parsed) == {"next": 1}


def test_a_queue_passes_over_what_another_process_has_and_what_is_not_ready(tmp_path: Path) -> None:
    def asked(**how: Any) -> GPUQueue:
        return GPUQueue(Options(sets=("clothing32",), device="cpu", **how), tmp_path)

    first, second = asked(next=1), asked(next=2)
    assert [cell.name for cell in first.cells()] == ["clothing32/global"]
    assert [cell.name for cell in second.cells()] == ["clothing32/coarse", "clothing32/small"], "the first is taken"
    with pytest.raises(PhasewiseError, match="another process is at work in"):
        asked(job=("clothing32/global",)).measure(Cell("clothing32/global", {}, JOBS["cpu"]["clothing32/global"]))
    rest = [job.title for job in JOBS["cpu"].values() if job.data == "clothing32"]
    third = asked(next=len(rest))
    assert [cell.name for cell in third.cells()] == [
        "clothing32/dit", "clothing32/dit-coarse", "clothing32/judge", "clothing32/judge-unseen",
    ], "others need what is not there"  # fmt: skip
    with pytest.raises(PhasewiseError, match="no job is free: clothing32/global: another process is at work in"):
        list(asked(next=1).cells())
    first.held.pop("clothing32/global").close()
    assert [cell.name for cell in asked(next=1).cells()] == ["clothing32/global"], "free again where one has ended"
