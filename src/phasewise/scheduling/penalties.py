r"""Penalties: what is lost by giving step k, from t_k to t_{k+1}, to member n instead of the reference.

A sampler asks a denoiser at t_k and holds its answer over the step, so what counts is what it loses *there*.  (Of two
calls a step only the first is charged; a closed form that jumps by its own flow is charged as if it held its answer.)

* ``kl``: ``1/2 (gamma_{k+1} - gamma_k) (loss_n - loss_ref)``, nats per image.  The sum over steps is what the bound on
  the KL of the ancestral sampler's samples grows by (Girsanov; Kingma et al. 2021).  The last step, the denoise, is
  charged ``1/2 gamma(t_min) (loss_n - loss_ref)``: the reconstruction term of a Gaussian decoder.
* ``w2``: ``|D_n - D_ref|_{L2} push growth``, pixel units, with ``push = alpha_{k+1} - alpha_k sigma_{k+1} / sigma_k``
  what an exact step of the ODE makes of a change of D: how far the sample is pushed off its course, times the measured
  factor by which that has grown at the image (1 where it was not measured; then it is a 2-Wasserstein bound up to a
  Lipschitz factor); the last step is charged the distance of the two denoised images.
* ``flow``: ``(|v_n - v|^2 - |v_ref - v|^2) (t_k - t_{k+1})``, squared pixel units: the excess flow-matching loss, with
  the true velocity v; like ``kl`` it sees when a member is better than the reference, like ``w2`` it weighs velocities.
* ``frechet``: ``F push``, feature units, with F the Frechet distance (its root) between the features of both denoisers'
  posterior means (:mod:`phasewise.scheduling.perception`): ``w2`` as FID's own features see it, between sets instead of
  images; the last step is charged F.  It needs a feature network when the price list is measured.

Of ``w2`` and ``frechet``, D_ref is what a price list counts distances from: the best that is known at each step
(:mod:`phasewise.scheduling.truth`), by default, so that a trained reference may pay, too.

``kl`` belongs to an SDE sampler, ``w2`` to an ODE.  ``frechet`` ranks schedules of low FID best
(docs/results/schedules.md) and is the default wherever it was measured, ``w2`` elsewhere.

"""

from __future__ import annotations

import numpy as np
import torch

from phasewise.paths import NoisePath, path_from_config
from phasewise.results import Array, PriceList, StepErrors
from phasewise.scheduling.penalty import Penalty, register_penalty


class PathKL(Penalty):
    name, unit, label, ancestral, needs_losses = "kl", "nats", "path KL", True, True
    meaning = "Path KL: the information in nats lost by a stochastic sampler."

    def step(self, prices: PriceList) -> tuple[Array, Array]:
        gamma = _gamma(prices)
        # gamma at t = 0 is infinite: the denoise is charged gamma(t_min)
        weight = np.append(np.diff(gamma), gamma[-1])[:, None] / 2
        return prices.losses.gap * weight, prices.losses.gap_stderr * np.abs(weight)

    def correlation(self, prices: PriceList) -> Array | None:
        return prices.losses.gap_correlation

    def span(self, prices: PriceList) -> Array:
        """1/2 integral gap d gamma, trapezoid in log-SNR of gamma * gap; from gamma = 0 on, where log-SNR is infinite,
        the gap at the far end over the span."""
        gap, gamma = prices.losses.gap, _gamma(prices)
        low, high = gamma[:-1, None], gamma[1:, None]
        finite = low > 0  # gamma = 0 at t = 1 of a path that ends in pure noise
        steps = np.log(high / np.where(finite, low, high))  # d gamma = gamma d log gamma
        # a quarter: the penalty's 1/2 times the trapezoid's 1/2
        return np.where(finite, steps * (low * gap[:-1] + high * gap[1:]) / 4, high / 2 * gap[1:])

    def stop(self, prices: PriceList) -> Array:
        return prices.losses.gap * _gamma(prices)[:, None] / 2

    def edges(self, prices: PriceList, errors: StepErrors | None) -> tuple[Array, Array]:
        """A finite ancestral step costs 1/2 (gamma_j - gamma_i) loss_n(t_i); less the reference's own continuous
        integral, so that all ways are counted from one zero.  The solver's error is in it already."""
        table, gamma = prices.losses, _gamma(prices)
        reference = table.loss[:, table.column(table.reference)]
        low, high = gamma[:-1], gamma[1:]
        ratio = high / np.where(low > 0, low, high)  # np.where computes both cases: no log of high / 0
        each = np.where(  # 1/2 integral loss_ref d gamma over every candidate interval, trapezoid in log-SNR
            low > 0,
            np.log(ratio) * (low * reference[:-1] + high * reference[1:]) / 4,
            high * (reference[:-1] + reference[1:]) / 4,
        )
        until = np.append(0.0, np.cumsum(each))  # the reference's integral from the first time to each
        growth = gamma[None] - gamma[:, None]  # [i, j] = gamma_j - gamma_i
        edge = 0.5 * growth[:, :, None] * table.loss[:, None] - (until[None] - until[:, None])[:, :, None]
        later = np.arange(len(gamma))[None] > np.arange(len(gamma))[:, None]
        return np.where(later[:, :, None], edge, np.nan), self.stop(prices)


class VelocityError(Penalty):
    name, unit, label, distance = "w2", "pixel units", "velocity error", True
    meaning = "Velocity error: how far a deterministic (ODE) sampler is pushed off the course of the global denoiser."

    def step(self, prices: PriceList) -> tuple[Array, Array]:
        root, error = _root(prices.losses.distance, prices.losses.distance_stderr)
        grown = np.broadcast_to(_growth(prices), root.shape).copy()
        grown[-1] = 1.0  # the denoise ends at the image: nothing grows any more
        return root * _push(prices) * grown, error * _push(prices) * grown

    def correlation(self, prices: PriceList) -> Array | None:
        return prices.losses.distance_correlation

    def span(self, prices: PriceList) -> Array:
        distance = np.sqrt(np.maximum(prices.losses.distance, 0.0))
        # |v_n - v_ref| = velocity_gain |D_n - D_ref|
        return _trapezoid(distance * _gain(prices) * _growth(prices), prices.times)

    def stop(self, prices: PriceList) -> Array:
        return np.sqrt(np.maximum(prices.losses.distance, 0.0))

    def stray(self, error: Array, length: Array) -> Array:
        return error  # measured at the image, in pixel units already


class FlowExcess(Penalty):
    name, unit, label, needs_losses = "flow", "squared pixel units", "excess flow-matching loss", True
    meaning = (
        "Excess flow-matching loss: the squared error of the velocity (what the sampler follows) beyond that of the "
        "global denoiser, added up over t; it sees where a local denoiser is the better one."
    )

    def step(self, prices: PriceList) -> tuple[Array, Array]:
        # |v_n - v|^2 = velocity_gain^2 |D_n - x|^2, held from t_k to t_{k+1}, at the end to 0
        weight = -np.diff(prices.times, append=0.0)[:, None] * _gain(prices) ** 2
        return prices.losses.gap * weight, prices.losses.gap_stderr * np.abs(weight)

    def correlation(self, prices: PriceList) -> Array | None:
        return prices.losses.gap_correlation

    def span(self, prices: PriceList) -> Array:
        return _trapezoid(prices.losses.gap * _gain(prices) ** 2, prices.times)

    def stop(self, prices: PriceList) -> Array:
        return prices.losses.gap * _gain(prices) ** 2 * prices.times[:, None]  # held over the last step, t - 0

    def stray(self, error: Array, length: Array) -> Array:
        return error**2 / length  # a velocity error e / length, held over the step


class SetDistance(Penalty):
    name, unit, label, distance = "frechet", "feature units", "set distance", True
    meaning = (
        "Set distance: the velocity error with sets of images seen as the judge sees them, by the mean and covariance "
        "of their features."
    )

    def step(self, prices: PriceList) -> tuple[Array, Array]:
        assert prices.frechet is not None
        error = np.zeros_like(prices.frechet) if prices.frechet_stderr is None else prices.frechet_stderr
        root, error = _root(prices.frechet, error)
        return root * _push(prices), error * _push(prices)

    def missing(self, prices: PriceList) -> str | None:
        if prices.frechet is not None:
            return None
        return (
            "these prices were measured without features; measure them with pw.price_list(..., features=network), or "
            "use penalty 'w2'"
        )


def _path(prices: PriceList) -> tuple[NoisePath, torch.Tensor]:
    return path_from_config(prices.losses.path), torch.as_tensor(prices.times)


def _gamma(prices: PriceList) -> Array:
    path, t = _path(prices)
    return path.gamma(t).numpy()


def _gain(prices: PriceList) -> Array:
    """(S, 1): |d velocity / d x-hat| at every time."""
    path, t = _path(prices)
    return path.velocity_gain(t).numpy()[:, None]


def _push(prices: PriceList) -> Array:
    """(S, 1): by how much an exact ODE step moves the sample per change of the answer."""
    path, t = _path(prices)
    # The denoise ends at a clean image, whatever noise the path itself ends with.
    alpha, sigma = np.append(path.alpha(t).numpy(), 1.0), np.append(path.sigma(t).numpy(), 0.0)
    return (alpha[1:] - alpha[:-1] * sigma[1:] / sigma[:-1])[:, None]  # d x_s / d D in the exact step with D held


def _growth(prices: PriceList) -> Array:
    """(S, N), or 1 where it was not measured."""
    return np.ones(1) if prices.growth is None else prices.growth


def _trapezoid(values: Array, times: Array) -> Array:
    """(S - 1, N): integrals of (S, N) values over the spans between descending times."""
    return -np.diff(times)[:, None] / 2 * (values[:-1] + values[1:])


def _root(square: Array, stderr: Array) -> tuple[Array, Array]:
    """Root of squared distances and its standard error, sqrt(d + e) - sqrt(d)."""
    root = np.sqrt(np.maximum(square, 0.0))
    # sqrt(d + e) - sqrt(d) = e / (sqrt(d + e) + sqrt(d)) without cancellation; 1e-300 for 0 / 0
    return root, stderr / np.maximum(np.sqrt(np.maximum(square, 0.0) + stderr) + root, 1e-300)


for _penalty in (PathKL(), VelocityError(), FlowExcess(), SetDistance()):
    register_penalty(_penalty)
