"""Anybody's network as a denoiser: what it predicts, how it is told the time, on which path and in which pixels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from phasewise import checks
from phasewise.denoisers.base import Denoiser, as_rows
from phasewise.denoisers.predictions import LEAST_SIGNAL, Clock, Prediction, a_clock, a_prediction
from phasewise.denoisers.trust import on_trust
from phasewise.errors import PhasewiseError
from phasewise.paths import LinearPath, NoisePath, Time, a_path, as_time, in_pixels, isotropic, path_from_config
from phasewise.shapes import ImageShape

Module = Callable[..., Any]


def a_module(value: Any, name: str) -> Module:
    """A torch module, or any function, as an argument; a class, which is no network yet, is refused."""
    if callable(value) and not isinstance(value, type) and not isinstance(value, Denoiser):
        return value
    mend = "it is a Denoiser already" if isinstance(value, Denoiser) else "build it first" if callable(value) else ""
    raise PhasewiseError(
        f"{name} must be a torch module or a function (x, t) -> tensor, got {checks.shown(value)}"
        + (f"; {mend}" if mend else "")
    )


class WrappedDenoiser(Denoiser):
    """A network made elsewhere, called as it likes to be and answered for as a denoiser; made by :func:`wrap`.

    Attributes:
        module: the network.  prediction: what it predicts.  clock: how it is told the time.
        inner: the path in the network's own pixels; ``path`` is the same in yours.
    """

    def __init__(
        self,
        module: Module,
        image_shape: ImageShape,
        *,
        prediction: Prediction,
        clock: Clock,
        path: NoisePath,
        pixel_range: tuple[float, float] | None = None,
        radius: int | None = None,
        cond: str | None = None,
        needs_condition: bool | None = None,
        clamp: tuple[float, float] | None = None,
    ) -> None:
        low, high = pixel_range or (0.0, 1.0)
        isotropic(path, "what a wrapped network predicts")
        super().__init__(image_shape, in_pixels(path, pixel_range), radius)
        self.module = module
        self.prediction, self.clock, self.inner = prediction, clock, path
        self.pixel_range = (low, high)
        self.clamp = clamp
        self.cond_name = cond
        self.needs_condition = cond is not None if needs_condition is None else needs_condition
        # what is divided by alpha is not asked where nothing of the image is left
        end = float(path.log_snr(1.0))
        dark = not prediction.reveals and end < 2 * torch.log(torch.tensor(LEAST_SIGNAL)).item()
        self._last = (
            float(path.t_of_log_snr(2 * torch.log(torch.tensor(LEAST_SIGNAL, dtype=torch.float64)))) if dark else 1.0
        )

    @property
    def takes_condition(self) -> bool:
        return self.cond_name is not None

    def config(self) -> dict[str, Any]:
        raise PhasewiseError(
            "a network wrapped by pw.wrap is code of yours, which a file cannot hold; keep that code, and wrap again"
        )

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        self._check(x_t, cond)
        s = as_time(t, x_t).clamp(max=self._last)
        (low, high), alpha = self.pixel_range, self.inner.alpha(s)
        theirs = (high - low) * x_t + alpha * low  # alpha (scale x + low) + scale sigma z
        shown = theirs if self.prediction.takes is None else self.prediction.takes(self.inner, theirs, s)
        out = self.ask(shown, self.clock.told(s.reshape(-1).expand(len(x_t))), cond)
        x = self.prediction.to_x(self.inner, theirs, out, s)
        answer = ((x if self.clamp is None else x.clamp(*self.clamp)) - low) / (high - low)
        if not on_trust() and not bool(torch.isfinite(answer).all()):
            worst = s.reshape(-1).expand(len(x_t))[~answer.isfinite().flatten(1).all(1)]
            raise PhasewiseError(
                f"{self.called} answers NaN or infinity at t = {float(worst[0]):.4g} (it was told "
                f"{float(self.clock.told(worst[:1])):.4g}); leave that time out, or look at the network there"
            )
        return answer

    @property
    def called(self) -> str:
        """What messages call the network."""
        return f"the {type(self.module).__name__}" if isinstance(self.module, nn.Module) else "the function"

    def ask(self, shown: Tensor, told: Tensor, cond: Tensor | None) -> Tensor:
        """The network's own answer, (B, C, H, W) in the type of ``shown``; of learned variances the mean alone."""
        kind = self._dtype(shown)
        given = {} if self.cond_name is None else self._conditions(cond, len(shown), shown.device)
        return self._mean(
            self._call(shown.to(kind), told.to(kind if kind == torch.float64 else torch.float32), given), shown
        )

    def _call(self, shown: Tensor, told: Tensor, given: dict[str, Tensor]) -> Any:
        if "" in given:
            return self.module(shown, told, given[""])
        return self.module(shown, told, **given)

    def _conditions(self, cond: Tensor | None, n: int, device: torch.device) -> dict[str, Tensor]:
        return {} if cond is None else {str(self.cond_name): as_rows(cond, n).to(device)}

    def _mean(self, out: Any, shown: Tensor) -> Tensor:
        out = getattr(out, "sample", out[0] if isinstance(out, (tuple, list)) else out)
        if not isinstance(out, Tensor):
            raise PhasewiseError(f"{self.called} answers {checks.shown(out)}, not a tensor; wrap a function that does")
        channels = shown.shape[1]
        if out.shape == (len(shown), 2 * channels, *shown.shape[2:]):
            out = out[:, :channels]  # learned variances come behind (Nichol and Dhariwal 2021)
        if out.shape != shown.shape:
            raise PhasewiseError(
                f"{self.called} answers {tuple(out.shape)} to images {tuple(shown.shape)}; a prediction has the shape "
                "of the image (or twice its channels, with learned variances)"
            )
        return out.to(shown.dtype)

    def _dtype(self, like: Tensor) -> torch.dtype:
        weights = self.module.parameters() if isinstance(self.module, nn.Module) else iter(())
        kind = next((w.dtype for w in weights if w.is_floating_point()), like.dtype)
        if kind == torch.float16 and like.device.type == "cpu":
            raise PhasewiseError(
                f"{self.called} has weights in half precision, which the CPU does not take; .float() it"
            )
        return kind

    def _check(self, x_t: Tensor, cond: Tensor | None) -> None:
        if tuple(x_t.shape[1:]) != self.image_shape:
            latents = (
                "; does it denoise latents? encode the images first" if x_t.shape[1] != self.image_shape[0] else ""
            )
            raise PhasewiseError(
                f"x_t has shape {tuple(x_t.shape)}; this denoiser takes (B, *{self.image_shape}){latents}"
            )
        if cond is None and self.takes_condition and self.needs_condition:
            raise PhasewiseError(
                f"{self.called} needs a condition ({self.cond_name or 'its third argument'}): pass cond, or bind one "
                "with .given(cond)"
            )
        if cond is not None and not self.takes_condition:
            raise PhasewiseError(
                f"{self.called} takes no condition; leave cond out, or name its argument: wrap(..., cond=NAME)"
            )


def _path_of(value: Any, name: str) -> NoisePath:
    """A path described by its config, as an argument."""
    if not isinstance(value, Mapping):
        raise PhasewiseError(
            f"{name} must be a noise path, such as pw.TablePath(betas='linear') of a DDPM or pw.LinearPath() of flow "
            f"matching; got {checks.shown(value)}"
        )
    return path_from_config(dict(value))


@checks.checked(
    module=a_module,
    image_shape=checks.image_shape,
    predicts=a_prediction,
    path=checks.either(a_path, _path_of),
    time=checks.text,
    time_scale=checks.number,
    time_shift=checks.number,
    whole_times=checks.flag,
    pixel_range=checks.each(checks.number, size=2),
    clamp=checks.each(checks.number, size=2),
    radius=checks.count,
    cond=checks.text,
    needs_condition=checks.flag,
)
def wrap(
    module: Module,
    image_shape: ImageShape,
    *,
    predicts: str | Prediction,
    path: NoisePath | Mapping[str, Any] | None = None,
    time: str = "t",
    time_scale: float = 1.0,
    time_shift: float = 0.0,
    whole_times: bool = False,
    pixel_range: tuple[float, float] | None = None,
    clamp: tuple[float, float] | None = None,
    radius: int | None = None,
    cond: str | None = None,
    needs_condition: bool | None = None,
) -> WrappedDenoiser:
    """Any torch callable ``module(x, t)`` as a :class:`Denoiser`, whose answer is the posterior mean.

    Args:
        module: takes x (B, C, H, W) and t (B,) float, answers (B, C, H, W), a tuple that begins with it, or an object
            with ``.sample``.  Twice the channels are taken for learned variances, and split off.
        image_shape: (C, H, W).
        predicts: "x0", "eps", "v", "velocity", "score", "edm", or a :class:`Prediction` such as ``edm(sigma_data)``
            (:mod:`phasewise.denoisers.predictions`, with formulas and sources).
        path: noise that it was trained on, in its own pixels; by default LinearPath, flow matching.  Or its config.
        time: what it is told: "t" (ours, 0 data, 1 noise), "timestep" (0..K-1 of a TablePath), "sigma" (sigma / alpha),
            "log_sigma", or "log_snr"; times ``time_scale`` plus ``time_shift`` (1000 t: time_scale=1000; EDM's c_noise:
            "log_sigma", time_scale=.25).  ``whole_times``: rounded, for one that looks its time up in a table.
        pixel_range: black and white as the network knows them, where yours are 0 and 1: (-1, 1), for example; None
            where it takes pixels as they are.
        clamp: bounds, in the network's pixels, that the posterior mean is kept in, as many samplers do ("clip_sample").
        radius: receptive field in pixels where it is known (max-norm); None for the whole image.
        cond: name of the argument that takes a condition, or "" for the third; None where it takes none.
            ``needs_condition=False`` where it may be left out.

    What is divided by alpha ("eps", "score") says nothing of the image where alpha = 0: there the network is asked at
    alpha / sigma = 0.005 instead.

    Raises PhasewiseError for an unknown prediction type or clock; and when called, for answers of another shape or not
    finite (naming t), images of another shape, half precision on a CPU, a condition that is missing or not taken.
    """
    chosen = path if isinstance(path, NoisePath) else LinearPath()  # a config was turned into its path already
    if pixel_range is not None and not pixel_range[0] < pixel_range[1]:
        raise PhasewiseError(f"pixel_range must be (black, white), the lower first; got {pixel_range}")
    if cond:
        _has_argument(module, cond)
    clock = a_clock(chosen, time, time_scale, time_shift, whole_times)
    wrapped = WrappedDenoiser(
        module, image_shape, prediction=predicts, clock=clock, path=chosen, radius=radius, cond=cond,  # type: ignore[arg-type]
        needs_condition=needs_condition, pixel_range=pixel_range, clamp=clamp,
    )  # fmt: skip
    return wrapped.eval()


def _has_argument(module: Module, name: str) -> None:
    """Refuse a name that the network's forward does not have, where that can be seen."""
    try:
        parameters = inspect.signature(getattr(module, "forward", module)).parameters
    except (TypeError, ValueError):
        return
    if name not in parameters and not any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
        raise PhasewiseError(f"the network has no argument {name!r} for a condition; it has {', '.join(parameters)}")
