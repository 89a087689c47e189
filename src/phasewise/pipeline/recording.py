"""What a judgement leaves in a run folder: records, the summary, and the first samples as pictures."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from phasewise.files import write_bytes, write_json
from phasewise.pipeline.diagnosing import cmi_summary
from phasewise.pipeline.folder import RunFolder
from phasewise.pipeline.judging import Judgement

Range = tuple[float, float]


def write_judgement(folder: RunFolder, result: Judgement, classifier: dict[str, Any], pixel_range: Range) -> None:
    """``records/evaluation.json``, ``samples/NAME.safetensors`` and ``summary.json``."""
    for name, images in result.samples.items():
        pixels = save_tensors({"samples": to_uint8(images, pixel_range)})
        write_bytes(folder.path("samples", f"{name}.safetensors"), pixels)
    record = {"evaluations": [e.to_dict() for e in result.evaluations], "real": result.real, "classifier": classifier}
    write_json(folder.path("records", "evaluation.json"), record)
    rows = {
        e.name: {"fid": e.fid, "fid_stderr": e.fid_stderr, "n": e.n, "mflop": e.mflop, "ms": e.ms, "nats": e.nats}
        for e in result.evaluations
    }
    content = {
        "data": folder.config.data,
        "seed": folder.config.seed,
        "schedules": rows,
        "real": result.real,
        **cmi_summary(folder),
    }
    clean = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write_json(folder.path("summary.json"), clean)


def to_uint8(images: Tensor, pixel_range: Range) -> Tensor:
    """Images in pixel units as uint8 on the CPU, clamped to the range."""
    low, high = pixel_range
    unit = (images.cpu() - low) / (high - low)
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
