"""What a trajectory keeps: whole answers held or carried on, and parts of networks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_denoiser import Plain
from receptive_field import randomise
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import (
    Denoiser,
    DiTDenoiser,
    GuidedDenoiser,
    HybridDenoiser,
    LocalDenoiser,
    PixelDenoiser,
    ReusedAnswer,
    ReusedFeatures,
    UNetDenoiser,
    WienerDenoiser,
    for_inference,
    load_denoiser,
    save_denoiser,
    site,
)
from phasewise.denoisers.kept import carried, extrapolation_weights, key_of, linear_time
from phasewise.errors import PhasewiseError
from phasewise.metrics.cost import count_flops, measure_ms
from phasewise.paths import CosinePath, LinearPath, NoisePath, VarianceExplodingPath
from phasewise.results import HybridSchedule

SHAPE = (1, 8, 8)
TIMES = (1.0, 0.8, 0.6, 0.45, 0.3, 0.1)


def unet(**how: object) -> UNetDenoiser:
    torch.manual_seed(0)
    return randomise(UNetDenoiser(SHAPE, width=8, **how), std=0.1).eval()  # type: ignore[return-value]


def transformer(**how: object) -> DiTDenoiser:
    torch.manual_seed(0)
    return randomise(DiTDenoiser(SHAPE, width=16, depth=4, heads=2, patch=2, **how), std=0.1).eval()  # type: ignore[return-value]


def wiener(path: NoisePath | None = None) -> WienerDenoiser:
    generator = torch.Generator().manual_seed(1)
    smooth = torch.randn(60, 1, 4, 4, generator=generator).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return WienerDenoiser.fit(0.5 + 0.2 * smooth, path=path)


def drawn(members: dict[str, Denoiser], assignment: str, solver: str = "exp_ab2", times: tuple[float, ...] = TIMES,
          path: NoisePath | None = None, n: int = 3) -> Tensor:  # fmt: skip
    plan = HybridSchedule(times, tuple(assignment.split()), solver, path=(path or LinearPath()).config())
    return pw.sample(HybridDenoiser(members, plan), n=n, seed=2)


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [LinearPath(), CosinePath(), VarianceExplodingPath(0.02, 20.0)])
def test_with_the_answer_held_two_steps_of_an_exponential_integrator_are_one_longer_step(path: NoisePath) -> None:
    members = {"net": Plain(wiener(path)), "held": ReusedAnswer(SHAPE, 0, path=path)}
    two = drawn(members, "net net held net net", "ddim", (0.9, 0.7, 0.5, 0.3, 0.1), path)
    one = drawn(members, "net net net net", "ddim", (0.9, 0.7, 0.3, 0.1), path)
    torch.testing.assert_close(two, one, rtol=1e-4, atol=2e-5)


def test_with_the_answer_held_two_ancestral_steps_are_one_longer_step_in_distribution() -> None:
    """Mean and variance of x_u given x_t and D, which two steps by way of s must have like one step."""
    path = LinearPath()

    def step(t: float, s: float) -> tuple[float, float, float]:
        """x_s = a x_t + b D + c z."""
        alpha_t, sigma_t, alpha_s, sigma_s = 1 - t, t, 1 - s, s
        forward = alpha_t / alpha_s
        added = sigma_t**2 - (forward * sigma_s) ** 2
        return forward * (sigma_s / sigma_t) ** 2, alpha_s * added / sigma_t**2, math.sqrt(added) * sigma_s / sigma_t

    (a1, b1, c1), (a2, b2, c2), (a, b, c) = step(0.8, 0.6), step(0.6, 0.3), step(0.8, 0.3)
    assert (a2 * a1, a2 * b1 + b2, math.hypot(a2 * c1, c2)) == pytest.approx((a, b, c), rel=1e-12)
    # and the sampler's own steps are these: many draws of both ways
    members = {"net": Plain(wiener(path)), "held": ReusedAnswer(SHAPE, 0)}
    two = drawn(members, "net held net", "ancestral", (0.8, 0.6, 0.3), n=4000)
    one = drawn(members, "net net", "ancestral", (0.8, 0.3), n=4000)
    apart = (two.mean(0) - one.mean(0)).abs() / (2 * one.var(0) / 4000).sqrt()
    assert float(apart.max()) < 4.5
    assert float((two.var(0) / one.var(0)).log().abs().max()) < 0.15


class Along(Denoiser):
    """Answers that depend on the time alone, by a polynomial in the linear path's time."""

    def __init__(self, *coefficients: float, path: NoisePath | None = None) -> None:
        super().__init__(SHAPE, path)
        self.coefficients = coefficients

    def forward(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> Tensor:  # type: ignore[override]
        w = linear_time(float(self.path.log_snr(t)))
        return torch.full_like(x_t, sum(c * w**k for k, c in enumerate(self.coefficients)))


@pytest.mark.parametrize("path", [LinearPath(), CosinePath()])
@pytest.mark.parametrize(("order", "coefficients"), [(0, (0.3,)), (1, (0.3, 0.5)), (2, (0.3, 0.5, -0.7))])
def test_an_answer_that_is_a_polynomial_in_time_is_carried_on_exactly(
    order: int, coefficients: tuple[float, ...], path: NoisePath
) -> None:
    members = {"net": Along(*coefficients, path=path), "on": ReusedAnswer(SHAPE, order, path=path)}
    fresh = drawn(members, "net net net net net net", path=path)
    torch.testing.assert_close(drawn(members, "net net net on on on", path=path), fresh, rtol=1e-4, atol=1e-5)
    if order < 2:  # and one of a higher degree is not
        rough = {**members, "net": Along(*coefficients, 1.0, path=path)}
        assert (
            drawn(rough, "net net net on on on", path=path) - drawn(rough, "net " * 6, path=path)
        ).abs().max() > 0.01


@pytest.mark.parametrize("quantity", ["eps", "v"])
def test_noise_and_velocity_carried_on_give_the_mean_they_imply(quantity: str) -> None:
    """One step by hand: two fresh answers, then the third from their noises."""
    net, on = wiener(), ReusedAnswer(SHAPE, 1, quantity=quantity)
    x, seen = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3)), []

    class Spy(Denoiser):
        def forward(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> Tensor:  # type: ignore[override]
            mean = net(x_t, t)
            seen.append((t, x_t, mean))
            return mean

    plan = HybridSchedule((0.9, 0.7, 0.4), ("net", "net", "on"), "ddim")
    out = pw.sampling.integrate(HybridDenoiser({"net": Spy(SHAPE), "on": on}, plan), x, plan.times, "ddim")
    (t0, x0, d0), (t1, x1, d1) = seen
    x2 = (0.4 / t1) * x1 + (0.6 - (1 - t1) * 0.4 / t1) * d1
    z0, z1 = ((x - (1 - t) * d) / t for t, x, d in ((t0, x0, d0), (t1, x1, d1)))
    one, two = (z0, z1) if quantity == "eps" else (z0 - d0, z1 - d1)
    found = two + (0.4 - t1) / (t1 - t0) * (two - one)
    wanted = (x2 - 0.4 * found) / 0.6 if quantity == "eps" else x2 - 0.4 * found
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)


def test_an_answer_is_clamped_to_the_pixel_range() -> None:
    members = {"net": Along(1.5, -1.5), "on": ReusedAnswer(SHAPE, 1, clamp=(0.0, 1.0))}
    assert float(drawn(members, "net net net net net on").max()) == 1.0
    members["on"] = ReusedAnswer(SHAPE, 1)
    assert float(drawn(members, "net net net net net on").max()) > 1.3


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=3, unique_by=lambda v: round(v, 1)), st.floats(-3, 3))
def test_weights_of_an_extrapolation_sum_to_one_and_fit_their_points(places: list[float], at: float) -> None:
    weights = extrapolation_weights(places, at)
    assert sum(weights) == pytest.approx(1, abs=1e-6)
    for k, place in enumerate(places):
        assert extrapolation_weights(places, place) == pytest.approx([float(i == k) for i in range(len(places))])


def test_a_place_at_infinity_is_left_out() -> None:
    values = [(-math.inf, torch.ones(1)), (0.0, torch.zeros(1)), (1.0, torch.ones(1))]
    assert carried(values, 2.0, "log_snr").item() == pytest.approx(2)
    assert carried(values[:2], 2.0, "log_snr").item() == 0
    assert linear_time(-math.inf) == 1
    assert linear_time(math.inf) == 0


# --- parts of networks ----------------------------------------------------------------------------------------------

SPLIT = {
    "unet": lambda: (unet(), "level1"),
    "unet-deep": lambda: (unet(multipliers=(1, 2, 2)), "level2"),
    "blocks": lambda: (transformer(), "blocks/1:3"),
    "attention": lambda: (transformer(window=1), "attention"),
    "perceptron": lambda: (transformer(), "perceptron"),
}


@pytest.mark.parametrize("name", SPLIT)
def test_a_part_kept_changes_the_answer_costs_less_and_leaves_fresh_steps_alone(name: str) -> None:
    network, part = SPLIT[name]()
    members = {"net": network, "kept": ReusedFeatures(network, part)}
    fresh = drawn(members, "net net net net net net")
    torch.testing.assert_close(fresh, pw.sample(network, n=3, seed=2, times=TIMES), rtol=0, atol=0)
    assert 1e-6 < (drawn(members, "net net net kept net net") - fresh).abs().max() < 1
    assert 0 < count_flops(members["kept"], SHAPE) < count_flops(network, SHAPE)
    assert measure_ms({"kept": members["kept"]}, SHAPE, batch=2, repeats=1)["kept"][0] > 0


@pytest.mark.parametrize("name", SPLIT)
def test_asked_again_at_the_same_place_the_kept_part_gives_the_whole_answer(name: str) -> None:
    network, part = SPLIT[name]()
    kept = ReusedFeatures(network, part)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        whole = network(x, 0.5)
        with kept.primed(x, 0.5):
            torch.testing.assert_close(kept(x, 0.5), whole, rtol=1e-4, atol=1e-5)


class Split(Denoiser):
    """A part that is a polynomial in the linear path's time, beside a fresh one that is the input."""

    def reusable_parts(self) -> tuple[str, ...]:
        return ("inside",)

    def forward(self, x_t: Tensor, t: float, cond: Tensor | None = None) -> Tensor:  # type: ignore[override]
        kept = site(self)

        def inside() -> Tensor:
            return torch.full_like(x_t, 0.3 + 1.5 * t - 0.3 * t**2)

        return 0.1 * x_t + (inside() if kept is None else kept("inside", inside))


def test_a_part_of_your_own_is_held_or_carried_on_by_its_order() -> None:
    network = Split(SHAPE)
    members: dict[str, Denoiser] = {"net": network}
    members |= {f"kept{order}": ReusedFeatures(network, "inside", order) for order in (0, 1, 2)}
    fresh = drawn(members, "net net net net net net")
    apart = [float((drawn(members, f"net net net kept{k} kept{k} net") - fresh).abs().max()) for k in (0, 1, 2)]
    assert apart[0] > 2 * apart[1] > 100 * apart[2]
    assert apart[2] < 1e-5


def test_guidance_held_from_the_last_step_saves_one_of_two_calls() -> None:
    network = unet(classes=3)
    guided = GuidedDenoiser(network, 2.0, null=2)
    kept = ReusedFeatures(guided, "guidance")
    members = {"guided": guided, "kept": kept}
    one, two = (count_flops(d.given(0), SHAPE) for d in (kept, guided))
    assert one < 0.6 * two
    plan = HybridSchedule(TIMES, ("guided", "guided", "kept", "guided", "kept", "guided"), "exp_ab2")
    labels = torch.tensor([0, 1, 0])
    images = pw.sample(HybridDenoiser(members, plan), n=3, seed=0, cond=labels)
    whole = pw.sample(guided, n=3, seed=0, cond=labels, times=TIMES)
    plain = pw.sample(network, n=3, seed=0, cond=labels, times=TIMES)
    assert (images - whole).square().mean() < (images - plain).square().mean()


def test_a_network_and_its_window_are_two_and_copies_that_share_weights_are_one() -> None:
    network = transformer()
    assert key_of(network) != key_of(network.windowed(1))
    assert key_of(network) == key_of(for_inference(network, precision="bfloat16"))
    members = {"net": network, "kept": ReusedFeatures(network, "attention")}
    plan = HybridSchedule(TIMES, ("net", "net", "kept", "net", "kept", "net"))
    hybrid = HybridDenoiser(members, plan)
    half = pw.sample(for_inference(hybrid, precision="bfloat16"), n=2, seed=0)
    torch.testing.assert_close(half, pw.sample(hybrid, n=2, seed=0), rtol=0.1, atol=0.1)


def test_batches_and_paths_change_nothing() -> None:
    network = unet()
    members = {"net": network, "on": ReusedAnswer(SHAPE, 1), "kept": ReusedFeatures(network, "level1")}
    plan = HybridSchedule(TIMES, ("net", "net", "on", "net", "kept", "net"), "sde_dpmpp_2m")
    hybrid = HybridDenoiser(members, plan)
    whole = pw.sample(hybrid, n=4, seed=0)
    torch.testing.assert_close(pw.sample(hybrid, n=4, seed=0, batch=1), whole, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(pw.sample(hybrid.on(CosinePath()), n=4, seed=0)[:0], whole[:0])
    ready = pw.sampling.for_sampling(hybrid, batch=4)
    assert torch.equal(ready(4, seed=0), whole)


def test_a_hybrid_with_kept_parts_is_read_as_it_was_written_and_weights_are_written_once(tmp_path: Path) -> None:
    network = unet()
    members = {
        "kept": ReusedFeatures(network, "level1", 1),  # named before its network
        "net": network,
        "on": ReusedAnswer(SHAPE, 1, clamp=(0.0, 1.0)),
    }
    plan = HybridSchedule(TIMES, ("net", "net", "kept", "on", "net", "kept"))
    hybrid = HybridDenoiser(members, plan)
    again = load_denoiser(save_denoiser(hybrid, tmp_path / "h"))
    assert torch.equal(pw.sample(again, n=2, seed=1), pw.sample(hybrid, n=2, seed=1))
    sizes = [f.stat().st_size for f in (tmp_path / "h").rglob("*.safetensors")]
    assert sum(size > 10_000 for size in sizes) == 1
    alone = load_denoiser(save_denoiser(members["kept"], tmp_path / "k"))
    assert isinstance(alone, ReusedFeatures)
    assert (alone.part, alone.order) == ("level1", 1)


# --- the closed form of each pixel -----------------------------------------------------------------------------------


def test_a_pixel_alone_is_the_data_mean_in_pure_noise_and_the_input_without_noise() -> None:
    images = torch.rand(40, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    pixel = PixelDenoiser.fit(images)
    x = torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pixel(x, 1.0), images.mean(0).expand(3, -1, -1, -1))
    torch.testing.assert_close(pixel(x, 0.0), x)
    moments, wanted = pixel.pixel_moments(), torch.std_mean(images, (0, 2, 3), correction=0)
    assert moments is not None
    torch.testing.assert_close(moments[0], wanted[1])
    torch.testing.assert_close(moments[1], wanted[0])
    # among linear guesses from the pixel itself none is better: the Wiener filter of independent pixels
    own = WienerDenoiser.fit(images)
    own.eigenvectors.copy_(torch.eye(40))
    own.eigenvalues.copy_(images.var(0, correction=0).flatten())
    torch.testing.assert_close(pixel(x, 0.4), own(x, 0.4), rtol=1e-4, atol=1e-5)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_reused_is_named() -> None:
    network, on = unet(), ReusedAnswer(SHAPE, 1)
    kept = ReusedFeatures(network, "level1")
    members: dict[str, Denoiser] = {"net": network, "on": on, "kept": kept, "r1": LocalDenoiser(SHAPE, 1)}
    with pytest.raises(PhasewiseError, match="step 1 of 6 reuses an answer"):
        drawn(members, "on net net net net net")
    with pytest.raises(
        PhasewiseError, match=r"step 2 of 6 reuses level1 \(kept\), but no step before it is taken by net"
    ):
        drawn(members, "r1 kept net net net net")
    with pytest.raises(PhasewiseError, match="heun calls a denoiser twice a step"):
        drawn(members, "net net on net net net", "heun")
    with pytest.raises(PhasewiseError, match="LocalDenoiser cannot be split at 'level1'; it names none"):
        ReusedFeatures(members["r1"], "level1")
    with pytest.raises(PhasewiseError, match="leans on earlier steps already"):
        ReusedFeatures(kept, "level1")
    with pytest.raises(PhasewiseError, match=r"cannot be split at 'level9'; it offers level1"):
        ReusedFeatures(network, "level9")
    with pytest.raises(PhasewiseError, match=r"cannot be split at 'blocks/3:9'; it offers blocks/0:4"):
        ReusedFeatures(transformer(), "blocks/3:9")
    with pytest.raises(PhasewiseError, match="within a sampler alone"):
        on(torch.zeros(1, *SHAPE), 0.5)
    with pytest.raises(PhasewiseError, match="within a sampler alone"):
        kept(torch.zeros(1, *SHAPE), 0.5)
    with pytest.raises(PhasewiseError, match="the first step of a trajectory is taken by a fresh member"):
        pw.sample(HybridDenoiser(members, HybridSchedule(TIMES, ("net", "net", "on", "net", "net", "net"))), n=1,
                  x_init=torch.zeros(1, *SHAPE), t_start=0.6)  # fmt: skip
    with pytest.raises(PhasewiseError, match="order"):
        ReusedAnswer(SHAPE, 3)
    with pytest.raises(PhasewiseError, match="clamp"):
        ReusedAnswer(SHAPE, 1, clamp=(1.0, 0.0))
