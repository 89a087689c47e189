"""How much work each stage of a run is, roughly, so that a time left can be told: FLOPs of the networks' calls.

Rough by nature: small networks do fewer FLOPs a second than large ones, and what is no network's call is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

from phasewise.metrics import count_flops
from phasewise.pipeline.folder import Stage
from phasewise.runs.config import RunConfig
from phasewise.runs.members import MEMBER_KINDS, Member, build_untrained
from phasewise.shapes import ImageShape

SECOND = 2e10
"""FLOPs that stand for a second of other work."""
BACKWARD = 3
"""A step of training against a call: forward, and backward twice as expensive."""
SCHEDULES = 6
"""Schedules of the all-global cost that the judged ones come to together."""
CMI_IMAGE = 4e7
"""FLOPs an image and pass of a CMI estimator, forward and backward."""


def efforts(stages: Sequence[Stage], config: RunConfig, shape: ImageShape, n_train: int) -> dict[str, float]:
    """FLOPs by stage, for images of ``shape`` (C, H, W), ``n_train`` of them to train on."""
    per_call = {m.name: _flops(m, config, shape) for m in config.members}
    all_calls, whole = sum(per_call.values()), per_call["global"]
    steps = config.grid.steps
    found = {f"train-{m.name}": _training(m, per_call[m.name], n_train) for m in config.members}
    found["diagnose"] = all_calls * config.diagnose.n_losses * len(config.diagnose.times)
    # from half way on average
    found["recovery"] = all_calls * config.recovery.n_recovery * len(config.recovery.recovery_times) * steps / 2
    found["cmi"] = CMI_IMAGE * n_train * 10 * len(config.cmi.center or (None,))
    found["schedule"] = 2 * all_calls * config.diagnose.n_losses * steps
    found["evaluate"] = SCHEDULES * whole * (config.evaluate.n_samples + 256) * steps
    return {s.name: SECOND + found.get(s.name, 0.0) for s in stages}


def _training(member: Member, flops: float, n_train: int) -> float:
    return BACKWARD * flops * n_train * (member.epochs or 0)


def _flops(member: Member, config: RunConfig, shape: ImageShape) -> float:
    """FLOPs of one call for one image; a closed form, or what others made, counts nothing."""
    if MEMBER_KINDS[member.kind].build is None:
        return 0.0
    return float(count_flops(build_untrained(member, config.data.seed, shape), shape))
