"""What a window lacks: pixels of plan needed by time and by size, on exact fields and on digits."""

from studies.plans_needed.study import PlansNeeded

__all__ = ["PlansNeeded"]
