"""Evaluations beside a run's own: any schedule of its members, other budgets, penalties and seeds, and their table.

Each (schedule, seed) is one file of the run, which knows the weights it was sampled with: what is there already is not
judged again, and what was judged with other weights, or by other features, is.  All of one seed start from the same
noise, all-global among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from phasewise.display import View, measured, percent
from phasewise.errors import PhasewiseError
from phasewise.files import read_json
from phasewise.pipeline.judging import Judge, evaluate_all
from phasewise.pipeline.samplers import samplers
from phasewise.pipeline.telling import Teller
from phasewise.results import Evaluation, HybridSchedule
from phasewise.runs.config import RunConfig
from phasewise.runs.members import NAME
from phasewise.runs.run import Run
from phasewise.runs.trials import Score
from phasewise.scheduling import optimise_schedule


def read_schedules(file: str | Path) -> dict[str, HybridSchedule]:
    """The schedules in a JSON file by name: one, called as the file is, or several by their names, as a run keeps them.

    Raises PhasewiseError where the file holds neither.
    """
    file = Path(file)
    values = read_json(file)
    entries = list(values.items()) if isinstance(values, dict) else []
    if entries and all(isinstance(v, dict) and "assignment" in v for _, v in entries):
        return {checked_name(name): HybridSchedule.from_dict(value) for name, value in entries}
    return {checked_name(file.stem): HybridSchedule.load(file)}


def checked_name(name: str) -> str:
    """``name`` if it can be that of a file and is not the real images'; PhasewiseError otherwise."""
    if not NAME.fullmatch(name) or name == "real":
        raise PhasewiseError(
            f"a schedule's name is letters, digits, '_', '.', '+' and '-', and not 'real'; got {name!r}: rename the "
            "file, or the entry in it"
        )
    return name


def planned(
    run: Run, budgets: Sequence[float] | None, penalties: Sequence[str] | None, solver: str | None = None
) -> dict[str, HybridSchedule]:
    """Optimised schedules of a priced run for every budget and penalty given, named by them; the run's own choice of
    what is not given.  Raises PhasewiseError for a budget that fits no schedule, or a penalty that was not measured."""
    assert run.config is not None
    assert run.prices is not None
    asked, found = run.config.schedule, {}
    for budget in budgets or (asked.budget,):
        for penalty in penalties or (asked.penalty,):
            name = f"hybrid-{budget:g}" + (f"-{penalty}" if penalties else "")
            plan = optimise_schedule(run.prices, budget, penalty=penalty, solver=solver or run.config.grid.solver)
            label = f"Hybrid, budget {budget:g}" + (f", penalty {penalty}" if penalties else "")
            found[name] = replace(plan, label=label)
    return found


def judge_trials(
    run: Run,
    wanted: Mapping[str, HybridSchedule],
    seeds: Sequence[int],
    judge: Judge,
    config: RunConfig,
    say: Teller,
) -> list[Evaluation]:
    """The schedules in ``wanted``, and all-global, judged with every seed of ``seeds``; what was judged before is read.

    ``config`` says how many samples, and on which device.  Raises PhasewiseError for a schedule that names a member
    which is not there, and for one called "global" that is not the run's.
    """
    whole = run.schedules["global"]
    if wanted.get("global", whole) != whole:
        raise PhasewiseError("'global' is the schedule that all others are compared with; call yours by another name")
    plans = {"global": whole, **wanted}
    names = sorted({name for plan in plans.values() for name in plan.assignment})
    members = samplers(run, names, config)
    keys = {name: _key(run, plan, judge) for name, plan in plans.items()}
    found, missing = [], {}
    for seed in seeds:
        known = {name: _known(run, name, seed, plans[name], keys[name], config) for name in plans}
        found += [e for e in known.values() if e is not None]
        missing[seed] = [name for name, e in known.items() if e is None]
    say.begin({f"seed {seed}": float(len(names)) for seed, names in missing.items() if names})
    for seed, absent in missing.items():
        if not absent:
            say(f"seed {seed}: judged before")
            continue
        assert run.prices is not None
        say.start(f"seed {seed}")
        todo = {name: plans[name] for name in dict.fromkeys(["global", *absent])}
        result = evaluate_all(members, todo, run.prices, judge, config.changed(seed=seed), say)
        for e in result.evaluations:
            if e.name in absent:
                run.write("trials", {"key": keys[e.name], "evaluation": e.to_dict()}, f"{e.name}-{seed}.json")
                found.append(e)
        say.finish()
    return found


def _key(run: Run, plan: HybridSchedule, judge: Judge) -> str:
    """What a judgement depends on besides seed and number: the weights, and what the samples are held against."""
    digest = hashlib.sha256(f"{judge.features.name} {judge.reference.n}".encode())
    for name in sorted(set(plan.assignment)):
        folder = run.model(name)
        files = sorted(folder.rglob("weights.safetensors"))
        if len(files) > 1:  # what is guided says in its config how strongly
            files.append(folder / "config.json")
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _known(run: Run, name: str, seed: int, plan: HybridSchedule, key: str, config: RunConfig) -> Evaluation | None:
    """What was judged before of ``plan`` with this seed and number of samples: beside the run, or by the run itself."""
    file = run.path("trials", f"{name}-{seed}.json")
    if file.is_file():
        values = read_json(file)
        if isinstance(values, dict) and values.get("key") == key:
            e = Evaluation.from_dict(values["evaluation"])
            if e.n == config.evaluate.n_samples and e.schedule is not None and e.schedule.is_alike(plan):
                return e
    own = run.evaluations.get(name)
    fits = own is not None and (own.seed, own.n) == (seed, config.evaluate.n_samples)
    return own if fits and own is not None and own.schedule is not None and own.schedule.is_alike(plan) else None


def table(found: Mapping[str, Score], title: str) -> View:
    """A row for each schedule, cheapest first."""
    whole = found["global"].mflop if "global" in found else float("nan")
    rows: list[tuple[Any, ...]] = []
    for score in sorted(found.values(), key=lambda s: s.mflop):
        minus = "–" if score.minus_global is None else measured(*score.minus_global)
        seeds = ",".join(map(str, score.seeds))
        cost = (score.mflop, percent(score.mflop, whole))
        rows.append((score.name, seeds, score.n, *cost, measured(*score.fid), minus))
    return View(title, ("schedule", "seeds", "n", "MFLOP", "of global", "FID ± s.e.", "FID − global's ± s.e."), rows, 7)
