"""The critic network of the paper and the pairs it is shown.

Network (Hu, Liu, Zhang, Gao, arXiv 2508.06614): 3x3 convolution, ReLU, 2x2 average pool, hidden layer, ReLU, one
number; dropout after the pool and after the hidden layer.  A side of fewer than 3 pixels is padded; a last odd row or
column is pooled too.

Pairs: an image noised to time t, everything outside A and the context set to 0; for the k-th marginal pair A comes from
the image k places further in the same group.  Noisy pixels are divided by one number, their overall root mean square,
which changes no information.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from phasewise.information.problem import Problem
from phasewise.shapes import ImageShape


class CriticNetwork(nn.Module):
    """(m, C, H, W) -> (m,)."""

    def __init__(self, shape: ImageShape, width: int, hidden: int, dropout: tuple[float, float]) -> None:
        super().__init__()
        _, height, width_in = shape
        padding = (int(height < 3), int(width_in < 3))
        rows, cols = height + 2 * padding[0] - 2, width_in + 2 * padding[1] - 2
        self.convolution = nn.Conv2d(shape[0], width, 3, padding=padding)
        self.pool = nn.AvgPool2d((min(2, rows), min(2, cols)), ceil_mode=True)
        self.hidden = nn.Linear(width * math.ceil(rows / 2) * math.ceil(cols / 2), hidden)
        self.out = nn.Linear(hidden, 1)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(functional.relu(self.convolution(x))).flatten(1)
        h = functional.dropout(h, self.dropout[0], self.training)
        h = functional.relu(self.hidden(h))
        return self.out(functional.dropout(h, self.dropout[1], self.training)).squeeze(1)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Joint and marginal pairs at one time, for one context.

    ``clean`` (n, D) all images; ``a`` entries of A; ``context`` (D,) bool, entries shown besides A.
    """

    clean: Tensor
    shape: ImageShape
    alpha: float
    sigma: float
    a: Tensor
    context: Tensor
    negatives: int
    scale: float
    device: str

    @property
    def size(self) -> int:
        return self.clean.shape[1]

    def scores(self, critic: nn.Module, images: Tensor, noise: Tensor) -> Tensor:
        """(1 + negatives, m) scores of the images numbered ``images`` (m,) with ``noise`` (m, D)."""
        noisy = ((self.alpha * self.clean[images] + self.sigma * noise) / self.scale).to(self.device)
        shown = noisy * self.context.to(self.device)
        rows = shown.repeat(1 + self.negatives, 1)
        rows[:, self.a] = torch.cat([noisy[:, self.a].roll(-k, 0) for k in range(1 + self.negatives)])
        return critic(rows.reshape(-1, *self.shape)).reshape(1 + self.negatives, -1)


def make_pairs(problem: Problem, time: int, radius: int | None, negatives: int, device: str) -> Pairs:
    """Pairs of A with ``B_radius`` (None: with B and C) at the time numbered ``time``."""
    alpha, sigma = (float(level[time]) for level in problem.levels())
    scale = float((alpha**2 * (problem.images**2).mean() + sigma**2).sqrt())
    context = problem.geometry.inside(radius)
    return Pairs(problem.flat, problem.image_shape, alpha, sigma, problem.a, context, negatives, scale, device)


def group_sizes(n: int, batch: int, negatives: int) -> list[int]:
    """Sizes of the groups inside which A is shuffled for scoring: near ``batch``, smaller if that leaves under 20."""
    size = min(batch, max(negatives + 1, n // 20))
    groups = n // size
    return [n // groups + (k < n % groups) for k in range(groups)]
