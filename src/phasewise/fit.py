r"""One small loop that fits a network by AdamW, and every learning rate over time the package uses.

With ``peak`` the largest rate, k the step (from 0) and n their number::

    warm_up        peak min(1, (k + 1) / w)                                       over the first w steps
    linear_decay   peak (1 - k / n)
    cosine_decay   peak [ f + (1 - f) (1 + cos(pi k / n)) / 2 ]                   down to a floor f
    one_cycle      up from peak / 25 and down to nearly 0, both along cosines, while AdamW's first beta goes
                   down from 0.95 to 0.85 and up again (Smith, Topin 2018, arXiv 1708.07120)

Curves are composed by handing one's value to the next as its peak.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import write_bytes
from phasewise.tensors import checked_state, optimiser_state, part_of, read_tensors

Settings = Callable[[int], Mapping[str, Any]]
"""Step -> settings of the optimiser for that step, such as ``{"lr": 1e-3}``."""


EVERY_S = 45.0
"""Seconds between two snapshots of a fit."""
MEND = "delete it to begin that fit anew"
"""What helps where a snapshot is of no use."""


@dataclass
class Snapshot:
    """Where an unfinished fit lies, so that the same call goes on from its last snapshot to the same bits.

    Attributes:
        file: safetensors; whoever names it sees to it that no other fit has this name.
        streams: generators that the loss draws from.  The global ones are kept as well.
        state: what else the loss remembers of earlier steps, by name.  back: puts that back.
        about: what tells this fit from others of its shape, in words; a file that says otherwise is refused.
        every: seconds between two snapshots.
    """

    file: Path
    streams: tuple[torch.Generator, ...] = ()
    state: Callable[[], Mapping[str, Tensor]] = dict
    back: Callable[[Mapping[str, Tensor]], None] = lambda _: None
    about: Mapping[str, str] | None = None
    every: float = field(default_factory=lambda: EVERY_S)

    def save(self, net: nn.Module, optimiser: torch.optim.Optimizer, step: int, steps: int) -> None:
        """After ``step`` of ``steps``."""
        kept = {f"model.{k}": v for k, v in net.state_dict().items()}
        for index, fields in optimiser.state_dict()["state"].items():
            kept |= {f"optimiser.{index}.{k}": v for k, v in fields.items()}
        kept |= {f"state.{k}": v for k, v in self.state().items()}
        kept |= {f"stream.{i}": rng.get_state() for i, rng in enumerate(self.streams)}
        kept |= {f"global.{name}": state for name, state in _global_states(net).items()}
        # safetensors takes no tensors that share memory
        own = {k: v.detach().cpu().contiguous().clone() for k, v in kept.items()}
        write_bytes(self.file, save_tensors(own, {"step": str(step), **self._asked(steps)}))

    def _asked(self, steps: int) -> dict[str, str]:
        return {"steps": str(steps), **(self.about or {})}

    def load(self, net: nn.Module, optimiser: torch.optim.Optimizer, steps: int) -> int:
        """Put back what :meth:`save` wrote, and say after how many steps; 0 where there is no file.

        Raises :class:`CheckpointError` where the file is damaged or of another fit."""
        if not self.file.is_file():
            return 0
        tensors, about = read_tensors(self.file, MEND)
        for name, wanted in self._asked(steps).items():
            if about.get(name) != wanted:
                raise CheckpointError(
                    f"{self.file} is of another fit, of {name} {about.get(name)}, not {wanted}; {MEND}"
                )
        parameters = list(net.parameters())
        net.load_state_dict(checked_state(net, part_of(tensors, "model."), self.file, MEND))
        state = {
            index: {name: _as_laid_out(value, parameters[index]) for name, value in fields.items()}
            for index, fields in optimiser_state(tensors, [parameters], self.file, MEND).items()
        }
        try:
            step = int(about["step"])
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
            for i, rng in enumerate(self.streams):
                rng.set_state(tensors[f"stream.{i}"])
            for name, value in part_of(tensors, "global.").items():
                _set_global(name, value, net)
            self.back(part_of(tensors, "state."))
        except (LookupError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"{self.file} is of another fit, or damaged ({error}); {MEND}") from error
        return step


def _as_laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """``value`` with the strides of its parameter where it has its shape: what an optimiser made has them."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device


def _global_states(net: nn.Module) -> dict[str, Tensor]:
    """Of the global generators that a step of ``net`` may draw from."""
    states = {"cpu": torch.get_rng_state()}
    if _device(net).type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(_device(net))
    return states


def _set_global(name: str, state: Tensor, net: nn.Module) -> None:
    if name == "cpu":
        torch.set_rng_state(state)
    elif _device(net).type == name == "cuda":
        torch.cuda.set_rng_state(state, _device(net))


def warm_up(peak: float, step: int, steps: int) -> float:
    """Linear from ``peak / steps`` to ``peak`` over the first ``steps`` steps."""
    return peak * min(1.0, (step + 1) / steps)


def linear_decay(peak: float, step: int, steps: int) -> float:
    """From ``peak`` to 0 at ``steps``."""
    return peak * (1 - step / steps)


def cosine_decay(peak: float, step: int, steps: int, floor: float = 0.0) -> float:
    """From ``peak`` to ``floor * peak`` at ``steps``, along half a cosine."""
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps)))


def one_cycle(peak: float, step: int, steps: int, rise: float = 0.2, beta2: float = 0.999) -> dict[str, Any]:
    """Rate and betas of AdamW: the rate rises over the share ``rise`` of ``steps``, then falls to ``peak / 250 000``.

    The numbers of torch's ``OneCycleLR``, without its division by zero where the rise is one step long.
    """
    top, last = rise * steps - 1, steps - 1  # steps at the peak and at the end, counted from 0
    rising = step <= top
    start, end = (0.0, top) if rising else (top, last)
    done = (step - start) / (end - start) if end > start else 1.0
    low, high = peak / 25, 0.95  # OneCycleLR's div_factor, final_div_factor (1e4) and momenta
    rate = (low, peak) if rising else (peak, low / 1e4)
    beta = (high, 0.85) if rising else (0.85, high)
    return {"lr": _along_cosine(*rate, done), "betas": (_along_cosine(*beta, done), beta2)}


def _along_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * done) + 1)


def minimise(
    net: nn.Module,
    loss_of: Callable[[], Tensor],
    steps: int,
    settings: Settings,
    *,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    fused: bool = False,
    clip: float | None = None,
    failed: Callable[[int, float], str] | None = None,
    done: Callable[[int, Tensor], None] | None = None,
    snapshot: Snapshot | None = None,
) -> None:
    """Take ``steps`` steps of AdamW (Loshchilov, Hutter 2019) down ``loss_of()``, a scalar drawn anew at each step.

    Args:
        net: put into training mode, and into evaluation mode at the end.
        settings: step (from 0) -> the optimiser's settings for it, at least ``{"lr": ..}``.
        clip: largest norm of the gradient of all parameters together.
        failed: (step, loss) -> what to say when a loss is not finite; None leaves losses unread, which spares an
            accelerator a stop at every step.
        done: called as ``done(step, loss)``, the loss without its graph, after each step.
        snapshot: where an unfinished fit is kept; a finished one stays there too, until whoever asked deletes it.

    Raises :class:`PhasewiseError` in the words of ``failed``; the step is then not taken.
    """
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=settings(0)["lr"], betas=betas, weight_decay=weight_decay, fused=fused
    )
    net.train()
    first = 0 if snapshot is None else snapshot.load(net, optimiser, steps)
    kept = time.monotonic()
    for step in range(first, steps):
        optimiser.param_groups[0].update(settings(step))
        loss = loss_of()
        # before the step, so that the weights stay finite
        if failed is not None and not math.isfinite(float(loss.detach())):
            raise PhasewiseError(failed(step, float(loss.detach())))
        optimiser.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimiser.step()
        if done is not None:
            done(step, loss.detach())
        if snapshot is not None and (step + 1 == steps or time.monotonic() - kept >= snapshot.every):
            snapshot.save(net, optimiser, step + 1, steps)
            kept = time.monotonic()
    net.eval()
