"""Networks of a run that are told the class, and sample guided by it.

They learn with it and, by chance, without: the label after the last one stands for none.  Each is kept as a
:class:`phasewise.GuidedDenoiser`; diagnoses ask what is within it, which alone is a posterior mean.
"""

from __future__ import annotations

from collections.abc import Iterable

from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, GuidedDenoiser, NetworkDenoiser, save_denoiser
from phasewise.errors import PhasewiseError
from phasewise.runs.run import Run

HIDDEN = 0.1
"""Share of labels that a network which is to be guided is not told in training (Ho and Salimans 2022, section 4.1)."""


def classes_told(data: ImageData) -> int:
    """Labels that a network is told: those of the images, and one for none.  PhasewiseError where there are none."""
    if data.classes is None:
        raise PhasewiseError(
            f"--guidance tells networks the class, and {data.name} has no labels; give images with labels "
            "(--label-column), or leave it out"
        )
    return data.classes + 1


def guided_once(denoiser: Denoiser, data: ImageData, source: str = "") -> GuidedDenoiser:
    """A network told the classes of ``data``, its last label standing for none, at a scale of 1: one call.

    Raises PhasewiseError for one that is told others, or none, naming its ``source``.
    """
    wanted, found = classes_told(data), getattr(denoiser, "classes", None)
    if not isinstance(denoiser, NetworkDenoiser) or found != wanted:
        raise PhasewiseError(
            f"--guidance tells every network {wanted} labels, those of {data.name} and one for none; the one in "
            f"{source} is told {found or 'no class'}. Leave --guidance out, or take networks of a run that had it"
        )
    return GuidedDenoiser(denoiser, 1.0, null=found - 1)


def unguided(denoiser: Denoiser) -> Denoiser:
    """What a guided denoiser asks; any other as it is."""
    return denoiser.member if isinstance(denoiser, GuidedDenoiser) else denoiser


def guide_members(run: Run, names: Iterable[str], scale: float) -> list[str]:
    """Keep the run's guided denoisers of these ``names`` at this ``scale``; returns the names."""
    done = []
    for name in names:
        kept = run.denoiser(name)
        assert isinstance(kept, GuidedDenoiser)  # the stage that made it saw to that
        save_denoiser(GuidedDenoiser(kept.member, scale, null=kept.null), run.model(name))
        done.append(name)
    run.reread_denoisers()
    return done
