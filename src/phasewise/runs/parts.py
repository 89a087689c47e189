"""The options of a run, part by part: one small frozen dataclass for each stage, and for what stages share.

Adding an option is one line here (:mod:`phasewise.runs.options`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.files import parse_json
from phasewise.results import DEFAULT_SOLVER
from phasewise.runs.members import DIT
from phasewise.runs.options import (
    Option,
    Options,
    distinct,
    kind,
    measured_times,
    noise_times,
    numbers,
    option,
    options_of,
    positive,
)


def _solvers() -> Iterable[str]:
    from phasewise.sampling import SOLVERS

    return SOLVERS


def _spacings() -> Iterable[str]:
    from phasewise.sampling.grid import SPACINGS

    return SPACINGS


def _presets() -> Iterable[str]:
    from phasewise.training import PRESETS

    return PRESETS


def _optimizers() -> Iterable[str]:
    from phasewise.training.optimizers import OPTIMIZERS

    return OPTIMIZERS


def _named_networks() -> Iterable[str]:
    from phasewise.denoisers.transformer import DIT_SIZES
    from phasewise.denoisers.unet import GLOBAL_SIZES

    return (*GLOBAL_SIZES, *(DIT + size for size in DIT_SIZES))


def _global_networks() -> Iterable[str]:
    return ("unet", "transformer", *_named_networks())


def _penalties() -> Iterable[str]:
    from phasewise.scheduling import PENALTIES

    return PENALTIES


def _feature_kinds() -> Iterable[str]:
    from phasewise.metrics.features import KINDS

    return KINDS


def _estimators() -> Iterable[str]:
    from phasewise.information import ESTIMATORS

    return ESTIMATORS


REFERENCE = "global"
"""Name of the denoiser that all others are compared with."""
LEAST_TRAIN = 20
"""Fewest training images that a run is made of."""
_below_1 = checks.interval(0, 1, low_open=True, high_open=True)


def _no_doubles(value: tuple[Any, ...]) -> str | None:
    return f"{list(value)} name one twice" if len(set(value)) < len(value) else None


def _models(value: dict[str, Any]) -> str | None:
    if value and next(iter(value)) != REFERENCE:
        return f"must begin with the reference, {REFERENCE!r}; got {', '.join(value)}"
    wrong = [v for v in value.values() if not isinstance(v, str) or not v]
    return f"are folders by name, DIR or DIR#PART; got {wrong[0]!r}" if wrong else None


def _model_words(words: Iterable[str]) -> dict[str, str]:
    """["DIR", "late=DIR#PART"] -> {"global": "DIR", "late": "DIR#PART"}; the first is the reference."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, where = word.partition("=")
        if not equals or not re.fullmatch(r"\w[\w.+-]*", name):
            name, where = REFERENCE, word
        if not found and name != REFERENCE:
            raise PhasewiseError(f"the first --model is the reference and has no name of its own: give --model {where}")
        if name in found:
            raise PhasewiseError(
                f"two models are called {name}; give the further ones as --model NAME=DIR, e.g. late=DIR"
            )
        found[name] = parse_json(where, word) if where.startswith('"') else where  # as a run's own command has it
    return found


def _finite(value: float) -> str | None:
    return None if math.isfinite(value) else f"must be a finite number; got {value}"


def _width(value: int) -> str | None:
    return None if value >= 8 and value % 8 == 0 else f"must be a positive multiple of 8, got {value}"


def _fraction(value: float) -> str | None:
    return None if 0 < value <= 1 else f"is a fraction of the all-global cost, in (0, 1]; got {value}"


def _not_one(value: int) -> str | None:
    return "must be 0, or at least 2, whose spread tells the error; got 1" if value == 1 else None


def _window(value: Any) -> str | None:
    if isinstance(value, str):
        return None if value in ("gap", "cmi") else f"must be two noise times, or 'gap' or 'cmi'; got {value!r}"
    pair = isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)
    if not (pair and 0 <= value[0] < value[1] <= 1):
        return f"must be LOW,HIGH with 0 <= LOW < HIGH <= 1; got {value}"
    return None


def _window_words(text: str) -> Any:
    return text if text in ("gap", "cmi") else numbers(text, float, "--window (or gap, cmi)")


def _size(value: Any) -> str | None:
    """A side or height and width, in pixels."""
    whole = isinstance(value, tuple) and all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in value)
    return None if whole and len(value) in (1, 2) else f"must be SIDE or HEIGHT,WIDTH in pixels; got {value!r}"


def _crop(value: Any) -> str | None:
    return None if value == "square" or _size(value) is None else f"must be SIDE, HEIGHT,WIDTH or square; got {value!r}"


def _crop_words(text: str) -> Any:
    return text if text == "square" else numbers(text, int, "--crop (or square)")


def _pixel_range(value: tuple[float, ...]) -> str | None:
    good = len(value) == 2 and -math.inf < value[0] < value[1] < math.inf
    return None if good else f"must be LOW,HIGH with LOW < HIGH; got {value}"


@dataclass(frozen=True)
class DataOptions(Options):
    """Which images, in what form, and how they are split: the arguments of :func:`phasewise.load_images`.

    A field is such an argument, by its name; :mod:`phasewise.runs.images` loads what the options say.
    """

    data: str = option("digits", "digits, mnist, a folder, .parquet, .npz, hub id.", main=True)
    data_dir: str | None = option(None, "Folder of named sets (or PHASEWISE_DATA).", main=True)
    limit: int | None = option(None, "Use at most this many training images.", least=LEAST_TRAIN)
    crop: Any = option(None, "Central cut: SIDE, HEIGHT,WIDTH, or square.", check=_crop, read=_crop_words)
    resize: tuple[int, ...] | None = option(
        None, "SIDE or HEIGHT,WIDTH to average areas to.", main=True, check=_size, metavar="SIDE"
    )
    color: str | None = option(None, "gray or rgb converts every image.", main=True, known=lambda: ("gray", "rgb"))
    pixel_range: tuple[float, ...] | None = option(
        None, "LOW,HIGH that black and white become; usually 0,1.", check=_pixel_range, metavar="LOW,HIGH"
    )
    white_level: int | None = option(None, "Integer that is white, e.g. 4095 of 12 bits.", least=1)
    channels: str | None = option(
        None, "Where an array has its channels: first or last.", known=lambda: ("first", "last")
    )
    image_column: str | None = option(None, "Column, or array of a .npz, that holds the images.")
    label_column: str | None = option(None, "Column or array of labels; none: no labels.")
    cache: bool = option(True, "Keep decoded images on disk (PHASEWISE_CACHE).", free=True)
    seed: int = option(0, "Seed of everything random.", main=True, check=kind(checks.seed))

    def __post_init__(self) -> None:
        for name in ("crop", "resize"):
            given = getattr(self, name)
            if isinstance(given, (int, list)):
                object.__setattr__(self, name, (given,) if isinstance(given, int) else tuple(given))
        super().__post_init__()

    def arguments(self) -> dict[str, Any]:
        """What :func:`phasewise.load_images` is to be told besides the source: every field but that."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "data"}


@dataclass(frozen=True)
class FeatureOptions(Options):
    """The feature network that samples are judged in, and that the penalty ``frechet`` uses; and a second one of
    another architecture, which no penalty uses."""

    features: str = option("auto", "To judge in: auto, classifier, inception, pca, random.", known=_feature_kinds)
    unseen: bool = option(True, "Judge in a second feature network too, which no penalty sees.")


@dataclass(frozen=True)
class TrainOptions(Options):
    """Which networks, and how they are trained.

    ``radii``: receptive fields of the local denoisers, pixels.  ``control``: train the local design with its window
    opened to the whole image, too.  ``global_network``: "unet" or "transformer" of ``global_width`` channels, or one of
    a named size, "small" or "dit-small".  ``cheap_globals``: smaller ones to switch to where the whole image is needed
    but not at full cost; they train for as many passes as the global one.  ``networks``: folder with trained denoisers
    to take, each in NAME/ as :func:`phasewise.save_denoiser` writes it; a name it has not is trained.  ``member``:
    further members by name: the folder of one that somebody else made, or the fields of a
    :class:`phasewise.runs.Member`.
    ``teacher``: folder of a denoiser that is the global network, instead of one trained here.  ``distill``: the other
    networks learn the posterior mean of the global one instead of the clean image.
    ``guidance``: networks trained here are told the class of an image, one time in ten none, and sample guided by it
    (:class:`phasewise.GuidedDenoiser`): 1 asks each once, told the class; more asks it twice.  None or 0: they are told
    nothing.
    ``model``: networks by name that are taken as they are, the first the reference, "global"; then nothing is trained,
    and ``radii`` are those of closed-form local denoisers.  DIR is a pipeline folder of diffusers, or one of
    :func:`phasewise.save_denoiser`; DIR#PART names one of several networks of a pipeline.
    """

    radii: tuple[int, ...] = option(
        (1, 2, 3), "Local radii in pixels, e.g. 1,2,3.", main=True, check=_no_doubles, makes_members=True
    )
    control: bool = option(True, "Train the local design opened to the whole image.", makes_members=True)
    global_network: str = option(
        "unet", "Global network: unet, transformer, or a size, as dit-small.",
        known=_global_networks, makes_members=True,
    )  # fmt: skip
    global_width: int = option(16, "Channels of the global network.", check=_width, makes_members=True)
    cheap_globals: tuple[str, ...] = option(
        (),
        "Cheaper ones too: U-Nets coarse,small, dit-coarse; none.",
        main=True,
        known=_named_networks,
        check=_no_doubles,
        makes_members=True,
    )
    networks: str | None = option(None, "Folder of trained denoisers to take.", main=True, makes_members=True)
    teacher: str | None = option(
        None, "Denoiser to take as the global one.", main=True, metavar="DIR", makes_members=True
    )
    distill: bool = option(False, "Networks learn from the global one.", makes_members=True)
    member: dict[str, Any] = option({}, "A member of yours; repeatable.", metavar="NAME=DIR", makes_members=True)
    model: dict[str, str] = option(
        {}, "Your network, taken as it is; repeatable.", main=True, metavar="[NAME=]DIR", check=_models,
        read=_model_words, makes_members=True,
    )  # fmt: skip
    preset: str = option("default", "Training preset: default, compiled, bf16, brief, gpu, paper.", known=_presets)
    batch: int | None = option(None, "Training batch size, if not the preset's.", least=1)
    optimizer: str | None = option(None, "Optimizer, if not the preset's: adamw, muon.", known=_optimizers)
    flip: bool = option(False, "Mirror training images at random, left to right.", main=True)
    guidance: float | None = option(
        None,
        "Tell networks the class; guide by it so strongly; 0: no.",
        least=0,
        check=_finite,
        makes_members=True,
    )
    global_epochs: float = option(
        130, "Passes over the data, global networks.", check=kind(checks.epochs), makes_members=True
    )
    local_epochs: float = option(
        110, "Passes over the data, local networks.", check=kind(checks.epochs), makes_members=True
    )

    def check_together(self) -> None:
        alone = self.model and not self.distill
        if not self.radii and not alone:
            raise PhasewiseError("radii is empty: give at least one radius")
        if self.model and self.teacher is not None:
            raise PhasewiseError("--teacher and --model both say which network is the reference; give one")
        if self.guidance and (self.model or self.teacher is not None):
            raise PhasewiseError(
                "--guidance is for networks trained here; a --model or --teacher is told what it was trained with: "
                "leave it out, or guide yours in Python (docs/howto/guidance.md)"
            )
        idle = {"--networks": self.networks, "--cheap-globals": self.cheap_globals} if alone else {}
        said = [flag for flag, value in idle.items() if value]
        if said:
            raise PhasewiseError(
                f"{', '.join(said)}: for networks trained here, and beside --model none is; leave it out, or add "
                "--distill"
            )


@dataclass(frozen=True)
class GridOptions(Options):
    """The sampling grid (:func:`phasewise.time_grid`) and its solver."""

    steps: int = option(8, "Sampling steps.", main=True, least=2, check=kind(checks.steps))
    solver: str = option(DEFAULT_SOLVER, "Solver, e.g. sde_dpmpp_2m, dpmpp_2m, heun, ddim.", main=True, known=_solvers)
    spacing: str = option("uniform", "Time grid: uniform, shift2, shift4, shift8, log_snr, edm.", known=_spacings)
    t_min: float = option(0.02, "Noise time of the last step, a denoise.", check=kind(_below_1))


_TIMES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class DiagnoseOptions(Options):
    """Held-out losses by noise time."""

    times: tuple[float, ...] = option(_TIMES, "Noise times of losses and gaps.", check=measured_times)
    n_losses: int = option(1000, "Images for losses and for the price list.", least=2)


@dataclass(frozen=True)
class ReachOptions(Options):
    """How far the reference sees (:func:`phasewise.reach`), on as many images as are recovered, 64 at most."""

    measure: bool = option(False, "Measure how far the reference sees.", name="reach")


_CLONE_TIMES = (0.4, 0.55, 0.7, 0.8, 0.9, 0.96)


@dataclass(frozen=True)
class SymmetryOptions(Options):
    """When symmetries break: speciation of the training images (:func:`phasewise.diagnosis.speciation`), and the class
    of test images that the reference noises and denoises twice (:func:`phasewise.diagnosis.measure_cloning`).

    ``images`` to clone; 0: none, the speciation time alone.
    """

    prefix: ClassVar[str] = "clone_"

    measure: bool = option(True, "Measure when symmetries break.", name="symmetry")
    images: int = option(100, "Images to noise and denoise twice; 0: none.", least=0, check=_not_one)
    times: tuple[float, ...] = option(_CLONE_TIMES, "Noise times of the clones.", check=noise_times)
    steps: int = option(16, "Steps from each of these times.", least=2, check=kind(checks.steps))


@dataclass(frozen=True)
class RecoveryOptions(Options):
    """The receptive-field ablation: noise to t, denoise back."""

    recovery_times: tuple[float, ...] = option((0.2, 0.4, 0.6, 0.8), "Start times of the recovery.", check=noise_times)
    n_recovery: int = option(200, "Images to recover.", least=2)


@dataclass(frozen=True)
class CMIOptions(Options):
    """Conditional mutual information: as for :func:`phasewise.cmi_map`.

    ``given`` "class": of what far pixels tell beyond B *and* the class, which takes images with labels.
    ``crop``: C ends at the border of a central square of this side in pixels, for large images; None, or 0: of the
    whole image.
    ``tolerance``: nats above which a time belongs to the critical window.
    """

    prefix: ClassVar[str] = "cmi_"

    measure: bool = option(True, "Measure CMI (run: --no-cmi leaves it out).", name="cmi", main=True)
    radii: tuple[int, ...] = option((1, 2, 3), "CMI: widths of the buffer in pixels.")
    times: tuple[float, ...] = option((0.1, 0.25, 0.4, 0.55, 0.7, 0.85), "CMI: noise times.", check=noise_times)
    estimator: str = option(
        "density", "CMI: density, mmse, mine, knn, gaussian, ...", flag="--estimator", known=_estimators
    )
    given: str | None = option(None, "CMI: what is known beside B: class.", flag="--given", known=lambda: ("class",))
    options: dict[str, Any] = option(
        {}, "CMI: an option of the estimator; repeatable.", flag="--cmi-option", metavar="NAME=VALUE"
    )
    block: int = option(1, "CMI: side of the region A in pixels.", flag="--block", least=1)
    center: tuple[tuple[int, int], ...] | None = option(
        None, "CMI: where A is; repeat to average.", flag="--center", metavar="ROW,COL"
    )
    crop: int | None = option(None, "CMI: of a central square of this side; 0: the whole.", least=3)
    accuracy: float = option(0.01, "CMI: standard error asked for, nats.", check=positive)
    tolerance: float = option(0.01, "CMI above which a time is in the window.", check=positive)

    def __post_init__(self) -> None:
        if self.crop == 0 and not isinstance(self.crop, bool):
            object.__setattr__(self, "crop", None)
        object.__setattr__(self, "center", _positions(self.center))
        super().__post_init__()

    def check_together(self) -> None:
        wrong = distinct(self.radii) if self.measure else None
        if wrong:
            raise PhasewiseError(f"cmi_radii {wrong}")


def _positions(center: Any) -> tuple[tuple[int, int], ...] | None:
    """One (row, col) or several, as a tuple of pairs; None stays."""
    if center is None:
        return None
    try:
        pairs = [center] if len(center) == 2 and all(isinstance(c, int) for c in center) else center
        return tuple((int(row), int(col)) for row, col in pairs) or None
    except (TypeError, ValueError) as error:
        raise PhasewiseError(f"a centre of A is ROW,COL; got {center}") from error


USER_STEPS = 50
"""Steps that pipelines of diffusers usually take."""
GRIDS = 30
"""Judged to place the steps of a schedule, unless another number is asked for."""


@dataclass(frozen=True)
class ScheduleOptions(Options):
    """What the optimiser minimises, within which budget, and the windows it is compared with.

    ``growth_trajectories``: with penalty "w2", trajectories followed to see how far a push off the reference's has
    grown at the image; 0 leaves it out (better where cheaper global networks take early steps: there a push changes
    which image comes out, not how good it is).  ``window``: (low, high) in noise time, "gap" to place it where the
    measured denoising gap is, or "cmi" where the CMI exceeds its tolerance.  ``window_radius``: the local denoiser that
    runs beside the global one in window, inverted, shifted and local-only schedules.  ``user_steps``: how many steps of
    a model's own scheduler the hybrid is judged beside; None: the usual number (:data:`USER_STEPS`).  ``place``: so
    many grids of start times are judged for the hybrid and for each of its rivals; None: the usual number
    (:data:`GRIDS`), 0: all keep the run's own grid.  ``reuse``: adds the members "pixel" (each pixel alone, a closed
    form), "carried" (the answer of the last two fresh steps carried on) and "deep" (the global network with its inside
    kept); a hybrid that leans on earlier steps keeps the run's grid.
    """

    penalty: str = option("frechet", "Penalty to minimise: frechet, w2, flow, kl.", main=True, known=_penalties)
    growth_trajectories: int = option(16, "Trajectories to follow how errors grow, for w2.", least=0, check=_not_one)
    budget: float = option(0.8, "Hybrid's cost, of all-global.", main=True, check=_fraction)
    window: Any = option(
        (0.2, 0.5), "LOW,HIGH in noise time, gap or cmi.", main=True, check=_window, read=_window_words
    )
    window_radius: int = option(2, "Radius of the local denoiser beside the window.")
    user_steps: int | None = option(
        None, "Of a --model: steps of your own schedule.", least=1, check=kind(checks.steps)
    )
    reuse: bool = option(False, "Members that reuse what earlier steps left.")
    place: int | None = option(None, "Grids judged to place the steps of hybrid and rivals; 0: even.", least=0)

    @property
    def grids(self) -> int:
        """How many are judged."""
        return GRIDS if self.place is None else self.place

    def __post_init__(self) -> None:
        if isinstance(self.window, list):
            object.__setattr__(self, "window", tuple(self.window))
        super().__post_init__()


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """How many samples every schedule is judged by, and how many are kept as pictures."""

    n_samples: int = option(2000, "Samples per schedule to judge it by.", flag="--samples", main=True, least=100)
    n_grid: int = option(64, "Samples kept as pictures.", least=1)


@dataclass(frozen=True)
class MachineOptions(Options):
    """Where it runs."""

    device: str = option("cpu", "cpu, cuda, cuda:1, mps.", main=True)


PARTS: dict[str, type[Options]] = {
    "data": DataOptions,
    "features": FeatureOptions,
    "train": TrainOptions,
    "grid": GridOptions,
    "diagnose": DiagnoseOptions,
    "reach": ReachOptions,
    "symmetry": SymmetryOptions,
    "recovery": RecoveryOptions,
    "cmi": CMIOptions,
    "schedule": ScheduleOptions,
    "evaluate": EvaluateOptions,
    "machine": MachineOptions,
}
"""The parts of a config by name."""
HOMES: dict[str, tuple[str, Option]] = {o.name: (part, o) for part, cls in PARTS.items() for o in options_of(cls)}
"""Every option by its name: which part it is in, and what is said of it."""
