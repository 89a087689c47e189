"""``phasewise boundary``: the answer first, of a run folder and of a shipped set, and what is refused."""

import json

import pytest
from typer.testing import CliRunner

import phasewise as pw
from phasewise.cli import app
from phasewise.scheduling import Boundary

runner = CliRunner()


def invoke(*words):
    return runner.invoke(app, ["boundary", *map(str, words)])


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """A few 28x28 images in a file."""
    import numpy as np

    from studies.subject import load

    file = tmp_path_factory.mktemp("images") / "some.npy"
    np.save(file, load("digits28").train[:80, 0].numpy())
    return file


def test_of_a_run_folder_the_answer_is_the_first_line(smoke_run, tmp_path):
    names = [m.name for m in pw.open_run(smoke_run).members]
    early = next(n for n in names if n.startswith("r"))
    result = invoke("--run", smoke_run, "--early", early, "--late", "global", "--steps", 3, "--n", 20, "--save",
                    tmp_path / "b.json")  # fmt: skip
    assert result.exit_code == 0, result.output + result.stderr
    lines = result.output.splitlines()
    found = Boundary.load(tmp_path / "b.json")
    assert lines[0] == found.sentences()[0]
    assert any(line.startswith("log-SNR") for line in lines)
    assert all(said in lines for said in found.sentences())
    assert "Every boundary, by flow" in lines
    assert lines[-1] == f"wrote {tmp_path / 'b.json'}"
    assert (found.early, found.late, found.n, len(found.times)) == (early, "global", 20, 3)
    assert json.loads((tmp_path / "b.json").read_text())["says"] == found.sentences()


def test_of_a_shipped_set_a_reference_is_judged_by_its_own_features(some, tmp_path):
    shared = ("--pretrained", "mnist", "--early", "coarse", "--late", "global", "--data", some, "--steps", 2)
    result = invoke(*shared, "--reference", "global", "--n", 8, "--save", tmp_path / "b.json")
    assert result.exit_code == 0, result.output + result.stderr
    found = Boundary.load(tmp_path / "b.json")
    assert (found.penalty_name, found.reference) == ("frechet", "global")
    assert found.solver == pw.load_pretrained("mnist").config.grid.solver
    dry = invoke(*shared, "--dry-run")
    assert dry.output == "1000 images at 2 times by coarse and global\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "one of --run DIR, --pretrained NAME and --model DIR"),
        (("--pretrained", "mnist", "--late", "glob"), "has no denoiser 'glob'"),
        (("--pretrained", "mnist", "--reference", "r1"), "one of the two, coarse or global; got 'r1'"),
        (("--pretrained", "mnist", "--save", "b.txt"), "ending in .json"),
        (("--pretrained", "mnist", "--n", "1"), "--n must be a whole number >= 2"),
        (("--pretrained", "mnist", "--steps", "0"), "--steps must be a whole number >= 1"),
        (("--run", "nowhere"), "holds no phasewise run to measure"),
    ],
)
def test_a_slip_is_told_before_anything_is_measured(words, said):
    given = {"--early": "coarse", "--late": "global"} | dict(zip(words[::2], words[1::2], strict=True))
    result = invoke(*(w for pair in given.items() for w in pair))
    assert result.exit_code == 2
    assert said in result.stderr
