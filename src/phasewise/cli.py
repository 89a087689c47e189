"""The command line: parsing only, derived from the options of each stage. Heavy imports wait till they are needed."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phasewise import checks
from phasewise.errors import PhasewiseError, PhasewiseWarning, unknown
from phasewise.memory import out_of_memory
from phasewise.runs.options import Option, numbers, options_of
from phasewise.runs.parts import HOMES, PARTS
from phasewise.runs.sizes import SIZES

if TYPE_CHECKING:
    from phasewise.pipeline.telling import Teller

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="When does a diffusion model need the whole image, and what can be saved the rest of the time?\n\n"
    "Start with `phasewise run`: real handwritten digits, a few minutes, then open runs/digits/report.html.",
)


@dataclass(frozen=True)
class Command:
    """A command that brings a run folder up to a stage: what it does, an example, and whose options it takes.

    ``makes``: it may make a new run; the others work on a run that is there.  ``brief``: parts of which it shows the
    most used options only; those it takes but does not show stand in ``phasewise options``.  ``own``: flags of this
    command alone, which are no options of a run: name -> (kind, default).
    """

    help: str
    example: str
    parts: tuple[str, ...]
    makes: bool = False
    brief: tuple[str, ...] = ()
    own: dict[str, tuple[Any, Any]] = field(default_factory=dict)


FromSet = Annotated[str | None, typer.Option(help="Of a shipped set instead, e.g. mnist.")]
Save = Annotated[Path | None, typer.Option(help="Also write the schedule to this .json.")]
Drawn = Annotated[int | None, typer.Option(help="Images the teacher draws, without --data.", metavar="N")]
Files = Annotated[list[Path] | None, typer.Option("--schedule", help="Judge those of this .json; repeatable.")]
Seeds = Annotated[str | None, typer.Option(help="Judge with these seeds, e.g. 0,1,2.", metavar="LIST")]
Budgets = Annotated[str | None, typer.Option(help="Judge hybrids of these budgets.", metavar="LIST")]
Penalties = Annotated[str | None, typer.Option(help="Judge hybrids of these penalties.", metavar="LIST")]

COMMANDS: dict[str, Command] = {
    "run": Command(
        "Everything: train, diagnose, schedule, sample, judge, report. Finished stages are skipped.",
        "phasewise run --data mnist --data-dir data --out runs/mnist",
        tuple(PARTS),
        makes=True,
        brief=tuple(PARTS),
    ),
    "train": Command(
        "Train the global, the local and the control denoisers of a run.",
        "phasewise train --data mnist --data-dir data --radii 1,3,8",
        ("data", "train", "machine"),
        makes=True,
        brief=("data", "train"),
    ),
    "diagnose": Command(
        "Measure losses, gaps, symmetry breaking, recovery. With --cmi: CMI alone.",
        "phasewise diagnose --cmi --data mnist --data-dir data --out runs/cmi",
        ("data", "diagnose", "reach", "symmetry", "recovery", "cmi", "machine"),
        brief=("data", "symmetry", "recovery"),
    ),
    "schedule": Command(
        "Price the denoisers of a run and optimise its schedule.",
        "phasewise schedule --out runs/digits --budget 0.3 --update",
        ("grid", "schedule", "machine"),
        own={"pretrained": (FromSet, None), "save": (Save, None)},
    ),
    "distill": Command(
        "Train local and coarse students of a denoiser; write the hybrid of them.\n\n"
        "Without --data the teacher draws images. `phasewise run --out DIR` goes on.",
        "phasewise distill --teacher nets/mine --radii 1,3 --out runs/mine",
        ("data", "features", "train", "grid", "diagnose", "schedule", "machine"),
        makes=True,
        brief=("data", "features", "train", "grid", "diagnose", "schedule", "machine"),
        own={"samples_as_data": (Drawn, None)},
    ),
    "evaluate": Command(
        "Sample and judge every schedule of a run. Distance to real images, cost, paired error.\n\n"
        "--schedule, --seeds, --budgets and --penalties are judged beside what is there, and shown as a table.",
        "phasewise evaluate --out runs/digits --schedule mine.json --seeds 0,1,2",
        ("features", "evaluate", "machine"),
        own={
            "pretrained": (FromSet, None),
            "schedule": (Files, None),
            "seeds": (Seeds, None),
            "budgets": (Budgets, None),
            "penalties": (Penalties, None),
        },
    ),
}


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """One clear line for an error or a warning; exit status 2 for bad input, 130 for Ctrl-C."""
    try:
        with plain_warnings():
            yield
    except PhasewiseError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except BrokenPipeError as error:  # the reader has seen enough
        sys.stderr.close()
        raise typer.Exit(0) from error
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        reason = f"{error.strerror or error}{where}"
        typer.echo(f"error: {reason}; finished stages are kept, run the same command again", err=True)
        raise typer.Exit(1) from error
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:  # what a user can cause was named above: the rest is a fault of ours, memory apart
        if out_of_memory(error):
            typer.echo("error: out of memory; try a smaller --batch, --samples or --limit", err=True)
            raise typer.Exit(1) from error
        if os.environ.get("PHASEWISE_DEBUG"):
            raise
        told = f"{type(error).__name__}: {checks.shown(error)}"
        typer.echo(f"error: a fault of phasewise, not yours ({told}); PHASEWISE_DEBUG=1 shows where", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo("\nstopped; run the same command again: what is finished is kept", err=True)
        raise typer.Exit(130) from error


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Our own warnings as one line each, said once, without the source line; all others as Python shows them."""
    said = set[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("default", PhasewiseWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            text = " ".join(str(message).split())
            if not issubclass(category, PhasewiseWarning):
                usual(message, category, *where, **more)
            elif text not in said:
                typer.echo(f"warning: {text}", err=True)
                said.add(text)

        warnings.showwarning = show
        yield


Out = Annotated[Path | None, typer.Option(help="Run folder. [default: runs/NAME]")]
Size = Annotated[
    str,
    typer.Option(help="auto, small, cpu, smoke (meaningless).", show_default=False, autocompletion=lambda: [*SIZES]),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file or run.json with further options.")]
Update = Annotated[bool, typer.Option("--update", help="Change an existing run, redoing what it touches.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Insist on sizes this machine may not serve.")]
COMMON = {"out": (Out, None), "size": (Size, "auto"), "config": (ConfigFile, None), "update": (Update, False)}
COMMON |= {"dry_run": (DryRun, False), "yes": (Yes, False)}
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say every row of training.")]
Log = Annotated[str, typer.Option(help="text; json: an object a line.", show_default=False)]
TOLD = {"quiet": (Quiet, False), "verbose": (Verbose, False), "log": (Log, "text")}


def flag_of(about: Option, hidden: bool) -> Any:
    """The typer option of one field: its flag, help and kind."""
    kind: Any = bool if about.switch else list[str] if about.repeated else str
    flag = f"{about.flag}/{about.flag.replace('--', '--no-', 1)}" if about.switch else about.flag
    known = about.known

    def names(incomplete: str) -> list[str]:
        """What a shell may complete: a name, or the last one of a list."""
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + name for name in (known() if known else ()) if name.startswith(last)]

    more: dict[str, Any] = {} if known is None else {"autocompletion": names}
    return Annotated[kind | None, typer.Option(flag, help=about.help, metavar=about.metavar, hidden=hidden, **more)]


def add_stage_command(name: str, command: Command) -> None:
    """A command whose flags are the options of its stages."""
    shown = [o for part in command.parts for o in options_of(PARTS[part])]

    def work(ctx: typer.Context, **words: Any) -> None:
        common = {key: words.pop(key) for key in COMMON}
        told = {key: words.pop(key) for key in TOLD}
        own = {key: words.pop(key) for key in command.own}
        with plain_errors():
            given = {n: HOMES[n][1].parse(v) for n, v in words.items() if v not in (None, [], ())}
            run_stages(name, command, given=given, own=own, teller=teller_of(**told), **common)

    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    for about in shown:
        kind = flag_of(about, hidden=not about.main and HOMES[about.name][0] in command.brief)
        parameters.append(inspect.Parameter(about.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))
    for key, (kind, default) in {**command.own, **COMMON, **TOLD}.items():
        parameters.append(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))
    work.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    more = "\n\nMore options: `phasewise options`; --config sets any of them." if command.brief else ""
    app.command(name, help=f"{command.help}{more}\n\nExample: {command.example}")(work)


for _name, _command in COMMANDS.items():
    add_stage_command(_name, _command)


def run_stages(
    name: str, command: Command, *, out: Path | None, size: str, config: Path | None, update: bool, dry_run: bool,
    yes: bool, given: dict[str, Any], own: dict[str, Any], teller: Teller,
) -> None:  # fmt: skip
    """Bring the folder up to the command's stage, or say what that would take."""
    from phasewise.pipeline import config_for, default_folder, need_run, read_options
    from phasewise.runs.run import Run

    found: dict[str, Any] = {}
    if config is not None:
        found = read_options(config)
        of_file = found.pop("size", "auto")
        size = of_file if size == "auto" else size
    # a flag that goes against another is a slip; a file, such as another run's, may say more than is used
    usual = name != "diagnose" and found.get("cmi", not (given.get("model") or found.get("model")))
    check_cmi_options(given, measured=given.get("cmi", usual))
    alone = name == "diagnose" and given.get("cmi") is True
    given = {**found, **given}
    checks.device(given.get("device", "cpu"), "device")
    shipped = own.get("pretrained")
    if name == "distill":
        distil_into(out, size, given, own["samples_as_data"], update, dry_run, yes, teller)
        return
    usual_folder = default_folder(given.get("data"), given.get("model"))
    folder = out or (Path("runs") / f"demo-{shipped}" if shipped else usual_folder)
    beside = name == "evaluate" and any(own[key] for key in ("schedule", "seeds", "budgets", "penalties"))
    if shipped or beside or (name in ("schedule", "evaluate") and Run(folder).demo_of):
        work_beside(name, folder, shipped, own, given, dry_run, teller)
        return
    if not command.makes and not alone:
        need_run(folder, name)
    chosen = config_for(folder, size, given)
    if dry_run:
        say_plan(chosen, folder, "cmi" if alone else name, update, yes)
        return
    bring_up(chosen, folder, "cmi" if alone else name, update, yes, teller)
    if own.get("save"):
        from phasewise.pipeline.beside import save_schedule

        teller(f"wrote {save_schedule(Run(folder).schedules['hybrid'], own['save'])}")


def distil_into(
    out: Path | None, size: str, given: dict[str, Any], samples: int | None, update: bool, dry_run: bool, yes: bool,
    teller: Teller,
) -> None:  # fmt: skip
    """``distill``: what :func:`phasewise.distil` does, from flags."""
    from phasewise.pipeline.distilling import default_folder_of, distil_config, undrawn_plan

    folder = out or default_folder_of(given.get("teacher"))
    chosen = distil_config(folder, size, given, samples=samples, say=teller, draw=not dry_run)
    plan = undrawn_plan(folder, chosen, samples) if dry_run else None
    if plan is not None:
        typer.echo("\n  ".join([f"{folder}: {plan[0]}", *plan[1:]]))
    elif dry_run:
        say_plan(chosen, folder, "distill", update, yes)
    else:
        bring_up(chosen, folder, "distill", update, yes, teller)


def work_beside(
    name: str, folder: Path, shipped: str | None, own: dict[str, Any], given: dict[str, Any], dry_run: bool,
    teller: Teller,
) -> None:  # fmt: skip
    """``schedule`` of a shipped set, and ``evaluate`` of what is no stage of the run."""
    from phasewise import __version__
    from phasewise.pipeline import need_run
    from phasewise.pipeline.beside import evaluate_beside, plan_from, save_schedule
    from phasewise.pipeline.demo import open_demo
    from phasewise.pretrained import load_pretrained

    if name == "schedule":
        plan = plan_from(load_pretrained(shipped) if shipped else need_run(folder, name), given, teller)
        if own["save"] and not dry_run:
            teller(f"wrote {save_schedule(plan, own['save'])}")
        return
    lists = {
        "seeds": numbers(own["seeds"], int, "--seeds") if own["seeds"] else None,
        "budgets": numbers(own["budgets"], float, "--budgets") if own["budgets"] else None,
        "penalties": own["penalties"].split(",") if own["penalties"] else None,
    }
    files = own["schedule"] or []
    if dry_run:
        said = [f"{key} {','.join(map(str, v))}" for key, v in {**lists, "schedules": files}.items() if v]
        teller(f"{folder}: judge {'; '.join(said) or 'its schedules'}, beside what is there")
        return
    run = open_demo(shipped, folder, __version__) if shipped else need_run(folder, name)
    teller.result(evaluate_beside(run, given, files=files, say=teller, **lists))
    teller(f"kept in {run.path('trials')}")


def teller_of(quiet: bool, verbose: bool, log: str) -> Teller:
    """Who says what is done, as the flags ask."""
    from phasewise.pipeline.telling import FORMS, QUIET, USUAL, VERBOSE, Teller

    if quiet and verbose:
        raise PhasewiseError("--quiet and --verbose contradict each other; give one")
    if log not in FORMS:
        raise PhasewiseError(unknown("form of --log", log, FORMS))
    live = sys.stderr.isatty() and sys.stdout.isatty()
    return Teller(typer.echo, level=QUIET if quiet else VERBOSE if verbose else USUAL, form=log, live=live)


def check_cmi_options(given: dict[str, Any], measured: bool) -> None:
    """Refuse what is said about a CMI that will not be measured."""
    how = [HOMES[n][1].flag for n in given if HOMES[n][0] == "cmi" and n != "cmi"]
    if how and not measured:
        raise PhasewiseError(f"{', '.join(how)}: for conditional mutual information, which is measured with --cmi only")


def say_plan(config: Any, folder: Path, command: str, update: bool, yes: bool) -> None:
    from phasewise.pipeline import describe_cost, describe_plan
    from phasewise.pipeline.stages import Context
    from phasewise.pipeline.telling import Teller
    from phasewise.runs.run import Run

    context = Context(Run(folder), config, Teller.of(typer.echo))
    typer.echo(f"{folder}: {config.data.data}, size {config.size}")
    for stage, state, choices in describe_plan(config, folder, command, update=update, insist=yes, context=context):
        typer.echo(f"  {stage:<16} {state:<6} {choices}".rstrip())
    for line in describe_cost(config, folder, command, update=update, insist=yes, context=context):
        typer.echo(line)


def bring_up(config: Any, folder: Path, command: str, update: bool, yes: bool, teller: Teller) -> None:
    import torch

    from phasewise import __version__
    from phasewise.pipeline import run_pipeline

    torch.set_float32_matmul_precision("highest")
    run_pipeline(config, folder, command=command, update=update, say=teller, version=__version__, insist=yes)
    if command == "run":
        teller(f"open {folder / 'report.html'}")
    elif command == "distill":
        teller(f"judged and reported by `phasewise run --out {folder}`")
    elif command == "schedule":
        teller(f"judged by `phasewise evaluate --out {folder}`")
    elif command == "cmi":
        teller(f"shown by `phasewise report {folder}`")


@app.command("options")
def list_options(
    stage: Annotated[str | None, typer.Argument(help="A part: " + ", ".join(PARTS) + ".")] = None,
) -> None:
    """List every option of a run with its default. `phasewise run --config FILE` sets any of them.

    Example: phasewise options cmi
    """
    with plain_errors():
        if stage is not None and stage not in PARTS:
            raise PhasewiseError(f"there is no part {stage!r}; there is {', '.join(PARTS)}")
        for part in [stage] if stage else PARTS:
            typer.echo(f"[{part}]")
            for about in options_of(PARTS[part]):
                typer.echo(f"  {about.flag:<22} {about.help} [{about.field}: {about.shown(about.default)}]")


@app.command()
def sample(
    run: Annotated[Path | None, typer.Option(help="Run folder with denoisers and schedules.")] = None,
    pretrained: Annotated[str | None, typer.Option(help="A shipped set instead, e.g. mnist.")] = None,
    schedule: Annotated[str, typer.Option(help="hybrid, global, window, ...; or a .json of one.")] = "hybrid",
    n: Annotated[int, typer.Option("--n", help="Number of images.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed; image i depends on (seed, i) alone.")] = 0,
    out: Annotated[Path, typer.Option(help="A grid .png; DIR/ of single ones; .npz or .npy.")] = Path("grid.png"),
    label: Annotated[str | None, typer.Option(help="Classes to draw in turn, e.g. 1 or 0,7,8.", metavar="LIST")] = None,
    batch: Annotated[int, typer.Option(help="Images denoised at a time.")] = 64,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the networks first (for many images).",
        ),
    ] = False,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Draw samples of a run or a shipped set: a grid, single files, or an array.

    Example: phasewise sample --run runs/digits --n 64 --seed 0 --out grid.png
    """
    with plain_errors():
        checks.device(device, "device")
        from phasewise.pipeline import check_output, need_run, write_samples
        from phasewise.pipeline.conditions import asked_labels, sampled_labels
        from phasewise.pipeline.trials import read_schedules
        from phasewise.pretrained import load_pretrained

        if (run is None) == (pretrained is None):
            raise PhasewiseError("say where the denoisers are: either --run DIR or --pretrained NAME")
        check_output(out)
        checks.count(n, "--n"), checks.count(batch, "--batch"), checks.seed(seed, "--seed")
        source = need_run(run, "sample from") if run is not None else load_pretrained(str(pretrained))
        plans = read_schedules(schedule) if schedule.endswith(".json") else {}
        if len(plans) > 1:
            raise PhasewiseError(f"{schedule} holds several schedules ({', '.join(plans)}); give a file of one")
        hybrid = source.hybrid(next(iter(plans.values()), schedule), device)
        check_output(out, hybrid.image_shape[0])
        told = sampled_labels(source.classes, n, seed) if hybrid.takes_condition else None
        if label is not None:
            told = asked_labels(numbers(label, int, "--label"), n, source.classes if hybrid.takes_condition else ())
        if dry_run:
            typer.echo(f"{n} images by {schedule} ({len(hybrid.schedule.times)} steps) to {out}")
            return
        from phasewise.denoisers import for_inference
        from phasewise.sampling import sample as draw

        fast = for_inference(hybrid, compile=compile, precision=precision)
        pixels = source.data.pixel_range if source.data else (0.0, 1.0)
        shown = sys.stderr.isatty() and not quiet
        drawn = draw(fast, n=n, seed=seed, cond=told, batch=batch, device=device, progress=shown)
        write_samples(drawn, pixels, out)
        if not quiet:
            typer.echo(f"wrote {out}: {n} images, {schedule}, seed {seed}")


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="Shipped: mnist, fashion_mnist, cifar10, cifar10-dit or -guided.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write. [default: runs/demo-NAME]")] = None,
    n: Annotated[int, typer.Option("--n", help="Samples per schedule, at least 100.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    log: Log = "text",
) -> None:
    """Compare the schedules of a shipped set. No data, no training: global, hybrid, local only, ...

    Example: phasewise demo mnist
    """
    with plain_errors():
        checks.device(device, "device")
        from phasewise import __version__
        from phasewise.pipeline.demo import COMPARED, demo_config, run_demo
        from phasewise.pretrained import load_pretrained

        folder = out or Path("runs") / f"demo-{name}"
        if dry_run:
            demo_config(load_pretrained(name), n, seed, device)
            typer.echo(f"{n} samples each by {', '.join(COMPARED)} of {name}, report in {folder}")
            return
        teller = teller_of(quiet, verbose, log)
        run_demo(name, folder, n=n, seed=seed, device=device, version=__version__, say=teller)
        teller(f"open {folder / 'report.html'}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run folders.")],
) -> None:
    """Put what was judged in several runs side by side, with errors; runs that differ by seed alone give their mean.

    Example: phasewise compare runs/digits runs/digits-b3
    """
    with plain_errors():
        from phasewise.display import text_table
        from phasewise.pipeline import compare_runs

        shown, notes = compare_runs(runs)
        typer.echo(text_table(shown))
        for note in notes:
            typer.echo(note)


@app.command()
def boundary(
    early: Annotated[str | None, typer.Option(help="Who takes the noisy part: a member's name.")] = None,
    late: Annotated[str | None, typer.Option(help="Who takes the rest.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model's folder; or two, early=DIR, late=DIR.", metavar="[NAME=]DIR")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder with both.")] = None,
    pretrained: Annotated[str | None, typer.Option(help="A shipped set instead, e.g. mnist.")] = None,
    reference: Annotated[str | None, typer.Option(help="The better of both. [default: neither]")] = None,
    penalty: Annotated[str | None, typer.Option(help="frechet, w2, flow, kl. [default: as fits]")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Share of the worst that is nothing.")] = None,
    steps: Annotated[int, typer.Option(help="Steps of the sampler's grid.")] = 16,
    n: Annotated[int, typer.Option("--n", help="Held-out images.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    data: Annotated[str | None, typer.Option(help="Images instead of the run's own.")] = None,
    data_dir: Annotated[str | None, typer.Option(help="Folder of named sets.")] = None,
    save: Annotated[Path | None, typer.Option(help="Also write the record to this .json.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dry_run: DryRun = False,
) -> None:
    """Measure when to switch from one denoiser to another, with the error, in every unit. Nothing is sampled.

    Of one model's folder: how far the Wiener filter, which needs no training, can stand in for it.

    Example: phasewise boundary --pretrained mnist --early coarse --late global --reference global --data-dir data
    """
    with plain_errors():
        checks.device(device, "device")
        from phasewise.pipeline import need_run
        from phasewise.pipeline.bounding import (
            boundary_in,
            boundary_of_models,
            check_file,
            named_models,
            save_boundary,
            side_of,
            tell_boundary,
        )
        from phasewise.pretrained import load_pretrained

        if (run is not None) + (pretrained is not None) + bool(model) != 1:
            raise PhasewiseError("say where the denoisers are: one of --run DIR, --pretrained NAME and --model DIR")
        check_file(save)
        checks.at_least_2(n, "--n"), checks.seed(seed, "--seed"), checks.steps(steps, "--steps")
        if model:
            if data is None:
                raise PhasewiseError("a model is measured on images: give --data, a folder or the name of a set")
            if early is not None or late is not None:
                raise PhasewiseError("models are named where they are given: --model early=DIR --model late=DIR")
            models = named_models(model)
            if dry_run:
                typer.echo(f"{n} images of {data} at {steps} times by {', '.join(models)}")
                return
            found, clock = boundary_of_models(
                models, data, reference=reference, penalty=penalty, tolerance=tolerance, steps=steps, n=n, seed=seed,
                data_dir=data_dir, device=device,
            )  # fmt: skip
            tell_boundary(found, typer.echo, clock)
            if save is not None:
                typer.echo(f"wrote {save_boundary(found, save)}")
            return
        if early is None or late is None:
            raise PhasewiseError("name the two members: --early NAME --late NAME")
        side_of(reference, early, late)
        source = need_run(run, "measure") if run is not None else load_pretrained(str(pretrained))
        for name in (early, late):
            source.denoiser(name, device)
        if dry_run:
            typer.echo(f"{n} images at {steps} times by {early} and {late}")
            return
        found = boundary_in(
            source, early, late, reference=reference, penalty=penalty, tolerance=tolerance, steps=steps, n=n, seed=seed,
            data=data, data_dir=data_dir, device=device,
        )  # fmt: skip
        tell_boundary(found, typer.echo)
        if save is not None:
            typer.echo(f"wrote {save_boundary(found, save)}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Run folder with records.")],
) -> None:
    """Make report.html again from the records of a run.

    Example: phasewise report runs/digits
    """
    with plain_errors():
        from phasewise.report import build_report

        typer.echo(f"wrote {build_report(folder)}")


@app.callback(invoke_without_command=True)
def version_option(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from phasewise import __version__

        typer.echo(f"phasewise {__version__}")
        raise typer.Exit


def main() -> None:
    app()


if __name__ == "__main__":
    main()
