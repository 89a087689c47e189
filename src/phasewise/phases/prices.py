r"""The price list: what each denoiser costs and loses at every step of a time grid.

Price of serving step k (from t_k to t_{k+1}) by denoiser n instead of the reference, under three weightings:

* ``kl``: ``1/2 * integral_{t_k}^{t_{k+1}} (loss_n - loss_ref) d gamma``, nats per image.  The sum over steps bounds
  what the KL of the samples grows by for the reverse SDE of unit churn (Girsanov; Kingma et al. 2021).  The last step,
  the denoise, is charged ``1/2 gamma(t_min) (loss_n - loss_ref)``: the reconstruction term of a Gaussian decoder.
* ``w2``: ``integral |v - v_ref|_{L2} reach dt``, pixel units: how far the ODE is pushed off its course, times the
  measured factor by which that has grown at the image (1 where it was not measured; then it is a 2-Wasserstein bound
  up to a Lipschitz factor); the last step is charged the distance of the two denoised images.
* ``flow``: ``integral (|v_n - v|^2 - |v_ref - v|^2) dt``, squared pixel units: the excess flow-matching loss, with
  the true velocity v; like ``kl`` it sees when a denoiser is better than the reference, like ``w2`` it weighs
  velocities.

``kl`` is an SDE price; for the ODE samplers here it is a heuristic, ``w2`` the matching one.
``w2`` is the default: see experiments/LOG.md.
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
from phasewise.errors import PhasewiseError
from phasewise.metrics.cost import count_flops, measure_ms
from phasewise.paths import path_from_config
from phasewise.phases.losses import measure_losses
from phasewise.phases.step_errors import measure_reach
from phasewise.results import PriceList
from phasewise.sampling.solvers import calls_per_step

WEIGHTINGS = {"kl": "nats", "w2": "pixel units", "flow": "squared pixel units"}
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
) -> PriceList:
    """Losses and costs of every denoiser at every start time of a grid (descending, as for :func:`phasewise.sample`).

    ``paths`` > 0 also follows so many sampling paths to measure how far each denoiser's error reaches
    (:func:`phasewise.phases.step_errors.measure_reach`), which the ``w2`` price then counts.

    Measured on up to ``n`` validation images of ``data`` (a tensor is split as :func:`phasewise.train` splits it) with
    fresh noise, so that the test images stay unseen by the schedule.
    """
    images = as_images(data).validation
    table = measure_losses(denoisers, images[:n], times, reference=reference, seed=seed)
    shape = denoisers[reference].image_shape
    ms = measure_ms(denoisers, shape, batch=batch, seed=seed)
    return PriceList(
        losses=table,
        flops=np.array([count_flops(d, shape) for d in denoisers.values()], dtype=float),
        ms=np.array([ms[name][0] for name in denoisers]),
        device=str(images.device),
        batch=batch,
        jumps=tuple(name for name, d in denoisers.items() if d.has_flow),
        reach=measure_reach(denoisers, times, reference=reference, n=paths, seed=seed) if paths else None,
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
    reach = prices.reach
    if reach is not None:
        reach = np.stack([np.interp(grid, table.times[order], column[order]) for column in reach.T], 1)
    moved["log_snr"] = path.log_snr(torch.as_tensor(grid)).numpy()
    return replace(prices, losses=replace(table, times=grid, **moved), reach=reach)


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


def price_unit(weighting: Weighting) -> str:
    return WEIGHTINGS[weighting] if isinstance(weighting, str) else "of its own unit"


def step_prices(prices: PriceList, weighting: Weighting = "w2") -> tuple[np.ndarray, np.ndarray]:
    """(price, stderr), each (S, N): excess over the reference of serving step k by denoiser n.

    Raises PhasewiseError for an unknown weighting, a grid that does not decrease, prices that are not finite, or your
    own weighting's of another shape.
    """
    check_prices(prices, weighting)
    if not isinstance(weighting, str):
        return _own(weighting, prices)
    table, times = prices.losses, prices.times
    path = path_from_config(table.path)
    t = torch.as_tensor(times)
    if weighting == "kl":
        return _kl(table.gap, path.gamma(t).numpy()), _kl_error(table.gap_stderr, path.gamma(t).numpy())
    gain = path.velocity_gain(t).numpy()[:, None]
    if weighting == "flow":
        return _flow(table.gap, table.gap_stderr, gain, times)
    return _w2(table.distance, table.distance_stderr, gain * _reach(prices), times)


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
    """Raises PhasewiseError as :func:`step_prices` does."""
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
    for field in ("gap", "distance"):
        bad = np.argwhere(~np.isfinite(getattr(table, field)))
        if len(bad):
            k, i = bad[0]
            raise PhasewiseError(
                f"the {field} of {table.names[i]} at t = {times[k]:.3g} is not a number; measure it again"
            )


def _reach(prices: PriceList) -> np.ndarray:
    """(S, N) or 1 where it was not measured."""
    return np.ones(1) if prices.reach is None else prices.reach


def check_named(weighting: Weighting) -> None:
    """Raises PhasewiseError for a weighting of one's own: it prices steps of a given grid, not steps to be placed."""
    if not isinstance(weighting, str):
        raise PhasewiseError(
            f"steps are placed by one of the weightings {', '.join(WEIGHTINGS)}; your own {weighting_name(weighting)} "
            "prices the steps of a given grid: use pw.optimise_schedule"
        )


def stop_prices(prices: PriceList, weighting: str) -> np.ndarray:
    """(S, N): excess price of ending with a denoise by n at each time of the grid, as :func:`step_prices` charges the
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


def _kl_weights(gamma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (first, second), (S,), on the gap at both ends of each span: trapezoid in log-SNR of gamma * gap."""
    first, second = np.zeros(len(gamma)), np.zeros(len(gamma))
    low, high = gamma[:-1], gamma[1:]
    finite = low > 0
    span = np.log(high / np.where(finite, low, high))
    first[:-1] = np.where(finite, span * low / 4, 0.0)
    second[:-1] = np.where(finite, span * high / 4, high / 2)  # from gamma = 0: gap at the far end over the span
    first[-1] = gamma[-1] / 2
    return first, second


def _kl(gap: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    first, second = _kl_weights(gamma)
    return first[:, None] * gap + second[:, None] * np.vstack([gap[1:], np.zeros(gap.shape[1])])


def _kl_error(stderr: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    first, second = _kl_weights(gamma)
    following = np.vstack([stderr[1:], np.zeros(stderr.shape[1])])
    return np.hypot(first[:, None] * stderr, second[:, None] * following)


def _flow(gap: np.ndarray, stderr: np.ndarray, gain: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    excess, error = gap * gain**2, stderr * gain**2
    step = -np.diff(times)[:, None] / 2
    price, price_error = excess * times[-1], error * times[-1]
    price[:-1] = step * (excess[:-1] + excess[1:])
    price_error[:-1] = step * np.hypot(error[:-1], error[1:])
    return price, price_error


def _w2(distance: np.ndarray, stderr: np.ndarray, gain: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    root = np.sqrt(np.maximum(distance, 0.0))
    slope = stderr / np.maximum(np.sqrt(np.maximum(distance, 0.0) + stderr) + root, 1e-300)  # sqrt(d + e) - sqrt(d)
    push, error = root * gain, slope * gain
    step = -np.diff(times)[:, None] / 2
    price, price_error = root.copy(), slope.copy()
    price[:-1] = step * (push[:-1] + push[1:])
    price_error[:-1] = step * np.hypot(error[:-1], error[1:])
    return price, price_error
