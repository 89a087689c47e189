"""What :func:`phasewise.train` and :func:`phasewise.training.train_together` are told beside networks, data and preset.

Written once: the fields of :class:`TrainSettings` are keyword arguments of both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from phasewise import checks
from phasewise.data import ImageData, as_images, condition_of_part
from phasewise.denoisers import Denoiser, condition_rows
from phasewise.denoisers.base import a_denoiser

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Keyword arguments of a training.

    Args:
        seed: of the order of images, of noise and of times.
        epochs, steps, batch: override these fields of the preset.
        out: folder for ``checkpoint.safetensors`` and ``training.json`` (of several networks, for a folder per name); a
            stopped training resumes from it.
        device: default where the network is.
        span: train only on noise times in this interval (an expert).
        teacher: learn this denoiser's posterior mean at x_t instead of the clean image (distillation); held-out losses
            are against the clean image all the same.
        cond: what networks (and a teacher) that take a condition are told: "labels", those of the data; or a tensor
            with a row for each image: of a tensor of images in its order, of an ImageData a row for each training
            image, followed by one for each validation image.
        progress: print a live line, or call this function with each row of progress.
        checkpoint_every: seconds between checkpoints.
    """

    seed: int = 0
    epochs: float | None = None
    steps: int | None = None
    batch: int | None = None
    out: str | Path | None = None
    device: str | torch.device | None = None
    span: tuple[float, float] = (0.0, 1.0)
    teacher: Denoiser | None = None
    cond: Tensor | str | None = None
    progress: bool | Callable[[dict[str, Any]], None] = True
    checkpoint_every: float = 60.0

    def __post_init__(self) -> None:
        checks.check_fields(
            self, seed=checks.seed, epochs=checks.epochs, steps=checks.count, batch=checks.count, out=checks.file,
            device=checks.device, span=checks.pair_inside(0, 1), teacher=a_denoiser,
            progress=checks.either(checks.flag, checks.function), checkpoint_every=checks.not_negative,
        )  # fmt: skip


def with_settings(function: F) -> F:
    """Show the fields of :class:`TrainSettings` in the signature of a function that takes ``**settings``."""
    shown = inspect.signature(function)
    own = [p for p in shown.parameters.values() if p.kind is not p.VAR_KEYWORD]
    fields = inspect.signature(TrainSettings).parameters.values()
    function.__signature__ = shown.replace(parameters=[*own, *fields])  # type: ignore[attr-defined]
    return function


class Conditions(NamedTuple):
    """A row for each training image, and for each validation image; None where nothing is told."""

    train: Tensor | None = None
    validation: Tensor | None = None

    @classmethod
    def of(cls, source: object, data: ImageData, settings: TrainSettings, denoisers: list[Denoiser]) -> Conditions:
        """``settings.cond`` split as ``source`` was split into ``data``.

        Raises PhasewiseError where it does not fit the images, or where none of the ``denoisers`` takes a condition.
        """
        cond, sizes = settings.cond, [len(data.train), len(data.validation)]
        if cond is None:
            return cls()
        if isinstance(cond, str):
            parts = (condition_of_part(data, part, cond) for part in ("train", "validation"))
            return cls(*(condition_rows(rows, n, denoisers) for rows, n in zip(parts, sizes, strict=True)))
        if isinstance(source, Tensor):  # split by chance: send the numbers of its images the same way
            numbers = as_images(torch.arange(len(source), dtype=torch.float32).reshape(-1, 1, 1, 1))
            rows = condition_rows(cond, len(source), denoisers)
            assert rows is not None
            return cls(*(rows[part.flatten().long()] for part in (numbers.train, numbers.validation)))
        rows = condition_rows(cond, sum(sizes), denoisers)
        assert rows is not None
        return cls(*rows.split(sizes))  # an ImageData comes split: training rows, then validation rows
