"""The members of a run that lean on earlier steps, and the closed form of each pixel: made of what is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phasewise.denoisers import Denoiser, PixelDenoiser, ReusedAnswer, ReusedFeatures
from phasewise.denoisers.io import save_beside
from phasewise.denoisers.reuse import usual_part
from phasewise.errors import PhasewiseError
from phasewise.runs.parts import REFERENCE
from phasewise.runs.run import Run

if TYPE_CHECKING:
    from phasewise.pipeline.stages import Context

PIXEL, CARRIED, DEEP = "pixel", "carried", "deep"
NAMES = (PIXEL, CARRIED, DEEP)


def members_of_reuse(ctx: Context, members: dict[str, Denoiser]) -> dict[str, Denoiser]:
    """By name, on the reference's path, and kept in the run folder beside the others.

    The inside of the global network is kept where it can be split; where not, that is said.  Raises PhasewiseError
    where a member of the run has one of these names already.
    """
    taken = [name for name in NAMES if name in members]
    if taken:
        raise PhasewiseError(f"--reuse makes a member {taken[0]!r}, and this run has one already; rename yours")
    reference = members[REFERENCE]
    pixels = ctx.data.pixel_range
    found: dict[str, Denoiser] = {
        PIXEL: PixelDenoiser.fit(ctx.data.train, reference.path),
        CARRIED: ReusedAnswer(reference.image_shape, 1, clamp=pixels, path=reference.path),
    }
    part = usual_part(reference)
    if part is None:
        ctx.say(f"{type(reference).__name__} cannot be split: no part of it is kept from step to step")
    else:
        found[DEEP] = ReusedFeatures(reference, part)
    for name, denoiser in found.items():
        save_beside(denoiser, ctx.run.model(name), {REFERENCE: reference})
    return {name: denoiser.to(ctx.config.machine.device).eval() for name, denoiser in found.items()}


def reused_in(run: Run, device: str) -> dict[str, Denoiser]:
    """Those that the run's schedules name."""
    named = {name for plan in run.schedules.values() for name in plan.assignment}
    return run.denoisers([name for name in NAMES if name in named and run.has_model(name)], device)
