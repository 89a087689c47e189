"""Members, judges and noise of one set and one kind of global network on one device.

At t = 1 the posterior mean is the mean image whoever is asked, so the first step is a closed form's, each pixel by
itself, and next to free, for hybrids and rivals alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import DiTDenoiser
from phasewise.metrics import ClassifierFeatures, FeatureNetwork, FrechetReference, SlicedReference, frechet_score
from phasewise.metrics.frechet import frechet_draws
from phasewise.results import PriceList
from phasewise.sampling.loop import integrate
from phasewise.scheduling import prices_at, schedule_from_assignment
from phasewise.seeding import mix
from studies.gpu.judges import Borrowed
from studies.gpu.kept import Kept
from studies.gpu.looks import PIXELS, REAL, SAMPLES, SEED, looks, pixels_of
from studies.gpu.place import JUDGES, Place
from studies.gpu.sizes import FrontSize
from studies.gpu.training import windows_of

Plan = pw.HybridSchedule
REFERENCE = {"unet": "global", "dit": "dit"}
WIDE = {"unet": ("global", "small", "coarse"), "dit": ("dit", "dit-coarse")}
"""By kind: the networks that see the whole image, the reference first."""
START = "pixel"
PRICED = (0.97, 0.015)
"""After t = 1: the first and the last time that members are priced at."""
PENALTIES = ("frechet", "w2", "flow", "kl")


def grid_of(steps: int, high: float, low: float, bend: float) -> tuple[float, ...]:
    """t_1 = 1, then ``low + (high - low) u^bend`` with u from 1 to 0 over the other steps."""
    u = np.linspace(1, 0, steps - 1)
    return (1.0, *(float(low + (high - low) * v**bend) for v in u))


class Bench:
    """What plans are made of and judged by; every answer is kept as soon as it is there."""

    def __init__(self, place: Place, name: str, kind: str, how: FrontSize) -> None:
        self.place, self.name, self.kind, self.how = place, name, kind, how
        data = place.images(name)
        self.data = replace(data, validation=data.validation.to(place.device))
        self.reference = REFERENCE[kind]
        self.batch = how.batch or max(1_000_000 // int(np.prod(data.image_shape)), 100)
        networks = [place.folder(name, n) for n in (*self._networks(), *JUDGES.values())]
        files = [f for folder in networks for f in sorted(folder.glob("*.safetensors"))]
        about = repr((self.batch, place.device, place.in_half))  # the rest is asked with every answer
        self.kept = Kept(place.folder(name, f"front-{kind}"), [about, *files])

    def _networks(self) -> list[str]:
        """Folders of the networks that are there."""
        served = ["dit-windows"] if self.kind == "dit" else []
        locals_ = sorted((f.name for f in (self.place.work / self.name).glob("r[0-9]*")), key=lambda n: int(n[1:]))
        names = [*WIDE[self.kind], *served, *locals_]
        return [n for n in names if (self.place.folder(self.name, n) / "config.json").exists()]

    @cached_property
    def members(self) -> dict[str, pw.Denoiser]:
        found: dict[str, pw.Denoiser] = {}
        for name in self._networks():
            network = self.place.network(self.name, name)
            if name == "dit-windows":
                assert isinstance(network, DiTDenoiser)
                found |= {f"window{w}": network.windowed(w) for w in windows_of(self.place) if w is not None}
            else:
                found[name] = network
        images = self.data.train[:20_000]
        rank = 16 if self.place.quick else None
        found["wiener"] = pw.WienerDenoiser.fit(images, rank=rank).to(self.place.device)
        return {**found, START: pw.PixelDenoiser.fit(images).to(self.place.device)}

    @cached_property
    def judges(self) -> dict[str, FeatureNetwork]:
        found = {k: ClassifierFeatures.load(self.place.folder(self.name, v)) for k, v in JUDGES.items()}
        shape = self.data.image_shape
        fit = {k: j if j.image_shape == shape else Borrowed(j, shape[1]) for k, j in found.items()}
        return {k: judge.to(self.place.device) for k, judge in fit.items()}

    @cached_property
    def moments(self) -> dict[str, FrechetReference]:
        return {k: FrechetReference.of_images(self.data.train, j) for k, j in self.judges.items()}

    @cached_property
    def prices(self) -> PriceList:
        n, steps = self.how.prices

        def measured() -> dict[str, Any]:
            times = grid_of(steps, *PRICED, 1.3)
            seen = self.judges["seen"]
            found = pw.price_list(
                self.members, self.data, times, reference=self.reference, n=n, batch=self.how.batch or 64, seed=3,
                features=seen,
            )  # fmt: skip
            return found.to_dict()

        return PriceList.from_dict(self.kept({"prices": [n, steps]}, measured))

    @cached_property
    def mflop(self) -> dict[str, float]:
        return {n: float(f) / 1e6 for n, f in zip(self.prices.names, self.prices.flops, strict=True)}

    @cached_property
    def wide(self) -> list[str]:
        """Networks that see the whole image, the cheapest first."""
        return sorted((n for n in self.members if n in WIDE[self.kind]), key=self.mflop.__getitem__)

    def is_local(self, name: str) -> bool:
        """Whether a member sees a window alone: a local network, or attention within one."""
        return name not in (*self.wide, "wiener", START)

    def plan(self, times: tuple[float, ...], assignment: tuple[str, ...], solver: str) -> Plan:
        cost = sum(self.mflop[m] for m in assignment)
        return Plan(times, assignment, solver, self.prices.losses.path, mflop=cost)

    def alone(self, network: str, times: tuple[float, ...], solver: str) -> Plan:
        return self.plan(times, (START,) + (network,) * (len(times) - 1), solver)

    def batch_of(self, plan: Plan, size: int, seed: int, first: int = 0) -> Tensor:
        """(size, C, H, W): images from ``first`` on; noise by (seed, first, draw), whatever the schedule."""
        hybrid = pw.HybridDenoiser({k: self.members[k] for k in dict.fromkeys(plan.assignment)}, plan)
        device, count = self.place.device, [0]

        def draw() -> Tensor:
            there = torch.Generator(device).manual_seed(mix(seed, first, count[0]) % 2**62)
            count[0] += 1
            return torch.randn(size, *self.data.image_shape, generator=there, device=device)

        x = draw()
        with torch.inference_mode(), torch.autocast(x.device.type, torch.bfloat16, enabled=self.place.in_half):
            return integrate(hybrid, x, plan.times, plan.solver, noise=draw).clamp(*self.data.pixel_range)

    def samples(self, plan: Plan, n: int, seed: int) -> Iterator[Tensor]:
        for first in range(0, n, self.batch):
            yield self.batch_of(plan, min(self.batch, n - first), seed, first)

    @cached_property
    def pixels(self) -> SlicedReference:
        return SlicedReference.of_images(self.data.train)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """(n, D) by judge, of images on whatever device."""
        return {k: judge.extract(images, batch=1000).double() for k, judge in self.judges.items()}

    def fids(self, plan: Plan) -> dict[str, float]:
        """FID of ``n_first`` samples on the first seed, by judge; and as "pixels" their sliced distance."""

        def judged() -> dict[str, float]:
            images = torch.cat([part.float().cpu() for part in self.samples(plan, self.how.n_first, 0)])
            seen = self.features(images)
            fids = {k: self.moments[k].from_features(v) for k, v in seen.items()}
            return {**fids, "pixels": self.pixels.distance(images)}

        return dict(self.kept({"fids": _about(plan), "n": self.how.n_first}, judged))

    def draws(self, plan: Plan, seed: int) -> dict[str, tuple[float, list[float]]]:
        """By judge: FID of ``n_final`` samples on a seed, and of bootstrap draws, the same rows for every plan."""

        def judged() -> dict[str, Any]:
            parts = [self.features(part.float()) for part in self.samples(plan, self.how.n_final, seed)]
            seen = {k: torch.cat([part[k] for part in parts]) for k in JUDGES}
            found = {k: frechet_draws(v, self.moments[k], seed) for k, v in seen.items()}
            return {k: [value, drawn.tolist()] for k, (value, drawn) in found.items()}

        asked = {"draws": _about(plan), "n": self.how.n_final, "seed": seed}
        return {k: (value, drawn) for k, (value, drawn) in self.kept(asked, judged).items()}

    def looks(self, plan: Plan) -> dict[str, list[float]]:
        """What :func:`studies.gpu.looks.looks` says of a plan's samples, on a seed of their own."""
        n = min(self.how.n_final, SAMPLES)

        def seen() -> dict[str, list[float]]:
            images = torch.cat([part.float() for part in self.samples(plan, n, SEED)])
            return looks(images.cpu(), self.real_pixels, self.features(images), self.real_features)

        asked = {"looks": _about(plan), "n": n, "seed": SEED, "pixels": list(PIXELS)}
        found: dict[str, list[float]] = self.kept(asked, seen)
        return found

    @cached_property
    def real_pixels(self) -> dict[str, float]:
        return pixels_of(self.data.train[:REAL])

    @cached_property
    def real_features(self) -> dict[str, Tensor]:
        return self.features(self.data.train[:REAL])

    @cached_property
    def real(self) -> dict[str, list[float]]:
        """By judge: FID of the test images, its error, their number."""

        def judged(judge: str) -> list[float]:
            score = frechet_score(self.judges[judge].extract(self.data.test), self.moments[judge], seed=0)
            return [score.value, score.stderr, len(self.data.test)]

        return {k: self.kept({"real": k}, partial(judged, k)) for k in self.judges}

    def penalties(self, plan: Plan) -> dict[str, float]:
        prices = prices_at(self.prices, plan.times)
        return {
            p: float(schedule_from_assignment(prices, plan.assignment, penalty=p, solver=plan.solver).penalty or 0.0)
            for p in PENALTIES
        }


def shown(plan: Plan) -> dict[str, Any]:
    """A plan as JSON, and what it costs."""
    return {**_about(plan), "mflop": plan.mflop}


def _about(plan: Plan) -> dict[str, Any]:
    return {
        "times": [round(t, 6) for t in plan.times], "assignment": list(plan.assignment), "solver": plan.solver,
    }  # fmt: skip


def plan_of(bench: Bench, row: Mapping[str, Any]) -> Plan:
    """What :func:`shown` wrote of one."""
    return bench.plan(tuple(row["times"]), tuple(row["assignment"]), row["solver"])
