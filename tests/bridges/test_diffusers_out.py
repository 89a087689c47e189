"""Hybrids taken home: diffusers' pipelines and schedulers run them unchanged, and draw what we draw."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

import phasewise as pw
from phasewise.denoisers import Denoiser
from phasewise.errors import CheckpointError, PhasewiseError
from studies.guests.fixtures import MAKERS, NULL, make_schedulers, save_folder

diffusers = pytest.importorskip("diffusers")

from phasewise.bridges import diffusers as bridge  # noqa: E402

SHAPE = (1, 8, 8)
STEPS = 5


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(0)
    return MAKERS["unet"](SHAPE, "tiny").eval()


@pytest.fixture(scope="module")
def transformer() -> Any:
    torch.manual_seed(1)
    net = MAKERS["transformer"](SHAPE, "tiny").eval()
    for weights in net.parameters():  # its last layer begins at zero, where nothing can be told apart
        nn.init.normal_(weights, std=0.1)
    return net


@pytest.fixture(scope="module")
def images() -> Tensor:
    smooth = nn.functional.avg_pool2d(torch.randn(64, 1, 12, 12, generator=torch.Generator().manual_seed(2)), 5, 1)
    return 2 * smooth


@pytest.fixture(scope="module")
def wiener(images: Tensor) -> Denoiser:
    """Knows pixels as the networks do, on another path than theirs."""
    return pw.WienerDenoiser.fit(images, path=pw.CosinePath()).eval()


class Asked(Denoiser):
    """``member`` without its closed form, which no scheduler can ask for: a posterior mean and no more."""

    def __init__(self, member: Denoiser) -> None:
        super().__init__(member.image_shape, member.path)
        self.member = member

    def forward(self, x_t: Tensor, t: Any, cond: Tensor | None = None) -> Tensor:
        return self.member(x_t, t)


class Twice(Denoiser):
    """Round another, as guidance is."""

    def __init__(self, member: Denoiser) -> None:
        super().__init__(SHAPE, member.path)
        self.member = member

    def forward(self, x_t: Tensor, t: Any, cond: Tensor | None = None) -> Tensor:
        return 2 * self.member(x_t, t)


def noise(n: int = 3, seed: int = 5) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def hybrid_of(first: Denoiser, second: Denoiser, times: tuple[float, ...], solver: str = "ddim") -> Any:
    """The first two steps and the last by ``first``, the others by ``second``, on the path of ``first``."""
    who = ["a" if k < 2 or k == len(times) - 1 else "b" for k in range(len(times))]
    schedule = pw.HybridSchedule(times, tuple(who), solver=solver, path=first.path.config())
    return pw.HybridDenoiser({"a": first, "b": second}, schedule).eval()


@torch.no_grad()
def loop(model: Any, scheduler: Any, x: Tensor, steps: int = STEPS, **more: Any) -> Tensor:
    """What every pipeline does, from a start in the network's pixels at the scheduler's first noise level."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        shown = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(model(shown, t, **more).sample, t, x).prev_sample
    return x


# --- the same pixels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", ["plain", "hybrid", "translated"])
def test_one_member_draws_the_pixels_that_the_network_draws(unet: nn.Module, wrapped: str) -> None:
    pipe = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler())
    pipe.set_progress_bar_config(disable=True)

    def draw() -> Any:
        return pipe(2, torch.Generator().manual_seed(7), num_inference_steps=5, output_type="np").images

    before = draw()
    denoiser: Denoiser = bridge.from_diffusers(unet, pipe.scheduler)
    if wrapped == "hybrid":
        times = denoiser.times(5)  # type: ignore[attr-defined]
        denoiser = pw.HybridDenoiser({"a": denoiser}, pw.HybridSchedule(times, ("a",) * 5, path=denoiser.path.config()))
    if wrapped == "translated":
        denoiser = denoiser.on(pw.LinearPath())
    pipe.register_modules(unet=bridge.to_diffusers(denoiser))
    assert isinstance(pipe.unet, diffusers.ModelMixin)
    assert (draw() == before).all()


def test_a_pipeline_with_labels_and_guidance_runs_unchanged(transformer: Any, wiener: Denoiser) -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    config = {k: v for k, v in transformer.config.items() if not k.startswith("_")}
    net = diffusers.DiTTransformer2DModel(**{**config, "out_channels": 1}).eval()  # which this pipeline asks for
    net.load_state_dict(transformer.state_dict())

    torch.manual_seed(3)
    vae = diffusers.AutoencoderKL(1, 1, block_out_channels=(4,), latent_channels=1, norm_num_groups=1).eval()
    pipe = diffusers.DiTPipeline(net, vae, scheduler)
    pipe.set_progress_bar_config(disable=True)

    def draw(scale: float = 3.0) -> Any:
        return pipe([4, 7], scale, torch.Generator().manual_seed(7), num_inference_steps=STEPS, output_type="np").images

    before = draw()
    member = bridge.from_diffusers(net, scheduler, null=NULL)
    pipe.transformer = bridge.to_diffusers(member)
    assert (draw() == before).all()
    times = member.times(STEPS)
    pipe.transformer = bridge.to_diffusers(hybrid_of(member, wiener, times))
    hybrid = draw()
    assert hybrid.shape == before.shape
    assert not (hybrid == before).all()
    # without guidance it is what we draw for these labels
    start = torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(7))
    ours = pw.sample(hybrid_of(member, Asked(wiener), times), x_init=start, t_start=times[0], cond=torch.tensor([4, 7]))
    with torch.no_grad():
        decoded = vae.decode(ours / vae.config.scaling_factor).sample
    theirs = torch.from_numpy(draw(1.0)).permute(0, 3, 1, 2)
    assert torch.allclose((decoded / 2 + 0.5).clamp(0, 1), theirs, atol=1e-4)


def test_a_bound_label_goes_into_a_pipeline_without_labels(transformer: Any) -> None:
    member = bridge.from_diffusers(transformer, diffusers.DDIMScheduler())
    x, k = noise(), torch.tensor(400)
    model = bridge.to_diffusers(member.given(3))
    expected = transformer(x, k[None].expand(3), class_labels=torch.tensor([3, 3, 3])).sample
    assert torch.equal(model(x, k[None].expand(3)).sample, expected)


# --- the same images as ours, for every prediction and scheduler ------------------------------------------------------

PREDICTED = ("epsilon", "sample", "v_prediction")
TABLE = {"DDIMScheduler": "ddim", "EulerDiscreteScheduler": "ddim", "DPMSolverMultistepScheduler": "dpmpp_2m"}
CASES: list[tuple[str, dict[str, Any], str]] = [
    (name, {"prediction_type": kind, **({"clip_sample": False} if name.startswith("DDIM") else {})}, solver)
    for name, solver in TABLE.items()
    for kind in PREDICTED
    if (name, kind) != ("EulerDiscreteScheduler", "sample")  # which that scheduler has not
] + [
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "dpmpp_2m"),
    ("DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "clip_sample": False,
                       "timestep_spacing": "trailing"}, "ddim"),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "ddim"),
    ("EDMEulerScheduler", {"prediction_type": "epsilon"}, "ddim"),
    ("EDMEulerScheduler", {"prediction_type": "v_prediction"}, "ddim"),
    ("EDMDPMSolverMultistepScheduler", {}, "dpmpp_2m"),
]  # fmt: skip


def start_for(scheduler: Any, x: Tensor, t: float, path: Any) -> Tensor:
    """Pure noise at time t on our path, in the units that a scheduler's samples have."""
    ours = copy.deepcopy(scheduler)
    ours.set_timesteps(STEPS)
    at = torch.tensor(t, dtype=torch.float64)
    exploding = type(scheduler).__name__.startswith("Euler")  # there samples are x / alpha
    return x * float(path.sigma(at)) / (float(path.alpha(at)) if exploding else 1.0)


@pytest.mark.parametrize(("name", "config", "solver"), CASES, ids=lambda v: v if isinstance(v, str) else None)
@pytest.mark.parametrize("second", ["wiener", "another"])
def test_their_loop_draws_what_we_draw(
    unet: nn.Module, wiener: Denoiser, name: str, config: dict[str, Any], solver: str, second: str
) -> None:
    scheduler = getattr(diffusers, name)(**config)
    first = bridge.from_diffusers(unet, scheduler, whole_times=bool(config.get("use_karras_sigmas")))
    other: Denoiser = Asked(wiener)
    if second == "another":  # a network of diffusers, on another noise
        other = bridge.from_diffusers(unet, diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"), clamp=False)
    times = first.times(STEPS)
    assert len(times) == STEPS
    hybrid = hybrid_of(first, other, times, solver)
    x = noise()
    start = x * float(first.path.sigma(torch.tensor(times[0], dtype=torch.float64)))
    ours = pw.sample(hybrid, x_init=start, t_start=times[0])
    theirs = loop(bridge.to_diffusers(hybrid), scheduler, start_for(scheduler, x, times[0], first.path))
    size = float(ours.square().mean().sqrt())
    assert float((ours - theirs).abs().max()) < 1e-4 * max(size, 1.0), size


@pytest.mark.parametrize("name", ["DDIMScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_denoisers_without_a_network_of_diffusers_speak_like_a_scheduler(images: Tensor, name: str) -> None:
    """Ours know pixels 0 to 1, pipelines -1 to 1."""
    scheduler = getattr(diffusers, name)(**({"clip_sample": False} if name == "DDIMScheduler" else {}))
    ours = pw.WienerDenoiser.fit((images + 1) / 2)
    model = bridge.to_diffusers(ours, like=scheduler, pixel_range=(-1, 1))
    path = model.interface.path
    times = bridge.times_of(scheduler, STEPS)
    theirs = loop(model, scheduler, noise())
    assert model.config.sample_size == 8
    assert (model.config.in_channels, model.config.out_channels, model.dtype) == (1, 1, torch.float32)
    # the start is that of -1..1: x_t = alpha x + sigma z there is twice that of 0..1, less alpha
    at = torch.tensor(times[0], dtype=torch.float64)
    start = (noise() + float(path.alpha(at))) / 2
    drawn = pw.sample(Asked(ours).on(path), x_init=start, t_start=times[0], times=times, solver="ddim")
    assert torch.allclose(2 * drawn - 1, theirs, atol=1e-4)


# --- times, and forms of a call ---------------------------------------------------------------------------------------


def test_every_form_of_a_time_and_a_call_is_taken(unet: nn.Module, wiener: Denoiser) -> None:
    member = bridge.from_diffusers(unet, diffusers.DDIMScheduler())
    model = bridge.to_diffusers(hybrid_of(member, wiener, member.times(STEPS)))
    x = noise()
    for k in (800, 200):  # one step of each member
        plain = model(x, k).sample
        for time in (torch.tensor(k), torch.tensor([k]), torch.full((3,), k), float(k), torch.tensor([float(k)] * 3)):
            assert torch.allclose(model(x, time).sample, plain, atol=1e-6)
        assert torch.equal(model(sample=x, timestep=k, return_dict=False)[0], plain)
        assert torch.equal(model(hidden_states=x, timestep=k).sample, plain)
        assert torch.equal(model(x, k, None, False)[0], plain)


def test_rows_of_one_batch_may_be_at_times_of_different_members(transformer: Any, wiener: Denoiser) -> None:
    member = bridge.from_diffusers(transformer, diffusers.DDIMScheduler())
    model = bridge.to_diffusers(hybrid_of(member, wiener, member.times(STEPS)))
    x, times, labels = noise(4), torch.tensor([800, 200, 600, 200]), torch.tensor([1, 2, 3, 4])
    together = model(x, times, class_labels=labels).sample
    for row in range(4):
        part = slice(row, row + 1)
        alone = model(x[part], times[part], class_labels=labels[part], return_dict=False)[0]
        assert torch.allclose(together[part], alone, atol=1e-5)


@given(step=st.integers(0, STEPS - 1), kind=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
@hypothesis_settings(max_examples=20, deadline=None)
def test_a_time_told_in_half_precision_finds_its_step(step: int, kind: torch.dtype) -> None:
    class Named(Denoiser):
        def __init__(self, value: float) -> None:
            super().__init__(SHAPE)
            self.value = value

        def forward(self, x_t: Tensor, t: Any, cond: Tensor | None = None) -> Tensor:
            return torch.full_like(x_t, self.value)

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    times = bridge.times_of(scheduler, STEPS)
    members = {str(k): Named(float(k)) for k in range(STEPS)}
    hybrid = pw.HybridDenoiser(members, pw.HybridSchedule(times, tuple(members)))
    model = bridge.to_diffusers(hybrid, like=scheduler)
    told = torch.tensor(1000 * times[step]).to(kind)
    x = noise()
    # velocity = (x_t - x) / t names who answered
    found = x - times[step] * model(x, told).sample
    assert torch.allclose(found, torch.full_like(x, float(step)), atol=1e-5)


@given(k=st.integers(0, 999))
@hypothesis_settings(max_examples=25, deadline=None)
def test_a_schedule_on_another_path_switches_at_the_same_noise(unet: Any, k: int) -> None:
    scheduler = diffusers.DDIMScheduler(prediction_type="sample", clip_sample=False)
    member = bridge.from_diffusers(unet, scheduler)
    schedule = pw.HybridSchedule((1.0, 0.5), ("a", "b"))  # flow matching: half way the noise is as strong as the image
    model = bridge.to_diffusers(pw.HybridDenoiser({"a": member, "b": Twice(member)}, schedule))
    times = 2 if float(scheduler.alphas_cumprod[k]) >= 0.5 else 1
    x = noise(1)
    assert torch.allclose(model(x, k).sample, times * unet(x, k).sample, atol=1e-4)


def test_arguments_that_only_a_network_knows_go_to_it_alone(wiener: Denoiser) -> None:
    class Net(nn.Module):
        def forward(self, hidden_states: Tensor, timestep: Any, pooled: Any = None, return_dict: bool = True) -> Any:
            return (hidden_states * pooled["scale"][:, None, None, None],)

    member = bridge.from_diffusers(Net(), diffusers.DDIMScheduler(), image_shape=SHAPE)
    model = bridge.to_diffusers(hybrid_of(member, wiener, member.times(STEPS)))
    x, pooled = noise(2), {"scale": torch.tensor([2.0, 3.0])}
    assert torch.equal(
        model(x, 800, pooled=pooled, return_dict=False)[0], x * torch.tensor([2.0, 3.0]).reshape(2, 1, 1, 1)
    )
    assert model(x, 200, pooled=pooled).sample.shape == x.shape
    mixed = model(x, torch.tensor([200, 800]), pooled=pooled).sample
    assert torch.equal(mixed[1], 3 * x[1])


def test_learned_variances_are_filled_with_the_smallest(wiener: Denoiser) -> None:
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=2, block_out_channels=(4, 4), norm_num_groups=2, layers_per_block=1,
        attention_head_dim=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    ).eval()  # fmt: skip
    learned = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    fixed = diffusers.DDPMScheduler(variance_type="fixed_small_log", clip_sample=False)
    member = bridge.from_diffusers(net, learned)
    model = bridge.to_diffusers(hybrid_of(member, wiener, member.times(STEPS)))
    x = noise()
    assert torch.equal(model(x, 800).sample, net(x, 800).sample)
    out = model(x, 200).sample
    assert out.shape == (3, 2, 8, 8)

    def step(scheduler: Any, answer: Tensor) -> Tensor:
        scheduler.set_timesteps(STEPS)
        return scheduler.step(answer, 200, x, generator=torch.Generator().manual_seed(0)).prev_sample

    assert torch.allclose(step(learned, out), step(fixed, out[:, :1]), atol=1e-5)
    with pytest.raises(PhasewiseError, match="variance_type 'learned'"):
        bridge.to_diffusers(
            hybrid_of(
                bridge.from_diffusers(net, diffusers.DDPMScheduler(variance_type="learned")),
                wiener,
                (0.9, 0.5, 0.4, 0.3, 0.2),
            )
        )


def test_a_second_network_answers_in_the_form_of_the_first(unet: Any) -> None:
    """Of another class of weights, without variances, told by rows."""
    torch.manual_seed(0)
    config = {k: v for k, v in unet.config.items() if not k.startswith("_")}
    learned = diffusers.UNet2DModel(**{**config, "out_channels": 2}).eval().to(torch.bfloat16)
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    first, second = (bridge.from_diffusers(net, scheduler) for net in (learned, unet))
    model = bridge.to_diffusers(hybrid_of(first, second, first.times(STEPS)))
    x = noise(2).bfloat16()
    assert torch.equal(model(x, 800).sample, learned(x, 800).sample)
    expected = unet(x.float(), 200).sample.bfloat16()
    out = model(x, 200).sample
    assert torch.equal(out, torch.cat([expected, -torch.ones_like(expected)], dim=1))
    mixed = model(x, torch.tensor([800, 200])).sample
    assert torch.allclose(mixed, torch.stack([learned(x, 800).sample[0], out[1]]), atol=0.02)


# --- what a pipeline asks of its network ------------------------------------------------------------------------------


def test_it_passes_for_the_network_of_a_pipeline(unet: Any, wiener: Denoiser) -> None:
    net = copy.deepcopy(unet)
    member = bridge.from_diffusers(net, diffusers.DDIMScheduler())
    model = bridge.to_diffusers(hybrid_of(member, wiener, member.times(STEPS)))
    assert model.config.block_out_channels == list(unet.config.block_out_channels)
    assert model.conv_in is net.conv_in  # what else pipelines reach for
    with pytest.raises(AttributeError):
        _ = model.no_such_thing
    assert (model.dtype, model.device, model.training) == (torch.float32, torch.device("cpu"), False)
    x = noise()
    before = model(x, 200).sample
    model.to(torch.bfloat16)
    assert model.dtype == net.conv_in.weight.dtype == torch.bfloat16
    assert wiener.mean.dtype == torch.float32  # type: ignore[union-attr]
    half = model(x.bfloat16(), torch.tensor(200.0, dtype=torch.bfloat16)).sample
    assert half.dtype == torch.bfloat16
    assert float((half.float() - before).abs().max()) < 0.02 * float(before.abs().max())
    assert model(x.bfloat16(), 800).sample.dtype == torch.bfloat16
    assert "HybridModel" in repr(model)


def test_a_network_within_a_member_says_how_to_speak(unet: Any, tmp_path: Path) -> None:
    scheduler = diffusers.DDIMScheduler(prediction_type="sample", clip_sample=False)
    model = bridge.to_diffusers(Twice(bridge.from_diffusers(unet, scheduler)))
    x = noise()
    assert model.interface.scheduler is scheduler
    assert model.config.sample_size == 8
    assert torch.allclose(model(x, 500).sample, 2 * unet(x, 500).sample, atol=1e-5)
    with pytest.raises(PhasewiseError, match="saved"):
        model.save_pretrained(tmp_path)


# --- saved and loaded by diffusers itself -----------------------------------------------------------------------------


def test_it_is_saved_and_loaded_within_a_pipeline(unet: nn.Module, wiener: Denoiser, tmp_path: Path) -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    member = bridge.from_diffusers(unet, scheduler)
    local = pw.LocalDenoiser(SHAPE, radius=2, width=4)
    schedule = pw.HybridSchedule(member.times(3), ("a", "b", "c"), solver="ddim", path=member.path.config())
    hybrid = pw.HybridDenoiser({"a": member, "b": wiener, "c": local}, schedule)
    pipe = diffusers.DDIMPipeline(bridge.to_diffusers(hybrid), scheduler)
    pipe.save_pretrained(tmp_path)
    assert sorted(p.name for p in (tmp_path / "unet").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    passed = diffusers.DDIMPipeline.from_pretrained(
        tmp_path, unet=bridge.HybridModel.from_pretrained(tmp_path / "unet")
    )
    images = []
    for each in (pipe, again, passed):
        each.set_progress_bar_config(disable=True)
        assert isinstance(each.unet, bridge.HybridModel)
        assert each.unet.config.sample_size == 8
        images.append(each(2, torch.Generator().manual_seed(1), num_inference_steps=3, output_type="np").images)
    assert (images[0] == images[1]).all()
    assert (images[0] == images[2]).all()
    kept = again.unet.denoiser
    assert kept.schedule == schedule
    assert {n: type(m) for n, m in kept.members.items()} == {n: type(m) for n, m in hybrid.members.items()}
    half = bridge.HybridModel.from_pretrained(tmp_path / "unet", torch_dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert next(half.denoiser.members["c"].parameters()).dtype == torch.float32


def test_members_that_share_weights_are_saved(unet: nn.Module, tmp_path: Path) -> None:
    scheduler = diffusers.DDIMScheduler()
    members = {"a": bridge.from_diffusers(unet, scheduler), "b": bridge.from_diffusers(unet, scheduler, clamp=False)}
    hybrid = pw.HybridDenoiser(members, pw.HybridSchedule((0.9, 0.4), ("a", "b"), path=members["a"].path.config()))
    bridge.to_diffusers(hybrid).save_pretrained(tmp_path)
    x = noise()
    again = bridge.HybridModel.from_pretrained(tmp_path)
    for k in (900, 100):
        assert torch.equal(again(x, k).sample, unet(x, k).sample)


def test_a_denoiser_like_a_scheduler_is_saved(images: Tensor, tmp_path: Path) -> None:
    model = bridge.to_diffusers(pw.WienerDenoiser.fit(images), like=diffusers.EDMEulerScheduler(), pixel_range=(-1, 1))
    model.save_pretrained(tmp_path)
    again = bridge.HybridModel.from_pretrained(tmp_path)
    x = noise()
    assert torch.equal(again(x, 0.3).sample, model(x, 0.3).sample)
    assert {k: v for k, v in again.config.items() if k[0] != "_"} == dict(model.config)


def test_folders_that_hold_no_hybrid_are_refused(unet: Any, images: Tensor, tmp_path: Path) -> None:
    unet.save_pretrained(tmp_path / "unet")
    with pytest.raises(CheckpointError, match="no hybrid"):
        bridge.HybridModel.from_pretrained(tmp_path / "unet")
    scheduler = diffusers.DDIMScheduler()
    model = bridge.to_diffusers(pw.WienerDenoiser.fit(images), like=scheduler)
    model.save_pretrained(tmp_path / "whole")
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    for where, value in (("class", "os.system"), ("config", {"image_shape": [1, 8]})):
        changed = {**config, "denoiser": {**config["denoiser"], where: value}}
        (tmp_path / "whole" / "config.json").write_text(json.dumps(changed))
        with pytest.raises(PhasewiseError):
            bridge.HybridModel.from_pretrained(tmp_path / "whole")
    (tmp_path / "whole" / "config.json").write_text(json.dumps(config))
    from safetensors.torch import load_file, save_file

    weights = tmp_path / "whole" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    save_file({k: v for k, v in state.items() if "mean" not in k}, weights)
    with pytest.raises(CheckpointError, match="missing"):
        bridge.HybridModel.from_pretrained(tmp_path / "whole")
    with pytest.raises(PhasewiseError, match="safetensors"):
        model.save_pretrained(tmp_path / "old", safe_serialization=False)
    wrapped = bridge.to_diffusers(pw.wrap(lambda x, t: x, SHAPE, predicts="x0"), like=scheduler)
    with pytest.raises(PhasewiseError, match="cannot hold"):
        wrapped.save_pretrained(tmp_path / "function")
    assert not (tmp_path / "function").exists()


def test_a_pipeline_folder_s_network_becomes_a_hybrid_and_goes_home(wiener: Denoiser, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_folder("unet", MAKERS["unet"](SHAPE, "tiny"), tmp_path)
    member = bridge.read_folder(tmp_path)
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet = bridge.to_diffusers(hybrid_of(member, wiener, member.times(STEPS)))
    assert pipe(1, num_inference_steps=STEPS, output_type="np").images.shape == (1, 8, 8, 1)


# --- hooks ------------------------------------------------------------------------------------------------------------


def test_a_hook_puts_a_hybrid_over_a_network_and_takes_it_off(unet: Any, wiener: Denoiser) -> None:
    net = copy.deepcopy(unet)
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    member = bridge.from_diffusers(net, diffusers.DDIMScheduler())
    hybrid = hybrid_of(member, wiener, member.times(STEPS))
    x, times = noise(), (800, 200)
    bare = [net(x, k).sample for k in times]
    expected = [bridge.to_diffusers(hybrid)(x, k).sample for k in times]
    calls = []
    handle = net.conv_in.register_forward_hook(lambda *_: calls.append(1))
    bridge.apply_hybrid(net, hybrid)
    assert type(net) is type(unet)
    assert torch.equal(net(x, 800).sample, bare[0])
    assert len(calls) == 1
    assert torch.equal(net(x, timestep=torch.tensor(200), return_dict=False)[0], expected[1])
    assert len(calls) == 1  # it was not asked
    assert not torch.equal(expected[1], bare[1])
    with pytest.raises(PhasewiseError, match="applied to this network already"):
        bridge.apply_hybrid(net, hybrid)
    pipe = diffusers.DDIMPipeline(net, diffusers.DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe(2, torch.Generator().manual_seed(1), num_inference_steps=STEPS, output_type="np").images
    other = diffusers.DDIMPipeline(bridge.to_diffusers(hybrid), diffusers.DDIMScheduler())
    other.set_progress_bar_config(disable=True)
    bridge.remove_hybrid(net)
    assert (
        other(2, torch.Generator().manual_seed(1), num_inference_steps=STEPS, output_type="np").images == drawn
    ).all()
    handle.remove()
    assert all(torch.equal(net(x, k).sample, b) for k, b in zip(times, bare, strict=True))
    assert kept.keys() == net.state_dict().keys()
    assert all(torch.equal(kept[k], v) for k, v in net.state_dict().items())
    with pytest.raises(PhasewiseError, match="no hybrid is applied"):
        bridge.remove_hybrid(net)
    bridge.apply_hybrid(net, hybrid)  # and once more
    assert torch.equal(net(x, 200).sample, expected[1])


def test_a_member_that_asks_the_hooked_network_reaches_the_network(unet: Any) -> None:
    net = copy.deepcopy(unet)
    scheduler = diffusers.DDIMScheduler(prediction_type="sample", clip_sample=False)
    member = bridge.from_diffusers(net, scheduler)
    bridge.apply_hybrid(net, hybrid_of(member, Twice(member), member.times(STEPS)))
    x = noise()
    assert torch.allclose(net(x, 200).sample, 2 * unet(x, 200).sample, atol=1e-5)


def test_a_hybrid_from_a_folder_says_whom_the_module_stands_for(unet: Any, wiener: Denoiser, tmp_path: Path) -> None:
    member = bridge.from_diffusers(unet, diffusers.DDIMScheduler())
    pw.save_denoiser(hybrid_of(member, wiener, member.times(STEPS)), tmp_path)
    hybrid, net = pw.load_denoiser(tmp_path), copy.deepcopy(unet)
    nn.init.constant_(net.conv_out.bias, 5.0)  # the module answers its own steps, not the copy
    with pytest.raises(PhasewiseError, match="member=NAME"):
        bridge.apply_hybrid(net, hybrid)
    with pytest.raises(PhasewiseError, match="'b' is no network"):
        bridge.apply_hybrid(net, hybrid, member="b")
    larger = MAKERS["unet"]((1, 16, 16), "tiny")
    with pytest.raises(PhasewiseError, match=r"is for images \(1, 16, 16\)"):
        bridge.apply_hybrid(larger, hybrid, member="a")
    x = noise()
    bare = net(x, 800).sample
    bridge.apply_hybrid(net, hybrid, member="a")
    assert torch.equal(net(x, 800).sample, bare)
    assert torch.equal(net(x, 200).sample, bridge.to_diffusers(hybrid)(x, 200).sample)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_taken_home_is_said(unet: Any, wiener: Denoiser, images: Tensor) -> None:
    scheduler = diffusers.DDIMScheduler()
    member = bridge.from_diffusers(unet, scheduler)
    with pytest.raises(PhasewiseError, match="like="):
        bridge.to_diffusers(wiener)
    with pytest.raises(PhasewiseError, match="scheduler"):
        bridge.to_diffusers(wiener, like=object())
    with pytest.raises(PhasewiseError, match="DiffusersDenoiser"):
        bridge.to_diffusers(wiener, like=wiener)
    with pytest.raises(PhasewiseError, match="pixel_range"):
        bridge.to_diffusers(member, pixel_range=(-1, 1))
    with pytest.raises(PhasewiseError, match="lower first"):
        bridge.to_diffusers(wiener, like=scheduler, pixel_range=(1, -1))
    with pytest.raises(PhasewiseError, match="denoiser"):
        bridge.to_diffusers(unet)
    leaning = {"global": wiener, "held": pw.ReusedAnswer(wiener.image_shape, 0)}
    reusing = pw.HybridDenoiser(leaning, pw.HybridSchedule((1.0, 0.5), ("global", "held")))
    with pytest.raises(PhasewiseError, match="keeps nothing from step to step"):
        bridge.to_diffusers(reusing, like=scheduler)
    small = pw.WienerDenoiser.fit(images[:, :, :6, :6])
    with pytest.raises(PhasewiseError, match="same images"):
        bridge.to_diffusers(small, like=member)
    with pytest.raises(PhasewiseError, match="network of diffusers"):
        bridge.apply_hybrid(member, member)  # type: ignore[arg-type]
    with pytest.raises(PhasewiseError, match="no hybrid is applied"):
        bridge.remove_hybrid(unet)


def test_a_time_or_an_image_that_is_none_is_said(unet: Any, wiener: Denoiser) -> None:
    member = bridge.from_diffusers(unet, diffusers.DDIMScheduler())
    model = bridge.to_diffusers(hybrid_of(member, wiener, member.times(STEPS)))
    x = noise()
    for bad in (float("nan"), float("inf"), -3, 1400, torch.tensor([1.0, float("nan"), 2.0])):
        with pytest.raises(PhasewiseError, match="timestep"):
            model(x, bad)
    for bad in ("now", torch.tensor([1, 2])):
        with pytest.raises(PhasewiseError, match="timestep"):
            model(x, bad)
    with pytest.raises(PhasewiseError, match="not told its timestep"):
        model(x)
    for shape in ((3, 2, 8, 8), (3, 1, 9, 8)):
        with pytest.raises(PhasewiseError, match="sample must be floats"):
            model(torch.zeros(shape), 5)
    with pytest.raises(PhasewiseError, match="arguments"):
        model(x, 5, None, True, 3, 4)


def test_flows_are_asked_at_their_end_too(transformer: Any, wiener: Denoiser) -> None:
    member = bridge.from_diffusers(transformer, make_schedulers()["transformer"])
    hybrid = pw.HybridDenoiser({"a": member, "b": wiener}, pw.HybridSchedule((1.0, 0.5), ("a", "b")))
    assert bool(bridge.to_diffusers(hybrid)(noise(), 0.0, class_labels=torch.tensor([0, 1, 2])).sample.isfinite().all())


def test_a_guided_hybrid_is_saved_and_read(tiny_transformer: Any, tmp_path: Path) -> None:
    network = bridge.from_diffusers(tiny_transformer, diffusers.FlowMatchEulerDiscreteScheduler())
    plan = pw.HybridSchedule(network.times(4), ("guided", "guided", "plain", "plain"), solver="euler")
    hybrid = pw.HybridDenoiser({"guided": pw.GuidedDenoiser(network, 3.0), "plain": network}, plan)
    model = bridge.to_diffusers(hybrid)
    model.save_pretrained(tmp_path)
    again = bridge.HybridModel.from_pretrained(tmp_path)
    x, labels = torch.randn(2, *network.image_shape), torch.tensor([1, 2])
    for step in (900.0, 200.0):
        told = torch.full((2,), step)
        assert torch.equal(again(x, told, class_labels=labels).sample, model(x, told, class_labels=labels).sample)
