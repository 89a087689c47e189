r"""The Gaussian model of a chain of pixels given their context: where the learned estimators start from.

A's entries a_1 .. a_P are taken one after the other, ``p(a | s) = prod_i p(a_i | a_1 .. a_{i-1}, s)``, with s the
entries of B_r, or of B and C together.  Under ``N(mu, K)`` noised to t each factor is a Gaussian whose mean is linear:

    Q = alpha^2 K_shrunk + sigma^2 I = L L^T  in the order (s, a_1 .. a_P)
    Var(a_i | ..) = L_ii^2,      E[a_i | ..] - alpha mu_i = - L_ii sum_{j<i} (L^{-1})_ij (x_j - alpha mu_j)

K is shrunk towards a *stationary* covariance (correlations averaged over all pairs of pixels at the same
displacement, each pixel keeping its own variance but for negative eigenvalues, which are cut off):
``K_shrunk = (1 - l) K + l K_stationary``.  The weight l is chosen for every time and region by the score on validation
images, so structure that is not stationary is not forced to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from phasewise.errors import PhasewiseError
from phasewise.information.problem import Problem
from phasewise.memory import mean_and_covariance
from phasewise.work import TRIED_SIDE, Work, covariance_like, covariance_work, rows_like

WEIGHTS = (0.0, 0.1, 0.3, 0.6, 0.9, 1.0)
MATRICES = 12
"""Of the size of a covariance, in float64, held at a time: most while one is made stationary.  Measured on CIFAR-10."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (D,), covariance and its stationary part (D, D), float64, of training images."""

    mean: Tensor
    covariance: Tensor
    stationary: Tensor

    @classmethod
    def fit(cls, flat: Tensor, image_shape: tuple[int, int, int]) -> Moments:
        mean, covariance = mean_and_covariance(flat)
        return cls(mean, covariance, stationary_covariance(covariance, image_shape))

    def noisy(self, weight: float, alpha: float, sigma: float) -> Tensor:
        """``alpha^2 K_shrunk + sigma^2 I``."""
        clean = (1 - weight) * self.covariance + weight * self.stationary
        return alpha**2 * clean + sigma**2 * torch.eye(len(clean), dtype=clean.dtype)


def stationary_covariance(covariance: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Correlations (C*H*W, C*H*W) averaged over pairs of pixels of equal displacement, times both standard deviations.

    Negative eigenvalues, which averaging can leave, are cut off.
    """
    channels, height, width = image_shape
    std = covariance.diagonal().sqrt()
    alive = std > 1e-6
    inverse = torch.where(alive, 1 / std.clamp(min=1e-12), torch.zeros_like(std))
    correlation = covariance * inverse[:, None] * inverse
    pairs = (alive[:, None] & alive).double()
    channel, row, col = torch.unravel_index(torch.arange(len(std)), image_shape)
    # one number for each pair of channels and displacement; pairs of pixels with the same one are averaged
    lag = (channel[:, None] * channels + channel) * (2 * height - 1) + row[:, None] - row + height - 1
    lag = (lag * (2 * width - 1) + col[:, None] - col + width - 1).reshape(-1)
    size = channels**2 * (2 * height - 1) * (2 * width - 1)
    total = torch.zeros(size, dtype=std.dtype).index_add_(0, lag, correlation.reshape(-1))
    count = torch.zeros(size, dtype=std.dtype).index_add_(0, lag, pairs.reshape(-1))
    averaged = (total / count.clamp(min=1))[lag].reshape(len(std), -1) * std[:, None] * std
    values, vectors = torch.linalg.eigh(averaged)
    # the nearest covariance in the Frobenius norm
    return (vectors * values.clamp(min=0)) @ vectors.T


def chain_regression(q: Tensor, context: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (P, D) and variances (P,) of each a_i given ``context`` and the entries of ``a`` before it, from the
    covariance ``q`` (D, D) of the noisy entries; weights are 0 outside what is given."""
    order = torch.cat([context, a])
    factor, failed = torch.linalg.cholesky_ex(q[order][:, order])
    if int(failed):
        raise PhasewiseError(
            "the noise is too weak to tell the pixels' covariance from a singular one; take a larger t"
        )
    # the rows of L^{-1} that belong to A: 1 / L_ii, and before it minus the weights over L_ii
    last = torch.eye(len(order), dtype=q.dtype)[:, len(context) :]
    rows = torch.linalg.solve_triangular(factor.T, last, upper=True).T
    pivots = factor.diagonal()[len(context) :]
    ordered = -rows * pivots[:, None]
    ordered[torch.arange(len(a)), len(context) + torch.arange(len(a))] = 0
    weights = torch.zeros(len(a), len(q), dtype=q.dtype)
    weights[:, order] = ordered
    return weights, pivots.square()


@dataclass(frozen=True, eq=False)
class LinearChain:
    """The regressions of all times and regions: regions are the radii of the problem in order, then B and C together.

    ``weights`` (T, R + 1, P, D), ``variance`` (T, R + 1, P) of the *noisy* a_i, float32; ``mean`` (D,) of the clean
    entries; ``shrinkage`` (T, R + 1).
    """

    weights: Tensor
    variance: Tensor
    mean: Tensor
    shrinkage: Tensor


def fit_linear_chain(
    problem: Problem, a: Tensor, train: Tensor, validation: Tensor, generator: torch.Generator
) -> LinearChain:
    """Fit on ``train`` (n, D), choose the shrinkage on ``validation`` (m, D), both clean."""
    moments = Moments.fit(train, problem.image_shape)
    contexts = [problem.geometry.b(r) for r in (*problem.radii, None)]
    alphas, sigmas = problem.levels()
    mean = moments.mean.float()
    weights, variances, chosen = [], [], []
    for alpha, sigma in zip(alphas.tolist(), sigmas.tolist(), strict=True):
        x = alpha * (validation - mean) + sigma * torch.randn(validation.shape, generator=generator)
        best: list[Fitted] = []
        for weight in WEIGHTS:  # outermost: one covariance is held at a time
            q = moments.noisy(weight, alpha, sigma)
            fitted = [_fitted(q, weight, context, a, x) for context in contexts]
            best = [max(pair, key=lambda f: f.score) for pair in zip(best, fitted, strict=True)] if best else fitted
            del q
        weights.append(torch.stack([b.weights for b in best]))
        variances.append(torch.stack([b.variance for b in best]))
        chosen.append(torch.tensor([b.shrinkage for b in best]))
    return LinearChain(torch.stack(weights), torch.stack(variances), mean, torch.stack(chosen))


def chain_work(problem: Problem, n: int) -> list[Work]:
    """What :func:`fit_linear_chain` takes on ``n`` images: moments, eigenvectors, and a factor for every time, region
    and shrinkage, which is tried on smaller regions where they are large: a factor's cost is the cube of the side."""
    a = len(problem.a)
    factors, found = len(problem.times) * len(WEIGHTS), covariance_work(n, problem.flat.shape[1])
    for radius in (*problem.radii, None):
        side = len(problem.geometry.b(radius)) + a
        tried = min(side, TRIED_SIDE)
        order = torch.arange(tried)
        once = partial(chain_regression, covariance_like(rows_like(tried)), order[: max(tried - a, 0)], order[-a:])
        found.append(Work(once, factors * (side / tried) ** 3))
    return found


def untold_chain(problem: Problem) -> LinearChain:
    """Of the right shapes, and knowing nothing: every entry of A has mean 0 and variance 1, whatever is given."""
    times, regions, size = len(problem.times), len(problem.radii) + 1, problem.flat.shape[1]
    return LinearChain(
        torch.zeros(times, regions, len(problem.a), size), torch.ones(times, regions, len(problem.a)),
        torch.zeros(size), torch.zeros(times, regions),
    )  # fmt: skip


class Fitted(NamedTuple):
    """A regression from one region at one time, and its score on validation images."""

    score: float
    shrinkage: float
    weights: Tensor
    variance: Tensor


def _fitted(q: Tensor, shrinkage: float, context: Tensor, a: Tensor, x: Tensor) -> Fitted:
    """From the covariance ``q`` of the noisy entries; scored on ``x`` (m, D), centred noisy images."""
    w, v = chain_regression(q, context, a)
    w, v = w.float(), v.float()
    # the log density of A along the chain, up to a constant
    return Fitted(-0.5 * float((v.log() + (x[:, a] - x @ w.T).square().mean(0) / v).sum()), shrinkage, w, v)
