r"""The global denoiser of the other kind: a diffusion transformer, and windows of attention over the same weights.

Tokens are patches of ``p x p`` pixels; each block is attention and a perceptron, scaled, shifted and gated by the time
(adaLN-zero: Peebles, Xie 2023, arXiv 2212.09748, section 3.2).  Nothing but attention carries information between
tokens, so attention within ``w`` tokens (max-norm) gives a network of exact radius::

    radius = depth * w * p + p - 1          (a pixel of a patch sees the whole of it, and w patches more a block)

**Windows are exact and cheap**: :mod:`~phasewise.denoisers.windows` has the kernels.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phasewise import checks
from phasewise.denoisers.kept import Part, site
from phasewise.denoisers.layers import TimeEmbedding, pad_to_multiple, zero_init
from phasewise.denoisers.network import NetworkDenoiser
from phasewise.denoisers.windows import KERNELS, window_attention
from phasewise.errors import PhasewiseError, unknown
from phasewise.paths import NoisePath
from phasewise.shapes import ImageShape

DIT_SIZES: dict[str, tuple[int, int, int]] = {
    "coarse": (128, 4, 2),
    "small": (96, 4, 1),
    "medium": (128, 6, 1),
    "large": (192, 8, 1),
}
"""Named sizes: width, depth, and the pixels folded over the usual.  The names are those of the U-Net's sizes."""
POSITIONS = ("learned", "rotary", "both")
EMBEDDING = 128
"""Numbers that tell the blocks the time, and the class."""
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``attend(q, k, v)``: attention of (B, heads, N, d)."""


class DiTDenoiser(NetworkDenoiser):
    """Posterior mean from the whole image by a transformer, learned; ``radius`` is None unless it is windowed.

    Args:
        image_shape: (C, H, W).
        width: numbers a token, a multiple of 4 ``heads``.  depth: number of blocks.  heads: default ``width // 32``.
        patch: pixels a side of a token; default 1 up to 16 pixels, 2 up to 64, 4 beyond.
        positions: "learned", a vector a place, from sinusoids on; "rotary", queries and keys turned by row and column
            (Su et al. 2021, arXiv 2104.09864), which knows distances alone; or "both".
        window: attention reaches so many tokens (max-norm), every block; None: all.
        classes: number of class labels it is told, as a vector added to the embedding of the time; None: none.

    Raises PhasewiseError for numbers that do not fit each other.
    """

    @checks.checked(
        width=checks.integer,
        depth=checks.integer,
        heads=checks.integer,
        patch=checks.integer,
        positions=checks.text,
        window=checks.integer,
    )
    def __init__(
        self,
        image_shape: ImageShape,
        *,
        width: int = 128,
        depth: int = 6,
        heads: int | None = None,
        patch: int | None = None,
        positions: str = "both",
        window: int | None = None,
        classes: int | None = None,
        path: NoisePath | None = None,
    ) -> None:
        super().__init__(image_shape, path, classes=classes)
        channels, height, columns = self.image_shape
        self.patch = usual_patch(self.image_shape) if patch is None else patch
        self.width, self.depth = width, depth
        self.heads = max(width // 32, 1) if heads is None else heads
        if min(self.patch, self.depth, self.heads) < 1 or self.width < 1 or self.width % (4 * self.heads):
            raise PhasewiseError(
                f"a transformer needs patch, depth and heads of at least 1 and a width that 4 * heads divides; got "
                f"patch {self.patch}, depth {self.depth}, heads {self.heads}, width {self.width}"
            )
        if positions not in POSITIONS:
            raise PhasewiseError(unknown("kind of positions", positions, POSITIONS))
        self.positions = positions
        self.grid = (-(-height // self.patch), -(-columns // self.patch))
        self.stem = nn.Linear(channels * self.patch**2, self.width)
        self.embed = TimeEmbedding(EMBEDDING)
        self.blocks = nn.ModuleList(TransformerBlock(self.width, self.heads) for _ in range(self.depth))
        self.norm = nn.LayerNorm(self.width, elementwise_affine=False)
        self.film = zero_init(nn.Linear(EMBEDDING, 2 * self.width))
        self.head = zero_init(nn.Linear(self.width, channels * self.patch**2))
        if positions != "rotary":
            self.places = nn.Parameter(sinusoids(self.grid, self.width))
        if self.classes is not None:  # last, so that all other weights are those of a network without
            self.labels = nn.Embedding(self.classes, EMBEDDING)
        self._attend_within(window)

    @classmethod
    def of_size(
        cls, image_shape: ImageShape, size: str, *, classes: int | None = None, path: NoisePath | None = None
    ) -> DiTDenoiser:
        """A transformer of a named size (:data:`DIT_SIZES`); PhasewiseError for an unknown one."""
        if size not in DIT_SIZES:
            raise PhasewiseError(unknown("size of a transformer", size, DIT_SIZES))
        width, depth, fold = DIT_SIZES[size]
        return cls(
            image_shape, width=width, depth=depth, patch=fold * usual_patch(image_shape), classes=classes, path=path
        )

    @checks.checked(window=checks.integer, attention=checks.one_of(KERNELS, "kernel of attention"))
    def windowed(self, window: int | None, *, attention: str = "auto") -> DiTDenoiser:
        """The same weights, shared, with attention within ``window`` tokens (max-norm); None: all of them.

        ``attention``: the kernel, "auto", "tiles", "flex" or "dense" (:data:`phasewise.denoisers.windows.KERNELS`): the
        same answers to rounding, at other speeds.  It is no part of the network, and not saved.
        """
        other = copy.copy(self)
        other._attend_within(window, attention)
        return other

    def _attend_within(self, window: int | None, attention: str = "auto") -> None:
        if window is not None and window < 0:
            raise PhasewiseError(f"a window of attention is a number of tokens from 0 on, or None; got {window}")
        # a window that reaches from border to border is none
        self.window = None if window is None or window >= max(self.grid) - 1 else window
        self.attention = attention
        self.radius = None
        if self.window is not None:
            reach = self.depth * self.window * self.patch + self.patch - 1
            self.radius = reach if reach < max(self.image_shape[1:]) - 1 else None

    def backbone(self, h: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Tensor:
        height, columns = h.shape[2:]
        time = self.embed(log_snr)
        if labels is not None:
            time = time + self.labels(labels)
        tokens = self.stem(F.pixel_unshuffle(pad_to_multiple(h, self.patch), self.patch).flatten(2).transpose(1, 2))
        if self.positions != "rotary":
            tokens = tokens + self.places
        turn = None
        if self.positions != "learned":
            turn = rotations(self.grid, self.width // self.heads, tokens.device)
        attend: Attend = F.scaled_dot_product_attention
        if self.window is not None:
            attend = functools.partial(window_attention, grid=self.grid, window=self.window, kernel=self.attention)
        kept = site(self)
        for k, block in enumerate(self.blocks):
            if kept is None:
                tokens = block(tokens, time, turn, attend)
                continue

            def added(here: Tensor = tokens, block: nn.Module = block, k: int = k) -> Tensor:
                return block(here, time, turn, attend, kept, k) - here

            tokens = tokens + kept(f"blocks/{k}", added)
        scale, shift = self.film(time)[:, None].chunk(2, dim=-1)
        out = self.head(torch.addcmul(shift, self.norm(tokens), scale + 1)).transpose(1, 2)
        out = out.reshape(h.shape[0], -1, *self.grid)
        return F.pixel_shuffle(out, self.patch)[:, :, :height, :columns]

    def reusable_parts(self) -> tuple[str, ...]:
        """What some blocks add ("blocks/1:5", within those that are there), or all attentions, or perceptrons."""
        return (f"blocks/0:{self.depth}", "attention", "perceptron")

    def config(self) -> dict[str, Any]:
        return {
            "image_shape": list(self.image_shape),
            "width": self.width,
            "depth": self.depth,
            "heads": self.heads,
            "patch": self.patch,
            "positions": self.positions,
            **({} if self.window is None else {"window": self.window}),
            **({} if self.classes is None else {"classes": self.classes}),
            "path": self.path.config(),
        }


class TransformerBlock(nn.Module):
    """Attention, then a perceptron, each on tokens scaled and shifted by time, and added through a gate that begins
    at 0."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.film = zero_init(nn.Linear(EMBEDDING, 6 * width))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(
        self,
        tokens: Tensor,
        time: Tensor,
        turn: Rotation | None,
        attend: Attend,
        kept: Part | None = None,
        number: int = 0,
    ) -> Tensor:
        """``tokens`` (B, N, width), ``time`` (B, 128); ``kept``: where parts of block ``number`` may come from."""
        scale1, shift1, gate1, scale2, shift2, gate2 = self.film(time)[:, None].chunk(6, dim=-1)
        part = _made if kept is None else kept
        attended = part(f"attention/{number}", lambda: self._attended(tokens, scale1, shift1, turn, attend))
        between = tokens + gate1 * attended
        return between + gate2 * part(f"perceptron/{number}", lambda: self._perceived(between, scale2, shift2))

    def _attended(self, tokens: Tensor, scale: Tensor, shift: Tensor, turn: Rotation | None, attend: Attend) -> Tensor:
        h = torch.addcmul(shift, self.norm1(tokens), scale + 1)
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, d) each
        if turn is not None:
            q, k = rotated(q, turn), rotated(k, turn)
        attended: Tensor = self.out(attend(q, k, v).transpose(1, 2).flatten(2))
        return attended

    def _perceived(self, tokens: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        h = torch.addcmul(shift, self.norm2(tokens), scale + 1)
        perceived: Tensor = self.down(F.gelu(self.up(h), approximate="tanh"))
        return perceived


def _made(name: str, compute: Callable[[], Tensor]) -> Tensor:
    return compute()


def usual_patch(image_shape: ImageShape) -> int:
    """1 up to 16 pixels, 2 up to 64, 4 beyond."""
    side = max(image_shape[1:])
    return 1 if side <= 16 else 2 if side <= 64 else 4


def sinusoids(grid: tuple[int, int], width: int) -> Tensor:
    """(N, width): sines and cosines of row and of column, half of the numbers each, at geometric wavelengths."""
    pairs = width // 4
    waves = 10000.0 ** (-torch.arange(pairs) / pairs)
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    phases = [place.flatten()[:, None] * waves for place in (rows, columns)]
    return torch.cat([f(phase) for phase in phases for f in (torch.sin, torch.cos)], dim=1)


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, (N, d / 2) each, by which pairs of numbers are turned."""


@functools.lru_cache(maxsize=16)
def _rotations(grid: tuple[int, int], dim: int, device: torch.device) -> Rotation:
    with torch.inference_mode(False):  # kept: ordinary tensors, fit for training too
        half = dim // 4
        # a quarter turn a token at the fastest, none across the grid at the slowest
        waves = math.pi / 2 * (2.0 / max(2, *grid)) ** (torch.arange(half) / max(half - 1, 1))
        rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
        phase = torch.cat([place.flatten()[:, None] * waves for place in (rows, columns)], dim=1)
        return phase.cos().to(device), phase.sin().to(device)


def rotations(grid: tuple[int, int], dim: int, device: torch.device) -> Rotation:
    """The turns of every token's queries and keys of ``dim`` numbers: by row the first half, by column the rest."""
    if torch.compiler.is_compiling():
        return _rotations.__wrapped__(grid, dim, device)
    return _rotations(grid, dim, device)


def rotated(x: Tensor, turn: Rotation) -> Tensor:
    """(B, heads, N, d) with the pairs (i, i + d / 2) turned: products of two then depend on their distance alone."""
    cos, sin = (part.to(x.dtype) for part in turn)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
