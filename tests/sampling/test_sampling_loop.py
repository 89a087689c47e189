"""The loop: one stream per sample, partial runs, hybrids, and what it refuses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewise.denoisers import HybridDenoiser, LocalDenoiser, SamplingPlan, WienerDenoiser
from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import CosinePath, LinearPath
from phasewise.results import HybridSchedule
from phasewise.sampling import sample, starting_noise, time_grid
from phasewise.sampling.grid import SPACINGS

SHAPE = (1, 6, 6)


@pytest.fixture(scope="module")
def local():
    torch.manual_seed(0)
    denoiser = LocalDenoiser(SHAPE, 2)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return denoiser.eval()


class Counting(Denoiser):
    """Returns a constant image and remembers the times it was asked for."""

    def __init__(self, value):
        super().__init__(SHAPE)
        self.value, self.asked = value, []

    def forward(self, x_t, t, cond=None):
        self.asked.append(round(float(t), 6))
        return torch.full_like(x_t, self.value)


def test_same_seed_same_samples_to_the_bit(local):
    first = sample(local, n=10, seed=3, steps=4, batch=4)
    assert torch.equal(first, sample(local, n=10, seed=3, steps=4, batch=4))
    assert not torch.equal(first, sample(local, n=10, seed=4, steps=4, batch=4))


def test_batch_size_changes_nothing(local):
    whole = sample(local, n=10, seed=3, steps=4, batch=10)
    for batch in (1, 3):
        assert (sample(local, n=10, seed=3, steps=4, batch=batch) - whole).abs().max() < 1e-4
    assert (sample(local, n=4, seed=3, steps=4) - whole[:4]).abs().max() < 1e-4


@given(n=st.integers(1, 12), first=st.integers(0, 50), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=25, deadline=None)
def test_noise_depends_on_seed_and_index_alone(n, first, seed):
    noise = starting_noise(n, SHAPE, seed, first)
    assert torch.equal(noise[-1:], starting_noise(1, SHAPE, seed, first + n - 1))


def test_noise_is_standard_normal_and_streams_differ():
    noise = starting_noise(400, SHAPE, seed=1)
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05
    correlation = torch.corrcoef(noise.flatten(1)[:50])
    assert (correlation - torch.eye(50)).abs().max() < 0.7


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("path", [None, CosinePath()])
def test_time_grid_decreases_between_its_ends(spacing, path):
    grid = time_grid(12, spacing=spacing, path=path, t_min=0.03)
    assert len(grid) == 12
    assert grid[0] == 1.0
    assert grid[-1] == 0.03
    assert all(a > b for a, b in zip(grid, grid[1:], strict=False))


@pytest.mark.parametrize("path", [LinearPath(), CosinePath()])
def test_shifted_times_are_even_ones_of_less_noise(path):
    """Even in the time of a quarter of the noise to signal ratio: on the linear path Esser et al. (2024), eq. 23."""
    grid = torch.tensor(time_grid(9, spacing="shift4", path=path, t_start=0.9, t_min=0.1), dtype=torch.float64)
    even = path.t_of_log_snr(path.log_snr(grid) + 2 * math.log(4)).diff()
    torch.testing.assert_close(even, even.mean().expand(8))
    if isinstance(path, LinearPath):
        small = torch.linspace(0.9 / (4 - 3 * 0.9), 0.1 / (4 - 3 * 0.1), 9, dtype=torch.float64)
        torch.testing.assert_close(grid, 4 * small / (1 + 3 * small))


def test_partial_run_starts_from_the_given_image():
    wiener = WienerDenoiser(SHAPE)
    wiener.eigenvalues.fill_(1e4)  # keeps what it sees: recovery from little noise returns the image
    x = torch.rand(5, *SHAPE)
    x_t = wiener.path.add_noise(x, starting_noise(5, SHAPE), 0.05)
    back = sample(wiener, x_init=x_t, t_start=0.05, steps=8)
    torch.testing.assert_close(back, x_t / 0.95, rtol=1e-3, atol=1e-3)


def test_partial_run_of_a_hybrid_uses_the_rest_of_its_grid():
    member = Counting(0.0)
    hybrid = HybridDenoiser({"a": member}, HybridSchedule((1.0, 0.6, 0.3, 0.1), ("a",) * 4, "euler"))
    sample(hybrid, x_init=torch.zeros(1, *SHAPE), t_start=0.5)
    assert member.asked == [0.5, 0.3, 0.1]


def test_one_member_takes_predictor_and_corrector():
    a, b = Counting(0.0), Counting(1.0)
    hybrid = HybridDenoiser({"a": a, "b": b}, HybridSchedule((1.0, 0.5, 0.2), ("a", "b", "a"), "heun"))
    sample(hybrid, n=1)
    assert a.asked == [1.0, 0.5, 0.2]
    assert b.asked == [0.5, 0.2]


def test_a_hybrid_of_one_member_is_that_member(local):
    times = time_grid(6)
    hybrid = HybridDenoiser({"x": local}, HybridSchedule(times, ("x",) * 6, "heun"))
    assert torch.equal(sample(hybrid, n=3, seed=1), sample(local, n=3, seed=1, times=times, solver="heun"))


class Told(Counting):
    """Returns its condition, a number for each image."""

    takes_condition = True

    def forward(self, x_t, t, cond=None):
        super().forward(x_t, t)
        return cond.reshape(-1, 1, 1, 1).expand_as(x_t).float()


@pytest.mark.parametrize("solver", ["heun", "exp_ab2", "ancestral"])
def test_a_condition_follows_its_sample_into_every_batch(solver):
    cond = torch.arange(5)
    out = sample(Told(0.0), n=5, steps=3, batch=2, cond=cond, solver=solver)
    assert out[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert (sample(Told(0.0), n=5, steps=3, batch=2, cond=3, solver=solver) == 3).all()
    start = torch.zeros(5, *SHAPE)
    partial = sample(Told(0.0), x_init=start, t_start=0.5, steps=3, batch=2, cond=cond, solver=solver)
    assert partial[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_condition_reaches_the_members_of_a_hybrid_that_take_one():
    told, plain = Told(0.0), Counting(9.0)
    hybrid = HybridDenoiser({"t": told, "p": plain}, HybridSchedule((1.0, 0.5, 0.2), ("t", "p", "t"), "heun"))
    out = sample(hybrid, n=3, batch=2, cond=torch.tensor([4, 5, 6]))
    assert out[:, 0, 0, 0].tolist() == [4, 5, 6]
    assert told.asked == [1.0, 0.5, 0.2] * 2
    assert plain.asked == [0.5, 0.2] * 2
    assert torch.equal(out, sample(hybrid.on(CosinePath()).on(hybrid.path), n=3, batch=2, cond=torch.tensor([4, 5, 6])))


def test_a_condition_that_does_not_fit_is_refused(local):
    with pytest.raises(PhasewiseError, match="cond is given, but LocalDenoiser takes no condition"):
        sample(local, n=2, cond=0)
    with pytest.raises(PhasewiseError, match="cond has 3 rows for 2 images"):
        sample(Told(0.0), n=2, cond=torch.arange(3))
    with pytest.raises(PhasewiseError, match="cond is given, but Given takes no condition"):
        sample(Told(0.0).given(1), n=2, cond=1)


def test_any_denoiser_may_bring_its_own_plan():
    class Planned(Counting):
        def sampling_plan(self):
            return SamplingPlan((0.9, 0.4), "heun")

    planned = Planned(0.0)
    sample(planned, n=1)
    assert planned.asked == [0.9, 0.4, 0.4]
    with pytest.raises(PhasewiseError, match="brings its own grid"):
        sample(planned, n=1, solver="euler")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "rk9"}, "known: euler, heun"),
        ({"times": (0.5, 0.7)}, "decrease"),
        ({"times": (1.0, 0.0)}, "decrease"),
        ({"steps": -1}, "steps must be a whole number >= 1"),
        ({"n": 0}, "n must be a whole number >= 1"),
        ({"x_init": torch.zeros(1, *SHAPE)}, "t_start"),
        ({"x_init": torch.zeros(1, 3, 6, 6), "t_start": 0.5}, "shape"),
        ({"spacing": "odd"}, "known: uniform"),
    ],
)
def test_refusals_name_the_mend(local, arguments, message):
    with pytest.raises(PhasewiseError, match=message):
        sample(local, **{"n": 2, **arguments})


def test_a_hybrid_refuses_another_grid(local):
    hybrid = HybridDenoiser({"x": local}, HybridSchedule((1.0, 0.5), ("x", "x"), "heun"))
    with pytest.raises(PhasewiseError, match="brings its own grid"):
        sample(hybrid, n=1, steps=8)
