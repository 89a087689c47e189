"""What the members cost a pixel, counted on our own networks at the side at hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import phasewise as pw
from phasewise.denoisers import NetworkDenoiser
from phasewise.shapes import ImageShape
from studies.locality.networks import shape
from studies.locality.transformer import TransformerDenoiser

COUNTED = 64
"""Largest side whose transformer is counted by running it; beyond, attention's N x N scores outgrow the memory."""


def local_flops(radius: int, side: int) -> float:
    """FLOPs a pixel of the local network of this radius, of its default design."""
    return _a_pixel(lambda s: pw.LocalDenoiser(s, radius), side)


def global_flops(name: str, side: int) -> float:
    """FLOPs a pixel of a global network of :data:`GLOBALS`."""
    return GLOBALS[name](side)


@cache
def transformer_flops(side: int) -> float:
    """FLOPs a pixel of the transformer of the study locality_pays: per image a number, one per token, and one per pair
    of tokens, which three countings at small sides give exactly."""
    if side <= COUNTED:
        return _a_pixel(_transformer, side)
    sides = (16, 32, COUNTED)
    tokens = [s**2 for s in sides]  # any multiple of their number
    counted = [transformer_flops(s) * s**2 for s in sides]
    # Lagrange's form of the parabola through the three
    found, n = 0.0, side**2
    for i in range(3):
        j, k = (x for x in range(3) if x != i)
        found += counted[i] * (n - tokens[j]) * (n - tokens[k]) / (tokens[i] - tokens[j]) / (tokens[i] - tokens[k])
    return found / n


def _transformer(image_shape: ImageShape) -> NetworkDenoiser:
    return TransformerDenoiser(image_shape, width=64, depth=3)


def _unet(size: str) -> Callable[[int], float]:
    return lambda side: _a_pixel(lambda s: pw.UNetDenoiser.of_size(s, size), side)


def _a_pixel(build: Callable[[ImageShape], NetworkDenoiser], side: int) -> float:
    return pw.count_flops(build(shape(side)), shape(side)) / side**2


GLOBALS: dict[str, Callable[[int], float]] = {
    "U-Net medium": _unet("medium"),
    "U-Net large": _unet("large"),
    "transformer": transformer_flops,
}
"""Global networks by name: side to FLOPs a pixel."""
COLOURS = {"U-Net medium": "#D55E00", "U-Net large": "#CC79A7", "transformer": "#009E73"}
