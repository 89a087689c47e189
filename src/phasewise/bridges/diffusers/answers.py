r"""A denoiser that answers as a network of diffusers would: told a timestep, it says what the scheduler expects.

A pipeline tells its network ``(sample or hidden_states, timestep, ...)``.  The timestep is turned into our t by the
scheduler's clock, and ``denoiser.member_at(t)`` names who answers::

    a DiffusersDenoiser on the same noise    its network is called with the very arguments: the same bits
    anybody else                             posterior mean at x_t = what is shown, / c_in where inputs are scaled;
                                             Prediction.from_x makes of it what the scheduler takes

A timestep that stands for a start of the denoiser's own grid, up to how exactly it is told (single or half precision,
whole steps), belongs to the step that starts there; where noise levels lie between whole steps, as with Karras sigmas,
it is the start's time.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from phasewise import checks
from phasewise.bridges.diffusers.library import scheduler_class
from phasewise.bridges.diffusers.model import CONDITIONS, INPUTS, DiffusersDenoiser, plain_config
from phasewise.bridges.diffusers.noise import SchedulerNoise, noise_of
from phasewise.denoisers import Denoiser, HybridDenoiser, as_rows
from phasewise.denoisers.base import Given, OnPath, same_noise
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath, as_time, in_pixels
from phasewise.shapes import ImageShape

LEAST_TIME = 1e-4
"""At t = 0 a flow's velocity is 0 / 0; it is asked a little above."""
LOWER_VARIANCE = -1.0
"""Learned variances lie between beta~, at -1, and beta, at 1 (Nichol, Dhariwal 2021, arXiv 2102.09672, eq. 15): who
learned none says beta~, the variance of a step that knows the image, as DDPM's "fixed_small" does."""
KEPT = 4096
"""Timesteps whose times are remembered."""
BETWEEN = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
"""Grids whose noise levels lie between whole steps, though some schedulers tell whole steps."""
ROUNDED = 0.5
"""Half a step: how far a whole timestep may lie from the noise level that it stands for."""


@dataclass(frozen=True)
class Interface:
    """How a pipeline speaks to its network, and what it asks of the network's config.

    Attributes:
        scheduler: of diffusers; says the noise, and what is predicted.
        image_shape: (C, H, W).
        pixel_range: black and white as the pipeline knows them, where those of denoisers are 0 and 1.
        arguments: names of the network's arguments, in order.
        cond_name: the one that holds the condition, or None.
        channels: of the answer; twice those of images with learned variances.
        config: what the network was made of.
    """

    scheduler: Any
    image_shape: ImageShape
    pixel_range: tuple[float, float] = (0.0, 1.0)
    arguments: tuple[str, ...] = ("sample", "timestep", "class_labels", "return_dict")
    cond_name: str | None = None
    channels: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def noise(self) -> SchedulerNoise:
        return noise_of(self.scheduler)

    @cached_property
    def path(self) -> NoisePath:
        """The noise in the pixels of denoisers."""
        return in_pixels(self.noise.path, self.pixel_range)

    @property
    def input_name(self) -> str:
        return next(n for n in INPUTS if n in self.arguments)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; :meth:`from_dict` reads it."""
        return {
            "scheduler": {"class": type(self.scheduler).__name__, "config": plain_config(self.scheduler)},
            "image_shape": list(self.image_shape),
            "pixel_range": list(self.pixel_range),
            "arguments": list(self.arguments),
            "cond_name": self.cond_name,
            "channels": self.channels,
            "config": dict(self.config),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Interface:
        """Raises PhasewiseError for what :meth:`to_dict` did not write."""
        try:
            scheduler = values["scheduler"]
            low, high = values["pixel_range"]
            return cls(
                scheduler_class(scheduler["class"]).from_config(dict(scheduler["config"])),
                checks.image_shape(values["image_shape"], "image_shape"),
                (float(low), float(high)),
                tuple(str(name) for name in values["arguments"]),
                values["cond_name"],
                checks.count(values["channels"], "channels"),
                dict(values["config"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PhasewiseError(f"this describes no network of a pipeline ({error}); save the hybrid again") from error


def _dialect(scheduler: Any, noise: SchedulerNoise, pixel_range: tuple[float, float]) -> tuple[Any, ...]:
    """Equal where a network is told and answers the same numbers."""
    clock, config = noise.clock, scheduler.config
    scaled = (config["sigma_data"], config.get("prediction_type")) if noise.kind == "edm" else ()
    return (noise.kind, noise.path, noise.prediction.name, clock.kind, clock.scale, clock.shift, pixel_range, *scaled)


def interface_of(network: DiffusersDenoiser) -> Interface:
    """How pipelines speak to the network of ``network``."""
    module, shape = network.module, network.image_shape
    config = plain_config(module) if hasattr(module, "config") else {}
    channels = int(config.get("out_channels") or getattr(module, "out_channels", None) or shape[0])
    sides = shape[1] if shape[1] == shape[2] else list(shape[1:])
    usual = {"in_channels": shape[0], "sample_size": sides}
    config = {**config, **{k: v for k, v in usual.items() if config.get(k) is None}, "out_channels": channels}
    arguments, _ = _arguments(module)
    return Interface(network.scheduler, shape, network.pixel_range, arguments, network.cond_name, channels, config)


def network_of(member: Denoiser) -> tuple[DiffusersDenoiser | None, Tensor | None]:
    """The network of diffusers that ``member`` is, on whichever path, and the condition bound to it, if any."""
    cond = None
    while isinstance(member, (OnPath, Given)):
        cond = member.cond if isinstance(member, Given) else cond
        member = member.member
    plain = isinstance(member, DiffusersDenoiser) and type(member).forward is DiffusersDenoiser.forward
    return (member, cond) if plain else (None, None)  # type: ignore[return-value]


def members_of(denoiser: Denoiser) -> dict[str, Denoiser]:
    """Who may answer, by name; a plain denoiser is called by its class."""
    while isinstance(denoiser, (OnPath, Given)):
        denoiser = denoiser.member
    return denoiser.members if isinstance(denoiser, HybridDenoiser) else {type(denoiser).__name__: denoiser}


Forward = Callable[..., Any]


class Answers:
    """``denoiser`` behind ``interface``: called with a network's arguments, answers what the network would.

    Raises PhasewiseError for a denoiser of images of another shape, for one that leans on earlier steps, and where the
    scheduler needs variances that a member does not know.
    """

    def __init__(self, denoiser: Denoiser, interface: Interface) -> None:
        while isinstance(denoiser, OnPath):  # times are translated here
            denoiser = denoiser.member
        if denoiser.image_shape != interface.image_shape:
            raise PhasewiseError(
                f"the network is for images {interface.image_shape}, the denoiser for {denoiser.image_shape}; put only "
                "denoisers of the same images together"
            )
        if denoiser.reused_members():
            raise PhasewiseError(
                f"a pipeline keeps nothing from step to step, which {denoiser.reused_members()[0]!r} leans on; take a "
                "schedule without such members, or sample by phasewise.sample"
            )
        self.denoiser, self.interface = denoiser, interface
        self._found: dict[tuple[float, float], tuple[float, float]] = {}
        self._learned_alone()
        plan = denoiser.sampling_plan()
        starts = () if plan is None else plan.times
        here = [same_noise(t, denoiser.path, interface.path) for t in starts]
        told = interface.noise.clock.told(torch.tensor(here, dtype=torch.float64)).tolist()
        self._starts = list(zip(told, here, starts, strict=True))

    def __call__(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        own: tuple[DiffusersDenoiser, ...] = (),
        forward: Forward | None = None,
    ) -> Any:
        """The answer to ``network(*args, **kwargs)``; in place of the networks ``own``, ``forward`` is called.

        Raises PhasewiseError for images of another shape, and for a timestep that the scheduler's noise does not know.
        """
        asked = self._named(args, kwargs)
        shown = asked[self.interface.input_name]
        times, index = self._times(asked["timestep"], len(shown))
        who = [self.denoiser.member_at(u) for _, u in times]

        def one(member: Denoiser, t: Tensor, named: dict[str, Any]) -> Any:
            network, cond = network_of(member)
            if network is None or not self.speaks(network):
                return self._translated(member, t, named)
            told = _told(network, named, self.interface, cond)
            if forward is not None and any(network is n for n in own):
                return forward(**told)
            return self._of_network(network, told, named)

        at = torch.tensor([t for t, _ in times], dtype=torch.float64)
        if all(member is who[0] for member in who):
            return one(who[0], at if len(at) == 1 else at[index], asked)
        out = shown.new_empty(len(shown), self.interface.channels, *shown.shape[2:])
        for member in {id(m): m for m in who}.values():  # rows of one batch at times of several members
            rows = torch.tensor([m is member for m in who])[index].nonzero().reshape(-1)
            part = {k: _rows(v, rows, len(shown)) for k, v in asked.items()} | {"return_dict": False}
            out[rows.to(out.device)] = _tensor(one(member, at[index][rows], part))
        return self._as_asked(out, asked)

    def _of_network(self, network: DiffusersDenoiser, told: dict[str, Any], asked: Mapping[str, Any]) -> Any:
        """A network's own answer: as it is, but where its weights or its variances are of another kind than asked."""
        shown = told[network.input_name]
        on_device(network, shown.device)
        kind = network._dtype(shown)
        if kind != shown.dtype:
            told = {k: v if k == "timestep" else _cast(v, shown.dtype, kind) for k, v in told.items()}
        answer = network.module(**told)
        out = _tensor(answer)
        if (out.dtype, out.shape[1]) == (shown.dtype, self.interface.channels):
            return answer
        return self._as_asked(self._with_variances(out.to(shown.dtype)), asked)

    def _with_variances(self, out: Tensor) -> Tensor:
        """An answer with as many channels as the pipeline expects."""
        more = self.interface.channels - out.shape[1]
        if more <= 0:
            return out[:, : self.interface.channels]
        return torch.cat([out, torch.full_like(out[:, :more], LOWER_VARIANCE)], dim=1)

    def speaks(self, network: DiffusersDenoiser) -> bool:
        """Whether a network takes and answers the same numbers as the pipeline's."""
        face = self.interface
        theirs = _dialect(network.scheduler, network.noise, network.pixel_range)
        return theirs == _dialect(face.scheduler, face.noise, face.pixel_range)

    def _learned_alone(self) -> None:
        """Refuse a scheduler that takes variances themselves from its network where not every member has them."""
        twice = self.interface.channels == 2 * self.interface.image_shape[0]
        if not twice or self.interface.scheduler.config.get("variance_type") != "learned":
            return
        for name, member in members_of(self.denoiser).items():
            network, _ = network_of(member)
            if network is None or not self.speaks(network):
                raise PhasewiseError(
                    f"the scheduler takes each step's variance from the network (variance_type 'learned'), and {name} "
                    "knows none; use a scheduler with variance_type 'learned_range' or 'fixed_small'"
                )

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        names, image = self.interface.arguments, self.interface.input_name
        if len(args) > len(names):
            raise PhasewiseError(f"the network takes {len(names)} arguments ({', '.join(names)}), got {len(args)}")
        asked = {**dict(zip(names, args, strict=False)), **kwargs}
        for other in INPUTS:
            if other != image and other in asked and image not in asked:
                asked[image] = asked.pop(other)
        missing = [name for name in (image, "timestep") if asked.get(name) is None]
        if missing:
            raise PhasewiseError(f"the network is not told its {missing[0]}: call it as model({image}, timestep, ...)")
        shown, shape = asked[image], self.interface.image_shape
        if not isinstance(shown, Tensor) or tuple(shown.shape[1:]) != shape or not shown.is_floating_point():
            raise PhasewiseError(f"{image} must be floats (B, {', '.join(map(str, shape))}), got {checks.shown(shown)}")
        return asked

    def _times(self, timestep: Any, n: int) -> tuple[list[tuple[float, float]], Tensor]:
        """Different times as (t on the interface's path, on the denoiser's), and which of them each row has."""
        try:
            told = torch.as_tensor(timestep).detach().cpu().reshape(-1)
        except (TypeError, ValueError, RuntimeError) as error:
            raise PhasewiseError(f"timestep must be a number or a tensor, got {checks.shown(timestep)}") from error
        if len(told) not in (1, n):
            raise PhasewiseError(f"timestep has {len(told)} entries for {n} images; give one, or one for each")
        exact = torch.finfo(told.dtype).eps if told.is_floating_point() else 0.0
        values, index = told.double().unique(return_inverse=True)
        found = []
        for value in values.tolist():
            asked = (value, max(exact * abs(value), 1e-6))
            if asked not in self._found:  # every batch of a pipeline is told the same few
                if len(self._found) >= KEPT:
                    self._found.clear()
                self._found[asked] = self._time(*asked)
            found.append(self._found[asked])
        return found, index.expand(n)

    def _time(self, told: float, exact: float) -> tuple[float, float]:
        """t on the interface's path and on the denoiser's, of one timestep that is told as exactly as this."""
        noise = self.interface.noise
        value = torch.tensor(told, dtype=torch.float64)
        t = noise.clock.times_told(value)
        known = max(exact, ROUNDED if noise.clock.steps else 1e-3)
        if not math.isfinite(told) or abs(float(noise.clock.told(t)) - told) > known:
            ends = noise.clock.told(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
            raise PhasewiseError(
                f"timestep {told:g} is none of {type(self.interface.scheduler).__name__}, which tells {ends[0]:.4g} to "
                f"{ends[1]:.4g}; use the noise that the hybrid was made for"
            )
        whole = noise.kind == "table" and noise.clock.steps is not None and told == round(told)
        near = min(self._starts, key=lambda start: abs(start[0] - told), default=None)
        if near is not None and abs(near[0] - told) <= (ROUNDED if whole else exact):
            between = any(self.interface.scheduler.config.get(name) for name in BETWEEN)
            return (near[1] if between or not whole else float(t)), near[2]
        return float(t), same_noise(float(t), self.interface.path, self.denoiser.path)

    def _translated(self, member: Denoiser, t: Tensor, asked: Mapping[str, Any]) -> Any:
        """The posterior mean of ``member``, as what the scheduler takes."""
        face, prediction, inner = self.interface, self.interface.noise.prediction, self.interface.noise.path
        given = asked[face.input_name]
        shown = given if given.dtype == torch.float64 else given.float()  # half precision would round the time
        t = t.clamp(min=LEAST_TIME)
        s = as_time(t, shown)
        theirs = shown if prediction.takes is None else shown / prediction.takes(inner, torch.ones_like(shown), s)
        low, high = face.pixel_range
        x_t = (theirs - inner.alpha(s) * low) / (high - low)
        member = on_device(member, shown.device)
        mean = member.on(face.path)(x_t, t if len(t) > 1 else float(t), self._condition(member, asked))
        out = prediction.from_x(inner, theirs, low + (high - low) * mean, s).to(given.dtype)
        return self._as_asked(self._with_variances(out), asked)

    def _condition(self, member: Denoiser, asked: Mapping[str, Any]) -> Tensor | None:
        if not member.takes_condition:
            return None
        names = (self.interface.cond_name, *CONDITIONS)
        return next((asked[n] for n in names if n is not None and asked.get(n) is not None), None)

    def _as_asked(self, out: Tensor, asked: Mapping[str, Any]) -> Any:
        if not asked.get("return_dict", True):
            return (out,)
        if self.interface.input_name == "sample":
            from diffusers.models.unets.unet_2d import UNet2DOutput

            return UNet2DOutput(sample=out)
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        return Transformer2DModelOutput(sample=out)


def on_device(member: Denoiser, device: torch.device) -> Denoiser:
    """``member`` where the images are: a hook's members are no part of the module, and do not move with it."""
    weight = next(chain(member.parameters(), member.buffers()), None)
    return member if weight is None or weight.device == device else member.to(device)


def _tensor(answer: Any) -> Tensor:
    """The tensor in a network's answer."""
    return answer if isinstance(answer, Tensor) else answer[0]


def _cast(value: Any, source: torch.dtype, target: torch.dtype) -> Any:
    """``value`` with tensors of type ``source`` as ``target``, also within dicts and lists."""
    if isinstance(value, Tensor):
        return value.to(target) if value.dtype == source else value
    if isinstance(value, Mapping):
        return {k: _cast(v, source, target) for k, v in value.items()}
    return type(value)(_cast(v, source, target) for v in value) if isinstance(value, (list, tuple)) else value


def _rows(value: Any, rows: Tensor, n: int) -> Any:
    """``rows`` of what has one for each image, also within dicts and lists."""
    if isinstance(value, Tensor):
        return value[rows.to(value.device)] if value.dim() and len(value) == n else value
    if isinstance(value, Mapping):
        return {k: _rows(v, rows, n) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_rows(v, rows, n) for v in value)
    return value


def _arguments(module: Any) -> tuple[tuple[str, ...], bool]:
    kind: Any = type(module)
    return _arguments_of(kind)


@lru_cache
def _arguments_of(cls: Any) -> tuple[tuple[str, ...], bool]:
    """Names of what a class of networks is called with, in order; and whether it takes any other."""
    parameters = inspect.signature(cls.forward).parameters
    kinds = {p.kind for p in parameters.values()}
    return tuple(parameters)[1:], inspect.Parameter.VAR_KEYWORD in kinds


def _told(
    network: DiffusersDenoiser, asked: Mapping[str, Any], interface: Interface, cond: Tensor | None
) -> dict[str, Any]:
    """What the network of a member is called with: all that the pipeline says, so far as it knows it."""
    given = network.given_args
    named = {**given, **{k: v for k, v in asked.items() if v is not None or k not in given}}
    named[network.input_name] = named.pop(interface.input_name)
    known, any_other = _arguments(network.module)
    if known != interface.arguments and not any_other:
        named = {k: v for k, v in named.items() if k in known}
    if cond is not None and network.cond_name is not None:
        shown = named[network.input_name]
        named[network.cond_name] = as_rows(cond, len(shown)).to(shown.device)
    return named
