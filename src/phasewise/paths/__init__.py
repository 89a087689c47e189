"""Gaussian noising paths, and the algebra between the things a denoiser can predict (:mod:`phasewise.paths.base`);
anisotropic ones, mode by mode of a fixed basis (:mod:`phasewise.paths.modes`)."""

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
    isotropic,
    path_from_config,
    register_path,
    translate,
)
from phasewise.paths.basis import BASES, Basis
from phasewise.paths.modes import ModePath, Modewise
from phasewise.paths.table import ScaledPath, TablePath, in_pixels

__all__ = [
    "BASES",
    "PATHS",
    "Basis",
    "CosinePath",
    "LinearPath",
    "ModePath",
    "Modewise",
    "NoisePath",
    "ScaledPath",
    "TablePath",
    "Time",
    "VarianceExplodingPath",
    "a_path",
    "as_scale",
    "as_time",
    "in_pixels",
    "isotropic",
    "path_from_config",
    "register_path",
    "translate",
]
