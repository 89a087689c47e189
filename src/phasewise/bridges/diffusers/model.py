"""Networks of diffusers as denoisers: ``model(sample or hidden_states, timestep, ...)`` on the noise of a scheduler."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from phasewise import checks
from phasewise.bridges.diffusers.library import model_class, scheduler_class
from phasewise.bridges.diffusers.noise import SchedulerNoise, noise_of, times_of
from phasewise.denoisers import Denoiser, register_denoiser
from phasewise.denoisers.predictions import a_prediction
from phasewise.denoisers.wrapped import WrappedDenoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath
from phasewise.shapes import ImageShape

INPUTS = ("sample", "hidden_states")
CONDITIONS = ("class_labels", "encoder_hidden_states")


@register_denoiser
class DiffusersDenoiser(WrappedDenoiser):
    """A model of diffusers as a denoiser; made by :func:`from_diffusers`.

    ``model`` and ``scheduler`` are objects of diffusers, or what their configs say, ``{"class": .., "config": ..}``:
    so it is saved and read like any denoiser, weights and all.

    Attributes:
        noise: what the scheduler says of path, prediction and clock.
        scheduler: the scheduler itself, for its steps.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        model: nn.Module | Mapping[str, Any],
        scheduler: Any,
        *,
        given: Mapping[str, Any] | None = None,
        cond: str | None = None,
        needs_condition: bool | None = None,
        pixel_range: tuple[float, float] | None = None,
        clamp: bool = True,
        null: int | None = None,
        whole_times: bool = False,
        path: NoisePath | None = None,
    ) -> None:
        module = _built(model)
        self.scheduler = scheduler_class(scheduler["class"]).from_config(dict(scheduler["config"])) if isinstance(
            scheduler, Mapping
        ) else scheduler  # fmt: skip
        self.noise: SchedulerNoise = noise_of(self.scheduler)
        clock = replace(self.noise.clock, whole=whole_times or _looks_up(module))
        _agree(module, self.noise, type(self.scheduler).__name__)
        super().__init__(
            module, image_shape, prediction=self.noise.prediction, clock=clock, path=self.noise.path,
            pixel_range=(pixel_range[0], pixel_range[1]) if pixel_range else None, cond=cond,
            needs_condition=needs_condition, clamp=self.noise.clamp if clamp else None,
        )  # fmt: skip
        self.given_args = dict(given or {})
        self.clamps, self.null = clamp, _null(module) if null is None else null
        self.input_name = _input_name(module)

    @property
    def fractional(self) -> bool:
        """Whether the network takes times between its steps; else it is told the nearest step."""
        return not self.clock.whole

    @property
    def classes(self) -> int | None:
        """How many class labels it is told, without one that stands for none; None where it is told none."""
        known = _classes(self.module) if self.cond_name == "class_labels" else None
        null = "num_embeds_ada_norm" in getattr(self.module, "config", {})
        return known - 1 if known is not None and null else known

    def pixels_taken(self) -> tuple[float, float] | None:
        """-1 and 1, which networks of diffusers take, in the pixels that it is given; None of latents."""
        if self.image_shape[0] not in (1, 3):
            return None
        low, high = self.pixel_range  # what its own 0 and 1 are of ours, on one line
        return (-1 - low) / (high - low), (1 - low) / (high - low)

    def times(self, steps: int, **more: Any) -> tuple[float, ...]:
        """Start times of so many steps of its own scheduler, descending, on ``path``."""
        return times_of(self.scheduler, steps, **more)

    def check_condition(self, cond: Tensor) -> None:
        if self.cond_name == "class_labels":
            if cond.dim() != 1 or cond.is_floating_point():
                raise PhasewiseError(f"class labels must be whole numbers of shape (B,); got {tuple(cond.shape)}")
            known = _classes(self.module)  # with the one for none, which guidance asks for
            if known is not None and not bool(((cond >= 0) & (cond < known)).all()):
                raise PhasewiseError(
                    f"class labels must lie in 0 to {known - 1}; got {int(cond.min())} to {int(cond.max())}"
                )

    def config(self) -> dict[str, Any]:
        kept = {k: v for k, v in self.given_args.items() if v is not None}
        try:
            json.dumps(kept)
        except TypeError as error:
            raise PhasewiseError(
                f"{self.called} is given {', '.join(kept)}, which a file does not hold; save without, give them again"
            ) from error
        low, high = self.pixel_range
        return {
            "image_shape": list(self.image_shape),
            "model": {"class": type(self.module).__name__, "config": plain_config(self.module)},
            "scheduler": {"class": type(self.scheduler).__name__, "config": plain_config(self.scheduler)},
            "given": kept or None,
            "cond": self.cond_name,
            "needs_condition": self.needs_condition,
            "pixel_range": None if (low, high) == (0.0, 1.0) else [low, high],
            "clamp": self.clamps,
            "null": self.null,
            "whole_times": self.clock.whole,
        }

    def _call(self, shown: Tensor, told: Tensor, given: dict[str, Tensor]) -> Any:
        time = told.long() if self.clock.whole else told
        named = {self.input_name: shown, "timestep": time, **self.given_args, **given, "return_dict": False}
        return self.module(**named)


def plain_config(thing: Any) -> dict[str, Any]:
    """What ``thing`` of diffusers was made of, as JSON has it, without what is private, and without infinite numbers,
    which stand for a bound that is not there and are the defaults."""
    values = {k: v for k, v in dict(thing.config).items() if not k.startswith("_")}
    values = {k: v for k, v in values.items() if not (isinstance(v, float) and not math.isfinite(v))}
    return json.loads(json.dumps(values, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v)))


def _built(model: nn.Module | Mapping[str, Any]) -> nn.Module:
    if not isinstance(model, Mapping):
        return model
    return model_class(model["class"]).from_config(dict(model["config"]))


def _input_name(module: nn.Module) -> str:
    names = inspect.signature(module.forward).parameters
    found = next((n for n in INPUTS if n in names), None)
    if found is None or "timestep" not in names:
        raise PhasewiseError(
            f"{type(module).__name__}.forward takes {', '.join(names)}; a network of diffusers takes sample or "
            "hidden_states, and timestep: wrap this one by pw.wrap"
        )
    return found


def _looks_up(module: nn.Module) -> bool:
    """Whether the network looks its time up in a table, so that it takes whole steps alone."""
    return getattr(module, "config", {}).get("time_embedding_type") == "learned"


def _agree(module: nn.Module, noise: SchedulerNoise, scheduler: str) -> None:
    """Raise PhasewiseError where the model's own config speaks of another noise than the scheduler."""
    config = getattr(module, "config", {})
    told = config.get("num_train_timesteps")
    if told is not None and noise.clock.steps is not None and int(told) != noise.clock.steps:
        raise PhasewiseError(
            f"the {type(module).__name__} was made for {told} steps, {scheduler} has {noise.clock.steps}; give the "
            "scheduler it was trained with"
        )
    asked = config.get("prediction_type")
    predicted = a_prediction(asked, "prediction_type") if isinstance(asked, str) else noise.prediction
    if noise.kind == "table" and predicted.name != noise.prediction.name:
        raise PhasewiseError(
            f"the {type(module).__name__} says it predicts {asked}, {scheduler} takes it for {noise.prediction.name}; "
            "give the scheduler it was trained with"
        )
    if config.get("time_embedding_type") == "fourier":
        raise PhasewiseError(
            f"the {type(module).__name__} takes sigma itself for its time (time_embedding_type fourier), which "
            f"{scheduler} does not tell; wrap it: pw.wrap(network, ..., time='sigma')"
        )


def _classes(module: Any) -> int | None:
    """How many labels a network knows; one more where it has a label for none."""
    config = getattr(module, "config", {})
    if config.get("num_class_embeds"):
        return int(config["num_class_embeds"])
    if config.get("num_embeds_ada_norm"):
        return int(config["num_embeds_ada_norm"]) + 1
    return None


def _null(module: Any) -> int | None:
    """The label for none that a network has behind its classes: DiT's (Peebles and Xie 2022, arXiv 2212.09748)."""
    config = getattr(module, "config", {})
    return int(config["num_embeds_ada_norm"]) if config.get("num_embeds_ada_norm") else None


def _conditions(module: nn.Module) -> tuple[str | None, bool]:
    """The argument that takes the condition of a network, and whether it must be given."""
    names, config = inspect.signature(module.forward).parameters, getattr(module, "config", {})
    if "encoder_hidden_states" in names and names["encoder_hidden_states"].default is inspect.Parameter.empty:
        return "encoder_hidden_states", True
    if "class_labels" in names:
        labelled = config.get("num_class_embeds") or config.get("class_embed_type") or config.get("num_embeds_ada_norm")
        return ("class_labels", True) if labelled else (None, False)
    if "encoder_hidden_states" in names:
        return "encoder_hidden_states", False
    return None, False


def image_shape_of(module: nn.Module) -> ImageShape | None:
    """(C, H, W) that the config of a network names; None where it names none."""
    config = getattr(module, "config", {})
    channels, side = config.get("in_channels"), config.get("sample_size")
    if channels is None or side is None:
        return None
    height, width = (side, side) if isinstance(side, int) else side
    return (int(channels), int(height), int(width))


@checks.checked(
    image_shape=checks.image_shape,
    cond=checks.text,
    needs_condition=checks.flag,
    pixel_range=checks.each(checks.number, size=2),
    clamp=checks.flag,
    null=checks.whole(0),
    whole_times=checks.flag,
)
def from_diffusers(
    model: Any,
    scheduler: Any,
    *,
    image_shape: ImageShape | None = None,
    given: Mapping[str, Any] | None = None,
    cond: str | None = None,
    needs_condition: bool | None = None,
    pixel_range: tuple[float, float] | None = None,
    clamp: bool = True,
    null: int | None = None,
    whole_times: bool = False,
) -> DiffusersDenoiser:
    """A network of diffusers, on the noise of ``scheduler``, as a denoiser.

    Args:
        model: ``UNet2DModel``, ``DiTTransformer2DModel``, ``UNet2DConditionModel``, or any module whose forward takes
            ``sample`` or ``hidden_states``, and ``timestep``.
        scheduler: says on which noise it was trained and what it predicts; its own steps: ``denoiser.times(n)``.
        image_shape: (C, H, W) of images (or latents); by default what the model's config names.
        given: other arguments of the forward, the same at every call.
        cond: name of the argument that takes a condition, by default found: ``class_labels`` of a network with classes,
            ``encoder_hidden_states`` of one that needs them.
        pixel_range: see :func:`phasewise.wrap`; None where your images are in the network's pixels, usually -1..1.
        clamp: keep the posterior mean in bounds where the scheduler does (``clip_sample``).
        null: class label that stands for none, for guidance; by default the one a DiT has behind its classes.
        whole_times: tell the network whole steps alone, as schedulers with Karras sigmas do; one that looks its time up
            in a table is told them in any case (:attr:`DiffusersDenoiser.fractional`).

    Raises PhasewiseError for a model or scheduler that is none of diffusers, a scheduler of another kind of noise or
    one that contradicts the model's config, an unknown prediction type, and a shape that is not known.
    """
    if not isinstance(model, nn.Module):
        raise PhasewiseError(f"model must be a network of diffusers, got {checks.shown(model)}")
    if isinstance(model, Denoiser):
        raise PhasewiseError("model is a Denoiser of phasewise already; use it as it is")
    _input_name(model)
    own = image_shape_of(model)
    shape = image_shape or own
    if shape is None:
        raise PhasewiseError(
            f"the config of {type(model).__name__} names no size of images: give image_shape=(C, H, W)"
        )
    if own is not None and shape[0] != own[0]:
        raise PhasewiseError(
            f"image_shape {shape} has {shape[0]} channels, the {type(model).__name__} takes {own[0]}; does it denoise "
            "latents? encode the images first"
        )
    found, needed = _conditions(model)
    if cond is not None and cond not in inspect.signature(model.forward).parameters:
        raise PhasewiseError(f"{type(model).__name__} has no argument {cond!r} for a condition")
    if cond is None and found in (given or {}):
        found, needed = None, False  # the same condition at every call
    return DiffusersDenoiser(
        shape, model, scheduler, given=given, cond=cond or found, pixel_range=pixel_range, clamp=clamp, null=null,
        whole_times=whole_times, needs_condition=needed if needs_condition is None else needs_condition,
    ).eval()  # fmt: skip
