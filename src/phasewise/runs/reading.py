"""JSON objects and tensors of a run folder as typed, checked records; what is damaged is named with the mend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from phasewise.errors import RunFolderError
from phasewise.files import read_json
from phasewise.paths import path_from_config
from phasewise.results import (
    Array,
    CMIMap,
    Estimate,
    Evaluation,
    HybridSchedule,
    LossTable,
    MarkovFit,
    ParetoFront,
    PriceList,
    Recovery,
    TrainingRecord,
)

if TYPE_CHECKING:
    from phasewise.scheduling import Boundary, BoundaryUnits

T = TypeVar("T")


def log_snr_of(times: Array, path: Any, data_std: float) -> Array:
    """log(alpha^2 / sigma^2) + 2 log(data_std) at times (T,) of a path by its config; None: the linear one."""
    levels = path_from_config({"name": "linear"} if path is None else path).log_snr(torch.as_tensor(times))
    found: Array = levels.numpy() + 2 * np.log(data_std)
    return found


@dataclass(frozen=True)
class RecoveryImages:
    """uint8 pictures of the ablation: original (k,C,H,W), noisy (T,k,C,H,W), recovered (T,N,k,C,H,W)."""

    original: Array
    noisy: Array
    recovered: Array


@dataclass(frozen=True)
class Position:
    """The CMI map of one place of A: (row, col), and value and stderr (T, R)."""

    center: tuple[int, int]
    value: Array
    stderr: Array


def read(path: Path, build: Callable[[dict[str, Any]], T], made_by: str = "the command that made it") -> T:
    """What ``build`` makes of the JSON object in ``path``; RunFolderError naming the command where it does not fit."""
    mend = f"delete it and run {made_by} again"
    values = read_json(path, mend)
    if not isinstance(values, dict):
        raise RunFolderError(f"{path} does not hold a JSON object; {mend}")
    try:
        return build(values)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise RunFolderError(f"{path} does not fit this version of phasewise ({error}); {mend}") from error


def training(values: dict[str, Any]) -> TrainingRecord:
    record = TrainingRecord.from_dict(values)
    if not (np.diff(record.bin_edges) > 0).all():  # not of NaN, either
        raise ValueError(f"the edges of the time bins do not ascend: {record.bin_edges}")
    return _shaped(record, (max(len(record.bin_edges) - 1, 0),), ("val_by_time",))


def losses(values: dict[str, Any]) -> LossTable:
    record = LossTable.from_dict(values)
    if record.reference not in record.names:
        raise ValueError(f"the reference {record.reference!r} is not among {', '.join(record.names)}")
    path_from_config(record.path)  # raises where it is none
    _shaped(record, (len(record.times),), ("log_snr",))
    fields = ("loss", "loss_stderr", "gap", "gap_stderr", "distance", "distance_stderr")
    return _shaped(record, (len(record.times), len(record.names)), fields)


def prices(values: dict[str, Any]) -> PriceList:
    record = PriceList.from_dict(values)
    losses(record.losses.to_dict())  # for its check of shapes
    count = len(record.names)
    per_step = [f for f in ("growth", "frechet", "frechet_stderr") if getattr(record, f) is not None]
    _shaped(record, (len(record.times), count), tuple(per_step))
    return _shaped(record, (count,), ("flops", "ms"))


def recovery(values: dict[str, Any]) -> Recovery:
    record = Recovery.from_dict(values)
    return _shaped(record, (len(record.times), len(record.names)), ("mse", "mse_stderr"))


def cmi(values: dict[str, Any]) -> CMIMap:
    record = CMIMap.from_dict(values)
    for position in positions(record):
        _shaped(position, record.value.shape, ("value", "stderr"))
    return _shaped(record, (len(record.times), len(record.radii)), ("value", "stderr"))


def positions(record: CMIMap) -> list[Position]:
    """The map at each place of A, where it was averaged over several; else empty."""
    return [
        Position((int(p["center"][0]), int(p["center"][1])), np.array(p["value"], float), np.array(p["stderr"], float))
        for p in record.config.get("positions") or ()
    ]


def markov(values: dict[str, Any]) -> MarkovFit:
    record = MarkovFit.from_dict(values)
    if not len(record.status) == len(record.reason) == len(record.times):
        raise ValueError(f"{len(record.times)} times but {len(record.status)} verdicts")
    return _shaped(record, (len(record.times),), ("xi", "low", "high", "amplitude", "p_value"))


def gap(values: dict[str, Any]) -> dict[str, dict[str, Estimate]]:
    tables = {key: table for key, table in values.items() if isinstance(table, dict)}
    return {
        key: {name: Estimate.from_dict(entry) for name, entry in table.items() if isinstance(entry, dict)}
        for key, table in tables.items()
    }


def fronts(values: dict[str, Any]) -> dict[str, ParetoFront]:
    return {k: ParetoFront.from_dict(v) for k, v in values.items() if isinstance(v, dict) and "mflop" in v}


def schedules(values: dict[str, Any]) -> dict[str, HybridSchedule]:
    return {k: HybridSchedule.from_dict(v) for k, v in values.items()}


def boundaries(values: dict[str, Any]) -> dict[str, tuple[Boundary, BoundaryUnits]]:
    from phasewise.scheduling import Boundary, BoundaryUnits  # brings torch, which most records do without

    return {k: (Boundary.from_dict(v["boundary"]), BoundaryUnits.from_dict(v["units"])) for k, v in values.items()}


def claims(values: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(values["ok"], bool) or not isinstance(values["said"], str):
        raise ValueError("a claim is 'ok' and 'said'")
    return values


def classes(values: dict[str, Any]) -> tuple[int, ...]:
    counts = tuple(int(v) for v in values["counts"])
    if any(v < 0 for v in counts) or not sum(counts):
        raise ValueError(f"counts of classes are {counts}")
    return counts


def explanations(values: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    if not all(isinstance(v, list) and all(isinstance(line, str) for line in v) for v in values.values()):
        raise ValueError("explanations are lists of lines")
    return {k: tuple(v) for k, v in values.items()}


def judgement(values: dict[str, Any]) -> dict[str, Any]:
    """What stands beside the evaluations: "real", and what is known of the classifier, objects where they are there."""
    for name in ("real", "classifier"):
        if not isinstance(values.get(name) or {}, dict):
            raise ValueError(f"{name} is no object")
    return values


def evaluations(values: dict[str, Any]) -> dict[str, Evaluation]:
    return {e.name: e for e in map(Evaluation.from_dict, values.get("evaluations", ()))}


def trial(values: dict[str, Any]) -> Evaluation:
    return Evaluation.from_dict(values["evaluation"])


def _shaped(record: T, shape: tuple[int, ...], fields: tuple[str, ...]) -> T:
    """``record`` if its arrays have ``shape`` (and one radius goes with each name)."""
    for field_name in fields:
        if getattr(record, field_name).shape != shape:
            raise ValueError(f"{field_name} has shape {getattr(record, field_name).shape}, expected {shape}")
    names, radii = getattr(record, "names", ()), getattr(record, "radii", None)
    if isinstance(record, (LossTable, Recovery)) and len(names) != len(radii or ()):
        raise ValueError(f"{len(names)} names but {len(radii or ())} radii")
    return record


def recovery_images(path: Path, record: Recovery) -> RecoveryImages:
    images = RecoveryImages(tensor(path, "original", 4), tensor(path, "noisy", 5), tensor(path, "recovered", 6))
    if images.recovered.shape[:2] != (len(record.times), len(record.names)) or len(images.noisy) != len(record.times):
        raise RunFolderError(
            f"{path} holds other times or denoisers than records/recovery.json; delete both and diagnose again"
        )
    return images


def tensor(path: Path, name: str, ndim: int, first: int | None = None) -> Array:
    """A named uint8 array of pictures, the ``first`` of them."""
    from phasewise.tensors import opened  # brings torch, which a run without pictures does without

    try:
        with opened(path, "np") as handle:
            value: Array = handle.get_tensor(name)[:first]
    except (TypeError, IndexError) as error:  # a type of number that numpy has not, a single number
        raise RunFolderError(f"{path}: {name!r} holds no pictures ({error}); delete it and run again") from error
    if value.ndim != ndim or value.dtype != np.uint8 or not value.size:
        raise RunFolderError(
            f"{path}: {name!r} should be uint8 pictures with {ndim} axes, found {value.dtype} {value.shape}; "
            "delete it and run again"
        )
    return value
