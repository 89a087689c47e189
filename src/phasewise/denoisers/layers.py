"""Layers of the networks: time embedding, per-pixel normalisation, perceptron on tokens, padding to a multiple."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class TimeEmbedding(nn.Module):
    """``hidden`` sinusoids of the relative log-SNR, (B,) in [-12, 12], through a perceptron of one layer of ``inner``
    (default ``dim``) units to (B, dim)."""

    frequencies: Tensor

    def __init__(self, dim: int, hidden: int = 64, inner: int | None = None) -> None:
        super().__init__()
        inner = dim if inner is None else inner
        # geometric: from a fifth of a wave to 19 waves over [-12, 12]
        self.register_buffer("frequencies", torch.exp(torch.linspace(math.log(0.1), math.log(10.0), hidden // 2)))
        self.net = nn.Sequential(nn.Linear(hidden, inner), nn.SiLU(), nn.Linear(inner, dim), nn.SiLU())

    def forward(self, log_snr: Tensor) -> Tensor:
        phase = log_snr[:, None] * self.frequencies / 2
        return self.net(torch.cat([phase.cos(), phase.sin()], dim=1))


class PixelNorm(nn.Module):
    """Layer norm over the channels of each pixel of (B, C, H, W): no information crosses between pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, h: Tensor) -> Tensor:
        return self.norm(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def pad_to_multiple(h: Tensor, multiple: int) -> Tensor:
    """Zero-pad (B, C, H, W) at the bottom and right so that H and W divide by ``multiple``."""
    bottom, right = -h.shape[2] % multiple, -h.shape[3] % multiple
    return F.pad(h, (0, right, 0, bottom)) if bottom or right else h


def zero_init(layer: Layer) -> Layer:
    """``layer`` with weight and bias set to zero: a residual branch or an output that starts silent."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class PointwiseBlock(nn.Module):
    """Residual perceptron on each token alone, scaled and shifted by the time embedding. (B, L, width), (B, 64).

    With ``mix`` it acts on a 3x3 depthwise convolution over the grid of tokens instead of the token itself.
    """

    def __init__(self, width: int, hidden: int, mix: bool = False, norm: bool = True) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=width) if mix else None
        self.norm = nn.LayerNorm(width, elementwise_affine=False) if norm else nn.Identity()
        self.film = nn.Linear(64, 2 * width)
        self.up = nn.Linear(width, hidden)
        self.down = zero_init(nn.Linear(hidden, width))

    def forward(self, tokens: Tensor, time: Tensor, grid: tuple[int, int]) -> Tensor:
        scale, shift = self.film(time)[:, None].chunk(2, dim=-1)
        h = self.norm(tokens if self.mix is None else self.mixed(tokens, grid))
        return self.down(F.silu(self.up(torch.addcmul(shift, h, scale + 1)))).add_(tokens)

    def folded(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of ``up`` with scale and shift of one time, (1, 64), in them."""
        scale, shift = self.film(time)[0].chunk(2)
        # up((1 + scale) h + shift), as one product with h
        return self.up.weight * (scale + 1), torch.addmv(self.up.bias, self.up.weight, shift)

    def mixed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """The convolution over blocks; (B, L, width) seen as channels-last images, so nothing is copied before it."""
        assert self.mix is not None
        batch, length, width = tokens.shape
        image = tokens.view(batch, *grid, width).permute(0, 3, 1, 2)
        return self.mix(image).permute(0, 2, 3, 1).reshape(batch, length, width)
