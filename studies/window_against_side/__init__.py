"""Window against resolution: finite-size scaling on known models, and real pictures at several resolutions."""

from studies.window_against_side.study import WindowAgainstSide

__all__ = ["WindowAgainstSide"]
