"""Solvers are held to their order of convergence against the closed-form flow of Gaussian data."""

import math

import pytest
import torch
from plain_denoiser import Plain

from phasewise.denoisers import HybridDenoiser, OnPath, WienerDenoiser
from phasewise.errors import PhasewiseError
from phasewise.paths import CosinePath, LinearPath, VarianceExplodingPath
from phasewise.results import HybridSchedule
from phasewise.sampling import SOLVERS, Carry, Solver, integrate, register_solver, sample, take_step, time_grid

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


def noise(n, path, seed=2):
    x = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x * float(path.sigma(torch.tensor(1.0)))


def run(denoiser, x, grid, solver):
    """Down the grid, without the last denoise."""
    carry = Carry()
    for t, s in zip(grid, grid[1:], strict=False):
        x = take_step(SOLVERS[solver], denoiser.member_at(t), x, t, s, carry)
    return x


ODE = [name for name, solver in SOLVERS.items() if not solver.stochastic]


@pytest.mark.parametrize("solver", ODE)
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_order_of_convergence(path, solver):
    exact, t_min, order = gaussian(path), 0.1, SOLVERS[solver].order
    start, spacing = (0.97, "log_snr") if solver == "dpmpp_2m" else (1.0, "uniform")
    x = noise(32, path)
    truth = exact_flow(exact, x, start, t_min)
    grids = [time_grid(steps + 1, path=path, t_start=start, t_min=t_min, spacing=spacing) for steps in (64, 128, 256)]
    errors = [float((run(Plain(exact), x, grid, solver) - truth).norm() / truth.norm()) for grid in grids]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([order, order], abs=0.12)
    assert errors[-1] < (2e-2 if order == 1 else 5e-4)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_ddim_is_exact_where_the_posterior_mean_stands_still(path):
    """Data that are one image: D is it at every time, so a single step of any length is the flow itself."""
    image = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(6), dtype=torch.float64)

    class Still(Plain):
        def forward(self, x_t, t, cond=None):
            return image.expand_as(x_t)

    x, still = noise(4, path), Still(gaussian(path))
    ends = [torch.tensor(t, dtype=torch.float64) for t in (1.0, 0.1)]
    (a_t, s_t), (a_s, s_s) = ((path.alpha(t), path.sigma(t)) for t in ends)
    truth = a_s * image + s_s * (x - a_t * image) / s_t
    torch.testing.assert_close(run(still, x, (1.0, 0.1), "ddim"), truth)


def test_ddim_is_euler_on_the_linear_path_and_only_there():
    for path in PATHS:
        exact, x = Plain(gaussian(path)), noise(8, path)
        grid = time_grid(7, path=path, t_min=0.1)
        ddim, euler = (run(exact, x, grid, solver) for solver in ("ddim", "euler"))
        far = float((ddim - euler).abs().max())
        assert far < 1e-12 if path == LinearPath() else far > 1e-3


def test_every_solver_says_in_a_line_what_it_is():
    for name, solver in SOLVERS.items():
        assert "\n" not in solver.about
        assert 20 < len(solver.about) < 120, name
    ours = [name for name, solver in SOLVERS.items() if solver.about.startswith("ours: ")]
    assert ours == ["exp_ab2"]
    for name in {*SOLVERS} - {"euler", *ours}:
        assert "et al. 20" in SOLVERS[name].about, name


def test_a_solver_of_ones_own_is_taken_by_name(monkeypatch):
    monkeypatch.setattr(SOLVERS, "_entries", dict(SOLVERS.items()))
    calls = []

    def step(denoiser, x, t, s, carry):
        calls.append((t, s))
        return SOLVERS["ddim"].step(denoiser, x, t, s, carry)

    exact = Plain(gaussian(LinearPath())).float()
    with pytest.raises(PhasewiseError, match="unknown solver 'mine'; known: euler, heun"):
        sample(exact, n=1, solver="mine")
    register_solver("mine", Solver(step, 1, 1, "a step that is watched"))
    again = sample(exact, n=2, seed=1, solver="mine", times=(1.0, 0.5, 0.2))
    assert torch.equal(again, sample(exact, n=2, seed=1, solver="ddim", times=(1.0, 0.5, 0.2)))
    assert calls == [(1.0, 0.5), (0.5, 0.2)]
    schedule = HybridSchedule((1.0, 0.5, 0.2), ("a",) * 3, "mine")
    assert torch.equal(again, sample(HybridDenoiser({"a": exact}, schedule), n=2, seed=1))
    with pytest.raises(PhasewiseError, match="there is a solver named 'heun' already"):
        register_solver("heun", Solver(step, 1, 1, "another"))


def variance_after(solver, exact, steps, t_min):
    """Variance of every eigen-coordinate at ``t_min``, exactly: an exact Gaussian denoiser makes a step linear in the
    start and in every draw, so each is sent through alone, as a row of one batch, and the squares are added."""
    path, size = exact.path, len(exact.eigenvalues)
    rows = torch.zeros(steps + 1, steps + 1, size, dtype=torch.float64)
    rows.diagonal()[:] = 1
    rows[0] *= path.sigma(torch.tensor(1.0, dtype=torch.float64))
    start, *draws = (rows @ exact.eigenvectors.T).view(steps + 1, steps + 1, *SHAPE).unbind()
    carry, x = Carry(noise=iter(draws).__next__), start
    grid = time_grid(steps + 1, path=path, t_min=t_min)
    for t, s in zip(grid, grid[1:], strict=False):
        x = take_step(SOLVERS[solver], Plain(exact), x, t, s, carry)
    return (x.flatten(1) @ exact.eigenvectors).square().sum(0)


@pytest.mark.parametrize("solver", ["ancestral", "sde_dpmpp_2m"])
@pytest.mark.parametrize("path", [LinearPath(), CosinePath()], ids=lambda p: p.name)
def test_order_of_the_variance_of_the_reverse_sde(path, solver):
    exact, end = gaussian(path), torch.tensor(0.1, dtype=torch.float64)
    exact.mean.zero_()
    truth = path.alpha(end) ** 2 * exact.eigenvalues + path.sigma(end) ** 2
    errors = [float((variance_after(solver, exact, n, 0.1) / truth - 1).abs().max()) for n in (32, 64, 128)]
    slopes = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert slopes == pytest.approx([SOLVERS[solver].order] * 2, abs=0.12)
    assert errors[-1] < (5e-2 if solver == "ancestral" else 2e-3)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_multistep_keeps_its_order_where_equal_denoisers_take_turns(path):
    exact, t_min = gaussian(path), 0.1
    x = noise(16, path)
    truth = exact_flow(exact, x, 1.0, t_min)
    errors = []
    for steps in (64, 128, 256):
        grid = time_grid(steps + 1, path=path, t_min=t_min)
        assignment = tuple("ab"[k // 5 % 2] for k in range(len(grid)))
        schedule = HybridSchedule(times=grid, assignment=assignment, solver="exp_ab2", path=path.config())
        hybrid = HybridDenoiser({"a": Plain(exact), "b": Plain(exact)}, schedule)
        errors.append(float((run(hybrid, x, grid, "exp_ab2") - truth).norm() / truth.norm()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.12)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.12)


def test_a_known_flow_is_one_exact_jump_on_any_path():
    exact = gaussian(LinearPath())
    x = noise(8, exact.path)
    for solver in ("euler", "heun"):
        torch.testing.assert_close(
            take_step(SOLVERS[solver], exact, x, 1.0, 0.3, Carry()), exact_flow(exact, x, 1.0, 0.3)
        )
    for path in PATHS[1:]:
        there = gaussian(path)
        on_path = OnPath(exact, path)
        y = noise(8, path, seed=4) * 0.5
        torch.testing.assert_close(on_path.jump(y, 0.8, 0.3), exact_flow(there, y, 0.8, 0.3), rtol=1e-6, atol=1e-6)
    assert WienerDenoiser(SHAPE, radius=1).jump(x, 0.5, 0.2) is None


def test_a_multistep_solver_keeps_its_history_through_a_denoiser_that_knows_its_flow():
    exact = gaussian(LinearPath())
    x, grid = noise(8, exact.path), time_grid(9, t_min=0.1)
    torch.testing.assert_close(run(exact, x, grid, "exp_ab2"), run(Plain(exact), x, grid, "exp_ab2"))


@pytest.mark.parametrize("solver", [name for name, found in SOLVERS.items() if found.stochastic])
@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.name)
def test_stochastic_solvers_keep_the_distribution(path, solver):
    """Gaussian data in, Gaussian data out: mean and every eigenvalue, within what 4,000 samples and 80 steps allow."""
    exact = gaussian(path)
    grid = time_grid(80, path=path, t_min=0.02, spacing="log_snr")
    draws = torch.Generator().manual_seed(5)
    x = noise(4000, path)
    fresh = lambda: torch.randn(x.shape, generator=draws, dtype=x.dtype)  # noqa: E731
    out = integrate(Plain(exact), x, grid, solver, noise=fresh)
    coordinates = (out.flatten(1) - exact.mean) @ exact.eigenvectors
    assert coordinates.mean(0).abs().max() < 5 * math.sqrt(2.0 / 4000) + 0.02
    ratio = coordinates.var(0) / exact.eigenvalues
    assert ((ratio - 1).abs() < 5 * math.sqrt(2 / 4000) + 0.1).all(), ratio


def test_stochastic_noise_is_each_samples_own():
    exact = Plain(gaussian(LinearPath())).float()
    whole = sample(exact, n=6, seed=3, steps=5, solver="ancestral", batch=6)
    assert torch.equal(whole, sample(exact, n=6, seed=3, steps=5, solver="ancestral", batch=6))
    assert (sample(exact, n=6, seed=3, steps=5, solver="ancestral", batch=2) - whole).abs().max() < 1e-5
    assert (sample(exact, n=6, seed=4, steps=5, solver="ancestral") - whole).abs().max() > 0.1
    with pytest.raises(PhasewiseError, match="needs a source of noise"):
        integrate(exact, torch.zeros(1, *SHAPE), (0.5, 0.2), "ancestral")


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
