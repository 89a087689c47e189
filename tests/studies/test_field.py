"""The members and rows of the study of published rules: every row can be sampled, whatever the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import phasewise as pw
from phasewise.denoisers import Denoiser, DiTDenoiser, HybridDenoiser, UNetDenoiser
from phasewise.errors import PhasewiseError
from studies import field

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("transformer")
    pw.save_denoiser(DiTDenoiser(SHAPE, width=16, depth=3, heads=2, patch=2), path)
    return path


def test_a_transformers_members_share_its_weights(folder: Path) -> None:
    members = field.transformer_members(folder)
    assert {"global", "window 1", "blocks held", "inner line", "attention parabola", "rear held"} <= set(members)
    whole, narrow = members["global"], members["window 1"]
    assert isinstance(narrow, DiTDenoiser)
    assert narrow.window == 1
    assert next(narrow.parameters()) is next(whole.parameters())


def test_windows_may_come_from_another_folder_and_no_unet_is_taken(folder: Path, tmp_path: Path) -> None:
    members = field.transformer_members(folder, windows=folder)
    assert next(members["window 2"].parameters()) is not next(members["global"].parameters())
    pw.save_denoiser(UNetDenoiser(SHAPE, width=8), tmp_path / "unet")
    with pytest.raises(PhasewiseError, match="give a transformer"):
        field.transformer_members(tmp_path / "unet")


@pytest.mark.parametrize("part", ["level1", "blocks"])
def test_every_row_that_needs_no_measuring_can_be_sampled(part: str, folder: Path) -> None:
    members: dict[str, Denoiser] = field.transformer_members(folder)
    if part == "level1":
        nets = {name: UNetDenoiser(SHAPE, width=8, multipliers=(1, 2)) for name in ("global", "coarse", "small")}
        members = field.unet_members(nets)
    rows = [*field.small_networks(list(members), 8), *field.fixed_caches(list(members), part, 8)]
    assert len({row.name for row in rows}) == len(rows)
    assert {"cache-dit", "TaylorSeer", "SRDiffusion"} <= {row.rule for row in rows}
    for row in rows:
        hybrid = HybridDenoiser(members, pw.HybridSchedule(row.times, row.assignment, "exp_ab2"))
        assert torch.isfinite(pw.sample(hybrid, n=1)).all(), row.name


def test_only_schedules_that_have_something_to_keep_are_drawn() -> None:
    assert field.fits(("coarse", "global", "level1 held"))
    assert not field.fits(("coarse", "level1 held", "global"))
