"""The local network: its Jacobian is exactly zero outside the radius and reaches it, on random and trained weights."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from receptive_field import check_radius_law, distances, jacobian, randomise, telling_pixels
from torch import Tensor

from phasewise.data import ImageData, load_images
from phasewise.denoisers import LocalDenoiser, local
from phasewise.denoisers.layers import PixelNorm, TimeEmbedding, pad_to_multiple
from phasewise.denoisers.local import default_block
from phasewise.errors import PhasewiseError
from phasewise.metrics.cost import count_flops
from phasewise.training import train

MNIST = (1, 28, 28)


def window(pixel: tuple[int, int], denoiser: LocalDenoiser) -> Tensor:
    """The pixels that ``pixel`` should see: its block with the ring round it, cut at the border. (H, W) bool."""
    block, ring = denoiser.block, denoiser.radius - denoiser.block + 1  # type: ignore[operator]
    seen = torch.zeros(denoiser.image_shape[1:], dtype=torch.bool)
    (top, left) = (p // block * block for p in pixel)
    seen[max(top - ring, 0) : top + block + ring, max(left - ring, 0) : left + block + ring] = True
    return seen


def check_window(denoiser: LocalDenoiser, t: float = 0.5) -> None:
    """The Jacobian is non-zero exactly on the window of each telling pixel, and the radius law holds."""
    pixels = telling_pixels(*denoiser.image_shape[1:], denoiser.block)
    check_radius_law(denoiser, pixels, t)
    for pixel, field in zip(pixels, jacobian(denoiser, pixels, t), strict=True):
        assert torch.equal(field != 0, window(pixel, denoiser)), pixel


# --- the field of view ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", range(1, 13))
def test_the_jacobian_ends_exactly_at_the_radius(radius: int) -> None:
    check_window(randomise(LocalDenoiser(MNIST, radius)))  # type: ignore[arg-type]


@pytest.mark.parametrize("radius", [2, 5, 12])
def test_with_block_one_every_pixel_sees_its_whole_window(radius: int) -> None:
    denoiser = randomise(LocalDenoiser(MNIST, radius, block=1))
    check_window(denoiser)  # type: ignore[arg-type]
    pixels = telling_pixels(28, 28, 1)
    assert torch.equal(jacobian(denoiser, pixels) != 0, distances(pixels, 28, 28) <= radius)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "radius", "block"),
    [
        ((1, 27, 27), 3, None),
        ((1, 27, 27), 7, None),
        ((1, 27, 27), 6, 7),
        ((1, 9, 13), 1, None),
        ((1, 9, 13), 4, 2),
        ((1, 9, 13), 3, 4),
        ((1, 9, 13), 12, 5),
        ((1, 13, 9), 5, 3),
        ((3, 8, 8), 2, None),
        ((3, 18, 20), 4, None),
        ((3, 17, 7), 6, None),
        ((2, 1, 9), 2, 3),
    ],
)
def test_the_law_holds_at_any_size_block_and_number_of_channels(
    shape: tuple[int, int, int], radius: int, block: int | None
) -> None:
    check_window(randomise(LocalDenoiser(shape, radius, block=block)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "radius", "block", "mixing"),
    [
        (MNIST, 3, 1, 2),
        (MNIST, 8, 4, 1),
        (MNIST, 12, 4, 2),
        (MNIST, 12, 2, 5),
        ((1, 9, 13), 5, 2, 2),
        ((3, 17, 7), 4, 1, 4),
    ],
)
def test_the_law_holds_where_blocks_are_mixed(
    shape: tuple[int, int, int], radius: int, block: int, mixing: int
) -> None:
    check_window(randomise(LocalDenoiser(shape, radius, block=block, depth=mixing, mixing=mixing)))  # type: ignore[arg-type]


@pytest.mark.parametrize("t", [1e-3, 0.05, 0.95, 1.0])
def test_the_law_holds_at_every_noise_time(t: float) -> None:
    denoiser = randomise(LocalDenoiser(MNIST, 3))
    pixels = telling_pixels(28, 28, 2)
    field, away = jacobian(denoiser, pixels, t), distances(pixels, 28, 28)  # type: ignore[arg-type]
    assert torch.count_nonzero(field[away > 3]) == 0


def test_knowing_the_position_does_not_widen_the_field() -> None:
    with_position = randomise(LocalDenoiser(MNIST, 4))
    without = randomise(LocalDenoiser(MNIST, 4, position=False))
    pixels = telling_pixels(28, 28, 2)
    seen = [jacobian(d, pixels) != 0 for d in (with_position, without)]  # type: ignore[arg-type]
    assert torch.equal(*seen)


def test_position_lets_equal_windows_have_different_answers() -> None:
    x = torch.zeros(1, *MNIST)
    inner = (slice(None), slice(None), slice(8, 20), slice(8, 20))  # blocks whose windows do not touch the border
    without = randomise(LocalDenoiser(MNIST, 3, position=False))(x, 0.5)[inner].reshape(6, 2, 6, 2)
    torch.testing.assert_close(without, without[:1, :, :1].expand(6, -1, 6, -1))
    assert randomise(LocalDenoiser(MNIST, 3))(x, 0.5)[inner].std() > 1e-3


@functools.cache
def digits() -> ImageData:
    return load_images("digits")


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_the_law_holds_on_trained_weights(radius: int) -> None:
    torch.manual_seed(radius)
    denoiser = LocalDenoiser(digits().image_shape, radius, block=min(radius, 2))
    train(denoiser, digits(), steps=8, batch=32, progress=False)
    assert denoiser.head.weight.abs().max() > 0  # training has moved the layers that start at zero
    assert all(b.down.weight.abs().max() > 0 for b in denoiser.blocks)
    check_radius_law(denoiser, telling_pixels(8, 8, denoiser.block))


# --- shapes, batches, cost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 13), (2, 27, 5)])
@pytest.mark.parametrize("block", [1, 3, 4])
def test_the_estimate_has_the_shape_of_the_image(shape: tuple[int, int, int], block: int) -> None:
    denoiser = randomise(LocalDenoiser(shape, 3, block=block))
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    for t in (0.0, 0.3, 1.0, torch.tensor([0.2, 0.9])):
        out = denoiser(x, t)
        assert out.shape == x.shape
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("norm", [False, True])
def test_an_image_of_a_batch_is_denoised_as_if_alone(norm: bool) -> None:
    denoiser = randomise(LocalDenoiser(MNIST, 5, norm=norm))
    generator = torch.Generator().manual_seed(1)
    x, times = torch.randn(7, *MNIST, generator=generator), torch.rand(7, generator=generator)
    order = torch.randperm(7, generator=generator)
    together, shuffled = denoiser(x, times), denoiser(x[order], times[order])
    alone = torch.cat([denoiser(x[i : i + 1], float(times[i])) for i in range(7)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "radius", "options"),
    [
        (MNIST, 1, {}),
        (MNIST, 3, {}),
        (MNIST, 8, {}),
        (MNIST, 12, {}),
        ((3, 9, 11), 2, {"block": 1, "expansion": 1.5}),
        ((3, 9, 11), 5, {"block": 3, "mixing": 1, "position": False}),
        ((2, 7, 5), 4, {"block": 1, "mixing": 2, "depth": 3}),
        (MNIST, 2, {"depth": 0}),
    ],
)
def test_folding_one_time_into_the_weights_changes_nothing(
    shape: tuple[int, int, int], radius: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = randomise(LocalDenoiser(shape, radius, **options)).double()
    x = torch.randn(7, *shape, generator=torch.Generator().manual_seed(2)).double()
    plain = denoiser(x, 0.4).detach()  # gradients on: the modules one after the other
    with torch.inference_mode():
        torch.testing.assert_close(denoiser(x, 0.4), plain, atol=1e-12, rtol=1e-12)
        monkeypatch.setattr(local, "BUFFER", 3 * denoiser.width * denoiser.grid[0] * denoiser.grid[1])
        assert denoiser.at_a_time(x) == 3  # three images at a time, and one left over
        torch.testing.assert_close(denoiser(x, 0.4), plain, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(
            denoiser(x, torch.full((7,), 0.4, dtype=torch.float64)), plain, atol=1e-12, rtol=1e-12
        )


def test_blocks_land_where_they_were_cut() -> None:
    denoiser = LocalDenoiser((2, 5, 7), 2, block=3)
    x = torch.arange(70.0).reshape(1, 2, 5, 7)
    windows = denoiser.windows(denoiser.padded(x))
    assert windows.shape == (1, 2 * 3, 2 * denoiser.kernel**2)
    assert denoiser.kernel == 3  # ring 0: the windows are the blocks themselves
    padded = pad_to_multiple(x, 3)
    assert padded.shape == (1, 2, 6, 9)
    assert torch.equal(windows[0, 4], padded[0, :, 3:6, 3:6].reshape(-1))


def test_local_networks_are_cheap_at_every_radius() -> None:
    cost = {r: count_flops(LocalDenoiser(MNIST, r), MNIST) / 1e6 for r in range(1, 13)}
    assert cost[3] <= 8
    assert max(cost.values()) <= 16


def test_only_far_windows_are_reached_in_steps() -> None:
    assert [LocalDenoiser(MNIST, r).mixing for r in (1, 3, 8, 12, 20)] == [0, 0, 1, 2, 2]
    assert LocalDenoiser(MNIST, 12, depth=1).mixing == 1
    assert LocalDenoiser(MNIST, 12, block=2).mixing == 0


def test_the_control_is_the_same_design_seeing_everything() -> None:
    local = LocalDenoiser(MNIST, 12, depth=3, position=False)
    control = local.opened()
    assert control.config() == {**local.config(), "radius": 27}
    check_window(randomise(control))  # type: ignore[arg-type]


def test_config_is_what_the_constructor_takes() -> None:
    denoiser = LocalDenoiser((1, 9, 13), 4, block=2, width=24, depth=3, expansion=1.5, mixing=1, position=False)
    config = denoiser.config()
    assert config.pop("path") == {"name": "linear"}
    assert LocalDenoiser(**config).config() == denoiser.config()
    assert [tuple(p.shape) for p in LocalDenoiser(**config).parameters()] == [
        tuple(p.shape) for p in denoiser.parameters()
    ]


@pytest.mark.parametrize(("shape", "block"), [((1, 8, 8), 1), ((1, 16, 16), 1), ((1, 28, 28), 2), ((3, 8, 17), 2)])
def test_small_images_are_not_cut_into_blocks(shape: tuple[int, int, int], block: int) -> None:
    assert default_block(shape, 4) == block


# --- what does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0, -1, 1.5, True])
def test_a_radius_is_a_whole_number_of_pixels(radius: float) -> None:
    assert issubclass(PhasewiseError, ValueError)
    with pytest.raises(PhasewiseError, match="whole number of pixels >= 1"):
        LocalDenoiser(MNIST, radius)  # type: ignore[arg-type]


def test_the_largest_radius_sees_the_whole_image_and_a_larger_one_is_refused() -> None:
    denoiser = randomise(LocalDenoiser((1, 8, 6), 7))
    assert jacobian(denoiser, [(0, 0)]).count_nonzero() == 48  # type: ignore[arg-type]
    with pytest.raises(PhasewiseError, match="larger than the image: at 8x6 the largest is 7"):
        LocalDenoiser((1, 8, 6), 8)


@pytest.mark.parametrize("block", [0, -2, 5])
def test_a_block_must_fit_the_radius(block: int) -> None:
    with pytest.raises(PhasewiseError, match=r"block .* does not fit radius 3: need 1 <= block <= radius \+ 1"):
        LocalDenoiser(MNIST, 3, block=block)
    assert LocalDenoiser(MNIST, 3, block=4).ring == 0


@pytest.mark.parametrize(("mixing", "depth"), [(-1, 2), (3, 2), (2, 2)])
def test_mixing_must_fit_radius_block_and_depth(mixing: int, depth: int) -> None:
    with pytest.raises(PhasewiseError, match=r"mixing .* does not fit radius 8, block 4 and depth 2"):
        LocalDenoiser(MNIST, 8, block=4, depth=depth, mixing=mixing)
    assert LocalDenoiser(MNIST, 8, block=4, mixing=1).kernel == 6


@pytest.mark.parametrize("shape", [(28, 28), (1, 0, 28), (1, 28, 28, 28)])
def test_an_image_shape_has_three_positive_sizes(shape: tuple[int, ...]) -> None:
    with pytest.raises(PhasewiseError, match=r"image_shape must be \(channels, height, width\)"):
        LocalDenoiser(shape, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, 1, 28, 27), (2, 3, 28, 28), (1, 28, 28)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PhasewiseError, match=r"takes \(B, \*\(1, 28, 28\)\)"):
        LocalDenoiser(MNIST, 1)(torch.zeros(shape), 0.5)


# --- layers ---------------------------------------------------------------------------------------------------------


def test_pixel_norm_looks_at_one_pixel() -> None:
    norm = PixelNorm(6)
    h = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    out = norm(h)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 3, 4), atol=1e-6, rtol=0)
    changed = h.clone()
    changed[0, :, 1, 2] += torch.arange(6.0)
    differs = (norm(changed) != out).any(1)
    assert differs.nonzero().tolist() == [[0, 1, 2]]


def test_the_time_embedding_tells_noise_levels_apart() -> None:
    embed = randomise(TimeEmbedding(16, hidden=8, inner=12))
    out = embed(torch.linspace(-12, 12, 9))
    assert out.shape == (9, 16)
    assert torch.pdist(out).min() > 1e-3


@pytest.mark.parametrize("radius", [3, 8])
def test_the_path_without_gradients_gives_the_same(radius: int) -> None:
    """Without gradients the network works in place and in chunks; neither may change the answer."""
    torch.manual_seed(0)
    denoiser = LocalDenoiser((1, 28, 28), radius)
    randomise(denoiser)
    x_t, t = torch.randn(70, 1, 28, 28), torch.linspace(0.05, 0.95, 70)
    with torch.no_grad():
        quick = denoiser(x_t, t)
    slow = denoiser(x_t, t)
    assert slow.requires_grad
    torch.testing.assert_close(quick, slow.detach(), rtol=1e-4, atol=1e-5)
