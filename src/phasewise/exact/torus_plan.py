r"""A Gaussian field on the torus whose windows are told a plan of pooled pixels: what far pixels still say beside it.

The plan of side p is the global posterior mean, seen as p x p means over blocks: with P the pooling, D the whole
image's multiplier (:class:`~phasewise.exact.torus.TorusField`), K the field's covariance and K_t the noisy one ::

    S = P D X_t,      Cov(S, X_t) = alpha P K,      Cov(S, X_0) = alpha P D K,      Cov(S) = alpha P K D P'

all of which depend on the distance of block and pixel alone, and Cov(S) on that of two blocks: the p x p Fourier modes
of the blocks are independent, so what is left of a window given S costs p^2 numbers a pixel and no p^2 x p^2 matrix.

**The gap** is of windows that see their own noisy pixels and S; what is denoised is the clean pixel.

**CMI.**  From B, C and S together A would be known exactly, for S was read off A too: I(A : C | B, S) would be
infinite.  So there the plan is read off the image without A, the mean given B and C alone, and by data processing
``I(A : C | B, S) = I(A : C | B) - I(A : S | B)``: what the plan leaves of the CMI, between 0 and all of it.  With Q the
inverse of K_t, E the columns of A, G = (Q_AA)^-1 the variance of A given the rest, and V = P D E ::

    S = P D (X_t - E G Q_A X_t),     Cov(S) = alpha P K D P' - V G V',     Cov(S, X_A) = alpha P K E - V G

Windows close round the torus.  All linear algebra is float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.exact.base import check_radius_or_zero, noise_level
from phasewise.exact.torus import TorusField
from phasewise.paths import NoisePath

RELATIVE = 1e-14
"""Modes of the plan below this share of the largest are nothing but rounding."""
ROUNDING = 1e-13
"""A share of a variance that is known to be rounding."""
AT_ONCE = 2**22
"""Numbers of a chunk of places."""


class PooledPlan:
    """The plan of ``side`` x ``side`` pooled pixels of a field at noise time ``t``, and what windows lack beside it.

    Args:
        field: whose images they are.
        side: of the plan, pixels; it divides the field's.
        t: in [0, 1], of ``path`` (default: linear).

    A pixel's place in its block matters: all answers are means over places.  Raises PhasewiseError for a side that does
    not divide the field's, and for sigma = 0, where every pixel is known.
    """

    @checks.checked(field=checks.made(TorusField, "a TorusField"), side=checks.count)
    def __init__(self, field: TorusField, side: int, t: float, path: NoisePath | None = None) -> None:
        if field.side % side:
            raise PhasewiseError(f"a plan of {side} pixels a side does not divide the field's {field.side}")
        self.alpha, self.sigma = noise_level(t, path)
        if self.sigma == 0:
            raise PhasewiseError("without noise every pixel is known from itself, so no plan is needed; take t > 0")
        self.field, self.side, self.block = field, int(side), field.side // int(side)
        self.whole = field.mmse(t, None, path)
        """The global denoiser's squared error per image, summed over pixels."""
        spectrum = torch.fft.fft2(field.correlation).real
        noisy = self.alpha**2 * spectrum + self.sigma**2
        mean = torch.zeros(field.side, field.side, dtype=torch.float64)
        mean[: self.block, : self.block] = 1 / self.block**2
        pool = torch.fft.fft2(mean)

        def kernel(values: Tensor) -> Tensor:
            return torch.fft.ifft2(values).real

        gain = self.alpha * spectrum / noisy
        self.noisy, self.precision = kernel(noisy), kernel(1 / noisy)
        # by the displacement of a block's first pixel and a pixel: Cov(S, X_t), Cov(S, X_0), P D
        self.to_noisy, self.to_clean, self.to_answer = (
            kernel(values * pool.conj()) for values in (self.alpha * spectrum, self.alpha * gain * spectrum, gain)
        )
        own = kernel(self.alpha * spectrum * gain * pool.abs() ** 2)[:: self.block, :: self.block]
        variance = torch.fft.fft2(own).real
        self.inverse = torch.where(variance > RELATIVE * variance.max(), 1 / variance, 0.0).reshape(-1)
        """(p^2,): one over the variance of each of the plan's modes."""

    def mmse(self, radius: int) -> float:
        """``E|E[X_0 | X_t on N_radius, S] - X_0|^2`` per image, summed over pixels, in squared pixel units."""
        return self.whole + self.denoising_gap(radius)

    def denoising_gap(self, radius: int) -> float:
        """What such a window loses to the whole image, per image, summed over pixels.  Raises PhasewiseError for a
        window wider than the torus."""
        window = self._square(1 + 2 * self._fits(radius, 1), -radius)
        near, own = self._between(self.field.correlation, window), torch.zeros(1, 2, dtype=torch.long)
        noisy = self.alpha**2 * near + self.sigma**2 * torch.eye(len(window), dtype=torch.float64)
        beside = self.alpha * self._between(self.field.correlation, window, own)
        total = 0.0
        for places, count in self._places(1, len(window)):
            seen, clean = self._modes(self.to_noisy, places, window), self._modes(self.to_clean, places, own)
            left = noisy - self._inner(seen, seen)
            cross = beside - self._inner(seen, clean)
            known = (cross * torch.linalg.lstsq(left, cross).solution).sum((1, 2)) + self._inner(clean, clean)[:, 0, 0]
            total += float((count * (self.field.correlation[0, 0] - known)).sum())
        return self.side**2 * total - self.whole

    def cmi(self, radius: int, block: int = 1) -> float:
        """``I(A : C | B, S)`` in nats: A a block of so many pixels a side, the plan read off the image without A (see
        the module).  Raises PhasewiseError for a ring wider than the torus; 0 at alpha = 0."""
        r, size = self._fits(radius, block), checks.count(block, "block")
        if self.alpha == 0 or self.block == 1:  # nothing to tell; a plan of all pixels tells all
            return 0.0
        a, window = self._square(size, 0), self._square(size + 2 * r, -r)
        inside = ((window >= 0) & (window < size)).all(1)
        window = torch.cat([window[~inside], a])  # A last
        apart = self._between(self.precision, a)
        rest = torch.linalg.inv(apart)
        noisy, total = self._between(self.noisy, window), 0.0
        for places, count in self._places(size, len(window)):
            read = self._modes(self.to_answer, places, a)
            seen = self._modes(self.to_noisy, places, window)
            seen[..., -len(a) :] -= read @ rest.to(read)
            # Cov(S) is that of the whole image's plan less V G V': Woodbury
            turned = self._inner(read, seen)
            more = turned.mT @ torch.linalg.solve(apart - self._inner(read, read), turned)
            left = noisy - self._inner(seen, seen) - more
            total += float((count * _last_logdet(left, len(a))).sum())
        return 0.5 * (total / self.block**2 - float(torch.logdet(rest)))

    def _fits(self, radius: int, block: int) -> int:
        r = check_radius_or_zero(radius)
        if block + 2 * r > self.field.side:
            raise PhasewiseError(f"a window of radius {r} is wider than the torus of side {self.field.side}")
        return r

    @staticmethod
    def _square(size: int, first: int) -> Tensor:
        """(size^2, 2): pixels of a square that begins at (first, first)."""
        at = torch.arange(first, first + size)
        return torch.cartesian_prod(at, at)

    def _between(self, table: Tensor, a: Tensor, b: Tensor | None = None) -> Tensor:
        """(A, B) of a table by displacement."""
        apart = (a[:, None] - (a if b is None else b)[None, :]) % self.field.side
        return table[apart[..., 0], apart[..., 1]]

    def _places(self, size: int, pixels: int) -> list[tuple[Tensor, Tensor]]:
        """First pixels of A in its block (n, 2), one of those that a turn or reflection of the torus makes equal, and
        how many there are of each (n,), in chunks."""
        at = torch.arange(self.block)
        folded = torch.minimum(at, (self.block - size - at) % self.block)
        pairs = torch.cartesian_prod(folded, folded).sort(1).values
        places, count = pairs.unique(dim=0, return_counts=True)
        many = max(AT_ONCE // (pixels * max(self.side**2, pixels)), 1)
        return list(zip(places.split(many), count.double().split(many), strict=True))

    def _modes(self, table: Tensor, places: Tensor, pixels: Tensor) -> Tensor:
        """(n, p^2, pixels) complex: the plan's modes, of unit norm, of a table by displacement of block and pixel."""
        at = places[:, None] + pixels[None, :]
        blocks = self._square(self.side, 0) * self.block
        apart = (blocks[None, :, None] - at[:, None]) % self.field.side
        values = table[apart[..., 0], apart[..., 1]].unflatten(1, (self.side, self.side))
        return torch.fft.fft2(values, dim=(1, 2), norm="ortho").flatten(1, 2)

    def _inner(self, a: Tensor, b: Tensor) -> Tensor:
        """(n, A, B): ``a' Cov(S)^-1 b`` with the whole image's plan."""
        return (a.mH @ (self.inverse[:, None] * b)).real


def _last_logdet(matrices: Tensor, size: int) -> Tensor:
    """(n,): log det of the last entries' variance given those before them.  What the plan tells of those to within
    rounding (whole blocks of it in a window, at little noise) can tell nothing more and is left out."""
    factor, failed = torch.linalg.cholesky_ex(matrices)
    if not bool(failed.any()):
        return 2 * factor.diagonal(dim1=1, dim2=2)[:, -size:].log().sum(1)
    values, vectors = torch.linalg.eigh(matrices[:, :-size, :-size])
    known = values > ROUNDING * matrices.diagonal(dim1=1, dim2=2).amax(1, keepdim=True)
    cross = vectors.mT @ matrices[:, :-size, -size:]
    inverse = torch.where(known, 1 / torch.where(known, values, 1.0), 0.0)
    return torch.logdet(matrices[:, -size:, -size:] - cross.mT @ (inverse[..., None] * cross))
