"""One refit of an amortised network: its images, the random batches it is shown, and its training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phasewise.fit import cosine_decay, minimise, warm_up
from phasewise.information.base import Say
from phasewise.information.problem import Problem

GROUPS = 4
WARM_UP = 100


@dataclass(frozen=True, eq=False)
class Fold:
    """Clean images (n, D) of one refit: to fit, to choose by, and to score; and its own seed."""

    number: int
    train: Tensor
    validation: Tensor
    scored: Tensor
    seed: int


@dataclass(eq=False)
class RandomBatch:
    """What :func:`train_network` minimises: ``loss_of(clean, time, regions)`` on random images, each seen through B and
    C together and through one buffer, at ``GROUPS`` random times a step.

    ``where``: a time of the last step, of a loss that is not finite if there was one.
    """

    problem: Problem
    fold: Fold
    batch: int
    regions: int
    generator: torch.Generator
    loss_of: Callable[[Tensor, int, Tensor], Tensor]
    where: str = ""

    def __call__(self) -> Tensor:
        loss, self.where = torch.zeros(()), ""
        for _ in range(GROUPS):
            time, part = self._group(max(1, self.batch // GROUPS))
            if not self.where or not math.isfinite(float(part.detach())):
                self.where = f"t = {self.problem.times[time]:g}"
            loss = loss + part
        return loss

    def _group(self, n: int) -> tuple[int, Tensor]:
        """A random time by number, and the share of the loss that ``n`` random images at that time make up."""
        clean = self.fold.train[torch.randint(len(self.fold.train), (n,), generator=self.generator)]
        time = int(torch.randint(len(self.problem.times), (1,), generator=self.generator))
        other = torch.randint(self.regions - 1, (n,), generator=self.generator)
        through = torch.stack([torch.full((n,), self.regions - 1), other], 1)
        return time, self.loss_of(clean, time, through) / GROUPS


def train_network(net: nn.Module, draw: RandomBatch, steps: int, lr: float, weight_decay: float, say: Say) -> None:
    """Minimise the mean of ``draw()`` with AdamW, 100 warm-up steps and a cosine decay to 0.

    Raises :class:`PhasewiseError` naming the time when a loss is not finite.
    """
    total, every = 0.0, max(1, steps // 5)

    def tell(step: int, loss: Tensor) -> None:
        nonlocal total
        total += float(loss)
        if (step + 1) % every == 0:
            say(f"step {step + 1} of {steps}, loss {total / every:.4f}")
            total = 0.0

    def failed(step: int, value: float) -> str:
        return f"the loss became {value} at {draw.where}, step {step + 1}; lower lr or scale the pixels"

    minimise(
        net, draw, steps, lambda step: {"lr": cosine_decay(warm_up(lr, step, WARM_UP), step, steps)},
        weight_decay=weight_decay, betas=(0.9, 0.98), clip=1.0, failed=failed, done=tell,
    )  # fmt: skip


def build_network(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network whose initial weights depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**32)
        return make()
