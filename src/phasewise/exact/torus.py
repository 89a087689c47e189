r"""The Gaussian field on a square torus by its Fourier modes, where the N x N covariance would not fit into memory.

Translation makes every denoiser a multiplier of modes, the windowed ones too where windows close round the torus
(``GaussianModel(..., wrap=True)``): with S(k) the field's spectrum and w the weights of the one window of all pixels ::

    D(k)    = alpha S(k) / (alpha^2 S(k) + sigma^2)
    D_r(k)  = sum over j in N_r of w_j cos(k.j),      (alpha^2 K + sigma^2 I) w = alpha K e_0  on the window
    mmse_r  = sum_k S (1 - alpha D_r)^2 + sigma^2 D_r^2
    Delta_r = sum_k (D_r - D)^2 (alpha^2 S + sigma^2)

A *plan* of side p is the field's p x p longest waves, as far as the whole noisy image tells them: all modes of at most
(p - 1) // 2 waves a side.  Modes are independent, so the best linear denoiser given a window and a plan is that of the
whole image on these modes, and on the rest a window over what the plan leaves, field and noise alike: with Q_p the
noise without these modes, K_p the field without them ::

    D_r,p(k) = D(k) on the plan's modes;  elsewhere as D_r, of (alpha^2 K_p + sigma^2 Q_p) w = alpha K_p e_0

The field is the same after a quarter turn or a reflection, so modes and weights come in orbits of up to eight; one of
each is kept.  The window's covariance, seen on weights that are equal within each orbit, is diagonalised once for all
times.  All linear algebra is float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from phasewise import checks
from phasewise.denoisers.base import Denoiser
from phasewise.errors import PhasewiseError
from phasewise.exact.base import check_radius_or_zero, check_shape, noise_level
from phasewise.exact.gaussian import torus_spectrum
from phasewise.paths import NoisePath, Time, as_time


class TorusField:
    """The distribution of ``GaussianField((side, side), mass)``, unit variance, for sides of hundreds of pixels.

    Args:
        side: pixels, at least 1.
        mass: > 0; the correlation length is about ``1 / mass`` pixels.
    """

    def __init__(self, side: int, mass: float) -> None:
        self.side = check_shape((side, side))[1]
        if not 0 < mass < float("inf"):
            raise PhasewiseError(f"mass must be a number > 0, got {mass!r}")
        self.mass: float | None = float(mass)
        self._take(torus_spectrum((self.side, self.side), self.mass))

    @classmethod
    @checks.checked(spectrum=checks.real_tensor)
    def of_spectrum(cls, spectrum: Tensor) -> TorusField:
        """The field of any spectrum (side, side), mode by mode as torch numbers them, such as :func:`periodogram`'s,
        averaged over turns and reflections and scaled to unit variance; ``mass`` is None.

        Raises PhasewiseError for a spectrum that is not square, negative or 0 somewhere, or not finite.
        """
        s = spectrum.detach().to("cpu", torch.float64)
        if s.dim() != 2 or s.shape[0] != s.shape[1] or not bool((torch.isfinite(s) & (s > 0)).all()):
            raise PhasewiseError(f"a spectrum is square, finite and above 0 everywhere; got {checks.shown(spectrum)}")
        field = cls.__new__(cls)
        field.side, field.mass = len(s), None
        for axis in (0, 1):
            s = (s + s.roll(-1, axis).flip(axis)) / 2  # k and -k
        field._take((s + s.T) / 2)
        return field

    def _take(self, spectrum: Tensor) -> None:
        spectrum = spectrum / spectrum.mean()
        self.correlation = torch.fft.ifft2(spectrum).real
        """(side, side): covariance of two pixels by their displacement."""
        rows, cols, self.count = _orbits(self.side // 2, self.side)
        self.waves = 2 * torch.pi / self.side * torch.stack([rows, cols], 1).double()
        """(M, 2): wave vectors of the kept modes, radians a pixel."""
        self.spectrum = spectrum[rows, cols]
        """(M,): variance of each kept mode; ``count`` (M,) says how many modes of the image it stands for."""
        self._windows: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def __repr__(self) -> str:
        return f"TorusField({self.side}, {'of a spectrum' if self.mass is None else f'mass={self.mass}'})"

    def gain(
        self, t: float, radius: int | None = None, path: NoisePath | None = None, *, plan: int | None = None
    ) -> Tensor:
        """The exact denoiser's multiplier of each kept mode, (M,), of the whole image or of windows ``N_radius``, these
        alone or beside a ``plan`` of so many pixels a side.

        Raises PhasewiseError where the window is wider than the torus, or the plan larger than the image.
        """
        alpha, sigma = noise_level(t, path)
        seen = self._planned(plan)
        if sigma == 0:
            return torch.full_like(self.spectrum, 1 / alpha)
        whole = alpha * self.spectrum / (alpha**2 * self.spectrum + sigma**2)
        if radius is None:
            return whole
        values, towards, waves = self._window(radius, seen)
        return torch.where(self._long(seen), whole, waves @ (alpha * towards / (alpha**2 * values + sigma**2)))

    def mmse(
        self, t: float, radius: int | None = None, path: NoisePath | None = None, *, plan: int | None = None
    ) -> float:
        """``E|D_radius(X_t, t) - X_0|^2`` per image, summed over pixels, in squared pixel units."""
        alpha, sigma = noise_level(t, path)
        gain = self.gain(t, radius, path, plan=plan)
        return float((self.count * (self.spectrum * (1 - alpha * gain) ** 2 + sigma**2 * gain**2)).sum())

    def denoising_gap(self, t: float, radius: int, path: NoisePath | None = None, *, plan: int | None = None) -> float:
        """``Delta_r(t) = E|D - D_r|^2 = mmse_r - mmse`` per image, summed over pixels."""
        alpha, sigma = noise_level(t, path)
        apart = self.gain(t, radius, path, plan=plan) - self.gain(t, None, path)
        return float((self.count * apart**2 * (alpha**2 * self.spectrum + sigma**2)).sum())

    def cmi(self, t: float, radius: int, block: int = 1, path: NoisePath | None = None) -> float:
        """``I(A : C | B)`` at time t in nats: A a block of so many pixels a side, B the ring of ``radius`` round it,
        C the rest of the torus; 0 where nothing is left for C.  The block and its ring are in one dense matrix."""
        r, size = check_radius_or_zero(radius), checks.count(block, "block")
        if size > self.side:
            raise PhasewiseError(f"a block of {size} pixels is wider than the torus of side {self.side}")
        alpha, sigma = noise_level(t, path)
        if size + 2 * r >= self.side or alpha == 0:
            return 0.0
        noisy = alpha**2 * torch.fft.fft2(self.correlation).real + sigma**2
        at = torch.arange(-r, size + r)
        pixels = torch.cartesian_prod(at, at)
        inside = ((pixels >= 0) & (pixels < size)).all(1)

        def within(spectrum: Tensor, of: Tensor) -> Tensor:
            apart = (of[:, None] - of[None, :]) % self.side
            return torch.fft.ifft2(spectrum).real[apart[..., 0], apart[..., 1]]

        near = torch.linalg.cholesky(within(noisy, torch.cat([pixels[~inside], pixels[inside]])))
        # det Var(A | B) by the last pivots, det Var(A | B, C) by the block of the inverse
        beside = 2 * near.diagonal()[-(size**2) :].log().sum()
        return 0.5 * float(beside + torch.logdet(within(1 / noisy, pixels[inside])))

    def denoiser(
        self, radius: int | None = None, path: NoisePath | None = None, *, plan: int | None = None
    ) -> TorusModes:
        """The exact (windowed, planned) posterior mean, as a map of the kept modes."""
        return TorusModes(self, radius, path, plan=plan)

    def _planned(self, plan: int | None) -> int:
        """Waves a side, at most, that a plan knows; -1 without one."""
        if plan is None:
            return -1
        if not 1 <= plan <= self.side:
            raise PhasewiseError(f"a plan of side {plan} is larger than the torus of side {self.side}, or none")
        return self.side if plan == self.side else (plan - 1) // 2

    def _long(self, most: int) -> Tensor:
        """(M,): whether a kept mode has at most so many waves a side."""
        return (self.waves.amax(1) * self.side / (2 * torch.pi)).round() <= most

    def _window(self, radius: int, most: int = -1) -> tuple[Tensor, Tensor, Tensor]:
        """Of the window's covariance on weights equal within each orbit, in units of the noise's: eigenvalues (o,), the
        components of the middle pixel's column (o,), and the waves (M, o) that each eigenvector sums to; field and
        noise without the modes of at most ``most`` waves a side."""
        r = check_radius_or_zero(radius)
        if 2 * r + 1 > self.side:
            raise PhasewiseError(f"a window of radius {r} is wider than the torus of side {self.side}")
        if (r, most) not in self._windows:
            rows, cols, size = _orbits(r, 2 * r + 1)
            # every pixel of the window, and the orbit that it belongs to
            at = torch.arange(-r, r + 1)
            high = torch.maximum(at.abs()[:, None], at.abs()[None, :]).reshape(-1)
            low = torch.minimum(at.abs()[:, None], at.abs()[None, :]).reshape(-1)
            orbit = high * (high + 1) // 2 + low
            down, across = (x.reshape(-1) for x in torch.meshgrid(at, at, indexing="ij"))
            there = (rows[:, None] - down[None, :]) % self.side, (cols[:, None] - across[None, :]) % self.side

            def within(correlation: Tensor) -> Tensor:
                summed = torch.zeros(len(size), len(size), dtype=torch.float64)
                summed.index_add_(1, orbit, correlation[there])
                # in the basis of orbits of length one the covariance is symmetric
                covariance = summed * (size[:, None] / size[None, :]).sqrt()
                return (covariance + covariance.T) / 2

            correlation, basis = self.correlation, torch.eye(len(size), dtype=torch.float64)
            if most >= 0:
                waves = torch.fft.fftfreq(self.side, 1 / self.side, dtype=torch.float64).round().abs()
                short = (torch.maximum(waves[:, None], waves[None, :]) > most).double()
                correlation = torch.fft.ifft2(torch.fft.fft2(self.correlation).real * short).real
                noise, turned = torch.linalg.eigh(within(torch.fft.ifft2(short).real))
                # where no noise is left no field is: those weights are of no use
                known = noise > 1e-10
                basis = turned[:, known] / noise[known].sqrt()
            values, vectors = torch.linalg.eigh(basis.T @ within(correlation) @ basis)
            vectors = basis @ vectors
            column = size.sqrt() * correlation[rows, cols]
            kx, ky = self.waves[:, :1], self.waves[:, 1:]
            cosines = (kx * rows).cos() * (ky * cols).cos() + (kx * cols).cos() * (ky * rows).cos()
            self._windows[r, most] = values, vectors.T @ column, (cosines / 2 * size.sqrt()) @ vectors
        return self._windows[r, most]


@checks.checked(images=checks.images)
def periodogram(images: Tensor) -> Tensor:
    """Mean squared Fourier modes of square images (n, C, side, side) about their mean image, (side, side) float64, all
    channels alike: the spectrum of a Gaussian field on the torus with their second moments, places averaged out.

    Opposite borders do not meet in a picture, which would look like an edge; so of each image the periodic component
    is taken (Moisan 2011, "Periodic plus smooth image decomposition"), which is the image less the smoothest one of the
    same jumps.  Raises PhasewiseError for images that are not square, or fewer than two.
    """
    if images.dim() != 4 or images.shape[-1] != images.shape[-2] or len(images) < 2:
        raise PhasewiseError(f"need at least two square images (n, C, side, side), got {checks.shown(images)}")
    side = images.shape[-1]
    waves = 2 - 2 * torch.cos(2 * torch.pi * torch.arange(side, dtype=torch.float64) / side)
    energy = waves[:, None] + waves[None, :]
    energy[0, 0] = 1.0  # the jumps sum to 0
    mean = images.double().mean(0)
    total = torch.zeros(side, side, dtype=torch.float64)
    for part in images.split(256):
        x = part.double() - mean
        jumps = torch.zeros_like(x)
        rows, columns = x[..., -1, :] - x[..., 0, :], x[..., :, -1] - x[..., :, 0]
        jumps[..., 0, :] += rows
        jumps[..., -1, :] -= rows
        jumps[..., :, 0] += columns
        jumps[..., :, -1] -= columns
        # the smooth part solves the discrete Poisson equation of the jumps
        total += (torch.fft.fft2(x) + torch.fft.fft2(jumps) / energy).abs().square().sum((0, 1))
    return total / (len(images) * images.shape[1] * side**2)


class TorusModes(Denoiser):
    """A field's exact denoiser acting on the amplitudes of its kept modes, (B, 1, 1, M), of any scale.

    All modes of an orbit are multiplied alike, so this is all that a linear sampler does to the field.
    ``window`` is the window's radius in pixels, None for the whole image; ``plan`` the side of the plan beside it.
    """

    def __init__(
        self, field: TorusField, radius: int | None = None, path: NoisePath | None = None, *, plan: int | None = None
    ) -> None:
        super().__init__((1, 1, len(field.spectrum)), path)
        self.field, self.window, self.plan = field, radius, plan
        field.gain(0.5, radius, plan=plan)  # a window or plan that does not fit is refused here

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        time = as_time(t, x_t)
        if time.dim():
            raise PhasewiseError("modes are denoised at one time for all rows; give t as a number")
        return self.field.gain(float(time), self.window, self.path, plan=self.plan).to(x_t) * x_t


def _orbits(top: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """(rows, cols, sizes) of the orbits ``0 <= col <= row <= top`` under quarter turns and reflections of a torus of
    ``side``, ordered by row, then column; sizes float64."""
    rows, cols = torch.tril_indices(top + 1, top + 1).unbind(0)
    # a coordinate is its own mirror image at 0 and half-way round
    mirrored = [torch.where((c == 0) | (2 * c == side), 1, 2) for c in (rows, cols)]
    return rows, cols, (mirrored[0] * mirrored[1] * torch.where(rows == cols, 1, 2)).double()
