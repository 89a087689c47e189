r"""The two-dimensional Ising model on a torus of any side: posteriors and denoising gaps by cluster updates.

``p(s) ~ exp(beta sum_<ij> s_i s_j)``; fields ``f = alpha x / sigma^2 ~ N(gamma s, gamma)`` given s, as in
:mod:`phasewise.exact.ising`, where transfer matrices end at a width of ten pixels.

**Posteriors** given the noisy pixels of a region R: Swendsen, Wang 1987, with fields on R.  Equal neighbours are bound
with chance ``1 - exp(-2 beta)``; given the bonds, a cluster c is of sign s with odds ``exp(2 s H_c)``, H_c the sum of
its fields, so a sweep adds ``tanh H_c`` to the means of its pixels (the mean over both signs, not the sign drawn).
The clean image is itself a draw of that posterior, so chains start from it and are in equilibrium at once; the first
sweeps are left out, in which they still remember it.

**The gap** ``G_R = sum over i in R' of E (E[s_i | x] - E[s_i | x_R])^2`` of pixels R' in R is a product of two runs of
the chains, apart from each other, so that their noise adds nothing.  It is the slope of a CMI: let A alone be seen at
its own signal g while B and C stay, then ``d I(A_g : C | B) / d g = G / 2``, A in the middle of the window AB.  So
``gamma G / 2`` is in nats per unit of log-SNR.

At ``beta_c = log(1 + sqrt 2) / 2`` spins a distance d apart agree like d^(-1/4), so noise of signal gamma is felt at
the scale ``xi ~ gamma^(-4/7)``: gamma couples to a product of two spins, of scaling dimension 2 - 2/8 = 7/4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.exact.ising import NOISE_STREAM
from phasewise.shapes import ImageShape

Array = np.ndarray
CRITICAL = math.log1p(math.sqrt(2)) / 2
"""beta_c of the square lattice (Onsager 1944)."""
SWEEPS_STREAM = 2  # of a seed, beside the streams of images and noise


class IsingTorus:
    """Spins +-1 on a ``side`` x ``side`` torus at inverse temperature ``beta`` >= 0; image shape (1, side, side).

    Raises PhasewiseError for a side below 3, where a pixel would meet a neighbour twice.
    """

    @checks.checked(side=checks.whole(3), beta=checks.not_negative)
    def __init__(self, side: int, beta: float = CRITICAL) -> None:
        self.side, self.beta = int(side), float(beta)
        self.image_shape: ImageShape = (1, self.side, self.side)

    def __repr__(self) -> str:
        return f"IsingTorus({self.side}, beta={self.beta:.6g})"

    @checks.checked(n=checks.count, seed=checks.seed, sweeps=checks.count)
    def sample(self, n: int, seed: int, sweeps: int = 60) -> Tensor:
        """(n, 1, side, side) float32: so many sweeps from images of one sign, chosen at random."""
        rng = np.random.default_rng(seed)
        spins = np.broadcast_to((2 * rng.integers(0, 2, n) - 1)[:, None, None], (n, self.side, self.side))
        spins = np.ascontiguousarray(spins, dtype=np.int8)
        none = np.zeros(spins.shape)
        for _ in range(sweeps):
            spins, _ = self._sweep(spins, none, rng)
        return torch.from_numpy(spins).float()[:, None]

    @checks.checked(n=checks.count, seed=checks.seed, sweeps=checks.count, forget=checks.at_least_0)
    def window_gap(self, gammas: Sequence[float], n: int, seed: int, *, sweeps: int = 12, forget: int = 12) -> Array:
        """The gap of a block A of side/4 pixels a side seen with a ring of side/8 round it, summed over A: (gammas, n).

        Args:
            gammas: alpha^2 / sigma^2, each > 0.
            n: images, each cut into four such windows, whose mean is its value; the same images and noise for all
                gammas.  The mean over images is the estimate, their spread its error.
            sweeps: that count, in each of two runs, after ``forget`` that do not.

        Raises PhasewiseError for a side that 8 does not divide.
        """
        if self.side % 8:
            raise PhasewiseError(f"a side of {self.side} pixels has no ring of an eighth; take a multiple of 8")
        clean = self.sample(n, seed)[:, 0].numpy().astype(np.int8)
        z = np.random.default_rng([seed, NOISE_STREAM]).standard_normal(clean.shape)
        rng = np.random.default_rng([seed, SWEEPS_STREAM])
        out = np.empty((len(gammas), n))
        half, ring = self.side // 2, self.side // 8
        for g, gamma in enumerate(gammas):
            if not 0 < gamma < math.inf:
                raise PhasewiseError(f"gamma is a signal-to-noise ratio, a number > 0, got {gamma!r}")
            fields = gamma * clean + math.sqrt(gamma) * z
            whole = self.means(fields, rng, clean, sweeps=sweeps, forget=forget)
            total = np.zeros(n)
            for row in (0, half):
                for column in (0, half):
                    near, middle = np.zeros_like(fields[0]), np.zeros_like(fields[0])
                    near[row : row + half, column : column + half] = 1
                    middle[row + ring : row + half - ring, column + ring : column + half - ring] = 1
                    seen = self.means(fields * near, rng, clean, sweeps=sweeps, forget=forget)
                    total += (np.prod(whole - seen, axis=0) * middle).sum((1, 2))
            out[g] = total / 4
        return out

    def means(self, fields: Array, rng: np.random.Generator, start: Array, *, sweeps: int, forget: int) -> Array:
        """Posterior means by two runs, (2, n, side, side), for fields (n, side, side), 0 where nothing is seen: the
        first run from a draw ``start``, the second from where the first ends."""
        spins, total = start, np.zeros((2, *fields.shape))
        for run in total:
            for k in range(forget + sweeps):
                spins, mean = self._sweep(spins, fields, rng)
                if k >= forget:
                    run += mean
        return total / sweeps

    def _sweep(self, spins: Array, fields: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Spins anew (n, side, side), and the means of the clusters that they were drawn from."""
        size = spins.size
        numbers = np.arange(size, dtype=np.int32).reshape(spins.shape)
        chance = -math.expm1(-2 * self.beta)
        ends = []
        for axis in (1, 2):
            bound = (spins == np.roll(spins, -1, axis)) & (rng.random(spins.shape, dtype=np.float32) < chance)
            ends.append((numbers[bound], np.roll(numbers, -1, axis)[bound]))
        one, other = (np.concatenate(part) for part in zip(*ends, strict=True))
        graph = coo_matrix((np.ones(len(one), np.int8), (one, other)), shape=(size, size))
        count, label = connected_components(graph, directed=False)
        held = np.bincount(label, fields.reshape(-1), count)
        drawn = np.where(rng.random(count) < 1 / (1 + np.exp(-2 * held)), 1, -1).astype(np.int8)
        return drawn[label].reshape(spins.shape), np.tanh(held)[label].reshape(spins.shape)
