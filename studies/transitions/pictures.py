"""Real images: CMI with the class known and without, at equal numbers of images, and networks that are told the class.

A map given the class rests on the images of one class at a time, and an estimator reads less of what it has fewer
images for.  So the map beside it is measured in parts too: random ones, each as large as a class.  Those parts differ
in nothing but their images, and a few of them do.

A network that is told the class starts from the shipped one, with a further label, "not told", whose vector stays the
zero it starts from as far as training lets it.  A fifth of the training images come with that label, so one network
gives the gap with the class known and without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasewise as pw
from phasewise.data import ImageData
from phasewise.denoisers import LocalDenoiser, NetworkDenoiser, UNetDenoiser
from phasewise.diagnosis import measure_cloning, measure_losses
from phasewise.information import cmi_map
from phasewise.results import CMIMap, LossTable
from phasewise.training import get_preset
from studies.transitions.marks import curve_marks

UNTOLD = 0.2
"""Share of the training images whose class the networks are not told."""
LR = 3e-4
"""Of networks that go on from trained weights; the default preset's is for a start from nothing."""


def pooled(data: ImageData, crop: int) -> tuple[Tensor, Tensor]:
    """The middle ``crop`` x ``crop`` pixels of all images of the set, and their labels.

    As of the maps of whole images, 28 x 28 ones lose their first row and column first, so the middle pixel is theirs.
    """
    images = torch.cat([data.train, data.validation, data.test])
    labels = [data.labels_train, data.labels_validation, data.labels_test]
    assert all(part is not None for part in labels)
    every = torch.cat([part for part in labels if part is not None])
    images = images[:, :, 1:, 1:] if images.shape[-1] == 28 else images
    first = (images.shape[-1] - crop) // 2
    return images[:, :, first : first + crop, first : first + crop].contiguous(), every


def class_map(
    data: ImageData,
    crop: int,
    times: Sequence[float],
    radii: Sequence[int],
    parts: int,
    options: Mapping[str, Any],
    folder: Path,
) -> CMIMap:
    """CMI of the centre pixel given the class; with ``parts`` > 0 given nothing, on so many random parts of the images,
    each as large as a class.  C ends at the border of the middle ``crop`` pixels, so values are a little low."""
    images, labels = pooled(data, crop)
    if parts:
        count = len(labels.unique())
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
        chosen = order[: len(images) * parts // count]
        images, labels = images[chosen], torch.arange(len(chosen)) % parts
    return cmi_map(images, radii, times, cond=labels, folder=folder, accuracy=1.0, **options)


def told(network: NetworkDenoiser, classes: int) -> NetworkDenoiser:
    """The same network with a place for labels 0 to ``classes``, the last of them "not told"; it says what it said."""
    config = {k: v for k, v in network.config().items() if k not in ("image_shape", "path")}
    if isinstance(network, UNetDenoiser):
        fresh: NetworkDenoiser = UNetDenoiser(
            network.image_shape, width=config["width"], multipliers=tuple(config["multipliers"]),
            blocks=config["blocks"], patch=config["patch"], heads=config["heads"], classes=classes + 1,
        )  # fmt: skip
    else:
        assert isinstance(network, LocalDenoiser)
        fresh = LocalDenoiser(network.image_shape, **{**config, "classes": classes + 1})
    fresh.load_state_dict(network.state_dict(), strict=False)
    torch.nn.init.zeros_(fresh.labels.weight)  # type: ignore[union-attr,arg-type]
    return fresh


def train_told(
    networks: Mapping[str, NetworkDenoiser], data: ImageData, steps: Mapping[str, int], batch: int, out: Path
) -> dict[str, pw.Denoiser]:
    """The networks, each trained on with labels for so many steps; kept in ``out``, where training resumes."""
    assert data.labels_train is not None
    assert data.labels_validation is not None
    classes = int(data.labels_train.max()) + 1
    labels = torch.cat([data.labels_train, data.labels_validation]).long().clone()
    hidden = torch.rand(len(labels), generator=torch.Generator().manual_seed(0)) < UNTOLD
    labels[hidden] = classes
    found: dict[str, pw.Denoiser] = {}
    for name, network in networks.items():
        folder = out / name
        if not (folder / "weights.safetensors").is_file():
            fresh = told(network, classes)
            plan = get_preset("default", lr=LR, ema=0.99, batch=batch, steps=steps[name])
            pw.train(fresh, data, plan, name=name, cond=labels, out=folder, progress=False)
            pw.save_denoiser(fresh, folder)
        found[name] = pw.load_denoiser(folder)
    return found


def told_losses(networks: Mapping[str, pw.Denoiser], data: ImageData, times: Sequence[float], n: int) -> dict[str, Any]:
    """Loss tables on ``n`` test images with the class told and not told, on the same noise."""
    assert data.labels_test is not None
    assert data.labels_train is not None
    images, labels = data.test[:n], data.labels_test[:n].long()
    nothing = torch.full_like(labels, int(data.labels_train.max()) + 1)
    with_class, without = (measure_losses(networks, images, times, cond=cond, seed=7) for cond in (labels, nothing))
    return {"told": with_class.to_dict(), "untold": without.to_dict()}


def shares(told_table: LossTable, untold_table: LossTable, name: str) -> tuple[np.ndarray, np.ndarray]:
    """By time: the share of the gap of ``name`` that goes when the class is told, and its standard error.

    Errors of both gaps are taken as independent; their images and noise are the same, so the error is an upper one
    where they go together.
    """
    k = told_table.column(name)
    now, before = told_table.gap[:, k], untold_table.gap[:, k]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1 - now / before
        error = np.hypot(told_table.gap_stderr[:, k], now / before * untold_table.gap_stderr[:, k]) / np.abs(before)
    return share, error


def clones(ready: Any, data: ImageData, times: Sequence[float], n: int, steps: int) -> dict[str, Any]:
    """Clones of the shipped global network on ``n`` test images, their classes told by the shipped classifier."""
    features = ready.features()
    found = measure_cloning(
        ready.denoiser("global"), data.test[:n], times, lambda x: features.probabilities(x.clamp(0, 1)).argmax(1),
        steps=steps, seed=11,
    )  # fmt: skip
    return found.to_dict()


def penalties(ready: Any, data: ImageData, times: Sequence[float], n: int, names: Sequence[str]) -> dict[str, Any]:
    """By penalty and local network: density per unit of log-SNR of what the network loses against the global one, over
    the relative log-SNR, and its marks.

    kl: ``gamma gap / 2``.  w2, frechet: root distance times the velocity gain.  flow: gap times its square.  The last
    three are per unit of time, and ``dt = t (1 - t) / 2 d log-SNR`` on the linear path.
    """
    members = {name: ready.denoiser(name) for name in ("global", *names)}
    found = pw.price_list(
        members, data, sorted(times, reverse=True), n=n, features=ready.features(), seed=5, truth="reference"
    )
    table = found.losses
    t, gamma = table.times, np.exp(table.log_snr)
    per = t * (1 - t) / 2
    x = table.log_snr + 2 * np.log(table.data_std)
    answer: dict[str, Any] = {"log_snr": x.tolist(), "n": table.n, "curves": {}, "marks": {}}
    assert found.frechet is not None
    assert found.frechet_stderr is not None
    for name in names:
        k = table.column(name)
        gap, error = table.gap[:, k], table.gap_stderr[:, k]
        curves = {
            "kl": (gamma * gap / 2, gamma * error / 2),
            "w2": _rooted(table.distance[:, k], table.distance_stderr[:, k], per / t),
            "flow": (gap / t**2 * per, error / t**2 * per),
            "frechet": _rooted(found.frechet[:, k], found.frechet_stderr[:, k], per / t),
        }
        for penalty, (value, stderr) in curves.items():
            answer["curves"][f"{name}, {penalty}"] = [value.tolist(), stderr.tolist()]
            answer["marks"][f"{name}, {penalty}"] = curve_marks(x, value, stderr)
    return answer


def _rooted(square: np.ndarray, stderr: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    root = np.sqrt(np.maximum(square, 1e-30))
    return root * factor, stderr / (2 * root) * factor


def map_marks(found: CMIMap, data_std: float) -> dict[str, Any]:
    """By radius: the CMI's curve over the relative log-SNR, and its marks."""
    live = [i for i, t in enumerate(found.times) if t < 1]
    times = found.times[live]
    x = 2 * np.log((1 - times) / times) + 2 * np.log(data_std)
    return {
        f"r = {r}": {
            "log_snr": x.tolist(),
            "curve": [found.value[live, j].tolist(), found.stderr[live, j].tolist()],
            "marks": curve_marks(x, found.value[live, j], found.stderr[live, j]),
        }
        for j, r in enumerate(found.radii)
    }
