r"""Training by flow matching: presets, loss, EMA, validation by time bin, checkpoints that resume to the same bit.

Loss.  With the preconditioned network output F (``denoisers/base.py``) and target ``F* = (x - skip) / c_out``, the
flow-matching error on the path is ``|velocity - velocity*|^2 = w(t) |F - F*|^2``.

* ``loss="flow"``: ``|F - F*|^2``, the flow-matching error in units of its own scale at each t (weight 1 for a network
  of no skill at every noise level; Karras et al. 2022, eq. 8).
* ``loss="paper"``: errors of velocity + eps + x summed, as published (arXiv 2508.06614).

Randomness is a function of (seed, step): batch order of (seed, epoch), noise and times of (seed, step).  A run resumed
from a checkpoint therefore repeats the run that was never stopped.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from phasewise import seeding
from phasewise.data import ImageData, as_images
from phasewise.denoisers.base import NetworkDenoiser
from phasewise.denoisers.io import read_safetensors
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import write_bytes, write_json
from phasewise.paths import Path as NoisePath
from phasewise.results import TrainingRecord

CHECKPOINT_FORMAT = "1"
BINS = 10


@dataclass(frozen=True)
class TrainPreset:
    """How to train. ``epochs`` counts passes over the training images; ``steps``, when given, overrides it."""

    name: str = "default"
    lr: float = 1.5e-3
    weight_decay: float = 1e-3
    batch: int = 128
    epochs: float = 15
    steps: int | None = None
    warmup: int = 100
    decay: str = "cosine"
    ema: float = 0.999
    loss: str = "flow"
    times: str = "mixed"
    clip: float = 1.0
    precision: str = "float32"


PRESETS: dict[str, TrainPreset] = {
    "default": TrainPreset(),
    "paper": TrainPreset(
        name="paper",
        lr=1e-3,
        weight_decay=1e-3,
        batch=512,
        epochs=15,
        decay="constant",
        loss="paper",
        times="logit_normal",
    ),
}


def get_preset(preset: str | TrainPreset, **changes: Any) -> TrainPreset:
    """A named preset or your own, with fields replaced by the ``changes`` that are not None."""
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise PhasewiseError(f"unknown training preset {preset!r}; known: {', '.join(PRESETS)}")
        preset = PRESETS[preset]
    preset = replace(preset, **{k: v for k, v in changes.items() if v is not None})
    if (
        not 0 < preset.lr < math.inf
        or preset.batch < 1
        or preset.epochs <= 0
        or (preset.steps is not None and preset.steps < 1)
    ):
        raise PhasewiseError("training needs lr > 0, batch >= 1, epochs > 0 and steps >= 1")
    for value, known in ((preset.loss, ("flow", "paper")), (preset.decay, ("cosine", "constant"))):
        if value not in known:
            raise PhasewiseError(f"unknown choice {value!r}; known: {', '.join(known)}")
    if preset.times not in ("logit_normal", "uniform", "mixed"):
        raise PhasewiseError(f"unknown time distribution {preset.times!r}; known: logit_normal, uniform, mixed")
    if preset.precision not in ("float32", "bfloat16"):
        raise PhasewiseError(f"unknown precision {preset.precision!r}; known: float32, bfloat16")
    return preset


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
        report = _Progress(self.name, self.steps, progress)
        self.denoiser.train()
        report.begin(self.step)
        try:
            with _Interrupt() as interrupt:
                self.loop(report, interrupt, checkpoint_every)
        finally:
            report.end()
        return self.finish()

    def loop(self, report: _Progress, interrupt: _Interrupt, checkpoint_every: float) -> None:
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
        """Network, average and optimiser in one safetensors file, the rest as JSON in its header. Atomic."""
        tensors = {f"model.{k}": v for k, v in self.denoiser.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        tensors["running"] = self.running
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        if not all(bool(torch.isfinite(v).all()) for v in tensors.values()):
            self.check_finite(math.nan)
        meta = {
            "format": CHECKPOINT_FORMAT, "identity": self.identity, "step": str(self.step), "since": str(self.since),
            "seconds": repr(self.seconds), "history": json.dumps(self.history),
        }  # fmt: skip
        assert self.folder is not None
        write_bytes(self.folder / "checkpoint.safetensors", save_tensors(tensors, meta))

    def load_checkpoint(self, path: Path) -> None:
        tensors = read_safetensors(path)
        try:
            with safe_open(str(path), framework="pt") as handle:
                meta = handle.metadata() or {}
        except SafetensorError as error:
            raise CheckpointError(f"{path} is corrupt ({error}); delete it to train from the start") from error
        if meta.get("format") != CHECKPOINT_FORMAT:
            raise CheckpointError(
                f"{path} has checkpoint format {meta.get('format')!r}, not {CHECKPOINT_FORMAT}; delete it"
            )
        if meta["identity"] != self.identity:
            raise CheckpointError(
                f"{path} belongs to another training ({_first_difference(meta['identity'], self.identity)}); "
                "use another folder, or delete the checkpoint"
            )
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


def denoising_loss(denoiser: NetworkDenoiser, x: Tensor, z: Tensor, t: Tensor, kind: str = "flow") -> Tensor:
    """Loss per image, (B,): mean over pixels. x, z (B, C, H, W), t (B,)."""
    path = denoiser.path
    x_t = path.add_noise(x, z, t)
    out, c_out, skip = denoiser.residual(x_t, t)
    error = out.float() - (x - skip) / c_out.clamp_min(1e-6)
    if kind == "flow":
        return error.square().flatten(1).mean(1)
    return (_paper_weight(path, t).to(x.dtype) * (c_out * error).square().flatten(1).mean(1)).clamp_max(1e6)


def _paper_weight(path: NoisePath, t: Tensor) -> Tensor:
    """|velocity error|^2 + |eps error|^2 + |x error|^2 over |x error|^2."""
    return path.velocity_gain(t) ** 2 + path.gamma(t) + 1


def draw_times(n: int, kind: str, span: tuple[float, float], generator: torch.Generator) -> Tensor:
    """n noise times, stratified (one in each n-th of the distribution), in random order, inside ``span``.

    "logit_normal": sigmoid of a standard normal, as published; "uniform"; "mixed": half of each, which keeps the ends
    of the time axis trained.
    """
    u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    u = u[torch.randperm(n, generator=generator)].clamp(1e-4, 1 - 1e-4)
    low, high = span
    normal = torch.distributions.Normal(0.0, 1.0)
    if kind == "uniform" or (kind == "mixed" and span != (0.0, 1.0)):
        t = low + (high - low) * u
    elif kind == "mixed":
        t = torch.where(u < 0.5, 2 * u, torch.sigmoid(normal.icdf((2 * u - 1).clamp(1e-4, 1 - 1e-4))))
    else:
        edges = normal.cdf(torch.logit(torch.tensor([low, high]).clamp(1e-6, 1 - 1e-6)))
        t = torch.sigmoid(normal.icdf(edges[0] + (edges[1] - edges[0]) * u))
    return t.clamp(min(max(low, 1e-3), high), max(min(high, 0.9995), low))


def learning_rate(plan: TrainPreset, step: int, steps: int) -> float:
    """Factor on ``plan.lr``: linear warm-up, then constant or cosine to 2 %."""
    warm = min((step + 1) / max(min(plan.warmup, steps // 5), 1), 1.0)
    if plan.decay == "constant":
        return warm
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _ema(decay: float) -> Callable[[Any, Any, Any], None]:
    """EMA whose decay rises as (1 + n) / (10 + n) to ``decay``: early weights are forgotten."""

    @torch.no_grad()
    def update(average: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        n = float(count)
        torch._foreach_lerp_(average, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def _first_difference(a: str, b: str) -> str:
    left, right = _flat(json.loads(a)), _flat(json.loads(b))
    for key in sorted(left.keys() | right.keys()):
        if left.get(key) != right.get(key):
            return f"{key}: {left.get(key)} there, {right.get(key)} here"
    return "unknown difference"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}".strip(".")).items()}


class _Interrupt:
    """Ctrl-C asks to stop after the current step, so that a whole step is saved; twice stops at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> _Interrupt:
        self.installed = threading.current_thread() is threading.main_thread()
        if self.installed:
            self.previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, *_: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: Any) -> None:
        if self.installed:
            signal.signal(signal.SIGINT, self.previous)


class _Progress:
    """A live line with rate and time left, or rows to a callback, or silence."""

    def __init__(self, name: str, steps: int, mode: bool | Callable[[dict[str, Any]], None]) -> None:
        self.name, self.steps, self.mode = name, steps, mode
        self.bar: Any = None

    def begin(self, step: int) -> None:
        if self.mode is not True:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description:<10}"), BarColumn(24), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.fields[loss]}"),
            refresh_per_second=4,
        )  # fmt: skip
        self.bar.start()
        self.task = self.bar.add_task(self.name, total=self.steps, completed=step, rate="", loss="")
        self.first, self.clock = step, time.monotonic()

    def tick(self, step: int) -> None:
        if self.bar is not None:
            rate = (step - self.first) / max(time.monotonic() - self.clock, 1e-9)
            self.bar.update(self.task, completed=step, rate=f"{rate:.1f} steps/s")

    def row(self, row: dict[str, Any]) -> None:
        if self.bar is not None:
            self.bar.update(self.task, loss=f"val {row['val_loss']:.4f}")
        elif callable(self.mode):
            self.mode({"name": self.name, "steps": self.steps, **row})

    def end(self) -> None:
        if self.bar is not None:
            self.bar.stop()
