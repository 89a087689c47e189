"""Whether nonlocality and symmetry breaking are one transition: exact models, digits, clothes, small photographs."""

from studies.transitions.study import TransitionsStudy

__all__ = ["TransitionsStudy"]
