"""Figures and tables of docs/cmi.md from the JSON records in docs/cmi: no measuring.

python experiments/cmi_figures.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from tables import replace_table

import phasewise as pw

DOCS = Path("docs/cmi")
PUBLISHED = {  # arXiv 2508.06614, MNIST, centre pixel: time -> nats at r = 1, 3, 6, 9, 12
    0.1: (0.080, 0.093, 0.061, 0.032, -0.006),
    0.2: (0.137, 0.155, 0.089, 0.022, -0.015),
    0.3: (0.168, 0.172, 0.141, 0.101, 0.056),
    0.4: (0.146, 0.137, 0.100, 0.063, 0.021),
    0.5: (0.066, 0.056, 0.047, -0.017, 0.031),
}
RADII = (1, 3, 6, 9, 12)


def load(name: str) -> pw.results.CMIMap | None:
    file = DOCS / f"{name}.json"
    return pw.results.CMIMap.from_dict(json.loads(file.read_text())["map"]) if file.exists() else None


def curves(ax: Any, found: pw.results.CMIMap, radii: tuple[int, ...]) -> None:
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(radii)))
    order = np.argsort(found.times)
    for shade, r in zip(shades, radii, strict=True):
        if r in found.radii:
            j = found.radii.index(r)
            value, stderr = found.value[order, j], found.stderr[order, j]
            ax.plot(found.times[order], value, "o-", ms=3, color=shade, label=f"r = {r}")
            ax.fill_between(found.times[order], value - 2 * stderr, value + 2 * stderr, color=shade, alpha=0.2, lw=0)
    ax.axhline(0, color="grey", lw=0.6)
    ax.set_xlabel("noise time t")


def against_published() -> None:
    found = load("mnist-b1")
    if found is None:
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1), layout="constrained")
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(RADII)))
    for k, (shade, r) in enumerate(zip(shades, RADII, strict=True)):
        left.plot(list(PUBLISHED), [row[k] for row in PUBLISHED.values()], "s--", ms=3, color=shade, label=f"r = {r}")
    left.axhline(0, color="grey", lw=0.6)
    curves(right, found, RADII)
    for ax, title in ((left, "published (MINE on training images)"), (right, "held out, fresh noise (density)")):
        ax.set(xlim=(0, 1), ylim=(-0.03, 0.19), title=title, xlabel="noise time t")
    left.set_ylabel("I(A : C | B_r), nats")
    right.legend(fontsize=7)
    figure.savefig(DOCS / "published.png", dpi=150)


def sets() -> None:
    names = {
        "mnist-b1": "MNIST, centre pixel", "mnist-b1-at7_7": "MNIST, pixel (7, 7)", "fashion_mnist-b1": "Fashion-MNIST",
        "cifar10-b1": "CIFAR-10, centre pixel", "mnist-b2": "MNIST, 2 x 2 block", "mnist-b4": "MNIST, 4 x 4 block",
        "mnist-b7": "MNIST, 7 x 7 block", "fashion_mnist-b4": "Fashion-MNIST, 4 x 4",
    }  # fmt: skip
    found = {title: record for name, title in names.items() if (record := load(name)) is not None}
    if not found:
        return
    rows = -(-len(found) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(9, 2.7 * rows), layout="constrained", squeeze=False)
    for ax, (title, record) in zip(axes.flat, found.items(), strict=False):
        curves(ax, record, (1, 2, 3, 4, 6, 9))
        ax.set(title=title, xlim=(0, 1))
    for ax in axes.flat[len(found) :]:
        ax.axis("off")
    axes[0, 0].legend(fontsize=7)
    for ax in axes[:, 0]:
        ax.set_ylabel("nats")
    figure.savefig(DOCS / "sets.png", dpi=150)


def rows_of(found: pw.results.CMIMap, radii: tuple[int, ...], fit_range: tuple[int, int]) -> list[str]:
    """One row a time: CMI at the radii, and the Markov length over ``fit_range``."""
    fit = pw.markov_length(found, fit_range)
    radii = tuple(r for r in radii if r in found.radii)
    head = "| t | " + " | ".join(f"r = {r}" for r in radii) + f" | Markov length, r = {fit_range[0]}..{fit_range[1]} |"
    rows = [head, "|---" * (len(radii) + 2) + "|"]
    for i in np.argsort(found.times):
        if found.times[i] == 1:
            continue
        cells = [f"{found.value[i, k]:.4f} ± {found.stderr[i, k]:.4f}" for k in map(found.radii.index, radii)]
        length = f"{fit.xi[i]:.2f} ({fit.low[i]:.2f} to {fit.high[i]:.2f})" if np.isfinite(fit.xi[i]) else ""
        verdict = "" if fit.status[i] == "ok" else f" {fit.status[i]}"
        rows.append(f"| {found.times[i]:g} | {' | '.join(cells)} | {length}{verdict} |")
    return rows


def tables() -> None:
    page = Path("docs/cmi.md")
    for name, title, radii in (
        ("mnist-b1", "MNIST, centre pixel", (1, 2, 3, 4, 6, 9, 12)),
        ("mnist-b4", "MNIST, 4x4 block", (1, 2, 3, 4, 6, 9)),
        ("mnist-b1-at7_7", "MNIST, pixel (7, 7)", (1, 2, 3, 4, 6, 9, 12)),
        ("fashion_mnist-b1", "Fashion-MNIST, centre pixel", (1, 2, 3, 4, 6, 9, 12)),
        ("cifar10-b1", "CIFAR-10, centre pixel (three colours)", (1, 2, 3, 4, 6, 9, 12)),
        ("mnist-b7", "MNIST, 7x7 block", (1, 2, 3, 4, 6, 9)),
        ("mnist-b2", "MNIST, 2x2 block", (1, 2, 3, 4, 6, 9)),
    ):
        found = load(name)
        if found is not None:
            rows = rows_of(found, radii, (1, 4))
            about = f"{title}, nats; n = {found.n}, seed {found.seed}:"
            replace_table(page, f"{name}, python experiments/cmi_figures.py", "\n".join([about, "", *rows]))


def main() -> None:
    plt.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})
    against_published()
    sets()
    tables()


if __name__ == "__main__":
    main()
