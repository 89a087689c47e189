"""Denoisers: everything that maps a noisy image and a time to the posterior mean of the clean one."""

from phasewise.denoisers.base import Condition, Denoiser, Given, OnPath, SamplingPlan, as_rows
from phasewise.denoisers.condition import bind, condition_rows
from phasewise.denoisers.guided import GuidedDenoiser
from phasewise.denoisers.hybrid import HybridDenoiser
from phasewise.denoisers.io import load_denoiser, register_denoiser, save_denoiser
from phasewise.denoisers.kept import site
from phasewise.denoisers.linear import PixelDenoiser, WienerDenoiser
from phasewise.denoisers.local import LocalDenoiser
from phasewise.denoisers.network import NetworkDenoiser
from phasewise.denoisers.plan import PlanDenoiser
from phasewise.denoisers.pooled import PooledDenoiser, pool_images
from phasewise.denoisers.predictions import PREDICTIONS, Clock, Prediction, edm, register_prediction
from phasewise.denoisers.published import PublishedLocal, PublishedUNet
from phasewise.denoisers.reuse import ReusedAnswer, ReusedFeatures
from phasewise.denoisers.runtime import OnnxDenoiser, export_onnx, for_inference
from phasewise.denoisers.transformer import DiTDenoiser
from phasewise.denoisers.unet import UNetDenoiser
from phasewise.denoisers.wrapped import WrappedDenoiser, wrap

__all__ = [
    "PREDICTIONS",
    "Clock",
    "Condition",
    "Denoiser",
    "DiTDenoiser",
    "Given",
    "GuidedDenoiser",
    "HybridDenoiser",
    "LocalDenoiser",
    "NetworkDenoiser",
    "OnPath",
    "OnnxDenoiser",
    "PixelDenoiser",
    "PlanDenoiser",
    "PooledDenoiser",
    "Prediction",
    "PublishedLocal",
    "PublishedUNet",
    "ReusedAnswer",
    "ReusedFeatures",
    "SamplingPlan",
    "UNetDenoiser",
    "WienerDenoiser",
    "WrappedDenoiser",
    "as_rows",
    "bind",
    "condition_rows",
    "edm",
    "export_onnx",
    "for_inference",
    "load_denoiser",
    "pool_images",
    "register_denoiser",
    "register_prediction",
    "save_denoiser",
    "site",
    "wrap",
]
