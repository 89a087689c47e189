"""The study: exact models by size on each way round, then digits: Gaussian curves, and local networks alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasewise as pw
from phasewise.results import JudgeScore
from phasewise.sampling import time_grid
from studies import subject
from studies.bypass.digits import PATHS, RADIUS, curves, given_class
from studies.bypass.models import chain_curves, field_curves, needed_radius, two_mode_curves
from studies.bypass.show import curve_table, figure, generation_table, radius_table
from studies.options import choice
from studies.study import Answers, Cell, Study

WIDE = tuple(np.linspace(-9.0, 5.0, 15).round(6).tolist())
"""Log-SNR at which exact models are looked at."""
NARROW = WIDE[4:12]
"""And chains, which are sampled."""
TOLD = "isotropic, told the class"
HYBRID = "shipped hybrid"


@dataclass(frozen=True)
class Options:
    sides: tuple[int, ...] = choice((8, 12, 16, 24), "of fields and two modes, pixels", quick=(4,))
    chains: tuple[int, ...] = choice((16, 32, 64), "lengths of Ising chains", quick=(6,))
    n_exact: int = choice(1000, "samples of each chain's CMI", quick=16)
    data: str = choice("mnist", "images of the networks, 28 x 28", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds them")
    images: int = choice(60_000, "that the Gaussians are fitted to", quick=256)
    log_snr: tuple[float, ...] = choice((-2.0, 0.0, 2.0, 4.0), "of a pixel, there", quick=(0.0,))
    block: int = choice(4, "side of the centre block A, pixels")
    paths: tuple[str, ...] = choice(tuple(PATHS), "ways to train on", quick=("isotropic", "coarse first, by level"))
    training: int = choice(400, "steps of training", quick=1)
    batch: int = choice(64, "images a step", quick=4)
    steps: int = choice(16, "of sampling", quick=2)
    n: int = choice(2000, "samples of each", quick=8)


class Bypass(Study[Options]):
    """Exact: Gaussian fields, two modes and Ising chains whose correlations are as long as the image, on white noise,
    on noise that is itself a free field, and, where there is a sign to hold, in a field.  Digits: one local network for
    each path, r = 3, of equal training; it takes every step alone, of sde_dpmpp_2m on a grid even in t.  All networks
    start from the same weights, see the same images, times and numbers as noise; paired errors are between samples of
    equal numbers.  The shipped hybrid is trained for longer and sees the whole image: it is the mark to reach."""

    name = "bypass"
    question = "Is there a path from data to noise along which a small window is enough?"
    page = "results/bypass.md"
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        o = self.options
        for kind, sizes in (("field", o.sides), ("two modes", o.sides), ("chain", o.chains)):
            for size in sizes:
                asked: dict[str, Any] = {"size": size, **({"n": o.n_exact} if kind == "chain" else {})}
                yield Cell(f"exact/{kind}/{size}", asked)
        asked = {"data": o.data, "images": o.images, "log_snr": o.log_snr, "block": o.block}
        for name in (*o.paths, TOLD):
            yield Cell(f"curves/{name}", asked, name)
        asked = {"data": o.data, "training": o.training, "batch": o.batch, "steps": o.steps, "n": o.n}
        for name in (*o.paths, TOLD, HYBRID):
            yield Cell(f"generated/{name}", {**asked, "first": o.paths[0]}, name)

    def measure(self, cell: Cell) -> dict[str, Any]:
        kind, *rest = cell.name.split("/")
        if kind == "exact":
            return self.exact(rest[0], int(rest[1]))
        return self.curves(cell.what) if kind == "curves" else self.generated(cell.what)

    def exact(self, kind: str, size: int) -> dict[str, Any]:
        if kind == "chain":
            found, log_snrs = chain_curves(size, self.options.n_exact), NARROW
        else:
            found, log_snrs = (field_curves if kind == "field" else two_mode_curves)(size), WIDE
        most = max(size // 2 - 1, 1)
        return {"ways": {way: needed_radius(curve, log_snrs, most) for way, curve in found.items()}}

    @cached_property
    def subject(self) -> subject.Subject:
        return subject.of_shipped("mnist", self.options.data, self.options.data_dir)

    def curves(self, name: str) -> dict[str, Any]:
        o, images = self.options, self.subject.data.train[: self.options.images]
        if name != TOLD:
            return curves(images, PATHS[name], o.log_snr, o.block)
        labels = self.subject.data.labels_train
        assert labels is not None
        return given_class(images, labels[: len(images)], o.log_snr, o.block)

    def generated(self, name: str) -> dict[str, Any]:
        scores, first = self.subject.judged(self.samples(name)), self.first
        minus = {judge: score.minus(first[judge]) for judge, score in scores.items()}
        return {
            "scores": {judge: [score.value, score.stderr] for judge, score in scores.items()},
            "minus": {judge: [apart.difference, apart.stderr] for judge, apart in minus.items()},
        }

    @cached_property
    def first(self) -> dict[str, JudgeScore]:
        """The first path's samples, as judged: what all are paired with."""
        return self.subject.judged(self.samples(self.options.paths[0]))

    def samples(self, name: str) -> Tensor:
        o, data = self.options, self.subject.data
        if name == HYBRID:
            plan = replace(pw.load_pretrained("mnist").schedules["hybrid"])
            return self.subject.samples(plan, o.n, 0)
        network = self.trained(name)
        if network.takes_condition:
            assert data.labels_test is not None
            network = network.given(data.labels_test[torch.arange(o.n) % len(data.labels_test)])
        times = time_grid(o.steps, path=network.path)
        images = pw.sample(network, n=o.n, seed=0, times=times, solver="sde_dpmpp_2m", batch=64)
        return images.clamp(*data.pixel_range)

    def trained(self, name: str) -> pw.Denoiser:
        folder, data, o = self.work / name.replace(" ", "_"), self.subject.data, self.options
        if not (folder / "weights.safetensors").is_file():
            torch.manual_seed(0)
            told = name == TOLD
            path = PATHS["isotropic" if told else name]
            network = pw.LocalDenoiser(data.image_shape, RADIUS, classes=10 if told else None, path=path)
            how: dict[str, Any] = {"cond": "labels"} if told else {}
            pw.train(network, data, steps=o.training, batch=o.batch, out=folder, progress=False, **how)
            pw.save_denoiser(network, folder)
        return pw.load_denoiser(folder)

    def tables(self, answers: Answers) -> dict[str, str]:
        return {
            "radius": radius_table(answers), "curves": curve_table(answers), "generated": generation_table(answers)
        }  # fmt: skip

    def figures(self, answers: Answers) -> dict[str, bytes]:
        return {"bypass.png": figure(answers)}
