"""How much of everything: the numbers of a large GPU, and those of two processor cores."""

from __future__ import annotations

from dataclasses import dataclass

SIZES = ("gpu", "cpu")
FEW_VALIDATION = 128
"""Validation images while training on a processor, where looking at all of them twenty times would take long."""


@dataclass(frozen=True)
class Amount:
    """How long networks are trained: so many seconds on whatever device there is, or so many images.

    Seconds fill a borrowed half hour; images give the same networks again, however busy the machine is.
    """

    seconds: float = 0.0
    images: int = 0

    def steps(self, batch: int, factor: float, pace: float | None = None) -> int:
        """Steps of ``batch`` images at ``factor`` times the length; at ``pace`` steps a second where seconds count."""
        if self.images:
            return max(round(self.images * factor / batch), 1)
        assert pace is not None
        return max(round(pace * self.seconds * factor), 100)


@dataclass(frozen=True)
class FrontSize:
    """How a front is searched and judged.

    Attributes:
        n_first: samples of every schedule; n_final: of each finalist, on each of two other seeds.
        trials: grids tried for every network and count of steps.
        counts: of steps, the first of which is free, in the order in which their times are searched for.
        shares: of the cost of all global steps that hybrids may take.
        finer: hybrids are also put on the grids of more steps than the reference would pay for.
        most: finalists of each family.
        own: of each family that pays for networks: so many of the cheapest near the bound, as many of the cheapest in
            reach of it, and the best, are moved to times of their own before; 0: none.
        prices: (validation images, times) of the price list.
        rounds: of the clock; batch: images at a time, None by the size of an image.
    """

    n_first: int
    n_final: int
    trials: int
    counts: tuple[int, ...] = (3, 4, 5, 6, 7, 8, 10)
    shares: tuple[float, ...] = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
    finer: bool = True
    most: int = 10
    own: int = 2
    prices: tuple[int, int] = (1000, 26)
    rounds: int = 5
    batch: int | None = None


TINY = FrontSize(8, 8, 2, counts=(3, 4), shares=(0.5,), finer=False, most=1, own=1, prices=(8, 4), rounds=1, batch=8)
"""The quick form's."""


def on_two_cores(
    n_first: int, n_final: int, trials: int, prices: tuple[int, int], more: tuple[int, ...] = (), own: int = 1
) -> FrontSize:
    """``more``: further counts, such as those below three for young networks, whose errors add up over the steps."""
    return FrontSize(
        n_first, n_final, trials, counts=(3, 4, 5, 6, 8, *more), finer=False,
        shares=(0.12, 0.2, 0.3, 0.35, 0.45, 0.65), most=6, own=own, prices=prices, batch=32,
    )  # fmt: skip
