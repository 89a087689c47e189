"""Muon: its matrices and their steps, what is left to AdamW, and that a stopped training resumes to the same bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from phasewise.data import load_images
from phasewise.denoisers import DiTDenoiser, LocalDenoiser, NetworkDenoiser, UNetDenoiser
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.training import get_preset, train
from phasewise.training.optimizers import LEAST, SCALE, Muon, matrices_of, orthogonal

LAW = settings(max_examples=40, deadline=None, derandomize=True)
MUON = replace(get_preset("default"), optimizer="muon")


@LAW
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e6]))
def test_a_step_keeps_the_singular_vectors_and_levels_the_values(m: int, n: int, seed: int, size: float) -> None:
    g = torch.randn(m, n, generator=torch.Generator().manual_seed(seed)) * size
    u, s, v = torch.linalg.svd(g, full_matrices=False)
    inside = u.T @ orthogonal(g) @ v.T
    levelled, clear = inside.diagonal(), s > 0.02 * s.norm()  # below, five steps do not lift a value to one
    assert (levelled[clear] > 0.5).all()
    assert (levelled < 1.3).all()
    assert (inside - levelled.diag()).abs().max() < 1e-2
    torch.testing.assert_close(orthogonal(g.T), orthogonal(g).T, atol=1e-3, rtol=1e-3)


def test_no_gradient_no_step() -> None:
    assert torch.equal(orthogonal(torch.zeros(20, 30)), torch.zeros(20, 30))


def test_matrices_are_inner_weights_of_dense_layers() -> None:
    shape = (3, 32, 32)
    networks: list[NetworkDenoiser] = [
        UNetDenoiser(shape, width=16, classes=20), DiTDenoiser(shape, width=32, classes=20),
        LocalDenoiser(shape, radius=3, width=32),
    ]  # fmt: skip
    for net in networks:
        names = {id(p): name for name, p in net.named_parameters()}
        matrices = {names[id(p)] for p in matrices_of(net)}
        assert matrices, net
        assert not any(name.endswith("bias") or name.startswith(("head", "labels", "places")) for name in matrices)
        assert all(min(p.shape[0], p[0].numel()) >= LEAST for p in matrices_of(net))
    depthwise = nn.Conv2d(32, 32, 5, groups=32)
    assert len(matrices_of(nn.Sequential(depthwise, nn.Linear(16, 16), nn.Linear(15, 16)))) == 1


def test_a_first_step_is_orthogonal_and_of_the_size_it_says() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(16, 64, 3), nn.GroupNorm(8, 64))
    kernel, norm = net[0].weight, net[1].weight
    before, scale = kernel.detach().clone(), norm.detach().clone()
    optimizer = Muon(net, lr=0.1, weight_decay=0.0)
    net(torch.randn(4, 16, 8, 8)).square().mul(torch.randn(64, 1, 1)).mean().backward()
    gradient = kernel.grad.clone()
    optimizer.step()
    moved = (kernel.detach() - before).flatten(1)
    assert moved.square().mean().sqrt() == pytest.approx(SCALE * 0.1, rel=0.2)
    values = torch.linalg.svdvals(moved)
    assert values[0] < 2.5 * values[values > 0.05 * values[0]].min()  # of one size in all directions
    assert (moved * gradient.flatten(1)).sum() < 0
    torch.testing.assert_close((norm.detach() - scale).abs(), torch.full((64,), 0.1), atol=1e-3, rtol=1e-2)  # AdamW's


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_network_learns_by_either(name: str) -> None:
    torch.manual_seed(0)
    denoiser = UNetDenoiser((1, 8, 8), width=16)
    plan = replace(get_preset("default"), optimizer=name)
    record = train(denoiser, load_images("digits"), plan, steps=120, batch=32, progress=False)
    assert record.val_loss < 0.62 * record.history[0]["val_loss"]


# --- checkpoints ----------------------------------------------------------------------------------------------------


def network() -> LocalDenoiser:
    torch.manual_seed(0)
    return LocalDenoiser((1, 8, 8), radius=2, width=16)


def run(out: Path, **choices: Any) -> tuple[LocalDenoiser, Any]:
    denoiser = network()
    given = {"preset": MUON, "steps": 24, "batch": 20, "out": out, "progress": False, **choices}
    return denoiser, train(denoiser, load_images("digits").train[:120], **given)


def weights(denoiser: NetworkDenoiser) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in denoiser.parameters()])


def test_a_stopped_training_resumes_to_the_same_bit(tmp_path: Path) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["step"] >= 11:
            raise SystemExit(137)

    whole, _ = run(tmp_path / "whole")
    with pytest.raises(SystemExit):
        run(tmp_path / "parts", progress=stop, checkpoint_every=0.0)
    momenta = [k for k in load_file(tmp_path / "parts/checkpoint.safetensors") if k.endswith(".momentum")]
    assert len(momenta) == len(matrices_of(network())) > 0
    resumed, _ = run(tmp_path / "parts")
    assert torch.equal(weights(resumed), weights(whole))


def test_optimizers_do_not_go_on_from_each_other(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(CheckpointError, match=r"preset\.optimizer: muon there, None here"):
        run(tmp_path, preset="default")


def test_checkpoints_older_than_the_choice_are_adamw_s(tmp_path: Path) -> None:
    run(tmp_path, preset="default")
    with safe_open(str(tmp_path / "checkpoint.safetensors"), "pt") as handle:
        assert "optimizer" not in json.loads(handle.metadata()["identity"])["preset"]


def test_an_optimizer_that_is_not_there() -> None:
    with pytest.raises(PhasewiseError, match=r"optimizer.*adamw, muon"):
        replace(get_preset("default"), optimizer="lion")
