"""What two FIDs may not see of samples: blur, grain, contrast, how many look real, how much of the real they cover."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from phasewise.metrics import precision_recall

SAMPLES, REAL = 600, 2000
"""Images that are looked at, and real ones they are held against."""
SEED = 3
"""Of their noise: no schedule was chosen by it."""
AT_ONCE = 100
"""Images that are transformed together, in complex float64."""
FINE = 0.25
"""Cycles a pixel from which on waves are fine."""


def fine_power(images: Tensor) -> float:
    """Mean power of the waves of images (n, C, H, W) that are shorter than four pixels, squared pixel values."""
    down, across = (torch.fft.fftfreq(size, dtype=torch.float64) for size in images.shape[-2:])
    fine = (down[:, None] ** 2 + across**2).sqrt() >= FINE
    # Parseval: by norm "forward" the squared coefficients of all waves add up to the mean square of the pixels
    power = [torch.fft.fft2(part.double(), norm="forward").abs().square().sum(0) for part in images.split(AT_ONCE)]
    return float(sum(power)[..., fine].sum() / images.shape[0] / images.shape[1])


def contrast(images: Tensor) -> float:
    """Root mean square of the pixels of images (n, C, H, W) about the mean of their own image and channel."""
    return float(images.double().var((2, 3), correction=0).mean().sqrt())


PIXELS = {"fine": fine_power, "contrast": contrast}
"""What is measured of pixels, by name, and held against real images."""


def pixels_of(images: Tensor) -> dict[str, float]:
    """Every one of :data:`PIXELS`, of images (n, C, H, W)."""
    return {name: measure(images) for name, measure in PIXELS.items()}


def looks(
    samples: Tensor, real_pixels: Mapping[str, float], features: Mapping[str, Tensor],
    real_features: Mapping[str, Tensor],
) -> dict[str, list[float]]:  # fmt: skip
    """[value, standard error] by name: "fine", the power of short waves over that of real images (1 alike, less is
    blurred, more is grainy or hard); "contrast", over theirs; "precision" and "recall" in each judge's features, by
    its name.

    Args:
        samples: (n, C, H, W).  real_pixels: :func:`pixels_of` real images.
        features, real_features: (n, D) by judge, of the samples and of real images.
    """
    found = {}
    for name, measure in PIXELS.items():
        parts = torch.tensor([measure(part) for part in samples.tensor_split(8)]) / real_pixels[name]
        found[name] = [float(parts.mean()), float(parts.std() / len(parts) ** 0.5)]
    for judge, seen in features.items():
        for name, share in zip(("precision", "recall"), precision_recall(seen, real_features[judge]), strict=True):
            found[f"{name} {judge}"] = [share.value, share.stderr]
    return found
