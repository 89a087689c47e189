"""A run folder described once: typed, lazy, checked; nothing leads out of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import phasewise as pw
from phasewise.errors import PhasewiseError, RunFolderError
from phasewise.files import read_json, write_json
from phasewise.results import LossTable
from phasewise.runs import Run, RunConfig
from phasewise.runs.layout import ITEMS, REPORTED, inside, missing


@pytest.fixture
def copy(smoke_run, tmp_path):
    return shutil.copytree(smoke_run, tmp_path / "run")


def test_a_finished_run_is_all_there(smoke_run):
    run = pw.open_run(smoke_run)
    assert isinstance(run.config, RunConfig)
    assert all(getattr(run, item) for item in REPORTED)
    assert run.losses.names == ("global", "r1", "r2", "control", "wiener")
    assert run.prices.names == tuple(n for n in run.losses.names if n != "control")
    assert set(run.schedules) == set(run.evaluations) == set(run.samples) - {"real"}
    assert run.schedules["hybrid"].label == run.evaluations["hybrid"].label == "hybrid, optimised, placed"
    assert run.real["n"] == 150
    assert run.hybrid("local_only").schedule == run.schedules["local_only"]
    assert run.denoiser("r1") is run.denoiser("r1")


def test_a_run_tells_what_it_measured(smoke_run, tmp_path):
    run = pw.open_run(smoke_run)
    text = (run.hybrid().save_pretrained(tmp_path / "hybrid", records=run.measured()) / "README.md").read_text()
    judged = run.evaluations["hybrid"]
    assert f"fingerprint {run.data.fingerprint}" in text
    assert f"{judged.measure} " in text
    assert f"n = {judged.n:,}" in text
    assert len(run.measured("r1")) == 2
    text = (run.denoiser("r1").save_pretrained(tmp_path / "r1", records=run.measured("r1")) / "README.md").read_text()
    assert f"{run.training['r1'].steps:,} steps" in text


def test_reading_is_lazy(copy):
    """A damaged record is met by those who ask for it, no sooner."""
    (copy / "records" / "losses.json").write_text("{}")
    run = pw.open_run(copy)
    assert run.prices is not None
    with pytest.raises(RunFolderError, match=r"losses.json does not fit this version"):
        _ = run.losses


def test_an_empty_run_has_nothing(tmp_path):
    run = Run(tmp_path)
    assert run.config is None
    assert run.losses is run.prices is run.data is run.cmi is None
    assert run.schedules == run.fronts == run.samples == {}
    assert not run.reportable()
    assert run.members == ()


@pytest.mark.parametrize(
    ("item", "field", "value"),
    [
        ("losses", "gap", [[1.0]]),
        ("losses", "names", "all"),
        ("prices", "flops", [1.0]),
        ("recovery", "mse", [1.0]),
        ("recovery", "times", "now"),
        ("cmi", "value", [[1.0, 2.0, 3.0]]),
        ("markov", "status", ["ok"]),
        ("schedules", "hybrid", {"times": [1.0]}),
        ("fronts", "kl", {"mflop": [1.0]}),
    ],
)
def test_types_and_shapes_are_checked(copy, item, field, value):
    run = Run(copy)
    content = read_json(run.path(item))
    write_json(run.path(item), {**content, field: value})
    with pytest.raises(PhasewiseError, match=run.path(item).name):
        getattr(run, item)


def test_of_another_kind_or_version_is_refused(copy):
    info = read_json(copy / "run.json")
    for change, message in (
        ({"kind": "x"}, "not written by phasewise"),
        ({"format": 1}, "this version reads format 2"),
    ):
        write_json(copy / "run.json", {**info, **change})
        with pytest.raises(RunFolderError, match=message):
            _ = Run(copy).config
    with pytest.raises(RunFolderError, match="no run folder at"):
        pw.open_run(copy / "nowhere")


def test_paths_cannot_leave_the_folder(copy, tmp_path):
    run = Run(copy)
    for parts in (("..", "x"), ("/etc/passwd",), ("a/../../x",)):
        with pytest.raises(RunFolderError, match="leads out of the run folder"):
            inside(copy, *parts)
    shutil.rmtree(copy / "models")
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "thesis.tex").write_text("x")
    (copy / "models").symlink_to(outside)
    with pytest.raises(RunFolderError, match="leads out of the run folder"):
        run.model("r1")
    from phasewise.pipeline.stages import discard_training

    with pytest.raises(RunFolderError):
        discard_training(run, "r1")
    assert (outside / "thesis.tex").exists()


def test_what_is_written_is_read_back_anew(copy):
    run = Run(copy)
    before = run.losses
    changed = LossTable.from_dict({**before.to_dict(), "n": 7})
    run.write("losses", changed)
    assert run.losses.n == 7
    assert np.array_equal(run.losses.gap, before.gap)
    run.remove("losses")
    assert run.losses is None


def test_every_item_is_named_once_and_says_who_makes_it():
    assert len({item.place for item in ITEMS.values()}) == len(ITEMS)
    assert missing("losses", "gap") == (
        "Not in this run: records/losses.json and records/gap.json. Made by `phasewise diagnose`."
    )


def test_nothing_else_knows_a_file_name():
    """No other room writes or reads a place of the layout by its name."""
    root = Path(pw.__file__).parent
    names = {item.place.rsplit("/", 1)[-1] for item in ITEMS.values()} - {"", "features.json"}
    names |= {"records/", "models/", "stages/", "samples/"}
    found = []
    for file in root.rglob("*.py"):
        room = file.relative_to(root).parts[0]
        if room in ("runs", "cli.py"):
            continue
        text = file.read_text(encoding="utf-8")
        found += [f"{file.name}: {name}" for name in sorted(names) if f'"{name}"' in text or f"'{name}'" in text]
    assert not found


def test_a_shipped_set_is_a_run():
    ready = pw.load_pretrained("mnist")
    assert isinstance(ready, Run)
    assert json.loads((ready.root / "run.json").read_text())["format"] == 2
    assert ready.prices.names == ready.names == tuple(n for n in ready.losses.names if n != "control")
    assert ready.config.schedule.penalty == ready.schedules["hybrid"].penalty_name == "w2"
    assert pw.explain(ready.schedules["hybrid"], ready.prices) == list(ready.explanations["hybrid"])
