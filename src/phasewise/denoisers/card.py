"""The model card of a denoiser: README.md with a head that the Hugging Face hub reads, written from what is on record.

Nothing stands in it that was not measured: moments, radius and parameters are the denoiser's own, FLOPs are counted,
the rest are the records that lie beside the weights or are given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from phasewise.denoisers.base import Denoiser, OnPath
from phasewise.denoisers.hybrid import HybridDenoiser
from phasewise.display import cell, measured
from phasewise.errors import PhasewiseError
from phasewise.flops import count_call
from phasewise.modes import evaluating
from phasewise.results import DataRecord, Evaluation, HybridSchedule, Record, TrainingRecord

MARK = "<!-- written by phasewise; remove this line to keep what you write here -->"
"""A card that has this line is written anew, one that has not is somebody's own."""
LIBRARY = "phasewise"
PLACE = "FOLDER_OR_REPOSITORY"


def model_card(denoiser: Denoiser, records: Iterable[Record] = (), place: str = PLACE) -> str:
    """The card as Markdown; ``records`` of its training, its images and its judgement; ``place`` it is loaded from."""
    hybrid = denoiser if isinstance(denoiser, HybridDenoiser) else None
    own = [*_table(_about(denoiser)), *([] if hybrid is None else _plan(hybrid))]
    said = [line for record in records for line in _recorded(record)]
    lines = [*_head(denoiser), MARK, "", f"# {_title(denoiser)}", "", _what(denoiser), "", *own]
    lines += ["", "## On record", "", *said] if said else []
    lines += ["", "## Load it", "", "```python", *_how(denoiser, place), "```"]
    return "\n".join(lines) + "\n"


def _head(denoiser: Denoiser) -> list[str]:
    """YAML of plain words alone, so that nothing needs quoting."""
    kind = "hybrid" if isinstance(denoiser, HybridDenoiser) else "global" if denoiser.radius is None else "local"
    tags = ["diffusion", "denoiser", f"{kind}-denoiser"]
    task = "unconditional-image-generation"
    task = "pipeline_tag: " + task if not denoiser.takes_condition else "inference: false"
    return ["---", f"library_name: {LIBRARY}", task, "tags:", *(f"- {tag}" for tag in tags), "---", ""]


def _title(denoiser: Denoiser) -> str:
    return f"{type(denoiser).__name__}, {_size(denoiser)}"


def _size(denoiser: Denoiser) -> str:
    return "×".join(map(str, denoiser.image_shape))


def _what(denoiser: Denoiser) -> str:
    if isinstance(denoiser, HybridDenoiser):
        return (
            "A hybrid of denoisers: each step of sampling is taken by the member its schedule names. Made with "
            "phasewise."
        )
    seen = "the whole image" if denoiser.radius is None else f"{denoiser.radius} pixels round each pixel"
    return (
        f"A denoiser that sees {seen}: noisy images and a noise time in, the posterior mean of the clean image out. "
        "Made with phasewise."
    )


def _about(denoiser: Denoiser) -> dict[str, str]:
    rows = {"image shape (channels, height, width)": str(denoiser.image_shape), "noise path": repr(denoiser.path)}
    rows["receptive field"] = "the whole image" if denoiser.radius is None else f"radius of {denoiser.radius} pixels"
    moments = denoiser.pixel_moments()
    if moments is not None:
        mean, std = (", ".join(cell(float(v)) for v in part) for part in moments)
        rows["pixels it was made for, by channel"] = f"mean {mean}; standard deviation {std}"
    rows["parameters"] = f"{sum(p.numel() for p in denoiser.parameters()):,}"
    if denoiser.takes_condition:
        parts = denoiser.members.values() if isinstance(denoiser, HybridDenoiser) else [denoiser]
        told = {getattr(_plain(part), "classes", None) for part in parts if part.takes_condition}
        classes = told.pop() if len(told) == 1 else None
        rows["condition"] = f"a class label from 0 to {classes - 1}" if isinstance(classes, int) else "taken"
    flops = None if isinstance(denoiser, HybridDenoiser) else counted(denoiser)
    if flops is not None:
        rows["cost of a call per image"] = f"{cell(flops / 1e6)} MFLOP"
    return rows


def counted(denoiser: Denoiser) -> float | None:
    """FLOPs of a call for one image; None where they cannot be counted, or where the call needs a condition we lack."""
    x = torch.zeros(1, *denoiser.image_shape, device=denoiser.device)
    try:
        told = denoiser.given(0) if denoiser.takes_condition else denoiser
        with evaluating(told), torch.inference_mode():
            return float(count_call(told, x))
    except PhasewiseError:
        return None


def _plan(hybrid: HybridDenoiser) -> list[str]:
    plan = hybrid.schedule
    rows = {"solver": plan.solver, "steps": str(len(plan.times)), **_price(plan)}
    members = [f"| {name} | {_member(part)} |" for name, part in hybrid.members.items()]
    spans = [f"| {start:.4g} | {end:.4g} | {name} |" for start, end, name in plan.spans()]
    return [
        "", "## Schedule", "", *_table(rows), "", "| from t | to t | member |", "| --- | --- | --- |", *spans,
        "", "## Members", "", "| name | what it is |", "| --- | --- |", *members,
    ]  # fmt: skip


def _price(plan: HybridSchedule) -> dict[str, str]:
    """What a price list predicts of the schedule, where one does."""
    found = {}
    if plan.mflop is not None:
        found["cost of an image"] = f"{cell(plan.mflop)} MFLOP"
    if plan.penalty is not None:
        value = measured(plan.penalty, math.nan if plan.penalty_stderr is None else plan.penalty_stderr)
        name = f" ({plan.penalty_name})" if plan.penalty_name else ""
        found["penalty, predicted"] = f"{value} {plan.penalty_unit}{name}"
    return found


def _member(part: Denoiser) -> str:
    denoiser = _plain(part)
    flops = counted(denoiser)
    return f"{denoiser!r}" + ("" if flops is None else f", {cell(flops / 1e6)} MFLOP a call")


def _plain(part: Denoiser) -> Denoiser:
    """A member as it was before it was spoken to on its hybrid's path."""
    return part.member if isinstance(part, OnPath) else part


def _recorded(record: Record) -> list[str]:
    """One line of what a record says."""
    if isinstance(record, TrainingRecord):
        return [
            f"- trained as {record.name}: {record.steps:,} steps, {record.images_seen:,} images, seed {record.seed}, "
            f"{cell(record.seconds)} s on {record.device}; validation loss {cell(record.val_loss)}"
        ]
    if isinstance(record, DataRecord):
        sizes = ", ".join(f"{n:,} {part}" for part, n in record.sizes.items())
        low, high = record.pixel_range
        return [f"- images: {record.name} ({sizes}; fingerprint {record.fingerprint}), pixels in [{low:g}, {high:g}]"]
    if isinstance(record, Evaluation):
        return [
            f"- judged as {record.label}: {record.measure} {measured(record.fid, record.fid_stderr)} from "
            f"{record.reference_n:,} training images in {record.features}; n = {record.n:,}, seed {record.seed}, "
            f"{cell(record.mflop)} MFLOP and {cell(record.ms)} ms an image"
        ]
    return [f"- {record.view().title}"]


def _how(denoiser: Denoiser, place: str) -> list[str]:
    told = ", cond=0" if denoiser.takes_condition else ""
    return [
        "import phasewise as pw",
        f'denoiser = pw.Denoiser.from_pretrained("{place}")',
        f"images = pw.sample(denoiser, n=16{told})",
    ]


def _table(rows: Mapping[str, Any]) -> list[str]:
    return ["| what | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
