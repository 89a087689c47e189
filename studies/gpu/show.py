"""Tables and figure of the fronts: savings by set, kind and side; and whether penalties rank what the judge ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from phasewise.power import Comparison
from studies.figures import png, style
from studies.gpu.bench import PENALTIES
from studies.gpu.looks import PIXELS, SAMPLES
from studies.gpu.place import JUDGES
from studies.gpu.verdict import (
    ALONE,
    BOUND,
    Row,
    Verdict,
    as_precise,
    best_alone,
    difference,
    fair,
    fid,
    named,
    verdict,
    within,
    worst,
)
from studies.pages import markdown, table_in, table_of, with_others
from studies.study import Answers
from studies.timing import ratio

KINDS = {"unet": ("U-Net", "#D55E00"), "dit": ("transformer", "#009E73")}
EXACT = {"unet": "U-Net medium", "dit": "transformer"}
"""Columns of the exact fields' table, by kind."""
LEAST = 8
"""Schedules that a correlation is taken of."""
NAMED_BY = {"saving": (0, 2), "finalists": (0, 1), "looks": (0, 1), "penalties": (0, 1), "networks": (0, 1)}
"""By table: the columns that name a row, the set and the kind or the network."""
SAVING, ANY, PRECISE = "saving", "over any kind", "as precise"
"""Columns of the table of savings that the figure shows."""
_RESULTS = Path(__file__).resolve().parents[2] / "docs/results"
PAGE, OWN = _RESULTS / "resolution.md", _RESULTS / "photographs.md"


def fronts(answers: Answers) -> dict[str, dict[str, Any]]:
    """Answers of fronts by set and kind, sides ascending."""
    found = {name: a for name, a in answers.items() if "finals" in a}
    return dict(
        sorted(found.items(), key=lambda item: (item[1]["side"], item[0].split("/")[0], item[1]["kind"] != "unet"))
    )


def network_table(answers: Answers) -> str:
    """What was trained, and how well it does on held-out images; "" where nothing was."""
    rows = []
    for name, found in answers.items():
        if {"finals", "ms", "windows", "map"} & set(found):
            continue
        for network, row in found.get("networks", {name.split("/")[-1]: found}).items():
            loss, judged = row.get("val_loss"), row.get("test_accuracy")
            result = f"loss {loss:.4f}" if loss is not None else "" if judged is None else f"accuracy {judged:.3f}"
            seen = f"{row['images_seen']:,}" if "images_seen" in row else ""
            rows.append([name.split("/")[0], network, seen, f"{row.get('seconds', 0):.0f}", result])
    return markdown(("images", "network", "images seen", "s", "held out"), rows) if rows else ""


def saving_table(answers: Answers) -> str:
    """By set and kind: the rival, the hybrid, and what is between them."""
    rows, found = [], fronts(answers)
    for name, a in found.items():
        result = verdict(a["finals"], BOUND)
        rival, hybrid = result.rival, result.hybrid
        cells = [name.split("/")[0], str(a["side"]), KINDS[a["kind"]][0], _n(a)]
        cells += [f"{rival['mflop']:.0f}: {who(rival)}"]
        cells += [f"{hybrid['mflop']:.0f}: {who(hybrid)}" if result.pays else "none is cheaper"]
        cells += [f"{result.saving:.2f}", f"{against_any(found, name, BOUND, result):.2f}", _clock(a, result)]
        cells += [_precise(a["finals"], rival), _locality(a, result)]
        for judge in JUDGES:
            between = difference(hybrid, rival, judge, a["n_final"])
            cells += [f"{fid(rival, judge):.2f}", _difference(between) if result.pays else ""]
        rows.append(cells)
    heads = [
        "images", "side", "kind", "n", "rival, MFLOP: calls", "hybrid", SAVING, ANY, "saving in ms",
        PRECISE, "of it by local steps", "rival's FID", "hybrid's minus it", "rival's unseen FID", "hybrid's minus it",
    ]  # fmt: skip
    note = (
        "Saving: the rival's FLOPs over the hybrid's, both within 5 % of the FID of the best global-only schedule, by "
        "both judges. Over any kind: the rival may be of the other kind of network. Differences are paired, ± one "
        "standard error; in brackets what so many samples show four times in five. In ms: the median of the turns, ± "
        "half their interquartile range. As precise: the saving of the cheapest whose precision is by neither judge "
        "more than two errors below the rival's. Blank: not asked. Of it by local steps: the cost of the same schedule "
        "with the whole network at each of them, over its own. Then what they add to both FIDs. It is of the cheapest "
        "as precise, else of the hybrid. n: samples of a finalist over both seeds."
    )
    return markdown(heads, rows, note)


def finalists_table(answers: Answers) -> str:
    """Every finalist of every front, cheapest first, against the best global-only schedule."""
    rows = []
    for name, a in fronts(answers).items():
        base = next(f for f in a["finals"] if f["reference"])
        fits, about = within(base, BOUND), [name.split("/")[0], KINDS[a["kind"]][0]]
        for final in sorted(a["finals"], key=lambda f: f["mflop"]):
            cells = [*about, final["family"], who(final), f"{final['mflop']:.0f}"]
            cells += [f"{100 * final['mflop'] / base['mflop']:.0f} %"]
            for judge in JUDGES:
                between = "" if final is base else _difference(difference(final, base, judge, a["n_final"]))
                cells += [f"{fid(final, judge):.2f}", between]
            rows.append([*cells, "best" if final is base else "yes" if fits(final) else "no"])
            about = ["", ""]
    heads = [
        "images", "kind", "family", "calls", "MFLOP", "of the best", "FID", "minus the best's", "unseen FID",
        "minus the best's", "within 5 %",
    ]  # fmt: skip
    note = (
        "All schedules that were judged again, on seeds that chose none of them, cheapest first. The best is the "
        "global-only one that both judges like most. Differences are paired, ± one standard error; in brackets what "
        "so many samples show four times in five."
    )
    return markdown(heads, rows, note)


def _n(answer: Mapping[str, Any]) -> str:
    final = answer["finals"][0]["judged"]
    return f"{answer['n_final'] * len(next(iter(final.values()))):,}"


def _difference(found: Comparison) -> str:
    return f"{found.difference:+.2f} ± {found.stderr:.2f} ({found.detectable:.2f})"


def _clock(answer: Mapping[str, Any], result: Verdict) -> str:
    if not result.pays:
        return "1"
    middle, spread = ratio(answer["clock"], "rival", "hybrid")
    return f"{middle:.2f} ± {spread:.2f}"


def _precise(finals: Sequence[Row], rival: Row) -> str:
    """The saving of the cheapest that is as precise, and its calls."""
    found = as_precise(finals, BOUND)
    if found is None:
        return ""
    return "1.00" if found is rival else f"{rival['mflop'] / found['mflop']:.2f}: {who(found)}"


def _locality(answer: Mapping[str, Any], result: Verdict) -> str:
    """What local steps save of the cheapest as precise, or else of the hybrid, and what they add to both FIDs."""
    precise = as_precise(answer["finals"], BOUND)
    found = result.hybrid if precise in (None, result.rival) else precise
    assert found is not None
    if "whole" not in found:
        return ""
    added = [_difference(difference(found, found["whole"], judge, answer["n_final"])) for judge in JUDGES]
    return f"{found['whole']['mflop'] / found['mflop']:.2f}: {', '.join(added)}"


def who(row: Row) -> str:
    """Calls in their order, the free first one left out."""
    return ", ".join(f"{len(list(group))} {name}" for name, group in groupby(row["assignment"][1:]))


def against_any(found: Mapping[str, Mapping[str, Any]], name: str, bound: float, result: Verdict) -> float:
    """The saving where the rival may be of either kind of network, within the same bound by the same judges."""
    base = next(f for f in found[name]["finals"] if f["reference"])
    fits = within(base, bound)
    same = [a for other, a in found.items() if other.split("/")[0] == name.split("/")[0]]
    rivals = [f for a in same if a["n_final"] == found[name]["n_final"] for f in a["finals"] if f["family"] in ALONE]
    return float(min(f["mflop"] for f in rivals if fits(f)) / result.hybrid["mflop"])


def penalty_table(answers: Answers) -> str:
    """Spearman's correlation of every penalty with FID by the judge whose features no penalty has seen: over all
    schedules of a front, and over those that share start times and solver."""
    rows = []
    for name, a in fronts(answers).items():
        base = best_alone(fair(a["rows"]))
        near = [r for r in a["rows"] if worst(r["fid"], base["fid"]) < 2]
        about = [name.split("/")[0], KINDS[a["kind"]][0]]
        for groups, which in (([a["rows"]], "all"), (on_one_grid(a["rows"]), "on one grid")):
            ranks = [mean_rank(groups, "penalty", p) for p in PENALTIES]
            seen = mean_rank(groups, "fid", "seen")
            count = " + ".join(str(len(group)) for group in groups)
            close = str(len(near)) if which == "all" else ""
            rows.append([*about, f"{which}: {count}", str(a["n"]), *map(_rank, (*ranks, seen)), close])
            about = ["", ""]
    heads = [
        "images",
        "kind",
        "schedules",
        "samples of each",
        *PENALTIES,
        "FID by the seen judge",
        "within twice the best",
    ]
    note = (
        "Spearman's correlation with FID by the unseen judge, one seed. All schedules of a front: one network, small "
        "then large, closed forms, hybrids. On one grid: the mean over those that share start times and solver, "
        f"weighted by their number, at least {LEAST} each."
    )
    return markdown(heads, rows, note)


def on_one_grid(rows: Sequence[Row]) -> list[list[Row]]:
    """Schedules by start times and solver, where LEAST or more share them."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((tuple(row["times"]), row["solver"]), []).append(row)
    return [group for group in groups.values() if len(group) >= LEAST]


def mean_rank(groups: Sequence[Sequence[Row]], field: str, name: str) -> float:
    """Mean over groups of Spearman's correlation of ``row[field][name]`` with FID by the unseen judge; NaN of none."""
    ranks = [spearmanr([r[field][name] for r in g], [r["fid"]["unseen"] for r in g]).statistic for g in groups]
    return float(np.average(ranks, weights=[len(g) for g in groups])) if groups else math.nan


def looks_table(answers: Answers) -> str:
    """What FID may not see: of the best global-only schedule, of the rival and of the hybrid, within the bound,
    and of the best without a network; "" where no front has it."""
    rows = []
    for name, a in fronts(answers).items():
        for what, row in named(a["finals"]).items():
            if "looks" in row:
                cells = [_share(row["looks"][f"{k} {j}"]) for k in ("precision", "recall") for j in JUDGES]
                about = [name.split("/")[0], KINDS[a["kind"]][0], str(min(a["n_final"], SAMPLES)), what, who(row)]
                about += [f"{row['mflop']:.0f}"]
                about += [f"{fid(row, judge):.1f}" for judge in JUDGES]
                rows.append([*about, *(_share(row["looks"].get(seen)) for seen in PIXELS), *cells])
    heads = [
        "images", "kind", "n", "schedule", "calls", "MFLOP", "FID", "unseen FID", "fine waves", "contrast", "precision",
        "unseen judge's", "recall", "unseen judge's",
    ]  # fmt: skip
    note = (
        "Samples of a seed that chose nothing, ± one standard error. Fine waves: power of those shorter than four "
        "pixels, over that of real images. Contrast: of pixels about their image's mean, over real ones. "
        "Precision: share of samples within the distance of the third neighbour of one of 2,000 training images, in a "
        "judge's features; recall: the reverse. FID as in the table of savings. n: samples."
    )
    return markdown(heads, rows, note) if rows else ""


def _share(found: Sequence[float] | None) -> str:
    return f"{found[0]:.2f} ± {found[1]:.2f}" if found else ""


def _rank(value: float) -> str:
    return f"{value:.2f}" if value == value else ""


def exact_savings(page: Path, column: str) -> dict[str, list[tuple[int, float]]]:
    """By calls of the reference: (side, saving) of scaling fields by ``frechet``, as the page's own table has them."""
    heads, rows = table_in(page, "resolution", "saving")
    found: dict[str, list[tuple[int, float]]] = {}
    at = {head: k for k, head in enumerate(heads)}
    levels: dict[str, list[str]] = {}
    for row in rows:
        if (row[0], row[at["error"]]) != ("scaling", "frechet"):
            continue
        side = row[at["side"]]
        levels.setdefault(side, []).append(row[at["rival: steps, solver"]].split(",")[0])
        found.setdefault(levels[side][-1], []).append((int(side), float(row[at[column]].split()[0])))
    return found


def measured_savings(answers: Answers, own: Path = OWN) -> dict[str, list[tuple[int, float, float]]]:
    """By kind's label: (side, saving, saving of the cheapest as precise) of photographs of clothes, sides ascending; of
    the answers, and of what else the page has.  The last is NaN where precision was not asked."""
    heads, rows = table_of(with_others(own, "gpu", "saving", saving_table(answers), NAMED_BY["saving"]))
    at = {head: k for k, head in enumerate(heads)}
    found: dict[str, list[tuple[int, float, float]]] = {}
    for row in sorted(rows, key=lambda row: int(row[at["side"]])):
        if row[at["images"]].startswith("clothing"):
            precise = row[at[PRECISE]].split(":")[0]
            numbers = int(row[at["side"]]), float(row[at[SAVING]]), float(precise or math.nan)
            found.setdefault(row[at["kind"]], []).append(numbers)
    return found


def figure(answers: Answers, page: Path = PAGE, own: Path = OWN) -> bytes:
    """Saving at 5 % against side, photographs over exact fields, a panel for each kind of network."""
    import matplotlib.pyplot as plt

    style()
    figure, axes = plt.subplots(1, len(KINDS), figsize=(7.2, 3.2), layout="constrained", sharey=True)
    found = measured_savings(answers, own)
    for ax, (kind, (label, colour)) in zip(axes, KINDS.items(), strict=True):
        for (calls, points), line in zip(exact_savings(page, EXACT[kind]).items(), ("--", ":"), strict=False):
            ax.plot(*zip(*points, strict=True), line, color="0.6", lw=1, label=f"exact fields, as {calls} global calls")
        sides = [row[0] for row in found.get(label, ())]
        for column, look, what in (
            (1, {"mfc": "white", "alpha": 0.7}, "by FID alone"),
            (2, {}, "as precise"),
        ):
            values = [row[column] for row in found.get(label, ())]
            ax.plot(sides, values, "o", color=colour, label=f"photographs, {what}", **dict[str, Any](look))
        ax.axhline(1, color="black", lw=0.7)
        ax.set(xscale="log", yscale="log", xlabel="side, pixels", title=label)
        ax.set_xticks((32, 64, 128, 256), ("32", "64", "128", "256"))
        ax.minorticks_off()
        ax.legend(fontsize=6)
    axes[0].set_ylabel("rival's FLOPs over the hybrid's")
    return png(figure)
