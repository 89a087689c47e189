"""Training state in one safetensors file: tensors, and strings in its header. Atomic; no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from phasewise.denoisers.io import read_safetensors
from phasewise.errors import CheckpointError
from phasewise.files import write_bytes

CHECKPOINT_FORMAT = "1"


def write_checkpoint(path: Path, tensors: dict[str, Tensor], meta: dict[str, str]) -> None:
    """``meta`` must hold "identity", the JSON of everything that defines the training."""
    # safetensors takes no tensors that share memory
    own = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    write_bytes(path, save_tensors(own, {"format": CHECKPOINT_FORMAT, **meta}))


def read_checkpoint(path: Path, identity: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and strings; CheckpointError when the file is corrupt, of another format or of another training."""
    tensors = read_safetensors(path)
    try:
        with safe_open(str(path), framework="pt") as handle:
            meta = handle.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is corrupt ({error}); delete it to train from the start") from error
    if meta.get("format") != CHECKPOINT_FORMAT:
        found = meta.get("format")
        raise CheckpointError(f"{path} has checkpoint format {found!r}, not {CHECKPOINT_FORMAT}; delete it")
    if meta["identity"] != identity:
        raise CheckpointError(
            f"{path} belongs to another training ({_first_difference(meta['identity'], identity)}); "
            "use another folder, or delete the checkpoint"
        )
    return tensors, meta


def _first_difference(a: str, b: str) -> str:
    left, right = _flat(json.loads(a)), _flat(json.loads(b))
    for key in sorted(left.keys() | right.keys()):
        if left.get(key) != right.get(key):
            return f"{key}: {left.get(key)} there, {right.get(key)} here"
    return "unknown difference"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}".strip(".")).items()}
