"""A run folder: whose it is, which stages are done, which are stale."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phasewise.errors import RunFolderError
from phasewise.files import read_json, write_json
from phasewise.pipeline.config import SIZES, RunConfig

KIND = "phasewise-run"
FORMAT = 1
OPTIONS = {
    "data": "--data", "data_dir": "--data-dir", "limit": "--limit", "seed": "--seed", "device": "--device",
    "radii": "--radii", "window_radius": "--window-radius", "global_width": "--global-width",
    "cheap_globals": "--cheap-globals", "networks": "--networks", "preset": "--preset",
    "batch": "--batch", "global_epochs": "--global-epochs", "local_epochs": "--local-epochs", "steps": "--steps",
    "solver": "--solver", "spacing": "--spacing", "penalty": "--penalty",
    "growth_trajectories": "--growth-trajectories", "budget": "--budget",
    "window": "--window", "features": "--features", "n_samples": "--samples", "cmi": "--cmi",
    "cmi_radii": "--cmi-radii", "cmi_times": "--cmi-times", "cmi_estimator": "--estimator", "cmi_block": "--block",
    "cmi_center": "--center", "cmi_options": "--cmi-option", "cmi_accuracy": "--cmi-accuracy",
    "cmi_tolerance": "--cmi-tolerance",
}  # fmt: skip
"""Fields of the config that the command line sets."""


@dataclass(frozen=True)
class Stage:
    """One step of a run: what it needs, which choices it depends on, which files prove it done."""

    name: str
    needs: tuple[str, ...]
    choices: tuple[str, ...]
    outputs: tuple[str, ...]
    work: Callable[[Any], None]


class RunFolder:
    """Opens ``root`` for a run of ``config``, or raises RunFolderError saying why it may not be written into."""

    def __init__(self, root: str | Path, config: RunConfig, *, update: bool = False, version: str = "") -> None:
        self.root, self.config = Path(root), config
        if self.root.exists() and not self.root.is_dir():
            raise RunFolderError(f"{self.root} is a file; give a folder with --out")
        found = read_config(self.root)
        if found is None and self.root.is_dir() and any(self.root.iterdir()):
            raise RunFolderError(
                f"{self.root} is not empty and holds no phasewise run; choose another folder with --out"
            )
        changes = _changes(found, config, self._unmeasured()) if found is not None else []
        if changes and not update:
            text = "; ".join(changes[:3]) + (", ..." if len(changes) > 3 else "")
            raise RunFolderError(
                f"{self.root} holds a run of another config ({text}); choose another --out, "
                "or pass --update to redo the stages that this change touches"
            )
        self.claimed, self.version = found == config, version

    def _unmeasured(self) -> set[str]:
        """Choices that may change freely: whether CMI is measured, and how, as long as it was not."""
        how = {name for name in OPTIONS if name.startswith("cmi_")}
        return {"cmi"} if self.path("stages", "cmi.json").is_file() else {"cmi", *how}

    def claim(self, made_by: str | None = None) -> None:
        """Write the config, and the command that repeats it, into the folder: from here on it is this run's."""
        record = {"kind": KIND, "format": FORMAT, "version": self.version, "config": self.config.to_dict()}
        write_json(self.root / "run.json", {**record, "command": made_by or command(self.config)})
        self.claimed = True

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    def key(self, stage: Stage, stages: Sequence[Stage]) -> str:
        """Hash of everything the stage's output depends on: its choices and the keys of the stages it needs."""
        by_name = {s.name: s for s in stages}
        values = self.config.to_dict()
        content = {
            "format": FORMAT,
            "name": stage.name,
            "choices": {c: values[c] for c in stage.choices},
            "needs": [self.key(by_name[n], stages) for n in stage.needs],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def done(self, stage: Stage, stages: Sequence[Stage]) -> bool:
        stamp = self.path("stages", f"{stage.name}.json")
        if not stamp.is_file() or not all(self.path(o).exists() for o in stage.outputs):
            return False
        return bool(_read_stamp(stamp).get("key") == self.key(stage, stages))

    def stale(self, stage: Stage, stages: Sequence[Stage]) -> bool:
        """True when the stage was done before, for other choices."""
        stamp = self.path("stages", f"{stage.name}.json")
        return stamp.is_file() and _read_stamp(stamp).get("key") != self.key(stage, stages)

    def stamp(self, stage: Stage, stages: Sequence[Stage], seconds: float) -> None:
        write_json(
            self.path("stages", f"{stage.name}.json"),
            {
                "key": self.key(stage, stages),
                "seconds": round(seconds, 2),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )


def _read_stamp(path: Path) -> dict[str, Any]:
    """A stage's stamp; one that is no JSON object counts as not done."""
    record = read_json(path)
    return record if isinstance(record, dict) else {}


def read_config(root: str | Path) -> RunConfig | None:
    """The config of the run in ``root``; None when there is no run."""
    file = Path(root) / "run.json"
    if not file.is_file():
        return None
    record = read_json(file)
    if not isinstance(record, dict) or record.get("kind") != KIND:
        raise RunFolderError(f"{file} was not written by phasewise; choose another folder with --out")
    if record.get("format") != FORMAT:
        raise RunFolderError(
            f"{root} was made by phasewise {record.get('version')} (run format {record.get('format')}); this version "
            f"reads format {FORMAT}: use another --out"
        )
    try:
        return RunConfig.from_dict(record["config"])
    except (KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{file} does not hold a valid config ({error!r}); use another --out") from error


def command(config: RunConfig, verb: str = "run") -> str:
    """A command line that repeats the run: the size, and every option that differs from the size's own."""
    usual = {**RunConfig().to_dict(), **SIZES.get(config.size, {}), "data": None}
    words = ["phasewise", verb, "--size", config.size]
    for name, value in config.to_dict().items():
        if name in OPTIONS and value != (list(usual[name]) if isinstance(usual[name], tuple) else usual[name]):
            words += _words(OPTIONS[name], value)
    return " ".join(words)


def _words(option: str, value: Any) -> list[str]:
    """An option with its value; pairs and options of an estimator repeat it, once for each."""
    if isinstance(value, bool):
        return [option if value else option.replace("--", "--no-", 1)]
    if isinstance(value, dict):
        return [w for k, v in value.items() for w in (option, shlex.quote(f"{k}={json.dumps(v)}"))]
    if isinstance(value, list) and value and isinstance(value[0], list):
        return [w for pair in value for w in (option, ",".join(map(str, pair)))]
    text = ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return [option, shlex.quote(text)]


def _changes(found: RunConfig, wanted: RunConfig, free: set[str]) -> list[str]:
    """One line for every choice that differs, those in ``free`` apart."""
    a, b = found.to_dict(), wanted.to_dict()
    return [f"{k}: {a[k]} there, {b[k]} here" for k in a if a[k] != b[k] and k not in free]
