"""k-local reverse processes: rates written out, information lost pixel by pixel, and the limit of thin layers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from phasewise.errors import PhasewiseError
from phasewise.exact import (
    DiscreteSystem,
    GaussianField,
    GaussianModel,
    ensembles,
    gaussian_cmi,
    regions,
    reverse_bits,
    reverse_field,
    score_gap,
)
from phasewise.exact.base import noise_level
from phasewise.paths import VarianceExplodingPath


def random_system(seed: int, shape: tuple[int, int]) -> DiscreteSystem:
    p = np.random.default_rng(seed).random(2 ** (shape[0] * shape[1])) ** 3
    return DiscreteSystem(p / p.sum(), shape)


def lost(system: DiscreteSystem, t: float, radius: int, step: float) -> float:
    """Sum over pixels of what ``I(A : C | B)`` loses when A alone is noised by ``-log(1 - t) -> + step``."""
    s = 1 - (1 - t) * math.exp(-step)
    width = system.shape[1]
    return sum(system.recovery_bound(t, s, radius, 1, (k // width, k % width)) for k in range(system.n))


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_the_score_gap_is_the_information_that_single_pixels_lose(seed, t):
    system = random_system(seed, (4, 2))  # its windows come in groups, not in the order of pixels
    for radius in (0, 1):
        h = 2e-3
        # three steps of halving size: the derivative at 0 to fourth order
        coarse, fine, finest = (lost(system, t, radius, h / k) * k / h for k in (1, 2, 4))
        slope = (coarse - 6 * fine + 8 * finest) / 3
        assert score_gap(system, t, radius) == pytest.approx(slope, abs=1e-8)
    assert score_gap(system, t, 3) == pytest.approx(0, abs=1e-12)


def test_rates_against_a_generator_written_out():
    """A matrix exponential of small steps with the k-local rates, state by state."""
    system, steps = random_system(1, (1, 3)), 1500
    grid = np.linspace(math.log(0.8 / 0.2), math.log(0.3 / 0.7), steps + 1)
    q = system.noisy(0.8).reshape(-1)
    for x, y in zip(grid[:-1], grid[1:], strict=True):
        t, s = (1 / (1 + math.exp(-z)) for z in (x, y))
        p, generator = system.noisy(1 / (1 + math.exp(-(x + y) / 2))), np.zeros((8, 8))
        for state in range(8):
            bits = [(state >> (2 - k)) & 1 for k in range(3)]
            for i in range(3):
                keep = [k for k in range(3) if abs(k - i) <= 1]
                near = p.sum(tuple(k for k in range(3) if k not in keep))
                here = tuple(bits[k] for k in keep)
                there = tuple(1 - bits[k] if k == i else bits[k] for k in keep)
                generator[state ^ (1 << (2 - i)), state] = 0.5 * near[there] / near[here]
        generator -= np.diag(generator.sum(0))
        q = expm(generator * math.log((1 - s) / (1 - t))) @ q
    p = system.noisy(0.3).reshape(-1)
    found = reverse_bits(system, 1, 0.3, 0.8, steps=60)
    assert found.kl == pytest.approx(float((p * np.log(p / q)).sum()), abs=1e-8)
    assert found.kl > 1e-4


@pytest.mark.parametrize("name", ["ghz", "ising", "random"])
def test_it_is_the_limit_of_thin_layers(name):
    system = {"ghz": ensembles.ghz((1, 4)), "ising": ensembles.ising((4, 2), 0.5), "random": random_system(2, (1, 4))}
    levels = [1 / (1 + np.exp(-np.linspace(-2.5, 2.5, k + 1))) for k in (16, 32, 64)]
    ends = float(levels[0][0]), float(levels[0][-1])
    radius = 1
    found = reverse_bits(system[name], radius, *ends, steps=40)
    layers = [system[name].path_recovery(x, radius, "colours") for x in levels]
    for value, thin in ((found.kl, [x.kl for x in layers]), (found.bound, [sum(x.terms) for x in layers])):
        first = [2 * b - a for a, b in zip(thin, thin[1:], strict=False)]
        assert (4 * first[1] - first[0]) / 3 == pytest.approx(value, rel=1e-3), "extrapolated to no thickness"
    assert 0 < found.kl < found.bound
    assert reverse_bits(system[name], 4, *ends, steps=40).kl == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("radius", "bound", "kl"), [(1, 4.029, 3.165), (4, 0.465, 0.292)])
def test_the_ring_of_24(radius, bound, kl):
    """The numbers of :mod:`test_exact_gaussian`, which come from an integration mode by mode."""
    model = GaussianModel(GaussianField((1, 24), mass=0.1).covariance, (1, 24), wrap=True)
    found = reverse_field(model, radius, 1e-9, 1 - 1e-9, VarianceExplodingPath(0.03, 40), steps=150)
    assert (round(found.kl, 3), round(found.bound, 3)) == (kl, bound)


def test_fields_lose_the_information_of_single_pixels():
    """The path KL of a field is the sum over pixels of the CMI lost, layer by layer, in the limit of thin layers."""
    root = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    model, radius, ends = GaussianModel(root @ root.T / 8, (2, 3)), 0, (0.2, 0.7)

    def summed(layers: int) -> float:
        grid, total = np.linspace(*(math.log(t / (1 - t)) for t in ends), layers + 1), 0.0
        levels = [noise_level(1 / (1 + math.exp(-x))) for x in grid.tolist()]
        noise = [(sigma / alpha) ** 2 for alpha, sigma in levels]
        covariance = model.covariance + noise[0] * torch.eye(6, dtype=torch.float64)
        for v, w in zip(noise, noise[1:], strict=False):
            for k in range(6):
                region = regions((2, 3), radius, 1, (k // 3, k % 3))
                total += gaussian_cmi(covariance, region.a, region.b, region.c)
                covariance[k, k] += w - v
                total -= gaussian_cmi(covariance, region.a, region.b, region.c)
        return total

    thin = [summed(k) for k in (8, 16, 32)]
    first = [2 * b - a for a, b in zip(thin, thin[1:], strict=False)]
    found = reverse_field(model, radius, *ends, steps=60)
    assert (4 * first[1] - first[0]) / 3 == pytest.approx(found.bound, rel=1e-4)
    assert 0 < found.kl < found.bound
    assert reverse_field(model, 2, *ends, steps=60).kl == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: reverse_bits(ensembles.ghz((1, 3)), 1, 0.0, 0.9), "t_min < t_max"),
        (lambda: reverse_bits(ensembles.ghz((1, 3)), 1, 0.01, 0.9, steps=1), "too few"),
        (lambda: reverse_field(GaussianField((2, 2)), 1, 0.5, 0.2), "t_min < t_max"),
        (lambda: score_gap(ensembles.ghz((1, 3)), 0.0, 1), "above 0"),
        (lambda: score_gap("ghz", 0.5, 1), "DiscreteSystem"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(PhasewiseError, match=words):
        make()
