"""Whatever a file of ours holds, reading it ends at once, with the right thing or an error of ours that names it."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from phasewise.denoisers import (
    HybridDenoiser,
    LocalDenoiser,
    UNetDenoiser,
    WienerDenoiser,
    load_denoiser,
    save_denoiser,
)
from phasewise.errors import CheckpointError, PhasewiseError, RunFolderError
from phasewise.files import read_json
from phasewise.information import cmi_map
from phasewise.metrics import ClassifierFeatures, FrechetReference
from phasewise.results import CMIMap, HybridSchedule
from phasewise.runs import Run
from phasewise.training import TrainPreset, train

BIG = 10**6
ABSENT = object()


def changed(file: Path, *names: Any, to: Any) -> None:
    """Replace (or, by ABSENT, drop) one value in a JSON file."""
    content = json.loads(file.read_text())
    place = content
    for name in names[:-1]:
        place = place[name]
    if to is ABSENT:
        del place[names[-1]]
    else:
        place[names[-1]] = to
    file.write_text(json.dumps(content))


def id_of(value: Any) -> str:
    return "absent" if value is ABSENT else repr(value)[:40]


# --- JSON itself ----------------------------------------------------------------------------------------------------

BROKEN_JSON = {
    "nested without end": b"[" * 100_000,
    "nested and closed": b"[" * 100_000 + b"]" * 100_000,
    "nested 50 deep": b'{"a":' * 50 + b"1" + b"}" * 50,
    "5,000 digits": b'{"n": ' + b"9" * 5000 + b"}",
    "30 digits": b"[" + b"1" * 30 + b"]",
    "beyond floats": b"[1e999]",
    "NaN": b'{"a": NaN}',
    "infinity": b"[-Infinity]",
    "lone surrogate": rb'{"a": "\ud800"}',
    "lone surrogate in a name": rb'{"\udfff": 1}',
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "NUL": b"{}\0",
    "empty": b"",
    "half": b'{"a": [1, 2',
    "two": b"{}{}",
}


@pytest.mark.parametrize("content", BROKEN_JSON.values(), ids=BROKEN_JSON)
def test_json(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(PhasewiseError, match=r"x\.json is not valid JSON .*; make it anew"):
        read_json(file, "make it anew")


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "circle of links", "nothing", "NUL in its name"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "x.json"
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "device":
        file = Path("/dev/zero")
    elif kind == "circle of links":
        file.symlink_to(file)
    elif kind == "NUL in its name":
        file = tmp_path / "a\0b"
    with pytest.raises(PhasewiseError, match="cannot read"):
        read_json(file)
    with pytest.raises(CheckpointError, match="cannot read"):
        FrechetReference.load(file)


def test_large_json_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "x.json", "wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no space
    with pytest.raises(PhasewiseError, match="larger than"):
        read_json(tmp_path / "x.json")


# --- denoisers ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local network, a U-Net, a Wiener filter and a hybrid of the first and last, as they are saved."""
    folder = tmp_path_factory.mktemp("models")
    local = LocalDenoiser((1, 6, 6), 1, width=8)
    unet = UNetDenoiser((1, 6, 6), width=8, multipliers=(1, 1), heads=1)
    wiener = WienerDenoiser.fit(torch.rand(9, 1, 6, 6, generator=torch.Generator().manual_seed(0)))
    for name, denoiser in (("local", local), ("unet", unet), ("wiener", wiener)):
        save_denoiser(denoiser, folder / name)
    plain = LocalDenoiser((1, 6, 6), 2, width=8)
    schedule = HybridSchedule((1.0, 0.5), ("r1", "r2"))
    save_denoiser(HybridDenoiser({"r1": local, "r2": plain}, schedule), folder / "hybrid")
    return folder


def taken(models: Path, name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / name, tmp_path / name))


CONFIGS = [
    ("local", "width", 30_000),
    ("local", "width", 10**12),
    ("local", "width", -3),
    ("local", "width", "wide"),
    ("local", "width", [8]),
    ("local", "depth", BIG),
    ("local", "depth", None),
    ("local", "mixing", BIG),
    ("local", "expansion", 1e300),
    ("local", "radius", 0),
    ("local", "radius", "1"),
    ("local", "radius", None),
    ("local", "block", 10**18),
    ("local", "classes", 10**9),
    ("local", "image_shape", [1, BIG, BIG]),
    ("local", "image_shape", [1, -6, 6]),
    ("local", "image_shape", [1, 6]),
    ("local", "image_shape", ABSENT),
    ("local", "path", 3),
    ("local", "path", {"name": ["linear"]}),
    ("local", "path", {"name": "linear", "speed": 2}),
    ("local", "path", {"name": "variance_exploding", "sigma_min": "a"}),
    ("local", "colour", "red"),
    ("unet", "blocks", BIG),
    ("unet", "blocks", -1),
    ("unet", "multipliers", [1] * 10_000),
    ("unet", "multipliers", [1, 30_000]),
    ("unet", "multipliers", 5),
    ("unet", "heads", 3),
    ("unet", "patch", 10**9),
    ("wiener", "rank", 10**9),
    ("wiener", "rank", "full"),
    ("wiener", "image_shape", [1, 60_000, 60_000]),
]


@pytest.mark.parametrize(("model", "field", "value"), CONFIGS, ids=id_of)
def test_a_config_that_is_not_of_these_weights(
    models: Path, tmp_path: Path, model: str, field: str, value: Any
) -> None:
    folder = taken(models, model, tmp_path)
    changed(folder / "config.json", "config", field, to=value)
    with pytest.raises(CheckpointError, match=r"(config|weights|again)"):
        load_denoiser(folder)


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (("class",), 3), (("class",), ["LocalDenoiser"]), (("class",), ABSENT), (("class",), "HybridDenoiser"),
        (("format",), ABSENT), (("format",), [1] * 1000), (("config",), []), (("config",), "x"),
    ],
    ids=id_of,
)  # fmt: skip
def test_a_config_that_is_none(models: Path, tmp_path: Path, names: tuple[str, ...], value: Any) -> None:
    folder = taken(models, "local", tmp_path)
    changed(folder / "config.json", *names, to=value)
    with pytest.raises(CheckpointError):
        load_denoiser(folder)


WEIGHTS: dict[str, tuple[str, str, Any]] = {
    "std 0": ("local", "data_std", torch.zeros(1, 1, 1, 1)),
    "std below 0": ("local", "data_std", torch.full((1, 1, 1, 1), -0.3)),
    "std NaN": ("local", "data_std", torch.full((1, 1, 1, 1), math.nan)),
    "std infinite": ("local", "data_std", torch.full((1, 1, 1, 1), math.inf)),
    "beyond float32": ("local", "data_std", torch.full((1, 1, 1, 1), 1e300, dtype=torch.float64)),
    "integers": ("local", "data_mean", torch.zeros(1, 1, 1, 1, dtype=torch.int64)),
    "complex": ("local", "data_mean", torch.zeros(1, 1, 1, 1, dtype=torch.complex64)),
    "other shape": ("local", "head.weight", torch.zeros(3)),
    "one too few": ("local", "head.weight", None),
    "one too many": ("local", "x", torch.zeros(3)),
    "variance below 0": ("wiener", "eigenvalues", torch.linspace(-1, 1, 36)),
    "rest below 0": ("wiener", "rest", torch.tensor(-1.0)),
}


@pytest.mark.parametrize(("model", "name", "value"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights(models: Path, tmp_path: Path, model: str, name: str, value: Tensor | None) -> None:
    file = taken(models, model, tmp_path) / "weights.safetensors"
    tensors = {k: v.clone() for k, v in load_file(file).items()} | {name: value}
    save_file({k: v for k, v in tensors.items() if v is not None}, file)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        load_denoiser(file.parent)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0", b"\xff" * 8, b"\xff" * 5000, (1 << 62).to_bytes(8, "little") + b"{}",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (2).to_bytes(8, "little") + b"{}",
        (62).to_bytes(8, "little") + b'{"data_std":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}',
    ],
    ids=range(8),
)  # fmt: skip
def test_weights_that_are_no_safetensors(models: Path, tmp_path: Path, content: bytes) -> None:
    folder = taken(models, "local", tmp_path)
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        load_denoiser(folder)


SCHEDULES = [
    ("assignment", 3), ("assignment", "r1"), ("assignment", [1, 2]), ("assignment", []),
    ("assignment", ["r1", ["r2"]]), ("assignment", [".", "."]), ("assignment", ["r1", ".."]),
    ("assignment", ["", "r1"]), ("assignment", ["r1/r1", "r1"]),
    ("assignment", ["self", "r1"]), ("assignment", ["circle", "r1"]), ("assignment", ["r1", "a\0b"]),
    ("assignment", ["r1", "r" * 5000]), ("assignment", ["r1", "absent"]), ("assignment", ABSENT), ("times", None),
    ("times", [0.5, 1.0]), ("times", ["a", "b"]), ("times", [True, 0.5]), ("solver", 3), ("path", "linear"),
    ("path", {"name": "linear", "x": 1}), ("penalty", "much"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), SCHEDULES, ids=id_of)
def test_a_schedule_of_a_saved_hybrid(models: Path, tmp_path: Path, field: str, value: Any) -> None:
    folder = taken(models, "hybrid", tmp_path)
    (folder / "self").symlink_to(folder)  # the hybrid itself as its own member
    (folder / "circle").symlink_to("circle")
    changed(folder / "config.json", "schedule", field, to=value)
    with pytest.raises(CheckpointError, match="hybrid"):
        load_denoiser(folder)


# --- feature networks and moments ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ClassifierFeatures((1, 6, 6), 3, width=2, dim=4).save(tmp_path_factory.mktemp("features"))


FEATURES = [
    ("width", 30_000), ("width", 0), ("width", 2.5), ("width", "wide"), ("dim", 10**9), ("classes", None),
    ("image_shape", [1, 6]), ("image_shape", [0, 6, 6]), ("image_shape", [1, 10**9, 10**9]), ("pixel_range", [1, 0]),
    ("pixel_range", [0]), ("pixel_range", "wide"), ("name", 3), ("sha256", None), ("sha256", ABSENT), ("format", "one"),
    ("format", ABSENT), ("training", "long"), ("test_accuracy", "high"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), FEATURES, ids=id_of)
def test_features(features: Path, tmp_path: Path, field: str, value: Any) -> None:
    folder = Path(shutil.copytree(features, tmp_path / "features"))
    changed(folder / "features.json", field, to=value)
    with pytest.raises(CheckpointError, match="train the features again"):
        ClassifierFeatures.load(folder)


@pytest.mark.parametrize("name", ["std", "scale", "embed.1.running_var"])
def test_features_scaled_by_less_than_nothing(tmp_path: Path, name: str) -> None:
    network = ClassifierFeatures((1, 6, 6), 3, width=2, dim=4)
    network.get_buffer(name).fill_(-1)
    with pytest.raises(CheckpointError, match="not above 0"):
        ClassifierFeatures.load(network.save(tmp_path))


MOMENTS: dict[str, dict[str, Any]] = {
    "n in words": {"n": "many"}, "n of 0": {"n": "0"}, "n of 5,000 digits": {"n": "9" * 5000},
    "trace NaN": {"trace": "nan"}, "trace of another": {"trace": "9"}, "no name": {"features": None},
    "mean NaN": {"mean": torch.full((3,), math.nan)}, "mean of two axes": {"mean": torch.zeros(3, 1)},
    "root of another": {"root": torch.eye(4)}, "no root": {"root": None},
}  # fmt: skip


@pytest.mark.parametrize("change", MOMENTS.values(), ids=MOMENTS)
def test_moments(tmp_path: Path, change: dict[str, Any]) -> None:
    content: dict[str, Any] = {"mean": torch.zeros(3), "root": torch.eye(3), "n": "9", "trace": "3", "features": "x"}
    content = {k: v for k, v in (content | change).items() if v is not None}
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    file = tmp_path / "moments.safetensors"
    file.write_bytes(save(tensors, {k: v for k, v in content.items() if isinstance(v, str)}))
    with pytest.raises(CheckpointError, match="holds no feature moments"):
        FrechetReference.load(file)


# --- checkpoints ------------------------------------------------------------------------------------------------------

IMAGES = torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(1))
PLAN = TrainPreset(steps=3, batch=20)


def trained(folder: Path) -> None:
    torch.manual_seed(0)
    train(LocalDenoiser((1, 6, 6), 1, width=8), IMAGES, PLAN, out=folder, progress=False)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    trained(folder)
    return folder


HISTORY = '[{"step": 3, "train_loss": 1.0, "val_loss": 1.0}]'
CHECKPOINTS: dict[str, tuple[dict[str, Any], str]] = {
    "no step": ({"step": None}, "lacks step"),
    "no identity": ({"identity": None}, "lacks identity"),
    "no format": ({"format": None}, "format"),
    "identity of nobody": ({"identity": "{}"}, "belongs to another training"),
    "identity nested": ({"identity": "[" * 100_000}, "belongs to another training"),
    "step in words": ({"step": "three"}, "step"),
    "step below 0": ({"step": "-1", "since": "-2"}, "cannot be"),
    "step of 5,000 digits": ({"step": "9" * 5000}, "digits"),
    "step beyond the last": ({"step": "4"}, "of step 4 of 3"),
    "since after": ({"since": "9"}, "cannot be"),
    "endless": ({"seconds": "1e999"}, "finite"),
    "history of nothing": ({"history": "{}"}, "history"),
    "history nested": ({"history": "[" * 100_000}, "nested"),
    "history without a step": ({"history": '[{"val_loss": 1}]'}, "history"),
    "history of words": ({"history": HISTORY.replace("1.0", '"low"')}, "history"),
    "no losses": ({"running": None}, "without its losses"),
    "weights of another": ({"model.head.weight": torch.zeros(2)}, "head"),
    "no average": ({"average.n_averaged": None}, "n_averaged"),
    "NaN": ({"average.module.head.bias": torch.full((1,), math.nan)}, "NaN"),
    "std of 0": ({"model.data_std": torch.zeros(1, 1, 1, 1)}, "data_std"),
    "optimiser of another": ({"optimiser.0.exp_avg": torch.zeros(2)}, "another network"),
    "optimiser of nobody": ({"optimiser.999.step": torch.zeros(())}, "another network"),
    "optimiser in parts": ({"optimiser.0.exp_avg": None}, "lacks a part"),
}


@pytest.mark.parametrize(("change", "message"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_checkpoints(training: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    from safetensors import safe_open

    with safe_open(str(training / "checkpoint.safetensors"), "pt") as handle:
        content = dict(handle.metadata()) | {k: handle.get_tensor(k).clone() for k in handle.keys()}  # noqa: SIM118
    content = {k: v for k, v in (content | change).items() if v is not None}
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(save(tensors, {k: v for k, v in content.items() if isinstance(v, str)}))
    with pytest.raises(CheckpointError, match=rf"checkpoint\.safetensors.*{message}"):
        trained(tmp_path)


# --- stores of CMI maps -----------------------------------------------------------------------------------------------

CELL = {"t": 0.5, "r": 1, "estimate": {"value": 0.1, "stderr": 0.01, "n": 60, "unit": "nats", "seed": 0}}


def estimate_of(**change: Any) -> list[Any]:
    return [{**CELL, "estimate": {**CELL["estimate"], **change}}]  # type: ignore[dict-item]


CELLS: dict[str, Any] = {
    "a number": 3, "an object": {}, "rows of numbers": [1], "rows of nothing": [{}],
    "another time": [{**CELL, "t": 0.7}], "another radius": [{**CELL, "r": 5}],
    "a radius in words": [{**CELL, "r": "1"}], "no estimate": [{"t": 0.5, "r": 1}],
    "an estimate of nothing": [{**CELL, "estimate": []}], "no value": estimate_of(value=None),
    "an infinite value": estimate_of(value="inf"), "an error below 0": estimate_of(stderr=-1),
    "an error of NaN": estimate_of(stderr=None), "of no images": estimate_of(n=0), "a unit": estimate_of(unit=3),
}  # fmt: skip


def measured(folder: Path, **options: Any) -> CMIMap:
    return cmi_map(IMAGES, [1], [0.5], folder=folder, accuracy=9.0, **options)


@pytest.mark.parametrize("content", CELLS.values(), ids=CELLS)
def test_cells(tmp_path: Path, content: Any) -> None:
    before = measured(tmp_path, estimator="gaussian")
    (file,) = tmp_path.glob("*/cells.json")
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"cells\.json holds no cells of this map .*; delete it: its cells are"):
        measured(tmp_path, estimator="gaussian")
    file.unlink()
    assert measured(tmp_path, estimator="gaussian").value.tolist() == before.value.tolist()


def test_folds(tmp_path: Path) -> None:
    options: dict[str, Any] = {"estimator": "density", "steps": 1, "folds": 2, "draws": 1, "width": 8}
    before = measured(tmp_path, **options)
    for file in tmp_path.glob("*/cells.json"):
        file.unlink()
    file = min(tmp_path.glob("*/fold-*.safetensors"))
    good = {k: v.clone() for k, v in load_file(file).items()}
    for change in (
        {"scores": good["scores"][1:].clone()}, {"scores": good["scores"] * math.nan}, {"doubt": good["doubt"] - 9},
        {"doubt": good["doubt"].long()}, {"more": torch.zeros(1)},
    ):  # fmt: skip
        save_file(good | change, file)
        with pytest.raises(CheckpointError, match=r"fold-0\.safetensors.*delete it: that fold is then fitted again"):
            measured(tmp_path, **options)
    file.write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"fold-0\.safetensors"):
        measured(tmp_path, **options)
    file.unlink()
    assert measured(tmp_path, **options).value.tolist() == before.value.tolist()


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["[]", "3", "null", '{"times": [1.0]}', '{"times": [], "assignment": []}', "[" * 9999]
)
def test_a_schedule_of_the_wrong_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(PhasewiseError, match=r"x\.json"):
        HybridSchedule.load(tmp_path / "x.json")


RECORDS = [
    ("info", ("members",), True), ("info", ("members",), [{}]), ("info", ("members",), [3]), ("info", ("config",), 3),
    ("info", ("config", "size"), ["cpu"]), ("info", ("config", "train"), "long"),
    ("prices", ("growth",), [[1]]), ("prices", ("flops",), None), ("prices", ("losses",), []),
    ("losses", ("reference",), "nobody"), ("losses", ("control",), 3), ("losses", ("names",), ["a"]),
    ("losses", ("path",), 3), ("losses", ("n",), True), ("losses", ("log_snr",), [0.0]),
    ("fronts", ("frechet", "assignments"), [[]]), ("fronts", ("frechet", "chosen"), 10**6),
    ("fronts", ("frechet", "mflop"), [1.0] * 99), ("schedules", ("hybrid",), 3), ("schedules", ("hybrid", "times"), {}),
    ("evaluations", ("evaluations",), 3), ("evaluations", ("evaluations",), [3]), ("evaluations", ("real",), 3),
    ("evaluations", ("classifier",), [1]), ("recovery", ("times",), [[0.5]]), ("data", ("image_shape",), [1]),
    ("data", ("sizes",), {"train": "many"}), ("explanations", ("hybrid",), 3), ("gap", ("path_kl",), {"r1": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("item", "names", "value"), RECORDS, ids=id_of)
def test_records_of_a_run(smoke_run: Path, tmp_path: Path, item: str, names: tuple[str, ...], value: Any) -> None:
    """Named, with the command that makes it anew."""
    source = Run(smoke_run).path(item)
    file = tmp_path / source.relative_to(smoke_run)
    file.parent.mkdir(exist_ok=True)
    shutil.copy(source, file)
    changed(file, *names, to=value)
    run = Run(tmp_path)
    with pytest.raises(RunFolderError, match=rf"{file.name}.*(run `phasewise|--out)"):
        _ = (run.members, run.config) if item == "info" else (getattr(run, item), run.real, run.classifier)
