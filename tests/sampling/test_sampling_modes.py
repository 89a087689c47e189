"""On anisotropic paths solvers keep their order, and stochastic ones the law, on Gaussian fields that are known."""

from __future__ import annotations

import math

import pytest
import torch
from plain_denoiser import Plain
from torch import Tensor

from phasewise.errors import PhasewiseError
from phasewise.exact import GaussianModel
from phasewise.paths import BASES, CosinePath, LinearPath, ModePath, ScaledPath
from phasewise.sampling import SOLVERS, Carry, integrate, sample, take_step, time_grid

SIDE = (2, 4)
PATHS = {
    "coloured": ModePath(SIDE, power=1.0, mass=0.7),
    "blurred": ModePath(SIDE, of=CosinePath(), blur=1.0),
    "by level": ModePath(SIDE, "haar", [ScaledPath(LinearPath(), 2.0), LinearPath()]),
}
every_path = pytest.mark.parametrize("path", list(PATHS.values()), ids=list(PATHS))
ODE = [name for name, solver in SOLVERS.items() if not solver.stochastic]
SPECTRUM = torch.tensor([[2.0, 1.0, 0.5, 0.2], [0.7, 0.4, 0.1, 0.05]], dtype=torch.float64)
MEAN = torch.linspace(-0.5, 1.0, 8, dtype=torch.float64)


def model(path: ModePath) -> GaussianModel:
    """A field whose modes are those of the path's basis, independent, and a mean."""
    basis = path.basis
    waves = basis.to_modes(torch.eye(8, dtype=torch.float64).view(8, *SIDE))
    return GaussianModel(basis.to_pixels(SPECTRUM * waves).flatten(1), SIDE, MEAN)


def exact_flow(path: ModePath, x: Tensor, t: float, s: float) -> Tensor:
    """The probability-flow ODE moves each mode by the ratio of its standard deviations."""
    basis, mean = path.basis, path.basis.to_modes(MEAN.view(SIDE))
    begin, end = (torch.tensor(u, dtype=torch.float64) for u in (t, s))

    def std(u: Tensor) -> Tensor:
        return (path.by_mode.alpha(u) ** 2 * SPECTRUM + path.by_mode.sigma(u) ** 2).sqrt()

    centred = basis.to_modes(x) - path.by_mode.alpha(begin) * mean
    return basis.to_pixels(path.by_mode.alpha(end) * mean + centred * std(end) / std(begin))


def noise(n: int, path: ModePath, seed: int = 2) -> Tensor:
    z = torch.randn(n, 1, *SIDE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return path.pure_noise(z, 1.0)


@pytest.mark.parametrize("solver", ODE)
@every_path
def test_order_of_convergence(path: ModePath, solver: str) -> None:
    exact, t_min, order = model(path).denoiser(path=path), 0.1, SOLVERS[solver].order
    start, spacing = (0.97, "log_snr") if solver == "dpmpp_2m" else (1.0, "uniform")
    x = noise(8, path)
    truth, errors = exact_flow(path, x, start, t_min), []
    for steps in (16, 32, 64):
        grid, here, carry = time_grid(steps + 1, path=path, t_start=start, t_min=t_min, spacing=spacing), x, Carry()
        for t, s in zip(grid, grid[1:], strict=False):
            here = take_step(SOLVERS[solver], exact, here, t, s, carry)
        errors.append(float((here - truth).abs().max()))
    assert errors[-1] < 0.1
    rates = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert rates[-1] > order - 0.25, (errors, rates)


@pytest.mark.parametrize("solver", ["ancestral", "sde_dpmpp_2m"])
@every_path
def test_stochastic_solvers_keep_the_distribution(path: ModePath, solver: str) -> None:
    exact, grid = model(path).denoiser(path=path), time_grid(48, path=path, t_min=0.02, spacing="log_snr")
    draws = torch.Generator().manual_seed(5)
    x = noise(2000, path)
    out = integrate(exact, x, grid, solver, noise=lambda: torch.randn(x.shape, generator=draws, dtype=x.dtype))
    modes = path.basis.to_modes(out[:, 0])
    assert (modes.mean(0) - path.basis.to_modes(MEAN.view(SIDE))).abs().max() < 5 * math.sqrt(2.0 / 2000) + 0.02
    ratio = modes.var(0) / SPECTRUM
    assert ((ratio - 1).abs() < 5 * math.sqrt(2 / 2000) + 0.1).all(), ratio


@pytest.mark.parametrize("solver", ["ancestral", "sde_dpmpp_2m"])
def test_the_covariance_of_stochastic_solvers_is_of_their_order(solver: str) -> None:
    """The covariance of a linear sampler in closed form: every mode is multiplied and given noise, step by step."""
    path = PATHS["coloured"]
    law, errors, exact = path.by_mode, [], centred(path)
    for steps in (16, 32, 64):
        grid, drawn = time_grid(steps, t_min=0.1), iter(range(steps))
        # modes are independent: row 0 is what comes out of one unit in, row k of draw k alone
        x = torch.zeros(steps, 1, *SIDE, dtype=torch.float64)
        x[0] = path.basis.to_pixels(law.sigma(torch.tensor(1.0, dtype=torch.float64)))
        carry = Carry(noise=lambda d=drawn, n=steps: _unit(n, 1 + next(d)))
        for t, s in zip(grid, grid[1:], strict=False):
            x = take_step(SOLVERS[solver], exact, x, t, s, carry)
        at = torch.tensor(grid[-1], dtype=torch.float64)
        truth = law.alpha(at) ** 2 * SPECTRUM + law.sigma(at) ** 2
        errors.append(float(((path.basis.to_modes(x) ** 2).sum((0, 1)) - truth).abs().max()))
    assert math.log2(errors[-2] / errors[-1]) > SOLVERS[solver].order - 0.25, errors


def _unit(n: int, row: int) -> Tensor:
    out = torch.zeros(n, 1, *SIDE, dtype=torch.float64)
    out[row] = 1
    return out


def centred(path: ModePath) -> Plain:
    field = model(path)
    return Plain(GaussianModel(field.covariance, SIDE).denoiser(path=path))


def test_modes_that_hang_together_are_sampled_as_well() -> None:
    """A field that the basis does not diagonalise: exp_ab2 comes to what Heun comes to, at its order."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    path = PATHS["coloured"]
    exact = GaussianModel(root @ root.T / 8, SIDE).denoiser(path=path)
    x = noise(4, path)

    def end(solver: str, steps: int) -> Tensor:
        return integrate(exact, x, time_grid(steps, t_min=0.1), solver)

    truth = end("heun", 129)
    errors = [float((end("exp_ab2", steps) - truth).abs().max()) for steps in (9, 17, 33)]
    assert errors[-1] < 0.01
    assert math.log2(errors[0] / errors[1]) > 1.6
    assert math.log2(errors[1] / errors[2]) > 1.6


def test_white_noise_is_sampled_as_on_the_isotropic_path() -> None:
    field = model(PATHS["coloured"])
    for basis in BASES:
        path = ModePath(SIDE, basis)
        for solver in ("ddim", "exp_ab2", "heun", "dpmpp_2m"):
            here, there = (field.denoiser(path=p) for p in (LinearPath(), path))
            x = torch.randn(3, 1, *SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            grid = time_grid(6)
            torch.testing.assert_close(integrate(there, x, grid, solver), integrate(Plain(here), x, grid, solver))


def test_churn_has_no_time_in_common_to_go_back_to() -> None:
    exact = model(PATHS["coloured"]).denoiser(path=PATHS["coloured"]).float()
    with pytest.raises(PhasewiseError, match="going back in time"):
        sample(exact, 2, solver="heun_churn", steps=4)
    whole = sample(exact, 6, seed=3, steps=5, solver="ancestral", batch=6)
    assert (sample(exact, 6, seed=3, steps=5, solver="ancestral", batch=2) - whole).abs().max() < 1e-5
