"""Tables and figure: exponents and collapse; windows and savings by resolution; trained networks beside their field."""

from __future__ import annotations

from typing import Any

import numpy as np

from phasewise.results import LossTable
from studies.figures import png, style
from studies.pages import markdown
from studies.resolution.show import CLOSE, forming, saving, window
from studies.study import Answers
from studies.window_against_side.scaling import EXPECTED, FALL, MODELS, exponent

RADIUS = 3
"""Of the window whose span is shown."""
DRAWS = 20
"""Fits to redrawn curves, for the error of an exponent."""
Curves = dict[int, dict[str, Any]]


def _split(answers: Answers, kind: str) -> dict[str, Curves]:
    """By name, then by side, ascending."""
    found: dict[str, Curves] = {}
    for name, content in answers.items():
        parts = name.split("/")
        if parts[0] == kind:
            found.setdefault(parts[1], {})[int(parts[2])] = content
    return {name: dict(sorted(each.items())) for name, each in found.items()}


def scaling_table(answers: Answers) -> str:
    """nu as fitted and as expected; peaks by side."""
    found, rows = _split(answers, "scaling"), []
    for model in (m for m in MODELS if m in found):
        curves = found[model]
        known, free = exponent(curves, DRAWS, FALL[model]), exponent(curves, DRAWS)
        peaks = []
        for side, c in curves.items():
            top = int(np.argmax(c["value"]))
            error = f" ± {c['stderr'][top]:.4f}" if c["n"] > 1 else ""
            peaks.append(f"{side}: {c['log_snr'][top]:.1f}, {c['value'][top]:.4f}{error}")
        rows.append(
            [
                model,
                f"{EXPECTED[model]:.3f}",
                f"{known['nu']:.3f} ± {known['error']:.3f}",
                f"{free['nu']:.3f} ± {free['error']:.3f} ({free['amplitude']:.2f})",
                f"{known['spread']:.2f}",
                "; ".join(peaks),
            ]
        )
    heads = [
        "model",
        "nu expected",
        "nu fitted",
        "height free (power of L)",
        "spread",
        "side: log-SNR of the top, nats",
    ]
    note = (
        "Fitted with the height's power of L by theory, 0 or on the chain -1, and with it free. The spread: what is "
        "left between the collapsed curves, a share of their size, weighed by errors."
    )
    return markdown(heads, rows, note)


def window_table(answers: Answers) -> str:
    """By set and side: where the picture forms, the span in which the radius fails, and what a schedule saves."""
    rows = []
    for name, each in _split(answers, "images").items():
        for side, content in each.items():
            start, end = forming(content)
            cells = [name, str(side), f"{start:.1f} to {end:.1f}"]
            for close in CLOSE:
                span = window(content, RADIUS, close)
                shown = "none" if span is None else f"{span[0]:.1f} to {span[1]:.1f} ({span[1] - span[0]:.1f})"
                cells.append(shown)
            rows.append([*cells, *(_saving(s) for s in content["savings"])])
    some = next(iter(next(iter(_split(answers, "images").values())).values()))
    heads = [
        "pictures", "side", "forms at log-SNR", f"r = {RADIUS} loses {CLOSE[0]:.0%}", f"loses {CLOSE[1]:.0%}",
        *(f"{s['network']}, {s['steps'] - 1} steps" for s in some["savings"]),
    ]  # fmt: skip
    note = (
        "Spans of log-SNR about a pixel's variance, in brackets their width. Then the rival's FLOPs over the hybrid's; "
        "in brackets the hybrid's global and local steps, and the share of its FLOPs that is global."
    )
    return markdown(heads, rows, note)


def _saving(found: dict[str, Any]) -> str:
    hybrid = found["hybrid"]
    paid = hybrid["radii"][1:]  # the call at the start is free
    far = sum(r is None for r in paid)
    # a global step's cost is that of the rival's, all of whose steps are global
    rival = found["rival"]
    share = far * rival["cost"] / max(len(rival["times"]) - 1, 1) / hybrid["cost"]
    return f"{saving(found):.1f} ({far} + {len(paid) - far}; {share:.0%})"


def trained_table(answers: Answers) -> str:
    """The window of shipped networks of radius 3 beside that of the field of their images' spectrum."""
    fields, rows = _split(answers, "images"), []
    heads = ["pictures", "share lost by"]
    for name, content in ((n.split("/")[1], c) for n, c in answers.items() if n.startswith("trained/")):
        table = LossTable.from_dict(content["table"])
        place = table.names.index("r3")
        share, error = table.gap[:, place] / table.loss[:, 0], table.gap_stderr[:, place] / table.loss[:, 0]
        known = fields.get(name, {}).get(28)
        heads = ["pictures", "share lost by", *(f"{x:g}" for x in content["log_snr"])]
        rows.append([name, "networks", *(f"{s:.3f} ± {e:.3f}" for s, e in zip(share, error, strict=True))])
        if known:
            at = np.interp(content["log_snr"], known["gaps"]["log_snr"], known["gaps"]["share"][str(RADIUS)])
            rows.append([name, "field", *(f"{s:.3f}" for s in at)])
    return markdown(heads, rows, f"Loss of r = {RADIUS} above the global one as a share of it, 28 x 28, by log-SNR.")


def figure(answers: Answers) -> bytes:
    """Collapse of each model on its own fitted axis, and the window's width by side of the pictures."""
    import matplotlib.pyplot as plt

    style()
    found = _split(answers, "scaling")
    models = [m for m in MODELS if m in found]
    figure, axes = plt.subplots(1, len(models) + 1, figsize=(2.7 * (len(models) + 1), 3.1), layout="constrained")
    for ax, model in zip(axes, models, strict=False):
        fit = exponent(found[model], 2, FALL[model])
        least = min(found[model])
        for shade, (side, c) in zip(np.linspace(0.75, 0, len(found[model])), found[model].items(), strict=True):
            x = np.array(c["log_snr"]) + np.log(side) / fit["nu"]
            scale = (side / least) ** -fit["amplitude"]
            ax.errorbar(
                x, np.array(c["value"]) * scale, np.array(c["stderr"]) * scale, color=str(shade), marker="o", ms=2,
                lw=0.8, label=f"L = {side}",
            )  # fmt: skip
        ax.set(xlabel=f"log-SNR + log L / {fit['nu']:.2f}", title=model)
        ax.legend(fontsize=6)
    axes[0].set_ylabel("nats")
    for name, each in _split(answers, "images").items():
        spans = [(side, window(c, RADIUS, CLOSE[0])) for side, c in each.items()]
        axes[-1].plot(
            [s for s, _ in spans], [0 if w is None else w[1] - w[0] for _, w in spans], marker="o", ms=3, label=name
        )
    axes[-1].set(xscale="log", xlabel="side, pixels", ylabel="log-SNR", title=f"window of r = {RADIUS}, 5 %")
    axes[-1].set_xticks([16, 32, 64, 128], ["16", "32", "64", "128"])
    axes[-1].minorticks_off()
    axes[-1].legend(fontsize=6)
    return png(figure)
