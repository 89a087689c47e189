"""The stages of a run. Each reads what earlier ones wrote, calls one room and writes records; none computes itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from phasewise import seeding
from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, DiTDenoiser, GuidedDenoiser, save_denoiser
from phasewise.diagnosis import gap_window, measure_losses, measure_recovery, path_kl, reach
from phasewise.errors import PhasewiseError
from phasewise.metrics import FeatureNetwork, FrechetJudge, SampleJudge, SlicedJudge
from phasewise.metrics.judges import FIRST, SLICED, UNSEEN
from phasewise.paths import path_from_config
from phasewise.pipeline.ahead import need_source
from phasewise.pipeline.bounds import MOST_IMAGES, boundaries_of
from phasewise.pipeline.conditions import class_counts, labels_of
from phasewise.pipeline.diagnosing import cmi_window, measure_cmi
from phasewise.pipeline.exporting import export_schedule
from phasewise.pipeline.folder import Stage
from phasewise.pipeline.guiding import HIDDEN, classes_told, guide_members, guided, is_guided, scale_of, unguided
from phasewise.pipeline.judging import Judge, evaluate_all, left_out_of_schedules, local_member, plan_schedules
from phasewise.pipeline.models import (
    check_shape,
    hold_against_filter,
    is_there,
    open_source,
    own_schedule,
)
from phasewise.pipeline.panel import first_network, run_judges, second_network, take_shipped
from phasewise.pipeline.placing import Placing, place_schedules
from phasewise.pipeline.recording import to_uint8, write_judgement
from phasewise.pipeline.reusing import members_of_reuse, reused_in
from phasewise.pipeline.samplers import in_precision, samplers, training_preset
from phasewise.pipeline.symmetry import said_of, symmetry_of
from phasewise.pipeline.teachers import classes_of
from phasewise.pipeline.telling import VERBOSE, Teller
from phasewise.report import build_report
from phasewise.results import TrainingRecord
from phasewise.runs.config import RunConfig
from phasewise.runs.images import images_of
from phasewise.runs.members import MEMBER_KINDS, Member, build_untrained
from phasewise.runs.options import options_of
from phasewise.runs.parts import PARTS, REFERENCE, TrainOptions
from phasewise.runs.run import Run
from phasewise.sampling import time_grid
from phasewise.scheduling import PENALTIES, explain, explain_ties, get_penalty, pareto_front, price_list
from phasewise.scheduling.penalty import check_prices
from phasewise.training import train_together


@dataclass
class Context:
    """What a stage works with: the run folder, the config, and lazily the data and the feature network."""

    run: Run
    config: RunConfig
    say: Teller

    @cached_property
    def data(self) -> ImageData:
        return images_of(self.config.data).to(self.config.machine.device)

    @cached_property
    def features(self) -> FeatureNetwork:
        return first_network(self.run, self.data, self.config)

    @cached_property
    def judges(self) -> dict[str, SampleJudge]:
        """What samples are shown to, by name."""
        return run_judges(self.run, self.data, self.features, second_network(self.run, self.data, self.config))

    def seed(self, stage: seeding.Stage) -> int:
        """The seed of one stage's own draws."""
        return seeding.stage_seed(self.config.data.seed, stage)

    def teacher_of(self, member: Member) -> Denoiser | None:
        """Whose posterior mean a member learns; None of one that learns from images."""
        return None if member.teacher is None else self.asked([member.teacher])[member.teacher]

    def cond(self, denoisers: Mapping[str, Denoiser], part: str, n: int | None = None) -> Tensor | None:
        """Labels of the first ``n`` images of a part, where one of the ``denoisers`` is told any; else None."""
        labels = labels_of(self.data, part, denoisers.values())
        return None if labels is None else labels[:n]

    def denoisers(self, *, scheduled: bool = False) -> dict[str, Denoiser]:
        """The run's denoisers by name; ``scheduled``: without those that are there for diagnosis alone."""
        return self.run.denoisers(self.names(scheduled), self.config.machine.device)

    def asked(self, names: Iterable[str] | None = None) -> dict[str, Denoiser]:
        """The same as a diagnosis asks them: told the class, where they are, and not guided, which no posterior mean
        is."""
        told = {m.name for m in self.config.members if m.told}
        found = self.run.denoisers(list(self.names(False) if names is None else names), self.config.machine.device)
        return {name: unguided(denoiser) if name in told else denoiser for name, denoiser in found.items()}

    def samplers(self, *, scheduled: bool = False) -> dict[str, Denoiser]:
        """The same as they sample."""
        return samplers(self.run, self.names(scheduled), self.config)

    def names(self, scheduled: bool) -> list[str]:
        return [m.name for m in self.config.members if MEMBER_KINDS[m.kind].scheduled or not scheduled]


def do_data(ctx: Context) -> None:
    ctx.run.write("data", ctx.data.record())
    ctx.say(f"{ctx.data}")


def do_features(ctx: Context) -> None:
    if take_shipped(ctx.run, ctx.data, ctx.config):
        ctx.say("the classifiers that judge come with the package, trained on these images")
    network = ctx.features
    about: dict[str, Any] = {"name": network.name, "test_accuracy": network.test_accuracy, "n_test": len(ctx.data.test)}
    second = ctx.judges.get(UNSEEN)
    if isinstance(second, FrechetJudge):
        about["unseen"] = {"name": second.features.name, "test_accuracy": second.features.test_accuracy}
    ctx.run.write("features", about)


def do_train(member: Member) -> Callable[[Context], None]:
    """Take a member's weights from its source, fit its closed form, or train it."""
    kind = MEMBER_KINDS[member.kind]

    def work(ctx: Context) -> None:
        if member.source is not None and is_there(member.source):
            take_trained(ctx, member, member.source)
        elif kind.fit is not None:
            save_denoiser(kind.fit(member, ctx.data.train), ctx.run.model(member.name))
        elif kind.build is not None:
            train_member(ctx, member)
        else:
            need_source(member)

    return work


def train_member(ctx: Context, member: Member) -> None:
    """Train a member and keep it.  Who learns from one teacher for as long is trained with it, so that the teacher
    answers once for all; the others keep their last checkpoint, and have nothing left to learn in stages of their own.
    """
    config, folder, teacher = ctx.config, ctx.run.model(member.name), ctx.teacher_of(member)
    classes = classes_told(ctx.data) if member.told else None if teacher is None else classes_of(teacher)
    preset = replace(training_preset(config, member.epochs), hidden=HIDDEN if member.told else 0.0)
    together = [m for m in config.members if m == member or (teacher is not None and is_classmate(ctx, m, member))]
    networks = {
        m.name: build_untrained(replace(m, classes=classes), config.data.seed, ctx.data.image_shape) for m in together
    }
    records = train_together(
        networks, ctx.data, preset, seed=config.data.seed,
        out=ctx.run.path("models"), device=config.machine.device, teacher=teacher,
        cond=None if classes is None else "labels", progress=ctx.say.row,
    )  # fmt: skip
    record = records[member.name]
    learnt = networks[member.name]
    save_denoiser(guided(learnt, ctx.data, scale_of(config)) if member.told else learnt, folder)
    ctx.run.write("training", record, f"{member.name}.json")
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)  # only now that the model is saved
    done = f"validation loss {record.val_loss:.4f} after {record.steps} steps, {record.seconds:.0f} s"
    ctx.say(f"{member.name}: {done}")


def is_classmate(ctx: Context, other: Member, member: Member) -> bool:
    """Whether ``other`` is still to learn from the teacher of ``member``, for as long."""
    learns = MEMBER_KINDS[other.kind].build is not None and not (other.source and is_there(other.source))
    alike = (other.teacher, other.epochs) == (member.teacher, member.epochs)
    return learns and alike and not ctx.run.has_model(other.name)


def take_trained(ctx: Context, member: Member, source: str) -> None:
    """Put a denoiser trained elsewhere, and its training record where there is one, into the run."""
    denoiser = open_source(source, ctx.data.pixel_range)
    if member.told:
        denoiser = unguided(denoiser)
    elif isinstance(denoiser, GuidedDenoiser) and MEMBER_KINDS[member.kind].build is not None:
        raise PhasewiseError(
            f"{source} holds a guided network, of a run whose networks are told the class; give --guidance "
            f"{denoiser.scale:g} here, too"
        )
    if member.window is not None:
        if not isinstance(denoiser, DiTDenoiser):
            raise PhasewiseError(
                f"member {member.name} has a window of attention, but {source} holds a {type(denoiser).__name__}; only "
                "a transformer (DiTDenoiser) takes one"
            )
        denoiser = denoiser.windowed(member.window)
    check_shape(member.name, source, denoiser, ctx.data.image_shape)
    if MEMBER_KINDS[member.kind].look == "local" and denoiser.radius != member.radius:
        raise PhasewiseError(f"{source} sees a radius of {denoiser.radius}, not {member.radius}")
    kept = guided(denoiser, ctx.data, scale_of(ctx.config), source) if member.told else denoiser
    save_denoiser(kept, ctx.run.model(member.name))
    trained = Path(source) / "training.json"
    if trained.is_file():
        # it had another name there, maybe
        record = replace(TrainingRecord.load(trained), name=member.name)
        ctx.run.write("training", record, f"{member.name}.json")
    ctx.say(f"{member.name}: taken from {source}")
    if member.name in ctx.config.train.model:
        claims = hold_against_filter(member.name, denoiser, ctx.data.to("cpu"))
        ctx.run.write("claims", claims, f"{member.name}.json")
        if claims["ok"]:
            ctx.say(f"{member.name}: {claims['said']}")


def discard_training(run: Run, name: str) -> None:
    """Drop a stale model and its record, so that another config's checkpoint is not resumed."""
    shutil.rmtree(run.model(name), ignore_errors=True)
    run.path("training", f"{name}.json").unlink(missing_ok=True)
    run.forget("training", "members")


def do_diagnose(ctx: Context) -> None:
    config = ctx.config
    control = next((m.name for m in config.members if MEMBER_KINDS[m.kind].look == "control"), None)
    images, denoisers = ctx.data.test[: config.diagnose.n_losses], ctx.asked()
    table = measure_losses(
        denoisers,
        images,
        config.diagnose.times,
        control=control,
        cond=ctx.cond(denoisers, "test", len(images)),
        seed=ctx.seed(seeding.Stage.LOSSES),
    )
    ctx.run.write("losses", table)
    ctx.run.write("gap", {"path_kl": path_kl(table, path_from_config(table.path))})


def do_reach(ctx: Context) -> None:
    network, n = ctx.asked()[REFERENCE], min(MOST_IMAGES, ctx.config.recovery.n_recovery)
    cond = None if ctx.cond({REFERENCE: network}, "test") is None else "labels"
    found = reach(
        network, ctx.data, n=n, cond=cond, name=REFERENCE, seed=ctx.seed(seeding.Stage.REACH),
        progress=lambda done, total: ctx.say.part(done / total, f"how far it sees: {done} of {total} ways"),
    )  # fmt: skip
    ctx.run.write("reach", found)
    for line in str(found).splitlines():
        ctx.say(f"  {line}", VERBOSE)


def do_symmetry(ctx: Context) -> None:
    found = symmetry_of(
        ctx.asked()[REFERENCE],
        ctx.data,
        ctx.features,
        ctx.config.symmetry,
        ctx.seed(seeding.Stage.SYMMETRY),
        ctx.say,
    )
    ctx.run.write("symmetry", found)
    ctx.say(said_of(found))


def do_boundary(ctx: Context) -> None:
    found = boundaries_of(ctx.denoisers(), ctx.data, ctx.features, ctx.config, ctx.seed(seeding.Stage.BOUNDARY))
    ctx.run.write("boundaries", {k: {"boundary": b.to_dict(), "units": units} for k, (b, units) in found.items()})
    for one, _ in found.values():
        ctx.say(one.sentences()[0])


def do_recovery(ctx: Context) -> None:
    config = ctx.config
    # beside a model there are closed forms alone to be held against it
    shown = {m.name for m in config.members if MEMBER_KINDS[m.kind].fit is None or config.train.model}
    every, images = ctx.asked(), ctx.data.test[: config.recovery.n_recovery]
    path = every[REFERENCE].path  # a time is the same noise for all of them
    denoisers = {n: d.on(path) for n, d in every.items() if n in shown}
    record, pictures = measure_recovery(
        denoisers, images, config.recovery.recovery_times, steps=config.grid.steps, solver=config.grid.solver,
        cond=ctx.cond(denoisers, "test", len(images)), seed=ctx.seed(seeding.Stage.RECOVERY), t_min=config.grid.t_min,
    )  # fmt: skip
    ctx.run.write("recovery", record)
    pixels = {k: to_uint8(v, ctx.data.pixel_range) for k, v in pictures.items()}
    ctx.run.write_tensors("recovered", save_tensors(pixels))


def do_cmi(ctx: Context) -> None:
    fit = measure_cmi(ctx.data.to("cpu"), ctx.config, ctx.run, ctx.say)
    assert ctx.run.cmi is not None
    for line in str(ctx.run.cmi).splitlines():
        ctx.say(f"  {line}")
    at = "t_c not resolved"
    if fit.t_c is not None:
        at = f"t_c = {fit.t_c:.3g} (95 %: {fit.t_c_low:.3g} to {fit.t_c_high:.3g})"
        at += f", but {fit.t_c_note}" if fit.t_c_note else ""
    where = "nowhere" if fit.window is None else f"for t in [{fit.window[0]:.3g}, {fit.window[1]:.3g}]"
    ctx.say(f"CMI: {at}; above {fit.tolerance:g} nats at r = {fit.window_radius} {where}")


def do_guide(ctx: Context) -> None:
    scale = scale_of(ctx.config)
    names = [m.name for m in ctx.config.members if m.told]
    guide_members(ctx.run, names, scale)
    ctx.say(f"told the class, and guided by it {scale:g}-fold: {', '.join(names)}")


def do_schedule(ctx: Context) -> None:
    config, run = ctx.config, ctx.run
    grid, asked = config.grid, config.schedule
    denoisers = ctx.samplers(scheduled=True)
    labels = ctx.cond(denoisers, "validation")
    written = members_of_reuse(ctx, ctx.denoisers(scheduled=True)) if asked.reuse else {}
    reused = {name: in_precision(member, config) for name, member in written.items()}
    prices = price_list(
        {**denoisers, **reused},
        ctx.data,
        time_grid(grid.steps, path=denoisers[REFERENCE].path, t_min=grid.t_min, spacing=grid.spacing),
        seed=ctx.seed(seeding.Stage.PRICES),
        n=config.diagnose.n_losses,
        trajectories=asked.growth_trajectories if asked.penalty == "w2" else 0,
        features=ctx.features,
        cond=labels,
        solver=grid.solver,
    )
    run.write("prices", prices)
    measured = [name for name, p in PENALTIES.items() if p.missing(prices) is None]
    if is_guided(config):  # its answers lose by intent on held-out images
        measured = [name for name in measured if not PENALTIES[name].needs_losses]
    left_out = left_out_of_schedules(config, prices)
    members = [name for name in prices.names if name not in left_out]
    members += dict.fromkeys(prices.reuse.names if prices.reuse else ())
    # losses of what is reused are known on noised trajectories alone; other penalties are of plain members there
    known = prices if prices.reuse is None or prices.reuse.trajectories == "noised" else replace(prices, reuse=None)
    fronts = {}
    for name in measured:
        at = known if PENALTIES[name].needs_losses else prices
        here = [m for m in members if m in at.names or at.reuse is not None]
        fronts[name] = pareto_front(at, penalty=name, solver=grid.solver, members=here)
    for name in left_out:
        ctx.say(f"{name} costs a global call or more on images of this size: left out of schedules")
    check_prices(prices, get_penalty(asked.penalty, prices))  # before it is looked up among the fronts
    gap, cmi = read_gap(ctx), cmi_window(config, run) if asked.window == "cmi" else None
    window = {"gap": gap, "cmi": cmi}[asked.window] if isinstance(asked.window, str) else asked.window
    if window is None:
        ctx.say(f"{local_member(config)} has no positive denoising gap: schedules by a window are left out")
    own = None
    if config.train.model:
        own, said = own_schedule(denoisers[REFERENCE], prices, asked.user_steps, grid.solver)
        ctx.say(said)
    schedules, chosen = plan_schedules(prices, fronts, config, window, gap, cmi, own)
    told = explain_ties(schedules["hybrid"], prices, fronts[asked.penalty], asked.budget)
    words: dict[str, list[str]] = {}
    if asked.grids:
        judge = Judge.of_data(ctx.data, {FIRST: ctx.judges[FIRST]}, config)  # the unseen one chooses nothing
        pixels = ctx.judges[SLICED]
        assert isinstance(pixels, SlicedJudge)
        placing = Placing({**denoisers, **reused}, prices, judge, pixels.reference, config, ctx.say)
        schedules, chosen, words = place_schedules(placing, schedules, fronts[asked.penalty], chosen)
    if labels is None:
        run.remove("classes")
    else:
        run.write("classes", {"counts": list(class_counts(ctx.data))})
    run.remove("evaluations", "summary", "samples")  # they are of another schedule
    run.write("fronts", {n: replace(f, chosen=chosen if n == asked.penalty else None) for n, f in fronts.items()})
    run.write("schedules", schedules)
    told += words.pop("hybrid", []) + explain(schedules["hybrid"], prices, penalty=asked.penalty)
    run.write("explanations", {"hybrid": told, **words})
    share = (schedules["hybrid"].mflop or 0.0) / (schedules["global"].mflop or 1.0)
    spans = ", ".join(f"{name} {start:.2f}-{end:.2f}" for start, end, name in schedules["hybrid"].spans())
    ctx.say(f"hybrid: {spans}; {share:.0%} of the all-global FLOPs")
    for line in told:
        ctx.say(f"  {line}")


def do_hybrid(ctx: Context) -> None:
    """The hybrid as one folder to share: its members, its card from what was measured."""
    run = ctx.run
    folder = run.path("hybrid")
    shutil.rmtree(folder, ignore_errors=True)  # of members that an older schedule named
    hybrid = run.hybrid(device=ctx.config.machine.device)
    training = dict(run.training)
    records = [*run.measured("hybrid"), *(training[name] for name in hybrid.members if name in training)]
    hybrid.save_pretrained(folder, records=records)
    ctx.say(f"to share: {folder}, read by pw.Denoiser.from_pretrained({str(folder)!r})")


def read_gap(ctx: Context) -> tuple[float, float] | None:
    """Window of the denoising gap of the window's local denoiser; None where there is none to draw."""
    table, name = ctx.run.losses, local_member(ctx.config)
    assert table is not None
    if name is None:
        return None
    if len(table.times) < 2 or not (table.gap[:, table.column(name)] > 0).any():
        return None
    return gap_window(table, path_from_config(table.path), name)


def do_evaluate(ctx: Context) -> None:
    run = ctx.run
    assert run.prices is not None
    judge = Judge.of_data(ctx.data, ctx.judges, ctx.config)
    # a control too: a schedule of one's own may name it
    result = evaluate_all(
        ctx.samplers() | reused_in(run, ctx.config.machine.device),
        run.schedules,
        run.prices,
        judge,
        ctx.config,
        ctx.say,
    )
    write_judgement(run, ctx.config, result, run.classifier, ctx.data.pixel_range)


def do_export(ctx: Context) -> None:
    ctx.say(f"the schedule for others: {export_schedule(ctx.run, ctx.denoisers(scheduled=True)[REFERENCE])}")


def do_report(ctx: Context) -> None:
    path = build_report(ctx.run.root)
    ctx.say(f"report: {path}")


HOW_TO_TRAIN = [o.field for o in options_of(TrainOptions) if not o.makes_members]
"""What the training of a member depends on besides its own fields."""


LATER = ("crop", "user_steps", "place", "reuse", "given", "optimizer")
"""Options that came when there were runs already."""


def _chosen(part: dict[str, Any]) -> dict[str, Any]:
    """Without what came later and is not given: runs of before such an option are done as they were."""
    return {k: v for k, v in part.items() if k not in LATER or v is not None}


def training_stage(member: Member, config: RunConfig) -> str:
    """Name of the stage that brings a member into the run: beside a model, by what is done."""
    kind = MEMBER_KINDS[member.kind]
    verb = "train" if not config.train.model or kind.build is not None else "fit" if kind.fit is not None else "take"
    return f"{verb}-{member.name}"


def all_stages(config: RunConfig) -> list[Stage]:
    """The stages of a run in order."""
    part = {name: getattr(config, name).to_dict() for name in PARTS}
    for name, about in ((n, o) for n, cls in PARTS.items() for o in options_of(cls) if o.free):
        del part[name][about.field]
    losses, taken_home = {"n_losses": config.diagnose.n_losses}, config.train.distill or config.train.model
    beside = {"window_radius": config.schedule.window_radius}
    # runs of before there was a second judge are done as they were
    seen = {} if config.features.unseen else {"unseen": False}
    stages = [
        Stage("data", (), part["data"], ("data",), do_data),
        Stage("features", ("data",), {"features": config.features.features}, ("features",), do_features),
    ]
    names = {m.name: training_stage(m, config) for m in config.members}
    for member in config.members:
        # who is not trained does not depend on how
        learns = MEMBER_KINDS[member.kind].build is not None
        how = _chosen({k: part["train"][k] for k in HOW_TO_TRAIN}) | part["machine"] if learns else {}
        work = do_train(member)
        name = training_stage(member, config)
        needs = ("data",) if member.teacher is None else ("data", names[member.teacher])
        stages.append(Stage(name, needs, member.choices() | how, (), work, model=member.name))
    trained = tuple(names.values())
    stages += [
        Stage("diagnose", trained, part["diagnose"], ("losses", "gap"), do_diagnose),
        *_reach_stage(config, trained),
        *_symmetry_stage(config, trained),
        Stage("recovery", trained, part["grid"] | part["recovery"], ("recovery",), do_recovery),
    ]
    if config.cmi.measure:
        # a matter of the data alone: no member is needed
        stages.append(Stage("cmi", ("data",), _chosen(part["cmi"]) | beside, ("cmi", "markov"), do_cmi))
    if config.train.guidance:
        stages.append(Stage("guide", trained, {"guidance": config.train.guidance}, (), do_guide))
    last = ("guide",) * bool(config.train.guidance)
    # the schedule waits for CMI only where that places the window, the report wherever it is measured
    window, shown = ("cmi",) * (config.schedule.window == "cmi"), ("cmi",) * config.cmi.measure
    stages += [
        Stage(
            "schedule", (*trained, "diagnose", "features", *window, *last),
            part["grid"] | _chosen(part["schedule"]) | losses,
            ("prices", "schedules", "fronts"), do_schedule,
        ),
        *([Stage("hybrid", ("schedule",), {}, ("hybrid",), do_hybrid)] if taken_home else []),
        Stage("evaluate", ("schedule", "features"), part["evaluate"] | seen, ("evaluations", "summary"), do_evaluate),
    ]  # fmt: skip
    if config.train.model:
        stages += [
            Stage("boundary", ("schedule",), {}, ("boundaries",), do_boundary),
            Stage("export", ("schedule",), {}, ("exports",), do_export),
        ]
        shown = (*shown, "boundary", "export")
    shown = (*shown, *("reach",) * config.reach.measure, *("symmetry",) * config.symmetry.measure)
    stages.append(Stage("report", ("evaluate", "diagnose", "recovery", *shown), {}, ("report",), do_report))
    return stages


def _reach_stage(config: RunConfig, trained: tuple[str, ...]) -> list[Stage]:
    """Of the reference alone: it waits for no other member."""
    if not config.reach.measure:
        return []
    first = next(t for t in trained if t.endswith(f"-{REFERENCE}"))
    return [Stage("reach", (first,), {"n": min(MOST_IMAGES, config.recovery.n_recovery)}, ("reach",), do_reach)]


def _symmetry_stage(config: RunConfig, trained: tuple[str, ...]) -> list[Stage]:
    """Of the data, of the reference, and of the features that know classes."""
    if not config.symmetry.measure:
        return []
    first = next(t for t in trained if t.endswith(f"-{REFERENCE}"))
    choices = config.symmetry.to_dict()
    return [Stage("symmetry", ("data", "features", first), choices, ("symmetry",), do_symmetry)]


def last_stage(command: str, stages: list[Stage]) -> str:
    """The stage that ends a command."""
    trained = [s.name for s in stages if s.model is not None]
    return {"train": trained[-1], "diagnose": "recovery", "run": "report", "distill": "hybrid"}.get(command, command)


def _needed(ending: str, stages: list[Stage]) -> set[str]:
    """A stage and all that it needs, directly or not."""
    by_name = {s.name: s for s in stages}
    return {ending}.union(*(_needed(name, stages) for name in by_name[ending].needs))


def wanted(command: str, stages: list[Stage]) -> list[Stage]:
    """The stages of a command in order: all up to its last; CMI only in a whole run or where another stage needs it."""
    ending = last_stage(command, stages)
    last = next((i for i, s in enumerate(stages) if s.name == ending), None)
    if last is None:
        raise PhasewiseError("this run leaves out conditional mutual information; drop --no-cmi")
    chosen = stages[: last + 1]
    if command == "distill":
        return [s for s in chosen if s.name in _needed(ending, stages)]
    needed = {name for s in chosen for name in s.needs}
    if command == "cmi":
        return [s for s in chosen if s.name in ("cmi", *stages[last].needs)]
    return [s for s in chosen if s.name != "cmi" or command == "run" or "cmi" in needed]
