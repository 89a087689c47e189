"""The interface of all estimators of I(A : C | B), and their registry."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.information.problem import LEAST_IMAGES, Problem
from phasewise.registry import Registry
from phasewise.results import Estimate
from phasewise.work import Work

Cell = tuple[int, int]
"""(index into ``problem.times``, index into ``problem.radii``)."""
Say = Callable[[str], None]


class CMIEstimator(ABC):
    """Estimates cells of a map.

    Class attributes:
        name: what a user calls it.
        bound: what the value bounds in expectation: "upper", "lower" or "neither", in a short phrase.
        missed: share of what a value has above .3 nats by which it may be wrong beyond the error it claims.

    Options are keyword arguments of the constructor, kept as attributes of the same names; ``options()`` gives them
    back for the record.
    """

    name: ClassVar[str]
    bound: ClassVar[str]
    missed: ClassVar[float] = 0.0

    @abstractmethod
    def estimate(
        self, problem: Problem, cells: Sequence[Cell], folder: Path | None = None, say: Say = lambda _: None
    ) -> Iterator[tuple[Cell, Estimate]]:
        """Yield each cell of ``cells`` with its estimate, in any order, as soon as it is known.

        ``folder``: where work worth keeping between calls may lie (may not exist yet).  ``say`` takes progress lines.

        Raises :class:`PhasewiseError` naming the cell when a loss is not finite.
        """

    def options(self) -> dict[str, Any]:
        return dict(vars(self))

    def check_number(self, n: int) -> None:
        """Raise :class:`PhasewiseError` where ``n`` images are too few for these options; known before any work."""
        if n < LEAST_IMAGES:
            raise PhasewiseError(f"need at least {LEAST_IMAGES} images for an estimate with an error, got {n}")

    def held_out(self, n: int) -> int:
        """How many of ``n`` images an estimate rests on."""
        return n

    def work(self, problem: Problem, n: int) -> list[Work] | None:
        """What measuring every cell of ``problem`` takes on ``n`` images like its own, which may be fewer, in pieces
        that can be tried; None where that cannot be known before the images are seen."""
        return None

    def bytes(self, size: int, n: int) -> float:
        """Memory that it takes at the most beside ``n`` images of ``size`` numbers, about: here, a copy of them."""
        return 4.0 * size * n


def whole(name: str, value: Any, least: int) -> int:
    """``value`` as an int, so that 5.0 becomes 5.

    Raises :class:`PhasewiseError` naming the option where it is no whole number >= ``least`` (a bool is none).
    """
    return checks.whole(least)(value, name)


Kind = type[CMIEstimator]
ESTIMATORS = Registry[Kind | str]("estimator")
"""Estimators by name: a class, or where in this room to find it ("module:class"), so that only what is used loads."""

for _name, _home in {
    "density": "density:DensityEstimator",
    "mmse": "mmse:MMSEEstimator",
    "mine": "critics:MINE",
    "nwj": "critics:NWJ",
    "infonce": "critics:InfoNCE",
    "smile": "critics:SMILE",
    "classifier": "classifier:ClassifierEstimator",
    "knn": "knn:NearestNeighbours",
    "gaussian": "gaussian:GaussianEstimator",
}.items():
    ESTIMATORS.register(_name, _home)


def register_estimator(name: str, kind: Kind) -> Kind:
    """Let :func:`make_estimator`, and so a map, know the class ``kind`` by ``name``; returns it.

    Raises :class:`PhasewiseError` for anything but a :class:`CMIEstimator` class whose ``name`` is that name, and for a
    name that is taken.
    """
    if not (isinstance(kind, type) and issubclass(kind, CMIEstimator)):
        raise PhasewiseError(f"an estimator is a class derived from CMIEstimator, got {kind!r}")
    if getattr(kind, "name", None) != name:
        raise PhasewiseError(f"{kind.__name__} must carry the name it is registered under: set name = {name!r} in it")
    ESTIMATORS.register(name, kind)
    return kind


def _kind(name: str) -> Kind:
    entry = ESTIMATORS[name]
    if not isinstance(entry, str):
        return entry
    module, attribute = entry.split(":")
    return getattr(importlib.import_module(f"phasewise.information.{module}"), attribute)


def make_estimator(estimator: str | CMIEstimator, **options: Any) -> CMIEstimator:
    """An estimator by name, with its options; an estimator passes through (then without options).

    Raises :class:`PhasewiseError` for a name or option that does not exist.
    """
    if isinstance(estimator, CMIEstimator):
        if options:
            raise PhasewiseError(f"give the options {sorted(options)} to the estimator itself")
        return estimator
    if not isinstance(estimator, str):
        raise PhasewiseError(f"an estimator is a name ({', '.join(ESTIMATORS)}) or a CMIEstimator, got {estimator!r}")
    kind = _kind(estimator)
    try:
        return kind(**options)
    except PhasewiseError:
        raise
    except ValueError as error:
        raise PhasewiseError(f"{estimator}: {error}") from error
    except TypeError as error:
        known = ", ".join(kind().options()) or "none"
        unknown = ", ".join(k for k in options if k not in kind().options())
        wrong = f"{estimator} has no option {unknown}" if unknown else f"{estimator}: {error}"
        raise PhasewiseError(f"{wrong}; its options are {known}") from error
