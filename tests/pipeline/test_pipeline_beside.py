"""Evaluations beside a run's own, comparisons, shipped sets that are scheduled, samples as files, one process."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import phasewise as pw
from phasewise.cli import app
from phasewise.errors import PhasewiseError, RunFolderError
from phasewise.files import read_json
from phasewise.pipeline import Teller, compare_runs, make_config, run_pipeline
from phasewise.pipeline.beside import evaluate_beside, plan_from
from phasewise.pipeline.demo import open_demo
from phasewise.pipeline.telling import QUIET, VERBOSE
from phasewise.pipeline.trials import read_schedules
from phasewise.runs import open_run
from phasewise.runs.lock import alone_in
from phasewise.runs.trials import over_seeds, scores

MINE = {"times": [1.0, 0.6, 0.2], "assignment": ["wiener", "global", "control"], "solver": "heun"}


@pytest.fixture
def copy(smoke_run, tmp_path):
    return shutil.copytree(smoke_run, tmp_path / "run")


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(MINE))
    return file


def invoke(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


def test_a_schedule_of_ones_own_added_to_the_run_is_judged(copy):
    """Without a cost, off the grid, with the member that is there for diagnosis alone."""
    file = copy / "records" / "schedules.json"
    file.write_text(json.dumps({**read_json(file), "mine": MINE}))
    (copy / "records" / "evaluation.json").unlink()
    run_pipeline(make_config(8, "smoke"), copy, command="evaluate", say=lambda _: None)
    judged = open_run(copy).evaluations
    prices = open_run(copy).prices
    flops = dict(zip(prices.names, prices.flops, strict=True))
    control = pw.count_flops(open_run(copy).denoiser("control"), (1, 8, 8))
    assert judged["mine"].mflop == pytest.approx((flops["wiener"] + 2 * flops["global"] + control) / 1e6)
    assert judged["mine"].nats is None
    assert judged["mine"].fid > 0


def test_any_schedule_is_judged_beside_what_is_there_and_once(copy, mine):
    before = (copy / "records" / "evaluation.json").read_bytes()
    lines = []
    view = evaluate_beside(open_run(copy), {}, files=[mine], seeds=(0, 1), say=Teller(lines.append))
    assert {row[0]: row[1] for row in view.rows} == {"mine": "0,1", "global": "0,1"}
    assert (copy / "records" / "evaluation.json").read_bytes() == before
    assert sum(line.startswith("mine: FID") for line in lines) == 2
    run, lines = open_run(copy), []
    assert {(e.name, e.seed) for e in run.trials} == {("mine", 0), ("mine", 1), ("global", 1)}
    assert run.evaluations["global"].seed == 0, "of seed 0 the run's own is taken"
    again = evaluate_beside(run, {}, files=[mine], seeds=(0, 1), say=Teller(lines.append))
    assert again.rows == view.rows
    assert lines == ["seed 0: judged before", "seed 1: judged before"]
    own = scores([*run.evaluations.values(), *run.trials])["mine"]
    assert own.minus_global is not None
    assert own.fid[0] == pytest.approx(np.mean([e.fid for e in run.trials if e.name == "mine"]))
    evaluate_beside(open_run(copy), {"n_samples": 160}, files=[mine], say=Teller(lines.append))
    assert sum(line.startswith("mine: FID") for line in lines) == 1, "another number of samples is judged anew"


def test_other_budgets_and_penalties_live_beside_each_other(copy):
    run = open_run(copy)
    view = evaluate_beside(run, {}, budgets=[0.4, 0.7], penalties=["w2"], say=Teller(lambda _: None))
    shown = {row[0]: row[3] for row in view.rows}
    assert shown.keys() == {"global", "hybrid-0.4-w2", "hybrid-0.7-w2"}
    assert shown["hybrid-0.4-w2"] <= 0.4 * shown["global"] * (1 + 1e-9)
    assert open_run(copy).schedules["hybrid"] == run.schedules["hybrid"]
    with pytest.raises(PhasewiseError, match="--n-grid changes nothing"):
        evaluate_beside(run, {"n_grid": 3}, say=Teller(lambda _: None))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"times": [1.0], "assignment": ["r9"]}', "schedule 'mine'.*r9|no denoiser 'r9'"),
        ("{}", "holds no HybridSchedule"),
        ("[1, 2]", "holds no HybridSchedule but a list"),
        ("{", "not valid JSON"),
        ('{"real": {"times": [1.0], "assignment": ["r1"]}}', "and not 'real'"),
        ('{"global": {"times": [1.0], "assignment": ["r1"]}}', "call yours by another name"),
    ],
)
def test_a_file_that_is_no_schedule_is_named(copy, mine, content, message):
    mine.write_text(content)
    with pytest.raises(PhasewiseError, match=message):
        evaluate_beside(open_run(copy), {}, files=[mine], say=Teller(lambda _: None))


def test_the_wrong_file_says_what_it_holds(smoke_run, mine):
    assert pw.HybridSchedule.load(mine).assignment == tuple(MINE["assignment"])
    with pytest.raises(PhasewiseError, match=r"losses.json holds no HybridSchedule: HybridSchedule lacks assignment"):
        pw.HybridSchedule.load(smoke_run / "records" / "losses.json")
    with pytest.raises(PhasewiseError, match=r"HybridSchedule but \d+ of them \(.*hybrid.*from_dict"):
        pw.HybridSchedule.load(smoke_run / "records" / "schedules.json")
    assert "hybrid" in read_schedules(smoke_run / "records" / "schedules.json")


@given(st.lists(st.tuples(st.floats(1, 90), st.floats(0.01, 5)), min_size=1, max_size=5))
def test_errors_over_seeds_are_no_smaller_than_either_source(pairs):
    values, errors = zip(*pairs, strict=True)
    mean, error = over_seeds(values, errors)
    assert mean == pytest.approx(np.mean(values))
    assert error >= np.sqrt(np.mean(np.square(errors)) / len(pairs)) * (1 - 1e-9)
    if len(pairs) > 1:
        assert error >= np.std(values, ddof=1) / np.sqrt(len(pairs)) * (1 - 1e-9)


def test_runs_are_compared_with_errors(smoke_run, copy, tmp_path):
    file = copy / "records" / "evaluation.json"
    values = read_json(file)
    for e in values["evaluations"]:
        e.update(fid=e["fid"] + 3, features="others")
    file.write_text(json.dumps(values))
    view, notes = compare_runs([smoke_run, copy])
    row = next(r for r in view.rows if r[0] == "hybrid")
    own = open_run(smoke_run).evaluations["hybrid"]
    assert float(row[-1].split()[0]) == 3.0
    assert float(row[-1].split()[2]) == pytest.approx(2**0.5 * own.fid_stderr, abs=0.06)
    assert any("features differ" in note for note in notes)
    assert any("the same options" in note for note in notes)
    assert compare_runs([smoke_run, copy, smoke_run])[0].head[-1] == "mean over runs"
    result = invoke("compare", smoke_run, copy)
    assert result.exit_code == 0
    assert "hybrid" in result.output
    with pytest.raises(PhasewiseError, match="two or more"):
        compare_runs([smoke_run])
    (tmp_path / "none").mkdir()
    with pytest.raises(RunFolderError, match="phasewise evaluate --out"):
        compare_runs([smoke_run, tmp_path / "none"])


def test_a_shipped_set_is_scheduled_without_data(tmp_path):
    result = invoke("schedule", "--pretrained", "mnist", "--budget", ".4", "--save", tmp_path / "a.json")
    assert result.exit_code == 0, result.output
    assert "of the all-global FLOPs" in result.output
    plan = pw.HybridSchedule.load(tmp_path / "a.json")
    ready = pw.load_pretrained("mnist")
    assert plan.mflop <= 0.4 * ready.schedules["global"].mflop
    assert plan.assignment == plan_from(ready, {"budget": 0.4}, lambda _: None).assignment
    assert "--steps changes nothing" in invoke("schedule", "--pretrained", "mnist", "--steps", "4").stderr
    images = invoke(
        "sample", "--pretrained", "mnist", "--schedule", tmp_path / "a.json", "--n", 2, "--out", tmp_path / "x"
    )
    assert images.exit_code == 0, images.output
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["000000.png", "000001.png"]


def test_nothing_is_trained_over_shipped_weights(tmp_path):
    run = open_demo("mnist", tmp_path / "demo")
    weights = (run.model("global") / "weights.safetensors").read_bytes()
    for words in (("run",), ("run", "--dry-run"), ("train", "--update"), ("diagnose",)):
        result = invoke(*words, "--out", tmp_path / "demo")
        assert result.exit_code == 2, words
        assert "demo of the shipped set mnist" in result.stderr
        assert "runs/mnist" in result.stderr
    assert (run.model("global") / "weights.safetensors").read_bytes() == weights
    assert invoke("schedule", "--out", tmp_path / "demo", "--budget", ".5").exit_code == 0
    assert invoke("evaluate", "--out", tmp_path / "demo", "--seeds", "0,1", "--dry-run").exit_code == 0


def test_samples_as_files(smoke_run, tmp_path):
    for name in ("a.npz", "a.npy", "one/", "a.png"):
        result = invoke("sample", "--run", smoke_run, "--n", 3, "--out", f"{tmp_path}/{name}", "--quiet")
        assert result.exit_code == 0, result.output + result.stderr
        assert result.output == ""
    array = np.load(tmp_path / "a.npz")["images"]
    assert (array.shape, array.dtype) == ((3, 8, 8, 1), np.uint8)
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)
    singles = [np.array(Image.open(tmp_path / "one" / f"00000{k}.png")) for k in range(3)]
    assert np.array_equal(np.stack(singles), array[..., 0])
    again = invoke("sample", "--run", smoke_run, "--n", 3, "--out", f"{tmp_path}/one/")
    assert "not an empty folder" in again.stderr


def test_the_smallest_size_keeps_its_promise_whatever_the_images():
    """CMI of a central square, a few images, no control; what is chosen stays chosen."""
    small, large, huge = (make_config(side, "smoke") for side in (8, 64, 512))
    assert (small.train.control, small.data.limit) == (True, None)
    assert (large.train.control, large.data.limit, large.cmi.crop) == (False, 244, 16)
    assert huge.data.limit == 100
    assert make_config(64, "smoke", control=True, limit=500).data.limit == 500
    assert make_config(64, "smoke", cmi_crop=5).cmi.radii == (1,)
    assert make_config(40).train.control


def test_a_crop_is_the_middle_of_the_images():
    from phasewise.pipeline.ahead import check_cmi
    from phasewise.pipeline.diagnosing import _cropped

    data = pw.load_images("digits")
    middle = _cropped(data, 4)
    assert middle.image_shape == (1, 4, 4)
    assert bool((middle.test == data.test[..., 2:6, 2:6]).all())
    assert _cropped(data, 8) is data
    with pytest.raises(PhasewiseError, match="something to measure is 1"):
        check_cmi(make_config(8, "smoke", cmi_crop=4, cmi_radii=(2,)), (1, 8, 8))


# --- what a run says ------------------------------------------------------------------------------------------------


def rows_of(level, form="text"):
    lines = []
    teller = Teller(lines.append, level=level, form=form)
    teller.begin({"data": 1.0, "train-a": 8.0, "report": 1.0})
    teller.skip("data")
    teller.start("train-a")
    for step in range(5, 101, 5):
        teller.row({"name": "a", "step": step, "steps": 100, "val_loss": 0.5, "steps_per_s": 10.0, "seconds_left": 3.0})
    teller.finish()
    teller.start("report")
    teller("  done")
    return lines


def test_a_log_is_as_long_as_asked():
    usual = rows_of(1)
    assert usual[:2] == ["[data] done before", "[train-a] stage 2 of 3"]
    assert [x.split()[2] for x in usual if "validation" in x] == ["25/100:", "50/100:", "75/100:", "100/100:"]
    assert usual[-2].startswith("[report] stage 3 of 3, about ")
    assert sum("validation" in x for x in rows_of(VERBOSE)) == 20
    assert rows_of(QUIET) == []


def test_time_left_counts_what_is_still_to_do(monkeypatch):
    """A first stage that takes a moment does not make the others short, and none is told where none is known."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    teller = Teller(lambda _: None)
    teller.begin({"data": 1.0, "cmi": 100.0, "schedule": 9.0}, in_seconds=True)
    teller.start("data")
    assert teller.left() == pytest.approx(110.0), "told before anything is done"
    now[0] += 0.01
    teller.finish()
    teller.start("cmi")
    # a moment against the second it was to take, beside the eleven that are believed
    pace = 11.01 / 12
    assert teller.left() == pytest.approx(109 * pace)
    now[0] += 60
    assert teller.left() == pytest.approx(109 * pace - 60)
    now[0] += 60
    assert teller.left() is None, "longer than it was to take, and it does not say how far it is"
    teller.part(0.5, "half")
    pace = 11.01 / 12
    assert teller.left() == pytest.approx(120 + 9 * pace)
    now[0] += 110
    teller.finish()
    teller.start("schedule")
    assert teller.left() == pytest.approx(9 * (230.01 + 11) / (101 + 11)), "the pace of what was measured"


def test_json_lines_are_objects():
    events = [json.loads(line) for line in rows_of(1, "json")]
    assert [e["event"] for e in events if e["event"] != "progress"] == ["skip", "stage", "done", "stage", "say"]
    assert sum(e["event"] == "progress" for e in events) == 20
    assert events[1] | {"number": 2, "of": 3} == events[1]
    assert all("time" in e for e in events)


def test_flags_of_saying_are_checked(smoke_run):
    assert "contradict" in invoke("run", "--out", smoke_run, "-q", "-v").stderr
    assert "unknown form of --log" in invoke("run", "--out", smoke_run, "--log", "xml").stderr
    quiet = invoke("run", "--out", smoke_run, "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")


def test_long_calls_show_their_progress(capfd):
    wiener = pw.WienerDenoiser.fit(pw.load_images("digits").train)
    pw.sample(wiener, n=4, steps=2, batch=2, progress=True)
    assert "sampling 4/4" in capfd.readouterr().err
    images = pw.load_images("digits").train[:300]
    pw.cmi_map(images, radii=[1], times=[0.5], estimator="gaussian", accuracy=1.0, progress=True)
    assert "CMI: gaussian" in capfd.readouterr().err


# --- one process at a time ------------------------------------------------------------------------------------------

HOLD = "import sys, time; from pathlib import Path; from phasewise.runs.lock import alone_in\n"
HOLD += "with alone_in(Path(sys.argv[1])):\n print('held', flush=True); time.sleep(60)"


def test_one_process_at_a_time_and_a_killed_one_lets_go(copy):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(copy)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        result = invoke("run", "--out", copy)
        assert result.exit_code == 2
        assert "another process is at work" in result.stderr
        with pytest.raises(RunFolderError, match="choose another --out"), alone_in(copy):
            pass
        other.kill()
    assert invoke("run", "--out", copy).exit_code == 0
    assert not [p for p in copy.iterdir() if p.name.startswith(".")], "nothing is left behind"


def test_the_module_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "phasewise", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"phasewise {pw.__version__}\n"


def test_shells_complete_names():
    from phasewise.cli import flag_of
    from phasewise.runs.parts import HOMES

    complete = flag_of(HOMES["solver"][1], hidden=False).__metadata__[0].autocompletion
    assert {"heun", "heun_churn"} <= set(complete("he"))
    many = flag_of(HOMES["cheap_globals"][1], hidden=False).__metadata__[0].autocompletion
    assert "coarse,small" in many("coarse,s")


# --- how things show themselves -------------------------------------------------------------------------------------


def test_what_a_notebook_shows_is_short(smoke_run):
    ready, run = pw.load_pretrained("mnist"), open_run(smoke_run)
    things = [ready, ready.card, ready.schedules, ready.training, ready.fronts, ready.gap, ready.denoisers()]
    things += [*ready.denoisers().values(), ready.hybrid(), ready.features(), ready.reference_moments(), ready.config]
    things += [run, run.evaluations, run.samples, run.explanations, run.losses, run.prices, run.trials]
    things += [pw.load_images("digits")]
    for thing in things:
        assert len(repr(thing)) <= 400, type(thing)
    assert "radius 3" in repr(ready.denoiser("r3"))
    assert "<table>" in ready.schedules._repr_html_()


def test_one_solver_is_the_default_everywhere():
    import inspect

    from phasewise.results import DEFAULT_SOLVER
    from phasewise.runs.parts import GridOptions

    assert GridOptions().solver == pw.HybridSchedule((0.5,), ("a",)).solver == DEFAULT_SOLVER
    for call in (
        pw.pareto_front,
        pw.optimise_schedule,
        pw.diagnosis.measure_recovery,
        pw.scheduling.schedule_from_assignment,
    ):
        assert inspect.signature(call).parameters["solver"].default == DEFAULT_SOLVER
