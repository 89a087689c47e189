"""In a hybrid every noise time is taken by the member its schedule names, whatever path the member speaks."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from phasewise.denoisers import Denoiser, HybridDenoiser, LocalDenoiser, OnPath, WienerDenoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import CosinePath, LinearPath, NoisePath, Time, VarianceExplodingPath, as_time
from phasewise.results import HybridSchedule

SHAPE = (1, 5, 4)
CONFIGS = {"linear": LinearPath(), "cosine": CosinePath(), "variance_exploding": VarianceExplodingPath(0.01, 50.0)}


class Constant(Denoiser):
    """Answers with a constant, and remembers how it was called, and with which condition."""

    takes_condition = True

    def __init__(self, value: float, shape: tuple[int, int, int] = SHAPE, radius: int | None = None) -> None:
        super().__init__(shape, None, radius)
        self.value = value
        self.calls: list[tuple[tuple[int, ...], Tensor, Tensor | None]] = []

    def forward(self, x_t: Tensor, t: Time, cond: Tensor | None = None) -> Tensor:
        self.calls.append((tuple(x_t.shape), as_time(t, x_t).reshape(-1), cond))
        return torch.full_like(x_t, self.value)


def trio() -> tuple[HybridDenoiser, dict[str, Constant]]:
    members = {"a": Constant(1.0, radius=1), "b": Constant(2.0, radius=3), "idle": Constant(3.0)}
    return HybridDenoiser(members, HybridSchedule((0.9, 0.6, 0.3, 0.1), ("a", "b", "b", "a"))), members


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


@functools.cache
def images() -> Tensor:
    return noise(200, seed=1).cumsum(2) + 0.5


# --- who takes which time -------------------------------------------------------------------------------------------

TAKEN = [
    (0.9, 0), (0.6, 1), (0.3, 2), (0.1, 3),  # at a grid point, the step that starts there
    (0.75, 0), (0.45, 1), (0.299, 2), (0.05, 3),  # between two, the step under way
    (0.95, 0), (1.0, 0), (0.0, 3),  # above the first: the first step; the end: the last
]  # fmt: skip


@pytest.mark.parametrize(("t", "step"), TAKEN)
def test_each_time_is_taken_by_the_member_of_its_step(t: float, step: int) -> None:
    hybrid, members = trio()
    name = hybrid.schedule.assignment[step]
    assert hybrid.step_at(t) == step
    assert hybrid.member_at(t) is members[name]
    assert (hybrid(noise(2), t) == members[name].value).all()
    assert [len(m.calls) for m in members.values()] == [int(n == name) for n in members]


def test_a_batch_of_times_is_answered_image_by_image() -> None:
    hybrid, members = trio()
    times = torch.tensor([t for t, _ in TAKEN])  # float32, so 0.3 and 0.6 are not quite the grid's own
    cond = torch.arange(len(TAKEN))
    out = hybrid(noise(len(TAKEN)), times, cond)
    expected = [members[hybrid.schedule.assignment[step]].value for _, step in TAKEN]
    assert out[:, 0, 0, 0].tolist() == expected
    assert (out == out[:, :1, :1, :1]).all()
    for name in ("a", "b"):
        for _, seen, labels in members[name].calls:
            rows = [k for k, (t, _) in enumerate(TAKEN) if any(abs(t - float(s)) < 1e-6 for s in seen)]
            assert labels is not None
            assert labels.tolist() == rows


def test_a_batch_of_wiener_members_is_the_same_as_calls_one_by_one() -> None:
    wieners = {"r1": WienerDenoiser.fit(images(), 1), "global": WienerDenoiser.fit(images())}
    hybrid = HybridDenoiser(wieners, HybridSchedule((1.0, 0.5, 0.2), ("r1", "global", "r1")))
    x_t, times = noise(5), torch.tensor([0.7, 0.4, 0.1, 0.5, 1.0])
    alone = torch.cat([hybrid(x_t[i : i + 1], float(times[i])) for i in range(5)])
    torch.testing.assert_close(hybrid(x_t, times), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hybrid(x_t[:1], 0.4), wieners["global"](x_t[:1], 0.4))


def test_only_members_in_the_schedule_are_kept_and_the_radius_is_the_widest() -> None:
    hybrid, _ = trio()
    assert set(hybrid.members) == {"a", "b"}
    assert hybrid.radius == 3
    mixed = HybridDenoiser({"a": Constant(1.0, radius=1), "g": Constant(2.0)}, HybridSchedule((1.0, 0.5), ("a", "g")))
    assert mixed.radius is None
    assert hybrid.image_shape == SHAPE


def test_the_parameters_of_the_members_are_those_of_the_hybrid() -> None:
    local = LocalDenoiser(SHAPE, 1)
    hybrid = HybridDenoiser({"r1": local}, HybridSchedule((1.0,), ("r1",)))
    assert {id(p) for p in hybrid.parameters()} == {id(p) for p in local.parameters()}


# --- members on other paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", ["cosine", "variance_exploding", "linear"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("radius", [None, 1])
def test_a_member_on_another_path_answers_as_one_on_the_schedules_path(
    member: str, schedule: str, radius: int | None
) -> None:
    there, here = CONFIGS[member], CONFIGS[schedule]
    hybrid = HybridDenoiser(
        {"w": WienerDenoiser.fit(images(), radius, path=there)}, HybridSchedule((1.0,), ("w",), path=here.config())
    )
    plain = WienerDenoiser.fit(images(), radius, path=here)
    assert hybrid.path == here
    assert hybrid.radius == radius
    times = torch.tensor([0.05, 0.2, 0.5, 0.8, 0.95])
    x_t = here.add_noise(images()[:5], noise(5), times)
    torch.testing.assert_close(hybrid(x_t, times), plain(x_t, times), atol=1e-4, rtol=1e-4)
    for k, t in enumerate(times.tolist()):
        torch.testing.assert_close(hybrid(x_t[k : k + 1], t), plain(x_t[k : k + 1], t), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("path", CONFIGS.values(), ids=lambda p: p.name)
def test_on_path_is_the_same_denoiser_in_other_units(path: NoisePath) -> None:
    wrapped = OnPath(WienerDenoiser.fit(images(), path=CosinePath()), path)
    x_t = path.add_noise(images()[:3], noise(3), 0.5)
    expected = WienerDenoiser.fit(images(), path=path)(x_t, 0.5)
    torch.testing.assert_close(wrapped(x_t, 0.5), expected, atol=1e-4, rtol=1e-4)
    assert wrapped.member_at(0.5) is wrapped


def test_members_on_the_schedules_own_path_are_not_wrapped() -> None:
    linear, cosine = WienerDenoiser(SHAPE), WienerDenoiser(SHAPE, path=CosinePath())
    hybrid = HybridDenoiser({"l": linear, "c": cosine}, HybridSchedule((1.0, 0.5), ("l", "c")))
    assert hybrid.members["l"] is linear
    assert isinstance(hybrid.members["c"], OnPath)
    assert hybrid.members["c"].member is cosine


# --- what does not fit ----------------------------------------------------------------------------------------------


def test_a_member_that_is_missing_is_named() -> None:
    with pytest.raises(PhasewiseError, match="the schedule names b; members given: a, c"):
        HybridDenoiser({"a": Constant(1.0), "c": Constant(1.0)}, HybridSchedule((1.0, 0.5), ("a", "b")))
    with pytest.raises(PhasewiseError, match="members given: none"):
        HybridDenoiser({}, HybridSchedule((1.0,), ("a",)))


def test_members_for_other_images_are_refused_unless_the_schedule_leaves_them_out() -> None:
    members = {"a": Constant(1.0), "b": Constant(1.0, shape=(1, 8, 8))}
    with pytest.raises(PhasewiseError, match=r"different shape: \[\(1, 5, 4\), \(1, 8, 8\)\]"):
        HybridDenoiser(members, HybridSchedule((1.0, 0.5), ("a", "b")))
    HybridDenoiser(members, HybridSchedule((1.0, 0.5), ("a", "a")))


def test_an_unknown_path_and_times_out_of_range_are_refused() -> None:
    with pytest.raises(PhasewiseError, match="unknown path 'bent'"):
        HybridDenoiser({"a": Constant(1.0)}, HybridSchedule((1.0,), ("a",), path={"name": "bent"}))
    hybrid, _ = trio()
    for t in (-0.1, 1.1, float("nan"), torch.tensor([0.5, 0.5, 0.5])):
        with pytest.raises(PhasewiseError):
            hybrid(noise(2), t)


# --- of one kind ----------------------------------------------------------------------------------------------------


def fitted(images: Tensor) -> LocalDenoiser:
    shape = (images.shape[1], images.shape[2], images.shape[3])
    denoiser = LocalDenoiser(shape, 1)
    denoiser.fit_moments(images)
    return denoiser


def test_networks_and_closed_forms_agree_on_the_pixels_they_were_fitted_to() -> None:
    colour = torch.rand(300, 3, 5, 4, generator=torch.Generator().manual_seed(3)) * torch.tensor([1.0, 2, 3]).view(
        3, 1, 1
    )
    mean, std = fitted(colour).pixel_moments() or (None, None)
    assert mean is not None
    for wiener in (WienerDenoiser.fit(colour), WienerDenoiser.fit(colour, rank=40)):
        found = wiener.pixel_moments()
        assert found is not None
        torch.testing.assert_close(found[0], mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[1], std, rtol=0.02, atol=0.01)
    assert WienerDenoiser(SHAPE).pixel_moments() is None
    assert LocalDenoiser(SHAPE, 1).pixel_moments() is None


def test_members_of_other_data_or_another_pixel_range_are_refused() -> None:
    unit = images()
    schedule = HybridSchedule((0.9, 0.3), ("a", "b"))
    HybridDenoiser({"a": fitted(unit), "b": WienerDenoiser.fit(unit, path=CosinePath())}, schedule)
    HybridDenoiser({"a": fitted(unit), "b": LocalDenoiser(SHAPE, 2)}, schedule)  # not fitted yet
    for other in (2 * unit - 1, unit + 1):
        with pytest.raises(
            PhasewiseError, match=r"a was fitted to pixels of mean .* other data, or another pixel range"
        ):
            HybridDenoiser({"a": fitted(unit), "b": WienerDenoiser.fit(other)}, schedule)
