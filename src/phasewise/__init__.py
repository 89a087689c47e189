"""phasewise: when does a diffusion model need the whole image, and what can be saved the rest of the time?

Everything a user imports, loaded on first use (``import phasewise`` alone is instant).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from phasewise import exact as exact
    from phasewise.data import ImageData as ImageData
    from phasewise.data import load_images as load_images
    from phasewise.denoisers import Denoiser as Denoiser
    from phasewise.denoisers import HybridDenoiser as HybridDenoiser
    from phasewise.denoisers import LocalDenoiser as LocalDenoiser
    from phasewise.denoisers import OnnxDenoiser as OnnxDenoiser
    from phasewise.denoisers import PublishedLocal as PublishedLocal
    from phasewise.denoisers import PublishedUNet as PublishedUNet
    from phasewise.denoisers import UNetDenoiser as UNetDenoiser
    from phasewise.denoisers import WienerDenoiser as WienerDenoiser
    from phasewise.denoisers import accelerate as accelerate
    from phasewise.denoisers import export_onnx as export_onnx
    from phasewise.denoisers import load_denoiser as load_denoiser
    from phasewise.denoisers import save_denoiser as save_denoiser
    from phasewise.errors import CheckpointError as CheckpointError
    from phasewise.errors import DataError as DataError
    from phasewise.errors import PhasewiseError as PhasewiseError
    from phasewise.errors import PhasewiseWarning as PhasewiseWarning
    from phasewise.errors import RunFolderError as RunFolderError
    from phasewise.information import cmi_map as cmi_map
    from phasewise.metrics import count_flops as count_flops
    from phasewise.metrics import default_features as default_features
    from phasewise.metrics import fid as fid
    from phasewise.metrics import measure_ms as measure_ms
    from phasewise.metrics import paired_error as paired_error
    from phasewise.paths import CosinePath as CosinePath
    from phasewise.paths import LinearPath as LinearPath
    from phasewise.paths import VarianceExplodingPath as VarianceExplodingPath
    from phasewise.phases import critical_window as critical_window
    from phasewise.phases import explain as explain
    from phasewise.phases import gap_window as gap_window
    from phasewise.phases import markov_length as markov_length
    from phasewise.phases import measure_losses as measure_losses
    from phasewise.phases import measure_recovery as measure_recovery
    from phasewise.phases import measure_step_errors as measure_step_errors
    from phasewise.phases import optimise_schedule as optimise_schedule
    from phasewise.phases import pareto_front as pareto_front
    from phasewise.phases import path_kl as path_kl
    from phasewise.phases import place_steps as place_steps
    from phasewise.phases import placement_front as placement_front
    from phasewise.phases import price_list as price_list
    from phasewise.phases import prices_at as prices_at
    from phasewise.phases import schedule_from_servers as schedule_from_servers
    from phasewise.phases import spread_servers as spread_servers
    from phasewise.phases import stitched_servers as stitched_servers
    from phasewise.phases import window_servers as window_servers
    from phasewise.pipeline import make_config as make_config
    from phasewise.pipeline import run_pipeline as run_pipeline
    from phasewise.pretrained import load_pretrained as load_pretrained
    from phasewise.pretrained import pretrained_names as pretrained_names
    from phasewise.report import build_report as build_report
    from phasewise.results import CMIMap as CMIMap
    from phasewise.results import Estimate as Estimate
    from phasewise.results import HybridSchedule as HybridSchedule
    from phasewise.results import LossTable as LossTable
    from phasewise.results import MarkovFit as MarkovFit
    from phasewise.results import ParetoFront as ParetoFront
    from phasewise.results import PriceList as PriceList
    from phasewise.results import StepErrors as StepErrors
    from phasewise.sampling import sample as sample
    from phasewise.sampling import starting_noise as starting_noise
    from phasewise.sampling import time_grid as time_grid
    from phasewise.training import TrainPreset as TrainPreset
    from phasewise.training import train as train
    from phasewise.training import train_together as train_together

_HOMES = {
    "data": ("ImageData", "load_images"),
    "denoisers": (
        "Denoiser", "HybridDenoiser", "LocalDenoiser", "OnnxDenoiser", "PublishedLocal", "PublishedUNet",
        "UNetDenoiser", "WienerDenoiser", "accelerate", "export_onnx", "load_denoiser", "save_denoiser",
    ),
    "errors": ("CheckpointError", "DataError", "PhasewiseError", "PhasewiseWarning", "RunFolderError"),
    "information": ("cmi_map",),
    "metrics": ("count_flops", "default_features", "fid", "measure_ms", "paired_error"),
    "paths": ("CosinePath", "LinearPath", "VarianceExplodingPath"),
    "phases": (
        "critical_window", "explain", "gap_window", "markov_length", "measure_losses", "measure_recovery",
        "measure_step_errors", "optimise_schedule", "pareto_front", "path_kl", "place_steps", "placement_front",
        "price_list", "prices_at", "schedule_from_servers", "spread_servers",
        "stitched_servers", "window_servers",
    ),
    "pipeline": ("make_config", "run_pipeline"),
    "pretrained": ("load_pretrained", "pretrained_names"),
    "report": ("build_report",),
    "results": ("CMIMap", "Estimate", "HybridSchedule", "LossTable", "MarkovFit", "ParetoFront", "PriceList",
        "StepErrors"),
    "sampling": ("sample", "starting_noise", "time_grid"),
    "training": ("TrainPreset", "train", "train_together"),
}  # fmt: skip
_WHERE = {name: f"phasewise.{room}" for room, names in _HOMES.items() for name in names}

__all__ = ["__version__", "exact", *_WHERE]


def __getattr__(name: str) -> Any:
    if name == "exact":
        return importlib.import_module("phasewise.exact")
    if name not in _WHERE:
        raise AttributeError(f"module 'phasewise' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
