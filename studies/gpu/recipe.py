"""Jobs that read CMI by the published recipe at its full length, and by the same network held out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from phasewise.information import cmi_map
from phasewise.information.critics import MINE
from phasewise.results import CMIMap
from studies.cmi.recipe import recipes
from studies.cmi.truth import pm
from studies.gpu.place import Place
from studies.pages import markdown
from studies.study import Answers

STEPS = 300_000
"""Of each critic, as published."""
TIME = 0.3
PUBLISHED = {3: 0.172, 1: 0.168, 6: 0.141}
"""Nats that the paper reads at this time, by radius, the largest first."""
ROWS = ("published", "held-out")
MARK = "recipe"
"""Of the table."""


def read_cmi(row: str, radius: int) -> Callable[[Place, str, str], dict[str, Any]]:
    """A job that reads one cell: two critics, A with B and C, and A with B within ``radius``.  ``row``: of
    :func:`studies.cmi.recipe.recipes`.  A critic that was cut off goes on."""

    def job(place: Place, name: str, title: str) -> dict[str, Any]:
        data = place.images(name)
        images = torch.cat([data.train, data.validation])[:, :, 1:, 1:]
        steps = 2 if place.quick else round(STEPS * place.pace)
        options = {**recipes(steps)[row].options(), "device": place.device}
        if place.quick:
            options["batch"] = 8
        found = cmi_map(images, [radius], [TIME], estimator=MINE(**options), folder=place.folder(name, title))
        return {"map": found.to_dict(), "row": row, "steps": steps, "n": len(images)}

    return job


def tables(answers: Answers) -> dict[str, str]:
    """What was read, by mark."""
    rows = []
    for name, found in answers.items():
        if "map" in found:
            read = CMIMap.from_dict(found["map"])
            value, radius = pm(read.value[0, 0], read.stderr[0, 0]), int(read.radii[0])
            about = [name.split("/")[0], found["row"], str(radius), f"{found['n']:,}", f"{found['steps']:,}"]
            rows.append([*about, value, f"{PUBLISHED[radius]:.3f}"])
    if not rows:
        return {}
    heads = ("set", "estimate", "r", "images read", "steps of a critic", "nats", "published")
    return {MARK: markdown(heads, rows, f"I(A:C|B) of the centre pixel, t = {TIME}, nats.")}
