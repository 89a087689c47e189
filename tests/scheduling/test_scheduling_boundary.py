"""The boundary between two denoisers: known crossings, errors against brute force, laws, units."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scheduling_optimise import make_prices

import phasewise as pw
from phasewise.diagnosis import measure_losses
from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField
from phasewise.results import PriceList
from phasewise.scheduling import Boundary, PenaltyFunction, boundary_of, step_penalties

SIX = pw.time_grid(6, t_min=0.05)
FIELD = GaussianField((6, 6), mass=1.0)
IMAGES = FIELD.sample(240, 0)


def priced(difference, stderr=0.01, correlation=None, flops=(1e6, 1e6), times=None):
    """A price list of "global" and "r1" whose flow penalty of r1 less that of global is ``difference``."""
    difference = np.asarray(difference, float)
    zero = np.zeros_like(difference)
    prices = make_prices(np.stack([zero, difference], 1), np.stack([zero, np.abs(difference)], 1), flops, times)
    unit = step_penalties(replace(prices, losses=replace(prices.losses, gap=np.ones((len(difference), 2)))), "flow")[0]
    gap = np.stack([zero, difference / unit[:, 1]], 1)
    error = np.stack([zero, np.broadcast_to(stderr, difference.shape) / unit[:, 1]], 1)
    table = replace(prices.losses, gap=gap, gap_stderr=error)
    if correlation is not None:
        table = replace(table, gap_correlation=np.stack([np.eye(len(difference)), correlation]))
    return replace(prices, losses=table)


class Expert(pw.Denoiser):
    """Exact where ``right(t)``, elsewhere it answers the mean of the field, 0."""

    def __init__(self, right, path=None):
        super().__init__((1, 6, 6), path)
        self.exact, self.right = FIELD.denoiser().on(self.path), right

    def forward(self, x_t, t, cond=None):
        # equal work at every time: the cost of a call is counted at one of them
        return self.exact(x_t, t) * float(self.right(float(t)))


HIGH, LOW = Expert(lambda t: t >= 0.5), Expert(lambda t: t < 0.5)


# --- exact cases ----------------------------------------------------------------------------------------------------


def test_a_known_crossing_is_found_with_the_interval_of_its_grid():
    found = boundary_of(priced([-2, -1, -0.5, 0.5, 1, 2]), "r1", "global")
    assert (found.step, found.best) == (3, 3)
    assert found.t == pytest.approx((SIX[2] + SIX[3]) / 2)
    assert (found.low, found.high) == (SIX[3], SIX[2])
    np.testing.assert_allclose(found.excess, [3.5, 1.5, 0.5, 0, 0.5, 1.5, 3.5])
    assert found.sentences()[0].startswith("Switch from r1 to global at t = 0.525 (0.43 to 0.62)")
    assert found.sentences()[1].startswith("It matters: every other boundary of the grid loses more than its error")
    assert found.sentences()[2] == (
        "Too soon, at t = 0.715: that loses 0.500 ± 0.010 squared pixel units, and costs the same"
    )
    assert found.reverse is None


def test_what_the_data_do_not_tell_lies_in_the_interval_and_is_said_not_to_matter():
    found = boundary_of(priced([-2, -0.1, -0.05, 0.05, 0.1, 2], stderr=0.2, correlation=np.eye(6)), "r1", "global")
    assert (found.low, found.high) == (SIX[5], SIX[0])
    assert found.as_good.tolist() == [False, *[True] * 5, False]
    assert "Between t = 0.05 and 1 it does not matter: 5 boundaries are as good within error" in found.sentences()[1]
    nowhere = boundary_of(priced(np.zeros(6)), "r1", "global")
    assert (nowhere.low, nowhere.high) == (0.0, 1.0)
    assert nowhere.sentences()[1].startswith("It does not matter where")


@pytest.mark.parametrize(("sign", "alone", "t"), [(1, "global", 1.0), (-1, "r1", 0.0)])
def test_one_alone_is_said_to_be_best(sign, alone, t):
    found = boundary_of(priced(sign * np.ones(6)), "r1", "global")
    assert found.sentences()[0].startswith(f"{alone} alone is best")
    assert found.t == t
    assert found.low <= t <= found.high
    units = found.in_units(Clock())
    assert np.isnan(units["boundary_ratio"])
    assert units["steps of early"] == (0 if alone == "global" else 6)


def test_the_error_of_a_difference_counts_how_steps_go_together():
    d, s = np.array([-1.0, 0.2, 0.2]), np.array([0.1, 0.2, 0.3])
    independent = boundary_of(priced(d, s, np.eye(3)), "r1", "global")
    np.testing.assert_allclose(independent.excess_stderr, [0.1, 0, 0.2, np.hypot(0.2, 0.3)])
    r = np.array([[1, 0, 0], [0, 1, 0.5], [0, 0.5, 1]])
    assert boundary_of(priced(d, s, r), "r1", "global").excess_stderr[3] == pytest.approx(np.sqrt(0.04 + 0.09 + 0.06))
    unknown = boundary_of(priced(d, s), "r1", "global")  # an upper bound: as if they went together wholly
    np.testing.assert_allclose(unknown.excess_stderr, [0.1, 0, 0.2, 0.5])


def test_correlations_are_those_of_the_images_and_change_nothing_else():
    members = {"global": FIELD.denoiser(), "r1": FIELD.denoiser(1)}
    x, times = IMAGES[:40], (0.6, 0.3, 0.1)
    table = measure_losses(members, x, times, correlations=True, batch=16)
    plain = measure_losses(members, x, times, batch=16)
    assert plain.gap_correlation is None
    assert np.array_equal(plain.gap_stderr, table.gap_stderr)
    rows = []
    for k, t in enumerate(times):
        generator = pw_generator(0, k)
        one = []
        for start in range(0, 40, 16):
            part = x[start : start + 16]
            x_t = pw.LinearPath().add_noise(part, torch.randn(part.shape, generator=generator), t)
            loss = [(members[n](x_t, t) - part).double().flatten(1).square().sum(1) for n in ("r1", "global")]
            one.append(loss[0] - loss[1])
        rows.append(torch.cat(one).numpy())
    np.testing.assert_allclose(table.gap_correlation[1], np.corrcoef(rows), atol=1e-9)
    assert np.array_equal(table.gap_correlation[0], np.eye(3))  # the reference's own gap is 0 for every image
    # the error of a boundary is that of the images' own sums over the steps between
    prices = PriceList(table, flops=np.ones(2), ms=np.ones(2))
    found = boundary_of(prices, "r1", "global")
    per_image = (found.difference / table.gap[:, 1])[:, None] * np.array(rows)
    for k, error in enumerate(found.excess_stderr):
        between = slice(min(k, found.best), max(k, found.best))
        assert error == pytest.approx(np.std(per_image[between].sum(0)) / np.sqrt(39))
    again = pw.results.LossTable.from_dict(table.to_dict())
    assert np.array_equal(again.gap_correlation, table.gap_correlation)
    with pytest.raises(PhasewiseError, match="denoisers x times x times"):
        replace(table, gap_correlation=np.zeros((2, 2, 2)))


def pw_generator(seed, k):
    from phasewise import seeding

    return seeding.generator(seed, seeding.Purpose.LOSSES, k)


# --- laws -----------------------------------------------------------------------------------------------------------

numbers = st.floats(-5, 5, allow_nan=False)
differences = st.lists(numbers, min_size=1, max_size=8)


@given(d=differences, s=st.floats(0, 2), share=st.sampled_from([0.0, 0.1]), together=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_interval_holds_the_best_and_the_chosen_boundary(d, s, share, together):
    correlation = np.ones((len(d), len(d))) if together else np.eye(len(d))
    for reference in (None, "global"):
        prices = priced(d, s, correlation, flops=(3e6, 1e6))
        found = boundary_of(prices, "r1", "global", reference=reference, penalty="flow", tolerance=share)
        assert found.excess[found.best] == 0 <= found.excess.min()
        assert found.as_good[found.best]
        assert found.as_good[found.step]
        for k in (found.best, found.step):
            assert found.low <= found._edge(k) <= found.high
        if reference:  # nothing cheaper is as good within one standard error
            good = found.excess <= found.tolerance + found.excess_stderr
            assert found.mflop[found.step] == pytest.approx(found.mflop[good].min())


@given(d=differences, shift=st.lists(numbers, min_size=8, max_size=8))
@settings(max_examples=40, deadline=None)
def test_shifting_both_by_the_same_changes_nothing(d, shift):
    value = np.stack([np.zeros(len(d)), d], 1)
    prices = priced(d)
    found = [
        boundary_of(prices, "r1", "global", penalty=PenaltyFunction(lambda _, v=v: (v, 0 * v), name="mine"))
        for v in (np.round(value, 6), np.round(value, 6) + np.round(np.array(shift[: len(d)]), 6)[:, None])
    ]
    np.testing.assert_allclose(found[0].difference, found[1].difference, atol=1e-9)
    assert found[1].excess[found[0].step] == pytest.approx(0, abs=1e-8)


@given(d=differences, s=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_the_two_orders_are_each_other_s_reverse(d, s):
    """Early and late changed over: the other order of the one is the order of the other."""
    prices = priced(d, s, np.eye(len(d)))
    forth, back = boundary_of(prices, "r1", "global"), boundary_of(prices, "global", "r1")
    np.testing.assert_allclose(back.difference, -forth.difference)
    if forth.reverse is not None:
        k, gained, _ = forth.reverse
        assert back.excess[k] == pytest.approx(0, abs=1e-9)
        assert gained < 0
        assert back.reverse is None
        assert "The other order is better" in forth.sentences()[-1]


# --- measured -------------------------------------------------------------------------------------------------------


def test_experts_that_are_right_above_and_below_a_time_meet_there():
    found = pw.boundary(HIGH, LOW, IMAGES, steps=8, n=60, names=("high", "low"))
    assert found.penalty_name == "flow"
    assert found.low < 0.5 <= found.high
    assert found.correlation is not None
    assert found.reverse is None
    turned = pw.boundary(LOW, HIGH, IMAGES, steps=8, n=60, names=("low", "high"))
    k, gained, error = turned.reverse
    assert k == found.step
    assert gained < -2 * error
    assert f"first high, then low from t = {found.t:.3g} on" in turned.sentences()[-1]


def test_filters_of_other_ranks_cross_where_the_exact_losses_do():
    """One filter knows the field but takes it for half as strong, the other for twice: their exact losses say who
    leads."""
    weak, strong = (_Gain(f) for f in (0.5, 1.3))
    times = pw.time_grid(10, t_min=0.05)
    found = pw.boundary(weak, strong, IMAGES, times=times, n=40)
    exact = np.array([weak.loss(t) - strong.loss(t) for t in times])
    weight = -np.diff(times, append=0.0) / np.asarray(times) ** 2
    expected = np.append(0.0, np.cumsum(exact * weight))
    k = int(expected.argmin())
    assert 0 < k < 10
    assert found.as_good[k]
    np.testing.assert_array_less(np.abs(found.difference - exact * weight), 4 * found.difference_stderr + 1e-9)


class _Gain(pw.Denoiser):
    """The field's exact answer times a factor that is right at one noise time only."""

    def __init__(self, factor):
        super().__init__((1, 6, 6))
        self.exact, self.factor = FIELD.denoiser(), factor

    def scale(self, t):
        return 1 + (self.factor - 1) * abs(t - (0.8 if self.factor < 1 else 0.2))

    def forward(self, x_t, t, cond=None):
        return self.exact(x_t, t) * self.scale(float(t))

    def loss(self, t):
        """E|c D - x|^2 = MMSE + (c - 1)^2 E|D|^2, and E|D|^2 = E|x|^2 - MMSE."""
        values = torch.linalg.eigvalsh(torch.as_tensor(FIELD.covariance, dtype=torch.float64))
        mmse = float((values * t**2 / ((1 - t) ** 2 * values + t**2)).sum())
        return mmse + (self.scale(t) - 1) ** 2 * (float(values.sum()) - mmse)


def test_with_a_reference_the_cheapest_boundary_as_good_is_taken():
    cheap = pw.LocalDenoiser((1, 6, 6), 1)
    torch.manual_seed(0)
    exact = FIELD.denoiser()
    found = pw.boundary(FIELD.denoiser(1), exact, IMAGES, reference="late", steps=6, n=40)
    assert found.reference == "late"
    assert found.penalty_name == "w2"
    assert found.best == 0  # the reference loses nothing against itself
    assert found.tolerance == pytest.approx(0.1 * found.excess.max())  # a hundredth, of squares
    assert found.high == 1.0
    seen = pw.boundary(
        cheap, exact, IMAGES, reference="late", features=pw.metrics.RandomFeatures((1, 6, 6)), steps=3, n=24
    )
    assert seen.penalty_name == "frechet"
    assert seen.correlation is None


def test_a_cheap_stand_in_that_is_good_at_the_end_asks_for_the_other_order():
    times = pw.time_grid(6, t_min=0.05)
    found = boundary_of(
        priced([3, 3, 3, 3, 0, 0], flops=(9e6, 1e6)), "r1", "global", reference="global", penalty="flow"
    )
    assert found.step == 0
    k, gained, _ = found.reverse
    assert (k, gained) == (4, pytest.approx(0))
    assert found.sentences()[-1] == (
        f"The other order is better: first global, then r1 from t = {(times[3] + times[4]) / 2:.3g} on, and costs 16.0 "
        "MFLOP an image less"
    )


def test_another_path_is_translated_and_other_data_are_refused():
    low = Expert(lambda t: t < 0.5, pw.paths.CosinePath())
    # t = 1/2 is alpha = sigma on both paths
    found = pw.boundary(HIGH, low, IMAGES, steps=8, n=40)
    assert found.path == {"name": "cosine"}
    assert found.low <= 0.5 <= found.high
    dark, bright = pw.WienerDenoiser.fit(IMAGES), pw.WienerDenoiser.fit(IMAGES * 3)
    with pytest.raises(PhasewiseError, match="other data, or another pixel range"):
        pw.boundary(dark, bright, IMAGES)
    with pytest.raises(PhasewiseError, match="images of different shape"):
        pw.boundary(dark, GaussianField((5, 5)).denoiser(), IMAGES)
    with pytest.raises(PhasewiseError, match=r"the images are \(1, 5, 5\), the denoisers are for \(1, 6, 6\)"):
        pw.boundary(HIGH, LOW, IMAGES[:, :, :5, :5])


def test_what_cannot_be_answered_is_refused():
    prices = priced([-1, 1])
    with pytest.raises(PhasewiseError, match="does not tell which of two is better"):
        boundary_of(prices, "r1", "global", penalty="w2")
    with pytest.raises(PhasewiseError, match="this list's reference is global"):
        boundary_of(prices, "r1", "global", reference="r1")
    with pytest.raises(PhasewiseError, match="this list's reference is global"):
        boundary_of(prices, "r1", "r1")
    with pytest.raises(PhasewiseError, match="unknown denoiser 'r9'"):
        boundary_of(prices, "r9", "global")
    with pytest.raises(PhasewiseError, match="give two names"):
        pw.boundary(HIGH, LOW, IMAGES, names=("a", "a"))


# --- the record -----------------------------------------------------------------------------------------------------


class Clock:
    """A table of ``steps_total`` training timesteps: t = (k + 1) / K."""

    steps_total = 1000

    def timestep_of_time(self, t):
        return t * self.steps_total - 1


def test_the_record_goes_through_json_and_shows_itself():
    found = boundary_of(priced([-2, -1, -0.5, 0.5, 1, 2], correlation=np.eye(6), flops=(3e6, 1e6)), "r1", "global")
    again = Boundary.from_dict(found.to_dict())
    assert again.to_json() == found.to_json()
    assert '"t": 0.52' in found.to_json()
    head, rows = found.table()
    assert len(rows) == 7
    assert dict(zip(head, rows[3], strict=True))["as_good"]
    assert np.diff(found.mflop).max() < 0  # r1 is the cheaper one
    assert "chosen" in str(found)
    ax = found.plot()
    assert "When to switch from r1 to global" in ax.get_title()
    plt.close("all")
    for wrong in ({"mflop": np.zeros(3)}, {"correlation": np.zeros((2, 2))}, {"reference": "r9"}, {"times": SIX[::-1]}):
        with pytest.raises(PhasewiseError, match=r"boundary on 6 steps|the reference is"):
            replace(found, **wrong)


def test_a_boundary_in_every_unit():
    found = boundary_of(priced([-2, -1, -0.5, 0.5, 1, 2]), "r1", "global")
    units, t = found.in_units(Clock(), grid=pw.time_grid(20)), found.t
    assert units["t"] == t
    assert units["sigma/alpha"] == pytest.approx(t / (1 - t))
    assert units["log-SNR"] == pytest.approx(2 * np.log((1 - t) / t))
    assert units["timestep"] == pytest.approx(1000 * t - 1)
    assert units["boundary_ratio"] == pytest.approx(t - 0.001)
    assert units["denoising_end"] == pytest.approx(1 - units["boundary_ratio"])
    assert units["steps of early"] == sum(s >= t for s in pw.time_grid(20))
    assert units.steps == 20
    low, high = (dict(zip(units.units, column, strict=True)) for column in (units.at_low, units.at_high))
    assert (low["t"], high["t"]) == (found.low, found.high)
    assert low["steps of early"] >= units["steps of early"] >= high["steps of early"]
    own = found.in_units()
    assert own["steps of early"] == 3
    assert (own.at_low[-1], own.at_high[-1]) == (3, 3)
    assert "timestep" not in own.units
    assert type(own).from_dict(own.to_dict()).table() == own.table()
    with pytest.raises(PhasewiseError, match="unknown unit 'seconds'"):
        own["seconds"]
    with pytest.raises(PhasewiseError, match="an object with steps_total and timestep_of_time"):
        found.in_units(3)
    with pytest.raises(PhasewiseError, match="decrease strictly"):
        found.in_units(grid=(0.2, 0.5))


@pytest.mark.parametrize("path", [pw.paths.CosinePath(), pw.paths.VarianceExplodingPath()])
def test_units_at_both_ends_are_those_of_the_path(path):
    found = boundary_of(priced(np.zeros(4)), "r1", "global")
    units = replace(found, path=path.config()).in_units()
    rows = {name: (low, high) for name, low, high in zip(units.units, units.at_low, units.at_high, strict=True)}
    zero, one = (torch.tensor(t, dtype=torch.float64) for t in (0.0, 1.0))
    for end, t in enumerate((zero, one)):
        with np.errstate(divide="ignore"):
            ratio = np.divide(float(path.sigma(t)), float(path.alpha(t)))
        assert rows["sigma/alpha"][end] == pytest.approx(ratio)
        assert rows["log-SNR"][end] == pytest.approx(float(path.log_snr(t)))
