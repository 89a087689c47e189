"""Conditional mutual information: estimators against exact truth, maps of real images, the published recipe."""

from studies.cmi.estimators import CMIEstimators
from studies.cmi.exact import CMIExact
from studies.cmi.images import CMIImages
from studies.cmi.recipe import CMIRecipe

__all__ = ["CMIEstimators", "CMIExact", "CMIImages", "CMIRecipe"]
