"""Who runs when: penalties and costs of every step, the exact optimum, step placement, baselines, words for it."""

from phasewise.scheduling import baselines
from phasewise.scheduling.explanation import explain
from phasewise.scheduling.optimise import (
    optimise_schedule,
    pareto_front,
    reference_mflop,
    schedule_from_assignment,
)
from phasewise.scheduling.placement import PlacementFront, penalty_of, place_steps, placement_front
from phasewise.scheduling.prices import WEIGHTINGS, price_list, prices_at, step_penalties
from phasewise.scheduling.step_errors import measure_step_errors

__all__ = [
    "WEIGHTINGS",
    "PlacementFront",
    "baselines",
    "explain",
    "measure_step_errors",
    "optimise_schedule",
    "pareto_front",
    "penalty_of",
    "place_steps",
    "placement_front",
    "price_list",
    "prices_at",
    "reference_mflop",
    "schedule_from_assignment",
    "step_penalties",
]
