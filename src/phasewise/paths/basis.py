r"""Fixed orthonormal bases of an image, (..., H, W) -> (..., H, W), in which an anisotropic path is diagonal.

``dct``: the two-dimensional DCT-II, the waves of an image with free borders.  Mode (i, j) has i half waves down and j
across.  It diagonalises the graph Laplacian of the open H x W grid, with eigenvalue

    e_ij = (2 - 2 cos(pi i / H)) + (2 - 2 cos(pi j / W)).

``haar``: the pyramid of Haar wavelets (Mallat 1989).  Both sides are halved while both are even; the means of the last
halving stay as they are.  A side that is odd from the start leaves nothing to halve, and is refused.

Modes come in *bands*, by which a path may treat them: of ``dct`` the waves of ``max(i, j) = 0, 1, ...``, of ``haar``
the means that are left, then details from coarse to fine.  The mean brightness lies in band 0 of both.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache

import torch
from torch import Tensor

from phasewise.errors import PhasewiseError
from phasewise.registry import Registry

Side = tuple[int, int]
"""(H, W)."""


class Basis(ABC):
    """An orthonormal basis of (H, W) images.  Raises PhasewiseError where it does not fit them."""

    name: str

    def __init__(self, side: Side) -> None:
        self.side = side

    @abstractmethod
    def to_modes(self, x: Tensor) -> Tensor:
        """Amplitudes (..., H, W) of images (..., H, W)."""

    @abstractmethod
    def to_pixels(self, modes: Tensor) -> Tensor:
        """The inverse of :meth:`to_modes`, its transpose."""

    @property
    @abstractmethod
    def band(self) -> Tensor:
        """(H, W) int64: the band of each mode, 0 the coarsest; none is empty."""

    @property
    def energy(self) -> Tensor:
        """(H, W) float64: eigenvalues of the graph Laplacian, where this basis has them."""
        raise PhasewiseError(f"modes of {self.name!r} have no wave number; take 'dct', or a path for every band")


BASES: Registry[type[Basis]] = Registry("basis")
"""Bases by name."""


@BASES.register("dct")
class CosineBasis(Basis):
    """Two-dimensional DCT-II; fits every size."""

    name = "dct"

    def to_modes(self, x: Tensor) -> Tensor:
        down, across = (_cosines(n, x.dtype, x.device) for n in self.side)
        return down @ x @ across.T

    def to_pixels(self, modes: Tensor) -> Tensor:
        down, across = (_cosines(n, modes.dtype, modes.device) for n in self.side)
        return down.T @ modes @ across

    @property
    def band(self) -> Tensor:
        down, across = (torch.arange(n) for n in self.side)
        return torch.maximum(down[:, None], across[None, :])

    @property
    def energy(self) -> Tensor:
        down, across = (2 - 2 * torch.cos(math.pi * torch.arange(n, dtype=torch.float64) / n) for n in self.side)
        return down[:, None] + across[None, :]


@cache
def _cosines(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(n, n): waves in rows, of unit length."""
    place = torch.arange(n, dtype=torch.float64)
    waves = torch.cos(math.pi * place[:, None] * (place[None, :] + 0.5) / n) * math.sqrt(2 / n)
    waves[0] /= math.sqrt(2)
    with torch.inference_mode(False):  # kept: an ordinary tensor, fit for gradients too
        return waves.to(device, dtype, copy=True)


@BASES.register("haar")
class HaarBasis(Basis):
    """Pyramid of Haar wavelets: means in the upper left, details of each level in the three quarters round them."""

    name = "haar"

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        self.levels = 0
        while all(n % 2 ** (self.levels + 1) == 0 for n in side):
            self.levels += 1
        if self.levels == 0:
            raise PhasewiseError(
                f"the Haar basis halves both sides, and one of {side[0]} x {side[1]} is odd; pad the images, or take "
                "'dct', which fits every size"
            )

    def to_modes(self, x: Tensor) -> Tensor:
        out = x.clone()
        for level in range(self.levels):
            rows, columns = (n >> level for n in self.side)
            part = out[..., :rows, :columns].clone()
            for dim in (-2, -1):
                even, odd = part.unflatten(dim, (-1, 2)).unbind(dim)
                part = torch.cat([even + odd, even - odd], dim) / math.sqrt(2)
            out[..., :rows, :columns] = part
        return out

    def to_pixels(self, modes: Tensor) -> Tensor:
        out = modes.clone()
        for level in reversed(range(self.levels)):
            rows, columns = (n >> level for n in self.side)
            part = out[..., :rows, :columns].clone()
            for dim in (-1, -2):
                mean, detail = part.chunk(2, dim)
                part = torch.stack([mean + detail, mean - detail], dim).flatten(dim - 1, dim) / math.sqrt(2)
            out[..., :rows, :columns] = part
        return out

    @property
    def band(self) -> Tensor:
        out = torch.zeros(self.side, dtype=torch.long)
        for level in range(self.levels):
            rows, columns = (n >> level for n in self.side)
            finest = torch.ones(rows, columns, dtype=torch.bool)
            finest[: rows // 2, : columns // 2] = False
            out[:rows, :columns][finest] = self.levels - level
        return out
