"""Estimators of CMI on a mixture of two Gaussian fields, which nobody tuned them to."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import phasewise as pw
from phasewise.information import cmi_map
from studies.cmi.exact import HEADS, row
from studies.cmi.truth import Case, Held, pm
from studies.pages import markdown
from studies.study import Answers

SIDE, MASSES = 8, (0.1, 2.0)
TIMES, RADII = (0.2, 0.3, 0.5, 0.6, 0.8), (1, 2, 3)
SHOWN = ((0.2, 1), (0.3, 1), (0.5, 1), (0.5, 2), (0.8, 1))
LEARNED = ("density", "mmse", "mine", "nwj", "infonce", "smile", "classifier")


def case(block: int, draws: int) -> Case:
    """A smooth or a rough field, both of unit variance: many pixels tell which one it is, one pixel does not."""
    fields = [pw.exact.GaussianField((SIDE, SIDE), mass) for mass in MASSES]
    mixture = pw.exact.GaussianMixture(fields)
    return Case("mixture", mixture, (block,), RADII, TIMES, {"n": draws, "seed": 9})


def truth(block: int, draws: int) -> dict[str, Any]:
    """True values with their errors, and what they are where the field is known."""
    held = case(block, draws)
    return {**held.exact(block), "given": [[held.model.cmi_given_component(t, r, block) for r in RADII] for t in TIMES]}


def measured(name: str, block: int, n: int, steps: int, folder: Path) -> dict[str, Any]:
    """A map of ``n`` images by one estimator."""
    options: dict[str, Any] = {"steps": steps} if name in LEARNED else {}
    if name in ("density", "mmse"):
        options["max_scored"] = n
    images, start = case(block, 1).model.sample(n, 1), time.perf_counter()
    found = cmi_map(images, RADII, TIMES, block=block, estimator=name, accuracy=1.0, folder=folder, **options)
    return {"map": found.to_dict(), "seconds": time.perf_counter() - start}


def tables(answers: Answers) -> dict[str, str]:
    """Cells of the maps beside the truth, and the errors of every estimator."""
    found = {n.removeprefix("mixture/"): content for n, content in answers.items() if n.startswith("mixture/")}
    cells: list[list[str]] = []
    errors: list[list[str]] = []
    at = [(TIMES.index(t), RADII.index(r)) for t, r in SHOWN]
    for block in sorted({name.split("/")[0] for name in found}):
        known = found[f"{block}/truth"]
        true, error, given = (np.array(known[key]) for key in ("truth", "truth_stderr", "given"))
        cells.append([f"{block}, **exact**", *(pm(true[i], error[i]) for i in at)])
        cells.append([f"{block}, exact, field known", *(f"{given[i]:.4f}" for i in at)])
        for name in (n for n in found if n.startswith(f"{block}/") and n != f"{block}/truth"):
            content = {**known, **found[name]}
            held, label = Held.of(content), name.replace("/", ", ")
            cells.append([label, *(pm(held.found.value[i], held.found.stderr[i]) for i in at)])
            inside = int((np.abs(held.error) <= 2 * held.stderr + 1e-5).sum())
            rms = float(np.sqrt(((held.error / held.stderr.clip(1e-5)) ** 2).mean()))
            told = row(label, content)
            errors.append([*told[:3], f"{inside}/{held.error.size}", f"{rms:.1f}", *told[4:7], told[8]])
    heads = ["block, estimator", *(f"t = {t:g}, r = {r}" for t, r in SHOWN)]
    of_errors = ["block, estimator", *HEADS[1:3], "within 2 se", "rms z", *HEADS[4:7], "s"]
    return {"mixture": markdown(heads, cells), "coverage": markdown(of_errors, errors)}
