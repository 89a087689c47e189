r"""The windowed answer: what a pixel's answer changes by when all beyond r of it is another noised image.

With y_t another image, noised afresh, and z the noisy image of which only ``N_r(i)`` is kept::

    z_j = x_t,j  where max-norm |j - i| <= r,   y_t,j elsewhere;        change_r^2 = E|D(z)_i - D(x_t)_i|^2

**An upper bound.**  D(z)_i knows x_t by the window alone, and of all that do, E[D(x_t)_i | window] is nearest to
D(x_t)_i in the mean square: change_r^2 is at least what a local denoiser must lose that imitates D.  It may be far
more: the network never saw such an input, whose seam is no part of any image, and may answer it badly.  So a small
change proves that what lies beyond r hardly matters, and a large one does not prove that it does.

A local denoiser changes by exactly 0 from its radius on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from phasewise import checks
from phasewise.data import ImageData
from phasewise.data.images import images_or_set
from phasewise.denoisers import Condition, Denoiser, bind
from phasewise.denoisers.base import a_denoiser
from phasewise.denoisers.trust import checked_conditions
from phasewise.diagnosis.noised import (
    HeldOut,
    check_distances,
    distances,
    held_out,
    mean_and_error,
    probes,
    ratio_and_error,
    refuse_times,
    root_and_error,
)
from phasewise.errors import PhasewiseError
from phasewise.memory import called
from phasewise.modes import in_evaluation
from phasewise.results import Array, WindowedAnswer


@in_evaluation
@torch.no_grad()
@checks.checked(
    denoiser=a_denoiser,
    data=images_or_set,
    times=checks.times,
    radii=checks.each(checks.pixels),
    n=checks.at_least_2,
    pixels=checks.count,
    seed=checks.seed,
    batch=checks.count,
)
def measure_windowed_answer(
    denoiser: Denoiser,
    data: ImageData | Tensor,
    times: Sequence[float],
    radii: Sequence[int],
    *,
    n: int = 64,
    pixels: int = 2,
    cond: Condition | str | None = None,
    seed: int = 0,
    batch: int = 64,
) -> WindowedAnswer:
    """Change of the answer at random ``pixels`` of ``n`` images when all beyond each of ``radii`` is another image.

    An upper bound of what lies beyond r may be worth to this network: see the module.  ``data`` is (N, C, H, W) of
    held-out images, or an ImageData, whose test part is used: up to ``n`` images and as many others, noised afresh,
    to take the far pixels from, so that all pairs are independent.  ``times`` in (0, 1] are on the denoiser's path,
    ``radii`` in pixels (max-norm).  ``cond`` as for :func:`phasewise.diagnosis.measure_losses`; it stays that of the
    image whose near pixels are kept.  Costs a call a time, image, pixel and radius, and two more.

    Raises PhasewiseError for fewer than 4 images, radii beyond the image, images or a condition that do not fit, and
    for answers that are NaN or infinite, naming the times.
    """
    height, width = denoiser.image_shape[1:]
    radii = check_distances(radii, max(height, width) - 1, f"at {height}x{width}")
    held = held_out(denoiser, data, cond, 2 * n)
    if len(held.images) < 4:
        raise PhasewiseError("need at least 4 held-out images: 2 to look at and 2 to take far pixels from")
    measured, bad = [], []
    for step, t in enumerate(times):
        with checked_conditions():  # nor does a network look for NaN there: all times are told at the end
            squares = _squares(denoiser, held, float(t), radii, pixels, seed, step, batch)
        if np.isfinite(squares).all():
            measured.append(_parts(squares))
        else:
            bad.append(float(t))
    refuse_times("answers", bad)
    change, change_stderr, relative, relative_stderr, spread, spread_stderr = (
        np.stack(part) for part in zip(*measured, strict=True)
    )
    return WindowedAnswer(
        times=np.asarray(times, dtype=float),
        radii=radii,
        change=change,
        change_stderr=change_stderr,
        relative=relative,
        relative_stderr=relative_stderr,
        spread=spread[:, 0],
        spread_stderr=spread_stderr[:, 0],
        n=len(held.images) // 2,
        pixels=pixels,
        seed=seed,
        path=denoiser.path.config(),
        declared=denoiser.radius,
    )


def _parts(squares: Array) -> tuple[Array, ...]:
    """Change, relative change and spread, with standard errors, from squares (n, 1 + R): spread first."""
    # two independent answers differ by twice their variance
    variance, changes = squares[:, :1] / 2, squares[:, 1:]
    change = root_and_error(*mean_and_error(changes))
    relative = root_and_error(*ratio_and_error(changes, variance))
    return (*change, *relative, *root_and_error(*mean_and_error(variance)))


def _squares(
    denoiser: Denoiser, held: HeldOut, t: float, radii: Sequence[int], pixels: int, seed: int, step: int, batch: int
) -> Array:
    """Squared differences of answers at the pixels, means over channels and pixels, (n, 1 + R) float64.

    The first column is the difference from the other image's own answer at that pixel, the others are those of z.
    """
    n = len(held.images) // 2
    everything = probes(denoiser, held.images[: 2 * n], t, pixels, seed, step)
    (x_t, y_t), at = everything.x_t.split(n * pixels), everything.at[: n * pixels]
    rows = None if held.rows is None else held.rows[: 2 * n].repeat_interleave(pixels, 0)
    own, other = (None, None) if rows is None else rows.split(n * pixels)
    out = np.zeros((n * pixels, 1 + len(radii)))
    for start in range(0, n * pixels, batch):
        part = slice(start, start + batch)
        x, y, place = x_t[part], y_t[part], at[part]
        away = distances(place, *denoiser.image_shape[1:])[:, None]
        told = None if own is None else own[part]
        # one batch after another of one size: a row's answer is then the same to the bit where its window is
        answer = _answer(denoiser, x, t, told, place)
        others = [_answer(denoiser, y, t, None if other is None else other[part], place)]
        others += [_answer(denoiser, torch.where(away <= r, x, y), t, told, place) for r in radii]
        out[part] = torch.stack([(a - answer).square().mean(1) for a in others], 1).cpu().numpy()
    return out.reshape(n, pixels, -1).mean(1)


def _answer(denoiser: Denoiser, x_t: Tensor, t: float, rows: Tensor | None, at: Tensor) -> Tensor:
    """What is answered at the pixels ``at``, (P, C) float64."""

    def told(x_t: Tensor, t: float) -> Tensor:  # of fewer images where a batch did not fit into memory
        return bind(denoiser, rows, slice(len(x_t)))(x_t, t)

    answer = called(told, x_t, t, "denoising")
    return answer[torch.arange(len(x_t), device=x_t.device), :, at[:, 0], at[:, 1]].double()
