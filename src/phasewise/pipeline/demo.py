"""``phasewise demo NAME``: a shipped set sampled and judged, reported like any run. Needs no data, trains nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from phasewise.errors import PhasewiseError
from phasewise.files import read_json
from phasewise.metrics import frechet_score
from phasewise.pipeline.config import RunConfig
from phasewise.pipeline.folder import RunFolder, read_config
from phasewise.pipeline.judging import Judge, evaluate_all, real_floor
from phasewise.pipeline.recording import write_judgement
from phasewise.pretrained import Pretrained, load_pretrained
from phasewise.report import build_report
from phasewise.results import PriceList

COMPARED = ("global", "global_cheap", "hybrid", "stitched", "window", "local_only")
LEAST = 100


def demo_config(ready: Pretrained, n: int, seed: int, device: str) -> RunConfig:
    """The config the set was trained with, for ``n`` samples a schedule.  Raises PhasewiseError for fewer than 100."""
    if n < LEAST:
        raise PhasewiseError(f"a demo needs at least {LEAST} samples a schedule for its FID, got {n}")
    config = read_config(ready.folder)
    assert config is not None
    return replace(config, n_samples=n, seed=seed, device=device)


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
    if folder.path("records", "evaluation.json").is_file():
        say("sampled and judged before")
    else:
        folder.claim(f"phasewise demo {name} --n {n} --seed {seed}")
        for part in ("models", "records"):
            shutil.copytree(ready.folder / part, folder.path(part), dirs_exist_ok=True)
        judge_demo(ready, folder, say)
    build_report(folder.root)
    return folder.root


def judge_demo(ready: Pretrained, folder: RunFolder, say: Callable[[str], None]) -> None:
    config = folder.config
    features = ready.features().to(config.device)
    reference = ready.reference()
    held_out = ready.real_features()
    floor = frechet_score(held_out[: config.n_samples], reference, config.seed)
    judge = Judge(features, reference, ready.data.pixel_range, real_floor(floor))
    prices = PriceList.from_dict(read_json(ready.folder / "records" / "prices.json"))
    schedules = {key: ready.schedules[key] for key in COMPARED if key in ready.schedules}
    result = evaluate_all(ready.members(config.device), schedules, prices, judge, config, say)
    write_judgement(folder, result, read_json(folder.path("records", "features.json")), ready.data.pixel_range)
