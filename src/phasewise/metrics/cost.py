r"""What a denoiser costs: floating-point operations, counted (:mod:`phasewise.flops`), and milliseconds, measured."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from phasewise import checks, seeding
from phasewise.flops import PROBE_TIME, Denoise, count_call, primed
from phasewise.memory import called
from phasewise.modes import evaluating
from phasewise.shapes import ImageShape

SHORTEST_ROUND_S = 0.005


@checks.checked(denoiser=checks.function, image_shape=checks.image_shape, batch=checks.count)
def count_flops(denoiser: Denoise, image_shape: ImageShape, batch: int = 1) -> int:
    """FLOPs per image of one call ``denoiser(x_t (batch, C, H, W), 0.5)``, multiply and add counted as two.

    What a call does once however many images it holds (an embedding of a single time) is shared among ``batch``; what
    only a first call does (a filter that is kept) is left out.  A module that is not made of PyTorch's operations says
    its cost itself, as ``flops_per_image``.  Training mode and the caller's random state are left as they were.

    Raises PhasewiseError naming an operation that cannot be counted: nothing is free for not being seen.
    """
    x = _probe(denoiser, image_shape, batch, seed=0)
    with evaluating(denoiser), torch.inference_mode():
        return round(count_call(denoiser, x) / batch)


@checks.checked(
    denoisers=checks.by_name(checks.function),
    image_shape=checks.image_shape,
    batch=checks.count,
    repeats=checks.count,
    seed=checks.seed,
)
def measure_ms(
    denoisers: Mapping[str, Denoise], image_shape: ImageShape, batch: int = 64, repeats: int = 7, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Milliseconds per image and call: name -> (median, half the interquartile range) over ``repeats`` rounds.

    Each round times every denoiser in turn (A B C, A B C, ...), after one untimed round, so that a machine whose speed
    drifts changes all alike and ratios hold.  Calls shorter than 5 ms are repeated within a round.  All denoisers get
    the same noise (batch, C, H, W), drawn from ``seed``.
    """
    inputs = {name: _probe(d, image_shape, batch, seed) for name, d in denoisers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in denoisers}
    with evaluating(*denoisers.values()), torch.inference_mode():
        for name, denoiser in denoisers.items():
            # untimed: caches, compilation, and a batch that does not fit
            with primed(denoiser, inputs[name]):
                called(denoiser, inputs[name], PROBE_TIME, f"timing {name}")
        calls = {
            name: math.ceil(SHORTEST_ROUND_S / max(_seconds(d, inputs[name], 1), 1e-6)) for name, d in denoisers.items()
        }
        for _ in range(repeats):
            for name, denoiser in denoisers.items():
                seconds[name].append(_seconds(denoiser, inputs[name], calls[name]))
    return {name: _median_and_spread(values, 1e3 / batch) for name, values in seconds.items()}


def _seconds(denoiser: Denoise, x: Tensor, calls: int) -> float:
    """Mean wall-clock seconds of ``calls`` calls, waiting for an accelerator to finish."""
    with primed(denoiser, x):
        _synchronise(x.device)
        start = time.perf_counter()
        for _ in range(calls):
            denoiser(x, PROBE_TIME)
        _synchronise(x.device)
        return (time.perf_counter() - start) / calls


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _median_and_spread(values: list[float], unit: float) -> tuple[float, float]:
    low, middle, high = torch.tensor(values, dtype=torch.float64).quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    )
    return float(middle) * unit, float(high - low) / 2 * unit


def _probe(denoiser: Denoise, image_shape: ImageShape, batch: int, seed: int) -> Tensor:
    """Noise (batch, C, H, W) on the denoiser's device."""
    x = torch.randn(batch, *image_shape, generator=seeding.plain(seed))
    tensors = (*denoiser.parameters(), *denoiser.buffers()) if isinstance(denoiser, nn.Module) else ()
    return x.to(tensors[0].device) if tensors else x
