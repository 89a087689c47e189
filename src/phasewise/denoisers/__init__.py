"""Denoisers: everything that maps a noisy image and a time to the posterior mean of the clean one."""

from phasewise.denoisers.base import Denoiser, NetworkDenoiser
from phasewise.denoisers.hybrid import HybridDenoiser, OnPath
from phasewise.denoisers.io import load_denoiser, save_denoiser
from phasewise.denoisers.linear import WienerDenoiser
from phasewise.denoisers.local import LocalDenoiser
from phasewise.denoisers.published import PublishedLocal, PublishedUNet
from phasewise.denoisers.runtime import OnnxDenoiser, export_onnx, for_inference
from phasewise.denoisers.unet import UNetDenoiser

__all__ = [
    "Denoiser",
    "HybridDenoiser",
    "LocalDenoiser",
    "NetworkDenoiser",
    "OnPath",
    "OnnxDenoiser",
    "PublishedLocal",
    "PublishedUNet",
    "UNetDenoiser",
    "WienerDenoiser",
    "export_onnx",
    "for_inference",
    "load_denoiser",
    "save_denoiser",
]
