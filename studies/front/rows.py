"""Schedules judged, by name, and who among them is worth another look."""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.study import Answers

Rows = dict[str, dict[str, Any]]
KINDS = {
    "one global network, ODE": "#999999",
    "one global network, SDE": "#000000",
    "small then large (T-Stitch)": "#D55E00",
    "hybrid": "#0072B2",
    "window, spread or local alone": "#CC79A7",
}
"""Kinds of schedules and their colours."""
ALONE = ("one global network, ODE", "one global network, SDE", "small then large (T-Stitch)")
"""Kinds that use nothing but networks that see the whole image."""


def kind_of(name: str) -> str:
    if any(word in name for word in ("window", "spread", "alone")):
        return "window, spread or local alone"
    if "hybrid" in name:
        return "hybrid"
    if "then" in name:
        return "small then large (T-Stitch)"
    return f"one global network, {'SDE' if 'sde' in name or 'ancestral' in name else 'ODE'}"


def rows_of(answers: Answers, place: str, part: str) -> Rows:
    """Every schedule judged in one part ("first" or "final") of a subject's answers, by name, with the seeds' figures
    averaged; its error is that of the mean over seeds."""
    head, seeds = f"{place}/{part}/", dict[str, list[dict[str, Any]]]()
    for name, content in answers.items():
        if name.startswith(head):
            seeds.setdefault(name.removeprefix(head).split("--seed")[0], []).append(content)
    ms = answers.get(f"{place}/ms", {}).get("ms", {}) if part == "final" else {}
    rows: Rows = {}
    for name, found in seeds.items():
        beside = answers.get(f"{place}/beside/{name}", {}) if part == "final" else {}
        more: dict[str, Any] = {k: beside[k] for k in ("paired_error", "same_class") if k in beside}
        rows[name] = {**found[0], "seeds": len(found), "ms": ms.get(name), **more}
        for key in ("judges", "judges_minus"):  # rows of before there were several judges have none
            by = [r[key] for r in found if r.get(key)]
            rows[name][key] = (
                {judge: mean_of([r[judge] for r in by]) for judge in by[0]} if len(by) == len(found) else {}
            )
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
