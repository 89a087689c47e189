"""The same pictures at several resolutions: where a window fails, and what is saved, on the field of their spectrum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import phasewise as pw
from phasewise.data import ImageData
from phasewise.exact import TorusField, periodogram
from phasewise.paths import LinearPath
from studies import resolution, subject
from studies.resolution.costs import NETWORKS
from studies.resolution.study import gaps, savings

RADII = (1, 2, 3, 5, 8, 12, 16, 32)


def resized(images: Tensor, side: int) -> Tensor:
    """Means over blocks where pixels become fewer, bilinear in between where they become more."""
    own = images.shape[-1]
    if side <= own:
        return F.avg_pool2d(images, own // side)
    return F.interpolate(images, side, mode="bilinear", align_corners=False)


def field_of(data: ImageData, side: int, n: int) -> TorusField:
    """The Gaussian field of the spectrum of the first n images at this side."""
    return TorusField.of_spectrum(periodogram(resized(data.train[:n], side)))


def measured(field: TorusField, priced: tuple[str, ...], asked: resolution.Options) -> dict[str, Any]:
    """Gaps of every radius by log-SNR, and the cheapest schedules, as in the resolution study."""
    radii = tuple(r for r in RADII if 2 * r + 1 <= field.side)
    prices = {
        name: [NETWORKS[name].whole(field.side), *(NETWORKS[name].partner(r, field.side) for r in radii)]
        for name in priced
    }
    return {"radii": radii, "gaps": gaps(field, radii), "savings": savings(field, (None, *radii), prices, asked)}


def trained(name: str, log_snr: tuple[float, ...], test: int, data_dir: str | None) -> dict[str, Any]:
    """Held-out losses of the shipped networks, global and of radius 3, at log-SNRs relative to the pixels' variance."""
    ready = subject.of_shipped("fashion_mnist" if name == "fashion_mnist" else "mnist", name, data_dir)
    members = {k: ready.members[k] for k in ("global", "r3")}
    std = float(ready.data.train[:5000].std())
    times = [float(LinearPath().t_of_log_snr(x - 2 * float(torch.tensor(std).log()))) for x in log_snr]
    table = pw.diagnosis.measure_losses(members, ready.data.test[:test], times, seed=7)
    return {"log_snr": list(log_snr), "table": table.to_dict()}
