r"""Paths that other people's networks were trained on: a table of noise levels, and images in other pixel units.

A discrete diffusion of K steps has noise levels ``alpha_k^2 = prod_{j <= k} (1 - beta_j)``, k = 0..K-1 (Ho et al. 2020,
arXiv 2006.11239).  :class:`TablePath` is the continuous path through them::

    t = (k + 1) / K  at step k,    sigma / alpha linear in t between two steps,    t = 0: the image itself.

A sampler that visits fractional steps (Euler's, in diffusers) interpolates sigma / alpha the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.paths.base import NoisePath, Time, _tensor, a_path, path_from_config, register_path

SNAP = 5e-4
"""A time so near to a step, in steps, is that step: single precision cannot tell a thousand of them better."""
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


def betas_of(schedule: str, start: float, end: float, steps: int, zero_terminal_snr: bool = False) -> Tensor:
    """(K,) float32: the betas that diffusers calls by these names.

    "linear" from ``start`` to ``end``; "scaled_linear": its root is; "squaredcos_cap_v2": Nichol and Dhariwal's cosine.
    ``zero_terminal_snr`` rescales them so that nothing of the image is left at the last step (Lin et al. 2023,
    arXiv 2305.08891, algorithm 1).
    """
    if schedule == "linear":
        betas = torch.linspace(start, end, steps, dtype=torch.float32)
    elif schedule == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float32) ** 2
    elif schedule == "squaredcos_cap_v2":
        u = torch.arange(steps + 1, dtype=torch.float64) / steps
        bar = torch.cos((u + 0.008) / 1.008 * torch.pi / 2) ** 2
        betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999).float()
    else:
        raise PhasewiseError(f"there is no schedule of betas {schedule!r}; there is {', '.join(SCHEDULES)}")
    return _without_terminal_signal(betas) if zero_terminal_snr else betas


def _without_terminal_signal(betas: Tensor) -> Tensor:
    root = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    squared = ((root - last) * (first / (first - last))) ** 2
    return 1 - torch.cat([squared[:1], squared[1:] / squared[:-1]])


@register_path
class TablePath(NoisePath):
    """Variance preserving, through a table of noise levels (see the module).

    Args:
        alphas_cumprod: (K,) ``alpha_k^2``, falling strictly inside (0, 1); the last may be 0.  Or instead
        betas, start, end, steps, zero_terminal_snr: what makes them, as :func:`betas_of` takes it.

    Attributes:
        steps: K.

    Raises PhasewiseError for both or neither, and for a table that does not fall.
    """

    name = "table"

    def __init__(
        self,
        alphas_cumprod: Sequence[float] | Tensor | None = None,
        *,
        betas: str | None = None,
        start: float = 1e-4,
        end: float = 0.02,
        steps: int = 1000,
        zero_terminal_snr: bool = False,
    ) -> None:
        if (alphas_cumprod is None) == (betas is None):
            raise PhasewiseError("give a table of alphas_cumprod, or the name of a schedule of betas; one of them")
        self._recipe: dict[str, Any] = {}
        if betas is not None:
            steps = checks.count(steps, "steps")
            self._recipe = {"betas": betas, "start": start, "end": end, "steps": steps}
            self._recipe |= {"zero_terminal_snr": True} if zero_terminal_snr else {}
            table = torch.cumprod(1.0 - betas_of(betas, start, end, steps, zero_terminal_snr), dim=0).double()
        else:
            table = torch.as_tensor(alphas_cumprod, dtype=torch.float64).detach().cpu().reshape(-1)
        bad = len(table) < 2 or not bool(table[0] < 1) or not bool((table.diff() < 0).all()) or not bool(table[-1] >= 0)
        if bad:
            raise PhasewiseError(
                "alphas_cumprod must fall strictly from below 1, down to 0 at the least, over two steps or more; got "
                f"{[round(float(v), 4) for v in table[:3]]} ... {float(table[-1]) if len(table) else ''}"
            )
        self.alphas_cumprod, self.steps = table, len(table)
        # ends of the K stretches, as (signal, noise) up to a factor; the last may end in noise alone
        ratio = torch.cat([table.new_zeros(1), ((1 - table) / table.clamp_min(1e-300)).sqrt()])
        signal, noise = torch.ones_like(ratio), ratio
        self._from, self._to = torch.stack([signal[:-1], noise[:-1]]), torch.stack([signal[1:], noise[1:]])
        if table[-1] <= 0:
            self._from[:, -1] = torch.tensor([1 / ratio[-2], 1.0], dtype=torch.float64)
            self._to[:, -1] = torch.tensor([0.0, 1.0], dtype=torch.float64)
        self._ratio = ratio
        self._ends: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Signal and noise up to a common factor, and their derivatives in t."""
        at = t.double() * self.steps
        off = (at - at.round()).detach()
        at = torch.where(off.abs() < SNAP, at - off, at)  # the derivative in t stays what it is
        stretch = (at.detach().ceil() - 1).clamp(0, self.steps - 1)
        part, index = at - stretch, stretch.long()
        if t.device not in self._ends:  # copied to an accelerator once, not at every call
            self._ends[t.device] = self._from.to(t.device), self._to.to(t.device)
        begin, end = (ends[:, index] for ends in self._ends[t.device])
        (c, s), (dc, ds) = begin + part * (end - begin), self.steps * (end - begin)
        return c, s, dc, ds

    def alpha(self, t: Tensor) -> Tensor:
        c, s, _, _ = self._at(t)
        return (c / torch.hypot(c, s)).to(t.dtype)

    def sigma(self, t: Tensor) -> Tensor:
        c, s, _, _ = self._at(t)
        return (s / torch.hypot(c, s)).to(t.dtype)

    def alpha_dot(self, t: Tensor) -> Tensor:
        c, s, dc, ds = self._at(t)
        return (s * (dc * s - c * ds) / torch.hypot(c, s) ** 3).to(t.dtype)

    def sigma_dot(self, t: Tensor) -> Tensor:
        c, s, dc, ds = self._at(t)
        return (c * (ds * c - s * dc) / torch.hypot(c, s) ** 3).to(t.dtype)

    def t_of_log_snr(self, log_snr: Time) -> Tensor:
        value = _tensor(log_snr)
        ratio = torch.exp(-value.double() / 2)  # sigma / alpha
        nodes = self._ratio.to(ratio.device)
        index = (torch.searchsorted(nodes, ratio.contiguous()) - 1).clamp(0, self.steps - 1)
        low, high = nodes[index], nodes[index + 1]
        part = (ratio - low) / (high - low)
        if self.alphas_cumprod[-1] <= 0:  # the last stretch is linear in alpha / sigma instead
            part = torch.where(index == self.steps - 1, 1 - low / ratio, part)
        return ((index + part.clamp(0, 1)) / self.steps).to(value.dtype)

    def config(self) -> dict[str, Any]:
        return {"name": self.name, **(self._recipe or {"alphas_cumprod": self.alphas_cumprod.tolist()})}

    def __repr__(self) -> str:
        made = self._recipe.get("betas", f"{float(self.alphas_cumprod[0]):.4g}...{float(self.alphas_cumprod[-1]):.2g}")
        return f"TablePath({made}, {self.steps} steps)"


@register_path
class ScaledPath(NoisePath):
    """``of``, for images in other pixel units: a network that takes them ``scale`` times as wide (2 for -1..1 where
    yours are 0..1) sees noise of ``sigma`` as one of ``sigma / scale`` in yours; alpha stays."""

    name = "scaled"

    def __init__(self, of: NoisePath | dict[str, Any], scale: float) -> None:
        self.of = a_path(path_from_config(of) if isinstance(of, dict) else of, "of")
        self.scale = checks.positive(scale, "scale")

    def alpha(self, t: Tensor) -> Tensor:
        return self.of.alpha(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.of.sigma(t) / self.scale

    def alpha_dot(self, t: Tensor) -> Tensor:
        return self.of.alpha_dot(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self.of.sigma_dot(t) / self.scale

    def t_of_log_snr(self, log_snr: Time) -> Tensor:
        value = _tensor(log_snr)
        # (alpha / sigma)^2 is scale^2 times as large here
        return self.of.t_of_log_snr(value - 2 * torch.log(torch.tensor(self.scale, dtype=value.dtype)))

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "of": self.of.config(), "scale": self.scale}


def in_pixels(path: NoisePath, pixel_range: tuple[float, float] | None) -> NoisePath:
    """``path`` for pixels of 0..1 where its own are ``pixel_range``: itself where these are as wide, or None."""
    low, high = pixel_range or (0.0, 1.0)
    return path if high - low == 1 else ScaledPath(path, high - low)
