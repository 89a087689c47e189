"""``phasewise boundary``: when to switch between two denoisers of a run folder, a shipped set, or folders of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phasewise.denoisers import WienerDenoiser
from phasewise.display import text_table
from phasewise.errors import PhasewiseError
from phasewise.files import write_text
from phasewise.metrics import FeatureNetwork
from phasewise.pipeline.bounds import CLOSED
from phasewise.pipeline.conditions import labels_of
from phasewise.pipeline.guiding import unguided
from phasewise.pipeline.models import (
    check_models,
    check_shape,
    hold_against_filter,
    need_folder,
    open_source,
    pixel_range_of,
)
from phasewise.pipeline.panel import first_network, lone_network
from phasewise.pretrained import Pretrained
from phasewise.runs.images import images_of
from phasewise.runs.parts import DataOptions
from phasewise.runs.run import Run
from phasewise.sampling import time_grid
from phasewise.scheduling import PENALTIES, Boundary, boundary
from phasewise.scheduling.boundary_record import Clock


def boundary_in(
    run: Run,
    early: str,
    late: str,
    *,
    reference: str | None = None,
    penalty: str | None = None,
    steps: int = 16,
    data: str | None = None,
    data_dir: str | None = None,
    device: str = "cpu",
    **more: Any,
) -> Boundary:
    """The boundary between two members of a run or a shipped set, on its own images or on ``data``.

    ``reference``: the name of one of the two, or "early" or "late".  ``more`` goes to :func:`phasewise.boundary`:
    ``tolerance``, ``n``, ``seed``, ``batch``.  Solver, spacing and last time of the grid are those of the run.

    Raises PhasewiseError for members that have no weights here, and as :func:`phasewise.boundary` does.
    """
    which = side_of(reference, early, late)
    first, second = run.denoiser(early, device), run.denoiser(late, device)  # before images are read
    config = run.config
    if config is None:
        raise PhasewiseError(f"{run.root} holds no phasewise run; give the folder of `phasewise run --out`")
    if which is None or (penalty is not None and PENALTIES[penalty].needs_losses):  # held-out losses tell
        told = {m.name for m in config.members if m.told}
        first, second = (unguided(d) if name in told else d for name, d in ((early, first), (late, second)))
    changed = {k: v for k, v in (("data", data), ("data_dir", data_dir)) if v is not None}
    images = images_of(config.data, **changed).to(device)
    if labels_of(images, "validation", (first, second)) is not None:
        more.setdefault("cond", "labels")
    features: FeatureNetwork | None = None
    if which is not None and penalty in (None, "frechet"):
        features = features_of(run, images, device)
    path = (first if which == "early" else second).path
    times = time_grid(steps, path=path, t_min=config.grid.t_min, spacing=config.grid.spacing)
    return boundary(
        first, second, images, reference=which, penalty=penalty, features=features, times=times,
        solver=config.grid.solver, names=(early, late), **more,
    )  # fmt: skip


def boundary_of_models(
    models: Mapping[str, str],
    data: str,
    *,
    reference: str | None = None,
    penalty: str | None = None,
    steps: int = 16,
    data_dir: str | None = None,
    device: str = "cpu",
    n: int = 1000,
    seed: int = 0,
    **more: Any,
) -> tuple[Boundary, Clock | None]:
    """The boundary between networks of folders, on a set of images, and the clock of the later one, where it has one.

    ``models``: source by name, as :func:`phasewise.pipeline.models.open_source` takes it: two, the one for the noisy
    part first; or one, beside which the Wiener filter of the images takes the noisy part, and the model's answers count
    as right.  The grid is uniform on the later one's path.  ``more`` goes to :func:`phasewise.boundary`.

    Raises PhasewiseError for folders that hold no network, more than two, other images than they are for, a condition
    that these do not give; and as :func:`phasewise.boundary` does.
    """
    if not 1 <= len(models) <= 2:
        raise PhasewiseError(f"a boundary lies between two networks, or one and the Wiener filter; got {len(models)}")
    for source in models.values():
        need_folder(source)
    range_ = next((r for r in map(pixel_range_of, models.values()) if r is not None), None)
    images = images_of(DataOptions(data=data, data_dir=data_dir, pixel_range=range_, seed=seed)).to(device)
    opened = {name: open_source(source, images.pixel_range, device) for name, source in models.items()}
    for name, source in models.items():
        check_shape(name, source, opened[name], images.image_shape)
    check_models(opened, images)
    for name, denoiser in opened.items():
        hold_against_filter(name, denoiser, images)
    if len(opened) == 1:
        opened = {CLOSED: WienerDenoiser.fit(images.train).to(device), **opened}
        reference = reference or "late"
    early, late = opened
    which = side_of(reference, early, late)
    features = None
    if which is not None and penalty in (None, "frechet"):
        features = lone_network(images, seed, device)
    cond = None if labels_of(images, "validation", list(opened.values())) is None else "labels"
    found = boundary(
        opened[early], opened[late], images, reference=which, penalty=penalty, features=features, cond=cond,
        times=time_grid(steps, path=opened[late].path), names=(early, late), n=n, seed=seed, **more,
    )  # fmt: skip
    clock = getattr(opened[late], "clock", None)
    return found, clock if clock is not None and clock.steps_total is not None else None


def named_models(given: Sequence[str]) -> dict[str, str]:
    """``NAME=DIR`` or ``DIR``, as typed, by name: a single one is the "model", two without names "early" and "late"."""
    usual = ["model"] if len(given) == 1 else ["early", "late", *(f"model{i}" for i in range(3, len(given) + 1))]
    found: dict[str, str] = {}
    for name, word in zip(usual, given, strict=True):
        before, equals, after = word.partition("=")
        own, source = (before, after) if equals and not Path(word).exists() else (name, word)
        if own in found:
            raise PhasewiseError(f"two models are called {own!r}; name them apart: --model early=DIR --model late=DIR")
        found[own] = source
    return found


def side_of(reference: str | None, early: str, late: str) -> str | None:
    """ "early" or "late", whichever ``reference`` names.  PhasewiseError for another name."""
    sides = {early: "early", late: "late", "early": "early", "late": "late", None: None}
    if reference not in sides:
        raise PhasewiseError(f"--reference is one of the two, {early} or {late}; got {reference!r}")
    return sides[reference]


def features_of(run: Run, images: Any, device: str) -> FeatureNetwork:
    """The network that judges a run: shipped with the set, or the run's own."""
    if isinstance(run, Pretrained):
        return run.features().to(device)
    assert run.config is not None
    return first_network(run, images, run.config.changed(device=device))


def tell_boundary(found: Boundary, say: Callable[[str], None], clock: Clock | None = None) -> None:
    """The answer in the first line, then every unit, then what a wrong boundary costs, then every boundary."""
    answer, *rest = found.sentences()
    say(answer)
    say(f"\n{found.in_units(clock)}\n")
    for line in rest:
        say(line)
    say("\n" + text_table(found.view()._replace(title=f"Every boundary, by {found.penalty_name}")))


def save_boundary(found: Boundary, file: Path) -> Path:
    """The record as JSON; PhasewiseError for a name that does not end in .json."""
    check_file(file)
    return write_text(file, found.to_json() + "\n")


def check_file(file: Path | None) -> None:
    if file is not None and file.suffix.lower() != ".json":
        raise PhasewiseError(f"a boundary is written as JSON; give --save a name ending in .json, not {file.name!r}")
