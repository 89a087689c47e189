r"""The networks of Hu, Liu, Zhang, Gao (arXiv 2508.06614), as presets to compare with.

Their layout (channels, radii, norms, conditioning) inside our preconditioning, so that all denoisers train by one
loop and predict a posterior mean; the originals predict a velocity (global) and noise (local) without it.  The local
decoder is not described in full; the layout here has the published cost at 28x28 (117, 759 and 2108 MFLOP at r = 3,
6, 12) and the published radii.

The published local networks use group norm over the whole image, whose mean and variance carry global information:
``norm="leaky"``.  ``norm="strict"`` normalises each pixel's channels instead and holds the radius exactly.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phasewise.denoisers.layers import PixelNorm, TimeEmbedding, zero_init
from phasewise.denoisers.network import NetworkDenoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath
from phasewise.shapes import ImageShape

# of the three encoder-decoder pairs: radius % 2, the stem's, and twice their sum make the radius
PAIR_RADII = {
    1: (0, 0, 0), 2: (1, 0, 0), 3: (1, 0, 0), 4: (1, 1, 0), 5: (1, 1, 0), 6: (1, 1, 1),
    7: (1, 1, 1), 8: (2, 1, 1), 9: (2, 1, 1), 10: (2, 2, 1), 11: (2, 2, 1), 12: (2, 2, 2),
}  # fmt: skip


class PublishedLocal(NetworkDenoiser):
    """The published local network at full resolution, radius 1..12; ``norm`` is "leaky" (theirs) or "strict"."""

    def __init__(
        self, image_shape: ImageShape, radius: int, *, norm: str = "strict", path: NoisePath | None = None
    ) -> None:
        super().__init__(image_shape, path, radius)
        if radius not in PAIR_RADII:
            raise PhasewiseError(f"the published local networks have radius 1..12, got {radius}")
        if norm not in ("leaky", "strict"):
            raise PhasewiseError(
                f"norm must be 'leaky' (group norm over the image, as published) or 'strict', got {norm!r}"
            )
        self.norm = norm
        widths = (16, 32, 64, 128)
        radii = PAIR_RADII[radius]
        self.embed = TimeEmbedding(128)
        self.stem = nn.Conv2d(self.image_shape[0], 16, 2 * (radius % 2) + 1, padding=radius % 2)
        self.encoders = nn.ModuleList(
            _LocalBlock(a, b, r, norm, shortcut=False) for a, b, r in zip(widths, widths[1:], radii, strict=False)
        )
        self.decoders = nn.ModuleList(
            _LocalBlock(2 * b, a, r, norm, shortcut=True) for a, b, r in zip(widths, widths[1:], radii, strict=False)
        )
        self.head = zero_init(nn.Conv2d(16, self.image_shape[0], 1))

    def backbone(self, h: Tensor, log_snr: Tensor) -> Tensor:
        time = self.embed(log_snr)
        h = self.stem(h)
        skips = []
        for encoder in self.encoders:
            h = encoder(h, time)
            skips.append(h)
        for decoder, skip in zip(reversed(self.decoders), reversed(skips), strict=True):
            h = decoder(torch.cat([h, skip], 1), time)
        return self.head(h)

    def config(self) -> dict[str, Any]:
        return {
            "image_shape": list(self.image_shape),
            "radius": self.radius,
            "norm": self.norm,
            "path": self.path.config(),
        }


class _LocalBlock(nn.Module):
    """conv - norm - scale and shift by time - SiLU; a decoder adds a linear shortcut of the same kernel."""

    def __init__(self, inputs: int, outputs: int, radius: int, norm: str, shortcut: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 2 * radius + 1, padding=radius)
        self.norm = PixelNorm(outputs) if norm == "strict" else nn.GroupNorm(8, outputs)
        self.film = nn.Linear(128, 2 * outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 2 * radius + 1, padding=radius, bias=False) if shortcut else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.film(time)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(torch.addcmul(shift, self.norm(self.conv(x)), scale + 1))
        return h if self.shortcut is None else h + self.shortcut(x)


class PublishedUNet(NetworkDenoiser):
    """The published global U-Net: 64-128-256, middle 512, about 887 MFLOP at 28x28.

    11.3 M parameters; the published count of 11.8 M has 0.5 M in class-conditioning layers that an unconditional call
    never uses.
    """

    def __init__(self, image_shape: ImageShape, *, path: NoisePath | None = None) -> None:
        super().__init__(image_shape, path)
        channels, height, width = self.image_shape
        if min(height, width) < 8:
            raise PhasewiseError("the published U-Net halves the image three times; it needs at least 8x8 pixels")
        self.embed = TimeEmbedding(512, hidden=512, inner=2048)
        # follows from the shape: not among the weights
        self.register_buffer("position", _position_channels(height, width, 32), persistent=False)
        widths = (64, 128, 256)
        inputs = (channels + 32, *widths)
        self.encoders = nn.ModuleList(_UNetBlock(a, b) for a, b in zip(inputs, widths, strict=False))
        self.middle = _UNetBlock(256, 512)
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths)
        self.decoders = nn.ModuleList(_UNetBlock(2 * w, w) for w in widths)
        self.head = zero_init(nn.Conv2d(64, channels, 1))

    def backbone(self, h: Tensor, log_snr: Tensor) -> Tensor:
        time = self.embed(log_snr)
        position = self.get_buffer("position").to(h.dtype).expand(h.shape[0], -1, -1, -1)
        h = torch.cat([h, position], 1)
        skips = []
        for encoder in self.encoders:
            h = encoder(h, time)
            skips.append(h)
            h = F.max_pool2d(h, 2)
        h = self.middle(h, time)
        for up, decoder, skip in zip(reversed(self.ups), reversed(self.decoders), reversed(skips), strict=True):
            h = up(h)
            # an odd side lost a row or column when it was halved
            h = F.pad(h, (0, skip.shape[3] - h.shape[3], 0, skip.shape[2] - h.shape[2]))
            h = decoder(torch.cat([h, skip], 1), time)
        return self.head(h)

    def config(self) -> dict[str, Any]:
        return {"image_shape": list(self.image_shape), "path": self.path.config()}


class _UNetBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1 = nn.GroupNorm(8, outputs)
        self.film = nn.Linear(512, 2 * outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.film(time)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, F.silu(self.norm1(self.conv1(x))), scale + 1)
        return F.silu(self.norm2(self.conv2(h)))


def _position_channels(height: int, width: int, channels: int) -> Tensor:
    """Sinusoids of row and column, (1, channels, H, W)."""
    rates = torch.exp(torch.linspace(0, math.log(height / 2), channels // 4)) * 2 * math.pi
    rows = torch.linspace(0, 1, height)[:, None, None] * rates
    columns = torch.linspace(0, 1, width)[None, :, None] * rates
    waves = [w.expand(height, width, -1) for w in (rows.sin(), rows.cos(), columns.sin(), columns.cos())]
    return torch.cat(waves, dim=-1).permute(2, 0, 1)[None]
