"""What a training step sees, as a function of (seed, step) alone: images, noise, times, and what is to be predicted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from phasewise import seeding
from phasewise.denoisers import Denoiser, bind
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath
from phasewise.training.loss import draw_times


@dataclass(frozen=True)
class Batch:
    """x, z (B, C, H, W), t (B,), the target (B, C, H, W): x itself, or a teacher's posterior mean at x_t; and the
    condition (B, ...), if there is one."""

    x: Tensor
    z: Tensor
    t: Tensor
    target: Tensor
    cond: Tensor | None = None

    def rows(self, start: int, stop: int) -> Batch:
        part = slice(start, stop)
        cond = None if self.cond is None else self.cond[part]
        return Batch(self.x[part], self.z[part], self.t[part], self.target[part], cond)


class Batches:
    """Batches of (n, C, H, W) images already on their device: order of (seed, epoch), noise and times of (seed, step).

    With a ``teacher`` the target is its posterior mean, which, if the teacher is ideal, has the conditional mean of x
    and less variance; a teacher on another path is translated.  ``cond`` holds a row for each image, which a teacher
    that takes a condition is told too; of labels a share ``hidden`` becomes ``null``, another one at every step.
    """

    def __init__(
        self,
        images: Tensor,
        size: int,
        *,
        seed: int,
        times: str,
        span: tuple[float, float],
        path: NoisePath,
        teacher: Denoiser | None = None,
        cond: Tensor | None = None,
        flip: bool = False,
        noise: str = "cpu",
        hidden: float = 0.0,
        null: int | None = None,
    ) -> None:
        self.images, self.size, self.seed, self.times, self.span, self.path = images, size, seed, times, span, path
        self.flip, self.noise, self.hidden, self.null = flip, noise, hidden, null
        self.cond = None if cond is None else cond.to(images.device)
        self.per_epoch = max(len(images) // size, 1)  # images that fill no batch are left out of the epoch
        self.teacher: Denoiser | None = None
        if teacher is not None:
            if teacher.image_shape != tuple(images.shape[1:]):
                shape = tuple(images.shape[1:])
                raise PhasewiseError(
                    f"the teacher denoises images of shape {teacher.image_shape}, the data has {shape}"
                )
            self.teacher = teacher.on(path).to(images.device).eval()  # on the students' path: one x_t for all
        self._order: tuple[int, Tensor] | None = None

    def order(self, epoch: int) -> Tensor:
        """The images of an epoch in their order; the last one asked for is kept."""
        if self._order is None or self._order[0] != epoch:
            shuffle = seeding.generator(self.seed, seeding.Purpose.TRAINING_ORDER, epoch)
            self._order = (epoch, torch.randperm(len(self.images), generator=shuffle))
        return self._order[1]

    def draw(self, step: int) -> Batch:
        epoch, position = divmod(step, self.per_epoch)
        device = self.images.device
        chosen = self.order(epoch)[position * self.size : (position + 1) * self.size].to(device)
        x, cond = self.images[chosen], None if self.cond is None else self.cond[chosen]
        # drawn on the CPU unless asked otherwise, so that every device trains on the same numbers
        generator = seeding.generator(self.seed, seeding.Purpose.TRAINING_NOISE, step)
        if self.noise == "cpu":
            z = torch.randn(x.shape, generator=generator).to(device)
        else:
            there = torch.Generator(device).manual_seed(generator.initial_seed())
            z = torch.randn(x.shape, generator=there, device=device)
        t = draw_times(len(x), self.times, self.span, generator).to(device)
        if self.flip:
            mirrored = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(mirrored.to(device)[:, None, None, None], x.flip(3), x)
        if cond is not None and self.null is not None:
            unsaid = torch.rand(len(x), generator=generator) < self.hidden
            cond = cond.masked_fill(unsaid.to(device), self.null)
        if self.teacher is None:
            return Batch(x, z, t, x, cond)
        with torch.no_grad():
            return Batch(x, z, t, bind(self.teacher, cond)(self.path.add_noise(x, z, t), t), cond)


def fingerprint_of_rows(rows: Tensor) -> str:
    """Sixteen hexadecimal digits of a condition: its kind of number, its shape and its values."""
    digest = hashlib.sha256(f"{rows.dtype} {tuple(rows.shape)};".encode())  # the same bytes may be another condition
    digest.update(rows.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint(denoiser: Denoiser | None) -> str | None:
    """Sixteen hexadecimal digits of a denoiser's weights, so that a checkpoint is not resumed under another teacher."""
    if denoiser is None:
        return None
    digest = hashlib.sha256(type(denoiser).__name__.encode())
    for name, value in sorted(denoiser.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
