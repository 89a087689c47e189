"""Where a local network is the cheap one, for U-Nets and for transformers."""

from studies.locality.study import LocalityPays

__all__ = ["LocalityPays"]
