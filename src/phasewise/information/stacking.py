r"""Which model serves which region: chosen, and mixed, on validation images.

For a region S any ``q(a | s')`` with ``s'`` a part of S is a valid model of ``p(a | s)``.  Going from the smallest region
to the largest, the better of the learned and the Gaussian model is taken, the other mixed in where that helps, and then
the mixture of the region before:

    q = (1 - w) q_main + w q_other,    w = argmax over [0, 1] of  mean log q        (concave in w)

``w > 0`` only where the slope at 0, ``E[q_other / q_main] - 1``, is positive beyond doubt: if q_main is the truth the
slope is exactly 0, and chance must not blur it.  Scores then hardly fall when the region grows, which keeps a learned
CMI from going below 0 for mere lack of training, and each score stays an upper bound of its entropy.
"""

from __future__ import annotations

import torch
from torch import Tensor

DOUBT = 2.0
"""Standard errors by which the slope must exceed 0."""


def mixing_weight(main: Tensor, other: Tensor) -> float:
    """Weight of ``other`` from log densities (n, ...) of both on the same points; the first axis counts images, whose
    points are not taken to be independent."""
    ratio = (other - main).double().clamp(max=300).exp() - 1
    slope = ratio.flatten(1).mean(1)
    if not float(slope.mean()) > DOUBT * float(slope.std()) / len(slope) ** 0.5:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        rising = float((ratio / (1 + middle * ratio)).mean()) > 0
        low, high = (middle, high) if rising else (low, middle)
    return (low + high) / 2


def mix(main: Tensor, other: Tensor, weight: float) -> Tensor:
    """``log((1 - w) e^main + w e^other)``."""
    if weight == 0:
        return main
    w = torch.tensor(weight, dtype=main.dtype)
    return torch.logaddexp(main + (1 - w).log(), other + w.log())


class NestedStack:
    """Fitted on log densities (n, M, P, R, 2) of two models in R regions; called on the like -> (n, M, P, R).

    ``order`` lists the regions from the smallest to the largest, each holding those before it.
    """

    def __init__(self, log_density: Tensor, order: list[int]) -> None:
        self.order = order
        self.main: dict[int, int] = {}
        self.within: dict[int, float] = {}
        self.before: dict[int, float] = {}
        previous = None
        for region in order:
            pair = log_density[..., region, :]
            main = int(pair.flatten(0, -2).double().mean(0).argmax())
            self.main[region] = main
            self.within[region] = mixing_weight(pair[..., main], pair[..., 1 - main])
            own = mix(pair[..., main], pair[..., 1 - main], self.within[region])
            self.before[region] = 0.0 if previous is None else mixing_weight(own, previous)
            previous = own if previous is None else mix(own, previous, self.before[region])

    def __call__(self, log_density: Tensor) -> Tensor:
        out: dict[int, Tensor] = {}
        previous = None
        for region in self.order:
            pair, main = log_density[..., region, :], self.main[region]
            own = mix(pair[..., main], pair[..., 1 - main], self.within[region])
            previous = own if previous is None else mix(own, previous, self.before[region])
            out[region] = previous
        return torch.stack([out[region] for region in sorted(out)], -1)


def simplex_least_squares(predictions: Tensor, target: Tensor, iterations: int = 500) -> Tensor:
    """Convex weights (C,) minimising ``|predictions @ w - target|^2``; ``predictions`` (N, C), ``target`` (N,).

    Frank-Wolfe steps from the best single candidate, with exact line search.
    """
    error = predictions.double() - target.double()[:, None]
    gram = error.T @ error / len(error)
    w = torch.nn.functional.one_hot(gram.diagonal().argmin(), len(gram)).double()
    for _ in range(iterations):
        gradient = gram @ w
        step = torch.nn.functional.one_hot(gradient.argmin(), len(gram)).double() - w
        curvature = float(step @ gram @ step)
        slope = float(step @ gradient)
        if slope >= 0 or curvature <= 0:
            break
        w = w + min(1.0, -slope / curvature) * step
    return w.float()
