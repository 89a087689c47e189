"""What a run is about to train, what a call of each network costs, and about how long all of it takes, beforehand.

FLOPs and the bytes a training step keeps are counted on networks without storage (PyTorch's meta device).  Seconds
follow from a short training step of the networks on this machine; those that there is no time to try are taken at the
speed of the one nearest in FLOPs.  Forward calls count a third of a training step's (the backward pass is twice as
much).  What the feature network and the estimator of CMI take is not in it, and is named.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from phasewise.denoisers import Denoiser
from phasewise.denoisers.card import counted
from phasewise.flops import FORMULAS, as_written
from phasewise.pipeline.conditions import takes_labels
from phasewise.pipeline.teachers import teacher_of
from phasewise.runs.config import RunConfig
from phasewise.runs.members import MEMBER_KINDS, Member
from phasewise.runs.parts import USER_STEPS
from phasewise.sampling import calls_per_step
from phasewise.scheduling import baselines
from phasewise.shapes import ImageShape

TRIAL_S = 1.0
"""Seconds that trying the networks may take in all, about."""
TRIAL_FLOPS = 2e8
"""Size of a tried step: images are added until their calls cost so much."""
SCHEDULES = sum(name != "own" for name in baselines.LABELS)
"""That a run without a model compares."""
REACHED = 20_000
"""Calls on one image that measuring a reach comes to, with gradients and attention."""
BOUNDARY_STEPS = 16
PLACED, PLACED_BY = 7, 300
"""Schedules whose steps are placed, about, and the samples that a judged grid takes at most."""
COPIES = 5
"""Of the weights while training: themselves, gradients, two moments, their average."""
VALIDATIONS, VALIDATED = 20, 1000
"""How often a training looks at held-out images, and at how many."""


@dataclass(frozen=True)
class NetworkCost:
    """One network of a run: FLOPs of a call per image, parameters, bytes that a training step keeps per image.

    ``taken``: the network itself, where it is not trained here but taken as it is.
    """

    member: Member
    flops: float
    parameters: int
    kept: int
    taken: Denoiser | None = None

    @property
    def name(self) -> str:
        return self.member.name


def network_costs(
    config: RunConfig, shape: ImageShape, taken: Mapping[str, Denoiser] | None = None
) -> dict[str, NetworkCost]:
    """By name, for every member that would be trained here, without building any, for a teacher that is taken as the
    global network, and for models that are ``taken`` as they are; images of (C, H, W)."""
    found: dict[str, NetworkCost] = {}
    for member in config.members:
        if taken and member.name in taken:
            found[member.name] = replace(taken_cost(member, taken[member.name]), taken=taken[member.name])
            continue
        build = MEMBER_KINDS[member.kind].build
        if MEMBER_KINDS[member.kind].taken_as_reference and member.source is not None:
            found[member.name] = taken_cost(member, teacher_of(member.source))
        if build is None:
            continue
        with torch.device("meta"):
            network = build(member, shape)
            inputs = torch.zeros(1, *shape), torch.zeros(1)
        kept = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel() * tensor.element_size()
            return tensor

        counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        with as_written(), counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            network.backbone(*inputs)
        parameters = sum(p.numel() for p in network.parameters())
        # the weights are kept too, once for all images: not per image
        own = sum(p.numel() * p.element_size() for p in network.parameters())
        found[member.name] = NetworkCost(member, float(counter.get_total_flops()), parameters, max(kept - own, 0))
    return found


def taken_cost(member: Member, denoiser: Denoiser) -> NetworkCost:
    """Of a denoiser that is here already; one whose operations cannot be counted is taken at two a parameter."""
    parameters = sum(p.numel() for p in denoiser.parameters())
    return NetworkCost(member, counted(denoiser) or 2.0 * max(parameters, 1), parameters, 0)


def is_trained(cost: NetworkCost) -> bool:
    return MEMBER_KINDS[cost.member.kind].build is not None


def _labelled(denoiser: Denoiser) -> Denoiser:
    """Given a class, where it is told one: a call costs the same whatever the label."""
    return denoiser.given(0) if takes_labels([denoiser]) else denoiser


def expensive(costs: dict[str, float], locals_: Iterable[str], reference: str = "global") -> list[str]:
    """Local members of which a call costs as much as one of the reference, or more; ``costs`` in any one unit."""
    return [name for name in locals_ if name in costs and costs[name] >= costs.get(reference, float("inf"))]


def expensive_locals(config: RunConfig, costs: dict[str, NetworkCost]) -> list[str]:
    """One line for every local network that is not worth a place in a schedule."""
    flops = {name: cost.flops for name, cost in costs.items()}
    names = [m.name for m in config.members if MEMBER_KINDS[m.kind].look == "local"]
    return [
        f"{name} costs {100 * flops[name] / flops['global']:.0f} % of a global call on images of this size: trained "
        "for the diagnosis, left out of schedules"
        for name in expensive(flops, names)
    ]


# --- seconds and bytes ----------------------------------------------------------------------------------------------


def seconds_per_image(costs: dict[str, NetworkCost], shape: ImageShape, config: RunConfig) -> dict[str, float]:
    """Seconds of a training step per image and network on the run's device; about TRIAL_S are spent on trying."""
    order = sorted((c for c in costs.values() if is_trained(c) or c.taken is not None), key=lambda c: c.flops)
    tried: dict[str, float] = {}
    started = time.perf_counter()
    for cost in (order[-1], *order[:-1]) if order else ():
        left = TRIAL_S - (time.perf_counter() - started)
        batch = int(min(max(TRIAL_FLOPS / cost.flops, 1), config.train.batch))
        speed = next((costs[name].flops / s for name, s in tried.items()), 0.0)
        # the first is always tried, at least with one image; two steps, one of them to warm up
        if tried and 2 * batch * cost.flops / speed > left:
            continue
        tried[cost.name] = _try(cost, shape, batch, config)
    return {
        cost.name: tried.get(cost.name) or _scaled(cost, {costs[name]: s for name, s in tried.items()})
        for cost in costs.values()
    }


def _scaled(cost: NetworkCost, tried: dict[NetworkCost, float]) -> float:
    nearest = min(tried, key=lambda other: abs(other.flops - cost.flops))
    return tried[nearest] * cost.flops / nearest.flops


def _try(cost: NetworkCost, shape: ImageShape, batch: int, config: RunConfig) -> float:
    """Seconds per image of a forward and a backward pass; of a network that is taken, three times a forward one."""
    build, taken = MEMBER_KINDS[cost.member.kind].build, cost.taken
    with torch.random.fork_rng(devices=[]):  # the caller's random state is left alone
        x = torch.randn(batch, *shape).to(config.machine.device)
        if taken is None:
            assert build is not None
            network: Denoiser = build(cost.member, shape).to(config.machine.device)
        else:
            network = _labelled(taken.to(config.machine.device))
    times = torch.full((batch,), 0.5, device=x.device)

    def step() -> float:
        started = time.perf_counter()
        if taken is not None:
            with torch.inference_mode():
                float(network(x, times).sum())
            return 3 * (time.perf_counter() - started)
        float(network(x, times).square().mean().backward() or 0.0)
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        return time.perf_counter() - started

    first = step()
    # the first warms up, and the faster of two is the less disturbed by others; a long one is not repeated
    return (first if first > TRIAL_S else min(step(), step())) / batch


@dataclass(frozen=True)
class RunEstimate:
    """About how long a run takes and what memory: seconds by what they go into, bytes at the most."""

    training: dict[str, float]
    rest: float
    memory: float
    not_counted: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return sum(self.training.values()) + self.rest


def estimate_run(
    config: RunConfig, shape: ImageShape, n_train: int, stages: Iterable[str], costs: dict[str, NetworkCost]
) -> RunEstimate:
    """For the named stages that are still to do, on ``n_train`` training images of ``shape`` (C, H, W)."""
    todo, per_image = set(stages), seconds_per_image(costs, shape, config)
    trained = [c for c in costs.values() if f"train-{c.name}" in todo and is_trained(c)]
    forward = {name: s / 3 for name, s in per_image.items()}
    # a teacher answers once for all who learn from it for as long
    pupils = Counter((c.member.teacher, c.member.epochs) for c in trained)
    training = {}
    for c in trained:
        seen, taught = n_train * float(c.member.epochs or 0), c.member.teacher
        training[c.name] = per_image[c.name] * (seen + VALIDATIONS * VALIDATED / 3)
        training[c.name] += forward.get(taught or "", 0.0) * seen / pupils[taught, c.member.epochs]
    everyone, steps = sum(forward.values()), sum(calls_per_step(config.grid.solver, config.grid.steps))
    rest = 0.0
    if "diagnose" in todo:
        rest += config.diagnose.n_losses * len(config.diagnose.times) * everyone
    if "reach" in todo:
        rest += REACHED * forward["global"]
    if "symmetry" in todo:
        rest += clone_calls(config) * forward["global"]
    if "boundary" in todo:
        rest += config.diagnose.n_losses * BOUNDARY_STEPS * everyone
    if "recovery" in todo:
        rest += config.recovery.n_recovery * len(config.recovery.recovery_times) * steps * everyone
    if "schedule" in todo:
        rest += config.diagnose.n_losses * config.grid.steps * everyone
        rest += placing_calls(config, steps) * forward["global"]
    if "evaluate" in todo:  # each schedule taken at the hybrid's budget: some cost more, some less
        calls = SCHEDULES * config.schedule.budget * steps
        if config.train.model:
            # the all-global one, two or three cheaper ones, and the user's own
            calls = 3 * steps + float(config.schedule.user_steps or USER_STEPS)
        rest += calls * config.evaluate.n_samples * forward["global"]
    grown = max((c.kept * config.train.batch + COPIES * 4 * c.parameters for c in trained), default=0)
    grown += sum(4 * c.parameters for c in costs.values() if c.taken is not None)
    # ru_maxrss is in kilobytes, on macOS in bytes
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    left = {"features": "the feature network", "cmi": "conditional mutual information"}
    return RunEstimate(training, rest, now + grown, tuple(said for name, said in left.items() if name in todo))


def clone_calls(config: RunConfig) -> float:
    """Calls of the global network on one image that cloning comes to."""
    asked = config.symmetry
    return 2.0 * asked.images * len(asked.times) * asked.steps


def placing_calls(config: RunConfig, steps: float) -> float:
    """Calls of the global network on one image that placing comes to, each schedule taken at the hybrid's budget."""
    n = min(PLACED_BY, config.evaluate.n_samples)
    return PLACED * (config.schedule.grids and config.schedule.grids + 2) * n * config.schedule.budget * steps


def estimate_in_words(found: RunEstimate, costs: dict[str, NetworkCost]) -> list[str]:
    """What will be trained, about how long everything takes, and what memory."""
    lines = [
        f"{name}: {costs[name].parameters:,} parameters, {costs[name].flops / 1e6:.3g} MFLOP a call, "
        f"about {duration(seconds)}"
        for name, seconds in found.training.items()
    ]
    lines += [
        f"{name}: {cost.parameters:,} parameters, {cost.flops / 1e6:.3g} MFLOP a call, taken as it is"
        for name, cost in costs.items()
        if cost.taken is not None
    ]
    whole = f"in all about {duration(found.seconds)} on this machine and {found.memory / 2**30:.1f} GiB of memory"
    whole += f"; not counted: {', '.join(found.not_counted)}" if found.not_counted else ""
    return [*lines, whole]


def duration(seconds: float) -> str:
    """In the largest unit that gives a number above 1, to two digits at most."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{max(seconds, 1):.2g} s" if seconds < 99.5 else f"{seconds:.0f} s"
