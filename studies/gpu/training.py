"""Jobs that train: global networks of both kinds, locals taught by them, windows of attention, judges."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

import phasewise as pw
from phasewise.data import ImageData
from phasewise.denoisers import DiTDenoiser, NetworkDenoiser
from phasewise.files import read_json, write_json
from phasewise.fit import cosine_decay, minimise, warm_up
from phasewise.metrics.classifier import train_classifier
from phasewise.training import TrainPreset, denoising_loss, draw_times, get_preset
from phasewise.training.loop import Together
from phasewise.training.settings import TrainSettings
from studies.gpu.place import Place

Make = Callable[[tuple[int, int, int]], NetworkDenoiser]
RADII = {28: (1, 2, 3, 5, 8, 12), 32: (1, 2, 3, 5, 8, 12), 64: (1, 2, 3, 5, 8, 12, 16), 128: (2, 3, 5, 8, 12, 16, 24)}
WINDOWS: tuple[int | None, ...] = (None, 1, 2, 4)


def unet(width: int) -> Make:
    return lambda shape: pw.UNetDenoiser(shape, width=width, patch=2)


def unet_of(size: str) -> Make:
    return lambda shape: pw.UNetDenoiser.of_size(shape, size)


def dit_of(size: str) -> Make:
    return lambda shape: DiTDenoiser.of_size(shape, size)


def preset_for(place: Place, data: ImageData, **changes: Any) -> TrainPreset:
    """Flips for photographs, smaller batches for small sets; on the CPU nothing is compiled."""
    preset = replace(get_preset("gpu"), flip="mnist" not in data.name, **changes)
    if len(data.train) < 10_000:
        preset = replace(preset, batch=256, weight_decay=1e-2)
    if place.quick:
        preset = replace(preset, batch=8)
    return preset if place.device != "cpu" else replace(preset, compile=False, precision="float32")


def train_network(make: Make, seconds: float, **changes: Any) -> Callable[[Place, str, str], dict[str, Any]]:
    """A job that trains one network for so many seconds: the pace is measured first, and kept for going on."""

    def job(place: Place, name: str, network: str) -> dict[str, Any]:
        data = place.images(name)
        torch.manual_seed(0)
        fresh = make(data.image_shape).to(place.device)
        return _trained({network: fresh}, data, place, name, seconds, preset_for(place, data, **changes), None)[network]

    return job


def train_locals(seconds: float) -> Callable[[Place, str, str], dict[str, Any]]:
    """A job that trains every local network and the control in one pass, taught by the set's global network."""

    def job(place: Place, name: str, network: str) -> dict[str, Any]:
        data, teacher = place.images(name), place.network(name, "global")
        radii = (1, 2) if place.quick else RADII[data.image_shape[1]]
        torch.manual_seed(0)
        locals_ = {f"r{r}": pw.LocalDenoiser(data.image_shape, r).to(place.device) for r in radii}
        networks: dict[str, NetworkDenoiser] = {**locals_}
        if data.image_shape[1] <= 64:  # its window is the image: beyond, a batch of them fits nowhere
            networks["control"] = locals_[f"r{max(radii)}"].opened().to(place.device)
        preset = preset_for(place, data, compile=False)
        return {"networks": _trained(networks, data, place, name, seconds, preset, teacher)}

    return job


def _trained(
    networks: dict[str, NetworkDenoiser],
    data: ImageData,
    place: Place,
    name: str,
    seconds: float,
    preset: TrainPreset,
    teacher: pw.Denoiser | None,
) -> dict[str, dict[str, Any]]:
    first = next(iter(networks))
    plan = place.folder(name, first) / "plan.json"
    settings: dict[str, Any] = {"device": place.device, "teacher": teacher, "progress": False, "checkpoint_every": 45.0}
    if not plan.exists():  # a job that was cut off keeps the number of steps it set out for
        pace = _steps_a_second(networks, data, preset, TrainSettings(**settings), place.quick)
        write_json(plan, {"steps": 2 if place.quick else max(round(pace * seconds * place.pace), 100), "pace": pace})
    steps = int(read_json(plan)["steps"])
    out = place.work / name
    records = pw.training.train_together(networks, data, replace(preset, steps=steps), out=out, **settings)
    answers = {}
    for network, denoiser in networks.items():
        folder = place.folder(name, network)
        pw.save_denoiser(denoiser, folder)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        record = records[network]
        answers[network] = {
            "steps": record.steps, "images_seen": record.images_seen, "seconds": record.seconds,
            "val_loss": record.val_loss, "val_by_time": [float(v) for v in record.val_by_time],
            "parameters": record.parameters, "history": [dict(row) for row in record.history],
        }  # fmt: skip
    return answers


def _steps_a_second(
    networks: dict[str, NetworkDenoiser], data: ImageData, preset: TrainPreset, settings: TrainSettings, quick: bool
) -> float:
    """Measured on copies, compiled as the training will be."""
    trial = Together(copy.deepcopy(networks), data, replace(preset, steps=10**9), dict.fromkeys(networks), settings)
    for trainer in trial.trainers.values():
        trainer.resume()
    before, measured = (1, 1) if quick else (15, 40)
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


def teach_windows(steps: int) -> Callable[[Place, str, str], dict[str, Any]]:
    """A job that goes on training the set's transformer, each step with another window of attention (or none), so that
    the same weights serve all of them; the transformer before it teaches."""

    def job(place: Place, name: str, network: str) -> dict[str, Any]:
        data, teacher = place.images(name), place.network(name, "dit")
        student = copy.deepcopy(teacher)
        assert isinstance(student, DiTDenoiser)
        views = [student.windowed(w) for w in WINDOWS]
        calls = [torch.compile(v) if place.device != "cpu" else v for v in views]
        images = data.train.to(place.device)
        size, count = (8, 2) if place.quick else (256, max(round(steps * place.pace), 1))
        draw = torch.Generator().manual_seed(5)
        there = torch.Generator(place.device).manual_seed(5)
        step = [0]

        def loss_of() -> torch.Tensor:
            chosen = torch.randint(len(images), (size,), generator=draw).to(place.device)
            x = images[chosen]
            if "mnist" not in name:
                mirrored = (torch.rand(size, generator=draw) < 0.5).to(place.device)
                x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
            z = torch.randn(x.shape, generator=there, device=place.device)
            t = draw_times(size, "mixed", (0.0, 1.0), draw).to(place.device)
            with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=place.device != "cpu"):
                target = teacher(teacher.path.add_noise(x, z, t), t).float()
            which = step[0] % len(calls)
            step[0] += 1
            with torch.autocast(x.device.type, torch.bfloat16, enabled=place.device != "cpu"):
                mean = calls[which](student.path.add_noise(x, z, t), t)
            scale = student.output_scale(t).clamp_min(1e-6)
            return ((mean.float() - target) / scale).square().flatten(1).mean()

        rate = lambda k: {"lr": cosine_decay(warm_up(3e-4, k, 50), k, count, floor=0.02)}  # noqa: E731
        start = time.perf_counter()
        minimise(student, loss_of, count, rate, weight_decay=1e-3, betas=(0.9, 0.99), clip=1.0)
        pw.save_denoiser(student, place.folder(name, network))
        losses = {}
        with torch.no_grad():
            generator = torch.Generator().manual_seed(6)
            x = data.validation[:500].to(place.device)
            z = torch.randn(x.shape, generator=generator).to(place.device)
            t = draw_times(len(x), "mixed", (0.0, 1.0), generator).to(place.device)
            for who, model in (("before", teacher), ("after", student)):
                for w in WINDOWS:
                    loss = denoising_loss(model.windowed(w), x, z, t)  # type: ignore[operator]
                    losses[f"{who} {w}"] = float(loss.mean())
        return {"steps": count, "seconds": time.perf_counter() - start, "validation": losses}

    return job


def train_judge(architecture: str, epochs: int) -> Callable[[Place, str, str], dict[str, Any]]:
    """A job that trains a classifier of the set's own labels, whose features judge samples."""

    def job(place: Place, name: str, network: str) -> dict[str, Any]:
        data = place.images(name)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        start = time.perf_counter()
        photographs = "mnist" not in name
        judge = train_classifier(
            data, seed={"plain": 1, "residual": 2, "mixer": 3}[architecture], epochs=1 if place.quick else epochs,
            device=place.device, architecture=architecture, flip=photographs,
            batch=16 if place.quick else 256 if len(data.train) > 10_000 else 64,
        )  # fmt: skip
        judge.save(place.folder(name, network))
        return {"test_accuracy": judge.test_accuracy, "seconds": time.perf_counter() - start, "judge": judge.name}

    return job
