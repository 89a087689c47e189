"""Where in time far pixels matter: losses and gaps, the price list, schedules, recovery."""

from phasewise.phases.losses import gap_window, measure_losses, path_kl
from phasewise.phases.markov import markov_length, t_c
from phasewise.phases.placement import PlacementFront, place_steps, placement_front, price_of
from phasewise.phases.prices import WEIGHTINGS, price_list, prices_at, step_prices
from phasewise.phases.recovery import measure_recovery
from phasewise.phases.schedule import (
    optimise_schedule,
    pareto_front,
    reference_mflop,
    schedule_from_servers,
    spread_servers,
    stitched_servers,
    window_servers,
)
from phasewise.phases.step_errors import measure_step_errors
from phasewise.phases.window import critical_window
from phasewise.phases.wording import explain

__all__ = [
    "WEIGHTINGS",
    "PlacementFront",
    "critical_window",
    "explain",
    "gap_window",
    "markov_length",
    "measure_losses",
    "measure_recovery",
    "measure_step_errors",
    "optimise_schedule",
    "pareto_front",
    "path_kl",
    "place_steps",
    "placement_front",
    "price_list",
    "price_of",
    "prices_at",
    "reference_mflop",
    "schedule_from_servers",
    "spread_servers",
    "step_prices",
    "stitched_servers",
    "t_c",
    "window_servers",
]
