"""A local network that mixes neighbouring blocks by attention: one of the designs compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phasewise.denoisers import LocalDenoiser
from phasewise.denoisers.layers import zero_init
from phasewise.shapes import ImageShape

REACH = 9
"""Blocks attended to: the 3x3 round each."""


class AttentionLocal(LocalDenoiser):
    """The local network whose mixing blocks attend to the 3x3 blocks round each instead of convolving."""

    def __init__(
        self, image_shape: ImageShape, radius: int, *, mixing: int = 1, heads: int = 4, **choices: Any
    ) -> None:
        super().__init__(image_shape, radius, mixing=mixing, **choices)
        for block in self.blocks[:mixing]:
            block.mix = WindowAttention(self.width, heads, self.grid)


class WindowAttention(nn.Module):
    """Attention of every token of (B, width, rows, columns) to its 3x3 neighbours, with a learned bias per offset."""

    inside: Tensor

    def __init__(self, width: int, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = zero_init(nn.Conv2d(width, width, 1))
        self.offsets = nn.Parameter(torch.zeros(heads, 1, REACH))
        inside = F.unfold(torch.ones(1, 1, *grid), 3, padding=1)[0].T  # (L, 9)
        self.register_buffer("inside", torch.where(inside > 0, 0.0, -torch.inf), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        batch, width, rows, columns = image.shape
        q, k, v = self.qkv(image).chunk(3, dim=1)
        q = q.reshape(batch, self.heads, width // self.heads, rows * columns)
        k, v = (
            F.unfold(part, 3, padding=1).view(batch, self.heads, width // self.heads, REACH, rows * columns)
            for part in (k, v)
        )
        scores = torch.einsum("bhcl,bhcnl->bhln", q, k) / (width // self.heads) ** 0.5
        weights = (scores + self.offsets + self.inside).softmax(-1)
        mixed = torch.einsum("bhln,bhcnl->bhcl", weights, v).reshape(batch, width, rows, columns)
        return image + self.out(mixed)
