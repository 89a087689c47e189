"""Time grids: where the sampler's steps lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError, unknown
from phasewise.paths import LinearPath, NoisePath, a_path

SHIFTS = {"shift2": 2.0, "shift4": 4.0, "shift8": 8.0}
"""Factors on the odds of a time, for images of two, four and eight times the side of those that "uniform" suits."""
SPACINGS = ("uniform", *SHIFTS, "log_snr", "edm")


@checks.checked(
    steps=checks.steps,
    path=a_path,
    t_start=checks.number,
    t_min=checks.number,
    spacing=checks.one_of(SPACINGS, "spacing"),
)
def time_grid(
    steps: int, *, path: NoisePath | None = None, t_start: float = 1.0, t_min: float = 0.02, spacing: str = "uniform"
) -> tuple[float, ...]:
    """``steps`` start times, descending from ``t_start`` to ``t_min``; the last step, from t_min to 0, is a denoise.

    Spacing: "uniform" in t; "shift2", "shift4" and "shift8" uniform in the t whose noise to signal ratio is a half, a
    quarter, an eighth (Esser et al. 2024, arXiv 2403.03206, eq. 23: for images of 64, 128 and 256 pixels a side, whose
    large shapes show through more noise than those of 32); "log_snr" uniform in log-SNR (from at most t = 0.995, where
    the linear path's is finite); "edm": uniform in (sigma / alpha)^(1/7) (Karras et al. 2022, eq. 5).
    """
    path = LinearPath() if path is None else path
    if steps < 1:
        raise PhasewiseError(f"steps must be at least 1, got {steps}")
    if not 0 < t_min < t_start <= 1 and steps > 1:
        raise PhasewiseError(f"need 0 < t_min < t_start <= 1, got t_min {t_min} and t_start {t_start}")
    if spacing not in SPACINGS:
        raise PhasewiseError(unknown("spacing", spacing, SPACINGS))
    if steps == 1:  # nothing but the denoise from t_start
        return (float(t_start),)
    if spacing == "uniform":
        return tuple(torch.linspace(t_start, t_min, steps, dtype=torch.float64).tolist())
    if spacing in SHIFTS:
        return _shifted(steps, path, t_start, t_min, SHIFTS[spacing])
    cut = 0.995 if t_min < 0.995 else (t_min + t_start) / 2  # above the end, wherever that is
    high, low = path.log_snr(min(t_start, cut)), path.log_snr(t_min)
    if spacing == "log_snr":
        grid = path.t_of_log_snr(torch.linspace(float(high), float(low), steps, dtype=torch.float64))
    else:
        rho = 7.0
        ends = torch.exp(-torch.stack([high, low]) / 2) ** (1 / rho)  # sigma / alpha = exp(-log-SNR / 2)
        ratio = (ends[0] + torch.linspace(0, 1, steps, dtype=torch.float64) * (ends[1] - ends[0])) ** rho
        grid = path.t_of_log_snr(-2 * ratio.log())
    times = grid.tolist()
    # exactly as asked: the way back from log-SNR rounds, and the start was cut at t = 0.995
    times[0], times[-1] = float(t_start), float(t_min)
    return tuple(times)


def _shifted(steps: int, path: NoisePath, t_start: float, t_min: float, factor: float) -> tuple[float, ...]:
    """Uniform in the time whose sigma / alpha is that of t over ``factor``: a log-SNR higher by 2 log(factor)."""

    def moved(t: Tensor, by: float) -> Tensor:
        level = path.log_snr(t)
        return torch.where(level.isfinite(), path.t_of_log_snr(torch.nan_to_num(level) + by), t)

    ends = torch.tensor([t_start, t_min], dtype=torch.float64)
    by = 2 * math.log(factor)
    high, low = moved(ends, by).tolist()
    times = moved(torch.linspace(high, low, steps, dtype=torch.float64), -by).tolist()
    return (float(t_start), *times[1:-1], float(t_min))  # the ends as asked: the way there and back rounds
