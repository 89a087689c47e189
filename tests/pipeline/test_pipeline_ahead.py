"""What a run refuses before it claims its folder, and what it says of it."""

import numpy as np
import pytest
import torch

import phasewise as pw
from phasewise import memory
from phasewise.data import ImageData
from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField
from phasewise.pipeline.ahead import check_before, check_budget
from phasewise.pipeline.judging import plan_schedules
from phasewise.pipeline.run import describe_plan, run_pipeline
from phasewise.results import LossTable
from phasewise.runs import make_config
from phasewise.runs.members import MEMBER_KINDS
from phasewise.runs.sizes import SIZES

STAGES = ("data", "features", "train-global", "schedule", "evaluate")


def images(n, channels=1, side=8):
    generator = torch.Generator().manual_seed(0)
    return pw.load_images(torch.rand(n, channels, side, side, generator=generator))


def config(**given):
    return make_config(8, "smoke", **{"cmi": False, "features": "pca", **given})


def check(data, insist=False, **given):
    check_before(config(**given), data, STAGES, insist=insist)


@pytest.mark.parametrize("n", [20, 25, 30])
def test_too_few_images_are_refused_by_the_part_that_lacks_them(n):
    with pytest.raises(PhasewiseError, match=r"leaves too few images: .* to test \(8 needed\); give 40 or more in all"):
        check(images(n))


def test_forty_images_are_enough():
    check(images(40))


def test_a_channel_that_never_changes_is_refused():
    data = images(60, channels=3)
    still = {part: getattr(data, part).clone() for part in ("train", "validation", "test")}
    for part in still.values():
        part[:, 1] = 0.5
    with pytest.raises(PhasewiseError, match="channel 1 of the training images of mine is constant"):
        check(ImageData("mine", **still))


def test_nothing_is_claimed_of_a_run_that_is_refused(tmp_path):
    file = tmp_path / "few.npz"
    np.savez(file, images=np.random.default_rng(0).integers(0, 255, (25, 8, 8), dtype=np.uint8))
    asked = config(data=str(file))
    for attempt in (run_pipeline, describe_plan):
        with pytest.raises(PhasewiseError, match="too few images"):
            attempt(asked, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_classifier_without_labels_is_refused():
    with pytest.raises(PhasewiseError, match="no labels"):
        check(images(60), features="classifier")


def test_networks_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(PhasewiseError, match="holds none of global, r1, r2, control"):
        check(images(60), networks=str(tmp_path))


def test_a_cmi_given_the_class_needs_labels_and_images_of_each():
    asked = config(cmi=True, cmi_estimator="gaussian", cmi_given="class")
    with pytest.raises(PhasewiseError, match="needs a label of every image"):
        check_before(asked, images(60), ["data", "cmi"])
    data = pw.load_images("digits")
    check_before(asked, data, ["data", "cmi"])
    few = config(cmi=True, cmi_estimator="gaussian", cmi_given="class", cmi_options={"folds": 100})
    with pytest.raises(PhasewiseError, match="of class 0: gaussian: 100 folds"):
        check_before(few, data, ["data", "cmi"])
    with pytest.raises(PhasewiseError, match="cmi_given"):
        config(cmi_given="weather")


def test_folds_are_counted_against_the_images():
    asked = config(cmi=True, cmi_estimator="gaussian", cmi_options={"folds": 31})
    with pytest.raises(PhasewiseError, match="31 folds of 60 images"):
        check_before(asked, images(60), ["data", "cmi"])
    check_before(asked, images(62), ["data", "cmi"])


def test_cmi_beyond_the_machine_is_refused_unless_insisted(monkeypatch):
    asked, large = config(cmi=True, cmi_crop=48), pw.load_images(torch.rand(60, 3, 48, 48))
    monkeypatch.setattr(memory, "machine_bytes", lambda: 2 * 10**9)
    with pytest.raises(PhasewiseError, match=r"CMI of 48 x 48 pixels take .* --cmi-crop 32"):
        check_before(asked, large, ["data", "cmi"])
    check_before(asked, large, ["data", "cmi"], insist=True)
    check_before(config(cmi=True, cmi_crop=32), large, ["data", "cmi"])
    monkeypatch.setattr(memory, "machine_bytes", lambda: 10**8)
    with pytest.raises(PhasewiseError, match=r"CMI of 32 x 32 pixels .*fewer pixels .*--yes"):
        check_before(config(cmi=True, cmi_crop=32), large, ["data", "cmi"])


def test_sizes_beyond_the_machine_are_refused_unless_insisted():
    with pytest.raises(PhasewiseError, match=r"samples a schedule .* insist with --yes"):
        check(images(60), n_samples=10**13)
    check(images(60), n_samples=10**13, insist=True)


def test_a_run_of_months_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "machine_bytes", lambda: 10**15)
    with pytest.raises(PhasewiseError, match=r"46.* days at the very least"):
        check(images(60), n_samples=5_000_000, steps=100_000)


@pytest.mark.parametrize("solver", ["exp_ab2", "heun"])
def test_the_least_budget_is_that_of_the_optimiser(solver):
    """Counted on networks that were never trained, it is what the price list of trained ones says."""
    asked = config(solver=solver, steps=4)
    shape = (1, 8, 8)
    kinds = {m.name: MEMBER_KINDS[m.kind] for m in asked.members}
    like = {
        m.name: (kinds[m.name].build or kinds[m.name].like)(m, shape) for m in asked.members if kinds[m.name].scheduled
    }
    prices = pw.price_list(like, images(60, side=8), pw.time_grid(4), n=6, batch=2)
    front = pw.pareto_front(prices, solver=solver, penalty="kl")
    least = float(front.mflop[0]) / pw.scheduling.reference_mflop(prices, solver)
    check_budget(config(solver=solver, steps=4, budget=least), shape)
    with pytest.raises(PhasewiseError, match="the cheapest costs"):
        check_budget(config(solver=solver, steps=4, budget=least * 0.999), shape)


def test_schedules_without_a_window_are_left_out():
    field = GaussianField((8, 8), mass=1.0)
    x = field.sample(40, 0)
    members = {"global": field.denoiser(), "r1": field.denoiser(1), "r2": field.denoiser(2)}
    prices = pw.price_list(members, x, pw.time_grid(4), n=8, batch=2)
    asked = config(steps=4, penalty="kl", budget=0.99)
    fronts = {"kl": pw.pareto_front(prices, penalty="kl")}
    found, _ = plan_schedules(prices, fronts, asked, None, None)
    whole, _ = plan_schedules(prices, fronts, asked, (0.2, 0.5), (0.2, 0.5))
    assert set(whole) - set(found) == {"window", "window_gap", "window_shifted", "window_inverted"}
    assert {"hybrid", "global", "local_only", "stitched"} <= set(found)


def test_every_size_passes_its_own_checks():
    for size in SIZES:
        side = 28 if size == "cpu" else 8
        asked = make_config(side, size, features="pca")
        check_before(asked, images(400, side=side), [*STAGES, "cmi"])


def test_a_window_of_one_measured_time_reaches_half_way_to_its_neighbours():
    times = [0.2, 0.4, 0.8]
    column = {"loss": 1.0, "loss_stderr": 0.1, "gap_stderr": 0.1, "distance": 0.0, "distance_stderr": 0.0}
    table = LossTable(
        times=times, names=("global", "r1"), radii=(None, 1), reference="global", log_snr=[2.0, 0.5, -2.0],
        gap=[[0, 0.01], [0, 4.0], [0, 0.01]], data_std=1.0, n=10, seed=0, path={"name": "linear"},
        **{name: [[value] * 2] * 3 for name, value in column.items()},
    )  # fmt: skip
    low, high = pw.diagnosis.gap_window(table, pw.LinearPath(), "r1")
    assert (low, high) == pytest.approx((0.3, 0.6))
