"""Training one network or several in one pass over the data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phasewise.data import ImageData, as_images
from phasewise.denoisers.base import Denoiser, NetworkDenoiser
from phasewise.errors import PhasewiseError
from phasewise.results import TrainingRecord
from phasewise.training.batches import Batches
from phasewise.training.presets import TrainPreset, get_preset
from phasewise.training.progress import Interrupt, Progress
from phasewise.training.trainer import Trainer


def train(
    denoiser: NetworkDenoiser,
    data: ImageData | Tensor | str,
    preset: str | TrainPreset = "default",
    *,
    name: str | None = None,
    seed: int = 0,
    epochs: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    span: tuple[float, float] = (0.0, 1.0),
    teacher: Denoiser | None = None,
    progress: bool | Callable[[dict[str, Any]], None] = True,
    checkpoint_every: float = 60.0,
) -> TrainingRecord:
    """Train ``denoiser`` in place on ``data.train``; afterwards it holds the averaged (EMA) weights, in eval mode.

    Args:
        data: ImageData, a tensor (N, C, H, W), or a name for :func:`phasewise.load_images`.
        preset: "default", "compiled", "paper", or a TrainPreset; ``epochs``, ``steps``, ``batch`` override its fields.
        out: folder for ``checkpoint.safetensors`` and ``training.json``; a stopped training resumes from it.
        span: train only on noise times in this interval (an expert).
        teacher: learn this denoiser's posterior mean at x_t instead of the clean image (distillation); held-out losses
            are against the clean image all the same.
        progress: print a live line, or call this function with each row of progress.

    Raises PhasewiseError on images of another shape, a loss that is not finite, or a batch too large for the memory
    (naming one that is not); CheckpointError when the checkpoint
    in ``out`` belongs to another training.  Ctrl-C writes a checkpoint first.
    """
    name = name or type(denoiser).__name__
    plan = get_preset(preset, epochs=epochs, steps=steps, batch=batch)
    run = Together({name: denoiser}, data, plan, seed, {name: out}, device, span, teacher)
    return run.run(name, progress, checkpoint_every)[name]


def train_together(
    denoisers: Mapping[str, NetworkDenoiser],
    data: ImageData | Tensor | str,
    preset: str | TrainPreset = "default",
    *,
    seed: int = 0,
    epochs: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    span: tuple[float, float] = (0.0, 1.0),
    teacher: Denoiser | None = None,
    progress: bool | Callable[[dict[str, Any]], None] = True,
    checkpoint_every: float = 60.0,
) -> dict[str, TrainingRecord]:
    """Train several networks in one pass over the data: each batch, and a teacher's answer to it, is made once for all.

    Each network ends with the weights :func:`train` would have given it alone; ``out`` holds a folder per name.  Worth
    it with a ``teacher``, whose call costs more than a local network's step.  Other arguments as for :func:`train`;
    the networks must share one path.
    """
    if not denoisers:
        raise PhasewiseError("nothing to train: give at least one network")
    plan = get_preset(preset, epochs=epochs, steps=steps, batch=batch)
    folders = {name: None if out is None else Path(out) / name for name in denoisers}
    run = Together(denoisers, data, plan, seed, folders, device, span, teacher)
    return run.run(", ".join(denoisers), progress, checkpoint_every)


class Together:
    """One pass over the data for one or several networks, in step with each other."""

    def __init__(
        self,
        denoisers: Mapping[str, NetworkDenoiser],
        data: ImageData | Tensor | str,
        plan: TrainPreset,
        seed: int,
        folders: Mapping[str, str | Path | None],
        device: str | torch.device | None,
        span: tuple[float, float],
        teacher: Denoiser | None,
    ) -> None:
        for denoiser in denoisers.values():
            if not isinstance(denoiser, NetworkDenoiser):
                raise PhasewiseError(
                    f"{type(denoiser).__name__} has nothing to train by gradient; a Wiener denoiser is fitted with "
                    "WienerDenoiser.fit(data.train)"
                )
        if not 0 <= span[0] < span[1] <= 1:
            raise PhasewiseError(f"span must be an interval inside [0, 1], got {span}")
        data = as_images(data)
        first = next(iter(denoisers.values()))
        if any(denoiser.path != first.path for denoiser in denoisers.values()):
            raise PhasewiseError("networks trained together must share one path: they see the same noisy images")
        on = torch.device(device) if device is not None else next(first.parameters()).device
        self.batches = Batches(
            data.train.to(on), min(plan.batch, len(data.train)), seed=seed, times=plan.times, span=span,
            path=first.path, teacher=teacher,
        )  # fmt: skip
        self.trainers = {
            name: Trainer(denoiser, data, self.batches, plan, name, folders[name])
            for name, denoiser in denoisers.items()
        }
        self.steps = next(iter(self.trainers.values())).steps

    def run(
        self, title: str, progress: bool | Callable[[dict[str, Any]], None], checkpoint_every: float
    ) -> dict[str, TrainingRecord]:
        lines = {name: Progress(name, self.steps, progress if callable(progress) else False) for name in self.trainers}
        report = Progress(title, self.steps, progress is True)
        try:
            for trainer in self.trainers.values():
                trainer.resume()
            step = min(trainer.step for trainer in self.trainers.values())
            for line in (report, *lines.values()):
                line.begin(step)
            with Interrupt() as interrupt:
                self.loop(step, report, lines, interrupt, checkpoint_every)
        finally:
            report.end()
            for trainer in self.trainers.values():
                trainer.release()
        return {name: trainer.finish() for name, trainer in self.trainers.items()}

    def loop(
        self, step: int, report: Progress, lines: dict[str, Progress], interrupt: Interrupt, checkpoint_every: float
    ) -> None:
        saved = time.monotonic()
        while step < self.steps:
            started = time.monotonic()
            batch = self.batches.draw(step)
            due = [trainer for trainer in self.trainers.values() if trainer.step == step]
            share = (time.monotonic() - started) / len(due)
            for trainer in due:
                row = trainer.advance(batch, share)
                if row is not None:
                    report.row(row)
                    lines[trainer.name].row(row)
            step += 1
            report.tick(step)
            if interrupt.asked or (time.monotonic() - saved > checkpoint_every and step < self.steps):
                for trainer in self.trainers.values():
                    trainer.save_checkpoint()
                saved = time.monotonic()
            if interrupt.asked:
                raise KeyboardInterrupt
