"""The one-line answer of a run, worded from its evaluations; where only the CMI was measured, from that.

Two FIDs count as different when they lie more than two standard errors of their difference apart: the paired error
where the samples share their noise and it was measured, else the errors taken as independent.  The hybrid has to beat
two rivals: the global denoiser at full cost, and the same global denoiser with fewer steps at about the hybrid's cost;
a gain over the first alone may be had by anyone who takes fewer steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from phasewise.report import cmi
from phasewise.report.style import is_number, num, percent, pm, schedule_label
from phasewise.results import Evaluation
from phasewise.runs.layout import missing
from phasewise.runs.run import Run

RESOLVED = 2.0
SAME_COST = 1.15


@dataclass(frozen=True)
class Verdict:
    """``headline`` in one sentence, ``sentences`` with the numbers, ``facts`` as (label, value, note)."""

    headline: str
    sentences: tuple[str, ...] = ()
    facts: tuple[tuple[str, str, str], ...] = ()


def compare(a: Evaluation, b: Evaluation) -> str | None:
    """ "lower", "level" or "higher": the FID of ``a`` against that of ``b``; None where a number is missing."""
    numbers = (a.fid, b.fid, a.fid_stderr, b.fid_stderr)
    if not all(is_number(v) for v in numbers):
        return None
    difference, error = difference_of(a, b)
    if abs(difference) <= RESOLVED * error:
        return "level"
    return "lower" if difference < 0 else "higher"


def difference_of(a: Evaluation, b: Evaluation) -> tuple[float, float]:
    """FID of ``a`` minus that of ``b``, and its standard error: paired where it was measured."""
    for one, other, sign in ((a, b, 1), (b, a, -1)):
        found = one.fid_minus.get(other.name)
        if found and all(is_number(v) for v in found):
            return sign * found[0], found[1]
    return a.fid - b.fid, math.hypot(a.fid_stderr, b.fid_stderr)


def verdict(run: Run) -> Verdict:
    hybrid, full, cheap = (run.evaluations.get(n) for n in ("hybrid", "global", "global_cheap"))
    if not run.evaluations and run.cmi is not None and run.markov is not None:
        time, window = cmi.findings(run.cmi, run.markov)
        first, *rest = window.split(". ", 1)
        return Verdict(
            f"{first.rstrip('.')}.", (*rest, time, "Nothing has been sampled and judged here.", missing("evaluations"))
        )
    if not run.evaluations:
        return Verdict("No verdict yet: nothing has been sampled and judged.", (missing("evaluations"),))
    if hybrid is None or full is None:
        absent = " and ".join(n for n, e in (("hybrid", hybrid), ("global", full)) if e is None)
        return Verdict(f"No verdict: the schedule {absent} was not evaluated.", tuple(_others(run, full)))
    sentences = [_against_full(hybrid, full), *_against_cheap(run, hybrid, full, cheap), *_others(run, full), *_n(run)]
    return Verdict(headline(hybrid, full, cheap), tuple(sentences), _facts(run, hybrid, full, cheap))


def headline(hybrid: Evaluation, full: Evaluation, cheap: Evaluation | None) -> str:
    """The verdict sentence from up to three evaluations."""
    first = compare(hybrid, full)
    if first is None or not (is_number(hybrid.mflop) and is_number(full.mflop)):
        return "No verdict: an FID, its standard error or a cost is missing for the hybrid or the global sampler."
    share = percent(hybrid.mflop, full.mflop)
    if hybrid.mflop >= full.mflop:
        return f"The hybrid saves nothing here: it costs {share} of the global sampler's FLOPs."
    quality = {"lower": "lower than", "level": "not distinguishable from", "higher": "higher than"}[first]
    text = f"At {share} of the FLOPs the hybrid's FID is {quality} the global sampler's"
    second = compare(hybrid, cheap) if cheap else None
    if cheap is None or second is None:
        return text + "; no global sampler at the hybrid's cost was judged beside it."
    aside = "" if _same_cost(hybrid, cheap) else " (at another cost, see below)"
    rival = f"the global denoiser with fewer steps{aside}"
    join = ", and" if (first == "higher") != (second == "lower") else ", but"
    return {
        "lower": f"{text}{join} it beats {rival}.",
        "level": f"{text}{join} {rival} is not distinguishable from it: no gain shown.",
        "higher": f"{text}{join} {rival} does better: the hybrid does not pay here.",
    }[second]


def _same_cost(a: Evaluation, b: Evaluation) -> bool:
    return is_number(a.mflop) and is_number(b.mflop) and 1 / SAME_COST <= a.mflop / b.mflop <= SAME_COST


def _against_full(hybrid: Evaluation, full: Evaluation) -> str:
    time = percent(hybrid.ms, full.ms)
    text = f"Hybrid: FID {pm(hybrid.fid, hybrid.fid_stderr)} at {percent(hybrid.mflop, full.mflop)} of the FLOPs"
    text += f" and {time} of the measured time" if time != "–" else ""
    return f"{text} of the global sampler (FID {pm(full.fid, full.fid_stderr)}){_difference(hybrid, full)}."


def _difference(a: Evaluation, b: Evaluation) -> str:
    if compare(a, b) is None:
        return ""
    value = pm(*difference_of(a, b))
    return f"; difference {'' if value.startswith('−') else '+'}{value}"


def _against_cheap(run: Run, hybrid: Evaluation, full: Evaluation, cheap: Evaluation | None) -> list[str]:
    if cheap is None:
        return ["No global sampler with fewer steps was evaluated, so a gain may be owed to fewer steps alone."]
    cost = f"{percent(cheap.mflop, full.mflop)} of the FLOPs, {cheap.nfe} evaluations against {full.nfe}"
    label = schedule_label(run, "global_cheap")
    difference = _difference(hybrid, cheap).replace("difference", "hybrid minus this")
    return [f"{label}: FID {pm(cheap.fid, cheap.fid_stderr)} at {cost}{difference}."]


def _others(run: Run, full: Evaluation | None) -> list[str]:
    shown = []
    for name in ("stitched", "spread", "window", "window_gap", "window_cmi", "window_inverted", "local_only"):
        e = run.evaluations.get(name)
        if e is not None:
            share = f" at {percent(e.mflop, full.mflop)}" if full else ""
            shown.append(f"{schedule_label(run, name)}: {pm(e.fid, e.fid_stderr)}{share}")
    if is_number(run.real.get("fid")):
        shown.append(f"real test images, the floor: {pm(run.real['fid'], run.real.get('fid_stderr'))}")
    return ["For scale, FID of the others. " + "; ".join(shown) + "."] if shown else []


def _n(run: Run) -> list[str]:
    sizes = sorted({e.n for e in run.evaluations.values()})
    if len(sizes) < 2:
        return []
    return [f"Sample sizes differ ({num(sizes[0])} to {num(sizes[-1])}): FID falls with n, so compare with care."]


def _facts(
    run: Run, hybrid: Evaluation, full: Evaluation, cheap: Evaluation | None
) -> tuple[tuple[str, str, str], ...]:
    facts = [
        (
            "Cost of the hybrid",
            percent(hybrid.mflop, full.mflop),
            f"{num(hybrid.mflop)} of {num(full.mflop)} MFLOP an image",
        ),
        ("FID, hybrid", pm(hybrid.fid, hybrid.fid_stderr), f"n = {num(hybrid.n)}"),
        ("FID, global", pm(full.fid, full.fid_stderr), f"n = {num(full.n)}"),
    ]
    if cheap is not None:
        note = f"at {percent(cheap.mflop, full.mflop)} of the FLOPs"
        facts.append(("FID, global, fewer steps", pm(cheap.fid, cheap.fid_stderr), note))
    return tuple(facts)
