"""Members that lean on earlier steps: their prices on trajectories, and the exact optimum over what is kept."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import phasewise as pw
from phasewise.denoisers import (
    Denoiser,
    PixelDenoiser,
    ReusedAnswer,
    ReusedFeatures,
    UNetDenoiser,
    WienerDenoiser,
    site,
)
from phasewise.denoisers.base import Wrapping
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.results import LossTable, PriceList, ReusePrices
from phasewise.scheduling import measure_reuse, schedule_from_assignment
from phasewise.scheduling.charges import Charges, State
from phasewise.scheduling.reuse_prices import lags_of
from phasewise.scheduling.undominated import undominated

SHAPE = (1, 6, 6)
TIMES = (1.0, 0.75, 0.5, 0.3, 0.1)


def images(n: int = 300, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(n, 1, 3, 3, generator=generator).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return 0.5 + 0.15 * low + 0.05 * torch.randn(n, *SHAPE, generator=generator)


# --- prices -------------------------------------------------------------------------------------------------------


def reuse_members() -> dict[str, Denoiser]:
    return {
        "global": WienerDenoiser.fit(images()),
        "pixel": PixelDenoiser.fit(images()),
        "held": ReusedAnswer(SHAPE, 0),
        "on": ReusedAnswer(SHAPE, 1),
    }


def test_noised_trajectories_are_those_of_the_exact_reverse_diffusion() -> None:
    """Of Gaussian data all is known: loss of the answer held from s, at t, along a trajectory, is that of s exactly."""
    data = images(4000)
    prices = measure_reuse(reuse_members(), data, TIMES, solver="ancestral", seed=3)
    losses = pw.diagnosis.measure_losses({"global": reuse_members()["global"]}, data, TIMES, seed=5)
    assert prices.trajectories == "noised"
    column = list(zip(prices.names, prices.lags, strict=True)).index(("held", (1,)))
    for k in range(1, len(TIMES)):  # the answer held was given at the point before, which is as noisy as any there
        wanted, error = losses.loss[k - 1, 0], losses.loss_stderr[k - 1, 0]
        assert abs(prices.loss[k, column] - wanted) < 4 * math.hypot(error, prices.loss_stderr[k, column])
    # and with ideal answers the distance is the gap: the answer at t is the better one by orthogonality
    k = 3
    apart = prices.distance[k, column] - prices.gap[k, column]
    assert abs(apart) < 4 * math.hypot(prices.gap_stderr[k, column], prices.distance_stderr[k, column])
    assert np.isnan(prices.distance[0]).all()
    assert np.isfinite(prices.distance[-1]).all()


def test_sampled_trajectories_are_the_references_own_and_know_no_clean_image() -> None:
    prices = measure_reuse(reuse_members(), images(40), TIMES, solver="exp_ab2")
    assert prices.trajectories == "sampled"
    assert np.isnan(prices.loss).all()
    here = prices.names.index("on")
    members = reuse_members()
    plan = pw.HybridSchedule(TIMES, ("global",) * 2 + ("on",) + ("global",) * 2)
    seen: list[torch.Tensor] = []

    class Spy(Wrapping):
        def __init__(self, member: Denoiser) -> None:
            super().__init__(member.image_shape)
            self.member = member

        def forward(self, x_t: torch.Tensor, t: float, cond: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
            seen.append(self.member(x_t, t))
            return seen[-1]

    pw.sample(pw.HybridDenoiser({**members, "on": Spy(members["on"])}, plan), n=40, seed=0)
    carried = seen[0]
    plan = pw.HybridSchedule(TIMES, ("global",) * 2 + ("spy",) + ("global",) * 2)
    pw.sample(pw.HybridDenoiser({**members, "spy": Spy(members["global"])}, plan), n=40, seed=0)
    distance = float((carried - seen[1]).double().square().flatten(1).sum(1).mean())
    assert prices.distance[2, here] == pytest.approx(distance, rel=1e-4)


def test_parts_of_networks_are_priced_with_their_cost_and_batches_change_nothing() -> None:
    torch.manual_seed(0)
    network = UNetDenoiser(SHAPE, width=8)
    network.fit_moments(images())
    for weight in network.parameters():
        weight.data += 0.05 * torch.randn(weight.shape)
    members = {"global": network.eval(), "deep": ReusedFeatures(network, "level1", 1), "on": ReusedAnswer(SHAPE, 2)}
    prices = measure_reuse(members, images(30), TIMES, solver="sde_dpmpp_2m", max_lag=2)
    again = measure_reuse(members, images(30), TIMES, solver="sde_dpmpp_2m", max_lag=2, batch=7)
    np.testing.assert_allclose(again.distance, prices.distance, rtol=1e-3, atol=1e-6)
    deep = [c for c, name in enumerate(prices.names) if name == "deep"]
    assert {prices.lags[c] for c in deep} == {(1, 2), (1, 3), (2, 3), (2, 4)}
    assert {prices.of[c] for c in deep} == {"global"}
    assert (np.nan_to_num(prices.distance[:, deep[0]])[2:] > 0).all()
    whole = pw.count_flops(network, SHAPE)
    assert (prices.flops[deep] < whole).all()
    listed = pw.price_list(members, images(60), TIMES, n=20, solver="sde_dpmpp_2m")
    assert listed.names == ("global",)
    assert listed.reuse is not None
    assert set(listed.reuse.names) == {"deep", "on"}
    assert PriceList.from_dict(listed.to_dict()).reuse.lags == listed.reuse.lags  # type: ignore[union-attr]
    assert "deep" in {row[1] for row in listed.reuse.table()[1]}


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 7))
def test_lags_rise_and_stay_on_the_grid(count: int, nearest: int, farthest: int) -> None:
    for lags in lags_of(count, nearest, farthest):
        assert len(lags) == count
        assert 1 <= lags[0] <= nearest
        assert lags[-1] <= farthest
        assert all(0 < b - a <= 2 for a, b in itertools.pairwise(lags))


# --- the optimum --------------------------------------------------------------------------------------------------


def random_prices(seed: int, steps: int = 5, signed: bool = False) -> PriceList:
    """Made-up prices of three members, an answer carried on, one held, and the inside of the global network kept."""
    rng = np.random.default_rng(seed)
    names, times = ("global", "small", "pixel"), np.linspace(1.0, 0.1, steps)
    distance = rng.exponential(size=(steps, 3)) * np.array([0.0, 1.0, 3.0])
    gap = distance * (rng.choice([-0.3, 1.0], size=distance.shape) if signed else 1.0)
    table = LossTable(
        times=times, names=names, radii=(None, 3, 0), reference="global", loss=5 + gap, loss_stderr=0.1 + 0 * gap,
        gap=gap, gap_stderr=0.05 * np.abs(gap), distance=distance, distance_stderr=0.05 * distance,
        log_snr=np.log((1 - times) ** 2 / times**2 + 1e-9), data_std=0.3, n=100, seed=0, path={"name": "linear"},
    )  # fmt: skip
    columns = [("on", lags, "") for lags in lags_of(2, 3, steps - 1)]
    columns += [("held", lags, "") for lags in lags_of(1, 2, steps - 1)]
    columns += [("deep", lags, "global") for lags in lags_of(1, 2, steps - 1)]
    shape, there = (steps, len(columns)), np.array([[k >= c[1][-1] for c in columns] for k in range(steps)])
    lost = np.where(there, rng.exponential(size=shape) * [0.3 * sum(c[1]) for c in columns], np.nan)
    weights = np.full((*shape, 3), np.nan)
    for c, (_, lags, _of) in enumerate(columns):
        weights[:, c, : len(lags)] = (2.0, -1.0)[: len(lags)] if len(lags) > 1 else (1.0,)
    reuse = ReusePrices(
        times=times,
        names=tuple(c[0] for c in columns), lags=tuple(c[1] for c in columns), of=tuple(c[2] for c in columns),
        loss=5 + lost, loss_stderr=0.1 * lost, gap=lost, gap_stderr=0.1 * lost, distance=lost,
        distance_stderr=0.1 * lost, weights=weights,
        flops=np.array([{"on": 1e3, "held": 1e2, "deep": 3e6}[c[0]] for c in columns]),
        ms=np.ones(len(columns)), n=100, seed=0, trajectories="noised",
    )  # fmt: skip
    return PriceList(table, flops=np.array([8e6, 2e6, 1e4]), ms=np.array([4.0, 1.0, 0.1]), reuse=reuse)


def all_ways(charges: Charges) -> list[tuple[tuple[str, ...], float, float, float]]:
    """(assignment, cost, sum, worst) of every assignment that can be: tried one by one."""
    found = []
    for assignment in itertools.product(charges.names, repeat=len(charges.prices.times)):
        try:
            walk = charges.walk(assignment)
        except PhasewiseError:
            continue
        found.append((assignment, float(walk.mflop.sum()), float(walk.value.sum()), float(walk.value.max())))
    return found


@pytest.mark.parametrize("objective", ["sum", "max"])
@given(seed=st.integers(0, 10_000), penalty=st.sampled_from(["w2", "flow", "kl"]))
@settings(max_examples=4, deadline=None)
def test_the_front_is_that_of_all_assignments_tried_one_by_one(objective: str, seed: int, penalty: str) -> None:
    prices = random_prices(seed, steps=4, signed=penalty != "w2")
    charges = Charges(prices, penalty, "ancestral")
    every = all_ways(charges)
    cost, lost = np.array([w[1] for w in every]), np.array([w[2 if objective == "sum" else 3] for w in every])
    keep = undominated(cost, lost)
    front = pw.pareto_front(prices, penalty=penalty, solver="ancestral", objective=objective)
    assert front.objective == objective
    np.testing.assert_allclose(front.mflop, cost[keep], rtol=1e-9)
    np.testing.assert_allclose(front.penalty, lost[keep], rtol=1e-9)
    for assignment, penalty_there in zip(front.assignments, front.penalty, strict=True):
        walk = charges.walk(assignment)
        whole = walk.value.sum() if objective == "sum" else walk.value.max()
        assert whole == pytest.approx(float(penalty_there), rel=1e-9)


def test_without_reuse_both_searches_give_one_front() -> None:
    prices = random_prices(1)
    plain = pw.pareto_front(prices, penalty="w2", members=["global", "small", "pixel"], solver="ancestral")
    charges = Charges(prices, "w2", "ancestral")
    from phasewise.scheduling.ways import ways_through

    cost, lost, assignments = ways_through(charges, ["global", "small", "pixel"], "mflop")
    np.testing.assert_allclose(cost, plain.mflop)
    np.testing.assert_allclose(lost, plain.penalty)
    assert tuple(assignments) == plain.assignments


def test_answers_of_a_poor_member_are_charged_when_they_are_carried_on() -> None:
    prices = random_prices(2)
    charges = Charges(prices, "w2", "ancestral")
    good = charges.walk(("global", "global", "on", "global", "global"))
    poor = charges.walk(("small", "small", "on", "global", "global"))
    mixed = charges.walk(("small", "global", "on", "global", "global"))
    own = charges.value[2, 1]  # of "small" at this step; weights 2 and -1 of one member are one
    assert poor.value[2] - good.value[2] == pytest.approx(own)
    assert mixed.value[2] - good.value[2] == pytest.approx(own)
    assert charges.charged(0, "on", State()) is None


def test_schedules_with_reuse_are_chosen_priced_explained_and_sampled() -> None:
    prices = random_prices(5)
    plan = pw.optimise_schedule(prices, budget=0.5, penalty="w2", solver="ancestral")
    assert plan.mflop is not None
    assert plan.mflop <= 0.5 * 40
    assert set(plan.assignment) & {"on", "held", "deep"}
    again = schedule_from_assignment(prices, plan.assignment, penalty="w2", solver="ancestral")
    assert again == plan
    lines = pw.explain(plan, prices, penalty="w2")
    assert any("global would cost" in line for line in lines)
    worst = pw.optimise_schedule(prices, budget=0.5, penalty="w2", solver="ancestral", objective="max")
    charges = Charges(prices, "w2", "ancestral")
    assert charges.walk(worst.assignment).value.max() <= charges.walk(plan.assignment).value.max() + 1e-12
    members = {name: d for name, d in reuse_members().items() if name != "pixel"}
    real = pw.price_list(members, images(60), TIMES, n=30, solver="ancestral")
    plan = pw.optimise_schedule(real, budget=0.7, penalty="kl", solver="ancestral")
    assert {"on", "held"} & set(plan.assignment)
    assert torch.isfinite(pw.sample(pw.HybridDenoiser(members, plan), n=2)).all()


# --- bad input ----------------------------------------------------------------------------------------------------


def test_what_cannot_be_priced_is_named() -> None:
    prices = random_prices(3)
    with pytest.raises(PhasewiseError, match="step 1 by on leans on fresh steps that are not there"):
        schedule_from_assignment(prices, ("global", "on", "global", "global", "global"), solver="ancestral")
    with pytest.raises(PhasewiseError, match="no prices for 'nobody'"):
        schedule_from_assignment(prices, ("nobody",) * 5, solver="ancestral")
    with pytest.raises(PhasewiseError, match="heun calls a denoiser twice a step"):
        pw.pareto_front(prices, solver="heun")
    with pytest.raises(PhasewiseError, match="first step needs a member that leans on nothing"):
        pw.pareto_front(prices, members=["on", "held"], solver="ancestral")
    with pytest.raises(PhasewiseError, match="objective"):
        pw.pareto_front(prices, objective="mean", solver="ancestral")
    with pytest.raises(PhasewiseError, match="none of these denoisers leans on earlier steps"):
        measure_reuse({"global": WienerDenoiser.fit(images())}, images(10), TIMES)
    network = UNetDenoiser(SHAPE, width=8)
    with pytest.raises(PhasewiseError, match="deep keeps a part of a network that is not among the denoisers"):
        measure_reuse(
            {"global": WienerDenoiser.fit(images()), "deep": ReusedFeatures(network, "level1")}, images(10), TIMES
        )
    sampled = measure_reuse(reuse_members(), images(10), TIMES, solver="ddim")
    listed = pw.price_list({"global": reuse_members()["global"]}, images(60), TIMES, n=10)
    with pytest.raises(PhasewiseError, match="counts held-out losses"):
        pw.pareto_front(replace(listed, reuse=sampled), penalty="kl", solver="ddim")
    with pytest.warns(PhasewiseWarning, match="priced on sampled trajectories, which ancestral does not follow"):
        pw.pareto_front(replace(listed, reuse=sampled), solver="ancestral")
    with pytest.raises(PhasewiseError, match="held is kept from step to step, but heun"):
        pw.price_list(reuse_members(), images(60), TIMES, n=10, solver="heun")


def test_a_price_list_shows_who_leans_on_earlier_steps() -> None:
    prices = pw.price_list(reuse_members(), images(60), TIMES, n=10, solver="ancestral")
    shown = str(prices)
    assert "below, members that lean on earlier steps" in shown
    assert prices.reuse is not None
    assert [row[0] for row in prices.view().rows] == [*prices.names, *dict.fromkeys(prices.reuse.names)]


def test_a_part_that_costs_no_less_than_the_whole_is_left_out_and_said() -> None:
    class Split(PixelDenoiser):
        def reusable_parts(self) -> tuple[str, ...]:
            return ("inside",)

        def forward(self, x_t: torch.Tensor, t: float, cond: torch.Tensor | None = None) -> torch.Tensor:  # type: ignore[override]
            part, answer = site(self), super().forward(x_t, t)
            return answer if part is None else part("inside", lambda: answer)

    whole = Split.fit(images())
    kept = ReusedFeatures(whole, "inside")  # which saves nothing
    with pytest.warns(PhasewiseWarning, match="kept costs .* no less than global"):
        prices = pw.price_list({"global": whole, "kept": kept}, images(60), TIMES, n=10)
    assert prices.reuse is None
