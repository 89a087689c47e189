r"""The price list: what each denoiser costs and loses at every step of a time grid.

Price of serving step k, from t_k to t_{k+1}, by denoiser n instead of the reference.  A sampler asks a denoiser at t_k
and holds its answer over the step, so what counts is what it loses *there*, under four weightings.  (Of two calls a
step only the first is charged, and a closed form that jumps by its own flow, which solvers without a history let it do,
as if it held its answer, too.)

* ``kl``: ``1/2 (gamma_{k+1} - gamma_k) (loss_n - loss_ref)``, nats per image.  The sum over steps is what the bound on
  the KL of the ancestral sampler's samples grows by (Girsanov; Kingma et al. 2021).  The last step, the denoise, is
  charged ``1/2 gamma(t_min) (loss_n - loss_ref)``: the reconstruction term of a Gaussian decoder.
* ``w2``: ``|D_n - D_ref|_{L2} push growth``, pixel units, with ``push = alpha_{k+1} - alpha_k sigma_{k+1} / sigma_k``
  what an exact step of the ODE makes of a change of D: how far the sample is pushed off its course, times the measured
  factor by which that has grown at the image (1 where it was not measured; then it is a 2-Wasserstein bound up to a
  Lipschitz factor); the last step is charged the distance of the two denoised images.
* ``flow``: ``(|v_n - v|^2 - |v_ref - v|^2) (t_k - t_{k+1})``, squared pixel units: the excess flow-matching loss, with
  the true velocity v; like ``kl`` it sees when a denoiser is better than the reference, like ``w2`` it weighs
  velocities.
* ``frechet``: ``F push``, feature units, with F the Frechet distance (its root) between the features of both denoisers'
  posterior means (:mod:`phasewise.scheduling.perception`): ``w2`` as FID's own features see it, between sets instead of
  images; the last step is charged F.  It needs a feature network at pricing.

:func:`span_penalties` has the first three as integrals over spans of time, for steps that are yet to be placed.
``kl`` is an SDE price, ``w2`` the matching one for ODEs.  ``frechet`` ranks schedules of low FID best
(docs/schedules.md) and is the default wherever it was measured, ``w2`` elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phasewise.data import ImageData, as_images
from phasewise.denoisers.base import Denoiser
from phasewise.diagnosis.losses import measure_losses
from phasewise.errors import PhasewiseError
from phasewise.metrics import FeatureNetwork
from phasewise.metrics.cost import count_flops, measure_ms
from phasewise.paths import path_from_config
from phasewise.results import PriceList
from phasewise.sampling.solvers import calls_per_step
from phasewise.scheduling.perception import measure_frechet
from phasewise.scheduling.step_errors import measure_growth

WEIGHTINGS = {"kl": "nats", "w2": "pixel units", "flow": "squared pixel units", "frechet": "feature units"}
PLACING = ("kl", "w2", "flow")
"""Those that can also place steps."""
Weighting = str | Callable[[PriceList], tuple[np.ndarray, np.ndarray]]
"""A name of :data:`WEIGHTINGS`, or your own: a function of the price list that gives the price of every step by every
denoiser and its standard error, both (S, N)."""


def price_list(
    denoisers: Mapping[str, Denoiser],
    data: ImageData | Tensor,
    times: Sequence[float],
    *,
    reference: str = "global",
    seed: int = 0,
    n: int = 1000,
    batch: int = 64,
    paths: int = 0,
    features: FeatureNetwork | None = None,
) -> PriceList:
    """Losses and costs of every denoiser at every start time of a grid (descending, as for :func:`phasewise.sample`).

    ``paths`` > 0 also follows so many sampling paths to measure how far each denoiser's error reaches
    (:func:`phasewise.scheduling.step_errors.measure_growth`), which the ``w2`` price then counts.  ``features``, a
    network
    as for :func:`phasewise.fid`, adds what the ``frechet`` price needs (:mod:`phasewise.scheduling.perception`); it is
    biased upward by few images, so give thousands where there are, and compare lists of equal ``n`` only.

    Measured on up to ``n`` validation images of ``data`` (a tensor is split as :func:`phasewise.train` splits it) with
    fresh noise, so that the test images stay unseen by the schedule.
    """
    images = as_images(data).validation
    frechet, frechet_error = None, None
    if features is not None and reference in denoisers:  # first: a network that does not fit is refused at once
        frechet, frechet_error = measure_frechet(denoisers, images[:n], times, features, reference=reference, seed=seed)
    table = measure_losses(denoisers, images[:n], times, reference=reference, seed=seed)
    shape = denoisers[reference].image_shape
    ms = measure_ms(denoisers, shape, batch=batch, seed=seed)
    return PriceList(
        losses=table,
        flops=np.array([count_flops(d, shape) for d in denoisers.values()], dtype=float),
        ms=np.array([ms[name][0] for name in denoisers]),
        device=str(images.device),
        batch=batch,
        jumps=tuple(name for name, d in denoisers.items() if d.jumps),
        growth=measure_growth(denoisers, times, reference=reference, n=paths, seed=seed) if paths else None,
        frechet=frechet,
        frechet_stderr=frechet_error,
    )


def prices_at(prices: PriceList, times: Sequence[float]) -> PriceList:
    """The price list carried over to another grid inside its span, without measuring again.

    Losses, gaps and distances, and their errors, are interpolated linearly in t in velocity units (times
    ``velocity_gain^2``), in which they vary least.  Raises PhasewiseError for a time outside the measured span.
    """
    table, grid = prices.losses, np.asarray(times, dtype=np.float64)
    if grid.ndim != 1 or not len(grid) or (np.diff(grid) >= 0).any():
        raise PhasewiseError(f"times must decrease strictly, at least one; got {list(times)}")
    low, high = float(table.times.min()), float(table.times.max())
    outside = grid[(grid < low - 1e-9) | (grid > high + 1e-9)]
    if len(outside):
        raise PhasewiseError(f"no prices at t = {outside[0]:.3g}: they were measured from {low:.3g} to {high:.3g}")
    path, order = path_from_config(table.path), np.argsort(table.times)
    known, wanted = (path.velocity_gain(torch.as_tensor(t)).numpy()[:, None] ** 2 for t in (table.times, grid))

    def carried(values: np.ndarray) -> np.ndarray:
        scaled = (values * known)[order]
        columns = [np.interp(grid, table.times[order], scaled[:, n]) for n in range(values.shape[1])]
        return np.stack(columns, 1) / wanted

    fields = ("loss", "loss_stderr", "gap", "gap_stderr", "distance", "distance_stderr")
    moved: dict[str, Any] = {name: carried(getattr(table, name)) for name in fields}
    growth = prices.growth
    if growth is not None:
        growth = np.stack([np.interp(grid, table.times[order], column[order]) for column in growth.T], 1)
    moved["log_snr"] = path.log_snr(torch.as_tensor(grid)).numpy()
    frechet, error = (None if a is None else carried(a) for a in (prices.frechet, prices.frechet_stderr))
    table = replace(table, times=grid, **moved)
    return replace(prices, losses=table, growth=growth, frechet=frechet, frechet_stderr=error)


def calls_of(prices: PriceList, solver: str, steps: int) -> np.ndarray:
    """(S, N) denoiser calls of every step by every denoiser; one for those that jump by their own flow."""
    calls = np.repeat(np.array(calls_per_step(solver, steps))[:, None], len(prices.names), axis=1)
    calls[:, [name in prices.jumps for name in prices.names]] = 1
    return calls


def weighting_name(weighting: Weighting) -> str:
    """Its name: of a function, the function's, told from the built-in ones."""
    if isinstance(weighting, str):
        return weighting
    name = str(getattr(weighting, "__name__", type(weighting).__name__))
    return f"own {name}" if name in WEIGHTINGS else name


def weighting_for(prices: PriceList, weighting: Weighting | None = None) -> Weighting:
    """The given ``weighting``; by default "frechet" where that was measured, else "w2"."""
    if weighting is not None:
        return weighting
    return "w2" if prices.frechet is None else "frechet"


def unit_of(weighting: Weighting) -> str:
    return WEIGHTINGS[weighting] if isinstance(weighting, str) else "of its own unit"


def step_penalties(prices: PriceList, weighting: Weighting | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(price, stderr), each (S, N): excess over the reference of serving step k by denoiser n, by default under
    :func:`weighting_for`.

    Raises PhasewiseError for an unknown weighting or one whose price was not measured, a grid that does not decrease,
    prices that are not finite, or your own weighting's of another shape.
    """
    weighting = weighting_for(prices, weighting)
    check_prices(prices, weighting)
    if not isinstance(weighting, str):
        return _own(weighting, prices)
    table, times = prices.losses, prices.times
    path = path_from_config(table.path)
    t = torch.as_tensor(times)
    if weighting in ("kl", "flow"):
        if weighting == "kl":
            gamma = path.gamma(t).numpy()
            weight = np.append(np.diff(gamma), gamma[-1]) / 2
        else:
            weight = -np.diff(times, append=0.0) * path.velocity_gain(t).numpy() ** 2
        return table.gap * weight[:, None], table.gap_stderr * np.abs(weight)[:, None]
    # The denoise ends at a clean image, whatever noise the path itself ends with.
    alpha, sigma = np.append(path.alpha(t).numpy(), 1.0), np.append(path.sigma(t).numpy(), 0.0)
    push = (alpha[1:] - alpha[:-1] * sigma[1:] / sigma[:-1])[:, None]
    if weighting == "frechet":
        assert prices.frechet is not None
        error = np.zeros_like(prices.frechet) if prices.frechet_stderr is None else prices.frechet_stderr
        root, error = _root(prices.frechet, error)
        return root * push, error * push
    root, error = _root(table.distance, table.distance_stderr)
    grown = np.broadcast_to(_growth(prices), root.shape).copy()
    grown[-1] = 1.0
    return root * push * grown, error * push * grown


def span_penalties(prices: PriceList, weighting: str) -> np.ndarray:
    """(S, N): the excess as an integral over [t_{k+1}, t_k], trapezoid, however it will be cut into steps; ``w2`` with
    its growth.  The last row is that of ending there, as :func:`stop_penalties` charges it.

    Raises PhasewiseError as :func:`step_penalties` does, and for a weighting that cannot place steps.
    """
    check_named(weighting)
    check_prices(prices, weighting)
    table, t = prices.losses, torch.as_tensor(prices.times)
    path = path_from_config(table.path)
    gain = path.velocity_gain(t).numpy()[:, None]
    if weighting == "kl":
        each = _kl(table.gap, path.gamma(t).numpy())
    elif weighting == "flow":
        each = _trapezoid(table.gap * gain**2, prices.times)
    else:
        each = _trapezoid(np.sqrt(np.maximum(table.distance, 0.0)) * gain * _growth(prices), prices.times)
    return np.vstack([each, stop_penalties(prices, weighting)[-1:]])


def _own(weighting: Callable[[PriceList], Any], prices: PriceList) -> tuple[np.ndarray, np.ndarray]:
    shape = prices.losses.loss.shape
    try:
        price, stderr = (np.asarray(a, dtype=np.float64) for a in weighting(prices))
    except (TypeError, ValueError):
        price = stderr = np.zeros(0)
    if price.shape != shape or stderr.shape != shape or not (np.isfinite(price) & np.isfinite(stderr)).all():
        raise PhasewiseError(
            f"the weighting {weighting_name(weighting)} must give (price, stderr), two finite arrays of shape {shape}: "
            "steps x denoisers"
        )
    return price, stderr


def check_prices(prices: PriceList, weighting: Weighting) -> None:
    """Raises PhasewiseError as :func:`step_penalties` does."""
    if not callable(weighting) and weighting not in WEIGHTINGS:
        raise PhasewiseError(
            f"unknown weighting {weighting!r}; known: {', '.join(WEIGHTINGS)}, or a function of the price list"
        )
    table = prices.losses
    times = table.times
    if (np.diff(times) >= 0).any():
        raise PhasewiseError(
            "the price list's times must decrease: measure it on a sampler's time grid, e.g. pw.time_grid(16)"
        )
    if weighting == "frechet" and prices.frechet is None:
        raise PhasewiseError(
            "these prices were measured without features; measure them with pw.price_list(..., features=network), or "
            "use weighting 'w2'"
        )
    known = {"gap": table.gap, "distance": table.distance}
    if prices.frechet is not None:
        known["frechet"] = prices.frechet
    for field, values in known.items():
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            k, i = bad[0]
            raise PhasewiseError(
                f"the {field} of {table.names[i]} at t = {times[k]:.3g} is not a number; measure it again"
            )


def _growth(prices: PriceList) -> np.ndarray:
    """(S, N) or 1 where it was not measured."""
    return np.ones(1) if prices.growth is None else prices.growth


def check_named(weighting: Weighting) -> None:
    """Raises PhasewiseError for a weighting that prices steps of a given grid only, not steps to be placed."""
    if weighting not in PLACING and (weighting in WEIGHTINGS or not isinstance(weighting, str)):
        raise PhasewiseError(
            f"steps are placed by one of the weightings {', '.join(PLACING)}; {weighting_name(weighting)} "
            "prices the steps of a given grid: use pw.optimise_schedule"
        )


def stop_penalties(prices: PriceList, weighting: str) -> np.ndarray:
    """(S, N): excess price of ending with a denoise by n at each time of the grid, as :func:`step_penalties` charges
    the
    last one."""
    check_named(weighting)
    check_prices(prices, weighting)
    table, path = prices.losses, path_from_config(prices.losses.path)
    t = torch.as_tensor(table.times)
    if weighting == "w2":
        return np.sqrt(np.maximum(table.distance, 0.0))
    if weighting == "flow":
        return table.gap * path.velocity_gain(t).numpy()[:, None] ** 2 * table.times[:, None]
    return table.gap * path.gamma(t).numpy()[:, None] / 2


def _kl(gap: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """(S - 1, N): 1/2 integral gap d gamma, trapezoid in log-SNR of gamma * gap; from gamma = 0 on, where log-SNR is
    infinite, the gap at the far end over the span."""
    low, high = gamma[:-1, None], gamma[1:, None]
    finite = low > 0
    span = np.log(high / np.where(finite, low, high))
    return np.where(finite, span * (low * gap[:-1] + high * gap[1:]) / 4, high / 2 * gap[1:])


def _trapezoid(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(S - 1, N): integrals of (S, N) values over the spans between descending times."""
    return -np.diff(times)[:, None] / 2 * (values[:-1] + values[1:])


def _root(square: np.ndarray, stderr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root of squared distances and its standard error, sqrt(d + e) - sqrt(d)."""
    root = np.sqrt(np.maximum(square, 0.0))
    return root, stderr / np.maximum(np.sqrt(np.maximum(square, 0.0) + stderr) + root, 1e-300)
