"""Distillation: local and coarse students of any denoiser, priced and scheduled beside it, and the hybrid of them.

It is a run whose global network is the teacher, taken as it is, and whose other networks learn the teacher's posterior
mean (option ``distill``), up to the stage that writes the hybrid folder.  ``phasewise run`` on the same folder goes on
to judge and report.  What lies nowhere else, such as images drawn by the teacher, is kept in the run's ``given/``.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from phasewise import checks, seeding
from phasewise.data import ImageData, training_share
from phasewise.data.images import images_or_set
from phasewise.denoisers import Denoiser, save_denoiser
from phasewise.errors import CheckpointError, PhasewiseError, RunFolderError
from phasewise.files import read_json, write_bytes, write_json
from phasewise.pipeline.ahead import check_budget, check_members
from phasewise.pipeline.folder import RunFolder
from phasewise.pipeline.run import run_pipeline
from phasewise.pipeline.stages import all_stages, wanted
from phasewise.pipeline.teachers import check_teacher, classes_of, teacher_of
from phasewise.pipeline.use import config_for
from phasewise.runs.config import RunConfig, make_config
from phasewise.runs.run import Run
from phasewise.sampling import sample
from phasewise.tensors import read_tensors
from phasewise.training.batches import fingerprint

SAMPLES = 2000
"""Images that a teacher draws where none are given."""
LEAST_SAMPLES = 100
"""Fewest of them: a tenth is for validation, a fifth for the test."""
IMAGES = "images.npz"
PART = 250
"""Drawn and kept at a time: what a stop can lose."""
STEPS = 32
"""Sampling steps of a teacher that brings no plan of its own."""
_count = checks.whole(LEAST_SAMPLES)
_source = checks.either(checks.made(Denoiser, "a denoiser"), checks.file)


@checks.checked(
    teacher=_source, data=checks.either(images_or_set, checks.file), radii=checks.each(checks.count), out=checks.file,
    cheap_globals=checks.each(checks.text, least=0), samples=_count, size=checks.text, update=checks.flag,
    insist=checks.flag, say=checks.function,
)  # fmt: skip
def distil(
    teacher: Denoiser | str | Path,
    data: ImageData | Tensor | str | Path | None = None,
    radii: Sequence[int] | None = None,
    cheap_globals: Sequence[str] | None = None,
    *,
    out: str | Path,
    samples: int | None = None,
    size: str = "auto",
    update: bool = False,
    insist: bool = False,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Run:
    """Train cheap students of ``teacher``, price them beside it, and write the hybrid; returns the run in ``out``.

    Students learn the teacher's posterior mean at noised images (Hinton et al. 2015, arXiv 1503.02531, with a squared
    error): its mean over their window is what a local network can best say.  A teacher that is told class labels has
    students that are told them.  A stopped distillation goes on where it was; ``Run.hybrid()`` is the result, and lies
    in ``out/hybrid`` with a model card.

    Args:
        teacher: a denoiser that can be saved, or the folder of one; on any noise path.
        data: images as for :func:`phasewise.load_images`, of the teacher's shape and in its pixel units; an ImageData
            keeps its split.  None: ``samples`` (default 2000) images drawn by the teacher, whose labels, if it is told
            any, are equally frequent.
        radii: receptive fields of the local students, in pixels; default that of ``size``.
        cheap_globals: smaller global networks that learn, too (U-Nets "coarse", "small", transformers "dit-coarse",
            ...); default that of ``size``.
        size: "auto", "small", "cpu" or "smoke", as for :func:`phasewise.runs.make_config`.
        update, insist, say: as for :func:`phasewise.pipeline.run_pipeline`.
        options: any option of a run by its name, e.g. ``budget=0.5``, ``local_epochs=20`` (`phasewise options`).

    Raises PhasewiseError for a teacher that is a hybrid or cannot be saved, of another shape or pixel range than the
    images, or told a condition that is no class label; RunFolderError where ``out`` is not ours or holds another run.
    """
    folder, given = Path(out), dict(options)
    chosen = {"radii": radii, "cheap_globals": cheap_globals}
    given |= {name: tuple(value) for name, value in chosen.items() if value is not None}
    _refuse_strangers(folder)
    if isinstance(teacher, Denoiser):
        given["teacher"] = str(_keep_teacher(folder, teacher))
    else:
        given["teacher"] = str(teacher)
    if isinstance(data, (ImageData, Tensor)):
        check_teacher(teacher_of(given["teacher"]), _shape(data), data if isinstance(data, ImageData) else None)
        file, span = _keep_images(folder, data)
        given = {"pixel_range": span, **given, "data": str(file)}
    elif data is not None:
        given["data"] = str(data)
    config = distil_config(folder, size, given, samples=samples, say=say)
    run_pipeline(config, folder, command="distill", update=update, say=say, insist=insist)
    return Run(folder)


def distil_config(
    folder: Path,
    size: str,
    given: dict[str, Any],
    *,
    samples: int | None = None,
    say: Callable[[str], None] = print,
    draw: bool = True,
) -> RunConfig:
    """The config of a distillation in ``folder`` with the options in ``given``; without images the teacher draws some
    first, unless ``draw`` is False.  Raises PhasewiseError for what cannot be distilled, before anything is written."""
    found = Run(folder).config
    if given.get("distill") is False:
        raise PhasewiseError("to distil without --distill contradicts itself; leave it out, or use `phasewise train`")
    given = {**given, "distill": True}
    source = given.get("teacher") or (None if found is None else found.train.teacher)
    if source is None:
        raise PhasewiseError("say whom to learn from: --teacher DIR, a folder as save_denoiser writes it")
    if samples is not None:
        _count(samples, "--samples-as-data")
    teacher = teacher_of(source)
    classes_of(teacher)  # refuses a condition that no student can be told
    if samples is not None and given.get("data") is not None:
        raise PhasewiseError("--data and --samples-as-data contradict each other; give one")
    if found is not None or given.get("data") is not None:
        _same_number(Run(folder), samples)
        return config_for(folder, size, given if found is not None else {"control": False, **given})
    file = Run(folder).path("given", IMAGES)
    given = {"control": False, **given, "data": str(file)}
    train = training_share(samples or SAMPLES)
    config = make_config(max(teacher.image_shape[1:]), size, train=train, **given)
    _refuse_strangers(folder)
    check_members(config, teacher.image_shape)
    check_budget(config, teacher.image_shape)
    if not draw:
        return config
    span = draw_images(Run(folder), teacher, samples or SAMPLES, config.data.seed, config.machine.device, say)
    return config.changed(pixel_range=config.data.pixel_range or span)


def default_folder_of(teacher: str | None) -> Path:
    """``runs/distil-NAME``, NAME being that of the teacher's folder."""
    return Path("runs") / f"distil-{Path(teacher or 'teacher').resolve().name}"


def undrawn_plan(folder: Path, config: RunConfig, samples: int | None = None) -> list[str] | None:
    """What would be done in ``folder``, a line each, where images are still to be drawn; None where they are there."""
    file = Run(folder).path("given", IMAGES)
    if config.data.data != str(file) or file.exists():
        return None
    stages = [s.name for s in wanted("distill", all_stages(config))]
    return [f"{samples or SAMPLES} images are drawn by the teacher into {file}", *stages]


def _refuse_strangers(folder: Path) -> None:
    """Raise RunFolderError where ``folder`` is not ours to write into."""
    RunFolder(folder, Run(folder).config or RunConfig())


# --- images that the teacher draws ----------------------------------------------------------------------------------


def draw_images(
    run: Run, teacher: Denoiser, n: int, seed: int, device: Any = "cpu", say: Callable[[str], None] = print
) -> tuple[float, float]:
    """``n`` samples of the teacher in the run's ``given/images.npz``; returns their least and greatest value.

    They are drawn in parts, each kept when it is whole, so that a stopped drawing goes on; part k depends on
    (seed, k) and the teacher alone.
    """
    file, about = run.path("given", IMAGES), run.path("given", "drawn.json")
    identity = _identity(teacher, n, seed)
    if file.is_file() and about.is_file():
        known = read_json(about)
        if isinstance(known, dict) and known.get("identity") == identity:
            return (float(known["low"]), float(known["high"]))
    say(f"no images are given: {n} are drawn by the teacher into {file}")
    images, labels = [], []
    for k, first in enumerate(range(0, n, PART)):
        part = _part(run, teacher, k, min(PART, n - first), seed, identity, device)
        images.append(part["images"])
        labels += [part["labels"]] if "labels" in part else []
        say(f"  {first + len(images[-1])} of {n} drawn")
    pixels = torch.cat(images)
    low, high = float(pixels.min()), float(pixels.max())
    arrays = {"images": pixels.numpy(), **({"labels": torch.cat(labels).numpy()} if labels else {})}
    write_bytes(file, _archive(arrays))
    write_json(about, {"identity": identity, "n": n, "seed": seed, "low": low, "high": high})
    shutil.rmtree(run.path("given", "parts"), ignore_errors=True)
    return low, high


def _part(run: Run, teacher: Denoiser, k: int, n: int, seed: int, identity: str, device: Any) -> dict[str, Tensor]:
    """Part number k of the images, and its labels; as it was kept, or drawn and kept."""
    file = run.path("given", "parts", f"{k:05d}.safetensors")
    if file.is_file():
        try:
            tensors, about = read_tensors(file)
            if about.get("identity") == identity and len(tensors["images"]) == n:
                return tensors
        except (CheckpointError, KeyError):
            pass  # of another drawing, or damaged: drawn anew
    own = seeding.mix(seeding.stage_seed(seed, seeding.Stage.TEACHER), k)
    classes, drawn = classes_of(teacher), {}
    if classes is not None:
        drawn["labels"] = torch.randint(classes, (n,), generator=seeding.generator(own, classes))
    steps = None if teacher.sampling_plan() is not None else STEPS
    drawn["images"] = sample(teacher, n=n, seed=own, steps=steps, cond=drawn.get("labels"), device=device).contiguous()
    write_bytes(file, save_tensors(drawn, {"identity": identity}))
    return drawn


def _identity(teacher: Denoiser, n: int, seed: int) -> str:
    """What a drawing depends on."""
    said = f"{fingerprint(teacher)} {teacher.path!r} {n} {seed} {PART} {STEPS}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _same_number(run: Run, samples: int | None) -> None:
    """Refuse another number of drawn images than those that the run was made of."""
    about = run.path("given", "drawn.json")
    if samples is None:
        return
    known = read_json(about) if about.is_file() else None
    if not isinstance(known, dict) or known.get("n") != samples:
        raise RunFolderError(
            f"{run.root} is not made of {samples} drawn images; leave --samples-as-data out, or choose another --out"
        )


# --- what is given in Python ----------------------------------------------------------------------------------------


def _keep_teacher(folder: Path, teacher: Denoiser) -> Path:
    """The teacher in the run's ``given/``.  Raises RunFolderError where another one lies there."""
    place = Run(folder).path("given", "teacher")
    if (place / "config.json").is_file():
        if fingerprint(teacher_of(place)) != fingerprint(teacher):
            raise RunFolderError(f"{folder} was made with another teacher; choose another out")
    else:
        save_denoiser(teacher, place)
    return place


def _keep_images(folder: Path, data: ImageData | Tensor) -> tuple[Path, tuple[float, float]]:
    """The images, and their split where they have one, in the run's ``given/``, and their pixel range.

    Raises RunFolderError where others lie there.
    """
    arrays: dict[str, Any]
    if isinstance(data, ImageData):
        parts = {part: getattr(data, part) for part in ("train", "validation", "test")}
        labels = {part: getattr(data, f"labels_{part}") for part in parts}
        arrays = {f"x_{part}": images.cpu().numpy() for part, images in parts.items()}
        arrays |= {f"y_{part}": rows.cpu().numpy() for part, rows in labels.items() if rows is not None}
        span = data.pixel_range
    else:
        arrays, span = {"images": data.cpu().numpy()}, (float(data.min()), float(data.max()))
    file, content = Run(folder).path("given", IMAGES), _archive(arrays)
    if not file.is_file():
        write_bytes(file, content)
    elif file.read_bytes() != content:
        raise RunFolderError(f"{folder} was made of other images; choose another out")
    return file, span


def _shape(data: ImageData | Tensor) -> tuple[int, int, int]:
    channels, height, width = data.image_shape if isinstance(data, ImageData) else data.shape[1:]
    return (channels, height, width)


def _archive(arrays: dict[str, Any]) -> bytes:
    """The arrays as a .npz file, the same bytes for the same numbers."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
