"""Training one network or several in one pass over the data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phasewise import checks
from phasewise.data import ImageData, as_images
from phasewise.denoisers import Denoiser, NetworkDenoiser
from phasewise.denoisers.base import a_denoiser, denoisers_by_name
from phasewise.errors import PhasewiseError
from phasewise.files import beneath
from phasewise.progress import Progress
from phasewise.results import TrainingRecord
from phasewise.training.batches import Batches
from phasewise.training.interrupt import Interrupt
from phasewise.training.presets import TrainPreset, get_preset
from phasewise.training.settings import Conditions, TrainSettings, with_settings
from phasewise.training.trainer import Trainer


@with_settings
@checks.checked(denoiser=a_denoiser, name=checks.text)
def train(
    denoiser: NetworkDenoiser,
    data: ImageData | Tensor | str,
    preset: str | TrainPreset = "default",
    *,
    name: str | None = None,
    **settings: Any,
) -> TrainingRecord:
    """Train ``denoiser`` in place on ``data.train``; afterwards it holds the averaged (EMA) weights, in eval mode.

    Args:
        data: ImageData, a tensor (N, C, H, W), or a name for :func:`phasewise.load_images`.
        preset: "default", "compiled", "bf16", "brief", "gpu", "paper", or a TrainPreset.
        name: of the network in the record and in progress; default its class.
        settings: seed, steps, teacher, ...: the fields of :class:`phasewise.training.TrainSettings`, told there.

    Raises PhasewiseError on images of another shape, a condition that does not fit, a loss that is not finite, or a
    batch too large for the memory (naming one that is not); CheckpointError when the checkpoint in ``out`` belongs to
    another training.  Ctrl-C writes a checkpoint first.
    """
    chosen = TrainSettings(**settings)
    name = name or type(denoiser).__name__
    return Together({name: denoiser}, data, preset, {name: chosen.out}, chosen).run(name)[name]


@with_settings
@checks.checked(denoisers=denoisers_by_name)
def train_together(
    denoisers: Mapping[str, NetworkDenoiser],
    data: ImageData | Tensor | str,
    preset: str | TrainPreset = "default",
    **settings: Any,
) -> dict[str, TrainingRecord]:
    """Train several networks in one pass over the data: each batch, and a teacher's answer to it, is made once for all.

    Each network ends with the weights :func:`train` would have given it alone; ``out`` holds a folder per name.  Worth
    it with a ``teacher``, whose call costs more than a local network's step.  Arguments and errors as for
    :func:`train`; the networks must share one path.
    """
    if not denoisers:
        raise PhasewiseError("nothing to train: give at least one network")
    chosen = TrainSettings(**settings)
    folders = {n: None if chosen.out is None else beneath(chosen.out, n, "network's name") for n in denoisers}
    return Together(denoisers, data, preset, folders, chosen).run(", ".join(denoisers))


def null_label(denoisers: Iterable[Denoiser], conditions: Conditions) -> int:
    """The label that stands for none: the last one that the networks, and their teacher, know, and no image has.

    Raises PhasewiseError where there are no labels to hide, or no such label.
    """
    known = {getattr(denoiser, "classes", None) for denoiser in denoisers if denoiser.takes_condition}
    rows = conditions.train
    classes = known.pop() if len(known) == 1 else None
    if classes is None or rows is None or rows.dim() != 1:
        raise PhasewiseError(
            "the preset hides class labels: give networks, and a teacher, of one number of classes, and cond, the "
            "label of each image"
        )
    if int(rows.max()) >= classes - 1:
        raise PhasewiseError(
            f"the preset hides class labels, and the networks have no label to spare: of {classes} labels the last "
            f"stands for none, and images have labels up to {int(rows.max())}; build them with one class more"
        )
    return classes - 1


class Together:
    """One pass over the data for one or several networks, in step with each other."""

    def __init__(
        self,
        denoisers: Mapping[str, NetworkDenoiser],
        data: ImageData | Tensor | str,
        preset: str | TrainPreset,
        folders: Mapping[str, str | Path | None],
        settings: TrainSettings,
    ) -> None:
        for denoiser in denoisers.values():
            if not isinstance(denoiser, NetworkDenoiser):
                raise PhasewiseError(
                    f"{type(denoiser).__name__} has nothing to train by gradient; a Wiener denoiser is fitted with "
                    "WienerDenoiser.fit(data.train)"
                )
        plan = get_preset(preset, epochs=settings.epochs, steps=settings.steps, batch=settings.batch)
        images, first = as_images(data), next(iter(denoisers.values()))
        if any(denoiser.path != first.path for denoiser in denoisers.values()):
            raise PhasewiseError("networks trained together must share one path: they see the same noisy images")
        taught = [*denoisers.values(), *([] if settings.teacher is None else [settings.teacher])]
        conditions = Conditions.of(data, images, settings, taught)
        null = null_label(taught, conditions) if plan.hidden else None
        on = torch.device(settings.device) if settings.device is not None else next(first.parameters()).device
        self.settings = settings
        self.batches = Batches(
            images.train.to(on), min(plan.batch, len(images.train)), seed=settings.seed, times=plan.times,
            span=settings.span, path=first.path, teacher=settings.teacher, cond=conditions.train,
            flip=plan.flip, noise=plan.noise, hidden=plan.hidden, null=null,
        )  # fmt: skip
        self.trainers = {
            name: Trainer(denoiser, images, self.batches, plan, name, folders[name], conditions)
            for name, denoiser in denoisers.items()
        }
        self.steps = next(iter(self.trainers.values())).steps

    def run(self, title: str) -> dict[str, TrainingRecord]:
        progress = self.settings.progress
        lines = {name: Progress(name, self.steps, progress if callable(progress) else False) for name in self.trainers}
        report = Progress(title, self.steps, progress is True)
        try:
            for trainer in self.trainers.values():
                trainer.resume()
            # checkpoints may be of different steps: who is ahead waits for the others
            step = min(trainer.step for trainer in self.trainers.values())
            for line in (report, *lines.values()):
                line.begin(step)
            with Interrupt() as interrupt:
                self.loop(step, report, lines, interrupt)
        finally:
            report.end()
            for trainer in self.trainers.values():
                trainer.release()
        return {name: trainer.finish() for name, trainer in self.trainers.items()}

    def loop(self, step: int, report: Progress, lines: dict[str, Progress], interrupt: Interrupt) -> None:
        saved = time.monotonic()
        while step < self.steps:
            started = time.monotonic()
            batch = self.batches.draw(step)
            due = [trainer for trainer in self.trainers.values() if trainer.step == step]
            share = (time.monotonic() - started) / len(due)  # the making of a batch is charged to all alike
            for trainer in due:
                row = trainer.advance(batch, share)
                if row is not None:
                    report.row(row)
                    lines[trainer.name].row(row)
            step += 1
            report.tick(step)
            if interrupt.asked or (time.monotonic() - saved > self.settings.checkpoint_every and step < self.steps):
                for trainer in self.trainers.values():
                    trainer.save_checkpoint()
                saved = time.monotonic()
            if interrupt.asked:
                raise KeyboardInterrupt  # only after the checkpoint
