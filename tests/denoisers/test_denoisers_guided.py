"""Guidance without a classifier: the score of a sharpened posterior, two calls, and an interval that is a schedule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from receptive_field import randomise
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import Denoiser, Given, LocalDenoiser, OnPath, for_inference
from phasewise.denoisers.guided import interval_of
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.paths import CosinePath, LinearPath, NoisePath, Time, as_time
from phasewise.scheduling import measure_step_errors

SHAPE = (1, 4, 3)
NULL = 2


class Mixture(Denoiser):
    """The exact denoiser of two classes, Gaussians of mean +-1 at every pixel, variance SPREAD; NULL is for both."""

    takes_condition = True
    SPREAD = 0.3

    def means(self, x_t: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """(2, B, C, H, W) posterior means given each class, and (2, B) log-densities of x_t, up to a constant."""
        s = as_time(t, x_t)
        alpha, sigma = self.path.alpha(s), self.path.sigma(s)
        mean = torch.tensor([1.0, -1.0], dtype=x_t.dtype).reshape(2, 1, 1, 1, 1)
        total = alpha**2 * self.SPREAD + sigma**2
        off = x_t - alpha * mean
        return mean + alpha * self.SPREAD / total * off, -(off**2 / (2 * total)).flatten(2).sum(2)

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        means, log_p = self.means(x_t, t)
        both = (log_p.softmax(0)[:, :, None, None, None] * means).sum(0)
        if cond is None:
            return both
        each = means[cond.clamp(max=1), torch.arange(len(x_t))]
        return torch.where((cond == NULL).reshape(-1, 1, 1, 1), both, each)


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([0, 1, 1, 0])


def network(classes: int = 3) -> LocalDenoiser:
    torch.manual_seed(0)
    denoiser = LocalDenoiser((1, 6, 5), 2, width=16, classes=classes)
    denoiser.fit_moments(torch.randn(20, 1, 6, 5) * 0.3 + 0.7)
    return randomise(denoiser, std=0.2).eval()  # type: ignore[return-value]


# --- what it answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("null", [NULL, None])
@pytest.mark.parametrize("path", [LinearPath(), CosinePath()], ids=lambda p: p.name)
def test_the_guided_score_is_that_of_the_sharpened_posterior(null: int | None, path: NoisePath) -> None:
    """score = grad log p(x) p(c | x)^scale, by automatic differentiation of the densities themselves."""
    member, scale, t = Mixture(SHAPE, path), 2.5, 0.6
    x = noise(4).double().requires_grad_()
    _, log_p = member.means(x, t)
    given_class = log_p[LABELS, torch.arange(4)]
    both = log_p.logsumexp(0)
    score = torch.autograd.grad((both + scale * (given_class - both)).sum(), x)[0]
    with torch.no_grad():
        guided = pw.GuidedDenoiser(member, scale, null=null)(x, t, LABELS)
        torch.testing.assert_close(path.score_from_x(x, guided, t), score)


@given(scale=st.floats(-3, 8), t=st.floats(0.05, 1))
def test_it_is_linear_in_the_scale_and_ends_in_both_answers(scale: float, t: float) -> None:
    member, x = Mixture(SHAPE), noise(4)
    none, told = (pw.GuidedDenoiser(member, w, null=NULL)(x, t, LABELS) for w in (0, 1))
    assert torch.equal(none, member(x, t))
    assert torch.equal(told, member(x, t, LABELS))
    found = pw.GuidedDenoiser(member, scale, null=NULL)(x, t, LABELS)
    torch.testing.assert_close(found, (1 - scale) * none + scale * told, rtol=1e-4, atol=1e-4)


def test_a_time_for_each_image_finds_its_own_side_of_the_interval() -> None:
    member, x = Mixture(SHAPE), noise(4)
    some = pw.GuidedDenoiser(member, 3, null=NULL, interval=(0.2, 0.6))
    always = pw.GuidedDenoiser(member, 3, null=NULL)
    t = torch.tensor([0.1, 0.2, 0.6, 0.7])
    found = some(x, t, LABELS)
    for k, asked in enumerate((member, always, always, member)):
        alone = asked(x[k : k + 1], float(t[k]), LABELS[k : k + 1])
        torch.testing.assert_close(found[k : k + 1], alone)
        torch.testing.assert_close(some(x[k : k + 1], t[k], LABELS[k : k + 1]), alone)
    assert not torch.allclose(found[1], member(x, t, LABELS)[1])


def test_a_row_of_numbers_may_stand_for_no_condition() -> None:
    class Shifted(Denoiser):
        takes_condition = True

        def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
            assert cond is not None
            return cond.sum(1).reshape(-1, 1, 1, 1).expand_as(x_t)

    guided = pw.GuidedDenoiser(Shifted(SHAPE), 4, null=torch.tensor([[1.0, 0.0]]))
    rows = torch.tensor([[1.0, 1.0], [3.0, 0.0]])
    assert guided(noise(2), 0.5, rows)[:, 0, 0, 0].tolist() == [5.0, 9.0]  # 1 + 4 (2 - 1), 1 + 4 (3 - 1)
    with pytest.raises(PhasewiseError, match=r"shape \(3,\), the null of this guidance \(2,\)"):
        guided.given(torch.zeros(2, 3))


# --- on another path, bound, in a schedule --------------------------------------------------------------------------


def test_it_is_spoken_to_on_another_path_and_bound_like_any_other() -> None:
    guided = pw.GuidedDenoiser(Mixture(SHAPE), 3, null=NULL, interval=(0.3, 0.9))
    there, x = guided.on(CosinePath()), noise(4)
    assert isinstance(there, OnPath)
    assert there.takes_condition
    torch.testing.assert_close(there.given(LABELS)(x, 0.5), there(x, 0.5, LABELS))
    same = [Mixture(SHAPE, CosinePath())(x, t, LABELS) for t in (0.05, 0.5)]
    torch.testing.assert_close(there(x, 0.05, LABELS), same[0])  # less noise than at t = 0.3 of the member's path
    assert not torch.allclose(there(x, 0.5, LABELS), same[1])
    assert isinstance(guided.given(LABELS), Given)
    assert interval_of(there.given(LABELS)) == (0.3, 0.9)
    assert interval_of(Mixture(SHAPE)) is None


@pytest.mark.parametrize("solver", ["exp_ab2", "heun", "sde_dpmpp_2m"])
def test_a_schedule_of_guided_and_plain_is_guidance_in_an_interval(solver: str) -> None:
    """The same pixels, whether the schedule switches or the denoiser itself does; of two calls a step too."""
    member, times = Mixture(SHAPE), pw.time_grid(6)
    assignment = ["guided" if 0.3 <= t <= 0.8 else "plain" for t in times]
    assert len(set(assignment)) == 2
    members = {"guided": pw.GuidedDenoiser(member, 3, null=NULL), "plain": member}
    hybrid = pw.HybridDenoiser(members, pw.HybridSchedule(times, assignment, solver))
    itself = pw.GuidedDenoiser(member, 3, null=NULL, interval=(0.3, 0.8))
    by_schedule = pw.sample(hybrid, 4, cond=LABELS, seed=1)
    assert torch.equal(by_schedule, pw.sample(itself, 4, cond=LABELS, seed=1, times=times, solver=solver))
    assert torch.equal(by_schedule, pw.sample(hybrid.given(LABELS), 4, seed=1))
    assert not torch.allclose(by_schedule, pw.sample(member, 4, cond=LABELS, seed=1, times=times, solver=solver))
    assert not torch.allclose(by_schedule, pw.sample(members["guided"], 4, cond=LABELS, seed=1, times=times,
                                                     solver=solver))  # fmt: skip


def test_a_hybrid_is_guided_member_by_member() -> None:
    a, b = Mixture(SHAPE), Mixture(SHAPE, CosinePath())
    hybrid = pw.HybridDenoiser({"a": a, "b": b}, pw.HybridSchedule((1.0, 0.5), ("a", "b"), "ddim"))
    guided, x = pw.GuidedDenoiser(hybrid, 3, null=NULL), noise(4)
    assert guided.sampling_plan() == hybrid.sampling_plan()
    for t in (1.0, 0.5):
        torch.testing.assert_close(guided.member_at(t)(x, t, LABELS), guided(x, t, LABELS))


# --- what it costs --------------------------------------------------------------------------------------------------


def test_it_costs_two_calls_inside_and_one_outside() -> None:
    member = network()
    one = pw.count_flops(member.given(0), member.image_shape)
    for scale, interval, calls in ((4, None, 2), (1, None, 1), (0, None, 1), (4, (0.4, 0.6), 2), (4, (0.6, 0.9), 1)):
        guided = pw.GuidedDenoiser(member, scale, null=2, interval=interval).given(0)
        assert pw.count_flops(guided, member.image_shape) == calls * one
    guided = pw.GuidedDenoiser(member, 4, null=2, interval=(0.1, 0.2)).given(0)
    assert pw.count_flops(guided.member_at(0.15), member.image_shape) == 2 * one
    assert pw.count_flops(guided.member_at(0.3), member.image_shape) == one


def test_the_schedule_finds_where_guidance_matters_and_prices_go_by_the_condition() -> None:
    """Of two well-parted classes the class is open at high noise alone: there the guided answers differ."""
    member, n = Mixture(SHAPE), 60
    labels = (torch.arange(n) % 2).long()
    images = (1 - 2 * labels.float()).reshape(-1, 1, 1, 1) + Mixture.SPREAD**0.5 * noise(n, 5)
    data = pw.data.ImageData("two", images, images, images, labels, labels, labels, pixel_range=(-3, 3))
    members = {"guided": pw.GuidedDenoiser(member, 3, null=NULL), "plain": member}
    # neither is made of operations that a counter can see
    member.flops_per_image = 10**6
    members["guided"].flops_per_image = 2 * 10**6
    features = pw.metrics.PCAFeatures.fit(images, dim=3)
    times = pw.time_grid(6)
    prices = pw.price_list(members, data, times, reference="guided", cond="labels", features=features, batch=4,
                           trajectories=4)  # fmt: skip
    assert prices.flops.tolist() == [2e6, 1e6]
    assert prices.frechet is not None
    assert prices.frechet[0, 1] > 100 * prices.frechet[-1, 1]
    front = pw.pareto_front(prices, solver="ddim")
    assert front.penalty_name == "frechet"
    half = pw.optimise_schedule(prices, budget=0.75, solver="ddim", front=front)
    assert half.assignment[0] == "guided"
    assert half.assignment[-1] == "plain"
    assert half.mflop == pytest.approx(9)
    assert pw.sample(pw.HybridDenoiser(members, half), 4, cond=LABELS).shape == (4, *SHAPE)
    other = pw.price_list(members, data, times, reference="guided", cond=1 - labels, features=features, batch=4)
    assert not torch.allclose(torch.tensor(other.losses.loss), torch.tensor(prices.losses.loss))


def test_an_interval_has_no_single_price() -> None:
    members = {"guided": pw.GuidedDenoiser(Mixture(SHAPE), 3, null=NULL, interval=(0.2, 0.5)).on(CosinePath())}
    with pytest.raises(PhasewiseError, match=r"guided is guided in an interval .* two members"):
        pw.price_list(members, noise(40), (1.0, 0.5), reference="guided", cond=0)


def test_step_errors_go_by_the_condition() -> None:
    member, times = Mixture(SHAPE), (0.9, 0.5, 0.2)

    def error(denoiser: Denoiser, cond: int | Tensor | None = None) -> float:
        return float(measure_step_errors(denoiser, times, n=4, cond=cond, seed=3).error[0, 1])

    assert error(member, 0) == pytest.approx(error(member.given(0)), rel=1e-4)
    assert error(member, LABELS) == pytest.approx(error(member, torch.cat([LABELS, LABELS])), rel=1e-9)
    apart = [error(member), error(member, 0), error(member, 1), error(member, LABELS)]
    assert min(abs(a - b) for k, a in enumerate(apart) for b in apart[:k]) > 1e-3 * apart[0]


# --- kept -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("null", "interval"), [(2, None), (torch.tensor([1]), (0.2, 0.7))])
def test_what_is_read_is_what_was_written(
    null: int | Tensor, interval: tuple[float, float] | None, tmp_path: Path
) -> None:
    guided = pw.GuidedDenoiser(network(), 3.5, null=null, interval=interval).eval()
    again = pw.load_denoiser(pw.save_denoiser(guided, tmp_path / "g"))
    shared = pw.GuidedDenoiser.from_pretrained(guided.save_pretrained(tmp_path / "shared"))
    assert isinstance(again, pw.GuidedDenoiser)
    assert (again.scale, again.interval, again.training) == (3.5, interval, False)
    x = torch.randn(4, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    for t in (0.1, 0.5):
        assert torch.equal(again(x, t, LABELS), guided(x, t, LABELS))
        assert torch.equal(shared(x, t, LABELS), guided(x, t, LABELS))


def test_weights_that_are_shared_are_stored_and_read_once(tmp_path: Path) -> None:
    member = network()
    four, two = (pw.GuidedDenoiser(member, w, null=2) for w in (4, 2))
    once = sum(p.numel() for p in member.parameters())
    for named, path in (({"four": four, "two": two, "plain": member}, "a"), ({"four": four, "two": two}, "b")):
        schedule = pw.HybridSchedule(pw.time_grid(len(named)), tuple(named), path=CosinePath().config())
        hybrid = pw.HybridDenoiser(named, schedule).eval()
        again = pw.load_denoiser(pw.save_denoiser(hybrid, tmp_path / path))
        assert sum(p.numel() for p in hybrid.parameters()) == once == sum(p.numel() for p in again.parameters())
        large = [f for f in (tmp_path / path).rglob("*.safetensors") if f.stat().st_size > 4 * once]
        assert len(large) == 1
        assert torch.equal(pw.sample(again, 2, cond=1), pw.sample(hybrid, 2, cond=1))


def test_a_damaged_folder_says_so(tmp_path: Path) -> None:
    folder = pw.save_denoiser(pw.GuidedDenoiser(network(), 2, null=2), tmp_path / "g")
    config = json.loads((folder / "config.json").read_text())
    for change in ({"config": {"speed": 3}}, {"config": {"scale": "x"}}, {"beside": ["g"]}, {"beside": [".."]},
                   {"beside": 3}, {"beside": ["h"]}):  # fmt: skip
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError):
            pw.load_denoiser(folder)


def test_what_is_made_faster_stays_guided() -> None:
    guided = pw.GuidedDenoiser(network(), 3, null=2, interval=(0.2, 0.7)).eval()
    fast = for_inference(guided, precision="bfloat16")
    assert isinstance(fast, pw.GuidedDenoiser)
    x = torch.randn(4, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    for t in (0.1, 0.5):
        torch.testing.assert_close(fast(x, t, LABELS), guided(x, t, LABELS), rtol=0.1, atol=0.1)
    assert interval_of(fast) == (0.2, 0.7)


# --- what cannot be -------------------------------------------------------------------------------------------------


def test_what_cannot_be_guided_says_why(tmp_path: Path) -> None:
    with pytest.raises(PhasewiseError, match="WienerDenoiser takes no condition"):
        pw.GuidedDenoiser(pw.WienerDenoiser(SHAPE), 2)
    with pytest.raises(PhasewiseError, match=r"takes no condition .* then bind"):
        pw.GuidedDenoiser(network().given(1), 2)
    with pytest.raises(PhasewiseError, match="cannot be asked without a condition: give null"):
        pw.GuidedDenoiser(network(), 2)
    with pytest.raises(PhasewiseError, match="cannot be asked without a condition: give null"):
        pw.GuidedDenoiser(network().on(CosinePath()), 2)
    with pytest.raises(PhasewiseError, match="class labels must lie in 0 to 2; got 9 to 9"):
        pw.GuidedDenoiser(network(), 2, null=9)
    with pytest.raises(PhasewiseError, match="one label or one row"):
        pw.GuidedDenoiser(network(), 2, null=torch.tensor([1, 2]))
    with pytest.raises(PhasewiseError, match="interval"):
        pw.GuidedDenoiser(network(), 2, null=2, interval=(0.7, 0.2))
    with pytest.raises(PhasewiseError, match="scale must be a finite number"):
        pw.GuidedDenoiser(network(), float("nan"), null=2)
    with pytest.raises(PhasewiseError, match="guidance needs a condition"):
        pw.GuidedDenoiser(Mixture(SHAPE), 2)(noise(2), 0.5)

    def module(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return x * 0 + y.reshape(-1, 1, 1, 1)

    wrapped = pw.wrap(module, SHAPE, predicts="x0", cond="y")
    with pytest.raises(PhasewiseError, match="give null"):
        pw.GuidedDenoiser(wrapped, 2)
    guided = pw.GuidedDenoiser(wrapped, 2, null=0)
    assert float(guided(noise(1), 0.5, torch.tensor([3.0])).mean()) == 6
    with pytest.raises(PhasewiseError, match="code of yours, which a file cannot hold"):
        pw.save_denoiser(guided, tmp_path / "g")

    class Strict(Denoiser):
        takes_condition = True

        def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
            if cond is None:
                raise PhasewiseError("no condition")
            return x_t

    with pytest.raises(PhasewiseError, match="no condition; for guidance give null"):
        pw.GuidedDenoiser(Strict(SHAPE), 2)(noise(2), 0.5, torch.tensor([0, 1]))
