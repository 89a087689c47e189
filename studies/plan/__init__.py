"""What a plan adds: a small image seen whole, and a local network beside it, on exact fields and trained on digits."""

from studies.plan.study import PlanStudy

__all__ = ["PlanStudy"]
