r"""When symmetries break: the speciation time of a data set, and the class of images that are noised and denoised.

**Speciation** (Biroli, Bonnaire, de Bortoli, Mezard 2024, Nature Communications 15, 9957).  With Lambda the largest
eigenvalue of the covariance of the data, images begin to part along its eigenvector at the time t_S with

    gamma(t_S) = alpha^2 / sigma^2 = 1 / Lambda.

Two equal modes, +-a everywhere on N pixels, have Lambda = N a^2, and t_S is where their noisy marginal stops being
unimodal.  Lambda depends on the scale of the pixels, as gamma does, so t_S does not.

**Cloning** (the same source) and **U-turns** (Sclocchi, Favero, Wyart 2025, PNAS 122).  An image is noised to t, and
the noisy one denoised twice by a stochastic solver, each time with noise of its own: two draws from the posterior.
Near t = 0 both are of the image's class, near t = 1 of any.  For two equal modes the two agree with chance .775 at t_S.
That is .55 of the way from what chance gives, .5, to 1 (Cohen's kappa); with more classes, or unequal ones, the
cloning time is where

    agreement = chance + .55 (1 - chance),      chance = sum_c p_c^2,

which for two equal classes is the published threshold.

The original is a draw from the same posterior as its clones.  So with an exact denoiser and small steps the survival of
the class equals the agreement of clones; where survival is lower, the network or its steps are at fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from phasewise import checks, seeding
from phasewise.data import ImageData
from phasewise.data.images import images_or_set
from phasewise.denoisers import Denoiser
from phasewise.denoisers.base import a_denoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import LinearPath, NoisePath, a_path, isotropic
from phasewise.results import Cloning, Speciation
from phasewise.results.base import Array
from phasewise.results.symmetry import crossing
from phasewise.sampling.grid import time_grid
from phasewise.sampling.loop import sample
from phasewise.sampling.solvers import get_solver, solver_name

KAPPA = 0.55
"""Share of the way from chance to certainty that clones agree at the cloning time: of two classes, .775."""
DIRECTIONS = 16
"""Leading eigenvectors that the bootstrap of the largest eigenvalue is made in."""
LEVEL = (2.5, 97.5)
CHUNK = 1024
DENSE = 1024
"""Most pixels whose covariance is made and solved as a whole."""
ROUNDS = 8
CLONING_SOLVER = "sde_dpmpp_2m"


@torch.inference_mode()
@checks.checked(data=images_or_set, path=a_path, draws=checks.at_least_2, seed=checks.seed)
def speciation(
    data: ImageData | Tensor,
    *,
    labels: Tensor | Sequence[int] | None = None,
    path: NoisePath | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Speciation:
    """The speciation time of images (n, C, H, W), or of the training images of an ImageData, in pixel units as loaded.

    ``labels`` (n,), by default those of an ImageData where it has any, add the time at which the *class means* part:
    gamma = 1 / the largest eigenvalue of their covariance.  That of all pixels is never smaller.

    Intervals: the images are drawn anew ``draws`` times, within the space of the 16 leading eigenvectors.  With fewer
    images than some ten a pixel the eigenvalue itself reads high, which no bootstrap sees.

    Raises PhasewiseError for fewer than 2 images, images that are all alike, labels of another number or that are no
    whole numbers, and an anisotropic path.
    """
    images = data.train if isinstance(data, ImageData) else data
    if isinstance(data, ImageData) and labels is None:
        labels = data.labels_train
    path = LinearPath() if path is None else path
    isotropic(path, "a time of speciation, one SNR for all directions,")
    if len(images) < 2:
        raise PhasewiseError("a covariance takes at least 2 images")
    flat = images.flatten(1).cpu()
    mean = flat.mean(0, dtype=torch.float64)
    largest, vectors = _leading(flat, mean)
    if not largest > 0:
        raise PhasewiseError("all images are alike, so no direction of theirs parts; give other images")
    leading = torch.cat([part @ vectors for part in _centred(flat, mean)]).numpy()
    rng = np.random.default_rng([seed, int(seeding.Purpose.SPECIATION)])
    weights = [rng.multinomial(len(leading), np.full(len(leading), 1 / len(leading))) for _ in range(draws)]
    found = {"whole": (largest, [_largest(leading, w) for w in weights])}
    classes = None
    if labels is not None:
        known = torch.as_tensor(labels).cpu().numpy()
        if known.shape != (len(images),):
            raise PhasewiseError(f"labels are one for each of the {len(images)} images, got shape {known.shape}")
        if not np.equal(np.mod(known, 1), 0).all():
            raise PhasewiseError("labels are whole numbers, one for each class")
        number, member = np.unique(known, return_inverse=True)
        classes, one_hot = len(number), np.eye(len(number))[member]
        starts = range(0, len(flat), CHUNK)
        sums = sum(one_hot[k : k + CHUNK].T @ x.numpy() for k, x in zip(starts, _centred(flat, mean), strict=True))
        again = [_of_means((one_hot * w[:, None]).sum(0), one_hot.T @ (leading * w[:, None])) for w in weights]
        found["between"] = (_of_means(one_hot.sum(0), np.asarray(sums)), again)
    ends = {name: (value, *np.percentile(again, LEVEL).tolist()) for name, (value, again) in found.items()}
    whole, between = ends["whole"], ends.get("between", (math.nan,) * 3)
    times, parted = ([_time(path, v) for v in each] for each in (whole, between))
    return Speciation(
        eigenvalue=whole[0], eigenvalue_low=whole[1], eigenvalue_high=whole[2],
        t_s=times[0], t_s_low=times[1], t_s_high=times[2], log_snr=-math.log(whole[0]),
        data_std=float(images.std()), n=len(images), seed=seed, path=path.config(), classes=classes,
        between=between[0], between_low=between[1], between_high=between[2],
        t_between=parted[0], t_between_low=parted[1], t_between_high=parted[2],
    )  # fmt: skip


def _largest(x: Array, weights: Array) -> float:
    """Largest eigenvalue of the covariance of rows ``x`` (n, d), each counted ``weights`` times."""
    mean = weights @ x / weights.sum()
    return float(np.linalg.eigvalsh((x * weights[:, None]).T @ x / weights.sum() - np.outer(mean, mean))[-1])


def _of_means(counts: Array, sums: Array) -> float:
    """Largest eigenvalue of the covariance of class means, from the images of each class (k,) and their sums (k, d)."""
    there = counts > 0
    share = counts[there] / counts.sum()
    means = sums[there] / counts[there, None]
    centred = (means - share @ means) * np.sqrt(share)[:, None]
    return float(np.linalg.eigvalsh(centred @ centred.T)[-1])  # the same largest one as that of pixels by pixels


def _centred(flat: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """Rows of ``flat`` less ``mean``, float64, some at a time."""
    return (part.double() - mean for part in flat.split(CHUNK))


def _leading(flat: Tensor, mean: Tensor) -> tuple[float, Tensor]:
    """The largest eigenvalue of the covariance of rows (n, N), and its leading eigenvectors in columns.

    Of many pixels by subspace iteration, which never makes the matrix: the spectrum of images falls so fast that a few
    rounds leave no error that counts.
    """
    n, pixels = flat.shape
    if pixels <= DENSE:
        values, vectors = torch.linalg.eigh(sum(part.T @ part for part in _centred(flat, mean)) / n)
        return float(values[-1]), vectors[:, -DIRECTIONS:]
    basis = torch.randn(pixels, DIRECTIONS + 8, generator=seeding.generator(seeding.Purpose.SPECIATION)).double()
    for _ in range(ROUNDS):
        basis, _ = torch.linalg.qr(sum(part.T @ (part @ basis) for part in _centred(flat, mean)))
    inner = sum((part @ basis).T @ (part @ basis) for part in _centred(flat, mean)) / n
    values, vectors = torch.linalg.eigh(inner)
    return float(values[-1]), basis @ vectors[:, -DIRECTIONS:]


def _time(path: NoisePath, eigenvalue: float) -> float:
    """The time of gamma = 1 / eigenvalue; NaN for none."""
    return float(path.t_of_log_snr(-math.log(eigenvalue))) if eigenvalue > 0 else math.nan


@checks.checked(
    denoiser=a_denoiser,
    images=checks.images,
    times=checks.times,
    classify=checks.function,
    steps=checks.steps,
    solver=solver_name,
    seed=checks.seed,
    draws=checks.at_least_2,
    t_min=checks.fraction,
    batch=checks.count,
    progress=checks.function,
)
def measure_cloning(
    denoiser: Denoiser,
    images: Tensor,
    times: Sequence[float],
    classify: Callable[[Tensor], Tensor],
    *,
    steps: int = 16,
    solver: str = CLONING_SOLVER,
    seed: int = 0,
    draws: int = 400,
    t_min: float = 0.02,
    batch: int = 250,
    progress: Callable[[int, int], None] | None = None,
) -> Cloning:
    """Noise ``images`` (n, C, H, W) to each time on the denoiser's path, denoise each twice, compare classes.

    ``classify`` maps images (m, C, H, W) in pixel units to classes (m,), whole numbers; originals are classified as
    clones are, so that its errors on real images do not count as lost classes.  ``steps``: of every way back, whatever
    its start; with few of them clones agree too often.  Intervals: images drawn anew ``draws`` times; crossings are
    interpolated linearly in log-SNR.

    Raises PhasewiseError for a solver that draws no noise, fewer than 2 images, images of one class alone, and a
    denoiser that is told a condition, since that says the class.
    """
    if not get_solver(solver).stochastic:
        raise PhasewiseError(
            f"clones need a solver that draws noise, such as {CLONING_SOLVER!r}; {solver!r} draws none"
        )
    if denoiser.takes_condition:
        raise PhasewiseError("clones of a denoiser that is told the class are all of that class; give one that is not")
    if len(images) < 2:
        raise PhasewiseError("need at least 2 images for an agreement with a standard error")
    first = _classes(classify, images)
    share = np.unique(first, return_counts=True)[1] / len(first)
    if len(share) < 2:
        raise PhasewiseError("all images are of one class to the classifier, so no class can be lost; give others")
    order = np.argsort(np.asarray(times, dtype=float), kind="stable")
    agree, survive = np.zeros((len(order), len(images))), np.zeros((len(order), len(images)))
    for k, t in enumerate(np.asarray(times, dtype=float).tolist()):
        z = torch.randn(images.shape, generator=seeding.generator(seed, seeding.Purpose.CLONING, k)).to(images.device)
        x_t = denoiser.path.add_noise(images, z, t)
        grid = time_grid(steps, path=denoiser.path, t_start=t, t_min=min(t_min, t / 2))
        twice = sample(
            denoiser, x_init=torch.cat([x_t, x_t]), t_start=t, times=grid, solver=solver, batch=batch,
            seed=seeding.mix(seed, seeding.Purpose.CLONE, k),
        )  # fmt: skip
        one, two = np.split(_classes(classify, twice), 2)
        agree[k], survive[k] = one == two, np.mean([one == first, two == first], axis=0)
        if progress is not None:
            progress(k + 1, len(order))
    grid_snr = denoiser.path.log_snr(torch.as_tensor(np.asarray(times, dtype=float))).numpy()
    chance = float((share**2).sum())
    levels = [chance + part * (1 - chance) for part in (KAPPA, 0.9, 0.1)]
    read = _Crossings(denoiser.path, grid_snr[order], np.random.default_rng([seed, int(seeding.Purpose.CLONE)]), draws)
    clone, low, high = (read(agree[order], level) for level in levels)
    kept = read(survive[order], levels[0])
    root = math.sqrt(len(images))
    return Cloning(
        times=np.asarray(times, dtype=float), log_snr=grid_snr, agreement=agree.mean(1),
        agreement_stderr=agree.std(1, ddof=1) / root, survival=survive.mean(1),
        survival_stderr=survive.std(1, ddof=1) / root, chance=chance, threshold=levels[0],
        t_clone=clone[0], t_clone_low=clone[1], t_clone_high=clone[2],
        t_survival=kept[0], t_survival_low=kept[1], t_survival_high=kept[2], t_low=low[0], t_high=high[0],
        classes=len(share), steps=steps, solver=solver, n=len(images), seed=seed, path=denoiser.path.config(),
    )  # fmt: skip


class _Crossings:
    """Times at which means over images fall below a level, with intervals."""

    def __init__(self, path: NoisePath, log_snr: Array, rng: np.random.Generator, draws: int) -> None:
        self.path, self.x, self.rng, self.draws = path, -log_snr, rng, draws

    def __call__(self, values: Array, level: float) -> tuple[float, float, float]:
        """(t, low, high) of (T, n) values by ascending time; NaN where they cross nowhere.  The draws that cross
        nowhere are left out of the interval, which is NaN where these are more than a twentieth."""
        rows = self.rng.integers(0, values.shape[1], (self.draws, values.shape[1]))
        again = np.array([crossing(self.x, values[:, row].mean(1), level) for row in rows])
        again = again[np.isfinite(again)]
        value = crossing(self.x, values.mean(1), level)
        if math.isnan(value):
            return math.nan, math.nan, math.nan
        few = len(again) < 0.95 * self.draws
        ends = [math.nan, math.nan] if few else np.percentile(again, LEVEL).tolist()
        t, low, high = (float(self.path.t_of_log_snr(-v)) for v in (value, *ends))
        return t, low, high


def _classes(classify: Callable[[Tensor], Tensor], images: Tensor) -> Array:
    """What ``classify`` says of images, (n,) whole numbers."""
    found = torch.as_tensor(classify(images)).detach().cpu()
    if found.shape != (len(images),) or found.is_floating_point() or found.is_complex():
        raise PhasewiseError(
            f"classify gives a whole number for each image, ({len(images)},); got {found.dtype} of shape "
            f"{tuple(found.shape)}"
        )
    return found.numpy()
