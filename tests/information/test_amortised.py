"""density and mmse against exact truth; the network's density is normalised; folds, errors, resuming."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phasewise import exact
from phasewise.errors import PhasewiseError
from phasewise.information import cmi_map, make_estimator, make_problem
from phasewise.information.amortised import combine
from phasewise.information.conditional import MixtureHead, mixture_log_density

QUICK = {"folds": 2, "width": 64, "depth": 1, "batch": 128, "lr": 3e-3}


@pytest.mark.parametrize(("name", "draws"), [("density", 4), ("mmse", 8)])
def test_gaussian_field_blocks(name, draws):
    field = exact.GaussianField((8, 8), mass=0.1)
    found = cmi_map(
        field.sample(6000, 3),
        [1, 2],
        [0.3, 0.7],
        block=2,
        estimator=name,
        steps=10,
        draws=draws,
        **QUICK,
        seed=1,
        accuracy=0.01,
    )
    truth = np.array([[field.cmi(t, r, 2) for r in (1, 2)] for t in (0.3, 0.7)])
    assert (np.abs(found.value - truth) < 4 * found.stderr + 5e-4).all()
    assert (np.abs(found.value - truth) < np.maximum(0.006, 0.25 * truth)).all()


@pytest.mark.parametrize("name", ["density", "mmse"])
def test_two_mode_needs_the_network(name):
    """One global bit: to a Gaussian model the two values of a pixel are one broad one."""
    model = exact.TwoMode((4, 4), amplitude=1.0)
    images, t = model.sample(5000, 2), 0.35
    truth = model.cmi(t, 0)
    found = cmi_map(images, [0], [t], estimator=name, steps=100, accuracy=0.01, **{**QUICK, "batch": 64, "lr": 1e-2})
    gaussian = cmi_map(images, [0], [t], estimator="gaussian", accuracy=0.01)
    assert abs(found.value[0, 0] - truth) < 0.06
    assert abs(gaussian.value[0, 0] - truth) > 0.09


def test_colour_entries_are_chained():
    """Three channels that repeat one field: the same information as the field itself at three times the SNR."""
    field = exact.GaussianField((6, 6), mass=0.1)
    images = field.sample(6000, 5).expand(-1, 3, -1, -1).clone()
    found = cmi_map(images, [1], [0.8], estimator="density", steps=10, accuracy=0.01, **QUICK)
    t = 1 / (1 + 3**0.5 * 0.2 / 0.8)
    assert field.cmi(t, 1) > 1.8 * field.cmi(0.8, 1), "else one channel alone would do"
    assert found.value[0, 0] == pytest.approx(field.cmi(t, 1), abs=0.004)


def test_the_mixture_is_a_density():
    torch.manual_seed(0)
    head = MixtureHead(entries=2, features=5)
    torch.nn.init.normal_(head.out.weight, std=0.3)
    value = torch.linspace(-12, 12, 4001)[None, :, None].expand(1, -1, 2)
    known = torch.zeros(1, 1, 2).expand(1, 4001, 2)
    mixture = head(torch.randn(1, 5), known, 0.3 * torch.ones(1, 4001, 2), torch.full((1, 2), 0.7))
    log = mixture_log_density(mixture, value, torch.tensor(0.6).expand(1, 1, 2), torch.tensor(0.4).expand(1, 1, 2))
    torch.testing.assert_close(torch.trapezoid(log.exp(), value[0, :, 0], dim=1), torch.ones(1, 2), rtol=1e-4, atol=0)


def test_an_entry_sees_only_those_before_it():
    torch.manual_seed(0)
    head = MixtureHead(entries=3, features=5)
    known = torch.randn(1, 1, 3, requires_grad=True)
    out = head(torch.randn(1, 5), known, torch.zeros(1, 1, 3), torch.ones(1, 3))[1]
    for i in range(3):
        (grad,) = torch.autograd.grad(out[0, 0, i].sum(), known, retain_graph=True)
        assert [bool(v != 0) for v in grad[0, 0]] == [j < i for j in range(3)]


def test_errors_pool_sampling_and_refits():
    g = torch.Generator().manual_seed(0)
    same = [torch.randn(4000, 2, 3, generator=g) for _ in range(3)]
    sure = [torch.zeros(2, 3)] * 3
    value, stderr = combine(same, sure)
    np.testing.assert_allclose(value, torch.cat(same).double().mean(0))
    assert (stderr >= 0.98 / 12000**0.5).all()
    assert (stderr <= 2.5 / 12000**0.5).all()  # the ratio of variances has 2 degrees of freedom and 3 radii
    apart = [s + shift for s, shift in zip(same, (-5.0, 0.0, 5.0), strict=True)]
    np.testing.assert_allclose(combine(apart, sure)[1], 5 / 3**0.5, rtol=0.02)  # the spread of three refits
    np.testing.assert_allclose(combine(same, [torch.full((2, 3), 0.3)] * 3)[1], 0.3 / 3**0.5, rtol=0.02)


def test_the_same_seed_gives_the_same_map_and_another_seed_another():
    images = exact.GaussianField((5, 5), mass=0.3).sample(400, 0)
    first, again, other = (cmi_map(images, [1], [0.5], steps=3, accuracy=1, **QUICK, seed=s).value for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert first != other


def test_a_stopped_map_goes_on_fold_by_fold(tmp_path, monkeypatch):
    images = exact.GaussianField((5, 5), mass=0.3).sample(400, 0)
    given = {"radii": [1], "times": [0.5], "accuracy": 1.0, "steps": 3, **QUICK}
    estimator = make_estimator("density", steps=3, **QUICK)
    real, calls = type(estimator).fit_and_read, []

    def stops(self, problem, fold, say):
        calls.append(fold.number)
        if calls == [0, 1]:
            raise KeyboardInterrupt
        return real(self, problem, fold, say)

    monkeypatch.setattr(type(estimator), "fit_and_read", stops)
    with pytest.raises(KeyboardInterrupt):
        cmi_map(images, folder=tmp_path, **given)
    resumed = cmi_map(images, folder=tmp_path, **given)
    assert calls == [0, 1, 1]
    np.testing.assert_array_equal(resumed.value, cmi_map(images, **given).value)
    cmi_map(images, folder=tmp_path, **given)
    assert len(calls) == 5, "all cells are on disk: nothing is fitted again"


def test_a_loss_that_is_not_finite_names_the_time():
    images = exact.GaussianField((5, 5), mass=0.3).sample(400, 0)
    with pytest.raises(PhasewiseError, match=r"loss became (nan|inf) at t = 0\.5, step"):
        cmi_map(images, [1], [0.5], accuracy=1, **{**QUICK, "lr": 1e30, "steps": 20})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folds": 1}, "folds"),
        ({"epochs": 0}, "epochs"),
        ({"lr": -1}, "lr"),
        ({"steps": 0.5}, "steps"),
        ({"width": 0}, "width"),
        ({"colour": 1}, "colour"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(PhasewiseError, match=words):
        make_estimator("density", **options)


def test_every_image_is_scored_by_a_network_that_did_not_see_it():
    images = torch.arange(90.0).reshape(90, 1, 1, 1).expand(-1, 1, 4, 4) * torch.linspace(0.5, 1, 16).reshape(4, 4)
    problem = make_problem(images, [0.5], [1])
    folds = list(make_estimator("density", folds=3)._cut(problem))
    scored = torch.cat([f.scored[:, 0] for f in folds])
    assert sorted(scored.tolist()) == sorted(problem.flat[:, 0].tolist())
    chosen_on = [set(f.validation[:, 0].tolist()) for f in folds]
    assert not chosen_on[0] & chosen_on[1]
    for fold in folds:
        seen = {*fold.train[:, 0].tolist(), *fold.validation[:, 0].tolist()}
        assert not seen & set(fold.scored[:, 0].tolist())
        assert len(seen) == 60


def test_a_pixel_that_is_constant_in_one_fold_is_no_trouble():
    images = exact.GaussianField((5, 5), mass=0.3).sample(400, 0)
    images[:, :, 2, 2] = 0.0
    images[7, :, 2, 2] = 1.0  # one image of all: constant in every fold but its own
    found = cmi_map(images, [1], [0.5], steps=3, accuracy=1, **QUICK)
    assert np.isfinite(found.value).all()
    assert abs(found.value[0, 0]) < 0.05


def test_folds_too_small_are_refused():
    with pytest.raises(PhasewiseError, match="9 folds leave under 10 of 60 images"):
        cmi_map(torch.randn(60, 1, 4, 4), [1], [0.5], steps=3, accuracy=1, **{**QUICK, "folds": 9})


def test_no_signal_to_speak_of_is_an_error_that_says_so():
    field = exact.GaussianField((4, 4), mass=0.0)
    with pytest.raises(PhasewiseError, match="larger t"):
        cmi_map(field.sample(100, 0).repeat(1, 2, 1, 1), [1], [1e-9], steps=3, accuracy=1, **QUICK)
