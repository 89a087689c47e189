"""A run folder as typed records. Every record is optional; what is absent is ``None`` or empty.

Layout: ``run.json``, ``records/*.json`` (dataclasses of :mod:`phasewise.results`), ``samples/*.safetensors``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from phasewise.errors import PhasewiseError, RunFolderError
from phasewise.files import read_json
from phasewise.results import (
    Array,
    CMIMap,
    DataRecord,
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

T = TypeVar("T")
MAX_SAMPLES = 64

MAKERS: dict[str, tuple[str, str]] = {
    "data": ("records/data.json", "phasewise run"),
    "training": ("records/training/", "phasewise train"),
    "losses": ("records/losses.json", "phasewise diagnose"),
    "gap": ("records/gap.json", "phasewise diagnose"),
    "recovery": ("records/recovery.json", "phasewise diagnose"),
    "recovered": ("samples/recovery.safetensors", "phasewise diagnose"),
    "cmi": ("records/cmi.json", "phasewise diagnose --cmi --out DIR"),
    "markov": ("records/markov.json", "phasewise diagnose --cmi --out DIR"),
    "prices": ("records/prices.json", "phasewise schedule"),
    "fronts": ("records/fronts.json", "phasewise schedule"),
    "schedules": ("records/schedules.json", "phasewise schedule"),
    "evaluations": ("records/evaluation.json", "phasewise evaluate"),
    "samples": ("samples/", "phasewise evaluate"),
}
"""Which file holds each record, and the command that makes it."""


def missing(*names: str) -> str:
    """One line that says which records are absent and what makes them."""
    files = " and ".join(MAKERS[n][0] for n in names)
    commands = " and ".join(f"`{c}`" for c in dict.fromkeys(MAKERS[n][1] for n in names))
    return f"Not in this run: {files}. Made by {commands}."


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


@dataclass(frozen=True)
class Run:
    """Everything a run folder holds. ``samples`` maps a schedule's name (or "real") to uint8 (n,C,H,W), n <= 64."""

    folder: Path
    info: dict[str, Any] = field(default_factory=dict)
    data: DataRecord | None = None
    training: dict[str, TrainingRecord] = field(default_factory=dict)
    losses: LossTable | None = None
    gap: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    prices: PriceList | None = None
    fronts: dict[str, ParetoFront] = field(default_factory=dict)
    schedules: dict[str, HybridSchedule] = field(default_factory=dict)
    explanations: dict[str, tuple[str, ...]] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    real: dict[str, Any] = field(default_factory=dict)
    classifier: dict[str, Any] = field(default_factory=dict)
    recovery: Recovery | None = None
    recovered: RecoveryImages | None = None
    cmi: CMIMap | None = None
    markov: MarkovFit | None = None
    samples: dict[str, Array] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """Name of the denoiser all others are compared with."""
        table = self.losses or (self.prices.losses if self.prices else None)
        return table.reference if table else "global"

    def all_schedules(self) -> dict[str, HybridSchedule]:
        """Schedules by name: the evaluated ones as they were run, then the saved ones."""
        evaluated = {n: e.schedule for n, e in self.evaluations.items() if e.schedule is not None}
        return {**self.schedules, **evaluated}


def load_run(folder: str | Path) -> Run:
    """Read every record of ``folder``.

    Raises RunFolderError when the folder is absent, is not a run folder, holds no record at all, or holds one that
    does not fit this version; PhasewiseError when a JSON file is broken.
    """
    root = Path(folder)
    if not root.is_dir():
        raise RunFolderError(f"no run folder at {root}; make one with `phasewise run --data NAME --out {root}`")
    info = _json(root / "run.json", dict) or {}
    if info and info.get("kind") != "phasewise-run":
        raise RunFolderError(f"{root / 'run.json'} was not written by phasewise; give a folder made by `phasewise run`")
    evaluation = _json(root / "records/evaluation.json", dict) or {}
    judged = _parse(root / "records/evaluation.json", evaluation, lambda v: _by_name(v.get("evaluations", ())))
    recovery = _json(root / "records/recovery.json", _recovery)
    run = Run(
        folder=root,
        info=info,
        data=_json(root / "records/data.json", DataRecord.from_dict),
        training=_training(root / "records/training"),
        losses=_json(root / "records/losses.json", _losses),
        gap=_json(root / "records/gap.json", _gap) or {},
        prices=_json(root / "records/prices.json", _prices),
        fronts=_json(root / "records/fronts.json", _fronts) or {},
        schedules=_json(root / "records/schedules.json", _schedules) or {},
        explanations=_json(root / "records/explanations.json", _explanations) or {},
        evaluations=judged,
        real=evaluation.get("real") or {},
        classifier=evaluation.get("classifier") or {},
        recovery=recovery,
        recovered=_recovery_images(root / "samples/recovery.safetensors", recovery),
        cmi=_json(root / "records/cmi.json", _cmi),
        markov=_json(root / "records/markov.json", _markov),
        samples=_samples(root / "samples"),
    )
    if run.cmi and run.markov:
        same = np.array_equal(run.cmi.times, run.markov.times) and run.markov.window_radius in list(run.cmi.radii)
        if not same:
            raise RunFolderError(
                f"{root / 'records/markov.json'} is about other times or radii than cmi.json; delete both and run "
                "`phasewise diagnose --cmi` again"
            )
    if not any(getattr(run, n) for n in MAKERS):
        raise RunFolderError(
            f"{root} holds no records to report; make them with `phasewise run --data NAME --out {root}`"
        )
    return run


def _json(path: Path, build: Callable[[dict[str, Any]], T]) -> T | None:
    return _parse(path, read_json(path), build) if path.is_file() else None


def _parse(path: Path, values: Any, build: Callable[[dict[str, Any]], T]) -> T:
    if not isinstance(values, dict):
        raise RunFolderError(f"{path} does not hold a JSON object; delete it and run the command that made it again")
    try:
        return build(values)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise RunFolderError(
            f"{path} does not fit this version of phasewise ({error}); delete it and run the command that made it again"
        ) from error


def _training(folder: Path) -> dict[str, TrainingRecord]:
    records = [_json(path, TrainingRecord.from_dict) for path in sorted(folder.glob("*.json"))]
    return {r.name: r for r in records if r is not None}


def _losses(values: dict[str, Any]) -> LossTable:
    record = LossTable.from_dict(values)
    fields = ("loss", "loss_stderr", "gap", "gap_stderr", "distance", "distance_stderr")
    return _shaped(record, (len(record.times), len(record.names)), fields)


def _prices(values: dict[str, Any]) -> PriceList:
    record = PriceList.from_dict(values)
    _losses(record.losses.to_dict())
    return _shaped(record, (len(record.names),), ("flops", "ms"))


def _recovery(values: dict[str, Any]) -> Recovery:
    record = Recovery.from_dict(values)
    return _shaped(record, (len(record.times), len(record.names)), ("mse", "mse_stderr"))


def _cmi(values: dict[str, Any]) -> CMIMap:
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


def _markov(values: dict[str, Any]) -> MarkovFit:
    record = MarkovFit.from_dict(values)
    if not len(record.status) == len(record.reason) == len(record.times):
        raise ValueError(f"{len(record.times)} times but {len(record.status)} verdicts")
    return _shaped(record, (len(record.times),), ("xi", "low", "high", "amplitude", "p_value"))


def _shaped(record: T, shape: tuple[int, ...], fields: tuple[str, ...]) -> T:
    """``record`` if its arrays have ``shape`` (and one radius goes with each name)."""
    for field_name in fields:
        if getattr(record, field_name).shape != shape:
            raise ValueError(f"{field_name} has shape {getattr(record, field_name).shape}, expected {shape}")
    names, radii = getattr(record, "names", ()), getattr(record, "radii", None)
    if isinstance(record, (LossTable, Recovery)) and len(names) != len(radii or ()):
        raise ValueError(f"{len(names)} names but {len(radii or ())} radii")
    return record


def _gap(values: dict[str, Any]) -> dict[str, dict[str, Estimate]]:
    tables = {key: table for key, table in values.items() if isinstance(table, dict)}
    return {
        key: {name: Estimate.from_dict(_nan(entry)) for name, entry in table.items() if isinstance(entry, dict)}
        for key, table in tables.items()
    }


def _nan(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: (float("nan") if v is None and k in ("value", "stderr") else v) for k, v in entry.items()}


def _fronts(values: dict[str, Any]) -> dict[str, ParetoFront]:
    return {k: ParetoFront.from_dict(v) for k, v in values.items() if isinstance(v, dict) and "mflop" in v}


def _schedules(values: dict[str, Any]) -> dict[str, HybridSchedule]:
    return {k: HybridSchedule.from_dict(v) for k, v in values.items()}


def _explanations(values: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {k: tuple(str(line) for line in v) for k, v in values.items()}


def _by_name(values: list[dict[str, Any]]) -> dict[str, Evaluation]:
    return {e.name: e for e in map(Evaluation.from_dict, values)}


def _samples(folder: Path) -> dict[str, Array]:
    files = [p for p in sorted(folder.glob("*.safetensors")) if p.stem != "recovery"]
    return {p.stem: _tensor(p, "samples", ndim=4, first=MAX_SAMPLES) for p in files}


def _recovery_images(path: Path, record: Recovery | None) -> RecoveryImages | None:
    if record is None or not path.is_file():
        return None
    images = RecoveryImages(_tensor(path, "original", 4), _tensor(path, "noisy", 5), _tensor(path, "recovered", 6))
    if images.recovered.shape[:2] != (len(record.times), len(record.names)) or len(images.noisy) != len(record.times):
        raise RunFolderError(
            f"{path} holds other times or denoisers than records/recovery.json; delete both and diagnose again"
        )
    return images


def _tensor(path: Path, name: str, ndim: int, first: int | None = None) -> Array:
    try:
        with safe_open(str(path), framework="np") as handle:
            value: Array = handle.get_tensor(name)[:first]
    except (SafetensorError, OSError) as error:
        raise PhasewiseError(f"cannot read {name!r} from {path} ({error}); delete it and run again") from error
    if value.ndim != ndim or value.dtype != np.uint8 or not value.size:
        raise RunFolderError(
            f"{path}: {name!r} should be uint8 pictures with {ndim} axes, found {value.dtype} {value.shape}; "
            "delete it and run again"
        )
    return value
