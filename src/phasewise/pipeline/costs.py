"""What the networks of a run cost before any is built: FLOPs of a call, parameters, bytes that a training step keeps.

Counted on networks without storage (PyTorch's meta device); of networks that are there, on themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from phasewise.denoisers import Denoiser
from phasewise.denoisers.card import counted
from phasewise.flops import FORMULAS, as_written
from phasewise.pipeline.models import is_there
from phasewise.pipeline.teachers import teacher_of
from phasewise.runs.config import RunConfig
from phasewise.runs.members import MEMBER_KINDS, Member
from phasewise.shapes import ImageShape


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
            found[member.name] = taken_cost(member, taken[member.name])
            continue
        build = MEMBER_KINDS[member.kind].build
        if MEMBER_KINDS[member.kind].taken_as_reference and member.source is not None:
            found[member.name] = taken_cost(member, teacher_of(member.source))
        if build is None:
            continue
        with torch.device("meta"):
            network = build(member, shape)
            inputs = torch.zeros(1, *shape), torch.zeros(1)
        # the weights are kept too, once for all images; and what two operations keep is there once
        own, kept = {_place(p) for p in network.parameters()}, dict[int, int]()

        def keep(tensor: Tensor, own: set[int] = own, kept: dict[int, int] = kept) -> Tensor:
            if _place(tensor) not in own:
                kept[_place(tensor)] = tensor.untyped_storage().nbytes()
            return tensor

        counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        with as_written(), counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            network.backbone(*inputs)
        parameters = sum(p.numel() for p in network.parameters())
        found[member.name] = NetworkCost(member, float(counter.get_total_flops()), parameters, sum(kept.values()))
    return found


def _place(tensor: Tensor) -> int:
    """What two tensors of one storage share, as long as it lives."""
    return int(tensor.untyped_storage()._cdata)


def taken_cost(member: Member, denoiser: Denoiser) -> NetworkCost:
    """Of a denoiser that is here already; one whose operations cannot be counted is taken at two a parameter."""
    parameters = sum(p.numel() for p in denoiser.parameters())
    return NetworkCost(member, counted(denoiser) or 2.0 * max(parameters, 1), parameters, 0, taken=denoiser)


def is_trained(cost: NetworkCost) -> bool:
    """Whether it is trained here: not where its weights lie somewhere already."""
    source = cost.member.source
    return MEMBER_KINDS[cost.member.kind].build is not None and not (source is not None and is_there(source))


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
