"""The whole sampling loop of one schedule and batch size, captured once and replayed: for many images on a GPU.

Launching the kernels of a small network takes longer than computing them.  A CUDA graph holds all launches of a loop,
from the starting noise to the last denoise, whichever member, solver and history a step has; a replay is one launch.
What changes from call to call goes through buffers: starting noise, the solver's noise, the condition.
On a CPU there is nothing to capture, and the same loop runs as :func:`phasewise.sample` runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers import Condition, Denoiser, SamplingPlan, bind, for_inference
from phasewise.denoisers.base import a_denoiser
from phasewise.denoisers.condition import unbound
from phasewise.denoisers.trust import checked_conditions
from phasewise.errors import PhasewiseError
from phasewise.memory import out_of_memory
from phasewise.modes import evaluating
from phasewise.sampling.batches import Progress, in_batches
from phasewise.sampling.loop import HOW, check_start, integrate, rows_on, sampling_plan, start_of
from phasewise.sampling.noise import Between, RowNoise, StepNoise, check_noise, solver_noise

WARM_UP = 2
"""Loops before the capture: libraries choose their kernels, filters and compiled code are made."""


@checks.checked(
    denoiser=a_denoiser,
    batch=checks.count,
    precision=checks.text,
    compile=checks.flag,
    graph=checks.flag,
    **HOW,
)
def for_sampling(
    denoiser: Denoiser,
    *,
    batch: int = 64,
    precision: str = "float32",
    compile: bool = False,
    graph: bool = True,
    steps: int | None = None,
    solver: str | None = None,
    times: Sequence[float] | None = None,
    t_start: float | None = None,
    t_min: float | None = None,
    spacing: str | None = None,
    noise: str = "fresh",
) -> CompiledSampler:
    """A sampler of ``denoiser`` made ready for many calls: ``for_sampling(d, batch=256)(n=10_000, seed=0)``.

    Args:
        denoiser: any, on the device it is to run on; a hybrid brings grid and solver.
        batch: images in the buffers; a last batch of fewer takes as long.
        precision, compile: of the networks (:func:`phasewise.denoisers.for_inference`).
        graph: on a GPU capture the loop in a CUDA graph at the first call; elsewhere it means nothing.
        steps, solver, times, t_start, t_min, spacing, noise: as in :func:`phasewise.sample`.

    Images are those of ``sample`` at the same seed and batch: on a CPU to the bit in float32, on a GPU to about 1e-4.

    Raises PhasewiseError as ``sample`` and ``for_inference`` do.
    """
    if batch < 1:
        raise PhasewiseError(f"batch must be at least 1, got {batch}")
    plan = sampling_plan(
        denoiser, steps=steps, solver=solver, times=times, t_start=t_start, t_min=t_min, spacing=spacing
    )
    check_noise(noise, denoiser.path)  # at once
    faster = for_inference(denoiser, compile=compile, precision=precision)
    return CompiledSampler(faster, plan, batch, graph, t_start, noise)


class CompiledSampler:
    """``sampler(n, seed=0, cond=None, x_init=None)`` gives (n, C, H, W) float32 on the CPU; made by
    :func:`for_sampling`.

    Weights changed in place are seen by the next call.  A network moved, or given other weight tensors, needs another
    sampler.  Buffers for starting noise and every draw of the solver lie on the GPU: batch images for each.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        plan: SamplingPlan,
        batch: int,
        graph: bool = True,
        t_start: float | None = None,
        noise: str = "fresh",
    ) -> None:
        self.denoiser, self.cond = unbound(denoiser, None)
        self.plan, self.batch, self.t_start, self.noise = plan, batch, t_start, noise
        self.device = denoiser.device
        self.graph = graph and self.device.type == "cuda"
        self.loops: dict[tuple[object, ...], CapturedLoop] = {}
        """By form of the condition: captured when it first comes."""

    def __call__(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        cond: Condition | None = None,
        x_init: Tensor | None = None,
        progress: bool | Progress | None = None,
    ) -> Tensor:
        """``n`` images (default: a batch), as :func:`phasewise.sample` gives them for this seed and condition.

        ``x_init`` (n, C, H, W) at ``t_start`` starts there.  Raises PhasewiseError as ``sample`` does.
        """
        denoiser, device = self.denoiser, self.device
        if cond is not None and self.cond is not None:
            raise PhasewiseError("this sampler's denoiser has its condition bound already; leave cond out")
        x_init = check_start(x_init, self.t_start, denoiser)
        n = len(x_init) if x_init is not None else self.batch if n is None else n
        if n < 1:
            raise PhasewiseError(f"n must be at least 1, got {n}")
        rows = rows_on(device, self.cond if cond is None else cond, n, denoiser)

        @torch.inference_mode()
        def run(size: int, first: int) -> Tensor:
            x = start_of(denoiser, self.plan.times[0], size, seed, first, device, x_init)
            noise = solver_noise(size, denoiser.image_shape, seed, first, device, self.noise)
            part = None if rows is None else rows[first : first + size]
            if self.graph:
                return self._loop(part)(x, noise, part)
            return integrate(bind(denoiser, part), x, *self.plan, noise=noise)

        with evaluating(denoiser), checked_conditions():
            return in_batches(run, n, self.batch, progress)

    def _loop(self, rows: Tensor | None) -> CapturedLoop:
        form = () if rows is None else (rows.shape[1:], rows.dtype)
        if form not in self.loops:
            self.loops[form] = CapturedLoop(self.denoiser, self.plan, self.batch, self.device, rows)
        return self.loops[form]


class CapturedLoop:
    """A CUDA graph of one loop: from ``x`` (batch, C, H, W) at the first time to the images in ``out``.

    Raises PhasewiseError where a step waits for the GPU, which a graph cannot hold.
    """

    def __init__(
        self, denoiser: Denoiser, plan: SamplingPlan, batch: int, device: torch.device, rows: Tensor | None
    ) -> None:
        self.x = torch.zeros(batch, *denoiser.image_shape, device=device)
        self.rows = None if rows is None else rows[:1].expand(batch, *rows.shape[1:]).clone()
        told = bind(denoiser, self.rows)
        self.draws = _Draws(self.x)
        with _beside(device):  # what is allocated for the first time may not be inside a capture
            for _ in range(WARM_UP):
                self.draws.rewind()
                integrate(told, self.x, *plan, noise=self.draws)
        self.draws.rewind()
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.out = integrate(told, self.x, *plan, noise=self.draws)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            raise PhasewiseError(
                f"the loop of this denoiser cannot be captured: a step waits for the GPU ({error}); pass graph=False"
            ) from error

    def __call__(self, x: Tensor, noise: RowNoise, rows: Tensor | None) -> Tensor:
        """Images (n, C, H, W) of ``x`` (n, C, H, W), n at most the batch; overwritten by the next call."""
        n = len(x)
        self.x[:n].copy_(x)
        for buffer, between in self.draws.buffers:
            buffer[:n].copy_(noise.host(between), non_blocking=True)
        if self.rows is not None and rows is not None:
            self.rows[:n].copy_(rows)
        self.graph.replay()
        return self.out[:n]


class _Draws(StepNoise):
    """Buffers shaped like ``x`` for every draw of a loop, in its order, each with the step it is for."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.next = x, 0
        self.buffers: list[tuple[Tensor, Between | None]] = []

    def rewind(self) -> None:
        """The loop starts over."""
        self.next = 0

    def __call__(self, between: Between | None = None) -> Tensor:
        if self.next == len(self.buffers):
            self.buffers.append((torch.zeros_like(self.x), between))
        self.next += 1
        return self.buffers[self.next - 1][0]


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """Work on a stream of its own; what is asked for next waits for it."""
    here, beside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        yield
    here.wait_stream(beside)
