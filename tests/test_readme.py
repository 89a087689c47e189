"""The README's Python example runs as it stands."""

import re
from pathlib import Path

import torch

README = Path(__file__).parents[1] / "README.md"


def test_example_runs(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 1
    names: dict = {}
    exec(compile(blocks[0], "README.md", "exec"), names)
    assert names["x"].shape == (64, 1, 8, 8)
    assert torch.isfinite(names["x"]).all()
    assert names["schedule"].mflop > 0
    assert set(names["schedule"].servers) <= {"global", "r2", "wiener"}
