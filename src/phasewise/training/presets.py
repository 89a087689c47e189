"""How to train: named presets, and the learning rate over time.

``paper`` is the published recipe for the global network (arXiv 2508.06614: AdamW 1e-3, weight decay 1e-3, batch 512, 15
epochs, 100 warm-up steps, t = sigmoid(normal), errors of v + eps + x), with one change: the average of the weights
that schedule-free AdamW keeps there is an exponential one here.  ``compiled`` is the default with ``compile``.
``bf16`` is the default with products in bfloat16, for networks of some width on a processor that is fast in them.
``brief`` is for few passes on a CPU: Muon, small batches, a higher rate (studies/LOG.md, "What a few passes teach").
``gpu`` is for an accelerator: large batches, products in bfloat16, noise drawn where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from phasewise import checks
from phasewise.errors import PhasewiseError, unknown
from phasewise.fit import cosine_decay, warm_up
from phasewise.training.optimizers import OPTIMIZERS


@dataclass(frozen=True)
class TrainPreset:
    """How to train. ``epochs`` counts passes over the training images; ``steps``, when given, overrides it.

    ``compile``: ``torch.compile`` the network for the training: half a minute at the start, then local networks take
    two thirds of the time of a step on a CPU (docs/results/networks.md); needs a C++ compiler there.

    ``flip``: mirror every other image at random, left to right; for pictures whose mirror images are as likely.

    ``optimizer``: "adamw", or "muon", which learns more from few passes (:mod:`phasewise.training.optimizers`).

    ``hidden``: share of class labels that a network is not told: by chance, step by step, its last label stands in
    their place, so that it learns what to say where none is known.  Guidance asks for that
    (:mod:`phasewise.denoisers.guided`).

    ``noise``: "cpu" draws it there, so that every device trains on the same numbers; "device" draws it where the
    network is, by that device's own generator, which a fast accelerator need not wait for.
    """

    name: str = "default"
    lr: float = 1.5e-3
    weight_decay: float = 1e-3
    batch: int = 128
    epochs: float = 15
    steps: int | None = None
    warmup: int = 100
    decay: str = "cosine"
    ema: float = 0.999
    loss: str = "flow"
    times: str = "mixed"
    clip: float = 1.0
    precision: str = "float32"
    compile: bool = False
    flip: bool = False
    noise: str = "cpu"
    optimizer: str = "adamw"
    hidden: float = 0.0

    def __post_init__(self) -> None:
        checks.check_fields(
            self, lr=checks.positive, weight_decay=checks.not_negative, batch=checks.count, epochs=checks.epochs,
            steps=checks.count, warmup=checks.at_least_0, ema=checks.unit, clip=checks.not_negative,
            loss=checks.one_of(("flow", "paper")), decay=checks.one_of(("cosine", "constant")),
            times=checks.one_of(("logit_normal", "uniform", "mixed"), "time distribution"),
            precision=checks.precision, flip=checks.flag,
            noise=checks.one_of(("cpu", "device"), "place of the noise"),
            optimizer=checks.one_of(OPTIMIZERS, "optimizer"), hidden=checks.interval(0, 1, high_open=True),
        )  # fmt: skip


PRESETS: dict[str, TrainPreset] = {
    "default": TrainPreset(),
    "compiled": TrainPreset(name="compiled", compile=True),
    "bf16": TrainPreset(name="bf16", precision="bfloat16"),
    "brief": TrainPreset(name="brief", lr=3e-3, batch=32, epochs=3, optimizer="muon"),
    "gpu": TrainPreset(
        name="gpu", lr=2e-3, batch=512, ema=0.9995, warmup=300, precision="bfloat16", compile=True, noise="device"
    ),
    "paper": TrainPreset(
        name="paper",
        lr=1e-3,
        weight_decay=1e-3,
        batch=512,
        epochs=15,
        decay="constant",
        loss="paper",
        times="logit_normal",
    ),
}


def get_preset(preset: str | TrainPreset, **changes: Any) -> TrainPreset:
    """A named preset or your own, with fields replaced by the ``changes`` that are not None."""
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise PhasewiseError(unknown("training preset", preset, PRESETS))
        preset = PRESETS[preset]
    if not isinstance(preset, TrainPreset):
        raise PhasewiseError(f"preset is a name ({', '.join(PRESETS)}) or a TrainPreset, got {checks.shown(preset)}")
    return replace(preset, **{k: v for k, v in changes.items() if v is not None})


def learning_rate(plan: TrainPreset, step: int, steps: int) -> float:
    """Factor on ``plan.lr``: linear warm-up, then constant or cosine to 2 %."""
    warm = warm_up(1.0, step, max(min(plan.warmup, steps // 5), 1))
    return warm if plan.decay == "constant" else cosine_decay(warm, step, steps, floor=0.02)
