"""A denoiser made of denoisers: a :class:`HybridSchedule` says which member takes which noise time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from phasewise import checks
from phasewise.denoisers.base import Denoiser, SamplingPlan, as_rows, denoisers_by_name
from phasewise.denoisers.reuse import ReusedAnswer, check_reuse, reuser_of
from phasewise.display import joined
from phasewise.errors import PhasewiseError
from phasewise.paths import Time, as_time, path_from_config
from phasewise.results import HybridSchedule, a_schedule
from phasewise.shapes import ImageShape

APART = 0.1
"""How far members' pixel means and standard deviations may lie apart, in standard deviations."""


class HybridDenoiser(Denoiser):
    """Each noise time is taken by the member that the schedule names.

    Time t belongs to the step that starts at or above t and ends below it; a time above the first grid point, to the
    first step.  A sampler asks :meth:`member_at` once per step, so predictor and corrector of a step use one member.
    Members on another path than the schedule's are translated through log-SNR.  A condition goes to those members that
    take one.  Members that lean on earlier steps (:mod:`phasewise.denoisers.reuse`) answer within a sampler alone.

    Raises PhasewiseError when the schedule names a missing member, reuses what no step before it left, or members
    differ in image shape or were fitted to other data or another pixel range (mean or standard deviation of a channel
    more than a tenth of the latter apart).
    """

    @checks.checked(members=denoisers_by_name, schedule=a_schedule)
    def __init__(self, members: Mapping[str, Denoiser], schedule: HybridSchedule) -> None:
        needed = list(dict.fromkeys(schedule.assignment))
        missing = [name for name in needed if name not in members]
        if missing:
            raise PhasewiseError(
                f"the schedule names {', '.join(missing)}; members given: {', '.join(members) or 'none'}"
            )
        shape = same_images({name: members[name] for name in needed})
        path = path_from_config(schedule.path)
        check_reuse({name: members[name] for name in needed}, schedule.assignment, schedule.solver)
        # an answer reused sees what gave it
        radii = [members[name].radius for name in needed if not isinstance(reuser_of(members[name]), ReusedAnswer)]
        # as far as the farthest of its members sees
        radius = None if any(r is None for r in radii) else max(r for r in radii if r is not None)
        super().__init__(shape, path, radius)
        self.schedule = schedule
        self.names = tuple(needed)
        self.parts = nn.ModuleList(members[n].on(path) for n in needed)

    @property
    def members(self) -> dict[str, Denoiser]:
        """The denoisers that the schedule names, by name, as spoken to on its path."""
        return {name: cast(Denoiser, part) for name, part in zip(self.names, self.parts, strict=True)}

    def __repr__(self) -> str:
        plan = self.schedule
        return f"HybridDenoiser({joined(plan.assignment)}; {len(plan.times)} steps of {plan.solver}, {self.path!r})"

    def step_at(self, t: float) -> int:
        """Index of the schedule step that time t belongs to."""
        # 1e-6: a start that was rounded still belongs to its own step
        later = [k for k, start in enumerate(self.schedule.times) if t <= start * (1 + 1e-6)]
        return later[-1] if later else 0

    def member_at(self, t: float) -> Denoiser:
        return self.members[self.schedule.assignment[self.step_at(t)]]

    def reused_members(self) -> tuple[Denoiser, ...]:
        return tuple(reused for member in self.members.values() for reused in member.reused_members())

    def sampling_plan(self) -> SamplingPlan:
        return SamplingPlan(self.schedule.times, self.schedule.solver)

    @property
    def takes_condition(self) -> bool:
        return any(member.takes_condition for member in self.members.values())

    def check_condition(self, cond: Tensor) -> None:
        for member in self.members.values():
            if member.takes_condition:
                member.check_condition(cond)

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        as_time(t, x_t)  # refuses what is no time
        # a time chooses its step in its own precision: that of half-precision pixels would round it into another
        s = t.reshape(-1) if isinstance(t, Tensor) else torch.tensor([float(t)], dtype=torch.float64)
        if s.numel() == 1:
            return _told(self.member_at(float(s)), x_t, t, cond)
        rows_of_cond = None if cond is None else as_rows(cond, len(x_t))
        out = torch.empty_like(x_t)
        steps = torch.tensor([self.step_at(float(v)) for v in s], device=x_t.device)
        for k in steps.unique().tolist():
            rows = steps == k
            member = self.members[self.schedule.assignment[k]]
            out[rows] = _told(member, x_t[rows], s[rows], None if rows_of_cond is None else rows_of_cond[rows])
        return out


def _told(member: Denoiser, x_t: Tensor, t: Time, cond: Tensor | None) -> Tensor:
    return member(x_t, t, cond if member.takes_condition else None)


def same_images(members: Mapping[str, Denoiser]) -> ImageShape:
    """The (C, H, W) that all members are for.

    Raises PhasewiseError where they differ in it, or were fitted to other data or another pixel range.
    """
    shapes = {member.image_shape for member in members.values()}
    if len(shapes) > 1:
        raise PhasewiseError(f"members are for images of different shape: {sorted(shapes)}")
    known = {name: moments for name, d in members.items() if (moments := d.pixel_moments()) is not None}
    for name, (mean, std) in known.items():
        first, (mean_0, std_0) = next(iter(known.items()))
        if pixels_apart((mean_0, std_0), (mean, std)):
            raise PhasewiseError(
                f"{first} was fitted to pixels of mean {listed(mean_0)} and standard deviation {listed(std_0)}, "
                f"{name} to {listed(mean)} and {listed(std)}: other data, or another pixel range; put only denoisers "
                "of the same images together"
            )
    return shapes.pop()


def pixels_apart(fitted: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> bool:
    """Whether pixels of these means and standard deviations, (C,) each, are others than those of ``fitted``."""
    limit = APART * fitted[1].cpu()
    return any(bool(((a.cpu() - b.cpu()).abs() > limit).any()) for a, b in zip(fitted, found, strict=True))


def listed(values: Tensor) -> str:
    """Numbers of each channel, as messages show them."""
    return ", ".join(f"{v:.3g}" for v in values.tolist())
