"""Schedules against each other: which differences were told, which could have been, and who is the fair rival."""

from __future__ import annotations

from phasewise.power import Comparison
from phasewise.report.style import is_number, look_of, num, percent, pm
from phasewise.results import Evaluation, JudgesVerdict
from phasewise.runs.run import Run

MARGIN = 0.05
"""The difference worth telling, as a share of the rival's distance."""
EQUAL_COST = 0.005
"""Costs that differ by no more than this share count as equal."""
SAME_COST = 1.15
"""A rival within this factor of the hybrid's cost is compared with it without a further word."""
PLACED = ", placed"
"""Ends the label of a schedule whose steps were searched for."""
METHODS = ("stitched", "window", "window_gap", "window_cmi")
"""Schedules of several members by a rule, which an optimised one has to beat."""


def told(a: Evaluation, b: Evaluation | None) -> JudgesVerdict | None:
    """What all judges say of ``a`` against ``b``, paired where it was measured; None where a number is missing."""
    if b is None or not all(is_number(v) for v in (a.fid, b.fid, a.fid_stderr, b.fid_stderr)):
        return None
    return a.against(b)


def compared(a: Evaluation, b: Evaluation) -> Comparison | None:
    """FID of ``a`` minus that of ``b``, paired where it was measured; None where a number is missing."""
    found = told(a, b)
    return None if found is None else next(iter(found.comparisons.values()))


def outcome(a: Evaluation, b: Evaluation | None) -> str | None:
    """ "level" where no judge tells the two apart, "lower", "higher", or "split" where judges contradict each other; of
    the distance of ``a`` against that of ``b``.  None where a number is missing."""
    found = told(a, b)
    return found.outcome if found else None


def measures(a: Evaluation, b: Evaluation) -> dict[str, list[str]]:
    """What is measured by the judges that call ``a`` "lower", "level" and "higher" than ``b``."""
    found, by = told(a, b), dict[str, list[str]]({"lower": [], "level": [], "higher": []})
    for name, one in found.comparisons.items() if found else ():
        by[one.outcome].append(name)
    return by


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def fewest(a: Evaluation, b: Evaluation) -> str:
    """In brackets: the difference that so many samples could have shown, by each judge who finds none; empty where the
    two are told apart."""
    found = told(a, b)
    if found is None or found.outcome != "level":
        return ""
    first, *others = zip(found.comparisons.items(), found.beside.tolist(), strict=True)
    said = [f"{num(found.n)} samples tell {num(first[0][1].detectable, 2)} or more{_share(*_reached(first))}"]
    for one in others:
        (name, seen), _ = one
        said.append(f"{num(seen.detectable, 2)} of {name}{_share(*_reached(one))}")
    return f" ({'; '.join(said)})"


def _reached(one: tuple[tuple[str, Comparison], float]) -> tuple[float, float]:
    """What a judge could have shown, and of what."""
    return one[0][1].detectable, one[1]


def difference(a: Evaluation, b: Evaluation) -> str:
    """ "; difference +0.1 ± 0.2, ...; by unseen FID ..." with what could have been told and what it takes; empty where
    it is unknown."""
    found, said = told(a, b), []
    if found is None:
        return ""
    for k, ((name, one), base) in enumerate(zip(found.comparisons.items(), found.beside.tolist(), strict=True)):
        value = pm(one.difference, one.stderr)
        text = f"; {f'by {name}' if k else 'difference'} {'' if value.startswith('−') else '+'}{value}"
        said.append(f"{text}, {_reach(one, base)}" if one.outcome == "level" else text)
    return "".join(said)


def _reach(found: Comparison, rival: float) -> str:
    """What so many samples could have shown (8 times in 10) beside the distance ``rival``, and how many it takes to
    tell MARGIN of it."""
    text = f"not distinguishable: {num(found.n)} samples tell {num(found.detectable, 2)} or more"
    text += f"{_share(found.detectable, rival)} in 8 of 10 cases"
    if found.detectable <= MARGIN * rival or not found.stderr:
        return text
    count = found.samples_for(MARGIN * rival)
    return f"{text}, {MARGIN:.0%} would take about {num(_rounded(count))}".replace("5%", "5 %")


def _share(value: float, of: float) -> str:
    return f", {percent(value, of)}" if of > 0 else ""


def _rounded(count: int) -> int:
    """To two digits."""
    unit = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // unit) * unit


def is_alone(run: Run, evaluation: Evaluation) -> bool:
    """Whether the reference takes every step, but for a first one by a closed form: at t = 1 both answer the mean."""
    plan = evaluation.schedule
    if plan is None:
        return evaluation.name in ("global_cheap", "global_placed")
    closed = {m.name for m in run.members if look_of(m) == "closed"}
    return plan.assignment[0] in {run.reference, *closed} and set(plan.assignment[1:]) <= {run.reference}


def is_same(a: Evaluation, b: Evaluation) -> bool:
    """Whether both are one schedule: the same members from the same times on, by one solver."""
    return a.schedule is not None and b.schedule is not None and a.schedule.is_alike(b.schedule)


def alone(run: Run) -> list[Evaluation]:
    """Evaluations of the reference alone with other steps than the full schedule's: fewer, or placed."""
    found = [e for n, e in run.evaluations.items() if n not in ("global", "hybrid") and is_number(e.mflop)]
    return [e for e in found if is_alone(run, e)]


def rival(run: Run, hybrid: Evaluation, full: Evaluation) -> Evaluation | None:
    """The best of what others do at the hybrid's cost, up to SAME_COST times it, or else at the next higher one up to
    the full cost: the reference's own schedules, and those that mix members by a rule.

    What costs clearly more and is as good has been matched for less: no rival.  Where there is none, the most expensive
    of the reference's cheaper ones.  A rule that gives the hybrid itself is its rival before all others.
    """
    if not (is_number(hybrid.mflop) and is_number(full.mflop)):
        return None
    by_rule = [run.evaluations[n] for n in METHODS if n in run.evaluations]
    same = [e for e in by_rule if is_same(e, hybrid)]
    if same:
        return same[0]
    every = [*alone(run), *(e for e in by_rule if is_number(e.mflop))]
    known = [e for e in every if is_number(e.fid) and e.mflop <= full.mflop * (1 + EQUAL_COST)]
    equal = [e for e in known if not costs_less(e, hybrid)]
    if equal:
        most = max(SAME_COST * hybrid.mflop, min(e.mflop for e in equal))
        return min((e for e in equal if e.mflop <= most), key=lambda e: e.fid)
    return max((e for e in known if e not in by_rule), key=lambda e: e.mflop, default=None)


def called(rival: Evaluation) -> str:
    """A rival in a sentence."""
    if rival.name in METHODS:
        return f"“{rival.label or rival.name}”"
    placed = rival.label.endswith(PLACED)
    if rival.name == "global_placed":
        return "the global denoiser with all its steps placed"
    return "the global denoiser with fewer steps" + (", well placed," if placed else "")


def costs_less(a: Evaluation, b: Evaluation) -> bool:
    """Whether ``a`` is clearly cheaper than ``b``."""
    return a.mflop < b.mflop * (1 - EQUAL_COST)
