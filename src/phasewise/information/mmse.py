r"""I(A:C|B_r) from denoisers: half the denoising gap of A, integrated over A's own signal-to-noise ratio.

Let A be seen at its own ratio s, ``a_s = sqrt(s) x_A + z``, while B and C stay at time t.  Then (Guo, Shamai, Verdu
2005, the I-MMSE relation given B and given B, C)

    I(A : C | B_r) = 1/2 int_0^gamma(t) [ mmse(x_A | a_s, b_r) - mmse(x_A | a_s, b, c) ] ds.

One network predicts x_A from a context (B_r, or B and C, at time t), a_s and s.  s is drawn with density
``V / ((1 + V s) log(1 + V gamma))``, under which a Gaussian of variance V contributes evenly; V is A's mean variance
given B and C in the Gaussian model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from phasewise.information.amortised import AmortisedEstimator
from phasewise.information.conditional import Trunk, TrunkShape, zero_linear
from phasewise.information.folds import build_network
from phasewise.information.inputs import Inputs
from phasewise.information.linear import LinearChain
from phasewise.information.readings import Readings
from phasewise.information.stacking import Residuals, Rule


class MMSEEstimator(AmortisedEstimator):
    """Held-out squared errors of an amortised denoiser of A, with and without sight of C.

    The Gaussian posterior mean is where the network starts; both, of all smaller regions too, are mixed by weights
    fitted on validation images.

    Bounds neither way: each mean-square error is an upper bound of its mmse, the difference of two is not.  It reads
    low where far structure is unlearnt, as ``density`` does, and is noisier than it for the same images: the integral
    is sampled.
    """

    name: ClassVar[str] = "mmse"
    bound: ClassVar[str] = "neither (difference of two upper bounds of mmse); low where far structure is unlearnt"

    rule: ClassVar[Rule] = Residuals()

    def readings(self, inputs: Inputs, shape: TrunkShape, seed: int) -> Errors:
        return Errors(inputs, shape, seed)

    def training_draws(self, entries: int) -> int:
        return self.draws


@dataclass(frozen=True, eq=False)
class Posterior:
    """Gaussian posterior of clean A given a context, per time and region: mean weights (T, R, P, D) on the noisy
    context, and eigenvalues (T, R, P) and eigenvectors (T, R, P, P) of its covariance."""

    weights: Tensor
    values: Tensor
    vectors: Tensor

    @classmethod
    def from_chain(cls, chain: LinearChain, a: Tensor, alpha: Tensor, sigma: Tensor) -> Posterior:
        """``a = W s + L a + e`` gives mean ``(1 - L)^{-1} W s`` and covariance ``(1 - L)^{-1} Var(e) (1 - L)^{-T}``."""
        weights = chain.weights.double()
        within = torch.eye(len(a), dtype=torch.float64) - weights[..., a]
        outside = weights.clone()
        outside[..., a] = 0
        inverse = torch.linalg.inv(within)
        noisy = inverse * chain.variance.double()[..., None, :] @ inverse.mT
        level = alpha.double()[:, None, None, None]
        eye = sigma.double().square()[:, None, None, None] * torch.eye(len(a), dtype=torch.float64)
        # the chain is about noisy A; its own noise comes off to leave the clean one
        values, vectors = torch.linalg.eigh((noisy - eye) / level**2)
        return cls((inverse @ outside / level).float(), values.clamp(min=1e-9).float(), vectors.float())


class EntryDenoiser(nn.Module):
    """Context features, A at its own ratio and the Gaussian posterior mean -> E[x_A | ..], standardised."""

    def __init__(self, shape: TrunkShape, chain: int, head: int = 256) -> None:
        super().__init__()
        self.trunk = Trunk(shape)
        self.features = nn.Linear(shape.width, head)
        self.own = nn.Linear(3 * chain + 1, head)
        self.body = nn.Sequential(nn.SiLU(), nn.Linear(head, head), nn.SiLU(), zero_linear(head, chain))

    def forward(self, context: Tensor, conditions: Tensor, own: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """``own`` (N, M, 3P + 1): A, its Gaussian mean and log standard deviation, log(1 + V s); -> (N, M, P)."""
        h = self.features(self.trunk(context, conditions))[:, None] + self.own(own)
        return mean + std * self.body(h)


class Errors(Readings):
    """Weighted errors ``sqrt(w / 2) (prediction - x_A)``: the sum of their squares has mean ``1/2 int mmse ds``."""

    def __init__(self, inputs: Inputs, shape: TrunkShape, seed: int) -> None:
        self.inputs = inputs
        self.posterior = Posterior.from_chain(inputs.linear, inputs.a, inputs.alpha, inputs.sigma)
        self.variance = self.posterior.values[:, -1].mean(-1)
        self.net = cast(EntryDenoiser, build_network(lambda: EntryDenoiser(shape, len(inputs.a)), seed))

    def __call__(
        self,
        clean: Tensor,
        time: int,
        regions: Tensor,
        draws: int,
        generator: torch.Generator,
        learned: bool = True,
    ) -> Tensor:
        """Weighted errors; see :class:`Readings`."""
        inp = self.inputs
        noisy = inp.noisy(clean, time, generator)
        x = (clean - inp.linear.mean)[:, inp.a]
        s, weight = self._ratios(len(clean), draws, time, generator)
        own = s.sqrt()[..., None] * x[:, None] + torch.randn((len(x), draws, x.shape[1]), generator=generator)
        mean, std = self._gaussian(noisy, own, s, time, regions)
        if learned:
            mean_a = (mean / inp.std_a).flatten(0, 1)
            std_a = (std / inp.std_a).flatten(0, 1)
            seen = own / (1 + s[..., None] * inp.std_a.square()).sqrt()
            level = (self.variance[time] * s).log1p()[..., None]
            about = torch.cat([seen, level], -1)[:, None].expand(-1, regions.shape[1], -1, -1).flatten(0, 1)
            features = torch.cat([about, mean_a, std_a.clamp(min=1e-6).log()], -1)
            network = self.net(*inp.context(noisy, time, regions), features, mean_a, std_a).view_as(mean) * inp.std_a
        else:
            network = mean
        error = torch.stack([network, mean], -1) - x[:, None, None, :, None]
        return error * (0.5 * weight).sqrt()[:, None, :, None, None]

    def _ratios(self, n: int, draws: int, time: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """s (n, M), stratified over the draws, and the inverse of its density."""
        inp, v = self.inputs, self.variance[time]
        whole = (v * (inp.alpha[time] / inp.sigma[time]).square()).log1p()
        # log(1 + V s) is uniform, one draw in each of equal strata
        u = (torch.arange(draws) + torch.rand((n, draws), generator=generator)) / draws
        s = (u * whole).expm1() / v
        return s, (1 + v * s) * whole / v

    def _gaussian(self, noisy: Tensor, own: Tensor, s: Tensor, time: int, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation (n, q, M, P) of clean centred A given the context and ``own``."""
        weights = self.posterior.weights[time]
        all_means = (noisy @ weights.flatten(0, 1).T).view(len(noisy), *weights.shape[:2])
        prior = all_means.gather(1, regions[..., None].expand(-1, -1, weights.shape[1]))[:, :, None]
        vectors = self.posterior.vectors[time][regions]
        values = self.posterior.values[time][regions][:, :, None]
        root = s.sqrt()[:, None, :, None]
        # in the eigenbasis of the covariance given the context, each direction is a Wiener filter of its own
        surprise = torch.einsum("nqmp,nqpk->nqmk", own[:, None] - root * prior, vectors)
        left = values / (1 + root.square() * values)
        mean = prior + torch.einsum("nqmk,nqpk->nqmp", left * root * surprise, vectors)
        return mean, torch.einsum("nqmk,nqpk->nqmp", left, vectors.square()).sqrt()
