r"""Held-out losses of several denoisers on the same images and the same fresh noise, and what follows from them.

Denoising gap of D_r::

    Delta_r(t) = E|D_r - x|^2 - E|D - x|^2      (= E|D_r - D|^2 for ideal denoisers, by orthogonality)

For trained networks it is ``Delta_r + excess_r - excess_global``: it mixes capacity with locality and may be negative.
The capacity-matched control (the local design with its window opened to the whole image) tells how much is capacity.

NoisePath KL of a whole time span, nats per image::

    K_r = 1/2 * integral Delta_r d gamma = 1/2 * integral gamma Delta_r d log gamma

the Girsanov penalty of running the reverse *SDE* (unit churn) with D_r in place of D.  It bounds nothing about an ODE
sampler; there it is a penalty to choose by, whose worth FID must show.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from phasewise import checks, seeding
from phasewise.data import ImageData, condition_of_part
from phasewise.data.images import images_or_set
from phasewise.denoisers import Condition, Denoiser, bind, condition_rows
from phasewise.denoisers.base import denoisers_by_name
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.memory import called
from phasewise.modes import in_evaluation
from phasewise.paths import NoisePath, a_path, isotropic
from phasewise.results import Estimate, LossTable, a_loss_table

PAIRED = ("gap", "distance")
"""What is differenced image by image."""


@in_evaluation
@torch.inference_mode()
@checks.checked(
    denoisers=denoisers_by_name,
    images=images_or_set,
    times=checks.times,
    reference=checks.text,
    control=checks.text,
    seed=checks.seed,
    batch=checks.count,
    progress=checks.function,
    correlations=checks.flag,
)
def measure_losses(
    denoisers: Mapping[str, Denoiser],
    images: ImageData | Tensor,
    times: Sequence[float],
    *,
    reference: str = "global",
    control: str | None = None,
    cond: Condition | str | None = None,
    seed: int = 0,
    batch: int = 250,
    progress: Callable[[int, int], None] | None = None,
    correlations: bool = False,
) -> LossTable:
    """Losses of every denoiser at every time on held-out ``images``, with noise drawn from ``seed``.

    ``images`` is (n, C, H, W), or an ImageData, whose test part is used.

    Times are on the reference's path; members on another path are translated.  The same image meets the same noise
    for every denoiser (differences are paired) and fresh noise at every time.

    ``cond``, a class label, a tensor with a row for each image, or "labels" of an ImageData, goes to every denoiser
    that takes one.

    ``correlations`` adds how the errors of a denoiser at different times go together: noise is fresh at each, the
    images are the same, and a hard image is hard at every low noise.  It keeps T x N numbers an image.

    Raises PhasewiseError for a missing reference, times outside (0, 1], a condition that does not fit, or fewer than 2
    images.
    """
    cond = condition_of_part(images, "test", cond)
    warn_of_pixels(denoisers, images)
    images = images.test if isinstance(images, ImageData) else images
    names = list(denoisers)
    if reference not in denoisers:
        raise PhasewiseError(f"reference {reference!r} is not among the denoisers: {', '.join(names) or 'none'}")
    if len(images) < 2:
        raise PhasewiseError("need at least 2 held-out images for a loss with a standard error")
    grid = np.asarray(times, dtype=np.float64)
    path = denoisers[reference].path
    members = {k: d.on(path) for k, d in denoisers.items()}
    rows = condition_rows(cond, len(images), members.values())
    # the reference first: the others are compared with its answer
    order = [names.index(reference), *[i for i in range(len(names)) if names[i] != reference]]
    cells = {key: np.zeros((len(grid), len(names))) for key in ("loss", "gap", "distance")}
    errors = {key: np.zeros_like(value) for key, value in cells.items()}
    each = {key: np.zeros((len(names), len(grid), len(images))) for key in PAIRED} if correlations else {}
    for k, t in enumerate(grid):
        sums = {key: np.zeros((2, len(names))) for key in cells}
        # by the number of the time: fresh noise at each, so that errors hardly go together over times
        generator = seeding.generator(seed, seeding.Purpose.LOSSES, k)
        for start in range(0, len(images), batch):
            x = images[start : start + batch]
            x_t = path.add_noise(x, torch.randn(x.shape, generator=generator).to(x.device), float(t))
            outputs = {i: _answer(members, names[i], x_t, float(t), rows, start) for i in order}
            base, base_loss = outputs[order[0]], _squared(outputs[order[0]] - x)
            for i in order:
                loss = _squared(outputs[i] - x)
                for key, value in (
                    ("loss", loss),
                    ("gap", loss - base_loss),  # image by image: the luck of the noise cancels
                    ("distance", _squared(outputs[i] - base)),
                ):
                    sums[key][:, i] += (float(value.sum()), float(value.square().sum()))
                    if key in each:
                        each[key][i, k, start : start + len(x)] = value.cpu().numpy()
        n = len(images)
        for key, (total, squares) in sums.items():
            cells[key][k] = total / n
            # variance of a mean; 0 at least, against rounding
            errors[key][k] = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0) / (n - 1))
        if progress is not None:
            progress(k + 1, len(grid))
    return LossTable(
        times=grid,
        names=tuple(names),
        radii=tuple(d.radius for d in denoisers.values()),
        reference=reference,
        loss=cells["loss"],
        loss_stderr=errors["loss"],
        gap=cells["gap"],
        gap_stderr=errors["gap"],
        distance=cells["distance"],
        distance_stderr=errors["distance"],
        log_snr=path.log_snr(torch.as_tensor(grid)).numpy(),
        data_std=float(images.std()),
        n=len(images),
        seed=seed,
        path=path.config(),
        control=control,
        **{f"{key}_correlation": np.stack([_correlation(rows) for rows in values]) for key, values in each.items()},
    )


def _correlation(values: np.ndarray) -> np.ndarray:
    """(T, T) correlation over images of (T, n) values; 0 beside the diagonal where all images have one value."""
    centred = values - values.mean(1, keepdims=True)
    size = np.sqrt((centred**2).sum(1))
    unit = centred / np.where(size > 0, size, 1.0)[:, None]
    found: np.ndarray = np.clip(unit @ unit.T, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return found


def warn_of_pixels(denoisers: Mapping[str, Denoiser], data: ImageData | Tensor) -> None:
    """Warn of denoisers for images of another pixel range than the data's, where both are known."""
    if not isinstance(data, ImageData):
        return
    for name, denoiser in denoisers.items():
        taken, given = denoiser.pixels_taken(), data.pixel_range
        if taken is not None and any(abs(a - b) > 1e-6 for a, b in zip(taken, given, strict=True)):
            wanted = f"{taken[0]:g}, {taken[1]:g}"
            warnings.warn(
                f"{name} takes pixels of {wanted}, {data.name} has {given[0]:g}, {given[1]:g}; load the images with "
                f"pixel_range=({wanted})",
                PhasewiseWarning,
                stacklevel=3,
            )


def _answer(
    members: Mapping[str, Denoiser], name: str, x_t: Tensor, t: float, rows: Tensor | None, start: int
) -> Tensor:
    """What ``name`` says of the images from ``start`` on, under their condition."""

    def told(x_t: Tensor, t: float) -> Tensor:  # of fewer images where a batch did not fit into memory
        return bind(members[name], rows, slice(start, start + len(x_t)))(x_t, t)

    return called(told, x_t, t, f"denoising by {name}")


def _squared(difference: Tensor) -> Tensor:
    return difference.double().flatten(1).square().sum(1)


@checks.checked(table=a_loss_table, path=a_path, t_low=checks.unit, t_high=checks.unit)
def path_kl(table: LossTable, path: NoisePath, *, t_low: float = 0.0, t_high: float = 1.0) -> dict[str, Estimate]:
    """NoisePath KL of each denoiser against the reference over the measured times in [t_low, t_high], nats per image.

    Trapezoid in log-SNR on the measured times; the standard error treats times as independent (fresh noise at each;
    the images are shared, so it is a little low).
    """
    isotropic(path, "the path KL")
    # at t = 1, where gamma = 0 and log-SNR is infinite, there is no trapezoid
    keep = np.flatnonzero((table.times >= t_low) & (table.times <= t_high) & np.isfinite(table.log_snr))
    if len(keep) < 2:
        raise PhasewiseError(f"need at least 2 measured times in [{t_low}, {t_high}] for a path KL")
    keep = keep[np.argsort(table.log_snr[keep])]
    gamma, log_snr = np.exp(table.log_snr[keep]), table.log_snr[keep]
    weight = np.zeros(len(keep))
    weight[:-1] += np.diff(log_snr) / 2  # trapezoid: half of the steps on either side
    weight[1:] += np.diff(log_snr) / 2
    weight = 0.5 * weight * gamma  # 1/2 d gamma = 1/2 gamma d log gamma
    value = weight @ table.gap[keep]
    stderr = np.sqrt(weight**2 @ table.gap_stderr[keep] ** 2)
    return {
        name: Estimate(float(value[i]), float(stderr[i]), table.n, "nats per image", table.seed)
        for i, name in enumerate(table.names)
    }


@checks.checked(table=a_loss_table, path=a_path, name=checks.text, tolerance=checks.unit)
def gap_window(table: LossTable, path: NoisePath, name: str, tolerance: float = 0.1) -> tuple[float, float]:
    """(t_low, t_high): the times where the gap of ``name``, in velocity units, exceeds ``tolerance`` times its peak.

    The critical window as the denoising gap sees it, on the measured times.  Velocity units: gap * (d v / d x-hat)^2.
    Where that is a single time, the window reaches half way to the times measured beside it.

    Raises PhasewiseError where there is no positive gap, and for a table of a single time.
    """
    gain = np.array([float(path.velocity_gain(float(t))) for t in table.times])
    curve = table.gap[:, table.column(name)] * gain**2
    peak = curve.max()
    if not math.isfinite(peak) or peak <= 0:
        raise PhasewiseError(
            f"{name} has no positive gap to the reference at any measured time: nothing to place a window by"
        )
    if len(table.times) < 2:
        raise PhasewiseError(f"a window takes more than one measured time; the table has t = {table.times[0]:g} alone")
    inside = table.times[curve >= tolerance * peak]
    low, high = float(inside.min()), float(inside.max())
    if low == high:  # no interval yet: what is nearer to this time than to any other
        times = np.sort(table.times)
        at = int(np.searchsorted(times, low))
        low = float((times[max(at - 1, 0)] + low) / 2)
        high = float((times[min(at + 1, len(times) - 1)] + high) / 2)
    return low, high
