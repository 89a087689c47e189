"""When in time does guidance pay? The schedule of {guided, plain} says, samples judge, at equal numbers of calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import phasewise as pw
from phasewise.bridges.diffusers import read_folder
from phasewise.errors import PhasewiseError
from phasewise.metrics import frechet_difference, frechet_score
from phasewise.metrics.paired import paired_difference_test
from phasewise.results import PriceList
from phasewise.scheduling import baselines, schedule_from_assignment
from studies import subject
from studies.options import choice
from studies.pages import markdown
from studies.study import Answers, Cell, Study

TINY = "tiny"
"""An untrained network in place of a folder: for the quick form, never an answer."""
HYBRID, EVERYWHERE, NOWHERE = "schedule", "guided everywhere", "guided nowhere"
UNIT = (-1.0, 1.0)
"""Black and white as networks of diffusers know them; images and features here are 0 to 1."""


@dataclass(frozen=True)
class Options:
    model: str = choice("runs/studies/guests/transformer", "pipeline folder with classes, a label for none", quick=TINY)
    data: str = choice("mnist", "its images, 28x28, with labels", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds them")
    scale: float = choice(4.0, "of the guidance")
    steps: int = choice(12, "of the time grid", quick=4)
    solver: str = choice("exp_ab2", "of all samples")
    budgets: tuple[float, ...] = choice((0.75,), "of the calls of guidance everywhere", quick=(0.75,))
    price_n: int = choice(400, "validation images of the price list", quick=8)
    n: int = choice(1200, "samples of each schedule", quick=10)
    grid_n: int = choice(300, "samples of each interval of the grid search", quick=10)
    seed: int = choice(1, "of noise")


class Guidance(Study[Options]):
    """Members: the network guided by its label, two calls, and the same one unguided, one call.  The price list says at
    each time how far the unguided answers lie from the guided ones in the features of the shipped MNIST classifier.
    Rivals of equal cost: guidance everywhere with fewer steps, and every unbroken interval of as many guided steps.
    FID, and the share of samples in which the classifier sees the label asked for, paired with the schedule's."""

    name = "guidance"
    question = "When in sampling does guidance without a classifier pay for its second call?"
    options_type = Options
    page = "results/guidance.md"

    @cached_property
    def members(self) -> dict[str, pw.Denoiser]:
        plain = read_folder(self.folder, pixel_range=UNIT)
        return {"guided": pw.GuidedDenoiser(plain, self.options.scale), "plain": plain}

    @cached_property
    def folder(self) -> Path:
        if self.options.model != TINY:
            if not Path(self.options.model).is_dir():
                raise PhasewiseError(
                    f"there is no folder {self.options.model}; give --model DIR, or make one: python -m studies guests"
                )
            return Path(self.options.model)
        from studies.guests.fixtures import make_transformer, save_folder

        torch.manual_seed(0)
        net = make_transformer((1, 28, 28), TINY)
        for weight in net.parameters():  # its last layer begins at 0, which no condition moves
            torch.nn.init.normal_(weight, std=0.1)
        return save_folder("transformer", net.eval(), self.work / TINY)

    @cached_property
    def judge(self) -> tuple[Any, Any]:
        """Features of 0 to 1 pixels, a classifier too, and moments of the training images."""
        ready = pw.load_pretrained("mnist")
        return ready.features(), ready.reference_moments()

    @cached_property
    def seen(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By name of the plan: features (n, D) of its samples, and whether each shows its label (n,)."""
        return {}

    def cells(self) -> Iterator[Cell]:
        o = self.options
        about = {"model": o.model, "data": o.data, "scale": o.scale, "steps": o.steps}
        yield Cell("prices", {**about, "n": o.price_n})
        prices = PriceList.from_dict(self.answers["prices"]["prices"])
        for budget in o.budgets:
            plans = plans_of(prices, budget, o.solver)
            for name, plan in plans.items():
                n = o.grid_n if name.startswith("interval") else o.n
                asked = {**about, "solver": o.solver, "n": n, "seed": o.seed, "price_n": o.price_n}
                yield Cell(f"budget {budget:g}/{name}", asked, (name, plan, plans[HYBRID], n))

    def measure(self, cell: Cell) -> dict[str, Any]:
        o = self.options
        if cell.name == "prices":
            data = subject.load(o.data, o.data_dir)
            found = pw.price_list(
                self.members, data, pw.time_grid(o.steps), reference="guided", cond="labels", n=o.price_n,
                features=self.judge[0], batch=16,
            )  # fmt: skip
            return {"prices": found.to_dict()}
        _, plan, hybrid, n = cell.what
        features, agrees = (a[:n] for a in self.samples(plan, n))
        base, base_agrees = (a[:n] for a in self.samples(hybrid, n))
        reference = self.judge[1]
        score, minus = frechet_score(features, reference), frechet_difference(features, base, reference)
        test = paired_difference_test(agrees, base_agrees)
        return {
            "fid": [score.value, score.stderr], "minus": [minus.value, minus.stderr],
            "agree": [float(agrees.mean()), float(agrees.std() / n**0.5)], "agree_minus": [test.mean, test.stderr],
            "calls": calls(plan), "mflop": plan.mflop, "times": list(plan.times), "assignment": list(plan.assignment),
        }  # fmt: skip

    def samples(self, plan: pw.HybridSchedule, n: int) -> tuple[Tensor, Tensor]:
        """At least ``n`` of them, as the judge sees them."""
        key = repr((plan.times, plan.assignment))
        if len(self.seen.get(key, (torch.zeros(0),))[0]) < n:
            labels = torch.arange(n) % 10
            images = pw.sample(pw.HybridDenoiser(self.members, plan), n, seed=self.options.seed, cond=labels).clamp(
                0, 1
            )
            features = self.judge[0]
            shown = features.probabilities(images).argmax(1) == labels
            self.seen[key] = features.extract(images), shown.double()
        return self.seen[key]

    def tables(self, answers: Answers) -> dict[str, str]:
        found = {"prices": prices_table(answers["prices"]), "front": front_table(answers, self.options.solver)}
        judged = {name: row for name, row in answers.items() if name != "prices"}
        return found | {"judged": judged_table(judged)} if judged else found


def plans_of(prices: PriceList, budget: float, solver: str) -> dict[str, pw.HybridSchedule]:
    """The schedule first, then its rivals of as many calls, then guidance everywhere and nowhere on the whole grid."""
    times = tuple(prices.times)
    best = pw.optimise_schedule(prices, budget, penalty="frechet", solver=solver)
    plans = {HYBRID: best, f"{EVERYWHERE}, fewer steps": baselines.fewer_steps(prices, float(best.mflop or 0), solver)}
    for name, member in ((EVERYWHERE, "guided"), (NOWHERE, "plain")):
        plans[name] = schedule_from_assignment(prices, (member,) * len(times), penalty="frechet", solver=solver)
    count = best.assignment.count("guided")
    for first in range(len(times) - count + 1) if count else ():
        inside = (times[first + count - 1], times[first])
        if inside[0] < inside[1]:
            assignment = baselines.window(times, inside, "guided", "plain")
            plan = schedule_from_assignment(prices, assignment, penalty="frechet", solver=solver)
            plans[f"interval from step {first}"] = plan
    return plans


def calls(plan: pw.HybridSchedule) -> int:
    return sum(2 if name == "guided" else 1 for name in plan.assignment)


def spans(times: Sequence[float], assignment: Sequence[str]) -> str:
    """Noise times from the start of the first guided step of each run to its end."""
    steps = list(zip(pairwise((*times, 0.0)), assignment, strict=True))
    runs: list[list[float]] = []
    for (start, end), name in steps:
        if name == "guided":
            if runs and runs[-1][1] == start:
                runs[-1][1] = end
            else:
                runs.append([start, end])
    return ", ".join(f"{a:.2f} to {b:.2f}" for a, b in runs) or "never"


def prices_table(row: dict[str, Any]) -> str:
    prices = PriceList.from_dict(row["prices"])
    value, error = pw.scheduling.step_penalties(prices, "frechet")
    column = prices.names.index("plain")
    rows = [
        [f"{t:.3f}", f"{value[k, column]:.3f} ± {error[k, column]:.3f}", f"{prices.losses.gap[k, column]:+.2f}"]
        for k, t in enumerate(prices.times)
    ]
    note = (
        f"n = {row['asked']['n']} validation images, guidance scale {row['asked']['scale']:g}. The penalty is that of "
        "the step without guidance, in feature units; the gap is the held-out squared error per image beyond that of "
        "the guided answer, below 0 where guidance leads away from the image."
    )
    return markdown(["t", "penalty without guidance", "gap without guidance"], rows, note)


def front_table(answers: Answers, solver: str) -> str:
    prices = PriceList.from_dict(answers["prices"]["prices"])
    front = pw.pareto_front(prices, penalty="frechet", solver=solver)
    rows = []
    for mflop, lost, error, chosen in zip(
        front.mflop, front.penalty, front.penalty_stderr, front.assignments, strict=True
    ):
        guided = spans(prices.times.tolist(), chosen)
        rows.append([str(chosen.count("guided")), f"{mflop:.0f}", f"{lost:.3f} ± {error:.3f}", guided])
    return markdown(["guided steps", "MFLOP", "penalty", "guided, t"], rows, f"Of {len(prices.times)} steps, {solver}.")


def judged_table(answers: Answers) -> str:
    def order(name: str) -> tuple[str, bool, int]:
        budget, _, plan = name.partition("/")
        return budget, plan != HYBRID, -answers[name]["calls"]

    rows = []
    for name in sorted(answers, key=order):
        row, budget = answers[name], name.partition("/")[0]
        own = name.endswith(f"/{HYBRID}")
        minus = ["", ""] if own else [f"{v:+.3f} ± {e:.3f}" for v, e in (row["minus"], row["agree_minus"])]
        rows.append(
            [
                name.removeprefix(f"{budget}/"), budget.split()[1], str(len(row["times"])), str(row["calls"]),
                spans(row["times"], row["assignment"]), f"{row['fid'][0]:.3f} ± {row['fid'][1]:.3f}", minus[0],
                f"{row['agree'][0]:.3f} ± {row['agree'][1]:.3f}", minus[1], str(row["asked"]["n"]),
            ]
        )  # fmt: skip
    head = [
        "guidance", "budget", "steps", "calls", "guided, t", "FID", "minus the schedule's", "label seen",
        "minus the schedule's", "n",
    ]  # fmt: skip
    solver = next(iter(answers.values()))["asked"]["solver"]
    return markdown(head, rows, f"{solver}, the shipped classifier's features; differences are paired, at equal n.")
