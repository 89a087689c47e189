"""The honest front: quality against cost for global-only choices of every size, mixtures and hybrids."""

from studies.front.study import Front

__all__ = ["Front"]
