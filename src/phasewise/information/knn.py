r"""``I(A : C | B)`` from distances to nearest neighbours, for few images and few dimensions.

With ``eps_i`` the max-norm distance of sample i to its k-th neighbour in (A, B, C), and ``n_i`` the number of samples
besides i within that distance in a subspace::

    Frenzel-Pompe 2007    mean psi(k) - psi(n_AB + 1) - psi(n_BC + 1) + psi(n_B + 1),    distances below eps
    Mesner-Shalizi 2020   mean psi(k') - psi(n_AB) - psi(n_BC) + psi(n_B),               distances up to eps

where ``k'`` is k, or more where distances tie (arXiv 1912.00387, without its clamp at 0).  The second is made for
discrete data; noisy images have none, and there it reads more than the first, by about ``1/2k``.  With empty B the
subspace B holds all samples.  Every coordinate is scaled to unit variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import digamma
from torch import Tensor

from phasewise.errors import PhasewiseError, unknown
from phasewise.information.base import Cell, CMIEstimator, Say, whole
from phasewise.information.problem import Problem
from phasewise.results import Array, Estimate
from phasewise.seeding import Purpose, generator

METHODS = ("frenzel-pompe", "mesner-shalizi")


class NearestNeighbours(CMIEstimator):
    """Nearest-neighbour counts on principal components of B and of C.

    Options:
        method: "frenzel-pompe" or "mesner-shalizi".
        k: the neighbour that sets the distance.
        components: leading principal components kept of B and of C each, of the clean images, fitted on images that are
            not scored; None keeps every pixel.
        train_fraction: share of the images for that fit (unused images where ``components`` is None: none).
        n_max: score at most so many images, for the time grows faster than n.
        blocks: the standard error is the jackknife over so many blocks of images left out in turn.

    Bound: neither.  Projecting C lowers the value, projecting B may raise it.

    Fails: in high dimension.  Distances then hardly differ, and the value sinks towards 0 with no sign of it in the
    error: 0.13 nats read for 0.56 with 24 + 16 coordinates.  Trust it up to about 6 coordinates altogether.  The
    jackknife error is generous, up to half again the true scatter: counts of neighbours are not smooth.
    """

    name = "knn"
    bound = "neither (projected, and biased towards 0 in high dimension)"

    def __init__(
        self,
        *,
        method: str = "frenzel-pompe",
        k: int = 3,
        components: int | None = 4,
        train_fraction: float = 0.2,
        n_max: int = 4000,
        blocks: int = 10,
    ) -> None:
        if method not in METHODS:
            raise PhasewiseError(f"knn: {unknown('method', method, METHODS)}")
        if not 0 < train_fraction < 1:
            raise PhasewiseError(f"knn: train_fraction must lie in (0, 1), got {train_fraction!r}")
        self.method, self.train_fraction, self.k = method, train_fraction, whole("knn: k", k, 1)
        self.components = None if components is None else whole("knn: components", components, 1)
        self.n_max, self.blocks = whole("knn: n_max", n_max, 20), whole("knn: blocks", blocks, 2)

    def _fitted(self, n: int) -> int:
        """How many of ``n`` images the principal axes are fitted on."""
        return 0 if self.components is None else round(n * self.train_fraction)

    def held_out(self, n: int) -> int:
        return min(n - self._fitted(n), self.n_max)

    def estimate(
        self, problem: Problem, cells: Sequence[Cell], folder: Path | None = None, say: Say = lambda _: None
    ) -> Iterator[tuple[Cell, Estimate]]:
        fitted, scored = self._split(problem)
        spaces = {j: self._spaces(problem, fitted, problem.radii[j]) for j in sorted({j for _, j in cells})}
        for i, j in sorted(cells):
            say(f"knn: t = {problem.times[i]:g}, r = {problem.radii[j]}")
            noisy = _noisy(problem, scored, i)
            near, far = (_project(noisy[:, entries], axes) for entries, axes in spaces[j])
            yield (i, j), self._summary(_standard(noisy[:, problem.a]), _standard(near), _standard(far), problem.seed)

    def _split(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """(fitted, scored): two sets of images by number, in random order.

        Raises :class:`PhasewiseError` where too few remain to score.
        """
        n = len(problem.images)
        held, fitted = self.held_out(n), self._fitted(n)
        if held - -(-held // self.blocks) <= self.k:
            raise PhasewiseError(
                f"knn: {n} images leave {held} to score ({fitted} are kept for the principal axes), too few for "
                f"k = {self.k} and {self.blocks} blocks; give more images, or a smaller k or train_fraction"
            )
        order = torch.randperm(n, generator=generator(problem.seed, Purpose.NEIGHBOURS_SPLIT))
        return order[:fitted], order[n - held :]

    def _spaces(self, problem: Problem, fitted: Tensor, radius: int) -> list[tuple[Tensor, Tensor | None]]:
        """Entries and principal axes of B and of C; they do not depend on the time."""
        regions = problem.geometry.b(radius), problem.geometry.c(radius)
        return [(entries, _axes(problem.flat[fitted][:, entries], self.components)) for entries in regions]

    def _summary(self, a: Array, b: Array, c: Array, seed: int) -> Estimate:
        """The estimate and its delete-a-block jackknife error."""
        n = len(a)
        left_out = []
        for block in np.array_split(np.arange(n), self.blocks):
            keep = np.delete(np.arange(n), block)
            left_out.append(nearest_neighbour_cmi(a[keep], b[keep], c[keep], self.k, self.method))
        # delete-a-block jackknife: (m - 1) / m times the sum of squares over the m values
        variance = (self.blocks - 1) * float(np.var(left_out))
        return Estimate(nearest_neighbour_cmi(a, b, c, self.k, self.method), math.sqrt(variance), n, seed=seed)


def nearest_neighbour_cmi(a: Array, b: Array, c: Array, k: int, method: str) -> float:
    """``I(A : C | B)`` in nats of samples (n, dim) each; b may have no columns."""
    joint = np.concatenate([a, b, c], 1)
    eps = cKDTree(joint).query(joint, k=[k + 1], p=np.inf)[0][:, 0]
    strict = method == "frenzel-pompe"
    # distances strictly below eps: up to the float before it
    radius = np.nextafter(eps, -np.inf) if strict else eps
    ab, bc = (np.concatenate(pair, 1) for pair in ((a, b), (b, c)))
    terms = digamma(np.full(len(a), k) if strict else _count(joint, eps))
    for sign, space in ((-1, ab), (-1, bc), (1, b)):
        terms = terms + sign * digamma(_count(space, radius) + strict)
    return float(terms.mean())


def _count(space: Array, radius: Array) -> Array:
    """Other samples within ``radius`` (n,) of each, max-norm."""
    if not space.shape[1]:
        return np.full(len(space), len(space) - 1)
    return cKDTree(space).query_ball_point(space, radius, p=np.inf, return_length=True) - 1


def _noisy(problem: Problem, images: Tensor, time: int) -> Tensor:
    """(m, D) those images at that time, one draw of noise, the same for all radii."""
    alpha, sigma = (float(level[time]) for level in problem.levels())
    clean = problem.flat[images]
    rng = generator(problem.seed, Purpose.NEIGHBOURS_NOISE, round(problem.times[time] * 1e9))
    return alpha * clean + sigma * torch.randn(clean.shape, generator=rng)


def _axes(clean: Tensor, components: int | None) -> Tensor | None:
    """(d, components) leading principal axes of ``clean`` (n, d); None where d is no larger, or all are kept.

    Raises :class:`PhasewiseError` where the images are too few to have so many axes.
    """
    if components is None or clean.shape[1] <= components:
        return None
    if len(clean) <= components:
        raise PhasewiseError(
            f"knn: {len(clean)} images to fit the principal axes cannot give {components} components; give more "
            "images, a larger train_fraction or fewer components"
        )
    return torch.linalg.eigh(torch.cov(clean.double().T))[1].flip(1)[:, :components].float()


def _project(noisy: Tensor, axes: Tensor | None) -> Tensor:
    """``noisy`` (m, d) on ``axes`` (d, components); unchanged where there are none."""
    return noisy if axes is None else noisy @ axes


def _standard(x: Tensor) -> Array:
    values = x.double().numpy()
    spread = values.std(0)
    # a coordinate without spread, as where noise is lost in rounding, tells nothing at any scale
    return (values - values.mean(0)) / np.where(spread > 0, spread, 1)
