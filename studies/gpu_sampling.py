"""Sampling eager and captured, in float32 and bfloat16, by batch: what a GPU gains, and what rounding costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import Denoiser, for_inference
from phasewise.sampling import for_sampling
from phasewise.sampling.noise import RowNoise
from studies.options import choice
from studies.pages import markdown
from studies.speed import resized
from studies.study import Answers, Cell, Study
from studies.timing import Work, seconds_of

WAYS = ("eager float32", "graph float32", "eager bfloat16", "graph bfloat16", "graph bfloat16 compiled")
BASE = WAYS[0]


@dataclass(frozen=True)
class Options:
    batches: tuple[int, ...] = choice((1, 64, 1024), "images of a call", quick=(1, 4))
    schedules: tuple[str, ...] = choice(
        ("global", "hybrid", "local_only"), "shipped MNIST schedules", quick=("hybrid",)
    )
    solver: str = choice("sde_dpmpp_2m", "of all of them")
    steps: int = choice(8, "of all of them", quick=2)
    rounds: int = choice(9, "every way once in each", quick=1)
    ways: tuple[str, ...] = choice(WAYS, "to sample", quick=WAYS[:3])
    device: str = choice("", "to sample on; none: a GPU where there is one")


class GPUSampling(Study[Options]):
    """All ways are timed in turn, round after round; a time is the median of a whole call of the sampler, from the seed
    to images on the CPU, per image, with half the interquartile range.  "noise" is the drawing of all its noise alone.
    Errors are the root mean square of the difference from eager float32 over that of the images.  Products of float32
    are not in TF32.  Without a GPU a captured loop is an eager one."""

    name = "gpu_sampling"
    question = "How much faster is sampling on a GPU, captured and in bfloat16?"
    page = "howto/make-it-faster.md"
    options_type = Options

    @property
    def device(self) -> torch.device:
        return torch.device(self.options.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def cells(self) -> Iterator[Cell]:
        machine = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        asked = {"machine": machine, "solver": self.options.solver, "steps": self.options.steps}
        for batch in self.options.batches:
            for name in self.options.schedules:
                yield Cell(f"{name}/{batch}", {**asked, "ways": self.options.ways}, (name, batch))

    def measure(self, cell: Cell) -> dict[str, Any]:
        name, batch = cell.what
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        denoiser = self.denoiser(name).to(self.device)
        samplers = {way: sampler(way, denoiser, batch) for way in self.options.ways}
        exact = samplers[BASE]()
        errors = {way: relative(draw(), exact) for way, draw in samplers.items() if way != BASE}
        works: dict[str, Work] = {**samplers, "noise": self.noise(denoiser, batch)}
        seen = seconds_of(works, self.options.rounds)
        return {"ms": {way: spread(seconds, 1e3 / batch) for way, seconds in seen.items()}, "error": errors}

    def denoiser(self, name: str) -> pw.HybridDenoiser:
        ready = pw.load_pretrained("mnist")
        steps = self.options.steps
        who = resized(ready.schedules[name].assignment, steps)
        plan = replace(ready.schedules[name], times=pw.time_grid(steps), assignment=who, solver=self.options.solver)
        return pw.HybridDenoiser(ready.denoisers(), plan)

    def noise(self, denoiser: Denoiser, batch: int) -> Work:
        """Drawing of all that a call needs, copied to the device."""
        draws = self.options.steps if pw.sampling.get_solver(self.options.solver).stochastic else 1

        def work() -> None:
            source = RowNoise(batch, denoiser.image_shape, 0, 0, self.device)
            for _ in range(draws):
                last = source()
            last[0, 0, 0, 0].item()

        return work

    def tables(self, answers: Answers) -> dict[str, str]:
        ways = list(dict.fromkeys(way for answer in answers.values() for way in answer["ms"]))
        rows = []
        for cell, answer in answers.items():
            name, batch = cell.split("/")
            times = [answer["ms"].get(way) for way in ways]
            errors = ", ".join(f"{answer['error'][way]:.1e}" for way in ways if way in answer["error"])
            rows.append([name, batch, *("" if t is None else f"{t[0]:.4f} ± {t[1]:.4f}" for t in times), errors])
        rows.sort(key=lambda row: (int(row[1]), row[0]))
        some = next(iter(answers.values()))["asked"]
        note = f"{some['machine']}; ms an image; {some['solver']}, {some['steps']} steps."
        return {"": markdown(["schedule", "batch", *ways, "relative error of the others"], rows, note)}


def sampler(way: str, denoiser: Denoiser, batch: int) -> Callable[[], Tensor]:
    """A whole call that draws ``batch`` images one of the :data:`WAYS`."""
    kind, precision, *compiled = way.split()
    if kind == "graph":
        ready = for_sampling(denoiser, batch=batch, precision=precision, compile=bool(compiled))
        return lambda: ready(batch)
    faster = for_inference(denoiser, precision=precision, compile=bool(compiled))
    return lambda: pw.sample(faster, batch, batch=batch)


def relative(images: Tensor, exact: Tensor) -> float:
    return float((images - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def spread(seconds: list[float], unit: float) -> tuple[float, float]:
    """Median and half the interquartile range, in ``unit`` of a second."""
    low, middle, high = np.quantile(np.array(seconds) * unit, [0.25, 0.5, 0.75])
    return float(middle), float(high - low) / 2
