"""Designs of networks compared at equal training time."""

from studies.designs.groups import GROUPS
from studies.designs.study import Designs, Options

__all__ = ["GROUPS", "Designs", "Options"]
