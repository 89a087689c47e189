r"""Frechet distance (FID) and kernel distance (KID) between sets of images seen through a named feature network.

With mean ``m`` and covariance ``C`` of the features (unbiased, n - 1), Heusel et al. 2017 (arXiv 1706.08500) eq. 6::

    FID = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1^{1/2} C2 C1^{1/2})^{1/2}

the squared 2-Wasserstein distance between the two fitted Gaussians.  With ``C_i = A_i A_i^T`` the last trace is the
sum of the singular values of ``A1^T A2``, computed so in float64: exact for identical sets, singular ones included.

Finite n inflates FID: ``E FID_n = FID_inf + c / n + O(1/n^2)`` (Chong & Forsyth 2020, arXiv 1911.07023).  So
``FID_{n/2} - FID_n`` estimates ``c / n``, the bias of FID_n, and every :class:`FrechetScore` carries it beside the
value.  A bootstrap resample is itself more biased than the set it comes from; only its spread is used.
Bias and error are those of independent samples: a stratified test split scores better than both allow.

With n <= D samples the covariance has rank n - 1: the value is still defined, but it is mostly bias, and the bias is
then no longer ``c / n``.  Compare scores of equal n, reference and features only.

The float64 moments rather than torchmetrics' running ones, because bootstrap and halves need them; the tests hold
both to the same numbers.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from phasewise import checks, seeding
from phasewise.errors import CheckpointError, PhasewiseError, PhasewiseWarning
from phasewise.files import write_bytes
from phasewise.metrics.feature_base import FeatureNetwork, a_feature_network
from phasewise.results import Estimate, Record
from phasewise.tensors import read_tensors

MIN_SAMPLES = 8
RESAMPLES = 50
SPLITS = 8
SQUARED = "squared feature units"


@dataclass(frozen=True)
class FrechetScore(Record):
    """One Frechet distance, in squared feature units.

    Attributes:
        value: the distance from ``n`` samples to ``reference_n`` reference images, as measured, bias included.
        stderr: bootstrap spread over the samples; the reference is held fixed.
        bias: estimate of what finite ``n`` adds to ``value``; the reference's own finite size is not in it.
        features: name of the feature network.
    """

    value: float
    stderr: float
    bias: float
    n: int
    reference_n: int
    features: str
    seed: int = 0

    @property
    def debiased(self) -> float:
        """``value - bias``: an estimate of the distance at infinite n; may be negative."""
        return self.value - self.bias

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.stderr:.2g} (bias about {self.bias:.2g}, n = {self.n}; {self.features})"


@dataclass(frozen=True)
class FrechetReference:
    """Feature moments of the reference images: mean (D,) and a root (D, D) with ``root @ root.T`` their covariance.

    ``features`` is the name of the network that saw them, ``digest`` what it is made of
    (:meth:`FeatureNetwork.digest`), empty where that is not known.
    """

    mean: Tensor
    root: Tensor
    trace: float
    n: int
    features: str
    digest: str = ""

    def __repr__(self) -> str:
        return f"FrechetReference({self.features!r}: {len(self.mean)} features of {self.n:,} images)"

    @classmethod
    @checks.checked(features=checks.tensor, name=checks.text)
    def fit(cls, features: Tensor, name: str = "given features", digest: str = "") -> FrechetReference:
        """From features (N, D), N >= 2, of the network called ``name``, with its ``digest`` where that is known."""
        x = _features(features, 2)
        mean, covariance = _moments(x)
        return cls(mean, _root(covariance), float(covariance.trace()), x.shape[0], name, digest)

    @classmethod
    @checks.checked(network=a_feature_network, batch=checks.count)
    def of_images(cls, images: Tensor, network: FeatureNetwork, batch: int = 256) -> FrechetReference:
        """From reference images (N, C, H, W)."""
        return cls.fit(network.extract(images, batch), network.name, network.digest())

    def save(self, path: str | Path) -> Path:
        """Write the moments to one safetensors file."""
        about = {"n": str(self.n), "trace": repr(self.trace), "features": self.features, "digest": self.digest}
        return write_bytes(path, safetensors.torch.save({"mean": self.mean, "root": self.root.contiguous()}, about))

    @classmethod
    def load(cls, path: str | Path) -> FrechetReference:
        """What :meth:`save` wrote.  Raises :class:`CheckpointError` when it is damaged."""
        tensors, about = read_tensors(path, "it holds no feature moments; make them again")
        try:
            mean, root = tensors["mean"].double(), tensors["root"].double()
            count, trace = int(about["n"]), float(about["trace"])
            found = float(root.square().sum())  # the trace of root @ root.T
            fits = mean.dim() == 1 and root.shape == (len(mean), len(mean)) and count >= 2
            if not fits or not bool(mean.isfinite().all()):
                raise ValueError(f"mean {tuple(mean.shape)}, root {tuple(root.shape)}, n = {count}")
            if not math.isclose(found, trace, rel_tol=1e-6, abs_tol=1e-12):  # a NaN is close to none
                raise ValueError(f"the root has trace {found:g}, not {trace:g}")
            return cls(mean, root, trace, count, about["features"], about.get("digest", ""))
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} holds no feature moments ({error}); make them again") from error

    def check_network(self, network: FeatureNetwork) -> None:
        """Raise PhasewiseError where these moments were made with another network than ``network``; warn where only the
        names can be compared."""
        if self.features != network.name:
            raise PhasewiseError(
                f"the reference was made with '{self.features}', the samples would be seen by '{network.name}'; "
                "use the same feature network for both"
            )
        if not self.digest:
            warnings.warn(
                f"the reference was made with features called '{self.features}'; whether they are the same as those "
                "here cannot be told: make it with FrechetReference.of_images",
                PhasewiseWarning,
                stacklevel=3,
            )
        elif self.digest != network.digest():
            raise PhasewiseError(
                f"the reference was made with other features than those here, though both are called '{network.name}': "
                "fitted to other images, or for another pixel range; use the same feature network for both"
            )

    def distance(self, mean: Tensor, covariance: Tensor) -> float:
        """Frechet distance from a Gaussian with this mean (D,) and covariance (D, D)."""
        return self._distance(mean, _root(covariance), covariance.trace())

    def from_features(self, x: Tensor, weights: Tensor | None = None) -> float:
        """Frechet distance from the Gaussian of features (N, D), each counted ``weights`` (N,) times."""
        return self._distance(*_gaussian(x, weights))

    def _distance(self, mean: Tensor, root: Tensor, trace: Tensor) -> float:
        # tr (C1^{1/2} C2 C1^{1/2})^{1/2} is the sum of the singular values of A1^T A2
        cross = torch.linalg.svdvals(self.root.T @ root).sum()
        return float((mean - self.mean).square().sum() + trace + self.trace - 2 * cross)


@checks.checked(mu1=checks.tensor, cov1=checks.tensor, mu2=checks.tensor, cov2=checks.tensor)
def frechet_distance(mu1: Tensor, cov1: Tensor, mu2: Tensor, cov2: Tensor) -> float:
    """Squared 2-Wasserstein distance between N(mu1, cov1) and N(mu2, cov2); means (D,), covariances (D, D).

    Computed in float64 (Dowson & Landau 1982; Heusel et al. 2017, eq. 6).  Raises :class:`PhasewiseError` on shapes
    that do not fit or a covariance that is not symmetric positive semi-definite.
    """
    mu1, cov1, mu2, cov2 = (torch.as_tensor(a).detach().double().cpu() for a in (mu1, cov1, mu2, cov2))
    dim = mu1.shape[0] if mu1.dim() == 1 else -1
    if mu2.shape != (dim,) or cov1.shape != (dim, dim) or cov2.shape != (dim, dim):
        shapes = ", ".join(str(tuple(a.shape)) for a in (mu1, cov1, mu2, cov2))
        raise PhasewiseError(f"need means (D,) and covariances (D, D) of one D, got {shapes}")
    return FrechetReference(mu1, _root(cov1), float(cov1.trace()), 0, "").distance(mu2, cov2)


@checks.checked(features=a_feature_network, batch=checks.count, seed=checks.seed)
def fid(
    samples: Tensor,
    reference: Tensor | FrechetReference,
    features: FeatureNetwork,
    batch: int = 256,
    seed: int = 0,
) -> FrechetScore:
    """Frechet distance of ``samples`` (N, C, H, W) from reference images or their stored moments.

    It is called FID where ``features`` is a trained network (``features.distance`` says so), and compares with the
    literature only where that is Inception; print ``.features`` beside the number.

    Args:
        reference: images (M, C, H, W), or :meth:`FrechetReference.of_images` of them, which saves their pass.
        batch: images per forward pass; changes nothing but speed.
        seed: of the bootstrap and of the random halves.

    Raises :class:`PhasewiseError` with fewer than 8 samples, or a reference made with other features: by what the
    networks are made of and their pixel range, not by their names alone.
    """
    if not isinstance(reference, FrechetReference):
        reference = FrechetReference.of_images(reference, features, batch)
    reference.check_network(features)
    return frechet_score(features.extract(samples, batch), reference, seed)


@checks.checked(
    features=checks.tensor,
    reference=checks.made(FrechetReference, "a FrechetReference"),
    seed=checks.seed,
    resamples=checks.at_least_2,
    splits=checks.count,
)
def frechet_score(
    features: Tensor, reference: FrechetReference, seed: int = 0, resamples: int = RESAMPLES, splits: int = SPLITS
) -> FrechetScore:
    """:func:`fid` from sample features (N, D) already computed.

    ``stderr`` is the spread of ``resamples`` bootstrap draws, ``bias`` averages over ``splits`` random halvings.
    """
    x = _features(features, MIN_SAMPLES)
    if x.shape[1] != reference.mean.shape[0]:
        raise PhasewiseError(f"samples have {x.shape[1]} features, the reference has {reference.mean.shape[0]}")
    generator = seeding.plain(seed)
    value = reference.from_features(x)
    return FrechetScore(
        value=value,
        stderr=float(_bootstrap(x, reference, resamples, generator).std()),
        # c / (n / 2) - c / n = c / n, the bias of FID_n (Chong & Forsyth 2020)
        bias=_half_size(x, reference, splits, generator) - value,
        n=x.shape[0],
        reference_n=reference.n,
        features=reference.features,
        seed=seed,
    )


def _bootstrap(x: Tensor, reference: FrechetReference, resamples: int, generator: torch.Generator) -> Tensor:
    """Distances (resamples,) of draws with replacement, each given by how often it draws every sample."""
    n = x.shape[0]
    values = []
    for _ in range(resamples):
        drawn = torch.randint(0, n, (n,), generator=generator)
        # counts as weights: the resampled rows need not be copied
        values.append(reference.from_features(x, torch.bincount(drawn, minlength=n).double()))
    return torch.tensor(values, dtype=torch.float64)


def frechet_draws(
    features: Tensor, reference: FrechetReference, seed: int, resamples: int = RESAMPLES
) -> tuple[float, Tensor]:
    """The distance of features (N, D), and those of ``resamples`` bootstrap draws of their rows, (resamples,): their
    spread is the standard error of :func:`frechet_score`, and for features of one N and seed that of their differences
    is the error of :func:`frechet_difference`."""
    x = _features(features, MIN_SAMPLES)
    return reference.from_features(x), _bootstrap(x, reference, resamples, seeding.plain(seed))


@checks.checked(
    first=checks.tensor,
    second=checks.tensor,
    reference=checks.made(FrechetReference, "a FrechetReference"),
    seed=checks.seed,
    resamples=checks.at_least_2,
)
def frechet_difference(
    first: Tensor, second: Tensor, reference: FrechetReference, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Frechet distance of ``first`` minus that of ``second``, features (N, D) of samples made from the same noise.

    Row i of both comes from the same starting noise, so the bootstrap draws the same rows of both, and what they share
    (the luck of the noise, most of the finite-n bias) cancels: the error is far below that of independent samples.

    Raises :class:`PhasewiseError` when the two differ in shape.
    """
    a, b = _features(first, MIN_SAMPLES), _features(second, MIN_SAMPLES)
    if a.shape != b.shape:
        raise PhasewiseError(f"paired features must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    generator = seeding.plain(seed)
    n, values = len(a), []
    for _ in range(resamples):
        # one draw for both: row i of either began as the same noise
        weights = torch.bincount(torch.randint(0, n, (n,), generator=generator), minlength=n).double()
        values.append(reference.from_features(a, weights) - reference.from_features(b, weights))
    value = reference.from_features(a) - reference.from_features(b)
    return Estimate(value, float(torch.tensor(values, dtype=torch.float64).std()), n, unit=SQUARED, seed=seed)


@checks.checked(first=checks.tensor, second=checks.tensor, seed=checks.seed, resamples=checks.at_least_2)
def paired_frechet(first: Tensor, second: Tensor, seed: int = 0, resamples: int = 10) -> Estimate:
    """Squared Frechet distance between two sets of features (N, D), row i of both made from the same image or noise,
    with its standard error (bootstrap that draws the same rows of both).

    Raises :class:`PhasewiseError` when the two differ in shape, are fewer than 2 rows, or hold NaN.
    """
    a, b = _features(first, 2), _features(second, 2)
    if a.shape != b.shape:
        raise PhasewiseError(f"paired features must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}")

    def distance(weights: Tensor | None = None) -> float:
        mean, root, trace = _gaussian(b, weights)
        reference = FrechetReference(mean, root, float(trace), len(b), "")
        return max(reference.from_features(a, weights), 0.0)  # two equal sets may round below 0

    generator, n = seeding.plain(seed), len(a)
    drawn = [torch.randint(0, n, (n,), generator=generator) for _ in range(resamples)]
    values = [distance(torch.bincount(rows, minlength=n).double()) for rows in drawn]
    spread = float(torch.tensor(values, dtype=torch.float64).std())
    return Estimate(distance(), spread, n, unit=SQUARED, seed=seed)


def _half_size(x: Tensor, reference: FrechetReference, splits: int, generator: torch.Generator) -> float:
    """Mean distance of random halves."""
    values = []
    for _ in range(splits):
        order = torch.randperm(x.shape[0], generator=generator)
        values += [reference.from_features(x[half]) for half in order.chunk(2)]
    return sum(values) / len(values)


def _moments(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D) of rows (N, D), each counted ``weights`` (N,) times."""
    if weights is None:
        weights = torch.ones(x.shape[0], dtype=x.dtype)
    total = weights.sum()
    mean = weights @ x / total
    centred = x - mean
    return mean, (centred * weights[:, None]).T @ centred / (total - 1)


def _gaussian(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), a root of the covariance and its trace, of rows (N, D), each counted ``weights`` (N,) times.

    With fewer rows than features the centred rows are a root already, (D, rows): no matrix of D x D is decomposed.
    """
    n, dim = x.shape
    if n >= dim:
        mean, covariance = _moments(x, weights)
        return mean, _root(covariance), covariance.trace()
    weights = torch.ones(n, dtype=x.dtype) if weights is None else weights
    total = weights.sum()
    mean, drawn = weights @ x / total, weights > 0
    root = ((x[drawn] - mean) * (weights[drawn, None] / (total - 1)).sqrt()).T
    return mean, root, root.square().sum()


def _root(covariance: Tensor) -> Tensor:
    """``A`` with ``A A^T = covariance``; eigenvalues below 0 by rounding are taken as 0."""
    if not bool(torch.isfinite(covariance).all()):
        raise PhasewiseError("a covariance contains NaN or infinite entries; check the features")
    values, vectors = torch.linalg.eigh(covariance)
    tolerance = 1e-5 * float(values.abs().max())  # what float32 moments round to
    if float((covariance - covariance.T).abs().max()) > tolerance or float(values.min()) < -tolerance:
        raise PhasewiseError("a covariance must be symmetric and positive semi-definite; pass torch.cov(features.T)")
    return vectors * values.clamp(min=0).sqrt()


def _features(features: Tensor, least: int) -> Tensor:
    if features.dim() != 2:
        raise PhasewiseError(f"features must have shape (N, D), got {tuple(features.shape)}")
    if features.shape[0] < least:
        raise PhasewiseError(
            f"{features.shape[0]} images are too few: give at least {least}, and thousands for a usable value"
        )
    x = features.detach().double().cpu()
    if not bool(torch.isfinite(x).all()):
        raise PhasewiseError("features contain NaN or infinite values; check the images")
    return x


@checks.checked(features=a_feature_network, batch=checks.count)
def kid(samples: Tensor, reference: Tensor, features: FeatureNetwork, batch: int = 256) -> Estimate:
    """Kernel distance of ``samples`` (N, C, H, W) from images (M, C, H, W): see :func:`polynomial_mmd`."""
    return polynomial_mmd(features.extract(samples, batch), features.extract(reference, batch))


@checks.checked(x=checks.tensor, y=checks.tensor, rows=checks.count)
def polynomial_mmd(x: Tensor, y: Tensor, rows: int = 1024) -> Estimate:
    """Unbiased squared MMD of features (N, D) and (M, D) under ``k(a, b) = (a.b / D + 1)^3``; may be negative.

    The U-statistic over all pairs (Binkowski et al. 2018, arXiv 1801.01401, KID; Gretton et al. 2012, eq. 3), at a cost
    of (N + M)^2 D, ``rows`` at a time.  ``stderr`` is the two-sample jackknife over both sets: right where the sets
    differ, and up to sqrt(2) too large where they do not.  Unit: "MMD^2".
    """
    x, y = _features(x, MIN_SAMPLES), _features(y, MIN_SAMPLES)
    if x.shape[1] != y.shape[1]:
        raise PhasewiseError(f"samples have {x.shape[1]} features, the reference has {y.shape[1]}")
    n, m = x.shape[0], y.shape[0]
    xx, _ = _kernel_sums(x, x, rows)
    yy, _ = _kernel_sums(y, y, rows)
    xy, yx = _kernel_sums(x, y, rows)
    within = xx.sum() / (n * (n - 1)) + yy.sum() / (m * (m - 1))  # no pair of a row with itself: unbiased
    value = within - 2 * xy.sum() / (n * m)
    variance = _jackknife(xx, xy, m) + _jackknife(yy, yx, n)
    return Estimate(float(value), float(variance.sqrt()), n, unit="MMD^2")


def _kernel_sums(x: Tensor, y: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Sums of the kernel matrix over columns (N,) and over rows (M,), without its diagonal where ``y is x``."""
    over_columns = torch.zeros(x.shape[0], dtype=x.dtype)
    over_rows = torch.zeros(y.shape[0], dtype=x.dtype)
    for start in range(0, x.shape[0], rows):
        kernel = (x[start : start + rows] @ y.T / x.shape[1] + 1) ** 3
        if y is x:
            kernel.diagonal(start).zero_()  # k(x_i, x_i) belongs to no pair
        over_columns[start : start + rows] = kernel.sum(1)
        over_rows += kernel.sum(0)
    return over_columns, over_rows


def _jackknife(own: Tensor, cross: Tensor, others: int) -> Tensor:
    """Jackknife variance from leaving out one row: ``own`` are its kernel sums within its set, ``cross`` across."""
    n = own.shape[0]
    # the U-statistic without row i, up to the term of the other set alone, which does not vary
    left_out = (own.sum() - 2 * own) / ((n - 1) * (n - 2)) - 2 * (cross.sum() - cross) / ((n - 1) * others)
    return (n - 1) / n * (left_out - left_out.mean()).square().sum()
