r"""``I(A : C | B)`` as if the images were Gaussian, scored on images the Gaussian was not fitted to.

From the mean m and covariance K of clean training images, ``K_t = alpha^2 K + sigma^2 I`` (the noise is known, not
estimated).  Under ``q = N(alpha m, K_t)``, A given some entries B is linear, with ``W = K_BB^{-1} K_BA`` and
``S = K_AA - K_AB W`` (blocks of K_t).  A held-out image x scores the average of ``log q(a|b)`` over all noise, in
closed form (up to the constant of the dimension, which cancels in the difference)::

    e = (x_A - m_A) - W^T (x_B - m_B)
    score_B(x) = -1/2 [ log det S + alpha^2 e^T S^{-1} e + sigma^2 tr S^{-1} (1 + W^T W) ]

    I(A : C | B) = mean over images of  score_BC(x) - score_B(x).

Images are cross-fitted: each is scored by the Gaussian of the folds it is not in.  ``-E score`` is an upper bound of
the conditional entropy for any data, so the value is a difference of two upper bounds.  An over-fitted covariance
lowers ``score_BC`` most: the value then falls below the truth, by about ``|A| |C| / 2n`` nats for n training images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from phasewise.errors import PhasewiseError
from phasewise.information.base import Cell, CMIEstimator, Say, whole
from phasewise.information.problem import Problem
from phasewise.results import Estimate
from phasewise.seeding import Purpose, generator
from phasewise.work import TRIED_SIDE, Work, covariance_like, rows_like


@dataclass(frozen=True)
class Fit:
    """Mean (D,) and covariance (D, D) of clean images, float64, and the numbers ``scored`` of those left out."""

    mean: Tensor
    covariance: Tensor
    scored: Tensor


class GaussianEstimator(CMIEstimator):
    """Closed form on covariances of the noisy images, cross-fitted.

    Options:
        shrinkage: "ledoit-wolf" (Ledoit, Wolf 2004), a number in [0, 1] that mixes the clean covariance with its mean
            variance times the identity, or None for the sample covariance.
        folds: parts of the images, each scored by the Gaussian of the others.

    Bound: neither for data that are not Gaussian (a difference of two upper bounds of entropies); consistent for
    Gaussian data.

    Fails: information beyond second moments is invisible to it: the two modes of a bimodal pixel, the strokes of a
    digit.  In high dimension with few images it reads too little (see the module).
    """

    name = "gaussian"
    bound = "neither (difference of two upper bounds of entropies; exact for Gaussian data and many images)"

    def __init__(self, *, shrinkage: str | float | None = "ledoit-wolf", folds: int = 5) -> None:
        numeric = isinstance(shrinkage, (int, float)) and not isinstance(shrinkage, bool) and 0 <= shrinkage <= 1
        if not (shrinkage is None or shrinkage == "ledoit-wolf" or numeric):
            raise PhasewiseError(f'gaussian: shrinkage must be "ledoit-wolf", in [0, 1], or None; got {shrinkage!r}')
        self.shrinkage, self.folds = shrinkage, whole("gaussian: folds", folds, 2)

    def check_number(self, n: int) -> None:
        if self.folds > n // 2:
            raise PhasewiseError(f"gaussian: {self.folds} folds of {n} images leave too few in each; at most {n // 2}")

    def estimate(
        self, problem: Problem, cells: Sequence[Cell], folder: Path | None = None, say: Say = lambda _: None
    ) -> Iterator[tuple[Cell, Estimate]]:
        fits = self._fit(problem)
        for i in sorted({i for i, _ in cells}):
            say(f"gaussian: t = {problem.times[i]:g}")
            everything = [_scores(problem, fit, i, None) for fit in fits]
            for j in [j for k, j in cells if k == i]:
                near = [_scores(problem, fit, i, problem.radii[j]) for fit in fits]
                yield (i, j), _summary([w - b for w, b in zip(everything, near, strict=True)], problem.seed)

    def work(self, problem: Problem, n: int) -> list[Work] | None:
        """Of each fold: the covariance, and a solution for every time and region."""
        size, p = problem.flat.shape[1], len(problem.a)
        rows = rows_like(min(size, TRIED_SIDE))
        known, some = covariance_like(rows), rows.double()
        more = (n - n // self.folds) / len(rows) * (size / len(known)) ** 2
        found = [Work(lambda: self._fit_one(some, torch.arange(0)), more)]
        for radius in (*problem.radii, None):
            side = max(len(problem.geometry.b(radius)), 1)
            tried = min(side, len(known))
            once = partial(torch.linalg.solve, known[:tried, :tried], known[:tried, :p])
            found.append(Work(once, len(problem.times) * (side / tried) ** 3))
        return [Work(piece.once, self.folds * piece.times) for piece in found]

    def bytes(self, size: int, n: int) -> float:
        """Images in float32 and float64, and a covariance for every fold and three more."""
        return 4.0 * size * n + 8.0 * size * n + 8.0 * size**2 * (self.folds + 3)

    def _fit(self, problem: Problem) -> list[Fit]:
        n = len(problem.images)
        self.check_number(n)
        order = torch.randperm(n, generator=generator(problem.seed, Purpose.GAUSSIAN_FOLDS))
        parts = torch.tensor_split(order, self.folds)
        return [
            self._fit_one(problem.flat[torch.cat([*parts[:k], *parts[k + 1 :]])].double(), part)
            for k, part in enumerate(parts)
        ]

    def _fit_one(self, images: Tensor, scored: Tensor) -> Fit:
        mean = images.mean(0)
        if self.shrinkage == "ledoit-wolf":
            covariance = torch.from_numpy(ledoit_wolf(images.numpy())[0])
        else:
            covariance = torch.cov(images.T, correction=0).reshape(len(mean), len(mean))
            amount = float(self.shrinkage or 0.0)
            target = covariance.diagonal().mean() * torch.eye(len(mean), dtype=torch.float64)
            covariance = (1 - amount) * covariance + amount * target
        return Fit(mean, covariance, scored)


def _scores(problem: Problem, fit: Fit, time: int, radius: int | None) -> Tensor:
    """(len(fit.scored),) the module's ``score`` of A given ``B_radius`` (None: given B and C), nats.

    Raises :class:`PhasewiseError` naming t and r where the covariance is singular in float arithmetic, which happens at
    t so small that its noise is lost in rounding; a larger t or more shrinkage mends it.
    """
    alpha, sigma = (float(level[time]) for level in problem.levels())
    a, b = problem.a, problem.geometry.b(radius)
    k = alpha**2 * fit.covariance + sigma**2 * torch.eye(len(fit.mean), dtype=torch.float64)
    try:
        # W, and the root of S, the variance that B leaves to A
        weights = torch.linalg.solve(k[b][:, b], k[b][:, a])
        root = torch.linalg.cholesky(k[a][:, a] - k[a][:, b] @ weights)
    except torch.linalg.LinAlgError as error:
        at = "every r (A given B and C)" if radius is None else f"r = {radius}"
        raise PhasewiseError(
            f"gaussian at t = {problem.times[time]:g}, {at}: the covariance of the noisy images is singular in float "
            "arithmetic, for so little noise is lost in rounding; use a larger t or shrinkage"
        ) from error
    x = problem.flat[fit.scored].double() - fit.mean
    errors = torch.linalg.solve_triangular(root, (x[:, a] - x[:, b] @ weights).T, upper=False)
    # 1 + W^T W: the noise of A, and that of B as it comes through the regression
    noise = torch.eye(len(a), dtype=torch.float64) + weights.T @ weights
    spread = torch.cholesky_solve(noise, root).trace()
    return -0.5 * (2 * root.diagonal().log().sum() + alpha**2 * (errors**2).sum(0) + sigma**2 * spread)


def _summary(folds: list[Tensor], seed: int) -> Estimate:
    """Sampling error of the images, and what the folds' means differ by beyond it (the error of the fits)."""
    every = torch.cat(folds)
    means = torch.stack([f.mean() for f in folds])
    expected = torch.stack([f.var() / len(f) for f in folds]).mean()
    # what the folds' means differ by beyond sampling is the error of the fits
    between = float((means.var() - expected).clamp(min=0)) / len(folds)
    stderr = math.sqrt(float(every.var()) / len(every) + between)
    return Estimate(float(every.mean()), stderr, len(every), seed=seed)
