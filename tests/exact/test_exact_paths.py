"""CMI knows isotropic paths by their log-SNR alone; on anisotropic ones, and in a field, exact models against brute
force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor

from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField, IsingChain, IsingStrip, TwoMode
from phasewise.exact.ising import ColouredChain
from phasewise.exact.two_mode import bit_error, equivocation
from phasewise.information import make_estimator
from phasewise.information.problem import make_problem
from phasewise.paths import PATHS, CosinePath, LinearPath, ModePath, ScaledPath, TablePath, VarianceExplodingPath

ISOTROPIC = [LinearPath(), CosinePath(), VarianceExplodingPath(0.01, 20.0), TablePath(betas="linear")]
ISOTROPIC += [ScaledPath(CosinePath(), 2.0)]
SIDE = (3, 4)
COLOURED = ModePath(SIDE, power=1.0, mass=0.5)
OTHERS = [COLOURED, ModePath(SIDE, blur=1.5), ModePath((2, 4), "haar", [ScaledPath(LinearPath(), 2.0), LinearPath()])]


# --- isotropic paths cannot bypass anything ---------------------------------------------------------------------------


def test_every_registered_path_is_looked_at() -> None:
    assert {path.name for path in ISOTROPIC} | {"modes"} == set(PATHS)


@pytest.mark.parametrize("log_snr", [-3.0, 0.0, 2.5])
def test_on_isotropic_paths_cmi_is_a_function_of_the_signal_to_noise_ratio_alone(log_snr: float) -> None:
    field, sign, chain = GaussianField((4, 4), mass=0.3), TwoMode((4, 4)), IsingChain(7, 0.8)
    images = GaussianField((4, 4), mass=0.5).sample(40, 0)
    found = []
    for path in ISOTROPIC:
        t = float(path.t_of_log_snr(torch.tensor(log_snr, dtype=torch.float64)))
        assert float(path.log_snr(t)) == pytest.approx(log_snr, abs=1e-6)
        estimator = make_estimator("gaussian", shrinkage=None, folds=2)
        ((_, measured),) = estimator.estimate(make_problem(images, [t], [1], path=path), [(0, 0)])
        exact = [field.cmi(t, 1, path=path), sign.cmi(t, 1, path=path), chain.cmi(t, 1, path=path, n=64).value]
        found.append([*exact, measured.value, field.denoising_gap(t, 1, path), sign.denoising_gap(t, 1, path)])
    np.testing.assert_allclose(found, np.tile(found[0], (len(found), 1)), rtol=1e-5, atol=1e-9)
    assert min(found[0][0], found[0][2]) > 1e-6


def test_and_on_an_anisotropic_path_it_is_not() -> None:
    sign = TwoMode((8, 8))
    coloured = ModePath((8, 8), power=1.0, mass=0.25)
    times = [float(LinearPath().t_of_log_snr(x)) for x in (-4.0, -2.0, 0.0)]
    assert max(sign.cmi(t, 1, path=coloured) for t in times) < 2e-3 * max(sign.cmi(t, 1) for t in times)


# --- Gaussian fields --------------------------------------------------------------------------------------------------


def test_noise_of_the_fields_own_colour_leaves_nothing_far_away() -> None:
    field = GaussianField((6, 6), mass=0.3, boundary="open")
    path = ModePath((6, 6), power=1.0, mass=0.3)
    for t in (0.2, 0.5, 0.9):
        assert field.cmi(t, 1, path=path) == pytest.approx(0, abs=1e-10)
        assert field.cmi(t, 1) > 1e-4
        # every mode has the same ratio: a pixel needs no other
        x = field.sample(2, 0).double()
        gain = (1 - t) / ((1 - t) ** 2 + t**2)
        torch.testing.assert_close(field.denoiser(0, path)(x, t), gain * x)
        torch.testing.assert_close(field.denoiser(None, path)(x, t), gain * x)


@pytest.mark.parametrize("path", OTHERS, ids=repr)
def test_a_field_on_an_anisotropic_path_is_its_dense_self(path: ModePath) -> None:
    field = GaussianField(path.shape, mass=0.4)
    n, t = path.shape[0] * path.shape[1], 0.4
    signal, noise = path.matrices(t)
    x = field.sample(3, 0).double()
    z = torch.randn(3, 1, *path.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_t = path.add_noise(x, z, t)
    noisy = signal @ field.covariance @ signal.T + noise
    weights = torch.linalg.solve(noisy, signal @ field.covariance).T
    torch.testing.assert_close(field.denoiser(None, path)(x_t, t).flatten(1), x_t.flatten(1) @ weights.T)
    torch.testing.assert_close(field.noisy_covariance(t, path), noisy)
    assert field.mmse(t, None, path) == pytest.approx(
        float((field.covariance - weights @ signal @ field.covariance).trace())
    )
    assert field.mmse(t, max(path.shape), path) == pytest.approx(field.mmse(t, None, path), rel=1e-9)
    assert field.mmse(t, 1, path) > field.mmse(t, None, path)
    windowed = field.denoiser(1, path)
    assert float(windowed.matrix(t)[0, n - 1]) == 0
    times = torch.tensor([0.4, 0.8, 0.4], dtype=torch.float64)
    alone = [windowed(x_t[i : i + 1], float(u)) for i, u in enumerate(times)]
    torch.testing.assert_close(windowed(x_t, times), torch.cat(alone))


# --- two modes --------------------------------------------------------------------------------------------------------


def mixture(model: TwoMode, path: ModePath, t: float, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Signs (n,), noisy images (n, N), the mean of a plus one (N,)."""
    rng = np.random.default_rng(0)
    signal, noise = path.matrices(t)
    signs = np.where(rng.random(n) < 1 / (1 + math.exp(-2 * model.bias)), 1.0, -1.0)
    mean = model.amplitude * signal.sum(1)
    x = torch.from_numpy(signs)[:, None] * mean + torch.from_numpy(
        rng.multivariate_normal(np.zeros(12), noise.numpy(), n)
    )
    return torch.from_numpy(signs), x, mean


@pytest.mark.parametrize("path", OTHERS[:2], ids=repr)
@pytest.mark.parametrize("bias", [0.0, 0.4])
def test_two_modes_on_an_anisotropic_path_against_their_densities(path: ModePath, bias: float) -> None:
    model, t, n = TwoMode(SIDE, 0.8, bias=bias), 0.6, 20_000
    signs, x, mean = mixture(model, path, t, n)
    noise = path.matrices(t)[1]

    def log_density(pixels: list[int]) -> np.ndarray:
        each = [
            math.log(1 / (1 + math.exp(-2 * s * bias)))
            + multivariate_normal(s * mean[pixels], noise[pixels][:, pixels]).logpdf(x[:, pixels])
            for s in (-1, 1)
        ]
        return np.logaddexp(*each)

    a, b = [5], [0, 1, 2, 4, 6, 8, 9, 10]  # the ring of one round pixel (1, 1)
    c = [i for i in range(12) if i not in a + b]
    terms = log_density(a + b + c) - log_density(b + c) - log_density(a + b) + log_density(b)
    assert model.cmi(t, 1, path=path) == pytest.approx(terms.mean(), abs=3 * terms.std() / math.sqrt(n))
    for radius in (None, 1):
        guess = model.denoiser(radius, path)(x.view(n, 1, *SIDE), t).flatten(1)
        loss = (guess - model.amplitude * signs[:, None]).square().sum(1)
        assert model.mmse(t, radius, path) == pytest.approx(
            float(loss.mean()), abs=3 * float(loss.std()) / math.sqrt(n)
        )


def test_a_bias_leaves_less_to_know_and_error_is_its_slope() -> None:
    for bias in (0.3, -1.2):
        share = 1 / (1 + math.exp(-2 * bias))
        assert equivocation(0, bias) == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share))
        assert bit_error(0, bias) == pytest.approx(1 - math.tanh(bias) ** 2)
        for kappa in (0.2, 3.0):
            slope = (equivocation(kappa + 1e-4, bias) - equivocation(kappa - 1e-4, bias)) / 2e-4
            assert slope == pytest.approx(-bit_error(kappa, bias) / 2, rel=1e-5)  # Guo, Shamai, Verdu 2005
    assert equivocation(1.3, 1e-9) == pytest.approx(equivocation(1.3), abs=1e-8)
    assert equivocation(math.inf, 0.3) == 0


def test_a_field_on_every_pixel_ends_the_transition_the_sooner_the_larger_the_image() -> None:
    left = []
    for side in (6, 10):
        held, free = TwoMode((side, side), bias=0.05 * side**2), TwoMode((side, side))
        left.append(max(held.cmi(t, 1) for t in (0.7, 0.8, 0.9)) / max(free.cmi(t, 1) for t in (0.7, 0.8, 0.9)))
    assert left[1] < 0.1 * left[0] < 0.1


# --- Ising ------------------------------------------------------------------------------------------------------------


def test_an_ising_model_in_a_field_against_enumeration() -> None:
    model = IsingStrip(2, 3, 0.4, field=0.3)
    states = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=6)), dtype=torch.float64).view(-1, 2, 3)
    bonds = (states[:, 1:] * states[:, :-1]).sum((1, 2)) + (states[:, :, 1:] * states[:, :, :-1]).sum((1, 2))
    seen = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
    weight = torch.softmax(0.4 * bonds + ((0.3 + seen) * states).sum((1, 2)), 0)
    expected = (weight[:, None, None] * states).sum(0)
    torch.testing.assert_close(model.posterior_mean(seen[None])[0], expected, rtol=1e-10, atol=1e-12)
    assert float(model.sample(4000, 0).mean()) > 0.5
    assert repr(model).endswith("field=0.3)")


def test_densities_of_a_chain_in_coloured_noise_against_enumeration() -> None:
    chain, path, t = IsingChain(5, 0.6), ModePath((1, 5), power=1.0, mass=0.4), 0.5
    hidden = ColouredChain(chain, path, t)
    x = hidden.draw(7, 0)
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=5)))
    prior = np.exp(0.6 * (states[:, 1:] * states[:, :-1]).sum(1))
    noise = path.matrices(t)[1].numpy()
    for pixels in ([0, 1, 2, 3, 4], [0, 1, 3, 4], [1, 3], [2]):
        each = [multivariate_normal(0.5 * s[pixels], noise[np.ix_(pixels, pixels)]).pdf(x[:, pixels]) for s in states]
        expected = np.log(prior / prior.sum() @ np.array(each))
        np.testing.assert_allclose(hidden.log_density(x, set(pixels)), expected, rtol=1e-9)
    assert hidden.log_density(x, set()).abs().max() == 0


def test_a_chain_in_noise_that_is_all_but_white_is_the_chain_of_the_isotropic_path() -> None:
    chain, white = IsingChain(9, 0.8), ModePath((1, 9), power=1.0, mass=300.0)
    for t, radius in ((0.5, 1), (0.6, 2)):
        here, there = chain.cmi(t, radius, path=white, n=20_000), chain.cmi(t, radius, n=4000)
        assert here.value == pytest.approx(there.value, abs=3 * math.hypot(here.stderr, there.stderr))
    assert chain.cmi(0.5, 8, path=white).value == 0


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda: IsingChain(9, 0.8).cmi(0.5, 1, path=ModePath((1, 9), power=2.0)), "noise is a Markov chain"),
        (lambda: IsingChain(9, 0.8).cmi(0.5, 1, path=ModePath((1, 8), power=1.0)), "for images of 1 x 8"),
        (lambda: IsingChain(9, 0.8, field=0.1).cmi(0.5, 1, path=ModePath((1, 9), power=1.0)), "without a field"),
        (lambda: IsingStrip(3, 3, 0.4).cmi(0.5, 1, path=ModePath((3, 3))), "isotropic paths alone"),
        (lambda: IsingChain(9, 0.8).denoiser(path=ModePath((1, 9))), "isotropic paths alone"),
        (lambda: TwoMode.far_copy((8, 8)).cmi(0.5, 1, path=ModePath((8, 8))), "all pixels are carriers"),
        (lambda: TwoMode((8, 8)).cmi(0, 1, path=ModePath((8, 8))), "take t > 0"),
        (lambda: TwoMode((8, 8)).cmi(0.5, 1, path=COLOURED), "the path is for images"),
        (lambda: GaussianField((8, 8)).cmi(0.5, 1, path=COLOURED), "the path is for images"),
        (lambda: GaussianField((8, 8)).denoiser(path=COLOURED), "the path is for images"),
    ],
)
def test_what_is_not_exact_is_refused(use: object, said: str) -> None:
    with pytest.raises(PhasewiseError, match=said):
        use()  # type: ignore[operator]
