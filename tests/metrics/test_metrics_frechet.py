from __future__ import annotations

import copy
import json
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from phasewise.errors import CheckpointError, PhasewiseError, PhasewiseWarning
from phasewise.metrics import (
    ClassifierFeatures,
    FeatureNetwork,
    FrechetReference,
    fid,
    frechet_difference,
    frechet_distance,
    frechet_score,
    paired_frechet,
    polynomial_mmd,
)
from phasewise.metrics.features import InceptionFeatures, PCAFeatures, RandomFeatures
from phasewise.metrics.frechet import kid

seeds = st.integers(0, 10_000)


class Flat(FeatureNetwork):
    """Pixels as features."""

    def __init__(self, dim: int, name: str = "pixels") -> None:
        super().__init__(name, dim, (dim, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class Same(nn.Module):
    """Hands features through torchmetrics unchanged."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, features: Tensor) -> Tensor:
        return features


def gaussian(seed: int, dim: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(dim, dim + 2, generator=g, dtype=torch.float64)
    return torch.randn(dim, generator=g, dtype=torch.float64), a @ a.T / dim


def rotation(seed: int, dim: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, generator=g, dtype=torch.float64))[0]


def normal(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_reference(dim: int) -> FrechetReference:
    """N(0, I), known rather than fitted."""
    eye = torch.eye(dim, dtype=torch.float64)
    return FrechetReference(torch.zeros(dim, dtype=torch.float64), eye, float(dim), 0, "exact")


def test_commuting_covariances_have_the_elementary_closed_form() -> None:
    u = rotation(3, 5)
    a = torch.tensor([0.1, 1.0, 2.0, 3.0, 9.0], dtype=torch.float64)
    b = torch.tensor([4.0, 0.0, 1.0, 3.0, 0.5], dtype=torch.float64)
    mu = torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0], dtype=torch.float64)
    got = frechet_distance(mu, u @ a.diag() @ u.T, torch.zeros(5), u @ b.diag() @ u.T)
    assert got == pytest.approx(float(mu.square().sum() + (a.sqrt() - b.sqrt()).square().sum()), rel=1e-7)


def test_two_dimensions_match_the_trace_and_determinant_formula() -> None:
    """For 2 x 2, tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)), here with M = C1 C2 that do not commute."""
    (m1, c1), (m2, c2) = gaussian(1, 2), gaussian(2, 2)
    product = c1 @ c2
    cross = math.sqrt(float(product.trace()) + 2 * math.sqrt(float(torch.linalg.det(product))))
    expected = float((m1 - m2).square().sum() + c1.trace() + c2.trace()) - 2 * cross
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, dim=st.integers(1, 7), scale=st.floats(0.01, 100))
def test_isometries_leave_it_alone_and_scaling_scales_it_by_the_square(seed: int, dim: int, scale: float) -> None:
    (m1, c1), (m2, c2) = gaussian(seed, dim), gaussian(seed + 1, dim)
    u, shift = rotation(seed + 2, dim), normal(1, dim, seed)[0]
    plain = frechet_distance(m1, c1, m2, c2)
    assert plain > 0
    turned = frechet_distance(u @ m1 + shift, u @ c1 @ u.T, u @ m2 + shift, u @ c2 @ u.T)
    assert turned == pytest.approx(plain, rel=1e-9)
    assert frechet_distance(m2, c2, m1, c1) == pytest.approx(plain, rel=1e-9)
    larger = frechet_distance(scale * m1, scale**2 * c1, scale * m2, scale**2 * c2)
    assert larger == pytest.approx(scale**2 * plain, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n=st.sampled_from([10, 40, 200]))
def test_identical_sets_are_at_distance_zero_even_with_fewer_samples_than_features(seed: int, n: int) -> None:
    x = normal(n, 30, seed)
    score = frechet_score(x, FrechetReference.fit(x), resamples=2, splits=1)
    assert abs(score.value) < 1e-10


@pytest.mark.parametrize("n", [20, 300])
def test_agrees_with_torchmetrics(n: int) -> None:
    dim = 12
    x, y = normal(n, dim, 0) * 2 + 1, normal(500, dim, 1) @ rotation(5, dim).clamp(min=-0.2)
    metric = FrechetInceptionDistance(feature=Same(dim), normalize=True).set_dtype(torch.float64)
    metric.update(y, real=True)
    metric.update(x, real=False)
    got = frechet_score(x, FrechetReference.fit(y), resamples=2, splits=1)
    assert got.value == pytest.approx(float(metric.compute()), rel=1e-6)
    assert (got.n, got.reference_n) == (n, 500)


def test_bias_estimate_is_the_known_bias_of_a_perfect_sampler() -> None:
    """Samples of the reference itself: all of FID_n is bias, to first order D/n + D(D+1)/(4n)."""
    dim, n, runs = 8, 800, 40
    scores = [frechet_score(normal(n, dim, seed), exact_reference(dim), resamples=2) for seed in range(runs)]
    value = sum(s.value for s in scores) / runs
    bias = sum(s.bias for s in scores) / runs
    assert value == pytest.approx(dim / n + dim * (dim + 1) / (4 * n), rel=0.05)
    assert bias == pytest.approx(value, rel=0.1)


def test_debiasing_recovers_a_nonzero_distance() -> None:
    dim, n, runs = 6, 200, 40
    width = torch.linspace(0.5, 1.5, dim, dtype=torch.float64)
    truth = float((width - 1).square().sum()) + 0.25
    shift = torch.zeros(dim, dtype=torch.float64)
    shift[0] = 0.5
    scores = [frechet_score(normal(n, dim, s) * width + shift, exact_reference(dim), resamples=2) for s in range(runs)]
    value, debiased = (torch.tensor([getattr(s, k) for s in scores]) for k in ("value", "debiased"))
    error = float(debiased.std()) / math.sqrt(runs)
    assert abs(float(debiased.mean()) - truth) < 3 * error
    assert float(value.mean()) - truth > 3 * error


def test_bootstrap_error_is_the_spread_of_independent_draws() -> None:
    dim, n, runs = 5, 300, 60
    scores = [frechet_score(1.3 * normal(n, dim, s) + 0.4, exact_reference(dim), splits=1) for s in range(runs)]
    spread = float(torch.tensor([s.value for s in scores]).std())
    mean_error = sum(s.stderr for s in scores) / runs
    assert mean_error == pytest.approx(spread, rel=0.3)


def test_fid_of_images_is_reproducible_and_independent_of_batch() -> None:
    images, samples = normal(60, 4, 0).float()[..., None, None], normal(40, 4, 1).float()[..., None, None]
    reference = FrechetReference.of_images(images, Flat(4))
    first = fid(samples, reference, Flat(4), seed=3)
    assert first == fid(samples, images, Flat(4), batch=7, seed=3)
    assert first.stderr != fid(samples, reference, Flat(4), seed=4).stderr
    assert first.features == "pixels"
    assert json.loads(first.to_json())["reference_n"] == 60


def test_bad_input_is_refused_with_a_mend() -> None:
    images = normal(20, 4, 0).float()[..., None, None]
    network = Flat(4)
    reference = FrechetReference.of_images(images, network)
    with pytest.raises(PhasewiseError, match="at least 8"):
        fid(images[:7], reference, network)
    with pytest.raises(PhasewiseError, match="same feature network"):
        fid(images, reference, Flat(4, "other"))
    with pytest.raises(PhasewiseError, match="NaN"):
        fid(images * math.nan, reference, network)
    with pytest.raises(PhasewiseError, match="positive semi-definite"):
        frechet_distance(torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), torch.zeros(2), torch.eye(2))
    with pytest.raises(PhasewiseError, match="covariances"):
        frechet_distance(torch.zeros(2), torch.eye(3), torch.zeros(2), torch.eye(2))
    with pytest.raises(PhasewiseError, match="5 features"):
        frechet_score(normal(9, 5, 0), reference)


class Pooled(torch.nn.Module):
    """In the place of Inception: three means of uint8 images."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((2, 3))


def grey(n: int, seed: int) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def untrained() -> ClassifierFeatures:
    return ClassifierFeatures((1, 4, 4), 2, 2, 4).eval()


OTHERS: dict[str, tuple[FeatureNetwork, FeatureNetwork]] = {
    "components of other images": (PCAFeatures.fit(grey(30, 0), dim=4), PCAFeatures.fit(grey(30, 1), dim=4)),
    "another pixel range": (InceptionFeatures(Pooled(), (0, 1), 3), InceptionFeatures(Pooled(), (-1, 1), 3)),
    "random, another range": (RandomFeatures((1, 4, 4), dim=4), RandomFeatures((1, 4, 4), dim=4, pixel_range=(0, 255))),
    "untrained classifiers": (untrained(), untrained()),
}


@pytest.mark.parametrize(("one", "other"), OTHERS.values(), ids=OTHERS)
def test_features_of_one_name_are_not_taken_for_the_same(tmp_path, one: FeatureNetwork, other: FeatureNetwork) -> None:
    assert one.name == other.name
    assert one.digest() == copy.deepcopy(one).digest() != other.digest()
    made = FrechetReference.of_images(grey(20, 2), one)
    kept = FrechetReference.load(made.save(tmp_path / "moments.safetensors"))
    for reference in (made, kept):
        with pytest.raises(PhasewiseError, match="other features than those here, though both are called"):
            fid(grey(20, 3), reference, other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = fid(grey(20, 3), kept, copy.deepcopy(one)).value
        # sums of floats depend, on some processors, on where in memory they lie
        assert value == pytest.approx(fid(grey(20, 3), grey(20, 2), one).value, rel=1e-9)


def test_a_reference_that_does_not_say_what_saw_it_is_warned_of() -> None:
    network = PCAFeatures.fit(grey(30, 0), dim=4)
    reference = FrechetReference.fit(network.extract(grey(20, 2)), network.name)
    with pytest.warns(PhasewiseWarning, match="whether they are the same as those here cannot be told"):
        fid(grey(20, 3), reference, network)


def slow_mmd(x: Tensor, y: Tensor) -> float:
    def kernel(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / a.shape[0] + 1) ** 3

    n, m = len(x), len(y)
    own_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    own_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return own_x + own_y - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def slow_jackknife(x: Tensor, y: Tensor) -> float:
    total = 0.0
    for leave_x in (True, False):
        n = len(x if leave_x else y)
        keep = [[j for j in range(n) if j != i] for i in range(n)]
        values = torch.tensor([slow_mmd(x[k], y) if leave_x else slow_mmd(x, y[k]) for k in keep], dtype=torch.float64)
        total += (n - 1) / n * float((values - values.mean()).square().sum())
    return math.sqrt(total)


@pytest.mark.parametrize("rows", [3, 1024])
def test_kernel_distance_and_its_jackknife_match_the_plain_loops(rows: int) -> None:
    x, y = normal(8, 3, 0), normal(10, 3, 1) + 0.5
    got = polynomial_mmd(x, y, rows)
    assert got.value == pytest.approx(slow_mmd(x, y), rel=1e-10)
    assert got.stderr == pytest.approx(slow_jackknife(x, y), rel=1e-10)


def test_kernel_distance_agrees_with_torchmetrics() -> None:
    x, y = normal(50, 6, 0).float() + 0.3, normal(50, 6, 1).float()
    metric = KernelInceptionDistance(feature=Same(6), subsets=1, subset_size=50)
    metric.update(y, real=True)
    metric.update(x, real=False)
    images = (x[..., None, None], y[..., None, None])
    assert kid(*images, Flat(6)).value == pytest.approx(float(metric.compute()[0]), rel=1e-4)


def test_kernel_distance_is_unbiased_and_its_error_honest() -> None:
    """Equal distributions: mean 0 over runs, some negative; jackknife error between 1 and 1.6 times the true spread."""
    runs = [polynomial_mmd(normal(60, 4, 2 * s), normal(80, 4, 2 * s + 1)) for s in range(150)]
    values = torch.tensor([r.value for r in runs])
    spread = float(values.std())
    assert abs(float(values.mean())) < 3 * spread / math.sqrt(150)
    assert float(values.min()) < 0
    error = math.sqrt(sum(r.stderr**2 for r in runs) / len(runs))
    assert 1.0 < error / spread < 1.7


def test_a_reference_on_disk_is_the_same_to_the_bit(tmp_path) -> None:
    reference = FrechetReference.fit(normal(40, 5, 1), "pixels")
    again = FrechetReference.load(reference.save(tmp_path / "moments.safetensors"))
    assert (again.trace, again.n, again.features) == (reference.trace, reference.n, reference.features)
    assert torch.equal(again.mean, reference.mean)
    assert torch.equal(again.root, reference.root)
    (tmp_path / "moments.safetensors").write_bytes(b"not moments")
    with pytest.raises(CheckpointError, match="holds no feature moments"):
        FrechetReference.load(tmp_path / "moments.safetensors")


def test_paired_distance_of_shifted_and_scaled_sets_and_its_error() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2000, 3, generator=generator)
    found = paired_frechet(a + torch.tensor([0.3, 0.0, 0.0]), a)
    assert found.value == pytest.approx(0.09, rel=1e-5)
    assert found.stderr < 1e-6  # the same rows of both
    scale = torch.tensor([1.5, 1.0, 1.0])
    wider = [paired_frechet(scale * x, x) for x in torch.randn(40, 500, 3, generator=generator)]
    values = torch.tensor([w.value for w in wider])
    assert float(values.mean()) == pytest.approx(0.25, rel=0.05)
    assert sum(w.stderr for w in wider) / 40 == pytest.approx(float(values.std()), rel=0.4)
    with pytest.raises(PhasewiseError, match="one shape"):
        paired_frechet(a, a[:-1])
    with pytest.raises(PhasewiseError, match="NaN"):
        paired_frechet(a * torch.nan, a)


def test_paired_difference_knows_what_the_samples_share() -> None:
    """Two sets from the same noise, one shifted a little: the error is a fraction of the independent one, and the
    spread over fresh sets agrees with it."""
    reference = exact_reference(4)
    shift = torch.tensor([0.2, 0.0, 0.0, 0.0], dtype=torch.float64)
    found = [frechet_difference(x + shift, x, reference, resamples=40) for x in (normal(400, 4, s) for s in range(40))]
    values = torch.tensor([f.value for f in found])
    claimed = sum(f.stderr for f in found) / len(found)
    assert 0.75 < float(values.std()) / claimed < 1.33
    assert abs(float(values.mean()) - 0.04) < 3 * claimed / 40**0.5
    x = normal(400, 4, 0)
    alone = frechet_score(x + shift, reference).stderr
    assert found[0].stderr < 1.1 * alone
    assert frechet_difference(x, x, reference).value == 0
    assert frechet_difference(x, x, reference).stderr == 0
    assert (
        frechet_difference(x, x + shift, reference, seed=3).value == -frechet_difference(x + shift, x, reference).value
    )
    with pytest.raises(PhasewiseError, match="one shape"):
        frechet_difference(x, x[:100], reference)


def test_fewer_samples_than_features_take_no_large_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, x = FrechetReference.fit(normal(90, 60, 0)), normal(20, 60, 1).double()
    weights = torch.arange(20).double() % 3  # some not drawn at all
    repeated = x.repeat_interleave(weights.long(), dim=0)
    covariance = torch.cov(repeated.T)
    slow = reference.distance(repeated.mean(0), covariance)

    def refuse(*_: object) -> None:
        raise AssertionError("a covariance of all features was decomposed")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    # the slow way's null eigenvalues round to 1e-16, and their roots to 1e-8
    assert reference.from_features(x, weights) == pytest.approx(slow, rel=1e-7)
    assert frechet_score(x, reference, resamples=3).n == 20
