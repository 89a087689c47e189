"""Which designs are compared with which, and what is special about training some of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import phasewise as pw
from phasewise.denoisers import NetworkDenoiser, PublishedLocal
from studies.designs.window_attention import AttentionLocal

SHAPE = (1, 28, 28)
Make = Callable[[], NetworkDenoiser]


def local(radius: int, **choices: Any) -> Make:
    return lambda: pw.LocalDenoiser(SHAPE, radius, **{"norm": True, "mixing": 0, **choices})


def attention(radius: int, **choices: Any) -> Make:
    return lambda: AttentionLocal(SHAPE, radius, **choices)


def unet(**choices: Any) -> Make:
    return lambda: pw.UNetDenoiser(SHAPE, **choices)


GROUPS: dict[str, dict[str, Make]] = {
    "local1": {
        "stem p1 w32 d2": local(1),
        "stem p1 w32 d2 no norm": local(1, norm=False),
        "stem p2 w64 d2 no norm": local(1, block=2, width=64, norm=False),
    },
    "local2": {
        "stem p1 w32 d2 no norm": local(2, block=1, norm=False),
        "stem p2 w64 d2 no norm": local(2, norm=False),
        "depthwise p1 w32 d2 m1 no norm": local(2, block=1, mixing=1, norm=False),
    },
    "local3": {
        "stem p2 w64 d2": local(3),
        "stem p2 w64 d2 no norm": local(3, norm=False),
        "stem p1 w32 d2 no norm": local(3, block=1, norm=False),
        "stem p2 w64 d1 e2": local(3, depth=1, expansion=2),
        "stem p4 w128 d2": local(3, block=4),
        "depthwise p1 w32 d2 m2 no norm": local(3, block=1, mixing=2, norm=False),
        "depthwise p2 w64 d2 m1 no norm": local(3, mixing=1, norm=False),
        "attention p2 w64 d2 m1": attention(3, mixing=1),
    },
    "local5": {
        "stem p1 w32 d2 no norm": local(5, block=1, norm=False),
        "stem p2 w64 d2 no norm": local(5, norm=False),
        "depthwise p2 w64 d2 m2 no norm": local(5, mixing=2, norm=False),
        "stem p4 w128 d2 no norm": local(5, block=4, norm=False),
    },
    "local8": {
        "stem p4 w128 d2": local(8),
        "stem p4 w128 d2 no norm": local(8, norm=False),
        "depthwise p4 w128 d2 m1": local(8, mixing=1),
        "depthwise p4 w128 d2 m1 no norm": local(8, mixing=1, norm=False),
    },
    "local12": {
        "stem p4 w128 d2": local(12),
        "stem p4 w192 d4": local(12, width=192, depth=4),
        "depthwise p4 w128 d2 m2": local(12, mixing=2),
        "depthwise p4 w128 d4 m2 e2": local(12, depth=4, mixing=2, expansion=2),
        "depthwise p2 w64 d5 m5": local(12, block=2, depth=5, mixing=5),
    },
    "norm12": {
        "depthwise p4 w128 d2 m2": local(12, mixing=2),
        "depthwise p4 w128 d2 m2 no norm": local(12, mixing=2, norm=False),
    },
    "training3": {
        "one network": local(3, norm=False),
        "expert below 0.25": local(3, norm=False),
        "expert 0.25 to 0.6": local(3, norm=False),
        "expert above 0.6": local(3, norm=False),
        "taught": local(3, norm=False),
        "taught, as many steps": local(3, norm=False),
    },
    "global": {
        "w16 1-3": unet(width=16, multipliers=(1, 3)),
        "w32 1-2": unet(),
        "w32 1-2 no attention": unet(heads=0),
        "w32 1-2, 2 blocks": unet(blocks=2),
        "w32 1-3": unet(multipliers=(1, 3)),
        "w32 1-2-4": unet(multipliers=(1, 2, 4)),
        "w64 1-2 patch 4": unet(width=64, multipliers=(1, 2), patch=4),
        "w64 1-2": unet(width=64),
    },
    "published": {
        "ours": local(3),
        "strict": lambda: PublishedLocal(SHAPE, 3),
        "leaky": lambda: PublishedLocal(SHAPE, 3, norm="leaky"),
    },
}

SAME_STEPS = {"leaky": "strict", "taught, as many steps": "one network"}
"""Which design takes the steps of which other, not its own: the two norms are compared at equal training."""

SPANS = {"expert below 0.25": (0.0, 0.25), "expert 0.25 to 0.6": (0.25, 0.6), "expert above 0.6": (0.6, 1.0)}
"""Experts: each is trained on these noise times for a third of the time."""


def fresh(make: Make) -> NetworkDenoiser:
    """Initial weights are the same for all."""
    torch.manual_seed(0)
    return make()


def is_taught(design: str) -> bool:
    """Whether it learns the posterior mean of the shipped global network instead of the images."""
    return design.startswith("taught")
