"""A transformer of diffusers looked at: its attention goes through PyTorch's, so it is restricted like ours."""

import numpy as np
import pytest
import torch

import phasewise as pw
from phasewise.diagnosis import AttentionWithin, measure_attention_windows
from phasewise.exact import GaussianField
from tests.denoisers.receptive_field import randomise

diffusers = pytest.importorskip("diffusers")
from phasewise.bridges.diffusers import from_diffusers  # noqa: E402


@pytest.fixture(scope="module")
def transformer():
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=1, out_channels=1, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=4,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
    return from_diffusers(randomise(model, std=0.2), scheduler, clamp=False)


@pytest.fixture(scope="module")
def images():
    return GaussianField((8, 8), mass=0.3).sample(24, seed=0)


def test_a_full_window_is_the_unmasked_answer_and_a_narrow_one_is_local(transformer, images):
    told = transformer.given(1)
    with torch.inference_mode():
        whole = told(images, 0.5)
        assert torch.equal(AttentionWithin(told, 3, 2)(images, 0.5), whole)
        assert not torch.allclose(AttentionWithin(told, 2, 2)(images, 0.5), whole)
        assert torch.equal(told(images, 0.5), whole)
    within = pw.diagnosis.measure_influence(AttentionWithin(told, 1, 2), images, (0.5,), pixels=4)
    # two layers of one token, of 2 pixels, and what is left of the own token
    assert np.count_nonzero(within.beyond[0, 2 * 1 * 2 + 1 :]) == 0 < within.beyond[0, 2]


def test_reach_by_layer_and_under_a_condition(transformer, images):
    labels = torch.arange(24) % 4
    found = pw.reach(transformer, images, times=(0.3, 0.7), cond=labels, n=12, per_layer=True)
    assert found.attention is not None
    assert (found.attention.grid, found.attention.patch) == ((4, 4), 2)
    assert (found.attention.masked, found.attention.left) == (2, 0)
    assert found.attention.layers == ("all", "0", "1")
    assert (found.attention.distance > 0).all()


def test_the_finest_grid_of_a_u_net_is_taken(images):
    model = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2,
        attention_head_dim=4, down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"),
    )  # fmt: skip
    network = from_diffusers(model, diffusers.DDPMScheduler(), clamp=False)
    fine = measure_attention_windows(network, images, (0.5,), (1,), n=4)
    coarse = measure_attention_windows(network, images, (0.5,), (1,), n=4, patch=2)
    assert (fine.grid, coarse.grid) == ((8, 8), (4, 4))
    assert (fine.masked, coarse.masked) == (coarse.left, fine.left)
    assert fine.distance[0, 0, 0] > 0 < coarse.distance[0, 0, 0]
