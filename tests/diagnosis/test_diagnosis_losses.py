"""Losses, gaps and path KL against a Gaussian field, where all of them are known."""

import numpy as np
import pytest
import torch

from phasewise.data import ImageData
from phasewise.denoisers import Denoiser, WienerDenoiser
from phasewise.diagnosis import gap_window, measure_losses, measure_recovery, path_kl
from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField
from phasewise.paths import CosinePath, LinearPath

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@pytest.fixture(scope="module")
def field():
    return GaussianField((6, 6), mass=0.3)


@pytest.fixture(scope="module")
def members(field):
    return {"global": field.denoiser(), "r1": field.denoiser(radius=1), "r2": field.denoiser(radius=2)}


@pytest.fixture(scope="module")
def table(field, members):
    return measure_losses(members, field.sample(3000, seed=1), TIMES, seed=5)


def test_losses_are_the_exact_mmse(field, table):
    exact = np.array([[field.mmse(t, r) for r in (None, 1, 2)] for t in TIMES])
    assert np.abs((table.loss - exact) / table.loss_stderr).max() < 4.5
    assert (table.loss_stderr < 0.03 * exact).all()


def test_gap_is_the_exact_gap_and_the_distance(field, table):
    exact = np.array([[field.denoising_gap(t, r) for r in (1, 2)] for t in TIMES])
    assert np.abs((table.gap[:, 1:] - exact) / table.gap_stderr[:, 1:]).max() < 4.5
    assert np.abs((table.distance[:, 1:] - exact) / table.distance_stderr[:, 1:]).max() < 4.5
    assert (table.gap[:, 0] == 0).all()
    assert (table.distance[:, 0] == 0).all()


def test_pairing_shrinks_the_error(table):
    unpaired = np.hypot(table.loss_stderr[:, 1], table.loss_stderr[:, 0])
    assert (table.gap_stderr[:, 1] < unpaired).all()
    assert (table.gap_stderr[:3, 1] < 0.6 * unpaired[:3]).all()


def test_path_kl_against_the_field(field, members):
    times = np.linspace(0.1, 0.9, 33)
    table = measure_losses(members, field.sample(1500, seed=2), times, seed=6)
    measured = path_kl(table, LinearPath())
    for name, radius in (("r1", 1), ("r2", 2)):
        exact = field.path_kl(radius, t_min=0.1, t_max=0.9)
        assert abs(measured[name].value - exact) < 5 * measured[name].stderr + 0.01 * exact
    assert measured["global"].value == 0


def test_batch_size_changes_nothing(field, members):
    images = field.sample(40, seed=3)
    whole = measure_losses(members, images, (0.4,), seed=1, batch=40)
    again = measure_losses(members, images, (0.4,), seed=1, batch=40)
    assert (whole.loss == again.loss).all()
    assert not np.allclose(whole.loss, measure_losses(members, images, (0.4,), seed=2, batch=40).loss)


def test_members_on_another_path_are_translated(field):
    cosine = field.denoiser(path=CosinePath())
    table = measure_losses({"global": field.denoiser(), "cosine": cosine}, field.sample(50, seed=4), (0.2, 0.6), seed=1)
    assert np.abs(table.gap[:, 1]).max() < 1e-3


class Told(Denoiser):
    """Knows the class means: its answer is the number it is told, over all pixels."""

    takes_condition = True

    def forward(self, x_t, t, cond=None):
        return cond.reshape(-1, 1, 1, 1).expand_as(x_t).to(x_t)


def labelled():
    labels = torch.arange(30) % 3
    x = labels.reshape(-1, 1, 1, 1) + 0.1 * torch.randn(30, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    parts = {f"labels_{part}": labels for part in ("train", "validation", "test")}
    return ImageData("levels", train=x, validation=x, test=x, pixel_range=(-1, 3), **parts)


@pytest.mark.parametrize("batch", [7, 30])
def test_losses_under_a_condition_are_those_of_its_rows(batch):
    data, told = labelled(), Told((1, 6, 6))
    members = {"global": WienerDenoiser.fit(data.train), "told": told, "cosine": Told((1, 6, 6), CosinePath())}
    table = measure_losses(members, data, (0.3, 0.9), cond="labels", batch=batch)
    expected = float((data.test - data.labels_test.reshape(-1, 1, 1, 1)).square().flatten(1).sum(1).mean())
    np.testing.assert_allclose(table.loss[:, 1:], expected, rtol=1e-5)
    assert table.loss[1, 0] > 5 * expected  # who is told nothing
    again = measure_losses(members, data.test, (0.3, 0.9), cond=data.labels_test, batch=batch)
    assert (again.loss == table.loss).all()
    one = measure_losses({"global": told}, data.test, (0.5,), cond=1)
    assert one.loss[0, 0] == pytest.approx(float((data.test - 1).square().flatten(1).sum(1).mean()), rel=1e-5)


def test_recovery_under_a_condition_returns_its_class():
    data = labelled()
    members = {"global": WienerDenoiser.fit(data.train), "told": Told((1, 6, 6))}
    _, pictures = measure_recovery(members, data.test, (0.9,), steps=4, cond=data.labels_test, batch=8, keep=30)
    recovered = pictures["recovered"][0, 1]
    assert torch.equal(recovered, data.labels_test.reshape(-1, 1, 1, 1).expand_as(recovered).float())


def test_a_condition_that_does_not_fit_is_refused(field, members):
    images, told = field.sample(4, seed=0), {"global": Told((1, 6, 6))}
    with pytest.raises(PhasewiseError, match="GaussianDenoiser takes no condition"):
        measure_losses(members, images, (0.5,), cond=0)
    with pytest.raises(PhasewiseError, match="GaussianDenoiser takes no condition"):
        measure_recovery(members, images, (0.5,), cond=0)
    with pytest.raises(PhasewiseError, match="cond has 3 rows for 4 images"):
        measure_losses(told, images, (0.5,), cond=torch.arange(3))
    with pytest.raises(PhasewiseError, match="a bare tensor of images has no test labels"):
        measure_losses(told, images, (0.5,), cond="labels")
    with pytest.raises(PhasewiseError, match="cond must be 'labels', a label"):
        measure_losses(told, labelled(), (0.5,), cond="classes")


def test_gap_window_holds_the_peak(table):
    low, high = gap_window(table, LinearPath(), "r1", tolerance=0.5)
    peak = table.times[np.argmax(table.gap[:, 1] / table.times**2)]
    assert low <= peak <= high
    wide = gap_window(table, LinearPath(), "r1", tolerance=0.01)
    assert wide[0] <= low
    assert wide[1] >= high
    with pytest.raises(PhasewiseError, match="no positive gap"):
        gap_window(table, LinearPath(), "global")


@pytest.mark.parametrize(
    ("times", "reference", "message"),
    [
        ((0.0, 0.5), "global", r"in \(0, 1\]"),
        ((0.5,), "other", "not among"),
        ((float("nan"),), "global", r"times\[0\] must lie in"),
    ],
)
def test_refusals(field, members, times, reference, message):
    with pytest.raises(PhasewiseError, match=message):
        measure_losses(members, field.sample(4, seed=0), times, reference=reference)


def test_recovery_is_worse_from_more_noise_and_smaller_windows(field, members):
    images = field.sample(60, seed=8)
    record, pictures = measure_recovery(members, images, (0.2, 0.6), steps=8, keep=3)
    assert record.mse.shape == (2, 3)
    assert (record.mse[1] > record.mse[0]).all()
    assert record.mse[1, 1] > record.mse[1, 0]
    assert pictures["recovered"].shape == (2, 3, 3, 1, 6, 6)
    assert torch.equal(pictures["original"], images[:3])
