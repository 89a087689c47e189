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
from phasewise.bridges.diffusers import DiffusersDenoiser, from_diffusers, read_folder, to_diffusers
from phasewise.metrics import frechet_score
from studies import subject
from studies.guests.fixtures import save_folder, trained
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study
from studies.timing import ratio, seconds_of

STEPS, IMAGES, BATCH = 10, 8, 64
PREDICTED = ("epsilon", "sample", "v_prediction")


@dataclass(frozen=True)
class Options:
    data: str = choice("mnist", "image set with labels", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds it")
    size: str = choice("usual", "of the guests", choices=("usual", "tiny"), quick="tiny")
    steps: int = choice(3000, "of training each", quick=2)
    batch: int = choice(64, "images a step", quick=4)
    schedulers: int = choice(0, "so many of them; 0: all", quick=2)
    n: int = choice(2000, "samples by a pipeline, and as many by ours", quick=8)
    rounds: int = choice(5, "of timing", quick=1)


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
        for name, (scheduler, solver, whole) in list(schedulers().items())[: o.schedulers or None]:
            yield Cell(f"agree/{name}", {"data": o.data, "size": o.size, "solver": solver}, (scheduler, solver, whole))
        yield Cell("home", {"data": o.data, "size": o.size, "n": o.n, "rounds": o.rounds})

    @cached_property
    def unet(self) -> Any:
        return read_folder(self.out / "unet").module

    def measure(self, cell: Cell) -> dict[str, Any]:
        if cell.name.startswith("make/"):
            return self.make(cell.what)
        if cell.name == "home":
            return self.taken_home()
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
        claims = pw.check_claims(denoiser, wide, cond="labels" if denoiser.takes_condition else None, search=False)
        told = denoiser.given(0) if denoiser.takes_condition else denoiser
        return {"mb": weights / 1e6, "mflop": pw.count_flops(told, data.image_shape) / 1e6, "over_wiener": claims.ratio}

    def taken_home(self) -> dict[str, Any]:
        """A hybrid of the guest and the shipped coarse network, drawn by diffusers' pipeline and by ours: FID, and the
        share of the guest's time that it takes, as priced and as timed in the pipeline."""
        o, ready = self.options, pw.load_pretrained("mnist")
        coarse, features = ready.denoiser("coarse"), ready.features()
        guest = from_diffusers(self.unet, schedulers()["DDIM, epsilon"][0], clamp=False)
        # it takes 0..1 where the guest takes -1..1
        cheap = pw.wrap(lambda x, t: coarse(x, t), guest.image_shape, predicts="x0", pixel_range=(0.5, 1.0))
        times = guest.times(STEPS)
        first, last = STEPS // 2, STEPS // 5
        turns = ("cheap",) * first + ("guest",) * (STEPS - first - last) + ("cheap",) * last
        plan = pw.HybridSchedule(times, turns, solver="ddim", path=guest.path.config())
        hybrid = pw.HybridDenoiser({"guest": guest, "cheap": cheap}, plan)
        ours = features.extract(pw.sample(hybrid, n=o.n, seed=0).add(1).div(2).clamp(0, 1))
        theirs = features.extract(drawn_by_pipeline(to_diffusers(hybrid), guest.scheduler, o.n))
        fids = [frechet_score(found, ready.reference_moments(), seed=0) for found in (ours, theirs)]
        x, batch = torch.randn(BATCH, *guest.image_shape), BATCH
        home, alone = to_diffusers(hybrid), to_diffusers(guest)
        seen = seconds_of(
            {
                "guest": lambda: guest(x, 0.5),
                "cheap": lambda: cheap.on(guest.path)(x, 0.5),
                "alone": lambda: drawn_by_pipeline(alone, guest.scheduler, batch),
                "home": lambda: drawn_by_pipeline(home, guest.scheduler, batch),
            },
            o.rounds,
        )
        calls = plan.assignment.count("guest"), plan.assignment.count("cheap")
        priced = (calls[0] + calls[1] * ratio(seen, "cheap", "guest")[0]) / STEPS
        return {
            "ours": [fids[0].value, fids[0].stderr], "theirs": [fids[1].value, fids[1].stderr], "priced": priced,
            "timed": list(ratio(seen, "home", "alone")),
        }  # fmt: skip

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
        if "home" in answers:
            home = answers["home"]
            rows = [
                ["FID", *(f"{home[k][0]:.2f} ± {home[k][1]:.2f}" for k in ("ours", "theirs"))],
                [
                    "time over the guest's alone",
                    f"{home['priced']:.2f}",
                    f"{home['timed'][0]:.2f} ± {home['timed'][1]:.2f}",
                ],
            ]
            asked = home["asked"]
            about = f"n = {asked['n']} samples each, of different seeds; {asked['rounds']} rounds of timing."
            found["home"] = markdown(["", "here, or as priced", "by diffusers' pipeline"], rows, about)
        return found


@torch.no_grad()
def drawn_by_pipeline(model: Any, scheduler: Any, n: int) -> Tensor:
    """(n, C, H, W) in 0..1, by diffusers' own DDIMPipeline."""
    from diffusers import DDIMPipeline

    pipe = DDIMPipeline(model, scheduler)
    pipe.set_progress_bar_config(disable=True)
    generator, drawn = torch.Generator().manual_seed(1), []
    for begin in range(0, n, BATCH):
        size = min(BATCH, n - begin)
        images = pipe(size, generator, num_inference_steps=STEPS, output_type="np").images
        drawn.append(torch.from_numpy(images).permute(0, 3, 1, 2))
    return torch.cat(drawn)


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
