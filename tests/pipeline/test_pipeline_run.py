"""A whole run in miniature: what it leaves, what it skips, what it redoes, what it refuses."""

import json
import shutil

import pytest
import torch

from phasewise.errors import PhasewiseError, RunFolderError
from phasewise.files import read_json
from phasewise.paths import LinearPath
from phasewise.pipeline import RunConfig, config_for, load_hybrid, make_config, run_pipeline, write_grid
from phasewise.pipeline.config import SIZES
from phasewise.results import Evaluation, LossTable, PriceList
from phasewise.sampling import sample


@pytest.fixture
def copy(smoke_run, tmp_path):
    return shutil.copytree(smoke_run, tmp_path / "run")


def config():
    return make_config(8, "smoke")


def collect(folder, config, **arguments):
    lines = []
    run_pipeline(config, folder, say=lines.append, **arguments)
    redone = [x[1:-1] for x in lines if x.startswith("[") and x.endswith("]")]
    return redone, lines


def test_summary_has_the_agreed_shape(smoke_run):
    summary = read_json(smoke_run / "summary.json")
    assert summary["data"] == "digits"
    assert summary["seed"] == 0
    for name in ("global", "hybrid", "window", "local_only"):
        row = summary["schedules"][name]
        assert {"fid", "n", "mflop", "ms", "nats"} <= row.keys()
        assert row["mflop"] > 0
        assert row["ms"] > 0
        assert row["n"] == 150
    assert summary["schedules"]["global"]["nats"] == 0
    assert summary["schedules"]["hybrid"]["mflop"] <= 0.75 * summary["schedules"]["global"]["mflop"] * (1 + 1e-6)


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
    changed = RunConfig.from_dict({**config().to_dict(), "budget": 0.5})
    with pytest.raises(RunFolderError, match=r"budget: 0.75 there, 0.5 here.*--update"):
        run_pipeline(changed, copy)
    run_pipeline(changed, copy, command="schedule", update=True, say=lambda _: None)
    assert not (copy / "summary.json").exists(), "the old judgement is not left beside a new schedule"
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
    changed = RunConfig.from_dict({**config().to_dict(), "local_epochs": 1})
    redone, _ = collect(copy, changed, update=True, command="train")
    assert redone == ["train-r1", "train-r2", "train-control"]


def test_stopped_training_goes_on_to_the_same_weights(tmp_path, smoke_run):
    lines = []

    def stop(line):
        lines.append(line)
        if "r1 step 20" in line:
            raise KeyboardInterrupt

    quick = RunConfig.from_dict({**config().to_dict(), "global_epochs": 1})
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(quick, tmp_path / "run", command="train", say=stop)
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
    (tmp_path / "run.json").write_text('{"kind": "phasewise-run", "format": 1}')
    with pytest.raises(RunFolderError, match="valid config"):
        run_pipeline(config(), tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"kind": "phasewise-run", "format": 99, "version": "9"}))
    with pytest.raises(RunFolderError, match="run format 99"):
        run_pipeline(config(), tmp_path)


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
    assert config_for(smoke_run, "auto", {"budget": 0.3}).budget == 0.3


def test_sampling_from_a_run(smoke_run, tmp_path):
    hybrid, pixel_range = load_hybrid(smoke_run, "hybrid")
    images = sample(hybrid, n=9, seed=1)
    assert images.shape == (9, 1, 8, 8)
    file = write_grid(images, pixel_range, tmp_path / "grid.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(PhasewiseError, match="it has global, hybrid"):
        load_hybrid(smoke_run, "nonsense")
    with pytest.raises(PhasewiseError, match=r"ending in \.png"):
        write_grid(images, pixel_range, tmp_path / "grid.jpg")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"radii": (1, 2), "window_radius": 3}, "not among the radii"),
        ({"window": (0.5, 0.2)}, "LOW,HIGH"),
        ({"window": "cmy"}, "'gap'"),
        ({"budget": 0.0}, "fraction"),
        ({"n_samples": 10}, "at least 100, got 10"),
        ({"preset": "x"}, "known: default, paper"),
        ({"radii": ()}, "at least one radius"),
        ({"radii": (1, 1)}, "name one twice"),
        ({"global_width": 7}, "multiple of 8, got 7"),
        ({"local_epochs": 0}, "epochs > 0"),
        ({"global_epochs": float("nan")}, "epochs > 0"),
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


def test_larger_images_go_the_same_way(shared_data, tmp_path):
    tiny = make_config(28, "smoke", data="mnist", data_dir=str(shared_data), limit=300, radii=(3,), local_epochs=1)
    folder = run_pipeline(tiny, tmp_path / "run", command="schedule", say=lambda _: None)
    table = LossTable.load(folder / "records" / "losses.json")
    assert table.names == ("global", "r3", "control", "wiener")
    prices = PriceList.load(folder / "records" / "prices.json")
    assert prices.flops[prices.names.index("r3")] <= 8e6
