"""The networks compared, at any image side, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

import phasewise as pw
from phasewise.denoisers import NetworkDenoiser
from phasewise.shapes import ImageShape
from studies.locality.transformer import TransformerDenoiser

FAMILIES = {"local": "#0072B2", "U-Net": "#D55E00", "transformer": "#009E73"}
"""First word of a network's name, and its colour."""


def shape(side: int) -> ImageShape:
    return (1, side, side)


NETWORKS: dict[str, Callable[[int], NetworkDenoiser]] = {
    "local r1": lambda side: pw.LocalDenoiser(shape(side), 1, block=2, width=64),
    "local r3": lambda side: pw.LocalDenoiser(shape(side), 3, block=2, width=64),
    "local r5": lambda side: pw.LocalDenoiser(shape(side), 5, block=2, width=64),
    "local r8": lambda side: pw.LocalDenoiser(shape(side), 8, block=4, width=128),
    "U-Net coarse": lambda side: pw.UNetDenoiser.of_size(shape(side), "coarse"),
    "U-Net small": lambda side: pw.UNetDenoiser.of_size(shape(side), "small"),
    "U-Net medium": lambda side: pw.UNetDenoiser.of_size(shape(side), "medium"),
    "transformer w32 d2": lambda side: TransformerDenoiser(shape(side), width=32, depth=2),
    "transformer w64 d3": lambda side: TransformerDenoiser(shape(side), width=64, depth=3),
}


def fresh(name: str, side: int) -> NetworkDenoiser:
    """Initial weights of one seed."""
    torch.manual_seed(0)
    return NETWORKS[name](side)


@cache
def mflop(name: str, side: int) -> float:
    return pw.count_flops(NETWORKS[name](side), shape(side)) / 1e6
