"""Jobs that train: global networks of both kinds, locals taught by them, windows of attention, judges."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import phasewise as pw
from phasewise.data import ImageData
from phasewise.denoisers import DiTDenoiser, NetworkDenoiser
from phasewise.files import read_json, write_json
from phasewise.metrics.classifier import UNFINISHED_FILE, train_classifier
from phasewise.training import TrainPreset, denoising_loss, draw_times, get_preset
from phasewise.training.loop import Together
from phasewise.training.settings import TrainSettings
from studies.gpu.place import JUDGES, Place
from studies.gpu.sizes import FEW_VALIDATION, Amount

Make = Callable[[tuple[int, int, int]], NetworkDenoiser]
Job = Callable[[Place, str, str], dict[str, Any]]


@dataclass(frozen=True)
class Shipped:
    """A network that comes with the package: of which set, and what it is called there."""

    of: str
    member: str

    def network(self) -> pw.Denoiser:
        return pw.load_pretrained(self.of).denoiser(self.member)


RADII = {28: (1, 2, 3, 5, 8, 12), 32: (1, 2, 3, 5, 8, 12), 64: (1, 2, 3, 5, 8, 12, 16), 128: (2, 3, 5, 8, 12, 16, 24)}
FEW_RADII = {32: (1, 3, 8), 64: (1, 3, 8, 16), 128: (2, 5, 12, 24)}
"""On two cores."""


def windows_of(place: Place) -> tuple[int | None, ...]:
    """Windows of attention, in tokens, that one transformer's weights are taught to serve."""
    return (None, 2) if place.device == "cpu" else (None, 1, 2, 4)


def unet(width: int) -> Make:
    return lambda shape: pw.UNetDenoiser(shape, width=width, patch=2)


def unet_of(size: str) -> Make:
    return lambda shape: pw.UNetDenoiser.of_size(shape, size)


def dit_of(size: str) -> Make:
    return lambda shape: DiTDenoiser.of_size(shape, size)


def preset_for(place: Place, data: ImageData, **changes: Any) -> TrainPreset:
    """Flips for photographs, smaller batches for small sets; on the CPU smaller ones still, and nothing is compiled."""
    preset = replace(get_preset("gpu"), flip="mnist" not in data.name)
    if len(data.train) < 10_000:
        preset = replace(preset, batch=256, weight_decay=1e-2)
    if place.device == "cpu":  # some thousand steps, so a short average of the weights, and steps that learn more each
        brief, half = get_preset("brief"), "bfloat16" if place.in_half else "float32"
        batch = brief.batch if data.image_shape[1] < 128 else brief.batch // 2  # of few images more steps
        preset = replace(
            preset, compile=False, precision=half, batch=batch, lr=brief.lr, optimizer=brief.optimizer, ema=0.99,
            warmup=100,
        )  # fmt: skip
    if place.quick:
        preset = replace(preset, batch=8)
    return replace(preset, **changes)


def train_network(make: Make, amount: Amount, begins: Shipped | None = None) -> Job:
    """A job that trains one network.  ``begins``: whose weights it begins with, all that are of the same shape (a
    transformer's blocks do not know the side)."""

    def job(place: Place, name: str, network: str) -> dict[str, Any]:
        data = place.images(name)
        torch.manual_seed(0)
        fresh = make(data.image_shape).to(place.device)
        if begins is not None:
            lend(begins.network(), fresh)
        return _trained({network: fresh}, data, place, name, amount, preset_for(place, data), None)[network]

    return job


def lend(smaller: torch.nn.Module, network: torch.nn.Module) -> list[str]:
    """Copy every tensor of the same name and shape; their names."""
    own = network.state_dict()
    fits = {k: v for k, v in smaller.state_dict().items() if k in own and v.shape == own[k].shape}
    network.load_state_dict({**own, **fits})
    return list(fits)


def train_locals(amount: Amount) -> Job:
    """A job that trains every local network and the control in one pass, taught by the set's global U-Net."""

    def job(place: Place, name: str, network: str) -> dict[str, Any]:
        data, teacher, small = place.images(name), place.network(name, "global"), place.device == "cpu"
        side = data.image_shape[1]
        radii = (1, 2) if place.quick else (FEW_RADII if small else RADII).get(side, RADII[28])
        torch.manual_seed(0)
        locals_ = {f"r{r}": pw.LocalDenoiser(data.image_shape, r).to(place.device) for r in radii}
        networks: dict[str, NetworkDenoiser] = {**locals_}
        if side <= 64 and not small:  # its window is the image: beyond, a batch of them fits nowhere
            networks["control"] = locals_[f"r{max(radii)}"].opened().to(place.device)
        preset = preset_for(place, data, compile=False)
        return {"networks": _trained(networks, data, place, name, amount, preset, teacher)}

    return job


class Served(DiTDenoiser):
    """A transformer in training for several windows: each takes its share of a batch's rows, by the same weights.
    In evaluation it is the transformer of unlimited attention."""

    def for_windows(self, windows: tuple[int | None, ...]) -> Served:
        self.views = tuple(self.windowed(w) for w in windows)  # a tuple: no modules of its own
        return self

    def backbone(self, h: torch.Tensor, log_snr: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        if not self.training:
            return super().backbone(h, log_snr)
        count = len(self.views)
        parts = zip(self.views, h.tensor_split(count), log_snr.tensor_split(count), strict=True)
        return torch.cat([DiTDenoiser.backbone(view, *part) for view, *part in parts])


def teach_windows(amount: Amount) -> Job:
    """A job that goes on training the set's transformer so that the same weights serve every window of attention and
    none; the transformer before it teaches."""

    def job(place: Place, name: str, network: str) -> dict[str, Any]:
        data, teacher = place.images(name), place.network(name, "dit")
        assert isinstance(teacher, DiTDenoiser)
        about = {**teacher.config(), "image_shape": teacher.image_shape, "path": teacher.path}
        student = Served(**about).to(place.device).for_windows(windows_of(place))
        lend(teacher, student)
        preset = preset_for(place, data, compile=False, lr=1e-3 if place.device == "cpu" else 3e-4)
        found = _trained({network: student}, data, place, name, amount, preset, teacher)[network]
        after = place.network(name, network)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(6)
            x = data.validation[:FEW_VALIDATION].to(place.device)
            z = torch.randn(x.shape, generator=generator).to(place.device)
            t = draw_times(len(x), "mixed", (0.0, 1.0), generator).to(place.device)
            losses = {
                f"{who} {w}": float(denoising_loss(model.windowed(w), x, z, t).mean())  # type: ignore[operator]
                for who, model in (("before", teacher), ("after", after))
                for w in windows_of(place)
            }
        return {**found, "validation": losses}

    return job


def _trained(
    networks: dict[str, NetworkDenoiser],
    data: ImageData,
    place: Place,
    name: str,
    amount: Amount,
    preset: TrainPreset,
    teacher: pw.Denoiser | None,
) -> dict[str, dict[str, Any]]:
    first = next(iter(networks))
    plan = place.folder(name, first) / "plan.json"
    settings: dict[str, Any] = {"device": place.device, "teacher": teacher, "progress": False, "checkpoint_every": 45.0}
    if place.device == "cpu":
        labels = data.labels_validation
        labels = None if labels is None else labels[:FEW_VALIDATION]
        data = replace(data, validation=data.validation[:FEW_VALIDATION], labels_validation=labels)
    if not plan.exists():  # a job that was cut off keeps the number of steps it set out for
        pace = None
        if not amount.images and not place.quick:
            pace = _steps_a_second(networks, data, preset, TrainSettings(**settings))
        steps = 2 if place.quick else amount.steps(preset.batch, place.pace, pace)
        write_json(plan, {"steps": steps, "pace": pace})
    steps = int(read_json(plan)["steps"])
    out = place.work / name
    records = pw.training.train_together(networks, data, replace(preset, steps=steps), out=out, **settings)
    answers = {}
    for network, denoiser in networks.items():
        folder = place.folder(name, network)
        pw.save_denoiser(_plain(denoiser), folder)
        record = records[network]
        answers[network] = {
            "steps": record.steps, "images_seen": record.images_seen, "seconds": record.seconds,
            "val_loss": record.val_loss, "val_by_time": [float(v) for v in record.val_by_time],
            "parameters": record.parameters, "history": [dict(row) for row in record.history],
        }  # fmt: skip
    for network in networks:  # last: what is cut off before is read from its checkpoint, at its end already
        (place.folder(name, network) / "checkpoint.safetensors").unlink(missing_ok=True)
    return answers


def _plain(denoiser: NetworkDenoiser) -> NetworkDenoiser:
    """Without the training's own class: a transformer that can be read again."""
    if not isinstance(denoiser, Served):
        return denoiser
    about = {**denoiser.config(), "image_shape": denoiser.image_shape, "path": denoiser.path}
    plain = DiTDenoiser(**about)
    plain.load_state_dict(denoiser.state_dict())
    return plain


def _steps_a_second(
    networks: dict[str, NetworkDenoiser], data: ImageData, preset: TrainPreset, settings: TrainSettings,
    before: int = 15, measured: int = 40,
) -> float:  # fmt: skip
    """Measured on copies, compiled as the training will be."""
    trial = Together(copy.deepcopy(networks), data, replace(preset, steps=10**9), dict.fromkeys(networks), settings)
    for trainer in trial.trainers.values():
        trainer.resume()
    start = time.perf_counter()
    for step in range(before + measured):
        if step == before:
            _wait(settings.device)
            start = time.perf_counter()
        batch = trial.batches.draw(step)
        for trainer in trial.trainers.values():
            trainer.advance(batch)
    _wait(settings.device)
    for trainer in trial.trainers.values():
        trainer.release()
    return measured / (time.perf_counter() - start)


def _wait(device: Any) -> None:
    if str(device).startswith("cuda"):
        torch.cuda.synchronize()


def train_judge(architecture: str, epochs: int, width: int = 32) -> Job:
    """A job that trains a classifier of the set's own labels, whose features judge samples."""

    def job(place: Place, name: str, network: str) -> dict[str, Any]:
        data = place.images(name)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        start, unfinished = time.perf_counter(), place.folder(name, network) / UNFINISHED_FILE
        judge = train_classifier(
            data, seed={"plain": 1, "residual": 2, "mixer": 3}[architecture], epochs=1 if place.quick else epochs,
            device=place.device, architecture=architecture, flip="mnist" not in name, width=width,
            batch=16 if place.quick else 256 if len(data.train) > 10_000 else 64,
            precision="bfloat16" if place.in_half else "float32",
            unfinished=unfinished,
        )  # fmt: skip
        judge.save(place.folder(name, network))
        unfinished.unlink(missing_ok=True)
        return {"test_accuracy": judge.test_accuracy, "seconds": time.perf_counter() - start, "judge": judge.name}

    return job


def borrow_judge(lender: str) -> Job:
    """A job that takes a shipped set's classifier for judge, which :class:`studies.gpu.judges.Borrowed` may enlarge."""

    def job(place: Place, name: str, network: str) -> dict[str, Any]:
        features = pw.load_pretrained(lender).features(unseen=network == JUDGES["unseen"])
        features.save(place.folder(name, network))
        return {"test_accuracy": features.test_accuracy, "judge": features.name}

    return job


def take_shipped(network: Shipped) -> Job:
    """A job that trains nothing: a network that comes with the package, put where a front looks for it."""

    def job(place: Place, name: str, title: str) -> dict[str, Any]:
        return _put(pw.load_pretrained(network.of), network.member, place.folder(name, title))

    return job


def take_locals(lender: str) -> Job:
    """The same of all local networks of a shipped set."""

    def job(place: Place, name: str, title: str) -> dict[str, Any]:
        ready = pw.load_pretrained(lender)
        locals_ = [n for n in ready.names if isinstance(ready.denoiser(n), pw.LocalDenoiser)]
        return {"networks": {n: _put(ready, n, place.folder(name, n)) for n in locals_}}

    return job


def _put(ready: pw.runs.Run, member: str, folder: Path) -> dict[str, Any]:
    pw.save_denoiser(ready.denoiser(member), folder)
    record = ready.training[member]
    return {"images_seen": record.images_seen, "seconds": record.seconds, "val_loss": record.val_loss}
