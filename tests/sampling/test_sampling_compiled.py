"""A sampler made ready ahead gives the images of ``sample``: on the CPU to the bit."""

from __future__ import annotations

import pytest
import torch
from sampled import SHAPE, TIMES, guided_hybrid, hybrid, members

from phasewise.denoisers import LocalDenoiser
from phasewise.errors import PhasewiseError
from phasewise.sampling import SOLVERS, for_sampling, sample


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_it_gives_what_sample_gives(solver: str) -> None:
    denoiser = hybrid(solver)
    ready = for_sampling(denoiser, batch=3)
    assert torch.equal(ready(5, seed=4), sample(denoiser, 5, seed=4, batch=3))
    assert torch.equal(ready(), sample(denoiser, 3))


def test_it_takes_its_noise_from_one_path() -> None:
    denoiser = hybrid("ancestral")
    expected = sample(denoiser, 3, seed=1, noise="path", batch=2)
    assert torch.equal(for_sampling(denoiser, batch=2, noise="path")(3, seed=1), expected)
    with pytest.raises(PhasewiseError, match="fresh"):
        for_sampling(denoiser, noise="nobody")


def test_it_takes_a_grid_of_its_own_and_starts_where_it_is_told() -> None:
    denoiser = members()["r3"]
    ready = for_sampling(denoiser, batch=2, times=TIMES, solver="ancestral", t_start=0.6)
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    expected = sample(denoiser, times=TIMES, solver="ancestral", t_start=0.6, x_init=x, batch=2)
    assert torch.equal(ready(x_init=x), expected)
    with pytest.raises(PhasewiseError, match="x_init has shape"):
        ready(x_init=x[:, :, :3])
    with pytest.raises(PhasewiseError, match="t_start"):
        for_sampling(denoiser)(x_init=x)


def test_a_condition_comes_with_the_call_or_is_bound_before() -> None:
    denoiser, labels = hybrid("sde_dpmpp_2m", classes=4), torch.tensor([0, 3, 1, 2, 2])
    expected = sample(denoiser, 5, cond=labels, batch=2)
    assert torch.equal(for_sampling(denoiser, batch=2)(5, cond=labels), expected)
    bound = for_sampling(denoiser.given(labels), batch=2)
    assert torch.equal(bound(5), expected)
    with pytest.raises(PhasewiseError, match="bound already"):
        bound(5, cond=labels)
    with pytest.raises(PhasewiseError, match="class labels must lie in 0 to 3"):
        for_sampling(denoiser, batch=2)(2, cond=4)


def test_a_guided_transformer_and_its_window_sample_alike() -> None:
    denoiser, labels = guided_hybrid("sde_dpmpp_2m"), torch.tensor([0, 3, 1, 2, 2])
    expected = sample(denoiser, 5, seed=4, cond=labels, batch=3)
    assert torch.equal(for_sampling(denoiser, batch=3)(5, seed=4, cond=labels), expected)
    assert not torch.allclose(sample(denoiser, 5, seed=4, cond=labels.flip(0), batch=3), expected, atol=1e-3)


def test_a_condition_bound_for_all_images_goes_through_smaller_batches() -> None:
    denoiser, labels = members(4)["r3"], torch.tensor([0, 3, 1])
    assert torch.equal(sample(denoiser.given(labels), 3, batch=2), sample(denoiser, 3, cond=labels, batch=2))


def test_labels_out_of_range_are_refused_when_bound() -> None:
    with pytest.raises(PhasewiseError, match="class labels must lie in 0 to 3"):
        members(4)["global"].given(7)


def test_bfloat16_stays_near_and_modes_come_back() -> None:
    denoiser = members()["r3"].train()
    exact = for_sampling(denoiser, steps=4)(4)
    low = for_sampling(denoiser, steps=4, precision="bfloat16")(4)
    assert 0 < float((low - exact).abs().max() / exact.abs().max()) < 0.05
    assert denoiser.training


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"precision": "float8"}, {"solver": "nobody"}, {"times": (0.2, 0.5)}])
def test_wrong_choices_are_refused_before_the_first_call(wrong: dict) -> None:
    with pytest.raises(PhasewiseError):
        for_sampling(LocalDenoiser(SHAPE, 2), **wrong)


def test_samples_are_ordinary_tensors() -> None:
    denoiser = members()["r3"]
    for images in (sample(denoiser, 3, batch=2, steps=2), for_sampling(denoiser, batch=2, steps=2)(3)):
        assert not images.is_inference()
        images.clamp_(0, 1)[0] = 0
        images.requires_grad_()
