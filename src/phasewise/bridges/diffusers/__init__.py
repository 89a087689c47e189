"""diffusers, in and out (extra ``phasewise[diffusers]``): its networks as denoisers, on the noise of its schedulers."""

from phasewise.bridges.diffusers.folder import is_pipeline, read_folder
from phasewise.bridges.diffusers.latents import DecodedFeatures, decode, encode, read_vae
from phasewise.bridges.diffusers.model import DiffusersDenoiser, from_diffusers
from phasewise.bridges.diffusers.noise import SchedulerNoise, noise_of, times_of

__all__ = [
    "DecodedFeatures",
    "DiffusersDenoiser",
    "SchedulerNoise",
    "decode",
    "encode",
    "from_diffusers",
    "is_pipeline",
    "noise_of",
    "read_folder",
    "read_vae",
    "times_of",
]
