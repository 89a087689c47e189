"""A batch too large for the memory: the message names one that fits, and other errors pass untouched."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from phasewise import memory
from phasewise.denoisers import LocalDenoiser
from phasewise.diagnosis import measure_losses
from phasewise.errors import PhasewiseError
from phasewise.memory import fitting, largest_fitting, out_of_memory
from phasewise.metrics import measure_ms
from phasewise.sampling import sample
from phasewise.training import train

SHAPE = (1, 6, 5)


class Narrow(LocalDenoiser):
    """A local network that bears so many images and no more."""

    most = 5

    def backbone(self, h: Tensor, log_snr: Tensor) -> Tensor:
        if len(h) > self.most:
            raise RuntimeError(f"DefaultCPUAllocator: can't allocate memory: you tried to allocate {h.numel()} bytes.")
        return super().backbone(h, log_snr)


def bears(most: int) -> object:
    def attempt(k: int) -> None:
        if k > most:
            raise MemoryError

    return attempt


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_the_batch_named_fits_and_is_at_least_half_of_the_most_that_does(batch: int, most: int) -> None:
    fits = largest_fitting(batch, bears(most))  # type: ignore[arg-type]
    assert fits <= min(most, batch // 2)
    assert 2 * fits + 1 >= min(most, batch // 2)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_failed_allocation_is_recognised(error: Exception) -> None:
    assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_pricing_with_a_batch_too_large_names_one_that_fits() -> None:
    members = {"global": LocalDenoiser(SHAPE, 2), "narrow": Narrow(SHAPE, 2)}
    with pytest.raises(PhasewiseError, match=r"denoising by narrow with a batch of 8 does not .* a batch of 4 does"):
        measure_losses(members, torch.rand(8, *SHAPE), (0.5,), batch=8)
    with pytest.raises(PhasewiseError, match=r"timing narrow with a batch of 20 does not .* a batch of 5 does"):
        measure_ms(members, SHAPE, batch=20)


def test_what_the_failed_attempt_held_is_free_before_the_next() -> None:
    held: list[weakref.ref[Tensor]] = []

    def fill() -> None:
        big = torch.zeros(100)
        held.append(weakref.ref(big))
        raise MemoryError

    alive: list[bool] = []
    with (
        pytest.raises(PhasewiseError, match="a batch of 5 does"),
        fitting(10, lambda k: alive.append(held[0]() is not None), "this"),
    ):
        fill()
    assert alive == [False]


def test_this_very_pytorch_says_it_in_those_words() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert out_of_memory(caught.value)


def test_sampling_says_which_batch_fits() -> None:
    with pytest.raises(PhasewiseError, match="sampling with a batch of 16 does not fit into memory; a batch of 4 does"):
        sample(Narrow(SHAPE, 1), 16, steps=2, batch=16)
    assert len(sample(Narrow(SHAPE, 1), 16, steps=2, batch=4)) == 16


def test_training_says_which_batch_fits() -> None:
    images = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(0))
    with pytest.raises(
        PhasewiseError, match="training small with a batch of 20 does not fit into memory; a batch of 5"
    ):
        train(Narrow(SHAPE, 1), images, steps=2, batch=20, name="small", progress=False)


def test_where_nothing_fits_it_says_so_and_other_errors_pass() -> None:
    with pytest.raises(PhasewiseError, match="not even a single image does"), fitting(8, bears(0), "it"):  # type: ignore[arg-type]
        raise MemoryError
    with pytest.raises(RuntimeError, match="shapes"), fitting(8, bears(8), "it"):  # type: ignore[arg-type]
        raise RuntimeError("wrong shapes")


def test_moments_of_parts_are_those_of_the_whole(monkeypatch):
    """In one part to the bit what the plain formula gives; in several to rounding."""
    rows = torch.randn(101, 7, generator=torch.Generator().manual_seed(0)) + 3
    x = rows.double()
    mean, covariance = memory.mean_and_covariance(rows)
    assert torch.equal(mean, x.mean(0))
    assert torch.equal(covariance, (x - x.mean(0)).T @ (x - x.mean(0)) / 101)
    monkeypatch.setattr(memory, "AT_ONCE", 70)
    again = memory.mean_and_covariance(rows)
    torch.testing.assert_close(again, (mean, covariance), rtol=1e-12, atol=1e-12)


def test_variances_of_parts_are_those_of_the_whole(monkeypatch):
    images = torch.randn(50, 2, 3, 3, generator=torch.Generator().manual_seed(0)) + 100
    monkeypatch.setattr(memory, "AT_ONCE", 18 * 7)
    mean, variance = memory.mean_and_variance(images)
    torch.testing.assert_close(mean, images.double().mean(0))
    torch.testing.assert_close(variance, images.double().var(0, correction=0))


def test_images_that_are_not_finite_are_counted_in_parts(monkeypatch):
    images = torch.zeros(10, 1, 3, 3)
    assert memory.not_finite(images) == 0
    images[1, 0, 0, 0], images[7], images[9, 0, 2] = torch.nan, torch.inf, -torch.inf
    for at_once in (1, 9, 30, 1000):
        monkeypatch.setattr(memory, "AT_ONCE", at_once)
        assert memory.not_finite(images) == 3


def test_free_memory_is_known():
    free = memory.available()
    assert free is None or 2**20 < free < 2**50
