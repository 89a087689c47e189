"""Gaussian noising paths, and the algebra between the things a denoiser can predict (:mod:`phasewise.paths.base`)."""

from phasewise.paths.base import (
    PATHS,
    CosinePath,
    LinearPath,
    NoisePath,
    Time,
    VarianceExplodingPath,
    a_path,
    as_scale,
    as_time,
    path_from_config,
    register_path,
    translate,
)
from phasewise.paths.table import ScaledPath, TablePath, in_pixels

__all__ = [
    "PATHS",
    "CosinePath",
    "LinearPath",
    "NoisePath",
    "ScaledPath",
    "TablePath",
    "Time",
    "VarianceExplodingPath",
    "a_path",
    "as_scale",
    "as_time",
    "in_pixels",
    "path_from_config",
    "register_path",
    "translate",
]
