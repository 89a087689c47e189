"""Members of a run: one record each, and one object per kind that says how such a member is made and shown.

A member's colour, label, initial weights and stage follow from its fields, never from how its name is spelt.  A kind of
your own is one more object (:func:`register_member_kind`).
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phasewise.errors import PhasewiseError
from phasewise.registry import Registry
from phasewise.results import Record
from phasewise.shapes import ImageShape

if TYPE_CHECKING:
    from torch import Tensor

    from phasewise.denoisers import Denoiser
    from phasewise.denoisers.network import NetworkDenoiser

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
"""What a member may be called: it is the name of a folder, too."""
DIT = "dit-"
"""Begins the word for a transformer of a named size; a U-Net's size is a word of its own."""


@dataclass(frozen=True)
class Member(Record):
    """One denoiser of a run.

    ``kind``: of :data:`MEMBER_KINDS`.  ``radius``: receptive field in pixels, None for the whole image.  ``size``,
    ``width``: of a U-Net or a transformer, named or in channels.  ``network``: of a global one, "transformer" or, by
    default, "unet".
    ``factor``: of a planned one, pixels a side that a number of its plan stands for; ``radius`` is its local part's.
    ``window``: attention of a transformer reaches so many tokens; with a ``source`` the weights are those found there.
    ``epochs``: passes over the data, None where nothing is trained.
    ``source``: folder its weights come from; where that has none, and the kind can be trained, it is trained.
    ``teacher``: name of the member before it whose posterior mean it learns, instead of the clean image.
    ``told``: its network is told the class, or by chance none, so that it can be guided.
    ``classes``: number of class labels its network is told; follows from its teacher, or from the images.
    """

    name: str
    kind: str
    radius: int | None = None
    size: str | None = None
    width: int | None = None
    epochs: float | None = None
    source: str | None = None
    network: str | None = None
    window: int | None = None
    teacher: str | None = None
    classes: int | None = None
    factor: int | None = None
    told: bool | None = None

    def choices(self) -> dict[str, Any]:
        """What its stage depends on: its fields, without those that only some have where it has none."""
        late = ("teacher", "classes", "factor", "told")  # runs of before there were any are done as they were
        return {k: v for k, v in self.to_dict().items() if k not in late or v is not None}

    def check(self) -> None:
        if not NAME.fullmatch(self.name) or self.name == "features":
            raise PhasewiseError(
                f"a member's name is letters, digits, '_', '.', '+' and '-', and not 'features'; got {self.name!r}"
            )

    @property
    def label(self) -> str:
        """As figures and tables call it."""
        return MEMBER_KINDS[self.kind].label(self) if self.kind in MEMBER_KINDS else self.name

    def initial_seed(self, seed: int) -> int:
        """Seed of its initial weights: by the run's seed and the whole name, so that r12 and r21 differ."""
        from phasewise import seeding  # brings torch, which the command line's --help does without

        # a string's own hash() is another one in every process
        return seeding.mix(seed, seeding.Purpose.INITIAL_WEIGHTS, zlib.crc32(self.name.encode())) % 2**32


@dataclass(frozen=True)
class MemberKind:
    """How members of one kind are made and shown.

    Attributes:
        build: a fresh network to be trained; or
        fit: a closed form from the training images (n, C, H, W); neither for what others made.
        look: how figures draw it: "reference", "control", "local" (shaded by radius), "closed" (grey) or "other".
        scheduled: whether it may take steps; a control is there for diagnosis alone.
        taken_as_reference: it is the run's global network, and comes from its source alone.
        needs: fields of a member, by name, without which none can be made.
        like: of a closed form, one of the same cost that was fitted to nothing, so that it can be priced beforehand.
    """

    name: str
    label: Callable[[Member], str]
    look: str = "other"
    build: Callable[[Member, ImageShape], NetworkDenoiser] | None = None
    fit: Callable[[Member, Tensor], Denoiser] | None = None
    scheduled: bool = True
    like: Callable[[Member, ImageShape], Denoiser] | None = None
    taken_as_reference: bool = False
    needs: tuple[str, ...] = ()


MEMBER_KINDS: Registry[MemberKind] = Registry("kind of member")


def register_member_kind(kind: MemberKind) -> MemberKind:
    """Make ``kind`` known by its name; returns it."""
    MEMBER_KINDS.register(kind.name, kind)
    return kind


def kind_and_size(word: str) -> tuple[str, str | None]:
    """("transformer", "small") of "dit-small", ("unet", "coarse") of "coarse"; a kind alone has no size."""
    if word.startswith(DIT):
        return "transformer", word.removeprefix(DIT)
    return (word, None) if word in ("unet", "transformer") else ("unet", word)


def build_untrained(member: Member, seed: int, shape: ImageShape) -> NetworkDenoiser:
    """A fresh network for a member that can be trained, its initial weights by (seed, name)."""
    import torch

    build = MEMBER_KINDS[member.kind].build
    assert build is not None
    with torch.random.fork_rng(devices=[]):  # the caller's random state is left alone
        torch.manual_seed(member.initial_seed(seed))
        return build(member, shape)


def _unet(member: Member, shape: ImageShape) -> NetworkDenoiser:
    from phasewise.denoisers import UNetDenoiser

    if member.size:
        return UNetDenoiser.of_size(shape, member.size, classes=member.classes)
    return UNetDenoiser(shape, width=member.width, classes=member.classes)


def _transformer(member: Member, shape: ImageShape) -> NetworkDenoiser:
    from phasewise.denoisers import DiTDenoiser

    if member.size:
        whole = DiTDenoiser.of_size(shape, member.size, classes=member.classes)
    else:
        whole = DiTDenoiser(shape, width=member.width or 128, classes=member.classes)
    return whole.windowed(member.window)


def _global(member: Member, shape: ImageShape) -> NetworkDenoiser:
    return _transformer(member, shape) if member.network == "transformer" else _unet(member, shape)


def _local(member: Member, shape: ImageShape) -> NetworkDenoiser:
    from phasewise.denoisers import LocalDenoiser

    return LocalDenoiser(shape, int(member.radius or 0), classes=member.classes)


def _control(member: Member, shape: ImageShape) -> NetworkDenoiser:
    """The local design with its window opened to the whole image: the radius says which design."""
    from phasewise.denoisers import LocalDenoiser

    return LocalDenoiser(shape, int(member.radius or 0), classes=member.classes).opened()


def _planned(member: Member, shape: ImageShape) -> NetworkDenoiser:
    from phasewise.denoisers import LocalDenoiser, PlanDenoiser, UNetDenoiser
    from phasewise.denoisers.pooled import pooled_shape

    factor, radius, classes = int(member.factor or 0), int(member.radius or 0), member.classes
    if member.size is None:
        return PlanDenoiser.of_shape(shape, factor, radius, width=member.width or 16, classes=classes)
    planner = UNetDenoiser.of_size(pooled_shape(shape, factor), member.size, classes=classes)
    return PlanDenoiser(planner, LocalDenoiser(shape, radius, context=shape[0], classes=classes), factor)


def _wiener(member: Member, images: Tensor) -> Denoiser:
    from phasewise.denoisers import WienerDenoiser

    return WienerDenoiser.fit(images, member.radius)


def _unfitted_wiener(member: Member, shape: ImageShape) -> Denoiser:
    from phasewise.denoisers.linear import WienerDenoiser, usual_rank

    return WienerDenoiser(shape, member.radius, usual_rank(math.prod(shape), member.radius))


def _radius_label(member: Member) -> str:
    own = "" if member.name == f"r{member.radius}" else f" ({member.name})"
    return f"r = {member.radius}{own}"


for _kind in (
    MemberKind("global", lambda m: m.name, "reference", build=_global),
    MemberKind("teacher", lambda m: m.name, "reference", taken_as_reference=True),
    MemberKind("unet", lambda m: m.name, "other", build=_unet),
    MemberKind("transformer", lambda m: m.name, "other", build=_transformer),
    MemberKind("local", _radius_label, "local", build=_local),
    MemberKind(
        "plan", lambda m: f"{m.name} (plan, r = {m.radius})", "other", build=_planned, needs=("factor", "radius")
    ),
    MemberKind("control", lambda m: "control", "control", build=_control, scheduled=False),
    MemberKind(
        "wiener",
        lambda m: "Wiener" if m.radius is None else f"Wiener, r = {m.radius}",
        "closed",
        fit=_wiener,
        like=_unfitted_wiener,
    ),
    MemberKind("model", lambda m: m.name, "reference"),
    MemberKind("other_model", lambda m: m.name, "other"),
    MemberKind("given", lambda m: m.name if m.radius is None else f"{m.name} (r = {m.radius})", "other"),
):
    register_member_kind(_kind)


def member_of(name: str, radius: int | None, control: bool = False, reference: bool = False) -> Member:
    """What is known of a denoiser that records name without saying what it is: its radius alone."""
    kind = "global" if reference else "control" if control else "given" if radius is None else "local"
    return Member(name, kind, radius=radius) if NAME.fullmatch(name) else Member("unnamed", kind, radius=radius)
