"""How far a network sees, against Jacobians and covariances known in closed form, and against networks that cheat."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import phasewise as pw
from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, DiTDenoiser, WienerDenoiser
from phasewise.diagnosis import (
    AttentionWithin,
    measure_attention_windows,
    measure_influence,
    measure_losses,
    measure_windowed_answer,
)
from phasewise.diagnosis.attention_window import _tokens, near
from phasewise.diagnosis.influence import _rings
from phasewise.diagnosis.noised import distances, held_out, probes, ratio_and_error
from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField
from tests.denoisers.receptive_field import randomise

SIDE = 6
TIMES = (0.2, 0.6)


@pytest.fixture(scope="module")
def field():
    return GaussianField((SIDE, SIDE), mass=0.3)


@pytest.fixture(scope="module")
def images(field):
    return field.sample(600, seed=1)


def away(side=SIDE):
    """(N, N) max-norm distance of all pixels from all pixels."""
    every = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    return distances(every, side, side).flatten(1).numpy()


def by_ring(squares, side=SIDE):
    """(N, side): rows of squared derivatives (N, N) summed by distance."""
    return np.stack([(squares * (away(side) == k)).sum(1) for k in range(side)], 1)


def linear_map(field, t, radius=None):
    """(N, N) float64, d D_i / d x_j of the exact denoiser, from the covariance."""
    if radius is not None:
        return field.denoiser(radius).matrix(t).numpy()
    path = pw.LinearPath()
    alpha, sigma = float(path.alpha(torch.tensor(t))), float(path.sigma(torch.tensor(t)))
    k = field.covariance.numpy()
    return alpha * k @ np.linalg.inv(alpha**2 * k + sigma**2 * np.eye(len(k)))


class Convolutions(nn.Module):
    """A stack of 7x7 convolutions that sees 6 pixels, and, with a norm over the whole image, all of it."""

    def __init__(self, channels=1, norm=False, width=4):
        super().__init__()
        between = [nn.GroupNorm(1, width)] if norm else []
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 7, padding=3), *between, nn.Tanh(), nn.Conv2d(width, channels, 7, padding=3)
        )

    def forward(self, x, t):
        return (1 - t.view(-1, 1, 1, 1)) * self.layers(x)


def foreign(norm, image_shape=(1, 16, 16), radius=6):
    """Wrapped, under the radius of its convolutions."""
    module = randomise(Convolutions(norm=norm), std=0.2)
    return pw.wrap(module, image_shape, predicts="x0", radius=radius)


# --- influence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [None, 1])
def test_rings_are_those_of_the_exact_jacobian(field, images, radius):
    denoiser = field.denoiser(radius)
    held = held_out(denoiser, images, None, 10)
    found = _rings(denoiser, held, 0.4, pixels=1, seed=3, step=0, batch=4)
    at = probes(denoiser, held.images, 0.4, 1, 3, 0).at
    exact = by_ring(linear_map(field, 0.4, radius) ** 2)[(at[:, 0] * SIDE + at[:, 1]).numpy()]
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-12)


def test_rings_are_those_of_a_jacobian_by_brute_force(images):
    denoiser = foreign(norm=True, image_shape=(1, SIDE, SIDE), radius=None)
    held = held_out(denoiser, images, None, 3)
    found = _rings(denoiser, held, 0.4, pixels=2, seed=3, step=0, batch=4)
    x_t, at = probes(denoiser, held.images, 0.4, 2, 3, 0)
    rows = []
    for x, (i, j) in zip(x_t, at.tolist(), strict=True):
        whole = torch.autograd.functional.jacobian(lambda x: denoiser(x[None], 0.4)[0, 0], x)
        rows.append(by_ring(whole.flatten(0, 1).flatten(1).numpy() ** 2)[SIDE * i + j])
    np.testing.assert_allclose(found, np.reshape(rows, (3, 2, SIDE)).mean(1), rtol=1e-4)


def test_random_signs_over_channels_give_the_exact_mass_and_honest_errors():
    """Against the closed form of a Wiener filter of two channels, over many seeds."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(32, 32, generator=generator)
    x = (torch.randn(400, 32, generator=generator) @ mix).view(-1, 2, 4, 4)
    wiener = WienerDenoiser.fit(x)
    squares = torch.autograd.functional.jacobian(lambda v: wiener(v[None], 0.5)[0], x[0]).square()
    exact = by_ring(squares.sum((0, 3)).reshape(16, 16).numpy(), 4).mean(0)
    truth = 1 - np.cumsum(exact / exact.sum())
    scores, masses = [], []
    for seed in range(40):
        found = measure_influence(wiener, x, (0.5,), n=100, pixels=1, seed=seed, batch=100)
        scores.append((found.beyond[0, :-1] - truth[:-1]) / found.beyond_stderr[0, :-1])
        masses.append((found.mass[0] - exact.sum()) / found.mass_stderr[0])
    for z in (np.array(scores), np.array(masses)):
        assert (np.abs(z.mean(0)) < 4.5 / 40**0.5).all()
        assert ((z.std(0) > 0.7) & (z.std(0) < 1.35)).all()


def test_radii_hold_their_share(field, images):
    found = measure_influence(field.denoiser(), images, TIMES, n=300, pixels=1)
    for k, t in enumerate(TIMES):
        rings = by_ring(linear_map(field, t) ** 2).mean(0)
        within = np.cumsum(rings / rings.sum())
        for part in (0.5, 0.9, 0.99):
            radius, low, high = found.radius(part).rows()[k]
            assert low <= np.argmax(within >= part) <= high
            assert low <= radius <= high
    assert (found.radius(0.5).value <= found.radius(0.99).value).all()
    assert found.radius(1.0).value.tolist() == [SIDE - 1] * 2
    np.testing.assert_allclose(found.share.sum(1), 1)


def test_a_norm_over_the_whole_image_is_found_and_measured(leaks):
    found = leaks[True]
    value, error = found.influence.leak()
    assert (value > 5 * error).all()
    assert (value < 0.5).all()
    assert (found.influence.radius(1.0).value > 6).all()
    beyond = [k for k, r in enumerate(found.windowed.radii) if r >= 6]
    assert (found.windowed.change[:, beyond] > 3 * found.windowed.change_stderr[:, beyond]).all()
    assert "beyond 6" in str(found)


def test_without_the_norm_nothing_lies_beyond_the_radius(leaks):
    found = leaks[False]
    assert np.count_nonzero(found.influence.beyond[:, 6:]) == 0
    assert np.count_nonzero(found.influence.beyond_stderr[:, 6:]) == 0
    assert (found.influence.share[:, 6] > 0).all()
    far = np.array(found.windowed.radii) >= 6
    assert np.count_nonzero(found.windowed.change[:, far]) == np.count_nonzero(found.windowed.relative[:, far]) == 0
    assert (found.windowed.change[:, ~far] > 0).all()


@pytest.fixture(scope="module")
def leaks():
    x = GaussianField((16, 16), mass=0.3).sample(160, seed=2)
    return {norm: pw.reach(foreign(norm), x, times=TIMES, n=80, radii=(1, 4, 6, 8), name="stack") for norm in (0, 1)}


@pytest.mark.parametrize("make", [
    lambda field: field.denoiser(2),
    lambda field: randomise(pw.LocalDenoiser((1, SIDE, SIDE), 2)),
    lambda field: WienerDenoiser.fit(field.sample(200, 0), radius=2),
], ids=["exact", "network", "wiener"])  # fmt: skip
def test_local_ones_are_exactly_local(field, images, make):
    found = pw.reach(make(field), images, times=(0.3, 0.9), n=40, pixels=3, batch=7)
    assert found.influence.declared == found.windowed.declared == 2
    assert np.count_nonzero(found.influence.beyond[:, 2:]) == 0
    far = np.array(found.windowed.radii) >= 2
    assert far.any()
    assert np.count_nonzero(found.windowed.change[:, far]) == 0
    assert found.attention is None


def test_an_answer_that_does_not_depend_on_the_image_has_no_reach(field, images):
    found = pw.reach(WienerDenoiser.fit(images), images, times=(1.0,), n=8)
    assert found.influence.mass[0] == np.count_nonzero(found.influence.beyond) == 0
    assert np.count_nonzero(found.windowed.relative) == 0


def test_what_cannot_be_differentiated_is_refused_and_its_windowed_answer_is_not(images):
    class Frozen(Denoiser):
        def forward(self, x_t, t, cond=None):
            return x_t.detach() * 0.5

    with pytest.raises(PhasewiseError, match=r"Frozen cannot be differentiated .*measure_windowed_answer"):
        measure_influence(Frozen((1, SIDE, SIDE)), images, TIMES, n=4)
    assert (measure_windowed_answer(Frozen((1, SIDE, SIDE)), images, TIMES, (0,), n=4).change == 0).all()


# --- the windowed answer --------------------------------------------------------------------------------------------


def test_the_windowed_answer_is_that_of_the_covariance_and_bounds_the_best_local_one(field, images):
    radii = (0, 1, 3)
    found = measure_windowed_answer(field.denoiser(), images, TIMES, radii, n=300, pixels=2, seed=4)
    for k, t in enumerate(TIMES):
        jacobian, noisy = linear_map(field, t), field.noisy_covariance(t).numpy()
        spread = np.einsum("ij,jk,ik->i", jacobian, noisy, jacobian)
        assert abs(found.spread[k] - spread.mean() ** 0.5) < 4.5 * found.spread_stderr[k]
        for c, r in enumerate(radii):
            far = jacobian * (away() > r)
            exact = 2 * np.einsum("ij,jk,ik->i", far, noisy, far).mean()  # two independent images' difference
            assert abs(found.change[k, c] - exact**0.5) < 4.5 * found.change_stderr[k, c]
            relative = (exact / spread.mean()) ** 0.5
            assert abs(found.relative[k, c] - relative) < 4.5 * found.relative_stderr[k, c]
            assert exact > best_local_error(jacobian, noisy, r) > 0


def best_local_error(jacobian, noisy, r):
    """E|D_i - E[D_i | window]|^2, mean over pixels: what a local imitation of a linear D must lose."""
    lost = []
    for row, out in zip(jacobian, away() > r, strict=True):
        inside = noisy[np.ix_(~out, ~out)]
        left = noisy[np.ix_(out, out)] - noisy[np.ix_(out, ~out)] @ np.linalg.solve(inside, noisy[np.ix_(~out, out)])
        lost.append(row[out] @ left @ row[out])
    return np.mean(lost)


def test_a_radius_is_the_first_from_which_on_the_change_stays_small():
    found = measure_windowed_answer(WienerDenoiser.fit(torch.randn(50, 1, 4, 4)), torch.randn(9, 1, 4, 4), (0.5,), (0,))
    values = {"radii": (0, 1, 2, 3), "n": 9}
    parts = {k: np.zeros((1, 4)) for k in ("change", "change_stderr")}
    given = np.array([[0.05, 0.2, 0.08, 0.02]]), np.array([[0.0, 0.0, 0.015, 0.0]])
    record = type(found)(**{**vars(found), **values, **parts, "relative": given[0], "relative_stderr": given[1]})
    assert record.radius(0.1).rows() == [(2.0, 2.0, 3.0)]
    assert np.isnan(record.radius(0.01).value).all()


def test_a_ratio_of_nothing_is_nothing():
    ratio, error = ratio_and_error(np.zeros((3, 2)), np.zeros((3, 1)))
    assert np.count_nonzero(ratio) == np.count_nonzero(error) == 0


# --- attention within a window --------------------------------------------------------------------------------------

GRID = (5, 4)  # 9 x 8 pixels by patches of 2, the last row filled up


@pytest.fixture(scope="module")
def transformer():
    return randomise(DiTDenoiser((1, 9, 8), width=16, depth=3, heads=2, patch=2), std=0.2)


@pytest.fixture(scope="module")
def noisy():
    return torch.randn(6, 1, 9, 8, generator=torch.Generator().manual_seed(0))


def test_windows_are_those_of_our_transformer(transformer, noisy):
    with torch.inference_mode():
        whole = transformer(noisy, 0.5)
        for w in range(4):
            ours, theirs = transformer.windowed(w)(noisy, 0.5), AttentionWithin(transformer, w, 2)(noisy, 0.5)
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
            assert (theirs - whole).abs().max() > 0.01
        assert torch.equal(AttentionWithin(transformer, 4, 2)(noisy, 0.5), whole)  # from border to border
        assert torch.equal(transformer(noisy, 0.5), whole)  # and nothing is left behind


def test_measured_windows_are_the_losses_of_our_windowed_transformer(transformer, noisy):
    found = measure_attention_windows(transformer, noisy, TIMES, (1, 4), per_layer=True, seed=3)
    members = {"global": transformer, "near": transformer.windowed(1)}
    expected = measure_losses(members, noisy, TIMES, seed=3, batch=64)
    assert (found.grid, found.patch, found.masked, found.left) == (GRID, 2, 3, 0)
    assert found.layers == ("all", "0", "1", "2")
    np.testing.assert_allclose(found.distance[:, 0, 0], expected.distance[:, 1], rtol=1e-4)
    np.testing.assert_allclose(found.loss_rise[:, 0, 0], expected.gap[:, 1], rtol=1e-3)
    np.testing.assert_allclose(found.loss, expected.loss[:, 0], rtol=1e-6)
    assert np.count_nonzero(found.distance[:, :, 1]) == 0
    assert (found.distance[:, :, 0] > 0).all()
    assert len(np.unique(found.distance[0, :, 0])) == 4


def test_one_layer_alone_hides_what_lies_beyond_its_window_in_that_layer_only(transformer, noisy):
    """With every layer at window 0 the far corner is not seen; through one that is left open it is."""
    moved = noisy.clone()
    moved[:, :, -1, -1] += 1
    with torch.inference_mode():

        def change(layers):
            narrow = AttentionWithin(transformer, 0, 2, layers)
            return (narrow(moved, 0.5) - narrow(noisy, 0.5))[:, :, 0, 0].abs().max()

        assert change((0, 1, 2)) == change(None) == 0
        assert all(change(layers) > 0 for layers in ((0, 1), (0, 2), (1, 2), (0,)))


@settings(max_examples=25, deadline=None)
@given(grid=st.tuples(st.integers(1, 5), st.integers(1, 5)), window=st.integers(0, 5))
def test_a_mask_is_that_of_the_distances(grid, window):
    places = torch.cartesian_prod(*(torch.arange(side) for side in grid))
    apart = (places[:, None] - places[None]).abs().amax(-1)
    assert torch.equal(near(grid, window, torch.device("cpu")), apart <= window)


@settings(max_examples=25, deadline=None)
@given(patch=st.integers(1, 4), down=st.integers(2, 4), across=st.integers(2, 4))
def test_the_patch_is_read_off_the_number_of_tokens(patch, down, across):
    network = DiTDenoiser((1, patch * down, patch * across), width=4, heads=1, depth=1, patch=patch)
    found = _tokens(network, held_out(network, torch.zeros(1, 1, patch * down, patch * across), None, 1), (0.5,), None)
    assert found.grid[0] * found.grid[1] == down * across
    assert (found.patch, found.grid) == (patch, (down, across))


class Attends(Denoiser):
    """One attention over pixels, by whichever of PyTorch's ways; its answer is what is read off."""

    def __init__(self, attend, side=4):
        super().__init__((1, side, side))
        self.attend = attend

    def forward(self, x_t, t, cond=None):
        tokens = x_t.flatten(2).transpose(1, 2)
        return self.attend(tokens.repeat(1, 1, 8)).mean(2).view_as(x_t)


def scaled(**given):
    return lambda x: nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], **given)[:, 0]


HEADS = nn.MultiheadAttention(8, 2, batch_first=True).eval()
ENCODER = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
HALF = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) < 0.5
HALF = HALF | torch.eye(16, dtype=torch.bool)
SCORES = torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
WAYS = {
    "plain": scaled(),
    "a mask": scaled(attn_mask=HALF),
    "scores": scaled(attn_mask=SCORES),
    "causal": scaled(is_causal=True),
    "heads": lambda x: HEADS(x, x, x, need_weights=False)[0],
    "heads and a mask": lambda x: HEADS(x, x, x, attn_mask=~HALF)[0],
    "heads and scores": lambda x: HEADS(x, x, x, attn_mask=SCORES)[0],
    "an encoder": ENCODER,
    "compiled": torch.compile(scaled(), backend="eager"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_attend_is_restricted(way):
    denoiser = Attends(WAYS[way])
    found = measure_influence(AttentionWithin(denoiser, 1, 1), torch.randn(20, 1, 4, 4), (0.5,), pixels=4)
    assert np.count_nonzero(found.beyond[0, 1:]) == 0
    assert found.share[0, 1] > 0
    assert measure_influence(denoiser, torch.randn(20, 1, 4, 4), (0.5,), pixels=4).beyond[0, 2] > 0


def test_other_attention_is_left_alone_and_counted():
    text = torch.randn(1, 1, 7, 8)

    def attend(x):
        x = scaled()(x)
        x = x + nn.functional.scaled_dot_product_attention(x[:, None], text, text)[:, 0]  # across
        pooled = x.view(-1, 2, 2, 2, 2, 8).mean((2, 4)).flatten(1, 2)
        return x + scaled()(pooled).mean(1, keepdim=True)  # a coarser grid

    denoiser, x = Attends(attend), torch.randn(8, 1, 4, 4)
    fine = measure_attention_windows(denoiser, x, (0.5,), (1,))
    coarse = measure_attention_windows(denoiser, x, (0.5,), (0,), patch=2)
    assert (fine.grid, fine.patch, fine.masked, fine.left) == ((4, 4), 1, 1, 2)
    assert (coarse.grid, coarse.patch, coarse.masked, coarse.left) == ((2, 2), 2, 1, 2)
    with pytest.raises(PhasewiseError, match=r"no attention over the 1x1 tokens of patch 4; .* try 1 or 2"):
        measure_attention_windows(denoiser, x, (0.5,), patch=4)


def test_a_network_without_attention_is_refused_where_it_is_asked_for(field, images):
    with pytest.raises(PhasewiseError, match="GaussianDenoiser calls no attention over a grid"):
        pw.reach(field.denoiser(), images, times=(0.5,), n=4, windows=(1,))


def test_a_hybrid_is_looked_at_where_it_attends(transformer, noisy):
    schedule = pw.HybridSchedule((1.0, 0.5), ("flat", "whole"))
    hybrid = pw.HybridDenoiser({"flat": WienerDenoiser.fit(noisy), "whole": transformer}, schedule)
    found = measure_attention_windows(hybrid, noisy, (0.9, 0.3), (1,))
    assert found.distance[0, 0, 0] == 0 < found.distance[1, 0, 0]
    near = AttentionWithin(hybrid, 1, 2)
    assert near.sampling_plan() == hybrid.sampling_plan()
    assert (near.member_at(0.3).member, near.member_at(0.3).window) == (transformer, 1)
    images = pw.sample(near, 2, seed=0)
    assert not torch.allclose(images, pw.sample(hybrid, 2, seed=0))


# --- all of it ------------------------------------------------------------------------------------------------------


class Told(Denoiser):
    """Every pixel times the number it is told."""

    takes_condition = True

    def forward(self, x_t, t, cond=None):
        return cond.reshape(-1, 1, 1, 1) * x_t


def test_a_condition_goes_with_its_image():
    labels = torch.arange(30) % 3 + 1
    x = torch.randn(30, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    parts = {f"labels_{part}": labels for part in ("train", "validation", "test")}
    data = ImageData("noise", train=x, validation=x, test=x, pixel_range=(-5, 5), **parts)
    found = pw.reach(Told((1, SIDE, SIDE)), data, times=(0.5,), cond="labels", n=15, batch=4)
    assert found.influence.mass[0] == pytest.approx(float(labels[:15].square().float().mean()))
    assert np.count_nonzero(found.windowed.change) == 0
    one = measure_influence(Told((1, SIDE, SIDE)), data, (0.5,), cond=2)
    assert one.mass[0] == pytest.approx(4)
    with pytest.raises(PhasewiseError, match="cond has 3 rows for 30 images"):
        pw.reach(Told((1, SIDE, SIDE)), data, cond=torch.arange(3))


class Breaks(Denoiser):
    """A number nowhere but at early times; ``derivative`` alone, where asked."""

    def __init__(self, derivative=False):
        super().__init__((1, SIDE, SIDE))
        self.derivative = derivative

    def forward(self, x_t, t, cond=None):
        if t < 0.5:
            return x_t
        return (x_t * 0).sqrt() if self.derivative else x_t / (0 * t)


def test_times_without_numbers_are_named(images):
    wrapped = pw.wrap(lambda x, t: x / (t < 0.5).view(-1, 1, 1, 1), (1, SIDE, SIDE), predicts="x0")
    for call in (
        lambda: measure_influence(Breaks(), images, (0.2, 0.6, 0.9), n=4),
        lambda: measure_influence(Breaks(derivative=True), images, (0.2, 0.6, 0.9), n=4),
        lambda: measure_windowed_answer(Breaks(), images, (0.2, 0.6, 0.9), (1,), n=4),
        lambda: pw.reach(Breaks(), images, times=(0.2, 0.6, 0.9), n=4),
        lambda: pw.reach(wrapped, images, times=(0.2, 0.6, 0.9), n=4),
    ):
        with pytest.raises(PhasewiseError, match=r"NaN or infinite values at t = 0\.6, 0\.9; leave these times out"):
            call()


def test_a_seed_gives_the_same_numbers_whatever_the_batch_and_leaves_the_network_as_it_was(images):
    network = randomise(pw.UNetDenoiser((1, SIDE, SIDE), width=8, multipliers=(1, 2))).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    found = [
        pw.reach(network, images, times=(0.4,), n=6, batch=b, seed=s) for b, s in ((12, 0), (12, 0), (5, 0), (12, 1))
    ]
    assert found[0].to_json() == found[1].to_json()
    np.testing.assert_allclose(found[2].influence.share, found[0].influence.share, rtol=1e-4)
    assert not np.allclose(found[3].influence.share, found[0].influence.share)
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_a_norm_that_is_not_there_in_evaluation_is_no_leak():
    """Batch statistics are those of training: a caller's training mode is not what is measured."""
    module = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 3, padding=1))

    stack = pw.wrap(lambda x, t: module(x), (1, SIDE, SIDE), predicts="x0", radius=2)
    stack.add_module("kept", randomise(module).train())
    found = pw.reach(stack, torch.randn(16, 1, SIDE, SIDE), n=8)
    assert np.count_nonzero(found.influence.beyond[:, 2:]) == 0


def test_inside_inference_mode_as_outside(field, images):
    outside = measure_influence(field.denoiser(), images, (0.5,), n=4)
    with torch.inference_mode():
        assert measure_influence(field.denoiser(), images.clone(), (0.5,), n=4).to_json() == outside.to_json()


def test_a_leak_is_counted_from_a_radius(leaks, field, images):
    assert (leaks[True].influence.leak(3)[0] > leaks[True].influence.leak()[0]).all()
    whole = measure_influence(field.denoiser(), images, (0.5,), n=4)
    with pytest.raises(PhasewiseError, match="the denoiser declares none"):
        whole.leak()
    with pytest.raises(PhasewiseError, match="got 9"):
        whole.leak(9)
    with pytest.raises(PhasewiseError, match=r"part must lie in \(0, 1\]"):
        whole.radius(0)
