r"""Which model is used for which region: chosen, and mixed, on validation images.

For a region S any model that looks at a part of S only is a valid model of A given S.  Going from the smallest region
to the largest, the better of the learned and the Gaussian model is taken, the other mixed in where that helps, and then
the mixture of the region before.  Densities mix as ``q = (1 - w) q_main + w q_other``, predictions likewise, with the w
in [0, 1] of the best mean score (concave in w in both cases).

``w > 0`` only where the gain on the validation images exceeds its own standard error (at the best w the gain is half of
w times the slope at 0, so that is a slope of two standard errors): if the main model is the truth there is nothing to
gain, and chance must not blur it.  Scores then hardly fall when the region grows, which keeps a learned CMI from going
below 0 for mere lack of training, and each score keeps its bound (of an entropy, of an mmse).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Rule(ABC):
    """How values of two models on the same points (n, ...) are scored and mixed; the first axis counts images, whose
    points are not taken to be independent."""

    @abstractmethod
    def score(self, values: Tensor) -> Tensor:
        """Higher is better; same shape."""

    @abstractmethod
    def best(self, main: Tensor, other: Tensor) -> float:
        """The weight of ``other`` in [0, 1] with the best mean score."""

    @abstractmethod
    def mix(self, main: Tensor, other: Tensor, weight: float) -> Tensor: ...

    def weight(self, main: Tensor, other: Tensor) -> float:
        """The best weight, or 0 where its gain is in doubt."""
        w = self.best(main, other)
        if w == 0:
            return 0.0
        gain = (self.score(self.mix(main, other, w)) - self.score(main)).double().flatten(1).mean(1)
        return w if float(gain.mean()) > float(gain.std()) / len(gain) ** 0.5 else 0.0


class LogDensities(Rule):
    """Values are log densities."""

    def score(self, values: Tensor) -> Tensor:
        return values

    def best(self, main: Tensor, other: Tensor) -> float:
        # d/dw E log((1 - w) p + w q) = E[(q/p - 1) / (1 + w (q/p - 1))] falls in w: its root by bisection
        slope = (other - main).double().clamp(max=300).exp() - 1
        low, high = 0.0, 1.0
        if not float(slope.mean()) > 0:
            return 0.0
        for _ in range(30):
            middle = (low + high) / 2
            rising = float((slope / (1 + middle * slope)).mean()) > 0
            low, high = (middle, high) if rising else (low, middle)
        return (low + high) / 2

    def mix(self, main: Tensor, other: Tensor, weight: float) -> Tensor:
        w = torch.tensor(weight, dtype=main.dtype)
        return torch.logaddexp(main + (1 - w).log(), other + w.log())


class Residuals(Rule):
    """Values are errors of predictions, times the root of their weights; the score is minus the square."""

    def score(self, values: Tensor) -> Tensor:
        return -values.square()

    def best(self, main: Tensor, other: Tensor) -> float:
        step = (other - main).double()
        # least squares: E (main + w step)^2 is least there
        w = -float((main.double() * step).mean() / step.square().mean().clamp(min=1e-300))
        return min(1.0, max(0.0, w))

    def mix(self, main: Tensor, other: Tensor, weight: float) -> Tensor:
        return (1 - weight) * main + weight * other


class NestedStack:
    """Fitted on ``values`` (n, M, P, R, 2) of two models in R regions; called on the like -> (n, M, P, R).

    ``order`` lists the regions from the smallest to the largest, each holding those before it.  ``doubt`` (R,) is the
    standard error of what choosing gained over the region's main model: 0 where that was kept.
    """

    def __init__(self, values: Tensor, order: list[int], rule: Rule) -> None:
        self.order, self.rule = order, rule
        self.main: dict[int, int] = {}
        self.within: dict[int, float] = {}
        self.before: dict[int, float] = {}
        self.doubt = torch.zeros(len(order))
        previous: Tensor | None = None
        for region in order:
            pair = values[..., region, :]
            main = int(rule.score(pair).flatten(0, -2).double().mean(0).argmax())
            self.main[region] = main
            self.within[region] = rule.weight(pair[..., main], pair[..., 1 - main])
            own = self._own(pair, region)
            self.before[region] = 0.0 if previous is None else rule.weight(own, previous)
            previous = self._mix(own, previous, self.before[region])
            gain = (rule.score(previous) - rule.score(pair[..., main])).sum(2).double().mean(1)
            self.doubt[region] = float(gain.std() / len(gain) ** 0.5) if len(gain) > 1 else 0.0

    def __call__(self, values: Tensor) -> Tensor:
        out: dict[int, Tensor] = {}
        previous: Tensor | None = None
        for region in self.order:
            previous = self._mix(self._own(values[..., region, :], region), previous, self.before[region])
            out[region] = previous
        return torch.stack([out[region] for region in sorted(out)], -1)

    def uses(self, model: int) -> bool:
        """Whether any region draws on model number 0 (learned) or 1 (Gaussian)."""
        return any(self.main[r] == model or self.within[r] > 0 for r in self.order)

    def _own(self, pair: Tensor, region: int) -> Tensor:
        """The region's two models (..., 2), mixed."""
        main = self.main[region]
        return self._mix(pair[..., main], pair[..., 1 - main], self.within[region])

    def _mix(self, main: Tensor, other: Tensor | None, weight: float) -> Tensor:
        return main if other is None or weight == 0 else self.rule.mix(main, other, weight)
