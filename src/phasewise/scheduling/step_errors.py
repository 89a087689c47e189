"""What one solver step of finite length does to the image in the end, by where it starts and where it ends.

The penalty of a step's *length*: without it, one giant step would look free.  Measured with the reference denoiser: on
its own ODE path, finely solved, one step is taken by the solver instead, and both ends of the step are carried on down
to the image; their distance there is the step's error.  Carrying on matters: what a step gets wrong in directions that
are noise still is forgotten, what it gets wrong of the coarse image grows.  A step by another denoiser is taken to
stray as far.

For one-step solvers only: the error of a multistep step depends on the steps before it, and successive ones cancel in
part, so a sum over steps ranks grids wrongly (studies/LOG.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers.base import Condition, Denoiser, a_denoiser, denoisers_by_name
from phasewise.denoisers.condition import bind, condition_rows, first_rows
from phasewise.errors import PhasewiseError
from phasewise.modes import in_evaluation
from phasewise.paths import isotropic
from phasewise.results import StepErrors
from phasewise.sampling import Carry, get_solver, integrate, starting_noise
from phasewise.sampling.loop import check_time_grid
from phasewise.sampling.solvers import solver_name

FINE, BATCH = 3, 64


@in_evaluation
@torch.inference_mode()
@checks.checked(
    denoiser=a_denoiser, times=checks.each(checks.number), solver=solver_name, n=checks.at_least_2, seed=checks.seed
)
def measure_step_errors(
    denoiser: Denoiser,
    times: Sequence[float],
    *,
    solver: str = "heun",
    cond: Condition | None = None,
    n: int = 32,
    seed: int = 0,
) -> StepErrors:
    """One step of ``solver`` from every candidate time to every later one, on ``n`` paths of ``denoiser`` from noise.

    The path: Heun with 3 steps between neighbouring candidates, and on below the last one to a quarter of it.  Strayed
    and true points are carried on alike, one multistep step per candidate, so that what this adds cancels.  A multistep
    ``solver`` is given the step before, of the same length where the grid allows; a first step has none.

    Takes about ``T^3 / 6`` calls on ``n`` images for T candidates.  ``cond``: a label, or a row for each path.

    Raises PhasewiseError for a stochastic solver (the penalty ``kl`` knows its steps' length already), a grid that does
    not decrease, or fewer than 2 images.
    """
    isotropic(denoiser.path, "the error of a step")
    grid, chosen = check_time_grid(times), get_solver(solver)
    if chosen.stochastic:
        raise PhasewiseError(f"{solver} has no ODE path to stray from; use penalty 'kl'")
    if chosen.multistep:
        raise PhasewiseError(f"the errors of {solver} do not add up over steps; place the steps for heun or euler")
    rows = condition_rows(first_rows(cond, n), n, [denoiser])
    denoiser, together = bind(denoiser, rows), _together(rows, n)
    points, end = _trajectories(denoiser, grid, n, seed)
    # every step from one time starts with the same answer: asked once
    known = _Remembering(denoiser, dict(zip(grid, points, strict=True)))
    size = len(grid)
    error = np.full((size, size), np.nan)
    for j in range(1, size):
        strayed = [chosen.step(known, points[i], grid[i], grid[j], Carry()) for i in range(j)]
        carried = _carry_on(denoiser, torch.cat([points[j], *strayed]), grid[j:], together)
        truth, *others = carried.split(n)
        error[:j, j] = [_rms(x - truth) for x in others]
    stop = np.array([_rms(known(points[i], t) - end) for i, t in enumerate(grid)])
    return StepErrors(
        times=np.array(grid), error=error, stop=stop, solver=solver, n=n, seed=seed, path=denoiser.path.config()
    )


def _together(rows: Tensor | None, n: int) -> int:
    """How many are carried on at once: those given a condition answer all n trajectories."""
    return BATCH if rows is None else n


def _carry_on(denoiser: Denoiser, x: Tensor, grid: tuple[float, ...], size: int) -> Tensor:
    """From grid[0] to the image, ``size`` images at a time."""
    return torch.cat([integrate(denoiser, part, grid, "exp_ab2") for part in x.split(size)])


@in_evaluation
@torch.inference_mode()
@checks.checked(
    denoisers=denoisers_by_name,
    times=checks.each(checks.number),
    reference=checks.text,
    n=checks.at_least_2,
    seed=checks.seed,
)
def measure_growth(
    denoisers: Mapping[str, Denoiser],
    times: Sequence[float],
    *,
    reference: str = "global",
    cond: Condition | None = None,
    n: int = 16,
    seed: int = 0,
) -> np.ndarray:
    """(T, N): by what factor a push off the reference's path grows on its way to the image.

    On ``n`` trajectories of the reference each denoiser in turn takes one Euler step from one time to the next; pushed
    and true points are then carried on by the reference.  Root mean square of their distance at the image over that of
    the push: above 1 where the flow spreads, below 1 where it forgets.  1 for the reference itself, and at the last
    time.

    Takes about ``N T^2 / 2`` calls on ``n`` images.  Raises PhasewiseError as :func:`measure_step_errors` does.
    """
    grid = check_time_grid(times)
    rows = condition_rows(first_rows(cond, n), n, denoisers.values())
    denoisers, together = {name: bind(d, rows) for name, d in denoisers.items()}, _together(rows, n)
    base = denoisers[reference]
    points, _ = _trajectories(base, grid, n, seed)
    out = np.ones((len(grid), len(denoisers)))
    others = [(k, d.on(base.path)) for k, d in enumerate(denoisers.values())]
    others = [(k, d) for k, d in others if d is not base]
    for i, (t, s) in enumerate(zip(grid, grid[1:], strict=False)):
        known = base(points[i], t)
        truth = points[i + 1]
        # an Euler step differs by (s - t) (v_n - v_ref) = gain (t - s) (D_n - D_ref), for dv/dD = -gain
        scale = float(base.path.velocity_gain(t)) * (t - s)
        pushes = [scale * (d(points[i], t) - known) for _, d in others]
        carried = _carry_on(base, torch.cat([truth, *(truth + push for push in pushes)]), grid[i + 1 :], together)
        end, *ends = carried.split(n)
        for (k, _), push, moved in zip(others, pushes, ends, strict=True):
            size = _rms(push)
            out[i, k] = _rms(moved - end) / size if size > 0 else 1.0
    return out


class _Remembering(Denoiser):
    """Answers at the points of a path from memory."""

    def __init__(self, inner: Denoiser, path: dict[float, Tensor]) -> None:
        super().__init__(inner.image_shape, inner.path)
        self.inner, self.points = inner, path
        self.answers: dict[float, Tensor] = {}

    def forward(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> Tensor:  # type: ignore[override]
        if self.points.get(t) is not x_t:  # by identity: what a corrector asks at is another tensor
            return self.inner(x_t, t)
        if t not in self.answers:
            self.answers[t] = self.inner(x_t, t)
        return self.answers[t]


def _trajectories(denoiser: Denoiser, grid: tuple[float, ...], n: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """Points (n, C, H, W) at every time of the grid, and the end of the path."""
    heun = get_solver("heun").step
    scale = float(denoiser.path.sigma(torch.tensor(grid[0], dtype=torch.float64)))
    x = starting_noise(n, denoiser.image_shape, seed).to(denoiser.device) * scale
    points = [x]
    # on below the last candidate, so that a denoise from there has a finer end to be held against
    for t, s in zip(grid, (*grid[1:], grid[-1] / 4), strict=True):
        fine = np.linspace(t, s, FINE + 1).tolist()
        for a, b in zip(fine, fine[1:], strict=False):
            x = heun(denoiser, x, a, b, Carry())
        points.append(x)
    return points[:-1], denoiser(x, grid[-1] / 4)


def _rms(difference: Tensor) -> float:
    # root of the mean squared L2 norm over whole images
    return float(difference.double().flatten(1).square().sum(1).mean().sqrt())
