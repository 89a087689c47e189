r"""What the field's caches look at, measured on a few trajectories: how a network's inside changes from step to step
(TeaCache, MagCache, SeaCache) and what each run of kept steps does to the image (LeMiCa).

The rules that make masks of it are in :mod:`phasewise.scheduling.field`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from phasewise import checks
from phasewise.denoisers import DiTDenoiser, HybridDenoiser, ReusedFeatures, UNetDenoiser
from phasewise.denoisers.base import Denoiser, a_denoiser
from phasewise.denoisers.kept import Memory, Wanted
from phasewise.errors import PhasewiseError
from phasewise.modes import in_evaluation
from phasewise.results import DEFAULT_SOLVER, HybridSchedule, Record
from phasewise.sampling import integrate, sample
from phasewise.sampling.loop import start_of
from phasewise.sampling.noise import solver_noise
from phasewise.sampling.solvers import solver_name


@dataclass(frozen=True)
class Changes(Record):
    """How a network's inside changes from each step of a grid to the next: (S - 1,) each, means over trajectories.

    Attributes:
        times: (S,) start times.
        inputs: relative L1 change of the input of the first block, scaled and shifted by the time (TeaCache's signal).
        filtered: the same through the optimal linear denoiser of its noise (SeaCache's).
        kept: relative L1 change of the part that is kept.
        ratios: mean ratio of that part's magnitudes, place by place (MagCache's).
        part, n, seed: what is kept, trajectories, their seed.
    """

    times: np.ndarray
    inputs: np.ndarray
    filtered: np.ndarray
    kept: np.ndarray
    ratios: np.ndarray
    part: str
    n: int
    seed: int


a_change = checks.made(Changes, "what measure_changes gives")


@in_evaluation
@torch.inference_mode()
@checks.checked(
    denoiser=a_denoiser, times=checks.times, part=checks.text, solver=solver_name, n=checks.count, seed=checks.seed,
    decay=checks.positive,
)  # fmt: skip
def measure_changes(
    denoiser: Denoiser,
    times: Sequence[float],
    part: str,
    *,
    solver: str = DEFAULT_SOLVER,
    n: int = 32,
    seed: int = 0,
    decay: float = 2.0,
) -> Changes:
    """What threshold caches look at, on ``n`` trajectories of the whole network from noise.

    ``part``: what is kept (:class:`~phasewise.denoisers.ReusedFeatures`).  ``decay``: power of the frequency by which
    SeaCache takes the spectrum of images to fall.  Raises PhasewiseError for a network that cannot be split there, or
    whose first block is not known: the U-Net and the transformer of this package are.
    """
    reused = ReusedFeatures(denoiser, part)
    network = reused.owner[0]
    first = _first_modulated(network)
    memory = Memory(wanted=(Wanted(reused.key, part, len(times)),))
    path, seen = denoiser.path, list[Tensor]()

    class Watched(Denoiser):
        def forward(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> Tensor:  # type: ignore[override]
            with memory.during(float(path.log_snr(torch.as_tensor(t, dtype=torch.float64)))):
                return denoiser(x_t, t)

    hook = first.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        x = start_of(denoiser, times[0], n, seed, 0, denoiser.device, None)
        noise = solver_noise(n, denoiser.image_shape, seed, 0, x.device, "fresh")
        integrate(Watched(denoiser.image_shape, path), x, times, solver, noise=noise)
    finally:
        hook.remove()
    if len(seen) != len(times):
        raise PhasewiseError(
            f"{solver} calls a denoiser {len(seen)} times in {len(times)} steps; take one with one call"
        )
    maps, through = [_as_map(value, network) for value in seen], []
    for features, t in zip(maps, times, strict=True):
        alpha, sigma = (float(f(torch.as_tensor(t, dtype=torch.float64))) for f in (path.alpha, path.sigma))
        through.append(sea_filtered(features, alpha, sigma, decay))
    values = [
        [v for _, v in kept] for (_, _, name), kept in memory.parts.items() if Wanted(reused.key, part, 1).holds(name)
    ]
    total = [torch.stack(list(each)).sum(0) if _adds(part) else torch.cat([v.flatten(1) for v in each], 1)
             for each in zip(*values, strict=True)]  # fmt: skip
    return Changes(
        times=np.array(times), inputs=_relative(maps), filtered=_relative(through), kept=_relative(total),
        ratios=_magnitudes(total), part=part, n=n, seed=seed,
    )  # fmt: skip


def _adds(part: str) -> bool:
    """Whether the pieces of a part are summed by the network: what blocks add is their residual."""
    return part.startswith("blocks")


def _first_modulated(network: Denoiser) -> nn.Module:
    """The module whose input is the image's features, scaled and shifted by the time, for the first time."""
    if isinstance(network, DiTDenoiser):
        return network.blocks[0].qkv  # type: ignore[return-value]
    if isinstance(network, UNetDenoiser):
        return network.down[0].conv2  # type: ignore[return-value]
    raise PhasewiseError(f"which block of a {type(network).__name__} comes first is not known; give a U-Net or a DiT")


def _as_map(value: Tensor, network: Denoiser) -> Tensor:
    """(B, C, h, w) of tokens (B, N, C), or as it is."""
    return value if value.dim() == 4 else value.transpose(1, 2).unflatten(2, network.grid)


def sea_filtered(features: Tensor, alpha: float, sigma: float, decay: float = 2.0) -> Tensor:
    """SeaCache's filter of (B, C, h, w): the optimal linear denoiser of images of spectrum ``|f|^-decay``, axis by axis
    ``alpha S / (alpha^2 S + sigma^2)``, with a mean gain of 1 (Chung et al. 2026, arXiv 2602.18993)."""
    alpha = max(alpha, 1e-6)  # at pure noise: the limit
    gains = []
    for size in features.shape[-2:]:
        # multiplied through by |f|^decay: nothing is infinite at f = 0
        f = torch.fft.fftfreq(size, dtype=torch.float64, device=features.device).abs() ** decay
        gains.append(alpha / (alpha**2 + sigma**2 * f))
    gain = gains[0][:, None] * gains[1]
    return torch.fft.ifft2(torch.fft.fft2(features.double()) * (gain / gain.mean())).real


def _relative(values: Sequence[Tensor]) -> np.ndarray:
    return np.array(
        [
            float((b - a).abs().mean() / a.abs().mean().clamp_min(1e-16))
            for a, b in zip(values, values[1:], strict=False)
        ]
    )


def _magnitudes(values: Sequence[Tensor]) -> np.ndarray:
    """Mean over places of |b| / |a|; the places are tokens (B, N, C), pixels (B, C, h, w) or rows (B, C)."""

    def norm(value: Tensor) -> Tensor:
        return value.norm(dim=1 if value.dim() == 4 else -1).clamp_min(1e-12)

    return np.array([float((norm(b) / norm(a)).mean()) for a, b in zip(values, values[1:], strict=False)])


@checks.checked(
    whole=a_denoiser, reused=a_denoiser, times=checks.times, solver=solver_name, n=checks.count, seed=checks.seed,
    longest=checks.count,
)  # fmt: skip
def measure_reuse_errors(
    whole: Denoiser,
    reused: Denoiser,
    times: Sequence[float],
    *,
    solver: str = DEFAULT_SOLVER,
    n: int = 16,
    seed: int = 0,
    longest: int | None = None,
) -> np.ndarray:
    """(S + 1, S + 1): how far samples stray where step i is computed and i + 1 ... j - 1 are kept, all others computed.

    Mean absolute difference per pixel in the end, from the same noise (LeMiCa, Gao et al. 2025, arXiv 2511.00090,
    eq. 6); 0 where nothing is kept between, infinite for j <= i and for runs of more than ``longest`` kept steps.  Node
    S is the image.  Costs about S^2 / 2 samplings of ``n`` images.
    """
    size = len(times)
    errors = np.full((size + 1, size + 1), np.inf)
    members = {"whole": whole, "reused": reused}

    def images(kept: range) -> Tensor:
        who = tuple("reused" if k in kept else "whole" for k in range(size))
        plan = HybridSchedule(tuple(times), who, solver, path=whole.path.config())
        return sample(HybridDenoiser(members, plan), n=n, seed=seed)

    truth = images(range(0))
    for i in range(size):
        for j in range(i + 1, size + 1):
            if j - i - 1 <= (size if longest is None else longest):
                errors[i, j] = 0.0 if j == i + 1 else float((images(range(i + 1, j)) - truth).abs().mean())
    return errors
