"""Records of what was measured or decided: frozen, plain, written as JSON. Imports the errors alone.

Values are stored as measured, never clamped or smoothed.  Every measured number carries its standard error, the
number of images ``n`` it rests on and the seed.  Arrays are float64 numpy; NaN is stored as ``null``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from phasewise.errors import PhasewiseError

Array = np.ndarray
R = TypeVar("R", bound="Record")


class Record:
    """Base of all records: typed fields in, JSON out and in, one line when printed.

    Fields are numbers, strings, arrays, tuples of them, or further records; what is given is turned into the field's
    declared type (lists into tuples or arrays, objects of JSON into records, null into NaN), so every reader of a file
    and every caller gets the same.  A subclass checks itself in :meth:`check`.
    """

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():  # type: ignore[arg-type]
            object.__setattr__(self, name, _coerced(getattr(self, name), kind))
        self.check()

    def check(self) -> None:
        """Raise PhasewiseError where the fields contradict each other."""

    def to_dict(self) -> dict[str, Any]:
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls: type[R], values: dict[str, Any]) -> R:
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{k: v for k, v in values.items() if k in known})

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


def _floats(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_floats(v) for v in value]
    return math.nan if value is None else (float(value) if isinstance(value, str) else value)


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    """Declared type of every field."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _coerced(value: Any, kind: Any) -> Any:
    """``value`` as the declared type ``kind``; left as it is where that says nothing."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _coerced(value, next(k for k in inner if k is not type(None)))
    if kind is np.ndarray:
        return np.array(_floats(value), dtype=np.float64)
    if origin is tuple and value is not None:
        kinds = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is ... else inner
        if len(kinds) != len(value):
            raise ValueError(f"expected {len(kinds)} values, got {value!r}")
        return tuple(_coerced(v, k) for v, k in zip(value, kinds, strict=True))
    if isinstance(kind, type) and issubclass(kind, Record) and isinstance(value, dict):
        return kind.from_dict(value)
    if kind is float:
        return math.nan if value is None else float(value)
    if kind is int and isinstance(value, (float, np.number)) and float(value).is_integer():
        return int(value)
    return value


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

    def column(self, name: str) -> int:
        return self.names.index(name)


@dataclass(frozen=True)
class PriceList(Record):
    """What each denoiser costs and loses at every step of a time grid.

    ``losses.times`` is the grid (descending from 1 to t_min > 0; the step from t_min to 0 is a denoise).
    ``flops`` (N,) per image and call, multiply and add counted as two; ``ms`` (N,) measured milliseconds per image
    and call on ``device`` at ``batch`` images a call.  ``jumps`` names those that know their own flow: one call takes
    them over a step of any length, exactly where the solver keeps no history.  ``growth`` (S, N), where it was
    measured:
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
    growth: Array | None = None
    frechet: Array | None = None
    frechet_stderr: Array | None = None

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


@dataclass(frozen=True)
class HybridSchedule(Record):
    """Which member takes which step, on which time grid, with which solver.

    ``times`` has S entries, descending, all > 0; step k goes from times[k] to times[k + 1] and is taken (predictor and
    corrector) by member ``assignment[k]``; the last step goes to t = 0 and is a plain denoise (one call).
    ``path`` is the path of the grid.  ``penalty`` (quality lost, an excess over the reference at every step, in
    ``penalty_unit``; ``penalty_name`` is the penalty that chose or priced it) and ``mflop`` per image are what the
    price list predicts; None where no price list was used.  ``label``: as a report calls it.
    """

    times: tuple[float, ...]
    assignment: tuple[str, ...]
    solver: str = "heun"
    path: dict[str, Any] = field(default_factory=lambda: {"name": "linear"})
    penalty: float | None = None
    penalty_stderr: float | None = None
    penalty_unit: str = "nats"
    penalty_name: str | None = None
    mflop: float | None = None
    label: str = ""

    def check(self) -> None:
        if len(self.times) != len(self.assignment) or not self.times:
            raise PhasewiseError(
                f"a schedule assigns one member to every step: {len(self.times)} times, {len(self.assignment)} members"
            )
        if not all(a > b for a, b in zip(self.times, (*self.times[1:], 0.0), strict=True)):
            raise PhasewiseError(
                "schedule times must decrease strictly and stay above 0 (the last step to 0 is implied)"
            )
        if not self.times[0] <= 1:
            raise PhasewiseError("schedule times must lie in (0, 1]")

    def step_at(self, t: float) -> int:
        """The step that noise time ``t`` falls into: it starts at or above t and ends below it; 0 above the grid."""
        later = [k for k, start in enumerate(self.times) if t <= start * (1 + 1e-6)]
        return later[-1] if later else 0

    def member_at(self, step: int) -> str:
        """Name of the member that takes step number ``step``."""
        return self.assignment[step]

    def spans(self) -> list[tuple[float, float, str]]:
        """Runs of one member as (t_start, t_end, name), in sampling order, the last ending at 0."""
        edges = (*self.times, 0.0)
        out: list[tuple[float, float, str]] = []
        for k, name in enumerate(self.assignment):
            if out and out[-1][2] == name:
                out[-1] = (out[-1][0], edges[k + 1], name)
            else:
                out.append((edges[k], edges[k + 1], name))
        return out


@dataclass(frozen=True)
class ParetoFront(Record):
    """All undominated schedules on one grid: ``penalty`` falls as the cost rises; ``assignments[i]`` is the i-th one.

    ``mflop`` and ``ms`` (where known) of every schedule, an image; ``cost`` names the one that rises.  What the penalty
    is stands beside it: its name and unit, a short label for figures, and one line that says what it means.
    """

    penalty_name: str
    penalty_unit: str
    times: Array
    mflop: Array
    penalty: Array
    penalty_stderr: Array
    assignments: tuple[tuple[str, ...], ...]
    chosen: int | None = None
    ms: Array | None = None
    cost: str = "mflop"
    penalty_label: str = ""
    penalty_meaning: str = ""


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


@dataclass(frozen=True)
class Evaluation(Record):
    """One schedule, judged.

    ``fid`` on the feature network ``features`` against ``reference_n`` training images, from ``n`` samples.
    ``fid_bias`` estimates how much of it is due to finite n (FID(n/2) - FID(n); bias falls as 1/n).
    ``fid_stderr`` by bootstrap over samples. ``paired_rmse``: per-pixel RMS difference from the all-global sample of
    the same starting noise, ``paired_stderr`` its error. ``mflop`` and ``ms`` per image over the whole sampling.
    ``nats``: the path KL that the price list predicts. ``accuracy_entropy``: see ``extra``.  ``fid_minus``: by the
    name of another
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
