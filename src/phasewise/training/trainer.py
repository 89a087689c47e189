"""The training loop: average of the weights, validation by time bin, checkpoints that resume to the same bit.

Randomness is a function of (seed, step): batch order of (seed, epoch), noise and times of (seed, step).  A run resumed
from a checkpoint therefore repeats the run that was never stopped.
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
from phasewise.data import ImageData, as_images
from phasewise.denoisers.base import NetworkDenoiser
from phasewise.errors import PhasewiseError
from phasewise.files import write_json
from phasewise.results import TrainingRecord
from phasewise.training.checkpoint import read_checkpoint, write_checkpoint
from phasewise.training.loss import denoising_loss, draw_times
from phasewise.training.presets import TrainPreset, get_preset, learning_rate
from phasewise.training.progress import Interrupt, Progress

BINS = 10


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
    progress: bool | Callable[[dict[str, Any]], None] = True,
    checkpoint_every: float = 60.0,
) -> TrainingRecord:
    """Train ``denoiser`` in place on ``data.train``; afterwards it holds the averaged (EMA) weights, in eval mode.

    Args:
        data: ImageData, a tensor (N, C, H, W), or a name for :func:`phasewise.load_images`.
        preset: "default", "paper", or a TrainPreset; ``epochs``, ``steps``, ``batch`` override its fields.
        out: folder for ``checkpoint.safetensors`` and ``training.json``; a stopped training resumes from it.
        span: train only on noise times in this interval (an expert).
        progress: print a live line, or call this function with each row of progress.

    Raises PhasewiseError on images of another shape or a loss that is not finite; CheckpointError when the checkpoint
    in ``out`` belongs to another training.  Ctrl-C writes a checkpoint first.
    """
    if not isinstance(denoiser, NetworkDenoiser):
        raise PhasewiseError(
            f"{type(denoiser).__name__} has nothing to train by gradient; a Wiener denoiser is fitted with "
            "WienerDenoiser.fit(data.train)"
        )
    data = as_images(data)
    plan = get_preset(preset, epochs=epochs, steps=steps, batch=batch)
    if not 0 <= span[0] < span[1] <= 1:
        raise PhasewiseError(f"span must be an interval inside [0, 1], got {span}")
    denoiser.fit_moments(data.train)
    trainer = _Trainer(denoiser, data, plan, name or type(denoiser).__name__, seed, out, device, span)
    return trainer.run(progress, checkpoint_every)


class _Trainer:
    """One training: network, average, optimiser, step count. Everything else is a function of (seed, step)."""

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        data: ImageData,
        plan: TrainPreset,
        name: str,
        seed: int,
        out: str | Path | None,
        device: str | torch.device | None,
        span: tuple[float, float],
    ) -> None:
        self.device = torch.device(device) if device is not None else next(denoiser.parameters()).device
        self.denoiser = denoiser.to(self.device)
        self.images = data.train.to(self.device)
        self.validation = data.validation[:1000].to(self.device)
        self.plan, self.name, self.seed, self.span = plan, name, seed, span
        self.batch = min(plan.batch, len(self.images))
        self.per_epoch = max(len(self.images) // self.batch, 1)
        self.steps = plan.steps if plan.steps is not None else max(round(plan.epochs * self.per_epoch), 1)
        self.folder = None if out is None else Path(out)
        self.average = AveragedModel(denoiser, multi_avg_fn=_ema(plan.ema), use_buffers=False)
        self.optimiser = torch.optim.AdamW(
            denoiser.parameters(), lr=plan.lr, weight_decay=plan.weight_decay, betas=(0.9, 0.99), fused=True
        )
        self.step, self.since, self.seconds = 0, 0, 0.0
        self.history: list[dict[str, Any]] = []
        self.running = torch.zeros((), device=self.device)
        self.identity = json.dumps(
            {
                "preset": asdict(plan), "steps": self.steps, "seed": seed, "span": list(span),
                "class": type(denoiser).__name__, "config": denoiser.config(), "data": data.fingerprint,
            },
            sort_keys=True,
        )  # fmt: skip

    def run(self, progress: bool | Callable[[dict[str, Any]], None], checkpoint_every: float) -> TrainingRecord:
        if self.folder is not None and (self.folder / "checkpoint.safetensors").exists():
            self.load_checkpoint(self.folder / "checkpoint.safetensors")
        report = Progress(self.name, self.steps, progress)
        self.denoiser.train()
        report.begin(self.step)
        try:
            with Interrupt() as interrupt:
                self.loop(report, interrupt, checkpoint_every)
        finally:
            report.end()
        return self.finish()

    def loop(self, report: Progress, interrupt: Interrupt, checkpoint_every: float) -> None:
        every = max(self.steps // 20, 1)
        saved = started = time.monotonic()
        while self.step < self.steps:
            self.running = self.running + self.train_step()
            self.step += 1
            if self.step % every == 0 or self.step == self.steps:
                train_loss = float(self.running) / (self.step - self.since)
                self.running, self.since = torch.zeros_like(self.running), self.step
                self.check_finite(train_loss)
                val_loss, _ = self.validate()
                self.history.append({"step": self.step, "train_loss": train_loss, "val_loss": val_loss})
                report.row(self.history[-1])
            report.tick(self.step)
            due = time.monotonic() - saved > checkpoint_every
            if self.folder is not None and (interrupt.asked or (due and self.step < self.steps)):
                self.seconds += time.monotonic() - started
                self.save_checkpoint()
                saved = started = time.monotonic()
            if interrupt.asked:
                raise KeyboardInterrupt
        self.seconds += time.monotonic() - started

    def train_step(self) -> Tensor:
        plan = self.plan
        for group in self.optimiser.param_groups:
            group["lr"] = plan.lr * learning_rate(plan, self.step, self.steps)
        generator = seeding.generator(self.seed, 1, self.step)
        epoch, position = divmod(self.step, self.per_epoch)
        order = torch.randperm(len(self.images), generator=seeding.generator(self.seed, 2, epoch))
        chosen = order[position * self.batch : (position + 1) * self.batch].to(self.device)
        x = self.images[chosen]
        z = torch.randn(x.shape, generator=generator).to(self.device)
        t = draw_times(len(x), plan.times, self.span, generator).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            loss = denoising_loss(self.denoiser, x, z, t, plan.loss).mean()
        loss.backward()
        if plan.clip:
            torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), plan.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update_parameters(self.denoiser)
        return loss.detach()

    @torch.inference_mode()
    def validate(self) -> tuple[float, list[float]]:
        """Held-out loss of the averaged weights: its mean, and by time bin of equal width over the span."""
        model = cast(NetworkDenoiser, self.average.module)
        model.eval()
        generator = seeding.generator(self.seed, 3, 0)
        n = len(self.validation)
        margin = (self.span[1] - self.span[0]) / 100
        low, high = self.span[0] + margin, self.span[1] - margin
        t = (low + (high - low) * (torch.arange(n) + 0.5) / n).to(self.device)
        z = torch.randn(self.validation.shape, generator=generator).to(self.device)
        x = self.validation[torch.randperm(n, generator=generator).to(self.device)]
        losses = torch.cat(
            [
                denoising_loss(model, x[i : i + 250], z[i : i + 250], t[i : i + 250], self.plan.loss)
                for i in range(0, n, 250)
            ]
        )
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
        with torch.no_grad():
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
        if self.folder is not None:
            self.save_checkpoint()
            write_json(self.folder / "training.json", record.to_dict())
        return record

    def save_checkpoint(self) -> None:
        tensors = {f"model.{k}": v for k, v in self.denoiser.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        tensors["running"] = self.running
        if not all(bool(torch.isfinite(v).all()) for v in tensors.values()):
            self.check_finite(math.nan)
        meta = {
            "identity": self.identity, "step": str(self.step), "since": str(self.since),
            "seconds": repr(self.seconds), "history": json.dumps(self.history),
        }  # fmt: skip
        assert self.folder is not None
        write_checkpoint(self.folder / "checkpoint.safetensors", tensors, meta)

    def load_checkpoint(self, path: Path) -> None:
        tensors, meta = read_checkpoint(path, self.identity)
        own = self.optimiser.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, index, field = key.split(".", 2)
                state.setdefault(int(index), {})[field] = value
        self.denoiser.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        self.average.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
        self.optimiser.load_state_dict({"state": state, "param_groups": own["param_groups"]})
        self.step, self.since, self.seconds = int(meta["step"]), int(meta["since"]), float(meta["seconds"])
        self.running = tensors["running"].to(self.device)
        self.history = json.loads(meta["history"])


def _ema(decay: float) -> Callable[[Any, Any, Any], None]:
    """EMA whose decay rises as (1 + n) / (10 + n) to ``decay``: early weights are forgotten."""

    @torch.no_grad()
    def update(average: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        n = float(count)
        torch._foreach_lerp_(average, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update
