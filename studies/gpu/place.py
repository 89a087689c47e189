"""Where a job works: images, folders of networks, the device, and how much time it may take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import phasewise as pw
from phasewise.data import ImageData
from phasewise.errors import PhasewiseError
from phasewise.processor import fast_in_bfloat16
from studies import subject

JUDGES = {"seen": "judge", "unseen": "judge-unseen"}
"""Their folders.  The first judge's features are the penalty's, too; the second one's no penalty has looked through."""


@dataclass(frozen=True)
class Place:
    """What every job is given.

    Attributes:
        work: folder of networks, ``work/SET/NAME`` each.
        data_dir: folder of the named sets.
        device: where it runs.
        pace: factor on every job's seconds of training.
        quick: a few images and steps, on the CPU: does it run?
    """

    work: Path
    data_dir: str | None
    device: str
    pace: float = 1.0
    quick: bool = False

    @property
    def in_half(self) -> bool:
        """Whether networks train, and sample, with products in bfloat16 on the processor; an accelerator has its own
        preset."""
        return self.device == "cpu" and fast_in_bfloat16()

    def images(self, name: str) -> ImageData:
        return _images(name, self.data_dir, self.quick)

    def folder(self, name: str, network: str) -> Path:
        return self.work / name / network

    def network(self, name: str, network: str) -> pw.Denoiser:
        """A network that an earlier job trained."""
        folder = self.folder(name, network)
        if not (folder / "config.json").is_file():
            raise PhasewiseError(f"{folder} has no network yet: run the job that trains it first (studies gpu --list)")
        return pw.load_denoiser(folder, self.device)


@cache
def _images(name: str, data_dir: str | None, quick: bool) -> ImageData:
    """A set by name; "clothing64" is clothing128 with 2 x 2 pixels averaged, and so on."""
    side = int("".join(c for c in name if c.isdigit()) or 0) if name.startswith("clothing") else 0
    if quick:
        return _tiny(name, side)
    if not side:
        return subject.load(name, data_dir)
    return replace(subject.load("clothing128", data_dir, resize=side), name=name)


def _tiny(name: str, side: int) -> ImageData:
    """Digits in the colours and, up to 64 pixels, the size of the set: for the quick form, never an answer."""
    data = pw.load_images("digits", limit=200)
    colours = 1 if "mnist" in name else 3
    size = min(side, 64) or (28 if "mnist" in name else 32)

    def enlarged(images: torch.Tensor) -> torch.Tensor:
        tint = torch.tensor([1.0, 0.7, 0.4])[:colours].reshape(1, colours, 1, 1)
        return F.interpolate(images, size) * tint

    fields: dict[str, Any] = {}
    for part, n in (("train", 64), ("validation", 16), ("test", 32)):
        fields |= {part: enlarged(getattr(data, part)[:n]), f"labels_{part}": getattr(data, f"labels_{part}")[:n]}
    return ImageData(name, **fields)
