"""The one-line answer of a run, worded from its evaluations; where only the CMI was measured, from that.

Two distances count as different when they lie more than two standard errors of their difference apart: the paired error
where the samples share their noise and it was measured, else the errors taken as independent.  Where they do not, the
difference that so many samples could have shown stands beside it.  The hybrid has to beat two rivals: the global
denoiser at full cost, and the best of what others do at the hybrid's cost or the next higher one: the same global
denoiser with fewer steps, or cheap and global ones by a rule.  A gain over the first alone may be had by anyone who
takes fewer steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from phasewise.report import cmi
from phasewise.report.compared import (
    SAME_COST,
    called,
    costs_less,
    difference,
    fewest,
    is_same,
    listed,
    measures,
    outcome,
    rival,
)
from phasewise.report.reasons import answer, doubts, reasons
from phasewise.report.style import is_number, num, percent, pm, schedule_label
from phasewise.results import Evaluation
from phasewise.runs.layout import missing
from phasewise.runs.run import Run

NOT_RIVALS = ("hybrid", "global", "global_cheap", "own")
NEAR = 1.25
"""Up to this multiple of the reference's distance, by all networks that judge, a closed form alone comes near it."""
UNSEEN = "Why is not seen in the records: none of the usual reasons (size, capacity, training) shows."


@dataclass(frozen=True)
class Verdict:
    """``headline`` in one sentence, ``sentences`` with the numbers, ``facts`` as (label, value, note)."""

    headline: str
    sentences: tuple[str, ...] = ()
    facts: tuple[tuple[str, str, str], ...] = ()


def verdict(run: Run) -> Verdict:
    hybrid, full = (run.evaluations.get(n) for n in ("hybrid", "global"))
    if not run.evaluations and run.cmi is not None and run.markov is not None:
        time, window = cmi.findings(run.cmi, run.markov)
        first, *rest = window.split(". ", 1)
        return Verdict(
            f"{first.rstrip('.')}.", (*rest, time, "Nothing has been sampled and judged here.", missing("evaluations"))
        )
    if not run.evaluations:
        return Verdict("No verdict yet: nothing has been sampled and judged.", (missing("evaluations"), *reasons(run)))
    if hybrid is None or full is None:
        absent = " and ".join(n for n, e in (("hybrid", hybrid), ("global", full)) if e is None)
        return Verdict(f"No verdict: the schedule {absent} was not evaluated.", tuple(_others(run, full, None)))
    cheap = rival(run, hybrid, full)
    text, answered = headline(hybrid, full, cheap), ""
    why: list[str] = []
    if not text.startswith("No verdict"):
        answered, pays = answer(run, hybrid, full, cheap)
        said, *why = (doubts(run) if pays else reasons(run, hybrid, cheap, full)) or ("",)
        text = f"{answered}: {text[0].lower()}{text[1:]} {said}".rstrip()
        why = why if said or pays else [UNSEEN]
    own = run.evaluations.get("own")
    if own is not None:
        why = [f"Beside {schedule_label(run, 'own')}: {_beside_own(hybrid, own)}.", text, *why]
        text = f"{answered}. {against_own(hybrid, own)}".removeprefix(". ")
    why = [*_claims(run), *_closed_form(run, full), *why]
    numbers = [_against_full(hybrid, full), *_against_cheap(run, hybrid, full, cheap), *_others(run, full, cheap)]
    return Verdict(text, (*why, *numbers, *_judge(hybrid), *_n(run)), _facts(run, hybrid, full, cheap))


def against_own(hybrid: Evaluation, own: Evaluation) -> str:
    """The hybrid beside the schedule that the model's owner uses: distance, MFLOP and milliseconds."""
    found = outcome(hybrid, own)
    alone = found is not None and found in WORDS and len(hybrid.against(own).measures) == 1
    quality = f", {WORDS[found]} yours" if found and alone else f"; its {_said(hybrid, own)} yours" if found else ""
    return (
        f"Your schedule: {own.measure} {pm(own.fid, own.fid_stderr)} at {num(own.mflop)} MFLOP and {num(own.ms)} ms an "
        f"image. The hybrid: {pm(hybrid.fid, hybrid.fid_stderr)}{quality}, at {num(hybrid.mflop)} MFLOP and "
        f"{num(hybrid.ms)} ms."
    )


def _beside_own(hybrid: Evaluation, own: Evaluation) -> str:
    told = difference(hybrid, own).replace("difference", "hybrid minus this")
    return (
        f"the hybrid takes {percent(hybrid.mflop, own.mflop)} of its FLOPs and {percent(hybrid.ms, own.ms)} of its "
        f"time, {hybrid.nfe} evaluations against {own.nfe}{told}"
    )


def _claims(run: Run) -> list[str]:
    """Networks that lose far more than the Wiener filter: what all other numbers rest on."""
    return [f"Look at this first. {n}: {found['said']}." for n, found in run.claims.items() if not found["ok"]]


def _closed_form(run: Run, full: Evaluation) -> list[str]:
    """Where a closed form alone comes near the reference by every distance of features: these judges see little of what
    it learnt, and so of what a cheaper schedule loses."""
    alone = run.evaluations.get("closed_only")
    if alone is None or not is_number(alone.fid) or not is_number(full.fid):
        return []
    seen = {name: s for name, s in alone.judges.items() if s.features and name in full.judges}
    pairs = [(s.value, full.judges[name].value) for name, s in seen.items()] or [(alone.fid, full.fid)]
    if not all(value <= NEAR * beside for value, beside in pairs):
        return []
    names = [s.measure for s in seen.values()] or [alone.measure]
    said = ", ".join(f"{name} {num(a)} for {num(b)}" for name, (a, b) in zip(names, pairs, strict=True))
    return [
        f"Look at this first. A linear filter and no network comes near the global network ({said}): it has learnt "
        "little that these judges see. Train it longer before a saving counts."
    ]


def headline(hybrid: Evaluation, full: Evaluation, cheap: Evaluation | None) -> str:
    """The verdict sentence from up to three evaluations; ``cheap``: the rival of :func:`compared.rival`."""
    first = outcome(hybrid, full)
    if first is None or not (is_number(hybrid.mflop) and is_number(full.mflop)):
        return f"No verdict: a {hybrid.measure}, its standard error or a cost is missing for the hybrid or the global."
    share = percent(hybrid.mflop, full.mflop)
    if hybrid.mflop >= full.mflop:
        return f"The hybrid saves nothing here: it costs {share} of the global sampler's FLOPs."
    text = f"At {share} of the FLOPs the hybrid's {_said(hybrid, full)} the global sampler's"
    text += fewest(hybrid, full)
    second = outcome(hybrid, cheap)
    if cheap is None or second is None:
        return text + "; no global sampler at the hybrid's cost was judged beside it."
    if is_same(hybrid, cheap):
        return f"{text}; it is the schedule of {called(cheap)}, so nothing is gained beyond that rule."
    against = f"{called(cheap)}{_at_cost(hybrid, cheap, full)}"
    join = ", and" if (first == "higher") != (second == "lower") else ", but"
    return {
        "lower": f"{text}{join} it beats {against}.",
        "level": f"{text}{join} {against} is not distinguishable from it{fewest(hybrid, cheap)}: no gain shown.",
        "higher": f"{text}{join} {against} does better: the hybrid does not pay here.",
        "split": f"{text}, but the judges disagree on {against}: no gain shown.",
    }[second]


WORDS = {"lower": "lower than", "level": "not distinguishable from", "higher": "higher than"}


def _said(a: Evaluation, b: Evaluation) -> str:
    """ "FID is lower than": which judges tell, and what; of two that all judges call equal, all of them."""
    by = measures(a, b)
    told = [w for w in ("lower", "higher") if by[w]] or ["level"]
    parts = [f"{listed(by[w])} {'is' if len(by[w]) == 1 else 'are'} {WORDS[w]}" for w in told]
    return " and its ".join(parts)


def _at_cost(hybrid: Evaluation, cheap: Evaluation, full: Evaluation) -> str:
    """What the rival costs, where that is not nearly what the hybrid does."""
    if costs_less(cheap, hybrid):
        return f", which costs less ({percent(cheap.mflop, full.mflop)})"
    same = cheap.mflop <= SAME_COST * hybrid.mflop
    return f" ({percent(cheap.mflop, full.mflop)} of the FLOPs" + (")" if same else ", the next higher cost there is)")


def _against_full(hybrid: Evaluation, full: Evaluation) -> str:
    time = percent(hybrid.ms, full.ms)
    text = f"Hybrid: {hybrid.measure} {pm(hybrid.fid, hybrid.fid_stderr)} at {percent(hybrid.mflop, full.mflop)}"
    text += " of the FLOPs" + (f" and {time} of the measured time" if time != "–" else "")
    return f"{text} of the global sampler ({pm(full.fid, full.fid_stderr)}){difference(hybrid, full)}."


def _against_cheap(run: Run, hybrid: Evaluation, full: Evaluation, cheap: Evaluation | None) -> list[str]:
    if cheap is None:
        return ["No global sampler with fewer steps was evaluated, so a gain may be owed to fewer steps alone."]
    if is_same(hybrid, cheap):
        return [f"{schedule_label(run, cheap.name)}: the hybrid is this schedule."]
    share = percent(cheap.mflop, full.mflop)
    cost = f"{share} of the FLOPs against the hybrid's {percent(hybrid.mflop, full.mflop)}, {cheap.nfe} evaluations"
    told = difference(hybrid, cheap).replace("difference", "hybrid minus this")
    label = schedule_label(run, cheap.name)
    text = f"{label}: {cheap.measure} {pm(cheap.fid, cheap.fid_stderr)} at {cost} against {full.nfe}{told}."
    if costs_less(cheap, hybrid):
        text += " No such schedule of the hybrid's cost or more, short of the full one, was judged."
    return [text]


def _others(run: Run, full: Evaluation | None, cheap: Evaluation | None) -> list[str]:
    shown, judged = [], next(iter(run.evaluations.values()))
    for name, e in run.evaluations.items():
        if name not in NOT_RIVALS and e is not cheap:
            share = f" at {percent(e.mflop, full.mflop)}" if full else ""
            shown.append(f"{schedule_label(run, name)}: {pm(e.fid, e.fid_stderr)}{share}")
    if is_number(run.real.get("fid")):
        shown.append(f"real test images, the floor: {pm(run.real['fid'], run.real.get('fid_stderr'))}")
    return [f"For scale, {judged.measure} of the others. " + "; ".join(shown) + "."] if shown else []


def _judge(hybrid: Evaluation) -> list[str]:
    return [f"{hybrid.measure} is taken in these features: {hybrid.features}."] if hybrid.features else []


def _n(run: Run) -> list[str]:
    sizes = sorted({e.n for e in run.evaluations.values()})
    if len(sizes) < 2:
        return []
    name = next(iter(run.evaluations.values())).measure
    return [f"Sample sizes differ ({num(sizes[0])} to {num(sizes[-1])}): {name} falls with n, so compare with care."]


def _facts(
    run: Run, hybrid: Evaluation, full: Evaluation, cheap: Evaluation | None
) -> tuple[tuple[str, str, str], ...]:
    name = hybrid.measure
    facts = [
        (
            "Cost of the hybrid",
            percent(hybrid.mflop, full.mflop),
            f"{num(hybrid.mflop)} of {num(full.mflop)} MFLOP an image",
        ),
        (f"{name}, hybrid", pm(hybrid.fid, hybrid.fid_stderr), f"n = {num(hybrid.n)}"),
        (f"{name}, global", pm(full.fid, full.fid_stderr), f"n = {num(full.n)}"),
    ]
    own = run.evaluations.get("own")
    if own is not None:
        facts.append(
            (f"{name}, your schedule", pm(own.fid, own.fid_stderr), f"{num(own.mflop)} MFLOP, {num(own.ms)} ms")
        )
        facts[0] = ("Cost of the hybrid", percent(hybrid.mflop, own.mflop), "of your schedule's FLOPs")
    if cheap is not None:
        note = f"at {percent(cheap.mflop, full.mflop)} of the FLOPs"
        facts.append((f"{name}, {schedule_label(run, cheap.name)}", pm(cheap.fid, cheap.fid_stderr), note))
    return tuple(facts)
