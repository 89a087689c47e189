"""Run the stages of a folder in order: skip what is done, redo what is stale, resume what was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from phasewise import checks
from phasewise.data import source_state
from phasewise.denoisers import Denoiser
from phasewise.errors import DataError, RunFolderError
from phasewise.memory import give_back
from phasewise.pipeline.ahead import check_before, check_cmi, check_members
from phasewise.pipeline.costs import NetworkCost, expensive_locals, network_costs
from phasewise.pipeline.estimate import RunEstimate, estimate_in_words, estimate_run
from phasewise.pipeline.folder import RunFolder, Stage
from phasewise.pipeline.footprint import held_now
from phasewise.pipeline.models import open_source
from phasewise.pipeline.stages import Context, all_stages, discard_training, wanted
from phasewise.pipeline.telling import Teller
from phasewise.runs.config import RunConfig
from phasewise.runs.config import command as command_line
from phasewise.runs.lock import alone_in
from phasewise.runs.sizes import known_size

CMI_ALONE = "diagnose --cmi"


@checks.checked(
    config=checks.made(RunConfig, "a RunConfig", "see phasewise.runs.make_config"),
    out=checks.file,
    command=checks.text,
    update=checks.flag,
    say=checks.function,
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
    version: str = "",
    insist: bool = False,
) -> Path:
    """Bring the run folder ``out`` through the stages of ``command`` ("train" ... "run"; "cmi" for the map of
    conditional mutual information alone); returns the folder.

    A stage whose outputs are there and match the config is skipped.  A stopped run goes on where it was.
    What can be known before is refused before anything is claimed (:mod:`phasewise.pipeline.ahead`); ``insist`` passes
    over sizes that the machine cannot serve.  ``say`` gets lines of text; a :class:`phasewise.pipeline.telling.Teller`
    says more, or less, or as JSON.

    Raises RunFolderError when ``out`` is not ours, holds a run of another config and ``update`` is False, or is being
    worked in by another process.
    """
    checks.device(config.machine.device, "device")
    folder = RunFolder(out, config, update=update, version=version)
    teller = Teller.of(say)
    context, chosen = Context(folder.run, config, teller), wanted(command, all_stages(config))
    if not folder.claimed:  # refused before anything is written
        check_before(config, context.data, [s.name for s in chosen], insist=insist)
    with alone_in(folder.root):
        RunFolder(out, config, update=update)  # what lies there may have become another's in the meantime
        if not folder.claimed:
            folder.claim(repeating(config, folder, command))
        try:
            check_images(context, folder, all_stages(config), update)
            go_through(chosen, folder, context)
        finally:
            teller.end()
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


def go_through(chosen: list[Stage], folder: RunFolder, context: Context) -> None:
    """Do those of the stages that are not done, in order."""
    stages, say = all_stages(context.config), context.say
    say.begin({s.name: 0.0 for s in chosen})
    todo = [s.name for s in chosen if not folder.done(s, stages)]
    if todo:
        about = context.data.record()
        costs = network_costs(context.config, about.image_shape, taken_by(context, folder))
        found = estimate_run(context.config, about, todo, costs)
        if _counts(todo, context.config):
            for line in cost_in_words(context.config, found, costs):
                say(line)
        say.begin({s.name: found.stages.get(s.name, 0.0) for s in chosen}, in_seconds=True)
    for stage in chosen:
        if folder.done(stage, stages):
            say.skip(stage.name)
            continue
        if folder.stale(stage, stages):
            if stage.model is not None:
                discard_training(folder.run, stage.model)
            # or a stop from here on would discard what a network had learnt by then, or leave half of it as done
            folder.unstamp(stage)
        say.start(stage.name)
        started = time.monotonic()
        stage.work(context)
        give_back()
        held, state = int(held_now()), images_state(context.config, stage)
        # last: a stage that was stopped has no stamp and is done again
        folder.stamp(stage, stages, time.monotonic() - started, held_bytes=held, **state)
        say.finish()
    if todo and _counts(todo, context.config):
        say(f"this process has held {held_now() / 2**30:.1f} GiB of memory at the most")


def repeating(config: RunConfig, folder: RunFolder, command: str) -> str:
    """The command line that repeats this run: of the CMI alone only where nothing else was ever asked for."""
    known = folder.run.info.get("command")
    if command == "cmi" and (known is None or known.startswith(f"phasewise {CMI_ALONE}")):
        return command_line(config, CMI_ALONE, parts=("data", "cmi", "machine"))
    return command_line(config)


@checks.checked(config=checks.made(RunConfig, "a RunConfig"), out=checks.file, command=checks.text, update=checks.flag)
def describe_plan(
    config: RunConfig,
    out: str | Path,
    command: str = "run",
    *,
    update: bool = False,
    insist: bool = False,
    context: Context | None = None,
) -> list[tuple[str, str, str]]:
    """(stage, "done" or "to do", its choices in words) for every stage of ``command``, without writing anything; raises
    as a run would.  ``context``: whose images are looked at, if any are; given to :func:`describe_cost` too, they are
    read once."""
    folder = RunFolder(out, config, update=update)
    stages, size = all_stages(config), known_size(config.data)
    asked = wanted(command, stages)
    known = size is not None and config.data.data != "digits" and not config.train.model
    if not folder.claimed and size is not None and known:  # large sets are not read for a plan
        check_members(config, (1, *size))
        check_cmi(config, (1, *size))
    elif not folder.claimed:
        context = context or Context(folder.run, config, Teller.of(print))
        check_before(config, context.data, [s.name for s in asked], insist=insist)
    return [(s.name, "done" if folder.done(s, stages) else "to do", _in_words(s.depends)) for s in asked]


def describe_cost(
    config: RunConfig,
    out: str | Path,
    command: str = "run",
    *,
    update: bool = False,
    insist: bool = False,
    context: Context | None = None,
) -> list[str]:
    """What would be trained, and about the time and memory that everything still to do takes, a line each.

    Empty where nothing is to be trained.  Reads the images, unless the folder has their record.  Raises for a CMI map
    that the machine has no memory for, unless ``insist``.
    """
    folder = RunFolder(out, config, update=update)
    stages = all_stages(config)
    todo = [s.name for s in wanted(command, stages) if not folder.done(s, stages)]
    if not _counts(todo, config):
        return []
    known = folder.run.data if "data" not in todo else None
    context = context or Context(folder.run, config, Teller.of(lambda _: None))
    about = known or context.data.record()
    if "cmi" in todo:
        check_cmi(config, about.image_shape, sum(about.sizes.values()), insist=insist)
    costs = network_costs(config, about.image_shape, taken_by(context, folder))
    return cost_in_words(config, estimate_run(config, about, todo, costs, loaded=known is None), costs)


def cost_in_words(config: RunConfig, found: RunEstimate, costs: dict[str, NetworkCost]) -> list[str]:
    """The lines of :func:`describe_cost`."""
    return [*estimate_in_words(found, costs), *expensive_locals(config, costs)]


def taken_by(context: Context, folder: RunFolder) -> dict[str, Denoiser]:
    """The models of a run: those that it has, the others from their sources."""
    found = {}
    for name, source in context.config.train.model.items():
        if folder.run.has_model(name):
            found[name] = folder.run.denoiser(name, context.config.machine.device)
        else:
            known = folder.run.data
            found[name] = open_source(source, known.pixel_range if known is not None else context.data.pixel_range)
    return found


def _counts(todo: list[str], config: RunConfig) -> bool:
    """Whether what is still to do takes long enough to be told beforehand."""
    if config.train.model:
        return bool({"diagnose", "recovery", "schedule", "evaluate"} & set(todo))
    return any(name.startswith("train-") and name != "train-wiener" for name in todo)


def _in_words(depends: dict[str, object]) -> str:
    """ "steps 8, solver exp_ab2": what a stage depends on, without what is not chosen."""
    shown = {k: v for k, v in depends.items() if v not in (None, [], {}, "") and k not in ("name", "kind")}
    text = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in shown.items()}
    return ", ".join(f"{k} {v}" for k, v in text.items())
