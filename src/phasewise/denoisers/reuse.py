r"""Members of a hybrid that lean on earlier steps: a whole answer carried on, or a part of a network kept.

What is kept lives in the sampler's memory (:mod:`phasewise.denoisers.kept`), one for each batch of trajectories; these
denoisers only say what they take from it, so they answer within a sampler alone.

* :class:`ReusedAnswer`: the posterior mean of the last fresh steps, held (``order`` 0) or carried on in time along the
  line or the parabola through them (1, 2), while the solver goes on and a stochastic one adds its noise.  With the
  answer *held*, two steps of an exponential integrator are exactly one longer step; carried on, they are not.
* :class:`ReusedFeatures`: a network of which one part is taken from its last whole call: a U-Net's deep levels
  (DeepCache, Ma et al. 2023, arXiv 2312.00858), a transformer's inner blocks or attention, held or forecast
  (TaylorSeer, Liu et al. 2025, arXiv 2503.06923), the difference that guidance makes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from phasewise import checks, registry
from phasewise.denoisers.base import Denoiser, Wrapping, a_denoiser
from phasewise.denoisers.kept import VARIABLES, Answer, Memory, Wanted, carried, current, key_of, linear_time
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath, Time, a_path, isotropic
from phasewise.shapes import ImageShape

QUANTITIES = ("x", "eps", "v")
"""What is carried on: the posterior mean, the noise it implies, or the linear path's velocity, noise minus mean."""
_order = checks.whole(0, 2)


class ReusedAnswer(Denoiser):
    """The answer of the last ``order + 1`` fresh steps, carried on to this one; it calls no network.

    Args:
        image_shape: (C, H, W).
        order: 0 holds the last answer, 1 takes the line through the last two, 2 the parabola through three; where fewer
            are there yet, the highest order that they allow.
        variable: of the polynomial: "t" (the linear path's time at this log-SNR) or "log_snr".
        quantity: what is carried on: "x" (the posterior mean), "eps" or "v".
        clamp: black and white, to which the answer is clamped; None: as it comes.

    ``flops_per_image`` counts the weighted sum.  Raises PhasewiseError when called outside of a sampler, or before
    there was a fresh step.
    """

    @checks.checked(
        image_shape=checks.image_shape, order=_order, variable=checks.one_of(tuple(VARIABLES), "variable"),
        quantity=checks.one_of(QUANTITIES, "quantity"), clamp=checks.pair_inside(-math.inf, math.inf), path=a_path,
    )  # fmt: skip
    def __init__(
        self,
        image_shape: ImageShape,
        order: int = 1,
        *,
        variable: str = "t",
        quantity: str = "x",
        clamp: tuple[float, float] | None = None,
        path: NoisePath | None = None,
    ) -> None:
        super().__init__(image_shape, path)
        if quantity != "x":
            isotropic(self.path, f"the noise of a reused answer (quantity={quantity!r})")
        self.order, self.variable, self.quantity = order, variable, quantity
        self.clamp = None if clamp is None else (float(clamp[0]), float(clamp[1]))
        numbers = self.image_shape[0] * self.image_shape[1] * self.image_shape[2]
        # a product and a sum for each kept answer; eps and v are turned into the mean at the end
        self.flops_per_image = numbers * (2 * (order + 1) - 1 + 3 * (quantity != "x"))

    def __repr__(self) -> str:
        how = ("held", "on a line", "on a parabola")[self.order]
        return f"ReusedAnswer({self.quantity} {how} in {self.variable}, {self.path!r})"

    def reused_members(self) -> tuple[Denoiser, ...]:
        return (self,)

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        call = current()
        if call is None:
            raise PhasewiseError(
                "an answer is reused within a sampler alone, which keeps the answers of earlier steps: pass the hybrid "
                "to phasewise.sample"
            )
        answers = call.memory.answers[-(self.order + 1) :]
        if not answers:
            raise PhasewiseError("no answer to reuse yet: the first step of a trajectory is taken by a fresh member")
        return self.carried_on(answers, x_t, call.log_snr, float(self.path.log_snr(_number(t))), t)

    def carried_on(self, answers: list[Answer], x_t: Tensor, log_snr: float, here: float, t: Time) -> Tensor:
        """The mean that ``answers``, newest last, come to at ``log_snr``, where ``x_t`` (B, C, H, W) is at ``t``."""
        if self.quantity == "x":
            mean = carried([(a.log_snr, a.mean) for a in answers], log_snr, self.variable)
        else:
            w = linear_time(here)
            alpha, sigma = (f(_number(t)) for f in (self.path.alpha, self.path.sigma))
            linear = x_t / float(alpha + sigma)  # x_t as the linear path has it: (1 - w) x + w z
            noises = [(a.log_snr, a.noise if self.quantity == "eps" else a.noise - a.mean) for a in answers]  # type: ignore[operator]
            found = carried(noises, log_snr, self.variable)  # type: ignore[arg-type]
            # eps: x = (x_t - w z) / (1 - w);  v = z - x: x = x_t - w v
            mean = linear - w * found if self.quantity == "v" else (linear - w * found) / (1 - w)
        return mean if self.clamp is None else mean.clamp(*self.clamp)

    @contextmanager
    def primed(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> Iterator[None]:
        here = float(self.path.log_snr(_number(t)))
        answers = [Answer(here - 1.0 - k, x_t, x_t) for k in reversed(range(self.order + 1))]
        memory = Memory(count=self.order + 1, noises=True, answers=answers)
        with memory.during(here):
            yield

    def config(self) -> dict[str, Any]:
        return {
            "image_shape": list(self.image_shape),
            "order": self.order,
            "variable": self.variable,
            "quantity": self.quantity,
            "clamp": None if self.clamp is None else list(self.clamp),
            "path": self.path.config(),
        }


class ReusedFeatures(Wrapping):
    """``member`` with one ``part`` of its network taken from its last whole call in the same trajectory.

    Args:
        member: a network that can be split, on its own or given a condition, on another path, guided.
        part: one of what it offers (:meth:`Denoiser.reusable_parts`): a U-Net's "level1" (all below the finest level;
            "level2" and so on, less), a transformer's "blocks/1:5" (what blocks 1 to 4 add), "attention", "perceptron",
            a guided denoiser's "guidance", a planned one's "plan".
        order: 0 holds the part, 1 and 2 carry it on through the last two or three whole calls, in ``variable``, "t"
            (the linear path's time) or "log_snr".

    Raises PhasewiseError naming the parts there are for a member that cannot be split so, when called outside of a
    sampler, and before a whole call.
    """

    @checks.checked(
        member=a_denoiser, part=checks.text, order=_order, variable=checks.one_of(tuple(VARIABLES), "variable")
    )
    def __init__(self, member: Denoiser, part: str, order: int = 0, *, variable: str = "t") -> None:
        if reuser_of(member) is not None:
            raise PhasewiseError(f"{member!r} leans on earlier steps already; keep a part of its whole network instead")
        super().__init__(member.image_shape, member.path, member.radius)
        self.owner = [_owner(member, part)]  # in a list: no submodule of its own, its weights are the member's
        self.member = member
        self.part, self.order, self.variable = part, order, variable

    def __repr__(self) -> str:
        how = ("held", "on a line", "on a parabola")[self.order]
        return f"ReusedFeatures({self.part} {how}, {self.member!r})"

    @property
    def key(self) -> tuple[object, ...]:
        return key_of(self.owner[0])

    @property
    def jumps(self) -> bool:
        return False

    def reused_members(self) -> tuple[Denoiser, ...]:
        return (self,)

    @property
    def takes_condition(self) -> bool:
        return self.member.takes_condition

    def check_condition(self, cond: Tensor) -> None:
        self.member.check_condition(cond)

    def member_at(self, t: float) -> Denoiser:
        return self

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        call = current()
        if call is None or call.part != self.part or call.key != self.key:
            raise PhasewiseError(
                f"{self.part} is reused within a sampler alone, which keeps it from step to step: pass the hybrid to "
                "phasewise.sample"
            )
        call.calls.clear()
        call.read = 0
        out = self.member(x_t, t, cond)
        if not call.read:  # compiled, or replaced by what does not offer its parts
            raise PhasewiseError(
                f"{type(self.owner[0]).__name__} never called kept({self.part!r}, ...) in this answer: its network "
                "lacks that call, or is compiled; leave it uncompiled"
            )
        return out

    @contextmanager
    def primed(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> Iterator[None]:
        here = float(self.path.log_snr(_number(t)))
        memory = Memory(wanted=(self.wanted(),))
        with torch.inference_mode():
            for k in reversed(range(self.order + 1)):
                with memory.during(here - 1.0 - k):
                    self.member(x_t, t, cond)
        with memory.during(here, self.key, self.part, self.variable, self.order + 1):
            yield

    @staticmethod
    def keys_in(member: Denoiser) -> set[object]:
        """The keys of all networks in ``member``."""
        return {key_of(part) for part in member.modules()}

    def wanted(self) -> Wanted:
        """What a sampler has to keep for it."""
        return Wanted(self.key, self.part, self.order + 1)

    def config(self) -> dict[str, Any]:
        return {"part": self.part, "order": self.order, "variable": self.variable}


def _owner(member: Denoiser, part: str) -> Denoiser:
    """What in ``member``, from outside in, offers ``part``."""
    inside: Denoiser | None = member
    offered: list[str] = []
    while inside is not None:
        parts = inside.reusable_parts()
        offered += parts
        if part in parts or _within(part, parts):
            return inside
        inside = getattr(inside, "member", None)
    there_are = f"it offers {', '.join(offered)}" if offered else "it names none in reusable_parts()"
    raise PhasewiseError(f"{type(member).__name__} cannot be split at {part!r}; {there_are}")


def usual_part(denoiser: Denoiser) -> str | None:
    """The part that is kept of a network unless one is named: below the finest level, or all blocks but the first and
    the last; None where nothing can be."""
    parts = denoiser.reusable_parts()
    for part in parts:
        if part.startswith("blocks/"):
            last = int(part.split(":")[1])
            return f"blocks/1:{last - 1}" if last > 2 else None
    return parts[0] if parts else None


def _within(part: str, parts: tuple[str, ...]) -> bool:
    """Whether ``part``, "blocks/a:b", lies within an offered "blocks/0:n" and leaves something."""
    try:
        stem, span = part.split("/")
        low, high = map(int, span.split(":"))
    except ValueError:
        return False
    for offer in parts:
        if offer.startswith(f"{stem}/") and ":" in offer:
            first, last = map(int, offer.split("/")[1].split(":"))
            return first <= low < high <= last
    return False


def reuser_of(member: Denoiser) -> ReusedAnswer | ReusedFeatures | None:
    """The reused answer or features inside ``member``, wrapped or not; None where it is fresh."""
    inside: Denoiser | None = member
    while inside is not None:
        if isinstance(inside, (ReusedAnswer, ReusedFeatures)):
            return inside
        inside = getattr(inside, "member", None)
    return None


def memory_for(denoiser: Denoiser) -> Memory | None:
    """What a sampler has to keep for ``denoiser``; None where no member of it leans on earlier steps."""
    reused = denoiser.reused_members()
    if not reused:
        return None
    answers = [r for r in reused if isinstance(r, ReusedAnswer)]
    return Memory(
        count=max((r.order + 1 for r in answers), default=0),
        noises=any(r.quantity != "x" for r in answers),
        wanted=tuple(r.wanted() for r in reused if isinstance(r, ReusedFeatures)),
    )


class Remembering(Denoiser):
    """One step's ``member`` with the trajectory's ``memory`` at hand; fresh answers are kept."""

    def __init__(self, member: Denoiser, memory: Memory) -> None:
        super().__init__(member.image_shape, member.path, member.radius)
        self.member, self.memory, self.reuser = member, memory, [reuser_of(member)]

    @property
    def takes_condition(self) -> bool:
        return self.member.takes_condition

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        at, reuser = _number(t), self.reuser[0]
        log_snr = float(self.path.log_snr(at))
        if isinstance(reuser, ReusedFeatures):
            reads = (reuser.key, reuser.part, reuser.variable, reuser.order + 1)
            with self.memory.during(log_snr, *reads):
                mean = self.member(x_t, t, cond)
        else:
            with self.memory.during(log_snr):
                mean = self.member(x_t, t, cond)
        if not isinstance(reuser, ReusedAnswer):

            def noise() -> Tensor:
                return (x_t - float(self.path.alpha(at)) * mean) / float(self.path.sigma(at))

            self.memory.answered(log_snr, mean, noise)
        return mean


def with_memory(member: Denoiser, memory: Memory | None) -> Denoiser:
    """``member`` for one step of a trajectory that keeps ``memory``."""
    return member if memory is None else Remembering(member, memory)


def check_place(who: str, solver: str) -> None:
    """Raises PhasewiseError for a solver that has no place for what ``who`` keeps from step to step."""
    if registry.table("solver")[solver].calls > 1:
        raise PhasewiseError(
            f"{who} is kept from step to step, but {solver} calls a denoiser twice a step; take a solver with one "
            "call, such as exp_ab2 or sde_dpmpp_2m"
        )


def check_reuse(members: dict[str, Denoiser], assignment: tuple[str, ...], solver: str) -> None:
    """Raises PhasewiseError naming the step of a schedule where nothing is there to be reused, or the solver that has
    no place for it."""
    reused = {name: found for name in members if (found := reuser_of(members[name])) is not None}
    if not reused:
        return
    check_place(next(iter(reused)), solver)
    answered, called = False, set[object]()
    for k, name in enumerate(assignment):
        reuser, which = reused.get(name), f"step {k + 1} of {len(assignment)}"
        if isinstance(reuser, ReusedAnswer) and not answered:
            raise PhasewiseError(f"{which} reuses an answer ({name}), but no step before it gives a fresh one")
        if isinstance(reuser, ReusedFeatures) and reuser.key not in called:
            whole = next(
                (n for n in members if n not in reused and reuser.key in ReusedFeatures.keys_in(members[n])), None
            )
            by = "its whole network" if whole is None else whole
            raise PhasewiseError(f"{which} reuses {reuser.part} ({name}), but no step before it is taken by {by}")
        if not isinstance(reuser, ReusedAnswer):
            answered = True
        if reuser is None:
            called |= ReusedFeatures.keys_in(members[name])


def _number(t: Time) -> Tensor:
    """A single time as float64; PhasewiseError where there are several, which a trajectory's step has not."""
    value = t.detach().double().reshape(-1) if isinstance(t, Tensor) else torch.tensor([float(t)], dtype=torch.float64)
    if value.numel() > 1 and not bool((value == value[0]).all()):
        raise PhasewiseError("a step of a trajectory has one time for all images; several were given")
    return value[0].cpu()
