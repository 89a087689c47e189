"""Schedules against each other: which differences were told, which could have been, and who is the fair rival."""

from __future__ import annotations

import math

from phasewise.power import Comparison
from phasewise.report.style import is_number, num, percent, pm
from phasewise.results import Evaluation
from phasewise.runs.run import Run

MARGIN = 0.05
"""The difference worth telling, as a share of the rival's distance."""
EQUAL_COST = 0.005
"""Costs that differ by no more than this share count as equal."""


def compared(a: Evaluation, b: Evaluation) -> Comparison | None:
    """Distance of ``a`` minus that of ``b``, paired where it was measured; None where a number is missing."""
    if not all(is_number(v) for v in (a.fid, b.fid, a.fid_stderr, b.fid_stderr)):
        return None
    n = min(a.n, b.n)
    for one, other, sign in ((a, b, 1), (b, a, -1)):
        found = one.fid_minus.get(other.name)
        if found and all(is_number(v) for v in found):
            return Comparison(sign * found[0], found[1], n)
    return Comparison(a.fid - b.fid, math.hypot(a.fid_stderr, b.fid_stderr), n)


def outcome(a: Evaluation, b: Evaluation | None) -> str | None:
    """ "lower", "level" or "higher": the distance of ``a`` against that of ``b``; None where a number is missing."""
    found = compared(a, b) if b else None
    return found.outcome if found else None


def fewest(a: Evaluation, b: Evaluation) -> str:
    """In brackets: the difference that so many samples could have shown; empty where the two are told apart."""
    found = compared(a, b)
    if found is None or found.outcome != "level":
        return ""
    return f" ({num(found.n)} samples tell {num(found.detectable, 2)} or more{_share(found.detectable, b)})"


def difference(a: Evaluation, b: Evaluation) -> str:
    """ "; difference +0.1 ± 0.2, ..." with what could have been told and what it takes; empty where it is unknown."""
    found = compared(a, b)
    if found is None:
        return ""
    value = pm(found.difference, found.stderr)
    text = f"; difference {'' if value.startswith('−') else '+'}{value}"
    return f"{text}, {_reach(found, b)}" if found.outcome == "level" else text


def _reach(found: Comparison, rival: Evaluation) -> str:
    """What so many samples could have shown (8 times in 10), and how many it takes to tell MARGIN."""
    text = f"not distinguishable: {num(found.n)} samples tell {num(found.detectable, 2)} or more"
    text += f"{_share(found.detectable, rival)} in 8 of 10 cases"
    if found.detectable <= MARGIN * rival.fid or not found.stderr:
        return text
    count = found.samples_for(MARGIN * rival.fid)
    return f"{text}, {MARGIN:.0%} would take about {num(_rounded(count))}".replace("5%", "5 %")


def _share(value: float, of: Evaluation) -> str:
    return f", {percent(value, of.fid)}" if of.fid > 0 else ""


def _rounded(count: int) -> int:
    """To two digits."""
    unit = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // unit) * unit


def alone(run: Run) -> list[Evaluation]:
    """Evaluations of the reference alone with other steps than the full schedule's: fewer, or placed."""
    found = [e for n, e in run.evaluations.items() if n not in ("global", "hybrid") and is_number(e.mflop)]
    return [
        e for e in found if (set(e.schedule.assignment) == {run.reference} if e.schedule else e.name == "global_cheap")
    ]


def rival(run: Run, hybrid: Evaluation, full: Evaluation) -> Evaluation | None:
    """The best of the reference's own schedules that cost as much as the hybrid or more, up to the full cost.

    Where there is none, the most expensive of the cheaper ones.
    """
    if not (is_number(hybrid.mflop) and is_number(full.mflop)):
        return None
    known = [e for e in alone(run) if is_number(e.fid) and e.mflop <= full.mflop * (1 + EQUAL_COST)]
    equal = [e for e in known if not costs_less(e, hybrid)]
    if equal:
        return min(equal, key=lambda e: e.fid)
    return max(known, key=lambda e: e.mflop, default=None)


def costs_less(a: Evaluation, b: Evaluation) -> bool:
    """Whether ``a`` is clearly cheaper than ``b``."""
    return a.mflop < b.mflop * (1 - EQUAL_COST)
