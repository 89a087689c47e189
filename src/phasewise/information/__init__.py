"""Conditional mutual information I(A : C | B) of noisy images, in nats, with standard errors."""

from phasewise.information.base import ESTIMATORS, CMIEstimator, make_estimator, register_estimator
from phasewise.information.map import cmi_map
from phasewise.information.problem import Problem, make_problem
from phasewise.information.regions import Geometry, make_geometry

__all__ = [
    "ESTIMATORS",
    "CMIEstimator",
    "Geometry",
    "Problem",
    "cmi_map",
    "make_estimator",
    "make_geometry",
    "make_problem",
    "register_estimator",
]
