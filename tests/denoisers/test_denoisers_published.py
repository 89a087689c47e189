"""The published networks: the strict one holds its radius, the leaky one does not, and both cost what was published."""

from __future__ import annotations

import pytest
import torch
from receptive_field import check_radius_law, distances, jacobian, randomise, telling_pixels
from torch import Tensor

from phasewise.denoisers import PublishedLocal, PublishedUNet
from phasewise.denoisers.published import PAIR_RADII
from phasewise.errors import PhasewiseError
from phasewise.metrics.cost import count_flops

MNIST = (1, 28, 28)


def images(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


def strict(shape: tuple[int, int, int], radius: int) -> PublishedLocal:
    """Weights of size 0.1, so that activations stay of order one through 3 x 2 layers of up to 5 x 5 x 256 inputs."""
    return randomise(PublishedLocal(shape, radius), std=0.1)  # type: ignore[return-value]


@pytest.mark.parametrize("radius", range(1, 13))
def test_the_strict_network_ends_exactly_at_its_radius(radius: int) -> None:
    """On a thin image, for speed: the law is the same along both axes (the next test)."""
    pixels = [(0, 0), (2, 13), (4, 26), (1, 12), (3, 1)]
    denoiser = strict((1, 5, 27), radius)
    check_radius_law(denoiser, pixels)
    seen, away = jacobian(denoiser, pixels) != 0, distances(pixels, 5, 27)
    assert torch.equal(seen, away <= radius)


@pytest.mark.parametrize(("shape", "radius"), [((1, 28, 28), 3), ((1, 17, 5), 6), ((3, 9, 8), 2)])
def test_the_strict_law_holds_along_both_axes_and_on_colour(shape: tuple[int, int, int], radius: int) -> None:
    pixels = telling_pixels(*shape[1:], 1)
    seen = jacobian(strict(shape, radius), pixels) != 0
    assert torch.equal(seen, distances(pixels, *shape[1:]) <= radius)


@pytest.mark.parametrize("radius", [1, 3, 6])
def test_the_leaky_network_sees_beyond_its_radius(radius: int) -> None:
    denoiser = randomise(PublishedLocal((1, 12, 16), radius, norm="leaky"))
    field, away = jacobian(denoiser, [(6, 8)]), distances([(6, 8)], 12, 16)  # type: ignore[arg-type]
    leak = field[away > radius]
    assert (leak > 0).all()
    assert leak.max() < field[away == 0]  # a leak, not a global view


@pytest.mark.parametrize(("radius", "mflop"), [(3, 117), (6, 759), (12, 2108)])
@pytest.mark.parametrize("norm", ["strict", "leaky"])
def test_local_networks_cost_what_was_published(radius: int, mflop: float, norm: str) -> None:
    assert count_flops(PublishedLocal(MNIST, radius, norm=norm), MNIST) / 1e6 == pytest.approx(mflop, rel=0.02)


def test_the_global_network_has_the_published_cost_and_size() -> None:
    denoiser = PublishedUNet(MNIST)
    assert denoiser.radius is None
    assert count_flops(denoiser, MNIST) / 1e6 == pytest.approx(887, rel=0.01)
    unused = 2 * 512 * 512 + 512 + 10 * 512  # class conditioning, counted in the published 11.8 M
    assert sum(p.numel() for p in denoiser.parameters()) + unused == pytest.approx(11.8e6, rel=0.01)


def test_layers_add_up_to_the_radius() -> None:
    for radius, pairs in PAIR_RADII.items():
        assert radius % 2 + 2 * sum(pairs) == radius


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 17)])
def test_the_global_network_sees_everything_at_any_size(shape: tuple[int, int, int]) -> None:
    denoiser = randomise(PublishedUNet(shape), std=0.05)
    corner = (shape[1] - 1, shape[2] - 1)
    assert jacobian(denoiser, [(0, 0), corner])[:, [0, -1], [0, -1]].min() > 0  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["strict", "leaky", "unet"])
def test_an_image_of_a_batch_is_denoised_as_if_alone(kind: str) -> None:
    shape = (1, 9, 8)
    denoiser = randomise(PublishedUNet(shape) if kind == "unet" else PublishedLocal(shape, 3, norm=kind), std=0.1)
    x, times = images(4, *shape), torch.tensor([0.2, 0.8, 0.5, 1.0])
    together = denoiser(x, times)
    assert together.shape == x.shape
    alone = torch.cat([denoiser(x[i : i + 1], float(times[i])) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PhasewiseError, match=r"radius 1\.\.12, got 13"):
        PublishedLocal(MNIST, 13)
    with pytest.raises(PhasewiseError, match="larger than the image"):
        PublishedLocal((1, 8, 8), 8)
    with pytest.raises(PhasewiseError, match=r"norm must be 'leaky' .* or 'strict', got 'batch'"):
        PublishedLocal(MNIST, 3, norm="batch")
    with pytest.raises(PhasewiseError, match="at least 8x8"):
        PublishedUNet((1, 7, 28))


def test_configs_are_what_the_constructors_take() -> None:
    for denoiser in (PublishedLocal(MNIST, 5, norm="leaky"), PublishedUNet((3, 9, 8))):
        config = denoiser.config()
        assert config.pop("path") == {"name": "linear"}
        assert type(denoiser)(**config).config() == denoiser.config()
