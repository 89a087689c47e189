"""The queue's fronts: who is the rival and who the hybrid, and nothing measured twice where a job was cut off."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import phasewise as pw
from phasewise.denoisers import DiTDenoiser
from phasewise.errors import PhasewiseError
from phasewise.files import read_json
from phasewise.metrics import FrechetReference, frechet_difference
from phasewise.metrics.classifier import train_classifier
from phasewise.metrics.frechet import frechet_draws
from phasewise.training.settings import TrainSettings
from studies.gpu.bench import PENALTIES, PRICED, START, Bench, Plan
from studies.gpu.fronts import DEFAULT, EARLIER, SOLVERS, Front, Grid
from studies.gpu.judges import Borrowed
from studies.gpu.kept import Kept
from studies.gpu.looks import fine_power, looks, pixels_of
from studies.gpu.pictures import COLUMNS, GAP, SAMPLES_FILE, SHOWN
from studies.gpu.place import Place
from studies.gpu.queue import JOBS
from studies.gpu.show import (
    PAGE,
    against_any,
    exact_savings,
    finalists_table,
    looks_table,
    mean_rank,
    measured_savings,
    on_one_grid,
    penalty_table,
    saving_table,
)
from studies.gpu.sizes import Amount, FrontSize
from studies.gpu.study import GPUQueue, Options
from studies.gpu.training import Served, Shipped, _steps_a_second, lend, preset_for, train_network
from studies.gpu.verdict import (
    FAR,
    Row,
    as_precise,
    best_alone,
    difference,
    fair,
    fid,
    finalists,
    named,
    promising,
    verdict,
)
from studies.pages import END, start_mark, table_of, with_others


def final(family: str, mflop: float, seen: float, unseen: float, *, reference: bool = False) -> dict[str, Any]:
    draws = [0.0, 1.0]
    judged = {"seen": [[seen, draws]] * 2, "unseen": [[unseen, draws]] * 2}
    who = "global" if family == "one network" else "r1"
    fids = {"seen": seen, "unseen": unseen}
    return {"family": family, "mflop": mflop, "fid": fids, "judged": judged, "reference": reference, "far": 1.0,
            "assignment": ["pixel", who]}  # fmt: skip


BASE = final("one network", 100, 10, 20, reference=True)
FEWER = final("one network", 80, 10.4, 20.8)
MIXED = final("small then large", 40, 10.6, 20)  # within 5 % by one judge only...
CHEAP = final("hybrid", 20, 10.4, 20.4)
CHEAPER = final("hybrid", 10, 10.2, 21.2)  # ... and by the other


def test_rival_and_hybrid_are_the_cheapest_that_both_judges_let_pass() -> None:
    found = verdict([BASE, FEWER, MIXED, CHEAP, CHEAPER], 1.05)
    assert (found.rival, found.hybrid) == (FEWER, CHEAP)
    assert found.saving == pytest.approx(4)
    wider = verdict([BASE, FEWER, MIXED, CHEAP, CHEAPER], 1.07)
    assert (wider.rival, wider.hybrid) == (MIXED, CHEAPER)


def test_blur_grain_and_lost_variety_are_seen_beside_fid() -> None:
    real = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(real, 3, 1, 1)
    features, pixels = {"seen": real.flatten(1)[:, :8]}, pixels_of(real)
    found = looks(real, pixels, features, features)
    assert found["fine"][0] == pytest.approx(1)
    assert found["contrast"][0] == pytest.approx(1, abs=0.02)  # of eight parts, for of all
    assert found["precision seen"][0] == found["recall seen"][0] == 1
    assert looks(blurred, pixels, features, features)["fine"][0] < 0.3
    hard = looks(2 * real - 1, pixels, features, features)
    assert hard["fine"][0] == pytest.approx(4)
    assert hard["contrast"][0] == pytest.approx(2 * found["contrast"][0])
    same = {"seen": features["seen"][:1].expand(64, -1)}  # one image again and again
    lost = looks(real, pixels, same, features)
    assert lost["precision seen"][0] == 1
    assert lost["recall seen"][0] < 0.1


def test_power_of_fine_waves_is_of_squared_pixels() -> None:
    x = torch.arange(16.0)
    short, long = torch.cos(torch.pi * x), torch.cos(torch.pi * x / 8)
    assert fine_power(short.expand(2, 1, 16, 16)) == pytest.approx(1)
    assert fine_power(long.expand(2, 1, 16, 16)) == pytest.approx(0, abs=1e-12)
    both = (3 * short + long).expand(2, 1, 16, 16)
    assert fine_power(both) == pytest.approx(9)


def test_schedules_whose_pixels_are_far_are_left_out_while_a_rival_stays() -> None:
    far = [{**row, "far": 2.0} for row in (FEWER, CHEAP)]
    assert fair([BASE, *far]) == [BASE]
    assert fair([CHEAPER, *far]) == [CHEAPER, *far], "no global-only schedule is near"


def test_where_no_hybrid_is_cheaper_the_saving_is_one() -> None:
    found = verdict([BASE, MIXED, final("hybrid", 150, 9, 18), CHEAPER], 1.05)
    assert not found.pays
    assert found.saving == 1


def looked(row: Row, seen: float, unseen: float) -> Row:
    return {**row, "looks": {"precision seen": [seen, 0.03], "precision unseen": [unseen, 0.04]}}


def test_the_cheapest_as_precise_is_by_neither_judge_clearly_below_the_rival() -> None:
    dear = final("hybrid", 60, 10, 20)
    rival, blurred, near = looked(FEWER, 0.5, 0.6), looked(CHEAP, 0.5, 0.48), looked(dear, 0.42, 0.49)
    finals = [looked(BASE, 0.9, 0.9), rival, blurred, near]  # .085 and .113 below are two errors of the difference
    assert as_precise(finals, 1.05) == near
    assert as_precise(finals[:3], 1.05) == rival, "nothing cheaper is"
    assert as_precise([*finals, FEWER], 1.05) is None, "not asked of every finalist"


def test_penalties_are_compared_on_one_grid_too() -> None:
    def row(steps: int, k: int, lift: float) -> Row:
        """FID as the penalty within a grid, and lifted by so much on all of it."""
        return {
            "times": [1 - i / steps for i in range(steps)], "solver": "ode", "family": "one network", "mflop": 1.0,
            "far": 1.0, "penalty": dict.fromkeys(PENALTIES, float(k)),
            "fid": {"seen": 1.0 + k, "unseen": 1.0 + k + lift},
        }  # fmt: skip

    rows = [row(3, k, 100) for k in range(10)] + [row(5, 10 + k, 0) for k in range(10)] + [row(4, 0, 0)] * 3
    assert [len(g) for g in on_one_grid(rows)] == [10, 10], "three are too few"
    assert mean_rank(on_one_grid(rows), "penalty", "w2") == pytest.approx(1)
    assert mean_rank([rows], "penalty", "w2") < 0
    answer = {"kind": "dit", "side": 32, "n": 8, "rows": rows, "finals": []}
    head, _, every, within = penalty_table({"clothing32/front-dit": answer}).splitlines()[:4]
    assert head.startswith("| images | kind | schedules")
    assert "all: 23" in every
    assert "on one grid: 10 + 10 | 8 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 |  |" in within


def test_finalists_are_undominated_by_the_worse_judge() -> None:
    rows: list[Row] = [BASE, FEWER, MIXED, CHEAP, CHEAPER, final("hybrid", 30, 9, 22), final("hybrid", 60, 8, 17.9)]
    rows += [final("hybrid", 70, 7, 15), final("hybrid", 5, 30, 30)]
    assert best_alone(rows) is BASE
    assert [r["mflop"] for r in finalists(rows, BASE, 1.6, 5)] == [100, 80, 40, 10, 20, 60, 70]
    assert [r["mflop"] for r in finalists(rows, BASE, 1.6, 2)] == [100, 80, 40, 10, 20, 70], (
        "the cheapest, and the best"
    )
    close = [final("hybrid", m, 10 * v, 20 * v) for m, v in ((1, 1.06), (2, 1.07), (3, 1.09))]
    assert [r["mflop"] for r in finalists([BASE, *close], BASE, 1.6, 5)] == [100, 1, 2], (
        "1 and 2 differ by chance, maybe"
    )
    poor = [final("hybrid", m, 10 * v, 20 * v) for m, v in ((1, 1.7), (2, 1.5), (3, 1.4), (4, 1.2), (5, 1.08))]
    assert [r["mflop"] for r in finalists([BASE, *poor], BASE, 1.6, 3)] == [100, 4, 5], "and one before it"
    assert [r["mflop"] for r in finalists([BASE, *poor[:3]], BASE, 1.6, 3)] == [100, 2, 3], "none is near"


def test_a_difference_of_finalists_is_the_paired_one() -> None:
    generator = torch.Generator().manual_seed(0)
    real, a = (torch.randn(64, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    b = a + 0.1 * torch.randn(64, 3, generator=generator, dtype=torch.float64) + 0.2
    reference = FrechetReference.fit(real)
    judged = [{"judged": {"seen": [_draws(x, reference, 1)]}} for x in (a, b)]
    found, expected = difference(*judged, "seen", 64), frechet_difference(a, b, reference, 1)
    assert found.difference == pytest.approx(expected.value)
    assert found.stderr == pytest.approx(expected.stderr)
    twice = [{"judged": {"seen": [_draws(x, reference, s) for s in (1, 2)]}} for x in (a, b)]
    assert difference(*twice, "seen", 64).n == 128
    assert fid(twice[0], "seen") == pytest.approx(reference.from_features(a))


def _draws(x: torch.Tensor, reference: FrechetReference, seed: int) -> list[Any]:
    value, drawn = frechet_draws(x, reference, seed)
    return [value, drawn.tolist()]


def test_a_rival_of_any_kind_counts_where_it_is_as_good() -> None:
    small = final("one network", 30, 10.5, 21)
    other = final("one network", 1, 11, 20, reference=True)
    found = {
        "clothing32/front-dit": {"kind": "dit", "finals": [BASE, CHEAP], "n_final": 8},
        "clothing32/front-unet": {"kind": "unet", "finals": [small, other], "n_final": 8},
        "clothing64/front-unet": {"kind": "unet", "finals": [other], "n_final": 8},
    }
    result = verdict(found["clothing32/front-dit"]["finals"], 1.05)
    assert (result.saving, against_any(found, "clothing32/front-dit", 1.05, result)) == (5, 1.5)


def test_the_table_says_where_no_hybrid_is_cheaper() -> None:
    answer = {"kind": "unet", "side": 32, "n_final": 8, "finals": [BASE, FEWER], "clock": {"rival": [1], "hybrid": [1]}}
    text = saving_table({"clothing32/front-unet": answer})
    assert text.count("none is cheaper | 1.00 | 1.00 | 1 |  |") == 1, "precision was not asked"
    assert "| clothing32 | 32 | U-Net | 16 |" in text, "samples over both seeds"


def test_every_finalist_is_shown_beside_the_best() -> None:
    answer = {"kind": "unet", "side": 32, "n_final": 8, "finals": [BASE, MIXED, CHEAP]}
    heads, rows = table_of(finalists_table({"clothing32/front-unet": answer}))
    at = {head: k for k, head in enumerate(heads)}
    assert [row[at["MFLOP"]] for row in rows] == ["20", "40", "100"]
    assert [row[at["within 5 %"]] for row in rows] == ["yes", "no", "best"]
    assert [row[0] for row in rows] == ["clothing32", "", ""]
    assert rows[0][at["of the best"]] == "20 %"
    assert rows[0][at["FID"] : at["FID"] + 3] == ["10.40", "+0.40 ± 0.00 (0.00)", "20.40"]
    assert rows[2][at["FID"] + 1] == ""


def test_what_passes_without_a_network_is_shown_beside_those_that_have_one() -> None:
    """Judges that let a linear filter pass do not ask for what networks add; the table says so."""
    seen = {"fine": [0.5, 0.1], "contrast": [0.9, 0.1]} | {
        f"{k} {j}": [0.7, 0.1] for k in ("precision", "recall") for j in ("seen", "unseen")
    }
    filters = [final("closed forms", cost, value, value) for cost, value in ((1, 30), (2, 22), (3, 25))]
    chosen = finalists([BASE, FEWER, CHEAP, *filters], BASE, 4, 5)
    assert [row["mflop"] for row in chosen if row["family"] == "closed forms"] == [1, 2], "3 costs more, and is worse"
    answer = {"kind": "unet", "side": 32, "n_final": 8, "finals": [{**row, "looks": seen} for row in chosen]}
    lines = looks_table({"clothing32/front-unet": answer}).splitlines()
    rows = [line.split("|")[3:5] for line in lines if line.startswith("| clothing32")]
    assert rows == [[" 8 ", f" {what} "] for what in ("best", "rival", "hybrid", "no network")]
    assert next(line for line in lines if "no network" in line).split("|")[6:9] == [" 2 ", " 22.0 ", " 22.0 "]
    del seen["contrast"]  # an answer of before it was measured
    before = looks_table({"clothing32/front-unet": answer}).splitlines()
    assert before[2].split("|")[9:11] == [" 0.50 ± 0.10 ", "  "]


def test_what_was_kept_is_found_by_what_was_asked_and_by_what_it_depends_on(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"one")
    calls: list[int] = []

    def measure() -> list[int]:
        calls.append(0)
        return calls

    kept = Kept(tmp_path / "kept", [weights, "about"])
    assert [kept({"n": 1}, measure), kept({"n": 1}, measure), kept({"n": 2}, measure)] == [[0], [0], [0, 0]]
    assert Kept(tmp_path / "kept", [weights, "about"])({"n": 1}, measure) == [0]
    weights.write_bytes(b"two")  # trained anew: another folder
    assert len(Kept(tmp_path / "kept", [weights, "about"])({"n": 1}, measure)) == 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Small networks that have learnt nothing but the moments, and judges that have seen the images once."""
    place = Place(tmp_path_factory.mktemp("work"), None, "cpu", quick=True)
    data = place.images("mnist")
    torch.manual_seed(0)
    shape = data.image_shape
    makers = {"global": pw.UNetDenoiser(shape, width=8, patch=4), "small": pw.UNetDenoiser(shape, width=8, patch=7)}
    for name, network in {**makers, "r1": pw.LocalDenoiser(shape, 1, width=8)}.items():
        network.fit_moments(data.train)
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        pw.save_denoiser(network, place.folder("mnist", name))
    for seed, judge in enumerate(("judge", "judge-unseen")):
        train_classifier(data, seed=seed, epochs=1, batch=16).save(place.folder("mnist", judge))
    return place


HOW = FrontSize(8, 8, 3, counts=(3, 4), shares=(0.4,), finer=False, most=1, own=1, prices=(8, 4), rounds=1, batch=8)


def test_a_front_that_was_cut_off_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled: list[float] = []
    real = Bench.samples

    def counted(self: Bench, plan: pw.HybridSchedule, *rest: Any) -> Any:
        if len(sampled) == stop:
            raise KeyboardInterrupt
        sampled.append(plan.times[1])
        return real(self, plan, *rest)

    monkeypatch.setattr(Bench, "samples", counted)
    stop = 10
    with pytest.raises(KeyboardInterrupt):
        Front(Bench(place, "mnist", "unet", HOW)).run()
    stop = -1
    found = Front(Bench(place, "mnist", "unet", HOW)).run()
    own = 3 * (2 * HOW.own + 1) * (2 * max(HOW.counts) - 1 + len(SOLVERS))
    whole = sum("whole" in row for row in found["finals"])
    searches = 4 * HOW.trials + len(SOLVERS) + own
    judged = len(found["rows"]) + 3 * len(found["finals"]) + 2 * whole
    assert len(sampled) <= searches + judged  # a grid tried twice is judged once
    shown = [(tuple(row["times"]), tuple(row["assignment"]), row["solver"]) for row in found["rows"]]
    assert len(set(shown)) == len(shown)
    count = len(sampled)
    again = Front(Bench(place, "mnist", "unet", HOW)).run()
    assert len(sampled) == count
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in found.items() if k != "seconds"}
    assert {row["family"] for row in found["rows"]} == {"one network", "small then large", "closed forms", "hybrid"}
    assert all(row["assignment"][0] == "pixel" for row in found["rows"])
    with Image.open(place.folder("mnist", "front-unet") / SAMPLES_FILE) as drawn:
        count = len({id(row) for row in named(found["finals"]).values()})
        assert drawn.size == ((1 + count) * (COLUMNS * 29 - 1) + count * GAP, SHOWN // COLUMNS * 29 - 1)


def guarded(fids: dict[str, float], allowed: float) -> tuple[bool, float]:
    """Written out: what the search is held to."""
    if fids["pixels"] > 1.25 * allowed:
        return True, fids["pixels"]
    return False, fids["seen"] * max(1.0, fids["pixels"] / allowed)


def test_a_search_takes_no_grid_whose_pixels_no_finalist_may_have(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grids that begin late are far here and loved by the judge, three times as much as the others."""

    def fids(bench: Bench, plan: Plan) -> dict[str, float]:
        late = plan.times[1] > 0.8
        return {"seen": 10.0 if late else 30.0, "unseen": 20.0, "pixels": 2.0 if late else 1.0}

    monkeypatch.setattr(Bench, "fids", fids)
    front = Front(Bench(place, "mnist", "unet", replace(HOW, trials=12)))
    front.__dict__["allowed"] = 1.0
    assert front.searched("global", 3).high <= 0.8
    front.__dict__["allowed"] = 0.5  # now all are far, the late ones most
    assert front.searched("global", 4).high <= 0.8
    assert front.known("global", 5) == front.found["global", 3], "a far one is no beginning"


def test_times_of_larger_images_are_shifted_by_their_odds_down_to_the_last(place: Place) -> None:
    grid = Grid("ode", 0.85, 0.03, 1.0)
    small, large = grid.times(5), grid.times(5, 4.0)
    assert small == pytest.approx((1.0, 0.85, 0.5766667, 0.3033333, 0.03))
    low = 0.03 / (4 - 3 * 0.03)
    odds = [t / (1 - t) for t in large[1:]]
    even = [0.85 + (low - 0.85) * k / 3 for k in range(4)]
    assert odds == pytest.approx([4 * t / (1 - t) for t in even])
    assert (large[0], large[-1]) == pytest.approx((1, 0.03))
    sides = {name: Front(Bench(place, name, "unet", HOW)).shift for name in ("mnist", "clothing32", "clothing64")}
    assert sides == {"mnist": 1, "clothing32": 1, "clothing64": 2}


def test_later_times_are_tried_while_all_are_far(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fids(bench: Bench, plan: Plan) -> dict[str, float]:
        return {"seen": 1.0, "unseen": 1.0, "pixels": plan.times[1]}

    monkeypatch.setattr(Bench, "fids", fids)
    for trials, found in ((5, 0.77), (6, 0.67)):
        front = Front(Bench(place, "mnist", "unet", replace(HOW, trials=trials)))
        front.__dict__["allowed"] = 0.55  # .85 and .77 are far
        assert front.searched("global", 3).high == found
        assert bool(front.near) == (found < FAR * 0.55)


def test_a_search_that_begins_elsewhere_tries_the_default_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fids(bench: Bench, plan: Plan) -> dict[str, float]:
        value = 10.0 if plan.times in (DEFAULT.times(4), (1.0, 0.5, 0.1)) else 30.0
        return {"seen": value, "unseen": value, "pixels": 1.0}

    monkeypatch.setattr(Bench, "fids", fids)
    front = Front(Bench(place, "mnist", "unet", replace(HOW, trials=5)))
    front.near["global", 3] = front.found["global", 3] = Grid("exp_ab2", 0.5, 0.1, 1.0)
    assert front.searched("global", 4) == DEFAULT._replace(solver="exp_ab2"), "by every solver: these are equal"


def test_a_search_tries_an_earlier_second_step_once_it_knows_a_grid(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fids(bench: Bench, plan: Plan) -> dict[str, float]:
        value = 1.0 - plan.times[1]
        return {"seen": value, "unseen": value, "pixels": 1.0}

    monkeypatch.setattr(Bench, "fids", fids)
    front = Front(Bench(place, "mnist", "unet", replace(HOW, trials=8)))
    front.near["global", 3] = front.found["global", 3] = Grid("exp_ab2", 0.5, 0.1, 1.0)
    assert front.searched("global", 4) == DEFAULT._replace(solver="exp_ab2", high=EARLIER), "by the solver it knows"


def test_what_local_steps_save_is_judged_on_the_same_times(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def judged(front: Front, row: Row) -> dict[str, Any]:
        asked.append(row["assignment"])
        return {judge: [[value, [0.0, 1.0]]] * 2 for judge, value in (("seen", 9.0), ("unseen", 21.0))}

    monkeypatch.setattr(Front, "judged", judged)
    front = Front(Bench(place, "mnist", "unet", HOW))
    about = {"times": [1.0, 0.8, 0.5, 0.1], "solver": SOLVERS[0]}
    hybrid = {**CHEAP, **about, "assignment": ["pixel", "wiener", "r1", "global"]}
    base, found = front.with_whole([{**BASE, **about}, hybrid])
    assert "whole" not in base
    assert asked == [["pixel", "wiener", "global", "global"]], "a filter sees the whole image"
    cost = sum(front.bench.mflop[name] for name in asked[0])
    assert found["whole"]["mflop"] == pytest.approx(cost)
    clock = {"rival": [1], "hybrid": [1]}
    answer = {"kind": "unet", "side": 28, "n_final": 8, "finals": [base, found], "clock": clock}
    text = saving_table({"mnist/front-unet": answer})
    assert f"|  | {cost / 20:.2f}: +1.40 ± 0.00 (0.00), -0.60 ± 0.00 (0.00) |" in text


def test_hybrids_take_the_times_of_the_best_network_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cheaper network than the reference may be better: mixtures begin where it ended, at shares of its cost."""

    def fids(bench: Bench, plan: Plan) -> dict[str, float]:
        good = 10.0 if plan.assignment[1] == better else 30.0
        return {"seen": good, "unseen": good, "pixels": 1.0}

    monkeypatch.setattr(Bench, "fids", fids)
    for better, own in (("small", True), ("global", False)):
        front = Front(Bench(place, "mnist", "unet", HOW))
        plans = list(front.candidates())
        found = front.found["small", 4]
        assert front.best_searched() == (better, 3), "of equal ones the cheapest"
        last = list(front.grids())[-1]
        assert (last[2] == "small") == own
        if own:
            best = front.found["small", 3]
            assert last == (best.times(3), best.solver, "small")
        assert any(family == "closed forms" and plan.times == last[0] for family, plan in plans)
        assert found in front.near.values()


def test_the_best_of_every_family_are_moved_to_times_of_their_own(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other times suit a hybrid here, and the third solver; what has them is as cheap as before."""

    def fids(bench: Bench, plan: Plan) -> dict[str, float]:
        late = abs(plan.times[1] - 0.7) + abs(plan.times[2] - 0.1) if "r1" in plan.assignment else plan.times[2]
        value = 10 * (1 + late + (plan.solver != SOLVERS[2]))
        return {"seen": value, "unseen": value, "pixels": 1.0}

    monkeypatch.setattr(Bench, "fids", fids)
    bench = Bench(place, "mnist", "unet", HOW)
    front = Front(bench)
    front.__dict__["allowed"] = 1.0
    times = (1.0, 0.8, 0.03)
    plans = {
        "one network": bench.alone("global", times, SOLVERS[0]),
        "hybrid": bench.plan(times, (START, "r1", "global"), SOLVERS[0]),
        "closed forms": bench.plan(times, (START, "wiener", "wiener"), SOLVERS[0]),
    }  # fmt: skip
    before = {family: front.row(family, plan) for family, plan in plans.items()}
    found = dict(front.on_times_of_their_own(list(before.values())))
    assert set(found) == {"one network", "hybrid"}
    assert {plan.solver for plan in found.values()} == {SOLVERS[2]}
    for family, plan in found.items():
        assert (plan.assignment, plan.mflop) == (plans[family].assignment, plans[family].mflop)
        assert front.row(family, plan)["fid"]["seen"] < before[family]["fid"]["seen"] - 10, "a better solver, and times"
    assert found["hybrid"].times[1] < 0.78, "each its own"
    assert found["hybrid"].times[2] >= 0.03
    assert PRICED[1] <= found["one network"].times[2] < 0.025, "no earlier than members are priced"
    front.how = replace(front.how, own=0)
    assert not list(front.on_times_of_their_own(list(before.values())))


def test_no_schedule_is_moved_where_its_pixels_are_far(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge loves what begins late, and nothing that does may be a finalist."""

    def fids(bench: Bench, plan: Plan) -> dict[str, float]:
        value = 1.0 if plan.times[1] > 0.9 else 30.0 - plan.times[1]
        return {"seen": value, "unseen": value, "pixels": 2.0 if plan.times[1] > 0.9 else 1.0}

    monkeypatch.setattr(Bench, "fids", fids)
    bench = Bench(place, "mnist", "unet", HOW)
    front = Front(bench)
    front.__dict__["allowed"] = 1.0
    for begin, found in (((1.0, 0.88, 0.05), 0.88), ((1.0, 0.8, 0.05), 0.879)):
        assert front.moved(bench.alone("global", begin, SOLVERS[0])).times[1] == pytest.approx(found, abs=1e-3)
    assert front.moved(bench.alone("global", (1.0, 0.8), SOLVERS[0])).times[1] > 0.8, "two steps have room above, too"
    front.__dict__["allowed"] = 0.1  # all are far: the least
    assert front.moved(bench.alone("global", (1.0, 0.905, 0.05), SOLVERS[0])).times[1] <= 0.9


def test_what_is_moved_is_near_the_bound_or_in_reach_of_it() -> None:
    def rows(family: str, *values: tuple[float, float]) -> list[Row]:
        return [final(family, cost, 10 * v, 20 * v) for cost, v in values]

    hybrids = rows("hybrid", (10, 1.4), (20, 1.24), (30, 1.2), (40, 1.07), (60, 0.95))
    chosen = promising([BASE, *hybrids, *rows("closed forms", (1, 1.0))], BASE, 1.6, 1, 1.25)
    assert [r["mflop"] for r in chosen] == [100, 40, 60, 20]
    same = rows("hybrid", (40, 1.09), (40, 1.0))
    assert [r["fid"]["seen"] for r in finalists([BASE, *same], BASE, 1.6, 6)[1:]] == [10], "of equal costs the better"


def test_a_search_keeps_the_best_that_it_has_tried(place: Place) -> None:
    bench = Bench(place, "mnist", "unet", HOW)
    front = Front(bench)
    best = front.searched("global", 3)
    own = [bench.alone("global", DEFAULT.times(max(HOW.counts)), solver) for solver in SOLVERS]
    assert front.allowed == min(bench.fids(p)["pixels"] for p in own)
    assert front.allowed > 0
    plan = bench.alone("global", best.times(3), best.solver)
    value = guarded(bench.fids(plan), front.allowed)
    tried = [bench.kept.folder / f.name for f in bench.kept.folder.glob("*.json")]
    answers = [read_json(f) for f in tried]
    fids = [
        guarded(a["answer"], front.allowed)
        for a in answers
        if a["asked"].get("fids", {}).get("assignment") == ["pixel", "global", "global"]
    ]
    assert value == min(fids)
    assert not value[0]
    assert front.known("small", 3) == best  # a smaller network begins where the reference ended
    assert front.known("global", 4) == best
    assert front.known("global", 3) is None


def test_every_job_comes_after_those_it_needs() -> None:
    for size, jobs in JOBS.items():
        titles = list(jobs)
        for k, job in enumerate(jobs.values()):
            missing = [n for n in job.needs if n not in titles[:k]]
            assert not missing, (size, job.title, missing)
    sets = [job.data for job in JOBS["cpu"].values()]
    assert sets == sorted(sets, key=["clothing32", "clothing64", "clothing128", "cifar10"].index)


def test_jobs_of_some_sets_and_of_none(tmp_path: Path) -> None:
    study = GPUQueue(Options(sets=("clothing64",), device="cpu"), tmp_path)
    assert {cell.what.data for cell in study.cells()} == {"clothing64"}
    assert all(cell.asked["size"] == "cpu" for cell in study.cells())
    for wrong in (Options(sets=("mnist",), device="cpu"), Options(job=("clothing64/nothing",), device="cpu")):
        with pytest.raises(PhasewiseError, match="unknown"):
            list(GPUQueue(wrong, tmp_path).cells())


def test_shipped_networks_and_judges_go_where_a_front_looks_for_them(tmp_path: Path) -> None:
    place, ready = Place(tmp_path, None, "cpu", quick=True), pw.load_pretrained("cifar10")
    jobs = JOBS["cpu"]
    for job in ("global", "coarse", "dit", "dit-coarse", "locals", "judge", "judge-unseen"):
        about = jobs[f"cifar10/{job}"]
        found = about.work(place, about.data, about.name)
        assert job == "locals" or ("test_accuracy" in found if "judge" in job else found["val_loss"] > 0.3)
    bench = Bench(place, "cifar10", "unet", FrontSize(8, 8, 2))
    radii = {f"r{r}" for r in (1, 2, 3, 5, 8, 12)}
    assert set(found := bench.members) == {"global", "coarse", "wiener", "pixel", *radii}
    x, t = torch.rand(2, 3, 32, 32), torch.full((2,), 0.4)
    with torch.no_grad():
        assert torch.equal(found["r3"](x, t), ready.denoiser("r3")(x, t))
    assert bench.judges["unseen"].digest() == ready.features(unseen=True).digest()
    of_set = {title: job for title, job in jobs.items() if job.data == "cifar10"}
    assert {need for job in of_set.values() for need in job.needs} <= set(of_set), "nothing of another set"
    transformers = pw.load_pretrained("cifar10-dit")
    with torch.no_grad():
        for name, member in (("dit", "global"), ("dit-coarse", "dit-coarse")):
            assert torch.equal(place.network("cifar10", name)(x, t), transformers.denoiser(member)(x, t))
    assert transformers.denoiser("global").radius is None


def test_photographs_are_judged_by_features_of_others(tmp_path: Path) -> None:
    place, jobs = Place(tmp_path, None, "cpu", quick=True), JOBS["cpu"]
    for name in ("judge", "judge-unseen"):
        assert jobs[f"clothing64/{name}"].work(place, "clothing64", name)["test_accuracy"] > 0.85
    judges = Bench(place, "clothing64", "dit", FrontSize(8, 8, 2)).judges
    own = pw.load_pretrained("cifar10").features()
    assert judges["seen"].name == own.name
    assert judges["seen"].digest() != judges["unseen"].digest()
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole, tiles = judges["seen"].extract(x).split(own.dim, 1)
    small = torch.nn.functional.avg_pool2d(x, 2)
    assert torch.allclose(whole, own.extract(small), atol=1e-5)
    corners = [x[..., i : i + 32, j : j + 32] for i in (0, 32) for j in (0, 32)]
    assert torch.allclose(tiles, torch.stack([own.extract(c) for c in corners]).mean(0), atol=1e-5)


@pytest.mark.parametrize("side", [64, 128])
def test_a_borrowed_judge_sees_the_whole_and_the_middle(side: int) -> None:
    judge = Borrowed(pw.load_pretrained("cifar10").features(unseen=True), side)
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    middle = slice((side - 64) // 2, (side + 64) // 2)
    # waves that the whole's average does not see
    fine = 0.3 * torch.tensor([1.0, -1.0]).repeat(side // 2)
    inside = torch.zeros(side, side)
    inside[middle, middle] = 1
    whole, tiles = judge.extract(x).split(judge.judge.dim, 1)
    same, other = judge.extract(x + fine * inside).split(judge.judge.dim, 1)
    assert torch.allclose(same, whole, atol=1e-4), "the average of two pixels is the same"
    assert (other - tiles).abs().max() > 0.01
    beyond = judge.extract(x + fine * (1 - inside))[:, judge.judge.dim :]
    assert torch.allclose(beyond, tiles, atol=1e-4)


def test_a_processor_does_a_job_of_a_gpu_where_it_is_named(tmp_path: Path) -> None:
    (cell,) = GPUQueue(Options(job=("mnist/global",), device="cpu"), tmp_path).cells()
    assert (cell.what, cell.asked) == (JOBS["gpu"]["mnist/global"], {"tiny": False})
    (cell,) = GPUQueue(Options(job=("clothing32/dit",), device="cpu", size="gpu"), tmp_path).cells()
    assert (cell.what, cell.asked) == (JOBS["gpu"]["clothing32/dit"], {"tiny": False})


def test_images_fix_the_number_of_steps_and_seconds_leave_it_to_the_pace() -> None:
    assert Amount(images=3200).steps(32, 0.5) == 50
    assert Amount(seconds=100).steps(32, 2.0, pace=3.0) == 600


def test_a_transformer_lends_what_does_not_know_the_side() -> None:
    small, large = DiTDenoiser((3, 8, 8), width=32, depth=1), DiTDenoiser((3, 16, 16), width=32, depth=1)
    fresh = large.places.detach().clone()
    torch.manual_seed(1)
    for parameter in small.parameters():
        parameter.data.normal_()
    names = lend(small, large)
    assert torch.equal(large.blocks[0].qkv.weight, small.blocks[0].qkv.weight)
    assert "places" not in names
    assert torch.equal(large.places, fresh)


def test_a_training_begins_with_what_a_shipped_one_lends(tmp_path: Path) -> None:
    place, make = Place(tmp_path, None, "cpu", quick=True), partial(DiTDenoiser.of_size, size="small")
    lender, amount = Shipped("cifar10-dit", "global"), Amount(images=16)
    with pytest.raises(PhasewiseError, match="no network yet"):
        place.network("clothing64", "dit")
    for name, begins in (("clothing64", lender), ("clothing96", None), ("clothing128", None)):
        answer = train_network(make, amount, begins)(place, name, "dit")
        assert (answer["steps"], answer["images_seen"]) == (2, 16)
        assert not list(tmp_path.rglob("checkpoint*"))
    lent = lender.network().blocks[0].qkv.weight
    begun, alone, again = (
        place.network(n, "dit").blocks[0].qkv.weight for n in ("clothing64", "clothing96", "clothing128")
    )
    assert torch.equal(alone, again)  # the same images, weights and noise
    assert (begun - lent).abs().max() < 0.1 * lent.abs().max() < (alone - lent).abs().max(), "two steps from it"


def test_rows_of_a_batch_learn_for_one_window_each() -> None:
    torch.manual_seed(0)
    served = Served((1, 8, 8), width=32, depth=2).for_windows((None, 1))
    for parameter in served.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x, t = torch.randn(4, 1, 8, 8), torch.rand(4)
    whole, near = served.eval()(x, t), served.windowed(1).eval()(x, t)
    assert not torch.allclose(whole, near, atol=1e-4)
    expected = torch.cat([whole[:2], near[2:]])
    assert torch.allclose(served.train()(x, t), expected, atol=1e-5)


def test_the_exact_curve_is_read_from_its_page(tmp_path: Path) -> None:
    rows = "\n".join(
        f"| {field} | {side} | {error} | 1 | {calls}, ddim | {saving} (1 + 2) |"
        for field, side, error, calls, saving in (
            ("scaling", 32, "frechet", 5, 8.2), ("scaling", 32, "frechet", 11, 5.8), ("scaling", 32, "kl", 5, 1.0),
            ("scaling", 64, "frechet", 5, 9.3), ("fixed", 64, "frechet", 5, 2.0),
        )
    )  # fmt: skip
    head = "| field | side | error | at most | rival: steps, solver | net |\n| --- | --- | --- | --- | --- | --- |"
    page = tmp_path / "page.md"
    page.write_text(f"{start_mark('resolution', 'saving')}\n\n{head}\n{rows}\n\nnote\n\n{END}\n", encoding="utf-8")
    assert exact_savings(page, "net") == {"5": [(32, 8.2), (64, 9.3)], "11": [(32, 5.8)]}
    assert np.isfinite(exact_savings(PAGE, "transformer")["11"]).all()


def test_sides_measured_elsewhere_stay_on_the_page_and_in_the_figure(tmp_path: Path) -> None:
    page, mark = tmp_path / "page.md", start_mark("gpu", "saving")
    clock = {"rival": [1], "hybrid": [1]}

    def answer(side: int, *finals: Row) -> dict[str, Any]:
        return {"kind": "unet", "side": side, "n_final": 8, "finals": list(finals), "clock": clock}

    before = {f"clothing{side}/front-unet": answer(side, BASE, CHEAP) for side in (32, 128)}
    page.write_text(f"{mark}\n\n{saving_table(before)}\n\n{END}\n", encoding="utf-8")
    now = {
        "clothing64/front-unet": answer(64, *(looked(row, 0.5, 0.5) for row in (BASE, CHEAP))),
        "clothing128/front-unet": answer(128, looked(BASE, 0.9, 0.9), looked(CHEAP, 0.1, 0.9)),
    }
    found = [value for row in measured_savings(now, page)["U-Net"] for value in row]
    assert found == pytest.approx([32, 5, math.nan, 64, 5, 5, 128, 5, 1], nan_ok=True)
    whole = with_others(page, "gpu", "saving", saving_table(now), GPUQueue.named_by["saving"])
    assert [row[:4] for row in table_of(whole)[1]] == [
        ["clothing32", "32", "U-Net", "16"], ["clothing64", "64", "U-Net", "16"], ["clothing128", "128", "U-Net", "16"],
    ]  # fmt: skip
    assert whole.split("\n\n")[1:] == saving_table(now).split("\n\n")[1:], "what is said below stays"


def test_a_pace_is_measured_on_copies(place: Place) -> None:
    data = place.images("mnist")
    network = pw.LocalDenoiser(data.image_shape, 1, width=8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    preset = preset_for(place, data)
    pace = _steps_a_second({"r1": network}, data, preset, TrainSettings(progress=False), before=1, measured=2)
    assert pace > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
