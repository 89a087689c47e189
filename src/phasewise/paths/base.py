r"""Gaussian noising paths and the algebra between the four things a denoiser can predict.

A path noises an image ``x`` with ``z ~ N(0, I)``::

    x_t = alpha(t) x + sigma(t) z,      t in [0, 1],  t = 0 data, t = 1 noise.

Its signal-to-noise ratio is ``gamma = alpha^2 / sigma^2`` and ``log_snr = log gamma`` (natural
logarithm, decreasing in t).  Given the posterior mean ``D = E[x | x_t]``::

    eps      = (x_t - alpha D) / sigma
    score    = -eps / sigma
    velocity = alpha' D + sigma' eps          (dx/dt of the probability-flow ODE)

Paths here are isotropic but for :class:`phasewise.paths.ModePath`, whose modes have laws of their own.  All isotropic
Gaussian paths are one path up to a rescaling of ``x_t`` and a relabelling of ``t`` by
``gamma`` (Kingma et al. 2021, arXiv 2107.00630); :func:`translate` is that relabelling.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.registry import Registry

Time = float | Tensor
P = TypeVar("P", bound="NoisePath")


def as_time(t: Time, like: Tensor) -> Tensor:
    """``t`` as a tensor that broadcasts against ``like`` (B, ...): shape () or (B, 1, ..., 1).

    Raises :class:`PhasewiseError` when ``t`` lies outside [0, 1], is NaN, or has neither 1 nor B entries, or where
    ``like`` holds integers, in which a time is 0 or 1.
    """
    if not isinstance(like, Tensor):
        raise PhasewiseError(f"images must be a tensor, got {checks.shown(like)}; torch.as_tensor(...) makes one")
    if not like.is_floating_point():
        raise PhasewiseError(f"images are {like.dtype}; convert them to float first, in the data's pixel units")
    try:
        # looked at where it lies: a number, or a tensor on the CPU, makes no GPU wait
        t = torch.as_tensor(t, dtype=like.dtype, device=t.device if isinstance(t, Tensor) else "cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise PhasewiseError(f"noise time t must be a number or a tensor, got {checks.shown(t)}") from error
    # asked as "all inside", so that NaN, which compares False, is refused too
    if t.numel() == 0 or not bool(((t >= 0) & (t <= 1)).all()):
        raise PhasewiseError("noise time t must lie in [0, 1] (0 = data, 1 = noise)")
    if t.numel() == 1 and t.device.type == "cpu" != like.device.type:
        return torch.full((), float(t), dtype=like.dtype, device=like.device)  # filled there: a copy would wait
    t = t.to(like.device)
    if t.dim() == 0 or t.numel() == 1:
        return t.reshape(())
    if t.shape != like.shape[:1]:
        raise PhasewiseError(
            f"t has shape {tuple(t.shape)}; give a float or one time per image, shape ({like.shape[0]},)"
        )
    return t.reshape(-1, *[1] * (like.dim() - 1))


class NoisePath(ABC):
    """A Gaussian path. ``alpha``, ``sigma`` and their derivatives map times (any shape) to the same shape.

    A path of your own: a subclass with its five methods, a ``name``, and what its constructor takes in :meth:`config`;
    :func:`register_path` makes saved denoisers and schedules that speak it readable.
    """

    name: str = "path"
    modes: NoisePath | None = None
    """Of an anisotropic path, the law of every mode (:class:`phasewise.paths.ModePath`); None: all are noised alike."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def t_of_log_snr(self, log_snr: Time) -> Tensor:
        """Inverse of :meth:`log_snr`; values outside the path's range are mapped to its nearer end."""

    def log_snr(self, t: Time) -> Tensor:
        """``log(alpha^2 / sigma^2)``: +inf where sigma = 0, -inf where alpha = 0."""
        t = _tensor(t)
        # log 0 = -inf where alpha or sigma vanishes: the infinite ends need no case of their own
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def gamma(self, t: Time) -> Tensor:
        """Signal-to-noise ratio ``alpha^2 / sigma^2``."""
        t = _tensor(t)
        return (self.alpha(t) / self.sigma(t)) ** 2

    def add_noise(self, x: Tensor, z: Tensor, t: Time) -> Tensor:
        """``x_t = alpha(t) x + sigma(t) z``; x and z (B, ...), t a float or (B,)."""
        s = as_time(t, x)
        return self.alpha(s) * x + self.sigma(s) * z

    def check_side(self, side: tuple[int, ...]) -> None:  # noqa: B027
        """Raises PhasewiseError where this path is for images of another (H, W); an isotropic one is for all."""

    def pure_noise(self, z: Tensor, t: float) -> Tensor:
        """White noise ``z`` (B, ...) as the noise that ``x_t`` has at time t, in its dtype."""
        return z * float(self.sigma(torch.tensor(t, dtype=torch.float64)))

    # Conversions. x_t and the second argument are (B, ...); t is a float or (B,). Dividing by sigma they
    # need t > 0; the inverses that divide by alpha need alpha > 0.

    def eps_from_x(self, x_t: Tensor, x: Tensor, t: Time) -> Tensor:
        s = as_time(t, x_t)
        return (x_t - self.alpha(s) * x) / self.sigma(s)

    def x_from_eps(self, x_t: Tensor, eps: Tensor, t: Time) -> Tensor:
        s = as_time(t, x_t)
        return (x_t - self.sigma(s) * eps) / self.alpha(s)

    def score_from_x(self, x_t: Tensor, x: Tensor, t: Time) -> Tensor:
        return -self.eps_from_x(x_t, x, t) / self.sigma(as_time(t, x_t))

    def x_from_score(self, x_t: Tensor, score: Tensor, t: Time) -> Tensor:
        return self.x_from_eps(x_t, -self.sigma(as_time(t, x_t)) * score, t)  # score = -eps / sigma

    def velocity_from_x(self, x_t: Tensor, x: Tensor, t: Time) -> Tensor:
        s = as_time(t, x_t)
        return self.alpha_dot(s) * x + self.sigma_dot(s) * self.eps_from_x(x_t, x, t)

    def x_from_velocity(self, x_t: Tensor, velocity: Tensor, t: Time) -> Tensor:
        s = as_time(t, x_t)  # velocity = da x + ds (x_t - a x) / sg, solved for x
        a, sg, da, ds = self.alpha(s), self.sigma(s), self.alpha_dot(s), self.sigma_dot(s)
        # the denominator is sigma^2 d(alpha / sigma)/dt: below 0 wherever log-SNR falls, and finite at sigma = 0
        return (sg * velocity - ds * x_t) / (da * sg - ds * a)

    def velocity_gain(self, t: Time) -> Tensor:
        """``|d velocity / d x-hat| = |alpha' - sigma' alpha / sigma|``; linear path: ``1/t``."""
        t = _tensor(t)
        # velocity = (alpha' - sigma' alpha / sigma) x-hat + (sigma' / sigma) x_t
        return (self.alpha_dot(t) - self.sigma_dot(t) * self.alpha(t) / self.sigma(t)).abs()

    def config(self) -> dict[str, Any]:
        """JSON-ready description; :func:`path_from_config` rebuilds the path from it."""
        return {"name": self.name}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoisePath) and self.config() == other.config()

    def __hash__(self) -> int:
        return hash(repr(sorted(self.config().items())))

    def __repr__(self) -> str:
        args = ", ".join(f"{k}={v}" for k, v in self.config().items() if k != "name")
        return f"{type(self).__name__}({args})"


a_path = checks.made(NoisePath, "a noise path", "such as phasewise.LinearPath()")
"""A noise path, as an argument."""


def isotropic(path: NoisePath, what: str) -> NoisePath:
    """``path`` where it noises all modes alike, as ``what`` needs.

    Raises PhasewiseError for an anisotropic one.
    """
    if path.modes is not None:
        raise PhasewiseError(
            f"{what} is known on isotropic paths alone, where one signal-to-noise ratio says all; {path!r} has one for "
            "every mode. Use phasewise.LinearPath() or another isotropic path"
        )
    return path


PATHS: Registry[type[NoisePath]] = Registry("path")
"""Classes of paths by name, the one their :meth:`NoisePath.config` holds."""


def register_path(cls: type[P]) -> type[P]:
    """Let :func:`path_from_config` know a path class under its ``name``; a decorator, it returns the class.

    Raises PhasewiseError for a name that is taken.
    """
    PATHS.register(cls.name, cls)
    return cls


@register_path
class LinearPath(NoisePath):
    """Flow matching, the paper's path: ``alpha = 1 - t``, ``sigma = t`` (Lipman et al. 2023, arXiv 2210.02747)."""

    name = "linear"

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def t_of_log_snr(self, log_snr: Time) -> Tensor:
        return torch.sigmoid(-_tensor(log_snr) / 2)  # alpha / sigma = (1 - t) / t: log-SNR = 2 logit(1 - t)


@register_path
class CosinePath(NoisePath):
    """Variance preserving: ``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)`` (Nichol & Dhariwal 2021)."""

    name = "cosine"

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * (1 - t))  # exactly 0 at t = 1

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * torch.sin(math.pi / 2 * t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return math.pi / 2 * torch.sin(math.pi / 2 * (1 - t))

    def t_of_log_snr(self, log_snr: Time) -> Tensor:
        return 2 / math.pi * torch.atan(torch.exp(-_tensor(log_snr) / 2))  # sigma / alpha = tan(pi t / 2)


@register_path
class VarianceExplodingPath(NoisePath):
    """``alpha = 1``, ``sigma = sigma_min (sigma_max / sigma_min)^t`` (Song et al. 2021, arXiv 2011.13456).

    ``sigma_min`` and ``sigma_max`` are in pixel units.  ``t = 0`` keeps noise of ``sigma_min``; a sampler ends
    with a denoise, so samples are clean all the same.
    """

    name = "variance_exploding"

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        sigma_min, sigma_max = checks.number(sigma_min, "sigma_min"), checks.number(sigma_max, "sigma_max")
        if not 0 < sigma_min < sigma_max:
            raise PhasewiseError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self._rate = math.log(self.sigma_max / self.sigma_min)  # d log sigma / dt, the same at every t

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(self._rate * t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return self._rate * self.sigma(t)

    def t_of_log_snr(self, log_snr: Time) -> Tensor:
        log_sigma = -_tensor(log_snr) / 2  # alpha = 1: log-SNR = -2 log sigma
        return ((log_sigma - math.log(self.sigma_min)) / self._rate).clamp(0, 1)

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "sigma_min": self.sigma_min, "sigma_max": self.sigma_max}


def path_from_config(config: dict[str, Any]) -> NoisePath:
    """The path that ``config`` (from :meth:`NoisePath.config`) describes; PhasewiseError where it describes none."""
    if not isinstance(config, Mapping):
        raise PhasewiseError(
            f"a path is described by its config, such as {{'name': 'linear'}}; got {str(config)[:80]!r}"
        )
    kwargs = dict(config)
    cls = PATHS[kwargs.pop("name", None)]
    try:
        return cls(**kwargs)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise PhasewiseError(f"the path {cls.name!r} cannot be made of {str(kwargs)[:80]} ({error})") from error


def translate(x_t: Tensor, t: Time, source: NoisePath, target: NoisePath) -> tuple[Tensor, Tensor]:
    """The same noisy image in another path's units: (x_t', t') at equal log-SNR.

    ``t'`` has the shape of ``t`` (() or (B,)).  A log-SNR beyond the target's range goes to its nearer end.

    Raises PhasewiseError between an anisotropic path and any other: no time makes their noisy images the same.
    """
    # a single time is translated on the CPU, where the next to look at it need not wait for a GPU
    many = isinstance(t, Tensor) and (t.numel() != 1 or t.device.type != "cpu")
    s = as_time(t, x_t if many else x_t.new_empty((), device="cpu"))
    s = s if s.dim() == 0 else s.reshape(-1)
    if source == target:
        return x_t, s
    for path in (source, target):
        isotropic(path, "the same noisy image on another path")
    # Equal log-SNR is equal alpha / sigma: the two noisy images then differ by one factor, that of their norms.
    u = target.t_of_log_snr(source.log_snr(s)).clamp(0, 1)
    norm = torch.sqrt(target.alpha(u) ** 2 + target.sigma(u) ** 2)
    norm = norm / torch.sqrt(source.alpha(s) ** 2 + source.sigma(s) ** 2)
    return x_t * as_scale(norm, x_t), u


def as_scale(value: Tensor, like: Tensor) -> Tensor:
    """A per-image factor () or (B,) shaped to multiply ``like`` (B, ...)."""
    return value if value.dim() == 0 else value.reshape(-1, *[1] * (like.dim() - 1))


def _tensor(t: Time) -> Tensor:
    # a bare number: grids and weights are computed in double precision
    return t if isinstance(t, Tensor) else torch.tensor(float(t), dtype=torch.float64)
