"""Members are records: seeds, labels and building follow from their fields; a kind of your own is one object."""

import shutil

import pytest
import torch

import phasewise as pw
from phasewise.errors import PhasewiseError
from phasewise.pipeline import make_config, run_pipeline
from phasewise.pipeline.folder import RunFolder
from phasewise.pipeline.judging import cheap_partner
from phasewise.pipeline.stages import all_stages, build_untrained
from phasewise.report.style import Palette
from phasewise.runs import MEMBER_KINDS, Member, MemberKind, open_run, register_member_kind
from phasewise.runs.config import command, from_record, members_of

SHAPE = (1, 8, 8)


def test_members_follow_from_the_options_of_training():
    members = make_config(28, networks="nets", cheap_globals=("coarse",), radii=(1, 12), control=True).members
    assert [(m.name, m.kind, m.radius, m.size) for m in members] == [
        ("global", "global", None, None),
        ("coarse", "unet", None, "coarse"),
        ("r1", "local", 1, None),
        ("r12", "local", 12, None),
        ("control", "control", 12, None),
        ("wiener", "wiener", None, None),
    ]
    assert members[0].source == "nets/global"
    assert [m.label for m in members] == ["global", "coarse", "r = 1", "r = 12", "control", "Wiener"]


def test_initial_weights_differ_between_all_members_and_seeds():
    """By the sum of its letters r12 and r21 once had the same."""
    first, other = (Member(n, "local", radius=3) for n in ("r12", "r21"))
    assert first.initial_seed(0) != other.initial_seed(0)
    assert first.initial_seed(0) != first.initial_seed(1)
    a, b = (build_untrained(m, 0, SHAPE) for m in (first, other))
    assert not torch.equal(a.stem.weight, b.stem.weight)
    again = build_untrained(first, 0, SHAPE)
    assert torch.equal(a.stem.weight, again.stem.weight)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "features", "a b"])
def test_a_name_that_is_no_folder_is_refused(name):
    with pytest.raises(PhasewiseError, match="a member's name is letters"):
        Member(name, "local")


def test_two_members_of_one_name_are_refused():
    with pytest.raises(PhasewiseError, match="two members are called r1"):
        make_config(8, member={"r1": "elsewhere"})


def test_a_member_that_somebody_else_made_joins_a_run(smoke_run, tmp_path):
    """A folder with a denoiser, under any name: priced, scheduled, reported."""
    theirs = pw.LocalDenoiser(SHAPE, 2, width=8)
    theirs.fit_moments(pw.load_images("digits").train)
    pw.save_denoiser(theirs, tmp_path / "theirs")
    models = shutil.copytree(smoke_run / "models", tmp_path / "models")
    plan = make_config(8, "smoke", member={"theirs": str(tmp_path / "theirs")}, networks=str(models), cmi=False)
    lines: list[str] = []
    run = open_run(run_pipeline(plan, tmp_path / "run", command="schedule", say=lines.append))
    assert "theirs: taken from" in " ".join(lines)
    assert run.prices.names[-1] == "theirs"
    assert run.losses.radii[run.losses.column("theirs")] == 2
    assert Palette(run)["theirs"].label == "theirs"
    assert {m.name: m.kind for m in run.members}["theirs"] == "given"
    gone = make_config(8, "smoke", member={"theirs": str(tmp_path / "nowhere")}, networks=str(models), cmi=False)
    with pytest.raises(PhasewiseError, match=r"'theirs' is to come from .*nowhere, which holds no denoiser"):
        run_pipeline(gone, tmp_path / "other", command="train", say=lambda _: None)
    assert not (tmp_path / "other").exists(), "refused before anything is trained"
    # local, though the config knows no radius of it: no cheaper global network
    assert cheap_partner(plan, run.prices) == "r1"


def test_a_record_of_training_is_kept_by_the_name_it_has_here(smoke_run, tmp_path):
    teacher = shutil.copytree(smoke_run / "models" / "global", tmp_path / "teacher")
    shutil.copy(smoke_run / "records" / "training" / "global.json", teacher / "training.json")
    models = shutil.copytree(smoke_run / "models", tmp_path / "models")
    plan = make_config(8, "smoke", member={"teacher": str(teacher)}, networks=str(models), cmi=False)
    run = open_run(run_pipeline(plan, tmp_path / "run", command="train", say=lambda _: None))
    assert "teacher" in run.training
    # another source has no record: the old one goes
    (teacher / "training.json").unlink()
    moved = plan.changed(member={"teacher": str(shutil.copytree(teacher, tmp_path / "moved"))})
    run = open_run(run_pipeline(moved, tmp_path / "run", command="train", update=True, say=lambda _: None))
    assert "teacher" not in run.training


def test_a_schedule_is_no_member(smoke_run, tmp_path):
    pw.save_denoiser(open_run(smoke_run).hybrid("window"), tmp_path / "theirs")
    models = shutil.copytree(smoke_run / "models", tmp_path / "models")
    plan = make_config(8, "smoke", member={"theirs": str(tmp_path / "theirs")}, networks=str(models), cmi=False)
    with pytest.raises(PhasewiseError, match="holds a schedule of several denoisers"):
        run_pipeline(plan, tmp_path / "run", command="train", say=lambda _: None)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"kind": "local", "radius": 99}, "larger than the image"),
        ({"kind": "local"}, "needs a radius"),
        ({"kind": "wiener", "radius": 0}, "whole number of pixels"),
        ({"kind": "given"}, "needs a source"),
        ({"kind": "plan", "radius": 2}, "needs a factor"),
        ({"kind": "plan", "factor": 2}, "needs a radius"),
        ({"kind": "plan", "factor": 3, "radius": 2}, "does not divide"),
        ({"kind": "plan", "factor": 16, "radius": 2}, "larger than the image"),
    ],
)
def test_a_member_that_cannot_be_is_refused_before_training(about, message, tmp_path):
    plan = make_config(8, "smoke", member={"mine": about}, cmi=False)
    with pytest.raises(PhasewiseError, match=message):
        run_pipeline(plan, tmp_path / "run", say=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_a_trained_member_depends_on_how_it_is_trained(tmp_path):
    plan = make_config(8, "smoke", member={"mine": {"kind": "local", "radius": 2}})
    key = {n: _key(plan.changed(**c), f"train-{n}", tmp_path) for n, c in (("mine", {}), ("wiener", {}))}
    assert _key(plan.changed(batch=64), "train-mine", tmp_path) != key["mine"]
    assert _key(plan.changed(batch=64), "train-wiener", tmp_path) == key["wiener"]


def _key(plan, name, folder):
    stages = all_stages(plan)
    return RunFolder(folder, plan).key(next(s for s in stages if s.name == name), stages)


def test_a_kind_of_member_is_one_object(monkeypatch, smoke_run, tmp_path):
    """As CONTRIBUTING says: registered, it is trained, priced, scheduled and drawn."""
    monkeypatch.setattr(MEMBER_KINDS, "_entries", dict(MEMBER_KINDS.items()))
    register_member_kind(
        MemberKind(
            "thin",
            lambda m: f"thin {m.width}",
            "local",
            build=lambda m, s: pw.LocalDenoiser(s, m.radius, width=m.width),
        )
    )
    member = Member("thin1", "thin", radius=1, width=4, epochs=1)
    assert member.label == "thin 4"
    assert build_untrained(member, 0, SHAPE).width == 4
    plan = make_config(8, "smoke", member={"thin1": {"kind": "thin", "radius": 1, "width": 4, "epochs": 1}}, cmi=False)
    assert plan.members[-1] == member
    assert from_record(plan.to_dict()) == plan
    assert command(plan).endswith(
        """--member 'thin1={"kind": "thin", "radius": 1, "width": 4, "epochs": 1}' --no-cmi"""
    )
    plan = plan.changed(networks=str(smoke_run / "models"))
    run = open_run(run_pipeline(plan, tmp_path / "run", command="schedule", say=lambda _: None))
    assert run.denoiser("thin1").width == 4
    assert run.training["thin1"].steps > 0
    assert "thin1" in run.prices.names
    assert Palette(run)["thin1"].label == "thin 4"
    with pytest.raises(PhasewiseError, match="unknown kind of member 'thick'"):
        _ = make_config(8, member={"x": {"kind": "thick"}}).members
    with pytest.raises(PhasewiseError, match="member x is a folder, or an object with kind"):
        _ = make_config(8, member={"x": {"colour": "red"}}).members
    with pytest.raises(PhasewiseError, match="kind of member named 'thin' already"):
        register_member_kind(MemberKind("thin", lambda m: "", "other"))


def test_a_plan_is_a_kind_of_member(smoke_run, tmp_path):
    about = {"kind": "plan", "factor": 2, "radius": 2, "width": 8, "epochs": 0.1}
    plan = make_config(8, "smoke", member={"planned": about}, cmi=False, networks=str(smoke_run / "models"))
    run = open_run(run_pipeline(plan, tmp_path / "run", command="schedule", say=lambda _: None))
    planned = run.denoiser("planned")
    assert (planned.planner.image_shape, planned.planner.width, planned.local.radius) == ((1, 4, 4), 8, 2)
    assert "planned" in run.prices.names
    assert Palette(run)["planned"].label == "planned (plan, r = 2)"


def test_members_are_written_beside_the_config(smoke_run):
    run = open_run(smoke_run)
    assert run.members == run.config.members == members_of(run.config.train)
    assert [m["name"] for m in run.info["members"]] == run.model_names()
