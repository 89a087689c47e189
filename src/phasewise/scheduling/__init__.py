"""Which member runs when: penalties and costs of every step, the exact optimum, step placement, baselines, words."""

from phasewise.scheduling import baselines, field, field_signals, penalties
from phasewise.scheduling.boundaries import boundary, boundary_of
from phasewise.scheduling.boundary_record import Boundary, BoundaryUnits
from phasewise.scheduling.explanation import explain, explain_ties
from phasewise.scheduling.exports import EXPORTS, export
from phasewise.scheduling.optimise import (
    optimise_schedule,
    pareto_front,
    reference_mflop,
    schedule_from_assignment,
)
from phasewise.scheduling.penalty import (
    PENALTIES,
    Penalty,
    PenaltyFunction,
    get_penalty,
    register_penalty,
    step_penalties,
)
from phasewise.scheduling.placement import PlacementFront, penalty_of, place_steps, placement_front
from phasewise.scheduling.prices import price_list, prices_at
from phasewise.scheduling.reuse_prices import measure_reuse
from phasewise.scheduling.searched import by_frechet, guarded, search_grid, search_times
from phasewise.scheduling.step_errors import measure_step_errors

__all__ = [
    "EXPORTS",
    "PENALTIES",
    "Boundary",
    "BoundaryUnits",
    "Penalty",
    "PenaltyFunction",
    "PlacementFront",
    "baselines",
    "boundary",
    "boundary_of",
    "by_frechet",
    "explain",
    "explain_ties",
    "export",
    "field",
    "field_signals",
    "get_penalty",
    "guarded",
    "measure_reuse",
    "measure_step_errors",
    "optimise_schedule",
    "pareto_front",
    "penalties",
    "penalty_of",
    "place_steps",
    "placement_front",
    "price_list",
    "prices_at",
    "reference_mflop",
    "register_penalty",
    "schedule_from_assignment",
    "search_grid",
    "search_times",
    "step_penalties",
]
