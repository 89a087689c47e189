"""Records of what was measured or decided: frozen, plain, written as JSON. Imports nothing else of the package.

Values are stored as measured, never clamped or smoothed.  Every measured number carries its standard error, the
number of images ``n`` it rests on and the seed.  Arrays are float64 numpy; NaN is stored as ``null``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Array = np.ndarray
R = TypeVar("R", bound="Record")


class Record:
    """Base of all records: JSON out and in. Fields are numbers, strings, arrays, or further records."""

    def to_dict(self) -> dict[str, Any]:
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls: type[R], values: dict[str, Any]) -> R:
        known = {f.name: f.type for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{k: _floats(v) if known[k] == "float" else v for k, v in values.items() if k in known})

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    @classmethod
    def load(cls: type[R], path: str | Path) -> R:
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _array(value: Any) -> Array:
    return np.array(_floats(value), dtype=np.float64)


def _floats(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_floats(v) for v in value]
    return math.nan if value is None else (float(value) if isinstance(value, str) else value)


@dataclass(frozen=True)
class Estimate(Record):
    """One measured number: value, standard error, sample size."""

    value: float
    stderr: float
    n: int
    unit: str = "nats"
    seed: int | None = None

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.stderr:.2g} {self.unit} (n = {self.n})"


@dataclass(frozen=True)
class LossTable(Record):
    """Held-out losses of several denoisers on the same images and the same noise.

    Shapes (T, N) = times x denoisers, squared error per image summed over pixels:
        loss      E|D_n(x_t, t) - x|^2
        gap       loss_n - loss_reference, differenced image by image (so its stderr is the paired one)
        distance  E|D_n - D_reference|^2
    ``radii[i]`` is None for a global denoiser.  ``control`` names the local design opened to the whole image, if any.
    """

    times: Array
    names: tuple[str, ...]
    radii: tuple[int | None, ...]
    reference: str
    loss: Array
    loss_stderr: Array
    gap: Array
    gap_stderr: Array
    distance: Array
    distance_stderr: Array
    log_snr: Array
    data_std: float
    n: int
    seed: int
    path: dict[str, Any]
    control: str | None = None

    def __post_init__(self) -> None:
        for name in ("times", "loss", "loss_stderr", "gap", "gap_stderr", "distance", "distance_stderr", "log_snr"):
            object.__setattr__(self, name, _array(getattr(self, name)))
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "radii", tuple(self.radii))

    def column(self, name: str) -> int:
        return self.names.index(name)


@dataclass(frozen=True)
class PriceList(Record):
    """What each denoiser costs and loses at every step of a time grid.

    ``losses.times`` is the grid (descending from 1 to t_min > 0; the step from t_min to 0 is a denoise).
    ``flops`` (N,) per image and call, multiply and add counted as two; ``ms`` (N,) measured milliseconds per image
    and call on ``device`` at ``batch`` images a call.  ``jumps`` names those that know their own flow: one call takes
    them over a step of any length, exactly where the solver keeps no history.  ``reach`` (S, N), where it was measured:
    by what factor a push of denoiser n off the reference's path at times[k] has grown when the path arrives at the
    image.  ``frechet`` (S, N) with ``frechet_stderr``, where it was measured: squared Frechet distance between the
    features of denoiser n's posterior means and of the reference's.
    """

    losses: LossTable
    flops: Array
    ms: Array
    device: str = "cpu"
    batch: int = 64
    jumps: tuple[str, ...] = ()
    reach: Array | None = None
    frechet: Array | None = None
    frechet_stderr: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "jumps", tuple(self.jumps))
        for name in ("reach", "frechet", "frechet_stderr"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _array(getattr(self, name)))
        if isinstance(self.losses, dict):
            object.__setattr__(self, "losses", LossTable.from_dict(self.losses))
        object.__setattr__(self, "flops", _array(self.flops))
        object.__setattr__(self, "ms", _array(self.ms))

    @property
    def names(self) -> tuple[str, ...]:
        return self.losses.names

    @property
    def times(self) -> Array:
        return self.losses.times


@dataclass(frozen=True)
class StepErrors(Record):
    """What a solver's finite steps do to the image: one step of each length on the reference denoiser's true ODE path.

    ``error`` (T, T): root mean square, over ``n`` images, of the L2 distance between the image reached with one step
    from times[i] to times[j], j > i, and the image the path leads to, pixel units; NaN elsewhere.  ``stop`` (T,): the
    same for ending with a denoise at times[i].  ``times`` descend.
    """

    times: Array
    error: Array
    stop: Array
    solver: str
    n: int
    seed: int
    path: dict[str, Any]

    def __post_init__(self) -> None:
        for name in ("times", "error", "stop"):
            object.__setattr__(self, name, _array(getattr(self, name)))


@dataclass(frozen=True)
class HybridSchedule(Record):
    """Which denoiser serves which step, on which time grid, with which solver.

    ``times`` has S entries, descending, all > 0; step k goes from times[k] to times[k + 1] and is served (predictor
    and corrector) by ``servers[k]``; the last step goes to t = 0 and is a plain denoise (one call).
    ``path`` is the path of the grid.  ``price`` (in ``price_unit``, an excess over the reference denoiser everywhere)
    and ``mflop`` per image are what the price list predicts; None where no price list was used.
    """

    times: tuple[float, ...]
    servers: tuple[str, ...]
    solver: str = "heun"
    path: dict[str, Any] = field(default_factory=lambda: {"name": "linear"})
    price: float | None = None
    price_stderr: float | None = None
    price_unit: str = "nats"
    mflop: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", tuple(float(t) for t in self.times))
        object.__setattr__(self, "servers", tuple(self.servers))
        if len(self.times) != len(self.servers) or not self.times:
            raise ValueError(
                f"a schedule needs one server per step: {len(self.times)} times, {len(self.servers)} servers"
            )
        if not all(a > b for a, b in zip(self.times, (*self.times[1:], 0.0), strict=True)):
            raise ValueError("schedule times must decrease strictly and stay above 0 (the last step to 0 is implied)")
        if not self.times[0] <= 1:
            raise ValueError("schedule times must lie in (0, 1]")

    def spans(self) -> list[tuple[float, float, str]]:
        """Runs of equal servers as (t_start, t_end, name), in sampling order, the last ending at 0."""
        edges = (*self.times, 0.0)
        out: list[tuple[float, float, str]] = []
        for k, name in enumerate(self.servers):
            if out and out[-1][2] == name:
                out[-1] = (out[-1][0], edges[k + 1], name)
            else:
                out.append((edges[k], edges[k + 1], name))
        return out


@dataclass(frozen=True)
class ParetoFront(Record):
    """All undominated schedules on one grid: ``price`` falls as the cost rises; ``servers[i]`` is the i-th one.

    ``mflop`` and ``ms`` (where known) of every schedule, an image; ``cost`` names the one that rises.
    """

    weighting: str
    price_unit: str
    times: Array
    mflop: Array
    price: Array
    price_stderr: Array
    servers: tuple[tuple[str, ...], ...]
    chosen: int | None = None
    ms: Array | None = None
    cost: str = "mflop"

    def __post_init__(self) -> None:
        for name in ("times", "mflop", "price", "price_stderr", *(("ms",) if self.ms is not None else ())):
            object.__setattr__(self, name, _array(getattr(self, name)))
        object.__setattr__(self, "servers", tuple(tuple(s) for s in self.servers))


@dataclass(frozen=True)
class Recovery(Record):
    """Receptive-field ablation: noise held-out images to t, run the reverse ODE back with each denoiser.

    ``mse`` (T, N): squared error per pixel between the recovered and the original image; ``mse_stderr`` the same shape.
    """

    times: Array
    names: tuple[str, ...]
    radii: tuple[int | None, ...]
    mse: Array
    mse_stderr: Array
    steps: int
    solver: str
    n: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("times", "mse", "mse_stderr"):
            object.__setattr__(self, name, _array(getattr(self, name)))
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "radii", tuple(self.radii))


@dataclass(frozen=True)
class Evaluation(Record):
    """One schedule, judged.

    ``fid`` on the feature network ``features`` against ``reference_n`` training images, from ``n`` samples.
    ``fid_bias`` estimates how much of it is due to finite n (FID(n/2) - FID(n); bias falls as 1/n).
    ``fid_stderr`` by bootstrap over samples. ``paired_rmse``: per-pixel RMS difference from the all-global sample of
    the same starting noise, ``paired_stderr`` its error. ``mflop`` and ``ms`` per image over the whole sampling.
    ``price`` as in :class:`HybridSchedule`. ``accuracy_entropy``: see ``extra``.  ``fid_minus``: by the name of another
    schedule sampled from the same noise, [this FID minus that one, its paired standard error].
    """

    name: str
    label: str
    schedule: HybridSchedule | None
    fid: float
    fid_stderr: float
    fid_bias: float
    features: str
    n: int
    reference_n: int
    seed: int
    mflop: float
    ms: float
    nfe: int
    nats: float | None = None
    nats_stderr: float | None = None
    paired_rmse: float | None = None
    paired_stderr: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    fid_minus: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.schedule, dict):
            object.__setattr__(self, "schedule", HybridSchedule.from_dict(self.schedule))


@dataclass(frozen=True)
class TrainingRecord(Record):
    """How a denoiser was trained. ``history``: rows {"step", "train_loss", "val_loss"}; ``val_by_time``: the last
    validation loss in each time bin, in the unit of the training loss, with the bin edges."""

    name: str
    preset: dict[str, Any]
    steps: int
    images_seen: int
    seconds: float
    parameters: int
    history: tuple[dict[str, Any], ...]
    val_loss: float
    bin_edges: Array
    val_by_time: Array
    seed: int
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", tuple(dict(h) for h in self.history))
        for name in ("bin_edges", "val_by_time"):
            object.__setattr__(self, name, _array(getattr(self, name)))


@dataclass(frozen=True)
class DataRecord(Record):
    """Which images a run used."""

    name: str
    image_shape: tuple[int, int, int]
    pixel_range: tuple[float, float]
    sizes: dict[str, int]
    mean: float
    std: float
    classes: int | None
    fingerprint: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", tuple(self.image_shape))
        object.__setattr__(self, "pixel_range", tuple(self.pixel_range))


@dataclass(frozen=True)
class CMIMap(Record):
    """I(A:C|B) in nats over times x radii, shape (T, R), with standard errors; never clamped at 0.

    ``config["covariance"]``, a list of shape (T, R, R), is optional: the covariance of the errors at different radii of
    one time, with the squares of ``stderr`` on its diagonals.
    """

    times: Array
    radii: tuple[int, ...]
    value: Array
    stderr: Array
    estimator: str
    block: int
    center: tuple[int, int]
    n: int
    seed: int
    unit: str = "nats"
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("times", "value", "stderr"):
            object.__setattr__(self, name, _array(getattr(self, name)))
        object.__setattr__(self, "radii", tuple(int(r) for r in self.radii))
        object.__setattr__(self, "center", tuple(self.center))


@dataclass(frozen=True)
class MarkovFit(Record):
    """Decay of a CMI map with the radius: ``I(r) ~ amplitude * exp(-r / xi)`` at each time, over the fixed ``radii``.

    Shapes (T,), in the order of the map's times: ``xi`` in pixels with its 95 % interval ``low`` .. ``high``,
    ``amplitude`` in nats, ``p_value`` of the chi-square test.  ``status`` is "ok", "not exponential" or "not resolved",
    ``reason`` says why.  Where it is not resolved, all of these are NaN, but for a CMI that does not fall significantly
    with the radius: there ``high`` is infinite and ``low`` a lower bound of xi, or NaN where there is none.
    ``t_c``: time of the largest xi with a 95 % interval, None where it cannot be told; ``t_c_note``: what limits it.
    ``window``: times where the CMI at ``window_radius`` exceeds ``tolerance`` nats; None where it nowhere does, or
    where it cannot be told: a single measured time, or no number at any.
    ``peak_times`` (R,): time of the largest CMI at each radius of the map, ``peak_radii``.
    """

    times: Array
    xi: Array
    low: Array
    high: Array
    amplitude: Array
    p_value: Array
    status: tuple[str, ...]
    reason: tuple[str, ...]
    radii: tuple[int, ...]
    min_sigma: float
    tolerance: float
    window_radius: int
    window: tuple[float, float] | None = None
    t_c: float | None = None
    t_c_low: float | None = None
    t_c_high: float | None = None
    t_c_note: str = ""
    peak_radii: tuple[int, ...] = ()
    peak_times: Array = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        for name in ("times", "xi", "low", "high", "amplitude", "p_value", "peak_times"):
            object.__setattr__(self, name, _array(getattr(self, name)))
        for name in ("status", "reason", "radii", "peak_radii"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.window is not None:
            object.__setattr__(self, "window", (float(self.window[0]), float(self.window[1])))
