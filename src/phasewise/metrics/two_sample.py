r"""Can a classifier tell samples from real images?  Lopez-Paz & Oquab 2017 (arXiv 1610.06545), sections 2 and 3.

Half of either set trains a small network to say which set a row is from, the other half tests it.  Where both sets are
of one distribution, no classifier is right more often than by chance: over ``n`` held-out rows its accuracy is about
normal, of mean 1/2 and variance ``1 / (4 n)``.  So an accuracy above that tells the sets apart, whatever it was that
gave them away, and the rows it is surest of show it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn

from phasewise import checks, seeding
from phasewise.errors import PhasewiseError
from phasewise.fit import minimise, one_cycle
from phasewise.metrics.feature_base import FeatureNetwork, a_feature_network
from phasewise.results import Record
from phasewise.seeding import Purpose

HIDDEN = 20
"""Width of the one hidden layer, as published."""
BATCH = 64
PEAK_RATE = 1e-2
MIN_ROWS = 16


@dataclass(frozen=True)
class TwoSampleTest(Record):
    """Accuracy of a classifier between two sets over ``n`` held-out rows, half of them from each; 1/2 is chance.

    ``stderr``: binomial.  ``p_value``: how often so high an accuracy comes by chance where the two sets are of one
    distribution (one-sided, normal).
    """

    accuracy: float
    stderr: float
    p_value: float
    n: int
    seed: int

    def __str__(self) -> str:
        return f"told apart {self.accuracy:.4g} ± {self.stderr:.2g} of the time (n = {self.n}, p = {self.p_value:.2g})"


@checks.checked(
    first=checks.real_tensor,
    second=checks.real_tensor,
    features=a_feature_network,
    seed=checks.seed,
    epochs=checks.count,
)
def classifier_two_sample(
    first: Tensor, second: Tensor, features: FeatureNetwork | None = None, seed: int = 0, epochs: int = 30
) -> TwoSampleTest:
    """Held-out accuracy with which a small network tells rows of ``first`` from rows of ``second``.

    Args:
        first, second: images (N, C, H, W), or rows (N, D); of independent draws, so not two samplers' images from one
            noise.  Of the larger set as many rows are taken, at random, as the smaller one has.
        features: a network whose features of the images are told apart; None takes the pixels, or the rows, themselves.
        seed: of the choice and the halves, of the weights and of the batches.
        epochs: passes over the training half.

    Raises :class:`PhasewiseError` for rows of different sizes, fewer than 16 a side, or NaN and infinite values.
    """
    if first.dim() < 2 or first.shape[1:] != second.shape[1:] or min(len(first), len(second)) < MIN_ROWS:
        raise PhasewiseError(
            f"a two-sample test takes two sets of at least {MIN_ROWS} rows of one size, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    sets = [x if features is None else features.extract(x) for x in (first, second)]
    generator = seeding.generator(seed, Purpose.TWO_SAMPLE_SPLIT)
    rows = min(len(first), len(second)) // 2 * 2
    chosen = [x[torch.randperm(len(x), generator=generator)[:rows]].detach().flatten(1).float().cpu() for x in sets]
    train, test = (torch.cat([x[part] for x in chosen]) for part in (slice(rows // 2), slice(rows // 2, None)))
    side = torch.arange(rows) >= rows // 2  # which set a row of either half is from
    std, mean = torch.std_mean(train, 0)
    std = std.clamp_min(1e-6)  # a pixel that never varies says nothing
    network = _fitted((train - mean) / std, side, seed, epochs)
    with torch.inference_mode():
        right = int(((network((test - mean) / std)[:, 0] > 0) == side).sum())
    accuracy = right / rows
    chance = NormalDist(0.5, 0.5 / math.sqrt(rows))
    stderr = math.sqrt(accuracy * (1 - accuracy) / rows)
    return TwoSampleTest(accuracy, stderr, 1 - chance.cdf(accuracy), rows, seed)


def _fitted(x: Tensor, side: Tensor, seed: int, epochs: int) -> nn.Module:
    """One hidden layer of ReLU, trained to give a positive number to rows of the second set."""
    network = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    generator = seeding.generator(seed, Purpose.TWO_SAMPLE_WEIGHTS)
    for weight in network.parameters():
        bound = 1 / math.sqrt(x.shape[1] if weight.shape[0] == HIDDEN else HIDDEN)
        weight.data.uniform_(-bound, bound, generator=generator)
    batches = seeding.generator(seed, Purpose.TWO_SAMPLE_BATCHES)
    steps, size = max(1, epochs * len(x) // BATCH), min(BATCH, len(x))
    target = side.float()

    def loss_of() -> Tensor:
        chosen = torch.randint(0, len(x), (size,), generator=batches)
        return nn.functional.binary_cross_entropy_with_logits(network(x[chosen])[:, 0], target[chosen])

    minimise(network, loss_of, steps, lambda step: one_cycle(PEAK_RATE, step, steps))
    return network
