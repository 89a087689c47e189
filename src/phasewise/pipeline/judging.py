"""The schedules a run compares, and their judgement from the same starting noise."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, HybridDenoiser, bind
from phasewise.errors import PhasewiseError
from phasewise.metrics import (
    ClassifierFeatures,
    FeatureNetwork,
    FrechetJudge,
    FrechetReference,
    FrechetScore,
    SampleJudge,
    classifier_summary,
    count_flops,
    fid,
    frechet_score,
    paired_error,
)
from phasewise.metrics.judges import FIRST, UNSEEN, judged
from phasewise.pipeline.conditions import class_counts, needs, parts_of, sampled_labels, takes_labels
from phasewise.pipeline.costs import expensive
from phasewise.pipeline.guiding import is_guided
from phasewise.pipeline.samplers import batch_of
from phasewise.pipeline.telling import Teller
from phasewise.results import Evaluation, HybridSchedule, JudgeScore, ParetoFront, PriceList
from phasewise.runs.config import RunConfig
from phasewise.runs.members import MEMBER_KINDS
from phasewise.sampling import calls_per_step, get_solver, sample
from phasewise.scheduling import baselines, optimise_schedule, schedule_from_assignment

TIMED = 64
"""Images in the batch whose sampling is timed."""
RIVALS = ("global", "global_cheap", "own")
"""Schedules that every other one's distance is compared with, sample by sample."""
OTHERS = ("global_placed", "stitched", "window", "window_gap", "window_cmi")
"""Those that the hybrid's alone is compared with besides."""


def plan_schedules(
    prices: PriceList,
    fronts: Mapping[str, ParetoFront],
    config: RunConfig,
    window: tuple[float, float] | None,
    gap: tuple[float, float] | None,
    cmi: tuple[float, float] | None = None,
    own: HybridSchedule | None = None,
) -> tuple[dict[str, HybridSchedule], int]:
    """The schedules to compare, by name, and the index of the optimised one on its front.

    Local members that cost a global call or more take no step (:func:`left_out_of_schedules`).  ``window`` is the
    run's; ``gap`` and ``cmi`` are where the denoising gap and the CMI place one.  What rests on a window that is None,
    or on a local denoiser where there is none, is left out.  ``own``: the schedule that a model comes with.
    """
    grid, penalty, times = config.grid, config.schedule.penalty, prices.times.tolist()
    local, partner = local_member(config), cheap_partner(config, prices)
    front = fronts[penalty]
    hybrid = optimise_schedule(prices, config.schedule.budget, penalty=penalty, solver=grid.solver, front=front)
    cost = hybrid.mflop or 0.0  # what T-Stitch and spread may spend at most, fewer steps at least
    shifted = None if window is None else baselines.shifted(window)
    spans = {"window": window, "window_shifted": shifted, "window_gap": gap, "window_cmi": cmi}
    left_out = left_out_of_schedules(config, prices)
    assigned = {"global": ("global",) * len(times)}
    if local is not None and local not in left_out:
        assigned |= {
            **{name: baselines.window(times, s, "global", local) for name, s in spans.items() if s is not None},
            **({} if window is None else {"window_inverted": baselines.window(times, window, local, "global")}),
            "local_only": (local,) * len(times),
            "spread": baselines.spread(times, local, "global", _share(prices, local, cost, grid.solver)),
        }
    # what judges make of samples that no network had a part in: near the reference's, they see little of what it learnt
    if (closed := closed_form(config, prices)) is not None:
        assigned["closed_only"] = (closed,) * len(times)
    if partner is not None and partner not in left_out:
        assigned["stitched"] = baselines.t_stitch(times, partner, "global", _share(prices, partner, cost, grid.solver))
    found = {n: schedule_from_assignment(prices, a, penalty=penalty, solver=grid.solver) for n, a in assigned.items()}
    found["hybrid"] = hybrid
    if own is not None:
        found["own"] = own
    found["global_cheap"] = baselines.fewer_steps(prices, cost, grid.solver, t_min=grid.t_min, spacing=grid.spacing)
    chosen = next(i for i, a in enumerate(front.assignments) if a == hybrid.assignment)
    return {n: replace(found[n], label=found[n].label or s) for n, s in baselines.LABELS.items() if n in found}, chosen


def left_out_of_schedules(config: RunConfig, prices: PriceList) -> list[str]:
    """Local members of which a call costs as much as a global one, or more: what they take is better given to it."""
    names = [m.name for m in config.members if MEMBER_KINDS[m.kind].look == "local"]
    return expensive(dict(zip(prices.names, prices.flops.tolist(), strict=True)), names, prices.losses.reference)


def _share(prices: PriceList, small: str, cost: float, solver: str) -> float:
    return baselines.fraction_for(prices, small, "global", cost, solver)


def local_member(config: RunConfig) -> str | None:
    """Name of the local denoiser that runs beside the global one; None where there is none."""
    radius = config.schedule.window_radius
    found = (m.name for m in config.members if MEMBER_KINDS[m.kind].look == "local" and m.radius == radius)
    return next(found, None)


def closed_form(config: RunConfig, prices: PriceList) -> str | None:
    """Name of the priced closed form that sees the whole image, the Wiener filter; None where there is none."""
    closed = (m.name for m in config.members if MEMBER_KINDS[m.kind].look == "closed" and m.radius is None)
    return next((name for name in closed if name in prices.names), None)


def cheap_partner(config: RunConfig, prices: PriceList) -> str | None:
    """The cheapest of the cheaper global networks, or else the local denoiser, or else the cheapest closed form; None
    where nothing is cheaper."""
    flops = dict(zip(prices.names, prices.flops, strict=True))
    # as measured: of a member that somebody else made, the config knows no radius
    local = {n for n, radius in zip(prices.names, prices.losses.radii, strict=True) if radius is not None}
    learned = [m for m in config.members if MEMBER_KINDS[m.kind].look == "other" and m.name not in local]
    wide = [m.name for m in learned if flops[m.name] < flops["global"]]
    if wide:
        return min(wide, key=flops.__getitem__)
    closed = closed_form(config, prices)
    return local_member(config) or (closed if closed is not None and flops[closed] < flops["global"] else None)


@dataclass(frozen=True)
class Judgement:
    evaluations: list[Evaluation]
    real: dict[str, Any]
    samples: dict[str, Tensor]


@dataclass(frozen=True)
class Judge:
    """What samples are held against.

    Attributes:
        judges: all that samples are shown to, by name, "first" among them, in whose :attr:`features` FID is taken.
        real: distance of held-out real images, the floor, as the report shows it; ``real_images`` some, or None.
        classes: how often each class is among the training images, where denoisers are told one; else empty.
    """

    judges: Mapping[str, SampleJudge]
    pixel_range: tuple[float, float]
    real: dict[str, Any]
    real_images: Tensor | None = None
    classes: tuple[int, ...] = ()

    @classmethod
    def of_data(cls, data: ImageData, judges: Mapping[str, SampleJudge], config: RunConfig) -> Judge:
        # as many as samples where there are: the bias depends on n
        n, seed = min(len(data.test), config.evaluate.n_samples), config.data.seed
        first, shown = judges[FIRST], data.test[: config.evaluate.n_grid]
        assert isinstance(first, FrechetJudge)
        floor = fid(data.test[:n], first.reference, first.features, seed=seed)
        others = judged(data.test[:n], {k: j for k, j in judges.items() if k != FIRST}, seed)
        return cls(judges, data.pixel_range, real_floor(floor, others), shown, class_counts(data))

    @property
    def first(self) -> FrechetJudge:
        found = self.judges[FIRST]
        assert isinstance(found, FrechetJudge)
        return found

    @property
    def features(self) -> FeatureNetwork:
        return self.first.features

    @property
    def reference(self) -> FrechetReference:
        """Moments of the training images in the features."""
        return self.first.reference

    def cond(self, hybrid: Denoiser, n: int, seed: int) -> Tensor | None:
        """``n`` labels as frequent as in real images, (n,), for one that is told classes; else None."""
        if not hybrid.takes_condition:
            return None
        if not self.classes and any(needs(d) for d in parts_of(hybrid)):
            raise PhasewiseError("members take a class label, and the images have none; give images with labels")
        return sampled_labels(self.classes, n, seed) if takes_labels(parts_of(hybrid)) else None


def real_floor(score: FrechetScore, others: Mapping[str, JudgeScore]) -> dict[str, Any]:
    """The distance of real images as records and report keep it, and by every other judge."""
    seen = {name: [found.value, found.stderr] for name, found in others.items() if name != FIRST}
    return {"fid": score.value, "fid_stderr": score.stderr, "fid_bias": score.bias, "n": score.n, "judges": seen}


def evaluate_all(
    members: Mapping[str, Denoiser],
    schedules: Mapping[str, HybridSchedule],
    prices: PriceList,
    judge: Judge,
    config: RunConfig,
    say: Teller,
) -> Judgement:
    """Sample every schedule from the same noise; distance to the training images, paired error against all-global.

    Raises PhasewiseError for a schedule that names a member which is not there.
    """
    low, high = judge.pixel_range
    seed, device = config.data.seed, config.machine.device
    n, n_grid = config.evaluate.n_samples, config.evaluate.n_grid
    features = judge.features
    say(f"{features.distance} in these features: {features.name}")
    say(f"real test images: {features.distance} {judge.real['fid']:.2f} (n = {judge.real['n']})")
    hybrids = {name: _hybrid(name, members, s) for name, s in schedules.items()}
    ms = sampling_ms({name: bind(h, judge.cond(h, TIMED, seed)) for name, h in hybrids.items()}, seed)
    kept = {} if judge.real_images is None else {"real": judge.real_images}
    base: Tensor | None = None
    drawn: dict[str, Tensor] = {}
    rivals: dict[str, JudgeScore] = {}
    evaluations = []
    order = sorted(hybrids, key=_in_order)
    for k, name in enumerate(order):

        def tell(done: int, total: int, name: str = name, k: int = k) -> None:
            say.part((k + done / total) / len(order), f"{name}: {done} of {total} samples")

        told = judge.cond(hybrids[name], n, seed)
        batch = batch_of(hybrids[name].image_shape, device)
        same = next((done for done in drawn if schedules[done].is_alike(schedules[name])), None)
        if same is None:
            images = sample(hybrids[name], n=n, seed=seed, cond=told, batch=batch, progress=tell).clamp(low, high)
        else:  # a rival that was placed where it had been, a hybrid that is T-Stitch
            images = drawn[same]
        base = images if base is None else base  # all-global comes first
        drawn = {order[0]: base, name: images}  # no more, for memory
        kept[name] = images[:n_grid]
        seen = features.extract(images.to(device))
        score, first = frechet_score(seen, judge.reference, seed), judge.first.of_features(seen, seed)
        others = judged(images.to(device), {k: j for k, j in judge.judges.items() if k != FIRST}, seed)
        against = {r: known for r, known in rivals.items() if r in RIVALS or name == "hybrid"}
        minus = {rival: first.minus(known) for rival, known in against.items()}
        if name in (*RIVALS, *OTHERS):
            rivals[name] = first
        paired = None if name == "global" else paired_error(images, base)
        nats = None if is_guided(config) else _nats(prices, schedules[name])
        row = Evaluation(
            name=name,
            label=schedules[name].label or baselines.LABELS.get(name, name),
            schedule=schedules[name],
            fid=score.value,
            fid_stderr=score.stderr,
            fid_bias=score.bias,
            features=features.name,
            n=n,
            reference_n=judge.reference.n,
            seed=seed,
            mflop=cost_of(schedules[name], prices, members, told),
            ms=ms[name],
            nfe=n_calls(schedules[name]),
            nats=nats.penalty if nats else None,
            nats_stderr=nats.penalty_stderr if nats else None,
            paired_rmse=paired.value if paired else None,
            paired_stderr=paired.stderr if paired else None,
            fid_minus={r: [d.difference, d.stderr] for r, d in minus.items()},
            extra=_classifier_view(images.to(device), told, judge),
            distance=features.distance,
            same_noise=shares_noise(schedules[name], schedules[order[0]]),
            judges={FIRST: first, **others},
        )
        evaluations.append(row)
        say(
            f"{name}: {row.measure} {row.fid:.2f} ± {row.fid_stderr:.2f}, {row.mflop:.4g} MFLOP, {row.ms:.2f} ms "
            "an image"
        )
    return Judgement(evaluations, judge.real, kept)


def _hybrid(name: str, members: Mapping[str, Denoiser], schedule: HybridSchedule) -> HybridDenoiser:
    try:
        return HybridDenoiser(members, schedule)
    except PhasewiseError as error:
        raise PhasewiseError(f"schedule {name!r}: {error}") from error


def cost_of(
    schedule: HybridSchedule, prices: PriceList, members: Mapping[str, Denoiser], labels: Tensor | None = None
) -> float:
    """MFLOP an image: as the schedule says, or else counted, by the price list where that knows the members."""
    if schedule.mflop is not None:
        return schedule.mflop
    known = dict(zip(prices.names, prices.flops, strict=True))
    for name in set(schedule.assignment) - set(known):
        known[name] = count_flops(bind(members[name], labels, slice(1)), members[name].image_shape)
    calls = calls_per_step(schedule.solver, len(schedule.times))
    pairs = zip(calls, schedule.assignment, strict=True)
    return float(sum((1 if members[name].jumps else k) * known[name] for k, name in pairs)) / 1e6


def shares_noise(a: HybridSchedule, b: HybridSchedule) -> bool:
    """Whether samples of both from one seed get the same noise throughout: always where no solver draws any after the
    start, else on the same time grid alone."""
    if not (get_solver(a.solver).stochastic or get_solver(b.solver).stochastic):
        return True
    return a.solver == b.solver and a.times == b.times


def _in_order(name: str) -> tuple[int, int]:
    """Those first that others are compared with, the hybrid with most of them; then as they are shown."""
    order = list(baselines.LABELS)
    place = order.index(name) if name in order else len(order)
    return 0 if name in RIVALS else 1 if name in OTHERS else 2, place


def _classifier_view(images: Tensor, told: Tensor | None, judge: Judge) -> dict[str, Any]:
    """How the first judge's classifier sees the samples; where they were ``told`` a class, who sees that."""
    found: dict[str, Any] = {}
    if isinstance(judge.features, ClassifierFeatures):
        found = classifier_summary(images, judge.features, labels=told)
    unseen = judge.judges.get(UNSEEN)
    if told is not None and isinstance(unseen, FrechetJudge) and isinstance(unseen.features, ClassifierFeatures):
        found["class_seen_unseen"] = unseen.features.accuracy(images, told)
    return found


def n_calls(schedule: HybridSchedule) -> int:
    return sum(calls_per_step(schedule.solver, len(schedule.times)))


def _nats(prices: PriceList, schedule: HybridSchedule) -> HybridSchedule | None:
    """The schedule priced in nats; None off the price list's grid, and for members without a price."""
    if len(schedule.times) != len(prices.times) or not np.allclose(schedule.times, prices.times):
        return None
    known = {*prices.names, *(prices.reuse.names if prices.reuse is not None else ())}
    sampled = prices.reuse is not None and prices.reuse.trajectories == "sampled"
    if not set(schedule.assignment) <= (set(prices.names) if sampled else known):
        return None
    if sampled:  # held-out losses are of plain members alone
        prices = replace(prices, reuse=None)
    return schedule_from_assignment(prices, schedule.assignment, penalty="kl", solver=schedule.solver)


def sampling_ms(hybrids: Mapping[str, Denoiser], seed: int, batch: int = TIMED, repeats: int = 3) -> dict[str, float]:
    """Milliseconds per image of sampling one batch, median over interleaved rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in hybrids}
    for round_ in range(repeats + 1):
        for name, hybrid in hybrids.items():
            started = time.perf_counter()
            sample(hybrid, n=batch, seed=seed, batch=batch)
            if round_:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) * 1e3 / batch for name, values in seconds.items()}
