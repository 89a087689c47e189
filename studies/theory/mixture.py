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


def measured(name: str, block: int, n: int, steps: int, draws: int, folder: Path) -> dict[str, Any]:
    """A map of ``n`` images by one estimator, the truth, and what the label alone accounts for."""
    held, options = case(block, draws), {"steps": steps} if name in LEARNED else {}
    if name in ("density", "mmse"):
        options["max_scored"] = n
    start = time.perf_counter()
    found = cmi_map(
        held.model.sample(n, 1), RADII, TIMES, block=block, estimator=name, accuracy=1.0, folder=folder, **options
    )
    seconds = time.perf_counter() - start
    known = [[held.model.cmi_given_component(t, r, block) for r in RADII] for t in TIMES]
    return {"map": found.to_dict(), **held.exact(block), "given": known, "seconds": seconds}


def tables(answers: Answers) -> dict[str, str]:
    """Cells of the map beside the truth, and the errors of every estimator."""
    return {"mixture": _cells(answers), "coverage": _errors(answers)}


def _errors(answers: Answers) -> str:
    rows = []
    for name, content in answers.items():
        held = Held.of(content)
        inside = int((np.abs(held.error) <= 2 * held.stderr + 1e-5).sum())
        told = row(f"{name.split('/')[1]}, {name.split('/')[2]}", content)
        rms = float(np.sqrt(((held.error / held.stderr.clip(1e-5)) ** 2).mean()))
        rows.append([*told[:3], f"{inside}/{held.error.size}", f"{rms:.1f}", *told[4:7], told[8]])
    return markdown([*HEADS[:3], "within 2 se", "rms z", *HEADS[4:7], "s"], rows)


def _cells(answers: Answers) -> str:
    heads, rows, said = ["block, estimator", *(f"t = {t:g}, r = {r}" for t, r in SHOWN)], [], set()
    for name, content in sorted(answers.items(), key=lambda pair: pair[0].split("/")[2]):
        _, estimator, block = name.split("/")
        held, at = Held.of(content), [(TIMES.index(t), RADII.index(r)) for t, r in SHOWN]
        if block not in said:
            said.add(block)
            rows.append([f"**{block}, exact**", *(pm(held.truth[i], held.truth_error[i]) for i in at)])
            rows.append([f"{block}, exact, field known", *(f"{np.array(content['given'])[i]:.4f}" for i in at)])
        rows.append([f"{block}, {estimator}", *(pm(held.found.value[i], held.found.stderr[i]) for i in at)])
    return markdown(heads, rows)
