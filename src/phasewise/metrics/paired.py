r"""Comparing two samplers image by image, both started from the same noise.

For image pairs ``(a_i, b_i)`` with P pixels, ``m_i = |a_i - b_i|^2 / P`` and the paired error is ``sqrt(mean m_i)``.
Its standard error follows from that of the mean by the delta method, ``std(m) / sqrt(n) / (2 sqrt(mean m))``.
Pairing removes what the two samplers share, so small differences show with few images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.results import Estimate, Record


@checks.checked(a=checks.tensor, b=checks.tensor)
def paired_error(a: Tensor, b: Tensor) -> Estimate:
    """Root mean square difference per pixel between ``a`` and ``b``, both (N, C, H, W) from the same starting noise.

    Returns value and standard error (over images) in pixel units; ``n`` is N.  Identical sets give exactly 0 ± 0.
    Raises :class:`PhasewiseError` on unequal shapes, fewer than two images, or NaN and infinite pixels.
    """
    if a.shape != b.shape or a.dim() != 4 or a.shape[0] < 2:
        raise PhasewiseError(
            f"paired sets need one shape (N, C, H, W) with N >= 2, got {tuple(a.shape)} and {tuple(b.shape)}; "
            "sample both with the same n and seed"
        )
    per_image = (a.double() - b.double()).square().flatten(1).mean(1).cpu()
    _check_finite(per_image)
    value = math.sqrt(float(per_image.mean()))
    spread = float(per_image.std()) / math.sqrt(per_image.shape[0])
    # delta method: d sqrt(m) = dm / (2 sqrt(m))
    return Estimate(value, spread / (2 * value) if value > 0 else 0.0, per_image.shape[0], unit="pixel units")


@dataclass(frozen=True)
class PairedTest(Record):
    """Mean of ``a - b`` over pairs, its standard error, and the two-sided p-value of Student's paired t-test."""

    mean: float
    stderr: float
    p_value: float
    n: int


@checks.checked(a=checks.tensor, b=checks.tensor)
def paired_difference_test(a: Tensor, b: Tensor) -> PairedTest:
    """Do per-image scores ``a`` and ``b``, both (N,) on the same images, differ in the mean?

    A difference that is the same for every pair has p-value 0, or 1 where it is 0.
    Raises :class:`PhasewiseError` on unequal shapes, fewer than two pairs, or NaN and infinite scores.
    """
    from scipy.stats import t as student

    if a.shape != b.shape or a.dim() != 1 or a.shape[0] < 2:
        raise PhasewiseError(f"paired scores need one shape (N,), N >= 2, got {tuple(a.shape)} and {tuple(b.shape)}")
    difference = (a.double() - b.double()).cpu()
    _check_finite(difference)
    n, mean = difference.shape[0], float(difference.mean())
    stderr = float(difference.std()) / math.sqrt(n)
    if stderr == 0:
        return PairedTest(mean, 0.0, float(mean == 0), n)
    return PairedTest(mean, stderr, float(2 * student.sf(abs(mean) / stderr, n - 1)), n)


def _check_finite(values: Tensor) -> None:
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise PhasewiseError(
            f"{bad} of {values.shape[0]} pairs contain NaN or infinite values; one sampler diverged: use more steps"
        )
