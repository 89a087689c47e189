"""Noise row by row: what a trajectory starts from, and what a stochastic solver adds.

Every number is drawn on the CPU, so that an image is the same on every device.  For a GPU the rows are drawn by several
threads into pinned memory and copied while it works: no step waits for a copy.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from phasewise import seeding
from phasewise.shapes import ImageShape

THREADS = min(8, os.cpu_count() or 1)
"""That draw the rows for a GPU; on the CPU the network has them all."""


def starting_noise(n: int, image_shape: ImageShape, seed: int = 0, first: int = 0) -> Tensor:
    """Standard normal (n, C, H, W) float32; row i depends on (seed, first + i) alone, whatever n is."""
    return seeding.normal_rows(n, image_shape, seed, first)


class RowNoise:
    """Standard normal noise (n, C, H, W) float32 for ``device``, one draw after another; row i of draw k depends on
    (seed, first + i, k) alone."""

    def __init__(self, n: int, shape: ImageShape, seed: int, first: int, device: torch.device) -> None:
        self.n, self.shape, self.seed, self.first, self.device = n, shape, seed, first, device
        self.streams: seeding.RowStreams | None = None

    def host(self) -> Tensor:
        """The next draw, on the CPU; pinned where it is for a GPU."""
        if self.streams is None:  # deterministic solvers never ask
            self.streams = seeding.RowStreams(self.n, self.seed, self.first)
        gpu = self.device.type == "cuda"
        out = torch.empty(self.n, *self.shape, dtype=torch.float32, pin_memory=gpu)
        return self.streams.fill(out, THREADS if gpu else 1)

    def __call__(self) -> Tensor:
        """The next draw, on the device."""
        return self.host().to(self.device, non_blocking=True)


def solver_noise(n: int, shape: ImageShape, seed: int, first: int, device: torch.device) -> RowNoise:
    """What a stochastic solver adds, as :func:`phasewise.sample` draws it."""
    # mixed with its purpose, or the first draw would be the starting noise over again
    return RowNoise(n, shape, seeding.mix(seed, seeding.Purpose.SOLVER_NOISE), first, device)
