"""The command line: parsing only. A stage command brings a run folder up to its stage; heavy imports wait till then."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.memory import out_of_memory

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="When does a diffusion model need the whole image, and what can be saved the rest of the time?\n\n"
    "Start with `phasewise run`: real handwritten digits, a few minutes, then open `runs/digits/report.html`.",
)

SOLVER_HELP = "One call a step: exp_ab2, sde_dpmpp_2m, dpmpp_2m, ancestral, ddim, euler; two: heun, heun_churn."
STAGE_COMMANDS = {
    "run": "Everything: train, diagnose, schedule, sample, judge, report. Finished stages are skipped.\n\n"
    "Examples:\n\n"
    "    phasewise run\n\n"
    "    phasewise run --data mnist --data-dir data --out runs/mnist\n\n"
    "    phasewise run --data photos/ --radii 2,4 --window gap --budget 0.3",
    "train": "Train the global, the local and the control denoisers of a run.\n\n"
    "Example:\n\n    phasewise train --data mnist --data-dir data --radii 1,3,8",
    "diagnose": "Held-out loss and denoising gap by time and radius, and the recovery experiment; with --cmi, "
    "conditional mutual information instead, for which nothing has to be trained before.\n\n"
    "Examples:\n\n"
    "    phasewise diagnose --out runs/digits\n\n"
    "    phasewise diagnose --cmi --out runs/digits\n\n"
    "    phasewise diagnose --cmi --data mnist --data-dir data --estimator gaussian --block 3 --cmi-radii 1,2,4",
    "schedule": "Price list, Pareto front, and the optimised hybrid schedule.\n\n"
    "Example:\n\n    phasewise schedule --out runs/digits --budget 0.3 --update",
    "evaluate": "Sample every schedule from the same noise; FID, cost, paired error.\n\n"
    "Example:\n\n    phasewise evaluate --out runs/digits --samples 5000 --update",
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


Data = Annotated[
    str | None,
    typer.Option(
        help="digits, mnist, fashion_mnist, cifar10, trashnet64, a folder, .parquet, .npz, or a hub id. "
        "[default: digits]"
    ),
]
DataDir = Annotated[str | None, typer.Option(help="Folder of named sets (or environment variable PHASEWISE_DATA).")]
Out = Annotated[Path | None, typer.Option(help="Run folder. [default: runs/NAME]")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random. [default: 0]")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. [default: cpu]")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def stage_command(
    ctx: typer.Context,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = None,
    seed: Seed = None,
    device: Device = None,
    size: Annotated[str, typer.Option(help="auto, small, cpu, or smoke (seconds, meaningless).")] = "auto",
    limit: Annotated[int | None, typer.Option(help="Use at most this many training images.")] = None,
    radii: Annotated[str | None, typer.Option(help="Local radii in pixels, e.g. 1,2,3.")] = None,
    window_radius: Annotated[int | None, typer.Option(help="The radius that serves outside the window.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Training preset: default, compiled (for long trainings) or paper.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Training batch size.")] = None,
    global_width: Annotated[int | None, typer.Option(help="Channels of the global U-Net.")] = None,
    networks: Annotated[str | None, typer.Option(help="Folder of trained denoisers to take, NAME/config.json.")] = None,
    cheap_globals: Annotated[
        str | None, typer.Option(help="Cheaper global U-Nets besides: coarse,small; or none.")
    ] = None,
    global_epochs: Annotated[float | None, typer.Option(help="Passes over the data for the global denoiser.")] = None,
    local_epochs: Annotated[float | None, typer.Option(help="Passes over the data for each local denoiser.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps.")] = None,
    solver: Annotated[str | None, typer.Option(help=SOLVER_HELP)] = None,
    spacing: Annotated[str | None, typer.Option(help="Time grid: uniform, log_snr or edm.")] = None,
    weighting: Annotated[str | None, typer.Option(help="Price to minimise: frechet, w2, flow or kl.")] = None,
    growth_trajectories: Annotated[
        int | None, typer.Option(help="Paths to measure how far errors reach, for w2; 0: none.")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="Hybrid's cost as a fraction of all-global.")] = None,
    window: Annotated[str | None, typer.Option(help="LOW,HIGH in noise time, gap or cmi.")] = None,
    features: Annotated[str | None, typer.Option(help="For FID: auto, classifier, inception, pca, random.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples per schedule for FID.")] = None,
    cmi: Annotated[
        bool | None,
        typer.Option("--cmi/--no-cmi", help="diagnose: conditional mutual information alone; run: --no-cmi omits it."),
    ] = None,
    estimator: Annotated[
        str | None, typer.Option(help="CMI: density, mmse, mine, nwj, infonce, smile, classifier, knn or gaussian.")
    ] = None,
    block: Annotated[int | None, typer.Option(help="CMI: side of the region A in pixels.")] = None,
    center: Annotated[
        list[str] | None, typer.Option(metavar="ROW,COL", help="CMI: where A is; repeat it to average over positions.")
    ] = None,
    cmi_radii: Annotated[str | None, typer.Option(help="CMI: widths of the buffer in pixels, e.g. 1,2,4.")] = None,
    cmi_times: Annotated[str | None, typer.Option(help="CMI: noise times in (0, 1].")] = None,
    cmi_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="CMI: an option of the estimator; repeatable.")
    ] = None,
    cmi_accuracy: Annotated[float | None, typer.Option(help="CMI: standard error asked for, nats.")] = None,
    cmi_tolerance: Annotated[float | None, typer.Option(help="CMI above which a time is in the window, nats.")] = None,
    update: Annotated[bool, typer.Option("--update", help="Change an existing run, redoing what it touches.")] = False,
    dry_run: DryRun = False,
) -> None:
    given = {
        "data": data, "data_dir": data_dir, "seed": seed, "device": device, "limit": limit,
        "radii": numbers(radii, int, "--radii"), "window_radius": window_radius, "preset": preset, "batch": batch,
        "global_width": global_width,
        "cheap_globals": () if cheap_globals == "none" else numbers(cheap_globals, str, "--cheap-globals"),
        "networks": networks, "global_epochs": global_epochs, "local_epochs": local_epochs, "steps": steps,
        "solver": solver, "spacing": spacing, "weighting": weighting, "growth_trajectories": growth_trajectories,
        "budget": budget, "n_samples": samples, "features": features,
        "window": window if window in (None, "gap", "cmi") else numbers(window, float, "--window (or gap, cmi)"),
        "cmi": cmi, "cmi_estimator": estimator, "cmi_block": block, "cmi_accuracy": cmi_accuracy,
        "cmi_tolerance": cmi_tolerance, "cmi_radii": numbers(cmi_radii, int, "--cmi-radii"),
        "cmi_times": numbers(cmi_times, float, "--cmi-times"), "cmi_options": named(cmi_option, "--cmi-option"),
        "cmi_center": [numbers(c, int, "--center") for c in center] if center else None,
    }  # fmt: skip
    name = "cmi" if cmi and ctx.info_name == "diagnose" else str(ctx.info_name)
    with plain_errors():
        from phasewise.pipeline.folder import OPTIONS

        idle = [OPTIONS[k] for k in given if k.startswith("cmi_") and given[k] is not None]
        if idle and (name == "diagnose" or cmi is False):
            raise PhasewiseError(
                f"{', '.join(idle)}: for conditional mutual information, which is measured with --cmi only"
            )
        run_stages(name, out, size, update, dry_run, {k: v for k, v in given.items() if v is not None})


for _name, _help in STAGE_COMMANDS.items():
    app.command(_name, help=_help)(stage_command)


def run_stages(command: str, out: Path | None, size: str, update: bool, dry_run: bool, given: dict[str, Any]) -> None:
    import torch

    from phasewise import __version__
    from phasewise.pipeline import config_for, default_folder, describe_plan, run_pipeline

    check_device(given.get("device", "cpu"))
    folder = out or default_folder(given.get("data"))
    config = config_for(folder, size, given)
    if dry_run:
        typer.echo(f"{folder}: {config.data}, size {config.size}, radii {list(config.radii)}, seed {config.seed}")
        for name, state in describe_plan(config, folder, command, update=update):
            typer.echo(f"  {name:<16} {state}")
        return
    live = sys.stderr.isatty() and sys.stdout.isatty()
    torch.set_float32_matmul_precision("highest")
    run_pipeline(config, folder, command=command, update=update, say=typer.echo, live=live, version=__version__)
    if command == "run":
        typer.echo(f"open {folder / 'report.html'}")
    elif command == "cmi":
        typer.echo(f"shown by `phasewise report {folder}`")


@app.command()
def sample(
    run: Annotated[Path | None, typer.Option(help="Run folder to take the denoisers and the schedule from.")] = None,
    pretrained: Annotated[str | None, typer.Option(help="A shipped set instead: mnist, fashion_mnist.")] = None,
    schedule: Annotated[str, typer.Option(help="hybrid, global, global_cheap, window, local_only, ...")] = "hybrid",
    n: Annotated[int, typer.Option("--n", help="Number of images.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed; image i depends on (seed, i) alone.")] = 0,
    out: Annotated[Path, typer.Option(help="PNG grid to write.")] = Path("grid.png"),
    batch: Annotated[int, typer.Option(help="Images denoised at a time.")] = 64,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile first (up to a minute a network; for many images; slows small local networks on a CPU).",
        ),
    ] = False,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16 (see docs/networks.md).")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dry_run: DryRun = False,
) -> None:
    """Draw a grid of samples from a finished run or from a shipped set.

    Examples:

        phasewise sample --pretrained mnist --out grid.png

        phasewise sample --run runs/digits --n 64 --seed 0 --out grid.png
    """
    with plain_errors():
        check_device(device)
        from phasewise.pipeline import check_png_name, load_hybrid, write_grid
        from phasewise.pretrained import load_pretrained

        if (run is None) == (pretrained is None):
            raise PhasewiseError("say where the denoisers are: either --run DIR or --pretrained NAME")
        check_png_name(out)
        if n < 1 or batch < 1:
            raise PhasewiseError(f"need --n and --batch of at least 1, got {n} and {batch}")
        if run is not None:
            hybrid, pixel_range = load_hybrid(run, schedule, device)
        else:
            ready = load_pretrained(str(pretrained))
            hybrid, pixel_range = ready.hybrid(schedule, device), ready.data.pixel_range
        if dry_run:
            typer.echo(f"{n} images by {schedule} ({len(hybrid.schedule.times)} steps) to {out}")
            return
        from phasewise.denoisers import for_inference
        from phasewise.sampling import sample as draw

        fast = for_inference(hybrid, compile=compile, precision=precision)
        write_grid(draw(fast, n=n, seed=seed, batch=batch, device=device), pixel_range, out)
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
    """Compare global, hybrid and local-only sampling with shipped denoisers; nothing is trained, no data is needed.

    Example:

        phasewise demo mnist
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
    """Make report.html again from the records of a run folder.

    Example:

        phasewise report runs/digits
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


def numbers(text: str | None, kind: type, option: str) -> tuple[Any, ...] | None:
    """ "1,2,3" -> (1, 2, 3); a usage error naming the option otherwise."""
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{option} takes numbers separated by commas, got {text!r}") from error


def named(words: list[str] | None, option: str) -> dict[str, Any] | None:
    """["epochs=3", "kind=a"] -> {"epochs": 3, "kind": "a"}; a usage error naming the option otherwise."""
    if not words:
        return None
    out: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name.isidentifier() and equals):
            raise typer.BadParameter(f"{option} takes NAME=VALUE, got {word!r}")
        try:
            out[name] = json.loads(text)
        except json.JSONDecodeError:
            out[name] = text
    return out


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
