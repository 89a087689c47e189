"""The price list: what each denoiser costs and loses at every step of a time grid, measured once.

Losses and distances on held-out images, FLOPs counted, milliseconds measured; what is made of them is up to the penalty
(:mod:`phasewise.scheduling.penalty`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phasewise import checks
from phasewise.data import ImageData, as_images, condition_of_part
from phasewise.denoisers.base import Condition, Denoiser, denoisers_by_name
from phasewise.denoisers.condition import bind, condition_rows, first_rows
from phasewise.denoisers.guided import guided_in, interval_of
from phasewise.denoisers.reuse import ReusedFeatures, check_place, reuser_of
from phasewise.diagnosis.losses import measure_losses, warn_of_pixels
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.metrics import FeatureNetwork
from phasewise.metrics.cost import count_flops, measure_ms
from phasewise.metrics.feature_base import a_feature_network
from phasewise.paths import isotropic, path_from_config
from phasewise.results import DEFAULT_SOLVER, LossTable, PriceList, a_price_list
from phasewise.sampling.solvers import calls_per_step, solver_name
from phasewise.scheduling.perception import measure_frechet
from phasewise.scheduling.reuse_prices import kept_of, measure_reuse
from phasewise.scheduling.step_errors import measure_growth
from phasewise.scheduling.truth import ambiguity, best_known, data_mean

TRUTHS = ("best", "reference")
"""From what distances are counted."""


@checks.checked(
    denoisers=denoisers_by_name,
    times=checks.times,
    reference=checks.text,
    seed=checks.seed,
    n=checks.at_least_2,
    batch=checks.count,
    trajectories=checks.at_least_0,
    features=a_feature_network,
    correlations=checks.flag,
    solver=solver_name,
    truth=checks.one_of(TRUTHS, "truth"),
)
def price_list(
    denoisers: Mapping[str, Denoiser],
    data: ImageData | Tensor,
    times: Sequence[float],
    *,
    reference: str = "global",
    seed: int = 0,
    n: int = 1000,
    batch: int = 64,
    trajectories: int = 0,
    cond: Condition | str | None = None,
    features: FeatureNetwork | None = None,
    correlations: bool = False,
    solver: str = DEFAULT_SOLVER,
    truth: str = "best",
) -> PriceList:
    """Losses and costs of every denoiser at every start time of a grid (descending, as for :func:`phasewise.sample`).

    ``trajectories`` > 0 also follows so many sampling trajectories to measure how far each denoiser's error grows
    (:func:`phasewise.scheduling.step_errors.measure_growth`), which the penalty ``w2`` then counts.  ``features``, a
    network as for :func:`phasewise.fid`, adds what the penalty ``frechet`` needs
    (:mod:`phasewise.scheduling.perception`); it is
    biased upward by few images, so give thousands where there are, and compare lists of equal ``n`` only.
    ``correlations``: as of :func:`phasewise.diagnosis.measure_losses`.

    Denoisers that lean on earlier steps (:class:`phasewise.ReusedAnswer`, :class:`phasewise.ReusedFeatures`) are priced
    on trajectories of the grid (:func:`phasewise.scheduling.measure_reuse`); ``solver`` says of which kind.  One whose
    network costs no less in part than whole is left out, with a warning.

    ``truth``: what distances are counted from.  "best": the best that is known at each step, the data mean at alpha = 0
    and elsewhere the member of least held-out loss, the reference where none is better beyond error
    (:mod:`phasewise.scheduling.truth`); so the reference has a penalty of its own.  "reference": always that one, as
    for guided denoisers, whose answers are meant to be off.

    Measured on up to ``n`` validation images of ``data`` (a tensor is split as :func:`phasewise.train` splits it) with
    fresh noise, so that the test images stay unseen by the schedule.  ``cond``, a class label, a row for each of them,
    or "labels", goes to every denoiser that takes one.

    Guided answers are no posterior means, so their held-out loss is the higher one: schedule {"guided": ...,
    "plain": ...} with the guided one for ``reference`` by "frechet" or "w2", which count what lies off the reference,
    not by "kl" or "flow", which would leave all guidance out.

    Raises PhasewiseError for a guided denoiser with an interval: its cost changes with the time, and a price list has
    one for each member; and for one that leans on earlier steps with a ``solver`` of two calls a step.
    """
    warn_of_pixels(denoisers, data)
    data = as_images(data)
    everybody, denoisers = denoisers, {name: d for name, d in denoisers.items() if reuser_of(d) is None}
    for name, denoiser in denoisers.items():
        if interval_of(denoiser) is not None:
            raise PhasewiseError(
                f"{name} is guided in an interval of time, so a call has two costs; give the guided one without its "
                "interval and the plain one as two members: the schedule finds the interval"
            )
    if reference in denoisers:
        isotropic(denoisers[reference].path, "the price of a step")
    images = data.validation[:n]
    rows = condition_rows(first_rows(condition_of_part(data, "validation", cond), n), len(images), denoisers.values())
    # first: a member that does not fit, or whose cost cannot be counted, is refused at once
    one = {name: bind(d, rows, slice(1)) for name, d in denoisers.items()}  # a call costs the same whatever the label
    flops = {name: count_flops(d, denoisers[name].image_shape) for name, d in one.items()}
    free = [name for name, cost in flops.items() if not cost]
    if free:
        raise PhasewiseError(
            f"no FLOPs are counted in a call of {free[0]}: the counter does not see what it does, and a member that "
            "costs nothing would be given every step; leave it out"
        )
    if features is not None:
        features.extract(images[:2])  # first: a network that does not fit is refused at once
    for name in (n for n in everybody if n not in denoisers):
        check_place(name, solver)
    leaning = {**denoisers, **_worth_it(everybody, flops, rows)}
    table = measure_losses(
        denoisers, images, times, reference=reference, cond=rows, seed=seed, correlations=correlations
    )
    better: dict[int, tuple[str, Denoiser]] = {}
    by_best = truth == "best" and guided_in(denoisers[reference]) is None
    if by_best:
        path = denoisers[reference].path
        mean = None if rows is not None else data_mean(data.train)
        better = best_known(table, {name: d.on(path) for name, d in denoisers.items()}, mean, path)
        table = _distances_from(table, denoisers, images, better, rows, seed)
    frechet, frechet_error = None, None
    if features is not None:
        frechet, frechet_error = measure_frechet(
            denoisers, images, times, features, reference=reference, cond=rows, seed=seed,
            truth={k: d for k, (_, d) in better.items()},
        )  # fmt: skip
    if by_best:
        unsure = ambiguity(table, table.distance)
        table = replace(table, distance_stderr=np.hypot(table.distance_stderr, unsure))
        if frechet is not None and frechet_error is not None:
            frechet_error = np.hypot(frechet_error, ambiguity(table, frechet))
    shape = denoisers[reference].image_shape
    ms = measure_ms(one, shape, batch=batch, seed=seed)
    return PriceList(
        losses=table,
        flops=np.array(list(flops.values()), dtype=float),
        ms=np.array([ms[name][0] for name in denoisers]),
        device=str(images.device),
        batch=batch,
        jumps=tuple(name for name, d in denoisers.items() if d.jumps),
        growth=measure_growth(denoisers, times, reference=reference, cond=rows, n=trajectories, seed=seed)
        if trajectories
        else None,
        frechet=frechet,
        frechet_stderr=frechet_error,
        reuse=measure_reuse(
            leaning, images, times, reference=reference, solver=solver, features=features, cond=rows, seed=seed,
            ms_batch=batch,
        )
        if len(leaning) > len(denoisers)
        else None,
    )  # fmt: skip


def _distances_from(
    table: LossTable,
    denoisers: Mapping[str, Denoiser],
    images: Tensor,
    better: Mapping[int, tuple[str, Denoiser]],
    rows: Tensor | None,
    seed: int,
) -> LossTable:
    """``table`` with distances counted from what is better than the reference, at the steps where something is."""
    distance, error = table.distance.copy(), table.distance_stderr.copy()
    for k, (name, denoiser) in better.items():
        members = {**denoisers, name: denoiser}  # a closed form that is known comes last, a member keeps its place
        found = measure_losses(members, images, [float(table.times[k])], reference=name, cond=rows, seed=seed)
        distance[k], error[k] = found.distance[0, : len(denoisers)], found.distance_stderr[0, : len(denoisers)]
    return replace(table, distance=distance, distance_stderr=error, distance_correlation=None if better else
                   table.distance_correlation)  # fmt: skip


def _worth_it(denoisers: Mapping[str, Denoiser], flops: Mapping[str, int], rows: Tensor | None) -> dict[str, Denoiser]:
    """Those that lean on earlier steps, without the ones that cost no less than what they stand in for."""
    found = {}
    for name, denoiser in denoisers.items():
        reuser = reuser_of(denoiser)
        if reuser is None:
            continue
        if isinstance(reuser, ReusedFeatures):
            of = kept_of(name, denoisers)
            own, cost = count_flops(bind(denoiser, rows, slice(1)), denoiser.image_shape), flops[of]
            if own >= cost:
                warnings.warn(
                    f"{name} costs {own / 1e6:.3g} MFLOP a call, no less than {of} ({cost / 1e6:.3g}), of which it "
                    "keeps a part; it is left out",
                    PhasewiseWarning,
                    stacklevel=3,
                )
                continue
        found[name] = denoiser
    return found


@checks.checked(prices=a_price_list, times=checks.times)
def prices_at(prices: PriceList, times: Sequence[float]) -> PriceList:
    """The price list carried over to another grid inside its span, without measuring again.

    Losses, gaps and distances, and their errors, are interpolated linearly in t in velocity units (times
    ``velocity_gain^2``), in which they vary least.  Raises PhasewiseError for a time outside the measured span.
    """
    table, grid = prices.losses, np.asarray(times, dtype=np.float64)
    if grid.ndim != 1 or not len(grid) or (np.diff(grid) >= 0).any():
        raise PhasewiseError(f"times must decrease strictly, at least one; got {list(times)}")
    low, high = float(table.times.min()), float(table.times.max())
    outside = grid[(grid < low - 1e-9) | (grid > high + 1e-9)]
    if len(outside):
        raise PhasewiseError(f"no prices at t = {outside[0]:.3g}: they were measured from {low:.3g} to {high:.3g}")
    path, order = path_from_config(table.path), np.argsort(table.times)
    known, wanted = (path.velocity_gain(torch.as_tensor(t)).numpy()[:, None] ** 2 for t in (table.times, grid))

    def carried(values: np.ndarray) -> np.ndarray:
        scaled = (values * known)[order]  # ascending, as np.interp takes them
        columns = [np.interp(grid, table.times[order], scaled[:, n]) for n in range(values.shape[1])]
        return np.stack(columns, 1) / wanted

    fields = ("loss", "loss_stderr", "gap", "gap_stderr", "distance", "distance_stderr")
    moved: dict[str, Any] = {name: carried(getattr(table, name)) for name in fields}
    growth = prices.growth
    if growth is not None:
        # a ratio of distances: no unit to change
        growth = np.stack([np.interp(grid, table.times[order], column[order]) for column in growth.T], 1)
    moved["log_snr"] = path.log_snr(torch.as_tensor(grid)).numpy()
    frechet, error = (None if a is None else carried(a) for a in (prices.frechet, prices.frechet_stderr))
    # between measured times correlations are not known
    table = replace(table, times=grid, gap_correlation=None, distance_correlation=None, **moved)
    # what leans on earlier steps was measured on the grid's own steps
    reuse = prices.reuse if grid.shape == prices.times.shape and np.allclose(grid, prices.times) else None
    return replace(prices, losses=table, growth=growth, frechet=frechet, frechet_stderr=error, reuse=reuse)


def calls_of(prices: PriceList, solver: str, steps: int) -> np.ndarray:
    """(S, N) denoiser calls of every step by every denoiser; one for those that jump by their own flow."""
    calls = np.repeat(np.array(calls_per_step(solver, steps))[:, None], len(prices.names), axis=1)
    calls[:, [name in prices.jumps for name in prices.names]] = 1
    return calls
