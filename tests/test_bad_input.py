"""Bad input ends in a PhasewiseError, or in one line and exit status 2: never in a traceback, never in a wait.

``python tests/test_bad_input.py`` writes how many cases of each field are held into docs/bad-input.md.
"""

from __future__ import annotations

import contextlib
import inspect
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_input import CALLS, COMMANDS, OTHER_COMMANDS, world
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import phasewise as pw
from phasewise import checks, seeding
from phasewise.cli import app
from phasewise.diagnosis import gap_window, measure_losses
from phasewise.errors import PhasewiseError

PAGE = Path(__file__).parents[1] / "docs" / "bad-input.md"
START, END = "<!-- table: cases -->", "<!-- end of table -->"
LONGEST = 10.0
"""Seconds a case may take."""
runner = CliRunner()


@pytest.fixture(autouse=True)
def in_bounded_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"no answer within {LONGEST:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("field", "name"), [(f, n) for f, cases in CALLS.items() for n in cases])
def test_a_call_says_what_is_wrong(field: str, name: str) -> None:
    with pytest.raises(PhasewiseError) as caught:
        CALLS[field][name]()
    assert len(str(caught.value)) < 600


def refused(words: tuple[str, ...]) -> str:
    result = runner.invoke(app, list(words))
    assert result.exit_code == 2, (result.output, result.stderr, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output + result.stderr
    return result.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(w[:20] for w in words[3:]) or words[0])
def test_a_command_is_refused_before_anything_is_claimed(words: tuple[str, ...], tmp_path: Path) -> None:
    for dry in ((), ("--dry-run",)):
        assert refused((*words, "--out", str(tmp_path / "run"), *dry))
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", OTHER_COMMANDS, ids=" ".join)
def test_other_commands_are_refused(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(words)
    assert not list(tmp_path.iterdir())


def test_a_fault_of_ours_is_one_line_and_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise KeyError("solver")

    monkeypatch.setattr("phasewise.pipeline.config_for", broken)
    result = runner.invoke(app, ["run", "--out", str(tmp_path / "run")])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "a fault of phasewise, not yours (KeyError: " in result.stderr
    monkeypatch.setenv("PHASEWISE_DEBUG", "1")
    assert isinstance(runner.invoke(app, ["run", "--out", str(tmp_path / "run")]).exception, KeyError)


def table() -> str:
    rows = [(f"calls: {field}", len(cases)) for field, cases in CALLS.items()]
    rows += [("command line, run and dry run", 2 * len(COMMANDS)), ("command line, others", len(OTHER_COMMANDS))]
    rows.append(("all", sum(n for _, n in rows)))
    return "\n".join(["| field | cases |", "| --- | --- |", *(f"| {field} | {n} |" for field, n in rows)])


def test_the_page_counts_the_cases() -> None:
    said = PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0].strip()
    assert said == table(), "run `python tests/test_bad_input.py`"


# --- every public call has its kinds --------------------------------------------------------------------------------

MUST = {"seed", "n", "batch", "steps", "device", "denoiser", "denoisers", "times", "solver", "prices", "spacing"}
"""Arguments that have a kind wherever a public function takes them."""
OWN = {
    "TrainSettings", "TrainPreset",  # dataclasses: checked when made
    "load_images",  # speaks of a DataError
    "integrate", "take_step", "velocity", "get_solver", "denoising_loss", "bind", "as_rows",
    "condition_rows", "learning_rate",
    "train", "train_together",  # their settings are checked as TrainSettings
    "GaussianDenoiser", "IsingDenoiser", "TwoModeDenoiser", "Carry", "Solver",
    "cmi_map", "make_problem",  # times have reasons of their own there
    "get_penalty", "register_solver",
}  # fmt: skip


def public() -> dict[str, object]:
    rooms = [pw, *(getattr(pw, room) for room in pw.ROOMS)]
    return {name: getattr(room, name) for room in rooms for name in getattr(room, "__all__", ())}


def test_every_public_function_checks_what_it_takes() -> None:
    for name in FUNCTIONS.keys() - OWN:
        function = FUNCTIONS[name]
        unchecked = MUST & inspect.signature(function).parameters.keys() - getattr(function, "checks", {}).keys()
        assert not unchecked, f"{name} takes {sorted(unchecked)} unchecked: @checks.checked(...)"


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3),
    st.lists(st.one_of(st.none(), st.floats(), st.integers(), st.text(max_size=2)), max_size=4),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from(
        [10**400, object(), abs, int, 1j, np.float32(0.5), np.int64(3), np.array([0.2, 0.7]), np.array(0.5),
         np.bool_(True), np.array(["a"]), np.array([None]), torch.tensor(2), torch.rand(3), torch.zeros(0),
         torch.zeros(2, 1, 3, 3), torch.full((2, 1, 3, 3), float("nan")), torch.zeros(2, 2).to_sparse()]
    ),
)  # fmt: skip
FUNCTIONS = {name: f for name, f in public().items() if inspect.isfunction(f)}
KINDS = {f"{name}.{k}": kind for name, f in FUNCTIONS.items() for k, kind in getattr(f, "checks", {}).items()}


@given(value=JUNK)
def test_a_kind_takes_a_value_or_says_why_not(value: object) -> None:
    for name, kind in KINDS.items():
        if not name.endswith(".device"):  # trying a device is slow
            with contextlib.suppress(PhasewiseError):
                kind(value, name)


@given(value=st.one_of(st.integers(), st.floats()))
def test_numbers_are_taken_exactly_where_they_lie_inside(value: float) -> None:
    def takes(kind: checks.Kind) -> bool:
        try:
            return kind(value, "x") == value
        except PhasewiseError:
            return False

    assert takes(checks.fraction) == (0 < value <= 1)
    assert takes(checks.unit) == (0 <= value <= 1)
    assert takes(checks.positive) == (0 < value < float("inf"))
    assert takes(checks.count) == (1 <= value < 2**63 and value == int(value))
    assert takes(checks.seed) == (0 <= value < 2**63 and value == int(value))


# --- and takes what is meant ----------------------------------------------------------------------------------------


def test_numbers_of_numpy_and_of_torch_are_numbers() -> None:
    net = world().net
    plain = pw.sample(net, 2, seed=3, steps=2, batch=2)
    assert torch.equal(
        pw.sample(net, np.int64(2), seed=np.uint8(3), steps=np.int32(2), batch=torch.tensor(2), t_min=np.float64(0.02)),
        plain,
    )
    assert torch.equal(pw.sample(net, 2, seed=3, times=np.array([1.0, 0.02]), batch=2), plain)
    assert torch.equal(pw.sample(net, 2, seed=3, times=torch.tensor([1.0, 0.02], dtype=torch.float64), batch=2), plain)


def test_arrays_and_float64_pixels_are_taken_for_images() -> None:
    members, x = world().members, world().x[:4]
    plain = measure_losses(members, x, [0.5])
    for images in (x.numpy(), x.double(), x.double().numpy()):
        assert measure_losses(members, images, np.array([0.5])).loss.tolist() == plain.loss.tolist()


@pytest.mark.parametrize("seed", [2**32, 2**32 + 7, 2**63 - 1])
def test_every_seed_is_its_own(seed: int) -> None:
    """Libraries keep 32 bits of a seed: none may silently equal a smaller one."""
    small = seed % 2**32
    x, features = world().x, world().features
    for draw in (
        lambda s: pw.sample(world().net, 1, seed=s, steps=2)[0, 0, 0, 0],
        lambda s: pw.metrics.RandomFeatures((1, 6, 6), seed=s).first.weight[0, 0, 0, 0],
        lambda s: pw.fid(x, x[:9], features, seed=s).stderr,
        lambda s: measure_losses(world().members, x[:4], [0.5], seed=s).loss[0, 0],
    ):
        assert float(draw(seed)) != float(draw(small))
    assert pw.metrics.PCAFeatures.fit(x, dim=3, seed=seed).dim == 3
    assert sum(pw.load_images(x, seed=seed).sizes.values()) == len(x)


def test_seeds_below_two_to_the_32_keep_their_streams() -> None:
    for seed in (0, 5, 2**32 - 1):
        assert seeding.narrow(seed) == seed
        expected = torch.randn(3, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(torch.randn(3, generator=seeding.plain(seed)), expected)
    assert seeding.stage_seed(2**63 - 1, seeding.Stage.CMI) <= checks.LARGEST


def test_a_gap_at_a_single_time_is_still_an_interval() -> None:
    table = world().losses
    low, high = gap_window(table, pw.LinearPath(), "r1", tolerance=1.0)
    assert 0.3 <= low < high <= 0.6


if __name__ == "__main__":
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    PAGE.write_text(f"{before}{START}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")
