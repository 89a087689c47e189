"""The study: exact models over log-SNR, then sets of images, mark by mark on the same axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import phasewise as pw
from phasewise.data import ImageData
from phasewise.denoisers import NetworkDenoiser
from phasewise.diagnosis import speciation
from phasewise.results import CMIMap
from studies import subject
from studies.cmi import CMIImages
from studies.options import choice, make_options
from studies.study import Answers, Cell, Study, answers_on_disk
from studies.transitions import pictures
from studies.transitions.models import MODELS, measure_model
from studies.transitions.show import figure, tables

AXIS = tuple(np.linspace(-10, 5, 31).round(3).tolist())
MAPS = {
    "mnist-b1": "mnist", "mnist-b1-at7_7": "mnist", "mnist-b4": "mnist", "mnist-b7": "mnist",
    "fashion_mnist-b1": "fashion_mnist", "cifar10-b1": "cifar10",
}  # fmt: skip
"""Maps of the study cmi_images that are put on the axis, and their sets."""
ESTIMATORS: dict[str, dict[str, Any]] = {
    "gaussian": {"folds": 2},
    "density": {"folds": 2, "batch": 128, "draws": 2, "max_scored": 4000},
}
"""Options of the estimators of CMI given the class; the first sees second moments alone."""
TRAINING = {"global": 400, "r3": 400}


@dataclass(frozen=True)
class Options:
    models: tuple[str, ...] = choice(tuple(MODELS), "exact ones", quick=("two modes, 8 x 8", "two textures, 8 x 8"))
    log_snr: tuple[float, ...] = choice(AXIS, "of the exact models, relative", quick=(-6.0, -3.0, 0.0), flag=False)
    radius: int = choice(1, "of B and of local denoisers, exact models")
    n: int = choice(256, "samples at each point of a model without closed forms", quick=32)
    data: tuple[str, ...] = choice(("mnist", "fashion_mnist"), "sets with shipped networks", quick=(subject.STAND_IN,))
    others: tuple[str, ...] = choice(("cifar10",), "sets without", quick=())
    data_dir: str | None = choice(None, "folder that holds them")
    clones: int = choice(80, "images to noise and denoise twice", quick=12)
    steps: int = choice(12, "of every way back", quick=2)
    clone_times: tuple[float, ...] = choice(
        (0.45, 0.6, 0.7, 0.8, 0.88, 0.95), "noise times of clones", quick=(0.4, 0.9), flag=False
    )
    gap_times: tuple[float, ...] = choice(
        (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.88, 0.95), "of the gaps", quick=(0.2, 0.5), flag=False
    )
    gap_n: int = choice(250, "validation images of the gaps", quick=8)
    told: tuple[str, ...] = choice(("mnist",), "sets to train on with the class", quick=(subject.STAND_IN,))
    training: float = choice(1.0, "steps of these trainings, of the usual number", quick=0.0)
    told_times: tuple[float, ...] = choice(
        (0.15, 0.3, 0.45, 0.6, 0.75, 0.9), "of their gaps", quick=(0.3, 0.7), flag=False
    )
    told_n: int = choice(250, "test images of these", quick=8)
    known: tuple[str, ...] = choice(
        ("mnist", "fashion_mnist", "cifar10"), "sets to measure CMI on given the class", quick=(subject.STAND_IN,)
    )
    known_times: tuple[float, ...] = choice((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8), "of that CMI", quick=(0.5,))
    parts: int = choice(2, "random parts, as large as a class, for the CMI beside it")
    estimator: str = choice("gaussian", "of that CMI", choices=tuple(ESTIMATORS))
    crop: int = choice(15, "side of the middle that this CMI is of, pixels")


class TransitionsStudy(Study[Options]):
    """Exact: CMI of the middle pixel with the class known and without, the gap, clones, speciation.  Images: speciation
    of the covariance, clones of the shipped global network, the gaps of its local ones in every penalty, the CMI maps
    of the study cmi_images; then networks told the class, and CMI given it."""

    name = "transitions"
    question = "Do far pixels matter when symmetries break, and does a known class make the rest local?"
    page = "results/transitions.md"
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        o = self.options
        for name in o.models:
            n = {"two": 0, "textures": 16 * o.n}.get(MODELS[name][0], o.n)  # a texture costs little
            asked = {"log_snr": o.log_snr, "radius": o.radius, "n": n}
            yield Cell(f"model/{name}", asked, name)
        for name in (*o.data, *o.others):
            yield Cell(f"speciation/{name}", {"data": name}, name)
        for name in o.data:
            yield Cell(f"gaps/{name}", {"times": o.gap_times, "n": o.gap_n}, name)
            yield Cell(f"clones/{name}", {"times": o.clone_times, "n": o.clones, "steps": o.steps}, name)
        for name in o.told:
            steps = {k: max(1, round(v * o.training)) for k, v in TRAINING.items()}
            yield Cell(f"told/{name}", {"times": o.told_times, "n": o.told_n, "steps": steps}, name)
        for name in o.known:
            for parts in (0, o.parts):  # 0: the classes themselves
                asked = {"times": o.known_times, "parts": parts, "crop": o.crop, "estimator": o.estimator}
                yield Cell(f"known/{name}/{o.estimator}/{parts}", asked, name)

    def measure(self, cell: Cell) -> dict[str, Any]:
        o, kind = self.options, cell.name.split("/")[0]
        if kind == "model":
            return measure_model(cell.what, tuple(cell.asked["log_snr"]), o.radius, cell.asked["n"])
        data = self.data(cell.what)
        if kind == "speciation":
            return speciation(data).to_dict()
        if kind == "known":
            options = {"estimator": o.estimator, **ESTIMATORS[o.estimator]}
            folder = self.work / f"cmi-{cell.what}-{cell.asked['parts']}-{o.estimator}"
            found = pictures.class_map(data, o.crop, o.known_times, (1, 3), cell.asked["parts"], options, folder)
            return {"map": found.to_dict()}
        ready = pw.load_pretrained("mnist" if cell.what == subject.STAND_IN else cell.what)
        if kind == "clones":
            return pictures.clones(ready, data, o.clone_times, o.clones, o.steps)
        if kind == "gaps":
            return pictures.penalties(ready, data, o.gap_times, o.gap_n, ("r1", "r3"))
        networks = {name: d for name in TRAINING if isinstance(d := ready.denoiser(name), NetworkDenoiser)}
        trained = pictures.train_told(networks, data, cell.asked["steps"], 64, self.work / f"told-{cell.what}")
        return pictures.told_losses(trained, data, o.told_times, o.told_n)

    def data(self, name: str) -> ImageData:
        return _loaded(name, self.options.data_dir)

    def tables(self, answers: Answers) -> dict[str, str]:
        return tables(answers, maps(answers))

    def figures(self, answers: Answers) -> dict[str, bytes]:
        return {"transitions.png": figure(answers, maps(answers))}


@cache
def _loaded(name: str, data_dir: str | None) -> ImageData:
    return subject.load(name, data_dir)


def maps(answers: Answers) -> dict[str, dict[str, Any]]:
    """By name and radius: curves and marks of the CMI maps that the study cmi_images has left beside its page."""
    home = CMIImages(make_options(CMIImages.options_type), CMIImages.home or Path())
    if not home.out.is_dir():
        return {}
    known = answers_on_disk(home)
    found = {}
    for name, data in MAPS.items():
        if name in known and f"speciation/{data}" in answers:
            record = CMIMap.from_dict(known[name]["map"])
            found[name] = pictures.map_marks(record, answers[f"speciation/{data}"]["data_std"])
    return found
