"""Receptive-field ablation: noise held-out images to time t, run the reverse ODE back, compare with the originals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from phasewise import checks, seeding
from phasewise.denoisers import Condition, Denoiser, condition_rows
from phasewise.denoisers.base import denoisers_by_name
from phasewise.results import DEFAULT_SOLVER, Recovery
from phasewise.sampling.grid import time_grid
from phasewise.sampling.loop import sample
from phasewise.sampling.solvers import solver_name


@checks.checked(
    denoisers=denoisers_by_name,
    images=checks.images,
    times=checks.times,
    steps=checks.steps,
    solver=solver_name,
    seed=checks.seed,
    keep=checks.count,
    t_min=checks.fraction,
    batch=checks.count,
)
def measure_recovery(
    denoisers: Mapping[str, Denoiser],
    images: Tensor,
    times: Sequence[float],
    *,
    steps: int = 16,
    solver: str = DEFAULT_SOLVER,
    cond: Condition | None = None,
    seed: int = 0,
    keep: int = 8,
    t_min: float = 0.02,
    batch: int = 250,
) -> tuple[Recovery, dict[str, Tensor]]:
    """Recovery error per pixel from each start time with each denoiser, and the first ``keep`` images of each cell.

    ``steps`` is the number of steps from t = 1; a run from t takes its share, at least 2.  Returns the record and
    tensors "original" (k, C, H, W), "noisy" (T, k, ...), "recovered" (T, N, k, ...) in pixel units.
    ``cond``, a class label or a tensor with a row for each image, goes to every denoiser that takes one.
    Source: receptive-field ablation of arXiv 2508.06614.
    """
    mse, stderr = np.zeros((len(times), len(denoisers))), np.zeros((len(times), len(denoisers)))
    noisy, recovered = [], []
    rows = condition_rows(cond, len(images), denoisers.values())
    for k, t in enumerate(times):
        # one noise at each time for all denoisers: their errors are paired
        z = torch.randn(images.shape, generator=seeding.generator(seed, seeding.Purpose.RECOVERY, k)).to(images.device)
        row = []
        for i, denoiser in enumerate(denoisers.values()):
            count = max(2, round(steps * t))
            # a start below t_min still has two steps
            grid = time_grid(count, path=denoiser.path, t_start=float(t), t_min=min(t_min, t / 2))
            x_t = denoiser.path.add_noise(images, z, float(t))
            told = rows if denoiser.takes_condition else None
            back = sample(denoiser, x_init=x_t, t_start=float(t), times=grid, solver=solver, cond=told, batch=batch)
            error = (back - images.cpu()).double().square().flatten(1).mean(1)
            mse[k, i] = float(error.mean())
            stderr[k, i] = float(error.std() / len(error) ** 0.5)
            row.append(back[:keep])
            if i == 0:
                noisy.append(x_t[:keep].cpu())
        recovered.append(torch.stack(row))
    record = Recovery(
        times=np.asarray(times, dtype=float),
        names=tuple(denoisers),
        radii=tuple(d.radius for d in denoisers.values()),
        mse=mse,
        mse_stderr=stderr,
        steps=steps,
        solver=solver,
        n=len(images),
        seed=seed,
    )
    pictures = {"original": images[:keep].cpu(), "noisy": torch.stack(noisy), "recovered": torch.stack(recovered)}
    return record, pictures
