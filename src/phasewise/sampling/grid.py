"""Time grids: where the sampler's steps lie."""

from __future__ import annotations

import torch

from phasewise import checks
from phasewise.errors import PhasewiseError, unknown
from phasewise.paths import LinearPath, NoisePath, a_path

SPACINGS = ("uniform", "log_snr", "edm")


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

    Spacing: "uniform" in t; "log_snr" uniform in log-SNR (from at most t = 0.995, where the linear path's is finite);
    "edm": uniform in (sigma / alpha)^(1/7) (Karras et al. 2022, eq. 5).
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
