"""The images of a run: one place loads them, their form is part of the run, and replaced images are noticed."""

import json
import os
from dataclasses import fields

import numpy as np
import pytest
from image_files import pixels, write_folder
from typer.testing import CliRunner

from phasewise.cli import app
from phasewise.data import load_images
from phasewise.errors import RunFolderError
from phasewise.pipeline import config_for, read_options, run_pipeline, stages
from phasewise.pipeline.folder import RunFolder
from phasewise.pipeline.stages import all_stages
from phasewise.runs import images, make_config, open_run
from phasewise.runs.parts import DataOptions
from phasewise.runs.sizes import known_size


@pytest.fixture
def run(tmp_path):
    """A folder of images, and a run that is done as far as closed forms go."""
    write_folder(tmp_path / "photos", pixels(60, (8, 8)))
    config = make_config(8, "smoke", data=str(tmp_path / "photos"), resize=4, cmi=False)
    lines = []
    bring_up(config, tmp_path / "run", lines)
    assert any("1x4x4" in x and "0..255" in x for x in lines), "what was read, and its scale, is said"
    return config, tmp_path / "run"


def bring_up(config, folder, lines, **more):
    """The stages that train nothing: images, and the closed form."""
    everything = all_stages(config)
    chosen = [s for s in everything if s.name in ("data", "train-wiener")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("phasewise.pipeline.run.wanted", lambda *_: chosen)
        run_pipeline(config, folder, say=lines.append, **more)


def redone(config, folder, **more):
    lines = []
    bring_up(config, folder, lines, **more)
    return [x[1:].split("]")[0] for x in lines if x.startswith("[") and "] stage " in x]


def test_every_option_reaches_the_loader(monkeypatch):
    """An option of the data is an argument of load_images, and all of them are given."""
    import inspect

    taken = set(inspect.signature(load_images).parameters) - {"source"}
    assert {f.name for f in fields(DataOptions)} - {"data"} == taken
    asked = DataOptions("digits", crop=6, resize=3, color="rgb", pixel_range=(-1, 1), seed=3, limit=30)
    data = images.images_of(asked)
    assert (data.image_shape, data.pixel_range, data.sizes["train"]) == ((3, 3, 3), (-1, 1), 30)
    assert images.outline_of(asked) == ((3, 3), 1258), "a limit asks for less, not for more passes"
    context = stages.Context(None, make_config(8).changed(crop=6, resize=3, color="rgb", limit=30, seed=3), print)
    assert context.data.image_shape == (3, 3, 3)


def test_the_number_of_images_decides_the_passes(tmp_path):
    np.savez(tmp_path / "set.npz", images=pixels(200, (34, 34)))
    data = {"data": str(tmp_path / "set.npz")}
    for more in ({}, {"resize": 32}, {"limit": 50}):
        side = 32 if more.get("resize") else 34
        found, usual = config_for(tmp_path / "run", "cpu", {**data, **more}).train, make_config(side, "cpu").train
        assert found.global_epochs == 130, "140 images"
        assert found.global_epochs > usual.global_epochs == 1.7
    few = config_for(tmp_path / "run", "cpu", {"data": "cifar10", "limit": 100}).train
    assert few.global_epochs == 1.7, "a limit asks for less"
    gone = {"data": str(tmp_path / "gone.npz"), "resize": 32}
    assert config_for(tmp_path / "run", "smoke", gone).train == make_config(32, "smoke").train, "it needs no look"


def test_the_whole_image_of_an_old_run_stays_whole(tmp_path):
    old = make_config(64, "cpu", data="photos/", cmi_crop=0)
    (tmp_path / "run.json").write_text(json.dumps({"config": old.to_dict()}))
    given = {**read_options(tmp_path / "run.json"), "resize": 64, "data": "clothing128"}
    again = config_for(tmp_path / "new", given.pop("size"), given)
    assert (old.cmi.crop, again.cmi.crop, make_config(64, "cpu").cmi.crop) == (None, None, 32)
    (tmp_path / "flat.json").write_text(json.dumps(old.flat()))
    assert read_options(tmp_path / "flat.json")["cmi_crop"] == 0, "written flat, too"


def test_the_size_is_known_without_reading(tmp_path):
    assert known_size(DataOptions("clothing128")) == (128, 128)
    assert known_size(DataOptions("clothing128", resize=(48, 40))) == (48, 40)
    assert known_size(DataOptions("clothing128", crop="square")) == (128, 128)
    assert known_size(DataOptions("nobody/knows", crop=20)) == (20, 20)
    assert known_size(DataOptions("nobody/knows")) is None
    assert images.outline_of(DataOptions("trashnet64", resize=(48, 40))) == ((48, 40), 2002), "nor the number"
    assert config_for(tmp_path, "auto", {"data": "clothing128", "resize": (16,)}).size == "small"
    said = CliRunner().invoke(
        app, ["run", "--data", "mnist", "--resize", "14", "--radii", "20", "--out", str(tmp_path / "x"), "--dry-run"]
    )
    assert said.exit_code == 2
    assert "20" in said.stderr


def test_nothing_is_done_again_where_nothing_changed(run, monkeypatch):
    config, folder = run
    assert redone(config.changed(cache=False), folder) == [], "what changes no result may change"
    monkeypatch.setattr(stages, "images_of", lambda *_: pytest.fail("the images need not be read"))
    assert redone(config.changed(cache=False), folder) == []


def test_touched_files_are_looked_at_and_kept_where_they_are_the_same(run, tmp_path):
    config, folder = run
    os.utime(tmp_path / "photos" / "003.png", (1, 1))
    before = json.loads((folder / "stages" / "data.json").read_text())
    assert redone(config, folder) == []
    after = json.loads((folder / "stages" / "data.json").read_text())
    assert after["source"] != before["source"]
    assert after["key"] == before["key"]


def test_replaced_images_are_noticed(run, tmp_path):
    """Every image replaced by another of the same name and size in bytes, with its time put back."""
    config, folder = run
    old = open_run(folder).data.fingerprint
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "photos").iterdir()}
    write_folder(tmp_path / "photos", pixels(60, (8, 8))[::-1].copy())
    for path, time in times.items():
        os.utime(path, ns=(time, time))
    with pytest.raises(RunFolderError, match=rf"made of other images.*{old} there.*--update"):
        redone(config, folder)
    assert redone(config, folder, update=True) == ["data", "train-wiener"]
    assert open_run(folder).data.fingerprint != old
    assert redone(config, folder) == []


def test_images_that_are_gone_are_not_needed_for_what_is_done(run, tmp_path):
    config, folder = run
    (tmp_path / "photos").rename(tmp_path / "moved")
    assert redone(config, folder) == []


def test_the_fingerprint_is_in_every_key(run):
    config, folder = run
    opened, everything = RunFolder(folder, config), all_stages(config)
    before = {s.name: opened.key(s, everything) for s in everything}
    record = json.loads((folder / "records" / "data.json").read_text())
    (folder / "records" / "data.json").write_text(json.dumps({**record, "fingerprint": "0" * 16}))
    opened = RunFolder(folder, config)
    same = {n for n, key in before.items() if key == opened.key(next(s for s in everything if s.name == n), everything)}
    assert same == {"data"}


def test_another_form_is_another_run(run):
    config, folder = run
    with pytest.raises(RunFolderError, match=r"resize: \[4\] there, None here"):
        redone(config.changed(resize=None), folder)
    again = open_run(folder).config
    assert again == config
    assert np.shape(images.images_of(again.data).train)[1:] == (1, 4, 4)
