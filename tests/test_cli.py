"""The command line as a user meets it: help, errors of one line, the same work as in Python."""

import json
import re
import shutil
import subprocess
import sys
import time
import warnings

import pytest
from typer.testing import CliRunner

from phasewise import __version__
from phasewise.cli import COMMANDS, app, plain_warnings
from phasewise.errors import PhasewiseWarning
from phasewise.results import CMIMap
from phasewise.runs import make_config
from phasewise.runs.options import options_of
from phasewise.runs.parts import HOMES, PARTS

runner = CliRunner()


def invoke(*words):
    return runner.invoke(app, [str(w) for w in words])


@pytest.mark.parametrize("command", [*COMMANDS, "sample", "boundary", "report", "demo", "options"])
def test_help_has_an_example(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"phasewise {command}" in result.output


@pytest.mark.parametrize("command", [*COMMANDS, "sample", "boundary", "report", "demo"])
def test_help_fits_a_screen(command):
    assert len(invoke(command, "--help").output.splitlines()) < 40


def test_a_command_shows_only_what_it_uses():
    for command, about in COMMANDS.items():
        shown = invoke(command, "--help").output
        for part, cls in PARTS.items():
            for option in options_of(cls):
                there = re.search(rf"  {option.flag}(?![\w-])", shown) is not None
                assert there == (part in about.parts and (option.main or part not in about.brief)), (
                    command,
                    option.flag,
                )


def test_every_option_is_listed_and_every_known_name_is_taken():
    said = invoke("options").output
    for name, (part, option) in HOMES.items():
        assert f"  {option.flag} " in said, name
        for known in option.known() if option.known else ():
            assert make_config(28, **{name: (known,) if "tuple" in str(option.kind) else known}), part
    assert invoke("options", "grid").output.count("--") == 4
    assert "there is no part 'x'" in invoke("options", "x").stderr


def test_help_and_version_do_not_wait_for_torch():
    code = (
        "import sys; from phasewise.cli import app; from typer.testing import CliRunner;"
        "r = CliRunner().invoke(app, ['--help']); assert r.exit_code == 0; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
    assert invoke("--version").output.strip() == f"phasewise {__version__}"


def test_dry_run_does_nothing(tmp_path):
    result = invoke("run", "--out", tmp_path / "new", "--dry-run")
    assert result.exit_code == 0
    assert "train-global" in result.output
    assert "to do" in result.output
    assert not (tmp_path / "new").exists()


def test_a_file_may_say_more_than_a_command_uses(smoke_run, tmp_path):
    """Another run's options, whatever that run measured: only a flag against a flag is a slip."""
    config = {"size": "smoke", "cmi": {"measure": False, "times": [0.3, 0.6]}}
    (tmp_path / "run.json").write_text(json.dumps(config))
    for file, more in (
        (tmp_path / "run.json", ()),
        (smoke_run / "run.json", ("--no-cmi",)),
        (smoke_run / "run.json", ("--size", "smoke")),
    ):
        result = invoke("run", "--config", file, *more, "--out", tmp_path / "new", "--dry-run")
        assert result.exit_code == 0, result.output + result.stderr
    result = invoke("diagnose", "--config", smoke_run / "run.json", "--out", smoke_run, "--dry-run")
    assert "recovery" in result.output
    assert "cmi  " not in result.output


def test_finished_run_is_skipped_and_reported_again(smoke_run, tmp_path):
    folder = shutil.copytree(smoke_run, tmp_path / "run")
    result = invoke("run", "--out", folder)
    assert result.exit_code == 0, result.output
    assert result.output.count("done before") >= 10
    (folder / "report.html").unlink()
    result = invoke("report", folder)
    assert result.exit_code == 0
    assert (folder / "report.html").is_file()


def test_sample_writes_a_grid(smoke_run, tmp_path):
    out = tmp_path / "grid.png"
    result = invoke("sample", "--run", smoke_run, "--n", 4, "--out", out, "--schedule", "local_only")
    assert result.exit_code == 0, result.output
    first = out.read_bytes()
    invoke("sample", "--run", smoke_run, "--n", 4, "--out", out, "--schedule", "local_only")
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--data", "mnits"], "mnist"),
        (["run", "--data", "mnist", "--data-dir", "nowhere"], "nowhere"),
        (["run", "--radii", "0,1"], "radius"),
        (["run", "--radii", "1,99"], "larger than the image"),
        (["run", "--device", "cuda:7"], "--device cpu"),
        (["run", "--budget", "2"], "fraction"),
        (["run", "--solver", "rk9"], "known: euler, heun"),
        (["run", "--solver", "eulr"], "(did you mean 'euler'?)"),
        (["run", "--data", "photos/"], "no file or folder photos"),
        (["run", "--radii", "1,99", "--dry-run"], "larger than the image"),
        (["train", "--member", "mine=nowhere", "--dry-run"], "nowhere, which holds no denoiser"),
        (["sample", "--pretrained", "mnist", "--schedule", "hybird"], "(did you mean 'hybrid'?)"),
        (["run", "--spacing", "odd"], "known: uniform"),
        (["run", "--penalty", "odd"], "known: kl, w2, flow"),
        (["run", "--window", "cmi", "--no-cmi"], "leave out --no-cmi"),
        (["diagnose", "--estimator", "gaussian"], "--estimator: for conditional mutual information"),
        (["run", "--no-cmi", "--block", "3"], "--block: for conditional mutual information"),
        (["sample", "--pretrained", "mnist", "--dry-run", "--n", "0"], "--n must be a whole number >= 1"),
        (["sample", "--pretrained", "mnist", "--dry-run", "--out", "grid.jpg"], "ending in .png"),
        (["diagnose", "--cmi", "--estimator", "magic"], "known: density, "),
        (["diagnose", "--cmi", "--estimator", "gaussian", "--cmi-option", "epochs=3"], "epochs"),
        (["diagnose", "--cmi", "--cmi-radii", "4"], "something to measure is 3"),
        (["diagnose", "--cmi", "--center", "9,9"], "8x8 image"),
        (["sample", "--run", "nowhere"], "phasewise run"),
        (["report", "nowhere"], "phasewise run"),
    ],
)
def test_a_failing_command_ends_with_one_clear_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started = time.monotonic()
    result = invoke(*words)
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert "Traceback" not in result.output
    assert time.monotonic() - started < 30, "bad choices are refused before any training"


def test_numbers_are_checked():
    result = invoke("run", "--radii", "one")
    assert result.exit_code == 2
    assert re.search("numbers separated by commas", result.output + result.stderr)


def test_options_with_names_are_checked():
    for word in ("epochs", "=3", "a b=3"):
        result = invoke("diagnose", "--cmi", "--cmi-option", word)
        assert result.exit_code == 2
        assert "NAME=VALUE" in result.output + result.stderr


def test_cmi_on_data_and_a_warning_of_one_line(tmp_path):
    words = ("diagnose", "--cmi", "--size", "smoke", "--estimator", "gaussian", "--out", tmp_path / "run")
    positions = ("--center", "3,3", "--center", "4,4", "--block", 2, "--cmi-radii", "1,2", "--cmi-times", "0.3,0.6")
    result = invoke(*words, *positions, "--cmi-accuracy", 1e-4)
    assert result.exit_code == 0, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert re.fullmatch(r"warning: 1797 images give a standard error near .* images", lines[0])
    assert "warnings.warn" not in result.output
    assert f"shown by `phasewise report {tmp_path / 'run'}`" in result.output
    record = CMIMap.load(tmp_path / "run" / "records" / "cmi.json")
    assert (record.estimator, record.block, record.radii) == ("gaussian", 2, (1, 2))
    assert [p["center"] for p in record.config["positions"]] == [[3, 3], [4, 4]]
    assert invoke("report", tmp_path / "run").exit_code == 0
    assert "row 4, column 4" in (tmp_path / "run" / "report.html").read_text()
    result = invoke(*words[:2], "--out", tmp_path / "run")
    assert result.output.count("done before") == 2


def test_other_warnings_stay_as_they_are(capsys):
    with pytest.warns(DeprecationWarning, match="old"), plain_warnings():
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    with plain_warnings():
        warnings.warn("two\nlines", PhasewiseWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: two lines\n"
