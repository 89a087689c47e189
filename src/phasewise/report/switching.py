"""Sections of a run of somebody's network: when to switch to it, how far it sees, what can be taken home."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from phasewise.files import read_json
from phasewise.report.blocks import Drawing, Pairs, Section, Table, drawing
from phasewise.report.figures import new_figure
from phasewise.report.style import BARS, num, styled
from phasewise.results import Reach
from phasewise.runs.layout import missing
from phasewise.runs.run import Run


def boundaries(run: Run) -> Section:
    """When to switch, in words, in a figure and in every unit."""
    title = "When to switch"
    if not run.boundaries:
        return Section("boundary", title, notes=(missing("boundaries"),))
    items: list[str] = []
    blocks: list[Drawing | Table] = []
    for name, (found, units) in run.boundaries.items():
        items += [f"{line}." for line in found.sentences()]
        judged = f"{found.reference}'s answers count as right" if found.reference else "held-out images judge both"
        caption = (
            f"Penalty {found.penalty_name} of every boundary above the best: {found.early} takes the steps before it, "
            f"{found.late} the others; {judged}. Tinted: as good as the best. n = {num(found.n)} images, "
            f"{len(found.times)} steps of {found.solver}. {BARS}"
        )
        alt = f"Penalty against the time of the switch from {found.early} to {found.late}. {found.sentences()[0]}."
        blocks.append(drawing(f"boundary_{name}", _boundary(found), alt, caption))
        rows = tuple(
            (unit, *(_whole(float(v)) if unit.startswith("steps") else num(float(v)) for v in row))
            for unit, *row in zip(units.units, units.value, units.at_low, units.at_high, strict=True)
        )
        text = (
            f"The switch from {units.early} to {units.late} in every unit. Steps are those of a grid of "
            f"{units.steps}; a timestep is what the network is told."
        )
        blocks.append(Table(("unit", "value", "at the low end", "at the high end"), rows, text))
    intro = "From noise on the right to the image: who takes the noisy part, and until when."
    return Section("boundary", title, intro, tuple(blocks), items=tuple(items))


def _whole(value: float) -> str:
    return num(int(value)) if value == int(value) else num(value)


@styled
def _boundary(found: Any) -> Figure:
    figure, (ax,) = new_figure(1, 1, 3.6)
    found.plot(ax)
    return figure


def reach(run: Run) -> Section:
    """How far the reference sees, by time."""
    title, found = "How far the network sees", run.reach
    if found is None:
        return Section("reach", title, notes=(missing("reach"),))
    intro = (
        "Influence: the radius round a pixel that holds so much of the squared derivatives of its answer. Answer: the "
        "radius beyond which other pixels may be replaced by another noised image's and the answer hardly changes, "
        "an upper bound for a network that never saw such input."
    )
    caption = f"Radii in pixels by time, with what two standard errors leave open. n = {num(found.influence.n)} images."
    view = found.view()
    rows = tuple(tuple(num(c) if isinstance(c, float) else str(c) for c in row) for row in view.rows)
    table = Table(tuple(map(str, view.head)), rows, f"{view.title}.", left=0)
    alt = "Radius that the network sees against time. " + "; ".join(
        f"t = {row[0]}: {row[1]} pixels hold 90 % of the influence" for row in rows
    )
    return Section("reach", title, intro, (drawing("reach", _reach(found), alt, caption), table))


@styled
def _reach(found: Reach) -> Figure:
    figure, (ax,) = new_figure(1, 1, 3.6)
    found.plot(ax)
    return figure


def taken_home(run: Run) -> Section:
    """Where the hybrid and its schedule lie, for use elsewhere."""
    title = "To take home"
    if not (run.has("exports") and run.has("hybrid")):
        return Section("exports", title, notes=(missing("exports"),))
    items = [
        ("hybrid/", "the hybrid as a denoiser, weights and all: pw.load_denoiser reads it"),
        ("exports/schedule.json", "its schedule: phasewise sample --schedule, evaluate --schedule"),
    ]
    forms = run.path("exports", "forms.json")
    values = read_json(forms) if forms.is_file() else {}
    if isinstance(values, dict):
        items += [(f"exports/forms.json, {k}", str(v)) for k, v in values.items() if k != "without"]
        without = values.get("without")
        items += [(f"no {k}", str(v)) for k, v in without.items()] if isinstance(without, dict) else []
    return Section("exports", title, blocks=(Pairs(tuple(items)),))
