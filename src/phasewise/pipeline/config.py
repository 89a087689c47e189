"""What a run does: one frozen record, sized to the images when nothing is said."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from phasewise.errors import PhasewiseError
from phasewise.metrics.features import KINDS
from phasewise.phases import WEIGHTINGS
from phasewise.sampling import get_solver
from phasewise.sampling.grid import SPACINGS
from phasewise.training import get_preset


@dataclass(frozen=True)
class RunConfig:
    """All choices of a run.

    Attributes:
        data, data_dir, limit: as for :func:`phasewise.load_images`.
        radii: receptive fields of the local denoisers, pixels.  window_radius: the one that serves beside the global
            denoiser in the window, inverted, shifted and local-only schedules.
        control: train the local design with its window opened to the whole image, too.
        global_width: channels of the U-Net.  global_epochs, local_epochs: passes over the training images.
        preset, batch: training preset (:data:`phasewise.training.PRESETS`) and batch size.
        steps, solver, spacing, t_min: the sampling grid, see :func:`phasewise.time_grid`.
        weighting: price the optimiser minimises, "flow", "w2" or "kl".  budget: cost as a fraction of all-global.
        window: (low, high) in noise time, or "gap" to place it where the measured denoising gap is.
        features: feature network for FID: "auto", "classifier", "inception", "pca" or "random".
        times: noise times of the diagnosis.  recovery_times: start times of the recovery experiment.
        n_losses, n_recovery, n_samples, n_grid: numbers of images.
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
    preset: str = "default"
    batch: int = 128
    global_epochs: float = 130
    local_epochs: float = 110
    steps: int = 10
    solver: str = "heun"
    spacing: str = "uniform"
    t_min: float = 0.02
    weighting: str = "flow"
    budget: float = 0.75
    window: tuple[float, float] | str = (0.2, 0.5)
    times: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    recovery_times: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    features: str = "auto"
    n_losses: int = 1000
    n_recovery: int = 200
    n_samples: int = 2000
    n_grid: int = 64

    def __post_init__(self) -> None:
        for name in ("radii", "times", "recovery_times"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.window, list):
            object.__setattr__(self, "window", tuple(self.window))
        if self.window_radius not in self.radii:
            raise PhasewiseError(f"window_radius {self.window_radius} is not among the radii {list(self.radii)}")
        if isinstance(self.window, str) and self.window != "gap":
            raise PhasewiseError(f"window must be two noise times, or 'gap'; got {self.window!r}")
        if not isinstance(self.window, str) and not (
            len(self.window) == 2 and 0 <= self.window[0] < self.window[1] <= 1
        ):
            raise PhasewiseError(f"window must be LOW,HIGH with 0 <= LOW < HIGH <= 1; got {self.window}")
        get_solver(self.solver)
        for name, known in (("spacing", SPACINGS), ("weighting", tuple(WEIGHTINGS)), ("features", KINDS)):
            if getattr(self, name) not in known:
                raise PhasewiseError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}")
        if len(set(self.radii)) < len(self.radii):
            raise PhasewiseError(f"the radii {list(self.radii)} name one twice")
        if self.global_width < 8 or self.global_width % 8:
            raise PhasewiseError(f"global_width must be a positive multiple of 8, got {self.global_width}")
        if not 0 < self.budget <= 1:
            raise PhasewiseError(f"budget is a fraction of the all-global cost, in (0, 1]; got {self.budget}")
        for name, least in (("n_samples", 100), ("n_losses", 2), ("n_recovery", 2), ("n_grid", 1), ("steps", 2)):
            if getattr(self, name) < least:
                raise PhasewiseError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for epochs in (self.global_epochs, self.local_epochs):
            get_preset(self.preset, batch=self.batch, epochs=epochs)

    def to_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in values.items() if k in known})


SIZES: dict[str, dict[str, Any]] = {
    "small": {},
    "cpu": {
        "radii": (1, 2, 3, 5, 8, 12), "window_radius": 3, "global_width": 32, "global_epochs": 14, "local_epochs": 7,
        "n_losses": 2000, "n_recovery": 250, "n_samples": 3000,
    },
    "smoke": {
        "radii": (1, 2), "window_radius": 1, "global_width": 8, "global_epochs": 4, "local_epochs": 4, "steps": 5,
        "times": (0.1, 0.3, 0.5, 0.7, 0.9), "recovery_times": (0.3, 0.6), "n_losses": 100, "n_recovery": 20,
        "n_samples": 150, "n_grid": 16,
    },
}  # fmt: skip
"""Named sizes: "small" for images up to 16 pixels (minutes), "cpu" for larger ones (about an hour on 2 cores), "smoke"
to try the whole chain in seconds, results meaningless."""


def make_config(image_side: int, size: str = "auto", **given: Any) -> RunConfig:
    """A config for images of this side; values in ``given`` that are not None override the size's own."""
    if size == "auto":
        size = "small" if image_side <= 16 else "cpu"
    if size not in SIZES:
        raise PhasewiseError(f"unknown size {size!r}; known: auto, {', '.join(SIZES)}")
    chosen = {k: v for k, v in given.items() if v is not None}
    base = RunConfig(size=size, **{**SIZES[size], **_consistent(chosen, SIZES[size])})
    return replace(base)


def _consistent(chosen: dict[str, Any], size: dict[str, Any]) -> dict[str, Any]:
    """When radii are given but not the window's radius, take the one nearest to the size's default."""
    if "radii" in chosen and "window_radius" not in chosen:
        if not chosen["radii"]:
            raise PhasewiseError("give at least one radius")
        wanted = size.get("window_radius", RunConfig.window_radius)
        chosen = {**chosen, "window_radius": min(chosen["radii"], key=lambda r: abs(r - wanted))}
    return chosen
