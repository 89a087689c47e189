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

from phasewise import seeding
from phasewise.information.amortised import AmortisedEstimator, Fold, build_network, train_network
from phasewise.information.base import Say
from phasewise.information.conditional import ConditionalDensity, mixture_log_density
from phasewise.information.inputs import Inputs, random_regions
from phasewise.information.problem import Problem
from phasewise.information.stacking import NestedStack

GROUPS = 4
CHUNK = 500


class DensityEstimator(AmortisedEstimator):
    """The default estimator: held-out log scores of an amortised conditional density.

    A chain of Gaussian mixtures over the clean value of each entry of A, convolved with the noise; a Gaussian model of
    the same chain beside it; both, of all smaller regions too, mixed by weights fitted on validation images.

    Bounds neither way: the difference of two upper bounds of entropies.  It reads low where far structure is hard to
    learn from the images given (a block of many pixels, few images, t near 0).
    """

    name: ClassVar[str] = "density"
    bound: ClassVar[str] = "neither (difference of two upper bounds of entropies); low where far structure is unlearnt"

    def fit_and_score(self, problem: Problem, fold: Fold, say: Say) -> Tensor:
        inputs = Inputs.fit(problem, fold.train, fold.validation, seeding.generator(fold.seed, 0))
        scorer = Scorer(problem, inputs, self.width, self.depth, self.dropout, fold.seed)
        generator = seeding.generator(fold.seed, 1)
        n = max(1, self.batch // GROUPS)
        draws = self.draws if len(inputs.a) == 1 else 1  # free for a lone entry: its prediction is shared

        def loss_of() -> tuple[Tensor, str]:
            loss, where = torch.zeros(()), ""
            for _ in range(GROUPS):
                clean = fold.train[torch.randint(len(fold.train), (n,), generator=generator)]
                time = int(torch.randint(len(problem.times), (1,), generator=generator))
                regions = random_regions(n, inputs.regions, generator)
                part = -scorer(clean, time, regions, draws, generator)[..., 0].mean() / GROUPS
                if not where or not math.isfinite(float(part.detach())):
                    where = f"t = {problem.times[time]:g}"
                loss = loss + part
            return loss, where

        train_network(
            scorer.net, loss_of, self.train_steps(len(fold.train)), self.lr, self.weight_decay, say
        )  # fmt: skip
        return torch.stack([self._score_time(scorer, fold, k) for k in range(len(problem.times))], 1)

    @torch.inference_mode()
    def _score_time(self, scorer: Scorer, fold: Fold, time: int) -> Tensor:
        """(n, R) per-image scores at one time, with stacking weights fitted on the validation images."""
        held = scorer.everything(fold.validation, time, 1, seeding.generator(fold.seed, 2, time))
        stack = NestedStack(held, scorer.inputs.order())
        generator = seeding.generator(fold.seed, 3, time)
        out = []
        for clean in fold.scored.split(CHUNK):
            logs = stack(scorer.everything(clean, time, self.draws, generator)).sum(2).mean(1)
            out.append(logs[:, -1:] - logs[:, :-1])
        return torch.cat(out)


class Scorer:
    """Log densities of noisy A under the network and under the Gaussian chain, entry by entry."""

    def __init__(self, problem: Problem, inputs: Inputs, width: int, depth: int, dropout: float, seed: int) -> None:
        self.inputs = inputs
        entries, p = problem.flat.shape[1], len(inputs.a)
        conditions = inputs.conditions.shape[-1]
        self.net = cast(
            ConditionalDensity,
            build_network(lambda: ConditionalDensity(entries, p, conditions, width, depth, dropout), seed),
        )

    def __call__(
        self, clean: Tensor, time: int, regions: Tensor, draws: int, generator: torch.Generator
    ) -> Tensor:
        """``clean`` (n, D) through ``regions`` (n, q) -> log densities (n, q, M, P, 2): network, Gaussian.

        The same noise whatever ``regions`` says.
        """
        inp = self.inputs
        alpha, sigma = inp.alpha[time], inp.sigma[time]
        noisy = inp.noisy(clean, time, generator)
        a = inp.noisy_a(clean, time, draws, generator)
        n, q, p = len(clean), regions.shape[1], len(inp.a)
        mean = self._linear_means(noisy, a, time, regions)
        variance = inp.linear.variance[time][regions]
        clean_std = (variance - sigma**2).clamp(min=1e-6).sqrt() / alpha
        head_draws = draws if p > 1 else 1  # a lone entry's prediction does not depend on its own noise
        known = (a / (alpha * inp.std_a).hypot(sigma))[:, None, :head_draws].expand(-1, q, -1, -1)
        mixture = self.net(
            *inp.context(noisy, time, regions),
            known.flatten(0, 1),
            (mean[:, :, :head_draws] / (alpha * inp.std_a)).flatten(0, 1),
            (clean_std / inp.std_a).flatten(0, 1),
        )
        value = (a / inp.std_a)[:, None].expand(-1, q, -1, -1).flatten(0, 1)
        learned = mixture_log_density(mixture, value, alpha.expand(1, 1, p), (sigma / inp.std_a)[None, None])
        learned = learned.view(n, q, draws, p) - inp.std_a.log()
        square = (a[:, None] - mean).square() / variance[:, :, None]
        gaussian = -0.5 * (square + (2 * math.pi * variance[:, :, None]).log())
        return torch.stack([learned, gaussian], -1)

    def _linear_means(self, noisy: Tensor, a: Tensor, time: int, regions: Tensor) -> Tensor:
        """Gaussian predictions (n, q, M, P) of centred noisy A, each entry knowing those before it."""
        inp = self.inputs
        weights = inp.linear.weights[time]
        outside = noisy.clone()
        outside[:, inp.a] = 0
        regions_, p = weights.shape[:2]
        from_context = (outside @ weights.flatten(0, 1).T).view(len(noisy), regions_, p)
        chosen = from_context.gather(1, regions[..., None].expand(-1, -1, p))[:, :, None].expand(-1, -1, a.shape[1], -1)
        if p == 1:
            return chosen
        within = weights[:, :, inp.a]
        return chosen + torch.einsum("nmj,nqij->nqmi", a, within[regions])

    def everything(self, clean: Tensor, time: int, draws: int, generator: torch.Generator) -> Tensor:
        """Log densities (n, M, P, R + 1, 2) in all regions."""
        regions = torch.arange(self.inputs.regions)
        parts = [
            self(part, time, regions.expand(len(part), -1), draws, generator).movedim(1, 3)
            for part in clean.split(CHUNK)
        ]
        return torch.cat(parts)
