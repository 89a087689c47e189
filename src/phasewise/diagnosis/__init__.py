"""Where in time far pixels matter: losses and gaps, Markov length, critical windows, recovery."""

from phasewise.diagnosis.claims import check_claims, guess
from phasewise.diagnosis.losses import gap_window, measure_losses, path_kl
from phasewise.diagnosis.markov import markov_length, t_c
from phasewise.diagnosis.recovery import measure_recovery
from phasewise.diagnosis.window import critical_window

__all__ = [
    "check_claims",
    "critical_window",
    "gap_window",
    "guess",
    "markov_length",
    "measure_losses",
    "measure_recovery",
    "path_kl",
    "t_c",
]
