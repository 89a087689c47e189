"""Networks of diffusers as denoisers: its noise, its posterior means, its images, its folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import phasewise as pw
from phasewise.errors import PhasewiseError

diffusers = pytest.importorskip("diffusers")

from phasewise.bridges.diffusers import from_diffusers, is_pipeline, noise_of, read_folder, times_of  # noqa: E402
from phasewise.paths import LinearPath, TablePath, VarianceExplodingPath  # noqa: E402
from studies.guests.study import agreement, schedulers  # noqa: E402

SHAPE = (1, 8, 8)
CASES = schedulers()


@pytest.mark.parametrize("name", CASES)
def test_noise_means_and_images_are_those_of_diffusers(name: str, tiny_unet: Any) -> None:
    scheduler, solver, whole = CASES[name]
    found = agreement(from_diffusers(tiny_unet, scheduler, whole_times=whole, clamp=False), solver)
    assert {k: v for k, v in found.items() if v is not None and not v < 1e-4} == {}


@pytest.mark.parametrize(
    "name",
    ["DDPMScheduler", "PNDMScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler",
     "EulerAncestralDiscreteScheduler", "DEISMultistepScheduler", "DPMSolverSinglestepScheduler", "LCMScheduler"],
)  # fmt: skip
def test_every_scheduler_with_a_table_is_read(name: str) -> None:
    scheduler = getattr(diffusers, name)()
    noise = noise_of(scheduler)
    assert isinstance(noise.path, TablePath)
    k = torch.arange(1000)
    torch.testing.assert_close(noise.path.alpha((k + 1) / 1000), scheduler.alphas_cumprod.sqrt().float())
    times = times_of(scheduler, 8)
    assert all(0 < b < a <= 1 for a, b in zip(times, times[1:], strict=False))


def test_the_clock_goes_both_ways() -> None:
    noise = noise_of(diffusers.DDPMScheduler())
    assert [noise.clock.timestep_of_time((k + 1) / 1000) for k in (0, 7, 999)] == [0, 7, 999]
    assert noise.clock.time_of_timestep(499) == 0.5
    t = 0.3
    assert noise.clock.sigma_of_time(t) == pytest.approx(
        float(noise.path.sigma(torch.tensor(t)) / noise.path.alpha(torch.tensor(t))), rel=1e-5
    )
    flow = noise_of(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert flow.path == LinearPath()
    assert flow.clock.timestep_of_time(0.25) == 250
    edm = noise_of(diffusers.EDMEulerScheduler())
    assert isinstance(edm.path, VarianceExplodingPath)
    assert edm.clock.time_of_timestep(edm.clock.timestep_of_time(0.4)) == pytest.approx(0.4)


def test_a_shift_moves_the_steps_alone() -> None:
    plain, shifted = (diffusers.FlowMatchEulerDiscreteScheduler(shift=s) for s in (1.0, 3.0))
    assert times_of(plain, 4) != times_of(shifted, 4)
    assert noise_of(plain).path == noise_of(shifted).path
    moved = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    assert len(times_of(moved, 4, mu=0.8)) == 4
    with pytest.raises(PhasewiseError, match="mu"):
        times_of(moved, 4)


def test_a_class_goes_to_the_network(tiny_transformer: Any) -> None:
    model = from_diffusers(tiny_transformer, diffusers.FlowMatchEulerDiscreteScheduler())
    assert model.takes_condition
    assert model.cond_name == "class_labels"
    x = torch.randn(3, *SHAPE)
    labels = torch.tensor([1, 2, 3])
    with torch.no_grad():
        said = tiny_transformer(x, torch.full((3,), 500.0), class_labels=labels).sample
    torch.testing.assert_close(model(x, 0.5, labels), x - 0.5 * said)
    assert pw.sample(model, n=2, steps=2, cond=1).shape == (2, *SHAPE)
    with pytest.raises(PhasewiseError, match="needs a condition"):
        model(x, 0.5)
    with pytest.raises(PhasewiseError, match="0 to 1000"):
        model.given(1001)


def test_a_prompt_goes_to_the_network() -> None:
    net = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 8), layers_per_block=1,
        norm_num_groups=4, cross_attention_dim=6, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip
    model = from_diffusers(net, diffusers.DDIMScheduler())
    assert (model.cond_name, model.image_shape) == ("encoder_hidden_states", (4, 8, 8))
    prompt = torch.randn(1, 3, 6)
    assert model.given(prompt)(torch.randn(2, 4, 8, 8), 0.5).shape == (2, 4, 8, 8)
    fixed = from_diffusers(net, diffusers.DDIMScheduler(), given={"encoder_hidden_states": prompt.expand(2, -1, -1)})
    assert not fixed.takes_condition
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(fixed(x, 0.5), model.given(prompt)(x, 0.5))
    with pytest.raises(PhasewiseError, match="a file does not hold"):
        fixed.config()


def test_clipped_samples_stay_in_bounds(tiny_unet: Any) -> None:
    scheduler = diffusers.DDPMScheduler(clip_sample=True, clip_sample_range=0.5)
    x = 9 * torch.randn(2, *SHAPE)
    tiny_unet = tiny_unet.requires_grad_(False)
    assert float(from_diffusers(tiny_unet, scheduler)(x, 0.9).abs().max()) == 0.5
    assert float(from_diffusers(tiny_unet, scheduler, clamp=False)(x, 0.9).abs().max()) > 0.5


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_a_folder_is_read_and_kept_like_any_denoiser(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    assert is_pipeline(folders[kind])
    model = read_folder(folders[kind])
    pw.save_denoiser(model, tmp_path / "kept")
    again = pw.load_denoiser(tmp_path / "kept")
    x, cond = torch.randn(2, *SHAPE), torch.tensor([3, 4]) if model.takes_condition else None
    assert torch.equal(again(x, 0.4, cond), model(x, 0.4, cond))
    assert again.path == model.path
    alone = read_folder(folders[kind] / kind)  # the network's own folder, its scheduler beside it
    assert torch.equal(alone(x, 0.4, cond), model(x, 0.4, cond))


def test_a_network_that_looks_its_time_up_is_told_whole_steps() -> None:
    net = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, time_embedding_type="learned",
        num_train_timesteps=100,
    ).eval()  # fmt: skip
    model = from_diffusers(net, diffusers.DDPMScheduler(num_train_timesteps=100))
    assert not model.fractional
    assert torch.isfinite(model(torch.zeros(1, *SHAPE), 0.5049)).all()
    with pytest.raises(PhasewiseError, match="made for 100 steps, DDPMScheduler has 1000"):
        from_diffusers(net, diffusers.DDPMScheduler())


def test_a_network_that_takes_sigma_is_no_network_of_steps() -> None:
    net = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, time_embedding_type="fourier",
    )  # fmt: skip
    for scheduler in (diffusers.DDPMScheduler(), diffusers.EDMEulerScheduler()):
        with pytest.raises(PhasewiseError, match="takes sigma itself"):
            from_diffusers(net, scheduler)


class Elsewhere(nn.Module):
    def forward(self, image: Any, noise_level: Any) -> Any:
        return image


def broken(folder: Path, to: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(folder, to)
    change(to)
    return to


def rewrite(file: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**found, **values}))

    return change


def old_weights(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


FOLDERS: list[tuple[str, Callable[[Path], None], str]] = [
    ("pickle", old_weights, "as a pickle only"),
    (
        "cut",
        lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"1234"),
        "diffusers cannot read",
    ),
    ("code", rewrite("unet/config.json", auto_map={"AutoModel": "own.py"}), "asks for code of its own"),
    ("class", rewrite("unet/config.json", _class_name="os.system"), "no network 'os.system'"),
    ("foreign", rewrite("model_index.json", unet=["own_code", "Net"]), "Net of own_code, no class of diffusers"),
    ("none", rewrite("model_index.json", unet=[None, None]), "no network that denoises"),
    ("two", rewrite("model_index.json", transformer=["diffusers", "DiT"]), "several networks"),
    ("scheduler", rewrite("scheduler/scheduler_config.json", prediction_type="guess"), "prediction_type 'guess'"),
    ("json", lambda f: (f / "model_index.json").write_text("[]"), "no JSON object"),
]


@pytest.mark.parametrize(("name", "change", "message"), FOLDERS, ids=[f[0] for f in FOLDERS])
def test_a_folder_that_is_none_is_named(
    name: str, change: Callable[[Path], None], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(PhasewiseError, match=message):
        read_folder(broken(folders["unet"], tmp_path / name, change))


CALLS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda net: from_diffusers(net, "ddpm"), "must be one of diffusers"),
    (lambda net: from_diffusers(lambda x: x, diffusers.DDPMScheduler()), "must be a network of diffusers"),
    (lambda net: from_diffusers(Elsewhere(), diffusers.DDPMScheduler()), "wrap this one by pw.wrap"),
    (lambda net: from_diffusers(net, diffusers.DDPMScheduler(), image_shape=(4, 8, 8)), "encode the images first"),
    (lambda net: from_diffusers(net, diffusers.DDPMScheduler(), cond="label"), "no argument 'label'"),
    (lambda net: from_diffusers(net, diffusers.DDPMScheduler(prediction_type="noise")), "prediction_type 'noise'"),
    (lambda net: from_diffusers(net, diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)), "backwards"),
    (lambda net: from_diffusers(net, diffusers.VQDiffusionScheduler(num_vec_classes=4)), "neither a table"),
    (lambda net: from_diffusers(net, diffusers.DDPMScheduler())(torch.zeros(1, 3, 8, 8), 0.5), "encode the images"),
    (lambda net: read_folder("nowhere"), "no folder"),
]


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[m for _, m in CALLS])
def test_bad_input_is_named(call: Callable[[Any], Any], message: str, tiny_unet: Any) -> None:
    with pytest.raises(PhasewiseError, match=message):
        call(tiny_unet)


def test_half_precision_on_a_cpu_is_refused(tiny_unet: Any) -> None:
    import copy

    half = from_diffusers(copy.deepcopy(tiny_unet).half(), diffusers.DDPMScheduler())
    with pytest.raises(PhasewiseError, match="half precision"):
        half(torch.zeros(1, *SHAPE), 0.5)


def test_phasewise_loads_without_diffusers() -> None:
    import subprocess
    import sys

    code = "import sys, phasewise as pw; pw.wrap, pw.load_denoiser; print('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
