"""Figures and tables of the CMI maps of real images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

import phasewise as pw
from phasewise.results import CMIMap
from studies.cmi.truth import pm
from studies.figures import png
from studies.pages import markdown

PUBLISHED = {  # arXiv 2508.06614, MNIST, centre pixel: time -> nats at r = 1, 3, 6, 9, 12
    0.1: (0.080, 0.093, 0.061, 0.032, -0.006),
    0.2: (0.137, 0.155, 0.089, 0.022, -0.015),
    0.3: (0.168, 0.172, 0.141, 0.101, 0.056),
    0.4: (0.146, 0.137, 0.100, 0.063, 0.021),
    0.5: (0.066, 0.056, 0.047, -0.017, 0.031),
}
RADII = (1, 3, 6, 9, 12)
TITLES = {
    "mnist-b1": "MNIST, centre pixel", "mnist-b1-at7_7": "MNIST, pixel (7, 7)", "fashion_mnist-b1": "Fashion-MNIST",
    "cifar10-b1": "CIFAR-10, centre pixel", "mnist-b2": "MNIST, 2 x 2 block", "mnist-b4": "MNIST, 4 x 4 block",
    "mnist-b7": "MNIST, 7 x 7 block", "fashion_mnist-b4": "Fashion-MNIST, 4 x 4", "digits-b1": "digits, centre pixel",
}  # fmt: skip
PLAIN: Any = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}


def map_table(found: CMIMap, radii: tuple[int, ...], fit_range: tuple[int, int]) -> str:
    """One row a time: CMI at the radii, and the Markov length over ``fit_range``."""
    fit = pw.markov_length(found, fit_range)
    radii = tuple(r for r in radii if r in found.radii)
    rows = []
    for i in np.argsort(found.times):
        if found.times[i] == 1:
            continue
        cells = [pm(found.value[i, k], found.stderr[i, k]) for k in map(found.radii.index, radii)]
        length = f"{fit.xi[i]:.2f} ({fit.low[i]:.2f} to {fit.high[i]:.2f})" if np.isfinite(fit.xi[i]) else ""
        verdict = "" if fit.status[i] == "ok" else f" {fit.status[i]}"
        rows.append([f"{found.times[i]:g}", *cells, f"{length}{verdict}"])
    return markdown(["t", *(f"r = {r}" for r in radii), f"Markov length, r = {fit_range[0]}..{fit_range[1]}"], rows)


def published_figure(found: CMIMap) -> bytes:
    """The published values beside the held-out ones, on the same axes."""
    import matplotlib.pyplot as plt

    with mpl.rc_context(PLAIN):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1), layout="constrained")
        for k, (shade, r) in enumerate(zip(shades(len(RADII)), RADII, strict=True)):
            values = [row[k] for row in PUBLISHED.values()]
            left.plot(list(PUBLISHED), values, "s--", ms=3, color=shade, label=f"r = {r}")
        left.axhline(0, color="grey", lw=0.6)
        curves(right, found, RADII)
        for ax, title in ((left, "published (MINE on training images)"), (right, "held out, fresh noise (density)")):
            ax.set(xlim=(0, 1), ylim=(-0.03, 0.19), title=title, xlabel="noise time t")
        left.set_ylabel("I(A : C | B_r), nats")
        right.legend(fontsize=7)
        return png(figure, dpi=150)


def sets_figure(maps: Mapping[str, CMIMap]) -> bytes:
    """One panel a map."""
    import matplotlib.pyplot as plt

    found = {title: maps[name] for name, title in TITLES.items() if name in maps}
    rows = max(-(-len(found) // 3), 1)
    with mpl.rc_context(PLAIN):
        figure, axes = plt.subplots(rows, 3, figsize=(9, 2.7 * rows), layout="constrained", squeeze=False)
        for ax, (title, record) in zip(axes.flat, found.items(), strict=False):
            curves(ax, record, (1, 2, 3, 4, 6, 9))
            ax.set(title=title, xlim=(0, 1))
        for ax in axes.flat[len(found) :]:
            ax.axis("off")
        if found:
            axes[0, 0].legend(fontsize=7)
        for ax in axes[:, 0]:
            ax.set_ylabel("nats")
        return png(figure, dpi=150)


def curves(ax: Axes, found: CMIMap, radii: tuple[int, ...]) -> None:
    """CMI by time, a line a radius with a band of 2 standard errors either side."""
    order = np.argsort(found.times)
    for shade, r in zip(shades(len(radii)), radii, strict=True):
        if r in found.radii:
            j = found.radii.index(r)
            value, stderr = found.value[order, j], found.stderr[order, j]
            ax.plot(found.times[order], value, "o-", ms=3, color=shade, label=f"r = {r}")
            ax.fill_between(found.times[order], value - 2 * stderr, value + 2 * stderr, color=shade, alpha=0.2, lw=0)
    ax.axhline(0, color="grey", lw=0.6)
    ax.set_xlabel("noise time t")


def shades(count: int) -> np.ndarray:
    return np.asarray(mpl.colormaps["viridis"](np.linspace(0, 0.85, count)))
