"""Published rules: how many steps each computes, which, and what it says of input that does not fit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import Denoiser, DiTDenoiser, HybridDenoiser, ReusedFeatures, UNetDenoiser
from phasewise.errors import PhasewiseError
from phasewise.metrics import count_flops
from phasewise.scheduling import field, field_signals

SHAPE = (1, 8, 8)
TIMES = (1.0, 0.8, 0.6, 0.4, 0.2, 0.05)


def randomise(network: Denoiser) -> Denoiser:
    """Weights that are not 0 anywhere: a network just built answers with its input's scale alone."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in network.parameters():
            weights.normal_(0.0, 0.1, generator=generator)
    return network.eval()


def bits(mask: field.Mask) -> str:
    return "".join("1" if computed else "0" for computed in mask)


def unet() -> UNetDenoiser:
    return randomise(UNetDenoiser(SHAPE, width=8, multipliers=(1, 2)))  # type: ignore[return-value]


def transformer() -> DiTDenoiser:
    return randomise(DiTDenoiser(SHAPE, width=16, depth=3, heads=2, patch=2))  # type: ignore[return-value]


# --- assignments ------------------------------------------------------------------------------------------------------


def test_the_large_network_sketches_and_the_small_one_renders() -> None:
    assert field.large_first(TIMES, "L", "s", 0.5) == tuple("LLLsss")
    assert field.large_first(TIMES, "L", "s", 0.0) == tuple("LLLLLL")
    small_first = pw.scheduling.baselines.t_stitch(TIMES, "s", "L", 1 / 3)
    assert field.large_first(TIMES, "L", "s", 1 / 3) == small_first[::-1]


def test_caches_at_intervals_compute_every_nth_step_from_the_end_of_the_warm_up() -> None:
    times = pw.time_grid(8)
    assert field.at_intervals(times, "W", "k", 3) == tuple("WkkWkkWk")
    assert field.at_intervals(times, "W", "k", 3, warm_up=3) == tuple("WWWkkWkk")
    assert field.at_intervals(times, "W", "k", 1) == tuple("WWWWWWWW")


def test_delta_dit_keeps_rear_blocks_early_and_front_blocks_late() -> None:
    assert field.delta_dit(pw.time_grid(8), "W", "rear", "front", 2) == (
        ("W", "rear", "W", "rear", "W", "front", "W", "front")
    )
    assert set(field.delta_dit(TIMES, "W", "rear", "front", 2, switch=0.0)) == {"W", "front"}


def test_a_mask_of_another_length_or_with_nothing_to_keep_is_refused() -> None:
    assert field.masked(TIMES, "W", "k", (True, False, True, False, False, True)) == tuple("WkWkkW")
    with pytest.raises(PhasewiseError, match="a mask of 3 steps for a grid of 6"):
        field.masked(TIMES, "W", "k", (True, False, True))
    with pytest.raises(PhasewiseError, match="first step of a mask is computed"):
        field.masked(TIMES, "W", "k", (False,) * 6)


def test_a_schedule_of_a_rule_has_its_cost_and_names_a_member_without_one() -> None:
    plan = field.schedule_of(TIMES, tuple("WkWkkW"), {"W": 3e6, "k": 1e6}, solver="ddim", label="DeepCache")
    assert (plan.mflop, plan.solver, plan.label, plan.times) == (12.0, "ddim", "DeepCache", TIMES)
    # Heun calls twice a step, but for the last
    assert field.schedule_of(TIMES, tuple("WWWWWW"), {"W": 3e6}, solver="heun").mflop == 33.0
    with pytest.raises(PhasewiseError, match="no cost of 'k'; there are W"):
        field.schedule_of(TIMES, tuple("WkWkkW"), {"W": 3e6})
    with pytest.raises(PhasewiseError, match="5 members for a grid of 6"):
        field.schedule_of(TIMES, tuple("WWWWW"), {"W": 3e6})


# --- cache-dit --------------------------------------------------------------------------------------------------------


def test_cache_dit_masks_of_28_steps_are_the_published_ones() -> None:
    assert bits(field.cache_dit_mask(28, "medium")) == "1111110110001100011000110001"
    assert bits(field.cache_dit_mask(28, "fast")) == "1111110100010000100000100001"
    counts = {policy: sum(field.cache_dit_mask(28, policy)) for policy in field.POLICIES}
    assert counts == {"slow": 18, "medium": 15, "fast": 11, "ultra": 8}


@pytest.mark.parametrize(
    ("steps", "policy", "wanted"),
    [
        (4, "fast", "1101"),
        (6, "medium", "111001"),
        (8, "medium", "11110101"),
        (8, "fast", "11101001"),
        (9, "ultra", "111001001"),
        (12, "medium", "111101101001"),  # the table of 15, shortened from the end
        (16, "fast", "1111100000000001"),  # that of 28, shortened
    ],
)
def test_cache_dit_masks_are_rescaled_as_it_does(steps: int, policy: str, wanted: str) -> None:
    assert bits(field.cache_dit_mask(steps, policy)) == wanted


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 120), st.sampled_from(field.POLICIES))
def test_a_cache_dit_mask_has_its_length_and_computes_both_ends(steps: int, policy: str) -> None:
    mask = field.cache_dit_mask(steps, policy)
    assert len(mask) == steps
    assert mask[0]
    assert mask[-1]
    assert sum(field.cache_dit_mask(steps, "ultra")) <= sum(mask) <= sum(field.cache_dit_mask(steps, "slow"))


def test_cache_dit_has_no_mask_of_five_steps_and_no_unknown_policy() -> None:
    with pytest.raises(PhasewiseError, match="got 5 steps"):
        field.cache_dit_mask(5)
    with pytest.raises(PhasewiseError, match="medium"):
        field.cache_dit_mask(28, "mediun")


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_accumulated_changes_compute_a_step_when_they_reach_the_threshold() -> None:
    changes = (0.3, 0.3, 0.3, 0.3, 0.1, 0.1, 0.1)
    assert bits(field.accumulated_mask(changes, 0.5)) == "10101001"
    assert bits(field.accumulated_mask(changes, 0.5, retained=3)) == "11101001"
    assert bits(field.accumulated_mask(changes, 0.0)) == "1" * 8
    assert bits(field.accumulated_mask(changes, 100.0)) == "1" + "0" * 6 + "1"


def test_magnitudes_multiply_and_runs_end() -> None:
    # products off 1 by .1, .19, ...: the second kept step would bring the sum to .29
    assert bits(field.magnitude_mask((0.9,) * 5, 0.28)) == "101010"
    assert bits(field.magnitude_mask((0.9,) * 5, 0.3)) == "100100"
    assert bits(field.magnitude_mask((1.0,) * 7, 0.1, longest=3)) == "10001000"
    assert bits(field.magnitude_mask((1.0,) * 5, 0.1, retained=3, longest=9)) == "111000"


@settings(max_examples=12, deadline=None)
@given(st.lists(st.floats(0.01, 2), min_size=3, max_size=14), st.integers(2, 6))
def test_a_threshold_meets_a_cost(changes: list[float], most: int) -> None:
    threshold, mask = field.by_threshold(lambda h: field.accumulated_mask(changes, h), most)
    assert sum(mask) <= most
    assert mask == field.accumulated_mask(changes, threshold)
    if threshold > 1e-4:
        assert sum(field.accumulated_mask(changes, threshold / 1.02)) > most


def test_a_cost_that_no_threshold_meets_is_refused() -> None:
    with pytest.raises(PhasewiseError, match="computes 2 steps or more at any threshold; 1 are too few"):
        field.by_threshold(lambda h: field.accumulated_mask((0.1, 0.1), h), 1)


# --- LeMiCa -----------------------------------------------------------------------------------------------------------


def brute(errors: np.ndarray, computed: int) -> list[float]:
    """The sorted errors of the best path, by trying all."""
    steps = len(errors) - 1
    ways = [
        sorted((errors[i, j] for i, j in itertools.pairwise((0, *inner, steps))), reverse=True)
        for inner in itertools.combinations(range(1, steps), computed - 1)
    ]
    return min(ways)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_the_minimax_path_is_the_best_of_all(computed: int, seed: int) -> None:
    errors = np.full((7, 7), np.inf)
    # few values, so that worst runs tie and the second worst decides
    draws = np.random.default_rng(seed).integers(0, 4, (7, 7)).astype(float)
    errors[np.triu_indices(7, 1)] = draws[np.triu_indices(7, 1)]
    mask = field.minimax_mask(errors, computed)
    assert sum(mask) == computed
    assert mask[0]
    path = (*np.flatnonzero(mask).tolist(), 6)
    assert sorted((errors[i, j] for i, j in itertools.pairwise(path)), reverse=True) == brute(errors, computed)


def test_a_path_that_is_not_there_and_a_table_that_is_none_are_refused() -> None:
    short = np.full((5, 5), np.inf)
    short[np.arange(4), np.arange(1, 5)] = 0.0  # no step may be kept
    assert field.minimax_mask(short, 4) == (True,) * 4
    with pytest.raises(PhasewiseError, match="no mask of 4 steps has 2 computed ones"):
        field.minimax_mask(short, 2)
    with pytest.raises(PhasewiseError, match="square table"):
        field.minimax_mask(np.zeros((3, 4)), 2)


# --- what they look at ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "part"), [(unet(), "level1"), (transformer(), "blocks/0:3")])
def test_changes_are_those_of_the_networks_own_trajectory(network: Denoiser, part: str) -> None:
    found = field_signals.measure_changes(network, TIMES, part, n=4, solver="ddim")
    assert {len(v) for v in (found.inputs, found.filtered, found.kept, found.ratios)} == {len(TIMES) - 1}
    assert all((v > 0).all() for v in (found.inputs, found.filtered, found.kept, found.ratios))
    again = field_signals.measure_changes(network, TIMES, part, n=4, solver="ddim")
    assert np.array_equal(found.kept, again.kept)
    # to the same time again, twice: what is kept hardly changes
    near = field_signals.measure_changes(network, (0.5, 0.4999, 0.4998), part, n=4, solver="ddim")
    assert near.kept.max() < 0.01
    assert near.inputs.max() < 0.01
    assert np.abs(near.ratios - 1).max() < 0.01


def test_changes_of_blocks_are_those_of_what_they_add() -> None:
    """By hand: the last block's output minus the first one's input, at every step of one trajectory."""
    network, seen = transformer(), dict[str, list[Tensor]](into=[], out=[])
    network.blocks[0].register_forward_pre_hook(lambda _, args: seen["into"].append(args[0]))
    network.blocks[2].register_forward_hook(lambda _, args, out: seen["out"].append(out))
    found = field_signals.measure_changes(network, TIMES, "blocks/0:3", n=2, solver="ddim")
    added = [b - a for a, b in zip(seen["into"], seen["out"], strict=True)]
    wanted = [float((b - a).abs().mean() / a.abs().mean()) for a, b in itertools.pairwise(added)]
    assert found.kept == pytest.approx(wanted, rel=1e-4)
    ratios = [float((b.norm(dim=-1) / a.norm(dim=-1)).mean()) for a, b in itertools.pairwise(added)]
    assert found.ratios == pytest.approx(ratios, rel=1e-4)


def test_changes_name_a_network_that_cannot_be_split_and_a_solver_with_two_calls() -> None:
    with pytest.raises(PhasewiseError, match="level1"):
        field_signals.measure_changes(unet(), TIMES, "blocks/0:3")
    with pytest.raises(PhasewiseError, match="heun calls a denoiser 11 times in 6 steps"):
        field_signals.measure_changes(unet(), TIMES, "level1", n=2, solver="heun")


def test_the_filter_of_seacache_lets_all_through_without_noise_and_the_mean_alone_without_an_image() -> None:
    features = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(field_signals.sea_filtered(features, 1.0, 0.0), features)
    flat = field_signals.sea_filtered(features, 0.0, 1.0)
    assert float(flat.std(dim=(-2, -1)).max()) < 1e-6
    # the mean gain stays 1: 36 frequencies' worth on the mean
    torch.testing.assert_close(flat.mean(dim=(-2, -1)), 36 * features.mean(dim=(-2, -1)), rtol=1e-6, atol=1e-6)
    # in between: falling with the frequency
    wave = torch.cos(2 * torch.pi * torch.arange(6) / 6 * torch.tensor([[1], [2], [3]])).double()[None, :, None]
    gains = field_signals.sea_filtered(wave.expand(1, 3, 6, 6), 0.5, 0.5).abs().amax((-2, -1))[0]
    assert gains[0] > gains[1] > gains[2]


def test_rescaled_changes_follow_what_is_kept() -> None:
    steps = np.linspace(0.1, 0.5, 9)
    shared = {"times": np.linspace(1, 0.1, 10), "filtered": steps, "ratios": steps, "part": "level1", "n": 1, "seed": 0}
    found = field_signals.Changes(inputs=steps, kept=steps**3 - 0.05, **shared)
    assert field.rescaled(found) == pytest.approx(np.maximum(steps**3 - 0.05, 0), abs=1e-9)


def test_errors_of_reuse_are_nothing_where_nothing_is_kept_and_grow_with_the_run() -> None:
    whole, times = unet(), (1.0, 0.7, 0.4, 0.1)
    errors = field_signals.measure_reuse_errors(whole, ReusedFeatures(whole, "level1"), times, n=2, longest=2)
    assert errors.shape == (5, 5)
    assert all(errors[i, i + 1] == 0 for i in range(4))
    assert np.isinf(errors[np.tril_indices(5)]).all()
    assert np.isinf(errors[0, 4])
    assert 0 < errors[0, 3] < np.inf
    # one entry by hand
    members = {"W": whole, "k": ReusedFeatures(whole, "level1")}
    images = [
        pw.sample(HybridDenoiser(members, pw.HybridSchedule(times, tuple(who))), n=2, seed=0)
        for who in ("WWkW", "WWWW")
    ]
    assert errors[1, 3] == pytest.approx(float((images[0] - images[1]).abs().mean()), rel=1e-6)


# --- point 5: windows and guidance as members -------------------------------------------------------------------------


def test_windows_of_attention_are_members_of_a_price_list_and_of_a_hybrid() -> None:
    whole = randomise(DiTDenoiser((1, 16, 16), width=16, depth=2, heads=2, patch=1))
    members = {"global": whole, "window 1": whole.windowed(1)}  # type: ignore[attr-defined]
    images = torch.rand(20, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    prices = pw.price_list(members, images, TIMES, n=4, batch=1)
    # of 256 tokens each sees 16 at most
    assert prices.flops[1] < 0.5 * prices.flops[0]
    plan = pw.optimise_schedule(prices, budget=0.8, penalty="flow")
    assert plan.mflop is not None
    assert set(plan.assignment) == {"global", "window 1"}
    assert pw.sample(HybridDenoiser(members, plan), n=2).shape == (2, 1, 16, 16)


def test_guidance_off_and_held_are_members_that_cost_one_call() -> None:
    network = randomise(UNetDenoiser(SHAPE, width=8, multipliers=(1, 2), classes=3))
    guided = pw.GuidedDenoiser(network, 2.0, null=2)
    members: dict[str, Denoiser] = {
        "guided": guided, "off": network, "held": ReusedFeatures(guided, "guidance")
    }  # fmt: skip
    flops = {name: count_flops(d.given(1), SHAPE) for name, d in members.items()}
    assert flops["held"] < 0.51 * flops["guided"] + 1000
    plan = field.schedule_of(TIMES, field.at_intervals(TIMES, "guided", "held", 2), flops)
    hybrid = HybridDenoiser(members, plan)
    every = HybridDenoiser(members, pw.HybridSchedule(TIMES, ("guided",) * 6))
    off = HybridDenoiser(members, pw.HybridSchedule(TIMES, ("guided",) + ("off",) * 5))
    images = [pw.sample(h, n=4, cond=1) for h in (every, hybrid, off)]
    # guidance held is nearer to guidance than none is
    assert (images[1] - images[0]).abs().mean() < (images[2] - images[0]).abs().mean()
