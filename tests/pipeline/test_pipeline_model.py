"""A whole run of somebody's network: nothing is trained, its own schedule is judged beside the hybrid, bad input is
refused before the folder is claimed."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("diffusers")

import phasewise as pw
from phasewise import cli
from phasewise.bridges.diffusers import read_folder, solver_of
from phasewise.diagnosis import claims as claims_of
from phasewise.display import percent
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.files import read_json
from phasewise.paths import TablePath
from phasewise.pipeline import config_for, run_pipeline
from phasewise.pipeline.conditions import sampled_labels
from phasewise.pipeline.exporting import other_forms
from phasewise.pipeline.models import hold_against_filter, open_source, split_source
from phasewise.pipeline.run import describe_cost, describe_plan
from phasewise.pipeline.stages import all_stages
from phasewise.runs.config import command
from phasewise.runs.parts import HOMES
from studies.guests.fixtures import MAKERS, save_folder

FEW = {"data": "digits", "limit": 200, "features": "pca", "n_samples": 100, "user_steps": 6}
FEW |= {"n_losses": 40, "n_recovery": 10, "steps": 3}


@pytest.fixture(scope="module")
def guests(tmp_path_factory):
    """Pipeline folders of two fresh networks of 8 pixels a side: they have learnt nothing."""
    root = tmp_path_factory.mktemp("guests")
    torch.manual_seed(0)
    with torch.random.fork_rng():
        return {kind: save_folder(kind, MAKERS[kind]((1, 8, 8), "tiny"), root / kind) for kind in MAKERS}


@pytest.fixture(scope="module", autouse=True)
def _no_guessing():
    """A thousand ways to speak to a network that has learnt nothing need not be tried."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims_of, "_why", lambda *_: "it has learnt nothing")
        yield


def asked(folder, model, **given):
    return config_for(folder, "smoke", {"model": model, **FEW, **given})


def collect(config, folder, **more):
    lines = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhasewiseWarning)
        run_pipeline(config, folder, say=lines.append, **more)
    return lines


@pytest.fixture(scope="module")
def unet_run(guests, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unet"
    lines = collect(asked(folder, {"global": str(guests["unet"])}), folder)
    return folder, lines


@pytest.fixture(scope="module")
def pair_run(guests, tmp_path_factory):
    """A transformer that is told classes, on flow matching, and a U-Net that is not, on a table of betas."""
    folder = tmp_path_factory.mktemp("runs") / "pair"
    models = {"global": str(guests["transformer"]), "late": f"{guests['unet']}#unet"}
    lines = collect(asked(folder, models, radii=()), folder, command="export")
    return folder, lines


def invoke(*words):
    return CliRunner().invoke(cli.app, [str(w) for w in words])


# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_nothing_is_trained_and_closed_forms_stand_beside_the_network(unet_run):
    folder, lines = unet_run
    run = pw.open_run(folder)
    assert [m.name for m in run.declared] == ["global", "wiener", "wiener-r1", "wiener-r2", "wiener-r3"]
    assert run.training == {}
    stages = [x[1 : x.index("]")] for x in lines if x.startswith("[")]
    assert "take-global" in stages
    assert not [s for s in stages if s.startswith("train-")]
    assert run.losses.path["name"] == "table", "times are the network's own"
    assert run.recovery.names == run.losses.names


def test_the_networks_own_pixels_are_the_default(unet_run, guests, tmp_path):
    assert pw.open_run(unet_run[0]).data.pixel_range == (-1, 1)
    other = asked(tmp_path / "new", {"global": str(guests["unet"])}, pixel_range=(0.0, 255.0))
    assert other.data.pixel_range == (0, 255)


def test_other_pixels_are_translated(guests):
    """The same images, in whatever units, get the same answer in these units."""
    theirs, ours = open_source(str(guests["unet"]), (-1, 1)), open_source(str(guests["unet"]), (10.0, 14.0))
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    mine = 12 + 2 * x
    answer = theirs(theirs.path.add_noise(x, z, 0.4), 0.4)
    moved = ours.path.alpha(torch.tensor(0.4)) * mine + 2 * theirs.path.sigma(torch.tensor(0.4)) * z
    assert torch.allclose(ours(moved, 0.4), 12 + 2 * answer, atol=1e-4)


def test_the_users_schedule_is_judged_beside_the_hybrid(unet_run, guests):
    folder, lines = unet_run
    run = pw.open_run(folder)
    own = run.schedules["own"]
    network = read_folder(guests["unet"])
    assert own.times == network.times(6)
    assert own.solver == "ancestral"
    assert set(own.assignment) == {"global"}
    per_call = run.prices.flops[run.prices.names.index("global")] / 1e6
    assert own.mflop == pytest.approx(6 * per_call)
    hybrid = run.evaluations["hybrid"]
    assert {"global", "own"} <= hybrid.fid_minus.keys()
    assert run.evaluations["own"].label == "your schedule (DDPMScheduler, 6 steps)"
    assert "your schedule: DDPMScheduler, 6 steps by ancestral" in lines
    assert not {"window", "local_only", "spread"} & run.schedules.keys(), "there is no local network"
    assert set(run.schedules["stitched"].assignment) <= {"wiener", "global"}


def test_what_can_be_taken_home_is_the_hybrid_of_the_run(unet_run):
    run = pw.open_run(unet_run[0])
    home = pw.load_denoiser(unet_run[0] / "hybrid")
    assert home.schedule == run.schedules["hybrid"]
    assert torch.equal(pw.sample(home, n=3, seed=4), pw.sample(run.hybrid(), n=3, seed=4))
    assert pw.HybridSchedule.load(unet_run[0] / "exports" / "schedule.json") == run.schedules["hybrid"]


def test_where_the_network_takes_over_is_measured_in_every_unit(unet_run, guests):
    run = pw.open_run(unet_run[0])
    ((name, (found, units)),) = run.boundaries.items()
    assert (name, found.early, found.late, found.reference) == ("wiener", "wiener", "global", "global")
    clock = read_folder(guests["unet"]).clock
    if 0 < found.step < len(found.times):
        assert units["timestep"] == pytest.approx(clock.timestep_of_time(found.t))
    assert units.steps == 6, "the steps of its own scheduler"
    page = (unet_run[0] / "report.html").read_text()
    assert "When to switch" in page
    assert found.sentences()[0] in page


def test_how_far_the_network_sees_is_measured(unet_run, pair_run):
    for folder in (unet_run[0], pair_run[0]):
        found = pw.open_run(folder).reach
        assert found.name == "global"
        assert found.influence.n == 10
        assert found.attention is not None
        assert np.isfinite(found.influence.share).all()
    assert "How far the network sees" in (unet_run[0] / "report.html").read_text()


def test_forms_of_other_programs_are_exported_where_they_fit(guests):
    clock = read_folder(guests["unet"]).clock
    two = pw.HybridSchedule((1.0, 0.5, 0.1), ("global", "wiener", "wiener"), path=clock.path.config())
    found = other_forms(two, clock)
    assert found["boundary_ratio"] == two.export("boundary_ratio", clock=clock)
    assert found["steps_computation_mask"] == [1, 0, 0]
    assert found["without"] == {}
    late = other_forms(pw.HybridSchedule((1.0, 0.5, 0.1), ("wiener", "global", "wiener")), None)
    assert set(late) == {"without"}
    assert set(late["without"]) == {"boundary_ratio", "denoising_end", "steps_computation_mask"}


def test_the_page_speaks_of_your_schedule_and_of_no_local_network(unet_run):
    page = (unet_run[0] / "report.html").read_text()
    own, hybrid = (pw.open_run(unet_run[0]).evaluations[n] for n in ("own", "hybrid"))
    assert f"Your schedule: {own.measure}" in page
    assert f"hybrid takes {percent(hybrid.mflop, own.mflop)}" in page
    assert "To take home" in page
    for wrong in ("ocality pays", "ocality does not", "from locality", "control", "phasewise train`"):
        assert wrong not in page.split("Configuration")[0], wrong
    assert "Look at this first. global: its loss is" in page, "it has learnt nothing"


def test_a_second_run_does_nothing_and_its_command_repeats_it(unet_run):
    folder, _ = unet_run
    found = pw.open_run(folder)
    assert all("done before" in x for x in collect(found.config, folder))
    words = found.info["command"].split()
    at = words.index("--model") + 1
    text = words[at].strip("'")
    assert HOMES["model"][1].parse([text]) == found.config.train.model
    assert command(found.config) == found.info["command"]


def test_a_changed_schedule_alone_is_made_anew(unet_run, tmp_path):
    folder = shutil.copytree(unet_run[0], tmp_path / "run")
    changed = pw.open_run(folder).config.changed(user_steps=4)
    redone = [x[1 : x.index("]")] for x in collect(changed, folder, update=True, command="export") if "] stage " in x]
    assert redone == ["schedule", "hybrid", "evaluate", "boundary", "export"]
    assert len(pw.open_run(folder).schedules["own"].times) == 4


# --- two networks, one told classes ---------------------------------------------------------------------------------


def test_two_networks_on_different_noise_are_translated(pair_run, guests):
    folder, _ = pair_run
    run = pw.open_run(folder)
    assert run.losses.names == ("global", "late", "wiener")
    assert run.losses.path["name"] == "linear"
    assert isinstance(run.denoiser("late").path, TablePath)
    assert run.config.schedule.penalty == "kl", "a distance from the reference would never prefer the other"
    assert np.isfinite(run.prices.losses.loss).all()
    found, _ = run.boundaries["late"]
    assert (found.early, found.late, found.reference) == ("global", "late", None), "held-out images judge both"


def test_labels_of_samples_are_drawn_as_the_data_have_them(pair_run):
    folder, _ = pair_run
    run = pw.open_run(folder)
    counts = run.classes
    assert sum(counts) == run.data.sizes["train"]
    assert len(counts) == 10
    many = sampled_labels(counts, 20000, 3)
    share = torch.bincount(many, minlength=10).double() / 20000
    expected = torch.tensor(counts).double() / sum(counts)
    assert (share - expected).abs().max() < 5 * (0.1 * 0.9 / 20000) ** 0.5
    assert torch.equal(sampled_labels(counts, 7, 3), many[:7])
    assert not torch.equal(sampled_labels(counts, 7, 4), many[:7])
    assert sampled_labels((0, 5, 0), 4, 0).tolist() == [1, 1, 1, 1]


def test_samples_are_those_of_the_labels(pair_run):
    folder, _ = pair_run
    run = pw.open_run(folder)
    n = 100
    images = pw.sample(run.hybrid("global"), n=n, seed=0, cond=sampled_labels(run.classes, n, 0), batch=250)
    expected = ((images[:16].clamp(-1, 1) + 1) / 2 * 255).round().to(torch.uint8).numpy()
    assert np.abs(run.samples["global"][:16].astype(int) - expected).max() <= 1


def test_sample_evaluate_and_compare_take_such_runs(pair_run, unet_run, tmp_path):
    folder = shutil.copytree(pair_run[0], tmp_path / "pair")
    drawn = invoke("sample", "--run", folder, "--schedule", "own", "--n", 4, "--out", tmp_path / "a.npz", "-q")
    assert drawn.exit_code == 0, drawn.output
    assert np.load(tmp_path / "a.npz")["images"].shape == (4, 8, 8, 1)
    judged = invoke("evaluate", "--out", folder, "--schedule", folder / "exports" / "schedule.json", "--samples", 100)
    assert judged.exit_code == 0, judged.output
    assert "schedule" in judged.output
    words = ("--early", "global", "--late", "late", "--steps", 3, "--n", 20)
    switched = invoke("boundary", "--run", folder, *words)
    assert switched.exit_code == 0, switched.output
    both = invoke("compare", folder, unet_run[0])
    assert both.exit_code == 0, both.output
    assert "own" in both.output


# --- what is refused, and said --------------------------------------------------------------------------------------


def refused(tmp_path, model, **given):
    with pytest.raises(PhasewiseError) as caught:
        run_pipeline(asked(tmp_path / "run", model, **given), tmp_path / "run")
    assert not (tmp_path / "run").exists(), "refused before anything is claimed"
    return str(caught.value)


def test_nothing_is_imported_from_the_command_line(tmp_path):
    for text in ("my.module:make", "package.module", "os:system"):
        said = invoke("run", "--model", text, "--data", "digits", "--out", tmp_path / "run")
        assert said.exit_code == 2
        assert "nothing is imported from the command line" in said.stderr
        assert "pw.wrap" in said.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "late={unet}"), "the first --model is the reference"),
        (("--model", "{unet}", "--model", "{unet}"), "two models are called global"),
        (("--model", "{unet}", "--cheap-globals", "coarse"), "--cheap-globals: for networks trained here"),
        (("--model", "{unet}", "--block", "3"), "measured with --cmi only"),
        (("--model", "nowhere"), "there is no folder nowhere"),
        (("--model", "{unet}/scheduler"), "holds no network"),
        (("--model", "{unet}#vae"), "has no 'vae'; it has unet"),
    ],
)
def test_words_that_name_no_network(guests, tmp_path, words, message):
    words = [w.format(unet=guests["unet"]) for w in words]
    said = invoke("run", *words, "--data", "digits", "--size", "smoke", "--out", tmp_path / "run")
    assert said.exit_code == 2
    assert message in said.stderr
    assert not (tmp_path / "run").exists()


def test_the_images_must_be_named(guests, tmp_path):
    said = invoke("run", "--model", guests["unet"], "--out", tmp_path / "run")
    assert said.exit_code == 2
    assert "say which images the network was trained on: --data" in said.stderr


def test_images_of_another_shape_are_refused_with_what_mends_it(guests, tmp_path):
    said = refused(tmp_path, {"global": str(guests["unet"])}, resize=(4,), color="rgb")
    assert "a network of another channel count or size than the data" in said
    assert "--resize 8 --color gray" in said


def test_a_network_that_needs_classes_needs_labels(guests, tmp_path):
    file = tmp_path / "plain.npz"
    images = np.random.default_rng(0).integers(0, 255, (120, 8, 8), dtype=np.uint8)
    np.savez(file, images=images)
    said = refused(tmp_path, {"global": str(guests["transformer"])}, data=str(file))
    assert "'global' needs class labels, and" in said


def test_answers_that_are_no_numbers_are_named_with_their_time(guests, tmp_path):
    folder = shutil.copytree(guests["unet"], tmp_path / "broken")
    network = read_folder(folder).module
    with torch.no_grad():
        network.conv_out.bias.fill_(float("nan"))
    network.save_pretrained(folder / "unet")
    assert "NaN or infinity at t = 1" in refused(tmp_path, {"global": str(folder)})


def test_weights_that_are_no_safetensors_and_code_of_others(guests, tmp_path):
    folder = shutil.copytree(guests["unet"], tmp_path / "old")
    next(folder.glob("unet/*.safetensors")).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    assert "as a pickle only" in refused(tmp_path, {"global": str(folder)})
    folder = shutil.copytree(guests["unet"], tmp_path / "code")
    index = read_json(folder / "model_index.json")
    (folder / "model_index.json").write_text(json.dumps({**index, "unet": ["pipeline_of_mine", "MyUNet"]}))
    assert "no class of diffusers" in refused(tmp_path, {"global": str(folder)})


def test_a_scheduler_that_contradicts_the_network(guests, tmp_path):
    folder = shutil.copytree(guests["unet"], tmp_path / "other")
    config = read_json(folder / "unet" / "config.json")
    (folder / "unet" / "config.json").write_text(json.dumps({**config, "num_train_timesteps": 250}))
    assert "made for 250 steps, DDPMScheduler has 1000" in refused(tmp_path, {"global": str(folder)})


def test_a_network_of_other_data_is_refused(guests, tmp_path):
    data = pw.load_images("digits")
    other = pw.WienerDenoiser.fit(data.train * 40)
    pw.save_denoiser(other, tmp_path / "other")
    models = {"global": str(guests["unet"]), "late": str(tmp_path / "other")}
    said = refused(tmp_path, models)
    assert "'late' was made for pixels of mean" in said
    assert "--pixel-range" in said


def test_a_network_is_held_against_the_filter(guests, tmp_path):
    data = pw.load_images("digits", limit=200, pixel_range=(-1, 1))
    with pytest.warns(PhasewiseWarning, match="global: its loss is .* times the Wiener filter's .*learnt nothing"):
        found = hold_against_filter("global", read_folder(guests["unet"]), data)
    assert not found["ok"]
    assert found["ratio"] > 2
    pw.save_denoiser(pw.WienerDenoiser.fit(data.train), tmp_path / "good")
    config = asked(tmp_path / "run", {"global": str(tmp_path / "good")}, pixel_range=(-1.0, 1.0))
    lines = collect(config, tmp_path / "run", command="diagnose")
    assert any(x.startswith("global: as it should be: at t = ") for x in lines)
    assert pw.open_run(tmp_path / "run").claims["global"]["ok"]


def test_a_scheduler_whose_config_names_infinity_is_read_and_kept(guests, tmp_path):
    import diffusers

    folder = shutil.copytree(guests["unet"], tmp_path / "dpm")
    diffusers.DPMSolverMultistepScheduler().save_pretrained(folder / "scheduler")
    assert "Infinity" in (folder / "scheduler" / "scheduler_config.json").read_text()
    network = open_source(str(folder), (-1, 1))
    kept = pw.load_denoiser(pw.save_denoiser(network, tmp_path / "kept"))
    assert kept.times(7) == network.times(7)
    assert solver_of(kept.scheduler) == "dpmpp_2m"


# --- beforehand -----------------------------------------------------------------------------------------------------


def test_a_plan_says_what_is_taken_and_how_long_it_takes(guests, tmp_path):
    config = asked(tmp_path / "run", {"global": str(guests["unet"])})
    plan = describe_plan(config, tmp_path / "run")
    assert ("take-global", "to do", f"source {guests['unet']}") in plan
    lines = describe_cost(config, tmp_path / "run")
    parameters = sum(p.numel() for p in read_folder(guests["unet"]).parameters())
    assert lines[0].startswith(f"global: {parameters:,} parameters")
    assert lines[0].endswith("taken as it is")
    assert "in all about" in lines[-1]
    assert not (tmp_path / "run").exists()


def test_the_name_of_a_run_is_that_of_network_and_images(guests):
    from phasewise.pipeline import default_folder

    assert str(default_folder("digits", {"global": f"{guests['unet']}#unet"})) == "runs/unet-digits"
    assert str(default_folder("digits")) == "runs/digits"
    assert split_source(f"{guests['unet']}#unet") == (guests["unet"], "unet")


def test_solvers_of_schedulers():
    import diffusers

    known = {
        "DDIMScheduler": "ddim", "DDPMScheduler": "ancestral", "EulerDiscreteScheduler": "ddim",
        "DPMSolverMultistepScheduler": "dpmpp_2m", "FlowMatchEulerDiscreteScheduler": "ddim", "PNDMScheduler": None,
    }  # fmt: skip
    assert {name: solver_of(getattr(diffusers, name)()) for name in known} == known
    assert solver_of(diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")) == "sde_dpmpp_2m"
    assert solver_of(diffusers.DPMSolverMultistepScheduler(solver_order=1)) == "ddim"


def test_students_of_a_model_join_where_it_distils(guests, tmp_path):
    config = asked(tmp_path / "run", {"global": str(guests["unet"])}, distill=True, radii=(1, 2), local_epochs=1)
    members = {m.name: (m.kind, m.teacher) for m in config.members}
    assert members == {
        "global": ("model", None), "r1": ("local", "global"), "r2": ("local", "global"), "wiener": ("wiener", None),
    }  # fmt: skip
    stages = {s.name: s.needs for s in all_stages(config)}
    assert stages["train-r1"] == ("data", "take-global")
    with pytest.raises(PhasewiseError, match="--teacher and --model both say"):
        config.changed(teacher="x")
    collect(config.changed(radii=(1,), window_radius=1), tmp_path / "run", command="train")
    assert pw.open_run(tmp_path / "run").training["r1"].steps > 0
