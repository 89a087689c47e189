"""One sampling loop for every denoiser and solver, with one random stream per sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers import Condition, Denoiser, SamplingPlan, bind, condition_rows
from phasewise.denoisers.base import a_denoiser, as_condition, as_rows
from phasewise.denoisers.condition import unbound
from phasewise.denoisers.reuse import memory_for, with_memory
from phasewise.denoisers.trust import checked_conditions
from phasewise.errors import PhasewiseError
from phasewise.memory import need_bytes
from phasewise.modes import evaluating
from phasewise.results import DEFAULT_SOLVER
from phasewise.sampling.batches import Progress, in_batches
from phasewise.sampling.grid import SPACINGS, time_grid
from phasewise.sampling.noise import RowNoise, StepNoise, check_noise, solver_noise
from phasewise.sampling.solvers import get_solver, solver_name, take_step
from phasewise.sampling.steps import Carry

HOW: dict[str, checks.Kind] = {
    "steps": checks.steps,
    "solver": solver_name,
    "times": checks.each(checks.number),
    "t_start": checks.fraction,
    "t_min": checks.fraction,
    "spacing": checks.one_of(SPACINGS, "spacing"),
    "noise": checks.text,
}
"""Kinds of the arguments that say how to sample, wherever they are taken."""


@checks.checked(
    denoiser=a_denoiser,
    n=checks.count,
    seed=checks.seed,
    x_init=checks.real_tensor,
    batch=checks.count,
    device=checks.device,
    progress=checks.either(checks.flag, checks.function),
    **HOW,
)
def sample(
    denoiser: Denoiser,
    n: int = 16,
    *,
    seed: int = 0,
    steps: int | None = None,
    solver: str | None = None,
    times: Sequence[float] | None = None,
    x_init: Tensor | None = None,
    t_start: float | None = None,
    cond: Condition | None = None,
    t_min: float | None = None,
    spacing: str | None = None,
    noise: str = "fresh",
    batch: int = 64,
    device: str | torch.device | None = None,
    progress: bool | Progress | None = None,
) -> Tensor:
    """Go from noise to images: (n, C, H, W) float32, in pixel units, unclamped.

    A denoiser with a plan of its own (:meth:`Denoiser.sampling_plan`; a hybrid's is its schedule's) brings grid and
    solver; for another give ``steps`` (default 16), ``t_min`` and ``spacing`` as for :func:`time_grid`, and ``solver``,
    or the start times themselves (descending, above 0).
    The last step, to t = 0, is a denoise.

    Solvers: "exp_ab2" (default), "dpmpp_2m" (DPM-Solver++(2M)), "ddim", "heun" and "euler" of the probability-flow ODE;
    "sde_dpmpp_2m" (SDE-DPM-Solver++(2M)), "ancestral" and "heun_churn" add fresh noise, from each sample's own
    stream (:mod:`phasewise.sampling.steps`).

    ``noise="path"`` takes it from one Brownian path per sample instead, whatever the grid: samples of other grids then
    differ by their discretisation alone (:mod:`phasewise.sampling.brownian`; "heun_churn" has no limit to go to).

    ``cond``, a class label or a tensor with a row for each of the n images, goes to every member that takes one.

    Partial runs: ``x_init`` (n, C, H, W) noised to ``t_start`` on ``denoiser.path`` starts there instead of pure noise.

    ``progress``: True for a line with the time left, or a function of (images done, images in all).

    Sample i depends on (seed, i) alone: to the bit at equal batch size and number of threads, to about 1e-4 across
    them.

    Raises PhasewiseError for an unknown solver, a grid that does not decrease, a start or a condition that does not
    fit, or a batch too large for the memory (naming one that is not).
    """
    device = torch.device(device or denoiser.device)
    denoiser, cond = unbound(denoiser, cond)
    plan = sampling_plan(
        denoiser, steps=steps, solver=solver, times=times, t_start=t_start, t_min=t_min, spacing=spacing
    )
    check_noise(noise, denoiser.path)  # at once
    x_init = check_start(x_init, t_start, denoiser)
    n = n if x_init is None else len(x_init)
    if n < 1:
        raise PhasewiseError("x_init holds no image; give (n, C, H, W) with n >= 1")
    needed = 8 * n * math.prod(denoiser.image_shape)  # float32, in batches and together
    need_bytes(needed, f"{n} images", "draw fewer at a time, with another seed for each part")
    rows = rows_on(device, cond, n, denoiser)

    @torch.inference_mode()
    def run(size: int, first: int) -> Tensor:
        x = start_of(denoiser, plan.times[0], size, seed, first, device, x_init)
        told = bind(denoiser, rows, slice(first, first + size))
        source = solver_noise(size, denoiser.image_shape, seed, first, device, noise)
        return integrate(told, x, plan.times, plan.solver, noise=source)

    with evaluating(denoiser), checked_conditions():
        return in_batches(run, n, batch, progress)


def sampling_plan(
    denoiser: Denoiser,
    *,
    steps: int | None = None,
    solver: str | None = None,
    times: Sequence[float] | None = None,
    t_start: float | None = None,
    t_min: float | None = None,
    spacing: str | None = None,
) -> SamplingPlan:
    """Start times and solver, as :func:`sample` takes them: a denoiser's own plan, or one of what is given."""
    plan = denoiser.sampling_plan()
    placed: dict[str, Any] = {k: v for k, v in (("t_min", t_min), ("spacing", spacing)) if v is not None}
    if placed and (plan is not None or times is not None):
        brings = "this denoiser brings its own grid" if plan is not None else "times are given"
        raise PhasewiseError(f"{' and '.join(placed)} would say where the steps lie, but {brings}; leave it out")
    if plan is not None:
        if steps is not None or (solver is not None and solver != plan.solver) or times is not None:
            raise PhasewiseError(
                "a hybrid brings its own grid and solver; edit its schedule instead of passing steps, times or solver"
            )
        grid, solver = plan
    else:
        solver = solver or DEFAULT_SOLVER
        if times is not None and steps is not None:
            raise PhasewiseError("give either steps or times, not both")
        if times is not None:
            grid = tuple(float(t) for t in times)
        else:
            start = 1.0 if t_start is None else t_start
            grid = time_grid(16 if steps is None else steps, path=denoiser.path, t_start=start, **placed)
    get_solver(solver)  # an unknown one is refused before anything is drawn
    return SamplingPlan(_start_at(check_time_grid(grid), t_start), solver)


def rows_on(device: torch.device, cond: Condition | None, n: int, denoiser: Denoiser) -> Tensor | None:
    """The rows of ``cond``, (n, ...), checked, on ``device``; None where there is none."""
    rows = condition_rows(cond, n, [denoiser])
    if cond is None or rows is None:
        return None
    denoiser.check_condition(rows)
    return as_rows(as_condition(cond).to(device), n)  # a single one is moved before it is repeated without a copy


def start_of(
    denoiser: Denoiser, t: float, n: int, seed: int, first: int, device: torch.device, x_init: Tensor | None
) -> Tensor:
    """(n, C, H, W) float32 at time ``t`` on ``device``: those rows of ``x_init``, or pure noise."""
    if x_init is not None:
        return x_init[first : first + n].float().to(device)
    noise = RowNoise(n, denoiser.image_shape, seed, first, torch.device(device))
    return denoiser.path.pure_noise(noise(), t)


def check_start(x_init: Tensor | None, t_start: float | None, denoiser: Denoiser) -> Tensor | None:
    """``x_init`` where it is None or images of the denoiser's at a time that is named."""
    if x_init is not None:
        if t_start is None:
            raise PhasewiseError("x_init needs t_start, the noise time it is at")
        if tuple(x_init.shape[1:]) != denoiser.image_shape:
            raise PhasewiseError(f"x_init has shape {tuple(x_init.shape)}; need (n, *{denoiser.image_shape})")
    return x_init


def integrate(
    denoiser: Denoiser,
    x: Tensor,
    grid: Sequence[float],
    solver: str = DEFAULT_SOLVER,
    *,
    noise: StepNoise | Callable[[], Tensor] | None = None,
) -> Tensor:
    """Run ``x`` at time grid[0] down the grid and denoise at its end. (B, C, H, W) -> (B, C, H, W).

    ``noise()`` gives fresh standard normal noise shaped like ``x``; stochastic solvers need it.  A :class:`StepNoise`
    is told which step it is for.
    """
    chosen, carry = get_solver(solver), Carry(noise=noise)
    memory = memory_for(denoiser)
    for t, s in zip(grid, grid[1:], strict=False):
        member = with_memory(denoiser.member_at(t), memory)  # asked once, by the start: a step has one member
        x = take_step(chosen, member, x, t, s, carry)
    # the last step is a denoise: with D held an exact step to sigma = 0 gives D, and nothing divides by 0
    return with_memory(denoiser.member_at(grid[-1]), memory)(x, grid[-1])


def check_time_grid(grid: Sequence[float]) -> tuple[float, ...]:
    times = tuple(float(t) for t in grid)
    if not times or not times[-1] > 0 or times[0] > 1 or any(b >= a for a, b in zip(times, times[1:], strict=False)):
        raise PhasewiseError(
            f"a time grid must decrease strictly inside (0, 1], e.g. (1.0, 0.5, 0.1); got {times[:6]}"
            + ("..." if len(times) > 6 else "")
        )
    return times


def _start_at(grid: tuple[float, ...], t_start: float | None) -> tuple[float, ...]:
    """The grid from ``t_start`` on: t_start, then the later grid times below it."""
    if t_start is None or abs(grid[0] - t_start) < 1e-9:
        return grid
    if not 0 < t_start <= 1:
        raise PhasewiseError(f"t_start must lie in (0, 1], got {t_start}")
    # 1e-6: no step of no length, where t_start is a grid time already
    return (float(t_start), *[t for t in grid if t < t_start - 1e-6])
