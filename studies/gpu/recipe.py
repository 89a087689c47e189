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
TIME, RADIUS = 0.3, 3
"""The cell that the paper reads largest: .172 nats."""


def read_cmi(row: str) -> Callable[[Place, str, str], dict[str, Any]]:
    """A job that reads one cell: two critics, A with B and C, and A with B.  ``row``: of
    :func:`studies.cmi.recipe.recipes`.  A critic that was cut off goes on."""

    def job(place: Place, name: str, title: str) -> dict[str, Any]:
        data = place.images(name)
        images = torch.cat([data.train, data.validation])[:, :, 1:, 1:]
        steps = 2 if place.quick else round(STEPS * place.pace)
        options = {**recipes(steps)[row].options(), "device": place.device}
        if place.quick:
            options["batch"] = 8
        found = cmi_map(images, [RADIUS], [TIME], estimator=MINE(**options), folder=place.folder(name, title))
        return {"map": found.to_dict(), "row": row, "steps": steps, "n": len(images)}

    return job


def tables(answers: Answers) -> dict[str, str]:
    """What was read, by mark."""
    rows = []
    for name, found in answers.items():
        if "map" in found:
            read = CMIMap.from_dict(found["map"])
            value = pm(read.value[0, 0], read.stderr[0, 0])
            rows.append([name.split("/")[0], found["row"], f"{found['n']:,}", f"{found['steps']:,}", value])
    if not rows:
        return {}
    note = f"I(A:C|B) of the centre pixel, t = {TIME}, r = {RADIUS}, nats; published: .172."
    return {"recipe": markdown(("set", "estimate", "images read", "steps of a critic", "nats"), rows, note)}
