"""Digits along each path: what a Gaussian of their covariance says of CMI and gap, and what local networks generate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from phasewise.exact import GaussianModel
from phasewise.paths import LinearPath, ModePath, NoisePath, ScaledPath

SIDE = (28, 28)
PATHS: Mapping[str, NoisePath] = {
    "isotropic": LinearPath(),
    "coloured": ModePath(SIDE, power=1.0, mass=0.3),
    "coloured like digits": ModePath(SIDE, power=2.0, mass=0.55),
    "coarse first, by wave": ModePath(SIDE, power=-0.5, mass=0.3),
    "coarse first, blurred": ModePath(SIDE, blur=3.0),
    "coarse first, by level": ModePath(SIDE, "haar", [ScaledPath(LinearPath(), s) for s in (2.0, 1.0, 0.5)]),
}
"""Ways from digits to noise.  Digits have a spectrum near (0.55^2 + e)^-2: fitted to 20,000 of them."""
RADIUS = 3


def covariance(images: Tensor) -> Tensor:
    """(784, 784) float64 of images (n, 1, 28, 28)."""
    return torch.cov(images.double().flatten(1).T, correction=0)


def curves(images: Tensor, path: NoisePath, log_snrs: tuple[float, ...], block: int) -> dict[str, list[float]]:
    """By log-SNR of a pixel, as the path says: CMI of the centre block, nats, and the share of the global loss that
    windows lose; both of Gaussians of the covariance of two halves of the images, their mean and half their difference
    as its error."""
    halves = [GaussianModel(covariance(part), SIDE) for part in images.chunk(2)]
    out: dict[str, list[float]] = {k: [] for k in ("cmi", "cmi_stderr", "gap", "gap_stderr")}
    for log_snr in log_snrs:
        t = float(path.t_of_log_snr(log_snr))
        cmi = [model.cmi(t, RADIUS, block, path=path) for model in halves]
        loss = [model.mmse(t, None, path) for model in halves]
        gap = [model.mmse(t, RADIUS, path) / whole - 1 for model, whole in zip(halves, loss, strict=True)]
        for name, (one, other) in {"cmi": cmi, "gap": gap}.items():
            out[name].append((one + other) / 2)
            out[f"{name}_stderr"].append(abs(one - other) / 2)
    return out


def given_class(images: Tensor, labels: Tensor, log_snrs: tuple[float, ...], block: int) -> list[float]:
    """By log-SNR: CMI of the centre block given the class, on the isotropic path, of a Gaussian for every class."""
    path, out = LinearPath(), [0.0] * len(log_snrs)
    for label in labels.unique():
        mine = images[labels == label]
        model = GaussianModel(covariance(mine), SIDE)
        for k, log_snr in enumerate(log_snrs):
            out[k] += len(mine) / len(images) * model.cmi(float(path.t_of_log_snr(log_snr)), RADIUS, block)
    return out
