"""What can be known before anything is trained: refused before anything is claimed or written.

Members, images, features, the question of the CMI and the cheapest schedule follow from the config and the images; so
does the least memory and time that a run can take, whatever the machine::

    memory >= 12 P n_samples + 5000 steps bytes        P numbers an image, three sets of samples at a time
    time   >= 1 us for every image that passes a denoiser
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, bind
from phasewise.denoisers.base import check_radius
from phasewise.denoisers.pooled import pooled_shape
from phasewise.denoisers.reuse import check_place
from phasewise.errors import PhasewiseError
from phasewise.information import make_estimator, make_problem
from phasewise.memory import need_bytes
from phasewise.metrics.cost import count_flops
from phasewise.metrics.features import check_features
from phasewise.metrics.frechet import MIN_SAMPLES
from phasewise.pipeline.conditions import takes_labels
from phasewise.pipeline.guiding import check_guidance
from phasewise.pipeline.models import check_models, check_shape, is_there, open_source
from phasewise.pipeline.teachers import check_teacher, given_teacher
from phasewise.runs.config import RunConfig
from phasewise.runs.members import MEMBER_KINDS, Member
from phasewise.runs.parts import LEAST_TRAIN, USER_STEPS
from phasewise.runs.sizes import CMI_SIDE
from phasewise.sampling import calls_per_step

LEAST = {"train": LEAST_TRAIN, "validation": 2, "test": MIN_SAMPLES}
"""Images a part must hold: to learn from, for a spread, for a Frechet distance."""
FASTEST = 1e-6
"""Seconds an image takes through any denoiser at the least; no machine known to us is faster."""
LONGEST = 30 * 86400
SCHEDULES = 8
"""Schedules that a run compares at the least."""
Shape = tuple[int, int, int]


def check_before(config: RunConfig, data: ImageData, stages: Iterable[str], *, insist: bool = False) -> None:
    """Raise PhasewiseError for a run that would fail, or be nobody's wish, in one of the named ``stages``.

    ``insist`` passes over what is only too large.
    """
    stages = set(stages)
    if "cmi" in stages:
        check_cmi(config, data.image_shape, sum(data.sizes.values()), insist=insist)
        check_given(config, data)
    if not any(name.startswith(("train-", "take-")) for name in stages):
        return
    opened = check_members(config, data.image_shape, data)
    check_images(data)
    check_guidance(config, data)
    if opened:
        check_models(opened, data)
    if "features" in stages:
        check_features(data, config.features.features)
    if "schedule" in stages:
        if config.schedule.reuse:
            check_place("what --reuse adds", config.grid.solver)
        check_budget(config, data.image_shape, opened)
    if not insist:
        check_size(config, data, stages)


def check_members(config: RunConfig, image_shape: Shape | None, data: ImageData | None = None) -> dict[str, Denoiser]:
    """Refuse a member that does not fit the images, or is not there, before anything is trained or written.

    ``image_shape`` None: of images not looked at yet; radii go unchecked.  Returns the models of the run, opened.
    """
    if image_shape is not None:
        teacher = given_teacher(config)
        if teacher is not None:
            check_teacher(teacher, image_shape, data)
    opened = {}
    for name, source in config.train.model.items():
        opened[name] = open_source(source, (0.0, 1.0) if data is None else data.pixel_range)
        if image_shape is not None:
            check_shape(name, source, opened[name], image_shape)
    for member in config.members:
        kind = MEMBER_KINDS[member.kind]
        if member.radius is None and kind.look in ("local", "control"):
            raise PhasewiseError(f"member {member.name!r} of kind {member.kind!r} needs a radius, in pixels")
        missing = [name for name in kind.needs if getattr(member, name) is None]
        if missing:
            raise PhasewiseError(f"member {member.name!r} of kind {member.kind!r} needs a {missing[0]}, in pixels")
        if member.radius is not None and image_shape is not None:
            check_radius(member.radius, image_shape)
        if member.factor is not None and image_shape is not None:
            pooled_shape(image_shape, member.factor)
        if kind.build is None and kind.fit is None:
            need_source(member)
    folder = config.train.networks
    if folder is not None and not any(is_there(m.source) for m in config.members if m.source is not None):
        raise PhasewiseError(
            f"--networks {folder} holds none of {', '.join(m.name for m in config.members if m.source)}; each lies in "
            "a folder of its name, as save_denoiser writes it"
        )
    return opened


def need_source(member: Member) -> None:
    """Raise PhasewiseError where a member that others made is not there."""
    if member.source is None:
        raise PhasewiseError(f"member {member.name!r} of kind {member.kind!r} needs a source, its folder")
    if not is_there(member.source):
        raise PhasewiseError(f"member {member.name!r} is to come from {member.source}, which holds no denoiser")


def check_images(data: ImageData) -> None:
    """Refuse too few images in a part, and a channel that never changes."""
    few = [f"{data.sizes[part]} to {part} ({n} needed)" for part, n in LEAST.items() if data.sizes[part] < n]
    if few:
        raise PhasewiseError(
            f"{data.name} leaves too few images: {', '.join(few)}; give 40 or more in all, and hundreds for a useful "
            "result, or a larger --limit"
        )
    still = [k for k, std in enumerate(data.std_per_channel.tolist()) if not std > 0]
    if still:
        raise PhasewiseError(
            f"channel {still[0]} of the training images of {data.name} is constant; drop it or check the data"
        )


def check_cmi(config: RunConfig, image_shape: Shape, n: int | None = None, *, insist: bool = False) -> None:
    """Refuse a CMI map that cannot be measured on ``n`` such images, by posing the question on blank ones, or that the
    machine has no memory for unless ``insist``."""
    asked = config.cmi
    if not asked.measure:
        return
    estimator = make_estimator(asked.estimator, **asked.options)  # raises for an estimator or an option that is none
    if n is not None:
        estimator.check_number(n)
    times = [t for t in asked.times if t != 1] or [0.5]
    channels, *sides = image_shape
    height, width = (min(side, asked.crop or side) for side in sides)
    image_shape = (channels, height, width)
    for center in asked.center or (None,):
        make_problem(torch.zeros(20, *image_shape), times, asked.radii, block=asked.block, center=center)
    if n is None or insist:
        return
    mend = "measure fewer pixels (--cmi-crop)"
    if max(height, width) > CMI_SIDE:
        mend = f"measure it in a central square of {CMI_SIDE} pixels: --cmi-crop {CMI_SIDE}"
    needed = estimator.bytes(channels * height * width, n)
    need_bytes(needed, f"the sums for CMI of {height} x {width} pixels", f"{mend}, or insist with --yes")


def check_given(config: RunConfig, data: ImageData) -> None:
    """Refuse a CMI map given the class of images without labels, or of classes too small for the estimator."""
    if not (config.cmi.measure and config.cmi.given):
        return
    labels = [part for part in (data.labels_train, data.labels_validation, data.labels_test) if part is not None]
    if len(labels) < 3:
        raise PhasewiseError(f"--given class needs a label of every image, and {data.name} has none; leave it out")
    estimator = make_estimator(config.cmi.estimator, **config.cmi.options)
    for label, number in zip(*(v.tolist() for v in torch.cat(labels).unique(return_counts=True)), strict=True):
        try:
            estimator.check_number(number)
        except PhasewiseError as error:
            raise PhasewiseError(
                f"--given class measures each class by itself, and of class {label}: {error}"
            ) from error


def check_budget(config: RunConfig, image_shape: Shape, opened: Mapping[str, Denoiser] | None = None) -> None:
    """Refuse a budget below the cheapest schedule, counted on untrained networks: weights change no cost."""
    scheduled = [m for m in config.members if MEMBER_KINDS[m.kind].scheduled]
    like = {m.name: (opened or {}).get(m.name) or _like(m, image_shape) for m in scheduled}
    known = {name: denoiser for name, denoiser in like.items() if denoiser is not None}
    if len(known) < len(like) or "global" not in known:
        return  # the price of one of them is not known before it is fitted
    calls = np.array(calls_per_step(config.grid.solver, config.grid.steps))
    told = {n: bind(d, torch.zeros(1, dtype=torch.int64)) if takes_labels([d]) else d for n, d in known.items()}
    flops = {name: count_flops(denoiser, image_shape) for name, denoiser in told.items()}
    # one that jumps takes a step by one call, whatever the solver
    each = [np.where(known[name].jumps, 1, calls) * float(cost) for name, cost in flops.items()]
    least = float(np.minimum.reduce(each).sum()) / float(calls.sum() * flops["global"])
    if config.schedule.budget < least * (1 - 1e-9):
        raise PhasewiseError(
            f"no schedule fits a budget of {config.schedule.budget:g}; the cheapest costs {least:.4g} of the "
            "all-global one; raise --budget"
        )


def _like(member: Member, shape: Shape) -> Denoiser | None:
    """A denoiser that costs what the member will; None where that is not known."""
    kind = MEMBER_KINDS[member.kind]
    if member.source is not None and is_there(member.source):
        denoiser = open_source(member.source, (0.0, 1.0))
        # another shape is refused where the member is taken
        return denoiser if denoiser.image_shape == shape and not denoiser.takes_condition else None
    if kind.build is None:
        return None if kind.like is None else kind.like(member, shape)
    with torch.random.fork_rng(devices=[]):  # the caller's random state is left alone
        return kind.build(member, shape)


def check_size(config: RunConfig, data: ImageData, stages: Iterable[str]) -> None:
    """Refuse what the machine has no memory for, and what would take a month at the least."""
    stages = set(stages)
    numbers, steps, train = math.prod(data.image_shape), config.grid.steps, data.sizes["train"]
    n = config.evaluate.n_samples if "evaluate" in stages else 0
    mend = "ask for less, or insist with --yes"
    need_bytes(12.0 * numbers * n + 5000.0 * steps, f"{n} samples a schedule of {steps} steps", mend)
    held_out = min(config.diagnose.n_losses, data.sizes["test"]) * len(config.members)
    passes = sum((m.epochs or 0.0) * train for m in config.members)
    passes += held_out * (len(config.diagnose.times) + steps) + SCHEDULES * n * steps
    passes += n * (config.schedule.user_steps or USER_STEPS) * bool(config.train.model)
    if passes * FASTEST > LONGEST:
        days = passes * FASTEST / 86400
        raise PhasewiseError(f"this run would take {days:.3g} days at the very least; {mend}")
