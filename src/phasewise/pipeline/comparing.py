"""``phasewise compare RUN_A RUN_B ...``: what was judged in several runs, side by side, with errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phasewise.display import View, measured
from phasewise.errors import PhasewiseError, RunFolderError
from phasewise.runs.run import Run, open_run
from phasewise.runs.trials import Score, over_seeds, scores


def compare_runs(folders: Sequence[str | Path]) -> tuple[View, tuple[str, ...]]:
    """A table of the schedules that the runs judged, and lines on what differs between the runs.

    Two runs: the second's FID minus the first's, errors taken as independent.  More: mean and standard error over runs,
    such as trainings with several seeds.

    Raises PhasewiseError for fewer than two runs, RunFolderError for one that judged nothing.
    """
    runs = [open_run(folder) for folder in folders]
    if len(runs) < 2:
        raise PhasewiseError("compare takes two or more run folders")
    found = [_judged(run) for run in runs]
    names = list(dict.fromkeys(name for one in found for name in one))
    labels = _short([str(run.root) for run in runs])
    last = f"{labels[1]} − {labels[0]}" if len(runs) == 2 else "mean over runs"
    head = ("schedule", *(f"{label}: {what}" for label in labels for what in ("MFLOP", "FID ± s.e.")), last)
    rows = [_row(name, [one.get(name) for one in found]) for name in names]
    return View(f"FID of {len(runs)} runs", head, rows, fixed=len(head)), _notes(runs, found, labels)


def _judged(run: Run) -> dict[str, Score]:
    found = scores([*run.evaluations.values(), *run.trials])
    if not found:
        raise RunFolderError(f"{run.root} has judged nothing yet; finish it with `phasewise evaluate --out {run.root}`")
    return found


def _short(folders: list[str]) -> list[str]:
    """The last parts of the folders where these tell them apart."""
    last = [Path(folder).name for folder in folders]
    return last if len(set(last)) == len(last) else folders


def _row(name: str, entries: list[Score | None]) -> tuple[Any, ...]:
    cells = [cell for e in entries for cell in (("–", "–") if e is None else (e.mflop, measured(*e.fid)))]
    there = [e for e in entries if e is not None]
    if len(there) < len(entries):
        return (name, *cells, "–")
    if len(there) == 2:
        (a, a_error), (b, b_error) = there[0].fid, there[1].fid
        return (name, *cells, measured(b - a, math.hypot(a_error, b_error)))
    return (name, *cells, measured(*over_seeds([e.fid[0] for e in there], [e.fid[1] for e in there])))


def _notes(runs: list[Run], found: list[dict[str, Score]], labels: list[str]) -> tuple[str, ...]:
    """What differs between the runs, and what forbids comparing their numbers."""
    notes = []
    features = {label: {s.features for s in one.values()} for label, one in zip(labels, found, strict=True)}
    if len(set(map(frozenset, features.values()))) > 1:
        said = "; ".join(f"{label}: {', '.join(sorted(names))}" for label, names in features.items())
        notes.append(f"The features differ, so these FIDs are not comparable ({said}).")
    sizes = {s.n for one in found for s in one.values()}
    if len(sizes) > 1:
        notes.append(f"FID falls with the number of samples, which differs here ({min(sizes)} to {max(sizes)}).")
    first = runs[0].config
    for run, label in zip(runs[1:], labels[1:], strict=True):
        if first is not None and run.config is not None:
            a, b = first.flat(), run.config.flat()
            changes = [f"{k} {a[k]} there, {b[k]} here" for k in a if a[k] != b[k]]
            notes.append(f"{label} against {labels[0]}: {'; '.join(changes) or 'the same options'}.")
    return tuple(notes)
