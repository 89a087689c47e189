"""Conditional mutual information in a run: measured into records, and read back as a window and a summary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from phasewise.data import ImageData
from phasewise.diagnosis import critical_window, markov_length
from phasewise.errors import PhasewiseError
from phasewise.files import read_json, write_json
from phasewise.information import cmi_map, make_estimator, make_problem
from phasewise.pipeline.config import RunConfig
from phasewise.pipeline.folder import RunFolder
from phasewise.results import CMIMap, MarkovFit

MAP, FIT = ("records", "cmi.json"), ("records", "markov.json")
CMI_CHOICES = (
    "cmi_radii", "cmi_times", "cmi_estimator", "cmi_options", "cmi_block", "cmi_center", "cmi_accuracy",
    "cmi_tolerance", "window_radius",
)  # fmt: skip
"""Choices the stage depends on. Cells of the map that are finished outlive a change of the last three."""


def measure_cmi(data: ImageData, config: RunConfig, folder: RunFolder, say: Callable[[str], None]) -> MarkovFit:
    """Write the CMI map and the Markov fit of ``data`` (all its parts), and put their gist into the summary if any."""
    record = cmi_map(
        data, config.cmi_radii, config.cmi_times, block=config.cmi_block, center=config.cmi_center,
        estimator=config.cmi_estimator, seed=config.seed + 4, accuracy=config.cmi_accuracy,
        folder=folder.path("cmi"), say=lambda line: say(f"  {line}"), **config.cmi_options,
    )  # fmt: skip
    write_json(folder.path(*MAP), record.to_dict())
    fit = markov_length(record, tolerance=config.cmi_tolerance, radius=_nearest(record, config))
    write_json(folder.path(*FIT), fit.to_dict())
    if fit.window is not None:
        critical_window(record, fit.tolerance, fit.window_radius)  # warns where its ends are uncertain
    worst = float(record.stderr.max())
    if worst > config.cmi_accuracy:
        say(f"  the largest standard error is {worst:.2g} nats, above the {config.cmi_accuracy:g} asked for")
    summary = folder.path("summary.json")
    if summary.is_file():
        write_json(summary, {**read_json(summary), **cmi_summary(folder)})
    return fit


def check_cmi(config: RunConfig, image_shape: tuple[int, int, int]) -> None:
    """Refuse a CMI map that cannot be measured on these images, by posing the question on blank ones."""
    if not config.cmi:
        return
    make_estimator(config.cmi_estimator, **config.cmi_options)
    times = [t for t in config.cmi_times if t != 1] or [0.5]
    for center in config.cmi_center or (None,):
        make_problem(torch.zeros(20, *image_shape), times, config.cmi_radii, block=config.cmi_block, center=center)


def cmi_window(config: RunConfig, folder: RunFolder) -> tuple[float, float]:
    """Critical window of the measured map at the radius nearest to the window's; PhasewiseError where there is none."""
    record = CMIMap.load(folder.path(*MAP))
    try:
        return critical_window(record, config.cmi_tolerance, _nearest(record, config))
    except PhasewiseError as error:
        raise PhasewiseError(f"{error} (--cmi-tolerance), or give --window as LOW,HIGH") from error


def cmi_summary(folder: RunFolder) -> dict[str, Any]:
    """What the summary says of the CMI; empty where it was not measured."""
    if not folder.path(*FIT).is_file():
        return {}
    fit = MarkovFit.load(folder.path(*FIT))
    length = None if fit.t_c is None else float(fit.xi[fit.times == fit.t_c][0])
    return {"cmi": {"t_c": fit.t_c, "markov_length": length, "window": list(fit.window) if fit.window else None}}


def _nearest(record: CMIMap, config: RunConfig) -> int:
    return min(record.radii, key=lambda r: abs(r - config.window_radius))
