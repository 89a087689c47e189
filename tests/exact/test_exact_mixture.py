"""Mixtures of Gaussian fields against quadrature, brute force and the Gaussian model they fall back to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField, GaussianMixture, GaussianModel, regions, windows
from phasewise.paths import CosinePath, LinearPath

WEIGHTS = (0.3, 0.7)


def two_pixels(correlations: tuple[float, ...] = (0.95, -0.9)) -> GaussianMixture:
    parts = [GaussianModel(torch.tensor([[1.0, c], [c, 1.0]]), (1, 2)) for c in correlations]
    return GaussianMixture(parts, WEIGHTS)


def textures(mean: float = 0.0) -> GaussianMixture:
    rough = GaussianModel(GaussianField((4, 3), 2.0).covariance, (4, 3), mean=mean)
    return GaussianMixture([GaussianField((4, 3), 0.2), rough], WEIGHTS)


def test_two_pixels_against_quadrature():
    """``I(A : C)`` of a density on a grid: the trapezoidal rule is exact for smooth functions that decay."""
    model, t = two_pixels(), 0.3
    axis = torch.linspace(-9, 9, 721, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    joint = sum(
        w * MultivariateNormal(torch.zeros(2, dtype=torch.float64), c.noisy_covariance(t)).log_prob(grid).exp()
        for w, c in zip(model.weights, model.components, strict=True)
    )
    cell = float(axis[1] - axis[0]) ** 2
    left, right = joint.sum(1) * cell**0.5, joint.sum(0) * cell**0.5
    information = float((joint * (joint / (left[:, None] * right[None, :])).log()).sum()) * cell
    found = model.cmi(t, 0, center=(0, 0), n=200_000, seed=1)
    assert abs(found.value - information) < 2 * found.stderr
    assert found.stderr < 0.002
    assert information > 0.1


def test_log_scores_of_whole_images_have_that_mean():
    """``E log p(a|b,c) - log p(a|b)`` from torch's own densities, on images and noise of other streams."""
    model, t, n = textures(), 0.4, 40_000
    x = model.sample(n, 3).double() * (1 - t)
    x = (x + t * torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)).flatten(1)
    region = regions((4, 3), 1, 1, (0, 0))

    def score(*parts: torch.Tensor) -> torch.Tensor:
        at, terms = torch.cat(parts), []
        for w, c in zip(model.weights, model.components, strict=True):
            k = c.noisy_covariance(t)[at][:, at]
            terms.append(math.log(w) + MultivariateNormal(torch.zeros(len(k), dtype=k.dtype), k).log_prob(x[:, at]))
        return torch.logsumexp(torch.stack(terms), 0)

    a, b, c = region.a, region.b, region.c
    plain = score(a, b, c) + score(b) - score(a, b) - score(b, c)
    found = model.cmi(t, 1, center=(0, 0), n=40_000, seed=5)
    assert abs(found.value - float(plain.mean())) < 2.5 * math.hypot(float(plain.std()) / math.sqrt(n), found.stderr)
    assert found.value - model.cmi_given_component(t, 1, center=(0, 0)) > 20 * found.stderr


def test_equal_components_are_the_gaussian_model():
    field = GaussianField((5, 4), 0.3)
    model = GaussianMixture([field, field, GaussianModel(field.covariance, (5, 4))])
    for t in (0.2, 0.7):
        for block in (1, 2):
            found = model.cmi(t, 1, block, n=50)
            assert found.value == pytest.approx(field.cmi(t, 1, block), abs=1e-12)
            assert found.stderr < 1e-12
        assert model.mmse(t, 1, n=50).value == pytest.approx(field.mmse(t, 1), abs=1e-10)
        x = model.sample(6, 0)
        torch.testing.assert_close(model.denoiser(1)(x, t), field.denoiser(1)(x, t))
    assert torch.equal(model.sample(6, 0), field.sample(6, 0))


@pytest.mark.parametrize("radius", [None, 1])
def test_denoiser_is_the_posterior_mean_written_out(radius):
    model = textures(mean=0.7)
    x = torch.randn(3, 1, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    t = torch.tensor([0.3, 0.8, 0.3])
    found = model.denoiser(radius)(x, t).flatten(1)
    for group in windows((4, 3), radius):
        for i, w in zip(group.pixels.tolist(), group.indices, strict=True):
            for row, time in enumerate(t.double().tolist()):
                seen, mean, log_weight = x[row].flatten()[w], [], []
                for weight, c in zip(model.weights, model.components, strict=True):
                    k = c.covariance[w][:, w]
                    noisy = (1 - time) ** 2 * k + time**2 * torch.eye(len(w), dtype=torch.float64)
                    apart = seen - (1 - time) * c.mean[w]
                    mean.append(c.mean[i] + (1 - time) * c.covariance[i, w] @ torch.linalg.inv(noisy) @ apart)
                    law = MultivariateNormal((1 - time) * c.mean[w], noisy)
                    log_weight.append(math.log(weight) + law.log_prob(seen))
                q = torch.stack(log_weight).softmax(0)
                assert float(found[row, i]) == pytest.approx(float(q @ torch.stack(mean)), abs=1e-8)


@pytest.mark.parametrize("radius", [None, 1])
def test_mmse_is_the_sampled_loss(radius):
    model, t, n = textures(mean=0.7), 0.5, 8000
    x = model.sample(n, 1)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    loss = (model.denoiser(radius)(LinearPath().add_noise(x, z, t), t) - x).square().sum((1, 2, 3)).double()
    found = model.mmse(t, radius, n=n)
    assert abs(float(loss.mean()) - found.value) < 2.5 * math.hypot(float(loss.std()) / math.sqrt(n), found.stderr)


def test_samples_posteriors_and_limits():
    model, n = textures(), 4000
    x, label = model.sample(n, 7), model.labels(n, 7)
    assert torch.equal(model.sample(9, 7), x[:9])
    assert abs(float((label == 1).double().mean()) - 0.7) < 4 * math.sqrt(0.21 / n)
    for k, component in enumerate(model.components):
        rows = x[label == k].flatten(1).double()
        torch.testing.assert_close(rows.T @ rows / len(rows), component.covariance, atol=0.15, rtol=0)
    q = model.posterior(x, 1e-3)
    assert float(q[:, 1][label == 1].mean()) > 0.9 > 0.6 > float(q[:, 1][label == 0].mean())
    torch.testing.assert_close(model.posterior(x, 1.0)[0], torch.tensor(WEIGHTS, dtype=torch.float64))
    nothing = model.posterior(x[:1], 0.3, torch.tensor([], dtype=torch.long))
    torch.testing.assert_close(nothing[0], torch.tensor(WEIGHTS, dtype=torch.float64))
    assert model.mmse(0.0).value == 0
    torch.testing.assert_close(model.denoiser(1)(x[:4], 0.0), x[:4])
    assert model.cmi(0.5, 3).value == 0, "nothing is left for C"
    u = float(CosinePath().t_of_log_snr(LinearPath().log_snr(0.4)))
    assert model.cmi(u, 1, path=CosinePath(), n=500).value == pytest.approx(model.cmi(0.4, 1, n=500).value, rel=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(PhasewiseError, match="one image shape"):
        GaussianMixture([GaussianField((4, 3)), GaussianField((3, 4))])
    with pytest.raises(PhasewiseError, match="sum to 1"):
        GaussianMixture([GaussianField((4, 3))] * 2, np.array([0.5, 0.4]))
    with pytest.raises(PhasewiseError, match="numbers from 0 to 11"):
        textures().posterior(torch.zeros(1, 1, 4, 3), 0.5, torch.tensor([12]))
    with pytest.raises(PhasewiseError, match="no density"):
        GaussianMixture([GaussianField((4, 3), mass=0)] * 2).posterior(torch.zeros(1, 1, 4, 3), 0.0)
