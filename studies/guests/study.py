"""Guests made by diffusers' own classes, and whether they are understood: noise, posterior means, images."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import phasewise as pw
from phasewise.bridges.diffusers import DiffusersDenoiser, from_diffusers, read_folder
from studies import subject
from studies.guests.fixtures import save_folder, trained
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

STEPS, IMAGES = 10, 8
PREDICTED = ("epsilon", "sample", "v_prediction")


@dataclass(frozen=True)
class Options:
    data: str = choice("mnist", "image set with labels", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds it")
    size: str = choice("usual", "of the guests", choices=("usual", "tiny"), quick="tiny")
    steps: int = choice(3000, "of training each", quick=2)
    batch: int = choice(64, "images a step", quick=4)


class Guests(Study[Options]):
    """The guests lie in OUT/unet and OUT/transformer, pipeline folders as diffusers writes them; training stops and
    resumes.  Agreement is measured with the U-Net's weights under every scheduler and prediction type: largest
    difference of noisy images, of posterior means (over the largest pixel), and of images after ten steps by the
    scheduler and by ours of the same kind."""

    name = "guests"
    question = "Do networks of diffusers give the same images here as there?"
    options_type = Options
    page = "results/guests.md"

    def cells(self) -> Iterator[Cell]:
        o = self.options
        for kind in ("unet", "transformer"):
            yield Cell(f"make/{kind}", {"data": o.data, "size": o.size, "steps": o.steps, "batch": o.batch}, kind)
        for name, (scheduler, solver, whole) in schedulers().items():
            yield Cell(f"agree/{name}", {"data": o.data, "size": o.size, "solver": solver}, (scheduler, solver, whole))

    @cached_property
    def unet(self) -> Any:
        return read_folder(self.out / "unet").module

    def measure(self, cell: Cell) -> dict[str, Any]:
        if cell.name.startswith("make/"):
            return self.make(cell.what)
        scheduler, solver, whole = cell.what
        return agreement(from_diffusers(self.unet, scheduler, whole_times=whole, clamp=False), solver)

    def make(self, kind: str) -> dict[str, Any]:
        o = self.options
        data = subject.load(o.data, o.data_dir)
        net = trained(kind, data, o.steps, size=o.size, batch=o.batch, checkpoint=self.work / f"{kind}.safetensors")
        folder = save_folder(kind, net, self.out / kind)
        weights = sum(p.stat().st_size for p in folder.rglob("*.safetensors"))
        denoiser = read_folder(folder)
        parts = {p: 2 * getattr(data, p) - 1 for p in ("train", "validation", "test")}
        wide = replace(data, **parts, pixel_range=(-1.0, 1.0))
        claims = pw.check_claims(denoiser, wide, cond="labels" if denoiser.takes_condition else None)
        told = denoiser.given(0) if denoiser.takes_condition else denoiser
        return {"mb": weights / 1e6, "mflop": pw.count_flops(told, data.image_shape) / 1e6, "over_wiener": claims.ratio}

    def tables(self, answers: Answers) -> dict[str, str]:
        made = {k.removeprefix("make/"): v for k, v in answers.items() if k.startswith("make/")}
        agreed = {k.removeprefix("agree/"): v for k, v in answers.items() if k.startswith("agree/")}
        found = {}
        if made:
            rows = [
                [k, str(v["asked"]["steps"]), f"{v['mflop']:.0f}", f"{v['mb']:.1f}", f"{v['over_wiener']:.2f}"]
                for k, v in made.items()
            ]
            found["made"] = markdown(["guest", "steps of training", "MFLOP", "MB", "loss over Wiener's"], rows)
        if agreed:
            heads = ["scheduler", "our solver", "noisy images", "posterior means", "images"]
            rows = [
                [
                    k,
                    v["asked"]["solver"],
                    *("not shown" if v[n] is None else f"{v[n]:.1e}" for n in ("noise", "mean", "image")),
                ]
                for k, v in agreed.items()
            ]
            about = f"Largest difference over the largest pixel; {IMAGES} images, {STEPS} steps."
            found["agreement"] = markdown(heads, rows, about)
        return found


def schedulers() -> dict[str, tuple[Any, str, bool]]:
    """By name: a scheduler of diffusers, our solver that takes the same steps, and whether it rounds its times."""
    from diffusers import (
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        EDMEulerScheduler,
        EulerDiscreteScheduler,
        FlowMatchEulerDiscreteScheduler,
    )

    found: dict[str, tuple[Any, str, bool]] = {}
    for kind in PREDICTED:
        found[f"DDIM, {kind}"] = (DDIMScheduler(prediction_type=kind, clip_sample=False), "ddim", False)
        found[f"Euler, {kind}"] = (EulerDiscreteScheduler(prediction_type=kind), "ddim", False)
        found[f"DPM-Solver++(2M), {kind}"] = (DPMSolverMultistepScheduler(prediction_type=kind), "dpmpp_2m", False)
        found[f"DPM-Solver++(2M), Karras sigmas, {kind}"] = (
            DPMSolverMultistepScheduler(prediction_type=kind, use_karras_sigmas=True), "dpmpp_2m", True,
        )  # fmt: skip
    for kind in PREDICTED[1:]:
        zero = DDIMScheduler(
            prediction_type=kind, clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing"
        )
        found[f"DDIM, zero terminal SNR, {kind}"] = (zero, "ddim", False)
    scaled = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    found["DDIM, scaled betas, epsilon"] = (scaled, "ddim", False)
    for shift in (1.0, 3.0):
        found[f"flow-match Euler, shift {shift:g}"] = (FlowMatchEulerDiscreteScheduler(shift=shift), "euler", False)
    for kind in ("epsilon", "v_prediction"):
        found[f"EDM Euler, {kind}"] = (EDMEulerScheduler(prediction_type=kind), "ddim", False)
    return found


@torch.no_grad()
def agreement(denoiser: DiffusersDenoiser, solver: str) -> dict[str, float | None]:
    """Largest differences, over the largest pixel, between what a scheduler makes of the network and what we do; None
    for posterior means that a scheduler does not show."""
    generator = torch.Generator().manual_seed(0)
    x, z = torch.rand(2, IMAGES, *denoiser.image_shape, generator=generator)
    x, z = 2 * x - 1, torch.randn(z.shape, generator=generator)
    scheduler, times = copy.deepcopy(denoiser.scheduler), denoiser.times(STEPS)
    scheduler.set_timesteps(STEPS)
    noise, means = 0.0, []
    begun = x_t = z * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for k, (step, t) in enumerate(zip(scheduler.timesteps, times, strict=True)):
        ours = denoiser.path.add_noise(x, z, t)
        theirs = _noised(copy.deepcopy(scheduler), x, z, step)
        scale = _scale(scheduler, denoiser.noise.kind, k)
        noise = max(noise, _apart(ours, theirs * scale))
        shown = scheduler.scale_model_input(x_t, step) if hasattr(scheduler, "scale_model_input") else x_t
        moved = scheduler.step(_said(denoiser, shown, step), step, x_t)
        if getattr(moved, "pred_original_sample", None) is not None:
            means.append(_apart(denoiser(x_t * scale, t), moved.pred_original_sample))
        x_t = moved.prev_sample
    start = begun * _scale(scheduler, denoiser.noise.kind, 0)
    drawn = pw.sample(denoiser, times=times, solver=solver, x_init=start, t_start=times[0])
    return {"noise": noise, "mean": max(means, default=None), "image": _apart(drawn, x_t)}


def _said(denoiser: DiffusersDenoiser, shown: Tensor, step: Tensor) -> Tensor:
    return denoiser.module(shown, step).sample


def _noised(scheduler: Any, x: Tensor, z: Tensor, step: Tensor) -> Tensor:
    if hasattr(scheduler, "scale_noise"):
        return scheduler.scale_noise(x, step.reshape(1), z)
    if hasattr(scheduler, "sigmas") and hasattr(scheduler, "index_for_timestep"):
        return scheduler.add_noise(x, z, step.reshape(1))
    return scheduler.add_noise(x, z, step.long().reshape(1))


def _scale(scheduler: Any, kind: str, k: int) -> float:
    """What a scheduler's sample is multiplied by to lie on our path: Euler's keep alpha at 1, where the table's is
    1 / sqrt(1 + sigma^2)."""
    unscaled = kind == "table" and type(scheduler).__name__.startswith(("Euler", "Heun", "LMS"))
    return float((scheduler.sigmas[k] ** 2 + 1) ** -0.5) if unscaled else 1.0


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(1.0))
