"""Tables, figure and last words of the front (front.py), from what it has left on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from scipy.stats import spearmanr

import phasewise as pw
from phasewise.files import read_json
from phasewise.report.style import RC
from phasewise.scheduling import prices_at

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

Rows = dict[str, dict[str, Any]]
KINDS = {
    "one global network, ODE": "#999999",
    "one global network, SDE": "#000000",
    "small then large (T-Stitch)": "#D55E00",
    "hybrid": "#0072B2",
    "window, spread or local alone": "#CC79A7",
}
ALONE = ("one global network, ODE", "one global network, SDE", "small then large (T-Stitch)")
"""Kinds that use nothing but networks that see the whole image."""


LEAST = 8
"""So many schedules of one grid are needed to rank them."""


def kind_of(name: str) -> str:
    if any(word in name for word in ("window", "spread", "alone")):
        return "window, spread or local alone"
    if "hybrid" in name:
        return "hybrid"
    if "then" in name:
        return "small then large (T-Stitch)"
    return f"one global network, {'SDE' if 'sde' in name or 'ancestral' in name else 'ODE'}"


def read_rows(folder: Path) -> Rows:
    """Every schedule judged, by name, with the seeds' figures averaged; its error is that of the mean over seeds."""
    ms, beside = (read_json(folder / f) if (folder / f).exists() else {} for f in ("ms.json", "beside.json"))
    seeds: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("*__*.json")):
        seeds.setdefault(file.stem.split("--seed")[0].replace("__", "/"), []).append(read_json(file))
    rows: Rows = {}
    for name, found in seeds.items():
        rows[name] = {**found[0], "seeds": len(found), "ms": ms.get(name), **beside.get(name, {})}
        for key in ("fid", "kid", "precision", "recall", "minus"):
            values = [r[key] for r in found if r.get(key) is not None]
            rows[name][key] = mean_of(values) if values else None
    return rows


def mean_of(values: list[list[float]]) -> list[float]:
    """Mean of (value, standard error) pairs."""
    pairs = np.array(values)
    return [float(pairs[:, 0].mean()), float(np.sqrt((pairs[:, 1] ** 2).sum()) / len(pairs))]


def undominated(rows: Rows, cost: str = "mflop") -> list[str]:
    """Names from the cheapest on, each of lower FID than all cheaper ones."""
    kept: list[str] = []
    for name in sorted(rows, key=lambda k: (rows[k][cost], rows[k]["fid"][0])):
        if not kept or rows[name]["fid"][0] < rows[kept[-1]]["fid"][0]:
            kept.append(name)
    return kept


def finalists(rows: Rows, factor: float = 1.7) -> list[str]:
    """The undominated schedules of every kind whose FID is at most ``factor`` times the best."""
    best = min(row["fid"][0] for row in rows.values())
    found = []
    for kind in KINDS:
        names = undominated({k: r for k, r in rows.items() if kind_of(k) == kind})
        found += [k for k in names if rows[k]["fid"][0] <= factor * best]
    return found


def table(rows: Rows) -> str:
    """By kind, cost rising; of a kind with many, the undominated ones."""
    lines = [
        "| schedule | MFLOP | ms | FID | KID, 1e-3 | precision | recall | confidence | who, when |",
        "| --- " * 9 + "|",
    ]
    for kind in KINDS:
        of_kind = {k: r for k, r in rows.items() if kind_of(k) == kind}
        lines += [f"| *{kind}* ({len(of_kind)} judged) |" + " |" * 8] if of_kind else []
        for name in undominated(of_kind):
            row = of_kind[name]
            plan = pw.HybridSchedule.from_dict(row["schedule"])
            who = ", ".join(f"{by} {a:.2f}-{b:.2f}" for a, b, by in plan.spans()) + f" ({len(plan.times)} steps)"
            cells = [
                f"{row['mflop']:.0f}",
                "" if row["ms"] is None else f"{row['ms']:.2f}",
                f"{row['fid'][0]:.2f} ± {row['fid'][1]:.2f}",
                f"{1e3 * row['kid'][0]:.2f}",
                f"{row['precision'][0]:.3f}",
                f"{row['recall'][0]:.3f}",
                f"{row['classifier']['confidence']:.3f}" if row.get("classifier") else "",
                who,
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    for weighting in ("w2", "flow"):
        known = [r for r in rows.values() if (r.get("price") or {}).get(weighting) is not None]
        if len(known) > 3:
            rank = spearmanr([r["price"][weighting] for r in known], [r["fid"][0] for r in known])
            lines += ["", f"Spearman's correlation of the {weighting} price with FID, {len(known)} placed schedules: "
                          f"{rank.statistic:.2f}."]  # fmt: skip
    some = next(iter(rows.values()))
    seeds = f"{some['seeds']} seed{'s' if some['seeds'] > 1 else ''}"
    lines += ["", f"n = {some['n']} samples, {seeds}; per kind only what no cheaper one of it beats."]
    return "\n".join(lines)


def ranked(rows: Rows, prices: pw.results.PriceList) -> list[str]:
    """How well each price ranks FID among schedules of one grid: Spearman's correlation, averaged over grids."""
    grids: dict[tuple[float, ...], list[dict[str, Any]]] = {}
    for row in rows.values():
        if row["schedule"]["solver"] == "sde_dpmpp_2m":
            grids.setdefault(tuple(row["schedule"]["times"]), []).append(row)
    said = []
    for weighting in ("frechet", "w2", "flow", "kl"):
        found, sizes = [], []
        for times, some in grids.items():
            if len(some) >= LEAST:
                on_grid = prices_at(prices, times)
                price = [
                    pw.scheduling.schedule_from_assignment(
                        on_grid, r["schedule"]["assignment"], penalty=weighting
                    ).penalty
                    for r in some
                ]
                found.append(spearmanr(price, [r["fid"][0] for r in some]).statistic)
                sizes.append(len(some))
        if found:
            each = ", ".join(f"{r:.2f} ({n})" for r, n in zip(found, sizes, strict=True))
            said.append(f"Spearman's correlation of the {weighting} price with FID on each grid (schedules): {each}.")
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


def value(pair: list[float]) -> str:
    return f"{pair[0]:.3f} ± {pair[1]:.3f}"


def final_table(rows: Rows, prices: pw.results.PriceList, real: Mapping[str, list[float]]) -> str:
    """Every finalist by cost, with its difference from the one all are compared with, sample by sample.
    ``real``: FID of real test images by their number."""
    heads = [
        "schedule", "MFLOP", "ms", "seeds", "FID", "FID minus the first's, paired", "KID, 1e-3", "precision", "recall",
        "confidence", "class entropy", "paired error", "same class", "price, nats",
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name in sorted(rows, key=lambda k: rows[k]["mflop"]):
        row = rows[name]
        plan, view = row["schedule"], row.get("classifier") or {}
        on_grid = prices_at(prices, tuple(plan["times"]))
        nats = pw.scheduling.schedule_from_assignment(
            on_grid, plan["assignment"], penalty="kl", solver=plan["solver"]
        ).penalty
        cells = [
            f"{row['mflop']:.0f}",
            "" if row["ms"] is None else f"{row['ms']:.2f}",
            str(row["seeds"]),
            value(row["fid"]),
            "" if row["minus"] is None else f"{row['minus'][0]:+.3f} ± {row['minus'][1]:.3f}",
            f"{1e3 * row['kid'][0]:.2f}",
            f"{row['precision'][0]:.3f}",
            f"{row['recall'][0]:.3f}",
            f"{view['confidence']:.3f}" if view else "",
            f"{view['class_entropy']:.3f}" if view else "",
            f"{row['paired_error'][0]:.3f} ± {row['paired_error'][1]:.3f}" if "paired_error" in row else "",
            f"{row['same_class'][0]:.3f}" if "same_class" in row else "",
            f"{nats:.2f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    some = next(iter(rows.values()))
    first = next((r["against"] for r in rows.values() if r.get("against")), None)
    lines += [
        "",
        f"n = {some['n']} samples a seed; the first is {first}. Paired error (root mean square of a "
        "pixel) and share of the same class (by the classifier): against its samples from the same noise, n = 2,000. "
        "Price: `kl`. " + "; ".join(f"{n} real test images: FID {value(score)}" for n, score in real.items()) + ".",
        "",
        " ".join(headline(rows)),
    ]
    return "\n".join(lines)


def draw(rows: Rows, finals: Mapping[str, Any], file: Path) -> None:
    """FID against FLOPs, and against milliseconds where they are known: all judged, and each kind's lower edge."""
    plt.rcParams.update(RC)
    sources = [("mflop", "MFLOP an image", rows)]
    timed = {k: r for k, r in finals.items() if r["ms"] is not None}
    if timed:
        sources.append(("ms", "ms an image (one thread, finalists)", timed))
    figure, axes = plt.subplots(1, len(sources), figsize=(5.2 * len(sources), 4.2), squeeze=False, layout="constrained")
    for axis, (cost, unit, shown) in zip(axes[0], sources, strict=True):
        for kind, colour in KINDS.items():
            found = {k: r for k, r in shown.items() if kind_of(k) == kind}
            if not found:
                continue
            edge = undominated(found, cost)
            axis.plot([r[cost] for r in found.values()], [r["fid"][0] for r in found.values()], ".", ms=3, color=colour,
                      alpha=0.35)  # fmt: skip
            axis.errorbar([found[k][cost] for k in edge], [found[k]["fid"][0] for k in edge],
                          [found[k]["fid"][1] for k in edge], color=colour, marker="o", ms=4, lw=1.2, capsize=2,
                          label=kind)  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel=unit)
        for which in (axis.xaxis, axis.yaxis):
            which.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if cost == "mflop" else (1, 2, 3, 4, 5, 6, 7)))
            which.set_major_formatter(ScalarFormatter())
            which.set_minor_formatter(NullFormatter())
    axes[0, 0].set_ylabel("FID (classifier features; bars: standard error)")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(file, dpi=130)
    plt.close(figure)
