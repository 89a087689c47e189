"""Random streams named by integers: the same parts give the same stream, whatever else was drawn before.

torch's CPU generator keeps only 32 bits of its seed, so seeds must be mixed, not shifted.  Per-sample noise uses the
counter-based Philox generator, whose 128-bit key holds (seed, index) whole: no two samples can share a stream.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MASK = 2**64 - 1


def generator(*parts: int) -> torch.Generator:
    """A torch generator for one named purpose, e.g. ``generator(seed, purpose, step)``."""
    return torch.Generator().manual_seed(mix(*parts))


def mix(*parts: int) -> int:
    """63 well-mixed bits from integers (splitmix64 steps)."""
    h = 0
    for part in parts:
        h = (h ^ (part & MASK)) + 0x9E3779B97F4A7C15 & MASK
        h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 & MASK
        h = (h ^ h >> 27) * 0x94D049BB133111EB & MASK
        h ^= h >> 31
    return h >> 1


class RowStreams:
    """One random stream per row, opened once: row i of every draw comes from the stream of (seed, first + i)."""

    def __init__(self, n: int, seed: int, first: int = 0) -> None:
        keys = (np.array([seed & MASK, first + i], dtype=np.uint64) for i in range(n))
        self.streams = [np.random.Generator(np.random.Philox(key=key)) for key in keys]

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal (n, *shape) float32, the next numbers of every stream."""
        out = np.empty((len(self.streams), *shape), dtype=np.float32)
        for row, stream in zip(out, self.streams, strict=True):
            stream.standard_normal(out=row, dtype=np.float32)
        return torch.from_numpy(out)


def normal_rows(n: int, shape: tuple[int, ...], seed: int, first: int = 0) -> Tensor:
    """Standard normal (n, *shape) float32; row i depends on (seed, first + i) alone."""
    return RowStreams(n, seed, first).normal(shape)
