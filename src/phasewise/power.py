r"""What so many samples can tell: whether two numbers differ, the least difference that would show, how many it takes.

A difference d of standard error s, from n samples, counts as told where ``|d| > RESOLVED s``.  Its estimate is normal
about the true difference D, so it is told with probability ``POWER`` (0.8) where::

    |D| = (RESOLVED + z_POWER) s = 2.84 s          the detectable difference, z_0.8 = 0.842

leaving out the chance, below one in a million, of calling it with the wrong sign.  As s falls like ``1 / sqrt(n)``,
telling a difference D takes ``n (2.84 s / D)^2`` samples (the usual sample-size calculation; Cohen 1988).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

RESOLVED = 2.0
"""Standard errors beyond which a difference counts as told."""
POWER = 0.8
"""How often the detectable difference would be told."""
REACH = RESOLVED + NormalDist().inv_cdf(POWER)
"""Detectable difference in standard errors: 2.84."""


@dataclass(frozen=True)
class Comparison:
    """A measured difference and its standard error, both in the unit of what is compared, from ``n`` samples a side."""

    difference: float
    stderr: float
    n: int

    @property
    def outcome(self) -> str:
        """ "lower", "level" or "higher": of the first against the second."""
        if abs(self.difference) <= RESOLVED * self.stderr:
            return "level"
        return "lower" if self.difference < 0 else "higher"

    @property
    def detectable(self) -> float:
        """The least true difference that so many samples tell with probability POWER."""
        return REACH * self.stderr

    def samples_for(self, difference: float) -> int:
        """How many samples a side tell a true ``difference`` other than 0 with probability POWER.

        At least 1; 2**53 at most, beyond which counts are no longer exact.
        """
        needed = self.n * (self.detectable / abs(difference)) ** 2 if difference else math.inf
        return math.ceil(min(max(needed, 1.0), 2.0**53))
