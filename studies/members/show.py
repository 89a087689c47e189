"""What is made of the answers: ranks, fronts, finalists and their tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import phasewise as pw
from phasewise.results import PriceList
from phasewise.scheduling.searched import excess
from studies.front.rows import mean_of
from studies.members.options import JUDGES, PENALTIES, Assignment
from studies.pages import markdown
from studies.study import Answers

Rows = dict[str, dict[str, Any]]
PARTS = ("whole", "placed", "own", "lead", "optimised", "without", "random", "climbed")
ALWAYS = ("whole/", "placed/", "own/")
"""Judged in the end whatever they score at first."""


def lost(row: dict[str, Any], rows: Rows) -> float:
    """The mean of the first two judges, each as a share of its value for the global network at every step; times what
    the distance of pixels is over that network's, where it is more: both judges are networks, and can be fooled at once
    (docs/results/cifar10-unets.md)."""
    whole, own = ({j: v[0] for j, v in r["judges"].items()} for r in (rows["whole/global"], row))
    guard = excess(own["sliced"], whole["sliced"]) if "sliced" in whole else 1.0
    return guard * float(np.mean([own[j] / whole[j] for j in JUDGES[:2] if j in whole]))


def neighbours(assignment: Assignment, names: tuple[str, ...]) -> Iterator[Assignment]:
    """Those that differ in one step."""
    for k, own in enumerate(assignment):
        yield from ((*assignment[:k], name, *assignment[k + 1 :]) for name in names if name != own)


def rows_of(answers: Answers, place: str, parts: tuple[str, ...] = PARTS) -> Rows:
    heads = tuple(f"{place}/{part}/" for part in parts)
    return {name.removeprefix(f"{place}/"): row for name, row in answers.items() if name.startswith(heads)}


def finalists(answers: Answers, place: str, count: int) -> dict[str, pw.HybridSchedule]:
    """The global network at every step and placed, what has start times of its own, and of the rest those that no
    cheaper one beats by what :func:`lost` says; the best of them."""
    rows = rows_of(answers, place)
    kept: list[str] = []
    mixed = [name for name in rows if not name.startswith(ALWAYS)]
    for name in sorted(mixed, key=lambda k: (rows[k]["mflop"], lost(rows[k], rows))):
        if not kept or lost(rows[name], rows) < lost(rows[kept[-1]], rows):
            kept.append(name)
    best = sorted(kept, key=lambda k: lost(rows[k], rows))[:count]
    rivals = [n for n in rows if n.startswith(ALWAYS)]
    return {n.replace("/", " "): pw.HybridSchedule.from_dict(rows[n]["schedule"]) for n in [*rivals, *best]}


def ranks(rows: Rows) -> str:
    """Spearman's correlation of every penalty with every judge, over the mixtures of all kinds."""
    priced = [r for r in rows.values() if r["penalties"]]
    mixed = [r for name, r in rows.items() if name.startswith(("random/", "optimised/", "lead/")) and r["penalties"]]
    if len(mixed) < 3:
        return f"{len(priced)} schedules were priced and judged; too few for a correlation."
    rng, shown = np.random.default_rng(0), []
    for penalty in PENALTIES:
        lost = np.array([r["penalties"][penalty][0] for r in mixed])
        cells = [penalty]
        for judge in JUDGES:
            seen = np.array([r["judges"].get(judge, [np.nan])[0] for r in mixed])
            drawn_again = [
                spearmanr(lost[k], seen[k]).statistic for k in rng.integers(0, len(mixed), (300, len(mixed)))
            ]
            low, high = np.quantile(drawn_again, (0.025, 0.975))
            cells.append(f"{spearmanr(lost, seen).statistic:.2f} ({low:.2f} to {high:.2f})")
        shown.append(cells)
    n = mixed[0]["asked"]["n"]
    heads = ["penalty", *(f"with the {judge} judge" for judge in JUDGES)]
    return markdown(heads, shown, f"{len(mixed)} schedules, n = {n} samples each; 95 % interval by bootstrap.")


def who(assignment: Assignment) -> str:
    """Names with their repeats counted."""
    runs = [(name, len(list(group))) for name, group in itertools.groupby(assignment)]
    return " ".join(name if count == 1 else f"{count} × {name}" for name, count in runs)


def shown_value(found: list[float] | None) -> str:
    return "" if found is None else f"{found[0]:.3f} ± {found[1]:.3f}"


def first_table(rows: Rows) -> str:
    """What no cheaper one beats by the first or by the unseen judge, the cheapest first."""
    kept, best = [], dict[str, float]()
    for name in sorted(rows, key=lambda k: rows[k]["mflop"]):
        judges = {j: v[0] for j, v in rows[name]["judges"].items() if j in JUDGES[:2]}
        better = [j for j, v in judges.items() if v < best.get(j, np.inf)]
        best |= {j: judges[j] for j in better}
        if better or name.startswith(ALWAYS):
            kept.append(name)
    shown = [
        [f"{rows[k]['mflop']:.0f}", *(shown_value(rows[k]["judges"].get(j)) for j in JUDGES[:2]),
         who(tuple(rows[k]["schedule"]["assignment"])), k.split("/")[0]]
        for k in kept
    ]  # fmt: skip
    n = rows[kept[0]]["asked"]["n"]
    note = f"{len(rows)} schedules judged once, n = {n}, one noise; listed is what no cheaper one beats by a judge."
    return markdown(["MFLOP", "FID", "unseen FID", "who", "found as"], shown, note)


def without(answers: Answers, place: str) -> str:
    """The optimum with each kind of member left out."""
    left, every = rows_of(answers, place, ("without",)), rows_of(answers, place)
    by_plan = {tuple(row["schedule"]["assignment"]): row for row in every.values() if row["penalties"]}
    prices = PriceList.from_dict(answers[f"{place}/prices"]["prices"])
    solver, shown = next(iter(every.values()))["schedule"]["solver"], []
    budgets = sorted({name.split(" at ")[1] for name in left}, key=float)
    rows: dict[str, list[str]] = {}
    for budget in budgets:
        plan = pw.optimise_schedule(prices, float(budget), penalty="frechet", solver=solver, ties=0)
        found = by_plan.get(plan.assignment)
        seen = "" if found is None else f"{found['judges']['first'][0]:.2f}"
        rows.setdefault("nothing", []).append(f"{plan.penalty:.3f}; {seen}")
    for name, row in left.items():
        kind, _ = name.removeprefix("without/").split(" at ")
        rows.setdefault(kind, []).append(f"{row['penalties']['frechet'][0]:.3f}; {row['judges']['first'][0]:.2f}")
    shown = [[kind, *cells] for kind, cells in rows.items()]
    note = "The optimum by frechet: its penalty; FID by the first judge."
    return markdown(["left out", *(f"at {b} of the cost" for b in budgets)], shown, note)


def final_table(answers: Answers, place: str) -> str:
    """Finalists, seeds averaged: judges, paired difference to the rival, which has none, milliseconds."""
    seeds: dict[str, list[dict[str, Any]]] = {}
    for name, row in answers.items():
        if name.startswith(f"{place}/final/"):
            seeds.setdefault(name.removeprefix(f"{place}/final/").rsplit("--", 1)[0], []).append(row)
    batches = sorted(int(n.split("/")[2]) for n in answers if n.startswith(f"{place}/ms/"))
    ms = {b: answers[f"{place}/ms/{b}"]["ms"] for b in batches}
    shown = []
    for name, rows in sorted(seeds.items(), key=lambda item: item[1][0]["mflop"]):
        cells = [f"{rows[0]['mflop']:.0f}", *(f"{ms[b][name][0]:.2f}" if name in ms[b] else "" for b in batches)]
        for judge in JUDGES:
            if judge in rows[0]["judges"]:
                value, minus = (mean_of([r[key][judge] for r in rows]) for key in ("judges", "minus"))
                digits = 3 if judge != "sliced" else 5
                cells += [
                    f"{value[0]:.{digits}f}",
                    "" if not any(minus) else f"{minus[0]:+.{digits}f} ± {minus[1]:.{digits}f}",
                ]
        own = ", own times" if name.startswith("own ") else ""
        shown.append([who(tuple(rows[0]["asked"]["assignment"])) + own, *cells])
    heads = ["who", "MFLOP", *(f"ms, batch {b}" for b in batches)]
    for judge in JUDGES:
        heads += [{"first": "FID", "unseen": "unseen FID", "sliced": "sliced Wasserstein"}[judge], "minus rival's"]
    first = next(iter(seeds.values()))
    n, count = first[0]["asked"]["n"], len(first)
    return markdown(
        heads, shown, f"n = {n} samples a seed, {count} seeds, none of which chose; differences are paired."
    )
