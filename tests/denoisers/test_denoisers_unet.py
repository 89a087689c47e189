"""The global network, and the preconditioning that all networks share."""

from __future__ import annotations

import math

import pytest
import torch
from receptive_field import jacobian, randomise
from torch import Tensor

from phasewise.denoisers import LocalDenoiser, NetworkDenoiser, UNetDenoiser
from phasewise.denoisers.unet import GLOBAL_SIZES, Attention, default_multipliers
from phasewise.errors import PhasewiseError
from phasewise.metrics.cost import count_flops
from phasewise.paths import CosinePath, LinearPath, NoisePath, VarianceExplodingPath

MNIST = (1, 28, 28)
PATHS: list[NoisePath] = [LinearPath(), CosinePath(), VarianceExplodingPath(0.01, 20.0)]


def small(shape: tuple[int, int, int] = (1, 8, 8), **choices: object) -> UNetDenoiser:
    return randomise(UNetDenoiser(shape, width=8, **choices))  # type: ignore[arg-type, return-value]


def images(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


# --- the U-Net ------------------------------------------------------------------------------------------------------


def test_the_default_network_has_the_published_order_of_cost() -> None:
    denoiser = UNetDenoiser(MNIST)
    assert denoiser.width == 32
    assert denoiser.radius is None
    assert 60e6 <= count_flops(denoiser, MNIST) <= 150e6


def test_named_sizes_cost_what_they_say() -> None:
    cost = {size: count_flops(UNetDenoiser.of_size(MNIST, size), MNIST) / 1e6 for size in GLOBAL_SIZES}
    assert cost == pytest.approx({"coarse": 27, "small": 34, "medium": 81, "large": 319}, rel=0.02)
    assert UNetDenoiser.of_size(MNIST, "medium").config() == UNetDenoiser(MNIST).config()
    with pytest.raises(PhasewiseError, match="unknown size of a global network 'huge'; known: coarse, small"):
        UNetDenoiser.of_size(MNIST, "huge")


@pytest.mark.parametrize("size", list(GLOBAL_SIZES))
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 50, 64)])
def test_every_named_size_takes_images_of_any_size(size: str, shape: tuple[int, int, int]) -> None:
    denoiser = randomise(UNetDenoiser.of_size(shape, size, path=CosinePath()))
    assert denoiser(images(1, *shape), 0.5).shape == (1, *shape)
    assert denoiser.path == CosinePath()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (1, 27, 27), (2, 9, 21), (1, 17, 5), (1, 1, 3)])
def test_any_image_size_goes_in_and_comes_out(shape: tuple[int, int, int]) -> None:
    denoiser, x = small(shape), images(2, *shape)
    for t in (0.0, 0.4, 1.0, torch.tensor([0.2, 0.9])):
        out = denoiser(x, t)
        assert out.shape == x.shape
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("heads", [0, 4])
def test_every_corner_sees_the_opposite_one(heads: int) -> None:
    corners = [(0, 0), (0, 7), (7, 0), (7, 7)]
    field = jacobian(small(heads=heads), corners)
    for (i, j), seen in zip(corners, field, strict=True):
        assert seen[7 - i, 7 - j] > 0


def test_an_image_of_a_batch_is_denoised_as_if_alone() -> None:
    denoiser, x = small((1, 12, 9)), images(5, 1, 12, 9)
    times = torch.linspace(0.1, 0.9, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    together = denoiser(x, times)
    alone = torch.cat([denoiser(x[i : i + 1], float(times[i])) for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(denoiser(x[order], times[order]), together[order], atol=1e-5, rtol=1e-5)


def test_attention_is_softmax_of_queries_on_keys() -> None:
    layer = Attention(16, heads=2)
    randomise(layer)
    x = images(3, 16, 2, 5)
    q, k, v = (p.flatten(2) for p in layer.qkv(layer.norm(x)).chunk(3, dim=1))  # (B, C, L)
    mixed = torch.empty(3, 16, 10)
    for head in (slice(0, 8), slice(8, 16)):
        weights = torch.softmax(q[:, head].transpose(1, 2) @ k[:, head] / math.sqrt(8), dim=-1)
        mixed[:, head] = (weights @ v[:, head].transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(layer(x), x + layer.out(mixed.view(3, 16, 2, 5)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("side", "levels"), [(1, 2), (8, 2), (14, 2), (16, 2), (17, 3), (32, 3), (64, 4)])
def test_levels_go_down_to_eight_pixels(side: int, levels: int) -> None:
    multipliers = default_multipliers(side)
    assert multipliers == (1, *[2] * (levels - 1))


def test_config_is_what_the_constructor_takes() -> None:
    denoiser = UNetDenoiser((3, 20, 18), width=16, multipliers=(1, 2, 4), blocks=2, patch=1, heads=2)
    config = denoiser.config()
    assert config.pop("path") == {"name": "linear"}
    again = UNetDenoiser(**config)
    assert again.config() == denoiser.config()
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in denoiser.state_dict().items()}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"width": 12}, "width must be a positive multiple of 8"),
        ({"width": 0}, "width must be a positive multiple of 8"),
        ({"multipliers": (1, 0)}, "at least 1"),
        ({"blocks": 0}, "at least 1"),
        ({"patch": 0}, "at least 1"),
        ({"width": 8, "heads": 3}, "3 attention heads do not divide 16 channels"),
    ],
)
def test_choices_that_do_not_fit_are_refused(choices: dict[str, object], message: str) -> None:
    with pytest.raises(PhasewiseError, match=message):
        UNetDenoiser((1, 8, 8), **choices)  # type: ignore[arg-type]


# --- preconditioning, shared by all networks ------------------------------------------------------------------------


def fitted(path: NoisePath, fresh: bool = False) -> NetworkDenoiser:
    denoiser = LocalDenoiser((2, 6, 5), 2, path=path)
    denoiser.fit_moments(images(50, 2, 6, 5) * torch.tensor([0.3, 2.0])[:, None, None] + 0.7)
    return denoiser if fresh else randomise(denoiser)  # type: ignore[return-value]


def test_moments_are_those_of_the_images_per_channel() -> None:
    x = images(50, 2, 6, 5) * torch.tensor([0.3, 2.0])[:, None, None] + 0.7
    denoiser = fitted(LinearPath())
    torch.testing.assert_close(denoiser.data_mean, x.mean((0, 2, 3), keepdim=True))
    torch.testing.assert_close(denoiser.data_std, x.std((0, 2, 3), keepdim=True, correction=0))


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
@pytest.mark.parametrize("t", [0.02, 0.5, 0.97])
def test_a_fresh_network_is_the_best_linear_guess_for_pixels_taken_alone(path: NoisePath, t: float) -> None:
    denoiser, x_t = fitted(path, fresh=True), images(4, 2, 6, 5, seed=1)
    mean, std = denoiser.data_mean.double(), denoiser.data_std.double()
    s = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = path.alpha(s), path.sigma(s)
    expected = mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x_t - alpha * mean)
    torch.testing.assert_close(denoiser(x_t, t).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_the_network_sees_unit_variance_and_predicts_a_residual_of_unit_variance(path: NoisePath) -> None:
    denoiser = LocalDenoiser((1, 6, 5), 2, path=path)
    x, z = images(4000, 1, 6, 5) * 0.3 + 0.7, images(4000, 1, 6, 5, seed=2)
    denoiser.fit_moments(x)
    seen: list[Tensor] = []
    denoiser.backbone = lambda h, log_snr: seen.append(h) or torch.zeros_like(h)  # type: ignore[method-assign, assignment, func-returns-value, return-value]
    for t in (0.02, 0.4, 0.98):
        _, c_out, skip = denoiser.residual(path.add_noise(x, z, t), t)
        for values in (seen.pop(), (x - skip) / c_out):
            assert abs(float(values.mean())) < 0.02
            assert abs(float(values.std()) - 1) < 0.02


@pytest.mark.parametrize("path", PATHS[:2], ids=lambda p: p.name)
def test_at_time_zero_the_estimate_is_the_image_itself(path: NoisePath) -> None:
    x = images(4, 2, 6, 5, seed=3)
    torch.testing.assert_close(fitted(path)(x, 0.0), x, atol=1e-5, rtol=1e-5)


def test_at_time_one_a_fresh_network_answers_with_the_mean() -> None:
    denoiser, x = fitted(LinearPath(), fresh=True), images(4, 2, 6, 5, seed=4)
    torch.testing.assert_close(denoiser(x, 1.0), denoiser.data_mean.expand_as(x))


def test_the_noise_level_told_is_relative_to_the_data_and_finite() -> None:
    denoiser = LocalDenoiser((1, 4, 4), 1)
    denoiser.fit_moments(images(50, 1, 4, 4) * 0.25)
    told: list[Tensor] = []
    denoiser.backbone = lambda h, log_snr: told.append(log_snr) or torch.zeros_like(h)  # type: ignore[method-assign, assignment, func-returns-value, return-value]
    x = images(3, 1, 4, 4)
    denoiser(x, torch.tensor([0.0, 0.3, 1.0]))
    denoiser(x, 0.3)
    level = 2 * math.log(0.7 / 0.3) + 2 * math.log(float(denoiser.data_std))
    torch.testing.assert_close(told[0], torch.tensor([12.0, level, -12.0]))
    torch.testing.assert_close(told[1], torch.full((3,), level))


def test_moments_need_images_of_the_right_shape_that_vary() -> None:
    denoiser = LocalDenoiser((2, 6, 5), 2)
    with pytest.raises(PhasewiseError, match=r"images of shape \(1, 6, 5\) do not fit"):
        denoiser.fit_moments(images(5, 1, 6, 5))
    constant = images(5, 2, 6, 5)
    constant[:, 1] = 0.5
    with pytest.raises(PhasewiseError, match="constant; drop it or check"):
        denoiser.fit_moments(constant)
    for bad in (math.nan, math.inf):
        broken = images(5, 2, 6, 5)
        broken[3, 0, 1, 1] = bad
        with pytest.raises(PhasewiseError, match="NaN or infinite"):
            denoiser.fit_moments(broken)
