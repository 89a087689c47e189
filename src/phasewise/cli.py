"""The command line: parsing only, derived from the options of each stage. Heavy imports wait till they are needed."""

from __future__ import annotations

import contextlib
import inspect
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.memory import out_of_memory
from phasewise.runs.options import Option, options_of
from phasewise.runs.parts import HOMES, PARTS

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="When does a diffusion model need the whole image, and what can be saved the rest of the time?\n\n"
    "Start with `phasewise run`: real handwritten digits, a few minutes, then open runs/digits/report.html.",
)


@dataclass(frozen=True)
class Command:
    """A command that brings a run folder up to a stage: what it does, an example, and whose options it takes.

    ``whole``: it may make a new run, and takes the most used options of every stage; the others work on a run that is
    there.  Options it takes but does not show stand in ``phasewise options``.
    """

    help: str
    example: str
    parts: tuple[str, ...]
    makes: bool = False
    main_only: bool = False


COMMANDS: dict[str, Command] = {
    "run": Command(
        "Everything: train, diagnose, schedule, sample, judge, report. Finished stages are skipped.",
        "phasewise run --data mnist --data-dir data --out runs/mnist",
        tuple(PARTS),
        makes=True,
        main_only=True,
    ),
    "train": Command(
        "Train the global, the local and the control denoisers of a run.",
        "phasewise train --data mnist --data-dir data --radii 1,3,8",
        ("data", "train", "machine"),
        makes=True,
    ),
    "diagnose": Command(
        "Measure losses, gaps and recovery. With --cmi: conditional mutual information alone.",
        "phasewise diagnose --cmi --data mnist --data-dir data --out runs/cmi",
        ("data", "diagnose", "recovery", "cmi", "machine"),
    ),
    "schedule": Command(
        "Price the denoisers of a run and optimise its schedule.",
        "phasewise schedule --out runs/digits --budget 0.3 --update",
        ("grid", "schedule", "machine"),
    ),
    "evaluate": Command(
        "Sample and judge every schedule of a run. Distance to real images, cost, paired error.",
        "phasewise evaluate --out runs/digits --samples 5000 --update",
        ("features", "evaluate", "machine"),
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
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        typer.echo("error: out of memory; try a smaller --batch, --samples or --limit", err=True)
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
Size = Annotated[str, typer.Option(help="auto, small, cpu, or smoke (meaningless).")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file or run.json with further options.")]
Update = Annotated[bool, typer.Option("--update", help="Change an existing run, redoing what it touches.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
COMMON = {"out": (Out, None), "size": (Size, "auto"), "config": (ConfigFile, None), "update": (Update, False)}
COMMON |= {"dry_run": (DryRun, False)}


def flag_of(about: Option, hidden: bool) -> Any:
    """The typer option of one field: its flag, help and kind."""
    kind: Any = bool if about.switch else list[str] if about.repeated else str
    flag = f"{about.flag}/{about.flag.replace('--', '--no-', 1)}" if about.switch else about.flag
    return Annotated[kind | None, typer.Option(flag, help=about.help, metavar=about.metavar, hidden=hidden)]


def add_stage_command(name: str, command: Command) -> None:
    """A command whose flags are the options of its stages."""
    shown = [o for part in command.parts for o in options_of(PARTS[part])]

    def work(ctx: typer.Context, **words: Any) -> None:
        common = {key: words.pop(key) for key in COMMON}
        with plain_errors():
            given = {n: HOMES[n][1].parse(v) for n, v in words.items() if v not in (None, [], ())}
            run_stages(name, command, given=given, **common)

    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    for about in shown:
        kind = flag_of(about, hidden=command.main_only and not about.main)
        parameters.append(inspect.Parameter(about.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind))
    for key, (kind, default) in COMMON.items():
        parameters.append(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))
    work.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    more = "\n\nMore options: `phasewise options`; --config sets any of them." if command.main_only else ""
    app.command(name, help=f"{command.help}{more}\n\nExample: {command.example}")(work)


for _name, _command in COMMANDS.items():
    add_stage_command(_name, _command)


def run_stages(
    name: str, command: Command, *, out: Path | None, size: str, config: Path | None, update: bool, dry_run: bool,
    given: dict[str, Any],
) -> None:  # fmt: skip
    """Bring the folder up to the command's stage, or say what that would take."""
    from phasewise.pipeline import config_for, default_folder, need_run, read_options

    found: dict[str, Any] = {}
    if config is not None:
        found = read_options(config)
        own = found.pop("size", "auto")
        size = own if size == "auto" else size
    # a flag that goes against another is a slip; a file, such as another run's, may say more than is used
    check_cmi_options(given, measured=given.get("cmi", name != "diagnose" and found.get("cmi", True)))
    alone = name == "diagnose" and given.get("cmi") is True
    given = {**found, **given}
    check_device(given.get("device", "cpu"))
    folder = out or default_folder(given.get("data"))
    if not command.makes and not alone:
        need_run(folder, name)
    chosen = config_for(folder, size, given)
    if dry_run:
        say_plan(chosen, folder, "cmi" if alone else name, update)
        return
    bring_up(chosen, folder, "cmi" if alone else name, update)


def check_cmi_options(given: dict[str, Any], measured: bool) -> None:
    """Refuse what is said about a CMI that will not be measured."""
    how = [HOMES[n][1].flag for n in given if HOMES[n][0] == "cmi" and n != "cmi"]
    if how and not measured:
        raise PhasewiseError(f"{', '.join(how)}: for conditional mutual information, which is measured with --cmi only")


def say_plan(config: Any, folder: Path, command: str, update: bool) -> None:
    from phasewise.pipeline import describe_cost, describe_plan

    typer.echo(f"{folder}: {config.data.data}, size {config.size}")
    for stage, state, choices in describe_plan(config, folder, command, update=update):
        typer.echo(f"  {stage:<16} {state:<6} {choices}".rstrip())
    for line in describe_cost(config, folder, command, update=update):
        typer.echo(line)


def bring_up(config: Any, folder: Path, command: str, update: bool) -> None:
    import torch

    from phasewise import __version__
    from phasewise.pipeline import run_pipeline

    live = sys.stderr.isatty() and sys.stdout.isatty()
    torch.set_float32_matmul_precision("highest")
    run_pipeline(config, folder, command=command, update=update, say=typer.echo, live=live, version=__version__)
    if command == "run":
        typer.echo(f"open {folder / 'report.html'}")
    elif command == "schedule":
        typer.echo(f"judged by `phasewise evaluate --out {folder}`")
    elif command == "cmi":
        typer.echo(f"shown by `phasewise report {folder}`")


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
    schedule: Annotated[str, typer.Option(help="hybrid, global, window, local_only, ...")] = "hybrid",
    n: Annotated[int, typer.Option("--n", help="Number of images.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed; image i depends on (seed, i) alone.")] = 0,
    out: Annotated[Path, typer.Option(help="PNG grid to write.")] = Path("grid.png"),
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
) -> None:
    """Draw a grid of samples of a run or a shipped set.

    Example: phasewise sample --run runs/digits --n 64 --seed 0 --out grid.png
    """
    with plain_errors():
        check_device(device)
        from phasewise.pipeline import check_png_name, need_run, write_grid
        from phasewise.pretrained import load_pretrained

        if (run is None) == (pretrained is None):
            raise PhasewiseError("say where the denoisers are: either --run DIR or --pretrained NAME")
        check_png_name(out)
        if n < 1 or batch < 1:
            raise PhasewiseError(f"need --n and --batch of at least 1, got {n} and {batch}")
        source = need_run(run, "sample from") if run is not None else load_pretrained(str(pretrained))
        hybrid = source.hybrid(schedule, device)
        if dry_run:
            typer.echo(f"{n} images by {schedule} ({len(hybrid.schedule.times)} steps) to {out}")
            return
        from phasewise.denoisers import for_inference
        from phasewise.sampling import sample as draw

        fast = for_inference(hybrid, compile=compile, precision=precision)
        pixels = source.data.pixel_range if source.data else (0.0, 1.0)
        write_grid(draw(fast, n=n, seed=seed, batch=batch, device=device), pixels, out)
        typer.echo(f"wrote {out}: {n} images, {schedule}, seed {seed}")


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="A shipped set: mnist, fashion_mnist.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write. [default: runs/demo-NAME]")] = None,
    n: Annotated[int, typer.Option("--n", help="Samples per schedule, at least 100.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dry_run: DryRun = False,
) -> None:
    """Compare the schedules of a shipped set. No data, no training: global, hybrid, local only, ...

    Example: phasewise demo mnist
    """
    with plain_errors():
        check_device(device)
        from phasewise import __version__
        from phasewise.pipeline.demo import COMPARED, demo_config, run_demo
        from phasewise.pretrained import load_pretrained

        folder = out or Path("runs") / f"demo-{name}"
        if dry_run:
            demo_config(load_pretrained(name), n, seed, device)
            typer.echo(f"{n} samples each by {', '.join(COMPARED)} of {name}, report in {folder}")
            return
        run_demo(name, folder, n=n, seed=seed, device=device, version=__version__, say=typer.echo)
        typer.echo(f"open {folder / 'report.html'}")


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


def check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise PhasewiseError(f"device {device!r} is not usable here ({reason}); try --device cpu") from error


def main() -> None:
    app()


if __name__ == "__main__":
    main()
