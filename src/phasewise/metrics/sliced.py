r"""Sliced Wasserstein distance between sets of images: a measure that no network has a part in.

For unit vectors ``v`` in the space of the d pixels and the quantile functions ``F_v``, ``G_v`` of ``v . x`` in the two
sets (Rabin et al. 2011, doi 10.1007/978-3-642-24785-9_37; Bonneel et al. 2015, doi 10.1007/s10851-014-0506-3)::

    SW^2 = E_v int_0^1 ( F_v(u) - G_v(u) )^2 du

in squared pixel units; the mean is over ``directions`` vectors, uniform on the sphere, drawn once from a seed.  On a
line the integral over two sorted sets is exact, of unequal sizes too.  Given the directions SW is a metric, up to
sets that no direction tells apart.

Finite n inflates it, as it does every such distance: compare at equal n, directions and seed only, and hold it against
that of real images.  Natural images vary most in coarse patterns, so those weigh most here; what only fine detail
tells apart it may miss.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from phasewise import checks, seeding
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import write_bytes
from phasewise.metrics.feature_base import check_images
from phasewise.results import Estimate
from phasewise.shapes import ImageShape
from phasewise.tensors import read_tensors

DIRECTIONS = 128
ATOMS = 256
"""Points along a direction that what is kept on disk has."""
RESAMPLES = 50
MIN_SAMPLES = 8
PIXELS = "pixel units"


@dataclass(frozen=True)
class SlicedReference:
    """What reference images (n of them) look like along fixed directions.

    ``points`` (directions, m) float32, ascending in each row: the images' projections, or the means of m parts of equal
    number of them.  ``seed`` draws the directions; ``sums`` (directions,) are the sums of their entries, by which a
    stored reference is known to belong to them.
    """

    points: Tensor
    sums: Tensor
    image_shape: ImageShape
    n: int
    seed: int

    def __repr__(self) -> str:
        return f"SlicedReference({len(self.points)} directions of {self.n:,} images, seed {self.seed})"

    @classmethod
    @checks.checked(directions=checks.count, seed=checks.seed, atoms=checks.count)
    def of_images(
        cls, images: Tensor, directions: int = DIRECTIONS, seed: int = 0, atoms: int | None = None
    ) -> SlicedReference:
        """From images (N, C, H, W).

        ``atoms``: keep the means of so many equal parts of the sorted projections, where there are more images than
        that; None keeps every projection.  Raises :class:`PhasewiseError` for images that are none.
        """
        images = check_images(images, None)
        shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
        vectors = _vectors(shape, directions, seed)
        points = _projected(images, vectors).sort(dim=1).values
        if atoms is not None and atoms < len(images):
            # parts of nearly equal number: the mean is the best single point for each in squared distance
            points = torch.stack([part.double().mean(1) for part in points.tensor_split(atoms, dim=1)], 1).float()
        return cls(points.contiguous(), vectors.sum(1), shape, len(images), seed)

    def project(self, images: Tensor) -> Tensor:
        """Projections (directions, N) of images (N, C, H, W), float32, in the order of the images."""
        images = check_images(images, self.image_shape)
        return _projected(images, _vectors(self.image_shape, len(self.points), self.seed))

    def distance(self, images: Tensor) -> float:
        """The sliced distance of images (N, C, H, W) from these, without an error (:func:`sliced_wasserstein`)."""
        return _distance(self.project(images).sort(dim=1).values, self.points)

    def save(self, path: str | Path) -> Path:
        """Write it to one safetensors file."""
        about = {"n": str(self.n), "seed": str(self.seed), "image_shape": ",".join(map(str, self.image_shape))}
        return write_bytes(path, safetensors.torch.save({"points": self.points, "sums": self.sums}, about))

    @classmethod
    @checks.checked(path=checks.file)
    def load(cls, path: str | Path) -> SlicedReference:
        """What :meth:`save` wrote.  Raises :class:`CheckpointError` when it is damaged."""
        mend = "make it again by SlicedReference.of_images"
        tensors, about = read_tensors(path, mend)
        try:
            points, sums, n, seed = tensors["points"], tensors["sums"], int(about["n"]), int(about["seed"])
            channels, height, width = (int(size) for size in about["image_shape"].split(","))
            shape = (channels, height, width)
            if points.dim() != 2 or min(*points.shape, *shape, n) < 1 or sums.shape != points.shape[:1]:
                raise ValueError(f"points {tuple(points.shape)}, sums {tuple(sums.shape)}, n = {n}")
            if math.prod(shape) * len(points) > 1 << 30:
                raise ValueError(f"{len(points)} directions for images of shape {shape}")
            if not bool(points.isfinite().all()) or bool((points.diff(dim=1) < 0).any()):
                raise ValueError("the points do not ascend")
            if not torch.allclose(_vectors(shape, len(points), seed).sum(1), sums, rtol=1e-3, atol=1e-4):
                raise ValueError("the directions of this seed are others")
            return cls(points.float(), sums.float(), shape, n, seed)
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} holds no sliced reference ({error}); {mend}") from error


@functools.lru_cache(maxsize=8)
def _facing(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which of n and which of m sorted points face each other, and for how much of [0, 1]."""
    # the steps of both quantile functions, in units of 1 / (n m): whole numbers, so none is lost by rounding
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    starts = torch.cat([torch.zeros(1, dtype=ends.dtype), ends[:-1]])
    return starts // m, starts // n, ((ends - starts).double() / (n * m)).float()


def _distance(a: Tensor, b: Tensor) -> float:
    """SW of projections (directions, n) and (directions, m), sorted in each row."""
    first, second, weight = _facing(a.shape[1], b.shape[1])
    apart = a.index_select(1, first) - b.index_select(1, second)
    return math.sqrt(float((apart.square_() @ weight).double().mean()))


def sliced_draws(
    samples: Tensor, reference: SlicedReference, seed: int, resamples: int = RESAMPLES
) -> tuple[float, Tensor]:
    """SW of ``samples`` (N, C, H, W) from the reference, and those of ``resamples`` bootstrap draws, (resamples,).

    Two sets of N samples of one seed draw the same rows: the differences of their draws are those of pairs.
    """
    if len(samples) < MIN_SAMPLES:
        raise PhasewiseError(f"a sliced distance with its error needs at least {MIN_SAMPLES} samples")
    points, order = reference.project(samples).sort(dim=1)
    n, generator = points.shape[1], seeding.plain(seed)
    values = []
    for _ in range(resamples):
        drawn = torch.bincount(torch.randint(0, n, (n,), generator=generator), minlength=n)
        # sorted already: each point as often as its row was drawn
        again = points.flatten().repeat_interleave(drawn[order].flatten()).view_as(points)
        values.append(_distance(again, reference.points))
    return _distance(points, reference.points), torch.tensor(values, dtype=torch.float64)


@checks.checked(samples=checks.images, directions=checks.count, seed=checks.seed, resamples=checks.at_least_2)
def sliced_wasserstein(
    samples: Tensor,
    reference: Tensor | SlicedReference,
    directions: int = DIRECTIONS,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Sliced 2-Wasserstein distance between ``samples`` (N, C, H, W) and reference images, in pixel units.

    Args:
        reference: images (M, C, H, W) of the same shape, or :meth:`SlicedReference.of_images` of them, whose
            ``directions`` and seed then count.
        seed: of the directions and of the bootstrap.
        resamples: draws of the samples that the standard error is the spread of; the reference is held fixed.

    Exactly 0 ± its error for equal sets.  Raises :class:`PhasewiseError` on images of another shape, fewer than 8
    samples, or NaN and infinite pixels.
    """
    if not isinstance(reference, SlicedReference):
        reference = SlicedReference.of_images(reference, directions, seed)
    value, draws = sliced_draws(samples, reference, seed, resamples)
    return Estimate(value, float(draws.std()), len(samples), unit=PIXELS, seed=seed)


def _vectors(shape: ImageShape, directions: int, seed: int) -> Tensor:
    """Unit vectors (directions, C H W), uniform on the sphere."""
    drawn = torch.randn(directions, math.prod(shape), generator=seeding.generator(seed, seeding.Purpose.SLICES))
    return drawn / drawn.norm(dim=1, keepdim=True)


def _projected(images: Tensor, vectors: Tensor, batch: int = 4096) -> Tensor:
    parts = [part.detach().flatten(1).float().cpu() @ vectors.T for part in images.split(batch)]
    return torch.cat(parts).T.contiguous()
