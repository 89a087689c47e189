"""Conditional mutual information in a run: measured into records, and read back as a window and a summary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from phasewise.data import ImageData
from phasewise.data.images import PARTS
from phasewise.diagnosis import critical_window, markov_length
from phasewise.errors import PhasewiseError
from phasewise.files import write_json
from phasewise.information import cmi_map
from phasewise.pipeline.telling import VERBOSE, Teller
from phasewise.results import CMIMap, MarkovFit
from phasewise.runs import reading
from phasewise.runs.config import RunConfig
from phasewise.runs.run import Run
from phasewise.seeding import Stage, stage_seed


def measure_cmi(data: ImageData, config: RunConfig, run: Run, say: Teller) -> MarkovFit:
    """Write the CMI map and the Markov fit of ``data`` (all its parts), and put their gist into the summary if any."""
    asked = config.cmi
    record = cmi_map(
        _cropped(data, asked.crop), asked.radii, asked.times, block=asked.block, center=asked.center,
        estimator=asked.estimator, cond="labels" if asked.given else None,
        seed=stage_seed(config.data.seed, Stage.CMI), accuracy=asked.accuracy,
        folder=run.path("cells"), say=lambda line: say(f"  {line}", VERBOSE), **asked.options,
    )  # fmt: skip
    run.write("cmi", record)
    fit = markov_length(record, tolerance=asked.tolerance, radius=_nearest(record, config))
    run.write("markov", fit)
    if fit.window is not None:
        critical_window(record, fit.tolerance, fit.window_radius)  # warns where its ends are uncertain
    worst = float(record.stderr.max())
    if worst > asked.accuracy:
        say(f"  the largest standard error is {worst:.2g} nats, above the {asked.accuracy:g} asked for")
    if run.has("summary"):
        # the summary was written before the CMI was measured
        known = reading.read(run.path("summary"), dict, "`phasewise evaluate`")
        write_json(run.path("summary"), {**known, **cmi_summary(run)})
    return fit


def _cropped(data: ImageData, side: int | None) -> ImageData:
    """The central square of this side of every image; the images themselves where they are no larger."""
    height, width = data.image_shape[1:]
    if side is None or side >= max(height, width):
        return data
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    parts: dict[str, Any] = {
        part: getattr(data, part)[..., top : top + side, left : left + side].contiguous() for part in PARTS
    }
    return replace(data, **parts)


def cmi_window(config: RunConfig, run: Run) -> tuple[float, float]:
    """Critical window of the measured map at the radius nearest to the window's; PhasewiseError where there is none."""
    assert run.cmi is not None
    try:
        return critical_window(run.cmi, config.cmi.tolerance, _nearest(run.cmi, config))
    except PhasewiseError as error:
        raise PhasewiseError(f"{error} (--cmi-tolerance), or give --window as LOW,HIGH") from error


def cmi_summary(run: Run) -> dict[str, Any]:
    """What the summary says of the CMI; empty where it was not measured."""
    fit = run.markov
    if fit is None:
        return {}
    length = None if fit.t_c is None else float(fit.xi[fit.times == fit.t_c][0])
    return {"cmi": {"t_c": fit.t_c, "markov_length": length, "window": list(fit.window) if fit.window else None}}


def _nearest(record: CMIMap, config: RunConfig) -> int:
    return min(record.radii, key=lambda r: abs(r - config.schedule.window_radius))
