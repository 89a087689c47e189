"""Sampling: solvers as plain steps, one loop, partial runs."""

from phasewise.sampling.compiled import CompiledSampler, for_sampling
from phasewise.sampling.grid import time_grid
from phasewise.sampling.loop import integrate, sample
from phasewise.sampling.noise import starting_noise
from phasewise.sampling.solvers import SOLVERS, Solver, calls_per_step, get_solver, register_solver, take_step
from phasewise.sampling.steps import Carry, velocity

__all__ = [
    "SOLVERS", "Carry", "CompiledSampler", "Solver", "calls_per_step", "for_sampling", "get_solver", "integrate",
    "register_solver", "sample", "starting_noise", "take_step", "time_grid", "velocity",
]  # fmt: skip
