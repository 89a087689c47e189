r"""What others recommend: published rules for which step runs what, each from its own description.

A rule gives an assignment of member names to steps (as those of :mod:`phasewise.scheduling.baselines`, which has
T-Stitch), or a *mask*: True where a step is computed, False where what was kept is taken
(:func:`masked` makes an assignment of it).  :func:`schedule_of` makes a schedule of an assignment.

What the field's caches keep, in the members of this package (:mod:`phasewise.denoisers.reuse`), is named by
:data:`RULES`.  "The model's answer reused" there is mostly what the blocks add to their input while stem and head stay
fresh, ``ReusedFeatures(net, "blocks/0:n")``; only step-skipping samplers keep the predicted noise or velocity itself,
``ReusedAnswer(quantity="eps" or "v")``.

Threshold caches decide for every prompt as they go.  Here their signals are measured on a few trajectories of the
network (:mod:`phasewise.scheduling.field_signals`) and the rule's decisions on the means become one fixed mask: the
same for all samples, with a cost that is known beforehand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.paths import LinearPath, NoisePath, a_path
from phasewise.results import DEFAULT_SOLVER, HybridSchedule
from phasewise.sampling import calls_per_step
from phasewise.sampling.solvers import solver_name
from phasewise.scheduling.field_signals import Changes, a_change

Mask = tuple[bool, ...]


@dataclass(frozen=True)
class Rule:
    """A published rule: who wrote it, and what it keeps or swaps, in this package's members."""

    source: str
    members: str


RULES: dict[str, Rule] = {
    "T-Stitch": Rule("Pan et al. 2024, arXiv 2402.14167", "a small network first, then the large one"),
    "SRDiffusion": Rule("Cheng et al. 2025, arXiv 2505.19151", "the large network first, then a small one"),
    "FlexiDiT": Rule("Anagnostidis et al. 2025, arXiv 2502.20126", "coarse patches first: T-Stitch with that member"),
    "DeepCache": Rule("Ma et al. 2023, arXiv 2312.00858", 'ReusedFeatures(unet, "level1"), at intervals'),
    "FORA": Rule("Selvaraju et al. 2024, arXiv 2407.01425", 'ReusedFeatures(dit, "attention"), at intervals'),
    "Delta-DiT": Rule(
        "Chen et al. 2024, arXiv 2406.01125",
        'ReusedFeatures(dit, "blocks/m:n"), then ReusedFeatures(dit, "blocks/0:m")',
    ),
    "TaylorSeer": Rule("Liu et al. 2025, arXiv 2503.06923", "ReusedFeatures(..., order=1 or 2), at intervals"),
    "cache-dit": Rule(
        "vipshop/cache-dit, steps_mask of cache_dit 1.2", 'ReusedFeatures(dit, "blocks/1:n", order), a fixed mask'
    ),
    "TeaCache": Rule("Liu et al. 2024, arXiv 2411.19108", 'ReusedFeatures(dit, "blocks/0:n"), by a threshold'),
    "MagCache": Rule("Ma et al. 2025, arXiv 2506.09045", 'ReusedFeatures(dit, "blocks/0:n"), by a threshold'),
    "SeaCache": Rule("Chung et al. 2026, arXiv 2602.18993", 'ReusedFeatures(dit, "blocks/0:n"), by a threshold'),
    "LeMiCa": Rule("Gao et al. 2025, arXiv 2511.00090", 'ReusedFeatures(dit, "blocks/0:n"), by a minimax path'),
}
"""The rules of this module.  The random search of OMS-DPM (Liu et al. 2023, arXiv 2306.08860) is in the studies."""


# --- assignments ------------------------------------------------------------------------------------------------------


@checks.checked(times=checks.times, large=checks.text, small=checks.text, fraction=checks.unit)
def large_first(times: Sequence[float], large: str, small: str, fraction: float) -> tuple[str, ...]:
    """T-Stitch reversed (SRDiffusion, Cheng et al. 2025, arXiv 2505.19151): ``large`` sketches, ``small`` takes the
    last ``fraction`` of the steps, rounded."""
    count = round(fraction * len(times))
    return (large,) * (len(times) - count) + (small,) * count


@checks.checked(times=checks.times, whole=checks.text, reused=checks.text, interval=checks.count, warm_up=checks.count)
def at_intervals(
    times: Sequence[float], whole: str, reused: str, interval: int, *, warm_up: int = 1
) -> tuple[str, ...]:
    """``whole`` at the first ``warm_up`` steps and at every ``interval``-th from the last of them on, ``reused`` at the
    steps between: DeepCache (arXiv 2312.00858, section 3.3, uniform), FORA (2407.01425), TaylorSeer (2503.06923, which
    warms up by as many steps as its order needs)."""
    return tuple(whole if k < warm_up or (k - warm_up + 1) % interval == 0 else reused for k in range(len(times)))


@checks.checked(
    times=checks.times, whole=checks.text, rear=checks.text, front=checks.text, interval=checks.count,
    switch=checks.unit,
)  # fmt: skip
def delta_dit(
    times: Sequence[float], whole: str, rear: str, front: str, interval: int, *, switch: float = 0.5
) -> tuple[str, ...]:
    """Delta-DiT (Chen et al. 2024, arXiv 2406.01125): between whole steps at every ``interval``-th, the ``rear`` blocks
    are kept during the first ``switch`` of the steps, rounded, while outlines form, and the ``front`` ones after."""
    early = round(switch * len(times))
    return tuple(whole if k % interval == 0 else rear if k < early else front for k in range(len(times)))


@checks.checked(times=checks.times, whole=checks.text, reused=checks.text, mask=checks.each(checks.flag))
def masked(times: Sequence[float], whole: str, reused: str, mask: Sequence[bool]) -> tuple[str, ...]:
    """``whole`` where the mask is True, ``reused`` elsewhere.

    Raises PhasewiseError for a mask of another length than the grid, or one whose first step is not computed.
    """
    if len(mask) != len(times):
        raise PhasewiseError(f"a mask of {len(mask)} steps for a grid of {len(times)}; one entry a step")
    if not mask[0]:
        raise PhasewiseError("the first step of a mask is computed: nothing is kept before it")
    return tuple(whole if computed else reused for computed in mask)


@checks.checked(
    times=checks.times,
    assignment=checks.each(checks.text),
    flops=checks.by_name(checks.not_negative),
    solver=solver_name,
    path=a_path,
    label=checks.text,
)
def schedule_of(
    times: Sequence[float],
    assignment: Sequence[str],
    flops: Mapping[str, float],
    *,
    solver: str = DEFAULT_SOLVER,
    path: NoisePath | None = None,
    label: str = "",
) -> HybridSchedule:
    """A rule's assignment as a schedule with its cost; ``flops``: of one call on one image, by member.

    Raises PhasewiseError naming a member without a cost, or for an assignment of another length than the grid.
    """
    missing = [name for name in dict.fromkeys(assignment) if name not in flops]
    if missing:
        raise PhasewiseError(f"no cost of {missing[0]!r}; there are {', '.join(flops)}")
    if len(assignment) != len(times):
        raise PhasewiseError(f"{len(assignment)} members for a grid of {len(times)} steps")
    calls = calls_per_step(solver, len(times))
    mflop = sum(c * flops[name] for c, name in zip(calls, assignment, strict=True)) / 1e6
    where = (path or LinearPath()).config()
    return HybridSchedule(tuple(times), tuple(assignment), solver, where, mflop=mflop, label=label)


# --- cache-dit's masks ------------------------------------------------------------------------------------------------

_BINS: dict[str, dict[str, tuple[tuple[int, ...], tuple[int, ...]]]] = {
    "28": {
        "slow": ((8, 3, 3, 2, 1, 1), (1, 2, 2, 2, 3)),
        "medium": ((6, 2, 2, 2, 2, 1), (1, 3, 3, 3, 3)),
        "fast": ((6, 1, 1, 1, 1, 1), (1, 3, 4, 5, 4)),
        "ultra": ((4, 1, 1, 1, 1), (2, 5, 6, 7)),
    },
    "15": {
        "slow": ((4, 2, 2, 2, 1), (1, 1, 1, 1)),
        "medium": ((4, 2, 1, 1, 1), (1, 1, 2, 2)),
        "fast": ((3, 1, 1, 1, 1), (1, 2, 2, 3)),
        "ultra": ((2, 1, 1, 1, 1), (1, 2, 3, 3)),
    },
    "9": {
        "slow": ((5, 2, 1), (1,)),
        "medium": ((5, 1, 1), (1, 1)),
        "fast": ((4, 1, 1), (1, 2)),
        "ultra": ((3, 1, 1), (2, 2)),
    },
    "8": {
        "slow": ((5, 1, 1), (1,)),
        "medium": ((4, 1, 1), (1, 1)),
        "fast": ((3, 1, 1), (1, 2)),
        "ultra": ((2, 1, 1), (2, 2)),
    },
    "6": dict.fromkeys(("slow", "medium", "fast", "ultra"), ((3, 1), (2,))),
    "4": dict.fromkeys(("slow", "medium", "fast", "ultra"), ((2, 1), (1,))),
}
"""Steps computed, and steps kept after each such run, in turn, for the numbers of steps that cache-dit tabulates."""
POLICIES = tuple(_BINS["28"])


@checks.checked(steps=checks.count, policy=checks.one_of(POLICIES, "policy of cache-dit"))
def cache_dit_mask(steps: int, policy: str = "medium") -> Mask:
    """The fixed mask of cache-dit for so many steps: "slow", "medium" (15 of 28 computed), "fast" (11), "ultra" (8).

    Between its tables (4, 6, 8, 9, 15 and 28 steps) it is rescaled as cache-dit's ``steps_mask`` does: to fewer steps
    by taking one from the last run kept and one from the last run computed in turn, to more by letting each run grow by
    half of its share of the new length.  (Of 16 to 21 steps "fast" and "ultra" then keep one long run: single computed
    steps go first.)  The last step is always computed.  Raises PhasewiseError for a number of steps
    that cache-dit has no mask for: fewer than 8, other than 4 and 6.
    """
    if steps < 8 and steps not in (4, 6):
        raise PhasewiseError(f"cache-dit has masks of 4, 6 and from 8 steps on; got {steps} steps")
    table = str(steps) if str(steps) in _BINS else "15" if steps < 16 else "28"
    computed, kept = (list(runs) for runs in _BINS[table][policy])
    if steps > 28:
        _grow(computed, kept, steps)
    _shrink(computed, kept, steps)
    mask = list[bool]()
    for run, after in itertools.zip_longest(computed, kept, fillvalue=0):
        mask += [True] * run + [False] * after
    return (*mask[: steps - 1], True)


def _grow(computed: list[int], kept: list[int], steps: int) -> None:
    first, share = (list(computed), list(kept)), steps / 28 * 0.5
    while sum(computed) + sum(kept) < steps:
        for i in range(min(len(computed), len(kept))):
            for runs, start in zip((computed, kept), first, strict=True):
                runs[i] += max(int(start[i] * share), 1)
                if sum(computed) + sum(kept) >= steps:
                    return
        computed[-1] += 1


def _shrink(computed: list[int], kept: list[int], steps: int) -> None:
    while sum(computed) + sum(kept) > steps:
        for runs in (kept, computed):
            if runs and sum(computed) + sum(kept) > steps:
                runs[-1] -= 1
                if not runs[-1]:
                    runs.pop()


# --- threshold caches -------------------------------------------------------------------------------------------------


@checks.checked(
    changes=checks.each(checks.not_negative, least=0), threshold=checks.not_negative, retained=checks.count,
)  # fmt: skip
def accumulated_mask(changes: Sequence[float], threshold: float, *, retained: int = 1) -> Mask:
    """TeaCache's rule (Liu et al. 2024, arXiv 2411.19108, eq. 5), and SeaCache's: changes (S - 1,) from step to step
    are summed since the last computed step; below the threshold a step is kept, else computed.  The first ``retained``
    steps and the last are computed."""
    mask, total, steps = [], 0.0, len(changes) + 1
    for k in range(steps):
        total += changes[k - 1] if k else 0.0
        computed = k < retained or k == steps - 1 or total >= threshold
        mask.append(computed)
        total = 0.0 if computed else total
    return tuple(mask)


@checks.checked(
    ratios=checks.each(checks.not_negative, least=0), threshold=checks.not_negative, longest=checks.count,
    retained=checks.count,
)  # fmt: skip
def magnitude_mask(ratios: Sequence[float], threshold: float, *, longest: int = 3, retained: int = 1) -> Mask:
    """MagCache's rule (Ma et al. 2025, arXiv 2506.09045, section 3.2): the ratios (S - 1,) since the last computed step
    are multiplied; how far the product lies off 1 is summed over the kept steps, which are at most ``longest`` in a
    row and stay within the threshold.  The first ``retained`` steps are computed, the last one is not forced to be."""
    mask, product, error, run = list[bool](), 1.0, 0.0, 0
    for k in range(len(ratios) + 1):
        product *= ratios[k - 1] if k else 1.0
        error, run = error + abs(1 - product), run + 1
        computed = k < retained or error > threshold or run > longest
        mask.append(computed)
        if computed:
            product, error, run = 1.0, 0.0, 0
    return tuple(mask)


@checks.checked(changes=a_change, degree=checks.count)
def rescaled(changes: Changes, degree: int = 4) -> tuple[float, ...]:
    """TeaCache's rescaling: changes of the input turned into those of what is kept by a polynomial fitted to both
    (arXiv 2411.19108, eq. 7; degree 4 there), no change below 0."""
    order = min(degree, max(len(changes.inputs) - 2, 0))
    fitted = np.polynomial.Polynomial.fit(changes.inputs, changes.kept, order)
    return tuple(float(v) for v in np.maximum(fitted(changes.inputs), 0.0))


@checks.checked(rule=checks.function, most=checks.count)
def by_threshold(rule: Callable[[float], Mask], most: int) -> tuple[float, Mask]:
    """The smallest threshold, to a percent, at which ``rule(threshold)`` computes at most ``most`` steps, and its mask:
    how a cost is met.

    Raises PhasewiseError where no threshold computes so few.
    """
    fewest = None
    for threshold in (0.0, *np.geomspace(1e-4, 1e4, 1900).tolist()):
        mask = rule(threshold)
        if sum(mask) <= most:
            return threshold, mask
        fewest = min(fewest or len(mask), sum(mask))
    raise PhasewiseError(f"this rule computes {fewest} steps or more at any threshold; {most} are too few")


# --- LeMiCa -----------------------------------------------------------------------------------------------------------


@checks.checked(computed=checks.count)
def minimax_mask(errors: np.ndarray, computed: int) -> Mask:
    """LeMiCa's path (arXiv 2511.00090, section 3.3): of all masks with so many computed steps, the first among them,
    the one whose worst run of kept steps errs least; of several, the one whose second worst does; and so on.

    ``errors`` (S + 1, S + 1): :func:`~phasewise.scheduling.field_signals.measure_reuse_errors`.  Exact: sorted errors
    of two paths of equal length keep their order when both get one more.  Raises PhasewiseError where no path has so
    many steps.
    """
    table = np.asarray(errors, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2 or np.isnan(table).any():
        raise PhasewiseError(f"errors are a square table without NaN, (S + 1, S + 1); got shape {table.shape}")
    steps = len(table) - 1
    best: dict[int, tuple[tuple[float, ...], tuple[int, ...]]] = {0: ((), (0,))}
    for _ in range(computed):
        found: dict[int, tuple[tuple[float, ...], tuple[int, ...]]] = {}
        for i, (worst, path) in best.items():
            for j in range(i + 1, steps + 1):
                if np.isfinite(table[i, j]) and i < steps:
                    way = (tuple(sorted((*worst, float(table[i, j])), reverse=True)), (*path, j))
                    found[j] = min(found.get(j, way), way)
        best = found
    if steps not in best:
        raise PhasewiseError(f"no mask of {steps} steps has {computed} computed ones within the errors that are known")
    return tuple(k in best[steps][1] for k in range(steps))
