r"""What members that lean on earlier steps lose at every step, measured on trajectories of the grid.

For a stochastic solver trajectories are held-out images under noise that is a path: with ``gamma = (alpha / sigma)^2``
and B a Brownian motion, ``x_t = alpha x + sigma B(gamma) / sqrt(gamma)``.  Seen from pure noise on this is exactly the
reverse SDE (stochastic localisation, Eldan 2013, arXiv 1203.0893), and the clean image is known, so losses are.
For a deterministic solver they are the reference's own, sampled from noise; there only the distance from the
reference's answer is known.

At each step the reference's answers at earlier points of the same trajectory are what is leant on; what another
member's answers add is reckoned by the optimiser (:mod:`phasewise.scheduling.charges`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from phasewise import checks, seeding
from phasewise.denoisers.base import Condition, Denoiser, denoisers_by_name
from phasewise.denoisers.condition import bind, condition_rows
from phasewise.denoisers.kept import VARIABLES, Answer, Memory, extrapolation_weights
from phasewise.denoisers.reuse import ReusedAnswer, ReusedFeatures, reuser_of
from phasewise.errors import PhasewiseError
from phasewise.metrics import FeatureNetwork, paired_frechet
from phasewise.metrics.cost import count_flops, measure_ms
from phasewise.metrics.feature_base import a_feature_network
from phasewise.modes import in_evaluation
from phasewise.results import DEFAULT_SOLVER, ReusePrices
from phasewise.sampling.loop import check_time_grid, integrate
from phasewise.sampling.noise import RowNoise, solver_noise, starting_noise
from phasewise.sampling.solvers import get_solver, solver_name
from phasewise.scheduling.perception import feature_basis

MAX_LAG = 3
"""How many steps back the nearest fresh one may lie; the others at most so many further."""


@in_evaluation
@torch.inference_mode()
@checks.checked(
    denoisers=denoisers_by_name, images=checks.images, times=checks.each(checks.number), reference=checks.text,
    solver=solver_name, features=a_feature_network, max_lag=checks.count, seed=checks.seed, batch=checks.count,
    ms_batch=checks.count,
)  # fmt: skip
def measure_reuse(
    denoisers: Mapping[str, Denoiser],
    images: Tensor,
    times: Sequence[float],
    *,
    reference: str = "global",
    solver: str = DEFAULT_SOLVER,
    features: FeatureNetwork | None = None,
    cond: Condition | None = None,
    max_lag: int = MAX_LAG,
    seed: int = 0,
    batch: int = 250,
    ms_batch: int = 64,
) -> ReusePrices:
    """Prices of those of ``denoisers`` that lean on earlier steps (:mod:`phasewise.denoisers.reuse`), on ``times``.

    ``images`` (n, C, H, W) are held out; with a deterministic ``solver`` only their number and range count.
    ``features`` adds Frechet distances, as in :func:`phasewise.scheduling.perception.measure_frechet`.  ``max_lag``:
    how many steps back the nearest fresh step may lie.  ``ms_batch``: images a call is timed on.  ``cond``: a row for
    each image.

    Costs a call of the reference, and of each network that is kept in parts, for each step and image, and a shallow
    one for each lag.

    Raises PhasewiseError for a missing reference, where nothing is reused, and where the network of a kept part is not
    among the denoisers.
    """
    if reference not in denoisers:
        raise PhasewiseError(f"reference {reference!r} is not among the denoisers: {', '.join(denoisers) or 'none'}")
    grid, path = check_time_grid(times), denoisers[reference].path
    rows = condition_rows(cond, len(images), denoisers.values())
    members = {name: d.on(path) for name, d in denoisers.items()}
    columns = [
        _Column(name, lags, kept_of(name, members))
        for name, member in members.items()
        if (reuser := reuser_of(member)) is not None
        for lags in lags_of(reuser.order + 1, min(max_lag, len(grid) - 1), len(grid) - 1)
    ]
    if not columns:
        raise PhasewiseError("none of these denoisers leans on earlier steps; price them by pw.price_list alone")
    noised = get_solver(solver).stochastic
    low, high = float(images.min()), float(images.max())
    basis = torch.zeros(0) if features is None else feature_basis(features, images)
    shape, size = (len(grid), len(columns)), len(images)
    sums = {key: np.zeros((2, *shape)) for key in ("loss", "gap", "distance")}
    seen: dict[tuple[int, int], list[Tensor]] = {}
    for start in range(0, size, batch):
        part = slice(start, min(start + batch, size))
        told = {name: bind(member, rows, part) for name, member in members.items()}
        clean = images[part]
        points = (
            _noised(clean, grid, told[reference], seed, start)
            if noised
            else _sampled(told[reference], grid, solver, len(clean), seed, start)
        )
        answers = _Answers(told, reference, columns, grid)
        for k, x_t in enumerate(points):
            truth = answers.step(k, x_t)
            truth_loss = _squared(truth - clean)
            if features is not None:
                seen.setdefault((k, -1), []).append(features.extract(truth.clamp(low, high)) @ basis)
            for c, mean in answers.reused(k, x_t):
                loss = _squared(mean - clean)
                for key, value in (("loss", loss), ("gap", loss - truth_loss), ("distance", _squared(mean - truth))):
                    sums[key][:, k, c] += (float(value.sum()), float(value.square().sum()))
                if features is not None:
                    seen.setdefault((k, c), []).append(features.extract(mean.clamp(low, high)) @ basis)
    there = np.array([[column.fits(k) for column in columns] for k in range(len(grid))])
    values = {key: np.where(there, total / size, np.nan) for key, (total, _) in sums.items()}
    errors = {
        key: np.where(there, np.sqrt(np.maximum(sq / size - (total / size) ** 2, 0) / max(size - 1, 1)), np.nan)
        for key, (total, sq) in sums.items()
    }
    if not noised:  # no clean image belongs to a sampled trajectory
        for key in ("loss", "gap"):
            values[key][:] = errors[key][:] = np.nan
    frechet, frechet_error = (None, None) if features is None else (np.full(shape, np.nan), np.full(shape, np.nan))
    for (k, c), parts in seen.items():
        if c >= 0 and frechet is not None and frechet_error is not None:
            found = paired_frechet(torch.cat(parts), torch.cat(seen[k, -1]), seed=seed)
            frechet[k, c], frechet_error[k, c] = found.value, found.stderr
    one = {name: bind(members[name], rows, slice(1)) for name in {column.name: None for column in columns}}
    image = denoisers[reference].image_shape
    flops = {name: count_flops(d, image) for name, d in one.items()}
    ms = measure_ms(one, image, batch=ms_batch, seed=seed)
    return ReusePrices(
        times=np.array(grid),
        names=tuple(c.name for c in columns),
        lags=tuple(c.lags for c in columns),
        of=tuple(c.of for c in columns),
        loss=values["loss"],
        loss_stderr=errors["loss"],
        gap=values["gap"],
        gap_stderr=errors["gap"],
        distance=values["distance"],
        distance_stderr=errors["distance"],
        weights=_weights(columns, members, grid),
        flops=np.array([flops[c.name] for c in columns], dtype=float),
        ms=np.array([ms[c.name][0] for c in columns]),
        n=size,
        seed=seed,
        trajectories="noised" if noised else "sampled",
        frechet=frechet,
        frechet_stderr=frechet_error,
    )


class _Column:
    """One member at one pattern of lags; ``of``: the member whose whole call it keeps, "" for an answer."""

    def __init__(self, name: str, lags: tuple[int, ...], of: str) -> None:
        self.name, self.lags, self.of = name, lags, of

    def fits(self, k: int) -> bool:
        return k >= self.lags[-1]


def lags_of(count: int, nearest: int, farthest: int) -> Iterator[tuple[int, ...]]:
    """Patterns of ``count`` fresh steps back: the nearest up to ``nearest``, each further one up to 2 beyond the one
    before, none beyond ``farthest``."""
    for first in range(1, nearest + 1):
        for gaps in itertools.product((1, 2), repeat=count - 1):
            lags = (first, *(first + sum(gaps[: i + 1]) for i in range(count - 1)))
            if lags[-1] <= farthest:
                yield lags


def kept_of(name: str, members: Mapping[str, Denoiser]) -> str:
    """The member whose whole call ``name`` keeps a part of; "" for one that reuses an answer."""
    reuser = reuser_of(members[name])
    if not isinstance(reuser, ReusedFeatures):
        return ""
    for other, member in members.items():
        if reuser_of(member) is None and reuser.key in reuser.keys_in(member):
            return other
    raise PhasewiseError(f"{name} keeps a part of a network that is not among the denoisers; give that one too")


class _Answers:
    """The answers of one batch of trajectories, step by step: whole ones, and those that lean on them."""

    def __init__(
        self, told: Mapping[str, Denoiser], reference: str, columns: list[_Column], grid: tuple[float, ...]
    ) -> None:
        self.told, self.reference, self.columns, self.grid = told, reference, columns, grid
        self.path = told[reference].path
        self.kept: list[Answer] = []
        self.parts: dict[str, list[Memory]] = {}
        self.reusers = {c.name: reuser_of(told[c.name]) for c in columns}

    def log_snr(self, k: int) -> float:
        return float(self.path.log_snr(torch.tensor(self.grid[k], dtype=torch.float64)))

    def step(self, k: int, x_t: Tensor) -> Tensor:
        """The reference's answer; what the others may lean on later is kept."""
        t, log_snr = self.grid[k], self.log_snr(k)
        truth: Tensor | None = None
        for of in dict.fromkeys(c.of for c in self.columns if c.of):
            wanted = {
                r.wanted() for c in self.columns if c.of == of and isinstance(r := self.reusers[c.name], ReusedFeatures)
            }
            memory = Memory(wanted=tuple(wanted))
            with memory.during(log_snr):
                answer = self.told[of](x_t, t)
            self.parts.setdefault(of, []).append(memory)
            truth = answer if of == self.reference else truth
        truth = self.told[self.reference](x_t, t) if truth is None else truth
        at = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = float(self.path.alpha(at)), float(self.path.sigma(at))
        self.kept.append(Answer(log_snr, truth, (x_t - alpha * truth) / sigma))
        return truth

    def reused(self, k: int, x_t: Tensor) -> Iterator[tuple[int, Tensor]]:
        """(column, answer) of all that can answer at step k."""
        log_snr, t = self.log_snr(k), self.grid[k]
        for c, column in enumerate(self.columns):
            reuser = self.reusers[column.name]
            if not column.fits(k):
                continue
            steps = [k - lag for lag in reversed(column.lags)]
            if isinstance(reuser, ReusedAnswer):
                yield c, reuser.carried_on([self.kept[s] for s in steps], x_t, log_snr, log_snr, t)
            elif isinstance(reuser, ReusedFeatures):
                memories = [self.parts[column.of][s] for s in steps]
                places = memories[0].parts
                memory = Memory(parts={place: [m.parts[place][-1] for m in memories] for place in places})
                with memory.during(log_snr, reuser.key, reuser.part, reuser.variable, reuser.order + 1):
                    yield c, self.told[column.name](x_t, t)


def _noised(clean: Tensor, grid: tuple[float, ...], denoiser: Denoiser, seed: int, first: int) -> Iterator[Tensor]:
    """(n, C, H, W) at every time: ``clean`` under one Brownian path an image."""
    path, n = denoiser.path, len(clean)
    moved, before = torch.zeros_like(clean), 0.0
    # a stream a step and row: batches change nothing
    noise = RowNoise(n, denoiser.image_shape, seeding.mix(seed, seeding.Purpose.REUSE_NOISE), first, clean.device)
    for t in grid:
        at = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = float(path.alpha(at)), float(path.sigma(at))
        fresh = noise()
        gamma = (alpha / sigma) ** 2
        if gamma == 0:  # B(gamma) / sqrt(gamma) has no limit: as gamma goes to 0 it forgets where it was
            yield sigma * fresh
            continue
        moved = moved + math.sqrt(gamma - before) * fresh
        before = gamma
        yield alpha * clean + sigma * moved / math.sqrt(gamma)


def _sampled(
    denoiser: Denoiser, grid: tuple[float, ...], solver: str, n: int, seed: int, first: int
) -> Iterator[Tensor]:
    """(n, C, H, W) at every time, along the reference's own trajectories from noise."""
    spy = _Spy(denoiser)
    scale = float(denoiser.path.sigma(torch.tensor(grid[0], dtype=torch.float64)))
    x = starting_noise(n, denoiser.image_shape, seed, first).to(denoiser.device) * scale
    noise = solver_noise(n, denoiser.image_shape, seed, first, denoiser.device)
    integrate(spy, x, grid, solver, noise=noise)
    yield from (spy.seen[t] for t in grid)


class _Spy(Denoiser):
    """Notes where it was asked first at every time."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.image_shape, inner.path)
        self.inner, self.seen = inner, dict[float, Tensor]()

    def forward(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> Tensor:  # type: ignore[override]
        self.seen.setdefault(float(t), x_t)
        return self.inner(x_t, t)


def _weights(columns: list[_Column], members: Mapping[str, Denoiser], grid: tuple[float, ...]) -> np.ndarray:
    """(S, C, 3): with which weights the fresh ones, nearest first, go into what is carried on."""
    out = np.full((len(grid), len(columns), 3), np.nan)
    for c, column in enumerate(columns):
        reuser = reuser_of(members[column.name])
        assert isinstance(reuser, (ReusedAnswer, ReusedFeatures))
        at = torch.tensor(grid, dtype=torch.float64)
        places = [VARIABLES[reuser.variable](v) for v in reuser.path.log_snr(at).tolist()]
        for k in range(column.lags[-1], len(grid)):
            fresh = [places[k - lag] for lag in column.lags]
            fresh = [fresh[0], *(p for p in fresh[1:] if math.isfinite(p))]  # as kept.carried leaves them out
            found = extrapolation_weights(fresh, places[k]) if math.isfinite(fresh[0]) else [1.0]
            out[k, c, : len(found)] = found
    return out


def _squared(difference: Tensor) -> Tensor:
    return difference.double().flatten(1).square().sum(1)
