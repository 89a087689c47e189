"""Tables and figure: savings by side, and where on the axis of log-SNR far pixels matter."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from studies.figures import png, style
from studies.pages import markdown
from studies.resolution.costs import NETWORKS
from studies.study import Answers

CLOSE = (0.05, 0.01)
"""Shares of the global loss that a radius may lose and still count as enough."""
STYLES = {"scaling": "-", "fixed": "--"}
Named = dict[tuple[str, int], dict[str, Any]]
"""Answers by field and side, sides ascending."""


def named(answers: Answers) -> Named:
    split = {(name.split("/")[0], int(name.split("/")[1])): content for name, content in answers.items()}
    return dict(sorted(split.items(), key=lambda pair: (list(STYLES).index(pair[0][0]), pair[0][1])))


def saving_table(answers: Answers) -> str:
    """Rival's cost over the hybrid's; behind it the global steps that are left of those paid for."""
    rows = []
    for (kind, side), content in named(answers).items():
        for measure, steps in dict.fromkeys((s["measure"], s["steps"]) for s in content["savings"]):
            here = [s for s in content["savings"] if (s["measure"], s["steps"]) == (measure, steps)]
            cells = [_saving(next(s for s in here if s["network"] == name)) for name in NETWORKS]
            rival = here[0]["rival"]
            rows.append([kind, str(side), measure, f"{here[0]['bound']:.1e}", _steps(rival), *cells])
    heads = ["field", "side", "error", "at most", "rival: steps, solver", *NETWORKS]
    note = "Rival's FLOPs over the hybrid's; in brackets the hybrid's global and local steps."
    return markdown(heads, rows, note)


def _steps(plan: dict[str, Any]) -> str:
    return f"{len(plan['times']) - 1}, {plan['solver']}"


def saving(found: dict[str, Any]) -> float:
    return float(found["rival"]["cost"] / found["hybrid"]["cost"])


def _saving(found: dict[str, Any]) -> str:
    paid = found["hybrid"]["radii"][1:]  # the call at the start is free
    far = sum(r is None for r in paid)
    return f"{saving(found):.1f} ({far} + {len(paid) - far})"


def enough(content: dict[str, Any], close: float) -> np.ndarray:
    """By log-SNR: the least radius that loses at most ``close`` of the global loss; NaN where none of them does."""
    out = np.full(len(content["gaps"]["log_snr"]), np.nan)
    for radius in sorted(content["radii"], reverse=True):
        out[np.array(content["gaps"]["share"][str(radius)]) <= close] = radius
    return out


def window(content: dict[str, Any], radius: int, close: float) -> tuple[float, float] | None:
    """The span of log-SNR within which this radius loses more than ``close`` of the global loss."""
    log_snr = np.array(content["gaps"]["log_snr"])
    over = log_snr[np.array(content["gaps"]["share"][str(radius)]) > close]
    return (float(over[0]), float(over[-1])) if len(over) else None


def forming(content: dict[str, Any]) -> tuple[float, float]:
    """The span of log-SNR within which the picture forms: the loss falls from 95 % to 5 % of a pixel's variance, 1."""
    log_snr, loss = np.array(content["gaps"]["log_snr"]), np.array(content["gaps"]["loss"])
    return tuple(float(np.interp(-level, -loss, log_snr)) for level in (0.95, 0.05))  # type: ignore[return-value]


def window_table(answers: Answers) -> str:
    rows = []
    for (kind, side), content in named(answers).items():
        start, end = forming(content)
        cells = [f"{start:.1f} to {end:.1f}"]
        for radius in (r for r in SHOWN if r in content["radii"]):
            spans = [window(content, radius, close) for close in CLOSE]
            cells.append("; ".join("none" if s is None else f"{s[0]:.1f} to {s[1]:.1f}" for s in spans))
            first = spans[0]
            cells[-1] += "" if first is None else f" ({(first[1] - first[0]) / (end - start):.2f})"
        rows.append([kind, str(side), *cells, *[""] * (1 + len(SHOWN) - len(cells))])
    heads = ["field", "side", "picture forms at log-SNR", *(f"r = {r}" for r in SHOWN)]
    note = (
        "Log-SNR where a radius loses more than 5 %, and more than 1 %, of the global loss; in brackets the width of "
        "the first over that of the span in which the picture forms."
    )
    return markdown(heads, rows, note)


SHOWN = (1, 3, 8, 12, 32)


def figure(answers: Answers) -> bytes:
    """Savings by side for each level of error, by the first measure; and the radius that is enough by log-SNR."""
    import matplotlib.pyplot as plt

    style()
    found = named(answers)
    savings = next(iter(found.values()))["savings"]
    measure, levels = savings[0]["measure"], sorted({s["steps"] for s in savings})
    sides = sorted({side for _, side in found})
    figure, axes = plt.subplots(1, len(levels) + 2, figsize=(3.2 * (len(levels) + 2), 3.3), layout="constrained")
    for ax, steps in zip(axes, levels, strict=False):
        for kind, line in STYLES.items():
            for name, network in NETWORKS.items():
                points = [
                    (side, saving(s))
                    for (k, side), c in found.items()
                    for s in c["savings"]
                    if (k, s["measure"], s["steps"], s["network"]) == (kind, measure, steps, name)
                ]
                ax.plot(*zip(*points, strict=True), line, marker="o", ms=3, color=network.colour)
        ax.set(xscale="log", yscale="log", ylim=(0.8, None), xlabel="side, pixels")
        ax.set_title(f"equal to {steps - 1} global steps")
        ax.set_xticks(sides, [str(s) for s in sides])
        ax.minorticks_off()
        ax.axhline(1, color="black", lw=0.7)
    axes[0].set_ylabel("rival's FLOPs over the hybrid's")
    labels = [*((n.colour, "-", name) for name, n in NETWORKS.items()), *(("grey", v, k) for k, v in STYLES.items())]
    handles = [Line2D([], [], color=c, ls=line) for c, line, _ in labels]
    figure.legend(
        handles, [t for *_, t in labels], loc="outside lower left", ncols=len(labels), fontsize=7, handlelength=3
    )
    for ax, kind in zip(axes[len(levels) :], STYLES, strict=True):
        for shade, side in zip(np.linspace(0.75, 0, len(sides)), sides, strict=True):
            c = found.get((kind, side))
            if c:
                ax.plot(c["gaps"]["log_snr"], enough(c, CLOSE[0]), color=str(shade), label=f"side {side}")
        ax.set(xlabel="log-SNR", yscale="log", title=f"least radius within 5 %, {kind}")
        radii = max((c["radii"] for c in found.values()), key=len)
        ax.set_yticks(radii, [str(r) for r in radii])
        ax.minorticks_off()
        ax.legend(fontsize=6)
    return png(figure)
