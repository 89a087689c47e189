"""What the denoiser tests share: random weights in every layer, and the field of view read off the Jacobian."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from phasewise.denoisers import Denoiser

Pixel = tuple[int, int]


def randomise(network: nn.Module, seed: int = 0, std: float = 0.1) -> nn.Module:
    """Every parameter drawn from N(0, std^2), those that start at zero too; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, std, generator=generator)
    return network.eval()


def telling_pixels(height: int, width: int, block: int) -> list[Pixel]:
    """Corners, middles of the borders, the centre, and all pixels of one block near the centre."""
    rows, columns = (0, height // 2, height - 1), (0, width // 2, width - 1)
    first = (height // 2 // block * block, width // 2 // block * block)
    inside = [(first[0] + i, first[1] + j) for i in range(block) for j in range(block)]
    pixels = [(i, j) for i in rows for j in columns] + [p for p in inside if p[0] < height and p[1] < width]
    return list(dict.fromkeys(pixels))


def jacobian(denoiser: Denoiser, pixels: list[Pixel], t: float = 0.5, seed: int = 0) -> Tensor:
    """|d D_i / d x_t| of the output at each pixel, largest over channels in, one random mix of channels out: (P, H, W).

    Row p of the batch is asked for pixel p only, so one backward pass gives all.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = denoiser.image_shape
    x = torch.randn(1, *shape, generator=generator).expand(len(pixels), -1, -1, -1).clone().requires_grad_()
    mix = 0.5 + torch.rand(shape[0], generator=generator)
    rows, columns = (torch.tensor(c) for c in zip(*pixels, strict=True))
    picked = denoiser(x, t)[torch.arange(len(pixels)), :, rows, columns]
    (gradient,) = torch.autograd.grad((picked @ mix).sum(), x)
    return gradient.abs().amax(1)


def distances(pixels: list[Pixel], height: int, width: int) -> Tensor:
    """Max-norm distance of every pixel of the image from each of ``pixels``: (P, H, W)."""
    at = torch.tensor(pixels)
    rows = (torch.arange(height)[None, :] - at[:, :1]).abs()
    columns = (torch.arange(width)[None, :] - at[:, 1:]).abs()
    return torch.maximum(rows[:, :, None], columns[:, None, :])


def check_radius_law(denoiser: Denoiser, pixels: list[Pixel], t: float = 0.5) -> None:
    """Exactly zero outside the radius; not zero at exactly the radius for some output pixel."""
    field, away = jacobian(denoiser, pixels, t), distances(pixels, *denoiser.image_shape[1:])
    assert torch.count_nonzero(field[away > denoiser.radius]) == 0
    assert torch.count_nonzero(field[away == denoiser.radius]) > 0
