"""What the front may be asked for."""

from __future__ import annotations

from dataclasses import dataclass

from studies import subject
from studies.options import choice

ALONE = (
    *(f"exp_ab2/{n}" for n in (6, 8, 12)), *(f"sde_dpmpp_2m/{n}" for n in (4, 5, 6, 7, 8, 10, 12, 16)),
    "ancestral/12", "ancestral/20", "heun/4", "heun/8",
)  # fmt: skip
CHEAP_ALONE = ("exp_ab2/8", *(f"sde_dpmpp_2m/{n}" for n in (5, 6, 7, 8, 10, 12)))
SHARES = (0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class Options:
    pretrained: str = choice("mnist", "shipped set")
    run: str | None = choice(None, "a run folder instead")
    data: str | None = choice(None, "images instead of the set's own", quick=subject.STAND_IN)
    data_dir: str | None = choice(None, "folder that holds the images")
    members: tuple[str, ...] = choice((), "only these; none: all", quick=("global", "coarse", "r3", "r1"))
    n: int = choice(2000, "samples of each schedule", quick=8)
    price_n: int = choice(500, "validation images of the price list", quick=8)
    error_n: int = choice(32, "images of the step errors", quick=2, flag=False)
    candidates: int = choice(20, "times of the price list", quick=4, flag=False)
    alone: tuple[str, ...] = choice(ALONE, "SOLVER/STEPS of the global network alone", quick=("sde_dpmpp_2m/2",))
    cheap_alone: tuple[str, ...] = choice(CHEAP_ALONE, "and of cheaper global ones", quick=("exp_ab2/2",), flag=False)
    solvers: tuple[str, ...] = choice(("sde_dpmpp_2m",), "of mixtures and hybrids")
    steps: tuple[int, ...] = choice((6, 8, 10), "of mixtures and hybrids", quick=(3,))
    shares: tuple[float, ...] = choice(SHARES, "of the global network's cost, for mixtures and hybrids", quick=(0.6,))
    windowed: int = choice(12, "steps of the windows", quick=3, flag=False)
    windows: int = choice(7, "how many of them, the published one first", quick=1, flag=False)
    budgets: tuple[float, ...] = choice(
        (0.12, 0.2, 0.3, 0.45), "of placed steps, of 14 Heun steps", quick=(0.2,), flag=False
    )
    only: str = choice("", "only schedules whose name matches this regular expression")
    final: int | None = choice(None, "then judge the finalists again on so many samples", quick=12)
    finalists: str = choice("", "only finalists whose name matches this regular expression", quick="hybrid")
    also: str | None = choice(None, "and these, by a regular expression, finalists or not")
    against: str = choice("global sde_dpmpp_2m/8", "what finalists are set beside", quick="global sde_dpmpp_2m/2")
    beside: int = choice(2000, "samples compared with it pixel by pixel and class by class", quick=8, flag=False)
    seeds: tuple[int, ...] = choice((1, 2, 3), "of the finalists' noise", quick=(1,))
    timed: int = choice(64, "images of a batch that is timed", quick=2, flag=False)
    rounds: int = choice(5, "in which the finalists are timed", quick=1, flag=False)
