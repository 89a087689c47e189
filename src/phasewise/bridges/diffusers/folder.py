"""Folders that diffusers' own ``save_pretrained`` made: of a pipeline, or of one network beside its scheduler."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from phasewise import checks
from phasewise.bridges.diffusers.library import library, model_class, scheduler_class
from phasewise.bridges.diffusers.model import DiffusersDenoiser, from_diffusers
from phasewise.errors import PhasewiseError
from phasewise.files import read_json, refuse_remote_code, regular
from phasewise.tensors import need_safetensors

NETWORKS = ("unet", "transformer", "transformer_2", "prior")
"""Parts of a pipeline that denoise."""


def is_pipeline(folder: str | Path) -> bool:
    """Whether ``folder`` is one of diffusers: a pipeline's, or a network's."""
    folder = Path(folder)
    if (folder / "model_index.json").is_file():
        return True
    config = folder / "config.json"
    return config.is_file() and "_class_name" in json_object(config)


@checks.checked(folder=checks.file, part=checks.text)
def read_folder(folder: str | Path, *, part: str | None = None, scheduler: Any = None, **how: Any) -> DiffusersDenoiser:
    """The network of a pipeline folder, in eval mode, on the noise of the scheduler there.

    Args:
        folder: with ``model_index.json``; or a network's own, whose scheduler lies in ``../scheduler``.
        part: which network ("unet", "transformer", ...), where there are several.
        scheduler: of diffusers, in place of the folder's.
        how: further arguments of :func:`from_diffusers`.

    Nothing but the classes of the installed diffusers is run.  Raises PhasewiseError for a folder that is none, without
    safetensors, or that needs code of its own; and as :func:`from_diffusers` does.
    """
    folder = Path(folder)
    library()
    unknown = sorted(set(how) - set(inspect.signature(from_diffusers).parameters))
    if unknown:
        raise PhasewiseError(f"read_folder has no argument {unknown[0]!r}; it takes those of from_diffusers")
    if not folder.is_dir():
        raise PhasewiseError(f"there is no folder {folder}; give one made by diffusers' save_pretrained")
    index = folder / "model_index.json"
    if index.is_file():
        found = json_object(index)
        names = [n for n in NETWORKS if is_there(found, n)]
        if part is None and len(names) != 1:
            several = (
                f"several networks ({', '.join(names)}): say which with part=, on a command line by DIR#{names[0]}"
                if names
                else "no network that denoises"
            )
            raise PhasewiseError(f"{folder} has {several}")
        chosen = part or names[0]
        if chosen not in names:
            raise PhasewiseError(f"{folder} has no {chosen!r}; it has {', '.join(names) or 'no network that denoises'}")
        where = folder / chosen
        check_own(found, chosen, folder)
        beside = folder / "scheduler"
        if scheduler is None:
            check_own(found, "scheduler", folder)
    elif is_pipeline(folder):
        where, beside = folder, folder.parent / "scheduler"
    else:
        raise PhasewiseError(f"{folder} is no pipeline folder (no model_index.json); give one made by save_pretrained")
    return from_diffusers(read_network(where), scheduler or read_scheduler(beside), **how)


def read_network(folder: Path) -> Any:
    """One network, float32, in eval mode, from safetensors alone."""
    config = json_object(folder / "config.json")
    refuse_remote_code(folder)
    cls = model_class(str(config.get("_class_name")))
    need_safetensors(folder)
    if not any(folder.glob("*.safetensors")):
        raise PhasewiseError(f"{folder} holds no weights (*.safetensors); write them by model.save_pretrained(DIR)")
    return _read(cls, folder, use_safetensors=True, low_cpu_mem_usage=False).float().eval()


def read_scheduler(folder: Path) -> Any:
    """A scheduler from its ``scheduler_config.json``."""
    file = folder / "scheduler_config.json"
    if not file.is_file():
        raise PhasewiseError(
            f"{folder} holds no scheduler_config.json; give the scheduler the network was trained with"
        )
    return _read(scheduler_class(_class_name(file)), folder)


def _class_name(file: Path) -> str:
    """The class that a scheduler's config names; diffusers writes infinite defaults, which are no plain JSON."""
    regular(file)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PhasewiseError(f"{file} is not valid JSON ({error})") from error
    return str(found.get("_class_name") if isinstance(found, dict) else None)


def _read(cls: Any, folder: Path, **how: Any) -> Any:
    try:
        return cls.from_pretrained(str(folder), local_files_only=True, **how)
    except PhasewiseError:
        raise
    except Exception as error:  # whatever diffusers, safetensors or a constructor of theirs finds wrong with a file
        raise PhasewiseError(f"diffusers cannot read {folder} ({str(error).splitlines()[0][:200]})") from error


def json_object(file: Path) -> dict[str, Any]:
    found = read_json(file)
    if not isinstance(found, dict):
        raise PhasewiseError(f"{file} holds no JSON object")
    return found


def is_there(index: dict[str, Any], name: str) -> bool:
    about = index.get(name)
    return isinstance(about, list) and len(about) == 2 and about[1] is not None


def check_own(index: dict[str, Any], name: str, folder: Path) -> None:
    """Refuse a part that is not made of diffusers' own classes."""
    about = index.get(name)
    if not is_there(index, name) or about is None or about[0] != "diffusers":
        said = "is missing" if about is None else f"is {about[1]} of {about[0]}"
        raise PhasewiseError(
            f"{folder}: its {name} {said}, no class of diffusers; code from elsewhere is not run: build it in Python, "
            "and use from_diffusers"
        )
