"""Anybody's network as a denoiser: every prediction type and clock gives one posterior mean; wrong use is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import phasewise as pw
from phasewise.denoisers.predictions import PREDICTIONS, Prediction, edm, register_prediction
from phasewise.errors import PhasewiseError
from phasewise.paths import CosinePath, LinearPath, NoisePath, ScaledPath, TablePath, VarianceExplodingPath

SHAPE = (1, 6, 6)
PATHS = [LinearPath(), CosinePath(), TablePath(betas="linear", steps=50), VarianceExplodingPath(0.01, 20.0)]


@pytest.fixture(scope="module")
def wiener() -> pw.WienerDenoiser:
    mix = torch.randn(36, 36, generator=torch.Generator().manual_seed(0)) / 6
    images = torch.randn(200, 36, generator=torch.Generator().manual_seed(1)) @ mix
    return pw.WienerDenoiser.fit(images.reshape(-1, *SHAPE))


def foreign(denoiser: pw.Denoiser, path: NoisePath, kind: Prediction, time_of: Callable[[Tensor], Tensor]) -> Any:
    """A network elsewhere: it predicts ``kind`` on ``path``, and makes our t of what it is told."""
    own = denoiser.on(path)

    def network(shown: Tensor, told: Tensor) -> Tensor:
        t = time_of(told).clamp(0, 1)
        s = t.reshape(-1, 1, 1, 1)
        x_t = shown if kind.takes is None else shown / kind.takes(path, torch.ones_like(shown), s)
        return kind.from_x(path, x_t, own(x_t, t), s)

    return network


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("kind", [*PREDICTIONS.values(), edm(0.8, -1.0)], ids=lambda k: k.name)
def test_every_prediction_on_every_path_is_the_posterior_mean(
    path: NoisePath, kind: Prediction, wiener: pw.WienerDenoiser
) -> None:
    wrapped = pw.wrap(foreign(wiener, path, kind, lambda told: told), SHAPE, predicts=kind, path=path)
    x_t = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(2))
    for t in (0.1, 0.5, 0.9, torch.tensor([0.2, 0.4, 0.7])):
        torch.testing.assert_close(wrapped(x_t, t), wiener.on(path)(x_t, t), rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(t=st.floats(0.05, 0.95), kind=st.sampled_from(sorted(PREDICTIONS)), path=st.sampled_from(PATHS))
def test_conversions_undo_each_other(t: float, kind: str, path: NoisePath) -> None:
    generator = torch.Generator().manual_seed(3)
    x_t, out = torch.randn(2, 2, *SHAPE, generator=generator, dtype=torch.float64)
    s, one = torch.tensor(t, dtype=torch.float64), PREDICTIONS[kind]
    torch.testing.assert_close(one.from_x(path, x_t, one.to_x(path, x_t, out, s), s), out, rtol=1e-6, atol=1e-6)


CLOCKS: list[tuple[dict[str, Any], Callable[[NoisePath, Tensor], Tensor]]] = [
    ({"time": "t", "time_scale": 1000.0}, lambda path, told: told / 1000),
    ({"time": "t", "time_scale": -1.0, "time_shift": 1.0}, lambda path, told: 1 - told),
    ({"time": "sigma"}, lambda path, told: path.t_of_log_snr(-2 * told.log())),
    ({"time": "log_sigma", "time_scale": 0.25}, lambda path, told: path.t_of_log_snr(-8 * told)),
    ({"time": "log_snr"}, lambda path, told: path.t_of_log_snr(told)),
]


@pytest.mark.parametrize(("how", "time_of"), CLOCKS, ids=[str(c[0]) for c in CLOCKS])
def test_every_clock_tells_the_same_time(
    how: dict[str, Any], time_of: Callable[[NoisePath, Tensor], Tensor], wiener: pw.WienerDenoiser
) -> None:
    path = CosinePath()
    network = foreign(wiener, path, PREDICTIONS["v"], lambda told: time_of(path, told))
    wrapped = pw.wrap(network, SHAPE, predicts="v", path=path, **how)
    x_t = torch.randn(2, *SHAPE)
    torch.testing.assert_close(wrapped(x_t, 0.4), wiener.on(path)(x_t, 0.4), rtol=1e-4, atol=1e-4)
    for t in (0.1, 0.4, 0.9):
        assert wrapped.clock.time_of_timestep(wrapped.clock.timestep_of_time(t)) == pytest.approx(t, abs=1e-6)


def test_steps_of_a_table_are_told_as_whole_numbers(wiener: pw.WienerDenoiser) -> None:
    path, heard = TablePath(betas="linear", steps=1000), []

    def network(x: Tensor, k: Tensor) -> Tensor:
        heard.append(k)
        return x

    wrapped = pw.wrap(network, SHAPE, predicts="eps", path=path, time="timestep")
    x_t = torch.zeros(4, *SHAPE)
    wrapped(x_t, torch.tensor([1, 2, 500, 1000]).float() / 1000)
    assert heard[-1].tolist() == [0, 1, 499, 999]
    assert wrapped.clock.steps_total == 1000
    assert wrapped.clock.time_of_timestep(499) == 0.5
    wrapped(x_t, 0.4567)  # between two steps
    assert float(heard[-1][0]) == pytest.approx(455.7, abs=1e-3)
    whole = pw.wrap(network, SHAPE, predicts="eps", path=path, time="timestep", whole_times=True)
    whole(x_t, 0.4567)
    assert heard[-1].tolist() == [456] * 4


def test_other_pixels_are_another_path(wiener: pw.WienerDenoiser) -> None:
    """A network for -1..1 where ours are 0..1: images of it are those of the same filter fitted to 2 x - 1."""
    wide = pw.WienerDenoiser((1, 6, 6))
    wide.load_state_dict(wiener.state_dict())
    wide.mean.copy_(2 * wiener.mean - 1)
    wide.eigenvalues.copy_(4 * wiener.eigenvalues)
    wrapped = pw.wrap(lambda x, t: wide.on(LinearPath())(x, t), SHAPE, predicts="x0", pixel_range=(-1, 1))
    assert wrapped.path == ScaledPath(LinearPath(), 2.0)
    x_t = torch.randn(3, *SHAPE)
    torch.testing.assert_close(wrapped(x_t, 0.3), wiener.on(wrapped.path)(x_t, 0.3), rtol=1e-4, atol=1e-4)
    on_ours = wrapped.on(LinearPath())
    torch.testing.assert_close(on_ours(x_t, 0.3), wiener(x_t, 0.3), rtol=1e-4, atol=1e-4)


def test_learned_variances_are_split_off_and_answers_are_unpacked(wiener: pw.WienerDenoiser) -> None:
    x_t = torch.randn(2, *SHAPE)
    plain = pw.wrap(lambda x, t: x, SHAPE, predicts="x0")(x_t, 0.5)
    for answer in (lambda x, t: torch.cat([x, 9 + x], 1), lambda x, t: (x, "more"), lambda x, t: Answer(x)):
        assert torch.equal(pw.wrap(answer, SHAPE, predicts="x0")(x_t, 0.5), plain)


class Answer:
    def __init__(self, sample: Tensor) -> None:
        self.sample = sample


def test_what_is_divided_by_alpha_is_asked_before_the_image_is_gone() -> None:
    wrapped = pw.wrap(lambda x, t: 0 * x, SHAPE, predicts="eps", path=CosinePath())
    answer = wrapped(torch.ones(1, *SHAPE), 1.0)
    assert torch.isfinite(answer).all()
    assert float(answer.max()) == pytest.approx(200, rel=1e-3)  # x_t / alpha at alpha / sigma = 1 / 200
    assert pw.sample(wrapped, n=2, steps=3).shape == (2, *SHAPE)


class Labelled(nn.Module):
    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return x * 0 if y is None else x * 0 + y.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("cond", ["y", ""])
def test_a_condition_reaches_the_network(cond: str) -> None:
    wrapped = pw.wrap(Labelled(), SHAPE, predicts="x0", cond=cond)
    assert wrapped.given(3)(torch.zeros(2, *SHAPE), 0.5).unique().tolist() == [3]
    with pytest.raises(PhasewiseError, match="needs a condition"):
        wrapped(torch.zeros(2, *SHAPE), 0.5)
    free = pw.wrap(Labelled(), SHAPE, predicts="x0", cond=cond, needs_condition=False)
    assert not free(torch.zeros(2, *SHAPE), 0.5).any()


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float16))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.weight * x


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: pw.wrap(nn.Identity, SHAPE, predicts="x0"), "build it first"),
    (lambda: pw.wrap(pw.WienerDenoiser(SHAPE), SHAPE, predicts="x0"), "a Denoiser already"),
    (lambda: pw.wrap(Labelled(), SHAPE, predicts="noise level"), "one of x0, eps, score, v, velocity"),
    (lambda: pw.wrap(Labelled(), SHAPE, predicts="eps", time="steps"), "one of timestep, t, sigma"),
    (lambda: pw.wrap(Labelled(), SHAPE, predicts="eps", time="timestep"), "give path=TablePath"),
    (lambda: pw.wrap(Labelled(), SHAPE, predicts="eps", cond="label"), "no argument 'label'"),
    (lambda: pw.wrap(Labelled(), SHAPE, predicts="eps", pixel_range=(1, -1)), "the lower first"),
    (lambda: pw.wrap(Labelled(), SHAPE, predicts="x0")(torch.zeros(1, 3, 6, 6), 0.5), "encode the images first"),
    (
        lambda: pw.wrap(Labelled(), SHAPE, predicts="x0")(torch.zeros(1, *SHAPE), 0.5, torch.ones(1)),
        "takes no condition",
    ),
    (lambda: pw.wrap(lambda x, t: x[:, :, 1:], SHAPE, predicts="x0")(torch.zeros(1, *SHAPE), 0.5), "has the shape"),
    (lambda: pw.wrap(lambda x, t: "x", SHAPE, predicts="x0")(torch.zeros(1, *SHAPE), 0.5), "not a tensor"),
    (lambda: pw.wrap(Half(), SHAPE, predicts="x0")(torch.zeros(1, *SHAPE), 0.5), "half precision"),
    (lambda: pw.wrap(lambda x, t: x / (t < 0.5), SHAPE, predicts="x0")(torch.ones(1, *SHAPE), 0.7), r"t = 0.7"),
    (lambda: pw.wrap(Labelled(), SHAPE, predicts="x0").config(), "wrap again"),
    (lambda: TablePath(), "one of them"),
    (lambda: TablePath([0.5, 0.6]), "must fall"),
    (lambda: TablePath(betas="quadratic"), "no schedule of betas"),
    (lambda: ScaledPath(LinearPath(), 0.0), "scale"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_input_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(PhasewiseError, match=message):
        call()


def test_a_prediction_of_ones_own_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PREDICTIONS, "_entries", dict(PREDICTIONS.items()))
    register_prediction(Prediction("residual", lambda p, x_t, out, s: x_t - out, lambda p, x_t, x, s: x_t - x))
    wrapped = pw.wrap(lambda x, t: 0.25 * x, SHAPE, predicts="residual")
    assert wrapped(torch.ones(1, *SHAPE), 0.5).unique().tolist() == [0.75]


def test_samples_are_those_of_the_denoiser_inside(wiener: pw.WienerDenoiser) -> None:
    network = foreign(wiener, CosinePath(), PREDICTIONS["eps"], lambda told: told)
    wrapped = pw.wrap(network, SHAPE, predicts="eps", path=CosinePath())
    times = pw.time_grid(6, t_start=0.98)
    ours = pw.sample(wrapped, n=4, times=times, solver="ddim", seed=1)
    # without the closed form for its flow that the filter itself brings
    plain = pw.wrap(lambda x, t: wiener.on(CosinePath())(x, t), SHAPE, predicts="x0", path=CosinePath())
    theirs = pw.sample(plain, n=4, times=times, solver="ddim", seed=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
