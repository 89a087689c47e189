"""Run the stages of a folder in order: skip what is done, redo what is stale, resume what was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from phasewise import checks
from phasewise.data import source_state
from phasewise.errors import DataError, RunFolderError
from phasewise.pipeline.ahead import check_before, check_cmi, check_members
from phasewise.pipeline.folder import RunFolder, Stage
from phasewise.pipeline.stages import Context, all_stages, discard_training, wanted
from phasewise.runs.config import RunConfig
from phasewise.runs.config import command as command_line
from phasewise.runs.images import known_size

CMI_ALONE = "diagnose --cmi"


@checks.checked(
    config=checks.made(RunConfig, "a RunConfig", "see phasewise.runs.make_config"),
    out=checks.file,
    command=checks.text,
    update=checks.flag,
    say=checks.function,
    live=checks.flag,
    version=checks.text,
    insist=checks.flag,
)
def run_pipeline(
    config: RunConfig,
    out: str | Path,
    *,
    command: str = "run",
    update: bool = False,
    say: Callable[[str], None] = print,
    live: bool = False,
    version: str = "",
    insist: bool = False,
) -> Path:
    """Bring the run folder ``out`` through the stages of ``command`` ("train" ... "run"; "cmi" for the map of
    conditional mutual information alone); returns the folder.

    A stage whose outputs are there and match the config is skipped.  A stopped run goes on where it was.
    What can be known before is refused before anything is claimed (:mod:`phasewise.pipeline.ahead`); ``insist`` passes
    over sizes that the machine cannot serve.

    Raises RunFolderError when ``out`` is not ours, or holds a run of another config and ``update`` is False.
    """
    checks.device(config.machine.device, "device")
    folder = RunFolder(out, config, update=update, version=version)
    context = Context(folder.run, config, say, live)
    stages = all_stages(config)
    if not folder.claimed:  # refused before anything is written
        check_before(config, context.data, [s.name for s in wanted(command, stages)], insist=insist)
        folder.claim(repeating(config, folder, command))
    check_images(context, folder, stages, update)
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
            folder.stamp(stage, stages, time.monotonic() - started, **images_state(config, stage))
    return folder.root


def images_state(config: RunConfig, stage: Stage) -> dict[str, str | None]:
    """For the stamp of the stage that reads the images: what the file system says of them."""
    return {"source": source_state(config.data.data, config.data.data_dir)} if stage.name == "data" else {}


def check_images(context: Context, folder: RunFolder, stages: list[Stage], update: bool) -> None:
    """Whether the images are those that the run was made of.  They are loaded only where their files were touched.

    Raises RunFolderError where they are others, unless ``update``: then all that was made of them counts as not done.
    Images that are not there any more are asked for by the stage that needs them, if one does.
    """
    data, known = stages[0], folder.run.data
    if not folder.done(data, stages) or known is None:
        return
    try:
        now = images_state(context.config, data)
        if None in now.values() or now.items() <= folder.stamped(data.name).items():
            return
        found = context.data.fingerprint
    except DataError:
        return
    if found == known.fingerprint:
        folder.restamp(data.name, **now)
    elif update:
        folder.unstamp(data)
    else:
        raise RunFolderError(
            f"{folder.root} was made of other images than {context.config.data.data} now holds (fingerprint "
            f"{known.fingerprint} there, {found} here); choose another --out, or pass --update to redo it with these"
        )


def repeating(config: RunConfig, folder: RunFolder, command: str) -> str:
    """The command line that repeats this run: of the CMI alone only where nothing else was ever asked for."""
    known = folder.run.info.get("command")
    if command == "cmi" and (known is None or known.startswith(f"phasewise {CMI_ALONE}")):
        return command_line(config, CMI_ALONE, parts=("data", "cmi", "machine"))
    return command_line(config)


@checks.checked(config=checks.made(RunConfig, "a RunConfig"), out=checks.file, command=checks.text, update=checks.flag)
def describe_plan(
    config: RunConfig, out: str | Path, command: str = "run", *, update: bool = False, insist: bool = False
) -> list[tuple[str, str, str]]:
    """(stage, "done" or "to do", its choices in words) for every stage of ``command``, without writing anything; raises
    as a run would."""
    folder = RunFolder(out, config, update=update)
    stages, size = all_stages(config), known_size(config.data)
    asked = wanted(command, stages)
    if not folder.claimed and size is not None and config.data.data != "digits":  # large sets are not read for a plan
        check_members(config, (1, *size))
        check_cmi(config, (1, *size))
    elif not folder.claimed:
        check_before(config, Context(folder.run, config, print).data, [s.name for s in asked], insist=insist)
    return [(s.name, "done" if folder.done(s, stages) else "to do", _in_words(s.depends)) for s in asked]


def _in_words(depends: dict[str, object]) -> str:
    """ "steps 8, solver exp_ab2": what a stage depends on, without what is not chosen."""
    shown = {k: v for k, v in depends.items() if v not in (None, [], {}, "") and k not in ("name", "kind")}
    text = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in shown.items()}
    return ", ".join(f"{k} {v}" for k, v in text.items())
