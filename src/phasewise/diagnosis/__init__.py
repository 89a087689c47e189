"""Where in time far pixels matter: losses, gaps, Markov length, windows; symmetry breaking, recovery, reach."""

from phasewise.diagnosis.attention_window import AttentionWithin, measure_attention_windows
from phasewise.diagnosis.claims import check_claims, guess
from phasewise.diagnosis.influence import measure_influence
from phasewise.diagnosis.losses import gap_window, measure_losses, path_kl
from phasewise.diagnosis.markov import markov_length, t_c
from phasewise.diagnosis.reaching import reach
from phasewise.diagnosis.recovery import measure_recovery
from phasewise.diagnosis.symmetry import measure_cloning, speciation
from phasewise.diagnosis.window import critical_window
from phasewise.diagnosis.windowed import measure_windowed_answer

measure_reach_of = reach
"""The same by a name like those of the other measures."""

__all__ = [
    "AttentionWithin",
    "check_claims",
    "critical_window",
    "gap_window",
    "guess",
    "markov_length",
    "measure_attention_windows",
    "measure_cloning",
    "measure_influence",
    "measure_losses",
    "measure_reach_of",
    "measure_recovery",
    "measure_windowed_answer",
    "path_kl",
    "reach",
    "speciation",
    "t_c",
]
