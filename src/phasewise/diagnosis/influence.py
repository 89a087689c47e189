r"""Influence by distance: where in the noisy image the answer of one pixel comes from.

The Jacobian ``J_ci,c'j = d D_ci / d x_c'j`` of a denoiser tells how its answer at pixel i moves with pixel j.  For the
exact posterior mean it is ``(alpha / sigma^2) Cov(x_i, x_j | x_t)``: influence is what two pixels still share.  Here::

    mass_i(k) = sum over c, c' and all j at max-norm distance k from i of J_ci,c'j^2

One backward pass with random signs s_c over the channels of i gives ``g_c'j = sum_c s_c J_ci,c'j``, and since the signs
are independent, ``E g_c'j^2 = sum_c J_ci,c'j^2`` (Hutchinson's trace, of a row; exact with one channel).

What no distance explains is seen as well: a norm over the whole image leaves mass at all distances, which a declared
radius forbids.  What is truly local has exactly 0 beyond its radius: no number reaches there, not even a rounded one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from phasewise import checks, seeding
from phasewise.data import ImageData
from phasewise.data.images import images_or_set
from phasewise.denoisers import Condition, Denoiser, bind
from phasewise.denoisers.base import a_denoiser
from phasewise.denoisers.trust import checked_conditions
from phasewise.diagnosis.noised import (
    HeldOut,
    distances,
    held_out,
    mean_and_error,
    probes,
    ratio_and_error,
    refuse_times,
)
from phasewise.errors import PhasewiseError
from phasewise.memory import fitting
from phasewise.modes import in_evaluation
from phasewise.results import Array, Influence


@in_evaluation
@torch.inference_mode(False)
@torch.enable_grad()
@checks.checked(
    denoiser=a_denoiser,
    data=images_or_set,
    times=checks.times,
    n=checks.at_least_2,
    pixels=checks.count,
    seed=checks.seed,
    batch=checks.count,
)
def measure_influence(
    denoiser: Denoiser,
    data: ImageData | Tensor,
    times: Sequence[float],
    *,
    n: int = 64,
    pixels: int = 2,
    cond: Condition | str | None = None,
    seed: int = 0,
    batch: int = 64,
) -> Influence:
    """Squared Jacobian mass of the answer by distance at every time, from random ``pixels`` of up to ``n`` images.

    ``data`` is (N, C, H, W) of held-out images, or an ImageData, whose test part is used; ``times`` in (0, 1] are on
    the denoiser's path.  Pixels are uniform over the image, so far rings are seen from the border more than from the
    centre.  Costs a forward and a backward pass a time, image and pixel.  ``cond`` as for
    :func:`phasewise.diagnosis.measure_losses`.

    Raises PhasewiseError for fewer than 2 images, images or a condition that do not fit, an answer that PyTorch cannot
    differentiate, and for answers or derivatives that are NaN or infinite, naming the times.
    """
    held = held_out(denoiser, data, cond, n)
    if len(held.images) < 2:
        raise PhasewiseError("need at least 2 held-out images for an influence with a standard error")
    measured, bad = [], []
    for step, t in enumerate(times):
        with checked_conditions():  # nor does a network look for NaN there: all times are told at the end
            rings = _rings(denoiser, held, float(t), pixels, seed, step, batch)
        if np.isfinite(rings).all():
            measured.append(_parts(rings))
        else:
            bad.append(float(t))
    refuse_times("answers or their derivatives", bad)
    columns = (np.stack(part) for part in zip(*measured, strict=True))
    share, share_stderr, beyond, beyond_stderr, mass, mass_stderr = columns
    return Influence(
        times=np.asarray(times, dtype=float),
        share=share,
        share_stderr=share_stderr,
        beyond=beyond,
        beyond_stderr=beyond_stderr,
        mass=mass,
        mass_stderr=mass_stderr,
        n=len(held.images),
        pixels=pixels,
        seed=seed,
        path=denoiser.path.config(),
        declared=denoiser.radius,
    )


def _parts(rings: Array) -> tuple[Array, ...]:
    """Share, beyond and whole mass, each with its standard error, of the rings (n, K) of n images."""
    whole = rings.sum(1)
    # summed from afar: where all farther rings are 0, the sum is 0 and not a difference of rounded ones
    outer = np.flip(np.cumsum(np.flip(rings, 1), axis=1), 1)
    farther = np.concatenate([outer[:, 1:], np.zeros((len(rings), 1))], 1)
    mass = mean_and_error(whole)
    return (*ratio_and_error(rings, whole[:, None]), *ratio_and_error(farther, whole[:, None]), *mass)


def _rings(denoiser: Denoiser, held: HeldOut, t: float, pixels: int, seed: int, step: int, batch: int) -> Array:
    """Squared Jacobian mass by distance, (n, max(H, W)) float64, averaged over the pixels of each image."""
    x_t, at = probes(denoiser, held.images, t, pixels, seed, step)
    coin = seeding.generator(seed, seeding.Purpose.REACH_SIGNS, step)
    channels, height, width = denoiser.image_shape
    signs = (2 * torch.randint(2, (len(x_t), channels), generator=coin) - 1).to(x_t)
    rows = None if held.rows is None else held.rows.repeat_interleave(pixels, 0)
    out = torch.zeros(len(x_t), max(height, width), dtype=torch.float64)
    for start in range(0, len(x_t), batch):
        part = slice(start, start + batch)
        gradient = _gradient(denoiser, x_t[part], at[part], signs[part], t, None if rows is None else rows[part])
        mass = gradient.double().square().sum(1).flatten(1).cpu()
        out[part].scatter_add_(1, distances(at[part], height, width).flatten(1).cpu(), mass)
    return out.view(len(held.images), pixels, -1).mean(1).numpy()


def _gradient(denoiser: Denoiser, x_t: Tensor, at: Tensor, signs: Tensor, t: float, rows: Tensor | None) -> Tensor:
    """d (sum_c signs_c D_c,at) / d x_t, (P, C, H, W), each row for a pixel of its own."""

    def backward(k: int) -> Tensor:
        x = x_t[:k].detach().clone().requires_grad_()
        answer = bind(denoiser, rows, slice(k))(x, t)
        if not answer.requires_grad:
            raise PhasewiseError(
                f"the answer of {type(denoiser).__name__} cannot be differentiated by its input: no operations of "
                "PyTorch lead from one to the other; phasewise.diagnosis.measure_windowed_answer needs no derivative"
            )
        picked = answer[torch.arange(k, device=x.device), :, at[:k, 0], at[:k, 1]]
        (found,) = torch.autograd.grad((picked * signs[:k]).sum(), x, materialize_grads=True)
        # a NaN answer may still have finite derivatives
        return found if bool(picked.isfinite().all()) else torch.full_like(found, torch.nan)

    with fitting(len(x_t), backward, "a derivative"):
        return backward(len(x_t))
