"""What every denoiser is: a module that maps ``(x_t, t)`` to the posterior mean ``E[x | x_t]``.

And its two plain wrappers: spoken to on another path (:class:`OnPath`), and with a condition bound (:class:`Given`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from phasewise import checks
from phasewise.denoisers.trust import on_trust
from phasewise.errors import PhasewiseError
from phasewise.paths import LinearPath, NoisePath, Time, a_path, translate
from phasewise.results import Record
from phasewise.shapes import ImageShape, check_image_shape

Condition = int | Tensor
"""A class label, or a tensor with a row for each image; a single one serves all images."""
D = TypeVar("D", bound="Denoiser")


_records = checks.each(
    checks.made(Record, "a record", "such as a TrainingRecord or an Evaluation; run.measured(...) gives a run's"),
    least=0,
)


class SamplingPlan(NamedTuple):
    """How a denoiser wants to be sampled: start times of the steps, descending, on its own path; a solver's name."""

    times: tuple[float, ...]
    solver: str


class Denoiser(nn.Module, ABC):
    """``denoiser(x_t, t, cond=None) -> posterior mean``.

    x_t: (B, C, H, W) float; t: a float or (B,), in [0, 1] on ``self.path``; returns (B, C, H, W) in pixel units.
    cond: a row for each image, e.g. class labels (B,), for one that takes a condition (:attr:`takes_condition`).

    Attributes:
        radius: receptive field in pixels (max-norm), or None when the whole image is seen.
        path: the Gaussian path whose ``x_t`` and ``t`` this denoiser speaks.
        image_shape: (C, H, W).
        flops_per_image: what a call costs, multiply and add counted as two, where it is not made of PyTorch's
            operations; None where it is, and these are counted.
    """

    flops_per_image: int | None = None

    def __init__(self, image_shape: ImageShape, path: NoisePath | None = None, radius: int | None = None) -> None:
        super().__init__()
        self.image_shape = check_image_shape(image_shape)
        self.path = LinearPath() if path is None else a_path(path, "path")
        self.path.check_side(self.image_shape[1:])
        # 0: a pixel from itself alone
        self.radius = radius if radius is None or radius == 0 else check_radius(radius, self.image_shape)

    @abstractmethod
    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor: ...

    def __repr__(self) -> str:
        """One line; ``torch.nn.Module.__repr__(denoiser)`` lists its layers."""
        size = "×".join(map(str, self.image_shape))
        seen = "sees the whole image" if self.radius is None else f"radius {self.radius}"
        weights = sum(p.numel() for p in self.parameters())
        learnt = f", {weights:,} parameters" if weights else ""
        return f"{type(self).__name__}({size}, {seen}{learnt}, {self.path!r})"

    @property
    def takes_condition(self) -> bool:
        """Whether ``cond`` means anything to it; a class of your own that takes one says ``takes_condition = True``."""
        return False

    def on(self, path: NoisePath) -> Denoiser:
        """This denoiser spoken to on ``path``: itself where that is its own."""
        a_path(path, "path")
        return self if path == self.path else OnPath(self, path)

    def given(self, cond: Condition) -> Denoiser:
        """This denoiser with ``cond`` bound: a single label or row, (), (1,) or (1, ...), for all images, or one row
        for each image of the batches to come, (B, ...).

        Raises PhasewiseError where it takes none, or not this one; a batch that does not fit the rows raises when it
        comes.
        """
        if not self.takes_condition:
            raise PhasewiseError(f"{type(self).__name__} takes no condition; leave cond out")
        return Given(self, cond)

    def check_condition(self, cond: Tensor) -> None:
        """Raises PhasewiseError for rows of a condition, (n, ...), that it cannot be told; here any will do."""

    def member_at(self, t: float) -> Denoiser:
        """The denoiser that takes a sampling step starting at time t: itself, unless it is a hybrid."""
        return self

    def sampling_plan(self) -> SamplingPlan | None:
        """Its own times and solver, or None where any will do."""
        return None

    def pixel_moments(self) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation per channel, (C,) each, of the pixels it was made for; None where it is not known
        or was not fitted yet."""
        return None

    def pixels_taken(self) -> tuple[float, float] | None:
        """Black and white of the images it is for, where that is known; None where any will do, or nobody said."""
        return None

    def wrong_state(self) -> str | None:
        """What is impossible about its weights and moments, such as a standard deviation below 0; None where nothing
        is."""
        return None

    def reused_members(self) -> tuple[Denoiser, ...]:
        """Which of its members lean on earlier steps of a trajectory (:mod:`phasewise.denoisers.reuse`)."""
        return ()

    def reusable_parts(self) -> tuple[str, ...]:
        """Names of the parts that a sampler can keep of it from step to step (:class:`phasewise.ReusedFeatures`)."""
        return ()

    def primed(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> AbstractContextManager[None]:
        """Within it a call at ``x_t``, ``t`` can be counted and timed; one that leans on earlier steps has some."""
        return nullcontext()

    @property
    def jumps(self) -> bool:
        """Whether :meth:`jump` knows a closed form."""
        return False

    @property
    def device(self) -> torch.device:
        """Where its weights are; the CPU for one without any."""
        return next((w.device for w in (*self.parameters(), *self.buffers())), torch.device("cpu"))

    def jump(self, x_t: Tensor, t: float, s: float, cond: Tensor | None = None) -> Tensor | None:
        """``x_s`` on this denoiser's own probability-flow ODE from ``x_t``, exactly, where a closed form is known; else
        None, and a solver approximates it."""
        return None

    def config(self) -> dict[str, Any]:
        """JSON-ready constructor arguments (without weights)."""
        raise PhasewiseError(f"{type(self).__name__} cannot be saved")

    # --- shared as people share models: see denoisers/hub.py ----------------------------------------------------------

    @checks.checked(folder=checks.file, half=checks.flag, records=_records)
    def save_pretrained(self, folder: str | Path, *, half: bool = False, records: Sequence[Record] = ()) -> Path:
        """Write what :func:`phasewise.save_denoiser` does, and README.md, a model card; returns the folder.

        The card tells what it is, pixel moments, radius, parameters, FLOPs where they can be counted, and of a hybrid
        its schedule.  ``records`` add what was measured (:meth:`phasewise.runs.Run.measured` gives those of a run); a
        training.json in the folder is one.  A card that somebody else wrote, or took our mark out of, is left alone.
        ``half`` as for :func:`phasewise.save_denoiser`.

        Raises PhasewiseError for a denoiser that cannot be saved.
        """
        from phasewise.denoisers.hub import save_shared

        return save_shared(self, folder, half=half, records=records)

    @classmethod
    @checks.checked(
        source=checks.file, device=checks.device, revision=checks.text, cache_dir=checks.file,
        token=checks.either(checks.flag, checks.text), local_files_only=checks.flag, force_download=checks.flag,
    )  # fmt: skip
    def from_pretrained(
        cls: type[D],
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: str | torch.device = "cpu",
    ) -> D:
        """The denoiser in a folder, or in a repository of the Hugging Face hub ("OWNER/NAME"), in eval mode.

        A subclass takes its own kind alone; ``Denoiser.from_pretrained`` takes any.  ``revision``, ``token``,
        ``cache_dir``, ``force_download`` as for ``huggingface_hub.snapshot_download``; ``local_files_only``: what the
        cache holds, without asking the network.  Only JSON and safetensors are fetched; code is never run.

        Raises PhasewiseError for a denoiser of another class, a repository that asks for code of its own or cannot be
        fetched, or where the hub's library is missing; CheckpointError where the folder is no denoiser, or not there.
        """
        from phasewise.denoisers.hub import load_shared

        found = load_shared(
            cls, source, device=device, revision=revision, token=token, cache_dir=cache_dir,
            local_files_only=local_files_only, force_download=force_download,
        )  # fmt: skip
        assert isinstance(found, cls)
        return found

    @checks.checked(
        repo_id=checks.text, half=checks.flag, records=_records, private=checks.flag, branch=checks.text,
        token=checks.either(checks.flag, checks.text), create_pr=checks.flag, commit_message=checks.text,
    )  # fmt: skip
    def push_to_hub(
        self,
        repo_id: str,
        *,
        half: bool = False,
        records: Sequence[Record] = (),
        token: str | bool | None = None,
        private: bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        commit_message: str = "Push a phasewise denoiser",
    ) -> str:
        """Put what :meth:`save_pretrained` writes into a repository of the Hugging Face hub ("OWNER/NAME"), made where
        it is not there, in one commit; returns its address.

        ``token``, ``private``, ``branch``, ``create_pr``, ``commit_message``: as for ``huggingface_hub``'s own
        ``ModelHubMixin.push_to_hub``, which does it.

        Raises PhasewiseError for a denoiser that cannot be saved (before anything is asked of the hub), where the hub's
        library is missing, and for what the hub or the network refuses.
        """
        from phasewise.denoisers.hub import push

        return push(
            self, repo_id, half=half, records=records, token=token, private=private, branch=branch,
            create_pr=create_pr, commit_message=commit_message,
        )  # fmt: skip


a_denoiser = checks.made(
    Denoiser,
    "a denoiser",
    "derive a class from phasewise.Denoiser whose forward(x_t, t) is the posterior mean",
)
"""A denoiser, as an argument."""
denoisers_by_name = checks.by_name(a_denoiser, least=0)
"""Denoisers by name, as an argument; who needs which says so."""


class Wrapping(Denoiser):
    """What a denoiser round ``member`` passes on as it is."""

    member: Denoiser

    def pixel_moments(self) -> tuple[Tensor, Tensor] | None:
        return self.member.pixel_moments()

    def pixels_taken(self) -> tuple[float, float] | None:
        return self.member.pixels_taken()

    def reused_members(self) -> tuple[Denoiser, ...]:
        return self.member.reused_members()

    def primed(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> AbstractContextManager[None]:
        return self.member.primed(x_t, t, cond)

    @property
    def jumps(self) -> bool:
        return self.member.jumps


class OnPath(Wrapping):
    """``member`` spoken to on another path: x_t and t are translated at equal log-SNR, exactly (rescale, relabel)."""

    def __init__(self, member: Denoiser, path: NoisePath) -> None:
        super().__init__(member.image_shape, path, member.radius)
        self.member = member

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        x_there, t_there = translate(x_t, t, self.path, self.member.path)
        return self.member(x_there, t_there, cond)

    @property
    def takes_condition(self) -> bool:
        return self.member.takes_condition

    def check_condition(self, cond: Tensor) -> None:
        self.member.check_condition(cond)

    def on(self, path: NoisePath) -> Denoiser:
        # the member itself is moved: translations do not pile up
        return self if path == self.path else self.member.on(path)

    def member_at(self, t: float) -> Denoiser:
        part = self.member.member_at(same_noise(t, self.path, self.member.path))  # a hybrid's member at the same noise
        return self if part is self.member else part.on(self.path)

    def sampling_plan(self) -> SamplingPlan | None:
        plan = self.member.sampling_plan()
        if plan is None:
            return None
        return SamplingPlan(tuple(same_noise(t, self.member.path, self.path) for t in plan.times), plan.solver)

    def jump(self, x_t: Tensor, t: float, s: float, cond: Tensor | None = None) -> Tensor | None:
        if not self.jumps:
            return None
        x_there, t_there = translate(x_t, t, self.path, self.member.path)
        s_there = translate(x_t, s, self.path, self.member.path)[1]
        moved = self.member.jump(x_there, float(t_there), float(s_there), cond)
        # at s: that is where the jump ends
        return None if moved is None else translate(moved, s_there, self.member.path, self.path)[0]


class Given(Wrapping):
    """``member`` with its condition bound (:meth:`Denoiser.given`): called like a denoiser without one."""

    cond: Tensor

    def __init__(self, member: Denoiser, cond: Condition) -> None:
        super().__init__(member.image_shape, member.path, member.radius)
        self.member = member
        rows = as_condition(cond)
        if not on_trust():
            member.check_condition(rows)
        self.register_buffer("cond", rows.to(member.device))

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        if cond is not None:
            raise PhasewiseError("this denoiser has its condition bound already; leave cond out, or bind another one")
        return self.member(x_t, t, as_rows(self.cond, len(x_t)))

    def primed(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> AbstractContextManager[None]:
        return self.member.primed(x_t, t, as_rows(self.cond, len(x_t)))

    def on(self, path: NoisePath) -> Denoiser:
        return self if path == self.path else Given(self.member.on(path), self.cond)

    def given(self, cond: Condition) -> Denoiser:
        raise PhasewiseError("this denoiser has its condition bound already; bind another one to its .member")

    def member_at(self, t: float) -> Denoiser:
        part = self.member.member_at(t)
        if part is self.member:
            return self
        return part.given(self.cond) if part.takes_condition else part

    def sampling_plan(self) -> SamplingPlan | None:
        return self.member.sampling_plan()

    def jump(self, x_t: Tensor, t: float, s: float, cond: Tensor | None = None) -> Tensor | None:
        return self.member.jump(x_t, t, s, as_rows(self.cond, len(x_t)))

    def config(self) -> dict[str, Any]:
        raise PhasewiseError("a denoiser with its condition bound cannot be saved; save its .member, and bind again")


def as_condition(cond: Condition) -> Tensor:
    """``cond`` as a tensor with rows, (1,) for a single label; PhasewiseError for what is no tensor and no number."""
    try:
        rows = torch.as_tensor(cond)
    except (TypeError, ValueError, RuntimeError) as error:
        raise PhasewiseError(f"cond must be a class label or a tensor with a row for each image ({error})") from error
    return rows.reshape(1) if rows.dim() == 0 else rows


def as_rows(cond: Condition, n: int) -> Tensor:
    """``cond`` as one row for each of ``n`` images, (n, ...); a single one is repeated, without a copy.

    Raises PhasewiseError for another number of rows.
    """
    rows = as_condition(cond)
    if len(rows) not in (1, n):
        raise PhasewiseError(
            f"cond has {len(rows)} rows for {n} images; give one row for each image, or a single one for all"
        )
    return rows.expand(n, *rows.shape[1:])


def check_radius(radius: int, shape: ImageShape) -> int:
    """``radius`` if 1 <= radius < max(H, W); a larger window sees the whole image already."""
    radius = _radius(radius, "radius")
    largest = max(shape[1:]) - 1
    if radius > largest:
        raise PhasewiseError(
            f"radius {radius} is larger than the image: at {shape[1]}x{shape[2]} the largest is {largest}"
        )
    return radius


_radius = checks.whole(1, what="a whole number of pixels")


def same_noise(t: float, source: NoisePath, target: NoisePath) -> float:
    """The time on ``target`` at which its log-SNR is that of ``source`` at ``t``."""
    return float(translate(torch.zeros(1, dtype=torch.float64), t, source, target)[1])
