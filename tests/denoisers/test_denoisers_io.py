"""Denoisers on disk: what is read is bit for bit what was written, and what cannot be read says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from receptive_field import randomise
from safetensors.torch import save_file
from torch import Tensor

from phasewise.denoisers import (
    Denoiser,
    DiTDenoiser,
    HybridDenoiser,
    LocalDenoiser,
    NetworkDenoiser,
    OnPath,
    PixelDenoiser,
    PlanDenoiser,
    PooledDenoiser,
    PublishedLocal,
    PublishedUNet,
    ReusedAnswer,
    UNetDenoiser,
    WienerDenoiser,
    load_denoiser,
    save_denoiser,
)
from phasewise.denoisers.io import CLASSES, HALVED, load_weights
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.paths import CosinePath, VarianceExplodingPath
from phasewise.results import HybridSchedule

SHAPE = (2, 9, 8)


def noise(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


def network(denoiser: NetworkDenoiser) -> NetworkDenoiser:
    """With random weights and moments that are not the defaults."""
    denoiser.fit_moments(noise(20, *denoiser.image_shape) * 0.3 + 0.7)
    return randomise(denoiser, std=0.1)  # type: ignore[return-value]


def hybrid() -> HybridDenoiser:
    """Members on two paths, one of them named twice, one not at all."""
    members = {
        "r2": network(LocalDenoiser(SHAPE, 2)),
        "linear": WienerDenoiser.fit(noise(30, *SHAPE) * 0.3 + 0.7, 1, path=CosinePath()),
        "idle": WienerDenoiser(SHAPE),
    }
    return HybridDenoiser(members, HybridSchedule((1.0, 0.6, 0.3), ("linear", "r2", "linear"), penalty=0.5, mflop=1.5))


def plan() -> NetworkDenoiser:
    """Of parts on two paths, one with a window: all lie in one file."""
    planner = DiTDenoiser((2, 2, 4), width=8, depth=1, heads=1, window=1)
    return network(PlanDenoiser(planner, LocalDenoiser((2, 4, 8), 1, context=2, path=CosinePath()), 2, weight=0.5))


BUILD: dict[str, Callable[[], Denoiser]] = {
    "local": lambda: network(LocalDenoiser(SHAPE, 3, block=2, width=16, depth=1, expansion=0.5, position=False)),
    "local-position": lambda: network(LocalDenoiser(SHAPE, 2, path=VarianceExplodingPath(0.1, 5.0))),
    "unet": lambda: network(UNetDenoiser(SHAPE, width=8, multipliers=(1, 3), blocks=2, patch=2, heads=2)),
    "transformer": lambda: network(DiTDenoiser(SHAPE, width=8, depth=1, heads=1, window=2, positions="rotary")),
    "published-strict": lambda: network(PublishedLocal(SHAPE, 3)),
    "published-leaky": lambda: network(PublishedLocal(SHAPE, 2, norm="leaky", path=CosinePath())),
    "published-unet": lambda: network(PublishedUNet(SHAPE)),
    "wiener": lambda: WienerDenoiser.fit(noise(30, *SHAPE), path=CosinePath()),
    "wiener-window": lambda: WienerDenoiser.fit(noise(30, *SHAPE), 2),
    "wiener-low-rank": lambda: WienerDenoiser.fit(noise(30, *SHAPE), rank=5),
    "pixel": lambda: PixelDenoiser.fit(noise(30, *SHAPE), CosinePath()),
    "reused-answer": lambda: ReusedAnswer(SHAPE, 2, variable="log_snr", quantity="v", clamp=(0.0, 1.0)),
    "pooled": lambda: PooledDenoiser(WienerDenoiser.fit(noise(30, 2, 3, 2)), (2, 9, 6), 3).fit(noise(30, 2, 9, 6)),
    "plan": plan,
    "hybrid": hybrid,
}


def saved(folder: Path) -> Path:
    return save_denoiser(network(LocalDenoiser(SHAPE, 2)), folder)


def change_config(folder: Path, **changes: Any) -> None:
    """Overwrite entries of config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


# --- there and back -------------------------------------------------------------------------------------------------


def test_every_class_that_can_be_read_is_tried() -> None:
    kinds = {type(build()).__name__ for build in BUILD.values()}
    # bridges make theirs known once they are imported, and try them in tests of their own
    ours = {name for name, cls in CLASSES.items() if cls.__module__.startswith("phasewise.denoisers.")}
    assert kinds == {*ours, "HybridDenoiser"}


@pytest.mark.parametrize("name", BUILD)
def test_what_is_read_is_bit_for_bit_what_was_written(name: str, tmp_path: Path) -> None:
    denoiser = BUILD[name]().eval()
    folder = save_denoiser(denoiser, tmp_path / "a" / "b")
    torch.manual_seed(99)
    again = load_denoiser(folder)
    assert type(again) is type(denoiser)
    assert not again.training
    assert again.path == denoiser.path
    assert (again.radius, again.image_shape) == (denoiser.radius, denoiser.image_shape)
    before, after = denoiser.state_dict(), again.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[k], after[k]) for k in before)
    if denoiser.reused_members():  # answers within a sampler alone
        assert again.config() == denoiser.config()
        return
    x_t, times = noise(3, *denoiser.image_shape), torch.tensor([0.1, 0.5, 0.9])
    with torch.inference_mode():
        assert torch.equal(again(x_t, times), denoiser(x_t, times))
        assert torch.equal(again(x_t, 0.4), denoiser(x_t, 0.4))


def test_a_local_network_saved_before_norms_and_mixing_could_be_chosen_is_read_as_it_was(tmp_path: Path) -> None:
    before = randomise(LocalDenoiser((1, 28, 28), 12, norm=True, mixing=0))
    save_denoiser(before, tmp_path)  # type: ignore[arg-type]
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    del config["config"]["norm"], config["config"]["mixing"]
    file.write_text(json.dumps(config))
    x = noise(2, 1, 28, 28)
    assert torch.equal(load_denoiser(tmp_path)(x, 0.4), before(x, 0.4))


def test_half_precision_halves_the_file_and_is_read_back_as_float32(tmp_path: Path) -> None:
    denoiser = network(UNetDenoiser(SHAPE, width=16))
    sizes = [
        (save_denoiser(denoiser, tmp_path / str(half), half=half) / "weights.safetensors").stat().st_size
        for half in (False, True)
    ]
    assert sizes[1] < 0.6 * sizes[0]
    for key, value in load_denoiser(tmp_path / "True").state_dict().items():
        before = denoiser.state_dict()[key]
        assert value.dtype == before.dtype
        if value.numel() < HALVED:
            assert torch.equal(value, before)
        else:
            assert torch.allclose(value, before, rtol=1e-3, atol=1e-6)


def test_a_hybrid_keeps_its_schedule_and_the_paths_of_its_members(tmp_path: Path) -> None:
    original = hybrid()
    again = load_denoiser(save_denoiser(original, tmp_path))
    assert isinstance(again, HybridDenoiser)
    assert again.schedule == original.schedule
    assert isinstance(again.members["linear"], OnPath)
    assert isinstance(again.members["linear"].member, WienerDenoiser)
    assert again.members["linear"].member.path == CosinePath()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "linear", "r2"]


def test_only_plain_files_are_written_and_saving_again_replaces_them(tmp_path: Path) -> None:
    saved(tmp_path)
    second = network(LocalDenoiser(SHAPE, 4))
    save_denoiser(second, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "weights.safetensors"]
    assert load_denoiser(str(tmp_path)).radius == 4


def test_a_denoiser_without_a_config_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PhasewiseError, match="OnPath cannot be saved"):
        save_denoiser(OnPath(WienerDenoiser(SHAPE), CosinePath()), tmp_path / "x")
    assert not (tmp_path / "x").exists()


# --- what cannot be read --------------------------------------------------------------------------------------------


def test_a_folder_without_config_holds_no_denoiser(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match=r"holds no denoiser \(no config\.json\)"):
            load_denoiser(folder)


@pytest.mark.parametrize("damage", ["half", "empty", "text", "flipped header"])
def test_damaged_weights_are_named_with_the_mend(tmp_path: Path, damage: str) -> None:
    path = saved(tmp_path) / "weights.safetensors"
    content = path.read_bytes()
    path.write_bytes(
        {
            "half": content[: len(content) // 2],
            "empty": b"",
            "text": b"not tensors at all, but long enough to look like a header",
            "flipped header": content[:8] + b"?" + content[9:],
        }[damage]
    )
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is corrupt .*; delete it and train again"):
        load_denoiser(tmp_path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    (saved(tmp_path) / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*weights\.safetensors: No such file"):
        load_denoiser(tmp_path)


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_another_format_version_is_refused(tmp_path: Path, version: object) -> None:
    change_config(saved(tmp_path), format=version)
    with pytest.raises(CheckpointError, match=r"has denoiser format .*; this phasewise reads 1"):
        load_denoiser(tmp_path)


def test_a_config_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (saved(tmp_path) / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="has denoiser format None"):
        load_denoiser(tmp_path)


def test_a_config_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (saved(tmp_path) / "config.json").write_text('{"format": 1')
    with pytest.raises(PhasewiseError, match=r"config\.json is not valid JSON"):
        load_denoiser(tmp_path)


def test_an_unknown_class_is_refused_by_name(tmp_path: Path) -> None:
    change_config(saved(tmp_path), **{"class": "os.system"})
    with pytest.raises(CheckpointError, match=r"unknown denoiser class 'os\.system'; known: LocalDenoiser"):
        load_denoiser(tmp_path)


@pytest.mark.parametrize("changes", [{"class": None}, {"config": None}, {"config": [1]}, {"class": "HybridDenoiser"}])
def test_an_incomplete_config_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    change_config(saved(tmp_path), **changes)
    with pytest.raises(CheckpointError, match=r"config\.json is incomplete"):
        load_denoiser(tmp_path)


def test_weights_of_another_shape_name_the_tensor(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    save_denoiser(network(LocalDenoiser((2, 9, 9), 3)), tmp_path / "b")
    (tmp_path / "b" / "weights.safetensors").replace(tmp_path / "a" / "weights.safetensors")
    with pytest.raises(
        CheckpointError, match=r"places has shape \(81, 32\), this LocalDenoiser needs \(72, 32\); it was trained for"
    ):
        load_denoiser(tmp_path / "a")


def test_weights_of_another_class_name_what_is_missing(tmp_path: Path) -> None:
    saved(tmp_path)
    save_file({"mean": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"not for this LocalDenoiser: missing \['blocks.*unexpected \['mean'\]"):
        load_denoiser(tmp_path)


def test_a_hybrid_with_a_missing_member_says_which_folder(tmp_path: Path) -> None:
    save_denoiser(hybrid(), tmp_path)
    (tmp_path / "r2" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="r2 holds no denoiser"):
        load_denoiser(tmp_path)


def test_a_refused_file_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    denoiser = network(LocalDenoiser(SHAPE, 2))
    before = {k: v.clone() for k, v in denoiser.state_dict().items()}
    wrong = {k: v + 1 for k, v in before.items()}
    wrong["places"] = torch.zeros(3, 32)
    save_file(wrong, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="places"):
        load_weights(denoiser, tmp_path / "w.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in denoiser.state_dict().items())


def test_half_precision_leaves_alone_what_it_cannot_hold(tmp_path: Path) -> None:
    images = 255 * torch.rand(9, 1, 64, 64, generator=torch.Generator().manual_seed(0)).round()
    denoiser = WienerDenoiser((1, 64, 64))
    denoiser.eigenvalues.fill_(255.0**2)  # above float16's largest; an eigenvalue of a fit is larger still
    x = images[:2]
    save_denoiser(denoiser, tmp_path / "wiener", half=True)
    back = load_denoiser(tmp_path / "wiener")
    assert torch.allclose(back(x, 0.5), denoiser(x, 0.5), rtol=1e-2)
