"""Conditions and paths: bound once, carried to every member that takes one, and plain about what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from receptive_field import check_radius_law, randomise, telling_pixels
from torch import Tensor

from phasewise.denoisers import (
    Denoiser,
    Given,
    HybridDenoiser,
    LocalDenoiser,
    NetworkDenoiser,
    OnPath,
    SamplingPlan,
    UNetDenoiser,
    WienerDenoiser,
    as_rows,
    bind,
    condition_rows,
    export_onnx,
    for_inference,
    io,
    load_denoiser,
    register_denoiser,
    save_denoiser,
)
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.metrics import count_flops
from phasewise.paths import CosinePath, LinearPath, NoisePath, Time, VarianceExplodingPath
from phasewise.results import HybridSchedule

SHAPE = (1, 6, 5)


class Shifted(Denoiser):
    """Answers with its condition, a number for each image, and jumps to it; a label of every image is all it knows."""

    takes_condition = True
    jumps = True

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        assert cond is not None
        return cond.to(x_t).reshape(-1, 1, 1, 1).expand_as(x_t)

    def jump(self, x_t: Tensor, t: float, s: float, cond: Tensor | None = None) -> Tensor | None:
        return self(x_t, t, cond) + s

    def pixel_moments(self) -> tuple[Tensor, Tensor] | None:
        return torch.tensor([0.5]), torch.tensor([2.0])


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def network(kind: str, classes: int | None = 3, **choices: Any) -> NetworkDenoiser:
    """With random weights, those of the labels too, and moments that are not the defaults."""
    torch.manual_seed(0)
    made: dict[str, type[NetworkDenoiser]] = {"local": LocalDenoiser, "unet": UNetDenoiser}
    own: dict[str, Any] = {"local": {"radius": 2, "width": 16}, "unet": {"width": 8}}[kind]
    denoiser = made[kind](SHAPE, classes=classes, **own, **choices)
    denoiser.fit_moments(noise(20) * 0.3 + 0.7)
    return randomise(denoiser, std=0.2)  # type: ignore[return-value]


both_networks = pytest.mark.parametrize("kind", ["local", "unet"])

# --- on another path ------------------------------------------------------------------------------------------------


def test_a_denoiser_on_its_own_path_is_itself_and_wrappers_do_not_pile_up() -> None:
    wiener = WienerDenoiser(SHAPE)
    assert wiener.on(LinearPath()) is wiener
    there = wiener.on(CosinePath())
    assert isinstance(there, OnPath)
    assert there.on(CosinePath()) is there
    assert there.on(LinearPath()) is wiener
    further = there.on(VarianceExplodingPath())
    assert isinstance(further, OnPath)
    assert further.member is wiener


def test_a_hybrid_on_another_path_keeps_its_members_and_its_plan() -> None:
    a, b = WienerDenoiser(SHAPE), WienerDenoiser(SHAPE, radius=1)
    hybrid = HybridDenoiser({"a": a, "b": b}, HybridSchedule((1.0, 0.5, 0.2), ("a", "b", "a"), "heun"))
    there = hybrid.on(CosinePath())
    plan = there.sampling_plan()
    assert plan is not None
    assert plan.solver == "heun"
    own = LinearPath().log_snr(torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64))
    torch.testing.assert_close(CosinePath().log_snr(torch.tensor(plan.times, dtype=torch.float64))[1:], own[1:])
    assert plan.times[0] == 1.0
    for t, member in zip(plan.times, (a, b, a), strict=True):
        part = there.member_at(t)
        assert isinstance(part, OnPath)
        assert part.member is member
        assert part.path == CosinePath()


def test_any_denoiser_may_bring_a_plan() -> None:
    assert WienerDenoiser(SHAPE).sampling_plan() is None
    assert WienerDenoiser(SHAPE).on(CosinePath()).sampling_plan() is None
    hybrid = HybridDenoiser({"a": WienerDenoiser(SHAPE)}, HybridSchedule((0.9, 0.3), ("a", "a"), "ddim"))
    assert hybrid.sampling_plan() == SamplingPlan((0.9, 0.3), "ddim")


# --- a condition bound once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("single", [2, torch.tensor(2), torch.tensor([2])])
def test_a_single_label_is_for_all_images(single: int | Tensor) -> None:
    given = Shifted(SHAPE).given(single)
    assert (given(noise(3), 0.5) == 2).all()
    assert (given(noise(1), 0.5) == 2).all()
    assert not given.takes_condition


def test_one_row_for_each_image_and_no_other_number() -> None:
    given = Shifted(SHAPE).given(torch.tensor([0, 1, 2]))
    assert given(noise(3), 0.5)[:, 0, 0, 0].tolist() == [0, 1, 2]
    with pytest.raises(PhasewiseError, match="cond has 3 rows for 4 images"):
        given(noise(4), 0.5)
    rows = as_rows(torch.tensor([[1.0, 2.0]]), 4)
    assert rows.shape == (4, 2)
    assert rows.stride(0) == 0  # not copied


def test_what_cannot_be_bound_says_why() -> None:
    with pytest.raises(PhasewiseError, match="WienerDenoiser takes no condition"):
        WienerDenoiser(SHAPE).given(1)
    given = Shifted(SHAPE).given(1)
    with pytest.raises(PhasewiseError, match="bound already"):
        given.given(2)
    with pytest.raises(PhasewiseError, match="bound already"):
        given(noise(1), 0.5, torch.tensor([1]))
    with pytest.raises(PhasewiseError, match="a class label or a tensor"):
        Shifted(SHAPE).given("labels")  # type: ignore[arg-type]
    with pytest.raises(PhasewiseError, match=r"condition bound cannot be saved; save its \.member"):
        given.config()


@pytest.mark.parametrize("path", [LinearPath(), CosinePath()], ids=lambda p: p.name)
def test_a_bound_condition_goes_along_in_everything_asked(path: NoisePath) -> None:
    member = Shifted(SHAPE, path)
    given, x = member.given(3), noise(2)
    assert given.jumps
    assert (given.jump(x, 0.5, 0.25) == 3.25).all()
    assert given.member_at(0.4) is given
    assert given.sampling_plan() is None
    assert given.pixel_moments() == member.pixel_moments()
    assert (given.path, given.radius, given.image_shape) == (path, None, SHAPE)
    assert given.on(path) is given
    there = given.on(VarianceExplodingPath(0.01, 50.0))
    assert isinstance(there, Given)
    assert (there(x, 0.5) == 3).all()
    assert member.on(VarianceExplodingPath()).takes_condition
    assert not WienerDenoiser(SHAPE).on(CosinePath()).takes_condition


def mixed() -> tuple[HybridDenoiser, WienerDenoiser]:
    wiener = WienerDenoiser(SHAPE)
    members = {"told": Shifted(SHAPE, CosinePath()), "plain": wiener}
    return HybridDenoiser(members, HybridSchedule((0.9, 0.5, 0.2), ("told", "plain", "told"))), wiener


def test_a_hybrid_hands_the_condition_to_those_who_take_it() -> None:
    hybrid, wiener = mixed()
    assert hybrid.takes_condition
    given, x = hybrid.given(torch.tensor([0, 1, 2])), noise(3)
    assert given.member_at(0.5) is wiener
    assert given.member_at(0.9)(x, 0.9)[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert given.sampling_plan() == hybrid.sampling_plan()
    torch.testing.assert_close(given(x, 0.4), wiener(x, 0.4))
    times = torch.tensor([0.9, 0.4, 0.1])
    together = given(x, times)
    assert together[[0, 2], 0, 0, 0].tolist() == [0, 2]
    torch.testing.assert_close(together[1:2], wiener(x[1:2], 0.4))
    single = hybrid(x, times, torch.tensor([7]))  # one for all, among rows of several times
    assert single[[0, 2], 0, 0, 0].tolist() == [7, 7]
    plain = HybridDenoiser({"a": wiener}, HybridSchedule((0.9,), ("a",)))
    with pytest.raises(PhasewiseError, match="HybridDenoiser takes no condition"):
        plain.given(0)


def test_a_consumer_says_once_who_is_told() -> None:
    wiener, shifted = WienerDenoiser(SHAPE), Shifted(SHAPE)
    rows = condition_rows(torch.arange(4), 4, [wiener, shifted])
    assert rows is not None
    assert bind(wiener, rows) is wiener
    assert bind(shifted, rows, slice(2, 4))(noise(2), 0.5)[:, 0, 0, 0].tolist() == [2, 3]
    assert condition_rows(None, 4, [wiener]) is None
    assert bind(shifted, None) is shifted
    with pytest.raises(PhasewiseError, match="cond is given, but WienerDenoiser takes no condition"):
        condition_rows(0, 4, [wiener, wiener])
    with pytest.raises(PhasewiseError, match="cond has 3 rows for 4 images"):
        condition_rows(torch.arange(3), 4, [shifted])


# --- networks told a class ------------------------------------------------------------------------------------------


@both_networks
def test_a_fresh_network_with_classes_is_the_one_without(kind: str) -> None:
    fresh: list[NetworkDenoiser] = []
    for classes in (None, 3):
        torch.manual_seed(5)
        local = kind == "local"
        fresh.append(LocalDenoiser(SHAPE, 2, classes=classes) if local else UNetDenoiser(SHAPE, classes=classes))
    plain, told = fresh
    state = told.state_dict()
    assert state.pop("labels.weight").shape[0] == 3
    assert list(state) == list(plain.state_dict())
    assert all(torch.equal(v, state[k]) for k, v in plain.state_dict().items())
    x = noise(3)
    with torch.no_grad():  # it begins as the network without, whatever it is told
        assert torch.equal(told(x, 0.4, torch.tensor([0, 1, 2])), plain(x, 0.4))
    assert told.config() == {**plain.config(), "classes": 3}
    assert "classes" not in plain.config()
    assert (plain.takes_condition, told.takes_condition) == (False, True)


@both_networks
def test_the_label_of_each_image_counts_and_no_others(kind: str) -> None:
    denoiser, x = network(kind), noise(6)
    labels, times = torch.tensor([0, 1, 2, 2, 1, 0]), torch.linspace(0.1, 0.9, 6)
    with torch.no_grad():
        whole = denoiser(x, times, labels)
        alone = torch.cat([denoiser(x[i : i + 1], times[i : i + 1], labels[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-5)
        other = denoiser(x, times, torch.tensor([1, 1, 2, 2, 1, 0]))
        assert (other[0] - whole[0]).abs().max() > 1e-3
        torch.testing.assert_close(other[1:], whole[1:], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(denoiser.given(labels)(x, times), whole)
        torch.testing.assert_close(denoiser(x, times, labels.int()), whole)


@pytest.mark.parametrize("labels", [1, torch.ones(40, dtype=torch.int64), torch.arange(40) % 3, torch.arange(40) // 14])
@pytest.mark.parametrize("t", [0.4, torch.linspace(0.1, 0.9, 40)], ids=["one time", "many times"])
def test_shortcuts_of_a_local_network_are_right_for_any_labels(
    labels: int | Tensor, t: float | Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phasewise.denoisers.local.BUFFER", 6 * 5 * 16 * 7)  # seven images at a time
    denoiser, x = network("local"), noise(40)
    with torch.no_grad():
        fast = denoiser.given(labels)(x, t)
    torch.testing.assert_close(fast, denoiser.given(labels)(x, t).detach(), atol=1e-5, rtol=1e-5)


@both_networks
@pytest.mark.parametrize(
    ("cond", "message"),
    [
        (None, r"needs a class label of each image \(0 to 2\): pass cond, or bind one with \.given"),
        (torch.tensor([0, 1, 3]), "must lie in 0 to 2; got 0 to 3"),
        (torch.tensor([-1, 1, 2]), "must lie in 0 to 2; got -1 to 2"),
        (torch.tensor([0.0, 1.0, 2.0]), "must be whole numbers"),
        (torch.zeros(3, 2, dtype=torch.int64), r"of shape \(3,\); got torch.int64 of shape \(3, 2\)"),
        (torch.tensor([0, 1]), "cond has 2 rows for 3 images"),
    ],
)
def test_labels_that_do_not_fit_are_refused(kind: str, cond: Tensor | None, message: str) -> None:
    with pytest.raises(PhasewiseError, match=message):
        network(kind)(noise(3), 0.5, cond)


def test_a_number_of_classes_is_at_least_one() -> None:
    with pytest.raises(PhasewiseError, match="classes must be a whole number >= 1"):
        LocalDenoiser(SHAPE, 2, classes=0)
    assert UNetDenoiser.of_size(SHAPE, "small", classes=4).classes == 4
    opened = LocalDenoiser(SHAPE, 2, classes=4).opened()
    assert (opened.classes, opened.radius) == (4, 5)


def test_a_label_does_not_widen_the_receptive_field() -> None:
    check_radius_law(network("local").given(1), telling_pixels(6, 5, 1))


@both_networks
def test_a_network_with_classes_survives_the_disk_and_a_hybrid(kind: str, tmp_path: Path) -> None:
    denoiser, x, labels = network(kind), noise(3), torch.tensor([2, 0, 1])
    again = load_denoiser(save_denoiser(denoiser, tmp_path / "one"))
    with torch.no_grad():
        assert torch.equal(again(x, 0.4, labels), denoiser(x, 0.4, labels))
    hybrid = HybridDenoiser({"n": denoiser, "w": WienerDenoiser(SHAPE)}, HybridSchedule((0.9, 0.3), ("n", "w")))
    back = load_denoiser(save_denoiser(hybrid, tmp_path / "two"))
    with torch.no_grad():
        assert torch.equal(back(x, 0.8, labels), hybrid(x, 0.8, labels))


@both_networks
def test_faster_calls_are_told_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda f: torch._dynamo.optimize("eager")(f))  # the tracing, not the compiler
    denoiser, x, labels = network(kind), noise(4), torch.tensor([0, 2, 1, 1])
    with torch.no_grad():
        exact = denoiser(x, 0.4, labels)
        fast = for_inference(denoiser.on(CosinePath()).on(LinearPath()).given(labels), compile=True)
        torch.testing.assert_close(fast(x, 0.4), exact, atol=1e-5, rtol=1e-5)
        low = for_inference(denoiser, precision="bfloat16")(x, 0.4, labels)
        assert 0 < (low - exact).abs().max() / exact.abs().max() < 0.05


def test_a_network_with_classes_is_not_exported(tmp_path: Path) -> None:
    for denoiser in (network("local"), network("local").given(1)):
        with pytest.raises(PhasewiseError, match="only networks without a condition are exported"):
            export_onnx(denoiser, tmp_path / "x.onnx")


@both_networks
def test_labels_cost_nothing_worth_counting(kind: str) -> None:
    assert count_flops(network(kind).given(1), SHAPE) == count_flops(network(kind, None), SHAPE) > 0


# --- classes of one's own -------------------------------------------------------------------------------------------


class Doubled(Denoiser):
    """The noisy image times a weight."""

    def __init__(self, image_shape: tuple[int, int, int], factor: float = 2.0, path: NoisePath | None = None) -> None:
        super().__init__(image_shape, path, radius=1)
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        return self.factor * x_t

    def config(self) -> dict[str, Any]:
        return {"image_shape": list(self.image_shape), "path": self.path.config()}


def test_a_class_of_ones_own_is_read_once_it_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io.CLASSES, "_entries", dict(io.CLASSES.items()))
    save_denoiser(Doubled(SHAPE, 3.0, CosinePath()), tmp_path)
    with pytest.raises(CheckpointError, match=r"unknown denoiser class 'Doubled'; known: .*register_denoiser"):
        load_denoiser(tmp_path)
    assert register_denoiser(Doubled) is Doubled
    again, x = load_denoiser(tmp_path), noise(2)
    assert isinstance(again, Doubled)
    assert again.path == CosinePath()
    assert torch.equal(again(x, 0.5), 3 * x)
    with pytest.raises(PhasewiseError, match="denoiser class named 'Doubled' already"):
        register_denoiser(type("Doubled", (Doubled,), {}))
