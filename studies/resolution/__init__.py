"""How the saving moves with resolution, on fields whose every optimum is known."""

from studies.resolution.study import Options, Resolution

__all__ = ["Options", "Resolution"]
