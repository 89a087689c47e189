"""The exact law of the samples of a linear sampler, mode by mode: solvers map Gaussians to Gaussians.

A step of a solver with one denoiser call is, in every mode of multiplier g, the same four numbers::

    x_s = a x + b D + c D' + v z,      D = g x,  D' the posterior mean of the step before,  z fresh noise

They are read off the solver's own code by asking it for unit inputs.  With P = Var x, Q = Cov(x, D'), R = Var D' the
variance then follows step by step, and the last step, a denoise, leaves g^2 P.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import numpy as np
import torch
from torch import Tensor

from phasewise.denoisers import Denoiser
from phasewise.exact import TorusField
from phasewise.paths import LinearPath
from phasewise.sampling import Carry, get_solver

Array = np.ndarray
Seen = int | None | tuple[int, int]
"""What a member sees: the window of a radius, the whole image (None), or (radius, plan): a window beside a plan of so
many pixels a side."""
START = 1.0
"""Noise time at which sampling starts.  There every denoiser answers the mean, so the first call is free for all."""
FINEST, COARSEST, PER_UNIT = 10, -14, 8
"""Times that may be chosen: from log-SNR COARSEST to FINEST, so many to a unit."""


@cache
def candidates() -> tuple[float, ...]:
    """The start, then times of the linear path evenly in log-SNR, descending."""
    log_snr = torch.arange(COARSEST, FINEST + 1e-9, 1 / PER_UNIT, dtype=torch.float64)
    return (START, *LinearPath().t_of_log_snr(log_snr).tolist())


class _Told:
    """Stands in for a denoiser where only its answer counts."""

    def __init__(self) -> None:
        self.path, self.answer = LinearPath(), torch.zeros(4, dtype=torch.float64)

    def __call__(self, x_t: Tensor, t: float) -> Tensor:
        return self.answer


@cache
def step_numbers(solver: str, before: float | None, t: float, s: float) -> tuple[float, float, float, float]:
    """(a, b, c, v) of the step from t to s after one from ``before`` to t, of a solver with one call a step."""
    x, now, last, noise = torch.eye(4, dtype=torch.float64)
    told, step = _Told(), get_solver(solver).step
    carry = Carry(noise=lambda: noise)
    stand_in = cast(Denoiser, told)
    if before is not None:
        told.answer = last
        step(stand_in, x, before, t, carry)
    told.answer = now
    a, b, c, v = step(stand_in, x, t, s, carry).tolist()
    return a, b, c, v


class Law:
    """Samples of one field: their spectrum, exactly, for any solver, times and denoisers.

    Args:
        field: whose denoisers sample.
        members: what each of them sees; a member is its place in this tuple.
        detail: only one mode of each square of them, squares so fine that an octave of the wave number has 2^detail of
            them; None: all modes, exactly.
    """

    def __init__(self, field: TorusField, members: tuple[Seen, ...], detail: int | None = None) -> None:
        kept, self.count = _represented(field, detail)
        self.spectrum, times = field.spectrum.numpy()[kept], candidates()
        seen = [m if isinstance(m, tuple) else (m, None) for m in members]
        self.gains = np.stack([[field.gain(t, r, plan=p).numpy()[kept] for t in times] for r, p in seen])
        """(members, times, modes)."""

    def spectra(self, solver: str, times: Array, members: Array) -> Array:
        """(B, modes) spectrum of the samples of B schedules: places of candidate times (B, K), descending in noise,
        and the member of each step (B, K); the last step is a denoise."""
        known, (rows, steps) = candidates(), times.shape
        numbers = np.zeros((rows, max(steps - 1, 0), 4))
        for i, places in enumerate(times.tolist()):
            at = [known[p] for p in places]
            for k in range(steps - 1):
                numbers[i, k] = step_numbers(solver, at[k - 1] if k else None, at[k], at[k + 1])
        first = np.array([known[p] for p in times[:, 0]])[:, None]
        p = np.broadcast_to(first**2, (rows, len(self.spectrum)))  # pure noise, at the scale of the first time
        q, r = np.zeros_like(p), np.zeros_like(p)
        for k in range(steps - 1):
            g = self.gains[members[:, k], times[:, k]]
            a, b, c, v = (numbers[:, k, n, None] for n in range(4))
            own = a + b * g
            # Cov(x, D) = g P and Cov(D', D) = g Q: D is g x
            p, q, r = own**2 * p + 2 * own * c * q + c**2 * r + v**2, g * (own * p + c * q), g**2 * p
        return cast(Array, self.gains[members[:, -1], times[:, -1]] ** 2 * p)

    def error(self, measure: str, solver: str, times: Array, members: Array) -> Array:
        """(B,) distance of the samples' law from the field's: see :data:`MEASURES`."""
        found = MEASURES[measure](self.spectrum, self.spectra(solver, times, members))
        return cast(Array, (self.count * found).sum(-1) / self.count.sum())


def frechet(spectrum: Array, sampled: Array) -> Array:
    """Squared 2-Wasserstein (Frechet) distance of each mode; a pixel's variance is 1, so in units of that."""
    return cast(Array, (np.sqrt(sampled) - np.sqrt(spectrum)) ** 2)


def kl(spectrum: Array, sampled: Array) -> Array:
    """KL(data || samples) of each mode, nats."""
    ratio = spectrum / sampled
    return cast(Array, (ratio - 1 - np.log(ratio)) / 2)


MEASURES = {"frechet": frechet, "kl": kl}
"""Distances between laws by name: a pixel's share, the mean over all modes of the image."""


def _represented(field: TorusField, detail: int | None) -> tuple[Array, Array]:
    """Which modes stand for all, (m,), and for how many each, (m,): of each square of modes the middle one, where
    squares double with every octave of the wave number."""
    count, modes = field.count.numpy(), np.arange(len(field.count))
    if detail is None:
        return modes, count
    at = (field.waves.numpy() * field.side / (2 * np.pi)).round().astype(int)
    octave = np.log2(np.maximum(at[:, 0], 1)).astype(int)
    width = 2 ** np.maximum(octave - detail, 0)
    squares, square = np.unique(np.column_stack([octave, at // width[:, None]]), axis=0, return_inverse=True)
    square = square.reshape(-1)
    whole = np.bincount(square, count)
    middle = np.column_stack([np.bincount(square, count * at[:, axis]) / whole for axis in (0, 1)])
    far = ((at - middle[square]) ** 2).sum(1)
    nearest = np.lexsort((far, square))
    return nearest[np.searchsorted(square[nearest], np.arange(len(squares)))], whole
