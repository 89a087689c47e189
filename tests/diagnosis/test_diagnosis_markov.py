"""Markov length, critical time and window: coverage on synthetic decays, sense on exact fields, honest refusals."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phasewise.diagnosis import critical_window, markov_length, t_c
from phasewise.diagnosis.markov import CriticalTime
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.exact import GaussianField
from phasewise.results import CMIMap, MarkovFit


def make_map(times, radii, value, stderr, covariance=None):
    value = np.asarray(value, dtype=float)
    stderr = np.broadcast_to(np.asarray(stderr, dtype=float), value.shape)
    config = {} if covariance is None else {"covariance": np.asarray(covariance).tolist()}
    return CMIMap(np.asarray(times, float), tuple(radii), value, stderr, "test", 1, (3, 3), 1000, 0, config=config)


def decays(xi, amplitude, radii):
    return np.asarray(amplitude)[:, None] * np.exp(-np.asarray(radii)[None, :] / np.asarray(xi)[:, None])


def peaked_map(noise=0.0, seed=0):
    """xi peaks at t = 0.5 with 3 pixels."""
    times, radii = np.linspace(0.1, 0.9, 9), (1, 2, 3, 4)
    value = decays(3 - 25 * (times - 0.5) ** 2 * 0.5, np.full(9, 0.2), radii)
    stderr = 0.01 * value + 1e-4
    rng = np.random.default_rng(seed)
    return make_map(times, radii, value + noise * stderr * rng.standard_normal(value.shape), stderr)


def nested_errors(truth, scale):
    """cov(I_r, I_r') = scale^2 I_max(r, r'), as differences from one common score have; (R, R)."""
    r = np.arange(len(truth))
    return scale**2 * truth[np.maximum.outer(r, r)]


def draw(covariance, n, seed=0):
    return np.random.default_rng(seed).multivariate_normal(np.zeros(len(covariance)), covariance, n)


NOTHING = CriticalTime(None, None, None, "not asked for", np.zeros(0))


@pytest.mark.parametrize(
    ("xi", "n_radii", "without"),  # coverage from the ratios of the errors, true to claimed: 0.50, 1.81, 1.30
    [(4.0, 3, 1.0), (2.0, 12, 0.72), (8.0, 12, 0.87)],
)
def test_intervals_cover_the_truth_with_nested_errors_when_the_covariance_is_given(xi, n_radii, without, monkeypatch):
    monkeypatch.setattr("phasewise.diagnosis.markov.t_c", lambda *_: NOTHING)
    n, radii = 2000, tuple(range(n_radii))
    truth = decays([xi], [0.2], radii)[0]
    covariance = nested_errors(truth, np.sqrt(truth[-1]) / 20)
    stderr, times = np.sqrt(np.diag(covariance)), np.linspace(0.01, 0.99, n)
    value = truth + draw(covariance, n)
    fit = markov_length(make_map(times, radii, value, np.tile(stderr, (n, 1)), np.tile(covariance, (n, 1, 1))))
    plain = markov_length(make_map(times, radii, value, np.tile(stderr, (n, 1))))
    assert np.mean([s == "ok" for s in fit.status]) > 0.98
    covered, naive = ((f.low <= xi) & (xi <= f.high) for f in (fit, plain))
    assert 0.935 < covered.mean() < 0.965  # standard error .005
    assert naive.mean() == pytest.approx(without, abs=0.03)
    assert 0.003 < (fit.p_value < 0.01).mean() < 0.03


def test_a_covariance_without_correlations_changes_nothing():
    cmi = peaked_map(noise=1.0)
    diagonal = cmi.stderr[:, :, None] ** 2 * np.eye(4)
    fit, other = markov_length(cmi), markov_length(make_map(cmi.times, cmi.radii, cmi.value, cmi.stderr, diagonal))
    for name in ("xi", "low", "high", "p_value", "t_c_low", "t_c_high"):
        assert getattr(other, name) == pytest.approx(getattr(fit, name), rel=1e-9)
    assert (other.status, other.reason) == (fit.status, fit.reason)


def test_t_c_draws_errors_as_they_go_together():
    cmi = peaked_map()
    stderr = 0.08 * cmi.value  # one common factor at each time: the slope is known exactly
    common = stderr[:, :, None] * stderr[:, None, :]
    together = markov_length(make_map(cmi.times, cmi.radii, cmi.value, stderr, common))
    apart = markov_length(make_map(cmi.times, cmi.radii, cmi.value, stderr))
    assert (together.t_c_low, together.t_c_high) == pytest.approx((0.45, 0.55))
    assert apart.t_c_high - apart.t_c_low > 0.25
    assert together.high[4] - together.low[4] < 1e-3 < apart.high[4] - apart.low[4]


def test_the_covariance_belongs_to_the_radii_of_the_range():
    radii, truth = (0, 1, 2, 3, 4, 5), decays([3.0], [0.2], range(6))[0]
    covariance = nested_errors(truth, 0.002)
    stderr = np.sqrt(np.diag(covariance))
    whole = markov_length(make_map([0.5], radii, [truth], [stderr], [covariance]), (2, 5))
    part = markov_length(make_map([0.5], radii[2:], [truth[2:]], [stderr[2:]], [covariance[2:, 2:]]))
    assert (whole.low, whole.high) == (pytest.approx(part.low), pytest.approx(part.high))


def test_a_covariance_that_does_not_fit_is_refused_and_unknown_ones_are_not_resolved():
    cmi = peaked_map()
    with pytest.raises(PhasewiseError, match=r"has shape \(9, 4, 4\); this one has \(9, 3, 3\)"):
        markov_length(dataclasses.replace(cmi, config={"covariance": np.zeros((9, 3, 3)).tolist()}))
    with pytest.raises(PhasewiseError, match="not an array of numbers"):
        markov_length(dataclasses.replace(cmi, config={"covariance": [[1.0], [1.0, 2.0]]}))
    covariance = cmi.stderr[:, :, None] ** 2 * np.eye(4)
    covariance[0, 1, 2] = np.nan
    record = CMIMap.from_dict(json.loads(make_map(cmi.times, cmi.radii, cmi.value, cmi.stderr, covariance).to_json()))
    fit = markov_length(record)
    assert fit.status == ("not resolved", *("ok",) * 8)
    assert "covariance" in fit.reason[0]


@pytest.mark.parametrize(("xi", "radii", "sigmas"), [(2.0, (1, 2, 3, 4), 12), (0.8, (1, 2, 3), 15), (4.0, range(7), 9)])
def test_intervals_cover_the_truth_95_times_in_100(xi, radii, sigmas, monkeypatch):
    monkeypatch.setattr("phasewise.diagnosis.markov.t_c", lambda *_: NOTHING)  # a bootstrap over 4000 times is slow
    n, radii = 4000, tuple(radii)
    truth = decays([xi], [0.2], radii)
    stderr = truth[0, -1] / sigmas  # the weakest radius stands out by so many standard errors
    noise = np.random.default_rng(0).standard_normal((n, len(radii)))
    cmi = make_map(np.linspace(0.01, 0.99, n), radii, truth + stderr * noise, stderr)
    fit = markov_length(cmi)
    used = np.array([s != "not resolved" for s in fit.status])
    assert used.mean() > 0.98
    covered = (fit.low <= xi) & (xi <= fit.high)
    assert 0.94 < covered[used].mean() < 0.965  # standard error .0034
    assert np.mean([s == "not exponential" for s in fit.status]) < 0.015
    assert 0.008 < (fit.p_value[used] < 0.01).mean() < 0.02
    assert abs(np.median(fit.xi[used]) / xi - 1) < 0.02


def test_t_c_interval_covers_the_peak():
    hits = 0
    for seed in range(60):
        fit = markov_length(peaked_map(noise=1.0, seed=seed))
        assert fit.t_c is not None
        hits += fit.t_c_low <= 0.5 <= fit.t_c_high
    assert hits >= 54


def test_peak_without_noise():
    fit = markov_length(peaked_map())
    assert fit.t_c == pytest.approx(0.5)
    assert fit.t_c_low == pytest.approx(0.45)
    assert fit.t_c_high == pytest.approx(0.55)
    assert fit.t_c_note == ""
    assert fit.xi[4] == pytest.approx(3.0)
    assert fit.peak_radii == (1, 2, 3, 4)
    assert fit.peak_times == pytest.approx([0.5] * 4)


@pytest.fixture(scope="module")
def exact():
    """(times, radii, values) of 4 x 4 blocks on a field of mass 0.03."""
    field, times, radii = GaussianField((28, 28), 0.03), np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.95]), (1, 2, 3, 4)
    return times, radii, np.array([[field.cmi(t, r, 4) for r in radii] for t in times])


def test_exact_values_grow_longer_with_noise(exact):
    times, radii, value = exact
    fit = markov_length(make_map(times, radii, value, 0.0))
    assert set(fit.status) == {"ok"}
    assert (np.diff(fit.xi) > 0).all()
    local = (radii[-1] - radii[0]) / np.log(value[:, 0] / value[:, -1])  # slope from end to end
    assert fit.xi == pytest.approx(local, rel=0.15)
    assert (fit.low < fit.xi).all()
    assert (fit.xi < fit.high).all()
    assert "interval widened" in fit.reason[0], "an almost exponential curve known exactly is still not one"
    assert fit.t_c == 0.95
    assert "edge of the resolved times" in fit.t_c_note


def test_noisy_draws_of_exact_values_agree_with_them(exact):
    times, radii, value = exact
    stderr = 0.03 * value[:, :1] * np.ones(4)
    noisy = value + stderr * np.random.default_rng(1).standard_normal(value.shape)
    fit, truth = markov_length(make_map(times, radii, noisy, stderr)), markov_length(make_map(times, radii, value, 0.0))
    ok = np.array([s == "ok" for s in fit.status])
    assert list(ok) == [False, False, False, True, True, True]  # at small t the far radii drown in the noise
    assert (fit.low[ok] < truth.xi[ok]).all()
    assert (truth.xi[ok] < fit.high[ok]).all()
    assert np.isnan(fit.xi[~ok]).all()
    assert all("at r = 4 the CMI is" in fit.reason[i] for i in np.flatnonzero(~ok))


def test_other_shapes_of_decay_are_called_so():
    radii = np.arange(1, 7)
    power, flat = 0.2 * radii**-2.0, np.full(6, 0.1)
    kink = np.where(radii < 4, 0.2, 0.02)
    fit = markov_length(make_map([0.2, 0.4, 0.6], radii, [power, kink, flat], 2e-4))
    assert fit.status == ("not exponential", "not exponential", "not resolved")
    assert "off the fitted curve" in fit.reason[0]
    assert fit.p_value[0] < 0.01
    assert "does not fall" in fit.reason[2]
    assert np.isnan(fit.xi[2])
    assert fit.high[2] == np.inf
    assert fit.low[2] > 100
    assert fit.t_c is None
    assert "0 times" in fit.t_c_note


def test_longer_lengths_that_are_set_aside_are_mentioned():
    cmi = peaked_map()
    value = cmi.value.copy()
    value[5] = 0.2 * np.array([1, 0.95, 0.93, 0.5])
    fit = markov_length(dataclasses.replace(cmi, value=value))
    assert fit.t_c == pytest.approx(0.5)
    assert fit.t_c_note == "the decay is slower, but not exponential, at t = 0.6"


def test_noise_alone_is_not_resolved():
    noise = np.random.default_rng(3).standard_normal((500, 4)) * 0.01
    fit = markov_length(make_map(np.linspace(0.001, 1, 500), (1, 2, 3, 4), noise, 0.01))
    assert set(fit.status) == {"not resolved"}
    assert np.isnan(fit.xi).all()
    assert fit.t_c is fit.t_c_low is fit.t_c_high is None


def test_zero_nan_and_two_radii_are_not_resolved():
    value = np.array([[0.0, 0, 0], [0.3, np.nan, 0.1], [0.3, 0.2, -0.1]])
    fit = markov_length(make_map([1.0, 0.5, 0.2], (1, 2, 3), value, 0.0))
    assert set(fit.status) == {"not resolved"}
    assert "zero or below" in fit.reason[0]
    assert "not a number" in fit.reason[1]
    assert "2 radii cannot show" in markov_length(make_map([0.5], (1, 2), [[0.2, 0.1]], 0.001)).reason[0]


def test_the_range_of_radii_is_the_users():
    cmi = peaked_map()
    assert markov_length(cmi, (2, 4)).radii == (2, 3, 4)
    assert markov_length(cmi).radii == (1, 2, 3, 4)
    with pytest.raises(PhasewiseError, match=r"no radius of the map lies in 7..9; it has \[1, 2, 3, 4\]"):
        markov_length(cmi, (7, 9))
    with pytest.raises(PhasewiseError, match="min_sigma"):
        markov_length(cmi, min_sigma=-1)


def same(a: MarkovFit, b: MarkovFit) -> bool:
    return json.dumps(a.to_dict()) == json.dumps(b.to_dict())


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_the_unit_of_information_does_not_matter(scale, seed):
    cmi = peaked_map(noise=1.0, seed=seed)
    fit = markov_length(cmi)
    scaled = markov_length(dataclasses.replace(cmi, value=scale * cmi.value, stderr=scale * cmi.stderr))
    for name in ("xi", "low", "high", "p_value"):
        assert getattr(scaled, name) == pytest.approx(getattr(fit, name), rel=1e-6, nan_ok=True)
    assert scaled.amplitude == pytest.approx(scale * fit.amplitude, rel=1e-6, nan_ok=True)
    assert scaled.status == fit.status
    assert (scaled.t_c, scaled.t_c_low, scaled.t_c_high) == (fit.t_c, fit.t_c_low, fit.t_c_high)


@given(order=st.permutations(range(9)), seed=st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_the_order_of_times_does_not_matter(order, seed):
    cmi, order = peaked_map(noise=1.0, seed=seed), list(order)
    mixed = dataclasses.replace(cmi, times=cmi.times[order], value=cmi.value[order], stderr=cmi.stderr[order])
    fit, other = markov_length(cmi), markov_length(mixed)
    for name in ("times", "xi", "low", "high", "p_value"):
        assert np.array_equal(getattr(fit, name)[order], getattr(other, name), equal_nan=True)
    assert tuple(fit.status[i] for i in order) == other.status
    assert (other.t_c, other.t_c_low, other.t_c_high, other.window) == (fit.t_c, fit.t_c_low, fit.t_c_high, fit.window)


def test_a_fit_lives_on_as_json():
    fit = markov_length(peaked_map())
    assert same(MarkovFit.from_dict(json.loads(fit.to_json())), fit)
    assert t_c(peaked_map(), fit).value == fit.t_c


# --- critical window -------------------------------------------------------------------------------------------------


def triangle(times=(0.1, 0.3, 0.5, 0.7, 0.9)):
    value = {0.1: 0.0, 0.3: 0.02, 0.5: 0.04, 0.7: 0.02, 0.9: 0.0}
    return make_map(times, (1, 3), [[value[t], value[t] / 4] for t in times], 1e-4)


def test_window_ends_between_measured_times():
    assert critical_window(triangle(), 0.01) == pytest.approx((0.2, 0.8))
    assert critical_window(triangle(), 0.005, radius=3) == pytest.approx((0.3, 0.7))
    assert critical_window(triangle((0.9, 0.3, 0.1, 0.7, 0.5)), 0.03) == pytest.approx((0.4, 0.6))


def test_window_ends_at_the_last_measured_time_and_spans_holes():
    value = [[0.05], [0.0], [0.05], [0.03]]
    assert critical_window(make_map([0.1, 0.3, 0.5, 0.7], (1,), value, 1e-4), 0.01) == (0.1, 0.7)
    value = [[0.05], [np.nan], [0.0]]
    assert critical_window(make_map([0.1, 0.3, 0.5], (1,), value, 1e-4), 0.01) == pytest.approx((0.1, 0.42))


@given(st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=8), st.floats(0.001, 0.09))
@example([0.0, 0.0010000000000000002, 0.0], 0.001)  # above by a rounding error: a window of no width
@settings(max_examples=100, deadline=None)
def test_window_holds_all_that_exceeds_and_shrinks_with_the_tolerance(values, tolerance):
    times = np.linspace(0.1, 0.9, len(values))
    cmi = make_map(times, (1,), np.array(values)[:, None], 0.0)
    if max(values) <= tolerance:
        with pytest.raises(PhasewiseError, match="no measured time"):
            critical_window(cmi, tolerance)
        return
    low, high = critical_window(cmi, tolerance)
    above = times[np.array(values) > tolerance]
    assert times[0] <= low <= above.min() <= above.max() <= high <= times[-1]
    if max(values) > 2 * tolerance:
        inner = critical_window(cmi, 2 * tolerance)
        assert low <= inner[0] <= inner[1] <= high


def test_refusals_of_the_window():
    with pytest.raises(
        PhasewiseError, match=r"exceeds 0.5 nats at no measured time.*0.04 nats at t = 0.5; .* of 0.01$"
    ):
        critical_window(triangle(), 0.5)
    with pytest.raises(PhasewiseError, match="no radius 2; it has 1, 3"):
        critical_window(triangle(), radius=2)
    with pytest.raises(PhasewiseError, match="above 0"):
        critical_window(triangle(), 0.0)
    with pytest.raises(PhasewiseError, match="larger A"):
        critical_window(make_map([0.5], (1,), [[-0.1]], 0.0))
    with pytest.raises(PhasewiseError, match="more than one measured time"):
        critical_window(make_map([0.5], (1,), [[0.1]], 0.0))
    with pytest.raises(PhasewiseError, match="not a number at any time"):
        critical_window(make_map([0.5], (1,), [[np.nan]], 0.0))
    assert markov_length(triangle(), tolerance=0.5).window is None
    with pytest.raises(PhasewiseError, match="no radius 2"):
        markov_length(triangle(), radius=2)


def test_a_noisy_window_is_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        critical_window(triangle())
    noisy = dataclasses.replace(triangle(), stderr=np.full((5, 2), 0.02))
    with pytest.warns(PhasewiseWarning, match=r"half the tolerance of 0\.01: the ends are uncertain"):
        critical_window(noisy)
