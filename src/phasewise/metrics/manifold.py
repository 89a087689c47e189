"""Precision and recall of samples in a feature space: how many look real, and how much of the real they cover.

Kynkäänniemi et al. 2019 (arXiv 1904.06991): a set's manifold is the union of balls round its points, each reaching to
the point's k-th nearest neighbour within the set.  Precision is the share of samples inside the manifold of the real
images, recall the share of real images inside that of the samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.results import Estimate


@checks.checked(samples=checks.tensor, real=checks.tensor, k=checks.count, rows=checks.count)
def precision_recall(samples: Tensor, real: Tensor, k: int = 3, rows: int = 1024) -> tuple[Estimate, Estimate]:
    """(precision, recall) of features (N, D) against features of real images (M, D), each in [0, 1].

    ``stderr`` is that of a share of N (of M) independent points, the manifolds taken as given.  Both depend on N and M
    (larger sets have smaller balls): compare at equal sizes only.  Raises PhasewiseError for sets of k points or fewer,
    of other width, or with NaN.
    """
    for name, points in (("samples", samples), ("real images", real)):
        if points.dim() != 2 or len(points) <= k or points.shape[1] != samples.shape[1]:
            raise PhasewiseError(
                f"precision and recall take features (N, D) of one width with N > k = {k}; the {name} have shape "
                f"{tuple(points.shape)}"
            )
        if not bool(torch.isfinite(points).all()):
            raise PhasewiseError(f"the features of the {name} contain NaN or infinite values; check the images")
    return _covered(samples, real, k, rows), _covered(real, samples, k, rows)


def _covered(points: Tensor, centres: Tensor, k: int, rows: int) -> Estimate:
    """Share of ``points`` inside the balls round ``centres`` that reach to their k-th neighbour among themselves."""
    points, centres = points.double(), centres.double()
    # k + 1: the nearest centre of each is itself
    balls = torch.cat([torch.cdist(part, centres).kthvalue(k + 1, dim=1).values for part in centres.split(rows)])
    inside = torch.cat([(torch.cdist(part, centres) <= balls).any(1) for part in points.split(rows)])
    share = float(inside.double().mean())
    return Estimate(share, math.sqrt(share * (1 - share) / len(inside)), len(inside), unit="share")
