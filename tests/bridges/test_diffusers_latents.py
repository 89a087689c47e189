"""Latents as images: encoded once, judged as decoded, guided and decoded as diffusers' own pipeline does it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import phasewise as pw
from phasewise.data import ImageData
from phasewise.errors import CheckpointError, PhasewiseError

diffusers = pytest.importorskip("diffusers")

from phasewise.bridges.diffusers import DecodedFeatures, decode, encode, from_diffusers, read_vae  # noqa: E402

SHAPE, LATENT = (1, 16, 16), (2, 8, 8)
PARTS = ("train", "validation", "test")


def make_vae(**more: Any) -> Any:
    torch.manual_seed(0)
    about = {
        "in_channels": 1, "out_channels": 1, "latent_channels": 2, "block_out_channels": (4, 4), "norm_num_groups": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1, "scaling_factor": 0.5, "sample_size": 16, "mid_block_add_attention": False,
    }  # fmt: skip
    return diffusers.AutoencoderKL(**{**about, **more})


@pytest.fixture(scope="module")
def vae() -> Any:
    return make_vae(shift_factor=0.1)


@pytest.fixture(scope="module")
def data() -> ImageData:
    x = torch.rand(46, *SHAPE, generator=torch.Generator().manual_seed(0)) * 255
    labels = (torch.arange(46) % 3).long()
    parts = {p: x[a:b] for p, a, b in zip(PARTS, (0, 30, 40), (30, 40, 46), strict=True)}
    named: dict[str, Any] = {f"labels_{p}": labels[: len(v)] for p, v in parts.items()}
    return ImageData("squares", **parts, **named, pixel_range=(0.0, 255.0))


def test_latents_are_the_scaled_modes_of_the_encoder_and_decode_to_pixels(vae: Any, data: ImageData) -> None:
    vae.train()
    latents = encode(data, vae, batch=7)
    assert vae.training
    assert latents.image_shape == LATENT
    assert latents.sizes == data.sizes
    assert torch.equal(latents.labels_train, data.labels_train)
    with torch.no_grad():
        for part in PARTS:
            shown = 2 * getattr(data, part) / 255 - 1
            mode = copy.deepcopy(vae).eval().encode(shown).latent_dist.mode()
            torch.testing.assert_close(getattr(latents, part), (mode - 0.1) * 0.5)
            assert not getattr(latents, part).requires_grad
        back = copy.deepcopy(vae).eval().decode(latents.test / 0.5 + 0.1).sample
    torch.testing.assert_close(decode(latents.test, vae, batch=4), (back + 1) / 2)
    torch.testing.assert_close(decode(latents.test, vae, pixel_range=(0, 255)), 255 * (back + 1) / 2)
    assert latents.pixel_range == (float(latents.train.min()), float(latents.train.max()))
    latents.train.clone().requires_grad_()  # an ordinary tensor, no inference one


def test_moments_of_each_channel_are_taken_where_the_config_has_them(data: ImageData) -> None:
    mean, std = [0.2, -0.3], [0.5, 2.0]
    plain, scaled = make_vae(), make_vae(latents_mean=mean, latents_std=std)
    scaled.load_state_dict(plain.state_dict())
    found, base = encode(data, scaled).test, encode(data, plain).test / 0.5
    torch.testing.assert_close(found, (base - torch.tensor(mean)[:, None, None]) * 0.5
                               / torch.tensor(std)[:, None, None])  # fmt: skip
    torch.testing.assert_close(decode(found, scaled), decode(base * 0.5, plain))


def test_an_autoencoder_without_a_posterior_is_taken(data: ImageData) -> None:
    torch.manual_seed(0)
    tiny = diffusers.AutoencoderTiny(
        in_channels=1, out_channels=1, latent_channels=2, encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4), num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1),
    ).eval()  # fmt: skip
    with torch.no_grad():
        expected = tiny.encode(2 * data.test / 255 - 1).latents
    torch.testing.assert_close(encode(data, tiny).test, expected)


def test_latents_are_encoded_once(vae: Any, data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    usual = type(vae).encode
    monkeypatch.setattr(type(vae), "encode", lambda self, x: (seen.append(len(x)), usual(self, x))[1])
    first = encode(data, vae, cache_dir=tmp_path / "cache")
    assert sum(seen) == 1 + 46  # one to see the shape
    seen.clear()
    again = encode(data, vae, cache_dir=tmp_path / "cache")
    assert sum(seen) == 1
    assert all(torch.equal(getattr(again, p), getattr(first, p)) for p in PARTS)
    assert again.pixel_range == first.pixel_range
    encode(data, make_vae(shift_factor=0.2), cache_dir=tmp_path / "cache")
    other = make_vae(shift_factor=0.1)
    with torch.no_grad():
        other.quant_conv.bias.add_(1)
    encode(data, other, cache_dir=tmp_path / "cache")
    encode(replace(data, pixel_range=(-1.0, 255.0)), vae, cache_dir=tmp_path / "cache")
    files = sorted((tmp_path / "cache").iterdir(), key=lambda p: p.stat().st_mtime_ns)
    assert len(files) == 4
    files[0].write_bytes(files[0].read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="delete it"):
        encode(data, vae, cache_dir=tmp_path / "cache")


def test_features_judge_decoded_images(vae: Any, data: ImageData) -> None:
    features = pw.metrics.RandomFeatures(SHAPE, dim=4, pixel_range=(0.0, 255.0))
    judge, latents = DecodedFeatures(features, vae), encode(data, vae)
    assert (judge.dim, judge.image_shape, judge.distance) == (features.dim, LATENT, features.distance)
    pixels = decode(latents.train, vae, pixel_range=(0, 255))
    torch.testing.assert_close(judge.extract(latents.train), features.extract(pixels))
    assert judge.digest() != features.digest()
    assert judge.digest() != DecodedFeatures(features, make_vae(shift_factor=0.1, scaling_factor=0.7)).digest()
    members = {"global": pw.WienerDenoiser.fit(latents.train), "r1": pw.WienerDenoiser.fit(latents.train, 1)}
    prices = pw.price_list(members, latents, (1.0, 0.5), n=8, batch=2, features=judge)
    assert prices.frechet is not None
    assert prices.frechet[1, 1] > 0
    drawn = pw.sample(pw.HybridDenoiser(members, pw.optimise_schedule(prices, 0.9)), 12)
    score = pw.fid(drawn, latents.train, judge)
    plain = pw.fid(decode(drawn, vae, pixel_range=(0, 255)), pixels, features)
    assert score.value == pytest.approx(plain.value, rel=1e-3)


def test_guided_latents_decode_to_what_the_pipeline_of_diffusers_draws(vae: Any) -> None:
    """Label, label for none, guidance, scheduler, and autoencoder, from the same noise."""
    torch.manual_seed(0)
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=2, num_layers=1, sample_size=8, patch_size=4,
        norm_num_groups=1, num_embeds_ada_norm=1000, out_channels=4,  # learned variances behind
    ).eval()  # fmt: skip
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    plain_vae = make_vae().eval()  # the pipeline knows no shift
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    pipe = diffusers.DiTPipeline(net, plain_vae, scheduler)
    pipe.set_progress_bar_config(disable=True)
    labels, noise = [3, 7], torch.randn(2, *LATENT, generator=torch.Generator().manual_seed(5))
    theirs = pipe(
        labels, guidance_scale=4.0, num_inference_steps=6, generator=torch.Generator().manual_seed(5), output_type="pt"
    ).images

    plain = from_diffusers(net, scheduler)
    assert plain.null == 1000
    assert int(pw.GuidedDenoiser(plain.on(pw.LinearPath()), 4.0).null) == 1000
    guided, times = pw.GuidedDenoiser(plain, 4.0), plain.times(6)
    drawn = pw.sample(guided, times=times, solver="ddim", x_init=noise, t_start=times[0], cond=torch.tensor(labels))
    torch.testing.assert_close(decode(drawn, plain_vae).clamp(0, 1), theirs, rtol=0, atol=1e-4)
    alone = pw.sample(plain, times=times, solver="ddim", x_init=noise, t_start=times[0], cond=torch.tensor(labels))
    assert (decode(alone, plain_vae).clamp(0, 1) - theirs).abs().max() > 1e-3


# --- folders and bad input ------------------------------------------------------------------------------------------


def test_an_autoencoder_is_read_from_its_folder_or_a_pipeline(vae: Any, data: ImageData, tmp_path: Path) -> None:
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=1, attention_head_dim=8, in_channels=2, num_layers=1, sample_size=8, norm_num_groups=1
    )
    diffusers.DiTPipeline(net, vae, diffusers.DDIMScheduler()).save_pretrained(str(tmp_path / "pipe"))
    expected = encode(data, vae).test
    for folder in (tmp_path / "pipe", tmp_path / "pipe" / "vae"):
        read = read_vae(folder)
        assert not read.training
        assert not any(p.requires_grad for p in read.parameters())
        torch.testing.assert_close(encode(data, read).test, expected)
    with pytest.raises(PhasewiseError, match="must be an autoencoder"):
        read_vae(tmp_path / "pipe" / "transformer")
    with pytest.raises(PhasewiseError, match="holds no autoencoder"):
        read_vae(tmp_path)
    diffusers.DiTPipeline(net, None, diffusers.DDIMScheduler()).save_pretrained(str(tmp_path / "bare"))
    with pytest.raises(PhasewiseError, match="has no autoencoder"):
        read_vae(tmp_path / "bare")
    vae.save_pretrained(str(tmp_path / "old"), safe_serialization=False)
    with pytest.raises(PhasewiseError, match="weights as a pickle only"):
        read_vae(tmp_path / "old")


def test_what_does_not_fit_says_why(vae: Any, data: ImageData) -> None:
    latents = encode(data, vae)
    with pytest.raises(PhasewiseError, match=r"has 2 channels, the autoencoder takes 1; are they latents already"):
        encode(latents, vae)
    with pytest.raises(PhasewiseError, match=r"have 1 channels, those of the autoencoder 2; are they pixels"):
        decode(data.test, vae)
    for network in (pw.WienerDenoiser((4, 8, 8)), pw.WienerDenoiser((2, 4, 4))):
        with pytest.raises(PhasewiseError, match=r"makes latents \(2, 8, 8\) .* WienerDenoiser takes"):
            encode(data, vae, network=network)
    with pytest.raises(PhasewiseError, match="sides that it halves evenly"):
        encode(replace(data, **{p: getattr(data, p)[..., :15, :15] for p in PARTS}), vae)
    with pytest.raises(PhasewiseError, match="gives images of 1 channels, the features take 3"):
        DecodedFeatures(pw.metrics.RandomFeatures((3, 16, 16)), vae)
    judge = DecodedFeatures(pw.metrics.RandomFeatures(SHAPE), vae)
    with pytest.raises(PhasewiseError, match="do not fit a feature network"):
        judge.extract(data.test)
    for vague in (None, torch.nn.Linear(2, 2), "vae"):
        with pytest.raises(PhasewiseError, match="vae must be an autoencoder of diffusers"):
            encode(data, vague)
