"""What a run does: one frozen record, sized to the images when nothing is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from phasewise.denoisers.unet import GLOBAL_SIZES
from phasewise.errors import PhasewiseError
from phasewise.information import ESTIMATORS
from phasewise.metrics.features import KINDS
from phasewise.sampling import get_solver
from phasewise.sampling.grid import SPACINGS
from phasewise.scheduling import PENALTIES
from phasewise.training import get_preset


@dataclass(frozen=True)
class RunConfig:
    """All choices of a run.

    Attributes:
        data, data_dir, limit: as for :func:`phasewise.load_images`.
        radii: receptive fields of the local denoisers, pixels.  window_radius: the one that serves beside the global
            denoiser in the window, inverted, shifted and local-only schedules.
        control: train the local design with its window opened to the whole image, too.
        global_width: channels of the U-Net.  cheap_globals: more of them, by size
            (:data:`phasewise.denoisers.unet.GLOBAL_SIZES`), to switch to where the whole image is needed but not at
            full price; they train as long as the global one.
        global_epochs, local_epochs: passes over the training images.
        networks: folder with trained denoisers to take instead of training them, each in NAME/ as
            :func:`phasewise.save_denoiser` writes it; a name it has not is trained.
        preset, batch: training preset (:data:`phasewise.training.PRESETS`) and batch size.
        steps, solver, spacing, t_min: the sampling grid, see :func:`phasewise.time_grid`.
        penalty: price the optimiser minimises, "frechet", "w2", "flow" or "kl".
        growth_trajectories: with penalty "w2", sampling paths followed to see how far a push off the path has grown
        at the
            image, which that price then counts; 0 leaves it out (better where cheaper global networks serve early
            steps: there a push changes which image comes out, not how good it is).
        budget: cost as a fraction of all-global.
        window: (low, high) in noise time, "gap" to place it where the measured denoising gap is, or "cmi" to place it
            where the conditional mutual information at the window's radius exceeds ``cmi_tolerance`` nats.
        features: feature network for FID: "auto", "classifier", "inception", "pca" or "random".
        times: noise times of the diagnosis.  recovery_times: start times of the recovery experiment.
        n_losses, n_recovery, n_samples, n_grid: numbers of images.
        cmi: measure conditional mutual information in a whole run.  cmi_radii, cmi_times, cmi_block, cmi_center,
            cmi_estimator with its cmi_options, cmi_accuracy: as for :func:`phasewise.cmi_map`.
    """

    data: str = "digits"
    data_dir: str | None = None
    limit: int | None = None
    seed: int = 0
    device: str = "cpu"
    size: str = "auto"
    radii: tuple[int, ...] = (1, 2, 3)
    window_radius: int = 2
    control: bool = True
    global_width: int = 16
    cheap_globals: tuple[str, ...] = ()
    networks: str | None = None
    preset: str = "default"
    batch: int = 128
    global_epochs: float = 130
    local_epochs: float = 110
    steps: int = 8
    solver: str = "exp_ab2"
    spacing: str = "uniform"
    t_min: float = 0.02
    penalty: str = "frechet"
    growth_trajectories: int = 16
    budget: float = 0.8
    window: tuple[float, float] | str = (0.2, 0.5)
    times: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    recovery_times: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    features: str = "auto"
    n_losses: int = 1000
    n_recovery: int = 200
    n_samples: int = 2000
    n_grid: int = 64
    cmi: bool = True
    cmi_radii: tuple[int, ...] = (1, 2, 3)
    cmi_times: tuple[float, ...] = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)
    cmi_estimator: str = "density"
    cmi_options: dict[str, Any] = field(default_factory=dict)
    cmi_block: int = 1
    cmi_center: tuple[tuple[int, int], ...] | None = None
    cmi_accuracy: float = 0.01
    cmi_tolerance: float = 0.01

    def __post_init__(self) -> None:
        for name in ("radii", "cheap_globals", "times", "recovery_times", "cmi_radii", "cmi_times"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "cmi_center", _positions(self.cmi_center))
        if isinstance(self.window, list):
            object.__setattr__(self, "window", tuple(self.window))
        if self.window_radius not in self.radii:
            raise PhasewiseError(f"window_radius {self.window_radius} is not among the radii {list(self.radii)}")
        if isinstance(self.window, str) and self.window not in ("gap", "cmi"):
            raise PhasewiseError(f"window must be two noise times, or 'gap' or 'cmi'; got {self.window!r}")
        if not isinstance(self.window, str) and not (
            len(self.window) == 2 and 0 <= self.window[0] < self.window[1] <= 1
        ):
            raise PhasewiseError(f"window must be LOW,HIGH with 0 <= LOW < HIGH <= 1; got {self.window}")
        get_solver(self.solver)
        for name, known in (("spacing", SPACINGS), ("penalty", tuple(PENALTIES)), ("features", KINDS)):
            if getattr(self, name) not in known:
                raise PhasewiseError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}")
        if len(set(self.radii)) < len(self.radii):
            raise PhasewiseError(f"the radii {list(self.radii)} name one twice")
        if self.global_width < 8 or self.global_width % 8:
            raise PhasewiseError(f"global_width must be a positive multiple of 8, got {self.global_width}")
        for size in self.cheap_globals:
            if size not in GLOBAL_SIZES:
                raise PhasewiseError(f"unknown size {size!r} of a global network; known: {', '.join(GLOBAL_SIZES)}")
        if len(set(self.cheap_globals)) < len(self.cheap_globals):
            raise PhasewiseError(f"cheap_globals {list(self.cheap_globals)} name one twice")
        if not 0 < self.budget <= 1:
            raise PhasewiseError(f"budget is a fraction of the all-global cost, in (0, 1]; got {self.budget}")
        for name, least in (
            ("n_samples", 100),
            ("n_losses", 2),
            ("n_recovery", 2),
            ("n_grid", 1),
            ("steps", 2),
            ("growth_trajectories", 0),
        ):
            if getattr(self, name) < least:
                raise PhasewiseError(f"{name} must be at least {least}, got {getattr(self, name)}")
        self._check_cmi()
        for epochs in (self.global_epochs, self.local_epochs):
            get_preset(self.preset, batch=self.batch, epochs=epochs)

    def _check_cmi(self) -> None:
        if self.window == "cmi" and not self.cmi:
            raise PhasewiseError("window 'cmi' needs the conditional mutual information: leave out --no-cmi")
        if self.cmi_estimator not in ESTIMATORS:
            raise PhasewiseError(f"unknown estimator {self.cmi_estimator!r}; known: {', '.join(ESTIMATORS)}")
        for name in ("cmi_radii", "cmi_times"):
            values = getattr(self, name)
            if self.cmi and (not values or len(set(values)) < len(values)):
                raise PhasewiseError(f"{name} must be distinct, at least one; got {list(values)}")
        if not all(0 < t <= 1 for t in self.cmi_times):
            raise PhasewiseError(f"cmi_times are noise times in (0, 1], got {list(self.cmi_times)}")
        for name in ("cmi_accuracy", "cmi_tolerance"):
            if not 0 < getattr(self, name) < float("inf"):
                raise PhasewiseError(f"{name} is in nats and above 0, got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        return {k: _listed(v) for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """What an older version did not record is taken from the size."""
        known = {f.name for f in fields(cls)}
        usual = SIZES.get(values.get("size", ""), {})
        return cls(**{k: v for k, v in {**usual, **values}.items() if k in known})


def _listed(value: Any) -> Any:
    """Tuples as lists all the way down, as JSON gives them back."""
    return [_listed(v) for v in value] if isinstance(value, (tuple, list)) else value


def _positions(center: Any) -> tuple[tuple[int, int], ...] | None:
    """One (row, col) or several, as a tuple of pairs; None stays."""
    if center is None:
        return None
    pairs = [center] if len(center) == 2 and all(isinstance(c, int) for c in center) else center
    try:
        return tuple((int(row), int(col)) for row, col in pairs) or None
    except (TypeError, ValueError) as error:
        raise PhasewiseError(f"a centre of A is ROW,COL; got {center}") from error


SIZES: dict[str, dict[str, Any]] = {
    "small": {},
    "cpu": {
        "radii": (1, 2, 3, 5, 8, 12), "window_radius": 3, "global_width": 32, "cheap_globals": ("coarse",),
        "growth_trajectories": 0, "solver": "sde_dpmpp_2m",
        "global_epochs": 14, "local_epochs": 7, "n_losses": 2000, "n_recovery": 250, "n_samples": 3000,
        "cmi_radii": (1, 2, 3, 4, 5, 6), "cmi_times": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9),
        "cmi_accuracy": 0.003,
    },
    "smoke": {
        "radii": (1, 2), "window_radius": 1, "global_width": 8, "global_epochs": 4, "local_epochs": 4, "steps": 5,
        "times": (0.1, 0.3, 0.5, 0.7, 0.9), "recovery_times": (0.3, 0.6), "n_losses": 100, "n_recovery": 20,
        "n_samples": 150, "n_grid": 16, "cmi_radii": (1, 2), "cmi_times": (0.3, 0.6), "cmi_accuracy": 0.1,
        "cmi_options": {"steps": 20, "folds": 2},
    },
}  # fmt: skip
"""Named sizes: "small" for images up to 16 pixels (minutes), "cpu" for larger ones (somewhat over an hour on 2 cores),
"smoke" to try the whole chain in seconds, results meaningless."""


def make_config(image_side: int, size: str = "auto", **given: Any) -> RunConfig:
    """A config for images whose longer side is this; values in ``given`` that are not None override the size's own."""
    if size == "auto":
        size = "small" if image_side <= 16 else "cpu"
    if size not in SIZES:
        raise PhasewiseError(f"unknown size {size!r}; known: auto, {', '.join(SIZES)}")
    chosen = {k: v for k, v in given.items() if v is not None}
    usual = {**SIZES[size], **_fitting_cmi(image_side, chosen, SIZES[size])}
    base = RunConfig(size=size, **{**usual, **follow(chosen, usual)})
    return replace(base)


def follow(chosen: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """``chosen`` and what follows from it unless it is chosen itself: the window's radius, the one of the radii given
    nearest to the usual one; no options for an estimator that is not the usual one, whose options they are."""
    if "radii" in chosen and "window_radius" not in chosen:
        if not chosen["radii"]:
            raise PhasewiseError("give at least one radius")
        wanted = usual.get("window_radius", RunConfig.window_radius)
        chosen = {**chosen, "window_radius": min(chosen["radii"], key=lambda r: abs(r - wanted))}
    estimator = usual.get("cmi_estimator", RunConfig.cmi_estimator)
    if chosen.get("cmi_estimator", estimator) != estimator:
        chosen = {"cmi_options": {}, **chosen}
    return chosen


def _fitting_cmi(side: int, chosen: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """The usual CMI radii that leave far pixels in images of this side; without any, no CMI."""
    if "cmi_radii" in chosen or "cmi_center" in chosen:
        return {}
    extent = side - 1 - (side - 1) // 2 - int(chosen.get("cmi_block", 1)) // 2
    radii: Sequence[int] = [r for r in usual.get("cmi_radii", RunConfig.cmi_radii) if r < extent]
    return {"cmi_radii": tuple(radii)} if radii else {"cmi": False}
