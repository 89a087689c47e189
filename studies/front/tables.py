"""Tables and last words of the front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import phasewise as pw
from phasewise.results import JudgesVerdict, PriceList
from phasewise.scheduling import prices_at, schedule_from_assignment
from studies.front.rows import ALONE, KINDS, Rows, kind_of, undominated
from studies.pages import markdown

LEAST = 8
"""So many schedules of one grid are needed to rank them."""
OTHERS = ("unseen", "sliced")
"""Judges beside FID, as tables show them."""
FIRST = (
    "schedule",
    "MFLOP",
    "ms",
    "FID",
    "unseen FID",
    "sliced W2, 1e-3",
    "KID, 1e-3",
    "precision",
    "recall",
    "confidence",
    "who, when",
)
FINAL = (
    "schedule", "MFLOP", "ms", "seeds", "FID", "FID minus the first's, paired", "unseen FID", "minus, paired",
    "sliced W2, 1e-3", "minus, paired", "all judges", "KID, 1e-3", "precision", "recall",
    "confidence", "class entropy", "paired error", "same class", "price, nats",
)  # fmt: skip


def first_table(rows: Rows, prices: PriceList) -> str:
    """By kind, cost rising; of a kind with many, the undominated ones."""
    shown = []
    for kind in KINDS:
        of_kind = {k: r for k, r in rows.items() if kind_of(k) == kind}
        shown += [[f"*{kind}* ({len(of_kind)} judged)", *[""] * (len(FIRST) - 1)]] if of_kind else []
        shown += [[name, *first_cells(of_kind[name])] for name in undominated(of_kind)]
    some = next(iter(rows.values()))
    seeds = f"{some['seeds']} seed{'s' if some['seeds'] > 1 else ''}"
    note = f"n = {some['asked']['n']} samples, {seeds}; per kind only what no cheaper one of it beats."
    return markdown(FIRST, shown, *placed(rows), note, " ".join(headline(rows)), *ranked(rows, prices))


def first_cells(row: Mapping[str, Any]) -> list[str]:
    plan = pw.HybridSchedule.from_dict(row["schedule"])
    who = ", ".join(f"{by} {a:.2f}-{b:.2f}" for a, b, by in plan.spans()) + f" ({len(plan.times)} steps)"
    return [
        f"{row['mflop']:.0f}",
        "" if row["ms"] is None else f"{row['ms']:.2f}",
        f"{row['fid'][0]:.2f} ± {row['fid'][1]:.2f}",
        *(other(row["judges"].get(name), name) for name in OTHERS),
        f"{1e3 * row['kid'][0]:.2f}",
        f"{row['precision'][0]:.3f}",
        f"{row['recall'][0]:.3f}",
        f"{row['classifier']['confidence']:.3f}" if row.get("classifier") else "",
        who,
    ]


def placed(rows: Rows) -> list[str]:
    """How well each penalty that places steps ranks FID among placed schedules."""
    said = []
    for penalty in ("w2", "flow"):
        known = [r for r in rows.values() if (r.get("penalty") or {}).get(penalty) is not None]
        if len(known) > 3:
            rank = spearmanr([r["penalty"][penalty] for r in known], [r["fid"][0] for r in known]).statistic
            about = f"Spearman's correlation of the {penalty} price with FID, {len(known)} placed schedules"
            said.append(f"{about}: {rank:.2f}.")
    return said


def ranked(rows: Rows, prices: PriceList) -> list[str]:
    """How well each penalty ranks FID among schedules of one grid: Spearman's correlation, grid by grid."""
    grids: dict[tuple[float, ...], list[dict[str, Any]]] = {}
    for row in rows.values():
        if row["schedule"]["solver"] == "sde_dpmpp_2m":
            grids.setdefault(tuple(row["schedule"]["times"]), []).append(row)
    said = []
    for penalty in ("frechet", "w2", "flow", "kl"):
        each = []
        for times, some in grids.items():
            if len(some) >= LEAST:
                on_grid = prices_at(prices, times)
                plans = [schedule_from_assignment(on_grid, r["schedule"]["assignment"], penalty=penalty) for r in some]
                rank = spearmanr([p.penalty for p in plans], [r["fid"][0] for r in some]).statistic
                each.append(f"{rank:.2f} ({len(some)})")
        if each:
            about = f"Spearman's correlation of the {penalty} price with FID on each grid (schedules)"
            said.append(f"{about}: {', '.join(each)}.")
    return said


def headline(rows: Rows) -> list[str]:
    """The cheapest of each kind whose FID is within 1.05 times the best of the global-only ones."""
    alone = {k: r for k, r in rows.items() if kind_of(k) in ALONE}
    if not alone:
        return []
    best = min(alone, key=lambda k: alone[k]["fid"][0])
    bound = 1.05 * alone[best]["fid"][0]
    said = [f"Best global-only: {best}, FID {value(alone[best]['fid'])} at {alone[best]['mflop']:.0f} MFLOP."]
    groups = {"one global network": ALONE[:2], "any global-only choice": ALONE, "hybrids": ("hybrid",)}
    cheapest = {}
    for group, kinds in groups.items():
        within = {k: r for k, r in rows.items() if kind_of(k) in kinds and r["fid"][0] <= bound}
        if within:
            name = cheapest[group] = min(within, key=lambda k: within[k]["mflop"])
            row = within[name]
            said.append(
                f"Cheapest of {group} within 1.05 of it: {name}, FID {value(row['fid'])}, {row['mflop']:.0f} MFLOP"
                + ("." if row["ms"] is None else f", {row['ms']:.2f} ms.")
            )
    for group in ("one global network", "any global-only choice"):
        if "hybrids" in cheapest and group in cheapest:
            a, b = rows[cheapest["hybrids"]], rows[cheapest[group]]
            ms = "" if None in (a["ms"], b["ms"]) else f", {a['ms'] / b['ms']:.2f} of the milliseconds"
            said.append(f"Hybrid against {group}: {a['mflop'] / b['mflop']:.2f} of the FLOPs{ms}.")
    return said


def other(pair: list[float] | None, name: str, signed: bool = False) -> str:
    """A judge's number with its error, the sliced distance in thousandths of a pixel's unit; empty where it is none."""
    if pair is None:
        return ""
    number, error = (1e3 * v if name == "sliced" else v for v in pair)
    return f"{number:+.3f} ± {error:.3f}" if signed else f"{number:.3f} ± {error:.3f}"


def all_judges(row: Mapping[str, Any]) -> str:
    """Equal only if all agree, and then the differences that each could have told; empty without a rival."""
    minus = row["judges_minus"]
    if not minus:
        return ""
    n, (differences, errors) = row["asked"]["n"] * row["seeds"], zip(*minus.values(), strict=True)
    beside = [row["judges"][name][0] - d for name, d in zip(minus, differences, strict=True)]
    found = JudgesVerdict("", "", tuple(minus), np.array(differences), np.array(errors), np.array(beside), n)
    if found.outcome != "level":
        return found.outcome
    least = (other([c.detectable, 0.0], name).split(" ")[0] for name, c in found.comparisons.items())
    return f"level (detectable {', '.join(least)})"


def value(pair: list[float]) -> str:
    return f"{pair[0]:.3f} ± {pair[1]:.3f}"


def final_table(rows: Rows, prices: PriceList, real: Mapping[str, list[float]]) -> str:
    """Every finalist by cost, with its difference from the one all are compared with, sample by sample.
    ``real``: FID of real test images by their number."""
    names = sorted(rows, key=lambda k: rows[k]["mflop"])
    some = next(iter(rows.values()))
    note = (
        f"n = {some['asked']['n']} samples a seed; the first is {some['against']}. Paired error (root mean square of a "
        "pixel) and share of the same class (by the classifier): against its samples from the same noise, n = 2,000. "
        "Price: `kl`. " + "; ".join(f"{n} real test images: FID {value(score)}" for n, score in real.items()) + "."
    )
    return markdown(FINAL, [[n, *final_cells(rows[n], prices)] for n in names], note, " ".join(headline(rows)))


def final_cells(row: Mapping[str, Any], prices: PriceList) -> list[str]:
    plan, view = row["schedule"], row.get("classifier") or {}
    on_grid = prices_at(prices, tuple(plan["times"]))
    nats = schedule_from_assignment(on_grid, plan["assignment"], penalty="kl", solver=plan["solver"]).penalty
    return [
        f"{row['mflop']:.0f}",
        "" if row["ms"] is None else f"{row['ms']:.2f}",
        str(row["seeds"]),
        value(row["fid"]),
        "" if row["minus"] is None else f"{row['minus'][0]:+.3f} ± {row['minus'][1]:.3f}",
        *(other(row[k].get(name), name, signed=k != "judges") for name in OTHERS for k in ("judges", "judges_minus")),
        all_judges(row),
        f"{1e3 * row['kid'][0]:.2f}",
        f"{row['precision'][0]:.3f}",
        f"{row['recall'][0]:.3f}",
        f"{view['confidence']:.3f}" if view else "",
        f"{view['class_entropy']:.3f}" if view else "",
        value(row["paired_error"]) if "paired_error" in row else "",
        f"{row['same_class'][0]:.3f}" if "same_class" in row else "",
        f"{nats:.2f}",
    ]
