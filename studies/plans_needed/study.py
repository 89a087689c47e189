"""The study: exact fields by side, the two-mode model, fields of images' spectra, and networks that are told plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import phasewise as pw
from phasewise.denoisers import NetworkDenoiser
from phasewise.exact import TorusField, periodogram
from studies import subject
from studies.options import choice
from studies.plans_needed import told
from studies.plans_needed.fields import LOG_SNR, left, modes
from studies.plans_needed.show import figure, left_table, modes_table, needed_table, networks_table, share_table
from studies.study import Answers, Cell, Study

KINDS = ("scaling", "fixed")


@dataclass(frozen=True)
class Options:
    sides: tuple[int, ...] = choice((16, 32, 64, 128), "of the exact fields, pixels", quick=(8, 16))
    length: float = choice(5.0, "correlation length at the least side, pixels", quick=3)
    radius: int = choice(3, "of the windows", quick=1)
    log_snr: tuple[float, ...] = choice(LOG_SNR, "where fields are measured", quick=(-4.0, 0.0))
    sets: tuple[str, ...] = choice(
        ("mnist", "fashion_mnist", "cifar10", "clothing128"), "whose spectra are taken", quick=(subject.STAND_IN,)
    )
    images: int = choice(3000, "images of a spectrum", quick=64)
    data: str = choice("mnist", "images of the networks, 28 x 28", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds the images")
    bank: int = choice(24_000, "noisy images to train on", quick=32)
    training: int = choice(2500, "steps of training", quick=2)
    batch: int = choice(96, "images a step", quick=8)
    test: int = choice(500, "test images", quick=8)
    times: tuple[float, ...] = choice((0.1, 0.2, 0.3, 0.44, 0.6, 0.75, 0.9), "of the networks", quick=(0.3, 0.6))


class PlansNeeded(Study[Options]):
    """A plan is the posterior mean of the whole noisy image at p x p pixels.  Exact Gaussian fields, *scaling*, whose
    correlation length is the same share of every side, and *fixed*; the two-mode model, told its mode or a vote on it;
    fields with the spectra of real images; and on MNIST one local network of exact radius, begun from the shipped one,
    that is told which plan it gets, beside the same network told another image's plan, told all 28 x 28, and with its
    window opened.  Training takes 5 minutes of an idle core, all else 4; both go on where they were stopped."""

    name = "plans_needed"
    question = "What does a window lack: a class, a bit, how many pixels of a plan, and when?"
    page = "results/plans-needed.md"
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        o = self.options
        seen = {"radius": o.radius, "log_snr": o.log_snr}
        for side in o.sides:
            for kind in KINDS:
                length = o.length * (side / min(o.sides) if kind == "scaling" else 1)
                yield Cell(f"fields/{kind}/{side}", {"length": length, **seen}, TorusField(side, 1 / length))
            yield Cell(f"modes/{side}", seen, side)
        for name in o.sets:
            yield Cell(f"images/{name}", {"n": o.images, **seen}, name)
        trained = {"data": o.data, "bank": o.bank, "steps": o.training, "batch": o.batch}
        yield Cell("networks", {**trained, "test": o.test, "times": o.times})

    def measure(self, cell: Cell) -> dict[str, Any]:
        o = self.options
        if cell.what is None:
            return self.networks()
        if isinstance(cell.what, int):
            return modes(cell.what, o.radius, o.log_snr)
        if isinstance(cell.what, str):
            images = subject.load(cell.what, o.data_dir).train[: o.images]
            return {"side": images.shape[-1], **left(TorusField.of_spectrum(periodogram(images)), o.radius, o.log_snr)}
        return left(cell.what, o.radius, o.log_snr)

    @cached_property
    def subject(self) -> subject.Subject:
        return subject.of_shipped("mnist", self.options.data, self.options.data_dir)

    def networks(self) -> dict[str, Any]:
        o, data = self.options, self.subject.data
        start, teacher = self.subject.members["r3"], self.subject.members["global"]
        assert isinstance(start, pw.LocalDenoiser)
        assert isinstance(teacher, NetworkDenoiser)
        assert data.labels_train is not None
        assert data.labels_test is not None
        train, labels = data.train[: o.bank], data.labels_train[: o.bank]
        net = told.trained(start, teacher, train, labels, o.training, o.batch, self.work)
        test = data.labels_test[: o.test].long()
        return {"kinds": told.measured(net, teacher, data.test[: o.test], test, o.times)}

    def tables(self, answers: Answers) -> dict[str, str]:
        shown = {"needed": needed_table(answers), "left": left_table(answers), "modes": modes_table(answers)}
        if "networks" not in answers:
            return shown
        return {**shown, "networks": networks_table(answers), "share": share_table(answers)}

    def figures(self, answers: Answers) -> dict[str, bytes]:
        return {"needed.png": figure(answers)}
