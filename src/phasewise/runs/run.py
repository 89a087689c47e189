"""A run folder, typed and lazy: what it holds is read, checked, on first use; what is absent is None or empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from phasewise import checks
from phasewise.errors import PhasewiseError, RunFolderError, unknown
from phasewise.files import read_json, write_bytes, write_json
from phasewise.results import (
    Array,
    CMIMap,
    DataRecord,
    Estimate,
    Evaluation,
    HybridSchedule,
    LossTable,
    MarkovFit,
    Named,
    ParetoFront,
    PriceList,
    Reach,
    Record,
    Recovery,
    SymmetryBreaking,
    TrainingRecord,
    plain,
)
from phasewise.runs import reading
from phasewise.runs.config import RunConfig, from_record
from phasewise.runs.layout import FORMAT, ITEMS, KIND, REPORTED, inside
from phasewise.runs.members import Member, member_of

if TYPE_CHECKING:
    from phasewise.denoisers import Denoiser, HybridDenoiser
    from phasewise.metrics import ClassifierFeatures, FrechetReference, SampleJudge, SlicedReference
    from phasewise.scheduling import Boundary, BoundaryUnits

T = TypeVar("T")
MAX_SAMPLES = 64


class Run:
    """One run folder: a finished run, one under way, a shipped set, or a demo.

    ``samples`` maps a schedule's name (or "real") to uint8 (n, C, H, W), n <= 64.  Reading raises RunFolderError for a
    record that does not fit, naming it and the command that makes it anew, PhasewiseError for a broken file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._denoisers: dict[tuple[str, str], Denoiser] = {}
        self._known: dict[str, dict[str, Denoiser]] = {}
        """By device: denoisers by the resolved folder they were read from."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r})"

    # --- places -------------------------------------------------------------------------------------------------------

    def path(self, item: str, *more: str) -> Path:
        """Where an item of :data:`phasewise.runs.layout.ITEMS` lies, or a file in it."""
        return inside(self.root, ITEMS[item].place, *more)

    def has(self, item: str) -> bool:
        return self.path(item).exists()

    def model(self, name: str) -> Path:
        """Folder of a member's weights."""
        return self.path("models", name)

    def has_model(self, name: str) -> bool:
        return all((self.model(name) / file).is_file() for file in ("config.json", "weights.safetensors"))

    # --- who it is ----------------------------------------------------------------------------------------------------

    @cached_property
    def info(self) -> dict[str, Any]:
        """``run.json``; empty where there is none.  RunFolderError where it is not ours."""
        file = self.path("info")
        if not file.is_file():
            return {}
        record = read_json(file, f"delete it and run {self._maker('info')} again")
        if not isinstance(record, dict) or record.get("kind") != KIND:
            raise RunFolderError(f"{file} was not written by phasewise; choose another folder with --out")
        if not isinstance(record.get("config") or {}, dict):
            raise RunFolderError(f"{file} holds no config; delete it and run {self._maker('info')} again")
        return record

    @cached_property
    def declared(self) -> tuple[Member, ...]:
        """The members that ``run.json`` names.  RunFolderError where that makes no sense."""
        rows = self.info.get("members") or []
        try:
            return tuple(Member.from_dict(row) for row in (rows if isinstance(rows, list) else [rows]))
        except PhasewiseError as error:
            mend = f"delete it and run {self._maker('info')} again"
            raise RunFolderError(f"{self.path('info')} names members that make no sense ({error}); {mend}") from error

    @cached_property
    def config(self) -> RunConfig | None:
        """The choices of the run; None where there is no run.  RunFolderError for those of another version."""
        if not self.info:
            return None
        if self.info.get("format") != FORMAT:
            raise RunFolderError(
                f"{self.root} was made by phasewise {self.info.get('version')} (run format {self.info.get('format')}); "
                f"this version reads format {FORMAT}: use another --out"
            )
        try:
            return from_record(self.info["config"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            file = self.path("info")
            raise RunFolderError(f"{file} does not hold a valid config ({error}); use another --out") from error

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """Every member that run.json or a record names."""
        # what run.json says of a member goes first
        known = {m.name: m for m in self.declared}
        tables = (self.losses, self.prices.losses if self.prices else None)
        for table in tables:
            for name, radius in zip(table.names, table.radii, strict=True) if table else ():
                known.setdefault(name, member_of(name, radius, name == table.control, name == table.reference))  # type: ignore[union-attr]
        for name, radius in zip(self.recovery.names, self.recovery.radii, strict=True) if self.recovery else ():
            known.setdefault(name, member_of(name, radius))
        for name in self.training:
            known.setdefault(name, member_of(name, None, reference=name == self.reference))
        return tuple(known.values())

    def claim(self, config: RunConfig, command: str, version: str) -> None:
        """Write the config, and the command that repeats it, into the folder: from here on it is this run's."""
        about = {"kind": KIND, "format": FORMAT, "version": version, "config": config.to_dict()}
        members = [m.to_dict() for m in config.members]
        write_json(self.path("info"), {**about, "members": members, "command": command})
        self.forget("info", "config", "members", "declared")  # read when the folder was opened

    # --- records ------------------------------------------------------------------------------------------------------

    def _read(self, item: str, build: Callable[[dict[str, Any]], T]) -> T | None:
        file = self.path(item)
        return reading.read(file, build, self._maker(item)) if file.exists() else None

    def _maker(self, item: str) -> str:
        """The command that makes an item anew, quoted."""
        known = ITEMS[item].made_by.replace(" --out DIR", "")
        return f"`{known} --out {self.root}`"

    @cached_property
    def data(self) -> DataRecord | None:
        return self._read("data", DataRecord.from_dict)

    @cached_property
    def training(self) -> dict[str, TrainingRecord]:
        files, made_by = sorted(self.path("training").glob("*.json")), self._maker("training")
        records = [reading.read(p, reading.training, made_by) for p in files]
        return Named({r.name: r for r in records})

    @cached_property
    def classifier(self) -> dict[str, Any]:
        """What is on record of the feature network."""
        return self._read("features", dict) or self._evaluation.get("classifier") or {}

    @cached_property
    def losses(self) -> LossTable | None:
        return self._read("losses", reading.losses)

    @cached_property
    def gap(self) -> dict[str, dict[str, Estimate]]:
        return Named(self._read("gap", reading.gap) or {})

    @cached_property
    def prices(self) -> PriceList | None:
        return self._read("prices", reading.prices)

    @cached_property
    def fronts(self) -> dict[str, ParetoFront]:
        return Named(self._read("fronts", reading.fronts) or {})

    @cached_property
    def schedules(self) -> dict[str, HybridSchedule]:
        return Named(self._read("schedules", reading.schedules) or {})

    @cached_property
    def reach(self) -> Reach | None:
        return self._read("reach", Reach.from_dict)

    @cached_property
    def symmetry(self) -> SymmetryBreaking | None:
        """When symmetries break, in the data and in the reference's samples."""
        return self._read("symmetry", SymmetryBreaking.from_dict)

    @cached_property
    def boundaries(self) -> dict[str, tuple[Boundary, BoundaryUnits]]:
        """By who stands beside the reference: when to switch between the two, and that in every unit."""
        return Named(self._read("boundaries", reading.boundaries) or {})

    @cached_property
    def claims(self) -> dict[str, dict[str, Any]]:
        """Of every model that was taken, how it compares with the Wiener filter: "ok", "ratio", "said", "n"."""
        files, made_by = sorted(self.path("claims").glob("*.json")), self._maker("claims")
        return Named({p.stem: reading.read(p, reading.claims, made_by) for p in files})

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """How often each class is among the training images, where a denoiser is told classes; else empty."""
        return self._read("classes", reading.classes) or ()

    @cached_property
    def explanations(self) -> dict[str, tuple[str, ...]]:
        return Named(self._read("explanations", reading.explanations) or {})

    @cached_property
    def _evaluation(self) -> dict[str, Any]:
        return self._read("evaluations", reading.judgement) or {}

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        return Named(self._read("evaluations", reading.evaluations) or {})

    @cached_property
    def trials(self) -> list[Evaluation]:
        """Evaluations beside the run's own: schedules from elsewhere, other budgets, penalties and seeds."""
        return [reading.read(p, reading.trial) for p in sorted(self.path("trials").glob("*.json"))]

    @property
    def demo_of(self) -> str | None:
        """The shipped set that this folder shows; None for a run."""
        words = str(self.info.get("command", "")).split()
        return words[2] if words[:2] == ["phasewise", "demo"] and len(words) > 2 else None

    @property
    def guidance(self) -> float:
        """How strongly its networks are guided by the class they are told, as on record: 1 asks once; 0: told none."""
        parts = self.info.get("config")
        train = parts.get("train") if isinstance(parts, dict) else None
        scale = train.get("guidance") if isinstance(train, dict) else None
        return float(scale) if isinstance(scale, (int, float)) else 0.0

    @property
    def real(self) -> dict[str, Any]:
        """Distance (FID or another, as the evaluations say) of held-out real images: the floor."""
        return self._evaluation.get("real") or {}

    @property
    def floors(self) -> dict[str, list[float]]:
        """The same by the judges beside FID, by their names: [distance, standard error]."""
        found = self.real.get("judges")
        pairs = found.items() if isinstance(found, dict) else ()
        return {str(k): list(v) for k, v in pairs if isinstance(v, (list, tuple)) and len(v) == 2}

    @cached_property
    def recovery(self) -> Recovery | None:
        return self._read("recovery", reading.recovery)

    @cached_property
    def recovered(self) -> reading.RecoveryImages | None:
        if self.recovery is None or not self.has("recovered"):
            return None
        return reading.recovery_images(self.path("recovered"), self.recovery)

    @cached_property
    def cmi(self) -> CMIMap | None:
        return self._read("cmi", reading.cmi)

    @cached_property
    def markov(self) -> MarkovFit | None:
        fit = self._read("markov", reading.markov)
        if fit is not None and self.cmi is not None:
            same = self.cmi.times.tolist() == fit.times.tolist() and fit.window_radius in self.cmi.radii
            if not same:
                raise RunFolderError(
                    f"{self.path('markov')} is about other times or radii than cmi.json; delete both and run "
                    "`phasewise diagnose --cmi` again"
                )
        return fit

    @cached_property
    def samples(self) -> dict[str, Array]:
        files = self._sample_files()
        return Named({p.stem: reading.tensor(p, "samples", ndim=4, first=MAX_SAMPLES) for p in files})

    def _sample_files(self) -> list[Path]:
        return [p for p in sorted(self.path("samples").glob("*.safetensors")) if p != self.path("recovered")]

    @property
    def reference(self) -> str:
        """Name of the denoiser all others are compared with."""
        table = self.losses or (self.prices.losses if self.prices else None)
        return table.reference if table else "global"

    def all_schedules(self) -> dict[str, HybridSchedule]:
        """Schedules by name: the evaluated ones as they were run, then the saved ones."""
        evaluated = {n: e.schedule for n, e in self.evaluations.items() if e.schedule is not None}
        return Named({**self.schedules, **evaluated})

    @checks.checked(name=checks.text)
    def measured(self, name: str = "hybrid") -> tuple[Record, ...]:
        """What the run's folder knows of a denoiser or of a schedule, for a model card: its images, training and
        judgement, as far as they are there (``run.hybrid().save_pretrained(folder, records=run.measured())``)."""
        found = (self.data, dict(self.training).get(name), dict(self.evaluations).get(name))
        return tuple(record for record in found if record is not None)

    def reportable(self) -> bool:
        """Whether it holds anything that a report shows."""
        return any(getattr(self, name) for name in REPORTED)

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, item: str, value: Record | dict[str, Any], *more: str) -> Path:
        """A record, or an object of records, as JSON; what was read of it before is forgotten."""
        self.forget(item, "evaluations", "_evaluation", "classifier", "members", "trials")
        return write_json(self.path(item, *more), plain(value))

    def write_tensors(self, item: str, content: bytes, *more: str) -> Path:
        self.forget("samples", "recovered")
        return write_bytes(self.path(item, *more), content)

    def remove(self, *items: str) -> None:
        """Drop records, or pictures of samples, that no longer hold."""
        for item in items:
            for file in self._sample_files() if item == "samples" else [self.path(item)]:
                file.unlink(missing_ok=True)
            self.forget(item, "_evaluation", "classifier")

    def forget(self, *names: str) -> None:
        for name in names:
            self.__dict__.pop(name, None)

    # --- judges -------------------------------------------------------------------------------------------------------

    @checks.checked(unseen=checks.flag)
    def features(self, unseen: bool = False) -> ClassifierFeatures:
        """The classifier whose features FID is measured in; ``unseen``: the second one, that no penalty has seen.

        Raises RunFolderError where none is kept: of images without labels, and of runs without a second judge.
        """
        from phasewise.metrics.classifier import CONFIG_FILE, ClassifierFeatures

        folder = self._kept(unseen)
        if not (folder / CONFIG_FILE).is_file():
            which = "second feature network" if unseen else "feature network"
            raise RunFolderError(
                f"{self.root} keeps no {which}, which a run has where its images have labels; make one by "
                f"phasewise.metrics.{'unseen' if unseen else 'default'}_features(data)"
            )
        return ClassifierFeatures.load(folder)

    def _kept(self, unseen: bool) -> Path:
        """Where a classifier is kept."""
        from phasewise.metrics.features import kept_name

        fingerprint, channels = (self.data.fingerprint, self.data.image_shape[0]) if self.data else ("", 1)
        seed = self.config.data.seed if self.config else 0
        return self.path("networks", kept_name(fingerprint, channels, seed, unseen))

    @checks.checked(unseen=checks.flag)
    def reference_moments(self, unseen: bool = False) -> FrechetReference:
        """Moments of the training images in :meth:`features`.  Raises RunFolderError where they are not kept."""
        from phasewise.metrics import FrechetReference

        return FrechetReference.load(self._kept_moments("unseen" if unseen else "first"))

    def sliced_reference(self) -> SlicedReference:
        """The training images along fixed directions.  Raises RunFolderError where they are not kept."""
        from phasewise.metrics import SlicedReference

        return SlicedReference.load(self._kept_moments("sliced"))

    def _kept_moments(self, judge: str) -> Path:
        """The file of what a judge holds samples against."""
        file = self.moments(judge)
        if not file.is_file():
            raise RunFolderError(
                f"{self.root} keeps no {file.name} for its judges; make it by {self._maker('moments')}, or judge by "
                "phasewise.metrics.FrechetJudge.of_images and SlicedJudge.of_images"
            )
        return file

    def moments(self, judge: str) -> Path:
        """Where what a judge ("first", "unseen" or "sliced") holds samples against lies, if it is kept."""
        return self.path("moments", f"{judge}.safetensors")

    def judges(self) -> dict[str, SampleJudge]:
        """All judges whose networks and moments are kept here, by name: "first" (the features that penalties may use),
        "unseen" (those that none has) and "sliced" (no network); for :func:`phasewise.metrics.verdict`."""
        from phasewise.metrics.classifier import CONFIG_FILE
        from phasewise.metrics.judges import FIRST, SLICED, UNSEEN, FrechetJudge, SlicedJudge, unseen_measure

        found: dict[str, SampleJudge] = {}
        for name in (FIRST, UNSEEN):
            unseen = name == UNSEEN
            if self.moments(name).is_file() and (self._kept(unseen) / CONFIG_FILE).is_file():
                network = self.features(unseen)
                measure = unseen_measure(network) if unseen else network.distance
                found[name] = FrechetJudge(network, self.reference_moments(unseen), measure)
        if self.moments(SLICED).is_file():
            found[SLICED] = SlicedJudge(self.sliced_reference())
        return Named(found)

    # --- denoisers ----------------------------------------------------------------------------------------------------

    def denoiser(self, name: str, device: Any = "cpu") -> Denoiser:
        """One denoiser, float32, in eval mode, loaded once.  PhasewiseError for a name that has no weights here."""
        from phasewise.denoisers.io import load_beside

        key = (name, str(device))
        if key not in self._denoisers:
            if not self.has_model(name):
                known = ", ".join(self.model_names()) or "none"
                raise PhasewiseError(f"{self.root} has no denoiser {name!r}; it has {known}")
            # a network that another member keeps a part of is read once
            self._denoisers[key] = load_beside(self.model(name), device, self._known.setdefault(str(device), {}))
        return self._denoisers[key]

    def reread_denoisers(self) -> None:
        """Forget those that were loaded: their folders have changed."""
        self._denoisers.clear()
        self._known.clear()

    def model_names(self) -> list[str]:
        """Names of the members whose weights are here, in the order of the run's members."""
        found = [p.name for p in sorted(self.path("models").glob("*")) if (p / "config.json").is_file()]
        order = [m.name for m in self.declared]
        return sorted(found, key=lambda n: (order.index(n) if n in order else len(order), n))

    def denoisers(self, names: Iterator[str] | list[str] | None = None, device: Any = "cpu") -> dict[str, Denoiser]:
        """Denoisers by name; all that are here by default."""
        return Named({n: self.denoiser(n, device) for n in (self.model_names() if names is None else names)})

    def hybrid(self, schedule: str | HybridSchedule = "hybrid", device: Any = "cpu") -> HybridDenoiser:
        """The members under one of the run's schedules, or under another one.  PhasewiseError listing them for a name
        that is none."""
        from phasewise.denoisers import HybridDenoiser

        if isinstance(schedule, HybridSchedule):
            return HybridDenoiser(self.denoisers(list(dict.fromkeys(schedule.assignment)), device), schedule)
        if not self.schedules:
            raise RunFolderError(
                f"{self.root} has no schedules yet; make them with `phasewise schedule --out {self.root}`"
            )
        if schedule not in self.schedules:
            raise PhasewiseError(unknown("schedule", schedule, self.schedules))
        plan = self.schedules[schedule]
        return HybridDenoiser(self.denoisers(list(dict.fromkeys(plan.assignment)), device), plan)


@checks.checked(folder=checks.file)
def open_run(folder: str | Path) -> Run:
    """The run in ``folder``.

    Raises RunFolderError when the folder is absent, or its run.json is not ours.
    """
    run = Run(folder)
    if not run.root.is_dir():
        raise RunFolderError(f"no run folder at {run.root}; make one with `phasewise run --data NAME --out {run.root}`")
    if run.info and run.info.get("kind") != KIND:
        raise RunFolderError(f"{run.path('info')} was not written by phasewise; give a folder made by `phasewise run`")
    return run
