"""Who goes to the final: what judges like, but not what two networks like and pixels do not."""

import pytest

from studies.members.show import finalists, lost

TIMES = [0.9, 0.5]


def row(mflop, first, unseen, sliced, who):
    schedule = {"times": TIMES, "assignment": [who, who], "solver": "euler", "path": {"name": "linear"}}
    judges = {"first": [first, 0.1], "unseen": [unseen, 0.1], "sliced": [sliced, 0.001]}
    return {"mflop": mflop, "judges": judges, "schedule": schedule}


@pytest.fixture
def rows():
    return {
        "whole/global": row(100, 40, 32, 0.02, "global"),
        "optimised/good": row(60, 36, 32, 0.02, "r3"),
        "lead/fooled": row(30, 30, 24, 0.06, "r1"),
        "random/dear": row(80, 38, 32, 0.02, "r3"),
    }


def test_pixels_far_from_real_ones_are_held_against_what_both_networks_like(rows):
    assert lost(rows["whole/global"], rows) == pytest.approx(1)
    assert lost(rows["optimised/good"], rows) == pytest.approx(0.95)
    assert lost(rows["lead/fooled"], rows) == pytest.approx(3 * 0.75)
    near = row(30, 30, 24, 0.01, "r1")
    assert lost(near, rows) == pytest.approx(0.75), "nearer pixels are no gain by themselves"


def test_without_labels_or_pixels_the_judges_that_are_there_decide(rows):
    for found in rows.values():
        del found["judges"]["sliced"], found["judges"]["unseen"]
    assert lost(rows["lead/fooled"], rows) == pytest.approx(0.75)


def test_finalists_are_the_front_and_what_is_always_judged(rows):
    answers = {f"even/{name}": found for name, found in rows.items()}
    # "random/dear" costs more than "good", and is worse; the fooled one is the cheapest, so no cheaper one beats it
    assert list(finalists(answers, "even", 1)) == ["whole global", "optimised good"]
    assert list(finalists(answers, "even", 9)) == ["whole global", "optimised good", "lead fooled"]
    assert "lead fooled" not in finalists({**answers, "even/lead/same": row(30, 36, 32, 0.02, "r3")}, "even", 9)
