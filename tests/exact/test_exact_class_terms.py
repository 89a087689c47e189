"""What a class has to do with locality, in every exact model, against enumeration and quadrature."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad, quad

from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField, GaussianMixture, IsingChain, IsingStrip, TwoMode
from phasewise.paths import LinearPath


def entropy_of_sign(log_ratio: float) -> float:
    p = 1 / (1 + math.exp(-2 * log_ratio))
    return -(p * math.log(p) + (1 - p) * math.log(1 - p))


def test_two_modes_are_integrals_over_the_pixels() -> None:
    t, a = 0.6, 0.8
    alpha, sigma = 1 - t, t
    found = TwoMode((1, 2), a).class_terms(t, 0)  # B is empty, A and C are a pixel each

    def density(x: float) -> float:  # of a pixel, given s = +1
        return math.exp(-((x - alpha * a) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))

    def ratio(x: float) -> float:
        return alpha * a * x / sigma**2

    ends = (alpha * a - 12 * sigma, alpha * a + 12 * sigma)
    one = quad(lambda x: density(x) * entropy_of_sign(ratio(x)), *ends, epsabs=1e-12)[0]
    two = dblquad(
        lambda y, x: density(x) * density(y) * entropy_of_sign(ratio(x) + ratio(y)), *ends, *ends, epsabs=1e-10
    )[0]
    assert found.near.value == pytest.approx(math.log(2) - one, abs=1e-8)
    assert found.far.value == pytest.approx(one - two, abs=1e-8)
    assert found.cmi.value == pytest.approx(TwoMode((1, 2), a).cmi(t, 0), abs=1e-12)
    again = dblquad(
        lambda y, x: density(x) * density(y) * (1 + math.tanh(ratio(x) + ratio(y)) ** 2) / 2, *ends, *ends, epsabs=1e-10
    )[0]
    assert found.agreement.value == pytest.approx(again, abs=1e-8)
    assert (found.given.value, found.gap_given.value, found.a) == (0, 0, 1)


def test_two_clones_agree_as_published_at_speciation() -> None:
    t = float(LinearPath().t_of_log_snr(-math.log(64)))
    assert TwoMode((8, 8)).class_terms(t, 1).agreement.value == pytest.approx(0.775, abs=1e-3)


def joint_by_enumeration(model, fields: np.ndarray, pixel: int) -> np.ndarray:
    """(B, 2, 2): the spin's value and the sign of the sum, by summing over all states."""
    height, width = model.shape
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=height * width)))
    grid = states.reshape(-1, height, width)
    bonds = (grid[:, 1:] * grid[:, :-1]).sum((1, 2)) + (grid[:, :, 1:] * grid[:, :, :-1]).sum((1, 2))
    weight = np.exp(model.beta * bonds + fields @ states.T)
    spin, sign = states[:, pixel] > 0, states.sum(1) > 0
    cells = [[weight[:, (spin == i) & (sign == k)].sum(1) for k in (False, True)] for i in (False, True)]
    joint = np.array(cells).transpose(2, 0, 1)
    return joint / joint.sum((1, 2), keepdims=True)


@pytest.mark.parametrize("model", [IsingStrip(3, 3, 0.5), IsingStrip(5, 3, -0.4), IsingChain(7, 0.9)], ids=repr)
def test_spin_and_sign_are_sums_over_all_states(model) -> None:
    pixels = model.shape[0] * model.shape[1]
    fields = 2 * np.random.default_rng(0).standard_normal((3, pixels))
    for pixel in (0, pixels // 2, pixels - 2):
        found = model._signed_posterior(
            torch.from_numpy(fields).reshape(3, *model.shape), torch.arange(pixels), pixel
        ).numpy()
        np.testing.assert_allclose(found, joint_by_enumeration(model, fields, pixel), atol=1e-12)


def plain_terms(beta: float, gamma: float) -> dict[str, float]:
    """cmi, given, near and far of the middle of three chained spins with B empty, by Gauss-Hermite quadrature."""
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    prior = np.exp(beta * (states[:, 0] * states[:, 1] + states[:, 1] * states[:, 2]))
    prior /= prior.sum()
    sign = states.sum(1) > 0
    z, w = np.polynomial.hermite_e.hermegauss(28)
    noise = np.array(list(itertools.product(z, repeat=3)))
    mass = np.prod(np.array(list(itertools.product(w / w.sum(), repeat=3))), axis=1)

    def log_z(f: np.ndarray, seen: list[int], only: np.ndarray) -> np.ndarray:
        return np.log(np.exp(f[:, seen] @ states[:, seen].T) @ (prior * only)) - math.log(prior[only].sum())

    every, total = np.ones(8, dtype=bool), dict.fromkeys(("cmi", "given", "near", "far"), 0.0)
    for state, weight, up in zip(states, prior, sign, strict=True):
        f, own = gamma * state + math.sqrt(gamma) * noise, sign == up
        a, c, ac = [1], [0, 2], [0, 1, 2]
        told = log_z(f, ac, own) - log_z(f, c, own)
        untold = log_z(f, ac, every) - log_z(f, c, every)
        near_told, near_untold = log_z(f, a, own), log_z(f, a, every)
        for name, score in (
            ("cmi", untold - near_untold), ("given", told - near_told), ("near", near_told - near_untold),
            ("far", told - untold),
        ):  # fmt: skip
            total[name] += weight * float(mass @ score)
    return total


def test_terms_of_three_spins_are_integrals() -> None:
    model, t = IsingChain(3, 0.7), 0.55
    found, truth = model.class_terms(t, 0, n=4000), plain_terms(0.7, ((1 - t) / t) ** 2)
    for name, value in truth.items():
        estimate = getattr(found, name)
        assert abs(estimate.value - value) < 3 * estimate.stderr + 1e-8, name  # near has no error: B is empty
    assert truth["cmi"] - truth["given"] == pytest.approx(truth["near"] - truth["far"], abs=1e-8)
    assert found.cmi.value == pytest.approx(model.cmi(t, 0, n=4000).value, abs=1e-12)
    assert found.a == pytest.approx(1 - truth["given"] / truth["cmi"], abs=0.05)


def test_an_even_number_of_spins_has_no_sign() -> None:
    with pytest.raises(PhasewiseError, match="odd number"):
        IsingStrip(2, 3, 0.4).class_terms(0.5, 1)


def textures(side: int = 4) -> GaussianMixture:
    return GaussianMixture([GaussianField((side, side), mass) for mass in (0.05, 1.0)], (0.3, 0.7))


def test_a_mixture_of_equal_parts_is_its_part() -> None:
    field = GaussianField((4, 4), 0.2)
    terms = GaussianMixture([field, field]).class_terms(0.6, 1, n=2000)
    assert terms.cmi.value == pytest.approx(field.cmi(0.6, 1), abs=1e-12)
    assert terms.a == pytest.approx(0, abs=1e-12)
    assert terms.agreement.value == pytest.approx(0.5)
    assert abs(terms.gap.value - terms.gap_given.value) < 3 * terms.gap.stderr


def test_the_information_of_a_mixture_is_its_cmi() -> None:
    model = textures()
    terms, whole = model.class_terms(0.5, 1, n=4000), model.cmi(0.5, 1, n=4000)
    assert terms.cmi.value == pytest.approx(whole.value, abs=1e-12)
    assert terms.cmi.stderr == pytest.approx(whole.stderr)
    assert terms.given.value == model.cmi_given_component(0.5, 1)
    assert math.isnan(model.class_terms(0.5, 1, block=2, n=16).gap.value)


def test_the_gap_of_a_mixture_is_a_difference_of_errors() -> None:
    model, t, n = textures(), 0.6, 4000
    terms, noisy = model.class_terms(t, 1, n=n), model._noisy(t, n, 0, None).view(n, 1, 4, 4)
    apart = (model.denoiser(1)(noisy, t) - model.denoiser()(noisy, t))[:, 0, 1, 1].square()
    assert terms.gap.value == pytest.approx(float(apart.mean()), rel=1e-9)
    posterior = model.posterior(noisy, t)
    assert terms.agreement.value == pytest.approx(float(posterior.square().sum(1).mean()), rel=1e-9)
    x = model.sample(n, 5).double()
    fresh = 0.4 * x + t * torch.from_numpy(np.random.default_rng(6).standard_normal(x.shape))
    known = [[c.denoiser(r)(fresh, t) for c in model.components] for r in (1, None)]
    labels = model.labels(n, 5)
    errors = [torch.where(labels[:, None, None, None] == 0, *pair) - x for pair in known]
    gaps = (errors[0].square() - errors[1].square())[:, 0, 1, 1]
    assert abs(terms.gap_given.value - float(gaps.mean())) < 3 * float(gaps.std()) / math.sqrt(n)
