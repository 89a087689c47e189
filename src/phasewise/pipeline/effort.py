"""How much work each stage of a run is, roughly, so that a time left can be told: FLOPs of the networks' calls.

Rough by nature: small networks do fewer FLOPs a second than large ones, and what is no network's call is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phasewise.pipeline.estimate import BOUNDARY_STEPS, REACHED, NetworkCost, clone_calls, placing_calls
from phasewise.pipeline.folder import Stage
from phasewise.runs.config import RunConfig
from phasewise.runs.parts import USER_STEPS

SECOND = 2e10
"""FLOPs that stand for a second of other work."""
BACKWARD = 3
"""A step of training against a call: forward, and backward twice as expensive."""
SCHEDULES = 6
"""Schedules of the all-global cost that the judged ones come to together."""
CMI_IMAGE = 4e7
"""FLOPs an image and pass of a CMI estimator, forward and backward."""


def efforts(
    stages: Sequence[Stage], config: RunConfig, n_train: int, costs: Mapping[str, NetworkCost]
) -> dict[str, float]:
    """FLOPs by stage, for ``n_train`` images to train on; ``costs`` of the networks that are trained here or taken as
    they are (:func:`phasewise.pipeline.estimate.network_costs`), the others count nothing."""
    all_calls, whole = sum(cost.flops for cost in costs.values()), costs["global"].flops
    steps = config.grid.steps
    trained = {n: c for n, c in costs.items() if c.taken is None}
    found = {f"train-{n}": BACKWARD * c.flops * n_train * (c.member.epochs or 0) for n, c in trained.items()}
    found["diagnose"] = all_calls * config.diagnose.n_losses * len(config.diagnose.times)
    found["reach"] = REACHED * whole
    found["symmetry"] = whole * clone_calls(config)
    found["boundary"] = all_calls * config.diagnose.n_losses * BOUNDARY_STEPS
    # from half way on average
    found["recovery"] = all_calls * config.recovery.n_recovery * len(config.recovery.recovery_times) * steps / 2
    found["cmi"] = CMI_IMAGE * n_train * 10 * len(config.cmi.center or (None,))
    found["schedule"] = 2 * all_calls * config.diagnose.n_losses * steps + whole * placing_calls(config, steps)
    own = float(config.schedule.user_steps or USER_STEPS) if config.train.model else 0.0
    found["evaluate"] = whole * (config.evaluate.n_samples + 256) * (SCHEDULES * steps + own)
    return {s.name: SECOND + found.get(s.name, 0.0) for s in stages}
