"""Run the stages of a folder in order: skip what is done, redo what is stale, resume what was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from phasewise.denoisers.base import check_radius
from phasewise.errors import PhasewiseError
from phasewise.pipeline.diagnosing import check_cmi
from phasewise.pipeline.estimate import estimate_in_words, estimate_run, expensive_locals, network_costs
from phasewise.pipeline.folder import RunFolder
from phasewise.pipeline.stages import Context, all_stages, discard_training, need_source, wanted
from phasewise.runs.config import RunConfig
from phasewise.runs.config import command as command_line
from phasewise.runs.members import MEMBER_KINDS
from phasewise.runs.sizes import SIDES

CMI_ALONE = "diagnose --cmi"


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
        check_members(config, context.data.image_shape)
        check_cmi(config, context.data.image_shape)
        folder.claim(repeating(config, folder, command))
    todo = [s.name for s in wanted(command, stages) if not folder.done(s, stages)]
    for line in cost_in_words(config, context.data.image_shape, len(context.data.train), todo) if _trains(todo) else ():
        say(line)
    for stage in wanted(command, stages):
        if folder.done(stage, stages):
            say(f"[{stage.name}] done before")
        else:
            if stage.model is not None and folder.stale(stage, stages):
                discard_training(folder.run, stage.model)
                folder.unstamp(stage)  # or a stop from here on would discard what it had learnt by then
            say(f"[{stage.name}]")
            started = time.monotonic()
            stage.work(context)
            # last: a stage that was stopped has no stamp and is done again
            folder.stamp(stage, stages, time.monotonic() - started)
    return folder.root


def repeating(config: RunConfig, folder: RunFolder, command: str) -> str:
    """The command line that repeats this run: of the CMI alone only where nothing else was ever asked for."""
    known = folder.run.info.get("command")
    if command == "cmi" and (known is None or known.startswith(f"phasewise {CMI_ALONE}")):
        return command_line(config, CMI_ALONE, parts=("data", "cmi", "machine"))
    return command_line(config)


def check_members(config: RunConfig, image_shape: tuple[int, int, int] | None) -> None:
    """Refuse a member that does not fit the images, or is not there, before anything is trained or written.

    ``image_shape`` None: of images not looked at yet; radii go unchecked.
    """
    for member in config.members:
        kind = MEMBER_KINDS[member.kind]
        if member.radius is None and kind.look in ("local", "control"):
            raise PhasewiseError(f"member {member.name!r} of kind {member.kind!r} needs a radius, in pixels")
        if member.radius is not None and image_shape is not None:
            check_radius(member.radius, image_shape)
        if kind.build is None and kind.fit is None:
            need_source(member)


def describe_plan(
    config: RunConfig, out: str | Path, command: str = "run", *, update: bool = False
) -> list[tuple[str, str, str]]:
    """(stage, "done" or "to do", its choices in words) for every stage of ``command``, without writing anything; raises
    as a run would."""
    folder = RunFolder(out, config, update=update)
    stages, side = all_stages(config), SIDES.get(config.data.data)
    if not folder.claimed:
        check_members(config, None if side is None else (1, side, side))
    return [
        (s.name, "done" if folder.done(s, stages) else "to do", _in_words(s.depends)) for s in wanted(command, stages)
    ]


def describe_cost(config: RunConfig, out: str | Path, command: str = "run", *, update: bool = False) -> list[str]:
    """What would be trained, and about the time and memory that everything still to do takes, a line each.

    Empty where nothing is to be trained.  Reads the images, unless the folder has their record.
    """
    folder = RunFolder(out, config, update=update)
    stages = all_stages(config)
    todo = [s.name for s in wanted(command, stages) if not folder.done(s, stages)]
    if not _trains(todo):
        return []
    known = folder.run.data if "data" not in todo else None
    if known is not None:
        return cost_in_words(config, known.image_shape, known.sizes["train"], todo)
    data = Context(folder.run, config, lambda _: None).data
    return cost_in_words(config, data.image_shape, len(data.train), todo)


def cost_in_words(config: RunConfig, shape: tuple[int, int, int], n_train: int, todo: list[str]) -> list[str]:
    """The lines of :func:`describe_cost` for images of ``shape`` (C, H, W) and the stages ``todo``."""
    costs = network_costs(config, shape)
    found = estimate_run(config, shape, n_train, todo, costs)
    return [*estimate_in_words(found, costs), *expensive_locals(config, costs)]


def _trains(todo: list[str]) -> bool:
    return any(name.startswith("train-") and name != "train-wiener" for name in todo)


def _in_words(depends: dict[str, object]) -> str:
    """ "steps 8, solver exp_ab2": what a stage depends on, without what is not chosen."""
    shown = {k: v for k, v in depends.items() if v not in (None, [], {}, "") and k not in ("name", "kind")}
    text = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in shown.items()}
    return ", ".join(f"{k} {v}" for k, v in text.items())
