r"""Solver steps of the probability-flow ODE ``dx/dt = velocity(x, t) = alpha' D + sigma' (x - alpha D) / sigma``.

A step is a plain function ``step(denoiser, x, t, s) -> x_s`` for t > s > 0 on ``denoiser.path``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError

Step = Callable[[Denoiser, Tensor, float, float], Tensor]


def velocity(denoiser: Denoiser, x: Tensor, t: float) -> Tensor:
    """dx/dt of the probability-flow ODE at (x, t), from the posterior mean. (B, C, H, W)."""
    return denoiser.path.velocity_from_x(x, denoiser(x, t), t)


def euler_step(denoiser: Denoiser, x: Tensor, t: float, s: float) -> Tensor:
    """Order 1, one call."""
    return x + (s - t) * velocity(denoiser, x, t)


def heun_step(denoiser: Denoiser, x: Tensor, t: float, s: float) -> Tensor:
    """Order 2 (explicit trapezoid), two calls, both by the same denoiser."""
    first = velocity(denoiser, x, t)
    second = velocity(denoiser, x + (s - t) * first, s)
    return x + (s - t) / 2 * (first + second)


SOLVERS: dict[str, tuple[Step, int]] = {"euler": (euler_step, 1), "heun": (heun_step, 2)}


def get_solver(name: str) -> tuple[Step, int]:
    """(step function, calls per step); PhasewiseError naming the known solvers."""
    if name not in SOLVERS:
        raise PhasewiseError(f"unknown solver {name!r}; known: {', '.join(SOLVERS)}")
    return SOLVERS[name]


def calls_per_step(solver: str, steps: int) -> list[int]:
    """Denoiser calls of each of ``steps`` steps; the last one is a denoise and takes one."""
    _, calls = get_solver(solver)
    return [calls] * (steps - 1) + [1]
