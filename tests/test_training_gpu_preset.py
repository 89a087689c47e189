"""Choices made for accelerators and photographs: noise drawn on the device, mirrored images, bfloat16."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from phasewise.denoisers import LocalDenoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import LinearPath
from phasewise.training import get_preset, train
from phasewise.training.batches import Batches

IMAGES = torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def batches(**choices: object) -> Batches:
    return Batches(IMAGES, 16, seed=3, times="mixed", span=(0.0, 1.0), path=LinearPath(), **choices)  # type: ignore[arg-type]


def test_half_of_the_images_are_mirrored_and_nothing_else_changes() -> None:
    plain, flipped = batches(), batches(flip=True)
    mirrored = 0
    for step in range(8):
        a, b = plain.draw(step), flipped.draw(step)
        assert torch.equal(a.z, b.z)
        assert torch.equal(a.t, b.t)
        same = (a.x == b.x).flatten(1).all(1)
        turned = (a.x.flip(3) == b.x).flatten(1).all(1)
        assert (same | turned).all()
        mirrored += int((~same).sum())
        assert torch.equal(b.x, b.target)
    assert 40 <= mirrored <= 88


def test_noise_of_the_device_repeats_by_seed_and_step() -> None:
    first, again = batches(noise="device"), batches(noise="device")
    assert torch.equal(first.draw(5).z, again.draw(5).z)
    assert not torch.equal(first.draw(5).z, first.draw(6).z)
    assert torch.equal(first.draw(5).t, again.draw(5).t)


def test_the_preset_trains_in_bfloat16() -> None:
    preset = replace(get_preset("gpu"), compile=False, batch=16)
    network = LocalDenoiser((1, 4, 4), 1)
    record = train(network, IMAGES, preset, steps=4, progress=False)
    assert record.preset["precision"] == "bfloat16"
    assert network.stem.weight.dtype == torch.float32


def test_an_unknown_place_of_the_noise_is_refused() -> None:
    with pytest.raises(PhasewiseError, match="place of the noise"):
        get_preset("default", noise="disk")
