"""What a penalty is: quality lost per step and member, one object per way to count it; a registry of them.

The built-in ones are in :mod:`phasewise.scheduling.penalties`, with their formulas.  One of your own is one more
object: a subclass of :class:`Penalty`, or a :class:`PenaltyFunction`; registered (:func:`register_penalty`) it can be
named in a config and on the command line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.registry import Registry
from phasewise.results import Array, PriceList, StepErrors, a_price_list


class Penalty(ABC):
    """One way to count quality lost.

    Attributes:
        name: what a user calls it.  unit: of its values.  label: two or three words, for figures.
        meaning: one sentence for readers of a report.
    """

    name: str
    unit: str
    meaning: str
    label: str = ""
    distance = False
    """Whether values are distances, which a judge such as FID counts by their square, or squares already."""
    needs_losses = False
    """Whether it counts held-out losses, which need a clean image behind every noisy one."""
    ancestral = False
    """Whether it places the steps of the ancestral sampler, whose finite length it knows itself, or those of an ODE."""

    @abstractmethod
    def step(self, prices: PriceList) -> tuple[Array, Array]:
        """(value, stderr), each (S, N): excess over the reference of giving step k of the grid to member n."""

    def span(self, prices: PriceList) -> Array:
        """(S - 1, N): the excess as an integral over [t_{k+1}, t_k], however it will be cut into steps.

        Optional: a penalty without it prices the steps of a given grid only.
        """
        raise PhasewiseError(
            f"steps are placed by one of the penalties {', '.join(p.name for p in PENALTIES.values() if p.places)}; "
            f"{self.name} prices the steps of a given grid: use pw.optimise_schedule"
        )

    def stop(self, prices: PriceList) -> Array:
        """(S, N): excess of ending with a denoise by n at each time of the grid.  Optional, goes with :meth:`span`."""
        raise NotImplementedError

    def stray(self, error: Array, length: Array) -> Array:
        """What the solver's own error (pixel units) over a step of this length adds.  Optional, goes with span."""
        raise NotImplementedError

    def missing(self, prices: PriceList) -> str | None:
        """What the price list lacks for this penalty, with the mend; None where it has all."""
        return None

    def correlation(self, prices: PriceList) -> Array | None:
        """(N, S, S): how the errors of member n's values at two steps go together; None where it is not known."""
        return None

    @property
    def places(self) -> bool:
        """Whether it can also place steps."""
        return type(self).span is not Penalty.span

    def edges(self, prices: PriceList, errors: StepErrors) -> tuple[Array, Array]:
        """(T, T, N) for a step from time i to time j, NaN unless j > i, and (T, N) for ending at time i.

        The span between them, and what the solver strays over a step of that length; members that jump by their own
        flow do not stray.
        """
        # integrals from the first time to each: a span's is a difference
        until = np.vstack([np.zeros(len(prices.names)), np.cumsum(self.span(prices), axis=0)])
        length = prices.times[:, None] - prices.times[None]  # [i, j] = t_i - t_j, above 0 for a step down
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(length > 0, self.stray(errors.error, length), np.nan)
        jumps = np.array([name in prices.jumps for name in prices.names])
        # those that jump stray by 0; what no step leads to stays NaN for them too
        own = np.where(jumps, 0.0, np.nan_to_num(error)[:, :, None]) + np.where(np.isnan(error), np.nan, 0.0)[..., None]
        return until[None] - until[:, None] + own, self.stop(prices) + self.stray(errors.stop, prices.times)[:, None]


class PenaltyFunction(Penalty):
    """A penalty of your own from a function of the price list that gives (value, stderr), each (S, N)."""

    def __init__(
        self, function: Callable[[PriceList], tuple[Any, Any]], *, name: str, unit: str = "own unit", meaning: str = ""
    ) -> None:
        self.function, self.name, self.unit = function, name, unit
        self.label, self.meaning = name, meaning or f"The penalty {name}, given by its user."

    def step(self, prices: PriceList) -> tuple[Array, Array]:
        return self.function(prices)


PENALTIES: Registry[Penalty] = Registry("penalty")
"""Every penalty that can be named."""


def register_penalty(penalty: Penalty) -> Penalty:
    """Make ``penalty`` known by its name; returns it."""
    PENALTIES.register(penalty.name, penalty)
    return penalty


def get_penalty(penalty: str | Penalty | None, prices: PriceList) -> Penalty:
    """The penalty meant: by name, your own, or by default "frechet" where that was measured, else "w2".

    Raises PhasewiseError for an unknown name, and for your own where it has the name of a known one.
    """
    if penalty is None:
        return PENALTIES["w2" if prices.frechet is None else "frechet"]
    if isinstance(penalty, str):
        return PENALTIES[penalty]
    if not isinstance(penalty, Penalty):
        raise PhasewiseError(
            f"a penalty is a name ({', '.join(PENALTIES)}) or a Penalty, not {penalty!r}; wrap a function of the price "
            "list as PenaltyFunction(function, name=...)"
        )
    # records tell penalties apart by their names alone
    if penalty.name in PENALTIES and PENALTIES[penalty.name] is not penalty:
        raise PhasewiseError(f"there is a penalty {penalty.name!r} already; give yours another name")
    return penalty


@checks.checked(prices=a_price_list)
def step_penalties(prices: PriceList, penalty: str | Penalty | None = None) -> tuple[Array, Array]:
    """(value, stderr), each (S, N): excess over the reference of giving step k to member n.

    Raises PhasewiseError for an unknown penalty or one that was not measured, a grid that does not decrease, prices
    that are not finite, or values of another shape.
    """
    chosen = get_penalty(penalty, prices)
    check_prices(prices, chosen)
    shape = prices.losses.loss.shape
    try:
        given = [np.asarray(a, dtype=np.float64) for a in chosen.step(prices)]
    except (TypeError, ValueError):
        given = []
    value, stderr = given if len(given) == 2 else (np.zeros(0), np.zeros(0))
    if value.shape != shape or stderr.shape != shape or not (np.isfinite(value) & np.isfinite(stderr)).all():
        raise PhasewiseError(
            f"the penalty {chosen.name} must give (value, stderr), two finite arrays of shape {shape}: steps x members"
        )
    return value, stderr


def check_prices(prices: PriceList, penalty: Penalty) -> None:
    """Raises PhasewiseError as :func:`step_penalties` does."""
    table, times = prices.losses, prices.times
    if (np.diff(times) >= 0).any():
        raise PhasewiseError(
            "the price list's times must decrease: measure it on a sampler's time grid, e.g. pw.time_grid(16)"
        )
    lacking = penalty.missing(prices)
    if lacking:
        raise PhasewiseError(lacking)
    for field, values in (("gap", table.gap), ("distance", table.distance), ("frechet", prices.frechet)):
        bad = np.argwhere(~np.isfinite(values)) if values is not None else np.zeros((0, 2), dtype=int)
        if len(bad):
            k, i = bad[0]
            raise PhasewiseError(
                f"the {field} of {table.names[i]} at t = {times[k]:.3g} is not a number; measure it again"
            )
