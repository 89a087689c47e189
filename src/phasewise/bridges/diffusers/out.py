"""Hybrids taken home: a model of diffusers' kind that its pipelines and schedulers run unchanged, saved by its mixin.

A pipeline folder names this module and class, so diffusers' own loader finds it (from a folder; the Hub's loader takes
classes of diffusers alone: fetch the folder first).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from phasewise import checks
from phasewise.bridges.diffusers.answers import Answers, Interface, interface_of, members_of, network_of
from phasewise.bridges.diffusers.library import library
from phasewise.bridges.diffusers.model import DiffusersDenoiser
from phasewise.bridges.diffusers.noise import noise_of
from phasewise.denoisers import Denoiser, GuidedDenoiser, HybridDenoiser
from phasewise.denoisers.base import OnPath, a_denoiser
from phasewise.denoisers.io import CLASSES, constructor_of
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.results import HybridSchedule

library()  # in a sentence, where it is not installed

from diffusers import ConfigMixin, ModelMixin  # noqa: E402

HYBRID = "HybridDenoiser"


class HybridModel(ModelMixin, ConfigMixin):
    """A denoiser, usually a hybrid, as ``pipe.unet`` or ``pipe.transformer``; made by :func:`to_diffusers`.

    ``model(sample or hidden_states, timestep, ..., return_dict=True)``: (B, C, H, W) float; a timestep for all images
    or one for each, (B,); the answer is what the scheduler expects, ``.sample`` (B, C, H, W), or (B, 2 C, H, W) with
    learned variances.  Arguments that only networks of diffusers know go to these alone.

    ``config``, ``dtype`` and what else a pipeline asks of its network are the main network's.  Members made by others
    than diffusers stay in single precision whatever the pipeline is cast to: in half precision the time is too coarse.

    Attributes:
        denoiser: who answers.  interface: how the pipeline speaks.
    """

    config_name = "config.json"
    _supports_group_offloading = False

    def __init__(self, denoiser: Any = None, interface: Any = None) -> None:
        super().__init__()
        if denoiser is None or interface is None:
            raise CheckpointError("this folder holds no hybrid; save one by to_diffusers(hybrid).save_pretrained(DIR)")
        built = denoiser if isinstance(denoiser, Denoiser) else _built(denoiser)
        spoken = interface if isinstance(interface, Interface) else Interface.from_dict(interface)
        self.answers = Answers(built, spoken)
        self.denoiser = self.answers.denoiser
        self.register_to_config(**spoken.config)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.answers(args, kwargs)

    @property
    def interface(self) -> Interface:
        return self.answers.interface

    @property
    def networks(self) -> list[DiffusersDenoiser]:
        """Networks of diffusers in it, those that speak as the pipeline does first."""
        return sorted(_networks(self.denoiser), key=lambda n: not self.answers.speaks(n))

    @property
    def dtype(self) -> torch.dtype:
        weights = (w for n in self.networks[:1] for w in _weights(n) if w.is_floating_point())
        return next((w.dtype for w in weights), torch.float32)

    @property
    def device(self) -> torch.device:
        return self.denoiser.device

    def __repr__(self) -> str:
        return f"HybridModel({self.denoiser!r}, for {type(self.interface.scheduler).__name__})"

    def __getattr__(self, name: str) -> Any:
        """What it has not is the main network's: pipelines ask theirs for this and that."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            # private names are marks of hooks and caches, which are each module's own
            if name.startswith("_") or "answers" not in self.__dict__ or not self.networks:
                raise
            return getattr(self.networks[0].module, name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HybridModel:
        theirs = {id(w) for n in self.networks for w in _weights(n)}

        def careful(value: Tensor) -> Tensor:
            out = fn(value)
            return out if id(value) in theirs or out.dtype == value.dtype else value.to(out.device)

        return super()._apply(careful, recurse)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As ever; weights that two members share are copied, since safetensors holds each once."""
        state, seen = super().state_dict(*args, **kwargs), set()
        for name, value in state.items():
            if value.numel() and value.data_ptr() in seen:
                state[name] = value.clone()
            seen.add(value.data_ptr())
        return state

    def to_json_string(self) -> str:
        """What ``config.json`` holds.  Raises PhasewiseError for members that a file cannot hold."""
        return json.dumps(
            {
                "_class_name": type(self).__name__,
                "_diffusers_version": library().__version__,
                "denoiser": _described(self.denoiser),
                "interface": self.interface.to_dict(),
            },
            indent=2,
            sort_keys=True,
        )

    @functools.wraps(ModelMixin.save_pretrained)
    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("safe_serialization", True):
            raise PhasewiseError("a hybrid is saved as safetensors alone; leave safe_serialization out")
        self.to_json_string()  # what cannot be saved is said before a folder is made
        return super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Read what ``save_pretrained`` wrote, in eval mode; arguments as every model of diffusers takes them.

        Only safetensors are read, and only denoisers known by name are built.  Raises CheckpointError where weights are
        missing, left over or impossible, or the folder holds no hybrid.
        """
        told = kwargs.pop("output_loading_info", False)
        dtype = kwargs.pop("torch_dtype", None)
        dtype = kwargs.pop("dtype", dtype)
        device = kwargs.pop("device_map", None)
        device = device.get("") if isinstance(device, Mapping) else device
        kwargs |= {"low_cpu_mem_usage": False, "use_safetensors": True, "output_loading_info": True}
        model, info = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        wrong = [f"{what.removesuffix('_keys')} {keys[0]}" for what, keys in info.items() if keys]
        wrong += [w for m in members_of(model.denoiser).values() if (w := m.wrong_state()) is not None]
        if wrong:
            raise CheckpointError(f"{pretrained_model_name_or_path}: {wrong[0]}; save the hybrid again")
        for there in (device, dtype):  # afterwards: members made by others stay in single precision
            model = model if there is None else model.to(there)
        return (model, info) if told else model


def _networks(denoiser: Denoiser) -> list[DiffusersDenoiser]:
    """Networks of diffusers in ``denoiser``: members before what lies within members, as under guidance."""
    members = [n for m in members_of(denoiser).values() if (n := network_of(m)[0]) is not None]
    return [*members, *(m for m in denoiser.modules() if isinstance(m, DiffusersDenoiser) and m not in members)]


def _weights(network: DiffusersDenoiser) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _described(denoiser: Denoiser) -> dict[str, Any]:
    """What :func:`_built` builds again, without weights."""
    if isinstance(denoiser, OnPath):  # a hybrid puts its schedule's path on again
        return _described(denoiser.member)
    if isinstance(denoiser, HybridDenoiser):
        members = {name: _described(member) for name, member in denoiser.members.items()}
        return {"class": HYBRID, "schedule": denoiser.schedule.to_dict(), "members": members}
    name, config = type(denoiser).__name__, denoiser.config()
    if isinstance(denoiser, GuidedDenoiser):
        null = None if denoiser.null is None else denoiser.null.tolist()
        return {"class": name, "config": config, "null": null, "member": _described(denoiser.member)}
    if name not in CLASSES:
        raise PhasewiseError(f"{name} could not be read again; make it known by phasewise.denoisers.register_denoiser")
    return {"class": name, "config": config}


def _built(values: Any) -> Denoiser:
    try:
        if values["class"] == HYBRID:
            members = {str(name): _built(member) for name, member in values["members"].items()}
            return HybridDenoiser(members, HybridSchedule.from_dict(values["schedule"]))
        if values["class"] == GuidedDenoiser.__name__:
            null = None if values["null"] is None else torch.as_tensor(values["null"])
            return GuidedDenoiser(_built(values["member"]), null=null, **values["config"])
        return constructor_of(str(values["class"]), dict(values["config"]))()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the config describes no denoiser ({error}); save the hybrid again") from error


@checks.checked(hybrid=a_denoiser, pixel_range=checks.each(checks.number, size=2))
def to_diffusers(hybrid: Denoiser, *, like: Any = None, pixel_range: tuple[float, float] | None = None) -> HybridModel:
    """``hybrid`` as a model of diffusers: put it into a pipeline in place of ``unet`` or ``transformer``.

    Args:
        hybrid: any denoiser.  Steps of a hybrid go to the members that its schedule names for their times.
        like: whose noise, prediction type and config it speaks: a DiffusersDenoiser, or a scheduler of diffusers.  By
            default the first network of diffusers among the members, or within one.
        pixel_range: black and white as the pipeline knows them, usually (-1, 1), where those of ``hybrid`` are 0 and
            1; only with a scheduler as ``like``, since a DiffusersDenoiser knows.

    Steps of a member that is a network of diffusers on that noise are that network's own, to the bit.  The others are
    asked for the posterior mean, and answer in the prediction type of the scheduler; where it learns variances they say
    the smallest, that of a step that knows the image.

    Raises PhasewiseError where nobody says which noise to speak, for ``like`` of images of another shape, and for a
    scheduler that takes variances themselves from its network (variance_type "learned"), which others do not know.
    """
    return HybridModel(hybrid, interface_for(hybrid, like, pixel_range)).eval()


def interface_for(denoiser: Denoiser, like: Any, pixel_range: tuple[float, float] | None) -> Interface:
    """How pipelines will speak to ``denoiser``; see :func:`to_diffusers`."""
    networks = _networks(denoiser)
    if isinstance(like, Denoiser):
        network, _ = network_of(like)
        if network is None:
            raise PhasewiseError(f"like is a {type(like).__name__}; give a DiffusersDenoiser or a scheduler")
        networks, like = [network], None
    if pixel_range is not None and (like is None or not pixel_range[0] < pixel_range[1]):
        raise PhasewiseError(
            f"pixel_range must be (black, white), the lower first; got {pixel_range}"
            if like is not None
            else "pixel_range goes with a scheduler as like=; a DiffusersDenoiser knows its own"
        )
    if like is not None:
        noise_of(like)  # refuses what is no scheduler
        return _of_scheduler(denoiser, like, pixel_range or (0.0, 1.0))
    if not networks:
        raise PhasewiseError(
            "no member is a network of diffusers: say which noise a pipeline speaks by like=, a scheduler or a "
            "DiffusersDenoiser"
        )
    return interface_of(networks[0])


def _of_scheduler(denoiser: Denoiser, scheduler: Any, pixel_range: tuple[float, float]) -> Interface:
    channels, height, width = denoiser.image_shape
    side = height if height == width else [height, width]
    config = {"sample_size": side, "in_channels": channels, "out_channels": channels}
    takes = "class_labels" if denoiser.takes_condition else None
    return Interface(scheduler, denoiser.image_shape, pixel_range, cond_name=takes, channels=channels, config=config)


def as_module(value: Any, name: str) -> nn.Module:
    """A torch module that is no denoiser, as an argument."""
    if not isinstance(value, nn.Module) or isinstance(value, (Denoiser, HybridModel)):
        raise PhasewiseError(f"{name} must be a network of diffusers, such as pipe.unet; got {checks.shown(value)}")
    return value
