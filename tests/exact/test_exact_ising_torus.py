"""Cluster updates on the Ising torus against enumeration of all its states, and its gap against theirs."""

from functools import cache

import numpy as np
import pytest

from phasewise.errors import PhasewiseError
from phasewise.exact import IsingTorus

SIDE, BETA = 4, 0.35


@cache
def states():
    """All 2^16 images of a 4 x 4 torus, and the log of their weights."""
    bits = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    spins = (2 * bits - 1).reshape(-1, SIDE, SIDE).astype(np.float64)
    bonds = sum((spins * np.roll(spins, 1, axis)).sum((1, 2)) for axis in (1, 2))
    return spins.reshape(-1, 16), BETA * bonds


def exact_means(fields):
    spins, weight = states()
    log_p = weight + fields.reshape(len(fields), 16) @ spins.T
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True) @ spins).reshape(fields.shape)


@pytest.mark.parametrize("gamma", [0.1, 0.8])
def test_posterior_means_are_those_of_all_states(gamma):
    rng = np.random.default_rng(0)
    model = IsingTorus(SIDE, BETA)
    clean = model.sample(6, 1)[:, 0].numpy().astype(np.int8)
    seen = np.ones((SIDE, SIDE))
    seen[:, 2:] = 0  # half of the image
    fields = (gamma * clean + np.sqrt(gamma) * rng.standard_normal(clean.shape)) * seen
    runs = model.means(fields, rng, clean, sweeps=1500, forget=20)
    apart = runs[1] - runs[0]
    error = np.sqrt((apart**2).mean() / 2)  # of a run, by the difference of two
    assert error < 0.03
    assert np.abs(runs.mean(0) - exact_means(fields)).max() < 5 * error


def test_clean_images_have_the_energy_of_all_states():
    _, weight = states()
    p = np.exp(weight - weight.max())
    p /= p.sum()
    wanted = float((p * weight).sum()) / BETA / 32
    drawn = IsingTorus(SIDE, BETA).sample(3000, 0)[:, 0].numpy()
    bonds = sum((drawn * np.roll(drawn, 1, axis)).mean((1, 2)) for axis in (1, 2)) / 2
    assert abs(bonds.mean() - wanted) < 4 * bonds.std() / np.sqrt(len(bonds))


def test_the_gap_of_a_window_is_free_of_the_noise_of_the_chains():
    """Where neighbours are independent a window lacks nothing, so all that differs is noise, and it averages out."""
    gap = IsingTorus(8, 0.0).window_gap([0.5, 1.0], 20, 3, sweeps=2, forget=1)
    assert gap.shape == (2, 20)
    np.testing.assert_allclose(gap, 0, atol=1e-12)
    cold = IsingTorus(8, 0.6).window_gap([0.02], 60, 3, sweeps=10, forget=4)[0]
    assert cold.mean() > 3 * cold.std() / np.sqrt(len(cold))  # one sign for all: the whole image knows it first


@pytest.mark.parametrize(("make", "says"), [
    (lambda: IsingTorus(2), "side"),
    (lambda: IsingTorus(12).window_gap([0.1], 2, 0), "multiple of 8"),
    (lambda: IsingTorus(8).window_gap([0.0], 2, 0), "gamma"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(make, says):
    with pytest.raises(PhasewiseError, match=says):
        make()
