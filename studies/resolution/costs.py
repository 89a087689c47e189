"""What the members cost a pixel, counted on our own networks at the side at hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import phasewise as pw
from phasewise.denoisers import DiTDenoiser, NetworkDenoiser
from phasewise.denoisers.transformer import DIT_SIZES
from phasewise.shapes import ImageShape
from studies.locality.networks import shape

Build = Callable[[ImageShape], NetworkDenoiser]
COUNTED = (16, 32, 64)
"""Sides at which a transformer that attends to all is counted by running it: later its N x N scores fill the memory."""
WIDTH, DEPTH, _ = DIT_SIZES["medium"]
PATCH = 2
"""Pixels a side of a token where it is to be the same at every side."""


@dataclass(frozen=True)
class Network:
    """A global network and its partners: FLOPs a pixel by side, and by radius and side; the same network anew, where
    small ones of it may plan."""

    colour: str
    whole: Callable[[int], float]
    partner: Callable[[int, int], float]
    build: Build | None = None

    def planned(self, radius: int, plan: int, side: int) -> float:
        """FLOPs a pixel of a plan of so many pixels a side by this network, and the local network beside it."""
        assert self.build is not None
        return _planned(self.build, radius, plan, side)


@cache
def _planned(build: Build, radius: int, plan: int, side: int) -> float:
    local = pw.LocalDenoiser(shape(side), radius, context=1)
    return pw.count_flops(pw.PlanDenoiser(build(shape(plan)), local, side // plan), shape(side)) / side**2


@cache
def local_flops(radius: int, side: int) -> float:
    """FLOPs a pixel of the local network of this radius, of its default design."""
    return a_pixel(lambda s: pw.LocalDenoiser(s, radius), side)


def windowed_flops(radius: int, side: int) -> float:
    """FLOPs a pixel of the transformer's own weights with the least window of attention that reaches so far."""
    return _windowed(math.ceil((radius - PATCH + 1) / (DEPTH * PATCH)), side)


@cache
def _windowed(window: int, side: int) -> float:
    return a_pixel(lambda s: _transformer(s).windowed(window), side)


@cache
def transformer_flops(side: int) -> float:
    """FLOPs a pixel of the transformer of :data:`PATCH` that attends to all: its FLOPs an image are a number, one a
    token and one a pair of tokens, so three countings give those at any side exactly."""
    if side <= max(COUNTED):
        return a_pixel(_transformer, side)
    counted = {s**2: transformer_flops(s) * s**2 for s in COUNTED}
    # Lagrange's form of the parabola through the three, in pixels instead of tokens
    parts = [
        value * math.prod((side**2 - other) / (pixels - other) for other in counted if other != pixels)
        for pixels, value in counted.items()
    ]
    return sum(parts) / side**2


def _transformer(image_shape: ImageShape) -> DiTDenoiser:
    return DiTDenoiser(image_shape, width=WIDTH, depth=DEPTH, patch=PATCH)


def _of_size(kind: type[pw.UNetDenoiser] | type[DiTDenoiser], size: str) -> tuple[Callable[[int], float], Build]:
    build = partial(kind.of_size, size=size)
    return cache(lambda side: a_pixel(build, side)), build


def a_pixel(build: Build, side: int) -> float:
    """FLOPs of one call over the pixels of a square image."""
    return pw.count_flops(build(shape(side)), shape(side)) / side**2


_MEDIUM, _LARGE = (_of_size(pw.UNetDenoiser, size) for size in ("medium", "large"))
_USUAL = _of_size(DiTDenoiser, "medium")
NETWORKS: dict[str, Network] = {
    "U-Net medium": Network("#D55E00", _MEDIUM[0], local_flops, _MEDIUM[1]),
    "U-Net large": Network("#CC79A7", _LARGE[0], local_flops, _LARGE[1]),
    "transformer": Network("#009E73", _USUAL[0], local_flops, _USUAL[1]),
    "transformer, patch 2": Network("#0072B2", transformer_flops, local_flops, _transformer),
    "the same, windows": Network("#56B4E9", transformer_flops, windowed_flops),
}
"""By name.  The transformers are of the medium size: of the usual patch, which grows with the side, or of patch 2, with
local networks as partners or with windows of attention over its own weights."""
