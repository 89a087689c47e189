"""A denoiser made of denoisers: a :class:`HybridSchedule` says which member serves at which noise time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath, Time, as_time, path_from_config, translate
from phasewise.results import HybridSchedule

APART = 0.1
"""How far members' pixel means and standard deviations may lie apart, in standard deviations."""


class OnPath(Denoiser):
    """``member`` spoken to on another path: x_t and t are translated at equal log-SNR, exactly (rescale, relabel)."""

    def __init__(self, member: Denoiser, path: NoisePath) -> None:
        super().__init__(member.image_shape, path, member.radius)
        self.member = member

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        x_there, t_there = translate(x_t, t, self.path, self.member.path)
        return self.member(x_there, t_there, cond)

    def pixel_moments(self) -> tuple[Tensor, Tensor] | None:
        return self.member.pixel_moments()

    @property
    def jumps(self) -> bool:
        return self.member.jumps

    def jump(self, x_t: Tensor, t: float, s: float) -> Tensor | None:
        if not self.jumps:
            return None
        x_there, t_there = translate(x_t, t, self.path, self.member.path)
        s_there = translate(x_t, s, self.path, self.member.path)[1]
        moved = self.member.jump(x_there, float(t_there), float(s_there))
        return None if moved is None else translate(moved, s_there, self.member.path, self.path)[0]


class HybridDenoiser(Denoiser):
    """Serves each noise time by the member its schedule names.

    At time t the member of the step that starts at or above t and ends below it serves; a time above the first grid
    point belongs to the first step.  A sampler asks :meth:`member_at` once per step, so predictor and corrector of a
    step use one member.  Members on another path than the schedule's are translated through log-SNR.

    Raises PhasewiseError when the schedule names a missing member, or members differ in image shape or were fitted to
    other data or another pixel range (mean or standard deviation of a channel more than a tenth of the latter apart).
    """

    def __init__(self, members: Mapping[str, Denoiser], schedule: HybridSchedule) -> None:
        needed = list(dict.fromkeys(schedule.assignment))
        missing = [name for name in needed if name not in members]
        if missing:
            raise PhasewiseError(
                f"the schedule names {', '.join(missing)}; members given: {', '.join(members) or 'none'}"
            )
        shapes = {members[name].image_shape for name in needed}
        if len(shapes) > 1:
            raise PhasewiseError(f"members are for images of different shape: {sorted(shapes)}")
        _same_pixels({name: members[name] for name in needed})
        path = path_from_config(schedule.path)
        radii = [members[name].radius for name in needed]
        radius = None if any(r is None for r in radii) else max(r for r in radii if r is not None)
        super().__init__(shapes.pop(), path, radius)
        self.schedule = schedule
        self.names = tuple(needed)
        self.parts = nn.ModuleList(members[n] if members[n].path == path else OnPath(members[n], path) for n in needed)

    @property
    def members(self) -> dict[str, Denoiser]:
        """The denoisers that serve, by name, as spoken to on the schedule's path."""
        return {name: cast(Denoiser, part) for name, part in zip(self.names, self.parts, strict=True)}

    def step_at(self, t: float) -> int:
        """Index of the schedule step that serves time t."""
        later = [k for k, start in enumerate(self.schedule.times) if t <= start * (1 + 1e-6)]
        return later[-1] if later else 0

    def member_at(self, t: float) -> Denoiser:
        return self.members[self.schedule.assignment[self.step_at(t)]]

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        s = as_time(t, x_t).reshape(-1)
        if s.numel() == 1:
            return self.member_at(float(s))(x_t, t, cond)
        out = torch.empty_like(x_t)
        steps = torch.tensor([self.step_at(float(v)) for v in s], device=x_t.device)
        for k in steps.unique().tolist():
            rows = steps == k
            member = self.members[self.schedule.assignment[k]]
            out[rows] = member(x_t[rows], s[rows], None if cond is None else cond[rows])
        return out


def _same_pixels(members: Mapping[str, Denoiser]) -> None:
    known = {name: moments for name, d in members.items() if (moments := d.pixel_moments()) is not None}
    for name, (mean, std) in known.items():
        first, (mean_0, std_0) = next(iter(known.items()))
        limit = APART * std_0
        if bool(((mean - mean_0).abs() > limit).any() or ((std - std_0).abs() > limit).any()):
            raise PhasewiseError(
                f"{first} was fitted to pixels of mean {_listed(mean_0)} and standard deviation {_listed(std_0)}, "
                f"{name} to {_listed(mean)} and {_listed(std)}: other data, or another pixel range; put only denoisers "
                "of the same images together"
            )


def _listed(values: Tensor) -> str:
    return ", ".join(f"{v:.3g}" for v in values.tolist())
