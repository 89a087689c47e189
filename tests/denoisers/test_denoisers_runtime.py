"""Compiled, lowered and exported networks give what the original gives, in a sampler and in a hybrid too."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from receptive_field import randomise
from torch import Tensor

from phasewise.denoisers import (
    Denoiser,
    HybridDenoiser,
    LocalDenoiser,
    OnnxDenoiser,
    UNetDenoiser,
    WienerDenoiser,
    export_onnx,
    for_inference,
    runtime,
)
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.metrics import count_flops
from phasewise.paths import CosinePath
from phasewise.results import HybridSchedule
from phasewise.sampling import sample

SHAPE = (1, 12, 10)


def made(kind: str) -> Denoiser:
    path = CosinePath()
    nets = {
        "local": lambda: LocalDenoiser(SHAPE, 3, block=2, path=path),
        "mixing": lambda: LocalDenoiser(SHAPE, 6, block=2, mixing=2, norm=False, path=path),
        "global": lambda: UNetDenoiser(SHAPE, width=16, path=path),
    }
    return randomise(nets[kind]())  # type: ignore[return-value]


def noisy(n: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, *SHAPE, generator=generator), torch.rand(n, generator=generator)


def both() -> HybridDenoiser:
    schedule = HybridSchedule(
        times=(1.0, 0.5, 0.2), assignment=("global", "local", "local"), solver="euler", path=CosinePath().config()
    )
    return HybridDenoiser({"global": made("global"), "local": made("local")}, schedule)


@pytest.mark.parametrize("kind", ["local", "mixing", "global"])
def test_bfloat16_rounds_and_shares_the_weights(kind: str) -> None:
    denoiser, (x, t) = made(kind), noisy()
    with torch.no_grad():
        exact, low = denoiser(x, t), for_inference(denoiser, precision="bfloat16")(x, t)
        assert low.dtype == exact.dtype
        far = float((low - exact).abs().max() / exact.abs().max())
        assert 0 < far < 0.03
        assert torch.equal(denoiser(x, t), exact)  # the original is left as it was
        next(denoiser.parameters()).mul_(1.5)
        assert not torch.equal(for_inference(denoiser, precision="bfloat16")(x, t), low)


@pytest.mark.parametrize("t", [0.4, torch.tensor([0.4]), torch.full((40,), 0.4)])
def test_one_time_for_all_is_a_shortcut_and_nothing_else(t: float | Tensor) -> None:
    x = torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(1))
    for kind in ("local", "mixing"):
        denoiser = made(kind)
        with torch.no_grad():
            fast = denoiser(x, t)
        torch.testing.assert_close(fast, denoiser(x, t).detach(), atol=1e-5, rtol=1e-5)


def test_a_compiled_network_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, (x, t) = made("mixing"), noisy()
    monkeypatch.setattr(torch, "compile", lambda f: torch._dynamo.optimize("eager")(f))  # the tracing, not the compiler
    fast = for_inference(denoiser, compile=True)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x, t), denoiser(x, t), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(fast(x, 0.3), denoiser(x, 0.3), atol=1e-5, rtol=1e-5)


def test_a_copy_of_a_faster_network_has_its_own_weights_and_a_second_choice_adds_to_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda f: f)
    denoiser, (x, t) = made("local"), noisy()
    fast = for_inference(for_inference(denoiser, precision="bfloat16"), compile=True)
    with torch.inference_mode():
        low = fast(x, t)
        assert not torch.equal(low, denoiser(x, t))
        twin = copy.deepcopy(fast)
        assert torch.equal(twin(x, t), low)
        for weight in twin.parameters():
            weight.zero_()
        assert not torch.equal(twin(x, t), low)
        assert torch.equal(fast(x, t), low)


def test_integer_images_are_refused() -> None:
    with pytest.raises(PhasewiseError, match=r"images are torch.uint8; convert them to float"):
        made("local")(torch.zeros(2, *SHAPE, dtype=torch.uint8), 0.5)


def test_a_hybrid_is_accelerated_member_by_member() -> None:
    fast = for_inference(both(), precision="bfloat16")
    assert isinstance(fast, HybridDenoiser)
    exact, low = sample(both(), 4), sample(fast, 4)
    assert 0 < float((low - exact).abs().max() / exact.abs().max()) < 0.1


def test_what_is_no_network_is_left_alone() -> None:
    wiener = WienerDenoiser.fit(torch.rand(50, *SHAPE, generator=torch.Generator().manual_seed(0)))
    assert for_inference(wiener, compile=True, precision="bfloat16") is wiener
    denoiser = made("local")
    assert for_inference(denoiser) is denoiser


def test_what_cannot_be_accelerated_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PhasewiseError, match="unknown precision 'float8'; known: float32, bfloat16"):
        for_inference(made("local"), precision="float8")
    monkeypatch.setattr(runtime, "compilers", lambda: ["no-such-compiler"])
    with pytest.raises(PhasewiseError, match=r"needs a C\+\+ compiler"):
        for_inference(made("local"), compile=True)


# --- ONNX -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["local", "mixing", "global"])
def test_an_exported_network_gives_the_same_at_any_batch_size(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("onnxruntime")
    denoiser = made(kind)
    exported = OnnxDenoiser(export_onnx(denoiser, tmp_path / "net.onnx"), threads=1)
    assert (exported.image_shape, exported.radius, exported.path) == (SHAPE, denoiser.radius, denoiser.path)
    for n in (1, 2, 5, 40):
        x, t = noisy(n)
        with torch.no_grad():
            torch.testing.assert_close(exported(x, t), denoiser(x, t), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(exported(x, 0.5), denoiser(x, 0.5), atol=1e-4, rtol=1e-4)


def test_an_exported_network_takes_part_in_a_hybrid(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    hybrid = both()
    files = {name: export_onnx(member, tmp_path / f"{name}.onnx") for name, member in hybrid.members.items()}
    exported = HybridDenoiser({name: OnnxDenoiser(file) for name, file in files.items()}, hybrid.schedule)
    torch.testing.assert_close(sample(exported, 3), sample(hybrid, 3), atol=1e-3, rtol=1e-3)
    for name, member in hybrid.members.items():  # it cannot be looked into: the count was made at the export
        assert count_flops(exported.members[name], SHAPE, batch=2) == count_flops(member, SHAPE) > 0
    old = exported.members[hybrid.names[0]]
    assert isinstance(old, OnnxDenoiser)
    old.about = dataclasses.replace(old.about, flops=None)
    with pytest.raises(PhasewiseError, match=r"\.onnx does not say what a call costs; export the network again"):
        count_flops(old, SHAPE)


def test_an_exported_network_knows_its_pixels(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    denoiser = LocalDenoiser(SHAPE, 2)
    assert OnnxDenoiser(export_onnx(denoiser, tmp_path / "raw.onnx")).pixel_moments() is None
    denoiser.fit_moments(torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0)))
    moments = OnnxDenoiser(export_onnx(denoiser, tmp_path / "net.onnx")).pixel_moments()
    for found, expected in zip(moments or (), denoiser.pixel_moments() or (), strict=True):
        torch.testing.assert_close(found, expected)


def test_what_cannot_be_exported_or_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(PhasewiseError, match="HybridDenoiser is no single network"):
        export_onnx(both(), tmp_path / "net.onnx")
    pytest.importorskip("onnxruntime")
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"bad\.onnx is no network exported by phasewise"):
        OnnxDenoiser(tmp_path / "bad.onnx")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(PhasewiseError, match=r"needs the package onnxruntime: .*phasewise\[onnx\]"):
        OnnxDenoiser(tmp_path / "net.onnx")
