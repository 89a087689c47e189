"""What memory a run takes at the most: what this process holds, and the largest of what its stages add to that.

With P numbers an image, N images in all and n samples a schedule, in bytes::

    data          4 P N                                  where the images are not in memory yet
    training      1.25 B kept + 20 parameters            a batch's activations; weights, gradients, averages, moments
    calls         0.4 250 kept                           what of them is alive at a time without gradients
    closed forms  16 min(P N, 2^24) + 80 P^2             sums in float64, and a covariance with its eigenvectors; or
                  8 P (N + 512) + 8 min(P N, 2^24)       images in float64, and their leading directions
    CMI           what the estimator says
    evaluation    4 (4 P + 10 128) n + 12 P n            samples, projections and their draws, and what is kept
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping, Sequence

from phasewise.denoisers.linear import USUAL_RANK, by_covariance, usual_rank
from phasewise.information import make_estimator
from phasewise.memory import AT_ONCE
from phasewise.metrics.sliced import DIRECTIONS
from phasewise.pipeline.costs import NetworkCost, is_trained
from phasewise.pipeline.trying import training_batch
from phasewise.results import DataRecord
from phasewise.runs.config import RunConfig
from phasewise.runs.members import MEMBER_KINDS

COPIES = 5
"""Of the weights while training: themselves, gradients, two moments, their average."""
LATER = 32 * 2**20
"""Bytes of libraries that are loaded as stages need them: solvers, pictures, the report."""
BATCH = 250
"""Images that denoisers are asked about at a time."""
ALIVE, GRADIENTS = 0.4, 1.25
"""Of what a training step keeps: what a call without gradients holds at a time, and what a step holds with those of its
activations, about: measured on U-Nets and local networks of 32 x 32 pixels, to an eighth."""


def peak_memory(
    config: RunConfig, about: DataRecord, todo: Sequence[str], costs: Mapping[str, NetworkCost], loaded: bool
) -> float:
    """Bytes, for the stages ``todo`` on images like ``about``, ``loaded`` already or not."""
    numbers, images = math.prod(about.image_shape), sum(about.sizes.values())
    held = held_now() + LATER + (0.0 if loaded else 4.0 * numbers * images)
    held += sum(4.0 * cost.parameters for cost in costs.values() if cost.taken is not None)
    batch = training_batch(about, config)
    extra = [0.0]
    extra += [
        GRADIENTS * cost.kept * batch + COPIES * 4.0 * cost.parameters
        for name, cost in costs.items()
        if f"train-{name}" in todo and is_trained(cost)
    ]
    if set(todo) - {"data", "features", "cmi", "report"}:
        extra.append(ALIVE * BATCH * max((cost.kept for cost in costs.values()), default=0))
    fitted = [m.name for m in config.members if MEMBER_KINDS[m.kind].fit is not None]
    if {f"{verb}-{name}" for name in fitted for verb in ("train", "fit")} & set(todo):
        train = about.sizes["train"]
        extra.append(
            16.0 * min(numbers * train, AT_ONCE) + 80.0 * numbers**2
            if by_covariance(numbers, usual_rank(numbers, None, train) or numbers, train)
            else 8.0 * numbers * (train + 2 * USUAL_RANK) + 8.0 * min(numbers * train, AT_ONCE)
        )
    if "cmi" in todo:
        asked = config.cmi
        side = asked.crop or max(about.image_shape[1:])
        size = about.image_shape[0] * math.prod(min(side, s) for s in about.image_shape[1:])
        extra.append(make_estimator(asked.estimator, **asked.options).bytes(size, images))
    if "evaluate" in todo:
        n = config.evaluate.n_samples
        extra.append(4.0 * (4 * numbers + 10 * DIRECTIONS) * n + 12.0 * numbers * n)
    return held + max(extra)


def held_now() -> float:
    """Bytes that this process held at the most so far."""
    # ru_maxrss is in kilobytes, on macOS in bytes
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
