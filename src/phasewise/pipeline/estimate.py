"""About how long a run takes and what memory, beforehand: seconds by stage, and what is not counted by name.

Seconds are those of an idle machine (:mod:`phasewise.work`).  They follow from short tries of the networks, of the
classifiers that judge, and of the estimator of CMI, each times how often the run does it; what is neither is taken at
OTHER seconds a stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from phasewise import seeding
from phasewise.denoisers.linear import wiener_work
from phasewise.information import make_estimator, make_problem
from phasewise.metrics import FrechetReference, SlicedReference
from phasewise.metrics.features import feature_work
from phasewise.metrics.frechet import frechet_draws
from phasewise.metrics.sliced import sliced_draws
from phasewise.pipeline.costs import NetworkCost, is_trained
from phasewise.pipeline.footprint import peak_memory
from phasewise.pipeline.guiding import is_guided
from phasewise.pipeline.panel import SHIPPED
from phasewise.pipeline.trying import Speed, speeds, trial_data
from phasewise.pretrained.sets import shipped_judges
from phasewise.results import DataRecord
from phasewise.runs.config import RunConfig
from phasewise.runs.members import MEMBER_KINDS
from phasewise.runs.parts import USER_STEPS
from phasewise.sampling import calls_per_step, time_grid
from phasewise.scheduling import baselines
from phasewise.work import Work, busy, seconds_of

OTHER = 1.0
"""Seconds of a stage beside what is tried."""
DRAWING = 8.0
"""Of the report."""
TIMED = 256
"""Images a schedule is sampled with besides, for its milliseconds."""
REACHED = 20_000
"""Calls on one image that measuring a reach comes to, with gradients and attention."""
BOUNDARY_STEPS = 16
PLACED, PLACED_BY = 7, 300
"""Schedules whose steps are placed, about, and the samples that a judged grid takes at most."""
VALIDATIONS, VALIDATED = 20, 1000
"""How often a training looks at held-out images, and at how many at most."""
WITHOUT_NETWORKS = {"data", "features", "cmi", "hybrid", "export", "report"}
"""Stages that call no denoiser."""
BOOTSTRAPS, FEATURES = 3, 64
"""Of each schedule in each of the feature networks: its score, its error and its difference; and their usual number."""
SEEN = 100
"""Images of noise that feature networks and estimators are tried on, at most."""
SEEN_NUMBERS = 2**21


@dataclass(frozen=True)
class RunEstimate:
    """About how long a run takes on an idle machine, seconds by stage in order, and the bytes it takes at the most.

    ``not_counted``: what of it is not known before it is done.  ``busy``: (load, processors) of a machine that has
    other work now.
    """

    stages: dict[str, float]
    memory: float
    not_counted: tuple[str, ...] = ()
    busy: tuple[float, int] | None = None

    @property
    def seconds(self) -> float:
        return sum(self.stages.values())


def estimate_run(
    config: RunConfig,
    about: DataRecord,
    stages: Iterable[str],
    costs: Mapping[str, NetworkCost],
    *,
    loaded: bool = True,
) -> RunEstimate:
    """For the named stages that are still to do, in order; ``about`` the images.

    ``loaded``: they are in memory already, so that what this process holds has them in it.
    """
    todo, was_busy = list(dict.fromkeys(stages)), busy()
    tried = speeds(costs, about, config) if set(todo) - WITHOUT_NETWORKS else {}
    judges, unknown = _judges(config, about, todo)
    known = _training(config, about, tried, costs) | _calling(config, about, tried, judges)
    known |= {"features": judges.making, "report": DRAWING} | _closed_forms(config, about, todo)
    found = {name: OTHER + known.get(name, 0.0) for name in todo}
    if "cmi" in todo:
        pieces = cmi_work(config, about)
        unknown += () if pieces else (f"conditional mutual information by {config.cmi.estimator!r}",)
        found["cmi"] += seconds_of(pieces or (), str(config.cmi.options.get("device", "cpu")))
    return RunEstimate(found, peak_memory(config, about, todo, costs, loaded), unknown, was_busy)


def _training(
    config: RunConfig, about: DataRecord, tried: Mapping[str, Speed], costs: Mapping[str, NetworkCost]
) -> dict[str, float]:
    """Seconds of training by stage."""
    trained = [c for c in costs.values() if is_trained(c) and c.name in tried]
    # a teacher answers once for all who learn from it for as long
    pupils = Counter((c.member.teacher, c.member.epochs) for c in trained)
    found = {}
    for c in trained:
        seen, taught = about.sizes["train"] * float(c.member.epochs or 0), c.member.teacher or ""
        held = VALIDATIONS * min(VALIDATED, about.sizes["validation"])
        found[f"train-{c.name}"] = tried[c.name].step * seen + tried[c.name].call * held
        if taught in tried:
            found[f"train-{c.name}"] += tried[taught].call * seen / pupils[c.member.teacher, c.member.epochs]
    return found


def _calling(config: RunConfig, about: DataRecord, tried: Mapping[str, Speed], judges: Judging) -> dict[str, float]:
    """Seconds by stage of what calls networks that are there: their calls, and the readings of those that judge."""
    if not tried:
        return {}
    every, whole = sum(speed.call for speed in tried.values()), tried["global"].call
    steps = sum(calls_per_step(config.grid.solver, config.grid.steps))
    held, test = config.diagnose.n_losses, about.sizes["test"]
    calls = sampled_calls(config, steps)
    n, placed = config.evaluate.n_samples, placed_images(config)
    asks = 2 if is_guided(config) else 1  # a step of a guided network is two calls
    priced = min(held, about.sizes["validation"]) * config.grid.steps
    judged = sum(calls.values()) * (n + TIMED)
    readings = n * len(calls)
    return {
        "diagnose": min(held, test) * len(config.diagnose.times) * every,
        "reach": REACHED * whole,
        "symmetry": clone_calls(config) * whole * (not config.train.guidance),  # who is told the class is not cloned
        "boundary": min(held, test) * BOUNDARY_STEPS * every,
        # from half way on average
        "recovery": min(config.recovery.n_recovery, test) * len(config.recovery.recovery_times) * steps / 2 * every,
        # once for the losses and once for the distances in features
        "schedule": priced * (2 * asks * every + (len(tried) + 1) * judges.first)
        + placed * (config.schedule.budget * steps * asks * whole + judges.first),
        # a classifier that judges also tells which classes it sees
        "evaluate": judged * asks * whole
        + (readings + min(n, test)) * (judges.reading + judges.first)
        + len(calls) * judges.comparing,
    }


def sampled_calls(config: RunConfig, steps: float) -> dict[str, float]:
    """Calls of the global network, in all its cost, that an image of each judged schedule comes to, about."""
    if config.train.model:
        # the all-global one, two or three cheaper ones, and the user's own
        own = float(config.schedule.user_steps or USER_STEPS)
        return {"global": float(steps), "others": 2.0 * steps, "own": own}
    return {name: share * steps for name, share in schedule_shares(config).items()}


def schedule_shares(config: RunConfig) -> dict[str, float]:
    """Of the schedules that a run without a model compares: what each costs, about, of the global one.  Local networks
    and closed forms count as free, and what a budget or the measured gap decides as the budget."""
    asked, grid, inside = config.schedule, config.grid, config.schedule.budget
    if isinstance(asked.window, tuple):
        times = time_grid(grid.steps, t_min=grid.t_min, spacing=grid.spacing)
        inside = baselines.window(times, asked.window, "global", "local").count("global") / grid.steps
    known = dict.fromkeys(("window", "window_shifted", "window_cmi"), inside) | {"window_inverted": 1 - inside}
    known |= {"global": 1.0, "global_placed": 1.0, "local_only": 0.0, "closed_only": 0.0}
    return {name: known.get(name, asked.budget) for name in baselines.LABELS if name != "own"}


def clone_calls(config: RunConfig) -> float:
    """Calls of the global network on one image that cloning comes to."""
    asked = config.symmetry
    return 2.0 * asked.images * len(asked.times) * asked.steps


def placed_images(config: RunConfig) -> float:
    """Images that placing samples, each by a schedule of about the hybrid's budget."""
    n = min(PLACED_BY, config.evaluate.n_samples)
    return PLACED * (config.schedule.grids and config.schedule.grids + 2) * n


def _closed_forms(config: RunConfig, about: DataRecord, todo: list[str]) -> dict[str, float]:
    """Seconds of fitting by stage."""
    fitted = [m.name for m in config.members if MEMBER_KINDS[m.kind].fit is not None]
    named = {f"{verb}-{name}" for name in fitted for verb in ("train", "fit")} & set(todo)
    took = seconds_of(wiener_work(about.image_shape, about.sizes["train"])) if named else 0.0
    return dict.fromkeys(named, took)


# --- what judges ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judging:
    """Seconds: of ``making`` the judges, of a ``reading`` of one image by all of them and by the ``first`` alone, and
    of ``comparing`` the samples of a schedule, whatever their number."""

    making: float = 0.0
    reading: float = 0.0
    first: float = 0.0
    comparing: float = 0.0


def _judges(config: RunConfig, about: DataRecord, todo: list[str]) -> tuple[Judging, tuple[str, ...]]:
    """What the judges take, and what of them is not known."""
    if not {"features", "schedule", "evaluate"} & set(todo):
        return Judging(), ()
    device, kind, train = config.machine.device, config.features.features, about.sizes["train"]
    data, unknown = trial_data(about, seen_images(about)), tuple[str, ...]()
    sliced, images = SlicedReference.of_images(data.train), len(data.train)
    making = [Work(partial(SlicedReference.of_images, data.train), train / images)]
    readings = []
    ready = kind in SHIPPED and shipped_judges(about.fingerprint, about.image_shape[0], config.data.seed)
    for unseen in (False, True) if config.features.unseen else (False,):
        found = feature_work(data, train, about.classes, kind, unseen, device)
        if found is None:
            unknown = (f"the {kind} features",)
            readings.append(0.0)
            continue
        readings.append(found.reading.seconds(device))
        # all training images are read once more, for their moments
        making += [*(() if ready else found.making), Work(found.reading.once, found.reading.times * train)]
    compared = Work(partial(sliced_draws, data.train, sliced, 0), 1 / images).seconds()
    took = seconds_of(making, device) if "features" in todo else 0.0
    seen = torch.randn(len(data.train), FEATURES, generator=seeding.plain(0))
    drawn = Work(partial(frechet_draws, seen, FrechetReference.fit(seen), 0), BOOTSTRAPS * len(readings)).seconds()
    return Judging(took, sum(readings) + compared, readings[0], drawn), unknown


def seen_images(about: DataRecord) -> int:
    """How many images a try looks at: fewer of large ones."""
    channels, height, width = about.image_shape
    return max(20, min(SEEN, SEEN_NUMBERS // (channels * height * width)))


# --- conditional mutual information ---------------------------------------------------------------------------------


def cmi_work(config: RunConfig, about: DataRecord) -> list[Work] | None:
    """What measuring the map takes, in pieces; None where the estimator cannot tell."""
    asked = config.cmi
    estimator = make_estimator(asked.estimator, **asked.options)
    height, width = (min(side, asked.crop or side) for side in about.image_shape[1:])
    blank = trial_data(about, seen_images(about)).train[..., :height, :width]
    classes = max(about.classes or 1, 1) if asked.given else 1
    n = sum(about.sizes.values())
    times = [t for t in asked.times if t < 1] or [0.5]
    found = []
    for center in asked.center or (None,):
        problem = make_problem(blank, times, asked.radii, block=asked.block, center=center)
        pieces = estimator.work(problem, max(n // classes, 1))
        if pieces is None:
            return None
        found += [Work(piece.once, classes * piece.times) for piece in pieces]
    return found


# --- in words -------------------------------------------------------------------------------------------------------


def estimate_in_words(found: RunEstimate, costs: Mapping[str, NetworkCost]) -> list[str]:
    """What will be trained, about how long everything takes, and what memory."""
    trained = {f"train-{name}": cost for name, cost in costs.items() if is_trained(cost)}
    lines = [
        f"{trained[stage].name}: {_counted(trained[stage])}, about {duration(seconds)}"
        for stage, seconds in found.stages.items()
        if stage in trained
    ]
    lines += [f"{c.name}: {_counted(c)}, taken as it is" for c in costs.values() if c.taken is not None]
    rest = {stage: s for stage, s in found.stages.items() if stage not in trained and s >= 2 * OTHER}
    if rest:
        lines.append("besides: " + ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in rest.items()))
    whole = f"in all about {duration(found.seconds)} on this machine and {found.memory / 2**30:.1f} GiB of memory"
    if found.busy is not None:
        load, cores = found.busy
        whole += f"; it is busy now (load {load:.1f} on {cores} processors), and the time holds for an idle one"
    whole += f"; not counted: {', '.join(found.not_counted)}" if found.not_counted else ""
    return [*lines, whole]


def _counted(cost: NetworkCost) -> str:
    return f"{cost.parameters:,} parameters, {cost.flops / 1e6:.3g} MFLOP a call"


def duration(seconds: float) -> str:
    """In the largest unit that gives a number above 1, to two digits at most."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{max(seconds, 1):.2g} s" if seconds < 99.5 else f"{seconds:.0f} s"
