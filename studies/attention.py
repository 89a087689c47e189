"""Attention of the small transformer within a window, by every kernel, beside that of all tokens: work to be timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from phasewise.denoisers.transformer import DIT_SIZES
from phasewise.denoisers.windows import window_attention
from studies.pages import markdown
from studies.timing import Work

WHOLE = "all tokens"
WAYS = ("dense", "tiles", "tiles compiled", "flex compiled")
"""A kernel of :data:`phasewise.denoisers.windows.KERNELS`, as it is or compiled for each window."""
WIDTH = DIT_SIZES["small"][0]
HEADS = WIDTH // 32
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Rows = Mapping[str, Mapping[str, Any]]
"""By "tokens/window": "times" by way, value and error, and "errors" by way."""


def fitting(side: int, windows: Sequence[int]) -> list[int]:
    """Those that do not reach from border to border."""
    return [window for window in windows if window < side - 1]


@dataclass(frozen=True)
class Layer:
    """One layer's attention, without its projections, over ``side`` x ``side`` tokens of so many ``images``.

    Attributes:
        learning: the gradient as well.
    """

    side: int
    window: int
    images: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    learning: bool = False

    def works(self, ways: Sequence[str]) -> tuple[dict[str, Work], dict[str, float]]:
        """What to time, attention to all tokens first; and each way's root mean square distance from the kernel "dense"
        in float32, over that one's own."""
        torch.compiler.reset()  # what was compiled for other windows counts against a limit
        generator = torch.Generator().manual_seed(0)
        shape = (3, self.images, HEADS, self.side**2, WIDTH // HEADS)
        parts = torch.randn(shape, generator=generator).to(self.device, self.dtype)
        q, k, v = (part.requires_grad_(self.learning) for part in parts.unbind())
        calls: dict[str, Attend] = {WHOLE: F.scaled_dot_product_attention, **{way: self.attend(way) for way in ways}}
        works: dict[str, Work] = {name: partial(self.call, attend, q, k, v) for name, attend in calls.items()}
        exact = self.attend("dense")(*(part.detach().float() for part in (q, k, v)))
        with torch.set_grad_enabled(self.learning):
            answers = {way: calls[way](q, k, v).detach().float() for way in ways}
        return works, {way: float(_rms(answer - exact) / _rms(exact)) for way, answer in answers.items()}

    def attend(self, way: str) -> Attend:
        kernel, *compiled = way.split()
        attend = partial(window_attention, grid=(self.side, self.side), window=self.window, kernel=kernel)
        return torch.compile(attend, dynamic=False) if compiled else attend

    def call(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> None:
        with torch.set_grad_enabled(self.learning):
            out = attend(q, k, v)
            if self.learning:
                torch.autograd.grad(out, (q, k, v), out.detach())
        if q.is_cuda:
            torch.cuda.synchronize()


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def ratio_table(rows: Rows, note: str) -> str:
    """Of times over those of attention to all tokens."""
    return _table(rows, note, "{:.2f} ± {:.2f}", [way for way in _ways(rows) if way != WHOLE])


def ms_table(rows: Rows, note: str) -> str:
    """Of milliseconds of a call, attention to all tokens among them."""
    return _table(rows, note, "{:.3f} ± {:.3f}", _ways(rows))


def _ways(rows: Rows) -> list[str]:
    return list(dict.fromkeys(way for row in rows.values() for way in row["times"]))


def _table(rows: Rows, note: str, form: str, ways: Sequence[str]) -> str:
    shown = []
    for name, row in rows.items():
        worst = max(row["errors"].values(), default=0.0)
        times = [form.format(*row["times"][way]) if way in row["times"] else "" for way in ways]
        shown.append([*name.split("/"), *times, f"{worst:.0e}"])
    return markdown(["tokens", "window", *ways, "relative error"], shown, note)
