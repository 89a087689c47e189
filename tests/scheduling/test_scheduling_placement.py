"""Who serves and where the steps lie: against brute force, and against what the choice really does on Gaussian data."""

import itertools

import numpy as np
import pytest
from plain_denoiser import Plain
from test_scheduling_optimise import make_prices, span_penalties

import phasewise as pw
from phasewise.errors import PhasewiseError
from phasewise.results import StepErrors
from phasewise.sampling import integrate, starting_noise, time_grid
from phasewise.scheduling import PENALTIES, penalty_of, step_penalties
from phasewise.scheduling.step_errors import measure_growth

SHAPE = (1, 4, 4)
PATH = {"name": "linear"}


def make_errors(times, seed=0, solver="heun"):
    """Longer steps stray further."""
    size = len(times)
    rng = np.random.default_rng(seed)
    error = np.full((size, size), np.nan)
    for i, j in itertools.combinations(range(size), 2):
        error[i, j] = (times[i] - times[j]) ** 2 * rng.uniform(0.5, 2)
    return StepErrors(times, error, np.asarray(times) * 0.7, solver, 10, 0, PATH)


def random_prices(size, members, seed, jumps=()):
    rng = np.random.default_rng(seed)
    gap, distance = rng.uniform(0, 1, (2, size, members))
    gap[:, 0] = distance[:, 0] = 0
    prices = make_prices(gap, distance, rng.integers(1, 20, members) * 1e6)
    return pw.results.PriceList(prices.losses, prices.flops, prices.ms, jumps=jumps)


def every_way(size, members, only_last):
    """All (node, member) sequences from node 0 to an end."""
    for middle in itertools.chain.from_iterable(itertools.combinations(range(1, size), k) for k in range(size)):
        nodes = (0, *middle)
        if only_last and nodes[-1] != size - 1:
            continue
        for assignment in itertools.product(range(members), repeat=len(nodes)):
            yield list(zip(nodes, assignment, strict=True))


@pytest.mark.parametrize("penalty", ["w2", "flow", "kl"])
@pytest.mark.parametrize("seed", range(4))
def test_front_is_the_brute_force_front(penalty, seed):
    size, members = 5, 2
    prices = random_prices(size, members, seed, jumps=("r1",) if seed % 2 else ())
    errors = make_errors(prices.times, seed)
    front = pw.scheduling.placement_front(prices, None if penalty == "kl" else errors, penalty=penalty, end_by=1.0)
    edge, stop = PENALTIES[penalty].edges(prices, errors)
    calls = 1 if penalty == "kl" else 2
    points = []
    for way in every_way(size, members, penalty == "kl"):
        nodes, assignment = zip(*way, strict=True)
        price = (
            sum(edge[a, b, n] for a, b, n in zip(nodes, nodes[1:], assignment, strict=False))
            + stop[nodes[-1], assignment[-1]]
        )
        often = [1 if prices.names[n] in prices.jumps else calls for n in assignment[:-1]] + [1]
        points.append((sum(c * prices.flops[n] / 1e6 for c, n in zip(often, assignment, strict=True)), price))
    for cost, price, schedule in zip(front.cost, front.penalty, front.schedules, strict=True):
        assert price == pytest.approx(min(p for c, p in points if c <= cost + 1e-9))
        again = penalty_of(prices, None if penalty == "kl" else errors, schedule, penalty)
        assert again == pytest.approx(price)
        assert (schedule.mflop, schedule.penalty) == (pytest.approx(cost), pytest.approx(price))
    cheapest = min(c for c, _ in points)
    assert front.cost[0] == pytest.approx(cheapest)
    assert front.penalty[-1] == pytest.approx(min(p for _, p in points))


def test_span_prices_add_up_to_those_of_the_fixed_grid():
    """Taking every candidate time, the price is that of the fixed-grid optimiser plus the step errors."""
    prices, n = random_prices(6, 2, 1), 1
    errors = make_errors(prices.times)
    edge, stop = PENALTIES["w2"].edges(prices, errors)
    total = sum(edge[k, k + 1, n] for k in range(5)) + stop[5, n]
    strayed = sum(errors.error[k, k + 1] for k in range(5)) + errors.stop[5]
    assert total - strayed == pytest.approx(span_penalties(prices, "w2")[:, n].sum())


def test_classes_of_cost_stay_near_the_exact_front(monkeypatch):
    prices = random_prices(9, 3, 7)
    errors = make_errors(prices.times)
    exact = pw.scheduling.placement_front(prices, errors)
    monkeypatch.setattr("phasewise.scheduling.placement.WAYS", 40)
    rough = pw.scheduling.placement_front(prices, errors)
    for cost in np.linspace(exact.cost[0] * 1.2, exact.cost[-1], 12):
        best = exact.penalty[exact.cost <= cost][-1]
        assert rough.penalty[rough.cost <= cost][-1] <= best + 0.1 * (exact.penalty[0] - exact.penalty[-1])


@pytest.fixture(scope="module")
def gaussian():
    field = pw.exact.GaussianField((4, 4), mass=0.1)
    return pw.WienerDenoiser.fit(field.sample(4000, 0)).double()


@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_placed_steps_end_nearer_to_the_true_path_than_even_ones(gaussian, solver):
    plain = Plain(gaussian)
    candidates = time_grid(20, t_min=0.02)
    errors = pw.scheduling.measure_step_errors(plain, candidates, solver=solver, n=32, seed=1)
    zeros = np.zeros((20, 1))
    prices = make_prices(zeros, zeros, [1e6], candidates)
    x = starting_noise(200, SHAPE, seed=5).double()
    truth = gaussian.jump(x, 1.0, 1e-6)
    calls = pw.sampling.get_solver(solver).calls
    for steps in (5, 8):
        placed = pw.scheduling.place_steps(prices, errors, budget=float(calls * (steps - 1) + 1))
        assert len(placed.times) == steps

        def off(grid):
            return float((integrate(plain, x, grid, solver) - truth).square().sum((1, 2, 3)).mean().sqrt())

        assert off(placed.times) < 0.9 * off(time_grid(steps, t_min=0.02))
        assert off(placed.times) < 1.2 * placed.penalty  # the errors of the steps bound that of the whole


def test_a_known_flow_is_free_of_step_errors_and_costs_one_call(gaussian):
    members = {"global": Plain(gaussian), "wiener": gaussian}
    images = pw.exact.GaussianField((4, 4), mass=0.1).sample(400, 3)
    float_members = {k: d.float() for k, d in members.items()}
    prices = pw.price_list(float_members, images, time_grid(8, t_min=0.05), n=50, truth="reference")
    assert prices.jumps == ("wiener",)
    errors = pw.scheduling.measure_step_errors(float_members["global"], prices.times, n=8)
    best = pw.scheduling.placement_front(prices, errors, penalty="w2").schedules[-1]
    assert best.assignment[0] == "wiener"  # equal denoisers: the one that jumps is never worse
    assert best.penalty == pytest.approx(errors.stop[-1], rel=0.05)
    gaussian.double()


def test_the_last_step_starts_by_the_time_asked_for():
    prices = random_prices(9, 2, 4)
    errors = make_errors(prices.times)
    early = pw.scheduling.placement_front(prices, errors, end_by=0.5).schedules
    assert all(s.times[-1] <= 0.5 for s in early)
    assert any(s.times[-1] > 0.1 for s in early)
    assert all(s.times[-1] <= 0.1 for s in pw.scheduling.placement_front(prices, errors).schedules)
    with pytest.raises(PhasewiseError, match=r"at or below end_by 0.01; the last is 0.05"):
        pw.scheduling.place_steps(prices, errors, budget=50, end_by=0.01)


def test_what_is_refused():
    prices = random_prices(5, 2, 0)
    errors = make_errors(prices.times)
    with pytest.raises(PhasewiseError, match=r"no schedule fits 0.5 mflop an image; the cheapest costs"):
        pw.scheduling.place_steps(prices, errors, budget=0.5)
    with pytest.raises(PhasewiseError, match="no schedule reaches a penalty of -9; the lowest is"):
        pw.scheduling.place_steps(prices, errors, tolerance=-9)
    with pytest.raises(PhasewiseError, match="either budget"):
        pw.scheduling.place_steps(prices, errors)
    with pytest.raises(PhasewiseError, match="needs step errors"):
        pw.scheduling.place_steps(prices, budget=50)
    with pytest.raises(PhasewiseError, match="prices ODE steps, not 'ancestral'"):
        pw.scheduling.place_steps(prices, errors, budget=50, solver="ancestral")
    with pytest.raises(PhasewiseError, match="asked for is euler"):
        pw.scheduling.place_steps(prices, errors, budget=50, solver="euler")
    with pytest.raises(PhasewiseError, match="different times"):
        pw.scheduling.place_steps(prices, make_errors(np.asarray(prices.times) * 0.9), budget=50)
    with pytest.raises(PhasewiseError, match="no prices for r9"):
        pw.scheduling.place_steps(prices, errors, budget=50, members=["r9"])
    with pytest.raises(PhasewiseError, match="'mflop' or 'ms'"):
        pw.scheduling.place_steps(prices, errors, budget=50, cost="watts")
    with pytest.raises(PhasewiseError, match="no ODE path"):
        pw.scheduling.measure_step_errors(pw.WienerDenoiser(SHAPE), (0.9, 0.1), solver="ancestral")
    with pytest.raises(PhasewiseError, match="do not add up"):
        pw.scheduling.measure_step_errors(pw.WienerDenoiser(SHAPE), (0.9, 0.1), solver="exp_ab2")
    with pytest.raises(PhasewiseError, match="decrease"):
        pw.scheduling.measure_step_errors(pw.WienerDenoiser(SHAPE), (0.1, 0.9))


def test_a_schedule_off_the_candidates_or_of_another_solver_has_no_price():
    prices = random_prices(5, 2, 0)
    errors, times = make_errors(prices.times), tuple(prices.times)
    schedule = pw.HybridSchedule(times, ("global",) * 5, "heun", PATH)
    assert penalty_of(prices, errors, schedule) > 0
    assert penalty_of(prices, errors, pw.HybridSchedule(times, ("global",) * 5, "euler", PATH)) is None
    assert penalty_of(prices, errors, pw.HybridSchedule((1.0, 0.77), ("global",) * 2, "heun", PATH)) is None
    with pytest.raises(PhasewiseError, match="no prices for r7"):
        penalty_of(prices, errors, pw.HybridSchedule(times, ("r7",) * 5, "heun", PATH))


def test_costs_in_milliseconds_follow_the_measured_ones():
    prices = random_prices(5, 2, 3)
    slow = pw.results.PriceList(prices.losses, prices.flops, np.array([1.0, 50.0]))
    front = pw.scheduling.placement_front(slow, make_errors(prices.times), cost="ms", end_by=1.0)
    assert front.cost[0] == pytest.approx(1.0)
    assert set(front.schedules[0].assignment) == {"global"}


def test_growth_is_how_a_push_grows_on_gaussian_data():
    """A denoiser off by a constant along one eigenvector: the flow stretches the push by the ratio of that mode's
    standard deviations."""
    field = pw.exact.GaussianField((4, 4), mass=0.1)
    wiener = pw.WienerDenoiser.fit(field.sample(4000, 0)).double()

    class Off(Plain):
        def forward(self, x_t, t, cond=None):
            return self.inner(x_t, t) + 0.05 * wiener.eigenvectors[:, -1].view(SHAPE)

    times = np.array(time_grid(40, t_min=0.02))
    growth = measure_growth({"global": Plain(wiener), "off": Off(wiener)}, times, n=4, seed=0)
    variance = float(wiener.eigenvalues[-1])
    expected = np.sqrt(variance / ((1 - times) ** 2 * variance + times**2))
    assert np.array_equal(growth[:, 0], np.ones(40))
    assert growth[-1, 1] == 1
    assert np.allclose(growth[1:-4, 1], expected[2:-3], rtol=0.1)


def test_prices_count_the_growth_under_w2_alone():
    plain = random_prices(6, 2, 2)
    far = pw.results.PriceList(plain.losses, plain.flops, plain.ms, growth=np.full((6, 2), 3.0))
    assert np.allclose(step_penalties(far, "w2")[0][:-1], 3 * step_penalties(plain, "w2")[0][:-1])
    assert np.allclose(step_penalties(far, "w2")[0][-1], step_penalties(plain, "w2")[0][-1])
    assert np.allclose(step_penalties(far, "flow")[0], step_penalties(plain, "flow")[0])
    assert np.allclose(pw.scheduling.prices_at(far, (0.8, 0.3)).growth, 3.0)
    assert np.allclose(pw.results.PriceList.from_dict(far.to_dict()).growth, 3.0)
