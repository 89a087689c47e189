"""A job that judges: the front of one set and one kind of global network, rivals on the best grids a search finds.

At t = 1 the posterior mean is the mean image whoever is asked, so the first step is the closed form's, free, for
hybrids and rivals alike.  The grids of the rivals, and of everybody, are

    t_1 = 1,   t_k = low + (high - low) u^bend,   u from 1 to 0 over the other steps

with (high, low, bend) searched for the reference alone, judged on samples of one seed; other seeds judge the finalists.
"""

from __future__ import annotations

import itertools
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import DiTDenoiser
from phasewise.metrics import ClassifierFeatures, FrechetReference, frechet_difference, frechet_score
from phasewise.results import PriceList
from phasewise.sampling.loop import integrate
from phasewise.scheduling import pareto_front, prices_at, schedule_from_assignment
from phasewise.seeding import mix
from studies.gpu.place import Place
from studies.gpu.training import RADII, WINDOWS

SOLVER = "sde_dpmpp_2m"
COUNTS = (3, 4, 5, 6, 7, 8, 10)
SHARES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
Plan = pw.HybridSchedule
Shape = tuple[float, float, float]
"""(high, low, bend) of a grid."""


def grid_of(steps: int, shape: Shape) -> tuple[float, ...]:
    high, low, bend = shape
    u = np.linspace(1, 0, steps - 1)
    return (1.0, *(float(low + (high - low) * v**bend) for v in u))


def front(kind: str, n_first: int, n_final: int, trials: int) -> Callable[[Place, str, str], dict[str, Any]]:
    """The job for the U-Net ("unet") or the transformer ("dit") as the global network."""

    def job(place: Place, name: str, network: str) -> dict[str, Any]:
        torch.backends.cuda.matmul.allow_tf32 = True
        sizes = (24, 32, 2) if place.quick else (n_first, n_final, trials)
        return Bench(place, name, kind, *sizes).run()

    return job


class Bench:
    """Members, judges and noise of one set on one device."""

    def __init__(self, place: Place, name: str, kind: str, n_first: int, n_final: int, trials: int) -> None:
        self.place, self.name, self.kind = place, name, kind
        self.n_first, self.n_final, self.trials = n_first, n_final, trials
        data = place.images(name)
        self.data = replace(data, validation=data.validation.to(place.device))
        self.reference = "global" if kind == "unet" else "dit"
        self.counts: tuple[int, ...] = (3, 4) if place.quick else COUNTS
        self.shares: tuple[float, ...] = (0.5,) if place.quick else SHARES
        self.batch = 50 if place.quick else max(16_000_000 // int(np.prod(data.image_shape)) // 16, 100)
        self.solo: dict[tuple[str, int], Shape] = {}

    @cached_property
    def members(self) -> dict[str, pw.Denoiser]:
        place, side = self.place, self.data.image_shape[1]
        found: dict[str, pw.Denoiser] = {}
        if self.kind == "dit":
            served = place.network(self.name, "dit-windows")
            assert isinstance(served, DiTDenoiser)
            found["dit"] = place.network(self.name, "dit")
            found |= {f"window{w}": served.windowed(w) for w in WINDOWS if w is not None}
            others = ["dit-coarse"]
        else:
            found["global"] = place.network(self.name, "global")
            others = []
        radii = (1, 2) if place.quick else RADII[side]
        for other in (*others, "coarse", "small", *(f"r{r}" for r in radii)):
            if (place.folder(self.name, other) / "config.json").exists():
                found[other] = place.network(self.name, other)
        found["wiener"] = pw.WienerDenoiser.fit(self.data.train[:20_000]).to(place.device)
        return found

    @cached_property
    def judges(self) -> dict[str, ClassifierFeatures]:
        names = {"seen": "judge", "unseen": "judge-unseen"}
        folder = self.place.folder
        return {k: ClassifierFeatures.load(folder(self.name, v)).to(self.place.device) for k, v in names.items()}

    @cached_property
    def moments(self) -> dict[str, FrechetReference]:
        return {k: FrechetReference.of_images(self.data.train, j) for k, j in self.judges.items()}

    @cached_property
    def prices(self) -> PriceList:
        times = grid_of(6 if self.place.quick else 26, (0.97, 0.015, 1.3))
        n = 16 if self.place.quick else 1000
        seen = self.judges["seen"]
        return pw.price_list(self.members, self.data, times, reference=self.reference, n=n, seed=3, features=seen)

    @cached_property
    def mflop(self) -> dict[str, float]:
        return {n: float(f) / 1e6 for n, f in zip(self.prices.names, self.prices.flops, strict=True)}

    @cached_property
    def wide(self) -> list[str]:
        """Networks that see the whole image, the cheapest first."""
        named = [n for n in self.members if n in ("global", "dit", "coarse", "small", "dit-coarse")]
        return sorted(named, key=self.mflop.__getitem__)

    def samples(self, plan: Plan, n: int, seed: int) -> Iterator[Tensor]:
        """Batches of images; noise by (seed, batch, draw), whatever the schedule."""
        hybrid = pw.HybridDenoiser({k: self.members[k] for k in dict.fromkeys(plan.assignment)}, plan)
        low, high = self.data.pixel_range
        for first in range(0, n, self.batch):
            shape = (min(self.batch, n - first), *self.data.image_shape)
            count = [0]

            def draw(first: int = first, shape: tuple[int, ...] = shape, count: list[int] = count) -> Tensor:
                there = torch.Generator(self.place.device).manual_seed(mix(seed, first, count[0]) % 2**62)
                count[0] += 1
                return torch.randn(shape, generator=there, device=self.place.device)

            x = draw()
            with torch.inference_mode():
                yield integrate(hybrid, x, plan.times, plan.solver, noise=draw).clamp(low, high)

    def features(
        self, plan: Plan, n: int, seed: int, judges: tuple[str, ...] = ("seen", "unseen")
    ) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {k: [] for k in judges}
        for images in self.samples(plan, n, seed):
            for k in judges:
                parts[k].append(self.judges[k].extract(images, batch=1000))
        return {k: torch.cat(v) for k, v in parts.items()}

    def plan(self, times: tuple[float, ...], assignment: tuple[str, ...]) -> Plan:
        cost = sum(self.mflop[m] for m in assignment)
        return Plan(times, assignment, SOLVER, self.prices.losses.path, mflop=cost)

    def alone(self, network: str, times: tuple[float, ...]) -> Plan:
        return self.plan(times, ("wiener",) + (network,) * (len(times) - 1))

    def searched(self, network: str, steps: int) -> Shape:
        """The best grid of one network: random trials, then smaller ones round the best."""
        if (network, steps) in self.solo:
            return self.solo[network, steps]
        draw = np.random.default_rng(mix(7, steps, zlib.crc32(network.encode())) % 2**32)
        best: tuple[float, Shape] = (np.inf, (0.85, 0.03, 1.0))
        for trial in range(self.trials):
            if trial == 0:
                shape = best[1]
            elif trial < 0.6 * self.trials:
                shape = tuple(float(draw.uniform(*span)) for span in ((0.6, 0.96), (0.015, 0.16), (0.6, 1.8)))  # type: ignore[assignment]
            else:
                moved = [v * float(np.exp(draw.normal(0, s))) for v, s in zip(best[1], (0.06, 0.25, 0.12), strict=True)]
                shape = (min(moved[0], 0.97), max(moved[1], 0.015), moved[2])
            seen = self.features(self.alone(network, grid_of(steps, shape)), self.n_first, 0, ("seen",))["seen"]
            value = self.moments["seen"].from_features(seen.double())
            best = min(best, (float(value), shape))
        self.solo[network, steps] = best[1]
        return best[1]

    def row(self, family: str, plan: Plan) -> dict[str, Any]:
        seen = self.features(plan, self.n_first, 0)
        fids = {k: float(self.moments[k].from_features(v.double())) for k, v in seen.items()}
        about = {"times": [round(t, 5) for t in plan.times], "assignment": list(plan.assignment)}
        return {"family": family, "mflop": plan.mflop, "fid": fids, "penalty": self.penalties(plan), **about}

    def candidates(self) -> Iterator[tuple[str, Plan]]:
        """(family, plan): one network on its best grids, small then large, hybrids."""
        cost = self.mflop
        for network in self.wide:
            for steps in self.counts:
                if network == self.reference or cost[network] > 0.15 * cost[self.reference]:
                    yield "one network", self.alone(network, grid_of(steps, self.searched(network, steps)))
        for times in self.grids():
            yield from self.stitched(times)
            yield from self.hybrids(times)

    def grids(self) -> Iterator[tuple[float, ...]]:
        """The reference's best of every step count; and, as a hybrid can pay for more steps, those of fewer, finer."""
        for steps in self.counts[1:]:
            yield grid_of(steps, self.searched(self.reference, steps))
            if steps > 4:
                yield grid_of(steps, self.searched(self.reference, steps - 1 if steps < 10 else 8))

    def stitched(self, times: tuple[float, ...]) -> Iterator[tuple[str, Plan]]:
        paid = len(times) - 1
        for small in self.wide[:-1]:
            for count in range(1, paid):
                assignment = ("wiener", *(small,) * count, *(self.reference,) * (paid - count))
                yield "small then large", self.plan(times, assignment)

    def hybrids(self, times: tuple[float, ...]) -> Iterator[tuple[str, Plan]]:
        """What the optimiser chooses, of all members or without cheaper global ones, by two penalties."""
        prices, whole = prices_at(self.prices, times), len(times) * self.mflop[self.reference]
        for penalty, members in itertools.product(("frechet", "w2"), self.mixes()):
            edge = pareto_front(prices, penalty=penalty, solver=SOLVER, members=members)
            for share in self.shares:
                fits = np.flatnonzero(edge.mflop <= share * whole)
                chosen = edge.assignments[int(fits[-1])] if len(fits) else ()
                if len(set(chosen) - {"wiener"}) > 1:
                    yield "hybrid", self.plan(times, ("wiener", *chosen[1:]))

    def mixes(self) -> list[list[str]]:
        """Whom the optimiser may choose from: everybody; and no cheaper network that sees the whole image."""
        every = list(self.members)
        return [every, [n for n in every if n not in self.wide or n == self.reference]]

    def run(self) -> dict[str, Any]:
        start = time.perf_counter()
        plans: dict[Any, tuple[str, Plan]] = {}
        for family, plan in self.candidates():  # what several searches find is judged once, as the first found it
            plans.setdefault((plan.times, plan.assignment), (family, plan))
        rows = [self.row(family, plan) for family, plan in plans.values()]
        finals = self.finals(rows)
        real = {}
        for k, judge in self.judges.items():
            score = frechet_score(judge.extract(self.data.test), self.moments[k], seed=0)
            real[k] = [score.value, score.stderr, len(self.data.test)]
        table = self.prices.losses
        return {
            "kind": self.kind, "n": self.n_first, "n_final": self.n_final, "real": real,
            "judges": {k: j.name for k, j in self.judges.items()}, "mflop": self.mflop, "rows": rows, "finals": finals,
            "grids": {f"{k[0]}/{k[1]}": list(v) for k, v in self.solo.items()}, "prices": self.prices.to_dict(),
            "loss": {n: [float(v) for v in table.loss[:, i]] for i, n in enumerate(table.names)},
            "seconds": time.perf_counter() - start,
        }  # fmt: skip

    def penalties(self, plan: Plan) -> dict[str, float]:
        prices = prices_at(self.prices, plan.times)
        return {
            p: float(schedule_from_assignment(prices, plan.assignment, penalty=p, solver=SOLVER).penalty or 0.0)
            for p in ("frechet", "w2", "flow", "kl")
        }

    def finals(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each family's undominated schedules by either judge, on new seeds, beside the reference's best."""
        chosen: dict[int, dict[str, Any]] = {}
        for family in ("one network", "small then large", "hybrid"):
            own = [r for r in rows if r["family"] == family]
            for judge in self.judges:
                least = min(r["fid"][judge] for r in rows)
                best = np.inf
                for r in sorted(own, key=lambda r: r["mflop"]):
                    if r["fid"][judge] < best:
                        best = r["fid"][judge]
                        if best < 2.0 * least:
                            chosen[id(r)] = r
        alone = [r for r in rows if r["family"] == "one network" and r["assignment"][-1] == self.reference]
        base = min(alone, key=lambda r: sum(r["fid"].values()))
        chosen.setdefault(id(base), base)
        order = sorted(chosen.values(), key=lambda r: (r is not base, r["mflop"]))
        found: list[dict[str, Any]] = []
        against: dict[int, dict[str, Tensor]] = {}
        for r in order:
            plan = self.plan(tuple(r["times"]), tuple(r["assignment"]))
            judged: dict[str, list[list[float]]] = {k: [] for k in self.judges}
            for seed in (1, 2):
                seen = self.features(plan, self.n_final, seed)
                against.setdefault(seed, seen)
                for k, features in seen.items():
                    score = frechet_score(features, self.moments[k], seed=seed)
                    minus = frechet_difference(features, against[seed][k], self.moments[k], seed)
                    judged[k].append([score.value, score.stderr, minus.value, minus.stderr])
            found.append({**r, "reference": r is base, "judged": judged})
        return found
