r"""Is a network what its owner says it is?  Held against the Wiener filter, which needs no word of it.

A trained denoiser loses hardly more than the best linear one, at any noise.  One that is spoken to in the wrong way
loses many times as much.  :func:`check_claims` measures that ratio; :func:`guess` tries the other ways::

    ratio = geometric mean over times of  E|D - x|^2 / E|D_Wiener - x|^2

The times are those at which the variance of the noise is e^(-5/2), 1 and e^(5/2) times that of the pixels.  Noisier
ones are left out: there an error of the predicted noise is multiplied, so that good networks lose to the filter, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phasewise import checks, seeding
from phasewise.data import ImageData, condition_of_part
from phasewise.data.images import images_or_set
from phasewise.denoisers import Condition, Denoiser, WienerDenoiser, bind, condition_rows
from phasewise.denoisers.base import a_denoiser
from phasewise.denoisers.predictions import PREDICTIONS, Clock, a_clock, a_prediction, edm
from phasewise.denoisers.wrapped import WrappedDenoiser, a_module
from phasewise.display import Head, Rows, View
from phasewise.errors import PhasewiseError
from phasewise.modes import in_evaluation
from phasewise.paths import (
    CosinePath,
    LinearPath,
    NoisePath,
    TablePath,
    VarianceExplodingPath,
    in_pixels,
    path_from_config,
)
from phasewise.results import Array, Record

OFFSETS = (2.5, 0.0, -2.5)
"""Log-SNR, relative to the variance of the pixels, at which claims are held against the Wiener filter."""
FITS = 1.5
"""A ratio up to which a claim fits: a little above 1, for a network may be young, and of other images."""
FAR = 2.5
"""A ratio at one time beyond which a claim is wrong."""
MOST = 512
"""Images that the Wiener filter is fitted to."""

PATHS: dict[str, Callable[[], NoisePath]] = {
    "flow matching": LinearPath,
    "1,000 linear betas": lambda: TablePath(betas="linear"),
    "1,000 scaled-linear betas (0.00085 to 0.012)": lambda: TablePath(betas="scaled_linear", start=0.00085, end=0.012),
    "1,000 cosine betas": lambda: TablePath(betas="squaredcos_cap_v2"),
    "cosine": CosinePath,
    "EDM": VarianceExplodingPath,
}
"""Noise that networks are usually trained on."""
CLOCKS: tuple[dict[str, Any], ...] = (
    {"time": "timestep"},
    {"time": "t"},
    {"time": "t", "time_scale": 1000.0},
    {"time": "t", "time_scale": -1.0, "time_shift": 1.0},
    {"time": "t", "time_scale": -1000.0, "time_shift": 1000.0},
    {"time": "sigma"},
    {"time": "log_sigma", "time_scale": 0.25},
    {"time": "log_snr"},
)
"""Ways to be told the time: ours, a thousand times ours, steps, both backwards, noise levels."""


@dataclass(frozen=True)
class Guess(Record):
    """How a network may be spoken to, best first: arguments of :func:`phasewise.wrap`, and what each comes to.

    ``ratio`` (n,): its loss over that of the Wiener filter, geometric mean over three times: 1 or less where it is
    right.  ``n``: images.
    """

    settings: tuple[dict[str, Any], ...]
    ratio: Array
    n: int
    seed: int

    @property
    def best(self) -> dict[str, Any]:
        """Keyword arguments for :func:`phasewise.wrap`, as JSON has them."""
        return dict(self.settings[0])

    @property
    def fits(self) -> bool:
        """Whether the best of them explains the network."""
        return bool(self.ratio[0] <= FITS)

    def as_good(self) -> tuple[dict[str, Any], ...]:
        """All that are within a tenth of the best: what cannot be told apart on these images."""
        return tuple(s for s, r in zip(self.settings, self.ratio, strict=True) if r <= 1.1 * self.ratio[0])

    def table(self) -> tuple[Head, Rows]:
        """A row for each way that was tried."""
        rows: Rows = [(words(s), float(r)) for s, r in zip(self.settings, self.ratio, strict=True)]
        return ("settings", "loss over Wiener's"), rows

    def view(self) -> View:
        """The best ten."""
        head, rows = self.table()
        verdict = "the first fits" if self.fits else "none fits"
        return View(f"Guess: {verdict}; n = {self.n} images, seed {self.seed}", head, rows[:10], fixed=1)


@dataclass(frozen=True)
class Claims(Record):
    """A denoiser held against the Wiener filter: (T,) losses of both, squared error per image, at ``times``."""

    times: Array
    loss: Array
    wiener: Array
    n: int
    seed: int
    found: str = ""

    @property
    def ratio(self) -> float:
        return _ratio(self.loss, self.wiener)

    @property
    def ok(self) -> bool:
        """Whether the denoiser loses hardly more than the filter, on the whole and at each time."""
        return self.ratio <= FITS and bool((self.loss <= FAR * self.wiener).all())

    def __str__(self) -> str:
        if self.ok:
            seen = f"t = {self.times.min():.2g} to {self.times.max():.2g}"
            return f"as it should be: at {seen} its loss is {self.ratio:.2g} times the Wiener filter's"
        where = ", ".join(
            f"{v / w:.3g} at t = {t:.2g}" for t, v, w in zip(self.times, self.loss, self.wiener, strict=True)
        )
        return f"its loss is {self.ratio:.3g} times the Wiener filter's ({where}); {self.found}"


def words(settings: Mapping[str, Any]) -> str:
    """Arguments of :func:`phasewise.wrap` in a line."""
    path = path_from_config(settings["path"])
    name = {v().__repr__(): k for k, v in PATHS.items()}.get(repr(path), repr(path))
    told = {k: v for k, v in settings.items() if k.startswith("time")}
    scale, shift = told.get("time_scale", 1), told.get("time_shift", 0)
    time = f"{'' if scale == 1 else f'{scale:g} x '}{told.get('time', 't')}{f' + {shift:g}' if shift else ''}"
    pixels = settings.get("pixel_range")
    return f"predicts {settings['predicts']}, {name}, told {time}" + (
        f", pixels {pixels[0]:g}..{pixels[1]:g}" if pixels else ""
    )


@in_evaluation
@torch.inference_mode()
@checks.checked(denoiser=a_denoiser, data=images_or_set, search=checks.flag, n=checks.whole(8), seed=checks.seed)
def check_claims(
    denoiser: Denoiser,
    data: ImageData | Tensor,
    *,
    cond: Condition | str | None = None,
    search: bool = True,
    n: int = 64,
    seed: int = 0,
) -> Claims:
    """Hold ``denoiser`` against the Wiener filter of ``data`` on ``n`` held-out images, at three times.

    data: (N, C, H, W), of which a part is held out, or an ImageData.  ``cond`` as for
    :func:`phasewise.diagnosis.measure_losses`.  ``print(claims)`` says what was found.  ``claims.ok`` is False where
    the loss is far above the filter's: 1.5 times on the whole, or 2.5 times at one time.  ``claims.found`` then names
    the way to speak to the network that fits, if one does; without ``search``, which may take a minute, it is not.

    Raises PhasewiseError for images of another shape, and where the denoiser answers NaN, naming the time.
    """
    fit, images, rows = _split(data, cond, n, [denoiser])
    wiener, path = WienerDenoiser.fit(fit), denoiser.path
    times = _times(path, fit)
    loss, best = np.zeros(len(times)), np.zeros(len(times))
    for k, t in enumerate(times):
        x_t = path.add_noise(images, _noise(images, seed, k), t)
        loss[k] = _loss(bind(denoiser, rows)(x_t, t), images)
        best[k] = _loss(wiener.on(path)(x_t, t), images)
    claims = Claims(np.array(times), loss, best, len(images), seed)
    if claims.ok or not search:
        return claims
    return Claims(claims.times, loss, best, len(images), seed, _why(denoiser, data, cond, seed))


def _why(denoiser: Denoiser, data: ImageData | Tensor, cond: Condition | str | None, seed: int) -> str:
    usual = "usual causes: pixels of another range, another prediction type, its sign, the order of time, other images"
    inner = denoiser
    while not isinstance(inner, WrappedDenoiser) and isinstance(getattr(inner, "member", None), Denoiser):
        inner = inner.member  # type: ignore[assignment]
    if not isinstance(inner, WrappedDenoiser):
        return usual
    found = guess(inner, data, cond=cond, seed=seed)
    if not found.fits:
        return f"{usual}; none of {len(found.settings)} ways to speak to it fits"
    return f"what fits is: {words(found.best)} ({found.ratio[0]:.2g} times the filter's); {usual}"


@in_evaluation
@torch.inference_mode()
@checks.checked(
    module=checks.either(a_module, a_denoiser),
    data=images_or_set,
    n=checks.whole(8),
    seed=checks.seed,
    predicts=a_prediction,
)
def guess(
    module: Callable[..., Any] | WrappedDenoiser,
    data: ImageData | Tensor,
    *,
    predicts: Any = None,
    path: NoisePath | None = None,
    time: str | None = None,
    time_scale: float | None = None,
    time_shift: float = 0.0,
    pixel_range: tuple[float, float] | None = None,
    cond: Condition | str | None = None,
    cond_name: str | None = None,
    n: int = 16,
    seed: int = 0,
) -> Guess:
    """Which arguments of :func:`phasewise.wrap` make a denoiser of ``module``: the usual ones are tried on ``data``.

    What is given is taken for granted: ``path``, ``predicts``, ``time`` (with its scale and shift), ``pixel_range``.
    Tried are six paths, eight ways to be told the time, pixels as they are and as -1..1 (of images in 0..1) or the
    reverse, and every prediction type with both signs: some 70 calls of the network on three times ``n`` images.

    ``cond`` (a label, rows, or "labels" of the data) goes to the argument ``cond_name``.

    Raises PhasewiseError for fewer than 16 images, and where the network answers nothing of the image's shape.
    """
    known = isinstance(module, WrappedDenoiser)
    name = module.cond_name if isinstance(module, WrappedDenoiser) else cond_name
    fit, images, rows = _split(data, cond, n, [module] if isinstance(module, WrappedDenoiser) else None)
    wiener = WienerDenoiser.fit(fit)
    low = float(fit.min())
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    other = (-1.0, 1.0) if low >= -0.1 else (0.5, 1.0)  # of -1..1, which 0.5..1 for 0..1 makes 0..1
    ranges = [pixel_range] if pixel_range is not None else [None, other]
    clocks = CLOCKS if time is None else ({"time": time, "time_scale": time_scale or 1.0, "time_shift": time_shift},)
    paths = [path] if path is not None else [make() for make in PATHS.values()]
    tried: list[tuple[float, dict[str, Any]]] = []
    failed = "no path of these has such a clock"
    for here, told, pixels in itertools.product(paths, clocks, ranges):
        try:
            clock = a_clock(here, told["time"], told.get("time_scale", 1.0), told.get("time_shift", 0.0), False)
        except PhasewiseError:
            continue  # steps of a path that has none
        shown = {} if pixels is None else {"pixel_range": list(pixels)}
        try:
            found = list(_ratios(module, known, shape, here, clock, pixels, images, rows, name, wiener, predicts, seed))
        except Exception as error:  # a stranger's network may refuse a time in any way: that is not its time, then
            failed = f"{type(error).__name__}: {error}"
            continue
        tried += [(ratio, {"predicts": kind, "path": here.config(), **told, **shown}) for kind, ratio in found]
    if not tried:
        raise PhasewiseError(
            f"no way to speak to the network gave an answer ({failed[:200]}); call it yourself once, and "
            "see what it takes"
        )
    tried.sort(key=lambda pair: round(pair[0], 2))  # ties stay in the order of what is usual
    return Guess(tuple(s for _, s in tried), np.array([r for r, _ in tried]), len(images), seed)


def _ratios(
    module: Any, known: bool, shape: tuple[int, int, int], path: NoisePath, clock: Clock, pixels: Any, images: Tensor,
    rows: Tensor | None, name: str | None, wiener: WienerDenoiser, predicts: Any, seed: int,
) -> Iterator[tuple[str, float]]:  # fmt: skip
    """What every prediction type comes to, on one path, clock and range of pixels: one call serves those that are shown
    the same."""
    caller = module if known else WrappedDenoiser(
        module, shape, prediction=PREDICTIONS["x0"], clock=clock, path=path, pixel_range=pixels, cond=name
    )  # fmt: skip
    low, high = pixels or (0.0, 1.0)
    outer = in_pixels(path, pixels)
    kinds = list(PREDICTIONS.values()) if predicts is None else [predicts]
    if isinstance(path, VarianceExplodingPath) and predicts is None:
        kinds.append(edm(round(float(((high - low) * images).std()), 3)))  # of 0.5, the usual, there is one already
    losses: dict[int, list[float]] = {i: [] for i in range(len(kinds))}
    best = []
    for k, t in enumerate(_times(outer, images)):
        s = torch.tensor(t)
        x_t = outer.add_noise(images, _noise(images, seed, k), t)
        theirs = (high - low) * x_t + path.alpha(s) * low
        best.append(_loss(wiener.on(outer)(x_t, t), images))
        answers: dict[bool, Tensor] = {}
        for i, kind in enumerate(kinds):
            plain = kind.takes is None
            if plain not in answers or not plain:
                shown = theirs if kind.takes is None else kind.takes(path, theirs, s)
                answers[plain] = caller.ask(shown, clock.told(s.expand(len(images))), rows)
            x = (kind.to_x(path, theirs, answers[plain], s) - low) / (high - low)
            losses[i].append(_loss(x, images))
    for i, kind in enumerate(kinds):
        yield kind.name, _ratio(np.array(losses[i]), np.array(best))


def _ratio(loss: Array, wiener: Array) -> float:
    with np.errstate(all="ignore"):
        value = float(np.exp(np.mean(np.log(loss / wiener)))) if np.isfinite(loss).all() else math.inf
    return value if math.isfinite(value) else 1e30


def _split(
    data: ImageData | Tensor, cond: Condition | str | None, n: int, takers: Any
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images to fit the filter to, images to hold it against, and the condition of the latter."""
    cond = condition_of_part(data, "test", cond)
    if isinstance(data, ImageData):
        fit, images = data.train[:MOST], data.test[:n]
    else:
        if len(data) < 16:
            raise PhasewiseError(f"the Wiener filter needs 16 images or more, got {len(data)}")
        n = min(n, len(data) // 2)
        images, fit = data[:n], data[n:][:MOST]
        if isinstance(cond, Tensor) and cond.dim() and len(cond) == len(data):
            cond = cond[:n]
    if isinstance(cond, Tensor) and cond.dim() and len(cond) > len(images):
        cond = cond[: len(images)]
    if cond is None:
        return fit, images, None
    if takers is None:
        rows = torch.as_tensor(cond)
        return fit, images, rows.reshape(1) if rows.dim() == 0 else rows
    return fit, images, condition_rows(cond, len(images), takers)


def _times(path: NoisePath, images: Tensor) -> list[float]:
    """Times of ``path`` at the log-SNRs of :data:`OFFSETS`, relative to the variance of the pixels."""
    own = 2 * math.log(max(float(images.std()), 1e-6))
    return [float(path.t_of_log_snr(torch.tensor(offset - own, dtype=torch.float64))) for offset in OFFSETS]


def _noise(images: Tensor, seed: int, k: int) -> Tensor:
    generator = seeding.generator(seed, seeding.Purpose.LOSSES, k)
    return torch.randn(images.shape, generator=generator).to(images.device)


def _loss(answer: Tensor, images: Tensor) -> float:
    return float((answer - images).double().square().flatten(1).sum(1).mean())
