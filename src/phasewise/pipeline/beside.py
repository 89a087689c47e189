"""``schedule`` and ``evaluate`` beside a run's own stages: of a shipped set, and of any schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phasewise.display import View, percent
from phasewise.errors import PhasewiseError
from phasewise.files import write_text
from phasewise.pipeline.demo import shipped_judge
from phasewise.pipeline.judging import Judge
from phasewise.pipeline.stages import Context
from phasewise.pipeline.telling import Teller
from phasewise.pipeline.trials import judge_trials, planned, read_schedules, table
from phasewise.pretrained import load_pretrained
from phasewise.results import HybridSchedule
from phasewise.runs.lock import alone_in
from phasewise.runs.parts import HOMES
from phasewise.runs.run import Run
from phasewise.runs.trials import scores
from phasewise.scheduling import explain


def only(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse options that would have no effect.  Raises PhasewiseError naming them and those that have."""
    without = [HOMES[name][1].flag for name in given if name not in known]
    if without:
        having = ", ".join(HOMES[name][1].flag for name in known)
        raise PhasewiseError(f"{', '.join(without)} changes nothing {where}; what does is {having}")


def plan_from(run: Run, given: Mapping[str, Any], say: Callable[[str], None]) -> HybridSchedule:
    """The optimised schedule of a run or a set that is priced, by the options "budget", "penalty" and "solver" of
    ``given`` or its own; what it is and why it looks so goes to ``say``.

    Raises PhasewiseError for other options, and for a budget that fits no schedule.
    """
    only(given, ("budget", "penalty", "solver"), "in a set that is priced already")
    budgets = None if given.get("budget") is None else [given["budget"]]
    penalties = None if given.get("penalty") is None else [given["penalty"]]
    (plan,) = planned(run, budgets, penalties, given.get("solver")).values()
    say(str(plan))
    assert run.prices is not None
    whole = run.schedules["global"].mflop
    say(f"{percent(plan.mflop, whole)} of the all-global FLOPs ({whole:.4g} MFLOP)")
    for line in explain(plan, run.prices, penalty=plan.penalty_name):
        say(f"  {line}")
    return plan


def save_schedule(plan: HybridSchedule, file: Path) -> Path:
    """``plan`` as JSON, for ``evaluate --schedule`` and ``sample --schedule``."""
    if file.suffix.lower() != ".json":
        raise PhasewiseError(f"a schedule is written as JSON; give --save a name ending in .json, not {file.name!r}")
    return write_text(file, plan.to_json() + "\n")


def evaluate_beside(
    run: Run,
    given: Mapping[str, Any],
    *,
    files: Sequence[Path] = (),
    seeds: Sequence[int] | None = None,
    budgets: Sequence[float] | None = None,
    penalties: Sequence[str] | None = None,
    say: Teller,
) -> View:
    """Judge schedules of ``files`` and of ``budgets`` and ``penalties``, or else the run's own, with each of ``seeds``,
    beside what was judged before; returns the table of all that is known of them.

    ``given``: options "n_samples" and "device".  Raises PhasewiseError for other options, for a run without prices, and
    as :func:`judge_trials` does.
    """
    only(given, ("n_samples", "device"), "with --schedule, --seeds, --budgets, --penalties and in a demo")
    if run.config is None or run.prices is None or "global" not in run.schedules:
        raise PhasewiseError(f"{run.root} is not scheduled yet; do `phasewise schedule --out {run.root}` first")
    config = run.config.changed(**given)
    chosen: dict[str, HybridSchedule] = {}
    for file in files:
        chosen |= read_schedules(file)
    if budgets or penalties:
        chosen |= planned(run, budgets, penalties)
    chosen = chosen or dict(run.schedules)
    with alone_in(run.root):
        if run.demo_of is not None:
            judge = shipped_judge(load_pretrained(run.demo_of), config)
        else:
            context = Context(run, config, say)
            judge = Judge.of_data(context.data, context.judges, config)
        try:
            found = judge_trials(run, chosen, seeds or (config.data.seed,), judge, config, say)
        finally:
            say.end()
    return table(scores(found), f"{run.root}: FID on {found[0].features}")
