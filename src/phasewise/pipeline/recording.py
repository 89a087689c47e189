"""What a judgement leaves in a run folder: records, the summary, and the first samples as pictures."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from phasewise.files import write_json
from phasewise.pipeline.diagnosing import cmi_summary
from phasewise.pipeline.judging import Judgement
from phasewise.results import Evaluation
from phasewise.runs.config import RunConfig
from phasewise.runs.run import Run

Range = tuple[float, float]


def write_judgement(
    run: Run, config: RunConfig, result: Judgement, classifier: dict[str, Any], pixel_range: Range
) -> None:
    """The evaluations, the first samples as pictures, and the summary."""
    for name, images in result.samples.items():
        pixels = save_tensors({"samples": to_uint8(images, pixel_range)})
        run.write_tensors("samples", pixels, f"{name}.safetensors")
    judged = [e.to_dict() for e in result.evaluations]
    run.write("evaluations", {"evaluations": judged, "real": result.real, "classifier": classifier})
    rows = {e.name: _row(e, result.evaluations) for e in result.evaluations}
    about = {"data": config.data.data, "seed": config.data.seed}
    content = {**about, "schedules": rows, "real": result.real, **cmi_summary(run)}
    # NaN and infinity, which are no JSON, as null
    clean = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write_json(run.path("summary"), clean)


def _row(e: Evaluation, every: list[Evaluation]) -> dict[str, Any]:
    """A schedule in the summary: its scores by every judge, and what all judges together say of it against others."""
    row = {"fid": e.fid, "fid_stderr": e.fid_stderr, "n": e.n, "mflop": e.mflop, "ms": e.ms, "nats": e.nats}
    scores = {name: [score.value, score.stderr] for name, score in e.judges.items()}
    return {**row, "judges": scores, "against": {o.name: e.against(o).outcome for o in every if o is not e}}


def to_uint8(images: Tensor, pixel_range: Range) -> Tensor:
    """Images in pixel units as uint8 on the CPU, clamped to the range."""
    low, high = pixel_range
    unit = (images.cpu() - low) / (high - low)
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
