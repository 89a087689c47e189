"""Who is as good as the best global-only schedule, and what that costs: the rival, the hybrid, and their difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from phasewise.power import Comparison

ALONE = ("one network", "small then large")
"""Families of global-only schedules: one network in fewer placed steps, and a smaller one before the larger."""
CLOSED = "closed forms"
"""No network at all: what passes for good without one tells how much the judges ask."""
FAMILIES = (*ALONE, CLOSED, "hybrid")
BOUND = 1.05
"""Equal judged quality: within 5 %."""
NEAR, SLACK = 1.1, 0.02
"""At first, by few samples: up to so many times the base's FID a schedule may be within the bound after all; and a
difference of so much of it may be chance."""
CLEAR = 2
"""Standard errors by which samples may be less precise and count as not clearly so."""
Row = Mapping[str, Any]
FAR = 1.25
"""Of what is allowed to the distance of pixels."""


def worst(fids: Mapping[str, float], base: Mapping[str, float]) -> float:
    """The larger of both judges' FIDs over the base's."""
    return max(fids[judge] / base[judge] for judge in base)


def fair(rows: Sequence[Row]) -> list[Row]:
    """Without those whose pixels are far from real ones: networks that judge can be fooled by them.  All, where no
    global-only schedule is near."""
    near = [r for r in rows if r["far"] <= FAR]
    return near if any(r["family"] in ALONE for r in near) else list(rows)


def best_alone(rows: Sequence[Row]) -> Row:
    """The global-only schedule whose worse judge likes it most, each judge by the best it has seen of them."""
    own = [r for r in rows if r["family"] in ALONE]
    least = {judge: min(r["fid"][judge] for r in own) for judge in own[0]["fid"]}
    return min(own, key=lambda r: (worst(r["fid"], least), r["mflop"]))


def finalists(rows: Sequence[Row], base: Row, limit: float, most: int, near: float = NEAR) -> list[Row]:
    """Of each family what no cheaper one clearly beats by its worse judge, at most ``limit`` times the base's FID:
    the ``most`` cheapest of those that are ``near`` the bound or better, for the cheapest within it are asked for, and
    the best of them.  Where fewer than two are near, the best before them too: what the family comes to."""
    chosen = [base]
    for family in FAMILIES:
        front: list[tuple[float, Row]] = []
        least = limit
        valued = [(r["mflop"], worst(r["fid"], base["fid"]), r) for r in rows if r["family"] == family]
        for _, value, row in sorted(valued, key=lambda v: v[:2]):  # of equal costs the better first
            if value < (least + SLACK if value <= near else least):
                front.append((value, row))
            least = min(least, value)
        fit = [(value, row) for value, row in front if value <= near]
        before = [row for value, row in front if value > near]
        best = min((value for value, _ in fit), default=0.0)
        picked = [row for k, (value, row) in enumerate(fit) if k < most or value == best]
        chosen += [row for row in [*before[max(len(before) + len(fit) - 2, 0) :], *picked] if row is not base]
    return chosen


def promising(rows: Sequence[Row], base: Row, limit: float, most: int, reach: float) -> list[Row]:
    """Of each family that pays for networks: what :func:`finalists` are by the bound, and by ``reach`` instead."""
    chosen = [*finalists(rows, base, limit, most), *finalists(rows, base, limit, most, near=reach)]
    return [r for r in {id(r): r for r in chosen}.values() if r["family"] != CLOSED]


def fid(final: Row, judge: str) -> float:
    """Mean over the seeds."""
    return fmean(value for value, _ in final["judged"][judge])


def judges(final: Row) -> list[str]:
    return list(final["judged"])


def difference(first: Row, second: Row, judge: str, n: int) -> Comparison:
    """FID of ``first`` minus that of ``second``, both judged on ``n`` samples of each seed from the same noise: its
    error is the spread of the differences of bootstrap draws that took the same rows of both."""
    parts = list(zip(first["judged"][judge], second["judged"][judge], strict=True))
    spread = [variance(a - b for a, b in zip(d, e, strict=True)) for (_, d), (_, e) in parts]
    error = math.sqrt(sum(spread)) / len(parts)
    return Comparison(fid(first, judge) - fid(second, judge), error, n * len(parts))


@dataclass(frozen=True)
class Verdict:
    """The cheapest global-only schedule and the cheapest of all, both within a bound."""

    rival: Row
    hybrid: Row

    @property
    def saving(self) -> float:
        """Rival's FLOPs over the hybrid's; 1 where no hybrid is cheaper."""
        return float(self.rival["mflop"] / self.hybrid["mflop"])

    @property
    def pays(self) -> bool:
        return self.hybrid is not self.rival


def within(base: Row, bound: float) -> Callable[[Row], bool]:
    """Whether every judge's FID is at most ``bound`` times the base's."""
    limits = {judge: bound * fid(base, judge) for judge in judges(base)}
    return lambda final: all(fid(final, judge) <= limit for judge, limit in limits.items())


def verdict(finals: Sequence[Row], bound: float) -> Verdict:
    """By finalists, one of which is the ``reference``; it is within any bound of at least 1 itself."""
    base = next(f for f in finals if f["reference"])
    fits = within(base, bound)
    good = sorted((f for f in finals if fits(f)), key=lambda f: f["mflop"])
    rival = next(f for f in good if f["family"] in ALONE)
    return Verdict(rival, next((f for f in good if f["mflop"] < rival["mflop"]), rival))


def as_precise(finals: Sequence[Row], bound: float) -> Row | None:
    """The cheapest schedule within ``bound`` that is not clearly less precise than the rival, by either judge: FID lets
    filters pass whose samples look like nothing.  The rival itself where nothing cheaper is; None where precision was
    not measured.

    Errors are taken as independent.  Samples from the same noise are alike, so the true ones are smaller, and the rule
    is lenient.  It was written after the fronts of 64 pixels had been seen, and before those of 128 were measured.
    """
    base = next(f for f in finals if f["reference"])
    rival, fits = verdict(finals, bound).rival, within(base, bound)
    if any("looks" not in f for f in finals):
        return None

    def fares(final: Row, judge: str) -> bool:
        (own, error), (other, others) = (f["looks"][f"precision {judge}"] for f in (final, rival))
        return bool(own >= other - CLEAR * math.hypot(error, others))

    good = [f for f in finals if fits(f) and f["mflop"] < rival["mflop"] and all(fares(f, j) for j in judges(f))]
    return min(good, key=lambda f: f["mflop"], default=rival)


def named(finals: Sequence[Row]) -> dict[str, Row]:
    """What is shown of a front, by name: the best global-only schedule, the rival, the hybrid where it pays, and as "no
    network" the best of closed forms alone, where one was judged again."""
    found, base = verdict(finals, BOUND), next(f for f in finals if f["reference"])
    shown = {"best": base, "rival": found.rival}
    if found.pays:
        shown["hybrid"] = found.hybrid
    closed = [f for f in finals if f["family"] == CLOSED]
    if closed:
        of_base = {judge: fid(base, judge) for judge in judges(base)}
        shown["no network"] = min(closed, key=lambda f: worst({judge: fid(f, judge) for judge in of_base}, of_base))
    return shown
