"""Denoisers that a run takes from elsewhere: the one place where their folders are read, and what makes one a teacher.

A *teacher* is the run's global network, made by somebody else; the other networks may learn its posterior mean.
"""

from __future__ import annotations

from pathlib import Path

from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, GuidedDenoiser, HybridDenoiser, load_denoiser
from phasewise.denoisers.hybrid import listed, pixels_apart
from phasewise.errors import PhasewiseError
from phasewise.runs.config import RunConfig
from phasewise.runs.members import MEMBER_KINDS
from phasewise.shapes import ImageShape


def is_held(source: str | Path | None) -> bool:
    """Whether there is a denoiser in the folder ``source``."""
    return source is not None and (Path(source) / "config.json").is_file()


def teacher_of(source: str | Path) -> Denoiser:
    """The denoiser in the folder ``source``.  Raises PhasewiseError where there is none, or a hybrid: which of its
    members answers, and what that costs, is another thing at every time."""
    if not is_held(source):
        raise PhasewiseError(f"{source} holds no denoiser; give a folder as save_denoiser writes it")
    denoiser = load_denoiser(source)
    if isinstance(denoiser, HybridDenoiser):
        raise PhasewiseError(f"{source} holds a schedule of several denoisers; give those in its folders one by one")
    return denoiser


def given_teacher(config: RunConfig) -> Denoiser | None:
    """The teacher that the config names; None where its global network is trained here."""
    source = next((m.source for m in config.members if MEMBER_KINDS[m.kind].taken_as_reference), None)
    return None if source is None else teacher_of(source)


def classes_of(teacher: Denoiser) -> int | None:
    """Number of class labels that students of ``teacher`` are told: as many as it is, or None where it is told none.

    Raises PhasewiseError for a condition that is no class label.
    """
    if not teacher.takes_condition:
        return None
    if isinstance(teacher, GuidedDenoiser):
        raise PhasewiseError(
            "the teacher is guided, so its answers are no posterior means to learn; give the network in it: the folder "
            "member/ in its own, or .member"
        )
    classes = getattr(teacher, "classes", None)
    if not isinstance(classes, int):
        raise PhasewiseError(
            f"{type(teacher).__name__} takes a condition that is no class label, which no student can be told; give "
            "a denoiser of a class of your own that binds one and can be saved (register_denoiser)"
        )
    return classes


def check_teacher(teacher: Denoiser, image_shape: ImageShape, data: ImageData | None = None) -> None:
    """Refuse a teacher of images of another shape than ``image_shape``, or than ``data``, of another pixel range than
    it, or one that is told labels which ``data`` has not."""
    if teacher.image_shape != image_shape:
        raise PhasewiseError(
            f"the teacher denoises images of shape {teacher.image_shape}, the data has {image_shape}; give the images "
            "it was made for, or bring these to their shape (--resize, --color)"
        )
    classes = classes_of(teacher)
    if data is None:
        return
    if classes is not None and (data.classes is None or data.classes > classes):
        found = "no labels" if data.classes is None else f"labels up to {data.classes - 1}"
        raise PhasewiseError(f"the teacher is told labels from 0 to {classes - 1}, {data.name} has {found}")
    moments = teacher.pixel_moments()
    if moments is None:
        return
    (mean, std), own = moments, (data.mean_per_channel, data.std_per_channel)
    if pixels_apart(moments, own):
        raise PhasewiseError(
            f"the teacher was made for pixels of mean {listed(mean)} and standard deviation {listed(std)}; "
            f"{data.name} has {listed(own[0])} and {listed(own[1])}: other images, another --pixel-range, or samples "
            "of a teacher that has hardly learnt"
        )
