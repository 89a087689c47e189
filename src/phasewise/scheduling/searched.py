r"""The best start times of a sampler's steps, found by a judge: first the shape of the grid, then each time.

Times are moved in ``l``, the log-SNR, or in ``w = 1 / (1 + exp(l / 2))``, the time of the linear path, so a search is
the same on every path.  With u from 0 to 1 over the steps after the first::

    shapes in w:        w_k = end + (start - end) (1 - u)^p
    shapes in log-SNR:  l_k = l_start + (l_end - l_start) u^p

The first step starts at ``first`` always.  Both are searches by coordinates with a step that halves where nothing got
better (pattern search, Hooke & Jeeves 1961), deterministic, each grid judged once.  All candidates are judged on the
same noise, so what the luck of the noise gives to one it gives to its rivals too; what the search itself made of that
luck is told by judging the grid it began with and the one it chose on other noise.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers import Condition, Denoiser, HybridDenoiser
from phasewise.denoisers.base import a_denoiser
from phasewise.errors import PhasewiseError
from phasewise.files import read_json, write_json
from phasewise.metrics import FeatureNetwork, FrechetReference, SlicedReference
from phasewise.metrics.feature_base import a_feature_network
from phasewise.paths import LinearPath, NoisePath, a_path
from phasewise.results import DEFAULT_SOLVER, HybridSchedule, SearchedGrid
from phasewise.sampling import sample, time_grid
from phasewise.sampling.grid import SPACINGS
from phasewise.sampling.solvers import solver_name

BUDGET = 25
ENDS = (0.002, 0.1)
"""Where the last step starts: not later than the second, as a denoise from far out is a blurred image, which a Frechet
distance hardly sees (studies/LOG.md)."""
SHAPING = 0.4
"""Share of the budget for the shapes; the rest moves times one by one."""
LONG_FIRST = 0.6
"""Of linear time at the start, where a long first step ends."""
WIDEST, NARROWEST = 0.6, 0.1
"""First and last length of a move: of logarithms and of half log-SNRs, so in the odds of a time."""
LEAST_GAP = 1e-3
ROUNDED = 1e-9
"""Times that differ by less are the same."""

Times = tuple[float, ...]
Judge = Callable[[Times, int], float]
"""How much quality a grid loses on the noise of a seed; lower is better."""


@checks.checked(
    steps=checks.steps,
    judge=checks.function,
    path=a_path,
    first=checks.fraction,
    ends=checks.pair_inside(0, 1),
    budget=checks.count,
    seed=checks.seed,
    fresh_seed=checks.seed,
    about=checks.text,
    spacing=checks.one_of(SPACINGS, "spacing"),
    begin=checks.each(checks.fraction),
)
def search_times(
    steps: int,
    judge: Judge,
    *,
    path: NoisePath | None = None,
    first: float = 1.0,
    ends: tuple[float, float] = ENDS,
    budget: int = BUDGET,
    seed: int = 0,
    fresh_seed: int | None = None,
    folder: str | Path | None = None,
    about: str = "",
    spacing: str = "uniform",
    begin: Sequence[float] | None = None,
) -> SearchedGrid:
    """The best grid of ``steps`` start times by ``judge(times, seed)``, within ``budget`` judged grids.

    Args:
        judge: of (times, seed), deterministic: quality lost, lower is better; a penalty may pass over the seed.
        first: where the first step starts.  ends: the earliest and the latest time that the last one may start at.
        seed: of all candidates' noise.  fresh_seed: of the noise that the first and the chosen grid are judged on
            again (two more than the budget); default the next one.
        folder: every judged grid is kept there, and one that is called again goes on where it was stopped.
        about: says what the judge is, so that a folder of another question is not taken for this one's.
        spacing: of the grid that is judged first (:func:`phasewise.time_grid`).
        begin: the ``steps`` times of that grid, of any origin, instead: no shapes are tried, its times are moved one
            by one.

    Raises PhasewiseError for a grid without room, a judge that returns no number, a folder of another question, or a
    ``begin`` that is no such grid.
    """
    path = LinearPath() if path is None else path
    steps = int(steps)
    if steps < 1:
        raise PhasewiseError(f"steps must be at least 1, got {steps}")
    grids = _Grids(path, first, steps, ends)
    fresh_seed = 1 + seed if fresh_seed is None else fresh_seed
    asked = {"steps": steps, "path": path.config(), "first": first, "ends": ends, "seed": seed, "about": about}
    judged = _Judged(judge, None if folder is None else Path(folder), asked)
    search = _Search(judged, seed, budget)
    if begin is not None:
        begun = grids.given(begin)
    elif steps > 1:
        latest = min(max(0.02, ends[0]), ends[1])
        begun = time_grid(steps, path=path, t_start=first, t_min=latest, spacing=spacing)
    else:
        begun = (first,)
    search.ask(begun)
    if steps > 1:
        if begin is None:
            search.shape(grids)
        search.move(grids, WIDEST if begin is None else WIDEST / 2)
    return SearchedGrid(
        times=search.best,
        value=search.found[search.best],
        began=begun,
        began_value=search.found[begun],
        fresh_value=judged(search.best, fresh_seed),
        began_fresh_value=judged(begun, fresh_seed),
        seed=seed,
        fresh_seed=fresh_seed,
        judged=tuple(search.found),
        values=tuple(search.found.values()),
    )


@checks.checked(
    denoisers=checks.either(a_denoiser, checks.each(a_denoiser)),
    steps=checks.steps,
    judge=checks.function,
    solver=solver_name,
    n=checks.count,
    seed=checks.seed,
    batch=checks.count,
)
def search_grid(
    denoisers: Denoiser | Sequence[Denoiser],
    steps: int,
    judge: Callable[[Tensor], float],
    *,
    solver: str = DEFAULT_SOLVER,
    n: int = 1000,
    seed: int = 0,
    cond: Condition | None = None,
    batch: int = 64,
    **how: Any,
) -> SearchedGrid:
    """The best grid of ``steps`` start times for one denoiser, or for a given one at each step, by its samples.

    Args:
        denoisers: one for all steps, or ``steps`` of them: a fixed assignment, e.g. a cheap one first, or a closed
            form at t = 1, where everybody's answer is the mean of the images.
        judge: of ``n`` images (n, C, H, W), unclamped: quality lost, lower is better (:func:`by_frechet`).
        how: as for :func:`search_times`: ``first``, ``ends``, ``budget``, ``fresh_seed``, ``folder``, ``about``,
            ``spacing``, ``begin``.

    Raises PhasewiseError as :func:`search_times` and :func:`phasewise.sample` do, and for another number of denoisers
    than steps.
    """
    given = [denoisers] * steps if isinstance(denoisers, Denoiser) else list(denoisers)
    if len(given) != steps:
        raise PhasewiseError(f"give one denoiser, or one for each of {steps} steps; got {len(given)}")
    distinct = {id(d): f"member {k + 1} of the list" for k, d in reversed(list(enumerate(given)))}
    members = {distinct[id(d)]: d for d in given}
    path = given[-1].path

    def value(times: Times, noise: int) -> float:
        plan = HybridSchedule(times, tuple(distinct[id(d)] for d in given), solver, path.config())
        return judge(sample(HybridDenoiser(members, plan), n=n, seed=noise, cond=cond, batch=batch))

    about = f"{how.pop('about', '')} {solver}, n = {n}".strip()
    return search_times(steps, value, path=path, seed=seed, about=about, **how)


@checks.checked(
    features=a_feature_network,
    reference=checks.made(FrechetReference, "a FrechetReference"),
    pixel_range=checks.each(checks.number),
)
def by_frechet(
    features: FeatureNetwork, reference: FrechetReference, pixel_range: Sequence[float] = (0.0, 1.0)
) -> Callable[[Tensor], float]:
    """A judge of samples (n, C, H, W): their Fréchet distance from ``reference``, clamped to the pixel range before."""
    reference.check_network(features)
    low, high = pixel_range

    def judge(images: Tensor) -> float:
        return reference.from_features(features.extract(images.clamp(low, high)).double().cpu())

    return judge


@checks.checked(
    judge=checks.function, pixels=checks.made(SlicedReference, "a SlicedReference"), allowed=checks.positive
)
def guarded(
    judge: Callable[[Tensor], float],
    pixels: SlicedReference,
    allowed: float,
    pixel_range: Sequence[float] = (0.0, 1.0),
) -> Callable[[Tensor], float]:
    """``judge`` of samples (n, C, H, W), times what the distance of their pixels is over ``allowed``, where it is more.

    A search by one network's features finds what that network is fooled by.  On colour photographs, grids of long
    steps, whose images are too hard in contrast, had a quarter less FID, and pixels ten times as far from real ones
    (docs/results/cifar10-unets.md).  A second look of another kind, which can only forbid, keeps a search from there.

    Args:
        pixels: real images; the sliced Wasserstein distance from them is taken, clamped to the pixel range before.
        allowed: that distance of as many samples of a schedule above suspicion, e.g. the reference's on even steps.
    """
    low, high = pixel_range

    def judged(images: Tensor) -> float:
        return judge(images) * excess(pixels.distance(images.clamp(low, high)), allowed)

    return judged


def excess(distance: float, allowed: float) -> float:
    """How often over what is allowed a distance is; 1 where it is not."""
    return max(1.0, distance / allowed)


class _Grids:
    """Grids of ``steps`` times on a path, from ``first``, made of shapes and of half log-SNRs; none without room."""

    def __init__(self, path: NoisePath, first: float, steps: int, ends: tuple[float, float]) -> None:
        self.path, self.first, self.steps = path, first, steps
        top = self.odds(first)
        self.top = _time(top)
        self.least, self.latest = (_time(self.odds(t)) for t in ends)
        if steps > 1 and not self.top - self.latest > LEAST_GAP * (steps - 1):
            raise PhasewiseError(f"no room for {steps} steps from {first:g} to {ends[1]:g}; lower the latest of ends")

    def given(self, times: Sequence[float]) -> Times:
        """Checked start times of somebody else's."""
        grid = tuple(float(t) for t in times)
        if len(grid) != self.steps or abs(grid[0] - self.first) > LEAST_GAP:
            raise PhasewiseError(f"begin must be {self.steps} times from {self.first:g} on, got {grid}")
        if self.steps > 1 and self.of_odds([self.odds(t) for t in grid[1:]]) is None:
            raise PhasewiseError(
                f"begin must fall, by at least {LEAST_GAP:g} a step, and end within ends, {self.least:g} to "
                f"{self.latest:g} in linear time; got {grid}"
            )
        return (self.first, *grid[1:])

    def odds(self, t: float) -> float:
        """Minus half the log-SNR: the logit of linear time; infinite at pure noise."""
        return -float(self.path.log_snr(torch.tensor(t, dtype=torch.float64))) / 2

    def of_odds(self, odds: Sequence[float]) -> Times | None:
        """The grid whose times after the first have these; None where they do not fall, or end too late."""
        w = [self.top, *map(_time, odds)]
        if min(a - b for a, b in zip(w, w[1:], strict=False)) < LEAST_GAP:
            return None
        if not self.least * (1 - 1e-9) <= w[-1] <= self.latest * (1 + 1e-9):
            return None
        level = torch.tensor([-2 * o for o in odds], dtype=torch.float64)
        times = (self.first, *(float(t) for t in self.path.t_of_log_snr(level)))
        return times if all(b < a for a, b in zip(times, times[1:], strict=False)) else None

    def shaped(self, shape: Sequence[float], in_w: bool) -> Times | None:
        """The grid of a shape: odds of its start and end, logarithm of its exponent."""
        start, end, power = shape[0], shape[1], math.exp(shape[2])
        later = self.steps - 1
        parts = [k / (later - 1) for k in range(later)] if later > 1 else [1.0]
        if in_w:
            w = [_time(end) + (_time(start) - _time(end)) * (1 - u) ** power for u in parts]
            return self.of_odds([_logit(v) for v in w])
        return self.of_odds([start + (end - start) * u**power for u in parts])

    def shapes(self) -> Iterator[tuple[list[float], bool]]:
        """Where to begin: even steps, steps after a long first one, even steps that end early, all in w; and even ones
        in log-SNR."""
        middle = max(self.latest / 2, self.least)
        for end, start in ((middle, None), (middle, LONG_FIRST * self.top), (self.latest, None)):
            even = self.top - (self.top - end) / (self.steps - 1)
            yield [_logit(even if start is None else start), _logit(end), 0.0], True
        yield [_logit(0.9 * self.top), _logit(middle), 0.0], False


class _Judged:
    """A judge that keeps what it has judged, in a folder where there is one."""

    def __init__(self, judge: Judge, folder: Path | None, asked: dict[str, Any]) -> None:
        self.judge, self.folder = judge, folder
        self.known: dict[tuple[Times, int], float] = {}
        if folder is None:
            return
        whole = folder / "search.json"
        if whole.exists() and read_json(whole) != json.loads(json.dumps(asked)):
            raise PhasewiseError(f"{folder} holds another search ({read_json(whole)}); give another folder")
        write_json(whole, asked)

    def __call__(self, times: Times, seed: int) -> float:
        if (times, seed) not in self.known:
            self.known[times, seed] = self._kept(times, seed)
        return self.known[times, seed]

    def _kept(self, times: Times, seed: int) -> float:
        if self.folder is None:
            return self._value(times, seed)
        digest = hashlib.sha256(json.dumps([times, seed]).encode()).hexdigest()[:16]
        file = self.folder / f"grid-{digest}.json"
        if not file.exists():
            write_json(file, {"times": list(times), "seed": seed, "value": self._value(times, seed)})
        return float(read_json(file)["value"])

    def _value(self, times: Times, seed: int) -> float:
        found = self.judge(times, seed)
        try:
            value = float(found)
        except (TypeError, ValueError) as error:
            raise PhasewiseError(f"a judge gives one number for a grid; this one does not ({error})") from error
        if math.isnan(value):
            raise PhasewiseError(f"the judge gives NaN for the grid {times}; look at samples of it")
        return value


class _Search:
    """Judged grids, the best of them, and how many more may be."""

    def __init__(self, judged: _Judged, seed: int, budget: int) -> None:
        self.judged, self.seed, self.budget = judged, seed, budget
        self.found: dict[Times, float] = {}

    @property
    def best(self) -> Times:
        return min(self.found, key=lambda times: self.found[times])

    def ask(self, times: Times | None) -> float:
        """What a grid loses; infinite where there is none."""
        if times is None:
            return math.inf
        for known, value in self.found.items():  # the way back from a move is rounded
            if max(abs(a - b) for a, b in zip(known, times, strict=True)) < ROUNDED:
                return value
        self.found[times] = self.judged(times, self.seed)
        return self.found[times]

    def shape(self, grids: _Grids) -> None:
        """Judge shapes, and move the best of them."""
        limit = max(round(SHAPING * self.budget), 1)
        begun = []
        for shape, in_w in grids.shapes():
            if len(self.found) < limit:
                begun.append((self.ask(grids.shaped(shape, in_w)), shape, in_w))
        if begun:
            _, shape, in_w = min(begun, key=lambda b: b[0])
            self.descend(shape, lambda s: grids.shaped(s, in_w), limit)

    def move(self, grids: _Grids, widest: float) -> None:
        """Move times of the best grid so far, by so much at first."""
        odds = [grids.odds(t) for t in self.best[1:]]
        self.descend(odds, grids.of_odds, self.budget, widest, self.found[self.best])

    def descend(
        self,
        at: Sequence[float],
        grid: Callable[[Sequence[float]], Times | None],
        limit: int,
        move: float = WIDEST,
        known: float | None = None,
    ) -> None:
        """Move one number after the other either way, on while it gets better; halve the move where nothing did.

        ``known``: what the grid of ``at`` loses, where that is known: it may have been rounded since.
        """
        here = list(at)
        least = known
        if least is None:
            least = self.ask(grid(here)) if len(self.found) < limit else math.inf
        ways = [1.0] * len(here)  # the way that paid last is tried first
        while move >= NARROWEST and len(self.found) < limit:
            better = False
            for k in range(len(here)):
                for way in (ways[k], -ways[k]):
                    tried = [v + way * move * (i == k) for i, v in enumerate(here)]
                    if len(self.found) >= limit:
                        return
                    value = self.ask(grid(tried))
                    if value < least:
                        here, least, better, ways[k] = tried, value, True, way
                        break
            if not better:
                move /= 2


def _time(odds: float) -> float:
    """Linear time of its logit."""
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0


def _logit(w: float) -> float:
    w = min(max(w, 1e-12), 1 - 1e-12)
    return math.log(w / (1 - w))
