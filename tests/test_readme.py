"""The README's Python examples run as they stand."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import phasewise as pw

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_example_runs(capsys, monkeypatch, tmp_path):
    """With fewer passes over the data than it says, to be quick."""
    whole = pw.train
    monkeypatch.setattr(pw, "train", lambda *network_and_data, epochs: whole(*network_and_data, epochs=epochs / 10))
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 3
    names: dict = {}
    exec(compile(BLOCKS[0], "README.md", "exec"), names)
    assert names["x"].shape == (64, 1, 8, 8)
    assert torch.isfinite(names["x"]).all()
    assert names["schedule"].mflop > 0
    assert set(names["schedule"].assignment) <= {"global", "r2", "wiener"}


def test_pretrained_example_runs(monkeypatch):
    """By the cheapest of its schedules, to be quick."""
    local_only = functools.partial(pw.load_pretrained("mnist").hybrid, "local_only")
    monkeypatch.setattr("phasewise.pretrained.Pretrained.hybrid", lambda self: local_only())
    names = {"pw": pw}
    exec(compile(BLOCKS[1], "README.md", "exec"), names)
    assert names["x"].shape == (16, 1, 28, 28)


@pytest.mark.filterwarnings("ignore::phasewise.PhasewiseWarning")
def test_cmi_example_runs(capsys, monkeypatch):
    """With fewer training steps than it would take, to be quick."""
    monkeypatch.setattr(pw, "cmi_map", functools.partial(pw.cmi_map, steps=3))
    names = {"pw": pw, "data": pw.load_images("digits")}
    exec(compile(BLOCKS[2], "README.md", "exec"), names)
    assert names["cmi"].value.shape == (4, 3)
    assert np.isfinite(names["cmi"].value).all()
