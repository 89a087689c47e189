"""Denoisers on disk: ``config.json`` (class, constructor arguments, format version) beside ``weights.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from phasewise import checks
from phasewise.denoisers.base import Denoiser, OnPath, a_denoiser
from phasewise.denoisers.hybrid import HybridDenoiser
from phasewise.denoisers.linear import WienerDenoiser
from phasewise.denoisers.local import LocalDenoiser
from phasewise.denoisers.published import PublishedLocal, PublishedUNet
from phasewise.denoisers.transformer import DiTDenoiser
from phasewise.denoisers.unet import UNetDenoiser
from phasewise.errors import CheckpointError
from phasewise.files import read_json, write_bytes, write_json
from phasewise.paths import path_from_config
from phasewise.registry import Registry
from phasewise.results import HybridSchedule

FORMAT = 1
HALVED = 4096
"""Tensors of at least so many numbers are stored in half precision on request; smaller ones weigh nothing."""
CLASSES: Registry[type[Denoiser]] = Registry(
    "denoiser class", CheckpointError, mend="a class of your own is made known by phasewise.denoisers.register_denoiser"
)
D = TypeVar("D", bound=Denoiser)


def register_denoiser(cls: type[D]) -> type[D]:
    """Let :func:`load_denoiser` know a class of denoisers by its name; a decorator, it returns the class.

    The constructor must take what :meth:`Denoiser.config` gives, where ``image_shape`` comes as a tuple and ``path`` as
    a :class:`NoisePath`; weights are the module's state.  Raises PhasewiseError for a name that is taken.
    """
    CLASSES.register(cls.__name__, cls)
    return cls


for _class in (LocalDenoiser, UNetDenoiser, DiTDenoiser, WienerDenoiser, PublishedLocal, PublishedUNet):
    register_denoiser(_class)


def build_denoiser(name: str, config: dict[str, Any]) -> Denoiser:
    """A fresh denoiser of class ``name`` from its :meth:`Denoiser.config`."""
    cls = CLASSES[name]
    kwargs: dict[str, Any] = dict(config)
    if name == "LocalDenoiser":  # what was always so before it could be chosen
        kwargs = {"norm": True, "mixing": 0, **kwargs}
    try:
        kwargs["path"] = path_from_config(kwargs.get("path", {"name": "linear"}))
        for key in ("image_shape", "multipliers"):
            if key in kwargs:
                kwargs[key] = tuple(kwargs[key])
        return cls(**kwargs)
    except (TypeError, ValueError, AttributeError, AssertionError) as error:
        raise CheckpointError(f"the saved config does not fit {name} ({error}); train it again") from error


@checks.checked(denoiser=a_denoiser, folder=checks.file, half=checks.flag)
def save_denoiser(denoiser: Denoiser, folder: str | Path, *, half: bool = False) -> Path:
    """Write ``denoiser`` into ``folder`` (made if needed), each file atomically. A hybrid's members get subfolders.

    ``half`` stores the large tensors as float16: half the size, and about 1e-3 relative rounding of the weights.  One
    with numbers above float16's largest, 65504, stays as it is.
    """
    folder = Path(folder)
    if isinstance(denoiser, HybridDenoiser):
        for name, module in denoiser.members.items():
            # without the translation: a loaded hybrid puts its schedule's path on again
            save_denoiser(module.member if isinstance(module, OnPath) else module, folder / name, half=half)
        config = {"format": FORMAT, "class": "HybridDenoiser", "schedule": denoiser.schedule.to_dict()}
    else:
        state = {k: v.detach().cpu().contiguous() for k, v in denoiser.state_dict().items()}
        if half:
            state = {k: _halved(v) for k, v in state.items()}
        config = {"format": FORMAT, "class": type(denoiser).__name__, "config": denoiser.config()}
        write_bytes(folder / "weights.safetensors", save_tensors(state))
    write_json(folder / "config.json", config)  # last: a folder with a config has its weights
    return folder


def _halved(value: torch.Tensor) -> torch.Tensor:
    if not value.is_floating_point() or value.numel() < HALVED:
        return value
    half = value.half()
    return half if bool(half.isfinite().all()) else value


@checks.checked(folder=checks.file, device=checks.device)
def load_denoiser(folder: str | Path, device: str | torch.device = "cpu") -> Denoiser:
    """Read what :func:`save_denoiser` wrote, in eval mode.

    Raises CheckpointError when the folder is no denoiser, of another format version, corrupt, or of another shape.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no denoiser (no config.json)")
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise CheckpointError(
            f"{folder} has denoiser format {found!r}; this phasewise reads {FORMAT}. Train it again, or use the "
            "version that wrote it"
        )
    hybrid = config.get("class") == "HybridDenoiser"
    if "class" not in config or not isinstance(config.get("schedule" if hybrid else "config"), dict):
        raise CheckpointError(f"{folder / 'config.json'} is incomplete; delete {folder} and train again")
    if hybrid:
        schedule = schedule_from(config["schedule"], folder)
        members = {name: load_denoiser(folder / name, device) for name in dict.fromkeys(schedule.assignment)}
        return HybridDenoiser(members, schedule).eval()
    denoiser = build_denoiser(config["class"], config["config"])
    load_weights(denoiser, folder / "weights.safetensors")
    return denoiser.to(device).eval()


def schedule_from(values: dict[str, Any], where: Path) -> HybridSchedule:
    """A schedule read from JSON; CheckpointError naming ``where`` when it is none."""
    try:
        return HybridSchedule.from_dict(values)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where} holds an invalid schedule ({error}); make it again") from error


def read_safetensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; CheckpointError when it is missing, truncated or no safetensors."""
    try:
        return load_tensors(Path(path).read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is corrupt or no safetensors file ({error}); delete it and train again (`phasewise train`)"
        ) from error


def load_weights(denoiser: Denoiser, path: str | Path) -> None:
    """Load weights into ``denoiser``; CheckpointError naming the first tensor that does not fit."""
    tensors = read_safetensors(path)
    own = denoiser.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or extra:
        raise CheckpointError(
            f"{path} is not for this {type(denoiser).__name__}: missing {missing[:3]}, unexpected {extra[:3]}"
        )
    for key, value in own.items():
        if tensors[key].shape != value.shape:
            raise CheckpointError(
                f"{path}: {key} has shape {tuple(tensors[key].shape)}, this {type(denoiser).__name__} needs "
                f"{tuple(value.shape)}; it was trained for other images or another size"
            )
        if value.is_floating_point() and not (tensors[key].is_floating_point() and tensors[key].isfinite().all()):
            raise CheckpointError(f"{path}: {key} holds NaN, infinity or integers; train it again (`phasewise train`)")
    # halved ones back to the network's precision
    denoiser.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()})
