"""Layers shared by the networks: time embedding, per-pixel normalisation, padding to a multiple."""

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
