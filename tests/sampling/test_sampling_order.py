"""Solvers are held to their order of convergence against the closed-form flow of Gaussian data."""

import math

import pytest
import torch

from phasewise.denoisers import WienerDenoiser
from phasewise.paths import CosinePath, LinearPath, VarianceExplodingPath
from phasewise.sampling import integrate, time_grid
from phasewise.sampling.solvers import SOLVERS

PATHS = [LinearPath(), CosinePath(), VarianceExplodingPath(0.05, 5.0)]
SHAPE = (1, 2, 3)


def gaussian(path):
    """An exact denoiser for Gaussian data of known eigenvalues and mean, float64."""
    denoiser = WienerDenoiser(SHAPE, path=path).double()
    basis = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    denoiser.eigenvectors.copy_(basis)
    denoiser.eigenvalues.copy_(torch.tensor([2.0, 1.0, 0.5, 0.2, 0.1, 0.05]))
    denoiser.mean.copy_(torch.linspace(-0.5, 1.0, 6))
    return denoiser


def exact_flow(denoiser, x, t, s):
    """The probability-flow ODE moves each eigen-coordinate by the ratio of its standard deviations."""
    path, basis = denoiser.path, denoiser.eigenvectors
    t, s = torch.tensor(t, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)

    def std(u):
        return torch.sqrt(path.alpha(u) ** 2 * denoiser.eigenvalues + path.sigma(u) ** 2)

    centred = (x.flatten(1) - path.alpha(t) * denoiser.mean) @ basis
    return (path.alpha(s) * denoiser.mean + (centred * std(s) / std(t)) @ basis.T).view_as(x)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_order_of_convergence(path, solver, order):
    denoiser = gaussian(path)
    x = torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = x * float(path.sigma(torch.tensor(1.0)))
    t_min = 0.1
    truth = exact_flow(denoiser, x, 1.0, t_min)
    step, _ = SOLVERS[solver]
    errors = []
    for steps in (64, 128, 256):
        grid = time_grid(steps + 1, path=path, t_min=t_min)
        y = x
        for t, s in zip(grid, grid[1:], strict=False):
            y = step(denoiser, y, t, s)
        errors.append(float((y - truth).norm() / truth.norm()))
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([order, order], abs=0.12)
    assert errors[-1] < (2e-2 if order == 1 else 2e-4)


def test_last_step_is_a_denoise():
    denoiser = gaussian(LinearPath())
    x = torch.randn(4, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(integrate(denoiser, x, (0.3,), "heun"), denoiser(x, 0.3))


def test_agrees_with_torchdiffeq():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    from phasewise.sampling import velocity

    denoiser = gaussian(LinearPath())
    x = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    times = torch.tensor([0.9, 0.2], dtype=torch.float64)
    truth = torchdiffeq.odeint(lambda t, y: velocity(denoiser, y, float(t)), x, times, rtol=1e-9, atol=1e-9)[-1]
    torch.testing.assert_close(exact_flow(denoiser, x, 0.9, 0.2), truth, rtol=1e-6, atol=1e-6)
