"""Tables and figure: savings with a plan and without, what windows lose beside plans, losses of trained networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from phasewise.results import LossTable
from studies.figures import png, style
from studies.pages import markdown
from studies.plan.fields import BESIDE, PRICED, WITHOUT, worst
from studies.resolution.show import saving
from studies.study import Answers


def gaps_of(answers: Answers) -> dict[int, dict[str, Any]]:
    """By side, ascending."""
    return dict(sorted((int(n.split("/")[1]), c) for n, c in answers.items() if n.startswith("gaps/")))


def saving_table(answers: Answers) -> str:
    """Rival's cost over the hybrid's, with plans and without; in brackets the steps of each kind."""
    rows = []
    found = {tuple(n.split("/")[1:]): c["savings"] for n, c in answers.items() if n.startswith("saving/")}
    for (side, name), both in sorted(found.items(), key=lambda pair: (PRICED.index(pair[0][1]), int(pair[0][0]))):
        here = {s["network"]: s for s in both}
        rival = here[name]["rival"]
        cells = [f"{len(rival['times']) - 1}, {rival['solver']}", *(_saving(here[name + end]) for end in (WITHOUT, ""))]
        rows.append([name, side, *cells, _plans(here[name])])
    heads = ["network", "side", "rival: steps, solver", "windows alone", "with plans", "plans taken (steps)"]
    note = (
        "The rival's FLOPs over the hybrid's: global steps alone, placed as well as can be, over the cheapest of any "
        "members of the same error; in brackets the hybrid's global, planned and local steps."
    )
    return markdown(heads, rows, note)


def _plans(found: dict[str, Any]) -> str:
    taken = [f"{r[1]} x {r[1]}" for r in found["hybrid"]["radii"] if isinstance(r, (list, tuple))]
    return ", ".join(f"{plan} ({taken.count(plan)})" for plan in dict.fromkeys(taken))


def _saving(found: dict[str, Any]) -> str:
    paid = found["hybrid"]["radii"][1:]  # the call at the start is free
    far, planned = sum(r is None for r in paid), sum(isinstance(r, (list, tuple)) for r in paid)
    return f"{saving(found):.1f} ({far} + {planned} + {len(paid) - far - planned})"


def plans_of(found: dict[int, dict[str, Any]]) -> list[int]:
    names = {name for content in found.values() for name in content["share"] if "+" in name}
    return sorted({int(name.split("+")[1]) for name in names})


def gap_table(answers: Answers) -> str:
    """The largest share of the global loss that a window loses, by plan; of pooled pixels behind it."""
    found, rows = gaps_of(answers), []
    for side, content in found.items():
        share, pooled = content["share"], content["pooled"]
        for radius in (r for r in BESIDE if str(r) in share):
            cells = [f"{worst(share[str(radius)])[0]:.3f}"]
            for plan in plans_of(found):
                name = f"{radius}+{plan}"
                twin = f" ({pooled[name]:.3f})" if name in pooled else ""
                cells.append(f"{worst(share[name])[0]:.3f}{twin}" if name in share else "")
            rows.append([str(side), str(radius), *cells])
    heads = ["side", "r", "no plan", *(f"{p} x {p}" for p in plans_of(found))]
    note = (
        "Loss above the global denoiser's as a share of it, at the log-SNR where it is largest; in brackets, there, "
        "with the means over blocks as plan instead of the longest waves."
    )
    return markdown(heads, rows, note)


def networks(answers: Answers) -> tuple[LossTable, dict[str, float]]:
    """Losses, and FLOPs by name, of the trained networks."""
    content = answers["networks"]
    return LossTable.from_dict(content["table"]), content["flops"]


def network_table(answers: Answers) -> str:
    """Cost, and held-out loss over the global network's, by time."""
    table, flops = networks(answers)
    rows = [
        [name, f"{flops[name] / 1e6:.1f}", *(f"{value:.3f}" for value in table.loss[:, i] / table.loss[:, 0])]
        for i, name in enumerate(table.names)
    ]
    heads = ["network", "MFLOP", *(f"t = {t:g}" for t in table.times)]
    note = f"Held-out loss over the global network's, {table.n:,} test images, the same noise for all."
    return markdown(heads, rows, note)


def excess_table(answers: Answers) -> str:
    """The gap to the global network with its paired error."""
    table, _ = networks(answers)
    rows = [
        [n, *(f"{g:.2f} ± {e:.2f}" for g, e in zip(table.gap[:, i], table.gap_stderr[:, i], strict=True))]
        for i, n in enumerate(table.names)
        if n != table.reference
    ]
    heads = ["network", *(f"t = {t:g}" for t in table.times)]
    return markdown(
        heads, rows, f"Loss minus the global network's, an image, ± paired standard error; n = {table.n:,}."
    )


def mixed_table(answers: Answers) -> str:
    """What every judge says of schedules on the shipped hybrid's steps, and the difference from the first."""
    found = {name.removeprefix("mixed/"): row for name, row in answers.items() if name.startswith("mixed/")}
    judges = list(dict.fromkeys(judge for row in found.values() for judge in row["scores"]))
    rows = []
    for name, row in sorted(found.items(), key=lambda pair: -pair[1]["mflop"]):
        cells = [f"{row['scores'][j][0]:.3g}, {row['minus'][j][0]:+.2g} ± {row['minus'][j][1]:.1g}" for j in judges]
        rows.append([name, row["asked"]["members"], f"{row['mflop']:.0f}", *cells])
    n = max((row["asked"]["n"] for row in found.values()), default=0)
    note = f"Distance by each judge, and minus that of all global, paired; {n:,} samples from equal noise."
    return markdown(["schedule", "members", "MFLOP", *judges], rows, note)


def figure(answers: Answers) -> bytes:
    """What r = 1 and r = 3 lose by log-SNR beside plans, at the middle side; then, once trained, the networks by t."""
    import matplotlib.pyplot as plt

    style()
    found = gaps_of(answers)
    figure, axes = plt.subplots(1, 2 + ("networks" in answers), figsize=(10.5, 3.3), layout="constrained")
    for ax, radius in zip(axes, (1, 3), strict=False):
        side, content = list(found.items())[len(found) // 2]
        names = [str(radius), *(f"{radius}+{p}" for p in plans_of(found))]
        for name, shade in zip(names, np.linspace(0, 0.75, len(names)), strict=True):
            if name in content["share"]:
                label = "no plan" if "+" not in name else "plan {0} x {0}".format(name.split("+")[1])
                ax.plot(content["log_snr"], content["share"][name], color=str(shade), label=label)
        ax.set(xlabel="log-SNR", yscale="log", ylim=(1e-3, None), title=f"exact, side {side}, r = {radius}")
        ax.legend(fontsize=6)
    axes[0].set_ylabel("excess loss over the global loss")
    if "networks" in answers:
        table, _ = networks(answers)
        for i, name in enumerate(table.names[1:], 1):
            dashes = "--" if "pooled" in name else "-"
            axes[2].plot(table.times, table.gap[:, i] / table.loss[:, 0], dashes, marker="o", ms=3, label=name)
        axes[2].set(xlabel="t", yscale="log", ylim=(1e-3, None), title="trained, MNIST")
        axes[2].legend(fontsize=6)
    return png(figure)
