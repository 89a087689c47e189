r"""What all solvable models share: image geometry, noise levels, and the interface.

Pixels of an ``H x W`` image are numbered row by row, ``i = row * W + col``.  Distances are max-norm.

Regions of the conditional mutual information ``I(A : C | B)`` (Hu, Liu, Zhang, Gao, arXiv 2508.06614)::

    A = a block of ``block x block`` pixels,     B = { j not in A : dist(j, A) <= radius },     C = the rest.

``center = (row, col)`` is the upper left of A's middle pixels: A covers the rows ``row - (block - 1) // 2`` to
``row + block // 2`` and the columns likewise.  Default ``((H - 1) // 2, (W - 1) // 2)``, the image centre.  In an
image thinner than ``block`` the block takes the whole thin side, so on a one-row image A is ``1 x block``.

Windows of local denoisers: ``N_r(i) = { j : dist(j, i) <= r }``, clipped at the border of the image, on a torus too
(networks see padding there, not the other side).  ``wrap=True`` closes both axes into rings instead.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import LinearPath, NoisePath, a_path, isotropic
from phasewise.results import Estimate
from phasewise.shapes import ImageShape

Shape = tuple[int, int]
"""(H, W)."""
Center = tuple[int, int]
"""(row, col)."""


class ExactModel(ABC):
    """A distribution of one-channel images whose noisy posteriors are known.

    ``image_shape`` is (1, H, W).  Times ``t`` are floats in [0, 1] on ``path`` (default: the linear path).  Closed
    forms come back as floats, Monte Carlo averages of exact posteriors as :class:`Estimate`.
    """

    image_shape: ImageShape

    @property
    def shape(self) -> Shape:
        """(H, W)."""
        return self.image_shape[1:]

    @abstractmethod
    def sample(self, n: int, seed: int) -> Tensor:
        """``n`` clean images (n, 1, H, W) float32; the first k of them do not depend on n."""

    @abstractmethod
    def denoiser(self, radius: int | None = None, path: NoisePath | None = None) -> Denoiser:
        """The exact posterior mean ``E[X_0 | X_t]``, or of each pixel given its window ``N_radius``."""

    @abstractmethod
    def cmi(
        self, t: float, radius: int, block: int = 1, center: Center | None = None, path: NoisePath | None = None
    ) -> float | Estimate:
        """``I(A : C | B)`` at time t in nats, all three regions noisy."""

    @abstractmethod
    def mmse(self, t: float, radius: int | None = None, path: NoisePath | None = None) -> float | Estimate:
        """``E|D_radius(X_t, t) - X_0|^2`` per image, summed over pixels (None: the global denoiser)."""


class ClosedForm(ExactModel):
    """A model whose error is a closed form that can be integrated over the signal-to-noise ratio by hand."""

    @abstractmethod
    def mmse(self, t: float, radius: int | None = None, path: NoisePath | None = None) -> float:
        """``E|D_radius(X_t, t) - X_0|^2`` per image, summed over pixels, in squared pixel units."""

    @abstractmethod
    def potential(self, t: float, radius: int, path: NoisePath | None = None) -> float:
        """``F_r(t)``, nats per image, with ``d F_r / d gamma = 1/2 Delta_r``, gamma = alpha^2 / sigma^2."""

    def denoising_gap(self, t: float, radius: int, path: NoisePath | None = None) -> float:
        """``Delta_r(t) = E|D - D_r|^2 = mmse_r - mmse`` per image, summed over pixels."""
        # D is the projection of X_0 on functions of the whole X_t, D_r on those of a part: Pythagoras
        return self.mmse(t, radius, path) - self.mmse(t, None, path)

    def path_kl(self, radius: int, t_min: float, t_max: float, path: NoisePath | None = None) -> float:
        """``K_r = 1/2 int Delta_r d gamma = F_r(t_min) - F_r(t_max)`` over t in [t_min, t_max], nats per image."""
        if not noise_time(t_min, "t_min") <= noise_time(t_max, "t_max"):
            raise PhasewiseError(f"need t_min <= t_max, got {t_min} and {t_max}")
        return self.potential(t_min, radius, path) - self.potential(t_max, radius, path)


@dataclass(frozen=True)
class ClassTerms:
    """What a class S of the clean image has to do with locality, at one time; information in nats, all pixels noisy.

    ``cmi`` I(A : C | B); ``given`` I(A : C | B, S); ``near`` I(A : S | B); ``far`` I(A : S | B, C), which by the chain
    rule are related as ``cmi - given = near - far``.  ``gap`` E|D - D_r|^2 of the one pixel A in squared pixel units,
    with D from all of the image and D_r from A and B; ``gap_given``: the same where both know S; NaN for larger A.
    ``agreement``: how often two draws from the posterior of the clean image are of one class.
    """

    cmi: Estimate
    given: Estimate
    near: Estimate
    far: Estimate
    gap: Estimate
    gap_given: Estimate
    agreement: Estimate

    @property
    def a(self) -> float:
        """The largest a with ``I(A : C | B, S) <= (1 - a) I(A : C | B)``; NaN where no information is there."""
        return 1 - self.given.value / self.cmi.value if self.cmi.value > 0 else float("nan")


def closed(value: float, unit: str = "nats") -> Estimate:
    """A closed form among estimates: no error, no samples."""
    return Estimate(float(value), 0.0, 0, unit)


def averaged(terms: Tensor, seed: int, unit: str = "nats") -> Estimate:
    """The mean of exact terms (n,) over samples, with its standard error."""
    stderr = float(terms.std()) / len(terms) ** 0.5 if len(terms) > 1 else float("nan")
    return Estimate(float(terms.mean()), stderr, len(terms), unit=unit, seed=seed)


@dataclass(frozen=True)
class Regions:
    """Flat pixel numbers of A, B and C, int64, ascending."""

    a: Tensor
    b: Tensor
    c: Tensor


@dataclass(frozen=True)
class WindowGroup:
    """Pixels whose windows have the same form: ``pixels`` (g,), ``indices`` (g, m), each window's own pixel at
    ``indices[:, position]``."""

    pixels: Tensor
    indices: Tensor
    position: int


def regions(shape: Shape, radius: int, block: int = 1, center: Center | None = None, wrap: bool = False) -> Regions:
    """The regions A, B, C of the module docstring; ``radius >= 0``, ``block >= 1``.

    Raises :class:`PhasewiseError` when the block does not fit into the image at ``center``.
    """
    check_radius_or_zero(radius)
    if checks.count(block, "block") > max(shape):
        raise PhasewiseError(f"block must be a whole number from 1 to the image side {max(shape)}, got {block!r}")
    middle = ((shape[0] - 1) // 2, (shape[1] - 1) // 2)
    if center is not None:
        middle = checks.position(center, "center")
    gaps = []
    for side, mid, name in zip(shape, middle, ("row", "column"), strict=True):
        width = min(block, side)
        first = 0 if width < block else mid - (width - 1) // 2
        if first < 0 or first + width > side or not 0 <= mid < side:
            raise PhasewiseError(
                f"a block of {block} at center {middle} leaves the {shape[0]}x{shape[1]} image ({name}s); "
                "move the center inwards or take a smaller block"
            )
        gaps.append(torch.tensor([_gap(i, first, first + width - 1, side, wrap) for i in range(side)]))
    distance = torch.maximum(gaps[0][:, None], gaps[1][None, :]).reshape(-1)
    numbers = torch.arange(distance.numel())
    return Regions(
        numbers[distance == 0], numbers[(distance > 0) & (distance <= radius)], numbers[distance > max(radius, 0)]
    )


def _gap(i: int, first: int, last: int, side: int, wrap: bool) -> int:
    """Distance of coordinate i from the interval [first, last], along one axis."""
    images = (i - side, i, i + side) if wrap else (i,)
    return min(max(first - k, k - last, 0) for k in images)


def windows(shape: Shape, radius: int | None, wrap: bool = False) -> list[WindowGroup]:
    """Windows ``N_radius`` of all pixels, grouped by form (None: every window is the whole image)."""
    if radius is not None:
        check_radius_or_zero(radius)
    groups = []
    for rows, cols in itertools.product(*(_axis_windows(side, radius, wrap) for side in shape)):
        pixels = (rows[0][:, None] * shape[1] + cols[0][None, :]).reshape(-1)
        cells = rows[1][:, None, :, None] * shape[1] + cols[1][None, :, None, :]
        groups.append(WindowGroup(pixels, cells.reshape(pixels.numel(), -1), rows[2] * cols[1].shape[1] + cols[2]))
    return groups


def _axis_windows(side: int, radius: int | None, wrap: bool) -> list[tuple[Tensor, Tensor, int]]:
    """(coordinates (g,), their windows (g, m), position of the coordinate in its window) for each clipped form."""
    r = side if radius is None else radius
    forms: dict[tuple[int, int], list[int]] = {}
    for i in range(side):
        below, above = min(r, i), min(r, side - 1 - i)
        if wrap:
            below, above = (r, r) if 2 * r + 1 <= side else (0, side - 1)
        forms.setdefault((below, above), []).append(i)
    out = []
    for (below, above), members in forms.items():
        at = torch.tensor(members)
        out.append((at, (at[:, None] + torch.arange(-below, above + 1)) % side, below))
    return out


def check_radius_or_zero(radius: int) -> int:
    """``radius`` if it is a whole number >= 0."""
    return checks.pixels(radius, "radius")


def check_shape(shape: Shape) -> ImageShape:
    """(1, H, W) of an (H, W) pair."""
    try:
        height, width = checks.each(checks.count, size=2)(shape, "shape")
    except PhasewiseError as error:
        raise PhasewiseError(f"shape must be (height, width) with both sides >= 1, got {shape!r}") from error
    return (1, height, width)


noise_time = checks.interval(0, 1, hint=" (0 = data, 1 = noise)")


def noise_level(t: float, path: NoisePath | None = None) -> tuple[float, float]:
    """(alpha, sigma) at time t in [0, 1] of ``path`` (default: linear), computed in float64."""
    t = noise_time(t, "noise time t")
    path = isotropic(LinearPath() if path is None else a_path(path, "path"), "this exact form")
    s = torch.tensor(float(t), dtype=torch.float64)
    return float(path.alpha(s)), float(path.sigma(s))


def check_images(x_t: Tensor, image_shape: ImageShape) -> Tensor:
    """``x_t`` in float64 if it is (B, *image_shape)."""
    if x_t.dim() != 4 or tuple(x_t.shape[1:]) != image_shape:
        raise PhasewiseError(f"x_t has shape {tuple(x_t.shape)}; this denoiser takes (B, *{image_shape})")
    return x_t.double()
