"""phasewise: when does a diffusion model need the whole image, and what can be saved the rest of the time?

The names a user learns first, loaded on first use (``import phasewise`` alone is instant); the rest by room, e.g.
``pw.diagnosis.measure_losses``, ``pw.scheduling.baselines.t_stitch``, ``pw.metrics.kid``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from phasewise import data as data
    from phasewise import denoisers as denoisers
    from phasewise import diagnosis as diagnosis
    from phasewise import errors as errors
    from phasewise import exact as exact
    from phasewise import information as information
    from phasewise import metrics as metrics
    from phasewise import paths as paths
    from phasewise import pipeline as pipeline
    from phasewise import pretrained as pretrained
    from phasewise import report as report
    from phasewise import results as results
    from phasewise import runs as runs
    from phasewise import sampling as sampling
    from phasewise import scheduling as scheduling
    from phasewise import training as training
    from phasewise.data import load_images as load_images
    from phasewise.denoisers import Denoiser as Denoiser
    from phasewise.denoisers import GuidedDenoiser as GuidedDenoiser
    from phasewise.denoisers import HybridDenoiser as HybridDenoiser
    from phasewise.denoisers import LocalDenoiser as LocalDenoiser
    from phasewise.denoisers import PixelDenoiser as PixelDenoiser
    from phasewise.denoisers import PlanDenoiser as PlanDenoiser
    from phasewise.denoisers import PooledDenoiser as PooledDenoiser
    from phasewise.denoisers import ReusedAnswer as ReusedAnswer
    from phasewise.denoisers import ReusedFeatures as ReusedFeatures
    from phasewise.denoisers import UNetDenoiser as UNetDenoiser
    from phasewise.denoisers import WienerDenoiser as WienerDenoiser
    from phasewise.denoisers import load_denoiser as load_denoiser
    from phasewise.denoisers import pool_images as pool_images
    from phasewise.denoisers import save_denoiser as save_denoiser
    from phasewise.denoisers import wrap as wrap
    from phasewise.diagnosis import check_claims as check_claims
    from phasewise.diagnosis import critical_window as critical_window
    from phasewise.diagnosis import guess as guess
    from phasewise.diagnosis import markov_length as markov_length
    from phasewise.diagnosis import reach as reach
    from phasewise.errors import PhasewiseError as PhasewiseError
    from phasewise.errors import PhasewiseWarning as PhasewiseWarning
    from phasewise.information import cmi_map as cmi_map
    from phasewise.metrics import count_flops as count_flops
    from phasewise.metrics import fid as fid
    from phasewise.paths import CosinePath as CosinePath
    from phasewise.paths import LinearPath as LinearPath
    from phasewise.paths import ModePath as ModePath
    from phasewise.paths import TablePath as TablePath
    from phasewise.paths import VarianceExplodingPath as VarianceExplodingPath
    from phasewise.pipeline import distil as distil
    from phasewise.pretrained import load_pretrained as load_pretrained
    from phasewise.results import HybridSchedule as HybridSchedule
    from phasewise.runs import open_run as open_run
    from phasewise.sampling import sample as sample
    from phasewise.sampling import time_grid as time_grid
    from phasewise.scheduling import boundary as boundary
    from phasewise.scheduling import explain as explain
    from phasewise.scheduling import optimise_schedule as optimise_schedule
    from phasewise.scheduling import pareto_front as pareto_front
    from phasewise.scheduling import price_list as price_list
    from phasewise.training import train as train

_HOMES = {
    "data": ("load_images",),
    "denoisers": ("Denoiser", "LocalDenoiser", "UNetDenoiser", "WienerDenoiser", "GuidedDenoiser",
        "HybridDenoiser", "PixelDenoiser", "PlanDenoiser", "PooledDenoiser", "ReusedAnswer", "ReusedFeatures",
        "load_denoiser", "pool_images", "save_denoiser", "wrap"),
    "errors": ("PhasewiseError", "PhasewiseWarning"),
    "information": ("cmi_map",),
    "metrics": ("fid", "count_flops"),
    "paths": ("LinearPath", "CosinePath", "ModePath", "TablePath", "VarianceExplodingPath"),
    "diagnosis": ("markov_length", "critical_window", "check_claims", "guess", "reach"),
    "scheduling": ("price_list", "optimise_schedule", "pareto_front", "explain", "boundary"),
    "pipeline": ("distil",),
    "pretrained": ("load_pretrained",),
    "results": ("HybridSchedule",),
    "runs": ("open_run",),
    "sampling": ("sample", "time_grid"),
    "training": ("train",),
}  # fmt: skip
ROOMS = (
    "data", "denoisers", "diagnosis", "errors", "exact", "information", "metrics", "paths",
    "pipeline", "pretrained", "report", "results", "runs", "sampling", "scheduling", "training",
)  # fmt: skip
"""Where everything else lives."""
_WHERE = {name: f"phasewise.{room}" for room, names in _HOMES.items() for name in names}

__all__ = ["__version__", "exact", *_WHERE]


def __getattr__(name: str) -> Any:
    if name in ROOMS:
        return importlib.import_module(f"phasewise.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'phasewise' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *ROOMS])
