"""Recipes of the networks that runs, shipped sets and other studies begin from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import phasewise as pw
from phasewise.denoisers import NetworkDenoiser
from phasewise.denoisers.unet import GLOBAL_SIZES
from phasewise.errors import PhasewiseError
from phasewise.results import TrainingRecord
from phasewise.training import get_preset, train_together
from studies import subject
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

HEADS = ("network", "steps", "validation loss", "s")


@dataclass(frozen=True)
class GlobalOptions:
    name: str = choice("global", "of the network, and of its folder")
    size: str | None = choice(None, "of a new one", choices=tuple(GLOBAL_SIZES), quick="coarse")
    start: str | None = choice(None, "folder of a trained one to go on from")
    data: str = choice("mnist", "image set", quick="digits")
    data_dir: str | None = choice(None, "folder that holds it")
    steps: int = choice(6000, "of training", quick=1)
    batch: int = choice(128, "images a step", quick=8)
    lr: float | None = choice(None, "peak learning rate; none: the preset's")
    seed: int = choice(0, "of the training")


class TrainGlobal(Study[GlobalOptions]):
    """Trains a global network of a named size, or goes on with one already trained; resumes where it was stopped.  The
    network lies in OUT/NAME; `phasewise run --networks OUT --cheap-globals coarse,small` then takes what
    lies there instead of training it."""

    name = "train_global"
    question = "What held-out loss does a global network of a given size reach in so many steps?"
    options_type = GlobalOptions

    def cells(self) -> Iterator[Cell]:
        if (self.options.size is None) == (self.options.start is None):
            raise PhasewiseError("give either the size of a new network with --size or a trained one with --start")
        yield Cell(self.options.name, asked_of(self.options))

    def measure(self, cell: Cell) -> dict[str, Any]:
        o = self.options
        data = subject.load(o.data, o.data_dir)
        torch.manual_seed(o.seed)
        network = pw.load_denoiser(o.start) if o.start else pw.UNetDenoiser.of_size(data.image_shape, str(o.size))
        if not isinstance(network, NetworkDenoiser):
            raise PhasewiseError(f"{o.start} holds a {type(network).__name__}, which is not trained by steps")
        preset, place = get_preset("default"), self.out / o.name
        plan = replace(preset, lr=o.lr or preset.lr, batch=o.batch)
        record = pw.train(network, data, plan, name=o.name, steps=o.steps, seed=o.seed, out=place)
        return {"networks": {o.name: kept(network, record, place)}}

    def tables(self, answers: Answers) -> dict[str, str]:
        return {"": table(answers)}


@dataclass(frozen=True)
class LocalOptions:
    radii: tuple[int, ...] = choice((1, 2, 3, 5, 8, 12), "of the networks", quick=(1, 2))
    teacher: str | None = choice(None, "folder of a trained network; none: they learn the images")
    data: str = choice("mnist", "image set", quick="digits")
    data_dir: str | None = choice(None, "folder that holds it")
    steps: int = choice(3500, "of training", quick=1)
    batch: int = choice(128, "images a step", quick=8)
    seed: int = choice(0, "of the training")


class TrainLocals(Study[LocalOptions]):
    """Trains local networks of several radii in one pass over the data, taught by a trained global network.  They lie
    in OUT/{r1, r2, ..., control}; control is the design of the largest radius with its window opened to the whole
    image.  Resumes where it was stopped.  `phasewise run --networks OUT` takes what lies there."""

    name = "train_locals"
    question = "What held-out loss do local networks of each radius reach, taught by a global one?"
    options_type = LocalOptions

    def cells(self) -> Iterator[Cell]:
        yield Cell("locals", asked_of(self.options))

    def measure(self, cell: Cell) -> dict[str, Any]:
        o = self.options
        data = subject.load(o.data, o.data_dir)
        torch.manual_seed(o.seed)
        networks = {f"r{r}": pw.LocalDenoiser(data.image_shape, r) for r in o.radii}
        networks["control"] = networks[f"r{max(o.radii)}"].opened()
        teacher = pw.load_denoiser(o.teacher) if o.teacher else None
        records = train_together(
            networks, data, steps=o.steps, batch=o.batch, seed=o.seed, out=self.out, teacher=teacher
        )
        return {"networks": {n: kept(network, records[n], self.out / n) for n, network in networks.items()}}

    def tables(self, answers: Answers) -> dict[str, str]:
        return {"": table(answers)}


def asked_of(options: GlobalOptions | LocalOptions) -> dict[str, Any]:
    """All choices but where the images lie."""
    return {name: value for name, value in asdict(options).items() if name != "data_dir"}


def kept(network: NetworkDenoiser, record: TrainingRecord, place: Path) -> dict[str, Any]:
    """Save a trained network, drop its checkpoint, and say how it went."""
    pw.save_denoiser(network, place)
    (place / "checkpoint.safetensors").unlink()
    return {"steps": record.steps, "val_loss": record.val_loss, "seconds": record.seconds}


def table(answers: Answers) -> str:
    networks = {name: row for content in answers.values() for name, row in content["networks"].items()}
    rows = [[n, str(r["steps"]), f"{r['val_loss']:.4f}", f"{r['seconds']:.0f}"] for n, r in networks.items()]
    return markdown(HEADS, rows)
