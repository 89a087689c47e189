"""Small random denoisers of every kind, for tests of samplers on the CPU and on a GPU."""

from __future__ import annotations

import torch

from phasewise.denoisers import (
    Denoiser,
    DiTDenoiser,
    GuidedDenoiser,
    HybridDenoiser,
    LocalDenoiser,
    UNetDenoiser,
    WienerDenoiser,
)
from phasewise.paths import CosinePath, LinearPath
from phasewise.results import HybridSchedule

SHAPE = (1, 12, 10)
TIMES = (1.0, 0.8, 0.5, 0.3, 0.1)


def shaken(denoiser: Denoiser, seed: int = 0) -> Denoiser:
    """Weights of order one over the square root of the fan-in everywhere, so that nothing is silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in denoiser.parameters():
            fan = weight[0].numel() if weight.dim() > 1 else 16
            weight.copy_(torch.randn(weight.shape, generator=generator) / fan**0.5)
    return denoiser.eval()


def members(classes: int | None = None) -> dict[str, Denoiser]:
    """A global network on another path, a local one, and a windowed filter."""
    images = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(1))
    local = LocalDenoiser(SHAPE, 3, block=2, classes=classes)
    wide = UNetDenoiser(SHAPE, width=16, path=CosinePath(), classes=classes)
    for network in (local, wide):
        network.fit_moments(images)
    return {"global": shaken(wide), "r3": shaken(local, 1), "wiener": WienerDenoiser.fit(images, radius=2)}


def hybrid(solver: str, classes: int | None = None) -> HybridDenoiser:
    """One that goes back and forth between all members."""
    who = ("global", "r3", "wiener", "global", "r3")
    schedule = HybridSchedule(times=TIMES, assignment=who, solver=solver, path=LinearPath().config())
    return HybridDenoiser(members(classes), schedule)


def guided_hybrid(solver: str) -> HybridDenoiser:
    """A transformer that is guided, and attention within a token of the same weights, told the class and asked once."""
    whole = DiTDenoiser(SHAPE, width=16, depth=2, heads=2, patch=2, classes=5)
    whole.fit_moments(torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(1)))
    shaken(whole, 2)
    who = ("global", "near", "near", "global", "near")
    schedule = HybridSchedule(times=TIMES, assignment=who, solver=solver, path=LinearPath().config())
    return HybridDenoiser({"global": GuidedDenoiser(whole, 2.0, null=4), "near": whole.windowed(1)}, schedule)
