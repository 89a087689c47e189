"""What lies where in a run folder, and which command makes it: the only place that knows file names.

run.json                    config, members, version, command
records/                    data, features, training/NAME, cmi, markov, losses, gap, recovery, prices, fronts,
                            schedules, explanations, evaluation, trials/NAME-SEED; of a model: claims/NAME,
                            classes, reach, boundaries; symmetry, of when symmetries break
cmi/ESTIMATOR-KEY/          finished cells and folds of a CMI map
models/NAME/                config.json, weights.safetensors, training.json (checkpoint.safetensors while training)
models/features/            feature networks of the data (unfinished.safetensors while training);
                            moments/JUDGE.safetensors, what judges compare with
samples/NAME.safetensors    uint8 images, the same starting noise row by row; recovery.safetensors
stages/NAME.json            what was done, for which choices, how long it took, the most memory its process had held
hybrid/                     the hybrid and its members as one folder to share, of a run that distils or takes a model
given/                      what lay nowhere else: images and a teacher given in Python, images drawn by a teacher
report.html, figures/, summary.json
exports/                    of a model: the schedule as other programs take it
card.json, features/        of a shipped set: what it is (judges alone have no card), its feature network, moments and
                            real features; unseen/, the
                            same of the second judge; sliced.safetensors, the images along fixed directions
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from phasewise.errors import RunFolderError

KIND = "phasewise-run"
FORMAT = 2


@dataclass(frozen=True)
class Item:
    """A file or folder of a run, relative to it, and the command that makes it."""

    place: str
    made_by: str = "phasewise run"


ITEMS: dict[str, Item] = {
    "records": Item("records/"),
    "data": Item("records/data.json"),
    "training": Item("records/training/", "phasewise train"),
    "features": Item("records/features.json"),
    "losses": Item("records/losses.json", "phasewise diagnose"),
    "gap": Item("records/gap.json", "phasewise diagnose"),
    "reach": Item("records/reach.json", "phasewise diagnose --reach"),
    "symmetry": Item("records/symmetry.json", "phasewise diagnose"),
    "boundaries": Item("records/boundaries.json"),
    "recovery": Item("records/recovery.json", "phasewise diagnose"),
    "recovered": Item("samples/recovery.safetensors", "phasewise diagnose"),
    "cmi": Item("records/cmi.json", "phasewise diagnose --cmi --out DIR"),
    "markov": Item("records/markov.json", "phasewise diagnose --cmi --out DIR"),
    "prices": Item("records/prices.json", "phasewise schedule"),
    "fronts": Item("records/fronts.json", "phasewise schedule"),
    "schedules": Item("records/schedules.json", "phasewise schedule"),
    "explanations": Item("records/explanations.json", "phasewise schedule"),
    "evaluations": Item("records/evaluation.json", "phasewise evaluate"),
    "claims": Item("records/claims/", "phasewise train"),
    "classes": Item("records/classes.json", "phasewise schedule"),
    "trials": Item("records/trials/", "phasewise evaluate --schedule FILE"),
    "samples": Item("samples/", "phasewise evaluate"),
    "summary": Item("summary.json", "phasewise evaluate"),
    "report": Item("report.html", "phasewise report"),
    "figures": Item("figures/", "phasewise report"),
    "info": Item("run.json"),
    "cells": Item("cmi/", "phasewise diagnose --cmi --out DIR"),
    "models": Item("models/", "phasewise train"),
    "networks": Item("models/features/"),
    "moments": Item("models/features/moments/"),
    "stages": Item("stages/"),
    "hybrid": Item("hybrid/"),
    "given": Item("given/", "phasewise distill"),
    "exports": Item("exports/"),
    "card": Item("card.json"),
    "shipped_features": Item("features/"),
    "shipped_reference": Item("features/reference.safetensors"),
    "shipped_real": Item("features/real.safetensors"),
    "shipped_unseen": Item("features/unseen/"),
    "shipped_unseen_real": Item("features/unseen/real.safetensors"),
    "shipped_unseen_reference": Item("features/unseen/reference.safetensors"),
    "shipped_sliced": Item("features/sliced.safetensors"),
}
REPORTED = (
    "data", "training", "losses", "gap", "symmetry", "recovery", "recovered", "cmi", "markov", "prices", "fronts",
    "schedules", "evaluations", "samples",
)  # fmt: skip
"""What a report can show; a folder with none of it has nothing to report."""


def missing(*names: str) -> str:
    """One line that says which records are absent and what makes them."""
    files = " and ".join(ITEMS[n].place for n in names)
    commands = " and ".join(f"`{c}`" for c in dict.fromkeys(ITEMS[n].made_by for n in names))
    return f"Not in this run: {files}. Made by {commands}."


def inside(root: Path, *parts: str) -> Path:
    """``root`` joined by ``parts``, which may not lead out of it, by dots, by a root of their own or by a link.

    Raises RunFolderError where they do.
    """
    relative = PurePosixPath(*parts)
    path = root.joinpath(*parts)
    # links followed, for one inside may lead out, or in a circle
    real = Path(os.path.realpath(path))
    if relative.is_absolute() or ".." in relative.parts or not real.is_relative_to(os.path.realpath(root)):
        raise RunFolderError(f"{path} leads out of the run folder {root}; remove the link, or give another folder")
    return path
