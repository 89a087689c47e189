"""Batches one after another, their results gathered on the CPU without a wait in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from phasewise.errors import PhasewiseError
from phasewise.memory import fitting
from phasewise.progress import counter

Progress = Callable[[int, int], None]
PENDING = 2
"""Batches that a GPU may be behind: more would only hold pinned memory."""


def in_batches(
    run: Callable[[int, int], Tensor],
    n: int,
    batch: int,
    progress: bool | Progress | None = None,
    what: str = "sampling",
) -> Tensor:
    """``run(size, first)`` gives the rows first .. first + size of (n, ...), on any device; all of them on the CPU.

    ``progress(done, n)`` after every batch, or True for a line that shows it; on a GPU ``done`` counts what it was
    asked for.  Raises PhasewiseError for a batch too large for the memory, naming one that is not, and for images that
    are not finite.
    """
    out: list[Tensor] = []
    tell = counter(what, progress, "images")
    pending: deque[tuple[Tensor, torch.cuda.Event]] = deque()
    for first in range(0, n, batch):
        size = min(batch, n - first)
        with fitting(size, lambda k, first=first: run(k, first), what):  # type: ignore[misc]
            part = run(size, first)
        if part.is_cuda:
            pending.append(_leaving(part))
        else:
            out.append(part.cpu())
        while len(pending) > PENDING:
            out.append(_arrived(*pending.popleft()))
        if tell is not None:
            tell(first + size, n)
    out += [_arrived(*each) for each in pending]
    images = torch.cat(out)
    if not bool(torch.isfinite(images).all()):
        wrong = int((~torch.isfinite(images.flatten(1)).all(1)).sum())
        raise PhasewiseError(
            f"{what} gave NaN or infinite pixels in {wrong} of {n} images: the denoiser answers so at a time of the "
            "grid (often t = 1, where alpha = 0); mend it there, or start below by t_start"
        )
    return images


def _leaving(part: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    """A copy of ``part`` on its way to pinned memory, and the event of its arrival."""
    there = torch.empty(part.shape, dtype=part.dtype, pin_memory=True)
    there.copy_(part, non_blocking=True)
    arrival = torch.cuda.Event()
    arrival.record(torch.cuda.current_stream(part.device))
    return there, arrival


def _arrived(there: Tensor, arrival: torch.cuda.Event) -> Tensor:
    arrival.synchronize()
    return there.clone()  # pinned memory is scarce: it goes back
