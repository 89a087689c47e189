"""What a run does: the options of all its stages together, its members, and how they are sized to the images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from phasewise import checks
from phasewise.errors import PhasewiseError, unknown
from phasewise.results import Record
from phasewise.runs.members import MEMBER_KINDS, Member, kind_and_size
from phasewise.runs.options import options_of
from phasewise.runs.parts import (
    HOMES,
    PARTS,
    REFERENCE,
    CMIOptions,
    DataOptions,
    DiagnoseOptions,
    EvaluateOptions,
    FeatureOptions,
    GridOptions,
    MachineOptions,
    ReachOptions,
    RecoveryOptions,
    ScheduleOptions,
    SymmetryOptions,
    TrainOptions,
)
from phasewise.runs.sizes import NAMED, SIZES, SMOKE_STEPS, VARYING, bounded, known_size, of_models


@dataclass(frozen=True)
class RunConfig(Record):
    """All choices of a run, part by part."""

    size: str = "auto"
    data: DataOptions = field(default_factory=DataOptions)
    features: FeatureOptions = field(default_factory=FeatureOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    grid: GridOptions = field(default_factory=GridOptions)
    diagnose: DiagnoseOptions = field(default_factory=DiagnoseOptions)
    reach: ReachOptions = field(default_factory=ReachOptions)
    symmetry: SymmetryOptions = field(default_factory=SymmetryOptions)
    recovery: RecoveryOptions = field(default_factory=RecoveryOptions)
    cmi: CMIOptions = field(default_factory=CMIOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)

    def check(self) -> None:
        if not (self.train.model and not self.train.distill) and self.schedule.window_radius not in self.train.radii:
            raise PhasewiseError(
                f"window_radius {self.schedule.window_radius} is not among the radii {list(self.train.radii)}"
            )
        if self.schedule.window == "cmi" and not self.cmi.measure:
            raise PhasewiseError("window 'cmi' needs the conditional mutual information: leave out --no-cmi")
        names = [m.name for m in self.members]
        doubles = {n for n in names if names.count(n) > 1}
        if doubles:
            raise PhasewiseError(f"two members are called {', '.join(sorted(doubles))}; rename yours")
        for k, member in enumerate(self.members):
            if member.teacher is not None and member.teacher not in names[:k]:
                raise PhasewiseError(
                    f"member {member.name} is to learn from {member.teacher!r}, which is none of those before it: "
                    f"{', '.join(names[:k])}"
                )

    @property
    def members(self) -> tuple[Member, ...]:
        """Every denoiser of the run, in order; follows from the options of training."""
        return members_of(self.train)

    def flat(self) -> dict[str, Any]:
        """Every option by its name, as JSON has it."""
        values = {part: getattr(self, part).to_dict() for part in PARTS}
        return {name: values[part][about.field] for name, (part, about) in HOMES.items()}

    def changed(self, **given: Any) -> RunConfig:
        """With these options, by name, replaced."""
        return replace(self, **{part: replace(getattr(self, part), **new) for part, new in nested(given).items()})


def members_of(train: TrainOptions) -> tuple[Member, ...]:
    """The members that the options of training ask for, in the order of a run's tables."""

    def source(name: str) -> str | None:
        return None if train.networks is None else str(Path(train.networks) / name)

    own = tuple(_own_member(name, about) for name, about in train.member.items())
    taught = {"teacher": "global"} if train.distill else {}
    wide: dict[str, Any] = {"epochs": train.global_epochs, **taught}
    narrow: dict[str, Any] = {"epochs": train.local_epochs, **taught}
    if train.model and not train.distill:
        return (*_of_models(train), *own)
    found = _models(train) or [_global(train, source("global"))]
    found += [_cheaper(name, source(name), wide) for name in train.cheap_globals]
    found += [Member(f"r{r}", "local", radius=r, source=source(f"r{r}"), **narrow) for r in train.radii]
    if train.control:
        found.append(Member("control", "control", radius=max(train.radii), source=source("control"), **narrow))
    found.append(Member("wiener", "wiener"))
    if not train.guidance:
        return (*found, *own)
    return tuple(replace(m, told=True) if MEMBER_KINDS[m.kind].build is not None else m for m in (*found, *own))


def _global(train: TrainOptions, source: str | None) -> Member:
    """The teacher; or by channels, or of a size that its name says.  A U-Net's kind of network is left unsaid."""
    if train.teacher is not None:
        return Member("global", "teacher", source=train.teacher)
    kind, size = kind_and_size(train.global_network)
    network = None if kind == "unet" else kind
    width = train.global_width if size is None else None
    return Member(
        "global", "global", size=size, width=width, source=source, network=network, epochs=train.global_epochs
    )


def _cheaper(name: str, source: str | None, how: dict[str, Any]) -> Member:
    kind, size = kind_and_size(name)
    return Member(name, kind, size=size, source=source, **how)


def _of_models(train: TrainOptions) -> list[Member]:
    """What runs where networks are taken as they are: these, and closed forms of the images, which take no training."""
    found = [*_models(train), Member("wiener", "wiener")]
    return found + [Member(f"wiener-r{r}", "wiener", radius=r) for r in train.radii]


def _models(train: TrainOptions) -> list[Member]:
    kinds = {name: "model" if name == REFERENCE else "other_model" for name in train.model}
    return [Member(name, kinds[name], source=where) for name, where in train.model.items()]


def _own_member(name: str, about: Any) -> Member:
    """A member of the user's: a folder, or the fields of one.  Raises PhasewiseError for an unknown kind or field."""
    if isinstance(about, str):
        return Member(name, "given", source=about)
    known = {f.name for f in fields(Member)} - {"name", "classes", "told"}
    if not isinstance(about, dict) or not {"kind"} <= set(about) <= known:
        raise PhasewiseError(
            f"member {name} is a folder, or an object with kind and, where it has them, {', '.join(sorted(known))}; "
            f"got {about!r}"
        )
    MEMBER_KINDS[str(about["kind"])]  # raises for an unknown kind
    return Member(name, **about)


def nested(flat: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Options by name, sorted into their parts by field.  Raises PhasewiseError for a name that is none."""
    out: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        if name not in HOMES:
            raise PhasewiseError(f"there is no option {name!r}; `phasewise options` lists them all")
        part, about = HOMES[name]
        out.setdefault(part, {})[about.field] = value
    return out


def from_record(values: dict[str, Any]) -> RunConfig:
    """A config from its JSON or TOML; what is not in it is taken from its size."""
    size = values.get("size", "auto")
    flat = {**SIZES.get(size, {}), **flattened(values)}
    return RunConfig(size=size).changed(**flat) if size == "auto" else _of_size(size, flat)


def _of_size(size: str, flat: dict[str, Any]) -> RunConfig:
    parts = nested(flat)
    return RunConfig(size=size, **{part: PARTS[part](**values) for part, values in parts.items()})  # type: ignore[arg-type]


def flattened(values: dict[str, Any]) -> dict[str, Any]:
    """Tables by part, as in ``run.json`` and in a TOML file, as options by name; names at the top level count as well.

    Raises PhasewiseError for a table or a name that is none.
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key == "size":
            continue
        if key not in PARTS or not isinstance(value, dict):
            flat[key] = value
            continue
        by_field = {o.field: o.name for o in options_of(PARTS[key])}
        for own, one in value.items():
            if own not in by_field:
                raise PhasewiseError(f"[{key}] has no option {own!r}; it has {', '.join(by_field)}")
            flat[by_field[own]] = one
    nested(flat)  # raises for a name that is none
    return flat


UNETS_OWN = {"global_width", "networks", "teacher", "model"}
"""Where one of these is given, and no kind of global network, it is a U-Net: a width is one's channels, and networks
that are there already may be of before there was another kind."""


TAKEN = {"networks", "teacher", "model", "distill", "member"}
"""Where one of these is given, networks are told nothing unless it is asked for: others made some of them."""


@checks.checked(image_side=checks.count, size=checks.text, labelled=checks.flag, train=checks.count)
def make_config(
    image_side: int, size: str = "auto", *, labelled: bool = False, train: int | None = None, **given: Any
) -> RunConfig:
    """A config for images whose longer side is this; options in ``given`` that are not None override the size's own.

    ``labelled``: they are known to have class labels, which networks may then be told (``guidance``).  ``train``: how
    many there are to train on; few are passed over more often.  None: as many as the usual passes are for.
    """
    size = usual_size(size, image_side)
    if size not in SIZES:
        raise PhasewiseError(unknown("size", size, ("auto", *SIZES)))
    chosen = coerced({k: v for k, v in given.items() if v is not None})
    given_unet = UNETS_OWN & chosen.keys()
    network = chosen.get("global_network", "unet" if given_unet else None)
    told = labelled and chosen.get("guidance") != 0 and not any(chosen.get(name) for name in TAKEN)
    usual = SIZES[size] | bounded(size, image_side, network, told, train)
    if "cmi_center" in chosen and size == "cpu":
        usual.pop("cmi_crop", None)  # where A is counts from the image's corner
    usual |= _fitting_cmi(image_side, chosen, usual)
    if chosen.get("model"):
        usual |= of_models(image_side, several=len(chosen["model"]) > 1, distil=bool(chosen.get("distill")))
        usual |= {"user_steps": SMOKE_STEPS} if size == "smoke" else {}
    return _of_size(size, {**usual, **follow(chosen, usual)})


def usual_size(size: str, image_side: int) -> str:
    """What the size "auto" is of images of this side; any other is itself."""
    return size if size != "auto" else "small" if image_side <= 16 else "cpu"


def coerced(chosen: dict[str, Any]) -> dict[str, Any]:
    """Options by name as values of their types.  Raises PhasewiseError for one that cannot be, as a part does."""
    parts = {part: PARTS[part](**values) for part, values in nested(chosen).items()}
    return {name: getattr(parts[HOMES[name][0]], HOMES[name][1].field) for name in chosen}


def follow(chosen: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """``chosen`` and what follows from it unless it is chosen itself: the window's radius, the one of the radii given
    nearest to the usual one; no options for an estimator that is not the usual one, whose options they are."""
    if (
        "radii" in chosen
        and "window_radius" not in chosen
        and (chosen.get("distill", usual.get("distill")) or not chosen.get("model", usual.get("model")))
    ):
        if not chosen["radii"]:
            raise PhasewiseError("give at least one radius")
        wanted = usual.get("window_radius", ScheduleOptions.window_radius)
        chosen = {**chosen, "window_radius": min(chosen["radii"], key=lambda r: abs(r - wanted))}
    estimator = usual.get("cmi_estimator", CMIOptions.estimator)
    if chosen.get("cmi_estimator", estimator) != estimator:
        chosen = {"cmi_options": {}, **chosen}
    return chosen


def _fitting_cmi(side: int, chosen: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """The usual CMI radii that leave far pixels in images of this side; without any, no CMI."""
    if "cmi_radii" in chosen or "cmi_center" in chosen:
        return {}
    side = min(side, chosen.get("cmi_crop", usual.get("cmi_crop")) or side)
    # from the edge of a central A to the border: a wider B leaves no C
    extent = side - 1 - (side - 1) // 2 - int(chosen.get("cmi_block", 1)) // 2
    radii = [r for r in usual.get("cmi_radii", CMIOptions.radii) if r < extent]
    if not radii and int(chosen.get("cmi_block", 1)) > 1:
        raise PhasewiseError(
            f"a block of {chosen['cmi_block']} pixels leaves nothing for B and C in images of side {side}; take a "
            "smaller --block"
        )
    return {"cmi_radii": tuple(radii)} if radii else {"cmi": False}


NOTHING = {"guidance": 0, "cmi_crop": 0}
"""How None is said of options that a size may set."""


def command(config: RunConfig, verb: str = "run", parts: Iterable[str] = tuple(PARTS)) -> str:
    """A command line that repeats the run: the size, and every option that the size would not set so by itself.

    ``parts``: those whose options the command takes.
    """
    usual = {**RunConfig().flat(), **SIZES.get(config.size, {}), "data": None}  # None: the data are always named
    if config.train.model:  # what is usual there depends on the images, so it is said
        usual |= {"control": False, "cheap_globals": (), "cmi": False, "reach": True, "radii": None, "penalty": None}
        usual |= {"clone_images": 0}
    # as JSON has it, like the flat config
    usual = {name: list(v) if isinstance(v, tuple) else v for name, v in usual.items()}
    flat = {name: v for name, v in config.flat().items() if HOMES[name][0] in parts}
    said = {name: v for name, v in flat.items() if v != usual[name]}
    unsure = _unsure(config, said)
    words = ["phasewise", verb, "--size", config.size]
    for name, value in flat.items():
        if name in said or name in unsure:
            value = NOTHING.get(name) if value is None else value
            words += [] if value is None else HOMES[name][1].words(value)
    return " ".join(words)


def _unsure(config: RunConfig, said: dict[str, Any]) -> set[str]:
    """Options that the images would set otherwise than they are in a run of which only ``said`` is said; where their
    side and number are not known beforehand, all that the size may set."""
    if config.train.model:
        return set()
    size, named = known_size(config.data), NAMED.get(config.data.data)
    if size is None or named is None:
        return set(VARYING.get(config.size, ()))
    labelled = is_labelled(config.data)
    again = make_config(max(size), config.size, labelled=labelled, train=named.train, **said).flat()
    return {name for name, value in config.flat().items() if value != again[name]}


def is_labelled(data: DataOptions) -> bool:
    """Whether images are known to have labels before they are read: those of named sets."""
    return data.data in NAMED and data.label_column != "none"
