"""Networks that somebody else made, as members of a run: found, read, and looked at before anything is claimed.

A source is DIR or DIR#PART: a pipeline folder of diffusers, a network's own folder in one, or one of
:func:`phasewise.save_denoiser`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from phasewise.bridges.diffusers import is_pipeline, read_folder, solver_of
from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, bind
from phasewise.denoisers.hybrid import listed, pixels_apart
from phasewise.diagnosis import check_claims
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.files import read_json
from phasewise.pipeline.conditions import LABELS, check_conditions, labels_of, told_of
from phasewise.pipeline.teachers import is_held, teacher_of
from phasewise.results import HybridSchedule, PriceList
from phasewise.runs.parts import REFERENCE, USER_STEPS
from phasewise.sampling import calls_per_step

THEIRS = (-1.0, 1.0)
"""Black and white of networks of diffusers."""
PROBED = (1.0, 0.5, 0.02)
"""Noise times that a network is asked at before it is taken."""


def split_source(source: str) -> tuple[Path, str | None]:
    """DIR#PART apart; a folder whose name has such a sign in it is one."""
    folder, mark, part = source.rpartition("#")
    return (Path(folder), part) if mark and part and not Path(source).is_dir() else (Path(source), None)


def is_there(source: str) -> bool:
    """Whether a source holds a network."""
    folder = split_source(source)[0]
    return is_held(folder) or is_pipeline(folder)


def need_folder(source: str) -> None:
    """Raise PhasewiseError where ``source`` is no folder, or holds no network."""
    folder = split_source(source)[0]
    if not folder.is_dir() and re.fullmatch(r"[\w.]+(:\w+)?", source) and re.search(r"[.:]\w", source):
        raise PhasewiseError(
            f"--model {source} is no folder; nothing is imported from the command line: wrap the network in Python by "
            "pw.wrap, or save it by diffusers' save_pretrained or pw.save_denoiser and give the folder"
        )
    if not folder.is_dir():
        raise PhasewiseError(f"there is no folder {folder}; give one made by save_pretrained or pw.save_denoiser")
    if not is_there(source):
        raise PhasewiseError(
            f"{folder} holds no network (no model_index.json, no config.json); give one made by save_pretrained or "
            "pw.save_denoiser"
        )


def pixel_range_of(source: str) -> tuple[float, float] | None:
    """Black and white as a network of diffusers takes them; None of others, whose pixels the data must have."""
    folder = split_source(source)[0]
    if is_pipeline(folder):
        return THEIRS
    about = read_json(folder / "config.json")
    ours = isinstance(about, dict) and about.get("class") == "DiffusersDenoiser"
    kept = about["config"].get("pixel_range") if ours and isinstance(about.get("config"), dict) else None
    return THEIRS if ours and kept is None else None


def open_source(source: str, pixel_range: tuple[float, float], device: Any = "cpu") -> Denoiser:
    """The denoiser in ``source``, for images whose black and white are ``pixel_range``, in eval mode.

    Raises PhasewiseError for what holds none, or several.
    """
    need_folder(source)
    folder, part = split_source(source)
    if is_pipeline(folder):
        return read_folder(folder, part=part, pixel_range=_as_unit(pixel_range)).to(device)
    if part is not None:
        raise PhasewiseError(f"{folder} is no pipeline and has no part {part!r}; give the folder alone")
    return teacher_of(folder).to(device)


def _as_unit(pixels: tuple[float, float]) -> tuple[float, float] | None:
    """Where the network's pixels have our 0 and our 1, on the line that takes our black and white to its own."""
    low, high = pixels
    if (low, high) == THEIRS:
        return None
    scale = (THEIRS[1] - THEIRS[0]) / (high - low)
    return THEIRS[0] - scale * low, THEIRS[0] + scale * (1 - low)


# --- before anything is claimed --------------------------------------------------------------------------------------


def check_shape(name: str, source: str, denoiser: Denoiser, shape: tuple[int, int, int]) -> None:
    """Refuse images of another size or number of channels than the network's."""
    if denoiser.image_shape == shape:
        return
    (channels, *theirs), (own, *sizes) = denoiser.image_shape, shape
    wanted = f"{theirs[0]}" if theirs[0] == theirs[1] else f"{theirs[0]},{theirs[1]}"
    smaller = any(have < want for have, want in zip(sizes, theirs, strict=True))
    mends = [f"--resize {wanted}"] if theirs != sizes else []
    mends += [f"--color {'gray' if channels == 1 else 'rgb'}"] if channels != own and channels in (1, 3) else []
    latents = " It may denoise latents: encode the images first." if channels not in (1, 3) else ""
    mend = f"; bring them to it by {' '.join(mends)}." if mends else "."
    mend += " It never enlarges: where they are smaller, give larger images." if smaller else ""
    raise PhasewiseError(
        f"{source} denoises images of shape {denoiser.image_shape}, the data has {shape}: a network of another "
        f"channel count or size than the data{mend}{latents}"
    )


def check_models(denoisers: Mapping[str, Denoiser], data: ImageData) -> None:
    """Ask every network once before it is taken: answers that are no numbers, a condition that the data lack, and other
    data are refused by PhasewiseError."""
    check_conditions(denoisers, data)
    for name, denoiser in denoisers.items():
        _check_pixels(name, denoiser, data)
        images = data.train[:2].cpu()
        rows = None if data.labels_train is None or told_of(denoiser) != LABELS else data.labels_train[:2].cpu()
        told = bind(denoiser, rows)
        for t in PROBED:
            noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
            with torch.inference_mode():
                answer = told(denoiser.path.add_noise(images, noise, t), t)
            if not bool(answer.isfinite().all()):
                raise PhasewiseError(f"the network {name!r} answers NaN or infinity at t = {t:g}; look at it there")


def _check_pixels(name: str, denoiser: Denoiser, data: ImageData) -> None:
    """Refuse a network that was fitted to other pixels than the data's; one that does not say is let through."""
    known = denoiser.pixel_moments()
    if known is None:
        return
    (mean, std), ours = known, (data.mean_per_channel, data.std_per_channel)
    if pixels_apart(known, ours):
        raise PhasewiseError(
            f"the network {name!r} was made for pixels of mean {listed(mean)} and standard deviation {listed(std)}, "
            f"{data.name} has {listed(ours[0])} and {listed(ours[1])}: other data, or another pixel range "
            "(--pixel-range)"
        )


def hold_against_filter(name: str, denoiser: Denoiser, data: ImageData) -> dict[str, Any]:
    """What the Wiener filter says of a network (:func:`phasewise.diagnosis.check_claims`), for the records; a warning
    where the network is far worse, which is what a wrong word about it looks like."""
    claims = check_claims(denoiser, data, cond=None if labels_of(data, "test", [denoiser]) is None else "labels")
    if not claims.ok:
        warnings.warn(f"{name}: {claims}", PhasewiseWarning, stacklevel=2)
    return {"name": name, "ok": claims.ok, "ratio": claims.ratio, "said": str(claims), "n": claims.n}


# --- the schedule it is used with ------------------------------------------------------------------------------------


def own_schedule(
    denoiser: Denoiser, prices: PriceList, steps: int | None, usual: str
) -> tuple[HybridSchedule | None, str]:
    """The schedule that the model's own scheduler takes, the reference alone, and a line on it.

    ``steps``: how many, :data:`phasewise.runs.parts.USER_STEPS` by default; ``usual``: the solver in place of one that
    we do not have.  None for a model without a scheduler, or whose scheduler cannot say its steps.
    """
    scheduler = getattr(denoiser, "scheduler", None)
    if scheduler is None:
        return None, "the model has no scheduler with it: no schedule of your own to judge beside the hybrid"
    name, count = type(scheduler).__name__, steps or USER_STEPS
    try:
        times = denoiser.times(count)  # type: ignore[operator]
    except PhasewiseError as error:
        return None, f"your own schedule is left out: {error}"
    solver = solver_of(scheduler)
    said = f"your schedule: {name}, {len(times)} steps by {solver or usual}"
    if solver is None:
        said += f", since no solver here takes the steps of {name}"
    calls = sum(calls_per_step(solver or usual, len(times)))
    flops = float(prices.flops[prices.names.index(REFERENCE)])
    plan = HybridSchedule(
        times=times, assignment=(REFERENCE,) * len(times), solver=solver or usual, path=prices.losses.path,
        mflop=calls * flops / 1e6, label=f"your schedule ({name}, {len(times)} steps)",
    )  # fmt: skip
    return plan, said
