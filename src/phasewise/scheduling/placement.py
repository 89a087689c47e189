r"""Who serves and where the steps lie, together: a shortest path over noise times.

Nodes are candidate times, an edge is one step by one denoiser, and costs and prices add along a path.  Every node keeps
its undominated (cost, price) ways in, so one pass gives the whole Pareto front.

Price of a step from t to s by denoiser n, by weighting, with e the solver's own error over that step
(:mod:`phasewise.scheduling.step_errors`) and the excess over the reference as an
integral over the span (:func:`phasewise.scheduling.prices.span_penalties`; so prices here and there do not compare):

* ``w2``:   ``integral |v_n - v_ref| growth dt + e``           (the end: ``|D_n - D_ref| + e_stop``)
* ``flow``: ``integral (|v_n - v|^2 - |v_ref - v|^2) dt + e^2 / (t - s)``, an error e being a velocity error
  e / (t - s) held over the step  (the end: ``... + e_stop^2 / t``)
* ``kl``:   ``1/2 (gamma_s - gamma_t) loss_n(t) - 1/2 integral loss_ref d gamma``, the ancestral sampler's own price of
  a finite step (Girsanov; Kingma et al. 2021), which needs no e; its grid ends at the last candidate.

A denoiser that knows its own flow (the Wiener filter) takes a step of any length exactly: its e is 0, its cost one
call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from phasewise.errors import PhasewiseError
from phasewise.paths import path_from_config
from phasewise.results import HybridSchedule, PriceList, StepErrors
from phasewise.sampling import get_solver
from phasewise.scheduling.optimise import check_cost, undominated
from phasewise.scheduling.prices import WEIGHTINGS, check_named, check_prices, span_penalties, stop_penalties

END_BY = 0.1
WAYS = 400
"""Most undominated ways kept per node; beyond, the cheapest-priced in each of so many classes of cost."""


def place_steps(
    prices: PriceList,
    errors: StepErrors | None = None,
    *,
    budget: float | None = None,
    tolerance: float | None = None,
    weighting: str = "w2",
    cost: str = "mflop",
    solver: str | None = None,
    members: Sequence[str] | None = None,
    end_by: float = END_BY,
) -> HybridSchedule:
    """The best schedule, grid and assignment, whose times are candidates of the price list.

    Args:
        prices: at the candidate times, descending; ``errors`` at the same times (None only for weighting "kl").
        budget: the most it may cost an image, in the unit of ``cost``: "mflop" or "ms"; or give
        tolerance: the largest price accepted; the cheapest such schedule.
        solver: default that of ``errors``; "ancestral" for "kl".  members: who may serve, default all.
        end_by: the last step, a denoise, may start at this time at the latest; a denoise from far out is a blurred
            image, which FID on a classifier's features hardly sees (experiments/LOG.md).

    Raises PhasewiseError when nothing fits, naming the least cost or price there is, and as
    :func:`placement_front` does.
    """
    if (budget is None) == (tolerance is None):
        raise PhasewiseError(f"give either budget (in {cost} an image) or tolerance (largest price)")
    front = placement_front(
        prices, errors, weighting=weighting, cost=cost, solver=solver, members=members, end_by=end_by
    )
    if budget is not None:
        fits = np.flatnonzero(front.cost <= budget * (1 + 1e-9))
        if not len(fits):
            raise PhasewiseError(f"no schedule fits {budget:g} {cost} an image; the cheapest costs {front.cost[0]:.4g}")
        return front.schedules[int(fits[-1])]
    fits = np.flatnonzero(front.penalty <= float(tolerance or 0.0))
    if not len(fits):
        unit = WEIGHTINGS[weighting]
        raise PhasewiseError(
            f"no schedule reaches a price of {tolerance:g}; the lowest is {front.penalty[-1]:.4g} {unit}"
        )
    return front.schedules[int(fits[0])]


@dataclass(frozen=True)
class PlacementFront:
    """Undominated schedules: ``cost`` (in MFLOP or ms an image) rising, ``price`` falling."""

    cost: np.ndarray
    penalty: np.ndarray
    schedules: tuple[HybridSchedule, ...]


def placement_front(
    prices: PriceList,
    errors: StepErrors | None = None,
    *,
    weighting: str = "w2",
    cost: str = "mflop",
    solver: str | None = None,
    members: Sequence[str] | None = None,
    end_by: float = END_BY,
) -> PlacementFront:
    """Every undominated schedule over the candidate times; exact while a node has at most 400 undominated ways in.

    Arguments as for :func:`place_steps`.  Raises PhasewiseError for unknown members, weighting, cost or solver, for
    step errors measured at other times or for another solver, for a stochastic solver under a weighting other than
    "kl", and where no candidate time is at or below ``end_by``.
    """
    names = list(prices.names if members is None else members)
    unknown = [n for n in names if n not in prices.names]
    if unknown or not names:
        known = ", ".join(prices.names)
        raise PhasewiseError(f"no prices for {', '.join(unknown) or 'an empty list'}; the list has {known}")
    check_cost(cost)
    columns = [prices.names.index(n) for n in names]
    solver = solver or ("ancestral" if weighting == "kl" else errors.solver if errors else "heun")
    _check(prices, errors, weighting, solver)
    edge, stop = _kl_edges(prices) if weighting == "kl" else _edges(prices, errors, weighting)
    edge, stop = edge[:, :, columns], stop[:, columns]
    unit = (prices.flops / 1e6 if cost == "mflop" else prices.ms)[columns]
    jumps = np.array([n in prices.jumps for n in names])
    paid = unit * np.where(jumps, 1, get_solver(solver).calls)
    ends = np.flatnonzero(prices.times <= end_by + 1e-9)
    if not len(ends):
        least = float(prices.times[-1])
        raise PhasewiseError(f"no candidate time is at or below end_by {end_by:g}; the last is {least:.3g}")
    found = _Search(edge, stop, paid, unit, ends[-1:] if weighting == "kl" else ends).run()
    order = undominated(found.cost, found.penalty)
    schedules = tuple(
        _schedule(prices, found.way(k), names, solver, weighting, float(found.penalty[k])) for k in order.tolist()
    )
    return PlacementFront(found.cost[order], found.penalty[order], schedules)


def penalty_of(
    prices: PriceList, errors: StepErrors | None, schedule: HybridSchedule, weighting: str = "w2"
) -> float | None:
    """What a schedule is charged here; None where it leaves the candidate times or uses another solver.

    Raises PhasewiseError as :func:`placement_front` does, and for a member without prices.
    """
    solver = "ancestral" if weighting == "kl" else errors.solver if errors else "heun"
    _check(prices, errors, weighting, solver)
    unknown = [n for n in schedule.assignment if n not in prices.names]
    if unknown:
        raise PhasewiseError(f"no prices for {unknown[0]}; the list has {', '.join(prices.names)}")
    distance = np.abs(np.array(schedule.times)[:, None] - prices.times)
    if schedule.solver != solver or (distance.min(1) > 1e-9).any():
        return None
    nodes, by = distance.argmin(1), [prices.names.index(n) for n in schedule.assignment]
    edge, stop = _kl_edges(prices) if weighting == "kl" else _edges(prices, errors, weighting)
    return float(edge[nodes[:-1], nodes[1:], by[:-1]].sum() + stop[nodes[-1], by[-1]])


def _check(prices: PriceList, errors: StepErrors | None, weighting: str, solver: str) -> None:
    check_named(weighting)
    check_prices(prices, weighting)
    stochastic = get_solver(solver).stochastic
    if stochastic != (weighting == "kl"):
        raise PhasewiseError(
            f"weighting {weighting!r} prices {'ancestral' if weighting == 'kl' else 'ODE'} steps, not {solver!r}"
        )
    if weighting == "kl":
        return
    if errors is None:
        raise PhasewiseError(
            f"weighting {weighting!r} needs step errors: pw.scheduling.measure_step_errors(denoiser, times)"
        )
    if errors.solver != solver or len(errors.times) != len(prices.times):
        raise PhasewiseError(
            f"the step errors are of {errors.solver} at {len(errors.times)} times, asked for is {solver} at "
            f"{len(prices.times)}; measure both alike"
        )
    if not np.allclose(errors.times, prices.times):
        raise PhasewiseError("step errors and prices were measured at different times; measure both on one grid")


def _edges(prices: PriceList, errors: StepErrors | None, weighting: str) -> tuple[np.ndarray, np.ndarray]:
    """Prices (T, T, N) of a step from time i to time j, NaN unless j > i, and (T, N) of ending at time i."""
    assert errors is not None
    until = np.vstack([np.zeros(len(prices.names)), np.cumsum(span_penalties(prices, weighting)[:-1], axis=0)])
    times = prices.times
    length = times[:, None] - times[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = errors.error if weighting == "w2" else np.where(length > 0, errors.error**2 / length, np.nan)
    ending = errors.stop if weighting == "w2" else errors.stop**2 / times
    jumps = np.array([name in prices.jumps for name in prices.names])
    strays = np.where(np.isnan(error), np.nan, 0.0)[:, :, None] + np.where(jumps, 0.0, np.nan_to_num(error)[:, :, None])
    return until[None] - until[:, None] + strays, stop_penalties(prices, weighting) + ending[:, None]


def _kl_edges(prices: PriceList) -> tuple[np.ndarray, np.ndarray]:
    table = prices.losses
    gamma = path_from_config(table.path).gamma(torch.as_tensor(table.times)).numpy()
    reference = table.loss[:, table.column(table.reference)]
    low, high = gamma[:-1], gamma[1:]
    ratio = high / np.where(low > 0, low, high)
    each = np.where(  # 1/2 integral loss_ref d gamma over every candidate interval, trapezoid in log-SNR
        low > 0,
        np.log(ratio) * (low * reference[:-1] + high * reference[1:]) / 4,
        high * (reference[:-1] + reference[1:]) / 4,
    )
    until = np.append(0.0, np.cumsum(each))
    growth = gamma[None] - gamma[:, None]
    edge = 0.5 * growth[:, :, None] * table.loss[:, None] - (until[None] - until[:, None])[:, :, None]
    later = np.arange(len(gamma))[None] > np.arange(len(gamma))[:, None]
    return np.where(later[:, :, None], edge, np.nan), stop_penalties(prices, "kl")


class _Search:
    """Label setting from the first time down; ways end at the nodes ``last``, their sums are ``cost`` and ``price``."""

    def __init__(
        self, edge: np.ndarray, stop: np.ndarray, paid: np.ndarray, once: np.ndarray, last: np.ndarray
    ) -> None:
        self.edge, self.stop, self.paid, self.once, self.last = edge, stop, paid, once, last
        self.labels: list[dict[str, np.ndarray]] = []

    def run(self) -> _Search:
        size = len(self.stop)
        nothing = np.zeros(1, dtype=int)
        self.labels = [{"cost": np.zeros(1), "price": np.zeros(1), "node": nothing, "label": nothing, "by": nothing}]
        for j in range(1, size):
            parts = [self._along(i, self.edge[i, j], self.paid) for i in range(j)]
            self.labels.append(_pruned({key: np.concatenate([p[key] for p in parts]) for key in parts[0]}))
        ends = [self._along(int(i), self.stop[i], self.once) for i in self.last]
        self.ends = {key: np.concatenate([p[key] for p in ends]) for key in ends[0]}
        self.cost, self.penalty = self.ends["cost"], self.ends["price"]
        return self

    def _along(self, i: int, price: np.ndarray, cost: np.ndarray) -> dict[str, np.ndarray]:
        """Every way into node i, taken on by every denoiser."""
        here, n = self.labels[i], len(cost)
        count = len(here["cost"])
        return {
            "cost": (here["cost"][:, None] + cost).ravel(),
            "price": (here["price"][:, None] + price).ravel(),
            "node": np.full(count * n, i),
            "label": np.repeat(np.arange(count), n),
            "by": np.tile(np.arange(n), count),
        }

    def way(self, k: int) -> list[tuple[int, int]]:
        """(time index, denoiser index) of every step of the k-th end, in sampling order."""
        node, label, by = (int(self.ends[key][k]) for key in ("node", "label", "by"))
        steps = [(node, by)]
        while node > 0:
            row = self.labels[node]
            node, label, by = int(row["node"][label]), int(row["label"][label]), int(row["by"][label])
            steps.append((node, by))
        return steps[::-1]


def _pruned(labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    keep = undominated(labels["cost"], labels["price"])
    if len(keep) > WAYS:
        cost = labels["cost"][keep]
        classes = np.floor((cost - cost[0]) / (cost[-1] - cost[0]) * WAYS)
        keep = keep[np.append(np.diff(classes) > 0, True)]  # price falls with cost: the last of each class is lowest
    return {key: value[keep] for key, value in labels.items()}


def _schedule(
    prices: PriceList, way: list[tuple[int, int]], names: list[str], solver: str, weighting: str, price: float
) -> HybridSchedule:
    calls = [1 if names[n] in prices.jumps else get_solver(solver).calls for _, n in way[:-1]] + [1]
    flops = [float(prices.flops[prices.names.index(names[n])]) for _, n in way]
    return HybridSchedule(
        times=tuple(float(prices.times[i]) for i, _ in way),
        assignment=tuple(names[n] for _, n in way),
        solver=solver,
        path=prices.losses.path,
        penalty=price,
        penalty_unit=WEIGHTINGS[weighting],
        mflop=float(np.dot(calls, flops)) / 1e6,
    )
