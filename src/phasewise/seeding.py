"""Random streams by seed and named purpose: the same parts give the same stream, whatever else was drawn before.

torch's CPU generator keeps only 32 bits of its seed, so seeds must be mixed, not shifted.  Per-sample noise uses the
counter-based Philox generator, whose 128-bit key holds (seed, index) whole: no two samples can share a stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum, unique

import numpy as np
import torch
from torch import Tensor

MASK = 2**64 - 1


@unique
class Purpose(IntEnum):
    """What a stream under a seed is for. Numbers never change: another number is another stream."""

    TRAINING_NOISE = 1
    TRAINING_ORDER = 2
    TRAINING_VALIDATION = 3
    LOSSES = 10
    PENALTY_NOISE = 11
    REUSE_NOISE = 16
    RECOVERY = 12
    REACH_NOISE = 13
    REACH_PIXELS = 14
    REACH_SIGNS = 15
    CLONING = 17
    CLONE = 18
    SPECIATION = 19
    CMI_FOLDS = 20
    CMI_FOLD = 21
    CMI_CLASS = 22
    SOLVER_NOISE = 30
    SOLVER_PATH = 31
    SAMPLED_LABELS = 32
    INITIAL_WEIGHTS = 40
    SLICES = 50
    TWO_SAMPLE_SPLIT = 51
    TWO_SAMPLE_WEIGHTS = 52
    TWO_SAMPLE_BATCHES = 53
    CRITIC_SPLIT = 100
    CRITIC_INIT = 101
    CRITIC_BATCHES = 102
    CRITIC_FROZEN_NOISE = 103
    CRITIC_SCORING = 104
    CRITIC_CALIBRATION = 105
    GAUSSIAN_FOLDS = 200
    NEIGHBOURS_SPLIT = 300
    NEIGHBOURS_NOISE = 301


@unique
class FoldPurpose(IntEnum):
    """Streams under the seed of one fold, ``mix(seed, Purpose.CMI_FOLD, number)``."""

    INPUTS = 0
    TRAINING = 1
    CHOOSING = 2
    SCORING = 3


@unique
class Stage(IntEnum):
    """Stages of a run that draw from a seed of their own."""

    LOSSES = 1
    RECOVERY = 2
    PRICES = 3
    CMI = 4
    TEACHER = 5
    REACH = 6
    BOUNDARY = 7
    UNSEEN = 8
    PLACING = 9
    PLACED = 10
    SYMMETRY = 11


def stage_seed(seed: int, stage: Stage) -> int:
    """The seed of one stage of the run with this seed."""
    return (seed + stage) % 2**63  # 2**63 - 1 is the largest seed


def generator(*parts: int) -> torch.Generator:
    """A torch generator for one purpose, e.g. ``generator(seed, Purpose.TRAINING_NOISE, step)``."""
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


def narrow(seed: int) -> int:
    """``seed`` for a library that keeps 32 bits of it: itself below 2**32, mixed above, so that no bit is lost."""
    return seed if seed < 2**32 else mix(seed) % 2**32


def plain(seed: int) -> torch.Generator:
    """torch's generator of a bare seed, all of whose bits count."""
    return torch.Generator().manual_seed(narrow(seed))


class RowStreams:
    """One random stream per row, opened once: row i of every draw comes from the stream of (seed, first + i)."""

    def __init__(self, n: int, seed: int, first: int = 0) -> None:
        keys = (np.array([seed & MASK, first + i], dtype=np.uint64) for i in range(n))
        self.streams = [np.random.Generator(np.random.Philox(key=key)) for key in keys]

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal (n, *shape) float32, the next numbers of every stream."""
        return self.fill(torch.empty(len(self.streams), *shape, dtype=torch.float32))

    def fill(self, out: Tensor, threads: int = 1) -> Tensor:
        """``out`` (n, ...), float32 and contiguous on the CPU, filled with the next numbers of every stream; by several
        threads the same ones."""
        rows = list(zip(out.numpy(), self.streams, strict=True))
        if threads == 1:
            _fill(rows)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(_fill, (rows[k::threads] for k in range(threads))))
        return out


class RowBlocks:
    """Numbers to be had in any order: block k of row i is standard normal and depends on (seed, first + i, k) alone."""

    def __init__(self, n: int, seed: int, first: int = 0) -> None:
        self.n, self.seed, self.first = n, seed & MASK, first

    def fill(self, out: Tensor, weights: Mapping[int, float], threads: int = 1) -> Tensor:
        """``out`` (n, ...), float32 and contiguous on the CPU: in every row the sum of weight times block, by k."""
        rows = list(enumerate(out.numpy(), self.first))
        if threads == 1:
            self._mix(rows, weights)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda part: self._mix(part, weights), (rows[k::threads] for k in range(threads))))
        return out

    def _mix(self, rows: Iterable[tuple[int, np.ndarray]], weights: Mapping[int, float]) -> None:
        for number, row in rows:
            source = np.random.Philox(key=np.array([self.seed, number], dtype=np.uint64))
            stream, state = np.random.Generator(source), source.state
            block = np.empty_like(row)
            row[...] = 0
            for k, weight in weights.items():
                # the counter moves in its lowest word: blocks that differ in a higher one never meet
                state["state"]["counter"] = np.array([0, k, 0, 0], dtype=np.uint64)
                source.state = state
                stream.standard_normal(out=block, dtype=np.float32)
                block *= np.float32(weight)
                row += block


def _fill(rows: Iterable[tuple[np.ndarray, np.random.Generator]]) -> None:
    for row, stream in rows:
        stream.standard_normal(out=row, dtype=np.float32)


def normal_rows(n: int, shape: tuple[int, ...], seed: int, first: int = 0) -> Tensor:
    """Standard normal (n, *shape) float32; row i depends on (seed, first + i) alone."""
    return RowStreams(n, seed, first).normal(shape)
