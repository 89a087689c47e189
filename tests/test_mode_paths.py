"""Anisotropic paths: orthonormal bases, conversions mode by mode, one isotropic path as a special case, refusals."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import phasewise as pw
from phasewise.denoisers import load_denoiser, save_denoiser
from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianField, TwoMode
from phasewise.paths import (
    BASES,
    CosinePath,
    LinearPath,
    ModePath,
    NoisePath,
    ScaledPath,
    VarianceExplodingPath,
    path_from_config,
    translate,
)

SIDE = (4, 6)
PATHS = {
    "coloured": ModePath(SIDE, power=1.0, mass=0.5),
    "blue, exploding": ModePath(SIDE, of=VarianceExplodingPath(0.01, 20.0), power=-0.5, mass=0.3),
    "blurred": ModePath(SIDE, of=CosinePath(), blur=2.0),
    "by level": ModePath(SIDE, "haar", [ScaledPath(LinearPath(), 2.0), LinearPath()]),
    "by wave": ModePath(SIDE, of=[ScaledPath(LinearPath(), 0.5 + k) for k in range(6)], power=1.0, mass=1.0),
}
every_path = pytest.mark.parametrize("path", list(PATHS.values()), ids=list(PATHS))
LAW = settings(max_examples=15, deadline=None, derandomize=True)
TIMES = st.floats(0.02, 0.98)


def pair(seed: int = 0, n: int = 3) -> tuple[Tensor, Tensor]:
    """Clean images and noise, (n, 2, 4, 6) float64."""
    x, z = torch.randn(2, n, 2, *SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, z


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- bases ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side"), [("dct", (4, 6)), ("dct", (5, 7)), ("dct", (1, 9)), ("haar", (4, 6)), ("haar", (8, 8))]
)
def test_bases_are_orthonormal_and_their_bands_cover_all_modes(name: str, side: tuple[int, int]) -> None:
    basis, n = BASES[name](side), side[0] * side[1]
    matrix = basis.to_modes(torch.eye(n, dtype=torch.float64).view(n, *side)).flatten(1)
    close(matrix @ matrix.T, torch.eye(n, dtype=torch.float64), 1e-12)
    x = torch.randn(2, 3, *side, dtype=torch.float64)
    close(basis.to_pixels(basis.to_modes(x)), x, 1e-12)
    counts = torch.bincount(basis.band.flatten())
    assert counts.sum() == n
    assert (counts > 0).all()
    # an even image has no other modes than those of the coarsest band
    assert basis.to_modes(torch.ones(side, dtype=torch.float64))[basis.band > 0].abs().max() < 1e-12


def test_cosines_are_those_of_scipy_and_diagonalise_the_laplacian() -> None:
    x = np.random.default_rng(0).standard_normal(SIDE)
    basis = BASES["dct"](SIDE)
    close(basis.to_modes(torch.from_numpy(x)), torch.from_numpy(scipy.fft.dctn(x, norm="ortho")), 1e-12)
    field = GaussianField(SIDE, mass=0.7, boundary="open")
    variance = 1 / (0.49 + basis.energy)
    noise = ModePath(SIDE, power=1.0, mass=0.7).matrices(1.0)[1]
    close(noise, field.covariance, 1e-10)
    assert float(noise.diagonal().mean()) == pytest.approx(1)
    assert float(variance.argmax()) == 0


def test_haar_means_and_details_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    # sum, across, down, both; each over 2
    close(BASES["haar"]((2, 2)).to_modes(x), torch.tensor([[6.0, -2.0], [-3.0, 1.0]]), 1e-6)
    assert BASES["haar"]((28, 28)).band.max() == 2  # 28, 14, 7, and 7 is odd


# --- what a path says -------------------------------------------------------------------------------------------------


@every_path
@LAW
@given(t=TIMES)
def test_predictions_of_the_true_image_are_the_true_noise_score_and_velocity(path: ModePath, t: float) -> None:
    x, z = pair()
    modes, s = path.basis.to_modes, torch.tensor(t, dtype=torch.float64)
    alpha, sigma = path.by_mode.alpha(s), path.by_mode.sigma(s)
    x_t = path.add_noise(x, z, t)
    close(modes(x_t), alpha * modes(x) + sigma * modes(z))
    close(path.eps_from_x(x_t, x, t), z, 1e-8)
    close(modes(path.score_from_x(x_t, x, t)), -modes(z) / sigma, 1e-7)
    motion = torch.autograd.functional.jacobian(lambda u: path.add_noise(x, z, u), s)
    close(path.velocity_from_x(x_t, x, t), motion)


@every_path
@LAW
@given(t=TIMES)
def test_every_prediction_gives_the_image_back(path: ModePath, t: float) -> None:
    x_t, guess = pair(1)
    for there, back in (
        (path.eps_from_x, path.x_from_eps),
        (path.score_from_x, path.x_from_score),
        (path.velocity_from_x, path.x_from_velocity),
    ):
        close(back(x_t, there(x_t, guess, t), t), guess, 1e-6)


@every_path
def test_one_time_per_image_is_the_same_as_one_call_per_image(path: ModePath) -> None:
    x_t, guess = pair(2)
    times = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for convert in (path.add_noise, path.eps_from_x, path.velocity_from_x, path.x_from_velocity):
        alone = [convert(x_t[i : i + 1], guess[i : i + 1], float(t)) for i, t in enumerate(times)]
        close(convert(x_t, guess, times), torch.cat(alone), 1e-12)


@every_path
def test_a_pixel_sees_the_mean_brightness_and_its_own_share_of_the_noise(path: ModePath) -> None:
    for t in (0.2, 0.7, 1.0):
        s = torch.tensor(t, dtype=torch.float64)
        signal, noise = path.matrices(t)
        close(path.sigma(s) ** 2, noise.diagonal().mean(), 1e-10)
        close(signal.sum(1), path.alpha(s).expand(24), 1e-10)
        close(path.pure_noise(torch.eye(24, dtype=torch.float64).view(24, 1, *SIDE), t).flatten(1), _root(noise), 1e-8)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


@every_path
def test_slopes_are_those_of_autograd_and_log_snr_falls_and_is_found_again(path: ModePath) -> None:
    t = torch.linspace(0.01, 1, 41, dtype=torch.float64)
    for function, slope in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot)):
        measured = torch.autograd.functional.jacobian(lambda s, f=function: f(s).sum(), t)
        close(slope(t), measured, 1e-10)
    assert (path.log_snr(t).diff() < 0).all()
    close(path.t_of_log_snr(path.log_snr(t)), t)
    ends = torch.tensor([math.inf, -math.inf], dtype=torch.float64)
    assert path.t_of_log_snr(ends).tolist() == [0, 1]


@LAW
@given(t=TIMES)
def test_white_noise_in_any_basis_is_the_isotropic_path(t: float) -> None:
    (x, z), plain = pair(3), LinearPath()
    for basis in BASES:
        path = ModePath(SIDE, basis)
        for of in ("add_noise", "eps_from_x", "velocity_from_x", "x_from_velocity"):
            close(getattr(path, of)(x, z, t), getattr(plain, of)(x, z, t), 1e-10)


# --- kept and read again ----------------------------------------------------------------------------------------------


@every_path
def test_a_path_survives_json(path: ModePath) -> None:
    again = path_from_config(json.loads(json.dumps(path.config())))
    assert (again, hash(again)) == (path, hash(path))
    x, z = pair(4)
    assert torch.equal(again.add_noise(x, z, 0.4), path.add_noise(x, z, 0.4))
    assert again != LinearPath()


def test_a_network_is_saved_with_its_path_and_trains_and_samples_on_it(tmp_path: Any) -> None:
    path = ModePath((8, 8), "haar", [ScaledPath(LinearPath(), 2.0), *[LinearPath()] * 3])
    images = GaussianField((8, 8)).sample(64, 0)
    network = pw.LocalDenoiser((1, 8, 8), 1, path=path)
    pw.train(network, images, steps=2, batch=8, progress=False)
    again = load_denoiser(save_denoiser(network, tmp_path / "network"))
    assert again.path == path
    assert torch.equal(pw.sample(again, n=2, steps=3), pw.sample(network, n=2, steps=3))
    schedule = pw.HybridSchedule((1.0, 0.4), ("a", "a"), "exp_ab2", path.config())
    assert torch.isfinite(pw.sample(pw.HybridDenoiser({"a": again}, schedule), n=2)).all()


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ModePath((27, 28), "haar"), "one of 27 x 28 is odd"),
        (lambda: ModePath((4, 4), "fourier"), "dct"),
        (lambda: ModePath((4, 4), "haar", power=1.0), "have no wave number"),
        (lambda: ModePath((4, 4), "haar", [LinearPath()]), "has 3 bands, and 1 paths were given"),
        (lambda: ModePath((4, 4), of=ModePath((4, 4))), "isotropic paths alone"),
        (lambda: ModePath((4, 4), of=Rising()), "band 0 does not fall all the way"),
        (lambda: ModePath((4, 4), "haar", [LinearPath(), Rising(), LinearPath()]), "band 1 does not fall"),
        (lambda: ModePath((4,)), "shape must have 2"),  # type: ignore[arg-type]
        (lambda: ModePath((4, 4), power=1.0, mass=0.0), "mass must be"),
        (lambda: ModePath((4, 4), blur=-1.0), "blur must be"),
        (lambda: ModePath((4, 4)).add_noise(*pair(), 0.5), "for images of 4 x 4 pixels"),
        (lambda: pw.LocalDenoiser((1, 6, 6), 1, path=ModePath((4, 4))), "for images of 4 x 4 pixels"),
        (lambda: ModePath(SIDE).add_noise(*pair(), 1.5), r"must lie in \[0, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, said: str) -> None:
    with pytest.raises(PhasewiseError, match=said):
        make()


class Rising(LinearPath):
    """Becomes cleaner again behind the middle."""

    name = "rising"

    def sigma(self, t: Tensor) -> Tensor:
        return torch.where(t < 0.5, t, 2 * (1 - t) ** 2 + 1e-6)


SHAPE = (1, 4, 4)
COLOURED = ModePath((4, 4), power=1.0, mass=0.5)


def field() -> Tensor:
    return GaussianField((4, 4)).sample(60, 0)


@pytest.mark.parametrize(
    "use",
    [
        lambda: translate(torch.zeros(SHAPE), 0.5, LinearPath(), COLOURED),
        lambda: pw.LocalDenoiser(SHAPE, 1).on(COLOURED)(torch.zeros(1, *SHAPE), 0.5),
        lambda: pw.PixelDenoiser(SHAPE, COLOURED),
        lambda: pw.PooledDenoiser(pw.LocalDenoiser((1, 2, 2), 1), SHAPE, 2, COLOURED),
        lambda: pw.PlanDenoiser(
            pw.LocalDenoiser((1, 2, 2), 1), pw.LocalDenoiser(SHAPE, 1, context=1, path=COLOURED), 2
        ),
        lambda: pw.ReusedAnswer(SHAPE, quantity="eps", path=COLOURED),
        lambda: pw.wrap(lambda x, t: x, SHAPE, predicts="eps", path=COLOURED),
        lambda: pw.sample(pw.LocalDenoiser(SHAPE, 1, path=COLOURED), 2, solver="ancestral", noise="path"),
        lambda: pw.sampling.for_sampling(pw.LocalDenoiser(SHAPE, 1, path=COLOURED), noise="path"),
        lambda: pw.cmi_map(field(), [1], [0.5], path=COLOURED, estimator="knn", accuracy=1),
        lambda: pw.price_list({"global": pw.LocalDenoiser(SHAPE, 1, path=COLOURED)}, field(), (1.0, 0.5)),
        lambda: TwoMode((4, 4)).path_kl(1, 0.1, 0.9, COLOURED),
        lambda: COLOURED.gamma(0.5),
        lambda: COLOURED.velocity_gain(0.5),
    ],
)
def test_what_is_known_on_isotropic_paths_alone_says_so(use: Any) -> None:
    with pytest.raises(PhasewiseError, match="is known on isotropic paths alone"):
        use()


def test_an_equal_path_needs_no_translation() -> None:
    x = torch.zeros(2, *SHAPE)
    again = path_from_config(COLOURED.config())
    assert translate(x, 0.3, COLOURED, again)[0] is x
    network = pw.LocalDenoiser(SHAPE, 1, path=COLOURED)
    assert network.on(again) is network
    assert isinstance(again, NoisePath)
