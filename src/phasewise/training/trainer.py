"""The state of one training: average of the weights, validation by time bin, checkpoints that resume to the same bit.

Randomness is a function of (seed, step): batch order of (seed, epoch), noise and times of (seed, step).  A run resumed
from a checkpoint therefore repeats the run that was never stopped, and networks trained together learn what each would
have learnt alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from phasewise import seeding
from phasewise.data import ImageData
from phasewise.denoisers import NetworkDenoiser
from phasewise.denoisers.runtime import need_compiler
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import write_json
from phasewise.memory import fitting
from phasewise.results import TrainingRecord
from phasewise.tensors import checked_state, optimiser_state, part_of
from phasewise.training.batches import Batch, Batches, fingerprint, fingerprint_of_rows
from phasewise.training.checkpoint import MEND, read_checkpoint, write_checkpoint
from phasewise.training.loss import denoising_loss
from phasewise.training.optimizers import build_optimizer
from phasewise.training.presets import TrainPreset, learning_rate
from phasewise.training.settings import Conditions

BINS = 10


class Trainer:
    """One training: network, average, optimiser, step count. Everything else is a function of (seed, step)."""

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        data: ImageData,
        batches: Batches,
        plan: TrainPreset,
        name: str,
        out: str | Path | None,
        conditions: Conditions,
    ) -> None:
        denoiser.fit_moments(data.train)  # before the average copies the network, moments included
        self.device = batches.images.device
        self.denoiser = denoiser.to(self.device)
        self.validation = data.validation[:1000].to(self.device)
        held_out = conditions.validation
        self.validation_cond = None if held_out is None else held_out[:1000].to(self.device)
        self.plan, self.name, self.seed, self.span, self.batch = plan, name, batches.seed, batches.span, batches.size
        self.steps = plan.steps if plan.steps is not None else max(round(plan.epochs * batches.per_epoch), 1)
        self.every = max(self.steps // 20, 1)
        self.folder = None if out is None else Path(out)
        self.average = AveragedModel(denoiser, multi_avg_fn=_ema(plan.ema), use_buffers=False)
        self.optimiser = build_optimizer(plan.optimizer, denoiser, plan.lr, plan.weight_decay)
        self.step, self.since, self.seconds = 0, 0, 0.0
        self.history: list[dict[str, Any]] = []
        # kept on the device: reading it at every step would wait for each
        self.running = torch.zeros((), device=self.device)
        # what defines the training: a checkpoint of another is refused
        self.identity = json.dumps(
            {
                "preset": _preset(plan), "steps": self.steps, "seed": self.seed, "span": list(self.span),
                "class": type(denoiser).__name__, "config": denoiser.config(), "data": data.fingerprint,
                "teacher": fingerprint(batches.teacher), **_told(denoiser, batches),
            },
            sort_keys=True,
        )  # fmt: skip

    def resume(self) -> None:
        """From the checkpoint in the folder, if there is one; then ready for the first step."""
        if self.folder is not None and (self.folder / "checkpoint.safetensors").exists():
            self.load_checkpoint(self.folder / "checkpoint.safetensors")
        self.denoiser.train()
        if self.plan.compile:
            need_compiler(self.device)
            # on the instance, over the class's own method, until release
            self.denoiser.backbone = torch.compile(self.denoiser.backbone)  # type: ignore[method-assign]

    def release(self) -> None:
        """Take the compiled call off the network again: it is to be copied like any other."""
        if self.plan.compile:
            vars(self.denoiser).pop("backbone", None)

    def advance(self, batch: Batch, share: float = 0.0) -> dict[str, Any] | None:
        """One step on ``batch``, whose making took ``share`` seconds; a row of progress where one is due."""
        started = time.monotonic()
        with fitting(len(batch.x), lambda k: self.loss(batch.rows(0, k)).backward(), f"training {self.name}"):
            self.running = self.running + self.train_step(batch)
        self.step += 1
        row: dict[str, Any] | None = None
        if self.step % self.every == 0 or self.step == self.steps:
            train_loss = float(self.running) / (self.step - self.since)
            self.running, self.since = torch.zeros_like(self.running), self.step
            self.check_finite(train_loss)
            val_loss, _ = self.validate()
            row = {"step": self.step, "train_loss": train_loss, "val_loss": val_loss}
            self.history.append(row)
        self.seconds += time.monotonic() - started + share
        return row

    def train_step(self, batch: Batch) -> Tensor:
        plan = self.plan
        for group in self.optimiser.param_groups:
            # by the step alone: a resumed run needs no scheduler state
            group["lr"] = plan.lr * learning_rate(plan, self.step, self.steps)
        loss = self.loss(batch)
        loss.backward()
        if plan.clip:
            torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), plan.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update_parameters(self.denoiser)
        return loss.detach()

    def loss(self, batch: Batch) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.precision == "bfloat16"):
            return self.losses(self.denoiser, batch).mean()

    def losses(self, denoiser: NetworkDenoiser, batch: Batch) -> Tensor:
        return denoising_loss(denoiser, batch.x, batch.z, batch.t, self.plan.loss, batch.target, batch.cond)

    @torch.inference_mode()
    def validate(self) -> tuple[float, list[float]]:
        """Held-out loss of the averaged weights: its mean, and by time bin of equal width over the span."""
        model = cast(NetworkDenoiser, self.average.module)
        model.eval()
        # the same noise at every validation, so that losses of different steps compare
        generator = seeding.generator(self.seed, seeding.Purpose.TRAINING_VALIDATION, 0)
        n = len(self.validation)
        margin = (self.span[1] - self.span[0]) / 100
        low, high = self.span[0] + margin, self.span[1] - margin
        # one time in the middle of each n-th of the span
        t = (low + (high - low) * (torch.arange(n) + 0.5) / n).to(self.device)
        z = torch.randn(self.validation.shape, generator=generator).to(self.device)
        # times rise with the row: each bin gets images by chance
        order = torch.randperm(n, generator=generator).to(self.device)
        x, cond = self.validation[order], None if self.validation_cond is None else self.validation_cond[order]
        batch = Batch(x, z, t, x, cond)
        losses = torch.cat([self.losses(model, batch.rows(i, i + 250)) for i in range(0, n, 250)])
        bins = ((t - low) / (high - low) * BINS).long().clamp_max(BINS - 1)
        by_time = [float(losses[bins == b].mean()) for b in range(BINS)]
        return float(losses.mean()), by_time

    def check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise PhasewiseError(
                f"training of {self.name} diverged at step {self.step}: the loss is {loss}. Lower the learning rate "
                f"(now {self.plan.lr}) or check the data for extreme values; the last checkpoint is kept"
            )

    def finish(self) -> TrainingRecord:
        val_loss, by_time = self.validate()
        self.check_finite(val_loss)
        averaged = dict(self.average.module.named_parameters())
        with torch.no_grad():  # the averaged weights are those that were validated
            for key, parameter in self.denoiser.named_parameters():
                parameter.copy_(averaged[key])
        self.denoiser.eval()
        low, high = self.span
        record = TrainingRecord(
            name=self.name,
            preset=asdict(self.plan),
            steps=self.steps,
            images_seen=self.steps * self.batch,
            seconds=self.seconds,
            parameters=sum(p.numel() for p in self.denoiser.parameters()),
            history=tuple(self.history),
            val_loss=val_loss,
            bin_edges=torch.linspace(low, high, BINS + 1).numpy(),
            val_by_time=torch.tensor(by_time).numpy(),
            seed=self.seed,
            device=str(self.device),
        )
        self.save_checkpoint()
        if self.folder is not None:
            write_json(self.folder / "training.json", record.to_dict())
        return record

    def save_checkpoint(self) -> None:
        if self.folder is None:
            return
        tensors = {f"model.{k}": v for k, v in self.denoiser.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        tensors["running"] = self.running
        # a diverged state must not replace the last good checkpoint
        if not all(bool(torch.isfinite(v).all()) for v in tensors.values()):
            self.check_finite(math.nan)
        meta = {
            "identity": self.identity, "step": str(self.step), "since": str(self.since),
            "seconds": repr(self.seconds), "history": json.dumps(self.history),
        }  # fmt: skip
        write_checkpoint(self.folder / "checkpoint.safetensors", tensors, meta)

    def load_checkpoint(self, path: Path) -> None:
        tensors, progress = read_checkpoint(path, self.identity)
        if progress.step > self.steps or tuple(tensors.get("running", torch.ones(1)).shape) != ():
            raise CheckpointError(f"{path} is of step {progress.step} of {self.steps}, without its losses; {MEND}")
        model = checked_state(self.denoiser, part_of(tensors, "model."), path, MEND)
        average = checked_state(self.average, part_of(tensors, "average."), path, MEND)
        state = optimiser_state(tensors, [group["params"] for group in self.optimiser.param_groups], path, MEND)
        self.denoiser.load_state_dict(model)
        self.average.load_state_dict(average)
        wrong = self.denoiser.wrong_state()
        if wrong:
            raise CheckpointError(f"{path}: {wrong}; {MEND}")
        # settings are set anew at each step
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.since, self.seconds = progress.step, progress.since, progress.seconds
        self.running = tensors["running"].to(self.device)
        self.history = list(progress.history)


def _preset(plan: TrainPreset) -> dict[str, Any]:
    """The preset as a training's identity holds it: checkpoints older than a choice are of what was usual before it."""
    return {k: v for k, v in asdict(plan).items() if (k, v) not in (("optimizer", "adamw"), ("hidden", 0.0))}


def _told(denoiser: NetworkDenoiser, batches: Batches) -> dict[str, str]:
    """What a training's identity holds of a condition, where the network or its teacher is told one."""
    teacher = batches.teacher
    taken = denoiser.takes_condition or (teacher is not None and teacher.takes_condition)
    return {"cond": fingerprint_of_rows(batches.cond)} if taken and batches.cond is not None else {}


def _ema(decay: float) -> Callable[[Any, Any, Any], None]:
    """EMA whose decay rises as (1 + n) / (10 + n) to ``decay``: early weights are forgotten."""

    @torch.no_grad()
    def update(average: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        n = float(count)
        # average + (1 - decay) (current - average)
        torch._foreach_lerp_(average, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update
