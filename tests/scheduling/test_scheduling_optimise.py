"""The optimiser against brute force, prices against hand integrals, and what is refused."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import CosinePath, LinearPath, VarianceExplodingPath
from phasewise.results import LossTable, PriceList
from phasewise.runs import make_config
from phasewise.sampling import calls_per_step, get_solver, time_grid
from phasewise.sampling.solvers import Carry
from phasewise.scheduling import (
    PENALTIES,
    PenaltyFunction,
    baselines,
    explain,
    explain_ties,
    optimise_schedule,
    pareto_front,
    place_steps,
    prices_at,
    reference_mflop,
    register_penalty,
    schedule_from_assignment,
    step_penalties,
)
from phasewise.scheduling.optimise import as_good


def make_prices(gap, distance, flops, times=None):
    """A price list from arrays (S, N); column 0 is the reference."""
    gap, distance = np.asarray(gap, float), np.asarray(distance, float)
    steps, n = gap.shape
    times = time_grid(steps, t_min=0.05) if times is None else times
    zeros = np.zeros((steps, n))
    names = ("global", *(f"r{i}" for i in range(1, n)))
    table = LossTable(
        times=times, names=names, radii=(None, *range(1, n)), reference="global", loss=gap + 1, loss_stderr=zeros,
        gap=gap, gap_stderr=zeros + 0.01, distance=distance, distance_stderr=zeros + 0.01,
        log_snr=LinearPath().log_snr(_tensor(times)).numpy(),
        data_std=0.3, n=100, seed=0, path={"name": "linear"},
    )  # fmt: skip
    return PriceList(losses=table, flops=np.asarray(flops, float), ms=np.ones(n))


def span_penalties(prices, name):
    """Spans, and the end in the last row."""
    penalty = PENALTIES[name]
    return np.vstack([penalty.span(prices), penalty.stop(prices)[-1:]])


def _tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@st.composite
def price_lists(draw):
    steps, n = draw(st.integers(2, 5)), draw(st.integers(2, 3))
    numbers = st.floats(0, 5, allow_nan=False)
    gap = np.array(draw(st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=steps, max_size=steps)))
    distance = np.array(draw(st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=steps, max_size=steps)))
    gap[:, 0] = distance[:, 0] = 0
    flops = draw(st.lists(st.integers(1, 50), min_size=n, max_size=n))
    return make_prices(gap, distance, [f * 1e6 for f in flops])


@given(prices=price_lists(), penalty=st.sampled_from(["w2", "kl", "flow"]), solver=st.sampled_from(["euler", "heun"]))
@settings(max_examples=60, deadline=None)
def test_front_is_the_brute_force_front(prices, penalty, solver):
    price, _ = step_penalties(prices, penalty)
    steps, n = price.shape
    calls = calls_per_step(solver, steps)
    every = [
        (
            sum(calls[k] * prices.flops[i] / 1e6 for k, i in enumerate(pick)),
            sum(price[k, i] for k, i in enumerate(pick)),
        )
        for pick in itertools.product(range(n), repeat=steps)
    ]
    front = pareto_front(prices, penalty=penalty, solver=solver)
    for cost, total in zip(front.mflop, front.penalty, strict=True):
        best = min(p for c, p in every if c <= cost + 1e-9)
        assert total == pytest.approx(best, rel=1e-9, abs=1e-9)
    cheapest = min(c for c, _ in every)
    assert front.mflop[0] == pytest.approx(cheapest)
    assert front.penalty[-1] == pytest.approx(min(p for _, p in every), rel=1e-9, abs=1e-9)
    assert (np.diff(front.mflop) > 0).all()
    assert (np.diff(front.penalty) < 0).all()


@given(prices=price_lists(), share=st.floats(0.05, 1.0))
@settings(max_examples=40, deadline=None)
def test_optimum_within_a_budget_is_brute_force(prices, share):
    price, _ = step_penalties(prices, "w2")
    calls = calls_per_step("exp_ab2", len(price))
    limit = share * reference_mflop(prices, "exp_ab2")
    fits = [
        sum(price[k, i] for k, i in enumerate(pick))
        for pick in itertools.product(range(price.shape[1]), repeat=len(price))
        if sum(calls[k] * prices.flops[i] / 1e6 for k, i in enumerate(pick)) <= limit * (1 + 1e-9)
    ]
    if not fits:
        with pytest.raises(PhasewiseError, match="cheapest costs"):
            optimise_schedule(prices, share)
        return
    schedule = optimise_schedule(prices, share, ties=0)
    assert schedule.penalty == pytest.approx(min(fits), rel=1e-9, abs=1e-9)
    assert schedule.mflop <= limit * (1 + 1e-9)


def test_front_entries_are_what_their_servers_cost_and_lose():
    rng = np.random.default_rng(0)
    gap = np.abs(rng.normal(size=(6, 3))) * [0, 1, 2]
    prices = make_prices(gap, gap, [9e6, 2e6, 1e6])
    front = pareto_front(prices, penalty="kl")
    for i in range(0, len(front.mflop), 3):
        schedule = schedule_from_assignment(prices, front.assignments[i], penalty="kl")
        assert schedule.penalty == pytest.approx(front.penalty[i])
        assert schedule.mflop == pytest.approx(front.mflop[i])
        assert schedule.penalty_stderr == pytest.approx(front.penalty_stderr[i])


def test_kl_span_price_is_the_integral_over_gamma():
    """With gap = c / gamma the integrand of 1/2 gap d gamma is c/2 d log gamma: the trapezoid is exact."""
    times = time_grid(40, t_start=0.9, t_min=0.05)
    gamma = LinearPath().gamma(_tensor(times)).numpy()
    gap = np.stack([np.zeros(40), 3.0 / gamma], axis=1)
    price = span_penalties(make_prices(gap, gap, [2, 1], times), "kl")
    assert price[:-1, 1].sum() == pytest.approx(1.5 * np.log(gamma[-1] / gamma[0]))
    assert price[-1, 1] == pytest.approx(1.5)


def test_w2_span_price_is_the_integral_of_the_velocity_error():
    times = time_grid(50, t_min=0.1)
    distance = np.stack([np.zeros(50), 4.0 * np.square(times)], axis=1)  # |v - v_ref| = sqrt(distance) / t = 2
    price = span_penalties(make_prices(distance, distance, [2, 1], times), "w2")
    assert price[:-1, 1].sum() == pytest.approx(2 * 0.9)
    assert price[-1, 1] == pytest.approx(0.2)


def test_flow_span_price_is_the_integral_of_the_excess_loss():
    times = time_grid(50, t_min=0.1)
    gap = np.stack([np.zeros(50), -3.0 * np.square(times)], axis=1)  # |v_n - v|^2 is 3 less than the reference's
    price = span_penalties(make_prices(gap, gap**2, [2, 1], times), "flow")
    assert price[:-1, 1].sum() == pytest.approx(-3 * 0.9)
    assert price[-1, 1] == pytest.approx(-3 * 0.1)


def test_a_step_is_charged_what_its_denoiser_loses_where_it_is_asked():
    """Each finite-step price from its definition, on a path that is not linear; nothing of the next time is in it."""
    times, path = np.array((0.9, 0.5, 0.2)), CosinePath()
    gap, square = np.array([[0, 4.0], [0, 2.0], [0, 1.0]]), np.array([[0, 9.0], [0, 4.0], [0, 1.0]])
    prices = make_prices(gap, square, [2, 1], times)
    prices = replace(prices, losses=replace(prices.losses, path=path.config()), frechet=4 * square)
    t = _tensor((*times, 0.0))
    alpha, sigma = path.alpha(t).numpy(), path.sigma(t).numpy()
    gamma = path.gamma(t[:3]).numpy()
    push = alpha[1:] - alpha[:-1] * sigma[1:] / sigma[:-1]
    assert push[-1] == pytest.approx(1)
    expected = {
        "kl": gap[:, 1] * np.append(np.diff(gamma), gamma[-1]) / 2,
        "w2": np.array([3.0, 2.0, 1.0]) * push,
        "flow": gap[:, 1] * path.velocity_gain(t[:3]).numpy() ** 2 * np.array([0.4, 0.3, 0.2]),
        "frechet": np.array([6.0, 4.0, 2.0]) * push,
    }
    for penalty, price in expected.items():
        assert np.allclose(step_penalties(prices, penalty)[0][:, 1], price), penalty
        assert (step_penalties(prices, penalty)[0][:, 0] == 0).all()


def test_errors_of_step_prices_are_those_of_what_they_are_made_of():
    """kl and flow are linear in the gap; the root of d with error e has error sqrt(d + e) - sqrt(d)."""
    gap = np.array([[0, 4.0], [0, 2.0], [0, 1.0]])
    prices = make_prices(gap, gap, [2, 1], (0.9, 0.5, 0.2))
    prices = replace(prices, frechet=gap, frechet_stderr=np.full((3, 2), 0.5))
    for penalty in ("kl", "flow"):
        price, error = step_penalties(prices, penalty)
        assert np.allclose(error[:, 1] / 0.01, np.abs(price[:, 1]) / gap[:, 1])
    for penalty, stderr in (("w2", 0.01), ("frechet", 0.5)):
        price, error = step_penalties(prices, penalty)
        root = np.sqrt(gap[:, 1])
        assert np.allclose(error[:, 1] / price[:, 1], (np.sqrt(gap[:, 1] + stderr) - root) / root)


def test_the_denoise_is_charged_whole_on_a_path_that_ends_with_noise():
    path, square = VarianceExplodingPath(), np.array([[0, 9.0], [0, 4.0]])
    prices = make_prices(square, square, [2, 1], (0.9, 0.2))
    prices = replace(prices, losses=replace(prices.losses, path=path.config()), frechet=square)
    for penalty in ("w2", "frechet"):
        price = step_penalties(prices, penalty)[0][:, 1]
        sigma = path.sigma(_tensor((0.9, 0.2))).numpy()
        assert np.allclose(price, [3 * (1 - sigma[1] / sigma[0]), 2])


def test_frechet_distances_are_carried_to_another_grid_in_velocity_units():
    times = np.array((0.8, 0.4, 0.2))
    square = np.stack([np.zeros(3), 9 * times**2], 1)  # constant times 1 / t^2
    prices = replace(make_prices(square, square, [2, 1], times), frechet=square, frechet_stderr=square / 10)
    moved = prices_at(prices, (0.8, 0.5, 0.3))
    assert np.allclose(moved.frechet[:, 1], 9 * np.square((0.8, 0.5, 0.3)))
    assert np.allclose(moved.frechet_stderr, moved.frechet / 10)
    assert np.allclose(prices_at(prices, times).frechet, square)


def test_lists_written_before_there_were_frechet_distances_load():
    gap = np.array([[0, 1.0], [0, 4.0]])
    content = make_prices(gap, gap, [10, 1]).to_dict()
    for key in ("frechet", "frechet_stderr", "growth"):
        content.pop(key, None)
    assert pareto_front(PriceList.from_dict(content)).penalty_name == "w2"


def test_one_long_step_moves_as_far_off_course_as_the_sampler_does():
    """The penalty w2 of a step is what an exact step by the other denoiser changes: here of dpmpp_2m's first one."""
    path, x = LinearPath(), torch.randn(2, 1, 3, 3)

    class Constant(Denoiser):
        def __init__(self, answer):
            super().__init__((1, 3, 3), path)
            self.answer = answer

        def forward(self, x_t, t, cond=None):
            return torch.full_like(x_t, self.answer)

    step = get_solver("dpmpp_2m").step
    a, b = (step(Constant(answer), x, 0.9, 0.3, Carry()) for answer in (0.0, 2.0))
    distance = np.array([[0, 4.0 * 9], [0, 0.0]])
    price, _ = step_penalties(make_prices(distance, distance, [2, 1], (0.9, 0.3)), "w2")
    assert price[0, 1] == pytest.approx(float((a - b)[0].norm()), rel=1e-5)


def test_the_default_penalty_is_what_was_measured():
    gap = np.array([[0, 1.0], [0, 4.0], [0, 1.0]])
    plain = make_prices(gap, gap, [10, 1], (0.9, 0.5, 0.1))
    seen = replace(plain, frechet=gap[::-1].copy())
    assert pareto_front(plain).penalty_name == "w2"
    assert pareto_front(seen).penalty_name == "frechet"
    assert np.array_equal(step_penalties(seen)[0], step_penalties(seen, "frechet")[0])
    assert optimise_schedule(seen, 0.6).penalty_unit == "feature units"
    assert optimise_schedule(seen, 0.6, front=pareto_front(seen, penalty="kl")).penalty_unit == "nats"
    assert np.array_equal(PriceList.from_dict(seen.to_dict()).frechet, seen.frechet)
    with pytest.raises(PhasewiseError, match="computed by the penalty kl, not w2"):
        optimise_schedule(seen, 0.6, penalty="w2", front=pareto_front(seen, penalty="kl"))
    with pytest.raises(PhasewiseError, match="without features"):
        pareto_front(plain, penalty="frechet")
    with pytest.raises(PhasewiseError, match=r"frechet of r1 at t = 0\.5 is not a number"):
        pareto_front(replace(seen, frechet=np.where(gap == 4, np.nan, gap)))
    with pytest.raises(PhasewiseError, match="kl, w2, flow; frechet prices the steps of a given grid"):
        place_steps(seen, budget=1, penalty="frechet")


def test_tolerance_gives_the_cheapest_that_reaches_it():
    gap = np.array([[0, 1.0]] * 4)
    prices = make_prices(gap, gap, [10e6, 1e6])
    front = pareto_front(prices)
    schedule = optimise_schedule(prices, tolerance=float(front.penalty[2]))
    assert schedule.assignment == front.assignments[2]
    with pytest.raises(PhasewiseError, match="the lowest is"):
        optimise_schedule(prices, tolerance=-1.0)


def test_published_window():
    assignment = baselines.window((1.0, 0.6, 0.5, 0.3, 0.2, 0.1), (0.2, 0.5), "global", "r3")
    assert assignment == ("r3", "r3", "global", "global", "global", "r3")
    with pytest.raises(PhasewiseError, match="interval"):
        baselines.window((1.0, 0.5), (0.5, 0.2), "a", "b")


@given(st.integers(1, 30), st.floats(0, 1))
def test_baselines_give_the_small_one_its_share_of_the_steps(n, fraction):
    times = time_grid(n) if n > 1 else (1.0,)
    stitched, spread = (make(times, "small", "large", fraction) for make in (baselines.t_stitch, baselines.spread))
    count = round(fraction * n)
    assert stitched == ("small",) * count + ("large",) * (n - count)
    assert sorted(spread) == sorted(stitched)
    at = [k for k, name in enumerate(spread) if name == "small"]
    gaps = {b - a for a, b in zip(at, at[1:], strict=False)}
    assert not gaps or max(gaps) - min(gaps) <= 1  # as even as whole steps allow


def test_a_share_is_a_fraction():
    for make in (baselines.t_stitch, baselines.spread):
        with pytest.raises(PhasewiseError, match=r"must lie in \[0, 1\], got 1.5"):
            make((1.0, 0.5), "small", "large", 1.5)


def last_two(prices):
    """Only the last two steps count."""
    price = prices.losses.gap * (np.arange(len(prices.times)) >= len(prices.times) - 2)[:, None]
    return price, np.zeros_like(price)


late = PenaltyFunction(last_two, name="late", unit="squared pixels", meaning="What the last two steps lose.")
flat = PenaltyFunction(lambda prices: np.ones(3), name="flat")


def test_a_penalty_of_ones_own_decides():
    gap = np.array([[0, 1.0]] * 4)
    prices = make_prices(gap, gap, [10e6, 1e6])
    chosen = optimise_schedule(prices, 0.6, penalty=late)
    assert chosen.assignment == ("r1", "r1", "global", "global")
    assert chosen.penalty == 0
    front = pareto_front(prices, penalty=late)
    assert front.penalty_name == "late"
    assert list(front.penalty) == [2, 1, 0]
    assert optimise_schedule(prices, 0.6, penalty=late, front=front) == chosen
    assert chosen.penalty_unit == front.penalty_unit == "squared pixels"
    assert explain(chosen, prices, penalty=late)
    with pytest.raises(PhasewiseError, match="computed by the penalty late, not w2"):
        optimise_schedule(prices, 0.6, front=front)
    with pytest.raises(PhasewiseError, match="computed by the penalty w2, not late"):
        optimise_schedule(prices, 0.6, penalty=late, front=pareto_front(prices))


def test_a_penalty_called_like_a_built_in_one_is_refused():
    prices = make_prices(np.array([[0, 1.0]] * 4), np.array([[0, 1.0]] * 4), [10e6, 1e6])
    with pytest.raises(PhasewiseError, match="there is a penalty 'w2' already"):
        pareto_front(prices, penalty=PenaltyFunction(last_two, name="w2"))
    with pytest.raises(PhasewiseError, match="wrap a function"):
        pareto_front(prices, penalty=last_two)


def test_a_penalty_is_one_object_and_known_everywhere_once_registered(monkeypatch):
    """As docs and CONTRIBUTING say: the front, the schedule and its explanation name it, and a config takes it."""
    monkeypatch.setattr(PENALTIES, "_entries", dict(PENALTIES.items()))
    register_penalty(late)
    prices = make_prices(np.array([[0, 1.0]] * 4), np.array([[0, 1.0]] * 4), [10e6, 1e6])
    front = pareto_front(prices, penalty="late")
    assert (front.penalty_name, front.penalty_meaning) == ("late", "What the last two steps lose.")
    chosen = optimise_schedule(prices, 0.6, penalty="late")
    assert (chosen.penalty_name, chosen.penalty_unit) == ("late", "squared pixels")
    assert any("squared pixels" in line for line in explain(chosen, prices))
    assert make_config(8, penalty="late").schedule.penalty == "late"


def test_steps_are_not_placed_by_a_penalty_of_ones_own():
    prices = make_prices(np.array([[0, 1.0]] * 4), np.array([[0, 1.0]] * 4), [10e6, 1e6])
    with pytest.raises(PhasewiseError, match="steps are placed by one of the penalties kl, w2, flow; late prices"):
        place_steps(prices, budget=1, penalty=late)


def test_a_budget_in_milliseconds_follows_the_clock_not_the_flops():
    gap = np.array([[0, 0.5, 1.0]] * 4)
    prices = replace(make_prices(gap, gap, [10e6, 5e6, 4e6]), ms=np.array([10.0, 2.0, 6.0]))  # r2: few FLOPs, slow
    front = pareto_front(prices, penalty="flow", cost="ms")
    assert all("r2" not in assignment for assignment in front.assignments)
    assert np.allclose(
        front.ms, [sum({"global": 10, "r1": 2}[s] for s in assignment) for assignment in front.assignments]
    )
    assert (np.diff(front.ms) > 0).all()
    chosen = optimise_schedule(prices, 0.5, penalty="flow", cost="ms")
    assert sum(s == "global" for s in chosen.assignment) == 1  # 20 of 40 ms: 10 + 3 x 2, not 2 x 10 + 2 x 2
    assert any("r2" in assignment for assignment in pareto_front(prices, penalty="flow").assignments)
    with pytest.raises(PhasewiseError, match="the front counts ms, the budget mflop; give cost='ms' or no front"):
        optimise_schedule(prices, 0.5, penalty="flow", front=front)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: optimise_schedule(p), "either budget"),
        (lambda p: optimise_schedule(p, 0.0), r"budget must lie in \(0, 1\]"),
        (lambda p: optimise_schedule(p, 0.5, penalty="x"), "known: kl, w2, flow"),
        (lambda p: optimise_schedule(p, 0.5, members=["r9"]), "no prices for r9"),
        (lambda p: schedule_from_assignment(p, ["global"]), "1 members for a grid of 4"),
        (lambda p: pareto_front(p, solver="rk"), "known: euler, heun"),
        (lambda p: pareto_front(p, cost="gold"), "cost is counted in 'mflop' or 'ms', not 'gold'"),
        (
            lambda p: pareto_front(p, penalty=flat),
            r"flat must give \(value, stderr\), two finite arrays of shape \(4, 2",
        ),
    ],
)
def test_refusals(change, message):
    gap = np.array([[0, 1.0]] * 4)
    with pytest.raises(PhasewiseError, match=message):
        change(make_prices(gap, gap, [10e6, 1e6]))


def test_nan_prices_and_rising_grids_are_refused():
    gap = np.array([[0, 1.0]] * 3)
    bad = gap.copy()
    bad[1, 1] = np.nan
    with pytest.raises(PhasewiseError, match=r"r1 at t = 0\.5"):
        step_penalties(make_prices(bad, gap, [2, 1], (1.0, 0.5, 0.1)), "kl")
    with pytest.raises(PhasewiseError, match="must decrease"):
        step_penalties(make_prices(gap, gap, [2, 1], (0.1, 0.5, 0.9)), "w2")


def test_prices_carried_over_to_another_grid_meet_those_measured_there():
    """At measured times they stay; between, they are near what was left out (a smooth gap in velocity units)."""
    times = np.linspace(1, 0.05, 20)
    smooth = np.stack([np.zeros(20), (np.sin(3 * times) + 2) * times**2], 1)
    full = make_prices(smooth, smooth, [3e6, 1e6], times)
    half = make_prices(smooth[::2], smooth[::2], [3e6, 1e6], times[::2])
    kept = prices_at(full, times[::2])
    assert np.allclose(kept.losses.gap, half.losses.gap)
    inner = times[1:18]
    assert np.allclose(prices_at(half, inner).losses.distance, smooth[1:18], rtol=0.01)
    assert np.allclose(prices_at(half, inner).losses.log_snr, full.losses.log_snr[1:18])
    with pytest.raises(PhasewiseError, match=r"no prices at t = 0.01: they were measured from 0.05 to 1"):
        prices_at(full, [0.5, 0.01])
    with pytest.raises(PhasewiseError, match="decrease strictly"):
        prices_at(full, [0.1, 0.5])


@pytest.mark.parametrize(
    ("mflop", "steps"),
    [(1.0, 2), (20.0, 2), (20.1, 3), (50.0, 5), (50.1, 6), (60.0, 6), (62.0, 7), (75.0, 7), (80.0, 7)],
)
def test_fewer_steps_cost_as_much_or_the_next_more(mflop, steps):
    """Never cheaper than what they are compared with, as long as they are fewer than the grid's eight."""
    gap = np.tile([0, 1.0], (8, 1))
    plan = baselines.fewer_steps(make_prices(gap, gap, [10e6, 1e6]), mflop, "exp_ab2")
    assert plan.assignment == ("global",) * steps
    assert plan.mflop == pytest.approx(10.0 * steps)
    assert plan.mflop >= mflop or steps == 7


def nearly_tied(nudge=0.0):
    """Two members that lose alike within the error of 0.01, one at a tenth of the cost; a third that loses much."""
    gap = np.tile([0, 1.0, 1.001 + nudge, 3.0], (4, 1))
    return make_prices(gap, gap, [10e6, 5e6, 1e6, 0.5e6])


def test_of_schedules_as_good_within_error_the_cheapest_is_taken():
    """Whichever of the two leads in the last digits, as another number of threads might have it."""
    for nudge in (0.0, -0.002, 1e-9):
        prices = nearly_tied(nudge)
        front = pareto_front(prices, penalty="flow")
        schedule = optimise_schedule(prices, 0.5, penalty="flow", front=front)
        assert "r1" not in schedule.assignment, "r2 costs less and loses no more within error"
        least = optimise_schedule(prices, 0.5, penalty="flow", ties=0)
        assert least.penalty <= schedule.penalty
        assert schedule.penalty - least.penalty <= np.hypot(schedule.penalty_stderr, least.penalty_stderr)
        assert schedule.mflop <= least.mflop
    told = explain_ties(optimise_schedule(nearly_tied(), 0.5, penalty="flow"), nearly_tied(), front, 0.5)
    assert len(told) == 1
    assert "are as good within error" in told[0]
    assert "the cheapest was taken by measured time" in told[0]
    with pytest.raises(PhasewiseError, match="at least 0; got -1"):
        optimise_schedule(nearly_tied(), 0.5, penalty="flow", ties=-1)


def timed(ms):
    """:func:`nearly_tied`, its members' calls taking so many ms an image."""
    return replace(nearly_tied(), ms=np.asarray(ms, float))


def test_the_cheapest_of_those_as_good_is_the_one_of_least_measured_time():
    """The member of half the FLOPs takes twice as long; words name the milliseconds."""
    prices = timed([10.0, 1.0, 2.0, 0.5])
    front = pareto_front(prices, penalty="flow")
    schedule = optimise_schedule(prices, 0.5, penalty="flow", front=front)
    taken = front.assignments.index(schedule.assignment)
    fits = np.flatnonzero(front.mflop <= 20 * (1 + 1e-9))
    tied = as_good(prices, front, int(fits[-1]), penalty="flow")
    assert tied[0] == taken
    assert front.ms[taken] <= front.ms[tied].min() * 1.05
    assert front.mflop[taken] > front.mflop[tied].min(), "FLOPs alone would have chosen another"
    told = explain_ties(schedule, prices, front, 0.5)
    assert f"by measured time, {front.ms[taken]:.3g} ms an image of {front.ms[tied].min():.3g} to" in told[0]


@given(noise=st.lists(st.floats(0.98, 1.02), min_size=4, max_size=4), nudge=st.floats(-1e-9, 1e-9))
def test_times_that_repeat_to_some_hundredths_do_not_choose(noise, nudge):
    """Neither the luck of the clock nor the last digits, as another number of threads has them."""
    usual = optimise_schedule(timed([10.0, 1.0, 1.0, 0.5]), 0.5, penalty="flow")
    prices = replace(nearly_tied(nudge), ms=np.array([10.0, 1.0, 1.0, 0.5]) * noise)
    assert optimise_schedule(prices, 0.5, penalty="flow").assignment == usual.assignment


@given(prices=price_lists(), share=st.floats(0.3, 1.0))
@settings(max_examples=40, deadline=None)
def test_the_choice_is_as_good_as_the_best_and_no_cheaper_one_is(prices, share):
    front = pareto_front(prices, penalty="w2")
    if front.mflop[0] > share * reference_mflop(prices):
        return
    chosen = optimise_schedule(prices, share, penalty="w2", front=front)
    least = optimise_schedule(prices, share, penalty="w2", front=front, ties=0)
    _, stderr = step_penalties(prices, "w2")
    column = {n: i for i, n in enumerate(prices.names)}

    def gap_and_error(assignment, penalty):
        apart = [(k, column[a], column[b]) for k, (a, b) in enumerate(zip(assignment, least.assignment, strict=True))]
        error = np.sqrt(sum(stderr[k, i] ** 2 + stderr[k, j] ** 2 for k, i, j in apart if i != j))
        return penalty - least.penalty, error

    lost, error = gap_and_error(chosen.assignment, chosen.penalty)
    assert lost <= error + 1e-12
    for mflop, penalty, assignment in zip(front.mflop, front.penalty, front.assignments, strict=True):
        if mflop < chosen.mflop * (1 - 1e-9):
            lost, error = gap_and_error(assignment, penalty)
            assert lost > error - 1e-12


def test_words_do_not_reason_about_what_lies_within_the_error():
    gap = np.array([[0, 0.001], [0, 3.0], [0, 0.001]])
    prices = make_prices(gap, gap, [10e6, 1e6])
    plan = schedule_from_assignment(prices, ("global", "global", "r1"), penalty="flow")
    first, last = explain(plan, prices, penalty="flow")
    assert "r1 would save 18 MFLOP there and add" in first
    assert last.endswith("global would cost 9 MFLOP more and be as good within error")
    alone = schedule_from_assignment(prices, ("global", "r1", "r1"), penalty="flow")
    assert explain(alone, prices, penalty="flow")[0].endswith("r1 would save 9 MFLOP there and be as good within error")
