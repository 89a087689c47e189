r"""Guidance without a classifier: a denoiser that asks another one twice, with the condition and without.

Ho and Salimans 2022 (arXiv 2207.12598, eq. 6); posterior means are linear in scores, so the same holds of them::

    D(x_t, t, c) = D_null(x_t, t) + scale (D_cond(x_t, t, c) - D_null(x_t, t))

whose score is that of ``p(x_t) p(c | x_t)^scale``.  ``scale`` is 1 + w of the paper's w and the ``guidance_scale`` of
diffusers: 1 is the condition alone, 0 leaves it out.  Outside of an ``interval`` of noise times (Kynkaanniemi et al.
2024, arXiv 2404.07724) the condition alone is asked, once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers.base import Condition, Denoiser, SamplingPlan, Wrapping, a_denoiser, as_condition, as_rows
from phasewise.denoisers.kept import site
from phasewise.denoisers.trust import on_trust
from phasewise.errors import PhasewiseError
from phasewise.paths import Time, as_time

ROUNDED = 1e-6
"""Relative error within which a time still belongs to the end of an interval, as a start does to its step."""


class GuidedDenoiser(Wrapping):
    """``member`` guided by its own condition; two calls of it at a time inside ``interval``, one outside.

    Args:
        member: takes a condition.
        scale: 1 for the condition alone, 0 for none, above 1 to exaggerate it.
        null: what stands for no condition: a label, or a tensor with one row, (1, ...) or (); None for a member that
            knows its own (``member.null``), or that may be called without.
        interval: (t_low, t_high), noise times on the member's path in which it is guided; both ends belong to it.  A
            sampler's step goes by the time it starts at (:meth:`member_at`).

    A call has one cost in a price list, so an interval is better said by two members: of {"guided": one without an
    interval, "plain": the member itself} the optimal schedule says when to guide, and counts each step as it is.

    Raises PhasewiseError for a member without a condition, or that has one bound, and for a null it cannot be told.
    """

    null: Tensor | None

    @checks.checked(member=a_denoiser, scale=checks.number, interval=checks.pair_inside(0, 1))
    def __init__(
        self,
        member: Denoiser,
        scale: float,
        *,
        null: Condition | None = None,
        interval: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(member.image_shape, member.path, member.radius)
        if not member.takes_condition:
            raise PhasewiseError(
                f"{type(member).__name__} takes no condition to guide it by; guide one that does, then bind: "
                "GuidedDenoiser(...).given(cond)"
            )
        found = _own(member, "null") if null is None else null
        if found is None and (_own(member, "needs_condition") or _own(member, "classes")):
            raise PhasewiseError(
                f"this {type(member).__name__} cannot be asked without a condition: give null, the label (or row) that "
                "stood for none in its training"
            )
        rows = None if found is None else as_condition(found)
        if rows is not None:
            if len(rows) != 1:
                raise PhasewiseError(f"null is one label or one row for all images; got {len(rows)} rows")
            if not on_trust():
                member.check_condition(rows)
            rows = rows.to(member.device)
        self.member = member
        self.scale = float(scale)
        self.interval = interval
        self.register_buffer("null", rows)

    def __repr__(self) -> str:
        when = "" if self.interval is None else f", t in [{self.interval[0]:g}, {self.interval[1]:g}]"
        return f"GuidedDenoiser(scale {self.scale:g}{when}, {self.member!r})"

    @property
    def takes_condition(self) -> bool:
        return True

    @property
    def jumps(self) -> bool:
        return False  # a mixture of two closed forms has no closed form of its own

    def check_condition(self, cond: Tensor) -> None:
        if self.null is not None and cond.shape[1:] != self.null.shape[1:]:
            raise PhasewiseError(
                f"rows of cond have shape {tuple(cond.shape[1:])}, the null of this guidance "
                f"{tuple(self.null.shape[1:])}"
            )
        self.member.check_condition(cond)

    def guides_at(self, t: float) -> bool:
        """Whether two calls are made at time ``t``, where the scale asks for two."""
        return bool(self._inside(torch.tensor(t, dtype=torch.float64)))

    def _inside(self, t: Tensor) -> Tensor:
        low, high = self.interval or (0.0, 1.0)
        return (t >= low * (1 - ROUNDED)) & (t <= high * (1 + ROUNDED))

    def member_at(self, t: float) -> Denoiser:
        """What takes a step that starts at ``t``: outside of the interval the member itself, unguided."""
        part = self.member.member_at(t)
        if not self.guides_at(t):
            return part
        if not part.takes_condition:  # of a hybrid, one whose answer knows no condition
            return part
        if part is self.member and self.interval is None:
            return self
        guided = GuidedDenoiser(part, self.scale, null=self.null)
        guided.training = self.training  # not train(): its member is the original's
        return guided

    def sampling_plan(self) -> SamplingPlan | None:
        return self.member.sampling_plan()

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        if cond is None:
            raise PhasewiseError("guidance needs a condition: pass cond, or bind one with .given(cond)")
        rows = as_rows(cond, len(x_t))
        if self.interval is None or not isinstance(t, Tensor) or t.numel() == 1:
            guided = self.interval is None or self.guides_at(float(t))
            return self._guided(x_t, t, rows) if guided else self.member(x_t, t, rows)
        s = as_time(t, x_t).reshape(-1)
        inside = self._inside(t.reshape(-1))
        out = torch.empty_like(x_t)
        for chosen, ask in ((inside, self._guided), (~inside, self.member)):
            if bool(chosen.any()):
                out[chosen] = ask(x_t[chosen], s[chosen], rows[chosen])
        return out

    def _guided(self, x_t: Tensor, t: Time, rows: Tensor) -> Tensor:
        if self.scale == 0:
            return self._unconditional(x_t, t)
        conditional = self.member(x_t, t, rows)
        if self.scale == 1:
            return conditional
        kept = site(self)
        if kept is None:
            return torch.lerp(self._unconditional(x_t, t), conditional, self.scale)
        # D_null + scale (D - D_null) = D + (scale - 1) (D - D_null): what guidance adds can come from an earlier step
        return conditional + (self.scale - 1) * kept("guidance", lambda: conditional - self._unconditional(x_t, t))

    def reusable_parts(self) -> tuple[str, ...]:
        """ "guidance": the difference of the answers with the condition and without, where both are asked for."""
        return () if self.scale in (0, 1) else ("guidance",)

    def _unconditional(self, x_t: Tensor, t: Time) -> Tensor:
        if self.null is not None:
            return self.member(x_t, t, as_rows(self.null, len(x_t)))
        try:
            return self.member(x_t, t)
        except PhasewiseError as error:
            raise PhasewiseError(f"{error}; for guidance give null, the label (or row) that stands for none") from error

    def config(self) -> dict[str, Any]:
        return {"scale": self.scale, "interval": None if self.interval is None else list(self.interval)}


def _own(member: Denoiser, name: str) -> Any:
    """What ``member``, or what it is wrapped round, says of itself under ``name``; None where it says nothing."""
    if isinstance(member, Wrapping) and not hasattr(member, name):
        return _own(member.member, name)
    return getattr(member, name, None)


def guided_in(denoiser: Denoiser) -> GuidedDenoiser | None:
    """The guided denoiser that this one is, or is wrapped round; None where there is none."""
    if isinstance(denoiser, GuidedDenoiser):
        return denoiser
    return guided_in(denoiser.member) if isinstance(denoiser, Wrapping) else None


def interval_of(denoiser: Denoiser) -> tuple[float, float] | None:
    """The interval of a guided denoiser, wrapped or not; None where it has none or ``denoiser`` is no guided one."""
    if isinstance(denoiser, GuidedDenoiser) and denoiser.interval is not None:
        return denoiser.interval
    return interval_of(denoiser.member) if isinstance(denoiser, Wrapping) else None
