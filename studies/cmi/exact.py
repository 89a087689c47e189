"""The learned estimators against exact truth: Gaussian fields, the two-mode model, Ising chains and strips."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import phasewise as pw
from phasewise.information import cmi_map
from studies.cmi.truth import Case, Held, estimator_options
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

TIMES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
FIT_RANGE = (1, 3)
HEADS = (
    "estimator, model, block", "largest truth", "within", "covered", "mean error", "largest error", "largest stderr",
    "rises with r by > 2 se", "s",
)  # fmt: skip
LENGTHS = ("Markov length, 4x4 block", "t", "measured (95 %), pixels", "of the exact values", "difference")


@dataclass(frozen=True)
class Options:
    models: str = choice("fields", "which", choices=("fields", "others", "tiny"), quick="tiny")
    estimator: str = choice("density", "by name")
    option: tuple[str, ...] = choice(
        (), "NAME=VALUE for the estimator", quick=("steps=10", "max_scored=100", "draws=1")
    )
    n: int = choice(60_000, "images", quick=300)
    seed: int = choice(0, "of the images and the estimator")
    only: str = choice("", "only cases whose name-bBLOCK holds this")
    times: tuple[float, ...] = choice((), "instead of the models' own")


class CMIExact(Study[Options]):
    """Per model and block: cells within max(0.003 nats, 10 %) of the truth (and 2 standard errors of the truth where it
    is an average of exact posteriors), coverage of the 95 % intervals (give or take 1e-5 nats), mean and largest error,
    seconds.  Then the Markov length (fitted over r = 1..3 where every cell is at least 5 standard errors) beside that
    of the exact values."""

    name = "cmi_exact"
    question = "How close do learned estimators of CMI come to exact truth, and do their errors say so?"
    page = "results/estimators.md"
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        o, options = self.options, estimator_options(self.options.option)
        for case in cases(o.models):
            case = dataclasses.replace(case, times=o.times or case.times)
            for block in case.blocks:
                if o.only in f"{case.name}-b{block}":
                    asked = {"n": o.n, "seed": o.seed, "times": case.times, "options": options}
                    yield Cell(f"{o.estimator}-{case.name}-b{block}", asked, (case, block))

    def measure(self, cell: Cell) -> dict[str, Any]:
        o, (case, block) = self.options, cell.what
        images = case.model.sample(o.n, o.seed + 1)
        start = time.perf_counter()
        found = cmi_map(
            images, case.radii, case.times, block=block, estimator=o.estimator, seed=o.seed, folder=self.work,
            **estimator_options(o.option),
        )  # fmt: skip
        seconds = time.perf_counter() - start
        return {"map": found.to_dict(), **case.exact(block), "seconds": seconds}

    def tables(self, answers: Answers) -> dict[str, str]:
        text = markdown(HEADS, [row(name, content) for name, content in answers.items()])
        blocks = [r for name, content in answers.items() if name.endswith("b4") for r in lengths(name, content)]
        return {"": f"{text}\n\n{markdown(LENGTHS, blocks)}" if blocks else text}


def cases(which: str) -> Iterator[Case]:
    exact = pw.exact
    if which == "tiny":
        yield Case("field-tiny", exact.GaussianField((8, 8), mass=0.1), (1,), (1, 2), (0.3, 0.6))
        return
    if which == "fields":
        for mass in (0.03, 0.1, 0.3):
            yield Case(f"field-{mass}", exact.GaussianField((28, 28), mass=mass), (4, 2, 1), (1, 2, 3, 4, 5, 6), TIMES)
        return
    averaged = {"n": 20_000, "seed": 99}
    late, few = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9), (0.1, 0.3, 0.5, 0.7, 0.9)
    yield Case("two-mode-12", exact.TwoMode((12, 12)), (1, 2), (1, 2, 3, 4), (0.4, *late))
    yield Case("two-mode-28", exact.TwoMode((28, 28)), (1,), (1, 2, 3, 4, 5, 6), (*late, 0.95))
    yield Case("ising-chain-32", exact.IsingChain(32, 0.8), (1, 2), (1, 2, 3, 4), few, averaged)
    for beta in (0.3, 0.44, 0.6):
        yield Case(f"ising-strip-16x8-{beta}", exact.IsingStrip(16, 8, beta), (1, 2), (1, 2, 3), few, averaged)


def row(name: str, content: dict[str, Any]) -> list[str]:
    """One row of the table of errors."""
    held = Held.of(content)
    truth, error, stderr, value = held.truth, held.error, held.stderr, held.found.value
    within = np.abs(error) <= np.maximum(0.003, 0.1 * truth) + 2 * held.truth_error
    covered = np.abs(error) <= 1.96 * stderr + 1e-5
    rising = np.diff(value, axis=1) / np.maximum(np.hypot(stderr[:, 1:], stderr[:, :-1]), 1e-9)
    return [
        name,
        f"{truth.max():.4f}",
        f"{int(within.sum())}/{within.size}",
        f"{int(covered.sum())}/{covered.size}",
        f"{error.mean():+.5f}",
        f"{np.abs(error).max():.4f}",
        f"{stderr.max():.4f}",
        str(int((rising > 2).sum())),
        f"{content['seconds']:.0f}",
    ]


def lengths(name: str, content: dict[str, Any]) -> list[list[str]]:
    """Rows of the table of Markov lengths: times where the measured map resolves it."""
    held = Held.of(content)
    fit = pw.markov_length(held.found, FIT_RANGE)
    exact = dataclasses.replace(held.found, value=held.truth)
    truth = pw.markov_length(exact, FIT_RANGE, min_sigma=0)  # the same weights
    return [
        [
            name, f"{t:g}", f"{fit.xi[i]:.3f} ({fit.low[i]:.3f} to {fit.high[i]:.3f})", f"{truth.xi[i]:.3f}",
            f"{fit.xi[i] / truth.xi[i] - 1:+.1%}",
        ]
        for i, t in enumerate(held.found.times)
        if fit.status[i] == "ok"
    ]  # fmt: skip
