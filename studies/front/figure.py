"""FID against FLOPs, and against milliseconds where they are known."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from studies.figures import png, style
from studies.front.rows import KINDS, Rows, kind_of, undominated


def draw(rows: Rows, finals: Rows) -> bytes:
    """All judged, and each kind's lower edge; the finalists once more by milliseconds."""
    import matplotlib.pyplot as plt

    style()
    sources = [("mflop", "MFLOP an image", rows)]
    timed = {k: r for k, r in finals.items() if r["ms"] is not None}
    if timed:
        sources.append(("ms", "ms an image (one thread, finalists)", timed))
    figure, axes = plt.subplots(1, len(sources), figsize=(5.2 * len(sources), 4.2), squeeze=False, layout="constrained")
    for axis, (cost, unit, shown) in zip(axes[0], sources, strict=True):
        panel(axis, shown, cost)
        axis.set(xscale="log", yscale="log", xlabel=unit)
        for which in (axis.xaxis, axis.yaxis):
            which.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if cost == "mflop" else (1, 2, 3, 4, 5, 6, 7)))
            which.set_major_formatter(ScalarFormatter())
            which.set_minor_formatter(NullFormatter())
    axes[0, 0].set_ylabel("FID (classifier features; bars: standard error)")
    axes[0, 0].legend(fontsize=7)
    return png(figure, dpi=130)


def panel(axis: Axes, shown: Rows, cost: str) -> None:
    """Dots for all, a line with bars for each kind's lower edge."""
    for kind, colour in KINDS.items():
        found = {k: r for k, r in shown.items() if kind_of(k) == kind}
        if found:
            every, edge = list(found.values()), [found[k] for k in undominated(found, cost)]
            axis.plot([r[cost] for r in every], [r["fid"][0] for r in every], ".", ms=3, color=colour, alpha=0.35)
            axis.errorbar(
                [r[cost] for r in edge], [r["fid"][0] for r in edge], [r["fid"][1] for r in edge], color=colour,
                marker="o", ms=4, lw=1.2, capsize=2, label=kind,
            )  # fmt: skip
