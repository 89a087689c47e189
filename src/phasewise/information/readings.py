"""What a network and the Gaussian model say about A, image by image: where the learned estimators differ."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from phasewise.information.inputs import Inputs

CHUNK = 100
"""Images read at once: seen through a dozen regions they just fit the cache."""


class Readings(ABC):
    """Two models of A, ``net`` and the Gaussian of ``inputs``, on the same noise."""

    inputs: Inputs
    net: nn.Module

    @abstractmethod
    def __call__(
        self,
        clean: Tensor,
        time: int,
        regions: Tensor,
        draws: int,
        generator: torch.Generator,
        learned: bool = True,
    ) -> Tensor:
        """``clean`` (n, D) at time number ``time`` through ``regions`` (n, q) -> values (n, q, M, P, 2).

        The last axis: network, Gaussian.  The noise does not depend on ``regions``.  Without ``learned`` the network is
        not asked and its values mean nothing.
        """

    def everything(
        self, clean: Tensor, time: int, draws: int, generator: torch.Generator, learned: bool = True
    ) -> Tensor:
        """Values (n, M, P, R + 1, 2) in all regions."""
        regions = torch.arange(self.inputs.regions)
        parts = [
            self(part, time, regions.expand(len(part), -1), draws, generator, learned).movedim(1, 3)
            for part in clean.split(CHUNK)
        ]
        return torch.cat(parts)
