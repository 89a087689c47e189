r"""Networks whose receptive field is exactly ``radius``, and cheap at any radius.

The image is cut into ``block x block`` pixels.  One big-kernel stem reads each block with the ring round it in which
no pixel is farther than ``radius`` from any pixel of the block::

    ring   = radius - block + 1          (so that the farthest pixel of a block sees ``radius``, none sees more)
    kernel = block + 2 ring = 2 radius - block + 2,  stride = block

and residual perceptrons, each acting on one block alone, do the rest.  The first ``mixing`` of them begin with a 3x3
depthwise convolution over blocks, which reaches one block, ``block`` pixels, farther; the stem then sees
``radius - mixing * block`` only, so the sum is exactly ``radius``.  Normalisation is over channels only and nothing is
pooled, so d D_i / d x_j = 0 whenever max-norm |i - j| > radius.  With block = 1 a pixel sees the whole window N_r(i);
with a larger block most pixels see a strict part of it, the price of speed: diagnose with block = 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phasewise import checks
from phasewise.denoisers.layers import PointwiseBlock, TimeEmbedding, pad_to_multiple, zero_init
from phasewise.denoisers.network import NetworkDenoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath
from phasewise.shapes import ImageShape

BUFFER = 2**18
"""Numbers in a buffer of tokens on a CPU without gradients: more leave the cache (measured at 28x28)."""


class LocalDenoiser(NetworkDenoiser):
    """Posterior mean from the window N_r(i) = {j : max-norm |j - i| <= radius}, learned.

    Args:
        image_shape: (C, H, W).
        radius: receptive field in pixels, 1 <= radius <= max(H, W) - 1; the largest sees the whole image, which is
            the capacity-matched control of the local design.
        block: pixels per side that share one window, 1 <= block <= radius + 1; default by :func:`default_block`.
        width: channels; default 32 for block 1, 64 for 2 and 3, 128 from 4.
        depth: number of residual perceptrons.  expansion: their hidden width over ``width``.
        mixing: how many of them, from the first, convolve over neighbouring blocks; the stem's own radius
            ``radius - mixing * block`` must be at least ``block - 1``.  Default by :func:`default_mixing`.
        norm: layer norm over the channels of each block before each perceptron.  Without it, the default, a call is
            faster and the network as good: a norm over few channels costs as much as the products
            (docs/results/networks.md).
        position: add a learned vector per block position, so that the best predictor may depend on where the pixel
            is (images are centred); it carries no information about other pixels.
        classes: number of class labels it is told, as a vector added to the embedding of the time; None: none.
        context: channels of another image that it sees beside the noisy one, in the same window; its ``backbone`` then
            takes both, (B, C + context, H, W), and a larger network calls it (:mod:`phasewise.denoisers.plan`).

    Raises PhasewiseError for a radius or block that does not fit.
    """

    @checks.checked(
        block=checks.integer,
        width=checks.count,
        depth=checks.at_least_0,
        expansion=checks.positive,
        mixing=checks.integer,
        norm=checks.flag,
        position=checks.flag,
        classes=checks.count,
        context=checks.at_least_0,
    )
    def __init__(
        self,
        image_shape: ImageShape,
        radius: int,
        *,
        block: int | None = None,
        width: int | None = None,
        depth: int = 2,
        expansion: float = 1.0,
        mixing: int | None = None,
        norm: bool = False,
        position: bool = True,
        classes: int | None = None,
        context: int = 0,
        path: NoisePath | None = None,
    ) -> None:
        super().__init__(image_shape, path, radius, classes)
        self.context = int(context)
        channels, height, columns = self.image_shape
        assert self.radius is not None
        self.block = default_block(self.image_shape, self.radius) if block is None else int(block)
        if not 1 <= self.block <= self.radius + 1:
            raise PhasewiseError(
                f"block {self.block} does not fit radius {self.radius}: need 1 <= block <= radius + 1, "
                "else pixels of one block would have to see farther than the radius"
            )
        if (width is not None and width < 1) or depth < 0 or not 0 < expansion < math.inf:
            raise PhasewiseError(f"need width >= 1, depth >= 0, expansion > 0; got {width}, {depth}, {expansion}")
        self.width = default_width(self.image_shape, self.block) if width is None else int(width)
        self.depth, self.expansion, self.position = int(depth), float(expansion), bool(position)
        self.mixing = default_mixing(self.radius, self.block, self.depth) if mixing is None else int(mixing)
        self.normed = bool(norm)
        first = self.radius - self.mixing * self.block
        if not 0 <= self.mixing <= self.depth or first < self.block - 1:
            raise PhasewiseError(
                f"mixing {self.mixing} does not fit radius {self.radius}, block {self.block} and depth {self.depth}: "
                f"need 0 <= mixing <= depth and radius - mixing * block >= block - 1"
            )
        self.ring = first - self.block + 1
        self.kernel = 2 * first - self.block + 2
        self.grid = (-(-height // self.block), -(-columns // self.block))

        self.stem = nn.Linear((channels + self.context) * self.kernel**2, self.width)
        self.embed = TimeEmbedding(64)
        self.hidden = round(self.width * self.expansion)
        self.blocks = nn.ModuleList(
            PointwiseBlock(self.width, self.hidden, mix=k < self.mixing, norm=self.normed) for k in range(self.depth)
        )
        self.norm = nn.LayerNorm(self.width) if self.normed else nn.Identity()
        self.head = zero_init(nn.Linear(self.width, channels * self.block**2))
        if self.position:
            self.places = nn.Parameter(torch.zeros(self.grid[0] * self.grid[1], self.width))

        if self.classes is not None:  # last, so that all other weights are those of a network without
            self.labels = nn.Embedding(self.classes, 64)

    def backbone(self, h: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Tensor:
        if h.shape[1] != self.image_shape[0] + self.context:
            raise PhasewiseError(
                f"this local network sees {self.context} channels beside the image's {self.image_shape[0]}; it is a "
                "part of a larger one, such as PlanDenoiser, and that one is to be called"
            )
        traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        # the quick ways below write into buffers or split the batch: not under gradients, autocast or tracing
        plain = traced or torch.is_grad_enabled() or torch.is_autocast_enabled(h.device.type)
        if not plain and not self.normed and _one_for_all(log_snr, labels):
            time = self.told(log_snr[:1], None if labels is None else labels[:1])
            return self.pixels(self.tokens_at_one_time(h, time))
        if not plain and len(h) > (size := self.at_a_time(h)):
            given = (h, log_snr) if labels is None else (h, log_snr, labels)
            parts = zip(*(each.split(size) for each in given), strict=True)
            return torch.cat([self.backbone(*part) for part in parts])
        time = self.told(log_snr, labels)
        tokens = self.stem(self.windows(self.padded(h)))
        if self.position:
            tokens.add_(self.places)
        for block in self.blocks:
            tokens = block(tokens, time, self.grid)
        return self.pixels(self.head(self.norm(tokens)))

    def told(self, log_snr: Tensor, labels: Tensor | None) -> Tensor:
        """(B, 64): what the blocks are told of the noise level, and of the class where there are any."""
        time = self.embed(log_snr)
        return time if labels is None else time + self.labels(labels)

    def tokens_at_one_time(self, h: Tensor, time: Tensor) -> Tensor:
        """What the head says, (B, blocks, C * block^2), when all images share one time and class, whose embedding
        :meth:`told` is ``time``, (1, 64), and nothing is learned.

        Passes over memory, not arithmetic, are what costs.  So scale, shift and every bias that can be are folded into
        weights first, residuals are added by the matrix products, and a few images at a time go through buffers that
        stay in the cache.
        """
        width, blocks = self.width, self.grid[0] * self.grid[1]
        owed, layers = h.new_zeros(width), []  # biases of ``down`` not yet added to the tokens
        for k, block in enumerate(self.blocks):
            assert isinstance(block, PointwiseBlock)
            weight, bias = block.folded(time)
            missing = None
            if block.mix is not None and k:  # zeros beyond the border: a bias cannot pass through the convolution
                missing, owed = owed, torch.zeros_like(owed)
            # up(h + owed) = up h + weight owed: what is owed is paid in the bias
            layers.append((block, missing, weight.T, bias + weight @ owed, block.down.weight.T))
            owed = owed + block.down.bias
        start = self.stem.bias + self.places if self.position else self.stem.bias
        stem, head, bias = self.stem.weight.T, self.head.weight.T, self.head.bias + self.head.weight @ owed
        size = min(len(h), self.at_a_time(h))
        windows = h.new_empty(size * blocks * len(stem))
        buffer, hidden = h.new_empty(size * blocks, width), h.new_empty(size * blocks, self.hidden)
        out = h.new_empty(len(h) * blocks, self.head.out_features)
        padded = self.padded(h)
        for first in range(0, len(h), size):
            part = padded[first : first + size]
            rows = len(part) * blocks
            tokens, inner = buffer[:rows], hidden[:rows]
            tokens.view(-1, blocks, width).copy_(start.expand(len(part), blocks, width))
            # biases and places are in tokens already
            torch.addmm(tokens, self.windows(part, windows[: rows * len(stem)]), stem, out=tokens)
            for block, missing, up, shift, down in layers:
                if missing is not None:
                    tokens.add_(missing)
                seen = tokens.view(len(part), blocks, width)
                seen = seen if block.mix is None else block.mixed(seen, self.grid)
                torch.addmm(shift, seen.view(rows, width), up, out=inner)  # scale is in up, shift in its bias
                torch.addmm(tokens, F.silu(inner, inplace=True), down, out=tokens)
            torch.addmm(bias, tokens, head, out=out[first * blocks :][:rows])
        return out.view(len(h), blocks, -1)

    def at_a_time(self, h: Tensor) -> int:
        """Images whose tokens fit a buffer, on a CPU; all of them elsewhere."""
        return max(BUFFER // (self.grid[0] * self.grid[1] * self.width), 1) if h.device.type == "cpu" else len(h)

    def pixels(self, out: Tensor) -> Tensor:
        """(B, blocks, C * block^2) -> (B, C, H, W)."""
        channels, height, columns = self.image_shape
        batch = out.shape[0]  # not len(): an exported graph keeps it free
        out = out.view(batch, *self.grid, channels, self.block, self.block).permute(0, 3, 1, 4, 2, 5)
        out = out.reshape(batch, channels, self.grid[0] * self.block, self.grid[1] * self.block)
        return out[:, :, :height, :columns]

    def padded(self, h: Tensor) -> Tensor:
        """``h`` in whole blocks, with zeros beyond the border as far as the outer windows reach."""
        return F.pad(pad_to_multiple(h, self.block), (self.ring,) * 4)

    def windows(self, padded: Tensor, buffer: Tensor | None = None) -> Tensor:
        """Every block with its ring, from images padded: (B, blocks, C * kernel^2).

        Into ``buffer``, if given, of so many numbers: (B * blocks, C * kernel^2), the transpose of a contiguous matrix
        where windows of neighbouring pixels overlap in whole rows, which is faster to fill.
        """
        view = padded.unfold(2, self.kernel, self.block).unfold(3, self.kernel, self.block)
        if buffer is None:
            return view.permute(0, 2, 3, 1, 4, 5).reshape(padded.shape[0], self.grid[0] * self.grid[1], -1)
        size, in_rows = self.stem.in_features, self.block == 1
        view = view.permute((1, 4, 5, 0, 2, 3) if in_rows else (0, 2, 3, 1, 4, 5))
        buffer.view(view.shape).copy_(view)
        return buffer.view(size, -1).T if in_rows else buffer.view(-1, size)

    def opened(self) -> LocalDenoiser:
        """A fresh network of this design with its window opened to the whole image: the capacity-matched control."""
        return LocalDenoiser(
            **{
                **self.config(),
                "radius": max(self.image_shape[1:]) - 1,
                "image_shape": self.image_shape,
                "path": self.path,
            }
        )

    def config(self) -> dict[str, Any]:
        return {
            "image_shape": list(self.image_shape),
            "radius": self.radius,
            "block": self.block,
            "width": self.width,
            "depth": self.depth,
            "expansion": self.expansion,
            "mixing": self.mixing,
            "norm": self.normed,
            "position": self.position,
            **({} if self.classes is None else {"classes": self.classes}),
            **({"context": self.context} if self.context else {}),
            "path": self.path.config(),
        }


def _one_for_all(log_snr: Tensor, labels: Tensor | None) -> bool:
    """Whether all images share one time and one label; times are looked at by their layout, not their values."""
    if len(log_snr) > 1 and log_snr.stride(0) != 0:  # one time expanded to all has stride 0
        return False
    if labels is None or len(labels) == 1 or labels.stride(0) == 0:
        return True
    return labels.device.type == "cpu" and bool((labels == labels[0]).all())  # a GPU would have to wait for the answer


def default_block(image_shape: ImageShape, radius: int) -> int:
    """1 on small images and at radius 1, 2 up to radius 5, 4 beyond: the cost then hardly grows with the radius."""
    if max(image_shape[1:]) <= 16 or radius == 1:
        return 1
    return 2 if radius <= 5 else 4


def default_mixing(radius: int, block: int, depth: int) -> int:
    """Blocks of 4 or more pixels reach a far window in steps (docs/results/networks.md): one block each, two at most,
    the stem seeing at least one more."""
    return max(min(2, depth, radius // block - 1), 0) if block >= 4 else 0


def default_width(image_shape: ImageShape, block: int) -> int:
    return 32 if block == 1 else 64 if block < 4 else 128
