"""The study: exact gaps of every radius; the cheapest hybrid against the cheapest global-only schedule, by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from phasewise.exact import TorusField
from phasewise.paths import LinearPath
from studies.options import choice
from studies.resolution.costs import NETWORKS
from studies.resolution.law import Law, Seen, candidates
from studies.resolution.search import Plan, Search
from studies.resolution.show import figure, saving_table, window_table
from studies.study import Answers, Cell, Study

RADII = (1, 2, 3, 5, 8, 12, 16, 24, 32)
FIELDS = ("scaling", "fixed")
SPAN = (-14.0, 10.0)
"""Log-SNR at which gaps are measured, from and to."""
EXTRA = 6
"""So many more steps than the reference a hybrid may take; in steps of two."""
DETAIL = 3
"""How finely modes are seen while schedules are searched (:class:`Law`); every result is checked on all of them."""


@dataclass(frozen=True)
class Options:
    sides: tuple[int, ...] = choice((32, 64, 128, 256), "of the fields, pixels", quick=(8, 16))
    length: float = choice(
        10.0, "correlation length at the least side, pixels; there both fields are the same", quick=3
    )
    steps: tuple[int, ...] = choice((6, 12), "of the global reference, whose error is the measure", quick=(3,))
    slack: float = choice(0.05, "more error than the reference's that is allowed")
    measures: tuple[str, ...] = choice(("frechet", "kl"), "distances between laws", quick=("frechet",))
    solvers: tuple[str, ...] = choice(
        ("exp_ab2", "ddim", "sde_dpmpp_2m", "ancestral"), "to choose from", quick=("exp_ab2",)
    )


class Resolution(Study[Options]):
    """Gaussian fields on a torus, unit variance, in two kinds: *scaling*, whose correlation length is the same share of
    every side (the same picture at more pixels), and *fixed*, whose length is the same number of pixels.  All denoisers
    are exact, windows close round the torus, and a linear sampler's law is known in every Fourier mode: nothing is
    trained and nothing drawn.  The reference is the global denoiser in so many best placed steps of the best solver.
    The rival is the cheapest global-only schedule, any solver, own grid, of at most 5 % more error; the hybrid the
    cheapest of global and local steps within the same bound.  Costs are FLOPs a pixel of our networks; the first call,
    at t = 1, is a constant and free for all."""

    name = "resolution"
    question = "How does the saving move with the side of the image, where every optimum is known?"
    page = "results/resolution.md"
    options_type = Options

    def cells(self) -> Iterator[Cell]:
        o = self.options
        for side in o.sides:
            for kind in FIELDS:
                length = o.length * (side / min(o.sides) if kind == "scaling" else 1)
                asked = {
                    "side": side,
                    "length": length,
                    "steps": o.steps,
                    "slack": o.slack,
                    "measures": o.measures,
                    "solvers": o.solvers,
                }
                yield Cell(f"{kind}/{side}", asked, TorusField(side, 1 / length))

    def measure(self, cell: Cell) -> dict[str, Any]:
        field: TorusField = cell.what
        # at the least side both kinds are one field
        for other in self.answers.values():
            if other["asked"] == {k: list(v) if isinstance(v, tuple) else v for k, v in cell.asked.items()}:
                return {key: value for key, value in other.items() if key not in ("cell", "asked")}
        radii = tuple(r for r in RADII if 2 * r + 1 <= field.side)
        prices = {
            name: [network.whole(field.side), *(network.partner(r, field.side) for r in radii)]
            for name, network in NETWORKS.items()
        }
        found = savings(field, (None, *radii), prices, self.options)
        return {"radii": radii, "gaps": gaps(field, radii), "savings": found}

    def tables(self, answers: Answers) -> dict[str, str]:
        return {"saving": saving_table(answers), "window": window_table(answers)}

    def figures(self, answers: Answers) -> dict[str, bytes]:
        return {"resolution.png": figure(answers)}


def savings(
    field: TorusField, members: tuple[Seen, ...], prices: dict[str, list[float]], asked: Options
) -> list[dict[str, Any]]:
    """By measure, error and network: the cheapest global-only schedule, and the cheapest of all members, the first of
    which is the global one; ``prices`` of a call of each by network, infinite where it has none."""
    law, whole = Law(field, members, DETAIL), Law(field, members)
    found = []
    for measure in asked.measures:
        search, check = Search(law, measure), Search(whole, measure)
        for steps in asked.steps:
            reference = min((check.seen(search.global_only(s, steps)) for s in asked.solvers), key=lambda p: p.error)
            bound = (1 + asked.slack) * reference.error
            fewer = [check.seen(search.global_only(s, n)) for s in asked.solvers for n in range(2, steps + 1)]
            rival = min((p for p in fewer if p.error <= bound), key=lambda p: (len(p.times), p.error))
            each = [p for own in prices.values() for p in hybrids(search, check, steps, own, bound, asked.solvers)]
            for name, price in prices.items():
                hybrid = min([rival, *each], key=lambda p: p.cost(price))  # found for whichever network
                found.append(
                    {
                        "measure": measure,
                        "steps": steps,
                        "network": name,
                        "bound": bound,
                        "rival": shown(rival, members, price),
                        "hybrid": shown(hybrid, members, price),
                    }
                )
    return found


def hybrids(
    search: Search, check: Search, steps: int, prices: list[float], bound: float, solvers: tuple[str, ...]
) -> Iterator[Plan]:
    """Within the bound on all modes: global-only schedules and what becomes of them."""
    for solver in solvers:
        for count in range(max(steps - 2, 2), steps + EXTRA + 1, 2):
            start = search.global_only(solver, count)
            aim = bound
            while start.error <= aim:
                found = check.seen(search.cheapened(start, prices, aim))
                if found.error <= bound:
                    yield found
                    break
                aim *= 0.97 * bound / found.error  # the modes searched in are too kind to this one
            if (whole := check.seen(start)).error <= bound:
                yield whole


def gaps(field: TorusField, radii: tuple[int, ...]) -> dict[str, Any]:
    """By log-SNR: the global denoiser's loss a pixel, and every radius' gap as a share of it."""
    log_snr = np.linspace(*SPAN, 97).round(6).tolist()
    times = [float(LinearPath().t_of_log_snr(x)) for x in log_snr]
    loss = [field.mmse(t) for t in times]
    share = {str(r): [field.denoising_gap(t, r) / mse for t, mse in zip(times, loss, strict=True)] for r in radii}
    return {"log_snr": log_snr, "loss": [mse / field.side**2 for mse in loss], "share": share}


def shown(plan: Plan, members: tuple[Seen, ...], prices: list[float]) -> dict[str, Any]:
    """A plan as JSON: by name where it was by place."""
    return {
        "solver": plan.solver,
        "times": [candidates()[p] for p in plan.times],
        "radii": [members[m] for m in plan.members],
        "error": plan.error,
        "cost": plan.cost(prices),
    }
