"""diffusers, in and out (extra ``phasewise[diffusers]``): its networks as denoisers, on the noise of its schedulers;
hybrids as models that its pipelines run.

What goes out is made of diffusers' own classes: it is loaded on first use, and only where diffusers is installed.
"""

import importlib
from typing import TYPE_CHECKING, Any

from phasewise.bridges.diffusers.folder import is_pipeline, read_folder
from phasewise.bridges.diffusers.latents import DecodedFeatures, decode, encode, read_vae
from phasewise.bridges.diffusers.model import DiffusersDenoiser, from_diffusers
from phasewise.bridges.diffusers.noise import SchedulerNoise, noise_of, times_of
from phasewise.bridges.diffusers.solvers import solver_of

if TYPE_CHECKING:
    from phasewise.bridges.diffusers.hooks import apply_hybrid, remove_hybrid
    from phasewise.bridges.diffusers.out import HybridModel, to_diffusers

__all__ = [
    "DecodedFeatures",
    "DiffusersDenoiser",
    "HybridModel",
    "SchedulerNoise",
    "apply_hybrid",
    "decode",
    "encode",
    "from_diffusers",
    "is_pipeline",
    "noise_of",
    "read_folder",
    "read_vae",
    "remove_hybrid",
    "solver_of",
    "times_of",
    "to_diffusers",
]
_LATER = {"HybridModel": "out", "to_diffusers": "out", "apply_hybrid": "hooks", "remove_hybrid": "hooks"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'phasewise.bridges.diffusers' has no attribute {name!r}")
    return getattr(importlib.import_module(f"phasewise.bridges.diffusers.{_LATER[name]}"), name)
