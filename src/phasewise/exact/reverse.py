r"""The reverse process with a k-local score, solved exactly: where it ends, and what bounds its error.

Both processes run back from noise with what a window of radius r tells in place of the whole image::

    bits    every bit flips at rate 1/2 per unit of u = -log(1 - t); backwards, x -> x^i (bit i flipped) at the rate
            1/2 rho_i,  rho_i = P_t(x^i) / P_t(x);  k-local: rho_i^r, the same ratio on the window N_r(i)
    fields  y = x_t / alpha = X_0 + sqrt(v) Z, v = (sigma / alpha)^2; backwards dy = -(D(y) - y) / v dv + dW, with unit
            churn; k-local: D_r.  For a Gaussian model all laws stay Gaussian, so a covariance is all there is.

From the true law at the noisy end, the law Q at the other end obeys (Girsanov's theorem, then data processing)::

    KL(P || Q) <= 1/2 int E sum_i [ rho_i log(rho_i / rho_i^r) - rho_i + rho_i^r ] du           (bits)
    KL(P || Q) <= 1/2 int Delta_r d gamma,    gamma = 1 / v                                     (fields)

and the right sides are the conditional mutual information of single pixels summed up along the way: with A alone noised
further by du, ``I(A : C | B)`` falls at the rate of the i-th summand, since both are KL divergences of the same two
posteriors.  It is the limit of inequality (2) of :mod:`phasewise.exact.discrete` for thin layers (the discrete case),
and the identity of I and minimum mean-square error of Guo, Shamai and Verdu (the Gaussian one).  k-local equations of
Fokker and Planck: Hu, Liu, Zhang, Gao, arXiv 2508.06614.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy.special import xlogy
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.exact.base import check_radius_or_zero, noise_level
from phasewise.exact.discrete import DiscreteSystem
from phasewise.exact.gaussian import GaussianModel
from phasewise.paths import LinearPath, NoisePath

Array = np.ndarray
ROUNDING = -1e-12
S = TypeVar("S", Array, Tensor)


@dataclass(frozen=True)
class Reversal:
    """``kl``: of the true law from where the k-local process ends, nats; ``bound``: the integral above, >= kl."""

    kl: float
    bound: float


@checks.checked(system=checks.made(DiscreteSystem, "a DiscreteSystem"))
def score_gap(system: DiscreteSystem, t: float, radius: int) -> float:
    """The integrand of the bound for bits, ``1/2 E sum_i [...]``: nats per unit of ``-log(1 - t)``, at t in (0, 1).

    The sum over bits of the rate at which ``I(A_i : C_i | B_i)`` falls when bit i alone is noised further; the excess
    of the score entropy of Lou, Meng, Ermon (arXiv 2310.16834) of windows over that of the whole.
    """
    if not 0 < checks.unit(t, "noise level t") < 1:
        raise PhasewiseError(f"scores of bits exist at noise levels above 0 and below 1, got {t}")
    p, total = system.noisy(t), 0.0
    for i, near in enumerate(_near(system, p, radius)):
        flipped, ratio = np.flip(p, i), np.flip(near, i) / near
        # E_P rho log rho = sum P(x^i) log(P(x^i) / P(x)), and so on
        total += float((xlogy(flipped, flipped / p) - xlogy(flipped, ratio) - flipped + p * ratio).sum())
    return total / 2


@checks.checked(system=checks.made(DiscreteSystem, "a DiscreteSystem"), steps=checks.steps)
def reverse_bits(
    system: DiscreteSystem, radius: int, t_min: float = 0.02, t_max: float = 0.98, steps: int = 200
) -> Reversal:
    """The k-local reverse jump process of a system, from its law at level ``t_max`` down to ``t_min``.

    ``steps`` of the fourth-order Runge-Kutta method, even in ``log(t / (1 - t))``.  Raises :class:`PhasewiseError` for
    levels that are not 0 < t_min < t_max < 1, and where so few steps leave a chance below 0.
    """
    low, high = _logit(t_min, t_max)

    def slope(x: float, q: Array) -> Array:
        t = 1 / (1 + math.exp(-x))
        p, change = system.noisy(t), np.zeros_like(q)
        for i, near in enumerate(_near(system, p, radius)):
            out = q * (np.flip(near, i) / near)
            change += np.flip(out, i) - out
        # du = dt / (1 - t) = t dx, and the process runs towards smaller x
        return -change * t / 2

    q = _integrated(slope, system.noisy(t_max), high, low, steps)
    p = system.noisy(t_min)
    if float(q.min()) < ROUNDING:
        raise PhasewiseError(f"{steps} steps are too few for this process; take more")
    # a state this rare counts for nothing, and rounding may have left it a chance below 0
    q = q.clip(min=np.finfo(float).tiny)
    grid = np.linspace(low, high, 2 * max(steps // 2, 1) + 1)
    rates = [score_gap(system, t, radius) * t for t in (1 / (1 + np.exp(-grid))).tolist()]
    return Reversal(float((p * np.log(p / q)).sum()), _simpson(rates, (high - low) / (len(grid) - 1)))


@checks.checked(model=checks.made(GaussianModel, "a Gaussian model"), steps=checks.steps)
def reverse_field(
    model: GaussianModel,
    radius: int,
    t_min: float = 0.02,
    t_max: float = 0.98,
    path: NoisePath | None = None,
    steps: int = 400,
) -> Reversal:
    """The k-local reverse diffusion of a Gaussian model with unit churn, from its law at ``t_max`` down to ``t_min``.

    ``steps`` of the fourth-order Runge-Kutta method, even in log-SNR.
    """
    path = path or LinearPath()
    _logit(t_min, t_max)
    check_radius_or_zero(radius)
    denoiser = model.denoiser(radius, path)
    eye = torch.eye(len(model.covariance), dtype=torch.float64)
    ends = [2 * math.log(sigma / alpha) for alpha, sigma in (noise_level(t, path) for t in (t_min, t_max))]

    def slope(x: float, law: Tensor) -> Tensor:
        t = float(path.t_of_log_snr(-x))
        gain = noise_level(t, path)[0] * denoiser.matrix(t) - eye
        # of the covariance of y while v falls: dv = v dx
        return -(gain @ law + law @ gain.T + math.exp(x) * eye)

    start = model.covariance + math.exp(ends[1]) * eye
    law = _integrated(slope, start, ends[1], ends[0], steps)
    true = model.covariance + math.exp(ends[0]) * eye
    ratio = torch.linalg.solve(law, true)
    kl = 0.5 * float(ratio.trace() - len(eye) - torch.linalg.slogdet(ratio)[1])
    return Reversal(kl, model.path_kl(radius, t_min, t_max, path))


def _near(system: DiscreteSystem, p: Array, radius: int) -> list[Array]:
    """Of every bit: the law of its window, summed axes kept with length 1."""
    found = dict(system.windows(radius))
    return [p.sum(tuple(set(range(system.n)) - found[i]), keepdims=True) for i in range(system.n)]


def _logit(t_min: float, t_max: float) -> tuple[float, float]:
    low, high = checks.number(t_min, "t_min"), checks.number(t_max, "t_max")
    if not 0 < low < high < 1:
        raise PhasewiseError(f"need 0 < t_min < t_max < 1, got {t_min} and {t_max}")
    return math.log(low / (1 - low)), math.log(high / (1 - high))


def _integrated(slope: Callable[[float, S], S], y: S, start: float, stop: float, steps: int) -> S:
    """The classical Runge-Kutta method of order four."""
    h = (stop - start) / steps
    for k in range(steps):
        x = start + k * h
        a = slope(x, y)
        b = slope(x + h / 2, y + h / 2 * a)
        c = slope(x + h / 2, y + h / 2 * b)
        d = slope(x + h, y + h * c)
        y = y + h / 6 * (a + 2 * b + 2 * c + d)
    return y


def _simpson(values: list[float], step: float) -> float:
    return step / 3 * (values[0] + values[-1] + 4 * sum(values[1::2]) + 2 * sum(values[2:-1:2]))
