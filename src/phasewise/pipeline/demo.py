"""``phasewise demo NAME``: a shipped set sampled and judged, reported like any run. Needs no data, trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from phasewise.errors import PhasewiseError
from phasewise.metrics import frechet_score
from phasewise.pipeline.folder import RunFolder
from phasewise.pipeline.judging import Judge, evaluate_all, real_floor
from phasewise.pipeline.recording import write_judgement
from phasewise.pretrained import Pretrained, load_pretrained
from phasewise.report import build_report
from phasewise.runs.config import RunConfig

COMPARED = ("global", "global_cheap", "hybrid", "stitched", "window", "local_only")
LEAST = 100


def demo_config(ready: Pretrained, n: int, seed: int, device: str) -> RunConfig:
    """The config the set was trained with, for ``n`` samples a schedule.  Raises PhasewiseError for fewer than 100."""
    if n < LEAST:
        raise PhasewiseError(f"a demo needs at least {LEAST} samples a schedule to judge it by, got {n}")
    assert ready.config is not None
    return ready.config.changed(n_samples=n, seed=seed, device=device)


def run_demo(
    name: str,
    out: str | Path,
    *,
    n: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    version: str = "",
    say: Callable[[str], None] = print,
) -> Path:
    """Sample the schedules of :data:`COMPARED` of the pretrained set ``name`` from the same noise, judge them, and
    write ``out/report.html``; returns ``out``.

    FID is taken against the shipped feature moments of the training images.  ``out`` then is a run folder:
    ``phasewise sample --run`` and ``phasewise report`` take it.

    Raises :class:`PhasewiseError` for an unknown name or ``n`` below 100, RunFolderError when ``out`` holds another
    run or anything else.
    """
    ready = load_pretrained(name)
    folder = RunFolder(out, demo_config(ready, n, seed, device), version=version)
    if folder.run.has("evaluations"):
        say("sampled and judged before")
    else:
        folder.claim(f"phasewise demo {name} --n {n} --seed {seed}")
        ready.copy_to(folder.run)
        judge_demo(ready, folder, say)
    build_report(folder.root)
    return folder.root


def judge_demo(ready: Pretrained, folder: RunFolder, say: Callable[[str], None]) -> None:
    config, data = folder.config, ready.pixels
    reference = ready.reference_moments()
    held_out = ready.real_features()
    floor = frechet_score(held_out[: config.evaluate.n_samples], reference, config.data.seed)
    features = ready.features().to(config.machine.device)
    judge = Judge(features, reference, data.pixel_range, real_floor(floor))
    schedules = {key: ready.schedules[key] for key in COMPARED if key in ready.schedules}
    assert ready.prices is not None
    members = ready.denoisers(device=config.machine.device)
    result = evaluate_all(members, schedules, ready.prices, judge, config, say)
    write_judgement(folder.run, config, result, folder.run.classifier, data.pixel_range)
