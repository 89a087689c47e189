"""One sampling loop for every denoiser and solver, with one random stream per sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from phasewise import checks, seeding
from phasewise.denoisers import Condition, Denoiser, bind, condition_rows
from phasewise.denoisers.base import a_denoiser
from phasewise.errors import PhasewiseError
from phasewise.memory import fitting, need_bytes
from phasewise.sampling.grid import SPACINGS, time_grid
from phasewise.sampling.solvers import get_solver, solver_name, take_step
from phasewise.sampling.steps import Carry


@checks.checked(n=checks.count, image_shape=checks.image_shape, seed=checks.seed, first=checks.at_least_0)
def starting_noise(n: int, image_shape: tuple[int, int, int], seed: int = 0, first: int = 0) -> Tensor:
    """Standard normal (n, C, H, W) float32; row i depends on (seed, first + i) alone, whatever n is."""
    return seeding.normal_rows(n, image_shape, seed, first)


@torch.inference_mode()
@checks.checked(
    denoiser=a_denoiser,
    n=checks.count,
    seed=checks.seed,
    steps=checks.steps,
    solver=solver_name,
    times=checks.each(checks.number),
    x_init=checks.real_tensor,
    t_start=checks.fraction,
    t_min=checks.fraction,
    spacing=checks.one_of(SPACINGS, "spacing"),
    batch=checks.count,
    device=checks.device,
    progress=checks.function,
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
    batch: int = 64,
    device: str | torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Go from noise to images: (n, C, H, W) float32, in pixel units, unclamped.

    A denoiser with a plan of its own (:meth:`Denoiser.sampling_plan`; a hybrid's is its schedule's) brings grid and
    solver; for another give ``steps`` (default 16), ``t_min`` and ``spacing`` as for :func:`time_grid`, and ``solver``,
    or the start times themselves (descending, above 0).
    The last step, to t = 0, is a denoise.

    Solvers: "exp_ab2" (default), "dpmpp_2m" (DPM-Solver++(2M)), "ddim", "heun" and "euler" of the probability-flow ODE;
    "sde_dpmpp_2m" (SDE-DPM-Solver++(2M)), "ancestral" and "heun_churn" add fresh noise, from each sample's own
    stream (:mod:`phasewise.sampling.steps`).

    ``cond``, a class label or a tensor with a row for each of the n images, goes to every member that takes one.

    Partial runs: ``x_init`` (n, C, H, W) noised to ``t_start`` on ``denoiser.path`` starts there instead of pure noise.

    Sample i depends on (seed, i) alone: to the bit at equal batch size, to about 1e-4 across batch sizes.

    Raises PhasewiseError for an unknown solver, a grid that does not decrease, a start or a condition that does not
    fit, or a batch too large for the memory (naming one that is not).
    """
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
        solver = solver or "exp_ab2"
        if times is not None and steps is not None:
            raise PhasewiseError("give either steps or times, not both")
        if times is not None:
            grid = tuple(float(t) for t in times)
        else:
            start = 1.0 if t_start is None else t_start
            grid = time_grid(steps or 16, path=denoiser.path, t_start=start, **placed)
    grid = _start_at(check_time_grid(grid), t_start)
    if x_init is not None:
        if t_start is None:
            raise PhasewiseError("x_init needs t_start, the noise time it is at")
        if tuple(x_init.shape[1:]) != denoiser.image_shape:
            raise PhasewiseError(f"x_init has shape {tuple(x_init.shape)}; need (n, *{denoiser.image_shape})")
        n = len(x_init)
        if not n:
            raise PhasewiseError("x_init holds no image; give (n, C, H, W) with n >= 1")
    needed = 8 * n * math.prod(denoiser.image_shape)  # float32, in batches and together
    need_bytes(needed, f"{n} images", "draw fewer at a time, with another seed for each part")
    rows = condition_rows(cond, n, [denoiser])
    device = device or denoiser.device
    denoiser.eval()
    out = []
    for start in range(0, n, batch):
        size = min(batch, n - start)

        def run(size: int, start: int = start) -> Tensor:
            if x_init is None:
                # pure noise at the scale that the path has at the first time
                sigma = denoiser.path.sigma(torch.tensor(grid[0], dtype=torch.float64))
                x = starting_noise(size, denoiser.image_shape, seed, start) * float(sigma)
            else:
                x = x_init[start : start + size].float()
            x = x.to(device)
            noise = _fresh_noise(size, denoiser.image_shape, seed, start, x)
            told = bind(denoiser, rows, slice(start, start + size))
            return integrate(told, x, grid, solver, noise=noise).cpu()

        with fitting(size, run, "sampling"):
            out.append(run(size))
        if progress is not None:
            progress(start + size, n)
    return torch.cat(out)


@checks.checked(
    denoiser=a_denoiser, x=checks.tensor, grid=checks.each(checks.fraction), solver=solver_name, noise=checks.function
)
def integrate(
    denoiser: Denoiser,
    x: Tensor,
    grid: Sequence[float],
    solver: str = "exp_ab2",
    *,
    noise: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Run ``x`` at time grid[0] down the grid and denoise at its end. (B, C, H, W) -> (B, C, H, W).

    ``noise()`` gives fresh standard normal noise shaped like ``x``; stochastic solvers need it.
    """
    chosen, carry = get_solver(solver), Carry(noise=noise)
    for t, s in zip(grid, grid[1:], strict=False):
        x = take_step(chosen, denoiser.member_at(t), x, t, s, carry)  # asked once, by the start: a step has one member
    # the last step is a denoise: with D held an exact step to sigma = 0 gives D, and nothing divides by 0
    return denoiser.member_at(grid[-1])(x, grid[-1])


def _fresh_noise(n: int, shape: tuple[int, int, int], seed: int, first: int, like: Tensor) -> Callable[[], Tensor]:
    """Noise (n, C, H, W) for one draw after another; row i of draw k depends on (seed, first + i, k) alone."""
    streams: seeding.RowStreams | None = None

    def draw() -> Tensor:
        nonlocal streams
        if streams is None:  # deterministic solvers never ask
            # mixed with its purpose, or the first draw would be the starting noise over again
            streams = seeding.RowStreams(n, seeding.mix(seed, seeding.Purpose.SOLVER_NOISE), first)
        return streams.normal(shape).to(like)

    return draw


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
