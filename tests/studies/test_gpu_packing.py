"""What a borrowed machine sends home arrives whole, and only what is finished."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import phasewise as pw
from phasewise.errors import PhasewiseError
from phasewise.files import write_json
from studies.gpu.packing import pack, unpack


def test_finished_networks_and_answers_come_home(tmp_path: Path) -> None:
    network = pw.LocalDenoiser((1, 8, 8), 3, width=64)
    pw.save_denoiser(network, tmp_path / "out/work/mnist/r3")
    write_json(tmp_path / "out/mnist/locals.json", {"cell": "mnist/locals"})
    begun = tmp_path / "out/work/mnist/global"
    begun.mkdir(parents=True)
    (begun / "weights.safetensors").write_bytes(b"unfinished")
    for name in ("checkpoint", "unfinished", "critic-t300000000-rall-0"):
        (begun / f"{name}.safetensors").write_bytes(b"on its way")
    parts, count = pack(tmp_path / "out", tmp_path / "parts", part_bytes=20_000, most=2)
    assert len(parts) == 2 < count
    with pytest.raises(PhasewiseError, match="--first 2"):
        unpack(tmp_path / "parts", tmp_path / "home")
    later, _ = pack(tmp_path / "out", tmp_path / "parts", part_bytes=20_000, first=2)  # as another call would
    assert len(later) == count - 2
    names = unpack(tmp_path / "parts", tmp_path / "home")
    assert sorted(names) == ["mnist/locals.json", "work/mnist/r3/config.json", "work/mnist/r3/weights.safetensors"]
    home = pw.load_denoiser(tmp_path / "home/work/mnist/r3")
    parts[0].unlink()
    with pytest.raises(PhasewiseError, match="lacks parts: it has pack001"):
        unpack(tmp_path / "parts", tmp_path / "again")
    x = torch.rand(2, 1, 8, 8)
    assert torch.allclose(home(x, 0.5), network.eval()(x, 0.5), atol=5e-3)
