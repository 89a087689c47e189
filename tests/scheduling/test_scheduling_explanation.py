"""A schedule's sentences say what the price list says."""

from dataclasses import replace

import numpy as np
import pytest
from test_scheduling_optimise import make_prices

import phasewise as pw
from phasewise.errors import PhasewiseError

TIMES = (1.0, 0.7, 0.4, 0.1)


def prices():
    """Global, and a local that is bad in the middle and better than the global at the end."""
    distance = np.array([[0, 0.0], [0, 4.0], [0, 4.0], [0, 0.01]])
    return make_prices(np.zeros((4, 2)), distance, [50e6, 2e6], TIMES)


def test_each_span_is_explained_by_its_alternative():
    schedule = pw.HybridSchedule(TIMES, ("r1", "global", "global", "r1"), "heun", {"name": "linear"})
    first, middle, last = pw.explain(schedule, prices())
    assert first.startswith("r1 takes t = 1.00 to 0.70 (1 step, 2% of the cost): global would cost 96 MFLOP more")
    assert "global takes t = 0.70 to 0.10 (2 steps, 97% of the cost): r1 would save 192 MFLOP there and add" in middle
    assert "pixel units, most of it from t = 0.70 on" in middle or "from t = 0.40 on" in middle
    assert last.startswith("r1 takes t = 0.10 to 0.00")
    price, _ = pw.scheduling.step_penalties(prices(), "w2")
    assert f"add {price[1:3, 1].sum():.3g} pixel units" in middle


def test_a_schedule_is_explained_in_the_unit_it_was_priced_in():
    seen = replace(prices(), frechet=prices().losses.distance * 4)
    for penalty in ("w2", "kl", "frechet"):
        chosen = pw.scheduling.schedule_from_assignment(seen, ("r1", "global", "global", "r1"), penalty=penalty)
        assert pw.explain(chosen, seen) == pw.explain(chosen, seen, penalty=penalty)
    assert pw.explain(chosen, seen) != pw.explain(chosen, seen, penalty="w2")
    unpriced = pw.HybridSchedule(TIMES, ("r1", "global", "global", "r1"))
    assert "feature units" in pw.explain(unpriced, seen)[1]


def test_a_grid_between_the_measured_times_will_do_and_others_are_refused():
    schedule = pw.HybridSchedule((0.9, 0.5, 0.2), ("global",) * 3, "exp_ab2", {"name": "linear"})
    assert len(pw.explain(schedule, prices(), penalty="flow")) == 1
    with pytest.raises(PhasewiseError, match=r"no prices at t = 0\.02"):
        pw.explain(pw.HybridSchedule((0.9, 0.02), ("global",) * 2), prices())
    with pytest.raises(PhasewiseError, match="no prices for 'r5'; the list has global, r1"):
        pw.explain(pw.HybridSchedule((0.9, 0.2), ("global", "r5")), prices())
