r"""What a denoiser costs: floating-point operations, counted, and milliseconds, measured.

FLOPs count a multiply and an add as two.  PyTorch's counter sees matrix products, convolutions and attention; it does
not see biases, norms, activations, softmax, comparisons or Fourier transforms, which in a network are a few per cent.
Attention is only seen in its plain form, so it is counted under the MATH kernel and without the fused encoder layer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from phasewise.errors import PhasewiseError
from phasewise.memory import called
from phasewise.modes import evaluating
from phasewise.shapes import ImageShape

Denoise = Callable[[Tensor, float], Tensor]

PROBE_TIME = 0.5
SHORTEST_ROUND_S = 0.005


def count_flops(denoiser: Denoise, image_shape: ImageShape, batch: int = 1) -> int:
    """FLOPs per image of one call ``denoiser(x_t (batch, C, H, W), 0.5)``, multiply and add counted as two.

    What a call does once however many images it holds (an embedding of a single time) is shared among ``batch``.
    The denoiser's training mode and the caller's random state are left as they were.
    """
    x = _probe(denoiser, image_shape, batch, seed=0)
    counter = FlopCounterMode(display=False)
    with evaluating(denoiser), torch.inference_mode(), plain_attention(), counter:
        denoiser(x, PROBE_TIME)
    return round(counter.get_total_flops() / batch)


def measure_ms(
    denoisers: Mapping[str, Denoise], image_shape: ImageShape, batch: int = 64, repeats: int = 7, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Milliseconds per image and call: name -> (median, half the interquartile range) over ``repeats`` rounds.

    Each round times every denoiser in turn (A B C, A B C, ...), after one untimed round, so that a machine whose speed
    drifts changes all alike and ratios hold.  Calls shorter than 5 ms are repeated within a round.  All denoisers get
    the same noise (batch, C, H, W), drawn from ``seed``.
    """
    if repeats < 1 or not denoisers:
        raise PhasewiseError(f"need at least one denoiser and one repeat, got {len(denoisers)} and {repeats}")
    inputs = {name: _probe(d, image_shape, batch, seed) for name, d in denoisers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in denoisers}
    with evaluating(*denoisers.values()), torch.inference_mode():
        for name, denoiser in denoisers.items():
            # untimed: caches, compilation, and a batch that does not fit
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
    if len(image_shape) != 3 or min(image_shape) < 1 or batch < 1:
        raise PhasewiseError(f"need image_shape (C, H, W) and batch >= 1, got {image_shape!r} and {batch}")
    x = torch.randn(batch, *image_shape, generator=torch.Generator().manual_seed(seed))
    tensors = (*denoiser.parameters(), *denoiser.buffers()) if isinstance(denoiser, nn.Module) else ()
    return x.to(tensors[0].device) if tensors else x


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention as matrix products, which the counter can see."""
    fused = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fused)
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
