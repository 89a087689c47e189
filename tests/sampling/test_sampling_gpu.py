"""On a GPU: images of the CPU, captured loops like eager ones, and no step that waits."""

from __future__ import annotations

import warnings

import pytest
import torch
from sampled import SHAPE, TIMES, guided_hybrid, hybrid, members
from torch import Tensor

from phasewise.denoisers import Denoiser, LocalDenoiser, for_inference
from phasewise.denoisers.trust import checked_conditions
from phasewise.errors import PhasewiseError
from phasewise.modes import evaluating
from phasewise.sampling import SOLVERS, for_sampling, integrate, sample
from phasewise.sampling.noise import solver_noise

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def full_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in float32, not in TF32."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_a_captured_loop_gives_the_images_of_the_eager_one_and_of_the_cpu(solver: str) -> None:
    on_cpu = sample(hybrid(solver), 5, seed=4, batch=3)
    denoiser = hybrid(solver).to(GPU)
    eager = sample(denoiser, 5, seed=4, batch=3)
    ready = for_sampling(denoiser, batch=3)
    assert ready.graph
    assert far(eager, on_cpu) < 1e-3
    assert far(ready(5, seed=4), eager) < 1e-4
    assert far(ready(2, seed=9), sample(denoiser, 2, seed=9)) < 1e-4  # fewer than the batch, other noise
    assert far(ready(5, seed=4), eager) < 1e-4  # nothing is left over of the call before


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_no_step_waits_for_the_gpu(solver: str) -> None:
    denoiser = hybrid(solver, classes=4).to(GPU)
    told = denoiser.given(torch.tensor([0, 3, 1]))
    x = torch.randn(3, *SHAPE, device=GPU)
    noise = solver_noise(3, SHAPE, 0, 0, GPU)
    with evaluating(told), torch.inference_mode(), checked_conditions():
        integrate(told, x, TIMES, solver, noise=noise)  # filters are made, once
        torch.cuda.set_sync_debug_mode("error")
        try:
            images = integrate(told, x, TIMES, solver, noise=noise)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert bool(torch.isfinite(images).all())


def test_a_guided_transformer_and_its_window_are_captured() -> None:
    labels = torch.tensor([0, 3, 1, 2, 2])
    on_cpu = sample(guided_hybrid("sde_dpmpp_2m"), 5, seed=4, cond=labels, batch=3)
    denoiser = guided_hybrid("sde_dpmpp_2m").to(GPU)
    eager = sample(denoiser, 5, seed=4, cond=labels, batch=3)
    ready = for_sampling(denoiser, batch=3)
    assert ready.graph
    assert far(eager, on_cpu) < 1e-3
    assert far(ready(5, seed=4, cond=labels), eager) < 1e-4


def waits(denoiser: Denoiser, steps: int) -> int:
    """How often a call of ``sample`` waits."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            sample(denoiser, 4, steps=steps, solver="ancestral", batch=2)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(w.message) for w in caught)


def test_a_call_waits_as_often_however_many_steps_it_has() -> None:
    denoiser = members()["r3"].to(GPU)
    sample(denoiser, 2, steps=2)
    assert waits(denoiser, 2) == waits(denoiser, 9)


def test_a_captured_loop_takes_conditions() -> None:
    denoiser = hybrid("sde_dpmpp_2m", classes=4).to(GPU)
    ready = for_sampling(denoiser, batch=2)
    for labels in (torch.tensor([0, 3, 1, 2, 2]), torch.tensor([1, 1, 0, 0, 3]), 2):
        assert far(ready(5, cond=labels), sample(denoiser, 5, cond=labels, batch=2)) < 1e-4
    assert len(ready.loops) == 1
    other = ready(5, cond=1)
    assert far(other, ready(5, cond=2)) > 1e-3


def test_a_captured_loop_starts_where_it_is_told() -> None:
    denoiser = members()["r3"].to(GPU)
    ready = for_sampling(denoiser, batch=2, steps=4, t_start=0.6)
    x = torch.randn(3, *SHAPE)
    assert far(ready(x_init=x), sample(denoiser, x_init=x, steps=4, t_start=0.6)) < 1e-4


def test_a_captured_loop_takes_its_noise_from_one_path() -> None:
    denoiser = hybrid("ancestral").to(GPU)
    ready = for_sampling(denoiser, batch=2, noise="path")
    assert far(ready(3, seed=1), sample(denoiser, 3, seed=1, noise="path")) < 1e-4


def test_a_captured_loop_sees_weights_that_change_in_place() -> None:
    denoiser = members()["r3"].to(GPU)
    ready = for_sampling(denoiser, batch=2, steps=3)
    before = ready(2)
    with torch.no_grad():
        for weight in denoiser.parameters():
            weight.mul_(0.5)
    after = ready(2)
    assert far(after, before) > 1e-3
    assert far(after, sample(denoiser, 2, steps=3)) < 1e-4


@pytest.mark.parametrize("name", ["global", "r3"])
def test_bfloat16_rounds_no_more_captured_than_eager(name: str) -> None:
    denoiser = members()[name].to(GPU)
    exact = sample(denoiser, 64, steps=8)
    eager = sample(for_inference(denoiser, precision="bfloat16"), 64, steps=8)
    captured = for_sampling(denoiser, precision="bfloat16", steps=8)(64)
    scale = exact.square().mean().sqrt()
    errors = [float((images - exact).square().mean().sqrt() / scale) for images in (eager, captured)]
    assert 0 < errors[1] < 0.02
    assert errors[1] < 1.5 * errors[0]


def test_compiled_and_captured_go_together() -> None:
    denoiser = members()["global"].to(GPU)
    ready = for_sampling(denoiser, batch=4, steps=3, compile=True)
    assert far(ready(4), sample(denoiser, 4, steps=3)) < 1e-3


class Looking(LocalDenoiser):
    """Waits for the GPU in every call."""

    def forward(self, x_t, t, cond=None):
        return super().forward(x_t, t) * float(x_t.std() > 0)


def test_a_loop_that_waits_cannot_be_captured_and_runs_without() -> None:
    denoiser = Looking(SHAPE, 2).to(GPU)
    with pytest.raises(PhasewiseError, match="graph=False"):
        for_sampling(denoiser, steps=2)(2)
    torch.cuda.synchronize()
    images = for_sampling(denoiser, steps=2, graph=False)(2)
    assert far(images, sample(denoiser, 2, steps=2)) < 1e-4
