"""Networks of a run that are told the class, and sample guided by it.

They learn with it and, by chance, without: the label after the last one stands for none.  Each is kept as a
:class:`phasewise.GuidedDenoiser`; diagnoses ask what is within it, which alone is a posterior mean.
"""

from __future__ import annotations

from collections.abc import Iterable

from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, GuidedDenoiser, NetworkDenoiser, save_denoiser
from phasewise.errors import PhasewiseError
from phasewise.pipeline.models import is_there, open_source
from phasewise.runs.config import RunConfig
from phasewise.runs.run import Run
from phasewise.scheduling import PENALTIES

HIDDEN = 0.1
"""Share of labels that a network which is to be guided is not told in training (Ho and Salimans 2022, section 4.1)."""


def scale_of(config: RunConfig) -> float:
    """How strongly a run guides: 1 asks once, told the class; 0 where its networks are told none."""
    return float(config.train.guidance or 0)


def is_guided(config: RunConfig) -> bool:
    """Whether a step of a network asks it twice: then its answers are no posterior means."""
    return scale_of(config) not in (0, 1)


def check_guidance(config: RunConfig, data: ImageData) -> None:
    """Refuse what cannot be told or guided, before anything is trained.  PhasewiseError."""
    if not scale_of(config):
        return
    classes_told(data)
    if is_guided(config) and PENALTIES[config.schedule.penalty].needs_losses:
        raise PhasewiseError(
            f"--penalty {config.schedule.penalty} counts held-out losses, and guided answers lose there by intent: all "
            "guidance would be left out; take frechet or w2, or --guidance 1"
        )
    for member in config.members:
        if member.told and member.source is not None and is_there(member.source):
            guided(unguided(open_source(member.source, data.pixel_range)), data, 1.0, member.source)


def classes_told(data: ImageData) -> int:
    """Labels that a network is told: those of the images, and one for none.  PhasewiseError where a part has none."""
    parts = {"training": data.labels_train, "validation": data.labels_validation, "test": data.labels_test}
    without = [name for name, labels in parts.items() if labels is None]
    if without or data.classes is None:
        which = "no labels" if len(without) == len(parts) else f"no labels of its {' and '.join(without)} images"
        raise PhasewiseError(
            f"--guidance tells networks the class, and {data.name} has {which}; give images with labels "
            "(--label-column), or leave it out"
        )
    return data.classes + 1


def guided(denoiser: Denoiser, data: ImageData, scale: float, source: str = "") -> GuidedDenoiser:
    """A network told the classes of ``data``, its last label standing for none, guided at this ``scale``.

    Raises PhasewiseError for one that is told others, or none, naming its ``source``.
    """
    wanted, found = classes_told(data), getattr(denoiser, "classes", None)
    if not isinstance(denoiser, NetworkDenoiser) or found != wanted:
        raise PhasewiseError(
            f"--guidance tells every network {wanted} labels, those of {data.name} and one for none; the one in "
            f"{source} is told {found or 'no class'}. Leave --guidance out, or take networks of a run that had it"
        )
    return GuidedDenoiser(denoiser, scale, null=found - 1)


def unguided(denoiser: Denoiser) -> Denoiser:
    """What a guided denoiser asks; any other as it is."""
    return denoiser.member if isinstance(denoiser, GuidedDenoiser) else denoiser


def guide_members(run: Run, names: Iterable[str], scale: float) -> None:
    """Keep the run's guided denoisers of these ``names`` at this ``scale``, where they are at another."""
    for name in names:
        kept = run.denoiser(name)
        assert isinstance(kept, GuidedDenoiser)  # the stage that made it saw to that
        if kept.scale != scale:
            save_denoiser(GuidedDenoiser(kept.member, scale, null=kept.null), run.model(name))
    run.reread_denoisers()
