"""The global denoiser: a small U-Net with attention at its coarsest level.

Pixels are folded into ``patch x patch`` channels first (no information is lost), because at full resolution a
convolution of few channels is the most expensive and least efficient part of a U-Net on small images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phasewise import checks
from phasewise.denoisers.kept import Part, site
from phasewise.denoisers.layers import TimeEmbedding, pad_to_multiple, zero_init
from phasewise.denoisers.network import NetworkDenoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath
from phasewise.shapes import ImageShape

GLOBAL_SIZES: dict[str, tuple[int, int, int]] = {
    "coarse": (32, 2, 2),
    "small": (16, 3, 1),
    "medium": (32, 2, 1),
    "large": (64, 2, 1),
}
"""Named sizes: width, channel factor of the lower levels, and the pixels folded, over the usual: 27, 34, 81 and 319
MFLOP at 28x28.  "coarse" folds 4x4 pixels: it is quick and good while noise hides the detail, and poor after."""


class UNetDenoiser(NetworkDenoiser):
    """Posterior mean from the whole image, learned; ``radius`` is None.

    Args:
        image_shape: (C, H, W).
        width: channels of the finest level, default 32.
        multipliers: channel factor of each level, finest first; each further level halves the resolution.
            Default: levels until the side is at most 8, factors 1, 2, 2, ...
        blocks: residual blocks per level, on the way down and on the way up.
        patch: pixels folded into channels at the input; default 2 above 16 pixels, else 1.
        heads: attention heads at the coarsest level (0: none).
        classes: number of class labels it is told, as a vector added to the embedding of the time; None: none.
    """

    @checks.checked(
        width=checks.integer,
        multipliers=checks.each(checks.integer, least=0),
        blocks=checks.integer,
        patch=checks.integer,
        heads=checks.at_least_0,
        classes=checks.count,
    )
    def __init__(
        self,
        image_shape: ImageShape,
        *,
        width: int | None = None,
        multipliers: tuple[int, ...] | None = None,
        blocks: int = 1,
        patch: int | None = None,
        heads: int = 4,
        classes: int | None = None,
        path: NoisePath | None = None,
    ) -> None:
        super().__init__(image_shape, path, classes=classes)
        channels, height, columns = self.image_shape
        side = max(height, columns)
        self.patch = (2 if side > 16 else 1) if patch is None else int(patch)
        self.width = 32 if width is None else int(width)
        if multipliers is None:
            multipliers = default_multipliers(-(-side // max(self.patch, 1)))
        self.multipliers = tuple(int(m) for m in multipliers)
        self.depth, self.heads = int(blocks), int(heads)
        if self.width % 8 or min((self.width, *self.multipliers, self.patch, self.depth)) < 1:
            raise PhasewiseError("width must be a positive multiple of 8; multipliers, patch and blocks at least 1")
        self.multiple = self.patch * 2 ** (len(self.multipliers) - 1)

        emb = 4 * self.width
        widths = [self.width * m for m in self.multipliers]
        self.embed = TimeEmbedding(emb)
        self.stem = nn.Conv2d(channels * self.patch**2, self.width, 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        skips, c = [self.width], self.width
        for level, w in enumerate(widths):
            if level:
                self.down.append(nn.Conv2d(c, w, 3, stride=2, padding=1))
                c = w
                skips.append(c)
            for _ in range(self.depth):
                self.down.append(ResBlock(c, w, emb))
                c = w
                skips.append(c)
        self.middle = ResBlock(c, c, emb)
        self.attention = Attention(c, self.heads) if self.heads else nn.Identity()
        for level, w in reversed(list(enumerate(widths))):
            for _ in range(self.depth + 1):  # one more than down: what entered the level is a skip too
                self.up.append(ResBlock(c + skips.pop(), w, emb))
                c = w
            if level:
                self.up.append(Upsample(c, widths[level - 1]))
                c = widths[level - 1]
        self.norm = nn.GroupNorm(8, c)
        self.head = zero_init(nn.Conv2d(c, channels * self.patch**2, 3, padding=1))
        if self.classes is not None:  # last, so that all other weights are those of a network without
            self.labels = nn.Embedding(self.classes, emb)

    @classmethod
    @checks.checked(image_shape=checks.image_shape, size=checks.one_of(GLOBAL_SIZES, "size of a global network"))
    def of_size(
        cls, image_shape: ImageShape, size: str, *, classes: int | None = None, path: NoisePath | None = None
    ) -> UNetDenoiser:
        """A U-Net of a named size (:data:`GLOBAL_SIZES`); PhasewiseError for an unknown one."""
        if size not in GLOBAL_SIZES:
            raise PhasewiseError(f"unknown size {size!r} of a global network; known: {', '.join(GLOBAL_SIZES)}")
        width, factor, fold = GLOBAL_SIZES[size]
        side = max(image_shape[1:])
        patch = fold * (2 if side > 16 else 1)
        levels = len(default_multipliers(-(-side // patch)))
        multipliers = (1, *[factor] * (levels - 1))
        return cls(image_shape, width=width, multipliers=multipliers, patch=patch, classes=classes, path=path)

    def backbone(self, h: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Tensor:
        height, columns = h.shape[2:]
        time = self.embed(log_snr)
        if labels is not None:
            time = time + self.labels(labels)
        h = F.pixel_unshuffle(pad_to_multiple(h, self.multiple), self.patch)  # every level halves evenly
        h = self.stem(h.contiguous(memory_format=torch.channels_last))
        h = self._level(0, h, time, site(self))
        h = F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)
        return h[:, :, :height, :columns]

    def _level(self, level: int, h: Tensor, time: Tensor, kept: Part | None) -> Tensor:
        """From the finer level's last block down to ``level`` and all below it, and up to the finer one again."""
        down, up = level * (self.depth + 1), (len(self.multipliers) - 1 - level) * (self.depth + 2)
        if level:
            down -= 1  # the finest has no convolution before its blocks
            h = self.down[down](h)
            down += 1
        skips = [h]
        for block in self.down[down : down + self.depth]:
            h = block(h, time)
            skips.append(h)
        if level + 1 == len(self.multipliers):
            h = self.attention(self.middle(h, time))
        elif kept is None:
            h = self._level(level + 1, h, time, None)
        else:
            here = h
            h = kept(f"level{level + 1}", lambda: self._level(level + 1, here, time, kept))
        for block in self.up[up : up + self.depth + 1]:
            h = block(torch.cat([h, skips.pop()], 1), time)
        return self.up[up + self.depth + 1](h) if level else h

    def reusable_parts(self) -> tuple[str, ...]:
        """ "level1": all below the finest level, its way up to that included; "level2": below the next; and so on."""
        return tuple(f"level{level}" for level in range(1, len(self.multipliers)))

    def config(self) -> dict[str, Any]:
        return {
            "image_shape": list(self.image_shape),
            "width": self.width,
            "multipliers": list(self.multipliers),
            "blocks": self.depth,
            "patch": self.patch,
            "heads": self.heads,
            **({} if self.classes is None else {"classes": self.classes}),
            "path": self.path.config(),
        }


class ResBlock(nn.Module):
    """norm - SiLU - conv 3x3 - norm, scaled and shifted by time - SiLU - conv 3x3, plus a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int, emb: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.film = nn.Linear(emb, 2 * outputs)
        self.norm2 = nn.GroupNorm(8, outputs, affine=False)  # scale and shift come from the time
        self.conv2 = zero_init(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.film(time)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), scale + 1)
        return self.shortcut(x) + self.conv2(F.silu(h))


class Attention(nn.Module):
    """Self-attention over all pixels of (B, C, H, W), residual."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise PhasewiseError(f"{heads} attention heads do not divide {channels} channels")
        self.heads = heads
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(y.transpose(-1, -2).reshape(b, c, h, w))


class Upsample(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def default_multipliers(side: int) -> tuple[int, ...]:
    """Channel factors for levels of sides ``side``, ``side/2``, ... down to at most 8 (at least two levels)."""
    levels = 2
    while -(-side // 2 ** (levels - 1)) > 8:
        levels += 1
    return (1, *[2] * (levels - 1))
