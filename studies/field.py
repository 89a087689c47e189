"""Whatever the field recommends, in one benchmark: every published rule against the whole network with fewer, placed
steps at equal cost, all from the same noise."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

import phasewise as pw
from phasewise.denoisers import Denoiser, DiTDenoiser, ReusedAnswer, ReusedFeatures
from phasewise.files import write_bytes
from phasewise.metrics import count_flops
from phasewise.metrics.cost import measure_ms
from phasewise.pipeline.recording import to_uint8
from phasewise.results import JudgeScore
from phasewise.scheduling import baselines, field, field_signals
from phasewise.tensors import read_tensors
from studies import subject
from studies.options import choice
from studies.pages import markdown
from studies.random_search import draw
from studies.study import Answers, Cell, Study

WHOLE = "global"
ORDERS = ("held", "line", "parabola")
"""How a part is kept: as it was, or carried on along the line or the parabola through its last values."""
T_MIN = 0.05
"""Where the last step of the whole network's grids starts, where no better grid is known."""
PLACED: dict[tuple[str, str, int], tuple[float, ...]] = {
    ("fashion_mnist", "sde_dpmpp_2m", 4): (1.0, 0.759, 0.492, 0.1),
    ("fashion_mnist", "sde_dpmpp_2m", 5): (1.0, 0.823, 0.608, 0.425, 0.1),
    ("fashion_mnist", "sde_dpmpp_2m", 6): (1.0, 0.86, 0.694, 0.496, 0.298, 0.1),
    ("fashion_mnist", "sde_dpmpp_2m", 7): (1.0, 0.85, 0.691, 0.533, 0.374, 0.131, 0.1),
    ("mnist", "sde_dpmpp_2m", 4): (1.0, 0.759, 0.53, 0.1),
    ("mnist", "sde_dpmpp_2m", 5): (1.0, 0.762, 0.628, 0.457, 0.0875),
    ("mnist", "sde_dpmpp_2m", 6): (1.0, 0.82, 0.715, 0.592, 0.436, 0.1),
    ("mnist", "sde_dpmpp_2m", 7): (1.0, 0.85, 0.759, 0.656, 0.537, 0.385, 0.1),
}
"""Grids of the shipped global networks found by a search judged on samples of other noise (``studies placed``), by set,
solver and steps.  A transformer takes those of the set's U-Net."""
Assignment = tuple[str, ...]


@dataclass(frozen=True)
class Options:
    pretrained: str = choice("mnist", "shipped set: its U-Nets, images and judges")
    model: str | None = choice(None, "folder of a transformer, in place of the set's own networks")
    windows: str | None = choice(None, "folder of the same transformer tuned for windows of attention")
    data: str | None = choice(None, "images instead of the set's own", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds the images")
    n: int = choice(2000, "samples of each schedule", quick=16)
    seeds: tuple[int, ...] = choice((1,), "of the noise; none of them chose anything")
    solvers: tuple[str, ...] = choice(("sde_dpmpp_2m", "exp_ab2"), "of all", quick=("exp_ab2",))
    steps: tuple[int, ...] = choice((8,), "of the even grids that rules go by", quick=(4,))
    computed: tuple[int, ...] = choice((6, 4), "steps that threshold rules compute of the first grid", quick=(2,))
    only: str = choice(
        "", "only rows of this form", quick="^(FlexiDiT coarse 2|DeepCache every 2|TeaCache|LeMiCa|random|whole)"
    )
    calibrated: int = choice(64, "trajectories that thresholds are calibrated on", quick=2)
    tried: int = choice(24, "schedules of the random search", quick=2)
    tried_n: int = choice(500, "samples of each of them", quick=16)
    timed: tuple[int, ...] = choice((1, 64), "batches that calls are timed at", quick=(2,))


@dataclass(frozen=True)
class Plan:
    """One row: a published rule and how it was set, on a grid."""

    rule: str
    setting: str
    times: tuple[float, ...]
    assignment: Assignment

    @property
    def name(self) -> str:
        return f"{self.rule} {self.setting}"


class Field(Study[Options]):
    """Rules go by even grids, as their authors' samplers do.  Every row is sampled from the same noise and paired with
    the whole network at every step of its grid, and with the whole network on the placed steps that cost next less and
    next more.  Thresholds are calibrated on other noise (seed 0), into one mask for all samples."""

    name = "field"
    question = "Do the field's caches and small networks beat fewer, placed steps, and does the cheap one belong early?"
    page = "results/field.md"
    options_type = Options

    # --- who ----------------------------------------------------------------------------------------------------------

    @cached_property
    def place(self) -> str:
        return self.options.pretrained + ("" if self.options.model is None else ", transformer")

    @cached_property
    def subject(self) -> subject.Subject:
        o = self.options
        ready = subject.of_shipped(o.pretrained, o.data, o.data_dir)
        if o.model is not None:
            return replace(ready, members=transformer_members(o.model, o.windows))
        return replace(ready, members=unet_members(ready.members))

    @cached_property
    def kept(self) -> str:
        """The part that caches keep."""
        return "level1" if self.options.model is None else "blocks"

    # --- cells --------------------------------------------------------------------------------------------------------

    def cells(self) -> Iterator[Cell]:
        o = self.options
        names = list(self.subject.members)
        yield Cell(f"{self.place}/costs", {"members": names, "batches": o.timed}, self.costs)
        for solver in o.solvers:
            for steps in o.steps:
                asked = {"n": o.calibrated, "solver": solver, "steps": steps}
                yield Cell(
                    f"{self.place}/signals/{solver}/{steps}", asked, lambda s=solver, k=steps: self.signals(s, k)
                )
            yield from self.rows(solver, self.plans(solver))
            if re.search(o.only, "random search"):
                asked = {"n": o.tried_n, "tried": o.tried, "solver": solver, "steps": o.steps[0]}
                yield Cell(f"{self.place}/search/{solver}", asked, lambda s=solver: self.search(s))
                yield from self.rows(solver, self.best_of_search(solver))

    def rows(self, solver: str, plans: Sequence[Plan]) -> Iterator[Cell]:
        o = self.options
        for seed in o.seeds:
            for plan in plans:
                if re.search(o.only, plan.name):
                    asked = {
                        "n": o.n, "seed": seed, "solver": solver, "times": plan.times, "assignment": plan.assignment,
                        "judges": list(self.subject.judges), "placed": self.grids(solver),
                    }  # fmt: skip
                    work = lambda p=plan, s=solver, k=seed: self.judged(p, s, k)  # noqa: E731
                    yield Cell(f"{self.place}/judged/{solver}/{o.n}/{seed}/{plan.name}", asked, work, again=True)

    def measure(self, cell: Cell) -> dict[str, Any]:
        with torch.no_grad():
            found: dict[str, Any] = cell.what()
        return found

    def costs(self) -> dict[str, Any]:
        ours = self.subject
        shape = ours.members[WHOLE].image_shape
        ms = {b: measure_ms(ours.members, shape, batch=b) for b in self.options.timed}
        return {
            "mflop": {name: count_flops(d, shape) / 1e6 for name, d in ours.members.items()},
            "ms": {str(b): {name: value[0] for name, value in found.items()} for b, found in ms.items()},
        }

    def signals(self, solver: str, steps: int) -> dict[str, Any]:
        """What threshold caches look at on an even grid, and what runs of kept steps do to the image."""
        whole, times, n = self.subject.members[WHOLE], pw.time_grid(steps), self.options.calibrated
        kept = self.subject.members[f"{self.kept} held"]
        assert isinstance(kept, ReusedFeatures)
        changes = field_signals.measure_changes(whole, times, kept.part, solver=solver, n=n)
        errors = field_signals.measure_reuse_errors(whole, kept, times, solver=solver, n=max(n // 4, 2), longest=4)
        return {"changes": changes.to_dict(), "errors": [[None if e == float("inf") else e for e in r] for r in errors]}

    def search(self, solver: str) -> dict[str, Any]:
        """Random schedules, judged by FID of few samples of seed 0: the best of every cost that was asked for."""
        o, found = self.options, []
        names, times = self.choices(), pw.time_grid(o.steps[0])
        drawn = [a for a in draw(names, len(times), 4 * o.tried, seed=0) if fits(a)][: o.tried]
        for assignment in drawn:
            plan = Plan("random", "", times, assignment)
            fid = self.scores(plan, solver, 0, o.tried_n)["first"].value
            found.append({"assignment": assignment, "mflop": self.mflop(plan, solver), "fid": fid})
        return {"found": found}

    def choices(self) -> list[str]:
        """Whom the random search draws from: the whole network, smaller ones, a part kept."""
        return [n for n in (WHOLE, "coarse", "small", "window 1", f"{self.kept} held") if n in self.subject.members]

    def judged(self, plan: Plan, solver: str, seed: int) -> dict[str, Any]:
        mflop, per_step = self.mflop(plan, solver), self.mflop(even(1), solver)
        rivals = {"whole": even(max(len(plan.times), self.options.steps[0]))}
        fewer = max(int(mflop / per_step * (1 + 1e-6)), 2)
        rivals["placed below"] = self.placed(solver, fewer)
        rivals["placed above"] = self.placed(solver, fewer if abs(fewer * per_step - mflop) < 1e-3 else fewer + 1)
        ours, judged = self.scores(plan, solver, seed, self.options.n), dict[str, dict[str, list[float]]]()
        for judge, score in ours.items():
            judged[judge] = {"distance": [score.value, score.stderr]}
            for name, rival in rivals.items():
                minus = score.minus(self.scores(rival, solver, seed, self.options.n)[judge])
                judged[judge][name] = [minus.difference, minus.stderr]
        beside = [len(rivals[f"placed {side}"].times) for side in ("below", "above")]
        return {"mflop": mflop, "rule": plan.rule, "setting": plan.setting, "judged": judged, "placed steps": beside}

    def mflop(self, plan: Plan, solver: str) -> float:
        flops = {name: 1e6 * v for name, v in self.answers[f"{self.place}/costs"]["mflop"].items()}
        return float(field.schedule_of(plan.times, plan.assignment, flops, solver=solver).mflop or 0.0)

    # --- samples and what judges say of them --------------------------------------------------------------------------

    def scores(self, plan: Plan, solver: str, seed: int, n: int) -> dict[str, JudgeScore]:
        """By every judge.  Samples are kept as uint8, so that another judge needs no new ones."""
        asked = json.dumps([plan.times, plan.assignment, solver, seed, n])
        key = hashlib.sha256(asked.encode()).hexdigest()[:16]
        if key not in self._scores:
            file, pixels = self.work / self.place / f"{key}.safetensors", self.subject.data.pixel_range
            if not file.exists():
                schedule = pw.HybridSchedule(plan.times, plan.assignment, solver)
                images = to_uint8(self.subject.samples(schedule, n, seed), pixels)
                write_bytes(file, save({"samples": images}, {"asked": asked}))
            images = read_tensors(file)[0]["samples"].float() / 255 * (pixels[1] - pixels[0]) + pixels[0]
            self._scores[key] = self.subject.judged(images, seed)
        return self._scores[key]

    @cached_property
    def _scores(self) -> dict[str, dict[str, JudgeScore]]:
        return {}

    # --- rows ---------------------------------------------------------------------------------------------------------

    def plans(self, solver: str) -> list[Plan]:
        """Every row for one solver, the most telling first."""
        o, names = self.options, list(self.subject.members)
        first = o.steps[0]
        fewer = range(first - 1, 2, -1)
        found = [even(k) for k in o.steps] + [self.placed(solver, k) for k in fewer] + small_networks(names, first)
        for steps in o.steps:
            found += [*fixed_caches(names, self.kept, steps), *self.calibrated(solver, steps)]
        return found + [even(k) for k in fewer]

    def placed(self, solver: str, steps: int) -> Plan:
        """The whole network on the best grid of so many steps that is known."""
        times = PLACED.get((self.options.pretrained, solver, steps)) or pw.time_grid(steps, t_min=T_MIN)
        return Plan("whole", f"placed {steps}", times, (WHOLE,) * steps)

    def grids(self, solver: str) -> dict[str, tuple[float, ...]]:
        """The placed grids that rows are held against."""
        return {str(k): self.placed(solver, k).times for k in range(2, self.options.steps[0] + 1)}

    def calibrated(self, solver: str, steps: int) -> Iterator[Plan]:
        row, kept = self.answers[f"{self.place}/signals/{solver}/{steps}"], f"{self.kept} held"
        times = pw.time_grid(steps)
        changes = field_signals.Changes.from_dict(row["changes"])
        errors = np.array([[float("inf") if e is None else e for e in line] for line in row["errors"]])
        tea, sea, mag = field.rescaled(changes), changes.filtered.tolist(), changes.ratios.tolist()
        rules = {
            "TeaCache": lambda h: field.accumulated_mask(tea, h),
            "SeaCache": lambda h: field.accumulated_mask(sea, h),
            "MagCache": lambda h: field.magnitude_mask(mag, h),
        }
        for count in self.options.computed:
            for name, rule in rules.items():
                mask = field.by_threshold(rule, count)[1]
                yield Plan(name, f"{sum(mask)} of {steps}", times, field.masked(times, WHOLE, kept, mask))
            mask = field.minimax_mask(errors, count)
            yield Plan("LeMiCa", f"{count} of {steps}", times, field.masked(times, WHOLE, kept, mask))

    def best_of_search(self, solver: str) -> list[Plan]:
        """The best of the random search at half and at two thirds of the whole network's cost."""
        row = self.answers[f"{self.place}/search/{solver}"]
        times, most = pw.time_grid(self.options.steps[0]), self.mflop(even(self.options.steps[0]), solver)
        best = {}
        for share in (0.5, 2 / 3):
            within = [r for r in row["found"] if r["mflop"] <= share * most]
            if within:
                best[round(share * most)] = min(within, key=lambda r: r["fid"])
        return [Plan("random search", f"up to {k} MFLOP", times, tuple(r["assignment"])) for k, r in best.items()]

    # --- shown --------------------------------------------------------------------------------------------------------

    def tables(self, answers: Answers) -> dict[str, str]:
        marks = dict.fromkeys("/".join(name.split("/")[:4]) for name in answers if "/judged/" in name)
        found = dict[str, str]()
        for mark in marks:
            name = mark.replace("/judged", "").replace("/", " ")
            found |= {name: table(mark, answers), f"{name} placed": rivals_table(mark, answers)}
        places = [name.removesuffix("/costs") for name in answers if name.endswith("/costs")]
        return {**found, **{f"{place} members": costs_table(answers[f"{place}/costs"]) for place in places}}


def even(steps: int) -> Plan:
    """The whole network at every step of an even grid."""
    return Plan("whole", f"even {steps}", pw.time_grid(steps), (WHOLE,) * steps)


def fits(assignment: Sequence[str]) -> bool:
    """Whether what is kept was computed before."""
    return all(" held" not in name or WHOLE in assignment[:k] for k, name in enumerate(assignment))


def small_networks(names: Sequence[str], steps: int) -> list[Plan]:
    """A cheap network early, or late."""
    times, found = pw.time_grid(steps), []
    for small in (n for n in names if n in ("coarse", "small") or n.startswith("window")):
        for fraction in (0.25, 0.5, 0.75):
            count = f"{small} {round(fraction * steps)} of {steps}"
            early = "FlexiDiT" if small == "coarse" else "T-Stitch"
            found.append(Plan(early, count, times, baselines.t_stitch(times, small, WHOLE, fraction)))
            found.append(Plan("SRDiffusion", count, times, field.large_first(times, WHOLE, small, fraction)))
    return found


def fixed_caches(names: Sequence[str], part: str, steps: int) -> list[Plan]:
    """Caches that need no measuring."""
    times, found = pw.time_grid(steps), []
    deep = "DeepCache" if part == "level1" else "FORA"
    for interval in (2, 3):
        every = f"every {interval} of {steps}"
        held = f"{part} held" if part == "level1" else "attention held"
        found.append(Plan(deep, every, times, field.at_intervals(times, WHOLE, held, interval)))
        for order in (1, 2):
            kept = f"{part} {ORDERS[order]}"
            assignment = field.at_intervals(times, WHOLE, kept, interval, warm_up=order + 1)
            found.append(Plan("TaylorSeer", f"order {order} {every}", times, assignment))
        for answer in ("eps held", "velocity held", "mean line"):
            if answer in names:
                found.append(
                    Plan("skipping", f"{answer} {every}", times, field.at_intervals(times, WHOLE, answer, interval))
                )
        if "rear held" in names:
            found.append(
                Plan("Delta-DiT", every, times, field.delta_dit(times, WHOLE, "rear held", "front held", interval))
            )
    if steps in (4, 6) or steps >= 8:
        inner = f"{part} held" if part == "level1" else "inner held"
        for policy in ("medium", "fast"):
            mask = field.cache_dit_mask(steps, policy)
            found.append(Plan("cache-dit", f"{policy} of {steps}", times, field.masked(times, WHOLE, inner, mask)))
    return found


# --- members ----------------------------------------------------------------------------------------------------------


def unet_members(members: Mapping[str, Denoiser]) -> dict[str, Denoiser]:
    """The set's global networks, the largest one with its deep levels kept, and its answer kept."""
    found = {name: members[name] for name in (WHOLE, "coarse", "small") if name in members}
    whole = found[WHOLE]
    found |= {f"level1 {how}": ReusedFeatures(whole, "level1", order) for order, how in enumerate(ORDERS)}
    return found | answers_kept(whole)


def transformer_members(folder: str | Path, windows: str | Path | None = None) -> dict[str, Denoiser]:
    """Whole, windows of attention, and everything of it that caches keep: all of a transformer's useful members.

    ``folder``: of :func:`phasewise.save_denoiser`; ``windows``: of the same one tuned for windows; without, its own
    weights.
    """
    whole = pw.load_denoiser(folder)
    narrow = whole if windows is None else pw.load_denoiser(windows)
    if not isinstance(whole, DiTDenoiser) or not isinstance(narrow, DiTDenoiser):
        raise pw.PhasewiseError(f"{folder} holds a {type(whole).__name__}; give a transformer (DiTDenoiser)")
    depth = whole.depth
    parts = {"blocks": f"blocks/0:{depth}", "inner": f"blocks/1:{depth}", "attention": "attention",
             "perceptron": "perceptron"}  # fmt: skip
    found: dict[str, Denoiser] = {WHOLE: whole, **{f"window {w}": narrow.windowed(w) for w in (2, 1)}}
    for name, part in parts.items():
        found |= {f"{name} {how}": ReusedFeatures(whole, part, order) for order, how in enumerate(ORDERS)}
    found["front held"] = ReusedFeatures(whole, f"blocks/0:{depth // 2}")
    found["rear held"] = ReusedFeatures(whole, f"blocks/{depth // 2}:{depth}")
    return found | answers_kept(whole)


def answers_kept(whole: Denoiser) -> dict[str, Denoiser]:
    """The whole network's answer, held as noise or as velocity, or carried on along the line."""
    shape, path = whole.image_shape, whole.path
    return {
        "eps held": ReusedAnswer(shape, 0, quantity="eps", path=path),
        "velocity held": ReusedAnswer(shape, 0, quantity="v", path=path),
        "mean line": ReusedAnswer(shape, 1, path=path),
    }


# --- tables -----------------------------------------------------------------------------------------------------------


def table(mark: str, answers: Answers) -> str:
    """One solver and number of samples, by falling cost: what it costs, and how it compares with the whole network."""
    place, _, solver, n = mark.split("/")
    rows, costs = judged_rows(mark, answers), answers[f"{place}/costs"]["ms"]
    heads = ["rule", "set to", "MFLOP", *(f"ms, batch {b}" for b in costs)]
    for judge in rows[0]["judged"]:
        heads += [judge, "minus whole"]
    shown = []
    for row in rows:
        ms = [f"{sum(times[name] for name in row['asked']['assignment']):.3g}" for times in costs.values()]
        cells = [row["rule"], row["setting"], f"{row['mflop']:.0f}", *ms]
        for found in row["judged"].values():
            cells += ["{:.3g} ± {:.2g}".format(*found["distance"]), "{:+.2g} ± {:.2g}".format(*found["whole"])]
        shown.append(cells)
    return markdown(heads, shown, f"{n} samples each from the same noise, {solver}; differences are paired.")


def rivals_table(mark: str, answers: Answers) -> str:
    """The same rows beside the whole network's placed steps of the next lower and the next higher cost."""
    rows = [row for row in judged_rows(mark, answers) if row["rule"] != "whole"]
    heads = ["rule", "set to", "MFLOP", "placed steps"]
    for judge in rows[0]["judged"] if rows else ():
        heads += [f"{judge}: minus the fewer", "minus the more"]
    shown = []
    for row in rows:
        cells = [row["rule"], row["setting"], f"{row['mflop']:.0f}", " and ".join(map(str, row["placed steps"]))]
        for found in row["judged"].values():
            cells += ["{:+.2g} ± {:.2g}".format(*found[side]) for side in ("placed below", "placed above")]
        shown.append(cells)
    return markdown(
        heads, shown, "Above 0: placed steps are better.  The fewer cost less than the rule, the more more."
    )


def judged_rows(mark: str, answers: Answers) -> list[dict[str, Any]]:
    rows = [row for name, row in answers.items() if name.startswith(f"{mark}/")]
    return sorted(rows, key=lambda r: (-r["mflop"], r["rule"], r["asked"]["seed"]))


def costs_table(row: Mapping[str, Any]) -> str:
    """What a call of each member costs."""
    ms = row["ms"]
    heads = ["member", "MFLOP", *(f"ms an image, batch {b}" for b in ms)]
    rows = [[name, f"{v:.3g}", *(f"{ms[b][name]:.3g}" for b in ms)] for name, v in row["mflop"].items()]
    return markdown(heads, rows, "All timed in turn on one thread of a busy machine: compare within a column.")
