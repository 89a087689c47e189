"""Run the stages of a folder in order: skip what is done, redo what is stale, resume what was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from phasewise.denoisers.base import check_radius
from phasewise.pipeline.diagnosing import check_cmi
from phasewise.pipeline.folder import RunFolder
from phasewise.pipeline.stages import Context, all_stages, discard_training, wanted
from phasewise.runs.config import RunConfig
from phasewise.runs.config import command as command_line


def run_pipeline(
    config: RunConfig,
    out: str | Path,
    *,
    command: str = "run",
    update: bool = False,
    say: Callable[[str], None] = print,
    live: bool = False,
    version: str = "",
) -> Path:
    """Bring the run folder ``out`` through the stages of ``command`` ("train" ... "run"; "cmi" for the map of
    conditional mutual information alone); returns the folder.

    A stage whose outputs are there and match the config is skipped.  A stopped run goes on where it was.
    Raises RunFolderError when ``out`` is not ours, or holds a run of another config and ``update`` is False.
    """
    folder = RunFolder(out, config, update=update, version=version)
    context = Context(folder.run, config, say, live)
    stages = all_stages(config)
    if not folder.claimed:  # refused before anything is written
        check_radii(config, context.data.image_shape)
        check_cmi(config, context.data.image_shape)
        folder.claim(command_line(config, "diagnose --cmi" if command == "cmi" else "run"))
    for stage in wanted(command, stages):
        if folder.done(stage, stages):
            say(f"[{stage.name}] done before")
        else:
            if stage.model is not None and folder.stale(stage, stages):
                discard_training(folder.run, stage.model)
            say(f"[{stage.name}]")
            started = time.monotonic()
            stage.work(context)
            # last: a stage that was stopped has no stamp and is done again
            folder.stamp(stage, stages, time.monotonic() - started)
    return folder.root


def check_radii(config: RunConfig, image_shape: tuple[int, int, int]) -> None:
    """Refuse a radius that does not fit the images before anything is trained or written."""
    for radius in config.train.radii:
        check_radius(radius, image_shape)


def describe_plan(
    config: RunConfig, out: str | Path, command: str = "run", *, update: bool = False
) -> list[tuple[str, str, str]]:
    """(stage, "done" or "to do", its choices in words) for every stage of ``command``, without writing anything; raises
    as a run would."""
    folder = RunFolder(out, config, update=update)
    stages = all_stages(config)
    return [
        (s.name, "done" if folder.done(s, stages) else "to do", _in_words(s.depends)) for s in wanted(command, stages)
    ]


def _in_words(depends: dict[str, object]) -> str:
    """ "steps 8, solver exp_ab2": what a stage depends on, without what is not chosen."""
    shown = {k: v for k, v in depends.items() if v not in (None, [], {}, "") and k not in ("name", "kind")}
    text = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in shown.items()}
    return ", ".join(f"{k} {v}" for k, v in text.items())
