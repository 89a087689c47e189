"""Table and figure: excess loss and cost where trained, and the ratio of costs of rivals by image side."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from phasewise.errors import PhasewiseError
from studies.figures import png, style
from studies.locality.networks import FAMILIES, NETWORKS, mflop
from studies.pages import markdown
from studies.study import Answers

Rows = dict[tuple[int, float, str], dict[str, Any]]
"""By side, noise time and name of the network."""


def rows_of(answers: Answers) -> Rows:
    found: Rows = {}
    for name, content in answers.items():
        if not name.endswith("/steps"):
            side, t, network = name.split("/")
            found[int(side), float(t), network] = content
    return dict(sorted(found.items(), key=lambda pair: (*pair[0][:2], list(NETWORKS).index(pair[0][2]))))


def times_of(found: Rows) -> list[float]:
    return sorted({t for _, t, _ in found})


def table(found: Rows) -> str:
    sides, times = sorted({side for side, _, _ in found}), times_of(found)
    heads = ["network"]
    for side in sides:
        heads += [f"{side}: MFLOP", *(f"excess, t = {t:g}" for t in times)]
    rows = []
    for name in [n for n in NETWORKS if any(n == network for _, _, network in found)]:
        cells = [name]
        for side in sides:
            at = [found.get((side, t, name)) for t in times]
            shown = ["" if r is None else f"{100 * r['excess']:+.1f} ± {100 * r['error']:.1f} %" for r in at]
            cells += [f"{mflop(name, side):.1f}", *shown]
        rows.append(cells)
    return markdown(heads, rows)


def rivals(found: Rows, side: int, t: float) -> dict[str, tuple[str, str]]:
    """By family of global networks: its one of least loss, and the cheapest local one that loses no more (within two
    standard errors), where there is one."""
    here = {name: row for (s, u, name), row in found.items() if (s, u) == (side, t)}
    pairs = {}
    for family in list(FAMILIES)[1:]:
        best = min((n for n in here if n.startswith(family)), key=lambda n: here[n]["excess"], default=None)
        if best is None:
            continue
        bound = here[best]["excess"] + 2 * here[best]["error"]
        good = [n for n in here if n.startswith("local") and here[n]["excess"] <= bound]
        if good:
            pairs[family] = best, min(good, key=lambda n: mflop(n, side))
    return pairs


def draw(found: Rows, counted: tuple[int, ...]) -> bytes:
    """Left: loss against cost where trained. Right: what the best global ones cost over their local rivals, by side
    (those ``counted``, trained or not)."""
    import matplotlib.pyplot as plt

    style()
    times, names = times_of(found), {name for _, _, name in found}
    whole = len(times) * len(names)
    sides = [s for s in sorted({s for s, _, _ in found}) if sum(side == s for side, _, _ in found) == whole]
    if not sides:
        raise PhasewiseError(f"no side is trained whole ({whole} networks and times) yet; run it without --summary")
    side = sides[-1]
    figure, axes = plt.subplots(1, len(times) + 1, figsize=(3.5 * (len(times) + 1), 3.4), layout="constrained")
    for ax, t in zip(axes, times, strict=False):
        losses(ax, {name: row for (s, u, name), row in found.items() if (s, u) == (side, t)}, side)
        ax.set_title(f"t = {t:g}, {side}x{side}")
    axes[0].set_ylabel("held-out loss above the optimum, %")
    ratios(axes[-1], found, side, counted)
    return png(figure)


def losses(ax: Axes, here: dict[str, dict[str, Any]], side: int) -> None:
    """Excess loss against the cost a pixel, a line for every family."""
    for family, colour in FAMILIES.items():
        names = sorted((n for n in here if n.startswith(family)), key=lambda n: mflop(n, side))
        cost = [mflop(n, side) / side**2 * 1e3 for n in names]
        excess, error = ([100 * here[n][key] for n in names] for key in ("excess", "error"))
        ax.errorbar(cost, excess, error, marker="o", ms=4, color=colour, label=family)
        for n, x, y in zip(names, cost, excess, strict=True):
            ax.annotate(
                n.removeprefix(family + " "), (x, y), xytext=(3, 4), textcoords="offset points", fontsize=6
            )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="kFLOP a pixel")
    ax.legend(fontsize=7)


def ratios(ax: Axes, found: Rows, side: int, counted: tuple[int, ...]) -> None:
    """Cost of the best of each family over its local rival's, counted at every side."""
    for t, line in zip(times_of(found), ("-", "--", ":"), strict=False):
        for family, (name, local) in rivals(found, side, t).items():
            ratio = [mflop(name, s) / mflop(local, s) for s in counted]
            label = f"{name} over {local}, t = {t:g}"
            ax.plot(counted, ratio, line, marker="o", ms=3, color=FAMILIES[family], label=label)
    ax.axhline(1, color="black", lw=0.7)
    title = "FLOPs over a local network's of no higher loss"
    ax.set(xscale="log", yscale="log", xlabel="side, pixels", title=title)
    ax.set_xticks(counted[1:], [str(s) for s in counted[1:]])
    ax.minorticks_off()
    if ax.lines[1:]:
        ax.legend(fontsize=6)
