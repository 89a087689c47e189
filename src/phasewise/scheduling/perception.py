"""How far each denoiser's posterior means lie from the reference's as a judge of whole sets sees them.

FID compares sets of images by the mean and covariance of their features.  The same comparison, made at every noise time
between the posterior means of two denoisers on the same noisy images, tells what their difference will do to FID better
than any squared error over pixels: blur that the next steps mend hardly moves the features, strokes that do not fit
together do; and a denoiser whose errors go one way for one image and another for the next changes *which* images come
out, not how good they are.  Rank correlations with FID are in docs/results/schedules.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from phasewise import checks, seeding
from phasewise.denoisers.base import Condition, Denoiser, denoisers_by_name
from phasewise.denoisers.condition import bind, condition_rows
from phasewise.errors import PhasewiseError
from phasewise.metrics import FeatureNetwork, paired_frechet
from phasewise.metrics.feature_base import a_feature_network
from phasewise.modes import in_evaluation
from phasewise.sampling.loop import check_time_grid

COMPONENTS = 64
"""Features of more dimensions count by so many of their principal components on the clean images."""


@in_evaluation
@torch.inference_mode()
@checks.checked(
    denoisers=denoisers_by_name,
    images=checks.images,
    times=checks.each(checks.number),
    features=a_feature_network,
    reference=checks.text,
    seed=checks.seed,
    batch=checks.count,
)
def measure_frechet(
    denoisers: Mapping[str, Denoiser],
    images: Tensor,
    times: Sequence[float],
    features: FeatureNetwork,
    *,
    reference: str = "global",
    cond: Condition | None = None,
    seed: int = 0,
    batch: int = 250,
    truth: Mapping[int, Denoiser] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(S, N) squared Frechet distances, and their standard errors (bootstrap over images), between the ``features`` of
    every denoiser's posterior means and of the reference's, at every time, on the same noised ``images`` (n, C, H, W).

    Posterior means are clamped to the range of ``images``.  0 for the reference.  With n images the squared distance
    is too large by an amount of order 1 / n: use ten times as many images as features, or more.

    ``cond``: a row for each image, for those that take a condition.  ``truth``: by number of the time, who stands there
    in the reference's place; then the reference has a distance, too.

    Raises PhasewiseError for a missing reference, a grid that does not decrease, too few images, or images that do not
    fit the features.
    """
    if reference not in denoisers:
        raise PhasewiseError(f"reference {reference!r} is not among the denoisers: {', '.join(denoisers) or 'none'}")
    grid, base = check_time_grid(times), denoisers[reference]
    members = {k: d.on(base.path) for k, d in denoisers.items()}
    rows = condition_rows(cond, len(images), members.values())
    basis = feature_basis(features, images)  # of the clean images, so that all members and times are seen in one basis
    low, high = float(images.min()), float(images.max())
    value, error = np.zeros((2, len(grid), len(members)))
    for k, t in enumerate(grid):
        # fresh noise at every time, the same for every member
        noise = torch.randn(images.shape, generator=seeding.generator(seed, seeding.Purpose.PENALTY_NOISE, k))
        x_t = base.path.add_noise(images, noise.to(images.device), t)

        def seen(denoiser: Denoiser, x_t: Tensor = x_t, t: float = t) -> Tensor:
            parts = [slice(start, start + batch) for start in range(0, len(x_t), batch)]
            means = torch.cat([bind(denoiser, rows, part)(x_t[part], t) for part in parts])
            return features.extract(means.clamp(low, high)) @ basis

        right = (truth or {}).get(k, base)
        there = seen(right)
        for i, denoiser in enumerate(members.values()):
            if denoiser is not right:
                found = paired_frechet(seen(denoiser), there, seed=seed)  # one seed: all members are resampled alike
                value[k, i], error[k, i] = found.value, found.stderr
    return value, error


def feature_basis(features: FeatureNetwork, images: Tensor) -> Tensor:
    """(D, min(D, COMPONENTS)): the identity, or the leading principal directions of the features of clean ``images``
    (n, C, H, W)."""
    clean = features.extract(images)
    if clean.shape[1] <= COMPONENTS:
        return torch.eye(clean.shape[1])
    # right singular vectors of centred rows are the eigenvectors of their covariance
    return torch.linalg.svd(clean - clean.mean(0), full_matrices=False).Vh[:COMPONENTS].T
