"""A whole run in miniature: what it leaves, what it skips, what it redoes, what it refuses."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from phasewise.cli import app
from phasewise.data import load_images
from phasewise.denoisers import DiTDenoiser
from phasewise.errors import PhasewiseError, RunFolderError
from phasewise.files import read_json, write_json
from phasewise.paths import LinearPath
from phasewise.pipeline import Teller, config_for, judging, make_config, need_run, run_pipeline, write_grid
from phasewise.pipeline.folder import RunFolder
from phasewise.pipeline.panel import run_judges, second_network
from phasewise.pipeline.stages import all_stages, wanted
from phasewise.pipeline.telling import VERBOSE
from phasewise.report import build_report
from phasewise.results import CMIMap, Evaluation, HybridSchedule, LossTable, MarkovFit, PriceList
from phasewise.runs import open_run
from phasewise.runs.config import command
from phasewise.runs.members import build_untrained
from phasewise.runs.sizes import SIZES
from phasewise.sampling import sample


@pytest.fixture
def copy(smoke_run, tmp_path):
    return shutil.copytree(smoke_run, tmp_path / "run")


def config():
    return make_config(8, "smoke")


def collect(folder, config, **arguments):
    lines = []
    run_pipeline(config, folder, say=lines.append, **arguments)
    redone = [x[1 : x.index("]")] for x in lines if x.startswith("[") and "] stage " in x]
    return redone, lines


def test_summary_has_the_agreed_shape(smoke_run):
    summary = read_json(smoke_run / "summary.json")
    assert summary["data"] == "digits"
    assert summary["seed"] == 0
    for name in ("global", "hybrid", "window", "local_only", "closed_only"):
        row = summary["schedules"][name]
        assert {"fid", "n", "mflop", "ms", "nats"} <= row.keys()
        assert row["mflop"] > 0
        assert row["ms"] > 0
        assert row["n"] == 150
    assert summary["schedules"]["global"]["nats"] == 0
    assert summary["schedules"]["hybrid"]["mflop"] <= 0.8 * summary["schedules"]["global"]["mflop"] * (1 + 1e-6)


def test_stages_say_how_long_they_took_and_what_memory_was_held_by_then(smoke_run):
    stamps = [read_json(path) for path in (smoke_run / "stages").iterdir()]
    held = [held for _, held in sorted((stamp["finished"], stamp["held_bytes"]) for stamp in stamps)]
    assert held == sorted(held), "the most so far"
    assert held[0] > 50 * 2**20, "a process with PyTorch in it"
    assert max(stamp["seconds"] for stamp in stamps) > 0


def test_records_say_what_they_rest_on(smoke_run):
    table = LossTable.load(smoke_run / "records" / "losses.json")
    assert table.control == "control"
    assert table.n == 100
    assert table.names == ("global", "r1", "r2", "control", "wiener")
    assert (table.loss_stderr > 0).all()
    evaluations = [Evaluation.from_dict(e) for e in read_json(smoke_run / "records" / "evaluation.json")["evaluations"]]
    assert evaluations[0].name == "global"
    assert all(e.reference_n == 1258 and e.fid_stderr > 0 and "classifier" in e.features for e in evaluations)
    assert read_json(smoke_run / "records" / "evaluation.json")["classifier"]["test_accuracy"] > 0.9
    prices = PriceList.load(smoke_run / "records" / "prices.json")
    assert list(prices.flops) == sorted(prices.flops, reverse=True) or prices.flops[0] == max(prices.flops)
    assert (prices.losses.log_snr[1:] == LinearPath().log_snr(torch.tensor(prices.times[1:])).numpy()).all()


def test_every_judge_is_on_record(smoke_run):
    run = open_run(smoke_run)
    assert list(run.judges()) == ["first", "unseen", "sliced"]
    assert (run.features().architecture, run.features(unseen=True).architecture) == ("plain", "residual")
    assert run.reference_moments(unseen=True).digest == run.features(unseen=True).digest()
    assert set(run.floors) == {"unseen", "sliced"}
    hybrid, full = run.evaluations["hybrid"], run.evaluations["global"]
    assert list(hybrid.judges) == ["first", "unseen", "sliced"]
    first = hybrid.judges["first"]
    assert (first.value, first.stderr) == pytest.approx((hybrid.fid, hybrid.fid_stderr))
    verdict = hybrid.against(full)
    assert verdict.measures == ("FID", "unseen FID", "sliced Wasserstein distance")
    paired = verdict.comparisons["FID"]
    assert [paired.difference, paired.stderr] == pytest.approx(hybrid.fid_minus["global"])
    assert read_json(smoke_run / "summary.json")["schedules"]["hybrid"]["against"]["global"] == verdict.outcome


def test_a_run_of_before_there_were_judges_is_done_and_reports(copy):
    content = read_json(copy / "records" / "evaluation.json")
    for row in (*content["evaluations"], content["real"]):
        del row["judges"]
    write_json(copy / "records" / "evaluation.json", content)
    shutil.rmtree(copy / "models" / "features")
    about = read_json(copy / "run.json")
    del about["config"]["features"]["unseen"]
    write_json(copy / "run.json", about)
    redone, _ = collect(copy, config())
    assert redone == []
    run = open_run(copy)
    assert run.judges() == {}
    assert run.evaluations["hybrid"].against(run.evaluations["global"]).measures == ("FID",)
    with pytest.raises(RunFolderError, match="keeps no second feature network"):
        run.features(unseen=True)
    with pytest.raises(RunFolderError, match=r"keeps no unseen\.safetensors for its judges"):
        run.reference_moments(unseen=True)
    assert "unseen FID" not in build_report(copy).read_text()


def test_one_schedule_by_two_names_is_sampled_once(copy, monkeypatch):
    run, data, counted = open_run(copy), load_images("digits"), []
    plain = run.schedules["global"]
    plans = {
        "global": plain,
        "global_placed": replace(plain, label="the same, placed"),
        "local_only": run.schedules["local_only"],
    }
    draw = judging.sample
    monkeypatch.setattr(judging, "sample", lambda *a, **k: counted.append("progress" in k) or draw(*a, **k))
    judge = judging.Judge.of_data(data, run_judges(run, data, run.features(), None), config())
    result = judging.evaluate_all(run.denoisers(), plans, run.prices, judge, config(), Teller.of(lambda _: None))
    once, again, other = result.evaluations
    assert sum(counted) == 2, "others are for the milliseconds"
    assert (once.fid, once.judges) == (again.fid, again.judges)
    assert other.fid != once.fid
    assert again.paired_rmse == 0


def test_the_second_judge_may_be_left_out(copy):
    run, data = open_run(copy), load_images("digits")
    left = config().changed(unseen=False)
    assert second_network(run, data, left) is None
    assert set(run_judges(run, data, run.features(), None)) == {"first", "sliced"}
    choices = [next(s for s in all_stages(c) if s.name == "evaluate").depends for c in (config(), left)]
    assert choices[1] == {**choices[0], "unseen": False}, "and runs of before are done as they were"


def test_cmi_is_part_of_a_run(smoke_run):
    record = CMIMap.load(smoke_run / "records" / "cmi.json")
    assert record.estimator == "density"
    assert record.value.shape == record.stderr.shape == (2, 2)
    assert (record.stderr > 0).all()
    assert record.n == 1797
    assert record.config["image_shape"] == [1, 8, 8]
    fit = MarkovFit.load(smoke_run / "records" / "markov.json")
    assert fit.status == ("not resolved", "not resolved"), "two radii are too few"
    assert fit.window_radius == 1
    summary = read_json(smoke_run / "summary.json")["cmi"]
    assert summary["t_c"] is summary["markov_length"] is None
    assert summary["window"] == (None if fit.window is None else list(fit.window))
    assert "Conditional mutual information" in (smoke_run / "report.html").read_text()


def test_page_stands_alone(smoke_run):
    page = (smoke_run / "report.html").read_text()
    assert "<svg" in page
    assert "Smoke run, the numbers mean nothing" in page
    assert "data:image/png" in page


def test_second_run_does_nothing(copy):
    before = (copy / "summary.json").stat().st_mtime_ns
    redone, lines = collect(copy, config())
    assert redone == []
    assert all("done before" in x for x in lines)
    assert (copy / "summary.json").stat().st_mtime_ns == before


def test_update_redoes_only_what_the_change_touches(copy):
    changed = config().changed(budget=0.5)
    with pytest.raises(RunFolderError, match=r"budget: 0.8 there, 0.5 here.*--update"):
        run_pipeline(changed, copy)
    run_pipeline(changed, copy, command="schedule", update=True, say=lambda _: None)
    assert not (copy / "summary.json").exists(), "the old judgement is not left beside a new schedule"
    assert open_run(copy).samples == {}, "nor are pictures of the old one"
    assert open_run(copy).recovered is not None
    redone, _ = collect(copy, changed)
    assert redone == ["evaluate", "report"]
    assert read_json(copy / "run.json")["command"] == "phasewise run --size smoke --data digits --budget 0.5"


def test_lost_output_is_made_again_alike(copy):
    old = read_json(copy / "records" / "losses.json")
    (copy / "records" / "losses.json").unlink()
    redone, _ = collect(copy, config(), command="diagnose")
    assert redone == ["diagnose"]
    assert read_json(copy / "records" / "losses.json") == old


def test_stale_training_is_not_resumed(copy):
    changed = config().changed(local_epochs=1)
    redone, _ = collect(copy, changed, update=True, command="train")
    assert redone == ["train-r1", "train-r2", "train-control"]


def test_a_stopped_retraining_is_resumed(copy):
    changed = config().changed(local_epochs=1)

    def stop(line):
        if line.startswith("[train-r1]") and "done before" not in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(changed, copy, command="train", update=True, say=stop)
    assert not (copy / "models" / "r1").exists(), "what was learnt for another choice is gone"
    checkpoint = copy / "models" / "r1" / "checkpoint.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"learnt since")
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(changed, copy, command="train", say=stop)
    assert checkpoint.read_bytes() == b"learnt since"


def test_stopped_training_goes_on_to_the_same_weights(tmp_path, smoke_run):
    lines = []

    def stop(line):
        lines.append(line)
        if "r1 step 20" in line:
            raise KeyboardInterrupt

    quick = config().changed(global_epochs=1)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(quick, tmp_path / "run", command="train", say=Teller(stop, level=VERBOSE))
    assert not (tmp_path / "run" / "models" / "r1" / "config.json").exists()
    run_pipeline(quick, tmp_path / "run", command="train", say=lambda _: None)
    again = (tmp_path / "run" / "models" / "r1" / "weights.safetensors").read_bytes()
    assert again == (smoke_run / "models" / "r1" / "weights.safetensors").read_bytes()


def test_folder_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunFolderError, match="holds no phasewise run; choose another folder"):
        run_pipeline(config(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "run.json").write_text('{"kind": "other"}')
    with pytest.raises(RunFolderError, match="not written by phasewise"):
        run_pipeline(config(), tmp_path)
    (tmp_path / "run.json").write_text('{"kind": "phasewise-run", "format": 2}')
    with pytest.raises(RunFolderError, match="valid config"):
        run_pipeline(config(), tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"kind": "phasewise-run", "format": 99, "version": "9"}))
    with pytest.raises(RunFolderError, match="run format 99"):
        run_pipeline(config(), tmp_path)


def test_hidden_files_do_not_make_a_folder_foreign_and_leavings_are_swept(tmp_path):
    kept, left = tmp_path / ".DS_Store", tmp_path / f".run.json.{'0' * 16}.tmp"
    for path in (kept, left):
        path.write_text("x")
    folder = RunFolder(tmp_path, config())
    assert left.exists(), "looking changes nothing"
    folder.claim()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".DS_Store", "run.json"]


@pytest.mark.parametrize("link", ["models", "models/r1"])
def test_an_update_stays_inside_the_run_folder(copy, tmp_path, link):
    outside = tmp_path / "elsewhere"
    shutil.move(copy / link, outside)
    (copy / link).symlink_to(outside)
    before = sorted(p.name for p in outside.rglob("*"))
    with pytest.raises(RunFolderError, match="leads out of the run folder"):
        run_pipeline(config().changed(local_epochs=1), copy, command="train", update=True, say=lambda _: None)
    assert sorted(p.name for p in outside.rglob("*")) == before


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(RunFolderError, match="is a file"):
        run_pipeline(config(), tmp_path / "out")


def test_full_disk_is_one_clear_line_and_nothing_is_lost(copy, monkeypatch):
    import errno
    import os

    (copy / "records" / "losses.json").unlink()
    real = os.fsync

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PhasewiseError, match="no space left"):
        run_pipeline(config(), copy, say=lambda _: None)
    monkeypatch.setattr(os, "fsync", real)
    assert not list(copy.rglob("*.tmp"))
    redone, _ = collect(copy, config())
    assert redone[0] == "diagnose"


def test_config_of_the_folder_is_kept(smoke_run):
    assert config_for(smoke_run, "auto", {}) == config()
    assert config_for(smoke_run, "auto", {"budget": 0.3}).schedule.budget == 0.3


def test_sampling_from_a_run(smoke_run, tmp_path):
    run = open_run(smoke_run)
    hybrid, pixel_range = run.hybrid(), run.data.pixel_range
    images = sample(hybrid, n=9, seed=1)
    assert images.shape == (9, 1, 8, 8)
    file = write_grid(images, pixel_range, tmp_path / "grid.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(PhasewiseError, match="known: hybrid, global"):
        need_run(smoke_run, "sample from").hybrid("nonsense")
    with pytest.raises(PhasewiseError, match=r"ending in \.png"):
        write_grid(images, pixel_range, tmp_path / "grid.jpg")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"radii": (1, 2), "window_radius": 3}, "not among the radii"),
        ({"window": (0.5, 0.2)}, "LOW,HIGH"),
        ({"window": "cmy"}, "'gap' or 'cmi'"),
        ({"window": 0.4}, "LOW,HIGH"),
        ({"window": ["a", "b"]}, "LOW,HIGH"),
        ({"radii": 3}, "radii takes tuple"),
        ({"cmi_block": "wide"}, "block takes int"),
        ({"cmi_center": 3}, "ROW,COL"),
        ({"growth_trajectories": 1}, "0, or at least 2"),
        ({"window": "cmi", "cmi": False}, "leave out --no-cmi"),
        ({"cmi_estimator": "magic"}, "known: density"),
        ({"cmi_radii": ()}, "cmi_radii must be distinct, at least one"),
        ({"cmi_times": (0.5, 0.5)}, "cmi_times must be distinct"),
        ({"cmi_times": (0.0,)}, r"noise times in \(0, 1\]"),
        ({"cmi_tolerance": 0.0}, "above 0, got 0"),
        ({"cmi_center": (1, 2, 3)}, "ROW,COL"),
        ({"budget": 0.0}, "fraction"),
        ({"n_samples": 10}, "at least 100, got 10"),
        ({"preset": "x"}, "known: default, compiled, bf16, brief, gpu, paper"),
        ({"radii": ()}, "at least one radius"),
        ({"radii": (1, 1)}, "name one twice"),
        ({"global_width": 7}, "multiple of 8, got 7"),
        ({"local_epochs": 0}, r"must lie in \(0, 1e\+06\]"),
        ({"global_epochs": float("nan")}, r"must lie in \(0, 1e\+06\]"),
    ],
)
def test_bad_choices_are_named(given, message):
    with pytest.raises(PhasewiseError, match=message):
        make_config(8, **given)


def test_sizes_fit_their_images():
    assert make_config(28).size == "cpu"
    assert make_config(8).size == "small"
    assert all(make_config(28, size).size == size for size in SIZES)
    with pytest.raises(PhasewiseError, match="known: auto, small"):
        make_config(28, "huge")


def test_steps_of_larger_images_start_earlier():
    found = {side: make_config(side).grid.spacing for side in (28, 32, 64, 96, 128, 512)}
    assert found == {28: "uniform", 32: "uniform", 64: "shift2", 96: "shift4", 128: "shift4", 512: "shift8"}
    assert make_config(128, spacing="uniform").grid.spacing == "uniform"


def test_larger_images_go_the_same_way(shared_data, tmp_path):
    tiny = make_config(
        28, "smoke", data="mnist", data_dir=str(shared_data), limit=300, radii=(3,), local_epochs=1, control=True
    )
    folder = run_pipeline(tiny, tmp_path / "run", command="schedule", say=lambda _: None)
    table = LossTable.load(folder / "records" / "losses.json")
    assert table.names == ("global", "r3", "control", "wiener")
    prices = PriceList.load(folder / "records" / "prices.json")
    assert prices.flops[prices.names.index("r3")] <= 8e6


# --- conditional mutual information -----------------------------------------------------------------------------------


def measured(monkeypatch, calls):
    """Stand-in for the estimation: known values, and a list of what was asked."""

    def cmi_map(data, radii, times, **options):
        calls.append((tuple(radii), tuple(times), options))
        times = np.array(times)
        value = np.outer(0.2 * np.exp(-(((times - 0.45) / 0.2) ** 2)), np.exp(-np.array(radii) / 1.5))
        return CMIMap(
            times, tuple(radii), value, 0.01 * value + 1e-5, options["estimator"], options["block"], (3, 3),
            len(data.train), options["seed"],
        )  # fmt: skip

    monkeypatch.setattr("phasewise.pipeline.diagnosing.cmi_map", cmi_map)


def changed_config(**changes):
    return config().changed(**changes)


def test_window_from_the_cmi_reaches_the_schedules(copy, monkeypatch):
    calls = []
    measured(monkeypatch, calls)
    times = (0.1, 0.25, 0.4, 0.5, 0.7, 0.9)
    changed = changed_config(window="cmi", cmi_times=times, cmi_radii=(2, 1, 3), cmi_tolerance=0.05)
    redone, lines = collect(copy, changed, command="schedule", update=True)
    assert redone == ["cmi", "schedule"]
    assert calls[0][:2] == ((2, 1, 3), times)
    assert calls[0][2]["seed"] == 4
    assert calls[0][2]["steps"] == 20
    assert calls[0][2]["folder"] == copy / "cmi"
    fit = MarkovFit.load(copy / "records" / "markov.json")
    assert fit.window is not None
    assert any("CMI: t_c" in line and "above 0.05 nats at r = 1 for t in" in line for line in lines)
    plans = {k: HybridSchedule.from_dict(v) for k, v in read_json(copy / "records" / "schedules.json").items()}
    low, high = fit.window
    expected = tuple("global" if low <= t <= high else "r1" for t in plans["global"].times)
    assert set(expected) == {"global", "r1"}
    assert plans["window_cmi"].assignment == plans["window"].assignment == ("wiener", *expected[1:])
    assert {"window_gap", "hybrid"} <= plans.keys()
    run_pipeline(changed, copy, command="evaluate", say=lambda _: None)
    summary = read_json(copy / "summary.json")
    assert {"window_cmi", "window_gap", "hybrid"} <= summary["schedules"].keys()
    assert summary["cmi"]["window"] == list(fit.window)
    assert summary["cmi"]["markov_length"] == pytest.approx(1.5)


def test_no_window_where_the_cmi_is_small(copy, monkeypatch):
    measured(monkeypatch, [])
    changed = changed_config(window="cmi", cmi_tolerance=5.0)
    with pytest.raises(PhasewiseError, match=r"exceeds 5 nats at no measured time.*--cmi-tolerance.*LOW,HIGH"):
        run_pipeline(changed, copy, update=True, say=lambda _: None)


def test_cmi_alone_needs_no_training(tmp_path, monkeypatch):
    calls = []
    measured(monkeypatch, calls)
    assert collect(tmp_path / "run", config(), command="cmi")[0] == ["data", "cmi"]
    assert collect(tmp_path / "run", config(), command="cmi")[0] == []
    again = changed_config(cmi_tolerance=0.02)
    with pytest.raises(RunFolderError, match=r"cmi_tolerance: 0.01 there, 0.02 here"):
        run_pipeline(again, tmp_path / "run", command="cmi")
    assert collect(tmp_path / "run", again, command="cmi", update=True)[0] == ["cmi"]
    assert len(calls) == 2
    # what `diagnose` takes, and no more
    words = read_json(tmp_path / "run" / "run.json")["command"].split()[1:]
    assert words[:2] == ["diagnose", "--cmi"]
    assert CliRunner().invoke(app, [*words, "--out", str(tmp_path / "dry"), "--dry-run"]).exit_code == 0


def test_cmi_of_a_finished_run_updates_its_summary(copy, monkeypatch):
    measured(monkeypatch, [])
    changed = changed_config(cmi_times=(0.3, 0.4, 0.5, 0.6), cmi_radii=(1, 2, 3))
    before = read_json(copy / "summary.json")
    assert collect(copy, changed, command="cmi", update=True)[0] == ["cmi"]
    after = read_json(copy / "summary.json")
    assert after["cmi"] != before["cmi"]
    assert after["schedules"] == before["schedules"]
    words = "phasewise run --size smoke --data digits --cmi-radii 1,2,3 --cmi-times 0.3,0.4,0.5,0.6"
    assert read_json(copy / "run.json")["command"] == words, "still a whole run"
    assert collect(copy, changed)[0] == ["report"]


def test_cmi_choices_are_free_while_nothing_was_measured(tmp_path):
    without, asked = changed_config(cmi=False), changed_config(cmi_estimator="gaussian", cmi_options={})
    RunFolder(tmp_path / "run", without).claim()
    RunFolder(tmp_path / "run", asked)
    (tmp_path / "run" / "stages").mkdir()
    (tmp_path / "run" / "stages" / "cmi.json").write_text("{}")
    RunFolder(tmp_path / "run", changed_config(cmi=True))
    with pytest.raises(RunFolderError, match="cmi_estimator: density there, gaussian here"):
        RunFolder(tmp_path / "run", asked)


def test_which_stages_a_command_goes_through():
    def names(command, **changes):
        c = changed_config(**changes)
        return [s.name for s in wanted(command, all_stages(c)) if not s.name.startswith("train-")]

    assert names("run") == [
        "data",
        "features",
        "diagnose",
        "symmetry",
        "recovery",
        "cmi",
        "schedule",
        "evaluate",
        "report",
    ]
    assert names("run", cmi=False, symmetry=False) == [
        "data",
        "features",
        "diagnose",
        "recovery",
        "schedule",
        "evaluate",
        "report",
    ]
    assert names("diagnose") == ["data", "features", "diagnose", "symmetry", "recovery"]
    assert "cmi" not in names("evaluate")
    assert "cmi" in names("schedule", window="cmi")
    assert names("cmi") == ["data", "cmi"]
    with pytest.raises(PhasewiseError, match="drop --no-cmi"):
        names("cmi", cmi=False)


def test_a_run_of_before_takes_cmi_choices_from_its_size(tmp_path):
    old = {k: v for k, v in make_config(28, data="mnist").to_dict().items() if k != "cmi"}
    (tmp_path / "run.json").write_text(json.dumps({"kind": "phasewise-run", "format": 2, "config": old}))
    assert config_for(tmp_path, "auto", {}) == make_config(28, data="mnist")
    other = config_for(tmp_path, "auto", {"cmi_estimator": "gaussian"})
    assert (other.cmi.estimator, other.cmi.options) == ("gaussian", {})


def test_cmi_choices_fit_the_images(tmp_path):
    assert make_config(8).cmi.radii == (1, 2, 3)
    assert make_config(8, cmi_block=3).cmi.radii == (1, 2)
    assert make_config(28).cmi.radii == (1, 2, 3, 4, 5, 6)
    assert not make_config(2, "smoke").cmi.measure
    assert make_config(8, "smoke").cmi.options == {"steps": 20, "folds": 2}
    assert make_config(8, "smoke", cmi_estimator="gaussian").cmi.options == {}
    for changes, message in (
        ({"cmi_radii": (1, 4)}, "something to measure is 3"),
        ({"cmi_center": ((0, 9),)}, "reaches out of the 8x8 image"),
        ({"cmi_options": {"epoch": 3}}, "epoch"),
    ):
        with pytest.raises(PhasewiseError, match=message):
            run_pipeline(changed_config(**changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_the_command_that_repeats_a_run_says_its_cmi_choices():
    given = {"cmi_center": [[3, 3], [4, 4]], "cmi_options": {"epochs": 2}, "cmi_times": (0.2, 0.5), "window": "cmi"}
    words = command(changed_config(**given))
    assert words.endswith("--cmi-times 0.2,0.5 --cmi-option epochs=2 --center 3,3 --center 4,4 --window cmi")
    assert command(changed_config(cmi=False)).endswith("--no-cmi")
    assert changed_config(cmi_center=(3, 3)) == changed_config(cmi_center=[[3, 3]])


# --- networks from elsewhere, and cheaper global ones ---------------------------------------------------------------


def test_cheaper_global_networks_join_the_run_and_the_schedules(smoke_run, tmp_path):
    models, folder = tmp_path / "models", tmp_path / "run"
    shutil.copytree(smoke_run / "models", models)
    shutil.rmtree(models / "global")
    plan = make_config(8, "smoke", cheap_globals=("small",), global_width=24, networks=str(models), cmi=False)
    done, lines = collect(folder, plan, command="schedule")
    assert "train-small" in done
    assert "train-global" in done
    assert "r1: taken from" in " ".join(lines)
    assert LossTable.load(folder / "records" / "losses.json").names == (
        "global", "small", "r1", "r2", "control", "wiener",
    )  # fmt: skip
    plans = {k: HybridSchedule.from_dict(v) for k, v in read_json(folder / "records" / "schedules.json").items()}
    assert set(plans["stitched"].assignment) <= {"wiener", "small", "global"}
    assert list(plans["stitched"].assignment) == sorted(plans["stitched"].assignment, reverse=True)  # small first
    prices = PriceList.load(folder / "records" / "prices.json")
    assert plans["hybrid"].penalty_unit == "feature units"
    assert prices.frechet is not None
    assert prices.growth is None
    collect(folder, plan.changed(penalty="w2"), command="schedule", update=True)
    assert PriceList.load(folder / "records" / "prices.json").growth is not None
    # nothing is as cheap as the closed forms that are best in smoke: local throughout, small but for one step
    assert plans["spread"].mflop <= plans["hybrid"].mflop * (1 + 1e-6) or set(plans["spread"].assignment) == {"r1"}
    assert plans["stitched"].mflop >= plans["hybrid"].mflop * (1 - 1e-6), "a rival costs as much, or is the next dearer"
    assert plans["stitched"].assignment.count("global") == 1
    taken = (models / "r1" / "weights.safetensors").read_bytes()
    assert taken == (folder / "models" / "r1" / "weights.safetensors").read_bytes()


def test_a_network_that_does_not_fit_its_name_is_refused(smoke_run, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(smoke_run / "models" / "r2", models / "r1")
    with pytest.raises(PhasewiseError, match="sees a radius of 2, not 1"):
        collect(tmp_path / "run", make_config(8, "smoke", networks=str(models)), command="train")


def test_an_unknown_or_doubled_size_is_refused():
    with pytest.raises(PhasewiseError, match="unknown cheap_globals 'tiny'; known: coarse"):
        make_config(8, "smoke", cheap_globals=("tiny",))
    with pytest.raises(PhasewiseError, match="name one twice"):
        make_config(8, "smoke", cheap_globals=("small", "small"))


def test_networks_of_a_named_size_are_what_their_word_says():
    config = make_config(32, "cpu", global_network="dit-small", cheap_globals=("dit-coarse", "coarse"), seed=3)
    whole = [m for m in config.members if m.radius is None and m.kind != "wiener"]
    assert [(m.name, m.kind, m.network, m.size, m.width) for m in whole] == [
        ("global", "global", "transformer", "small", None),
        ("dit-coarse", "transformer", None, "coarse", None),
        ("coarse", "unet", None, "coarse", None),
    ]
    built = [build_untrained(m, 3, (3, 32, 32)) for m in whole]
    assert [type(net).__name__ for net in built] == ["DiTDenoiser", "DiTDenoiser", "UNetDenoiser"]
    assert [net.patch for net in built] == [2, 4, 4]
    assert "--global-network dit-small" in command(config)
    assert make_config(32, "cpu", global_network="small").members[0].size == "small"
    with pytest.raises(PhasewiseError, match="unknown global_network 'dit-tiny'; known: unet"):
        make_config(32, global_network="dit-tiny")


def test_a_run_trains_a_transformer_and_narrows_its_attention_later(tmp_path):
    plan = {
        "global_network": "transformer", "global_width": 32, "flip": True, "radii": (1,), "window_radius": 1,
        "cmi": False, "control": False, "place": 0, "n_recovery": 10, "symmetry": False,
    }  # fmt: skip
    collect(tmp_path, make_config(8, "smoke", **plan))
    run = open_run(tmp_path)
    whole = run.denoiser("global")
    assert isinstance(whole, DiTDenoiser)
    assert run.training["global"].preset["flip"] is True
    member = {"near": {"kind": "transformer", "window": 1, "source": str(tmp_path / "models/global")}}
    redone, _ = collect(tmp_path, make_config(8, "smoke", **plan, member=member), update=True)
    assert "train-near" in redone
    assert "train-global" not in redone
    run = open_run(tmp_path)
    near, x = run.denoiser("near"), torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert near.radius is not None
    with torch.no_grad():
        assert torch.equal(near(x, 0.4), whole.windowed(1)(x, 0.4)), "the same weights"
    assert {"global", "near", "r1"} <= set(run.prices.names)


def test_the_command_that_repeats_a_run_says_its_networks():
    said = command(make_config(8, "smoke", cheap_globals=("coarse", "small"), networks="nets"))
    assert said == "phasewise run --size smoke --data digits --cheap-globals coarse,small --networks nets"
    assert make_config(28).train.cheap_globals == ("coarse",)
    none = make_config(28, data="mnist", cheap_globals=())
    assert command(none) == "phasewise run --size cpu --data mnist --cheap-globals none"


# --- when symmetries break ------------------------------------------------------------------------------------------


def test_a_run_knows_when_symmetries_break(smoke_run):
    run = open_run(smoke_run)
    found = run.symmetry
    assert found is not None
    assert found.speciation.n == run.data.sizes["train"]
    assert found.speciation.classes == 10
    assert found.cloning is not None
    assert found.cloning.n == 20
    page = (smoke_run / "report.html").read_text(encoding="utf-8")
    assert "When symmetries break" in page
    assert f"Speciation at t = {found.speciation.t_s:.3g}" in page


def test_symmetry_is_measured_again_only_where_its_choices_change(copy):
    before = {f.name: f.read_bytes() for f in (copy / "records").glob("*.json")}
    done, _ = collect(copy, make_config(8, "smoke", clone_images=0), command="diagnose", update=True)
    assert done == ["symmetry"]
    assert open_run(copy).symmetry.cloning is None
    after = {f.name: f.read_bytes() for f in (copy / "records").glob("*.json")}
    assert {n for n in before if before[n] != after.get(n)} == {"symmetry.json"}  # no other stream has moved
    assert "symmetry" not in [s.name for s in all_stages(make_config(8, "smoke", symmetry=False))]


def test_what_the_network_is_told_is_not_cloned():
    from phasewise.denoisers import LocalDenoiser
    from phasewise.metrics.features import RandomFeatures
    from phasewise.pipeline.symmetry import said_of, symmetry_of

    data, asked, lines = load_images("digits"), make_config(8, "smoke").symmetry, []
    told = LocalDenoiser((1, 8, 8), 1, classes=10)
    found = symmetry_of(told, data, RandomFeatures(data.image_shape), asked, 0, lambda *said: lines.append(said[0]))
    assert found.cloning is None
    assert "nothing here tells classes" in lines[0]
    assert said_of(found).startswith("symmetries break: speciation at t = ")


def test_cmi_given_the_class_is_asked_for_by_one_word(tmp_path):
    folder = tmp_path / "run"
    words = ["diagnose", "--cmi", "--data", "digits", "--out", str(folder), "--size", "smoke", "--given", "class"]
    words += ["--estimator", "gaussian", "--cmi-radii", "1", "--cmi-times", "0.5"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    known = CMIMap.load(folder / "records" / "cmi.json")
    assert len(known.config["classes"]) == 10
    assert "--given class" in command(changed_config(cmi_given="class"))
