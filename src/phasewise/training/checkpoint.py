"""Training state in one safetensors file: tensors, and strings in its header. Atomic; no pickle."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from phasewise.display import brief
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import parse_json, write_bytes
from phasewise.results import Record, check_history
from phasewise.tensors import read_tensors

CHECKPOINT_FORMAT = "1"
MEND = "delete it to train from the start"


def write_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict[str, str]) -> None:
    """``meta`` must hold "identity", the JSON of everything that defines the training."""
    # safetensors takes no tensors that share memory
    own = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    write_bytes(path, save_tensors(own, {"format": CHECKPOINT_FORMAT, **meta}))


@dataclass(frozen=True)
class Progress(Record):
    """How far a training had come: step, the step of the last row of progress, seconds, and those rows."""

    step: int
    since: int
    seconds: float
    history: tuple[dict[str, Any], ...]

    def check(self) -> None:
        if not (0 <= self.since <= self.step and 0 <= self.seconds < math.inf):
            raise PhasewiseError(f"step {self.step}, since {self.since}, {self.seconds} s cannot be")
        check_history(self.history)


def read_checkpoint(path: Path, identity: str) -> tuple[dict[str, Tensor], Progress]:
    """Tensors and progress; CheckpointError when the file is corrupt, of another format or of another training."""
    tensors, meta = read_tensors(path, MEND)
    if meta.get("format") != CHECKPOINT_FORMAT:
        found = brief(meta.get("format"))
        raise CheckpointError(f"{path} has checkpoint format {found}, not {CHECKPOINT_FORMAT}; delete it")
    absent = [name for name in ("identity", "step", "since", "seconds", "history") if name not in meta]
    if absent:
        raise CheckpointError(f"{path} lacks {', '.join(absent)}; {MEND}")
    if meta["identity"] != identity:
        raise CheckpointError(
            f"{path} belongs to another training ({_first_difference(meta['identity'], identity, path)}); "
            "use another folder, or delete the checkpoint"
        )
    try:
        values = {name: parse_json(meta[name], f"{name} in {path}", MEND) for name in ("step", "since", "seconds")}
        rows = parse_json(meta["history"], f"history in {path}", MEND)
        return tensors, Progress(**values, history=rows)
    except PhasewiseError as error:
        raise CheckpointError(f"{path} is corrupt ({error}); {MEND}") from error


def _first_difference(a: str, b: str, path: Path) -> str:
    try:
        left, right = _flat(parse_json(a, f"identity in {path}")), _flat(json.loads(b))
    except PhasewiseError:
        return "whose identity cannot be read"
    for key in sorted(left.keys() | right.keys()):
        if left.get(key) != right.get(key):
            return f"{key}: {left.get(key)} there, {right.get(key)} here"
    return "unknown difference"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}".strip(".")).items()}
