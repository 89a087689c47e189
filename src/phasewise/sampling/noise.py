"""Noise row by row: what a trajectory starts from, and what a stochastic solver adds.

Every number is drawn on the CPU, so that an image is the same on every device.  For a GPU the rows are drawn by several
threads into pinned memory and copied while it works: no step waits for a copy.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from phasewise import checks, seeding
from phasewise.errors import PhasewiseError, unknown
from phasewise.paths import NoisePath, isotropic
from phasewise.sampling.brownian import step_weights
from phasewise.shapes import ImageShape

THREADS = min(8, os.cpu_count() or 1)
"""That draw the rows for a GPU; on the CPU the network has them all."""


@checks.checked(n=checks.count, image_shape=checks.image_shape, seed=checks.seed, first=checks.at_least_0)
def starting_noise(n: int, image_shape: ImageShape, seed: int = 0, first: int = 0) -> Tensor:
    """Standard normal (n, C, H, W) float32; row i depends on (seed, first + i) alone, whatever n is."""
    return seeding.normal_rows(n, image_shape, seed, first)


Between = tuple[float, float]
"""Signal-to-noise ratios (alpha / sigma)^2 that a step starts and ends at, ascending."""


class StepNoise(ABC):
    """A source of standard normal noise (n, C, H, W) that may know the step it is for."""

    @abstractmethod
    def __call__(self, between: Between | None = None) -> Tensor: ...


class RowNoise(StepNoise):
    """Fresh noise float32 for ``device``, one draw after another, whatever step it is for; row i of draw k depends on
    (seed, first + i, k) alone."""

    def __init__(self, n: int, shape: ImageShape, seed: int, first: int, device: torch.device) -> None:
        self.n, self.shape, self.seed, self.first, self.device = n, shape, seed, first, device
        self.threads = THREADS if device.type == "cuda" else 1
        self.streams: seeding.RowStreams | None = None

    def host(self, between: Between | None = None) -> Tensor:
        """The next draw, on the CPU; pinned where it is for a GPU."""
        if self.streams is None:  # deterministic solvers never ask
            self.streams = seeding.RowStreams(self.n, self.seed, self.first)
        return self.streams.fill(self._buffer(), self.threads)

    def _buffer(self) -> Tensor:
        return torch.empty(self.n, *self.shape, dtype=torch.float32, pin_memory=self.device.type == "cuda")

    def __call__(self, between: Between | None = None) -> Tensor:
        """The next draw, on the device."""
        return self.host(between).to(self.device, non_blocking=True)


class PathNoise(RowNoise):
    """Noise of one Brownian path per row (:mod:`phasewise.sampling.brownian`): that of a step depends on (seed,
    first + i) and the step alone, and a long step's is made of those of the short ones in it.  Fresh for a solver that
    does not say which step it is for."""

    def __init__(self, n: int, shape: ImageShape, seed: int, first: int, device: torch.device) -> None:
        super().__init__(n, shape, seed, first, device)
        self.path = seeding.RowBlocks(n, seeding.mix(seed, seeding.Purpose.SOLVER_PATH), first)

    def host(self, between: Between | None = None) -> Tensor:
        if between is None:
            return super().host()
        return self.path.fill(self._buffer(), step_weights(*between), self.threads)


NOISES: dict[str, type[RowNoise]] = {"fresh": RowNoise, "path": PathNoise}
"""What a stochastic solver adds, by name."""


def solver_noise(
    n: int, shape: ImageShape, seed: int, first: int, device: torch.device, kind: str = "fresh"
) -> RowNoise:
    """What a stochastic solver adds, as :func:`phasewise.sample` draws it; PhasewiseError for an unknown kind."""
    # mixed with its purpose, or the first draw would be the starting noise over again
    return noise_kind(kind)(n, shape, seeding.mix(seed, seeding.Purpose.SOLVER_NOISE), first, device)


def noise_kind(name: str) -> type[RowNoise]:
    """The source of this name; PhasewiseError for an unknown one."""
    if name not in NOISES:
        raise PhasewiseError(unknown("noise", name, NOISES))
    return NOISES[name]


def check_noise(name: str, path: NoisePath) -> None:
    """Raises PhasewiseError for an unknown source, and for one Brownian path where modes have one each."""
    noise_kind(name)
    if name == "path":
        isotropic(path, 'one Brownian path for all grids, noise="path",')
