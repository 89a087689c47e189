r"""Anisotropic Gaussian paths: every mode of a fixed orthonormal basis is noised by a law of its own.

With ``U`` the basis (:mod:`phasewise.paths.basis`) and z white noise::

    x_t = U^T ( alpha_k(t) (U x)_k + sigma_k(t) z_k )_k

    alpha_k = alpha_b(k)(t) exp(-e_k (blur^2 / 2) sin^2(pi t / 2))        b(k): the band of mode k
    sigma_k = sigma_b(k)(t) r_k,     r_k^2 ~ (mass^2 + e_k)^-power,  mean of r_k^2 = 1

``e_k`` are the eigenvalues of the lattice Laplacian.  So noise may come by frequency (``power``; of ``power`` 1 it is
the free field of that mass), the image may be blurred as well (``blur``, in pixels: Hoogeboom and Salimans 2022, arXiv
2209.05557, eq. 13 and 21), and each band, a level of the Haar pyramid say, may have a whole path of its own.

Within one mode nothing is new: all conversions, all steps of solvers are those of isotropic paths, mode by mode, on
:attr:`ModePath.by_mode`.  But no relabelling of time leads from one such path to another: :func:`translate` refuses it.

``alpha(t)``, ``sigma(t)`` and ``log_snr(t)`` of the path itself are what a pixel sees: the factor of the mean
brightness, and the root mean square of the noise of a pixel.  Networks are preconditioned by them, and grids placed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.paths.base import (
    LinearPath,
    NoisePath,
    Time,
    _tensor,
    a_path,
    as_time,
    isotropic,
    path_from_config,
    register_path,
)
from phasewise.paths.basis import BASES, Basis

HALVINGS = 60
"""Of the bracket, in the search for a time of given log-SNR: double precision."""
MOST_FADED = 12.0
"""The shortest waves keep at least exp(-12) of their amplitude, so that every mode's ratio falls strictly."""
LOOKED_AT = 257
"""Times at which every mode's signal-to-noise ratio is seen to fall."""


class Modewise(NoisePath):
    """The law of every mode, as a path of amplitudes (B, C, H, W): ``alpha(t)`` of a single time is (H, W), of times
    (B, 1, 1, 1) it is (B, 1, H, W).  What :class:`ModePath` says in pixels, said mode by mode."""

    name = "modewise"

    def __init__(self, bands: Sequence[NoisePath], band: Tensor, noise: Tensor, fading: Tensor) -> None:
        self.bands, self.band, self.noise, self.fading = tuple(bands), band, noise, fading

    def _each(self, of: Callable[[NoisePath], Callable[[Tensor], Tensor]], t: Tensor) -> Tensor:
        """A function of the bands' paths, for every mode."""
        if len(self.bands) == 1:
            value = of(self.bands[0])(t)
            return value if t.dim() else value.expand(self.band.shape)
        values = torch.stack([of(path)(t.reshape(-1)) for path in self.bands], -1)[:, self.band.to(t.device)]
        return values[:, None] if t.dim() else values[0]

    def _faded(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """What blurring leaves of every mode, and its derivative in t."""
        rate = self.fading.to(t)
        left = torch.exp(-rate * torch.sin(math.pi / 2 * t) ** 2)
        return left, -rate * (math.pi / 2) * torch.sin(math.pi * t) * left

    def alpha(self, t: Tensor) -> Tensor:
        return self._each(lambda path: path.alpha, t) * self._faded(t)[0]

    def sigma(self, t: Tensor) -> Tensor:
        return self._each(lambda path: path.sigma, t) * self.noise.to(t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        left, falling = self._faded(t)
        moving, still = (self._each(of, t) for of in (lambda p: p.alpha_dot, lambda p: p.alpha))
        return moving * left + still * falling

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self._each(lambda path: path.sigma_dot, t) * self.noise.to(t)

    def t_of_log_snr(self, log_snr: Time) -> Tensor:
        raise PhasewiseError("modes reach a log-SNR at times of their own; ask the path, not its modes")


@register_path
class ModePath(NoisePath):
    """Noise by mode of a fixed basis: by frequency, with blurring, or band by band.

    Args:
        shape: (H, W) of the images; all channels alike.
        basis: "dct" (waves; every size) or "haar" (pyramid; both sides even, halved while they are).
        of: the path of all modes, or a list of one for every band, from the coarsest (:mod:`phasewise.paths.basis`);
            default the linear path.
        power: of the noise's spectrum, ``(mass^2 + e)^-power``; 0 is white, above 0 long waves have more, below 0
            less.  mass: > 0, about one over the noise's correlation length in pixels.  With "dct" alone.
        blur: how far the image itself is blurred at t = 1, pixels; 0: not.  With "dct" alone.

    Raises PhasewiseError for a basis that does not fit the images, paths that are not one or one a band, and a mode
    whose signal-to-noise ratio does not fall all along.
    """

    name = "modes"

    @checks.checked(
        shape=checks.each(checks.count, size=2), basis=checks.one_of(BASES, "basis"), power=checks.number,
        mass=checks.positive, blur=checks.not_negative,
    )  # fmt: skip
    def __init__(
        self,
        shape: tuple[int, int],
        basis: str = "dct",
        of: NoisePath | dict[str, Any] | Sequence[NoisePath | dict[str, Any]] | None = None,
        *,
        power: float = 0.0,
        mass: float = 1.0,
        blur: float = 0.0,
    ) -> None:
        self.shape, self.power, self.mass, self.blur = (int(shape[0]), int(shape[1])), power, mass, blur
        self.basis: Basis = BASES[basis](self.shape)
        single = of is None or isinstance(of, (NoisePath, dict))
        given: list[Any] = [LinearPath() if of is None else of] if single else list(of)  # type: ignore[arg-type]
        bands = [a_path(path_from_config(p) if isinstance(p, dict) else p, "of") for p in given]
        for path in bands:
            isotropic(path, "a band of a mode path")
        band = self.basis.band
        wanted = int(band.max()) + 1
        if not single and len(bands) != wanted:
            raise PhasewiseError(
                f"{basis} on {self.shape[0]} x {self.shape[1]} pixels has {wanted} bands, and {len(bands)} paths were "
                "given; give one path for all, or one for every band from the coarsest"
            )
        self.of = bands
        noise = torch.ones(self.shape, dtype=torch.float64)
        if power:
            spectrum = (mass**2 + self.basis.energy) ** -power
            noise = (spectrum / spectrum.mean()).sqrt()
        fading = torch.zeros(self.shape, dtype=torch.float64)
        if blur:
            fading = (self.basis.energy * blur**2 / 2).clamp_max(MOST_FADED)
        self.by_mode = Modewise(bands, band, noise, fading)
        """The same path, said mode by mode."""
        self.modes = self.by_mode
        # how many of the modes, weighted by their noise, run on each band's path
        weight = torch.zeros(len(bands), dtype=torch.float64)
        weight.index_add_(
            0, band.flatten() if len(bands) > 1 else torch.zeros_like(band.flatten()), noise.flatten() ** 2
        )
        self._weight = weight / band.numel()
        self._check()

    def _check(self) -> None:
        """Bands differ in time by themselves, blurring only falls, and colour is a constant: so bands are looked at."""
        times = torch.linspace(0, 1, LOOKED_AT, dtype=torch.float64)
        for number, path in enumerate(self.of):
            if not bool((path.sigma(times[1:]) > 0).all()) or not bool((path.log_snr(times).diff() < 0).all()):
                raise PhasewiseError(
                    f"the signal-to-noise ratio of band {number} does not fall all the way from t = 0 to 1 on "
                    f"{path!r}; a path goes from data to noise in every mode"
                )

    # --- what a pixel sees ------------------------------------------------------------------------------------------

    def alpha(self, t: Tensor) -> Tensor:
        return self.of[0].alpha(t)  # of the mean brightness, which blurring leaves

    def sigma(self, t: Tensor) -> Tensor:
        return torch.stack([w * p.sigma(t) ** 2 for w, p in self._parts(t)]).sum(0).sqrt()

    def alpha_dot(self, t: Tensor) -> Tensor:
        return self.of[0].alpha_dot(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        slopes = torch.stack([w * p.sigma(t) * p.sigma_dot(t) for w, p in self._parts(t)]).sum(0)
        at_zero = torch.stack([w * p.sigma_dot(t) ** 2 for w, p in self._parts(t)]).sum(0).sqrt()
        sigma = self.sigma(t)
        return torch.where(sigma > 0, slopes / sigma.clamp_min(1e-38), at_zero)

    def _parts(self, t: Tensor) -> list[tuple[Tensor, NoisePath]]:
        return list(zip(self._weight.to(t), self.of, strict=True))

    def t_of_log_snr(self, log_snr: Time) -> Tensor:
        if len(self.of) == 1:  # r_k^2 has the mean 1
            return self.of[0].t_of_log_snr(log_snr)
        wanted = _tensor(log_snr)
        low, high = torch.zeros_like(wanted, dtype=torch.float64), torch.ones_like(wanted, dtype=torch.float64)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            above = self.log_snr(middle) > wanted  # still too clean: a later time
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        # ends are met exactly: a sampler that starts at 1 starts at pure noise
        ends = torch.where(wanted <= self.log_snr(torch.ones_like(high)), torch.ones_like(high), (low + high) / 2)
        return torch.where(wanted >= self.log_snr(torch.zeros_like(high)), torch.zeros_like(high), ends).to(
            wanted.dtype
        )

    # --- conversions, mode by mode ----------------------------------------------------------------------------------

    def add_noise(self, x: Tensor, z: Tensor, t: Time) -> Tensor:
        """``x_t`` of images x (B, C, H, W) and white noise z, whose amplitudes are those of the modes."""
        return self._converted(self.by_mode.add_noise, x, z, t)

    def eps_from_x(self, x_t: Tensor, x: Tensor, t: Time) -> Tensor:
        return self._converted(self.by_mode.eps_from_x, x_t, x, t)

    def x_from_eps(self, x_t: Tensor, eps: Tensor, t: Time) -> Tensor:
        return self._converted(self.by_mode.x_from_eps, x_t, eps, t)

    def score_from_x(self, x_t: Tensor, x: Tensor, t: Time) -> Tensor:
        return self._converted(self.by_mode.score_from_x, x_t, x, t)

    def x_from_score(self, x_t: Tensor, score: Tensor, t: Time) -> Tensor:
        return self._converted(self.by_mode.x_from_score, x_t, score, t)

    def velocity_from_x(self, x_t: Tensor, x: Tensor, t: Time) -> Tensor:
        return self._converted(self.by_mode.velocity_from_x, x_t, x, t)

    def x_from_velocity(self, x_t: Tensor, velocity: Tensor, t: Time) -> Tensor:
        return self._converted(self.by_mode.x_from_velocity, x_t, velocity, t)

    def pure_noise(self, z: Tensor, t: float) -> Tensor:
        """White noise ``z`` (B, C, H, W), float32 or so, as the noise that this path has at time t."""
        self.check_side(z.shape[-2:])
        sigma = self.by_mode.sigma(torch.tensor(t, dtype=torch.float64))
        return self.basis.to_pixels(sigma.to(z) * self.basis.to_modes(z))

    def matrices(self, t: Time) -> tuple[Tensor, Tensor]:
        """(A, S), each (H W, H W) float64: ``x_t = A x + noise`` of covariance S at a single time t, for pixels of one
        channel row by row."""
        s = torch.as_tensor(t, dtype=torch.float64).cpu()
        unit = torch.eye(self.shape[0] * self.shape[1], dtype=torch.float64).view(-1, *self.shape)
        waves = self.basis.to_modes(unit)
        signal, noise = self.by_mode.alpha(s), self.by_mode.sigma(s) ** 2
        return self.basis.to_pixels(signal * waves).flatten(1), self.basis.to_pixels(noise * waves).flatten(1)

    def _converted(self, convert: Callable[[Tensor, Tensor, Time], Tensor], a: Tensor, b: Tensor, t: Time) -> Tensor:
        as_time(t, a)  # times that do not fit are refused in the words of all paths
        self.check_side(a.shape[-2:])
        return self.basis.to_pixels(convert(self.basis.to_modes(a), self.basis.to_modes(b), t))

    def check_side(self, side: tuple[int, ...]) -> None:
        if tuple(side) != self.shape:
            raise PhasewiseError(
                f"the path is for images of {self.shape[0]} x {self.shape[1]} pixels, and these are {tuple(side)}; "
                "make one of their shape"
            )

    def gamma(self, t: Time) -> Tensor:
        isotropic(self, "a signal-to-noise ratio of the whole image")
        raise AssertionError

    def velocity_gain(self, t: Time) -> Tensor:
        isotropic(self, "how far an error of the image moves the velocity")
        raise AssertionError

    def config(self) -> dict[str, Any]:
        of = [path.config() for path in self.of]
        coloured = {"power": self.power, "mass": self.mass} if self.power else {}
        return {
            "name": self.name, "shape": list(self.shape), "basis": self.basis.name, "of": of if len(of) > 1 else of[0],
            **coloured, **({"blur": self.blur} if self.blur else {}),
        }  # fmt: skip

    def __repr__(self) -> str:
        kinds = list(dict.fromkeys(map(repr, self.of)))
        of = kinds[0] if len(kinds) == 1 else f"{len(self.of)} paths"
        more = f", power={self.power:g}, mass={self.mass:g}" if self.power else ""
        more += f", blur={self.blur:g}" if self.blur else ""
        return f"ModePath({self.shape}, {self.basis.name}, {of}{more})"
