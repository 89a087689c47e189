r"""Attention of any transformer within a window, its weights as they are: what does the answer lose, and where in time?

Tokens are ``patch x patch`` pixels on a grid; within window w a token attends to those at most w away (max-norm), the
definition of :meth:`phasewise.denoisers.DiTDenoiser.windowed`.  Nothing of the network is touched: while it is called,
PyTorch's own attention (``scaled_dot_product_attention``, and ``multi_head_attention_forward`` round it) gets a mask.

Restricted is self-attention over as many tokens as the grid has; other calls, over text or over grids of other sizes,
are left alone and counted.  Attention written out as matrix products is not seen, nor a kernel from elsewhere; what
``torch.compile`` made is compiled anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from phasewise import checks
from phasewise.data import ImageData
from phasewise.data.images import images_or_set
from phasewise.denoisers import Condition, Denoiser, bind
from phasewise.denoisers.base import SamplingPlan, a_denoiser
from phasewise.denoisers.trust import checked_conditions
from phasewise.denoisers.windows import near
from phasewise.diagnosis.losses import measure_losses
from phasewise.diagnosis.noised import HeldOut, check_distances, held_out, refuse_times, usual_radii
from phasewise.errors import PhasewiseError
from phasewise.modes import evaluating, in_evaluation
from phasewise.paths import Time
from phasewise.results import Array, AttentionWindows

Grid = tuple[int, int]


class AttentionWithin(Denoiser):
    """``member`` with attention within ``window`` tokens, its weights shared and untouched; itself a denoiser.

    Args:
        window: reach of attention in tokens (max-norm) from 0 on; from border to border is no restriction.
        patch: pixels a side of a token.
        layers: which calls of attention over the grid are restricted, from 0 in the order of one answer; None: all.

    Its ``radius`` is the member's: how far other operations carry is not known of a foreign network.
    """

    @checks.checked(
        member=a_denoiser, window=checks.at_least_0, patch=checks.count, layers=checks.each(checks.at_least_0)
    )
    def __init__(self, member: Denoiser, window: int, patch: int, layers: Collection[int] | None = None) -> None:
        super().__init__(member.image_shape, member.path, member.radius)
        self.member, self.window, self.patch = member, window, patch
        self.layers = None if layers is None else tuple(layers)

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        grid = grid_of(self.image_shape[1:], self.patch)
        with _Attention(grid, self.window, self.layers):
            return self.member(x_t, t, cond)

    def member_at(self, t: float) -> Denoiser:
        part = self.member.member_at(t)
        return self if part is self.member else AttentionWithin(part, self.window, self.patch, self.layers)

    def sampling_plan(self) -> SamplingPlan | None:
        return self.member.sampling_plan()

    @property
    def takes_condition(self) -> bool:
        return self.member.takes_condition

    def check_condition(self, cond: Tensor) -> None:
        self.member.check_condition(cond)

    def pixel_moments(self) -> tuple[Tensor, Tensor] | None:
        return self.member.pixel_moments()


def grid_of(sides: tuple[int, int], patch: int) -> Grid:
    """Tokens down and across: the last ones may be filled up beyond the border."""
    return (-(-sides[0] // patch), -(-sides[1] // patch))


class _Attention(TorchFunctionMode):
    """While active, attention over the tokens of ``grid`` is restricted to ``window``; without a window, looked at.

    ``lengths``: of every self-attention met, in order; ``others``: how many calls were between different tokens.
    """

    def __init__(self, grid: Grid | None = None, window: int | None = None, layers: Collection[int] | None = None):
        super().__init__()
        self.grid, self.window, self.layers = grid, window, layers
        self.lengths: list[int] = []
        self.others = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._scaled(func, *args, **kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _mask(self, queries: int, keys: int, device: torch.device) -> Tensor | None:
        """(N, N) bool, which keys a query sees, for a call that is to be restricted; None for one that is not."""
        if queries != keys:
            self.others += 1
            return None
        layer = sum(length == queries for length in self.lengths)
        self.lengths.append(queries)
        if self.grid is None or self.window is None or queries != self.grid[0] * self.grid[1]:
            return None
        if self.window >= max(self.grid) - 1 or (self.layers is not None and layer not in self.layers):
            return None
        mask = near.__wrapped__ if torch.compiler.is_compiling() else near  # a compiler does not look into caches
        return mask(self.grid, self.window, device)

    def _scaled(
        self, func: Callable[..., Tensor], query: Tensor, key: Tensor, value: Tensor,
        attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False, **rest: Any,
    ) -> Tensor:  # fmt: skip
        mask = self._mask(query.shape[-2], key.shape[-2], query.device)
        if mask is not None:
            mask = mask.tril() if is_causal else mask
            attn_mask, is_causal = _both(attn_mask, mask), False
        return func(query, key, value, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, **rest)

    def _multi_head(self, func: Callable[..., Any], query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        mask = self._mask(query.shape[0], key.shape[0], query.device)  # tokens come first here
        if mask is not None:
            given, causal = kwargs.get("attn_mask"), kwargs.pop("is_causal", False)
            hidden = ~mask.tril() if causal and given is None else ~mask  # True hides, here
            if given is not None and given.dtype != torch.bool:
                kwargs["attn_mask"] = given.masked_fill(hidden, -torch.inf)
            else:
                kwargs["attn_mask"] = hidden if given is None else given | hidden
        return func(query, key, *args, **kwargs)


def _both(given: Tensor | None, seen: Tensor) -> Tensor:
    """The mask ``given``, of yes and no or of numbers added to the scores, and what is ``seen``, together."""
    if given is None:
        return seen
    return given & seen if given.dtype == torch.bool else given.masked_fill(~seen, -torch.inf)


class NoAttention(PhasewiseError):
    """Nothing that a window of attention could restrict."""


class _Tokens(NamedTuple):
    """Where a denoiser's attention goes: tokens of ``patch`` pixels a side on ``grid``, over which it is called
    ``masked`` times an answer, and ``left`` times over others."""

    patch: int
    grid: Grid
    masked: int
    left: int


def _tokens(denoiser: Denoiser, held: HeldOut, times: Sequence[float], patch: int | None) -> _Tokens:
    """What one answer shows of ``denoiser``, at the first time it attends; without ``patch``, of the finest grid.

    Raises PhasewiseError where it calls no attention over a grid, or none over that of ``patch``.
    """
    height, width = denoiser.image_shape[1:]
    sizes: dict[int, int] = {}
    # several patches may fill one grid: one that cuts the image evenly is meant, else the smallest
    for p in sorted(range(1, max(height, width)), key=lambda p: (bool(height % p or width % p), p)):
        if (size := math.prod(grid_of((height, width), p))) not in sizes.values():
            sizes[p] = size
    for t in times:  # a hybrid's members may differ in kind
        met = _Attention()
        with met, checked_conditions():
            bind(denoiser, held.rows, slice(1))(held.images[:1], float(t))
        if found := [p for p, size in sizes.items() if size in met.lengths]:
            break
    name = type(denoiser).__name__
    if not found:
        raise NoAttention(
            f"{name} calls no attention over a grid of tokens; only calls of "
            "torch.nn.functional.scaled_dot_product_attention can be restricted"
        )
    if patch is None:
        patch = max(found, key=lambda p: sizes[p])
    down, across = grid_of((height, width), patch)
    masked = met.lengths.count(down * across)
    if not masked:
        raise PhasewiseError(
            f"{name} calls no attention over the {down}x{across} tokens of patch {patch}; leave patch out, or try "
            f"{' or '.join(str(p) for p in found[:4])}"
        )
    return _Tokens(patch, (down, across), masked, len(met.lengths) + met.others - masked)


def attends(
    denoiser: Denoiser, data: ImageData | Tensor, times: Sequence[float], cond: Condition | str | None = None
) -> bool:
    """Whether ``denoiser`` calls attention over a grid of its pixels that :func:`measure_attention_windows` could
    restrict, at one of ``times``."""
    held = held_out(denoiser, data, cond, 1)
    try:
        with evaluating(denoiser), torch.inference_mode():
            _tokens(denoiser, held, times, None)
    except NoAttention:
        return False
    return True


@in_evaluation
@torch.inference_mode()
@checks.checked(
    denoiser=a_denoiser,
    data=images_or_set,
    times=checks.times,
    windows=checks.each(checks.whole(0, what="a whole number of tokens")),
    patch=checks.count,
    per_layer=checks.flag,
    n=checks.at_least_2,
    seed=checks.seed,
    batch=checks.count,
)
def measure_attention_windows(
    denoiser: Denoiser,
    data: ImageData | Tensor,
    times: Sequence[float],
    windows: Sequence[int] | None = None,
    *,
    patch: int | None = None,
    per_layer: bool = False,
    n: int = 64,
    cond: Condition | str | None = None,
    seed: int = 0,
    batch: int = 64,
) -> AttentionWindows:
    """Change of the answer and rise of the held-out loss when attention is restricted to ``windows`` tokens.

    All layers at once, and with ``per_layer`` each alone.  ``data`` is (N, C, H, W) of held-out images, or an
    ImageData, whose test part is used: up to ``n`` of them, noised as by :func:`measure_losses`, the same for every
    restriction.  ``times`` in (0, 1] are on the denoiser's path; ``windows`` in tokens (max-norm), default 0, 1, 2, 3,
    4, 6, 8 ... below the grid; ``patch``, pixels a side of a token, is read off the number of tokens,
    the finest grid where there are several.
    Costs a call a time, image and restriction: times, images, windows, and once more for each layer.

    Raises PhasewiseError for a network without attention over a grid, or none of this ``patch``, for windows beyond the
    grid, images or a condition that do not fit, and for answers that are NaN, naming the times.
    """
    held = held_out(denoiser, data, cond, n)
    tokens = _tokens(denoiser, held, times, patch)
    largest = max(tokens.grid) - 1
    windows = usual_radii(largest, 0) if windows is None else windows
    windows = check_distances(windows, largest, f"on {tokens.grid[0]}x{tokens.grid[1]} tokens")
    layers = [None, *((k,) for k in range(tokens.masked) if per_layer)]
    tables = []
    for layer in layers:
        members = {"whole": denoiser, **{str(w): AttentionWithin(denoiser, w, tokens.patch, layer) for w in windows}}
        # one seed: every restriction meets the same images and noise
        told: Any = {"cond": held.rows, "seed": seed, "batch": batch}
        with checked_conditions():  # nor does a network look for NaN there: all times are told at the end
            tables.append(measure_losses(members, held.images, times, reference="whole", **told))
    refuse_times("answers", [t for k, t in enumerate(times) if not all(np.isfinite(m.loss[k]).all() for m in tables)])
    first = tables[0]

    def stacked(field: str) -> Array:
        return np.stack([getattr(table, field)[:, 1:] for table in tables], 1)

    return AttentionWindows(
        times=first.times,
        windows=windows,
        layers=tuple("all" if layer is None else str(layer[0]) for layer in layers),
        distance=stacked("distance"),
        distance_stderr=stacked("distance_stderr"),
        loss_rise=stacked("gap"),
        loss_rise_stderr=stacked("gap_stderr"),
        loss=first.loss[:, 0],
        loss_stderr=first.loss_stderr[:, 0],
        grid=tokens.grid,
        patch=tokens.patch,
        masked=tokens.masked,
        left=tokens.left,
        n=first.n,
        seed=seed,
        path=first.path,
    )
