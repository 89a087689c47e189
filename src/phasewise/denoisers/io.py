"""Denoisers on disk: ``config.json`` (class, constructor arguments, format version) beside ``weights.safetensors``."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save as save_tensors

from phasewise import checks, display
from phasewise.denoisers.base import Denoiser, OnPath, a_denoiser
from phasewise.denoisers.guided import GuidedDenoiser
from phasewise.denoisers.hybrid import HybridDenoiser
from phasewise.denoisers.linear import PixelDenoiser, WienerDenoiser
from phasewise.denoisers.local import LocalDenoiser
from phasewise.denoisers.plan import PlanDenoiser
from phasewise.denoisers.pooled import PooledDenoiser
from phasewise.denoisers.published import PublishedLocal, PublishedUNet
from phasewise.denoisers.reuse import ReusedAnswer, ReusedFeatures
from phasewise.denoisers.transformer import DiTDenoiser
from phasewise.denoisers.unet import UNetDenoiser
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import beneath, read_json, write_bytes, write_json
from phasewise.paths import path_from_config
from phasewise.registry import Registry
from phasewise.results import HybridSchedule
from phasewise.tensors import build_to_fit, checked_state, need_safetensors, read_tensors

FORMAT = 1
WEIGHTS = "weights.safetensors"
MEMBER = "member"
"""Folder, in that of a guided denoiser or of one with reused features, of its member, unless that lies beside."""
AROUND: dict[str, type[GuidedDenoiser] | type[ReusedFeatures]] = {
    "GuidedDenoiser": GuidedDenoiser,
    "ReusedFeatures": ReusedFeatures,
}
"""Classes that are saved round a member of theirs."""
MEND = "delete it and train again (`phasewise train`)"
HALVED = 4096
"""Tensors of at least so many numbers are stored in half precision on request; smaller ones weigh nothing."""
CLASSES: Registry[type[Denoiser]] = Registry(
    "denoiser class", CheckpointError, mend="a class of your own is made known by phasewise.denoisers.register_denoiser"
)
ELSEWHERE = {"DiffusersDenoiser": "phasewise.bridges.diffusers"}
"""Modules that make a class known, imported when a saved denoiser names it."""
D = TypeVar("D", bound=Denoiser)
Known = dict[str, Denoiser]
"""What was read already, by its resolved folder: a network that is shared is read once."""


def register_denoiser(cls: type[D]) -> type[D]:
    """Let :func:`load_denoiser` know a class of denoisers by its name; a decorator, it returns the class.

    The constructor must take what :meth:`Denoiser.config` gives, where ``image_shape`` comes as a tuple and ``path`` as
    a :class:`NoisePath`; weights are the module's state.  Raises PhasewiseError for a name that is taken.
    """
    CLASSES.register(cls.__name__, cls)
    return cls


for _class in (
    LocalDenoiser, UNetDenoiser, DiTDenoiser, WienerDenoiser, PixelDenoiser, ReusedAnswer, PublishedLocal,
    PublishedUNet, PooledDenoiser, PlanDenoiser,
):  # fmt: skip
    register_denoiser(_class)


def constructor_of(name: str, config: dict[str, Any]) -> Callable[[], Denoiser]:
    """What builds a fresh denoiser of class ``name`` from its :meth:`Denoiser.config`."""
    if isinstance(name, str) and name not in CLASSES and name in ELSEWHERE:
        importlib.import_module(ELSEWHERE[name])
    cls = CLASSES[name]
    kwargs: dict[str, Any] = dict(config)
    if isinstance(kwargs.get("clamp"), list):
        kwargs["clamp"] = tuple(kwargs["clamp"])
    if name == "LocalDenoiser":  # what was always so before it could be chosen
        kwargs = {"norm": True, "mixing": 0, **kwargs}
    parts = {key: constructor_of(part["class"], part["config"]) for key, part in kwargs.items() if _is_part(part)}
    if "path" in kwargs or not parts:  # what is made of parts may have theirs
        kwargs["path"] = path_from_config(kwargs.get("path", {"name": "linear"}))
    for key in ("image_shape", "multipliers"):
        if isinstance(kwargs.get(key), list):
            kwargs[key] = tuple(kwargs[key])
    return lambda: cls(**{**kwargs, **{key: build() for key, build in parts.items()}})


def _is_part(value: object) -> bool:
    """Whether an entry of a config stands for a denoiser within a denoiser, whose weights are in the same file."""
    if not isinstance(value, dict) or value.keys() != {"class", "config"} or not isinstance(value["config"], dict):
        return False
    return (
        isinstance(value["class"], str) and value["class"] in CLASSES
    )  # another library's networks are described alike, and built by their bridge


@checks.checked(denoiser=a_denoiser, folder=checks.file, half=checks.flag)
def save_denoiser(denoiser: Denoiser, folder: str | Path, *, half: bool = False) -> Path:
    """Write ``denoiser`` into ``folder`` (made if needed), each file atomically.  A hybrid's members get subfolders, so
    does what is guided; a network that members of a hybrid share is written once, and shared again when read.

    ``half`` stores the large tensors as float16: half the size, and about 1e-3 relative rounding of the weights.  One
    with numbers above float16's largest, 65504, stays as it is.
    """
    return _save(denoiser, Path(folder), half, {})


def save_beside(denoiser: Denoiser, folder: str | Path, others: Mapping[str, Denoiser]) -> Path:
    """As :func:`save_denoiser`; a network that one of ``others`` holds, each saved in a folder of its name beside
    ``folder``, is not written again: :func:`load_beside` shares it."""
    return _save(denoiser, Path(folder), False, {id(d): [name] for name, d in others.items()})


def load_beside(folder: str | Path, device: str | torch.device, known: Known) -> Denoiser:
    """As :func:`load_denoiser`; what is ``known`` already, by its resolved folder, is shared, and what is read is added
    to it."""
    return _load(Path(folder), device, (), known)


def _save(denoiser: Denoiser, folder: Path, half: bool, shared: dict[int, list[str]]) -> Path:
    """``shared``: where, seen from the folder above, the denoisers of the same hybrid lie, by their identity."""
    config: dict[str, Any]
    if isinstance(denoiser, HybridDenoiser):
        places = {name: beneath(folder, name, "member's name") for name in denoiser.members}
        # without the translation: a loaded hybrid puts its schedule's path on again
        members = {n: m.member if isinstance(m, OnPath) else m for n, m in denoiser.members.items()}
        beside = {id(d): [n] for n, d in members.items()}
        # a network that two of them hold is written by the first, those that hold one within them after the others
        for name, part in sorted(members.items(), key=lambda pair: _depth(pair[1])):
            _save(part, places[name], half, beside)
            if isinstance(part, tuple(AROUND.values())):
                beside.setdefault(id(part.member), [name, MEMBER])
        config = {"format": FORMAT, "class": "HybridDenoiser", "schedule": denoiser.schedule.to_dict()}
    elif isinstance(denoiser, (GuidedDenoiser, ReusedFeatures)):
        elsewhere = shared.get(id(denoiser.member))
        if elsewhere is None:
            _save(denoiser.member, folder / MEMBER, half, {})
        null = getattr(denoiser, "null", None)
        own = {} if null is None else {"null": null.detach().cpu().contiguous()}
        write_bytes(folder / WEIGHTS, save_tensors(own))
        kind = type(denoiser).__name__
        config = {"format": FORMAT, "class": kind, "config": denoiser.config(), "beside": elsewhere}
    else:
        state = {k: v.detach().cpu().contiguous() for k, v in denoiser.state_dict().items()}
        if half:
            state = {k: _halved(v) for k, v in state.items()}
        config = {"format": FORMAT, "class": type(denoiser).__name__, "config": denoiser.config()}
        write_bytes(folder / WEIGHTS, save_tensors(state))
    write_json(folder / "config.json", config)  # last: a folder with a config has its weights
    return folder


def _depth(denoiser: Denoiser) -> int:
    """How many members lie within one another in it."""
    return 1 + _depth(denoiser.member) if isinstance(denoiser, (GuidedDenoiser, ReusedFeatures)) else 0


def _halved(value: torch.Tensor) -> torch.Tensor:
    if not value.is_floating_point() or value.numel() < HALVED:
        return value
    half = value.half()
    return half if bool(half.isfinite().all()) else value


@checks.checked(folder=checks.file, device=checks.device)
def load_denoiser(folder: str | Path, device: str | torch.device = "cpu") -> Denoiser:
    """Read what :func:`save_denoiser` wrote, in eval mode.

    Raises CheckpointError when the folder is no denoiser, of another format version, corrupt, or of another shape; the
    shapes are compared before anything is built.
    """
    return _load(Path(folder), device, (), {})


def _load(folder: Path, device: str | torch.device, within: tuple[str, ...], known: Known) -> Denoiser:
    """``within``: the hybrids and guided ones, resolved, whose member this is."""
    place = os.path.realpath(folder)  # Path.resolve raises on links in a circle
    if place not in known:
        known[place] = _read(folder, device, within, known)
    return known[place]


def _read(folder: Path, device: str | torch.device, within: tuple[str, ...], known: Known) -> Denoiser:
    file = folder / "config.json"
    if not os.path.exists(file):
        raise CheckpointError(f"{folder} holds no denoiser (no config.json)")
    try:
        config = read_json(file, MEND)
    except PhasewiseError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise CheckpointError(
            f"{folder} has denoiser format {display.brief(found)}; this phasewise reads {FORMAT}. Train it again, or "
            "use the version that wrote it"
        )
    hybrid = config.get("class") == "HybridDenoiser"
    if "class" not in config or not isinstance(config.get("schedule" if hybrid else "config"), dict):
        raise CheckpointError(f"{file} is incomplete; delete {folder} and train again")
    if hybrid:
        return _load_hybrid(config["schedule"], folder, device, within, known)
    if str(config["class"]) in AROUND:
        return _load_around(config, folder, device, within, known)
    need_safetensors(folder)
    try:
        build = constructor_of(config["class"], config["config"])
        denoiser = build_to_fit(build, folder / WEIGHTS, str(config["class"]), MEND)
    except CheckpointError:
        raise
    except PhasewiseError as error:
        raise CheckpointError(f"the config in {file} makes no sense ({error}); {MEND}") from error
    load_weights(denoiser, folder / WEIGHTS)
    return denoiser.to(device).eval()


def _load_hybrid(
    values: dict[str, Any], folder: Path, device: str | torch.device, within: tuple[str, ...], known: Known
) -> HybridDenoiser:
    schedule = schedule_from(values, folder)
    around = (*within, os.path.realpath(folder))
    try:
        places = {name: beneath(folder, name, "member's name") for name in dict.fromkeys(schedule.assignment)}
        for name, place in places.items():
            _not_itself(place, around, f"{folder}: the member {name!r} is the hybrid itself")
        return HybridDenoiser({n: _load(place, device, around, known) for n, place in places.items()}, schedule).eval()
    except CheckpointError:
        raise
    except PhasewiseError as error:
        raise CheckpointError(f"{folder} holds members that make no hybrid ({error}); {MEND}") from error


def _load_around(
    config: dict[str, Any], folder: Path, device: str | torch.device, within: tuple[str, ...], known: Known
) -> Denoiser:
    beside, around = config.get("beside"), (*within, os.path.realpath(folder))
    try:
        place = folder / MEMBER
        if beside is not None:  # what a hybrid has anyway lies beside this one, in the hybrid's folder
            place = functools.reduce(lambda where, name: beneath(where, name, "member's name"), beside, folder.parent)
        _not_itself(place, around, f"{folder}: the member is the denoiser round it itself")
        member = _load(place, device, around, known)
        if config["class"] == "ReusedFeatures":
            return ReusedFeatures(member, **config["config"]).eval()
        null = read_tensors(folder / WEIGHTS, MEND)[0].get("null")
        return GuidedDenoiser(member, null=null, **{"scale": 1.0, **config["config"]}).eval()
    except CheckpointError:
        raise
    except (PhasewiseError, TypeError) as error:
        what = "guided denoiser" if config["class"] == "GuidedDenoiser" else "denoiser with reused features"
        raise CheckpointError(f"{folder} holds no {what} ({error}); {MEND}") from error


def _not_itself(place: Path, around: tuple[str, ...], what: str) -> None:
    if os.path.realpath(place) in around:
        raise CheckpointError(f"{what}; {MEND}")


def schedule_from(values: dict[str, Any], where: Path) -> HybridSchedule:
    """A schedule read from JSON; CheckpointError naming ``where`` when it is none."""
    try:
        return HybridSchedule.from_dict(values)
    except PhasewiseError as error:
        raise CheckpointError(f"{where} holds an invalid schedule ({error}); make it again") from error


def load_weights(denoiser: Denoiser, path: str | Path) -> None:
    """Load weights into ``denoiser``; CheckpointError naming the first tensor that does not fit, or what is wrong."""
    denoiser.load_state_dict(checked_state(denoiser, read_tensors(path, MEND)[0], path, MEND))
    wrong = denoiser.wrong_state()
    if wrong:
        raise CheckpointError(f"{path}: {wrong}; {MEND}")
