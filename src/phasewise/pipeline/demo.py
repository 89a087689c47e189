"""``phasewise demo NAME``: a shipped set sampled and judged, reported like any run. Needs no data, trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from phasewise.errors import PhasewiseError
from phasewise.metrics import FrechetJudge, frechet_score
from phasewise.metrics.judges import UNSEEN
from phasewise.pipeline.folder import RunFolder
from phasewise.pipeline.judging import Judge, closed_form, evaluate_all, real_floor
from phasewise.pipeline.recording import write_judgement
from phasewise.pipeline.telling import Teller
from phasewise.pretrained import Pretrained, load_pretrained
from phasewise.report import build_report
from phasewise.results import HybridSchedule
from phasewise.runs.config import RunConfig
from phasewise.runs.lock import alone_in
from phasewise.runs.run import Run

COMPARED = ("global", "global_cheap", "hybrid", "stitched", "window", "local_only", "closed_only")
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
    ``phasewise sample --run``, ``schedule``, ``evaluate``, ``compare`` and ``report`` take it.

    Raises :class:`PhasewiseError` for an unknown name or ``n`` below 100, RunFolderError when ``out`` holds another
    run or anything else.
    """
    ready, teller = load_pretrained(name), Teller.of(say)
    folder = RunFolder(out, demo_config(ready, n, seed, device), version=version, demo=name)
    with alone_in(folder.root):
        if folder.run.has("evaluations"):
            teller("sampled and judged before")
        else:
            fill(ready, folder)
            judge_demo(ready, folder, teller)
        build_report(folder.root)
    return folder.root


def open_demo(name: str, out: str | Path, version: str = "") -> Run:
    """The demo folder of a shipped set, made where there is none, with nothing judged yet.

    Raises RunFolderError when ``out`` holds another run or anything else.
    """
    ready, found = load_pretrained(name), Run(out)
    if found.demo_of != name:
        fill(ready, RunFolder(out, demo_config(ready, 1000, 0, "cpu"), version=version, demo=name))
    return Run(out)


def fill(ready: Pretrained, folder: RunFolder) -> None:
    """Make ``folder`` a demo of the set: its weights, records and who it is."""
    config = folder.config
    folder.claim(f"phasewise demo {ready.name} --n {config.evaluate.n_samples} --seed {config.data.seed}")
    ready.copy_to(folder.run)


def shipped_judge(ready: Pretrained, config: RunConfig) -> Judge:
    """What comes with a set for samples to be held against: feature moments, and features of real images."""
    judges, floors, n, seed = ready.judges(), {}, config.evaluate.n_samples, config.data.seed
    for name, judge in judges.items():
        if isinstance(judge, FrechetJudge):
            judge.features.to(config.machine.device)
            floors[name] = judge.of_features(ready.real_features(unseen=name == UNSEEN)[:n], seed)
    first = frechet_score(ready.real_features()[:n], ready.reference_moments(), seed)
    return Judge(judges, ready.pixels.pixel_range, real_floor(first, floors), classes=ready.classes)


def judge_demo(ready: Pretrained, folder: RunFolder, say: Teller) -> None:
    config = folder.config
    assert ready.prices is not None
    known, closed = dict(ready.schedules), closed_form(config, ready.prices)
    if closed is not None and "closed_only" not in known:  # sets older than this schedule have its member all the same
        even = known["global"]
        known["closed_only"] = HybridSchedule(even.times, (closed,) * len(even.times), even.solver, even.path)
    schedules = {key: known[key] for key in COMPARED if key in known}
    members = ready.denoisers(device=config.machine.device)
    say.begin({"evaluate": 1.0})
    say.start("evaluate")
    result = evaluate_all(members, schedules, ready.prices, shipped_judge(ready, config), config, say)
    say.finish()
    say.end()
    write_judgement(folder.run, config, result, folder.run.classifier, ready.pixels.pixel_range)
