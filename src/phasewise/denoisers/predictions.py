r"""What a network may predict, and the posterior mean D that follows; both ways, on any path.

With ``x_t = alpha x + sigma z`` and primes for derivatives in t::

    x0        D
    eps       D = (x_t - sigma eps) / alpha                                 (Ho et al. 2020, arXiv 2006.11239)
    score     eps = -sigma score                                            (Song et al. 2021, arXiv 2011.13456)
    v         v = (alpha eps - sigma x) / norm                             (Salimans, Ho 2022, arXiv 2202.00512, app. D)
              norm = sqrt(alpha^2 + sigma^2), 1 where variance is preserved
    velocity  alpha' x + sigma' z = dx_t / dt, on LinearPath noise - image  (Lipman et al. 2023, arXiv 2210.02747)
    -eps, -v, -velocity, -score: the same with the other sign, as in image minus noise
    edm       D = c_skip x + c_out F(c_in x, ..), with x = x_t / alpha    (Karras et al. 2022, arXiv 2206.00364, eq. 7)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.paths import NoisePath
from phasewise.registry import Registry

LEAST_SIGNAL = 0.005
"""Least alpha / sigma at which an answer that is divided by alpha is asked for: the end of the usual 1,000 steps."""
Convert = Callable[[NoisePath, Tensor, Tensor, Tensor], Tensor]
"""(path, x_t, value, time as it broadcasts) -> the other value."""


@dataclass(frozen=True)
class Prediction:
    """One thing that networks predict.

    Attributes:
        to_x: the posterior mean from what the network says.  from_x: the reverse.
        takes: what the network is shown in place of x_t; x_t itself where None.
        reveals: whether it says anything of the image where alpha = 0; what does not is asked a little below t = 1.
    """

    name: str
    to_x: Convert
    from_x: Convert
    takes: Callable[[NoisePath, Tensor, Tensor], Tensor] | None = None
    reveals: bool = True

    def __str__(self) -> str:
        return self.name


PREDICTIONS: Registry[Prediction] = Registry("prediction type")
"""Every prediction type that can be named."""


def register_prediction(prediction: Prediction) -> Prediction:
    """Make ``prediction`` known by its name; returns it."""
    PREDICTIONS.register(prediction.name, prediction)
    return prediction


def _norm(path: NoisePath, s: Tensor) -> Tensor:
    return torch.hypot(path.alpha(s), path.sigma(s))


def _x_from_v(path: NoisePath, x_t: Tensor, v: Tensor, s: Tensor) -> Tensor:
    norm = _norm(path, s)  # of x_t / norm: variance preserving
    return (path.alpha(s) * x_t / norm - path.sigma(s) * v) / norm


def _v_from_x(path: NoisePath, x_t: Tensor, x: Tensor, s: Tensor) -> Tensor:
    norm = _norm(path, s)
    return (path.alpha(s) * x_t / norm - norm * x) / path.sigma(s)


for _known in (
    Prediction("x0", lambda path, x_t, out, s: out, lambda path, x_t, x, s: x),
    Prediction(
        "eps",
        lambda path, x_t, out, s: (x_t - path.sigma(s) * out) / path.alpha(s),
        lambda path, x_t, x, s: (x_t - path.alpha(s) * x) / path.sigma(s),
        reveals=False,
    ),
    Prediction(
        "score",
        lambda path, x_t, out, s: (x_t + path.sigma(s) ** 2 * out) / path.alpha(s),
        lambda path, x_t, x, s: (path.alpha(s) * x - x_t) / path.sigma(s) ** 2,
        reveals=False,
    ),
    Prediction("v", _x_from_v, _v_from_x),
    Prediction(
        "velocity",
        # the algebra of NoisePath.x_from_velocity and velocity_from_x, at a time that broadcasts already
        lambda path, x_t, out, s: (
            (path.sigma(s) * out - path.sigma_dot(s) * x_t)
            / (path.alpha_dot(s) * path.sigma(s) - path.sigma_dot(s) * path.alpha(s))
        ),
        lambda path, x_t, x, s: path.alpha_dot(s) * x + path.sigma_dot(s) * (x_t - path.alpha(s) * x) / path.sigma(s),
    ),
):
    register_prediction(_known)


def _turned(prediction: Prediction) -> Prediction:
    """The same with the other sign, as in image minus noise."""
    return Prediction(
        f"-{prediction.name}",
        lambda path, x_t, out, s: prediction.to_x(path, x_t, -out, s),
        lambda path, x_t, x, s: -prediction.from_x(path, x_t, x, s),
        reveals=prediction.reveals,
    )


for _name in ("eps", "v", "velocity", "score"):
    register_prediction(_turned(PREDICTIONS[_name]))


def edm(sigma_data: float = 0.5, sign: float = 1.0) -> Prediction:
    """The preconditioned network of Karras et al. (eq. 7 and table 1), ``r = sigma / alpha`` the noise level::

        c_skip = sd^2 / (r^2 + sd^2),  c_out = r sd / sqrt(r^2 + sd^2),  c_in = 1 / sqrt(r^2 + sd^2)

    ``sigma_data``: sd, the standard deviation of the pixels.  ``sign``: of c_out, -1 where the network predicts "v".
    """
    sd = checks.positive(sigma_data, "sigma_data")

    def parts(path: NoisePath, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        alpha, sigma = path.alpha(s), path.sigma(s)
        # in terms of x_t: r^2 + sd^2 is (sigma^2 + alpha^2 sd^2) / alpha^2, finite coefficients at alpha = 0 too
        root = torch.sqrt(sigma**2 + (alpha * sd) ** 2)
        return alpha * sd**2 / root**2, sign * sigma * sd / root, 1 / root, sigma

    def to_x(path: NoisePath, x_t: Tensor, out: Tensor, s: Tensor) -> Tensor:
        skip, scale, _, _ = parts(path, s)
        return skip * x_t + scale * out

    def from_x(path: NoisePath, x_t: Tensor, x: Tensor, s: Tensor) -> Tensor:
        skip, scale, _, _ = parts(path, s)
        return (x - skip * x_t) / scale

    name = f"{'-' if sign < 0 else ''}edm{'' if sd == 0.5 else f'({sd:g})'}"
    return Prediction(name, to_x, from_x, takes=lambda path, x_t, s: parts(path, s)[2] * x_t)


PREDICTIONS.register("edm", edm())


def a_prediction(value: Any, name: str) -> Prediction:
    """A prediction type, by its name or as a :class:`Prediction`, as an argument."""
    if isinstance(value, Prediction):
        return value
    spread = re.fullmatch(r"(-?)edm(?:\((\d+(?:\.\d+)?(?:e-?\d+)?)\))?", value) if isinstance(value, str) else None
    if spread is not None:
        return edm(float(spread[2] or 0.5), -1.0 if spread[1] else 1.0)
    if isinstance(value, str) and value in OTHER_NAMES:
        value = OTHER_NAMES[value]
    if not isinstance(value, str) or value not in PREDICTIONS:
        raise PhasewiseError(
            f"{name} must be what the network predicts, one of {', '.join(PREDICTIONS)} or a Prediction; "
            f"got {checks.shown(value)}"
        )
    return PREDICTIONS[value]


OTHER_NAMES = {
    "epsilon": "eps", "noise": "eps", "sample": "x0", "x": "x0", "v_prediction": "v", "flow": "velocity",
    "flow_prediction": "velocity",
}  # fmt: skip
"""What others call them."""


# --- how a network is told the time -----------------------------------------------------------------------------------


def _ratio(path: NoisePath, s: Tensor) -> Tensor:
    return torch.exp(-path.log_snr(s) / 2)


TIMES: dict[str, tuple[Callable[[NoisePath, Tensor], Tensor], Callable[[NoisePath, Tensor], Tensor]]] = {
    "t": (lambda path, s: s, lambda path, value: value),
    "sigma": (_ratio, lambda path, value: path.t_of_log_snr(-2 * value.log())),
    "log_sigma": (lambda path, s: -path.log_snr(s) / 2, lambda path, value: path.t_of_log_snr(-2 * value)),
    "log_snr": (lambda path, s: path.log_snr(s), lambda path, value: path.t_of_log_snr(value)),
}
"""By name: what is told of our t on a path, and the t of what was told.  "sigma" is sigma / alpha, the noise in units
of the image; log-SNR is that of the path, natural logarithm."""


@dataclass(frozen=True)
class Clock:
    """How a network is told the time: ``scale * f(t) + shift``, f of :data:`TIMES`, on a path.

    ``whole``: rounded to a whole number, for a network that looks its time up in a table.  ``steps``: K, the steps that
    it was trained with, where these are discrete.
    """

    path: NoisePath
    kind: str = "t"
    scale: float = 1.0
    shift: float = 0.0
    whole: bool = False
    steps: int | None = None

    @property
    def steps_total(self) -> int | None:
        """K: the discrete steps, or of a flow, which is told K t, that factor; None where the noise itself is told."""
        if self.steps is not None:
            return self.steps
        return int(self.scale) if self.kind == "t" and self.shift == 0 and self.scale >= 1 else None

    def told(self, s: Tensor) -> Tensor:
        """What the network is told at times ``s``, any shape."""
        value = self.scale * TIMES[self.kind][0](self.path, s.double()) + self.shift
        if self.steps is not None:  # a step is what single precision says it is to the nearest
            value = torch.where((value - value.round()).abs() < 1e-3, value.round(), value).clamp(0, None)
        return (value.round() if self.whole else value).to(s.dtype)

    def timestep_of_time(self, t: float) -> float:
        """What the network is told at time t, a number."""
        return float(self.told(torch.tensor(checks.unit(t, "t"), dtype=torch.float64)))

    def time_of_timestep(self, timestep: float) -> float:
        """The time t at which the network is told ``timestep``."""
        value = (torch.tensor(checks.number(timestep, "timestep"), dtype=torch.float64) - self.shift) / self.scale
        return min(max(float(TIMES[self.kind][1](self.path, value)), 0.0), 1.0)

    def times_told(self, value: Tensor) -> Tensor:
        """:meth:`time_of_timestep` of a tensor of any shape."""
        return TIMES[self.kind][1](self.path, (value.double() - self.shift) / self.scale).clamp(0, 1)

    def sigma_of_time(self, t: float) -> float:
        """Noise in units of the image, sigma / alpha, at time t."""
        return math.exp(-self.log_snr_of_time(t) / 2)

    def log_snr_of_time(self, t: float) -> float:
        return float(self.path.log_snr(checks.unit(t, "t")))


def a_clock(path: NoisePath, time: str, scale: float, shift: float, whole: bool) -> Clock:
    """The clock that :func:`phasewise.wrap`'s arguments describe.  Raises PhasewiseError for an unknown way."""
    if time == "timestep":
        inner = getattr(path, "of", path)
        steps = getattr(inner, "steps", None)
        if steps is None:
            raise PhasewiseError(
                "time='timestep' counts the steps of a table: give path=TablePath(...); for a path without steps, such "
                "as flow matching's t times 1,000, give time='t', time_scale=1000"
            )
        return Clock(path, "t", float(steps), -1.0, whole, int(steps))  # step k is at t = (k + 1) / K
    if time not in TIMES:
        known = ", ".join(("timestep", *TIMES))
        raise PhasewiseError(f"time must be how the network is told the time, one of {known}; got {checks.shown(time)}")
    return Clock(path, time, scale, shift, whole)
