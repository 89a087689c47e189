"""How the saving moves with resolution, on fields whose every optimum is known."""

from studies.resolution.study import Resolution

__all__ = ["Resolution"]
