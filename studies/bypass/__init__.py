"""Paths that go round the transition: noise of another colour, a field, a class; exact models, and digits."""

from studies.bypass.study import Bypass

__all__ = ["Bypass"]
