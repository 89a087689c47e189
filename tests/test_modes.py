"""What measures or draws leaves every module in the mode it was in; half-precision pixels ask the right member."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from phasewise.denoisers import Denoiser, HybridDenoiser
from phasewise.diagnosis import measure_losses
from phasewise.errors import PhasewiseError
from phasewise.modes import evaluating
from phasewise.results import HybridSchedule
from phasewise.sampling import sample, time_grid
from phasewise.sampling.grid import SPACINGS
from phasewise.scheduling.step_errors import measure_growth, measure_step_errors

SHAPE = (1, 4, 4)


class Dropping(Denoiser):
    """Has a dropout that would be seen, and a frozen part that stays in evaluation mode."""

    def __init__(self) -> None:
        super().__init__(SHAPE)
        self.drop, self.frozen = nn.Dropout(0.5), nn.Dropout(0.5).eval()

    def forward(self, x_t: Tensor, t: float | Tensor, cond: Tensor | None = None) -> Tensor:
        return self.frozen(self.drop(torch.tanh(x_t)))


class Constant(Denoiser):
    """Answers one value everywhere, at t = 1 another."""

    def __init__(self, value: float, at_one: float | None = None) -> None:
        super().__init__(SHAPE)
        self.value, self.at_one = value, value if at_one is None else at_one

    def forward(self, x_t: Tensor, t: float | Tensor, cond: Tensor | None = None) -> Tensor:
        return 0 * x_t + (self.at_one if float(torch.as_tensor(t).max()) == 1 else self.value)


MEASURES = {
    "sample": lambda d: sample(d, 2, steps=3),
    "losses": lambda d: measure_losses({"global": d}, torch.zeros(3, *SHAPE), [0.3, 0.7]).loss.tolist(),
    "step_errors": lambda d: measure_step_errors(d, (0.9, 0.5, 0.2), n=2).stop.tolist(),
    "growth": lambda d: [a.tolist() for a in measure_growth({"global": d}, (0.9, 0.5, 0.2), n=2)[:1]],
}


@pytest.mark.parametrize("name", list(MEASURES))
def test_modes_come_back_and_nothing_is_dropped_meanwhile(name: str) -> None:
    denoiser = Dropping()
    first, second = MEASURES[name](denoiser), MEASURES[name](denoiser)
    assert torch.equal(torch.as_tensor(first), torch.as_tensor(second))
    assert (denoiser.training, denoiser.drop.training, denoiser.frozen.training) == (True, True, False)


def test_modes_come_back_after_an_error() -> None:
    network = nn.Sequential(nn.Dropout())
    seen: list[bool] = []

    def fails() -> None:
        with evaluating(network, "no module"):
            seen.append(network[0].training)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert seen == [False]
    assert network.training
    assert network[0].training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_half_precision_pixels_ask_the_member_of_the_time(dtype: torch.dtype) -> None:
    times = time_grid(12)
    members = {str(k): Constant(k / 16) for k in range(12)}
    hybrid = HybridDenoiser(members, HybridSchedule(times, tuple(members)))
    for k, t in enumerate(times):
        x = torch.zeros(2, *SHAPE, dtype=dtype)
        assert torch.all(hybrid(x, t) == k / 16)
        assert torch.all(hybrid(x, torch.tensor([t, t])) == k / 16)


def test_images_that_are_not_finite_are_noticed() -> None:
    with pytest.raises(PhasewiseError, match=r"3 of 3 images.*t = 1"):
        sample(Constant(0.5, float("nan")), 3, steps=4, batch=2)
    assert torch.all(sample(Constant(0.5, float("nan")), 3, steps=4, t_start=0.9) == 0.5)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("steps", "t_start", "t_min"), [(4, 1.0, 0.999), (9, 1.0, 0.995), (5, 0.9991, 0.999), (3, 1.0, 0.9949)]
)
def test_grids_descend_at_the_very_start_too(spacing: str, steps: int, t_start: float, t_min: float) -> None:
    grid = time_grid(steps, t_start=t_start, t_min=t_min, spacing=spacing)
    assert (len(grid), grid[0], grid[-1]) == (steps, t_start, t_min)
    assert all(b < a for a, b in zip(grid, grid[1:], strict=False))
