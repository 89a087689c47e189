r"""What stands for the true posterior mean at each step, where a trained reference is not the best that is known.

A penalty by distance counts how far a member's answer lies from the reference's, as if that were right.  Near both ends
the truth is known: at alpha = 0 every posterior mean is the mean of the data, and as sigma goes to 0 it is the input,
``x_t / alpha``.  Between, by orthogonality, of two answers the one of lower held-out loss is the nearer to the truth;
so a member whose loss is lower beyond error takes the reference's place there.  Where a member's loss is as low within
error, nobody knows which of the two is right, and how far they lie apart goes into the errors of both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from phasewise.denoisers.base import Denoiser
from phasewise.paths import NoisePath, Time, as_scale, as_time
from phasewise.power import RESOLVED
from phasewise.results import Array, LossTable
from phasewise.shapes import ImageShape

VANISHING = 12.0
"""log-SNR relative to the data's variance below minus this: no signal; above: no noise."""
MEAN, INPUT = "the data mean", "the input"


class KnownAnswer(Denoiser):
    """The posterior mean at the ends: the mean of the data, (C, H, W), or with None the input itself."""

    def __init__(self, image_shape: ImageShape, mean: Tensor | None, path: NoisePath) -> None:
        super().__init__(image_shape, path)
        self.mean = mean

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        if self.mean is None:
            return x_t / as_scale(self.path.alpha(as_time(t, x_t)), x_t)
        return self.mean.to(x_t).expand_as(x_t)


def best_known(
    table: LossTable, members: Mapping[str, Denoiser], mean: Tensor | None, path: NoisePath
) -> dict[int, tuple[str, Denoiser]]:
    """Step -> (name, denoiser) where something better is known than the reference's answer.

    ``mean`` (C, H, W) of the data; None where a condition makes it another one for each image.
    """
    found: dict[int, tuple[str, Denoiser]] = {}
    relative = table.log_snr + 2 * np.log(table.data_std)
    shape = next(iter(members.values())).image_shape
    for k, level in enumerate(relative):
        if level < -VANISHING:
            if mean is not None:
                found[k] = (MEAN, KnownAnswer(shape, mean, path))
        elif level > VANISHING:
            found[k] = (INPUT, KnownAnswer(shape, None, path))
        else:
            best = int(np.argmin(table.gap[k]))
            if table.gap[k, best] < -RESOLVED * table.gap_stderr[k, best]:
                found[k] = (table.names[best], members[table.names[best]])
    return found


def ambiguity(table: LossTable, squared: Array) -> Array:
    """(S, N) of ``squared`` (S, N), distances from what stands for the truth: that of a member which is as good as the
    best within error by held-out loss, and of the best the largest of these; 0 elsewhere, and where the truth is
    known."""
    relative = table.log_snr + 2 * np.log(table.data_std)
    best, rows = table.gap.argmin(1), np.arange(len(table.gap))
    lead = table.gap - table.gap[rows, best][:, None]
    as_low = lead <= RESOLVED * np.hypot(table.gap_stderr, table.gap_stderr[rows, best][:, None])
    found = np.where(as_low, squared, 0.0)
    found[rows, best] = found.max(1)
    return np.where(np.abs(relative)[:, None] > VANISHING, 0.0, found)


def data_mean(images: Tensor) -> Tensor:
    """(C, H, W) of images (n, C, H, W), in float64 sums."""
    return images.double().mean(0).to(torch.float32)
