"""The stages of a run. Each reads what earlier ones wrote, calls one room and writes records; none computes itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors

from phasewise.data import ImageData, load_images
from phasewise.denoisers import Denoiser, LocalDenoiser, UNetDenoiser, WienerDenoiser, load_denoiser, save_denoiser
from phasewise.denoisers.network import NetworkDenoiser
from phasewise.diagnosis import gap_window, measure_losses, measure_recovery, path_kl
from phasewise.errors import PhasewiseError
from phasewise.files import read_json, write_bytes, write_json
from phasewise.metrics import FeatureNetwork, default_features
from phasewise.paths import path_from_config
from phasewise.pipeline.config import RunConfig
from phasewise.pipeline.diagnosing import CMI_CHOICES, cmi_window, measure_cmi
from phasewise.pipeline.folder import RunFolder, Stage
from phasewise.pipeline.judging import Judge, evaluate_all, plan_schedules
from phasewise.pipeline.recording import to_uint8, write_judgement
from phasewise.report import build_report
from phasewise.results import HybridSchedule, LossTable, PriceList
from phasewise.sampling import time_grid
from phasewise.scheduling import WEIGHTINGS, explain, pareto_front, price_list
from phasewise.training import get_preset, train

Say = Callable[[str], None]


@dataclass
class Context:
    """What a stage works with: the folder, the config, and lazily the data and the denoisers on disk."""

    folder: RunFolder
    config: RunConfig
    say: Say
    live: bool = True
    _loaded: dict[str, Denoiser] = field(default_factory=dict)

    @cached_property
    def data(self) -> ImageData:
        c = self.config
        return load_images(c.data, data_dir=c.data_dir, seed=c.seed, limit=c.limit).to(c.device)

    @cached_property
    def features(self) -> FeatureNetwork:
        c = self.config
        folder = self.folder.path("models", "features")
        return default_features(self.data, seed=c.seed, cache_dir=folder, device=c.device, kind=c.features)

    def denoiser(self, name: str) -> Denoiser:
        if name not in self._loaded:
            self._loaded[name] = load_denoiser(self.folder.path("models", name), self.config.device)
        return self._loaded[name]

    def members(self, control: bool = True) -> dict[str, Denoiser]:
        names = [n for n in denoiser_names(self.config) if control or n != "control"]
        return {name: self.denoiser(name) for name in names}

    def progress(self, row: dict[str, Any]) -> None:
        self.say(
            f"  {row['name']} step {row['step']}/{row['steps']}: validation loss {row['val_loss']:.4f}, "
            f"{row['steps_per_s']:.1f} steps/s, {row['seconds_left']:.0f} s left"
        )

    def write(self, name: str, value: Any) -> None:
        write_json(self.folder.path("records", name), value)


def denoiser_names(config: RunConfig) -> list[str]:
    locals_ = [f"r{r}" for r in config.radii]
    return ["global", *config.cheap_globals, *locals_, *(["control"] if config.control else []), "wiener"]


def build_untrained(name: str, config: RunConfig, shape: tuple[int, int, int]) -> NetworkDenoiser:
    """A fresh network by its name in a run: "global", a size, "control", or "r<radius>"; weights by (seed, name)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1000 + sum(map(ord, name)))
        if name == "global":
            return UNetDenoiser(shape, width=config.global_width)
        if name in config.cheap_globals:
            return UNetDenoiser.of_size(shape, name)
        if name == "control":
            return LocalDenoiser(shape, max(config.radii)).opened()
        return LocalDenoiser(shape, int(name[1:]))


def do_data(ctx: Context) -> None:
    ctx.write("data.json", ctx.data.record().to_dict())


def do_features(ctx: Context) -> None:
    network = ctx.features
    about = {"name": network.name, "test_accuracy": network.test_accuracy, "n_test": len(ctx.data.test)}
    ctx.write("features.json", about)


def do_train(name: str) -> Callable[[Context], None]:
    def work(ctx: Context) -> None:
        config = ctx.config
        folder = ctx.folder.path("models", name)
        if name == "wiener":
            save_denoiser(WienerDenoiser.fit(ctx.data.train), folder)
            return
        if config.networks is not None and (Path(config.networks) / name / "config.json").is_file():
            take_trained(ctx, name, Path(config.networks) / name)
            return
        network = build_untrained(name, config, ctx.data.image_shape)
        wide = name == "global" or name in config.cheap_globals
        epochs = config.global_epochs if wide else config.local_epochs
        preset = get_preset(config.preset, batch=config.batch, epochs=epochs)
        record = train(
            network, ctx.data, preset, name=name, seed=config.seed, out=folder, device=config.device,
            progress=True if ctx.live else ctx.progress,
        )  # fmt: skip
        save_denoiser(network, folder)
        ctx.write(f"training/{name}.json", record.to_dict())
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        ctx.say(f"{name}: validation loss {record.val_loss:.4f} after {record.steps} steps, {record.seconds:.0f} s")

    return work


def take_trained(ctx: Context, name: str, source: Path) -> None:
    """Put a denoiser trained elsewhere, and its training record where there is one, into the run."""
    denoiser = load_denoiser(source)
    if denoiser.image_shape != ctx.data.image_shape:
        raise PhasewiseError(
            f"{source} denoises images of shape {denoiser.image_shape}, the data has {ctx.data.image_shape}"
        )
    if name.removeprefix("r").isdigit() and denoiser.radius != int(name[1:]):
        raise PhasewiseError(f"{source} sees a radius of {denoiser.radius}, not {name[1:]}")
    save_denoiser(denoiser, ctx.folder.path("models", name))
    if (source / "training.json").is_file():
        ctx.write(f"training/{name}.json", read_json(source / "training.json"))
    ctx.say(f"{name}: taken from {source}")


def discard_training(folder: RunFolder, name: str) -> None:
    """Drop a stale model, so that another config's checkpoint is not resumed."""
    shutil.rmtree(folder.path("models", name), ignore_errors=True)


def do_diagnose(ctx: Context) -> None:
    config = ctx.config
    control = "control" if config.control else None
    table = measure_losses(
        ctx.members(), ctx.data.test[: config.n_losses], config.times, control=control, seed=config.seed + 1
    )
    ctx.write("losses.json", table.to_dict())
    path = path_from_config(table.path)
    ctx.write("gap.json", {"path_kl": {k: v.to_dict() for k, v in path_kl(table, path).items()}})


def do_recovery(ctx: Context) -> None:
    config = ctx.config
    keep = [name for name in denoiser_names(config) if name != "wiener"]
    images = ctx.data.test[: config.n_recovery]
    record, pictures = measure_recovery(
        {n: ctx.denoiser(n) for n in keep}, images, config.recovery_times, steps=config.steps, solver=config.solver,
        seed=config.seed + 2, t_min=config.t_min,
    )  # fmt: skip
    ctx.write("recovery.json", record.to_dict())
    pixels = {k: to_uint8(v, ctx.data.pixel_range) for k, v in pictures.items()}
    write_bytes(ctx.folder.path("samples", "recovery.safetensors"), save_tensors(pixels))


def do_cmi(ctx: Context) -> None:
    fit = measure_cmi(ctx.data.to("cpu"), ctx.config, ctx.folder, ctx.say)
    at = "t_c not resolved"
    if fit.t_c is not None:
        at = f"t_c = {fit.t_c:.3g} (95 %: {fit.t_c_low:.3g} to {fit.t_c_high:.3g})"
        at += f", but {fit.t_c_note}" if fit.t_c_note else ""
    where = "nowhere" if fit.window is None else f"for t in [{fit.window[0]:.3g}, {fit.window[1]:.3g}]"
    ctx.say(f"CMI: {at}; above {fit.tolerance:g} nats at r = {fit.window_radius} {where}")


def do_schedule(ctx: Context) -> None:
    config = ctx.config
    grid = time_grid(config.steps, t_min=config.t_min, spacing=config.spacing)
    members = ctx.members(control=False)
    prices = price_list(
        members,
        ctx.data,
        grid,
        seed=config.seed + 3,
        n=config.n_losses,
        paths=config.growth_trajectories if config.weighting == "w2" else 0,
        features=ctx.features,
    )
    ctx.write("prices.json", prices.to_dict())
    fronts = {w: pareto_front(prices, weighting=w, solver=config.solver) for w in WEIGHTINGS}
    gap, cmi = read_gap(ctx), cmi_window(config, ctx.folder) if config.window == "cmi" else None
    window = {"gap": gap, "cmi": cmi}[config.window] if isinstance(config.window, str) else config.window
    if window is None:
        raise PhasewiseError(f"r{config.window_radius} has no positive denoising gap: give the window as LOW,HIGH")
    schedules, chosen = plan_schedules(prices, fronts, config, (float(window[0]), float(window[1])), gap, cmi)
    content = {w: {**f.to_dict(), "chosen": chosen if w == config.weighting else None} for w, f in fronts.items()}
    for old in ("records/evaluation.json", "summary.json"):  # they judge another schedule
        ctx.folder.path(old).unlink(missing_ok=True)
    ctx.write("fronts.json", content)
    ctx.write("schedules.json", {k: s.to_dict() for k, s in schedules.items()})
    told = explain(schedules["hybrid"], prices, weighting=config.weighting)
    ctx.write("explanations.json", {"hybrid": told})
    share = (schedules["hybrid"].mflop or 0.0) / (schedules["global"].mflop or 1.0)
    spans = ", ".join(f"{name} {start:.2f}-{end:.2f}" for start, end, name in schedules["hybrid"].spans())
    ctx.say(f"hybrid: {spans}; {share:.0%} of the all-global FLOPs")
    for line in told:
        ctx.say(f"  {line}")


def read_gap(ctx: Context) -> tuple[float, float] | None:
    """Window of the denoising gap of the window's local denoiser; None when it has no positive gap."""
    table = LossTable.from_dict(read_json(ctx.folder.path("records", "losses.json")))
    name = f"r{ctx.config.window_radius}"
    if not (table.gap[:, table.column(name)] > 0).any():
        return None
    return gap_window(table, path_from_config(table.path), name)


def do_evaluate(ctx: Context) -> None:
    schedules = {
        k: HybridSchedule.from_dict(v) for k, v in read_json(ctx.folder.path("records", "schedules.json")).items()
    }
    prices = PriceList.from_dict(read_json(ctx.folder.path("records", "prices.json")))
    judge = Judge.of_data(ctx.data, ctx.features, ctx.config)
    result = evaluate_all(ctx.members(control=False), schedules, prices, judge, ctx.config, ctx.say)
    about = read_json(ctx.folder.path("records", "features.json"))
    write_judgement(ctx.folder, result, about, ctx.data.pixel_range)


def do_report(ctx: Context) -> None:
    path = build_report(ctx.folder.root)
    ctx.say(f"report: {path}")


def all_stages(config: RunConfig) -> list[Stage]:
    """The stages of a run in order."""
    data = ("data", "data_dir", "limit", "seed")
    common = ("preset", "batch", "device")
    grid = ("steps", "solver", "spacing", "t_min")
    names = denoiser_names(config)
    stages = [
        Stage("data", (), data, ("records/data.json",), do_data),
        Stage("features", ("data",), ("features",), ("records/features.json",), do_features),
    ]
    for name in names:
        choices: tuple[str, ...] = ()
        if name != "wiener":
            wide = name in config.cheap_globals
            choices = ("global_width", "global_epochs") if name == "global" else ("local_epochs",)
            choices = (*common, "networks", *(("global_epochs",) if wide else choices))
            choices = (*choices, *(("radii",) if name == "control" else ()))
        outputs = (f"models/{name}/config.json", f"models/{name}/weights.safetensors")
        stages.append(Stage(f"train-{name}", ("data",), choices, outputs, do_train(name)))
    trained = tuple(f"train-{n}" for n in names)
    stages += [
        Stage("diagnose", trained, ("times", "n_losses"), ("records/losses.json", "records/gap.json"), do_diagnose),
        Stage("recovery", trained, (*grid, "recovery_times", "n_recovery"), ("records/recovery.json",), do_recovery),
    ]  # fmt: skip
    if config.cmi:
        stages.append(Stage("cmi", ("data",), CMI_CHOICES, ("records/cmi.json", "records/markov.json"), do_cmi))
    window, shown = ("cmi",) * (config.window == "cmi"), ("cmi",) * config.cmi
    stages += [
        Stage(
            "schedule", (*trained, "diagnose", "features", *window),
            (*grid, "n_losses", "weighting", "growth_trajectories", "budget", "window", "window_radius"),
            ("records/prices.json", "records/schedules.json", "records/fronts.json"), do_schedule,
        ),
        Stage(
            "evaluate", ("schedule", "features"), ("n_samples", "n_grid"),
            ("records/evaluation.json", "summary.json"), do_evaluate,
        ),
        Stage("report", ("evaluate", "diagnose", "recovery", *shown), (), ("report.html",), do_report),
    ]  # fmt: skip
    return stages


COMMANDS = {
    "train": "train-wiener",
    "diagnose": "recovery",
    "cmi": "cmi",
    "schedule": "schedule",
    "evaluate": "evaluate",
    "run": "report",
}
"""The last stage of each command."""


def wanted(command: str, stages: list[Stage]) -> list[Stage]:
    """The stages of a command in order: all up to its last; CMI only in a whole run or where another stage needs it."""
    last = next((i for i, s in enumerate(stages) if s.name == COMMANDS[command]), None)
    if last is None:
        raise PhasewiseError("this run leaves out conditional mutual information; drop --no-cmi")
    chosen = stages[: last + 1]
    needed = {name for s in chosen for name in s.needs}
    if command == "cmi":
        return [s for s in chosen if s.name in ("cmi", *stages[last].needs)]
    return [s for s in chosen if s.name != "cmi" or command == "run" or "cmi" in needed]
