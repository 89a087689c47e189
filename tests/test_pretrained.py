"""The shipped sets: complete, small, loadable without data, as good as their record says."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import phasewise as pw
from phasewise.cli import app
from phasewise.data import ImageData
from phasewise.errors import CheckpointError, PhasewiseError, RunFolderError
from phasewise.files import read_json
from phasewise.metrics import ClassifierFeatures, classifier
from phasewise.metrics.features import kept_name
from phasewise.pipeline import demo, judging, panel
from phasewise.pretrained import load_pretrained, packing, pretrained_names, sets
from phasewise.pretrained.sets import Pretrained
from phasewise.runs import make_config
from phasewise.runs.run import Run


def test_grey_and_colour_are_among_the_sets_and_all_are_small():
    assert {"mnist", "cifar10"} <= set(pretrained_names())
    for name in pretrained_names():
        folder = load_pretrained(name).folder
        most = 12e6 if name == "cifar10" else 10e6
        assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < most


@pytest.mark.parametrize("name", pretrained_names())
def test_every_denoiser_loads_in_float32_and_denoises(name):
    ready = load_pretrained(name)
    x_t = torch.randn(2, *ready.data.image_shape, generator=torch.Generator().manual_seed(0))
    for key, denoiser in ready.denoisers().items():
        assert denoiser.radius == (int(key[1:]) if key[0] == "r" else None)
        assert all(p.dtype == torch.float32 for p in denoiser.parameters())
        asked = denoiser.given(torch.tensor([0, len(ready.classes) - 1])) if denoiser.takes_condition else denoiser
        with torch.inference_mode():
            assert torch.isfinite(asked(x_t, 0.5)).all()
    assert all(len(ready.training[key].val_by_time) for key in ready.names if key != "wiener")
    assert ready.denoiser("global") is ready.denoiser("global")


@pytest.mark.parametrize("name", pretrained_names())
def test_shipped_feature_moments_fit_the_shipped_classifier(name):
    ready = load_pretrained(name)
    score = pw.metrics.frechet_score(ready.real_features(), ready.reference_moments(), seed=0, resamples=4, splits=1)
    assert ready.features().name == ready.reference_moments().features
    assert 0 < score.value < 1  # real images: mean variance of a feature is 1, so a shift of a tenth of it would show


@pytest.mark.parametrize(
    ("name", "kinds", "accuracy"),
    [
        ("mnist", ("plain", "residual"), 0.993),
        ("fashion_mnist", ("plain", "residual"), 0.915),
        ("cifar10", ("residual", "plain"), 0.855),
    ],
)
def test_the_unseen_judge_is_another_network_and_comes_with_its_moments(name, kinds, accuracy):
    ready = load_pretrained(name)
    first, unseen = ready.features(), ready.features(unseen=True)
    assert (first.architecture, unseen.architecture) == kinds
    assert unseen.test_accuracy > accuracy
    assert ready.reference_moments(unseen=True).digest == unseen.digest(), "of the rounded weights"
    real = ready.real_features(unseen=True)
    score = pw.metrics.frechet_score(real, ready.reference_moments(unseen=True), seed=0, resamples=4, splits=1)
    assert 0 < score.value < 1
    judges = ready.judges()
    assert list(judges) == ["first", "unseen", "sliced"]
    assert judges["unseen"].of_features(real[:100], 1).measure == "unseen FID"
    assert judges["sliced"].reference.n == ready.reference_moments().n


def test_the_first_judge_of_colour_photographs_is_right_nine_times_in_ten():
    assert load_pretrained("cifar10").features().test_accuracy >= 0.9


def test_colour_photographs_come_with_all_that_was_diagnosed():
    ready = load_pretrained("cifar10")
    assert ready.cmi is not None
    assert ready.markov is not None  # its times and radii are checked against the map's as it is read
    assert ready.symmetry is not None
    assert ready.cmi.value.shape == (len(ready.cmi.times), len(ready.cmi.radii)) == (6, 5)
    near, far = ready.cmi.value[:, 0], ready.cmi.value[:, -1]
    assert (near > far + 2 * ready.cmi.stderr[:, -1]).all(), "pixels further away know less that is new"


def test_real_digits_are_nearer_than_noise_by_every_judge(shared_data):
    ready = load_pretrained("mnist")
    images = pw.load_images("mnist", data_dir=shared_data).test[:64]
    noised = (images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    verdict = pw.metrics.verdict(noised, images, ready.judges())
    assert {c.outcome for c in verdict.comparisons.values()} == {"higher"}


def test_losses_are_those_of_the_record(shared_data):
    ready = load_pretrained("mnist")
    data = pw.load_images("mnist", data_dir=shared_data)
    recorded = ready.losses
    members = {k: ready.denoiser(k) for k in ("global", "r3", "wiener")}
    table = pw.diagnosis.measure_losses(members, data.test[:200], (0.3, 0.6), seed=5)
    for key in members:
        for i, t in enumerate(table.times):
            k, at = recorded.column(key), int(np.argmin(np.abs(recorded.times - t)))
            error = np.hypot(table.loss_stderr[i, table.column(key)], recorded.loss_stderr[at, k])
            assert abs(table.loss[i, table.column(key)] - recorded.loss[at, k]) < 5 * error, (key, t)


def test_unknown_names_are_answered_with_the_known_ones():
    ready = load_pretrained("mnist")
    with pytest.raises(PhasewiseError, match=r"no pretrained set 'cats'; there is .*mnist"):
        load_pretrained("cats")
    with pytest.raises(PhasewiseError, match="no denoiser 'r99'; it has global"):
        ready.denoiser("r99")
    with pytest.raises(PhasewiseError, match="unknown schedule 'best'; known: hybrid"):
        ready.hybrid("best")


def test_sampling_from_a_shipped_set(tmp_path):
    arguments = ["sample", "--pretrained", "mnist", "--n", "2", "--schedule", "local_only", "--out"]
    outcome = CliRunner().invoke(app, [*arguments, str(tmp_path / "grid.png")])
    assert outcome.exit_code == 0, outcome.output
    assert (tmp_path / "grid.png").stat().st_size > 200
    for wrong in (["sample"], ["sample", "--pretrained", "mnist", "--run", "runs/x"]):
        outcome = CliRunner().invoke(app, wrong)
        assert outcome.exit_code == 2
        assert "either --run DIR or --pretrained NAME" in outcome.output


def test_demo_reports_without_data_and_leaves_a_run_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "COMPARED", ("window", "local_only", "closed_only"))
    monkeypatch.setattr(judging, "sampling_ms", lambda hybrids, seed: dict.fromkeys(hybrids, 1.0))
    folder, said = tmp_path / "demo", []
    demo.run_demo("mnist", folder, n=100, say=said.append)
    page = (folder / "report.html").read_text()
    assert "phasewise demo mnist --n 100 --seed 0" in page
    assert set(read_json(folder / "summary.json")["schedules"]) == {"window", "local_only", "closed_only"}
    demo.run_demo("mnist", folder, n=100, say=said.append)
    assert said[-1] == "sampled and judged before"
    with pytest.raises(RunFolderError, match="another config"):
        demo.run_demo("mnist", folder, n=120, say=said.append)
    with pytest.raises(PhasewiseError, match="at least 100"):
        demo.run_demo("mnist", tmp_path / "other", n=10)


@pytest.fixture(scope="module")
def small_photographs():
    """Colour images of two classes, one brighter."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(160) % 2
    images = (torch.rand(160, 3, 12, 12, generator=generator) + 0.3 * labels[:, None, None, None]) / 1.3
    return ImageData(
        "spots", images[:100], images[100:130], images[130:],
        labels_train=labels[:100], labels_validation=labels[100:130], labels_test=labels[130:],
    )  # fmt: skip


@pytest.fixture
def shipped_with(tmp_path, small_photographs, monkeypatch):
    """The package, as if it came with the judges of those images; and the run they were trained in."""
    monkeypatch.setattr(sets, "HOME", tmp_path / "package")
    monkeypatch.setattr(packing, "HOME", tmp_path / "package")
    monkeypatch.setattr(packing, "images_of", lambda *a, **k: small_photographs)
    run, config = Run(tmp_path / "first"), make_config(12, "smoke", data="spots.npz")
    run.claim(config, "", "0")
    run.write("data", small_photographs.record())
    (tmp_path / "package").mkdir()
    made = panel.first_network(run, small_photographs, config), panel.second_network(run, small_photographs, config)
    packing.pack_judges(run.root, "spots")
    return config, made


def test_a_run_takes_the_judges_that_come_with_the_package(tmp_path, small_photographs, shipped_with, monkeypatch):
    config, made = shipped_with
    monkeypatch.setattr(classifier, "train_classifier", None)  # nothing is trained
    run = Run(tmp_path / "second")
    taken = panel.first_network(run, small_photographs, config), panel.second_network(run, small_photographs, config)
    run.claim(config, "", "0")
    run.write("data", small_photographs.record())
    images = small_photographs.test
    for unseen, (own, found) in enumerate(zip(made, taken, strict=True)):
        assert found.digest() != own.digest(), "rounded to half precision"
        assert torch.allclose(found(images), own(images), atol=0.02)
        assert run.features(unseen=bool(unseen)).digest() == found.digest(), "the run keeps its own copy"
    assert {type(a).__name__ for a in taken} == {"ClassifierFeatures"}
    assert [a.architecture for a in taken] == ["residual", "plain"]
    assert not panel.take_shipped(run, small_photographs, config), "it has them now"


def test_a_judge_of_the_runs_own_stays_and_a_damaged_package_is_told(tmp_path, small_photographs, shipped_with):
    config, (own, _) = shipped_with
    run, about = Run(tmp_path / "second"), (small_photographs.fingerprint, 3, 0)
    own.save(run.path("networks", kept_name(*about)))
    weights = sets.HOME / "spots" / "features" / "unseen" / "features.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-9])
    with pytest.raises(CheckpointError, match=r"comes with phasewise is damaged .*install phasewise again"):
        panel.take_shipped(run, small_photographs, config)
    assert len(list(run.path("networks").iterdir())) == 1
    weights.write_bytes(whole)
    assert panel.take_shipped(run, small_photographs, config)
    assert panel.first_network(run, small_photographs, config).digest() == own.digest()
    (sets.HOME / "spots" / "features" / "features.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"features.json is damaged .*install phasewise again"):
        sets.shipped_judges(*about)


def test_a_judge_without_a_run_is_the_shipped_one(small_photographs, shipped_with, monkeypatch):
    shipped = ClassifierFeatures.load(sets.HOME / "spots" / "features")
    monkeypatch.setattr(panel, "default_features", lambda data, *, seed, device: ("made", seed, device))
    assert panel.lone_network(small_photographs, 0, "cpu").digest() == shipped.digest()
    assert panel.lone_network(small_photographs, 1, "cpu") == ("made", 1, "cpu"), "other seeds have none"
    weights = sets.HOME / "spots" / "features" / "features.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"comes with phasewise is damaged .*install phasewise again"):
        panel.lone_network(small_photographs, 0, "cpu")


def test_judges_are_not_packed_beside_the_moments_of_others(tmp_path, shipped_with):
    (sets.HOME / "spots" / "card.json").write_text("{}")
    with pytest.raises(PhasewiseError, match="is a whole set"):
        packing.pack_judges(tmp_path / "first", "spots")


def test_judges_of_other_images_or_seeds_are_not_taken(tmp_path, small_photographs, shipped_with):
    about = small_photographs.fingerprint, 3
    assert sets.shipped_judges(*about, 0) is not None
    assert sets.shipped_judges(*about, 1) is None
    assert sets.shipped_judges("0" * 16, 3, 0) is None
    run = Run(tmp_path / "other")
    found = panel.first_network(run, small_photographs, shipped_with[0].changed(features="pca"))
    assert "principal" in found.name
    assert not run.has("networks")
    shutil.rmtree(sets.HOME / "spots" / "features" / "unseen")
    assert sets.shipped_judges(*about, 0) is None, "one without the other"


def test_judges_of_photographs_are_shipped_and_know_them(shared_data):
    """Both were trained on the images of a usual run, and tell the set's own classes apart."""
    data = pw.load_images("cifar10", data_dir=shared_data)
    found = sets.shipped_judges(data.fingerprint, 3, 0)
    assert found is not None
    for place, kind, accuracy in zip(found, ("residual", "plain"), (0.90, 0.86), strict=True):
        network = ClassifierFeatures.load(place)
        assert network.architecture == kind
        assert network.test_accuracy >= accuracy
        assert network.accuracy(data.test[:1000], data.labels_test[:1000]) > accuracy - 0.03


@pytest.fixture
def finished(tmp_path, shared_data, monkeypatch):
    """A finished run on MNIST, judged by the classifiers of the set that the package then holds."""
    home = tmp_path / "package"
    for place in (tmp_path / "run", home / "mnist"):
        shutil.copytree(load_pretrained("mnist").folder, place)
    monkeypatch.setattr(sets, "HOME", home)
    monkeypatch.setattr(packing, "HOME", home)
    run, data = Pretrained("run", tmp_path / "run"), pw.load_images("mnist", data_dir=shared_data)
    judged = SimpleNamespace(name="hybrid", fid=2.0, fid_stderr=0.1, n=500, mflop=9.0)
    monkeypatch.setattr(Pretrained, "evaluations", {"hybrid": judged})
    judges = [run.features(), run.features(unseen=True)]
    monkeypatch.setattr(packing, "open_run", lambda folder: run)
    monkeypatch.setattr(packing, "_classifiers", lambda run, data_dir: (run.config, data, *judges))
    return run, judges


def test_a_set_on_the_same_images_shares_the_judges_of_another(tmp_path, finished):
    run, _ = finished
    made = packing.pack(run.root, "mnist-again", judges_of="mnist")
    assert not (made.root / "features").exists(), "nothing is stored twice"
    ready, lender = load_pretrained("mnist-again"), load_pretrained("mnist")
    assert ready.names == lender.names == tuple(ready.denoisers())
    assert ready.card["judges_of"] == "mnist"
    for unseen in (False, True):
        assert ready.features(unseen).digest() == lender.features(unseen).digest()
        assert torch.equal(ready.real_features(unseen), lender.real_features(unseen))
    assert list(ready.judges()) == ["first", "unseen", "sliced"]
    shutil.rmtree(lender.folder)
    with pytest.raises(CheckpointError, match=r"without its judges\); install phasewise again"):
        load_pretrained("mnist-again")


def test_judges_are_shared_only_where_they_are_the_same(tmp_path, finished):
    run, judges = finished
    with pytest.raises(PhasewiseError, match="'mnist' has no judges of its own to share"):
        packing.pack(run.root, "mnist", judges_of="mnist")
    packing.pack(run.root, "second", judges_of="mnist")
    with pytest.raises(PhasewiseError, match="'second' has no judges of its own to share"):
        packing.pack(run.root, "third", judges_of="second")
    judges[1] = judges[0]
    with pytest.raises(PhasewiseError, match=r"'mnist' has another .* than this run; pack it with its own judges"):
        packing.pack(run.root, "third", judges_of="mnist")
    assert pretrained_names() == ("mnist", "second")
    assert load_pretrained("mnist").judging.has("shipped_features"), "nothing was replaced"


@pytest.mark.parametrize("name", ["", "..", "/tmp/x", "a/b"])
def test_a_set_is_not_packed_outside_its_place(name):
    with pytest.raises(PhasewiseError, match="a set's name is letters"):
        packing.pack("nowhere", name)


def test_a_set_is_not_packed_over_itself(tmp_path, monkeypatch):
    """Nor is one replaced before everything it needs is known to be there."""
    monkeypatch.setattr(packing, "HOME", tmp_path)
    folder = shutil.copytree(load_pretrained("mnist").folder, tmp_path / "mine")
    before = sorted(p for p in folder.rglob("*") if p.is_file())
    with pytest.raises(PhasewiseError, match="no finished run"):
        packing.pack(folder, "mine")
    monkeypatch.setattr(Pretrained, "evaluations", {"hybrid": None})
    monkeypatch.setattr(packing, "open_run", lambda f: Pretrained("mine", folder))
    monkeypatch.setattr(packing, "images_of", lambda *a, **k: Pretrained("mine", folder).data)
    with pytest.raises(PhasewiseError, match="is the set 'mine' itself"):
        packing.pack(folder, "mine")
    assert sorted(p for p in folder.rglob("*") if p.is_file()) == before
