"""The schedule of a run of a model, as other programs take it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from phasewise.denoisers import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.files import write_json, write_text
from phasewise.results import HybridSchedule
from phasewise.runs.parts import REFERENCE
from phasewise.runs.run import Run

FORMS = ("boundary_ratio", "denoising_end", "steps_computation_mask")
"""Of :data:`phasewise.scheduling.EXPORTS`, those that a schedule of a model may fit."""


def other_forms(plan: HybridSchedule, clock: Any) -> dict[str, Any]:
    """The schedule in the forms that other programs take, by name; under "without" why the others have none."""
    found: dict[str, Any] = {}
    without: dict[str, str] = {}
    for form in FORMS:
        try:
            found[form] = plan.export(form, clock=clock)
        except PhasewiseError as error:
            without[form] = str(error)
    if plan.assignment[0] != REFERENCE and found.pop("steps_computation_mask", None) is not None:
        without["steps_computation_mask"] = "nothing is cached before the network was called once, and it comes later"
    return found | {"without": without}


def export_schedule(run: Run, reference: Denoiser) -> Path:
    """Write ``exports/`` of the run's optimised schedule; returns the folder."""
    plan, folder = run.schedules["hybrid"], run.path("exports")
    shutil.rmtree(folder, ignore_errors=True)  # of another schedule
    write_json(run.path("exports", "forms.json"), other_forms(plan, getattr(reference, "clock", None)))
    write_text(run.path("exports", "schedule.json"), plan.to_json() + "\n")
    return folder
