"""Solvers by name: a step (:mod:`phasewise.sampling.steps`), what it costs, its order, what it is and who published it.

A denoiser that knows its own flow (:meth:`Denoiser.jump`, the Wiener filter's Gaussian one) is asked for it instead,
one exact jump, by every solver that keeps no history.  A multistep solver asks it for its posterior mean like any
other: a jump would leave the next step without a step before, which costs more than it saves (studies/LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from phasewise import checks
from phasewise.denoisers.base import Denoiser
from phasewise.paths import ModePath
from phasewise.registry import Registry
from phasewise.sampling.steps import (
    Carry,
    InModes,
    Step,
    ancestral_step,
    ddim_step,
    dpmpp_2m_step,
    euler_step,
    exp_ab2_step,
    heun_churn_step,
    heun_step,
    sde_dpmpp_2m_step,
)  # fmt: skip


@dataclass(frozen=True)
class Solver:
    """A step, its denoiser calls, its order of convergence (of samples for an ODE, of their covariance for an SDE; 0:
    not known), one line about it with its source; whether it draws noise, and whether it leans on the step before."""

    step: Step
    calls: int
    order: int
    about: str
    stochastic: bool = False
    multistep: bool = False


SOLVERS: Registry[Solver] = Registry("solver")
"""All solvers by name; one of your own joins by :func:`register_solver`."""


solver_name = checks.one_of(SOLVERS, "solver")
"""The name of a solver, as an argument."""


def register_solver(name: str, solver: Solver) -> Solver:
    """Let every ``solver=`` and every schedule know ``solver`` by ``name``; PhasewiseError where the name is taken."""
    return SOLVERS.register(name, solver)


def get_solver(name: str) -> Solver:
    """The solver of this name; PhasewiseError naming the known ones."""
    return SOLVERS[name]


for _name, _solver in {
    "euler": Solver(euler_step, 1, 1, "Euler's method in t, on the probability-flow ODE"),
    "heun": Solver(heun_step, 2, 2, "Heun's method in t, on that ODE (Karras et al. 2022, algorithm 1)"),
    "ddim": Solver(ddim_step, 1, 1, "deterministic DDIM (Song et al. 2021), the exponential Euler method"),
    "exp_ab2": Solver(
        exp_ab2_step, 1, 2, multistep=True,
        about="ours: exponential two-step Adams-Bashforth in linear time; DPM-Solver++(2M) in a time regular at both "
        "ends",
    ),
    "dpmpp_2m": Solver(dpmpp_2m_step, 1, 2, "DPM-Solver++(2M) (Lu et al. 2022)", multistep=True),
    "ancestral": Solver(
        ancestral_step, 1, 1, "ancestral sampling (DDPM, Ho et al. 2020), for a general path", stochastic=True
    ),
    "sde_dpmpp_2m": Solver(
        sde_dpmpp_2m_step, 1, 2, stochastic=True, multistep=True,
        about="SDE-DPM-Solver++(2M) (Lu et al. 2022), in linear time instead of log-SNR",
    ),
    "heun_churn": Solver(
        heun_churn_step, 2, 0, "stochastic Heun with churn (Karras et al. 2022, algorithm 2)", stochastic=True
    ),
}.items():  # fmt: skip
    register_solver(_name, _solver)


def take_step(solver: Solver, denoiser: Denoiser, x: Tensor, t: float, s: float, carry: Carry) -> Tensor:
    """One step by the denoiser's own flow where it knows it and the solver keeps no history, else by the solver.

    On an anisotropic path the step is taken in the modes of its basis, each with coefficients of its own."""
    if isinstance(denoiser.path, ModePath):
        basis = denoiser.path.basis
        return basis.to_pixels(solver.step(InModes(denoiser), basis.to_modes(x), t, s, carry))
    jumped = None if solver.multistep else denoiser.jump(x, t, s)
    return solver.step(denoiser, x, t, s, carry) if jumped is None else jumped


@checks.checked(solver=solver_name, steps=checks.steps)
def calls_per_step(solver: str, steps: int) -> list[int]:
    """Denoiser calls of each of ``steps`` steps; the last one is a denoise and takes one."""
    return [get_solver(solver).calls] * (steps - 1) + [1]
