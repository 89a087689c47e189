"""Runs whose networks are told the class: what they learn, how they sample, what is redone, what is refused."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import phasewise as pw
from phasewise.cli import app
from phasewise.denoisers import save_denoiser
from phasewise.errors import PhasewiseError
from phasewise.pipeline import Teller, make_config, run_pipeline, trials
from phasewise.pipeline.ahead import check_before
from phasewise.pipeline.bounding import boundary_in
from phasewise.pipeline.conditions import asked_labels, sampled_labels
from phasewise.pipeline.guiding import check_guidance, classes_told, guide_members, guided, is_guided, unguided
from phasewise.pipeline.judging import Judge, evaluate_all
from phasewise.pipeline.placing import Placing
from phasewise.pipeline.stages import Context, all_stages
from phasewise.pipeline.teachers import classes_of
from phasewise.pipeline.use import config_for
from phasewise.runs import open_run
from phasewise.runs.config import command
from phasewise.runs.run import Run

SCALE = 3.0
PLAN = {"radii": (1,), "window_radius": 1, "cmi": False, "control": False, "place": 0, "n_recovery": 10}


def config(**given):
    return make_config(8, "smoke", **{**PLAN, "guidance": SCALE, **given})


def stages_done(folder: Path, plan) -> list[str]:
    lines: list[str] = []
    run_pipeline(plan, folder, update=True, say=lines.append)
    return [found[1] for line in lines if (found := re.match(r"\[([\w.+-]+)\] stage", line))]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return open_run(run_pipeline(config(), tmp_path_factory.mktemp("told") / "run", say=lambda _: None))


@pytest.fixture
def copy(told, tmp_path):
    return Path(shutil.copytree(told.root, tmp_path / "run"))


def test_networks_are_told_and_guided(told):
    for name in ("global", "r1"):
        kept = told.denoiser(name)
        assert isinstance(kept, pw.GuidedDenoiser)
        assert (kept.scale, kept.null.tolist(), kept.member.classes) == (SCALE, [10], 11)
    assert not told.denoiser("wiener").takes_condition
    assert dict(told.training)["global"].preset["hidden"] == 0.1
    hybrid, labels = told.hybrid("global"), torch.arange(6)
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    inner = told.denoiser("global").member
    null = torch.full((6,), 10)
    by_hand = inner(x, 0.5, null) + SCALE * (inner(x, 0.5, labels) - inner(x, 0.5, null))
    assert torch.allclose(hybrid(x, 0.5, labels), by_hand, atol=1e-5)
    assert not torch.allclose(inner(x, 0.5, labels), inner(x, 0.5, labels.flip(0)), atol=1e-4), "the class tells"


def test_a_step_costs_both_calls(told):
    prices, inner = told.prices, told.denoiser("global").member
    once = pw.metrics.count_flops(inner.given(0), inner.image_shape)
    assert prices.flops[prices.names.index("global")] == pytest.approx(2 * once)
    assert [is_guided(config(guidance=g)) for g in (3.0, 1.0, 0.0)] == [True, False, False]


def test_a_diagnosis_asks_without_guidance(told):
    ctx = Context(told, config(), Teller.of(lambda _: None))
    asked, sampling = ctx.asked(), ctx.denoisers()
    assert asked["global"] is told.denoiser("global").member
    assert sampling["global"] is told.denoiser("global")
    # held-out losses are those of posterior means, told the class
    table, labels = told.losses, ctx.cond(asked, "test", 100)
    redone = pw.diagnosis.measure_losses(asked, ctx.data.test[:100], table.times, cond=labels, seed=table.seed)
    assert redone.loss == pytest.approx(table.loss, rel=1e-4)


def test_samples_are_judged_by_the_class_asked_for(told):
    seen = {name: e.extra.get("class_seen_unseen") for name, e in told.evaluations.items()}
    labels = sampled_labels(told.classes, 150, 0)
    images = pw.sample(told.hybrid("global"), n=150, seed=0, cond=labels).clamp(0, 1)
    assert seen["global"] == pytest.approx(told.features(unseen=True).accuracy(images, labels))
    assert seen["closed_only"] is None, "a linear filter is told no class"
    report = (told.root / "report.html").read_text()
    assert "told the class, guided 3-fold" in report
    assert "class asked for, seen" in report


def test_a_told_member_without_a_price_is_judged(copy):
    run, data = Run(copy), pw.load_images("digits")
    once = pw.GuidedDenoiser(run.denoiser("global").member, 1.0, null=10)
    plan = replace(run.schedules["global"], assignment=("once",) * 5, mflop=None)
    judge = Judge.of_data(data, run.judges(), config())
    plans = {"global": run.schedules["global"], "mine": plan}
    members = {**run.denoisers(), "once": once}
    full, mine = evaluate_all(members, plans, run.prices, judge, config(), Teller.of(lambda _: None)).evaluations
    assert mine.mflop == pytest.approx(full.mflop / 2)


def test_another_scale_trains_nothing_again(copy):
    weights = (copy / "models" / "global" / "member" / "weights.safetensors").read_bytes()
    done = stages_done(copy, config(guidance=1.0))
    assert done == ["guide", "schedule", "evaluate", "report"]
    assert (copy / "models" / "global" / "member" / "weights.safetensors").read_bytes() == weights
    assert Run(copy).denoiser("global").scale == 1.0
    assert stages_done(copy, config(guidance=1.0)) == []


def test_a_network_made_again_is_guided_as_the_others(copy):
    shutil.rmtree(copy / "models" / "r1")
    run_pipeline(config(), copy, command="train", say=lambda _: None)
    assert Run(copy).denoiser("r1").scale == SCALE


def test_a_stop_half_way_leaves_no_scale_for_done(copy, monkeypatch):
    monkeypatch.setattr("phasewise.pipeline.stages.guide_members", lambda *_: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception):
        run_pipeline(config(guidance=1.0), copy, update=True, say=lambda _: None)
    monkeypatch.undo()
    assert stages_done(copy, config())[0] == "guide"


def test_a_judgement_is_of_one_scale(told, copy):
    plan, judge = told.schedules["global"], Judge(told.judges(), (0.0, 1.0), {})
    other = Run(copy)
    assert trials._key(other, plan, judge) == trials._key(told, plan, judge)
    guide_members(other, ["global"], 2.0)
    assert trials._key(other, plan, judge) != trials._key(told, plan, judge)


def test_held_out_losses_choose_no_guided_schedule(told):
    assert set(told.fronts) == {"frechet", "w2"}
    assert all(e.nats is None for e in told.evaluations.values())
    data = pw.load_images("digits", limit=60)
    for penalty in ("kl", "flow"):
        with pytest.raises(PhasewiseError, match=f"--penalty {penalty} counts held-out losses"):
            check_guidance(config(penalty=penalty), data)
        check_guidance(config(penalty=penalty, guidance=1.0), data)


def test_who_is_told_the_class_takes_the_first_step(told):
    placing = Placing(told.denoisers(), told.prices, None, None, config(), Teller.of(lambda _: None))
    assert placing.opening == []
    assert placing.opened(("global", "r1")) == ("global", "r1"), "there is a mean of each class"
    untold = {**placing.members, "global": told.denoiser("wiener")}
    assert replace(placing, members=untold).opening == ["wiener"]
    assert replace(placing, members=untold).opened(("global", "r1")) == ("wiener", "r1")


def test_a_boundary_by_losses_asks_without_guidance(told, monkeypatch):
    asked = []
    monkeypatch.setattr("phasewise.pipeline.bounding.boundary", lambda a, b, *_, **__: asked.extend((a, b)))
    boundary_in(told, "global", "r1")
    boundary_in(told, "global", "r1", reference="late")
    assert [isinstance(d, pw.GuidedDenoiser) for d in asked] == [False, False, True, True]


def test_a_run_of_before_is_repeated_untold():
    before = make_config(32, "cpu", data="cifar10")
    assert before.train.guidance is None
    assert "--guidance 0" in command(before)
    named = config_for(Path("nowhere"), "cpu", {"data": "cifar10"})
    assert "--guidance 2.0" in command(named)
    for quiet in (make_config(28, "cpu", data="mnist"), make_config(32, "cpu", data="folder"), make_config(8)):
        assert "--guidance" not in command(quiet)


def test_without_it_stages_are_what_they_were():
    plain = {s.name: s.depends for s in all_stages(make_config(8, "smoke"))}
    off = {s.name: s.depends for s in all_stages(make_config(8, "smoke", guidance=0.0))}
    assert plain == off
    assert "guide" not in plain
    assert "told" not in plain["train-global"]
    assert all("guidance" not in choices for choices in plain.values())


def test_who_is_told_by_default():
    named = config_for(Path("nowhere"), "cpu", {"data": "cifar10"})
    assert named.train.guidance == 2.0
    assert {m.name for m in named.members if not m.told} == {"wiener"}
    for given in (
        {"label_column": "none"},
        {"guidance": 0.0},
        {"global_width": 32},
        {"networks": "models"},
        {"data": "mnist"},
        {"data": "clothing128"},
        {"distill": True},
    ):
        other = config_for(Path("nowhere"), "cpu", {"data": "cifar10", **given})
        assert not other.train.guidance, given
        assert not any(m.told for m in other.members), given
    for given, scale in (({"guidance": 4.0}, 4.0), ({"distill": False}, 2.0)):
        assert config_for(Path("nowhere"), "cpu", {"data": "cifar10", **given}).train.guidance == scale


def test_what_cannot_be_told_is_refused(told, tmp_path):
    data = pw.load_images("digits", limit=60)
    blank = pw.load_images(data.train)
    with pytest.raises(PhasewiseError, match=r"--guidance tells networks the class, and .* has no labels"):
        check_before(config(), blank, ["train-global"])
    with pytest.raises(PhasewiseError, match="--guidance is for networks trained here"):
        make_config(8, "smoke", guidance=2.0, teacher="folder")
    with pytest.raises(PhasewiseError, match="guidance must be at least 0"):
        make_config(8, "smoke", guidance=-1.0)
    untold = pw.UNetDenoiser((1, 8, 8), width=8)
    with pytest.raises(PhasewiseError, match="the one in there is told no class"):
        guided(untold, data, 1.0, "there")
    with pytest.raises(PhasewiseError, match=r"tells every network 11 labels.*is told 10"):
        guided(pw.UNetDenoiser((1, 8, 8), width=8, classes=10), data, 1.0, "there")
    partly = replace(data, labels_test=None)
    with pytest.raises(PhasewiseError, match="no labels of its test images"):
        classes_told(partly)
    with pytest.raises(PhasewiseError, match="guidance must be a finite number"):
        make_config(8, "smoke", guidance=float("inf"))
    with pytest.raises(PhasewiseError, match="no posterior means to learn; give the network in it"):
        classes_of(told.denoiser("global"))
    assert classes_of(told.denoiser("global").member) == 11
    assert unguided(untold) is untold
    assert classes_told(data) == 11


def test_networks_of_a_told_run_are_taken(told, tmp_path):
    plan = config(networks=str(told.root / "models"), guidance=2.0)
    run = Run(run_pipeline(plan, tmp_path / "again", command="schedule", say=lambda _: None))
    one, other = run.denoiser("global"), told.denoiser("global")
    assert (one.scale, other.scale) == (2.0, SCALE)
    x, labels = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 8])
    assert torch.equal(one.member(x, 0.4, labels), other.member(x, 0.4, labels))
    save_denoiser(pw.UNetDenoiser((1, 8, 8), width=8), tmp_path / "plain" / "r1")
    with pytest.raises(PhasewiseError, match="is told no class"):
        run_pipeline(config(networks=str(tmp_path / "plain")), tmp_path / "other", command="train", say=lambda _: None)
    assert not (tmp_path / "other").exists(), "known before anything is trained"
    untold = make_config(8, "smoke", **PLAN, networks=str(told.root / "models"))
    with pytest.raises(PhasewiseError, match="holds a guided network, of a run whose networks are told the class"):
        run_pipeline(untold, tmp_path / "untold", command="train", say=lambda _: None)


def test_students_of_a_told_network(tmp_path):
    plan = config(distill=True, local_epochs=1, global_epochs=1)
    run = Run(run_pipeline(plan, tmp_path / "run", command="train", say=lambda _: None))
    assert run.denoiser("r1").member.classes == 11
    assert dict(run.training)["r1"].preset["hidden"] == 0.1


# --- the command line -----------------------------------------------------------------------------------------------


def test_classes_are_asked_for_by_number(told, tmp_path):
    assert asked_labels((0, 7), 3, (1, 1, 1, 1, 1, 1, 1, 1)).tolist() == [0, 7, 0]
    words = ["sample", "--run", str(told.root), "--n", "4", "--out"]
    grids = {}
    for label in ("1", "0,7", None):
        out = tmp_path / f"{label}.npz"
        result = CliRunner().invoke(app, [*words, str(out), *(["--label", label] if label else [])])
        assert result.exit_code == 0, result.output
        grids[label] = out.read_bytes()
    assert len(set(grids.values())) == 3
    wrong = CliRunner().invoke(app, [*words, str(tmp_path / "x.png"), "--label", "10"])
    assert "--label must be classes from 0 to 9; got 10" in wrong.output
    blind = CliRunner().invoke(app, ["sample", "--pretrained", "mnist", "--dry-run", "--label", "1"])
    assert "--label is for networks that are told a class" in blind.output
