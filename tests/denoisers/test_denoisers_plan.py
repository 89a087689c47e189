"""Pooled answers with their closed form, and plans with a local network: exact laws, fields of view, training."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from receptive_field import check_radius_law, randomise, telling_pixels
from torch import Tensor
from torch.nn import functional as F

import phasewise as pw
from phasewise.denoisers import LocalDenoiser, PlanDenoiser, PooledDenoiser, UNetDenoiser, WienerDenoiser, pool_images
from phasewise.denoisers.network import relative_log_snr
from phasewise.denoisers.pooled import Lift, PooledPath
from phasewise.errors import PhasewiseError
from phasewise.paths import CosinePath, LinearPath, NoisePath, VarianceExplodingPath, translate
from phasewise.sampling import integrate
from phasewise.training import denoising_loss

SHAPE, SMALL = (2, 8, 12), (2, 4, 6)
TIMES = (0.0, 0.02, 0.3, 0.8, 1.0)


def noise(n: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


@cache
def images() -> Tensor:
    """Smooth patches with a detail that follows from them in part."""
    coarse = noise(64, *SMALL)
    lift = F.interpolate(coarse, scale_factor=2.0, mode="bilinear")
    return 0.5 + 0.3 * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1) * (lift + 0.2 * noise(64, *SHAPE, seed=1))


def unet(shape: tuple[int, int, int] = SMALL, **choices: object) -> UNetDenoiser:
    return UNetDenoiser(shape, width=8, multipliers=(1, 1), heads=2, **choices)  # type: ignore[arg-type]


def planned(radius: int = 2, path: NoisePath | None = None, **choices: object) -> PlanDenoiser:
    local = LocalDenoiser(SHAPE, radius, width=16, context=2, path=path)
    return PlanDenoiser(unet(), local, 2, **choices)  # type: ignore[arg-type]


def trained(**choices: object) -> PlanDenoiser:
    """With moments of the images and random weights in every layer."""
    denoiser = planned(**choices)  # type: ignore[arg-type]
    denoiser.fit_moments(images())
    return randomise(denoiser)  # type: ignore[return-value]


# --- pooling and lifting ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, derandomize=True)
@given(t=st.floats(0.01, 0.99), factor=st.integers(2, 9), path=st.sampled_from([LinearPath(), CosinePath()]))
def test_pooling_raises_the_signal_to_noise_ratio_by_the_pixels_of_a_block(
    t: float, factor: int, path: NoisePath
) -> None:
    pooled = PooledPath(path, factor)
    assert float(pooled.gamma(t)) == pytest.approx(factor**2 * float(path.gamma(t)))
    assert float(pooled.t_of_log_snr(pooled.log_snr(t))) == pytest.approx(t)


def test_the_lift_is_least_squares_and_leaves_the_pooled_image_alone() -> None:
    lift = Lift(SHAPE, 2)
    lift.fit(images())
    pooled = pool_images(images(), 2)
    lifted = lift(pooled)
    torch.testing.assert_close(pool_images(lifted, 2), pooled)
    missed = images() - lifted
    torch.testing.assert_close(missed.square().mean(0, keepdim=True), lift.missed)
    # what is missed is uncorrelated with every pooled pixel the lift sees: here the block's own
    own = lift.repeated(pooled - lift.mean)
    for phase in range(4):
        rows, columns = phase // 2, phase % 2
        part = missed[:, :, rows::2, columns::2], own[:, :, rows::2, columns::2]
        across = torch.einsum("nchw,ndhw->cd", *part) / part[0].shape[0]
        assert float(across.abs().max()) < 1e-3
    assert missed.square().mean() < 0.7 * lift.detail(images()).square().mean()


# --- the pooled denoiser ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [LinearPath(), VarianceExplodingPath(0.01, 30.0)])
@pytest.mark.parametrize("t", TIMES)
def test_images_of_whole_blocks_are_denoised_exactly(t: float, path: NoisePath) -> None:
    small = noise(40, *SMALL)
    blocks = F.interpolate(small, scale_factor=2.0, mode="nearest")
    whole = WienerDenoiser.fit(blocks, path=path)
    pooled = PooledDenoiser(WienerDenoiser.fit(small), SHAPE, 2, path=path).fit(blocks)
    if isinstance(path, VarianceExplodingPath) and t in (0.0, 1.0):
        return  # beyond the ends of the member's own path
    x_t = path.add_noise(blocks[:5], noise(5, *SHAPE, seed=2), t)
    torch.testing.assert_close(pooled(x_t, t), whole(x_t, t), rtol=0, atol=2e-4)


@pytest.mark.parametrize("t", TIMES)
def test_white_images_are_denoised_exactly(t: float) -> None:
    member = WienerDenoiser(SMALL)  # of unit variance
    member.eigenvalues.fill_(1 / 4)  # the mean over four pixels
    pooled = PooledDenoiser(member, SHAPE, 2)
    pooled.lift.missed.fill_(1 - 1 / 4)
    x_t = noise(3, *SHAPE)
    torch.testing.assert_close(pooled(x_t, torch.full((3,), t)), (1 - t) / ((1 - t) ** 2 + t**2) * x_t)


def test_a_pooled_denoiser_tells_its_member_the_class() -> None:
    member = randomise(unet(classes=3))
    pooled = PooledDenoiser(member, SHAPE, 2)  # type: ignore[arg-type]
    x, labels = noise(2, *SHAPE), torch.tensor([0, 2])
    assert pooled.takes_condition
    assert not torch.equal(pooled(x, 0.5, labels), pooled(x, 0.5, labels.flip(0)))
    with pytest.raises(PhasewiseError, match="0 to 2"):
        pooled.given(3)


# --- the plan denoiser ------------------------------------------------------------------------------------------------


class AtAFixedPlan(LocalDenoiser):
    """What a plan denoiser answers where the plan is the same whatever the pixels are."""

    def __init__(self, whole: PlanDenoiser, plan: Tensor) -> None:
        super().__init__(SHAPE, whole.local.radius or 0, width=16)
        self.whole, self.fixed = [whole], plan

    def forward(self, x_t: Tensor, t: object, cond: Tensor | None = None) -> Tensor:
        whole, plan = self.whole[0], self.fixed.expand(len(x_t), -1, -1, -1)
        before, whole.plan = whole.plan, lambda *_: plan  # type: ignore[method-assign]
        try:
            return whole(x_t, t)  # type: ignore[arg-type]
        finally:
            whole.plan = before  # type: ignore[method-assign]


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_at_a_fixed_plan_the_field_of_view_is_exactly_the_local_radius(radius: int) -> None:
    whole = trained(radius=radius)
    pixels = telling_pixels(*SHAPE[1:], whole.local.block)
    check_radius_law(AtAFixedPlan(whole, noise(1, *SMALL)), pixels)


def test_through_the_plan_all_is_seen() -> None:
    whole = trained()
    assert whole.radius is None
    x = noise(1, *SHAPE).requires_grad_()
    (gradient,) = torch.autograd.grad(whole(x, 0.5)[0, :, 0, 0].sum(), x)
    assert bool((gradient.abs().amax(1) > 0).all())


@pytest.mark.parametrize("path", [LinearPath(), CosinePath()])
@pytest.mark.parametrize("t", [0.03, 0.4, 0.9])
def test_the_plan_is_the_planners_answer_and_the_rest_its_closed_form(path: NoisePath, t: float) -> None:
    whole, x_t, time = trained(path=path), noise(3, *SHAPE), torch.tensor(t)
    alpha, root, _ = whole.precondition(time)
    h = (x_t - alpha * whole.data_mean) / root
    log_snr = relative_log_snr(path, time, 3, whole.data_std.mean())
    plan = whole.plan(h, log_snr)
    there = translate(pool_images(x_t, 2), t, PooledPath(path, 2), whole.planner.path)
    torch.testing.assert_close(plan, whole.planner(*there), rtol=0, atol=2e-5)
    # about the lifted plan, of mean square v, instead of about the data mean
    lifted, v = whole.lift(plan), whole.lift.missed.mean((2, 3), keepdim=True)
    said = whole.local.backbone(torch.cat([h, (lifted - whole.data_mean) / whole.data_std], 1), log_snr)
    a, s = path.alpha(time), path.sigma(time)
    total = a**2 * v + s**2
    answer = (s**2 * lifted + a * v * x_t) / total + s * (v / total).sqrt() * said
    torch.testing.assert_close(whole(x_t, t), answer, rtol=0, atol=2e-5)


def test_a_silent_network_answers_the_mean_at_the_end_of_noise_and_the_input_at_none() -> None:
    whole = planned()
    whole.fit_moments(images())
    x = noise(2, *SHAPE)
    torch.testing.assert_close(whole(x, 0.0), x, rtol=0, atol=2e-3)
    torch.testing.assert_close(whole(x, 1.0), whole.data_mean.expand_as(x), rtol=0, atol=2e-2)


def test_both_parts_are_told_the_class() -> None:
    whole = PlanDenoiser(unet(classes=3), LocalDenoiser(SHAPE, 1, width=16, context=2, classes=3), 2)
    whole.fit_moments(images())
    randomise(whole)
    x, labels = noise(2, *SHAPE), torch.tensor([0, 2])
    assert not torch.equal(whole(x, 0.5, labels), whole(x, 0.5, labels.flip(0)))


def test_a_plan_may_be_kept_for_some_steps() -> None:
    whole = trained()
    members = {"whole": whole, "local": pw.ReusedFeatures(whole, "plan")}
    times, start = (0.9, 0.6, 0.3), noise(3, *SHAPE)
    hybrid = pw.HybridDenoiser(members, pw.HybridSchedule(times, ("whole", "local", "local"), solver="exp_ab2"))
    plans: list[Tensor] = []
    plan = whole.plan

    def held(*given: Tensor) -> Tensor:
        plans.extend([] if plans else [plan(*given)])
        return plans[0]

    with torch.inference_mode():
        kept = integrate(hybrid, start, times, "exp_ab2")
        whole.plan = held  # type: ignore[method-assign]
        by_hand = integrate(whole, start, times, "exp_ab2")
    torch.testing.assert_close(kept, by_hand)
    del whole.plan  # type: ignore[method-assign]
    assert not torch.allclose(integrate(whole, start, times, "exp_ab2"), kept)


def test_a_kept_plan_costs_the_local_network_alone() -> None:
    whole = trained()
    cost = pw.count_flops(pw.ReusedFeatures(whole, "plan"), SHAPE)
    planner = pw.count_flops(whole.planner, SMALL)
    assert cost == pw.count_flops(whole, SHAPE) - planner


@pytest.mark.parametrize(("shape", "factor", "places"), [((1, 28, 28), 2, 7), ((3, 64, 48), 4, 8), ((1, 8, 8), 2, 4)])
def test_the_usual_parts_fit_the_images(shape: tuple[int, int, int], factor: int, places: int) -> None:
    whole = PlanDenoiser.of_shape(shape, factor, 3)
    assert -(-max(whole.planner.image_shape[1:]) // whole.planner.patch) == places
    assert (whole.local.radius, whole.local.context) == (3, shape[0])
    assert pw.count_flops(whole, shape) < pw.count_flops(UNetDenoiser(shape), shape)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flow", "paper"])
def test_a_training_has_the_plans_own_loss_and_a_held_out_one_has_not(kind: str) -> None:
    whole, x, z = trained(weight=0.5), images()[:4], noise(4, *SHAPE, seed=3)
    t = torch.tensor([0.1, 0.3, 0.6, 0.9])
    held_out = denoising_loss(whole, x, z, t, kind)
    whole.train()
    both = denoising_loss(whole, x, z, t, kind)
    # the planner's own loss on pooled images: their noise is a half as large
    there = whole.planner.path.t_of_log_snr(PooledPath(whole.path, 2).log_snr(t))
    own = denoising_loss(whole.planner, pool_images(x, 2), 2 * pool_images(z, 2), there, kind)
    if kind == "flow":
        torch.testing.assert_close(both, held_out + 0.5 * own, rtol=2e-4, atol=0)
    else:
        assert bool((both > held_out).all())
    whole.weight = 0.0
    torch.testing.assert_close(denoising_loss(whole, x, z, t, kind), held_out)


def test_trained_together_or_the_plan_first() -> None:
    torch.manual_seed(0)
    whole = planned()
    before = {k: v.clone() for k, v in whole.state_dict().items()}
    pw.train(whole, images(), steps=3, batch=8, progress=False)
    moved = {k.split(".")[0] for k, v in whole.named_parameters() if not torch.equal(v, before[k])}
    assert moved == {"planner", "local"}
    planner = whole.planner
    kept = {k: v.clone() for k, v in planner.state_dict().items()}
    second = PlanDenoiser(planner, LocalDenoiser(SHAPE, 2, width=16, context=2), 2, frozen=True)
    start = second.local.head.weight.clone()
    pw.train(second, images(), steps=3, batch=8, progress=False)
    assert all(torch.equal(v, kept[k]) for k, v in planner.state_dict().items())
    assert not torch.equal(second.local.head.weight, start)
    with pytest.raises(PhasewiseError, match="trained"):
        pw.train(planned(frozen=True), images(), steps=1, batch=8, progress=False)


# --- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "says"), [
    (lambda: pool_images(noise(2, 1, 9, 6), 2), "does not divide; take one of 3"),
    (lambda: pool_images(noise(2, 1, 7, 5), 2), "resize"),
    (lambda: pool_images(noise(2, 1, 4, 8), 5), "larger than the image"),
    (lambda: pool_images(noise(2, 1, 4, 8), 1), "whole number of pixels >= 2"),
    (lambda: PooledDenoiser(unet(), (2, 8, 8), 2), "member is for"),
    (lambda: PooledDenoiser(unet(), (2, 4, 6), 8), "larger than the image"),
    (lambda: PooledDenoiser(unet(), SHAPE, 2).fit(noise(2, 2, 4, 4)), "do not fit"),
    (lambda: PooledDenoiser(unet(), SHAPE, 2)(noise(2, *SMALL), 0.5), "x_t has shape"),
    (lambda: PlanDenoiser(unet(), LocalDenoiser(SHAPE, 2, context=2), 16), "larger than the image"),
    (lambda: PlanDenoiser(unet(), LocalDenoiser(SHAPE, 2, context=2), 3), "does not divide"),
    (lambda: PlanDenoiser(unet((2, 2, 3)), LocalDenoiser(SHAPE, 2, context=2), 2), "planner is for"),
    (lambda: PlanDenoiser(unet(), LocalDenoiser(SHAPE, 2), 2), "context=2"),
    (lambda: PlanDenoiser(unet(), LocalDenoiser(SHAPE, 2, context=2, classes=2), 2), "classes"),
    (lambda: PlanDenoiser(WienerDenoiser(SMALL), LocalDenoiser(SHAPE, 2, context=2), 2), "a network for"),
    (lambda: LocalDenoiser(SHAPE, 2, context=2)(noise(2, *SHAPE), 0.5), "PlanDenoiser"),
])  # fmt: skip
def test_what_does_not_fit_is_named(make, says):
    with pytest.raises(PhasewiseError, match=says):
        make()
