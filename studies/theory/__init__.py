"""The theorems on systems small enough to check, classical and quantum; and a mixture nobody tuned estimators to."""

from studies.theory.study import Theory

__all__ = ["Theory"]
