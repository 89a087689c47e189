"""The learned estimators against exact truth: Gaussian fields, the two-mode model, Ising chains and strips.

    python experiments/cmi_exact.py --models fields --estimator density --out runs/cmi-exact
    python experiments/cmi_exact.py --models others --estimator density --out runs/cmi-exact

Per model and block: cells within max(0.003 nats, 10 %) of the truth (and 2 standard errors of the truth where it is an
average of exact posteriors), coverage of the 95 % intervals (give or take 1e-5 nats), mean and largest
error, seconds of one thread. Stops and resumes; leaves OUT/NAME.json per map. ``--summary`` prints what is there, with
the Markov length (fitted over r = 1..3 where every cell is at least 5 standard errors) beside that of the exact values;
``--table docs/estimators.md`` puts it there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tables import already_answered, replace_table

import phasewise as pw
from phasewise.files import write_json
from phasewise.information import cmi_map

TIMES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model with the times and radii it is asked at; ``truth_n`` exact posteriors where the truth is an average."""

    name: str
    model: Any
    blocks: tuple[int, ...]
    radii: tuple[int, ...]
    times: tuple[float, ...] = TIMES
    truth_n: int | None = None

    def truth(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        more = {} if self.truth_n is None else {"n": self.truth_n, "seed": 99}
        cells = [[self.model.cmi(t, r, block, **more) for r in self.radii] for t in self.times]
        value = [[float(getattr(c, "value", c)) for c in row] for row in cells]
        error = [[float(getattr(c, "stderr", 0.0)) for c in row] for row in cells]
        return np.array(value), np.array(error)


def cases(which: str) -> Iterator[Case]:
    if which == "fields":
        for mass in (0.03, 0.1, 0.3):
            yield Case(f"field-{mass}", pw.exact.GaussianField((28, 28), mass=mass), (4, 2, 1), (1, 2, 3, 4, 5, 6))
        return
    yield Case("two-mode-12", pw.exact.TwoMode((12, 12)), (1, 2), (1, 2, 3, 4), (0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9))
    yield Case(
        "two-mode-28", pw.exact.TwoMode((28, 28)), (1,), (1, 2, 3, 4, 5, 6), (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
    )
    few = (0.1, 0.3, 0.5, 0.7, 0.9)
    yield Case("ising-chain-32", pw.exact.IsingChain(32, 0.8), (1, 2), (1, 2, 3, 4), few, 20_000)
    for beta in (0.3, 0.44, 0.6):
        yield Case(f"ising-strip-16x8-{beta}", pw.exact.IsingStrip(16, 8, beta), (1, 2), (1, 2, 3), few, 20_000)


def measure(case: Case, block: int, estimator: str, n: int, seed: int, out: Path, options: dict[str, Any]) -> None:
    name = f"{estimator}-{case.name}-b{block}"
    file = out / f"{name}.json"
    asked = {"n": n, "seed": seed, "times": list(case.times), "options": options}
    if already_answered(file, asked):
        return
    images = case.model.sample(n, seed + 1)
    start = time.perf_counter()
    found = cmi_map(
        images, case.radii, case.times, block=block, estimator=estimator, seed=seed, folder=out / "work", **options
    )
    seconds = time.perf_counter() - start
    truth, truth_error = case.truth(block)
    content = {"name": name, "map": found.to_dict(), "truth": truth.tolist(), "truth_stderr": truth_error.tolist()}
    write_json(file, {**content, "seconds": seconds, "asked": asked})
    print(line(json.loads(file.read_text())), flush=True)


def line(content: dict[str, Any]) -> str:
    """One row of the table, as Markdown."""
    found = pw.results.CMIMap.from_dict(content["map"])
    truth, truth_error = np.array(content["truth"]), np.array(content["truth_stderr"])
    error, stderr = found.value - truth, np.hypot(found.stderr, truth_error)
    within = np.abs(error) <= np.maximum(0.003, 0.1 * truth) + 2 * truth_error
    covered = np.abs(error) <= 1.96 * stderr + 1e-5
    rising = np.diff(found.value, axis=1) / np.maximum(np.hypot(stderr[:, 1:], stderr[:, :-1]), 1e-9)
    return (
        f"| {content['name']} | {truth.max():.4f} | {int(within.sum())}/{within.size} "
        f"| {int(covered.sum())}/{covered.size} "
        f"| {error.mean():+.5f} | {np.abs(error).max():.4f} | {stderr.max():.4f} | {int((rising > 2).sum())} "
        f"| {content['seconds']:.0f} |"
    )


def lengths(content: dict[str, Any]) -> list[str]:
    """Rows of the table of Markov lengths: times where the measured map resolves it."""
    found = pw.results.CMIMap.from_dict(content["map"])
    fit = pw.markov_length(found, FIT_RANGE)
    exact = dataclasses.replace(found, value=np.array(content["truth"]))
    truth = pw.markov_length(exact, FIT_RANGE, min_sigma=0)  # the same weights
    return [
        f"| {content['name']} | {t:g} | {fit.xi[i]:.3f} ({fit.low[i]:.3f} to {fit.high[i]:.3f}) | {truth.xi[i]:.3f} "
        f"| {fit.xi[i] / truth.xi[i] - 1:+.1%} |"
        for i, t in enumerate(found.times)
        if fit.status[i] == "ok"
    ]


FIT_RANGE = (1, 3)
HEAD = (
    "| estimator, model, block | largest truth | within | covered | mean error | largest error | largest stderr "
    "| rises with r by > 2 se | s |\n|---|---|---|---|---|---|---|---|---|"
)
LENGTHS = (
    "| Markov length, 4x4 block | t | measured (95 %), pixels | of the exact values | difference |\n"
    "|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", choices=("fields", "others"), default="fields")
    parser.add_argument("--estimator", default="density")
    parser.add_argument("--n", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/cmi-exact"))
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE for the estimator")
    parser.add_argument("--only", default="", help="only cases whose name holds this")
    parser.add_argument("--times", help="instead of the models' own, e.g. .5")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--table", type=Path, help="Markdown file whose marked table is replaced")
    arguments = parser.parse_args()
    if arguments.summary or arguments.table:
        contents = [json.loads(file.read_text()) for file in sorted(arguments.out.glob("*.json"))]
        blocks = [row for c in contents if c["name"].endswith("b4") for row in lengths(c)]
        text = "\n".join([HEAD, *map(line, contents), "", LENGTHS, *blocks])
        print(text)
        if arguments.table:
            replace_table(arguments.table, "python experiments/cmi_exact.py", text)
        return
    print(HEAD)
    options = {k: json.loads(v) for k, v in (o.split("=") for o in arguments.option)}
    for case in cases(arguments.models):
        if arguments.times:
            case = dataclasses.replace(case, times=tuple(float(t) for t in arguments.times.split(",")))
        for block in case.blocks:
            if arguments.only in f"{case.name}-b{block}":
                measure(case, block, arguments.estimator, arguments.n, arguments.seed, arguments.out, options)


if __name__ == "__main__":
    main()
