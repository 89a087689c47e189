"""Students of a denoiser somebody has: what they learn, what is written, how it goes on, what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import phasewise as pw
from phasewise.cli import app
from phasewise.denoisers import HybridDenoiser, WienerDenoiser
from phasewise.errors import PhasewiseError, RunFolderError
from phasewise.files import read_json
from phasewise.metrics import RandomFeatures
from phasewise.paths import CosinePath
from phasewise.pipeline import Teller, run_pipeline
from phasewise.pipeline.costs import network_costs
from phasewise.pipeline.distilling import LEAST_SAMPLES, distil_config, draw_images
from phasewise.pipeline.estimate import OTHER, estimate_run
from phasewise.pipeline.judging import Judge, evaluate_all
from phasewise.pipeline.panel import run_judges
from phasewise.pipeline.stages import all_stages, wanted
from phasewise.results import HybridSchedule
from phasewise.runs import make_config
from phasewise.runs.members import Member, build_untrained
from phasewise.runs.run import Run
from phasewise.training import get_preset

TINY = {
    "size": "smoke", "radii": (1, 2), "cheap_globals": (), "local_epochs": 2, "features": "random", "n_losses": 40,
    "say": lambda _: None,
}  # fmt: skip
CHEAP = {**TINY, "radii": (1,), "local_epochs": 1, "budget": 1.0}
"""Beside a teacher that costs less than its students."""
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def data():
    return pw.load_images("digits", limit=260)


@pytest.fixture(scope="module")
def teacher(data):
    """On another path than its students, whose noise times are another's then."""
    torch.manual_seed(0)
    denoiser = pw.UNetDenoiser(SHAPE, width=8, path=CosinePath())
    pw.train(denoiser, data, epochs=2, progress=False)
    return denoiser


@pytest.fixture(scope="module")
def linear(data):
    """A teacher in closed form: its samples are Gaussian, of the images' own moments."""
    return WienerDenoiser.fit(data.train)


@pytest.fixture(scope="module")
def done(teacher, data, tmp_path_factory):
    return pw.distil(teacher, data, out=tmp_path_factory.mktemp("distil") / "run", **TINY)


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def test_the_hybrid_is_a_folder_to_share(done, teacher, data):
    hybrid = HybridDenoiser.from_pretrained(done.root / "hybrid")
    x = data.test[:3]
    assert torch.equal(hybrid(x, 0.5), done.hybrid()(x, 0.5))
    assert hybrid.schedule == done.schedules["hybrid"]
    assert done.prices.names == ("global", "r1", "r2", "wiener")
    assert hybrid.path == teacher.path
    assert torch.equal(done.denoiser("global")(x, 0.5), teacher(x, 0.5)), "the teacher is taken as it is"
    card = (done.root / "hybrid" / "README.md").read_text()
    assert f"fingerprint {done.data.fingerprint}" in card
    assert done.data.sizes == data.sizes, "the split is kept"
    assert done.data.pixel_range == data.pixel_range


def test_a_student_learns_what_the_teacher_says(done, teacher):
    """Trained together they learn, to the bit, what each learns alone from the same teacher; and not the image."""
    images = pw.load_images(done.root / "given" / "images.npz")
    preset = get_preset("default", batch=128, epochs=2)
    alone = {}
    for kind, taught in (("teacher", done.denoiser("global")), ("image", None)):
        alone[kind] = build_untrained(Member("r2", "local", radius=2), 0, SHAPE)
        pw.train(alone[kind], images, preset, seed=0, teacher=taught, progress=False)
    student = done.denoiser("r2").state_dict()
    assert all(torch.equal(v, student[k]) for k, v in alone["teacher"].state_dict().items())
    assert any(not torch.equal(v, student[k]) for k, v in alone["image"].state_dict().items())


def test_the_teacher_answers_once_for_all(teacher, data, tmp_path, monkeypatch):
    calls = []
    usual = pw.UNetDenoiser.forward

    def counted(self, x_t, t, cond=None):
        calls.append(torch.is_tensor(t) and t.numel() > 1)
        return usual(self, x_t, t, cond)

    monkeypatch.setattr(pw.UNetDenoiser, "forward", counted)
    run = pw.distil(teacher, data, out=tmp_path / "run", **TINY)
    steps = run.training["r1"].steps
    assert run.training["r2"].steps == steps == 4
    assert sum(calls) == steps, "times differ by row in training alone"
    assert not list(run.root.rglob("checkpoint.safetensors"))


def test_done_is_done(done, teacher, data):
    lines = []
    pw.distil(teacher, data, out=done.root, **{**TINY, "say": lines.append})
    assert lines
    assert all("done before" in line for line in lines)


def test_a_stopped_distillation_goes_on_to_the_same_bits(done, teacher, data, tmp_path):
    def stop(line: str) -> None:
        if "step 3/4" in line:
            raise KeyboardInterrupt

    plan = {**TINY, "say": stop}
    with pytest.raises(KeyboardInterrupt):
        pw.distil(teacher, data, out=tmp_path / "run", **plan)
    assert not (tmp_path / "run" / "hybrid").exists()
    again = pw.distil(teacher, data, out=tmp_path / "run", **TINY)
    for name in ("r1", "r2"):
        assert weights(again.model(name)) == weights(done.model(name))
    assert again.schedules["hybrid"].assignment == done.schedules["hybrid"].assignment


def test_a_run_goes_on_from_there(done, tmp_path):
    copy = Run(shutil.copytree(done.root, tmp_path / "run"))
    config = copy.config
    names = [s.name for s in wanted("run", all_stages(config))]
    assert names[names.index("schedule") + 1] == "hybrid"
    assert names[-2:] == ["evaluate", "report"]
    assert [s.name for s in wanted("distill", all_stages(config))] == [
        "data", "features", "train-global", "train-r1", "train-r2", "train-wiener", "diagnose", "schedule", "hybrid",
    ]  # fmt: skip
    assert "--distill" in copy.info["command"]
    assert "--teacher" in copy.info["command"]


def test_runs_of_before_are_done_as_they_were():
    """What a stage depends on is hashed: nothing new may stand in it where nothing is distilled."""
    stages = {s.name: s for s in all_stages(make_config(8, "smoke"))}
    assert not {"teacher", "classes", "distill", "optimizer"} & set(stages["train-r1"].depends)
    muon = {s.name: s for s in all_stages(make_config(8, "smoke", optimizer="muon"))}
    assert muon["train-r1"].depends == {**stages["train-r1"].depends, "optimizer": "muon"}
    assert stages["train-r1"].needs == ("data",)
    assert "hybrid" not in stages
    taught = {s.name: s for s in all_stages(make_config(8, "smoke", distill=True))}
    assert taught["train-r1"].depends == {**stages["train-r1"].depends, "teacher": "global"}
    assert taught["train-r1"].needs == ("data", "train-global")
    assert taught["train-global"].depends == stages["train-global"].depends


def test_an_estimate_counts_the_teacher(done):
    config, costs = done.config, network_costs(done.config, SHAPE)
    assert costs["global"].flops == pw.count_flops(done.denoiser("global"), SHAPE)
    found = estimate_run(config, done.data, ["train-global", "train-r1", "train-r2"], costs).stages
    assert found["train-global"] == OTHER, "a teacher is not trained"
    assert found["train-r1"] > OTHER
    assert found["train-r2"] > OTHER


# --- no images given ------------------------------------------------------------------------------------------------


def test_a_teacher_draws_the_images(linear, data, tmp_path):
    run = pw.distil(linear, out=tmp_path / "run", samples=1000, **CHEAP)
    assert sum(run.data.sizes.values()) == 1000
    drawn = np.load(run.root / "given" / "images.npz")["images"]
    std = float(data.std)
    assert abs(drawn.mean() - data.mean) < 0.05 * std
    assert abs(drawn.std() - std) < 0.05 * std
    low, high = run.data.pixel_range
    assert low == pytest.approx(drawn.min())
    assert high == pytest.approx(drawn.max())
    assert sorted(p.name for p in (run.root / "given").iterdir()) == ["drawn.json", "images.npz", "teacher"]
    with pytest.raises(RunFolderError, match="is not made of 500 drawn images"):
        pw.distil(linear, out=run.root, samples=500, **CHEAP)


def test_a_stopped_drawing_goes_on(linear, tmp_path):
    whole, stopped = Run(tmp_path / "whole"), Run(tmp_path / "stopped")
    span = draw_images(whole, linear, 600, seed=3, say=lambda _: None)

    def stop(line: str) -> None:
        if "500 of" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_images(stopped, linear, 600, seed=3, say=stop)
    kept = sorted(stopped.path("given", "parts").iterdir())
    assert len(kept) == 2
    kept[1].write_bytes(b"damaged")
    before = kept[0].stat().st_mtime_ns
    lines = []
    assert (
        draw_images(stopped, linear, 600, seed=3, say=lambda s: lines.append((s, kept[0].stat().st_mtime_ns))) == span
    )
    assert {at for _, at in lines} == {before}, "the part that was whole is not drawn again"
    assert stopped.path("given", "images.npz").read_bytes() == whole.path("given", "images.npz").read_bytes()
    assert draw_images(stopped, linear, 600, seed=3, say=pytest.fail) == span
    other = draw_images(stopped, linear, 300, seed=4, say=lambda _: None)
    assert other != span
    assert read_json(stopped.path("given", "drawn.json"))["n"] == 300


# --- a condition ----------------------------------------------------------------------------------------------------


def test_students_of_a_conditional_teacher_are_told_labels(data, tmp_path):
    torch.manual_seed(0)
    told = pw.UNetDenoiser(SHAPE, width=8, classes=10)
    pw.train(told, data, epochs=1, cond="labels", progress=False)
    plan = {**TINY, "radii": (2,), "local_epochs": 1, "n_samples": 100, "n_recovery": 10, "recovery_times": (0.3,)}
    run = pw.distil(told, data, out=tmp_path / "run", **plan)
    student = run.denoiser("r2")
    assert student.classes == 10
    x, labels = data.test[:4], torch.tensor([0, 3, 5, 9])
    assert not torch.equal(student(x, 0.5, labels), student(x, 0.5, labels.flip(0)))
    assert run.hybrid().takes_condition
    assert "a class label from 0 to 9" in (run.root / "hybrid" / "README.md").read_text()
    # the same folder goes on: stages that come later tell the labels, too
    run_pipeline(run.config, run.root, command="diagnose", say=lambda _: None)
    assert set(Run(run.root).recovery.names) == {"global", "r2"}
    judge = Judge.of_data(data, run_judges(run, data, RandomFeatures(SHAPE), None), run.config)
    plans = {name: run.schedules[name] for name in ("global", "hybrid")}
    result = evaluate_all(run.denoisers(), plans, run.prices, judge, run.config, Teller.of(lambda _: None))
    assert [e.n for e in result.evaluations] == [100, 100]
    blank = replace(judge, classes=())
    with pytest.raises(PhasewiseError, match="take a class label, and the images have none"):
        blank.cond(run.hybrid(), 3, 0)
    assert judge.cond(run.denoiser("wiener"), 3, 0) is None


def test_labels_are_drawn_where_no_images_are_given(tmp_path):
    torch.manual_seed(0)
    told = pw.UNetDenoiser(SHAPE, width=8, classes=3)
    draw_images(Run(tmp_path), told, 60, seed=0, say=lambda _: None)
    labels = np.load(tmp_path / "given" / "images.npz")["labels"]
    assert sorted(set(labels.tolist())) == [0, 1, 2]


# --- the command line -----------------------------------------------------------------------------------------------


def distill(*words):
    return CliRunner().invoke(app, ["distill", *(str(w) for w in words)])


def test_few_drawn_images_are_passed_over_as_often_as_given_ones(tmp_path):
    pw.save_denoiser(pw.UNetDenoiser((1, 28, 28), width=8), tmp_path / "net")
    given = {"teacher": str(tmp_path / "net")}
    passes = [
        distil_config(tmp_path / "run", "cpu", given, samples=n, draw=False).train.local_epochs for n in (2000, 60_000)
    ]
    assert passes == [130, pytest.approx(7 * 55_000 / 42_000, rel=0.01)], "of which 70 % are to train on"


def test_the_command_does_the_same(linear, tmp_path):
    pw.save_denoiser(linear, tmp_path / "net")
    words = [
        *("--teacher", tmp_path / "net", "--radii", "1", "--cheap-globals", "none", "--size", "smoke"),
        *("--features", "random", "--local-epochs", 1, "--n-losses", 40, "--budget", 1, "--out", tmp_path / "run"),
    ]
    dry = distill(*words, "--samples-as-data", 400, "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    assert "400 images are drawn by the teacher" in dry.output
    assert "train-r1" in dry.output
    assert not (tmp_path / "run").exists()
    first = distill(*words, "--samples-as-data", 400)
    assert first.exit_code == 0, (first.stderr, first.exception)
    assert "400 of 400 drawn" in first.output
    assert (tmp_path / "run" / "hybrid" / "README.md").is_file()
    again = distill("--out", tmp_path / "run")
    assert again.exit_code == 0, again.stderr
    assert again.output.count("done before") == 8
    plan = distill("--out", tmp_path / "run", "--dry-run")
    assert plan.output.count("done") == 8


# --- bad input ------------------------------------------------------------------------------------------------------


class Spoken(pw.Denoiser):
    """Takes a condition that is no class label."""

    takes_condition = True

    def forward(self, x_t, t, cond=None):
        return x_t


REFUSED = {
    "another shape": (lambda c: pw.distil(pw.LocalDenoiser((1, 6, 6), 1), c.data, out=c.out), "shape (1, 6, 6)"),
    "shape of a tensor": (lambda c: pw.distil(c.linear, torch.rand(60, 3, 8, 8), out=c.out), "(3, 8, 8)"),
    "a hybrid": (lambda c: pw.distil(c.hybrid, c.data, out=c.out), "a schedule of several denoisers"),
    "a bound condition": (lambda c: pw.distil(c.linear_given, c.data, out=c.out), "cannot be saved"),
    "another pixel range": (lambda c: pw.distil(c.linear, c.data.train * 255, out=c.out), "another --pixel-range"),
    "images without labels": (lambda c: pw.distil(c.told, c.data.train, out=c.out), "has no labels"),
    "no folder": (lambda c: pw.distil(c.out / "none", c.data, out=c.out), "holds no denoiser"),
    "a radius too large": (lambda c: pw.distil(c.linear, radii=(9,), out=c.out), "larger than the image"),
    "few samples": (lambda c: pw.distil(c.linear, samples=LEAST_SAMPLES - 1, out=c.out), f">= {LEAST_SAMPLES}"),
    "samples and data": (lambda c: pw.distil(c.linear, c.data, samples=200, out=c.out), "contradict"),
    "a size of a U-Net": (lambda c: pw.distil(c.linear, cheap_globals=("tiny",), out=c.out), "unknown cheap_globals"),
    "an option": (lambda c: pw.distil(c.linear, bugdet=1, out=c.out), "no option 'bugdet'"),
    "not to distil": (lambda c: pw.distil(c.linear, distill=False, out=c.out), "contradicts itself"),
    "a number": (lambda c: pw.distil(3, out=c.out), "teacher must be the path"),
    "a budget": (lambda c: pw.distil(c.net, radii=(1,), budget=0.001, out=c.out), "no schedule fits a budget"),
}


@pytest.fixture(scope="module")
def given(data, linear, teacher):
    from types import SimpleNamespace

    told = pw.UNetDenoiser(SHAPE, width=8, classes=10)
    told.fit_moments(data.train)
    plan = HybridSchedule((1.0, 0.5), ("a", "b"))
    hybrid = HybridDenoiser({"a": linear, "b": WienerDenoiser.fit(data.train, 1)}, plan)
    return SimpleNamespace(data=data, linear=linear, told=told, hybrid=hybrid, linear_given=told.given(1), net=teacher)


@pytest.mark.parametrize("name", REFUSED)
def test_it_says_what_is_wrong(name, given, tmp_path):
    call, said = REFUSED[name]
    given.out = tmp_path / "run"
    with pytest.raises(PhasewiseError) as caught:
        call(given)
    assert said in str(caught.value)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_condition_that_is_no_label_is_refused():
    from phasewise.pipeline.teachers import classes_of

    assert classes_of(pw.UNetDenoiser(SHAPE, width=8)) is None
    with pytest.raises(PhasewiseError, match=r"no class label.*a class of your own that binds one"):
        classes_of(Spoken(SHAPE))


def test_others_are_left_alone(done, linear, teacher, data, tmp_path):
    with pytest.raises(RunFolderError, match="made with another teacher"):
        pw.distil(linear, data, out=done.root, **TINY)
    with pytest.raises(RunFolderError, match="made of other images"):
        pw.distil(teacher, data.train, out=done.root, **TINY)
    with pytest.raises(RunFolderError, match="another config"):
        pw.distil(teacher, data, out=done.root, **{**TINY, "local_epochs": 3})
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="holds no phasewise run"):
        pw.distil(teacher, data, out=tmp_path, **TINY)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.txt"]


def test_a_member_learns_from_one_before_it():
    config = make_config(8, "smoke", member={"x": {"kind": "local", "radius": 3, "epochs": 1, "teacher": "global"}})
    assert config.members[-1].teacher == "global"
    with pytest.raises(PhasewiseError, match="to learn from 'y', which is none of those before it: global"):
        make_config(8, "smoke", member={"x": {"kind": "local", "radius": 3, "epochs": 1, "teacher": "y"}})
