r"""When to switch from one denoiser to another, measured without sampling: two experts, a base and its refiner, a small
network and a large one.

Which penalty answers depends on who counts as right.

*Two experts.*  Neither is the reference, so held-out images judge both: a penalty with a sign, ``flow`` by default
(``kl`` for an ancestral sampler), whose difference at a step is the paired difference of two losses.  Early is worth
its steps where that is below 0, and the boundary is where the sum over its steps is least.

*A reference and its stand-in.*  With ``reference="late"``, the penalties that rank schedules best (``frechet``, ``w2``)
are distances from the reference, never below 0: the best boundary is trivially the reference alone.  What is asked then
is how far the stand-in can go: the cheapest boundary as good as the best.  "As good" needs a scale, since with enough
images every difference is told, however small: by default a boundary may add one hundredth of what the stand-in alone
adds, counted in squares, as FID counts distances (its root is a metric): a tenth of the largest sum for ``frechet`` and
``w2``, a hundredth for penalties that are squares already.

Errors are paired: both see the same images and noise.  Noise is fresh at every step, the images are not, so the errors
of neighbouring steps go together (correlations of .2 to .8 at low noise on handwritten digits); that is measured, and
counted.  ``frechet`` is no mean over images: there the errors of steps are added as if they went together wholly, which
bounds the error from above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from phasewise import checks
from phasewise.data import ImageData, as_images
from phasewise.denoisers.base import Condition, Denoiser, a_denoiser
from phasewise.denoisers.hybrid import same_images
from phasewise.errors import PhasewiseError
from phasewise.metrics import FeatureNetwork
from phasewise.metrics.feature_base import a_feature_network
from phasewise.results import DEFAULT_SOLVER, Array, PriceList, a_price_list
from phasewise.sampling import time_grid
from phasewise.sampling.solvers import solver_name
from phasewise.scheduling.boundary_record import Boundary
from phasewise.scheduling.optimise import check_cost
from phasewise.scheduling.penalty import Penalty, get_penalty, step_penalties
from phasewise.scheduling.prices import calls_of, price_list

STEPS = 16
TOLERANCE = 0.01
"""Share of what the stand-in alone adds, in squares, that counts as nothing beside a reference."""


@checks.checked(
    early=a_denoiser,
    late=a_denoiser,
    times=checks.times,
    steps=checks.steps,
    reference=checks.one_of(("early", "late"), "reference"),
    features=a_feature_network,
    tolerance=checks.unit,
    solver=solver_name,
    names=checks.each(checks.text, size=2),
    n=checks.at_least_2,
    seed=checks.seed,
    batch=checks.count,
)
def boundary(
    early: Denoiser,
    late: Denoiser,
    data: ImageData | Tensor,
    *,
    reference: str | None = None,
    penalty: str | Penalty | None = None,
    features: FeatureNetwork | None = None,
    tolerance: float | None = None,
    times: Sequence[float] | None = None,
    steps: int = STEPS,
    solver: str = DEFAULT_SOLVER,
    cost: str = "mflop",
    cond: Condition | str | None = None,
    names: Sequence[str] = ("early", "late"),
    n: int = 1000,
    seed: int = 0,
    batch: int = 64,
) -> Boundary:
    """The time at which to switch from ``early``, which takes the noisy part, to ``late``, with its interval.

    Args:
        data: images whose validation part, up to ``n`` of it, judges; a tensor (N, C, H, W) is held out as a whole.
        reference: "early" or "late" where that one's answers count as right (the large network, the base); None where
            held-out images judge both.
        penalty: with a reference default "frechet" where ``features`` are given, else "w2"; without one "flow".
        tolerance: share in [0, 1] of the difference between the worst boundary and the best that counts as nothing, in
            squares; default 0.01 with a reference, 0 without.
        times: descending start times of the sampler's steps, such as a schedule's; default ``steps`` uniform ones.
            They are on the path of the reference, of ``late`` where there is none; the other is translated.
        solver, cost: what the costs of boundaries count, ``cost`` "mflop" or "ms".
        cond: a class label, a row for each image, or "labels", for those that take a condition.
        names: what to call the two.

    Raises PhasewiseError for denoisers of different images (shape, pixel range, data), images of another shape, a
    penalty that cannot judge without a reference, and as :func:`phasewise.price_list` does.
    """
    check_cost(cost)
    first, second = names
    members = {first: early, second: late}
    if len(members) < 2:
        raise PhasewiseError(f"both are called {first!r}; give two names")
    # a tensor is taken for held out, all of it
    held = as_images(data) if isinstance(data, ImageData) else replace(as_images(data), validation=data)
    data, shape = held, same_images(members)
    if data.image_shape != shape:
        raise PhasewiseError(
            f"the images are {data.image_shape}, the denoisers are for {shape}; give images of that shape"
        )
    right = None if reference is None else first if reference == "early" else second
    base = members[right or second]
    prices = price_list(
        members,
        data,
        time_grid(steps, path=base.path) if times is None else times,
        reference=right or second,
        seed=seed,
        n=n,
        batch=batch,
        cond=cond,
        features=features if right is not None else None,  # without a reference it would not be looked at
        correlations=True,
    )
    return boundary_of(
        prices, first, second, reference=right, penalty=penalty, tolerance=tolerance, solver=solver, cost=cost
    )


@checks.checked(
    prices=a_price_list,
    early=checks.text,
    late=checks.text,
    reference=checks.text,
    tolerance=checks.unit,
    solver=solver_name,
)
def boundary_of(
    prices: PriceList,
    early: str,
    late: str,
    *,
    reference: str | None = None,
    penalty: str | Penalty | None = None,
    tolerance: float | None = None,
    solver: str = DEFAULT_SOLVER,
    cost: str = "mflop",
) -> Boundary:
    """The boundary between two members of a price list that is measured already; arguments as of :func:`boundary`.

    Errors of steps are taken to go together wholly where the list was measured without ``correlations``.

    Raises PhasewiseError unless the list's own reference is one of the two, and the ``reference`` named, if any.
    """
    check_cost(cost)
    columns = {name: prices.losses.column(name) for name in (early, late)}
    own = prices.losses.reference
    if len(columns) < 2 or own not in columns or reference not in (None, own):
        raise PhasewiseError(
            f"a boundary between {early} and {late} needs prices against one of the two, the reference if there is one;"
            f" this list's reference is {own}: measure one by pw.boundary"
        )
    chosen = get_penalty("flow" if penalty is None and reference is None else penalty, prices)
    if reference is None and chosen.distance:
        raise PhasewiseError(
            f"the penalty {chosen.name} is a distance from a reference and does not tell which of two is better; name "
            "the better one as reference, or use penalty 'flow' or 'kl'"
        )
    value, stderr = step_penalties(prices, chosen)
    i, j = columns[early], columns[late]
    difference, other = value[:, i] - value[:, j], i if own == late else j
    correlation = chosen.correlation(prices)
    above = np.append(0.0, np.cumsum(difference))
    share = (0.0 if reference is None else TOLERANCE) if tolerance is None else tolerance
    calls = calls_of(prices, solver, len(difference))
    return Boundary(
        early=early,
        late=late,
        times=prices.times,
        path=prices.losses.path,
        difference=difference,
        difference_stderr=np.hypot(stderr[:, i], stderr[:, j]),  # the reference's own are 0
        mflop=_spent(calls[:, i] * prices.flops[i] / 1e6, calls[:, j] * prices.flops[j] / 1e6),
        ms=_spent(calls[:, i] * prices.ms[i], calls[:, j] * prices.ms[j]),
        penalty_name=chosen.name,
        penalty_unit=chosen.unit,
        n=prices.losses.n,
        seed=prices.losses.seed,
        solver=solver,
        tolerance=float(np.ptp(above)) * (math.sqrt(share) if chosen.distance else share),
        reference=reference,
        cost=cost,
        correlation=None if correlation is None else correlation[other],
    )


def _spent(early: Array, late: Array) -> Array:
    """(S + 1,): cost of every boundary, from (S,) costs of each step by each."""
    return np.append(0.0, np.cumsum(early)) + np.append(np.cumsum(late[::-1])[::-1], 0.0)
