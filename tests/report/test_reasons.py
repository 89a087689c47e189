"""Whether locality pays, and why not, from records made so that each reason is true alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import NAMES, evaluations, training, write, write_run

from phasewise.files import write_json
from phasewise.report import causes, outcome
from phasewise.report.reasons import (
    answer,
    control_share,
    gap_in_words,
    kept_when_opened,
    late_fall,
    local_saving,
    looks_back,
    reasons,
)
from phasewise.report.style import Palette, num, pm
from phasewise.report.verdict import verdict
from phasewise.results import Estimate, Evaluation, JudgeScore, TrainingRecord
from phasewise.runs import open_run
from phasewise.runs.run import Run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run in which no reason holds: cheap locals, a small control, a network that is done and does not overfit."""
    root = write_run(tmp_path / "run")
    for i, name in enumerate(NAMES):
        write(root, f"training/{name}", trained(name, 1000 * i))
    return root


def trained(name: str, parameters: int, *, late: float = 0.0, excess: float = 0.01) -> TrainingRecord:
    """Held-out loss falls by 0.3 in the first three quarters and by ``late`` in the last."""
    share = np.arange(1, 21) / 20
    loss = 0.8 - 0.3 * np.minimum(share / 0.75, 1) - late * np.maximum(share - 0.75, 0) / 0.25
    rows = [
        {"step": int(1000 * s), "train_loss": v - excess, "val_loss": v}
        for s, v in zip(share.tolist(), loss.tolist(), strict=True)
    ]
    return dataclasses.replace(training(name, parameters), history=tuple(rows))


def gaps(root: Path, **values: tuple[float, float]) -> Run:
    """The run with these path KLs of r1, r2, r3 and the control."""
    table = {n: Estimate(*v, 512).to_dict() for n, v in values.items()}
    write_json(root / "records/gap.json", {"path_kl": table})
    return open_run(root)


def judged(root: Path, **changes: dict[str, object]) -> tuple[Evaluation, Evaluation, Evaluation]:
    """Hybrid, global and fewer steps with fields replaced."""
    found = {e.name: dataclasses.replace(e, **changes.get(e.name, {})) for e in evaluations()}
    write_json(root / "records/evaluation.json", {"evaluations": [e.to_dict() for e in found.values()], "real": {}})
    return found["hybrid"], found["global"], found["global_cheap"]


def test_no_reason_is_given_where_none_holds(folder: Path) -> None:
    run = gaps(folder, r1=(30.0, 0.3), r3=(6.0, 0.1), control=(1.0, 0.1))
    assert reasons(run, *judged(folder)[::2]) == ()
    judged(folder, hybrid={"fid": 30.0})
    told = verdict(open_run(folder))
    assert told.headline.startswith("Locality does not pay here: at 54 % of the FLOPs the hybrid's FID is higher")
    assert told.sentences[0].startswith("Why is not seen in the records")


def test_capacity_is_told_from_the_window(folder: Path) -> None:
    run = gaps(folder, r1=(10.7, 0.1), r2=(12.5, 0.1), r3=(13.8, 0.1), control=(13.1, 0.1))
    share = control_share(run)
    assert share is not None
    assert share.value == pytest.approx(13.1 / 13.8)
    (why,) = reasons(run)
    assert why.startswith("Capacity rather than window")
    assert "95 % of its gap" in why
    words = gap_in_words(run, {"r3": "r = 3", "r1": "r = 1"})
    assert words.startswith("Most of this gap is not locality: the control,")
    assert "13.10 ± 0.10 of the 13.80 ± 0.10 nats of path KL of r = 3 (95 %)" in words
    assert "even rises with the radius, from 10.70 ± 0.10 (r = 1) to 13.80 ± 0.10 (r = 3)" in words
    intro = causes.diagnosis(run, Palette(run)).intro
    assert intro.startswith("Most of this gap is not locality")
    assert "costs" not in intro, "no price of locality where it is none"
    # a gap that the window has, and none at all
    local = gaps(folder, r1=(30.0, 0.1), r3=(13.8, 0.1), control=(2.0, 0.1))
    assert reasons(local) == ()
    assert gap_in_words(local, {}).startswith("Most of it comes with the window")
    assert control_share(gaps(folder, r3=(0.1, 0.1), control=(0.1, 0.1))) is None
    assert "the gap is not resolved" in gap_in_words(open_run(folder), {})


def test_capacity_says_at_which_times_the_window_takes_a_part(folder: Path) -> None:
    """A share of path KL is one of low noise; where the opened design is better, that is said with its share."""
    run = gaps(folder, r3=(13.8, 0.1), control=(13.1, 0.1))
    assert run.losses is not None
    table = run.losses
    i, j = table.column("r3"), table.column("control")
    gap, error = np.zeros_like(table.gap), np.full_like(table.gap_stderr, 0.1)
    gap[:, i] = gap[:, j] = 4.0
    gap[8, j], gap[10, j], gap[12, j] = 2.0, 3.0, 3.9  # the last differs by less than its error
    write(folder, "losses", dataclasses.replace(table, gap=gap, gap_stderr=error))
    run = open_run(folder)
    kept = kept_when_opened(run, "r3")
    assert list(kept) == [table.times[8], table.times[10]]
    assert list(kept.values()) == pytest.approx([0.5, 0.75])
    (why,) = reasons(run)
    assert "keeps 95 % of its gap. That is of its path KL, where low noise weighs most" in why
    assert (
        f"between t = {table.times[8]:g} and {table.times[10]:g} the opened design is better and keeps 50 to 75 %"
        in why
    )
    gap[10, j] = 4.0
    write(folder, "losses", dataclasses.replace(table, gap=gap, gap_stderr=error))
    (why,) = reasons(open_run(folder))
    assert f"at t = {table.times[8]:g} the opened design is better and keeps 50 % of" in why
    gap[:, j] = 5.0  # nowhere better: nothing is added
    write(folder, "losses", dataclasses.replace(table, gap=gap, gap_stderr=error))
    (why,) = reasons(open_run(folder))
    assert why.endswith("keeps 95 % of its gap.")
    assert kept_when_opened(open_run(folder), "r2") == kept_when_opened(open_run(folder), "nobody") == {}


def test_too_small_images_are_told_by_the_cost_of_a_call(folder: Path) -> None:
    run = gaps(folder, r3=(6.0, 0.1), control=(1.0, 0.1))
    assert run.prices is not None
    flops = run.prices.flops.copy()
    flops[:3] = [0.85 * flops[4], 0.9 * flops[4], 1.33 * flops[4]]
    write(folder, "prices", dataclasses.replace(run.prices, flops=flops))
    (why,) = reasons(open_run(folder))
    assert why.startswith(
        "Too small: on images of 28 × 28 pixels a call of the cheapest local network, r = 1, costs 85 %"
    )


def test_undertrained_is_told_by_the_end_of_the_history(folder: Path) -> None:
    gaps(folder, r3=(6.0, 0.1), control=(1.0, 0.1))
    assert late_fall(trained("global", 1)) == pytest.approx(0.0)
    write(folder, "training/global", trained("global", 1, late=0.1))
    (why,) = reasons(open_run(folder))
    # the first record is at a twentieth of the steps: by then 0.02 of the 0.4 is gone
    assert why.startswith("Undertrained: 26 % of all that the global network's held-out loss fell on record")
    rising = dataclasses.replace(trained("global", 1), history=trained("global", 1).history[::-1])
    assert late_fall(dataclasses.replace(rising, history=rising.history[:3])) is None


def test_few_steps_and_untaught_locals_are_named(folder: Path) -> None:
    gaps(folder, r3=(6.0, 0.1), control=(1.0, 0.1))
    short = dataclasses.replace(
        trained("global", 1), steps=4, preset={"ema": 0.999}, history=trained("global", 1).history[:3]
    )
    assert late_fall(short) is None
    assert looks_back(short) == 1000
    write(folder, "training/global", short)
    (why,) = reasons(open_run(folder))
    assert why.startswith("Undertrained: the global network took 4 steps, fewer than the 1,000 that the average of its")
    long = dataclasses.replace(trained("global", 1), preset={"ema": 0.999})
    write(folder, "training/global", long)
    assert reasons(open_run(folder)) == ()
    write(folder, "training/r1", trained("r1", 1, late=0.1))
    write(folder, "training/r3", dataclasses.replace(short, name="r3"))
    (why,) = reasons(open_run(folder))
    assert why.startswith("Undertrained: r = 1 and r = 3; part of the gap to the global network")


def test_what_has_not_learnt_is_said_before_what_it_seems_to_show(folder: Path) -> None:
    gaps(folder, r1=(10.7, 0.1), r3=(13.8, 0.1), control=(13.1, 0.1))
    write(folder, "training/global", trained("global", 1, late=0.1))
    hybrid, full, cheap = judged(folder, global_cheap={"fid": 12.4})
    first, *others = reasons(open_run(folder), hybrid, cheap, full)
    assert first.startswith("Undertrained")
    assert any(text.startswith("Few steps are enough") for text in others)
    assert any(text.startswith("Capacity rather than window") for text in others)
    assert "no gain shown. Undertrained: 26 % of all" in verdict(open_run(folder)).headline
    # nor is a gain told without it
    judged(folder)
    told = verdict(open_run(folder)).headline
    assert told.startswith("The hybrid pays here, little of it by locality: at 54 % of the FLOPs")
    assert "Undertrained: 26 % of all that the global network's held-out loss fell" in told
    write(folder, "training/global", trained("global", 1))
    assert "Undertrained" not in verdict(open_run(folder)).headline


def test_a_loss_that_rises_again_tells_of_few_images(folder: Path) -> None:
    gaps(folder, r3=(6.0, 0.1), control=(1.0, 0.1))
    write(folder, "training/global", trained("global", 1, late=-0.1))
    (why,) = reasons(open_run(folder))
    assert why.startswith("Too few images: on others than the 10,000 training images the global network's loss rose")
    assert why.endswith("from 0.500 at step 750 to 0.600 at the end.")


PIXELS = "principal components of the pixels (64 dimensions; not FID)"
USERS = {
    "300 photographs": ((3, 64, 64), {"train": 240, "validation": 30, "test": 30}, PIXELS, None),
    "digits": ((1, 8, 8), {"train": 1297, "validation": 200, "test": 300}, "classifier features", 10),
    "grey": ((1, 28, 28), {"train": 60000, "validation": 5000, "test": 5000}, "classifier features", 10),
}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(("rival", "answered"), [(17.9, "The hybrid pays"), (12.4, "No gain"), (5.0, "Locality does")])
def test_the_first_sentence_answers_on_anybodys_images(folder: Path, user: str, rival: float, answered: str) -> None:
    shape, sizes, features, classes = USERS[user]
    about = open_run(folder).data
    assert about is not None
    write(folder, "data", dataclasses.replace(about, image_shape=shape, sizes=sizes, classes=classes))
    gaps(folder, r3=(6.0, 0.1), control=(1.0, 0.1))
    changes = {e.name: {"features": features, "reference_n": sizes["train"]} for e in evaluations()}
    changes["global_cheap"]["fid"] = rival
    judged(folder, **changes)
    told = verdict(open_run(folder))
    assert told.headline.startswith(answered)
    assert ("Fréchet distance" in told.headline) == (features == PIXELS)
    few = "Too few images: samples are compared with the 240 training images"
    assert (few in told.headline) == (user == "300 photographs")
    if answered == "No gain":
        assert "2,000 samples tell" in told.headline, "with the difference that could have been told"
    write(folder, "training/global", trained("global", 1, excess=0.2))
    heart = f"Too few images: the global network's loss is 0.300 on the {sizes['train']:,} training images"
    assert heart in verdict(open_run(folder)).headline


def test_your_own_schedule_comes_after_the_answer(folder: Path) -> None:
    every = evaluations()
    own = dataclasses.replace(next(e for e in every if e.name == "global"), name="own", label="your schedule")
    write_json(folder / "records/evaluation.json", {"evaluations": [e.to_dict() for e in (*every, own)], "real": {}})
    told = verdict(open_run(folder)).headline
    assert told.startswith("The hybrid pays here, little of it by locality. Your schedule: FID 12.1")


def test_too_few_images_are_told_by_what_was_learnt_by_heart(folder: Path) -> None:
    gaps(folder, r3=(6.0, 0.1), control=(1.0, 0.1))
    write(folder, "training/global", trained("global", 1, excess=0.2))
    (why,) = reasons(open_run(folder))
    assert why.startswith("Too few images: the global network's loss is 0.300 on the 10,000 training images")
    assert why.endswith("and 0.500 on others.")


def test_a_schedule_without_local_steps_is_no_gain_from_locality(folder: Path) -> None:
    run = gaps(folder, r3=(6.0, 0.1), control=(1.0, 0.1))
    hybrid, full, cheap = judged(folder)
    assert hybrid.schedule is not None
    saved = local_saving(run, hybrid)
    taken = hybrid.schedule.assignment
    assert saved == pytest.approx(
        (taken.count("r3") * (24 - 2.3) + taken.count("r1") * (24 - 0.4))
        / (taken.count("r3") * (24 - 2.3) + taken.count("r1") * (24 - 0.4) + taken.count("wiener") * (24 - 0.02))
    )
    assert answer(run, hybrid, full, cheap) == ("The hybrid pays here, little of it by locality", True)
    plan = dataclasses.replace(hybrid.schedule, assignment=("wiener",) * 2 + ("global",) * 8 + ("r3",) * 6)
    hybrid, full, cheap = judged(folder, hybrid={"schedule": plan})
    assert answer(run, hybrid, full, cheap) == ("Locality pays here", True)
    plan = dataclasses.replace(hybrid.schedule, assignment=("r3",) + ("global",) * 15)  # from pure noise
    hybrid, full, cheap = judged(folder, hybrid={"schedule": plan})
    assert answer(run, hybrid, full, cheap) == ("The hybrid pays here, but not by locality", False)
    plan = dataclasses.replace(hybrid.schedule, assignment=("wiener",) * 8 + ("global",) * 8)
    hybrid, full, cheap = judged(folder, hybrid={"schedule": plan})
    assert answer(open_run(folder), hybrid, full, cheap) == ("The hybrid pays here, but not by locality", False)
    assert any("No local network takes a step" in text for text in reasons(open_run(folder), hybrid, cheap))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "The hybrid pays here, little of it by locality"),
        ({"global_cheap": {"fid": 12.4}}, "No gain from locality shown here"),
        ({"global_cheap": {"fid": 5.0}}, "Locality does not pay here"),
        ({"hybrid": {"mflop": 800.0}}, "Locality does not pay here"),
        ({"global_cheap": {"mflop": 300.0}}, "Whether locality pays here is not shown"),
        ({"global_cheap": {"mflop": 300.0, "fid": 5.0}}, "Locality does not pay here"),
    ],
)
def test_the_headline_answers_first(folder: Path, changes: dict[str, dict[str, object]], said: str) -> None:
    judged(folder, **changes)
    assert verdict(open_run(folder)).headline.startswith(f"{said}: ")


@pytest.mark.parametrize(
    ("first", "unseen", "near"),
    [(13.0, 16.0, True), (13.0, 21.5, False), (16.0, 16.0, False), (12.4 * 1.2, 16.9 * 1.2, True), (9.0, 9.0, True)],
)
def test_a_closed_form_near_the_reference_says_that_the_judges_see_little(
    folder: Path, first: float, unseen: float, near: bool
) -> None:
    def seen(values: tuple[float, float, float]) -> dict[str, object]:
        names = {"first": ("FID", "a"), "unseen": ("unseen FID", "b"), "sliced": ("sliced Wasserstein distance", "")}
        scores = {
            key: JudgeScore(measure, value, 0.4, 2000, 10000, features=features)
            for (key, (measure, features)), value in zip(names.items(), values, strict=True)
        }
        return {"judges": scores, "fid": values[0]}

    hybrid, full, cheap = judged(folder)
    full = dataclasses.replace(full, **seen((12.4, 16.9, 0.02)))
    closed = dataclasses.replace(full, name="closed_only", label="", mflop=6.0, **seen((first, unseen, 0.2)))
    every = [hybrid, full, cheap, closed]
    write_json(folder / "records/evaluation.json", {"evaluations": [e.to_dict() for e in every], "real": {}})
    told = [text for text in verdict(open_run(folder)).sentences if "A linear filter and no network" in text]
    assert bool(told) is near
    if near:
        assert f"(FID {num(first)} for 12.4, unseen FID {num(unseen)} for 16.9)" in told[0]
        assert verdict(open_run(folder)).sentences[0] == told[0]


def test_the_rival_is_the_best_of_those_that_cost_as_much(folder: Path) -> None:
    hybrid, full, cheap = judged(folder)
    placed = dataclasses.replace(cheap, name="placed", label="global, placed", fid=12.5, mflop=430.0)
    cheaper = dataclasses.replace(cheap, name="quick", label="global, quick", fid=11.0, mflop=200.0)
    every = [hybrid, full, cheap, placed, cheaper]
    write_json(folder / "records/evaluation.json", {"evaluations": [e.to_dict() for e in every], "real": {}})
    told = verdict(open_run(folder))
    assert told.headline.startswith("No gain from locality shown here")
    assert any(
        text.startswith("global, placed: FID 12.5 ± 0.4 at 58 % of the FLOPs against") for text in told.sentences
    )
    scale = next(text for text in told.sentences if text.startswith("For scale"))
    assert "global, quick" in scale
    assert "global, placed" not in scale
    # one as good that costs nearly twice as much has been matched for half of it
    dear = dataclasses.replace(placed, mflop=744.0, fid=12.1)
    write_json(
        folder / "records/evaluation.json",
        {"evaluations": [e.to_dict() for e in (hybrid, full, cheap, dear)], "real": {}},
    )
    assert verdict(open_run(folder)).headline.startswith("The hybrid pays here")


def test_what_could_have_been_told_stands_beside_every_draw(folder: Path) -> None:
    judged(
        folder, global_cheap={"fid": 12.4}, hybrid={"fid_minus": {"global": [0.2, 0.4], "global_cheap": [-0.1, 0.5]}}
    )
    told = " ".join(verdict(open_run(folder)).sentences)
    # 2.84 times the paired error; n (2.84 s / 5 %)^2
    assert "2,000 samples tell 1.1 or more, 9.4 % in 8 of 10 cases, 5 % would take about 7,100" in told
    assert "2,000 samples tell 1.4 or more, 11 % in 8 of 10 cases, 5 % would take about 11,000" in told
    assert "Too few samples: 2,000 tell differences of 11 %" in told


def test_the_name_of_the_distance_follows_its_features(folder: Path) -> None:
    pixels = "principal components of the pixels (64 dimensions; not FID)"
    every = [dataclasses.replace(e, features=pixels) for e in evaluations()]
    named = [dataclasses.replace(e, features="mine", distance="Fréchet distance") for e in evaluations()]
    for rows in (every, named):
        write_json(folder / "records/evaluation.json", {"evaluations": [e.to_dict() for e in rows], "real": {"fid": 3}})
        run = open_run(folder)
        (figure,), (table, *_) = outcome.headline_blocks(run), outcome.evaluation(run).blocks
        told = verdict(run)
        shown = [shot.detail for block in outcome.samples(run).blocks for shot in block.shots]
        said = " ".join((figure.svg, figure.alt, figure.caption, *table.head, table.caption, *shown, *told.sentences))
        said += told.headline + str(told.facts)
        assert "Fréchet distance (lower is better)" in figure.svg
        assert rows[0].features in figure.caption
        assert "FID" not in said.replace("not FID", "")


def test_rows_that_share_noise_and_rows_that_do_not(folder: Path) -> None:
    every = [dataclasses.replace(e, same_noise=e.name != "global_cheap") for e in evaluations()]
    write_json(folder / "records/evaluation.json", {"evaluations": [e.to_dict() for e in every], "real": {}})
    rows = outcome.samples(open_run(folder)).blocks[0]
    assert "Not so for global_cheap" in rows.caption
    assert [s.label for s in rows.shots if "then noise of its own" in s.detail] == ["global_cheap"]
    every = [dataclasses.replace(e, same_noise=True) for e in evaluations()]
    write_json(folder / "records/evaluation.json", {"evaluations": [e.to_dict() for e in every], "real": {}})
    assert "Not so for" not in outcome.samples(open_run(folder)).blocks[0].caption


def test_what_was_judged_beside_the_run_is_shown_over_its_seeds(folder: Path) -> None:
    assert outcome._trials(open_run(folder)) == []
    hybrid = next(e for e in evaluations() if e.name == "hybrid")
    mine = dataclasses.replace(hybrid, name="mine", label="Mine, of a file", mflop=300.0)
    for seed, e in ((1, dataclasses.replace(hybrid, fid=12.9)), (0, mine), (1, dataclasses.replace(mine, fid=14.3))):
        found = dataclasses.replace(e, seed=seed, fid_minus={"global": [e.fid - 12.1, 0.2]})
        write_json(folder / f"records/trials/{e.name}-{seed}.json", {"key": "k", "evaluation": found.to_dict()})
    (table,) = outcome._trials(open_run(folder))
    # cheapest first; two seeds: half their spread, or their own errors where those are larger
    assert [row[:5] for row in table.rows] == [
        ("Mine, of a file", "0, 1", "2,000", "300", "40 %"),
        ("Hybrid (optimised)", "0, 1", "2,000", "402", "54 %"),
        ("global", "0", "2,000", "744", "100 %"),
    ]
    assert table.rows[0][5:] == (pm(13.3, 1.0), pm(1.2, 1.0))
    assert table.rows[1][5] == pm(12.6, float(np.sqrt(np.var([12.3, 12.9], ddof=1) / 2)))
    assert any(block == table for block in outcome.evaluation(open_run(folder)).blocks)


def test_the_table_shows_the_penalty_that_was_minimised(folder: Path) -> None:
    every = evaluations()
    priced = [
        dataclasses.replace(
            e,
            schedule=dataclasses.replace(
                e.schedule, penalty=0.5 + i, penalty_stderr=0.01, penalty_unit="feature units", penalty_name="frechet"
            ),
        )
        for i, e in enumerate(every)
        if e.schedule is not None and e.name != "global_cheap"
    ]
    rest = [e for e in every if e.name == "global_cheap"]
    write_json(folder / "records/evaluation.json", {"evaluations": [e.to_dict() for e in priced + rest], "real": {}})
    table = outcome.evaluation(open_run(folder)).blocks[0]
    assert "penalty ± s.e. (feature units)" in table.head
    assert table.rows[0][9] == "0.500 ± 0.010"
    assert not any("nats" in head for head in table.head)
