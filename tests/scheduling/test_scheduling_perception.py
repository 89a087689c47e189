"""Distances between sets of posterior means: against closed forms, and what is refused."""

import numpy as np
import pytest
import torch
from plain_denoiser import Plain

import phasewise as pw
from phasewise import seeding
from phasewise.errors import PhasewiseError
from phasewise.metrics import PCAFeatures, RandomFeatures, paired_frechet
from phasewise.scheduling.perception import COMPONENTS, measure_frechet

SHAPE, TIMES = (1, 4, 4), (0.9, 0.5, 0.1)


@pytest.fixture(scope="module")
def images():
    found = torch.rand(300, *SHAPE, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    found[0, 0, 0, :2] = torch.tensor([0.0, 1.0])  # answers are clamped to the images' range
    return found


class Shifted(pw.denoisers.Denoiser):
    """The inner denoiser's answer, brighter."""

    def __init__(self, inner, by):
        super().__init__(SHAPE)
        self.inner, self.by = inner, by

    def forward(self, x_t, t, cond=None):
        return self.inner(x_t, t) + self.by


def pixels(images):
    """Features that are a rotation of the pixels: Frechet distances are those of the pixels."""
    return PCAFeatures.fit(images, dim=16)


def test_a_shift_of_every_pixel_is_its_length(images):
    base = pw.WienerDenoiser.fit(images)
    members = {"global": Plain(base), "brighter": Shifted(base, 0.05), "same": Plain(base)}
    features = pixels(images)
    value, error = measure_frechet(members, images, TIMES, features)
    one = features.extract(torch.cat([images[:1], images[:1] + 0.05]))
    expected = float((one[1] - one[0]).square().sum())
    assert np.allclose(value[:, 1], expected, rtol=1e-4)
    assert (value[:, 0] == 0).all()
    assert np.allclose(value[:, 2], 0, atol=1e-9)
    assert (error[:, 1] < 1e-3 * expected).all()


def test_an_error_that_averages_out_counts_by_what_it_adds_to_the_spread(images):
    """Independent noise of variance v on white images: the spread grows from s to sqrt(s^2 + v), the mean stays."""

    class Noisy(Shifted):
        def forward(self, x_t, t, cond=None):
            noise = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(5))
            return self.inner(x_t, t) + self.by * noise

    class Echo(pw.denoisers.Denoiser):
        def forward(self, x_t, t, cond=None):
            return (x_t - t * 0.5) / (1 - t) if t < 1 else x_t

    many = torch.rand(4000, *SHAPE, generator=torch.Generator().manual_seed(1)) * 0.1 + 0.45
    many[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    base = Echo(SHAPE)
    features = pixels(many)
    value, error = measure_frechet({"global": base, "noisy": Noisy(base, 0.05)}, many, (0.01,), features, batch=4000)
    clean = many + 0.01 / 0.99 * torch.randn(many.shape, generator=torch.Generator().manual_seed(2)) - 0.005 / 0.99
    spread = features.extract(clean).var(0)
    scale = float(features.extract(many).var(0).sum() / many.flatten(1).var(0).sum())
    expected = float((torch.sqrt(spread + scale * 0.05**2) - spread.sqrt()).square().sum())
    assert value[0, 1] == pytest.approx(expected, rel=0.1)
    assert 0 < error[0, 1] < 0.2 * expected


def test_answers_out_of_the_images_range_are_clamped(images):
    base = pw.WienerDenoiser.fit(images)
    members = {"global": Shifted(base, 5.0), "far": Shifted(base, 9.0)}
    assert measure_frechet(members, images, TIMES, pixels(images))[0].max() < 1e-9


def test_many_features_count_by_their_leading_components(images):
    base = pw.WienerDenoiser.fit(images)
    members = {"global": Plain(base), "brighter": Shifted(base, 0.05)}
    features = RandomFeatures(SHAPE, dim=COMPONENTS + 40)
    value, error = measure_frechet(members, images, (0.3,), features)
    seen = features.extract(images)
    leading = torch.linalg.eigh(torch.cov(seen.T.double())).eigenvectors[:, -COMPONENTS:].float()
    noise = torch.randn(images.shape, generator=seeding.generator(0, 11, 0))
    x_t = base.path.add_noise(images, noise, 0.3)
    kept = [features.extract(m(x_t, 0.3).clamp(images.min(), images.max())) @ leading for m in members.values()]
    assert value[0, 1] == pytest.approx(paired_frechet(kept[1], kept[0]).value, rel=1e-3)
    assert (value[:, 1] > 0).all()
    assert np.isfinite(error).all()


def test_other_paths_and_seeds(images):
    base = pw.WienerDenoiser.fit(images)
    cosine = pw.WienerDenoiser.fit(images, path=pw.paths.CosinePath())
    value, _ = measure_frechet({"global": base, "cosine": cosine}, images, TIMES, pixels(images))
    assert np.allclose(value[:, 1], 0, atol=1e-6)
    first, again, other = (
        measure_frechet({"global": base, "off": Shifted(base, 0.1)}, images, TIMES, pixels(images), seed=seed)[0]
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_price_list_measures_it_with_features_only(images):
    base = pw.WienerDenoiser.fit(images)
    members = {"global": base, "off": Shifted(base, 0.1)}
    plain = pw.price_list(members, images, TIMES, n=30)
    seen = pw.price_list(members, images, TIMES, n=30, features=pixels(images))
    assert plain.frechet is None
    assert seen.frechet.shape == seen.frechet_stderr.shape == (3, 2)
    moved = pw.scheduling.prices_at(seen, (0.7, 0.3))
    assert moved.frechet.shape == (2, 2)
    assert (moved.frechet[:, 1] > 0).all()
    assert pw.optimise_schedule(seen, 1.0).penalty_unit == "feature units"


def test_what_is_refused(images):
    base = pw.WienerDenoiser.fit(images)
    with pytest.raises(PhasewiseError, match="'global' is not among the denoisers: off"):
        measure_frechet({"off": base}, images, TIMES, pixels(images))
    with pytest.raises(PhasewiseError, match="decrease"):
        measure_frechet({"global": base}, images, (0.1, 0.5), pixels(images))
    with pytest.raises(PhasewiseError, match="do not fit a feature network"):
        measure_frechet({"global": base}, images, TIMES, PCAFeatures.fit(torch.rand(50, 1, 5, 5), dim=4))


def test_a_condition_reaches_every_part_of_the_price_list():
    """With its labels the conditional reference loses less; it is timed, counted, and compared in features."""
    data = pw.load_images("digits")
    torch.manual_seed(0)
    known = pw.UNetDenoiser(data.image_shape, width=8, classes=10)
    pw.train(known, data, steps=60, cond="labels", progress=False)
    members = {"global": known, "r1": pw.LocalDenoiser(data.image_shape, 1)}
    members["r1"].fit_moments(data.train)
    features = RandomFeatures(data.image_shape, dim=8)
    times = pw.time_grid(3)
    right = pw.price_list(members, data, times, n=120, cond="labels", features=features, trajectories=4)
    wrong = (data.labels_validation + 1) % 10
    false = pw.price_list(members, data, times, n=120, cond=wrong, features=features)
    assert (right.losses.loss[1:, 0] < false.losses.loss[1:, 0]).all()
    assert np.allclose(right.losses.loss[:, 1], false.losses.loss[:, 1]), "the local one takes no label"
    assert right.growth.shape == right.frechet.shape == (3, 2)
    assert (right.flops > 0).all()
    with pytest.raises(PhasewiseError, match="takes no condition"):
        pw.price_list({"global": members["r1"]}, data, times, n=50, cond="labels")
