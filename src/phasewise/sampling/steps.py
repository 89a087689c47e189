r"""Solver steps from noise time t down to s, for 0 < s < t.

A step is a plain function ``step(denoiser, x, t, s, carry) -> x_s`` on ``denoiser.path``; ``carry`` holds what one
trajectory takes along: the posterior mean of the step before (multistep) and a source of fresh noise (stochastic).

Deterministic steps solve the probability-flow ODE ``dx/dt = velocity(x, t) = alpha' D + sigma' (x - alpha D) / sigma``,
the same as ``d(x / sigma) = D d(alpha / sigma)``; stochastic ones a reverse SDE with the same marginals.

On an anisotropic path each mode has coefficients of its own: ``denoiser``, ``x`` and ``carry`` are then in the modes of
its basis (:class:`InModes`), and what is a number here is a tensor (H, W).  On all others it is a float.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import ModePath, NoisePath, Time
from phasewise.sampling.noise import StepNoise

Level = float | Tensor
"""A coefficient of a step: a number, or one for every mode, (H, W) float64."""

CHURN = 0.15
"""By how much ``heun_churn`` raises the noise-to-signal ratio sigma/alpha before each step, relatively."""


@dataclass
class Carry:
    """What a trajectory carries: ``last`` = (the solver's own time, posterior mean) at the start of the step before;
    ``noise`` makes standard normal noise shaped like x, one stream per sample."""

    last: tuple[Level, Tensor] | None = None
    noise: StepNoise | Callable[[], Tensor] | None = None

    def draw(self, between: tuple[Level, Level] | None = None) -> Tensor:
        """Standard normal noise; ``between``, the signal-to-noise ratios at the ends of the step that it is for, lets
        it come from one path for all grids.  Modes have no ratio in common: theirs is fresh."""
        if self.noise is None:
            raise PhasewiseError("a stochastic solver needs a source of noise; use phasewise.sample")
        if not isinstance(self.noise, StepNoise):
            return self.noise()
        start, end = (None, None) if between is None else between
        return self.noise((start, end) if isinstance(start, float) and isinstance(end, float) else None)


class InModes(Denoiser):
    """``member`` on an anisotropic path, spoken to in the modes of the path's basis: amplitudes (B, C, H, W) of the
    noisy image in, of the posterior mean out."""

    def __init__(self, member: Denoiser) -> None:
        assert isinstance(member.path, ModePath)
        super().__init__(member.image_shape, member.path.modes)
        self.member, self.basis = member, member.path.basis

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        return self.basis.to_modes(self.member(self.basis.to_pixels(x_t), t, cond))


Step = Callable[[Denoiser, Tensor, float, float, Carry], Tensor]


def velocity(denoiser: Denoiser, x: Tensor, t: float) -> Tensor:
    """dx/dt of the probability-flow ODE at (x, t), from the posterior mean. (B, C, H, W)."""
    return denoiser.path.velocity_from_x(x, denoiser(x, t), t)


def euler_step(denoiser: Denoiser, x: Tensor, t: float, s: float, carry: Carry) -> Tensor:
    """Order 1, one call: along the tangent."""
    return x + (s - t) * velocity(denoiser, x, t)


def heun_step(denoiser: Denoiser, x: Tensor, t: float, s: float, carry: Carry) -> Tensor:
    """Order 2 (explicit trapezoid), two calls, both by the same denoiser."""
    first = velocity(denoiser, x, t)
    second = velocity(denoiser, x + (s - t) * first, s)  # s > 0: the velocity there divides by sigma_s
    return x + (s - t) / 2 * (first + second)


def ddim_step(denoiser: Denoiser, x: Tensor, t: float, s: float, carry: Carry) -> Tensor:
    r"""Deterministic DDIM (Song, Meng, Ermon 2021, arXiv 2010.02502, eq. 12 with sigma = 0); order 1, one call.

    ``d(x / sigma) = D d(alpha / sigma)`` with D held, the exponential integrator of order 1: exact wherever D does not
    change along the step, on any path.  On the linear path it is the Euler step.
    """
    return _along(denoiser.path, x, denoiser(x, t), t, s)


def exp_ab2_step(denoiser: Denoiser, x: Tensor, t: float, s: float, carry: Carry) -> Tensor:
    r"""Order 2, one call, from t = 1 on: exponential Adams-Bashforth in linear time.

    The posterior mean is carried on linearly in ``w = sigma / (alpha + sigma)``, the time of the linear path, which is
    regular at both ends, and ``d(x / sigma) = D d(alpha / sigma)`` is integrated exactly::

        x_s = (sigma_s / sigma_t) x + (alpha_s - alpha_t sigma_s / sigma_t) (D + c (D - D') / (w_t - w'))
        c = (w_t / w_s - 1 - log(w_t / w_s)) / (1 / w_t - 1 / w_s)

    Order 1 where there is no step before.  The history is kept when another denoiser takes over: both estimate the same
    posterior mean, so between equal ones the order stays.
    """
    here, there = _linear_time(denoiser.path, t), _linear_time(denoiser.path, s)
    # alpha / sigma = 1 / w - 1, so D's slope in w weighs as the mean of (w - w_t) under d(1 / w) from w_t to w_s
    ahead = (here / there - 1 - _log(here / there)) / (1 / here - 1 / there)
    return _along(denoiser.path, x, _carried_on(denoiser(x, t), carry, here, ahead), t, s)


def dpmpp_2m_step(denoiser: Denoiser, x: Tensor, t: float, s: float, carry: Carry) -> Tensor:
    r"""DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2); one call.

    With ``l = log(alpha / sigma)`` and steps ``h = l_s - l_t``, ``h'`` the step before, the mean above is
    ``D + h / (2 h') (D - D')``.  Order 2 on grids regular in log-SNR; 1 where there is no step before, and where a step
    is infinite in l (it starts at alpha = 0), so a grid uniform in t from t = 1 has steps of ever lower order there.
    """
    here, there = _half_log_snr(denoiser.path, t), _half_log_snr(denoiser.path, s)
    mean = found = denoiser(x, t)
    if carry.last is not None:
        before, earlier = carry.last
        # D half-way through the step, on the line through the two last
        if isinstance(before, Tensor):
            ahead = torch.where(before.isfinite(), (there - here) / (2 * (here - before)), torch.zeros_like(before))
            mean = found + _as(ahead, found) * (found - earlier)
        elif math.isfinite(before):
            mean = found + (there - here) / (2 * (here - before)) * (found - earlier)
    carry.last = (here, found)
    return _along(denoiser.path, x, mean, t, s)


def ancestral_step(denoiser: Denoiser, x: Tensor, t: float, s: float, carry: Carry) -> Tensor:
    """One draw from ``q(x_s | x_t, x = D)`` (Ho et al. 2020, arXiv 2006.11239, eq. 7, for a general path); one call.

    The sampler that the penalty ``kl`` bounds.
    """
    return _draw(denoiser.path, x, denoiser(x, t), t, s, carry)


def sde_dpmpp_2m_step(denoiser: Denoiser, x: Tensor, t: float, s: float, carry: Carry) -> Tensor:
    r"""The ancestral step with the posterior mean carried on linearly as in :func:`exp_ab2_step`; one call.

    The reverse SDE that keeps the forward path's own noise has ``d(alpha x / sigma^2) = D d gamma + noise``, with
    ``gamma = (alpha / sigma)^2``; it is integrated exactly for D linear in w (the SDE-DPM-Solver++(2M) of Lu et al.
    2022, arXiv 2211.01095, in a time regular at both ends)::

        x_s ~ q(x_s | x_t, x = D + c (D - D') / (w_t - w'))
        c = ((w_s - w_t) gamma_s - G(w_s) + G(w_t)) / (gamma_s - gamma_t),   G(w) = w - 2 log w - 1 / w

    Along the SDE D is a martingale, so the ancestral step already has the right mean; what it lacks is the variance
    that D gathers within the step, and that is what D - D' brings: the samples' covariance is of order 2, not 1.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (_scales(denoiser.path, time) for time in (t, s))
    here, there = sigma_t / (alpha_t + sigma_t), sigma_s / (alpha_s + sigma_s)
    gamma_t, gamma_s = (alpha_t / sigma_t) ** 2, (alpha_s / sigma_s) ** 2
    # integral of gamma = (1 / w - 1)^2 over w from w_t to w_s; by parts it gives the mean of (w - w_t) under d gamma
    area = there - here - 2 * _log(there / here) - 1 / there + 1 / here
    mean = _carried_on(denoiser(x, t), carry, here, ((there - here) * gamma_s - area) / (gamma_s - gamma_t))
    return _draw(denoiser.path, x, mean, t, s, carry)


def heun_churn_step(denoiser: Denoiser, x: Tensor, t: float, s: float, carry: Carry) -> Tensor:
    """Raise the noise by :data:`CHURN`, then a Heun step (Karras et al. 2022, arXiv 2206.00364, algorithm 2); two
    calls.  At alpha = 0 there is nothing to raise."""
    path = denoiser.path
    alpha, sigma = _scales(path, t)
    if isinstance(alpha, Tensor) or isinstance(sigma, Tensor):
        raise PhasewiseError(
            "heun_churn raises the noise by going back in time, which modes of an anisotropic path do by different "
            "amounts; use another stochastic solver, such as sde_dpmpp_2m"
        )
    if alpha > 0:
        ratio = (1 + CHURN) * sigma / alpha
        # at most the noise the path ends with; rounding never lowers it
        t = max(t, min(1.0, float(path.t_of_log_snr(torch.tensor(-2 * math.log(ratio), dtype=torch.float64)))))
        alpha_up, sigma_up = _scales(path, t)
        rescale = alpha_up / alpha  # the image keeps its share, so only noise is added
        # as strong in every step, however short: no path has a limit, but steps on one path share what they can
        alpha_s, sigma_s = _scales(path, s)
        noise = carry.draw(((alpha / sigma) ** 2, (alpha_s / sigma_s) ** 2))
        x = rescale * x + math.sqrt(max(sigma_up**2 - (rescale * sigma) ** 2, 0.0)) * noise
    return heun_step(denoiser, x, t, s, carry)


def _carried_on(found: Tensor, carry: Carry, here: Level, ahead: Level) -> Tensor:
    """The posterior mean ``found`` at the solver's time ``here``, carried on by ``ahead`` along the line through the
    one before, if there is one; remembered for the next step."""
    before, carry.last = carry.last, (here, found)
    return found if before is None else found + _as(ahead / (here - before[0]), found) * (found - before[1])


def _along(path: NoisePath, x: Tensor, mean: Tensor, t: float, s: float) -> Tensor:
    """``d(x / sigma) = mean d(alpha / sigma)`` from t to s, exactly, with ``mean`` held."""
    alpha_t, sigma_t = _scales(path, t)
    alpha_s, sigma_s = _scales(path, s)
    return _as(sigma_s / sigma_t, x) * x + _as(alpha_s - alpha_t * sigma_s / sigma_t, x) * mean


def _draw(path: NoisePath, x: Tensor, mean: Tensor, t: float, s: float, carry: Carry) -> Tensor:
    """One draw from ``q(x_s | x_t, x = mean)``."""
    alpha_t, sigma_t = _scales(path, t)
    alpha_s, sigma_s = _scales(path, s)
    forward = alpha_t / alpha_s
    added = _above_0(sigma_t**2 - (forward * sigma_s) ** 2)  # variance that the forward path adds from s to t
    # mean and variance of q: Ho et al. 2020, eq. 7
    middle = _as(forward * (sigma_s / sigma_t) ** 2, x) * x + _as(alpha_s * added / sigma_t**2, x) * mean
    noise = carry.draw(((alpha_t / sigma_t) ** 2, (alpha_s / sigma_s) ** 2))
    return middle + _as(_root(added) * sigma_s / sigma_t, x) * noise


def _scales(path: NoisePath, t: float) -> tuple[Level, Level]:
    at = torch.tensor(t, dtype=torch.float64)
    return _level(path.alpha(at)), _level(path.sigma(at))


def _linear_time(path: NoisePath, t: float) -> Level:
    """``w = sigma / (alpha + sigma)``: the linear path's time at the same log-SNR."""
    alpha, sigma = _scales(path, t)
    return sigma / (alpha + sigma)


def _half_log_snr(path: NoisePath, t: float) -> Level:
    return _level(path.log_snr(t)) / 2


# numbers stay numbers: one level for all modes is computed as it always was


def _level(value: Tensor) -> Level:
    return value if value.dim() else float(value)


def _as(level: Level, x: Tensor) -> Level:
    return level.to(x) if isinstance(level, Tensor) else level


def _log(level: Level) -> Level:
    return level.log() if isinstance(level, Tensor) else math.log(level)


def _root(level: Level) -> Level:
    return level.sqrt() if isinstance(level, Tensor) else math.sqrt(level)


def _above_0(level: Level) -> Level:
    return level.clamp_min(0) if isinstance(level, Tensor) else max(level, 0.0)
