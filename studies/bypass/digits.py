"""Digits along each path: what a Gaussian of their covariance says of CMI and gap, and what local networks generate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

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


Read = Callable[[GaussianModel], float]


def extrapolated(images: Tensor, reads: Sequence[Read]) -> list[tuple[float, float]]:
    """What each of ``reads`` says of the Gaussian of the images' covariance, and half of what two halves differ by.

    A covariance of n images tells too much of far pixels, by an amount that falls as 1 / n: what all images say less
    than their halves is taken off once more.
    """
    whole, *halves = (GaussianModel(covariance(part), SIDE) for part in (images, *images.chunk(2)))
    found = []
    for read in reads:
        one, other = (read(model) for model in halves)
        found.append((2 * read(whole) - (one + other) / 2, abs(one - other) / 2))
    return found


def far(model: GaussianModel, t: float, block: int, path: NoisePath | None = None) -> float:
    """CMI of the centre block, nats."""
    return model.cmi(t, RADIUS, block, path=path)


def excess(model: GaussianModel, t: float, path: NoisePath) -> float:
    """Share of the global loss that windows add."""
    return model.mmse(t, RADIUS, path) / model.mmse(t, None, path) - 1


def curves(images: Tensor, path: NoisePath, log_snrs: tuple[float, ...], block: int) -> dict[str, list[float]]:
    """By log-SNR of a pixel, as the path says: CMI of the centre block, nats, and the share of the global loss that
    windows lose, with their errors; of Gaussians."""
    out: dict[str, list[float]] = {k: [] for k in ("cmi", "cmi_stderr", "gap", "gap_stderr")}
    for log_snr in log_snrs:
        t = float(path.t_of_log_snr(log_snr))
        reads = (partial(far, t=t, block=block, path=path), partial(excess, t=t, path=path))
        for name, (value, error) in zip(("cmi", "gap"), extrapolated(images, reads), strict=True):
            out[name].append(value)
            out[f"{name}_stderr"].append(error)
    return out


def given_class(images: Tensor, labels: Tensor, log_snrs: tuple[float, ...], block: int) -> dict[str, list[float]]:
    """By log-SNR: CMI of the centre block given the class, on the isotropic path, of a Gaussian for every class."""
    times = [float(LinearPath().t_of_log_snr(x)) for x in log_snrs]
    value, variance = [0.0] * len(times), [0.0] * len(times)
    for label in labels.unique():
        mine = images[labels == label]
        share = len(mine) / len(images)
        reads = [partial(far, t=t, block=block) for t in times]
        for k, (found, error) in enumerate(extrapolated(mine, reads)):
            value[k] += share * found
            variance[k] += (share * error) ** 2
    return {"cmi": value, "cmi_stderr": [v**0.5 for v in variance]}
