"""A diffusion transformer, for comparison: tokens of p x p pixels, attention over all of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phasewise.denoisers import NetworkDenoiser
from phasewise.denoisers.layers import TimeEmbedding, zero_init
from phasewise.shapes import ImageShape


class TransformerDenoiser(NetworkDenoiser):
    """Blocks of attention and perceptron, scaled and shifted by time (after Peebles, Xie 2023, arXiv 2212.09748).

    Heads begin as convolutions (after d'Ascoli et al. 2021, arXiv 2103.10697), each near a neighbour of its token;
    where, and how sharply, is learned.  Without that, minutes of training do not teach it what is near."""

    def __init__(self, image_shape: ImageShape, *, width: int = 64, depth: int = 3, patch: int = 2) -> None:
        super().__init__(image_shape)
        channels, height, columns = self.image_shape
        self.patch, self.width, self.depth = patch, width, depth
        self.grid = (height // patch, columns // patch)
        self.stem = nn.Linear(channels * patch**2, width)
        self.places = nn.Parameter(0.02 * torch.randn(self.grid[0] * self.grid[1], width))
        self.embed = TimeEmbedding(64)
        self.blocks = nn.ModuleList(TransformerBlock(width) for _ in range(depth))
        down, across = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in self.grid), indexing="ij")
        self.register_buffer("spots", torch.stack([down, across], -1).flatten(0, 1), persistent=False)
        self.norm = nn.LayerNorm(width)
        self.head = zero_init(nn.Linear(width, channels * patch**2))

    def backbone(self, h: Tensor, log_snr: Tensor) -> Tensor:
        batch, channels = h.shape[:2]
        time = self.embed(log_snr)
        tokens = self.stem(F.pixel_unshuffle(h, self.patch).flatten(2).transpose(1, 2)) + self.places
        for block in self.blocks:
            tokens = block(tokens, time, self.spots)
        out = self.head(self.norm(tokens)).transpose(1, 2).reshape(batch, channels * self.patch**2, *self.grid)
        return F.pixel_shuffle(out, self.patch)

    def config(self) -> dict[str, Any]:
        return {
            "image_shape": list(self.image_shape),
            "width": self.width,
            "depth": self.depth,
            "patch": self.patch,
            "path": self.path.config(),
        }


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        turn = 2 * math.pi * torch.arange(heads) / heads
        self.centres = nn.Parameter(torch.stack([turn.cos(), turn.sin()], -1))
        self.log_sharpness = nn.Parameter(torch.zeros(heads))
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.film = nn.Linear(64, 4 * width)
        self.qkv, self.out = nn.Linear(width, 3 * width), zero_init(nn.Linear(width, width))
        self.up, self.down = nn.Linear(width, 4 * width), zero_init(nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, time: Tensor, spots: Tensor) -> Tensor:
        """``tokens`` (B, N, width) at ``spots`` (N, 2), in tokens."""
        scale_1, shift_1, scale_2, shift_2 = self.film(time)[:, None].chunk(4, dim=-1)
        h = torch.addcmul(shift_1, self.norms[0](tokens), scale_1 + 1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(h).chunk(3, dim=-1))
        tokens = tokens + self.out(self.attend(q, k, v, spots).transpose(1, 2).flatten(2))
        h = torch.addcmul(shift_2, self.norms[1](tokens), scale_2 + 1)
        return tokens + self.down(F.silu(self.up(h)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, spots: Tensor) -> Tensor:
        """Attention with -sharpness |spot_k - spot_q - centre|^2 added to its logits.  What depends on k there is
        linear in (spot_k, |spot_k|^2), so three more columns of q and k say it, and no N x N bias is ever stored."""
        sharp = self.log_sharpness.exp()[:, None, None]
        aim = 2 * sharp * (spots + self.centres[:, None])
        of_q = torch.cat([aim, (-sharp).expand(-1, len(spots), 1)], -1)
        of_k = torch.cat([spots, spots.square().sum(1, keepdim=True)], -1)
        room = (0, -(q.shape[-1] + 3) % 4)  # columns in fours: odd numbers are slow
        q = torch.cat([q / math.sqrt(q.shape[-1]), F.pad(of_q, room).expand(len(q), -1, -1, -1)], -1)
        k = torch.cat([k, F.pad(of_k, room).expand(*k.shape[:2], -1, -1)], -1)
        values = F.scaled_dot_product_attention(q, k, F.pad(v, (0, q.shape[-1] - v.shape[-1])), scale=1.0)
        return values[..., : v.shape[-1]]
