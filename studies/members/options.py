"""What the study may be asked for, and the names that it gives to kinds of members."""

from __future__ import annotations

from dataclasses import dataclass

from studies import subject
from studies.options import choice

Assignment = tuple[str, ...]
KINDS: dict[str, tuple[str, ...]] = {
    "answers reused": ("on", "held"),
    "features kept": ("deep", "deep1"),
    "cheaper global networks": ("coarse", "small"),
    "local networks": ("r1", "r2", "r3", "r5", "r8", "r12"),
    "closed forms": ("pixel", "wiener"),
    "a plan and the rest local": ("plan", "replan"),
    "a lower resolution": ("pooled",),
    "windows of attention": ("w1", "w2", "w3"),
}
"""Kinds of members, by the names that the study gives them."""
PENALTIES = ("frechet", "w2", "kl")
JUDGES = ("first", "unseen", "sliced")
BUDGETS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7)
LEADS = (
    "pixel 6*global global", "pixel 5*global on global", "pixel 5*global deep global", "pixel 5*global on r1",
    "pixel 4*global on on global", "pixel 4*global on on r1", "pixel coarse 4*global on r1",
    "pixel 2*coarse 3*global on r1", "pixel 2*coarse 3*global deep r1", "pixel 2*coarse 3*global on global",
    "pixel 2*coarse 2*global on on r1", "pixel 2*coarse 2*global deep on r1", "pixel 2*coarse global deep global on r1",
    "pixel 2*coarse global deep deep on r1", "pixel 2*coarse 2*global on deep r1", "pixel wiener coarse 3*global on r1",
    "pixel wiener coarse 2*global on on r1", "pixel wiener coarse global deep global on r1",
    "pixel wiener coarse coarse 2*global on r1", "pixel wiener 2*coarse global on on r1",
    "pixel wiener global deep global deep on r1", "pixel wiener global deep global on on r1",
    "pixel coarse global deep global on on r1", "pixel global deep global deep global on r1",
    "pixel wiener coarse 2*global deep on r1", "pixel wiener coarse global 2*deep on r1",
    "pixel 2*coarse 2*global 2*deep r1", "pixel 3*coarse global 2*deep r1", "pixel 3*coarse global deep on r1",
    "pixel 3*coarse global on deep r1", "pixel wiener 2*coarse global on deep r1",
    "pixel wiener 2*coarse global deep on r1",
    "pixel wiener 2*coarse global 2*deep r1", "pixel wiener coarse 2*global on deep r1",
    "pixel wiener coarse 2*global 2*deep r1", "pixel 2*coarse small global on deep r1",
    "pixel 2*coarse small global deep on r1", "pixel wiener coarse small global on deep r1",
)  # fmt: skip
"""Schedules of eight steps that no penalty chose; "5*global" is global five times."""


@dataclass(frozen=True)
class Options:
    pretrained: str | None = choice("mnist", "shipped set")
    run: str | None = choice(None, "a run folder instead")
    data: str | None = choice(None, "images instead of the set's own", quick=subject.STAND_IN, flag=False)
    data_dir: str | None = choice(None, "folder that holds the images")
    members: tuple[str, ...] = choice(
        ("global", "coarse", "small", "r1", "r3", "wiener"), "of the subject", quick=("global", "coarse", "r1")
    )
    also: tuple[str, ...] = choice((), "NAME=FOLDER of further denoisers; global=FOLDER takes the global one's place")
    deep: str = choice("level1", "part of the global network that is kept")
    steps: int = choice(8, "of a schedule, on an even grid", quick=8, flag=False)
    times: tuple[float, ...] = choice((), "start times of the steps instead")
    solver: str = choice("sde_dpmpp_2m", "of all; one call a step", flag=False)
    price_n: int = choice(1000, "validation images of the price list", quick=8)
    n: int = choice(1000, "samples of each schedule, once", quick=8)
    count: int = choice(100, "schedules drawn at random, of all kinds of members", quick=4)
    budgets: tuple[float, ...] = choice(BUDGETS, "of the optimised ones, of all global", quick=(0.4,))
    leads: tuple[str, ...] = choice(LEADS, "schedules of eight steps that no penalty chose", quick=LEADS[5:6])
    own_times: tuple[str, ...] = choice((), "schedules whose start times are searched", quick=(LEADS[5],))
    grids: int = choice(25, "judged in each of these searches", quick=3, flag=False)
    climbs: int = choice(0, "rounds of trying the neighbours of the best of every budget", quick=1)
    tries: int = choice(8, "neighbours tried in a round and budget", quick=1, flag=False)
    called: str | None = choice(None, "name of the tables, where the subject's is taken by another grid")
    placed: str | None = choice(None, "JSON of NAME: start times, of the global network alone")
    final: int = choice(0, "then judge the finalists on so many samples", quick=10)
    finalists: int = choice(14, "how many of them", quick=2)
    rival: str = choice("whole global", "finalist that the others are paired with")
    seeds: tuple[int, ...] = choice((1, 2), "of the finalists' noise", quick=(1,))
    seed: int = choice(0, "of the draw and of the first noise", flag=False)
    timed: tuple[int, ...] = choice(
        (1, 64), "images of the batches that finalists are timed on", quick=(1,), flag=False
    )
    rounds: int = choice(7, "in which they are timed", quick=1, flag=False)
