"""Where in time a model can be left, and how far it sees, as stages of a run: measured into records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phasewise.data import ImageData
from phasewise.denoisers import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.metrics import FeatureNetwork
from phasewise.pipeline.conditions import labels_of
from phasewise.pipeline.estimate import BOUNDARY_STEPS
from phasewise.runs.config import RunConfig
from phasewise.runs.parts import REFERENCE, USER_STEPS
from phasewise.sampling import get_solver, time_grid
from phasewise.scheduling import Boundary, boundary

CLOSED = "wiener"
MOST_IMAGES = 64
"""Images that a reach is measured on."""


def boundaries_of(
    denoisers: Mapping[str, Denoiser], data: ImageData, features: FeatureNetwork, config: RunConfig, seed: int
) -> dict[str, tuple[Boundary, dict[str, Any]]]:
    """By the name of who stands beside the reference: when to switch, and the same in every unit, as JSON has it.

    The closed form takes the noisy part and the reference, whose answers count as right, the rest: how far it can go.
    Of two models neither counts as right: held-out images judge, and the reference comes first.
    """
    base, found = denoisers[REFERENCE], {}
    about: dict[str, Any] = {"solver": config.grid.solver, "n": config.diagnose.n_losses, "seed": seed}
    grid = config.grid
    for name in (CLOSED, *list(config.train.model)[1:]):
        closed = name == CLOSED
        pair = (denoisers[name], base) if closed else (base, denoisers[name])
        names = (name, REFERENCE) if closed else (REFERENCE, name)
        how: dict[str, Any] = {"reference": "late", "features": features} if closed else {}
        if not closed and get_solver(config.grid.solver).stochastic:
            how["penalty"] = "kl"
        late = pair[1]
        cond = None if labels_of(data, "validation", pair) is None else "labels"
        times = time_grid(BOUNDARY_STEPS, path=late.path, t_min=grid.t_min, spacing=grid.spacing)
        result = boundary(pair[0], late, data, times=times, names=names, cond=cond, **how, **about)
        found[name] = result, _units(result, late, config.schedule.user_steps)
    return found


def _units(found: Boundary, late: Denoiser, steps: int | None) -> dict[str, Any]:
    """In every unit that the later network's own clock and scheduler know."""
    clock = getattr(late, "clock", None)
    if clock is None or clock.steps_total is None:
        return found.in_units().to_dict()
    try:
        times = late.times(steps or USER_STEPS)  # type: ignore[operator]
    except (PhasewiseError, AttributeError):  # a scheduler that cannot say its steps, none at all
        times = None
    return found.in_units(clock, times).to_dict()
