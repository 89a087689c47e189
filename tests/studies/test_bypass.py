"""The radius that a path needs, by hand and on models where it is known."""

from studies.bypass.digits import PATHS, SIDE
from studies.bypass.models import NATS, field_curves, needed_radius, two_mode_curves

TIMES = (-4.0, -2.0, 0.0)


def test_the_radius_is_the_least_that_does_at_every_time() -> None:
    found = needed_radius(lambda x, r: (NATS * (4 if x == -2.0 else 1) / r, 0.01), TIMES, 5)
    assert found == {"radius": 4, "near": (4 * NATS, 0.01, -2.0), "far": (4 * NATS / 3, 0.01, -2.0), "quarter": 3}
    assert needed_radius(lambda x, r: (1.0, 0.0), TIMES, 5)["radius"] is None
    assert needed_radius(lambda x, r: (0.0, 0.0), TIMES, 1) == {
        "radius": 1, "near": (0.0, 0.0, 0.0), "far": (0.0, 0.0, 0.0), "quarter": 1
    }  # fmt: skip


def test_coloured_noise_and_a_field_need_one_pixel_and_white_noise_ever_more() -> None:
    modes = [{way: needed_radius(c, TIMES, s // 2 - 1) for way, c in two_mode_curves(s).items()} for s in (8, 12)]
    for found in modes:
        assert found["isotropic"]["radius"] in (None, 3)
        assert {found[way]["radius"] for way in ("coloured", "field", "given the sign")} == {1}
    assert modes[1]["isotropic"]["near"][0] > 1.5 * modes[0]["isotropic"]["near"][0]
    assert modes[1]["coloured"]["near"][0] < modes[0]["coloured"]["near"][0]
    field = field_curves(8)
    assert abs(field["coloured"](-1.0, 1)[0]) < 1e-9 < NATS < field["isotropic"](-1.0, 1)[0]


def test_paths_of_digits_are_for_digits() -> None:
    assert {path.shape for path in PATHS.values() if path.modes is not None} == {SIDE}
