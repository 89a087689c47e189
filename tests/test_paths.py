"""Paths: conversions agree and invert each other, derivatives are autograd's, relabelling keeps the noisy image."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from phasewise.errors import PhasewiseError
from phasewise.paths import (
    PATHS,
    CosinePath,
    LinearPath,
    NoisePath,
    ScaledPath,
    TablePath,
    VarianceExplodingPath,
    as_time,
    path_from_config,
    register_path,
    translate,
)

ALL: list[NoisePath] = [
    LinearPath(),
    CosinePath(),
    VarianceExplodingPath(0.01, 20.0),
    TablePath(betas="linear"),
    ScaledPath(CosinePath(), 2.0),
]
every_path = pytest.mark.parametrize("path", ALL, ids=lambda p: p.name)
LAW = settings(max_examples=30, deadline=None, derandomize=True)
inner_times = st.floats(0.02, 0.98)
shared_times = st.floats(0.06, 0.94)  # where the log-SNR lies within the range of all three paths


def pair(seed: int = 0, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Clean images and noise, (batch, 2, 3, 2) float64."""
    generator = torch.Generator().manual_seed(seed)
    x, z = torch.randn(2, batch, 2, 3, 2, generator=generator, dtype=torch.float64)
    return x, z


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- the four predictions -------------------------------------------------------------------------------------------


@every_path
@LAW
@given(t=inner_times)
def test_predictions_of_the_true_image_are_the_true_noise_score_and_velocity(path: NoisePath, t: float) -> None:
    x, z = pair()
    s = torch.tensor(t, dtype=torch.float64)
    x_t = path.add_noise(x, z, t)
    close(x_t, path.alpha(s) * x + path.sigma(s) * z)
    close(path.eps_from_x(x_t, x, t), z)
    close(path.score_from_x(x_t, x, t), -z / path.sigma(s))
    close(path.velocity_from_x(x_t, x, t), path.alpha_dot(s) * x + path.sigma_dot(s) * z)


@every_path
@LAW
@given(t=inner_times)
def test_every_prediction_gives_the_image_back(path: NoisePath, t: float) -> None:
    x_t, guess = pair(1)  # any x-hat, not only the true image
    for there, back in (
        (path.eps_from_x, path.x_from_eps),
        (path.score_from_x, path.x_from_score),
        (path.velocity_from_x, path.x_from_velocity),
    ):
        close(back(x_t, there(x_t, guess, t), t), guess, 1e-8)
        close(there(x_t, back(x_t, guess, t), t), guess, 1e-8)


@every_path
def test_one_time_per_image_is_the_same_as_one_call_per_image(path: NoisePath) -> None:
    x_t, guess = pair(2)
    times = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for convert in (
        path.add_noise,
        path.eps_from_x,
        path.x_from_eps,
        path.score_from_x,
        path.x_from_score,
        path.velocity_from_x,
        path.x_from_velocity,
    ):
        together = convert(x_t, guess, times)
        alone = [convert(x_t[i : i + 1], guess[i : i + 1], float(t)) for i, t in enumerate(times)]
        close(together, torch.cat(alone), 1e-12)


def test_the_image_is_recovered_from_the_velocity_where_sigma_or_alpha_vanishes() -> None:
    x, z = pair(3)
    for path in ALL[:2]:
        for t in (0.0, 1.0):
            s = torch.tensor(t, dtype=torch.float64)
            velocity = path.alpha_dot(s) * x + path.sigma_dot(s) * z
            close(path.x_from_velocity(path.add_noise(x, z, t), velocity, t), x, 1e-12)


# --- derivatives ----------------------------------------------------------------------------------------------------


def derivative(function: object, t: Tensor) -> Tensor:
    """d function / dt by autograd, elementwise; 0 where the function does not depend on t."""
    return torch.autograd.functional.jacobian(lambda s: function(s).sum(), t)  # type: ignore[operator, no-any-return]


@every_path
def test_hand_written_derivatives_are_those_of_autograd(path: NoisePath) -> None:
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    close(path.alpha_dot(t), derivative(path.alpha, t), 1e-12)
    close(path.sigma_dot(t), derivative(path.sigma, t), 1e-12)


@every_path
@LAW
@given(t=inner_times)
def test_velocity_is_the_time_derivative_of_the_noisy_image(path: NoisePath, t: float) -> None:
    x, z = pair(4)
    motion = torch.autograd.functional.jacobian(lambda s: path.add_noise(x, z, s), torch.tensor(t, dtype=torch.float64))
    close(path.velocity_from_x(path.add_noise(x, z, t), x, t), motion)


@every_path
@LAW
@given(t=inner_times)
def test_velocity_gain_is_how_much_an_error_of_the_image_moves_the_velocity(path: NoisePath, t: float) -> None:
    x_t, guess = pair(5)
    moved = path.velocity_from_x(x_t, guess + 1, t) - path.velocity_from_x(x_t, guess, t)
    close(moved.abs(), path.velocity_gain(t).expand_as(moved), 1e-8)


def test_velocity_gain_of_the_linear_path_is_one_over_t() -> None:
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    close(LinearPath().velocity_gain(t), 1 / t)


# --- signal-to-noise ------------------------------------------------------------------------------------------------


@every_path
@LAW
@given(t=inner_times)
def test_log_snr_is_the_log_of_gamma_and_its_inverse_gives_the_time_back(path: NoisePath, t: float) -> None:
    s = torch.tensor(t, dtype=torch.float64)
    gamma = (path.alpha(s) / path.sigma(s)) ** 2
    close(path.gamma(t), gamma)
    close(path.log_snr(t), gamma.log())
    close(path.t_of_log_snr(path.log_snr(t)), s)


@every_path
def test_log_snr_falls(path: NoisePath) -> None:
    values = path.log_snr(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert (values.diff() < 0).all()


@pytest.mark.parametrize("path", ALL[:2], ids=lambda p: p.name)
def test_a_path_from_data_to_pure_noise_has_infinite_log_snr_at_its_ends(path: NoisePath) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert path.log_snr(ends).tolist() == [math.inf, -math.inf]
    close(path.t_of_log_snr(torch.tensor([math.inf, -math.inf], dtype=torch.float64)), ends)


def test_a_log_snr_beyond_the_variance_exploding_range_goes_to_the_nearer_end() -> None:
    path = VarianceExplodingPath(0.01, 20.0)
    assert path.t_of_log_snr(100.0) == 0
    assert path.t_of_log_snr(-100.0) == 1
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    close(path.sigma(ends), torch.tensor([0.01, 20.0], dtype=torch.float64))


def test_the_linear_path_is_the_published_one_and_the_cosine_path_keeps_the_variance() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.equal(LinearPath().alpha(t), 1 - t)
    assert torch.equal(LinearPath().sigma(t), t)
    cosine = CosinePath()
    close(cosine.alpha(t) ** 2 + cosine.sigma(t) ** 2, torch.ones_like(t), 1e-14)


# --- one path spoken in the units of another ------------------------------------------------------------------------

pairs_of_paths = pytest.mark.parametrize(("source", "target"), [(a, b) for a in ALL for b in ALL], ids=lambda p: p.name)


@pairs_of_paths
@LAW
@given(t=shared_times)
def test_translation_is_the_same_image_under_the_same_noise_at_equal_log_snr(
    source: NoisePath, target: NoisePath, t: float
) -> None:
    s = (source.t_of_log_snr(LinearPath().log_snr(t))).double()  # a time of the source within all ranges
    x, z = pair(6)
    there, u = translate(source.add_noise(x, z, s), s, source, target)
    close(target.log_snr(u), source.log_snr(s), 1e-8)
    close(there, target.add_noise(x, z, u), 1e-8)
    back, again = translate(there, u, target, source)
    close(back, source.add_noise(x, z, s), 1e-8)
    close(again, s, 1e-8)


def test_translation_keeps_the_shape_of_the_times() -> None:
    x, z = pair(7)
    times = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    source, target = LinearPath(), CosinePath()
    x_t = source.add_noise(x, z, times)
    there, u = translate(x_t, times, source, target)
    assert u.shape == (3,)
    alone = [translate(x_t[i : i + 1], float(times[i]), source, target) for i in range(3)]
    close(there, torch.cat([a for a, _ in alone]), 1e-12)
    close(u, torch.stack([b for _, b in alone]), 1e-12)
    assert alone[0][1].shape == ()


def test_translation_to_an_equal_path_changes_nothing() -> None:
    x_t, _ = pair(8)
    there, u = translate(x_t, 0.3, VarianceExplodingPath(0.01, 20.0), VarianceExplodingPath(0.01, 20.0))
    assert there is x_t
    assert u == 0.3


def test_translation_beyond_the_target_goes_to_its_nearer_end_and_pure_noise_to_pure_noise() -> None:
    x_t, _ = pair(9)
    narrow = VarianceExplodingPath(0.5, 2.0)
    assert translate(x_t, 0.999, LinearPath(), narrow)[1] == 1
    assert translate(x_t, 0.001, LinearPath(), narrow)[1] == 0
    noise, u = translate(x_t, 1.0, LinearPath(), CosinePath())
    assert u == 1
    close(noise, x_t, 1e-12)


# --- bad input, configs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [-1e-6, 1.0001, math.nan, math.inf, -math.inf, [0.1, math.nan, 0.2], []])
def test_a_time_outside_zero_to_one_is_refused(t: object) -> None:
    x, z = pair()
    with pytest.raises(PhasewiseError, match=r"must lie in \[0, 1\]"):
        LinearPath().add_noise(x, z, t)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), (3, 1, 1, 1), (1, 3)])
def test_times_that_are_not_one_per_image_are_refused_by_shape(shape: tuple[int, ...]) -> None:
    x, z = pair()
    with pytest.raises(PhasewiseError, match=r"shape \(3,\)"):
        CosinePath().add_noise(x, z, torch.full(shape, 0.5))


@pytest.mark.parametrize(
    ("t", "shape"), [(0.5, ()), (torch.tensor([0.5]), ()), (torch.tensor([0.1, 0.2, 0.3]), (3, 1, 1, 1))]
)
def test_as_time_broadcasts_in_the_dtype_of_the_images(t: float | Tensor, shape: tuple[int, ...]) -> None:
    s = as_time(t, pair()[0])
    assert s.shape == shape
    assert s.dtype == torch.float64


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0), (1.0, 1.0), (math.nan, 1.0)])
def test_a_variance_exploding_path_needs_rising_positive_sigmas(low: float, high: float) -> None:
    with pytest.raises(PhasewiseError, match="sigma_min"):
        VarianceExplodingPath(low, high)


@pytest.mark.parametrize("path", [*ALL, VarianceExplodingPath()], ids=repr)
def test_a_path_survives_json(path: NoisePath) -> None:
    again = path_from_config(json.loads(json.dumps(path.config())))
    assert again == path
    assert hash(again) == hash(path)
    assert type(again) is type(path)
    t = torch.linspace(0.1, 0.9, 5)
    assert torch.equal(again.sigma(t), path.sigma(t))


class Steep(LinearPath):
    """A path of a user's own."""

    name = "steep"

    def __init__(self, slope: float = 2.0) -> None:
        self.slope = slope

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "slope": self.slope}


def test_a_path_of_ones_own_is_known_once_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PATHS, "_entries", dict(PATHS.items()))
    with pytest.raises(PhasewiseError, match="unknown path 'steep'; known: linear"):
        path_from_config(Steep().config())
    assert register_path(Steep) is Steep
    assert path_from_config(Steep(3.0).config()) == Steep(3.0) != Steep()
    with pytest.raises(PhasewiseError, match="there is a path named 'linear' already"):
        register_path(type("Mine", (LinearPath,), {}))


def test_paths_differ_by_kind_and_by_parameters() -> None:
    assert len({*ALL, VarianceExplodingPath(0.01, 21.0)}) == len(ALL) + 1
    assert LinearPath() != "linear"
    assert repr(VarianceExplodingPath(0.5, 2.0)) == "VarianceExplodingPath(sigma_min=0.5, sigma_max=2.0)"
    assert {p.name for p in ALL} | {"modes"} == set(PATHS)  # a new path joins the tests of this file; modes: its own


@pytest.mark.parametrize("config", [{"name": "straight"}, {}])
def test_an_unknown_path_is_refused_by_name(config: dict[str, str]) -> None:
    with pytest.raises(PhasewiseError, match=r"unknown path .*; known: linear, cosine, variance_exploding"):
        path_from_config(config)
