r"""Attention within a window of tokens: one function, and the kernels that compute it.

**tiles.**  The grid of tokens is cut into tiles; a tile's queries attend to the tile with a ring of ``window`` tokens
round it, gathered as one small dense product, and what lies beyond ``window`` of each query is masked.  Where tile and
ring have half as many tokens as the grid, a mask over all pairs is faster, and taken.

**flex.**  PyTorch's ``flex_attention`` (Dong et al. 2024, arXiv 2412.05496), a fused kernel over blocks of pairs of
tokens: blocks that no window reaches are skipped, the others masked within.  Tokens go row by row, so a block of
queries is a band of rows.  The table of blocks is made once for each grid, window and device, outside of any graph.

**dense.**  A mask over all pairs: the definition, for comparison.
"""

from __future__ import annotations

import functools
import math
import sys
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from phasewise.errors import PhasewiseWarning
from phasewise.flops import counting
from phasewise.memory import out_of_memory

Grid = tuple[int, int]
KERNELS = ("auto", "tiles", "flex", "dense")
"""Names of kernels.  "auto" is flex on a GPU where no gradient is asked for, compiled or not, and tiles elsewhere.

"flex" gives way to tiles where it cannot run: gradients on a CPU; fewer than 128 tokens or 16 numbers a head on a GPU;
float64; a network that is exported, or whose FLOPs are counted.  In a network that is not compiled it is compiled by
itself at the first call; where that fails, too, tiles take over, with a warning.
"""
BLOCKS = {"cpu": 64, "cuda": 128}
"""Tokens a side of a block of pairs, by device."""
LEAST_DIM = 16
"""Numbers a head that a GPU's matrix units take."""
FUSED = (torch.float32, torch.bfloat16, torch.float16)
"""What the fused kernels compute in."""
GATHERED = 4_000_000
"""Numbers of keys that are gathered at a time on a CPU."""
CPU_HAS_KERNEL = sys.platform != "darwin" and torch.backends.cpu.get_cpu_capability().startswith("AVX")


def window_attention(q: Tensor, k: Tensor, v: Tensor, grid: Grid, window: int, kernel: str = "auto") -> Tensor:
    """Attention of (B, heads, N, d), N tokens row by row on ``grid``, within ``window`` tokens of each (max-norm).

    Exactly masked attention, whichever of :data:`KERNELS`, at the cost of each token's neighbourhood but for "dense".
    """
    mixed = _flexed(q, k, v, grid, window) if takes_flex(q, k, v, kernel) else None
    if mixed is not None:
        return mixed
    if kernel == "dense" or 2 * (tile_side(window, max(grid)) + 2 * window) ** 2 >= math.prod(grid):
        mask = near.__wrapped__ if torch.compiler.is_compiling() else near
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask(grid, window, q.device))
    return tiled_attention(q, k, v, grid, window)


@functools.lru_cache(maxsize=16)
def near(grid: Grid, window: int, device: torch.device) -> Tensor:
    """(N, N) bool: which tokens of ``grid``, numbered row by row, lie within ``window`` of each (max-norm)."""
    with torch.inference_mode(False):  # kept: an ordinary tensor, fit for gradients too
        rows, columns = ((torch.arange(side)[:, None] - torch.arange(side)[None]).abs() <= window for side in grid)
        return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1).to(device)


# --- flex -----------------------------------------------------------------------------------------------------------


def takes_flex(q: Tensor, k: Tensor, v: Tensor, kernel: str) -> bool:
    """Whether ``kernel`` of :data:`KERNELS` means flex for these (B, heads, N, d), and flex can compute it."""
    compiling, kind = torch.compiler.is_compiling(), q.device.type
    if kernel not in ("auto", "flex") or torch.compiler.is_exporting() or (not compiling and counting()):
        return False
    learning = q.requires_grad or k.requires_grad or v.requires_grad
    if kernel == "auto" and (learning or kind != "cuda"):
        return False
    if kind == "cuda":
        fits = q.shape[-1] >= LEAST_DIM and q.shape[-2] >= BLOCKS[kind]
    else:
        fits = kind == "cpu" and CPU_HAS_KERNEL and not learning
    return fits and q.dtype in FUSED


def _flexed(q: Tensor, k: Tensor, v: Tensor, grid: Grid, window: int) -> Tensor | None:
    blocks = block_mask(grid, window, q.device)
    if torch.compiler.is_compiling():
        return flex_attention(q, k, v, block_mask=blocks)
    return fused_attention(q, k, v, blocks)


_MASKS: dict[tuple[Grid, int, torch.device], BlockMask] = {}


def block_mask(grid: Grid, window: int, device: torch.device) -> BlockMask:
    """The table of blocks for ``flex_attention``: made once, kept, and no part of a graph that is being compiled."""
    _make_mask(grid, window, device)
    return _MASKS[grid, window, device]


@torch.compiler.assume_constant_result
def _make_mask(grid: Grid, window: int, device: torch.device) -> None:
    """A compiler runs this while it traces and sees nothing of it but the table that lies there afterwards."""
    if (grid, window, device) in _MASKS:
        return
    with torch.inference_mode(False):
        places = torch.arange(grid[0] * grid[1], dtype=torch.int32, device=device)
        rows, columns = places // grid[1], places % grid[1]

        def seen(_: Tensor, __: Tensor, query: Tensor, key: Tensor) -> Tensor:
            # looked up: on a CPU divisions in the kernel double its time
            down, across = rows[query] - rows[key], columns[query] - columns[key]
            return (down.abs() <= window) & (across.abs() <= window)

        size = BLOCKS.get(device.type, max(BLOCKS.values()))
        n = len(places)
        _MASKS[grid, window, device] = create_block_mask(seen, None, None, n, n, device=device, BLOCK_SIZE=size)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(flex_attention)


_REFUSED: set[tuple[str, torch.dtype, int, bool]] = set()


def fused_attention(q: Tensor, k: Tensor, v: Tensor, blocks: BlockMask) -> Tensor | None:
    """``flex_attention`` compiled by itself, for a network that is not; None, and a warning once, where that fails."""
    form = (q.device.type, q.dtype, q.shape[-1], q.requires_grad)
    if form in _REFUSED:
        return None
    try:
        return _compiled()(q, k, v, block_mask=blocks)
    except Exception as error:  # no Triton, no compiler, an old GPU: compilers have no common error class
        if out_of_memory(error):
            raise
        _REFUSED.add(form)
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"flex_attention does not run here ({reason}); windows of attention are gathered in tiles instead, which "
            "may be slower",
            PhasewiseWarning,
            stacklevel=2,
        )
        return None


# --- tiles ----------------------------------------------------------------------------------------------------------


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, grid: Grid, window: int) -> Tensor:
    """:func:`window_attention` of tiles of tokens and the ring round each, gathered; on a CPU a few images at a time,
    for it is fresh memory that takes the time there."""
    tile = tile_side(window, max(grid))
    heads, dim = q.shape[1], q.shape[3]
    ringed = math.prod(-(-side // tile) for side in grid) * (tile + 2 * window) ** 2  # keys, with those of the rings
    few = max(GATHERED // (heads * ringed * dim), 1)
    if q.device.type != "cpu" or torch.compiler.is_compiling() or len(q) <= few:
        return _tiled(q, k, v, grid, window, tile)
    parts = zip(q.split(few), k.split(few), v.split(few), strict=True)
    return torch.cat([_tiled(*part, grid, window, tile) for part in parts])


def _tiled(q: Tensor, k: Tensor, v: Tensor, grid: Grid, window: int, tile: int) -> Tensor:
    batch, heads, _, dim = q.shape
    reach = tile + 2 * window
    down, across = -(-grid[0] // tile), -(-grid[1] // tile)
    right, below = across * tile - grid[1], down * tile - grid[0]

    def image(x: Tensor, *spare: int) -> Tensor:
        return F.pad(x.reshape(batch * heads, *grid, dim), (0, 0, *spare))

    tiles = image(q, 0, right, 0, below).unflatten(2, (across, tile)).unflatten(1, (down, tile)).transpose(2, 3)
    rings = (image(x, window, right + window, window, below + window) for x in (k, v))
    near = [x.unfold(1, reach, tile).unfold(2, reach, tile).permute(0, 1, 2, 4, 5, 3) for x in rings]
    # (B * heads, tiles, tokens, d); the mask has four dimensions, too: with three a CPU's fused kernel is not taken
    queries, keys, values = (x.reshape(batch * heads, down * across, -1, dim) for x in (tiles, *near))
    seen = _seen(grid, window, tile, q.device)[None]
    mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
    mixed = mixed.reshape(batch, heads, down, across, tile, tile, dim).transpose(3, 4)
    mixed = mixed.reshape(batch, heads, down * tile, across * tile, dim)[:, :, : grid[0], : grid[1]]
    return mixed.reshape(batch, heads, grid[0] * grid[1], dim)


def tile_side(window: int, side: int) -> int:
    """Tokens a side of a tile: about the window's own reach, at least 4, from a window of three on 8: with fewer a
    product is a sliver, and the fused kernel is slow (studies/LOG.md)."""
    return min(max(8, window) if window > 2 else 4, side)


@functools.lru_cache(maxsize=64)
def _seen_kept(grid: Grid, window: int, tile: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return _seen_made(grid, window, tile).to(device)


def _seen(grid: Grid, window: int, tile: int, device: torch.device) -> Tensor:
    """(tiles, queries, keys) bool: which keys of its neighbourhood a query sees."""
    if torch.compiler.is_compiling():
        return _seen_made(grid, window, tile).to(device)
    return _seen_kept(grid, window, tile, device)


def _seen_made(grid: Grid, window: int, tile: int) -> Tensor:
    sides = []
    for length in grid:
        starts = torch.arange(0, length, tile)[:, None]
        query = starts + torch.arange(tile)  # (tiles, tile)
        key = starts - window + torch.arange(tile + 2 * window)
        near = (query[:, :, None] - key[:, None, :]).abs() <= window
        # a query beyond the grid sees its neighbours all the same: it is thrown away, but its NaN would spread
        sides.append(near & ((key >= 0) & (key < length))[:, None, :] | ((query >= length)[:, :, None]))
    rows, columns = sides
    seen = rows[:, None, :, None, :, None] & columns[None, :, None, :, None, :]
    down, across, tall, wide, high, broad = seen.shape
    return seen.reshape(down * across, tall * wide, high * broad)
