"""Sampling: solvers as plain steps, one loop, partial runs."""

from phasewise.sampling.grid import time_grid
from phasewise.sampling.loop import integrate, sample, starting_noise
from phasewise.sampling.solvers import SOLVERS, calls_per_step, get_solver, velocity

__all__ = ["SOLVERS", "calls_per_step", "get_solver", "integrate", "sample", "starting_noise", "time_grid", "velocity"]
