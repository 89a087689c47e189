"""Make a shipped set of a finished run: half-precision weights, records, feature moments; and what rounding costs.

python -m phasewise.pretrained runs/mnist mnist --data-dir DIR
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from phasewise import __version__
from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, load_denoiser, save_denoiser
from phasewise.diagnosis import measure_losses
from phasewise.errors import PhasewiseError
from phasewise.files import read_json, write_bytes, write_json, write_text
from phasewise.metrics import ClassifierFeatures, FrechetReference, SlicedReference, default_features, unseen_features
from phasewise.metrics.sliced import ATOMS
from phasewise.pretrained.sets import HOME, Pretrained, load_pretrained
from phasewise.runs.config import RunConfig, command
from phasewise.runs.images import images_of
from phasewise.runs.members import MEMBER_KINDS, NAME
from phasewise.runs.run import Run, open_run

PACKED = ("data", "features", "gap", "losses", "prices", "fronts", "schedules", "explanations", "recovery", "training")
MEASURED = ("symmetry", "cmi", "markov", "classes")
"""Items of a run that a set keeps; the latter where they were measured."""
REAL = 3000
TIMES = (0.05, 0.2, 0.4, 0.6, 0.8)


def pack(
    run_folder: str | Path, name: str, *, data_dir: str | None = None, note: str = "", judges_of: str | None = None
) -> Pretrained:
    """Write the set ``name`` of a finished run into the package; returns it.

    ``note``: what the records do not say of how it was trained, for the card.  ``judges_of``: a set on the same images
    that has the judges of the run already, so that they are not stored twice.  Raises PhasewiseError where the run is
    not finished, its images are not those of its record, or its features are no classifier's, or not those of
    ``judges_of``; and for a name that is no folder's.  A set of that name is replaced only after all of these hold.
    """
    run, target = _opened(run_folder, name)
    evaluation = run.evaluations
    if not evaluation:
        raise PhasewiseError(f"{run.root} is no finished run; finish it with `phasewise run --out {run.root}`")
    _apart(run, target)
    config, data, features, second = _classifiers(run, data_dir)
    if judges_of is not None:
        _same_judges(judges_of, target, features, second)
    names = [m.name for m in config.members if MEMBER_KINDS[m.kind].scheduled]
    full = run.denoisers(names)
    shutil.rmtree(target.root, ignore_errors=True)
    for member, denoiser in full.items():
        save_denoiser(denoiser, target.model(member), half=True)
    copy_records(run, target, names)
    kept = config.changed(data_dir=None, networks=None, control=False)
    shown = config.changed(
        data_dir="DIR" if config.data.data_dir else None, networks="NETWORKS" if config.train.networks else None
    )
    target.claim(kept, command(shown), __version__)
    if judges_of is None:
        write_features(features, target, data.train, data.test)
        write_second_judge(second, target, data.train, data.test)
    change = rounding({n: full[n] for n in names}, target, data)
    fids = {e.name: {k: getattr(e, k) for k in ("fid", "fid_stderr", "n", "mflop")} for e in evaluation.values()}
    card: dict[str, Any] = {"denoisers": names, "data": config.data.data, "trained_by": command(shown)}
    card |= {"note": note} if note else {}
    card |= {"judges_of": judges_of} if judges_of is not None else {}
    card |= {"loss_change_by_half_precision": change, "fid_when_trained": {**fids, "real": run.real}}
    write_json(
        target.path("card"), {**card, "license": "Apache-2.0 (weights); trained on images of the set named under data"}
    )
    return target


def pack_judges(run_folder: str | Path, name: str, *, data_dir: str | None = None) -> Pretrained:
    """Write the two classifiers of a run alone into the package, where every run on the same images finds them
    (:func:`phasewise.pretrained.sets.shipped_judges`); raises as :func:`pack`, but for a run that is not finished, and
    for a name that has a whole set already."""
    run, target = _opened(run_folder, name)
    _apart(run, target)
    if target.has("card"):
        raise PhasewiseError(f"{target.root} is a whole set, with moments of its own judges; pack the whole run")
    _, _, features, second = _classifiers(run, data_dir)
    features.halved().save(target.path("shipped_features"), half=True)
    second.halved().save(target.path("shipped_unseen"), half=True)
    return target


def _opened(run_folder: str | Path, name: str) -> tuple[Run, Pretrained]:
    """The run, and the place of the set of this name; PhasewiseError for a name that is no folder's."""
    if not NAME.fullmatch(name):
        raise PhasewiseError(f"a set's name is letters, digits, '_', '.', '+' and '-'; got {name!r}")
    return open_run(run_folder), Pretrained(name, HOME / name)


def _apart(run: Run, target: Pretrained) -> None:
    """PhasewiseError where the run is the set itself."""
    if target.root.resolve() in (run.root.resolve(), *run.root.resolve().parents):
        raise PhasewiseError(
            f"{run.root} is the set {target.name!r} itself, which packing replaces; pack the run it came from"
        )


def _same_judges(lender: str, target: Pretrained, first: ClassifierFeatures, second: ClassifierFeatures) -> None:
    """PhasewiseError unless the set ``lender`` holds these two classifiers, rounded, itself."""
    ready = load_pretrained(lender)
    if ready.judging is not ready or ready.root == target.root:
        raise PhasewiseError(f"{lender!r} has no judges of its own to share; name the set that has them")
    for network, unseen in ((first, False), (second, True)):
        if network.halved().digest() != ready.features(unseen).halved().digest():
            raise PhasewiseError(f"{lender!r} has another {network.name} than this run; pack it with its own judges")


def _classifiers(run: Run, data_dir: str | None) -> tuple[RunConfig, ImageData, ClassifierFeatures, ClassifierFeatures]:
    """Config, images and the classifiers of a run's judges."""
    config = run.config
    if config is None or run.data is None:
        raise PhasewiseError(f"{run.root} is no finished run; finish it with `phasewise run --out {run.root}`")
    data = images_of(config.data, data_dir=data_dir)
    if data.fingerprint != run.data.fingerprint:
        raise PhasewiseError(f"{run.root} was made of other images than {config.data.data} in {data_dir}")
    how: dict[str, Any] = {"cache_dir": run.path("networks"), "kind": config.features.features}
    features = default_features(data, seed=config.data.seed, **how)
    if not isinstance(features, ClassifierFeatures):
        raise PhasewiseError(f"a set is shipped with a classifier's features; {run.root} used {features.name!r}")
    second = unseen_features(data, seed=config.data.seed, **how)
    assert isinstance(second, ClassifierFeatures)  # there are labels, or the first were none
    return config, data, features, second


def copy_records(run: Run, target: Run, names: list[str]) -> None:
    """The records of :data:`PACKED` and :data:`MEASURED`, one line each (they are read by programs), without those of
    other members."""
    for item in (*PACKED, *filter(run.has, MEASURED)):
        source, place = run.path(item), target.path(item)
        files = sorted(source.glob("*.json")) if source.is_dir() else [source]
        for file in files:
            if source.is_dir() and file.stem not in names:
                continue
            goal = place / file.name if source.is_dir() else place
            write_text(goal, json.dumps(read_json(file), separators=(",", ":")) + "\n")


def write_features(features: ClassifierFeatures, target: Run, train: torch.Tensor, test: torch.Tensor) -> None:
    """The feature network in half precision, moments of the training images in its features once they are rounded, and
    features of some held-out ones."""
    features.halved().save(target.path("shipped_features"), half=True)
    FrechetReference.of_images(train, features).save(target.moments("first"))
    _write_real(features, target.path("shipped_real"), test)


def write_second_judge(features: ClassifierFeatures, target: Run, train: torch.Tensor, test: torch.Tensor) -> None:
    """The same of the network that no penalty sees, in half precision; and the training images along directions."""
    features.halved().save(target.path("shipped_unseen"), half=True)
    FrechetReference.of_images(train, features).save(target.moments("unseen"))
    _write_real(features, target.path("shipped_unseen_real"), test)
    SlicedReference.of_images(train, atoms=ATOMS).save(target.moments("sliced"))


def _write_real(features: ClassifierFeatures, place: Path, test: torch.Tensor) -> None:
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:REAL]
    write_bytes(place, safetensors.torch.save({"features": features.extract(test[order]).half()}))


def rounding(full: dict[str, Denoiser], target: Run, data: ImageData) -> dict[str, float]:
    """Largest relative change of the held-out loss by half precision, by name (500 test images, same noise)."""
    half = {f"{n} half": load_denoiser(target.model(n)) for n in full}
    labels = data.labels_test if any(denoiser.takes_condition for denoiser in full.values()) else None
    told = None if labels is None else labels[:500]
    table = measure_losses({**full, **half}, data.test[:500], TIMES, reference="global", cond=told, seed=11)
    loss = {name: table.loss[:, i] for i, name in enumerate(table.names)}
    return {n: float(np.abs(loss[f"{n} half"] / loss[n] - 1).max()) for n in full}
