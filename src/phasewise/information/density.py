r"""I(A:C|B_r) from one conditional density network, amortised over times, radii and the entries of A.

    I(A : C | B_r) = h(A | B_r) - h(A | B, C) = E[ log q(a | b, c) - log q(a | b_r) ] - excess_BC + excess_r

with ``excess = E KL(p || q) >= 0``: both scores are upper bounds of their entropies, the difference bounds neither; it
is low by what the network misses in the far pixels.  The noise is fresh at every step, both scores of an image share
it, and the noise of A is averaged over several draws per context.
"""

from __future__ import annotations

import math
from typing import ClassVar, cast

import torch
from torch import Tensor

from phasewise.information.amortised import AmortisedEstimator
from phasewise.information.conditional import ConditionalDensity, TrunkShape, mixture_log_density
from phasewise.information.folds import build_network
from phasewise.information.inputs import Inputs
from phasewise.information.readings import Readings
from phasewise.information.stacking import LogDensities, Rule


class DensityEstimator(AmortisedEstimator):
    """The default estimator: held-out log scores of an amortised conditional density.

    A chain of Gaussian mixtures over the clean value of each entry of A, convolved with the noise; a Gaussian model of
    the same chain beside it; both, of all smaller regions too, mixed by weights fitted on validation images.

    Bounds neither way: the difference of two upper bounds of entropies.  It reads low where far structure is hard to
    learn from the images given (a block of many pixels, few images, t near 0).
    """

    name: ClassVar[str] = "density"
    bound: ClassVar[str] = "neither (difference of two upper bounds of entropies); low where far structure is unlearnt"

    rule: ClassVar[Rule] = LogDensities()

    def readings(self, inputs: Inputs, shape: TrunkShape, seed: int) -> Scorer:
        return Scorer(inputs, shape, seed)

    def training_draws(self, entries: int) -> int:
        return self.draws if entries == 1 else 1  # free for a lone entry: its prediction is shared


class Scorer(Readings):
    """Log densities of noisy A under the network and under the Gaussian chain, entry by entry."""

    def __init__(self, inputs: Inputs, shape: TrunkShape, seed: int) -> None:
        self.inputs = inputs
        net = build_network(lambda: ConditionalDensity(shape, len(inputs.a)), seed)
        self.net = cast(ConditionalDensity, net)

    def __call__(
        self,
        clean: Tensor,
        time: int,
        regions: Tensor,
        draws: int,
        generator: torch.Generator,
        learned: bool = True,
    ) -> Tensor:
        """Log densities of noisy A; see :class:`Readings`."""
        inp = self.inputs
        noisy = inp.noisy(clean, time, generator)
        a = inp.noisy_a(clean, time, draws, generator)
        mean = self._linear_means(noisy, a, time, regions)
        variance = inp.linear.variance[time][regions][:, :, None]
        gaussian = -0.5 * ((a[:, None] - mean).square() / variance + (2 * math.pi * variance).log())
        network = self._learned(noisy, a, mean, time, regions) if learned else torch.zeros_like(gaussian)
        return torch.stack([network, gaussian], -1)

    def _learned(self, noisy: Tensor, a: Tensor, mean: Tensor, time: int, regions: Tensor) -> Tensor:
        """Log densities (n, q, M, P) under the network, around the Gaussian predictions ``mean`` (n, q, M, P)."""
        inp = self.inputs
        alpha, sigma = inp.alpha[time], inp.sigma[time]
        n, q, draws, p = mean.shape
        # a noisy pixel given the context has variance alpha^2 tau^2 + sigma^2: tau, of the clean one
        clean_std = (inp.linear.variance[time][regions] - sigma**2).clamp(min=1e-6).sqrt() / alpha
        used = draws if p > 1 else 1  # a lone entry's prediction does not depend on its own noise
        known = (a / (alpha * inp.std_a).hypot(sigma))[:, None, :used].expand(-1, q, -1, -1)
        mixture = self.net(
            *inp.context(noisy, time, regions),
            known.flatten(0, 1),
            (mean[:, :, :used] / (alpha * inp.std_a)).flatten(0, 1),
            (clean_std / inp.std_a).flatten(0, 1),
        )
        value = (a / inp.std_a)[:, None].expand(-1, q, -1, -1).flatten(0, 1)
        log = mixture_log_density(mixture, value, alpha.expand(1, 1, p), (sigma / inp.std_a)[None, None])
        return log.view(n, q, draws, p) - inp.std_a.log()

    def _linear_means(self, noisy: Tensor, a: Tensor, time: int, regions: Tensor) -> Tensor:
        """Gaussian predictions (n, q, M, P) of centred noisy A, each entry knowing those before it."""
        inp = self.inputs
        weights = inp.linear.weights[time]
        outside = noisy.clone()
        outside[:, inp.a] = 0
        count, p = weights.shape[:2]
        pick = regions[:, :, None, None].expand(-1, -1, 1, p)
        context = (outside @ weights.flatten(0, 1).T).view(len(noisy), count, 1, p).gather(1, pick)
        if p == 1:
            return context.expand(-1, -1, a.shape[1], -1)
        within = (a @ weights[:, :, inp.a].flatten(0, 1).T).unflatten(-1, (count, p)).transpose(1, 2)
        return context + within.gather(1, pick.expand(-1, -1, a.shape[1], -1))
