"""A run folder under way: whether it may be written into, which stages are done, which are stale."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phasewise.errors import RunFolderError
from phasewise.files import read_json, sweep, write_json
from phasewise.runs.config import RunConfig, command
from phasewise.runs.layout import FORMAT, ITEMS
from phasewise.runs.parts import HOMES
from phasewise.runs.run import Run


@dataclass(frozen=True)
class Stage:
    """One step of a run: what it needs, what it depends on, which items prove it done.

    ``depends``: parts of the config, or single options, as JSON; ``model``: the member it leaves, if any.
    """

    name: str
    needs: tuple[str, ...]
    depends: dict[str, Any]
    outputs: tuple[str, ...]
    work: Callable[[Any], None]
    model: str | None = None


def demo_error(run: Run) -> RunFolderError:
    """That nothing is trained or measured in the folder of a demo, and what can be had instead."""
    name = run.demo_of
    return RunFolderError(
        f"{run.root} is a demo of the shipped set {name}, without its images: nothing is trained or measured there; "
        f"schedule, evaluate and sample take it, and `phasewise run --data {name} --data-dir DIR --out runs/{name}` "
        "makes a run of your own"
    )


class RunFolder:
    """Opens ``root`` for a run of ``config``, or raises RunFolderError saying why it may not be written into.

    ``demo``: the shipped set that is to be shown there, where one is.
    """

    def __init__(
        self, root: str | Path, config: RunConfig, *, update: bool = False, version: str = "", demo: str | None = None
    ) -> None:
        self.run, self.root, self.config = Run(root), Path(root), config
        if self.root.exists() and not self.root.is_dir():
            raise RunFolderError(f"{self.root} is a file; give a folder with --out")
        found = self.run.config
        if found is not None and self.run.demo_of not in (None, demo):
            raise demo_error(self.run)
        # hidden files are no strangers' work: an editor's, a file browser's, those of a stopped first write
        if found is None and self.root.is_dir() and any(not _harmless(p.name) for p in self.root.iterdir()):
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
        """Choices that may change freely: those that change no result; whether CMI is measured, and how, as long as it
        was not."""
        how = {name for name, (part, _) in HOMES.items() if part == "cmi"}
        free = {name for name, (_, about) in HOMES.items() if about.free}
        return free | ({"cmi"} if self._stamp("cmi").is_file() else how)

    def claim(self, made_by: str | None = None) -> None:
        """Write the config, and the command that repeats it, into the folder: from here on it is this run's.

        What killed writers left in it is swept."""
        sweep(self.root)
        self.run.claim(self.config, made_by or command(self.config), self.version)
        self.claimed = True

    def _stamp(self, name: str) -> Path:
        return self.run.path("stages", f"{name}.json")

    def key(self, stage: Stage, stages: Sequence[Stage]) -> str:
        """Hash of everything the stage's output depends on: its choices and the keys of the stages it needs."""
        by_name = {s.name: s for s in stages}
        content = {
            "format": FORMAT,
            "name": stage.name,
            "choices": stage.depends,
            # through them, a change makes all that follows stale
            "needs": [self.key(by_name[n], stages) for n in stage.needs],
        }
        if "data" in stage.needs:
            content["images"] = None if self.run.data is None else self.run.data.fingerprint
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def done(self, stage: Stage, stages: Sequence[Stage]) -> bool:
        there = all(self.run.has(item) for item in stage.outputs)  # a record that was deleted is made again
        there = there and (stage.model is None or self.run.has_model(stage.model))
        return there and _key_in(self._stamp(stage.name)) == self.key(stage, stages)

    def stale(self, stage: Stage, stages: Sequence[Stage]) -> bool:
        """True when the stage was done before, for other choices."""
        stamp = self._stamp(stage.name)
        return stamp.is_file() and _key_in(stamp) != self.key(stage, stages)

    def unstamp(self, stage: Stage) -> None:
        self._stamp(stage.name).unlink(missing_ok=True)

    def stamp(self, stage: Stage, stages: Sequence[Stage], seconds: float, **more: Any) -> None:
        about = {"seconds": round(seconds, 2), "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        write_json(self._stamp(stage.name), {"key": self.key(stage, stages), **about, **more})

    def stamped(self, name: str) -> dict[str, Any]:
        """What the stamp of a stage says; nothing where there is none."""
        return _stamp_in(self._stamp(name))

    def restamp(self, name: str, **more: Any) -> None:
        """The stamp of a stage with some of what it says replaced."""
        write_json(self._stamp(name), {**self.stamped(name), **more})


def _harmless(name: str) -> bool:
    """Whether something so called may lie in a folder that is no run yet: hidden, or what was given before the run."""
    return name.startswith(".") or f"{name}/" == ITEMS["given"].place


def _stamp_in(stamp: Path) -> dict[str, Any]:
    record = read_json(stamp, "delete it: that stage is then done again") if stamp.is_file() else None
    return record if isinstance(record, dict) else {}


def _key_in(stamp: Path) -> Any:
    """The key in a stage's stamp; None where there is none: it counts as not done."""
    return _stamp_in(stamp).get("key")


def _changes(found: RunConfig, wanted: RunConfig, free: set[str]) -> list[str]:
    """One line for every choice that differs, those in ``free`` apart."""
    a, b = found.flat(), wanted.flat()
    return [f"{k}: {a[k]} there, {b[k]} here" for k in a if a[k] != b[k] and k not in free]
