r"""Markov length and critical time, read off a map of conditional mutual information (CMI).

At each noise time t the decay with the buffer width r is fitted by

    I(A : C | B_r) ~ c exp(-r / xi),        minimising  chi^2 = sum_r ((I_r - c exp(-r/xi)) / s_r)^2 ,

with s_r the standard error, over one range of r fixed beforehand: a range chosen by what happens to stand out of the
noise would follow the noise.  Conventions (Hu, Liu, Zhang, Gao, arXiv 2508.06614): xi is the Markov length in pixels,
and its largest value over t marks the transition t_c.

The fit runs in (log c, 1/xi) by Gauss-Newton, started at the weighted fit of log I with errors s/I; the 95 % interval
is that of 1/xi, turned over.  chi^2 has (number of radii - 2) degrees of freedom where errors are independent.  Where
the map tells how the errors at different radii go together, the fit stays as it is, the interval takes its error from
that covariance (the "sandwich"), and chi^2 is compared with the scaled chi^2 law of the same mean and variance.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from phasewise import checks
from phasewise.diagnosis.window import window_or_none
from phasewise.errors import PhasewiseError
from phasewise.results import Array, CMIMap, MarkovFit, a_cmi_map, a_markov_fit

LEVEL = 1.959964  # two-sided 95 % in standard deviations
P_LEAST = 0.01
MISFIT = 0.1
"""Relative deviation from the fitted exponential that matters; below it a significant misfit only widens the bars."""


@checks.checked(
    cmi=a_cmi_map,
    radii_range=checks.each(checks.at_least_0, size=2),
    tolerance=checks.positive,
    radius=checks.at_least_0,
)
def markov_length(
    cmi: CMIMap,
    radii_range: tuple[int, int] | None = None,
    min_sigma: float = 5.0,
    *,
    tolerance: float = 0.01,
    radius: int | None = None,
) -> MarkovFit:
    """Markov length xi(t) in pixels with 95 % intervals, and what follows from it.

    Args:
        radii_range: (r_min, r_max), both included; default all radii of the map.  The same for every time.
        min_sigma: a time is used only if the CMI is at least so many standard errors at every radius of the range.
        tolerance, radius: for the critical window (:func:`phasewise.critical_window`), which the record carries too;
            None there where no time exceeds the tolerance, or a single time was measured.

    Each time gets a status and a reason in words: "ok"; "not exponential" where the chi-square test gives p < 0.01
    and a radius is more than 10 % off the curve (``xi`` is then only a number that summarises the decay); "not
    resolved" where the data do not bear a fit: fewer than 3 radii, too noisy, or no significant decay (``xi`` NaN,
    ``low`` a lower bound where there is one).  A misfit that is significant but below 10 % widens the interval by
    ``sqrt(chi^2 / dof)`` (with correlated errors: over the expected chi^2).

    Errors at different radii of one time share their images (and often a network).  A map that carries their
    covariance, ``config["covariance"]``, of shape (T, R, R) and with the squares of ``stderr`` on its diagonals, has
    its correlations taken into account, here and in ``t_c``; errors at different times are taken as independent.

    Without it errors are taken as independent over the radii as well, and the intervals of xi and of t_c are wrong in
    either direction.  Where I_r is a difference of two scores, one of them common to all radii, the errors are nested,
    ``cov(I_r, I_r') ~ I_max(r, r')``, and the true error of 1/xi is so many times the one claimed::

        xi (pixels)     2      4      8
         3 radii      0.69   0.50   0.35      too wide for 3 or 4 radii,
         6 radii      1.21   0.93   0.67
        12 radii      1.81   1.69   1.30      too narrow, up to twice, for many radii and xi of a few pixels.

    The p-value is then mostly too large: some misfits pass unseen.

    Raises :class:`PhasewiseError` when no radius of the map lies in ``radii_range``, ``min_sigma`` is negative, or a
    covariance has another shape than the map.
    """
    if not min_sigma >= 0:
        raise PhasewiseError(f"min_sigma is a number of standard errors >= 0, got {min_sigma}")
    low_r, high_r = radii_range or (min(cmi.radii), max(cmi.radii))
    columns = [j for j, r in enumerate(cmi.radii) if low_r <= r <= high_r]
    if not columns:
        raise PhasewiseError(f"no radius of the map lies in {low_r}..{high_r}; it has {list(cmi.radii)}")
    radii = np.array([cmi.radii[j] for j in columns], dtype=float)
    together = _correlations(cmi, columns)
    rows = [
        _one_time(radii, cmi.value[i, columns], cmi.stderr[i, columns], together[i], min_sigma)
        for i in range(len(cmi.times))
    ]
    radius = min(cmi.radii) if radius is None else radius
    fit = MarkovFit(
        times=cmi.times,
        xi=np.array([r.xi for r in rows]),
        low=np.array([r.low for r in rows]),
        high=np.array([r.high for r in rows]),
        amplitude=np.array([r.amplitude for r in rows]),
        p_value=np.array([r.p_value for r in rows]),
        status=tuple(r.status for r in rows),
        reason=tuple(r.reason for r in rows),
        radii=tuple(int(r) for r in radii),
        min_sigma=min_sigma,
        tolerance=tolerance,
        window_radius=radius,
        window=window_or_none(cmi, tolerance, radius),
        peak_radii=cmi.radii,
        peak_times=_peaks(cmi),
    )
    found = t_c(cmi, fit)
    return dataclasses.replace(fit, t_c=found.value, t_c_low=found.low, t_c_high=found.high, t_c_note=found.note)


class _Row(NamedTuple):
    status: str
    reason: str
    xi: float = math.nan
    low: float = math.nan
    high: float = math.nan
    amplitude: float = math.nan
    p_value: float = math.nan


def _correlations(cmi: CMIMap, columns: list[int]) -> Array:
    """(T, R, R) correlations of the errors at the radii numbered ``columns``; none where the map has no covariance.

    Raises :class:`PhasewiseError` for a covariance that does not fit the map.
    """
    n_times, n_radii = len(cmi.times), len(cmi.radii)
    identity = np.eye(len(columns))
    if cmi.config.get("covariance") is None:
        return np.broadcast_to(identity, (n_times, *identity.shape))
    try:
        covariance = np.array(cmi.config["covariance"], dtype=float)
    except (TypeError, ValueError) as error:
        raise PhasewiseError(
            f"the covariance of the map is not an array of numbers ({error}); measure it anew"
        ) from error
    if covariance.shape != (n_times, n_radii, n_radii):
        raise PhasewiseError(
            f"the covariance of a map of {n_times} times and {n_radii} radii has shape {(n_times, n_radii, n_radii)}; "
            f"this one has {covariance.shape}; mend it or drop it from the map's config"
        )
    covariance = covariance[:, columns][:, :, columns]
    std = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
    scale = std[:, :, None] * std[:, None, :]
    # a cell without error goes with nothing
    known = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale != 0)
    # 1 on the diagonal and symmetric, whatever was rounded
    return np.where(identity == 1, 1.0, (known + known.swapaxes(1, 2)) / 2)


def _one_time(radii: Array, value: Array, stderr: Array, together: Array, min_sigma: float) -> _Row:
    """The fit at one time with its verdict; ``together`` (R, R): correlations of the errors."""
    if not (np.isfinite(value).all() and np.isfinite(stderr).all()):
        return _Row("not resolved", "the CMI is not a number at some radius")
    if not np.isfinite(together).all():
        return _Row("not resolved", "the covariance of the CMI is not a number at some radius")
    if len(radii) < 3:
        return _Row("not resolved", f"{len(radii)} radii cannot show whether the decay is exponential; 3 or more can")
    ratio = value / np.maximum(stderr, 1e-300)
    weak = int(np.argmin(ratio))
    if value[weak] <= 0 or ratio[weak] < min_sigma:
        sigmas = "zero or below" if value[weak] <= 0 else f"{ratio[weak]:.1f} standard errors from zero"
        return _Row("not resolved", f"at r = {radii[weak]:.0f} the CMI is {sigmas}, and {min_sigma:g} are asked for")
    d = _decay(radii, value, stderr)
    error, expected, p_value = _judge(d, together)
    off = float(np.abs(value / np.exp(d.log_c - d.rate * radii) - 1).max())
    # a significant misfit: errors scaled up until chi^2 is what is expected
    widen = math.sqrt(max(1.0, float(d.chi2) / expected)) if p_value < P_LEAST else 1.0
    rate, half = float(d.rate), LEVEL * widen * error
    low = 1 / (rate + half) if rate + half > 0 else math.nan
    high = 1 / (rate - half) if rate - half > 0 else math.inf  # a rate that may be 0 leaves xi without an upper bound
    if high == math.inf:
        bound = f"; xi is above {low:.1f} pixels" if math.isfinite(low) else ""
        return _Row("not resolved", f"the CMI does not fall significantly with r{bound}", low=low, high=high)
    numbers = (1 / rate, low, high, math.exp(float(d.log_c)), p_value)
    if p_value < P_LEAST and off > MISFIT:
        return _Row("not exponential", f"p = {p_value:.1g}, and up to {100 * off:.0f} % off the fitted curve", *numbers)
    if p_value < P_LEAST:
        return _Row("ok", f"p = {p_value:.1g}, but at most {100 * off:.1f} % off the curve; interval widened", *numbers)
    return _Row("ok", "an exponential within the errors", *numbers)


class _Decay(NamedTuple):
    """log c, rate = 1 / xi, standard error of the rate for independent errors, chi^2: each (...).

    ``basis`` (..., 2, R): the orthonormal directions, in units of the standard errors, of a level and of a slope.
    """

    log_c: Array
    rate: Array
    error: Array
    chi2: Array
    basis: Array


def _decay(radii: Array, value: Array, stderr: Array, rounds: int = 30) -> _Decay:
    """Weighted fit of ``c exp(-rate r)`` to each row of ``value`` (..., R) > 0."""
    stderr = np.maximum(stderr, 1e-9 * np.abs(value))  # a cell without error would weigh infinitely
    model = np.maximum(value, 0.1 * stderr)  # above 0, for its logarithm
    for _ in range(rounds):
        weight = (model / stderr) ** 2  # 1 / variance of log I, to first order
        # the linearised response; bounded so that a hopeless row cannot run away (its misfit shows all the same)
        response = np.log(model) + np.clip((value - model) / model, -1, 2)
        total = weight.sum(-1, keepdims=True)
        r = radii - (weight * radii).sum(-1, keepdims=True) / total  # centred: level and slope are then fitted apart
        spread = (weight * r**2).sum(-1)
        rate = -(weight * r * response).sum(-1) / spread
        level = (weight * response).sum(-1, keepdims=True) / total
        model = np.exp(np.clip(level - rate[..., None] * r, -690, 690))  # within what float64 can hold
    log_c = level[..., 0] + rate * (radii - r)[..., 0]  # radii - r is their weighted mean
    root = np.sqrt(weight)
    basis = np.stack([root / np.sqrt(total), root * r / np.sqrt(spread)[..., None]], axis=-2)
    return _Decay(log_c, rate, 1 / np.sqrt(spread), (((value - model) / stderr) ** 2).sum(-1), basis)


def _judge(d: _Decay, together: Array) -> tuple[float, float, float]:
    """(standard error of the rate, expected chi^2, p-value of chi^2) of one fit with errors correlated as ``together``.

    With M the covariance of the residuals in units of the standard errors, chi^2 has mean tr M and variance 2 tr M^2,
    and so has s chi^2_nu with s = tr M^2 / tr M, nu = tr M / s (Satterthwaite).
    """
    slope = d.basis[1]
    # the sandwich: variance of the slope under correlated errors
    error = float(d.error) * math.sqrt(max(0.0, float(slope @ together @ slope)))
    left = np.eye(len(slope)) - d.basis.T @ d.basis  # takes the two fitted directions out
    residual = left @ together @ left
    expected = max(float(np.trace(residual)), 1e-9)
    scale = max(float((residual**2).sum()) / expected, 1e-9)  # tr M^2, for M is symmetric
    return error, expected, float(stats.chi2.sf(float(d.chi2) / scale, expected / scale))


class CriticalTime(NamedTuple):
    """``value`` with a 95 % interval, None where it cannot be told; ``note`` says what to know about it.

    ``peaks``: for each radius of the map the time at which the CMI is largest (NaN where no value is finite).
    """

    value: float | None
    low: float | None
    high: float | None
    note: str
    peaks: Array


@checks.checked(cmi=a_cmi_map, fit=a_markov_fit, draws=checks.count, seed=checks.seed)
def t_c(cmi: CMIMap, fit: MarkovFit, draws: int = 400, seed: int = 0) -> CriticalTime:
    """Time of the largest Markov length among those with status "ok".

    The interval: cells are drawn anew from normals of the measured values and errors (correlated over the radii where
    the map carries a covariance), xi fitted again, and the 2.5 % and 97.5 % quantiles of the argmax widened half way to
    the neighbouring measured times, since the grid resolves no better.  It covers the noise of the map, not times that
    were left out as unresolved, and inherits what :func:`markov_length` says of a map without covariance.

    None, with the reason in ``note``, when fewer than 3 times are resolved.
    """
    order = np.argsort(cmi.times, kind="stable")
    times = cmi.times[order]
    good = np.array([fit.status[i] == "ok" for i in order], dtype=bool)
    if good.sum() < 3:
        return CriticalTime(None, None, None, f"{good.sum()} times have a Markov length; a peak takes 3", _peaks(cmi))
    columns = [cmi.radii.index(r) for r in fit.radii]
    rows = order[good]
    value, stderr = cmi.value[np.ix_(rows, columns)], cmi.stderr[np.ix_(rows, columns)]
    noise = np.random.default_rng(seed).standard_normal((draws, *value.shape))
    # correlated over the radii, not over times
    noise = np.einsum("trs,dts->dtr", _roots(_correlations(cmi, columns)[rows]), noise)
    rate = _decay(np.array(fit.radii, dtype=float), value + stderr * noise, stderr, rounds=10).rate
    best = np.argmin(np.where(rate > 0, rate, 0.0), axis=1)  # a rate <= 0 is a length beyond all bounds
    # nearest: the quantile of an index is an index
    ends = np.flatnonzero(good)[np.quantile(best, [0.025, 0.975], method="nearest").astype(int)]
    top = int(np.flatnonzero(good)[np.argmax(fit.xi[rows])])
    low = (times[max(ends[0] - 1, 0)] + times[ends[0]]) / 2
    high = (times[min(ends[1] + 1, len(times) - 1)] + times[ends[1]]) / 2
    # the interval holds the value itself
    return CriticalTime(
        float(times[top]), float(min(low, times[top])), float(max(high, times[top])),
        _note(fit, order, good, top), _peaks(cmi),
    )  # fmt: skip


def _roots(matrices: Array) -> Array:
    """Square roots of symmetric matrices (..., R, R), eigenvalues below 0 (of an estimate, or by rounding) set to 0."""
    values, vectors = np.linalg.eigh(matrices)
    return (vectors * np.sqrt(np.maximum(values, 0))[..., None, :]) @ vectors.swapaxes(-1, -2)


def _note(fit: MarkovFit, order: Array, good: Array, top: int) -> str:
    """What limits the critical time: the edge of the resolved times, or longer lengths that were set aside."""
    inside = np.flatnonzero(good)
    if top in (inside[0], inside[-1]):
        return "the largest Markov length lies at the edge of the resolved times: the peak may lie beyond it"
    longer = [
        f"{fit.times[i]:.3g}"
        for i in order
        if fit.status[i] == "not exponential" and fit.xi[i] > fit.xi[order[top]]
    ]  # fmt: skip
    return f"the decay is slower, but not exponential, at t = {', '.join(longer)}" if longer else ""


def _peaks(cmi: CMIMap) -> Array:
    filled = np.where(np.isfinite(cmi.value), cmi.value, -np.inf)
    peaks = cmi.times[np.argmax(filled, axis=0)].astype(float)
    return np.where(np.isfinite(filled).any(axis=0), peaks, math.nan)
