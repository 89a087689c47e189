"""Exact fields with a plan: what a window beside it loses, and the cheapest schedules with such members and without."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phasewise.exact import TorusField
from phasewise.exact.base import noise_level
from phasewise.paths import LinearPath
from studies.resolution.costs import NETWORKS
from studies.resolution.law import Seen

LOG_SNR = tuple(np.linspace(-12.0, 6.0, 37).round(6).tolist())
BESIDE = (1, 2, 3)
"""Radii of the local networks that may have a plan."""
ALONE = (1, 2, 3, 5, 8, 12, 16, 32)
"""Radii of those that have none."""
PRICED = ("U-Net medium", "transformer, patch 2")
POOLED = 16
"""The largest plan, a side, whose twin of pooled pixels is solved for: its numbers are all in one matrix."""
WITHOUT = ", no plan"
"""Behind a network's name where its plans are left out."""


def members_of(field: TorusField, plans: tuple[int, ...]) -> tuple[Seen, ...]:
    """The global denoiser, windows, and windows beside the plans that are at most half as large as the image."""
    alone = [r for r in ALONE if 2 * r + 1 <= field.side]
    beside = [(r, p) for r in BESIDE for p in plans if 2 * r + 1 <= field.side and 2 * p <= field.side]
    return (None, *alone, *beside)


def prices_of(side: int, members: tuple[Seen, ...], name: str) -> dict[str, list[float]]:
    """FLOPs a pixel of every member on a network, with plans and without."""
    network = NETWORKS[name]
    every = [
        network.whole(side) if m is None
        else network.planned(m[0], m[1], side) if isinstance(m, tuple)
        else network.partner(m, side)
        for m in members
    ]  # fmt: skip
    without = [math.inf if isinstance(m, tuple) else v for m, v in zip(members, every, strict=True)]
    return {name: every, name + WITHOUT: without}


def shares(field: TorusField, plans: tuple[int, ...]) -> dict[str, list[float]]:
    """By "RADIUS" or "RADIUS+PLAN": the loss above the global one as a share of it, by log-SNR."""
    times = [float(LinearPath().t_of_log_snr(x)) for x in LOG_SNR]
    loss = [field.mmse(t) for t in times]
    found = {}
    for radius in (r for r in BESIDE if 2 * r + 1 <= field.side):
        for plan in (None, *(p for p in plans if 2 * p <= field.side)):
            name = str(radius) if plan is None else f"{radius}+{plan}"
            found[name] = [field.denoising_gap(t, radius, plan=plan) / mse for t, mse in zip(times, loss, strict=True)]
    return found


def worst(share: list[float]) -> tuple[float, float]:
    """The largest share, and the log-SNR where it is lost."""
    place = int(np.argmax(share))
    return float(share[place]), LOG_SNR[place]


def pooled_share(field: TorusField, radius: int, plan: int, log_snr: float) -> float:
    """The same share where the plan is of pooled pixels, means over blocks, instead of long waves: the mean over the
    places of a pixel in its block, by least squares from the window and all noisy pooled pixels."""
    t = float(LinearPath().t_of_log_snr(log_snr))
    alpha, sigma = noise_level(t, None)
    side, block = field.side, field.side // plan
    mean = torch.zeros(side, side, dtype=torch.float64)
    mean[:block, :block] = 1 / block**2
    spectrum, filtered = torch.fft.fft2(field.correlation).real, torch.fft.fft2(mean)
    to_pixel = torch.fft.ifft2(spectrum * filtered.conj()).real  # of a block and a pixel, by block minus pixel
    to_block = torch.fft.ifft2(spectrum * filtered.abs() ** 2).real
    at = torch.arange(plan) * block
    corners = torch.cartesian_prod(at, at)
    ring = torch.arange(-radius, radius + 1)
    window = torch.cartesian_prod(ring, ring)

    def between(table: Tensor, a: Tensor, b: Tensor) -> Tensor:
        apart = (a[:, None] - b[None, :]) % side
        return table[apart[..., 0], apart[..., 1]]

    total = 0.0
    blocks = alpha**2 * between(to_block, corners, corners) + sigma**2 / block**2 * torch.eye(
        len(corners), dtype=torch.float64
    )
    for row in range(block):
        for column in range(row + 1):  # a reflection gives the others
            pixel = torch.tensor([[row, column]])
            near = (pixel + window) % side
            inside = ((near[None] // block) * block == corners[:, None]).all(-1).double()
            seen = alpha**2 * between(field.correlation, near, near) + sigma**2 * torch.eye(
                len(near), dtype=torch.float64
            )
            mixed = alpha**2 * between(to_pixel, corners, near) + sigma**2 / block**2 * inside
            noisy = torch.cat([torch.cat([seen, mixed.T], 1), torch.cat([mixed, blocks], 1)])
            cross = alpha * torch.cat([between(field.correlation, near, pixel), between(to_pixel, corners, pixel)])
            # a block within the window is known from its pixels
            solved = torch.linalg.pinv(noisy, rtol=1e-12, hermitian=True) @ cross
            left = float(field.correlation[0, 0] - (cross * solved).sum())
            total += left * (1 if row == column else 2)
    whole = field.mmse(t) / side**2
    return (total / block**2 - whole) / whole


def gaps(field: TorusField, plans: tuple[int, ...]) -> dict[str, Any]:
    found = shares(field, plans)
    pooled = {}
    for name, share in found.items():
        radius, _, plan = name.partition("+")
        if plan and int(plan) <= POOLED:
            pooled[name] = pooled_share(field, int(radius), int(plan), worst(share)[1])
    return {"log_snr": list(LOG_SNR), "share": found, "pooled": pooled}
