"""From clean images to what the amortised networks take: noise, standardised context, masks, Gaussian prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phasewise.information.linear import LinearChain, fit_linear_chain
from phasewise.information.problem import Problem

FREQUENCIES = (0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything about a problem that does not change while a network is fitted.

    Regions are numbered by the problem's radii, then B and C together: R + 1 of them.
    """

    a: Tensor
    masks: Tensor
    alpha: Tensor
    sigma: Tensor
    conditions: Tensor
    linear: LinearChain
    std: Tensor
    std_a: Tensor

    @classmethod
    def fit(cls, problem: Problem, train: Tensor, validation: Tensor, generator: torch.Generator) -> Inputs:
        return cls.around(problem, train, fit_linear_chain(problem, problem.a, train, validation, generator))

    @classmethod
    def around(cls, problem: Problem, train: Tensor, linear: LinearChain) -> Inputs:
        """With a Gaussian model that is there, fitted or not."""
        a = problem.a
        alpha, sigma = (v.float() for v in problem.levels())
        masks = torch.stack([problem.geometry.inside(r) for r in (*problem.radii, None)]).float()
        std = train.std(0).clamp(min=0.1 * float(train.std()))  # entries that hardly vary are not blown up
        return cls(
            a, masks, alpha, sigma, _conditions(2 * (alpha / sigma).log(), len(masks)), linear, std, std[a],
        )  # fmt: skip

    @property
    def regions(self) -> int:
        return len(self.masks)

    def order(self) -> list[int]:
        """Regions from the smallest to the largest."""
        return [int(i) for i in self.masks.sum(1).argsort(stable=True)]

    def noisy(self, clean: Tensor, time: int, generator: torch.Generator) -> Tensor:
        """(n, D) noised to time number ``time`` and centred."""
        noise = torch.randn(clean.shape, generator=generator)
        return self.alpha[time] * (clean - self.linear.mean) + self.sigma[time] * noise

    def noisy_a(self, clean: Tensor, time: int, draws: int, generator: torch.Generator) -> Tensor:
        """``draws`` noisy versions of A, centred, (n, M, P)."""
        noise = torch.randn((len(clean), draws, len(self.a)), generator=generator)
        centred = (clean - self.linear.mean)[:, None, self.a]
        return self.alpha[time] * centred + self.sigma[time] * noise

    def context(self, noisy: Tensor, time: int, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Network inputs of ``noisy`` (n, D) seen through ``regions`` (n, q): pixels (n*q, D), conditions (n*q, F)."""
        scale = (self.alpha[time] * self.std).hypot(self.sigma[time])
        pixels = (noisy / scale)[:, None] * self.masks[regions]
        return pixels.flatten(0, 1), self.conditions[time][regions].flatten(0, 1)


def _conditions(log_snr: Tensor, regions: int) -> Tensor:
    """(T, R + 1, F): log-SNR, its slow sines and cosines, and which region."""
    angles = log_snr[:, None] * torch.tensor(FREQUENCIES)
    time = torch.cat([log_snr[:, None] / 5, angles.sin(), angles.cos()], 1)
    region = nn.functional.one_hot(torch.arange(regions), regions).float()
    return torch.cat([time[:, None].expand(-1, regions, -1), region.expand(len(log_snr), -1, -1)], -1)
