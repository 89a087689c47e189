"""The transformer: exact windows over the same weights, exact receptive fields, sizes, files, training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from phasewise.denoisers import DiTDenoiser, load_denoiser, save_denoiser
from phasewise.denoisers.transformer import DIT_SIZES, POSITIONS, rotated, rotations
from phasewise.errors import PhasewiseError
from phasewise.metrics import count_flops
from phasewise.training import get_preset, train

SHAPE = (1, 8, 8)


def awake(network: DiTDenoiser) -> DiTDenoiser:
    """With weights that say something: gates and head begin at 0."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape))
    return network.eval()


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize(("patch", "window"), [(1, 1), (2, 0), (2, 1), (4, 1)])
def test_the_receptive_field_is_exact(positions: str, patch: int, window: int) -> None:
    side = max(12, 6 * patch)
    shape = (1, side, side)
    whole = awake(DiTDenoiser(shape, width=8, depth=2, heads=1, patch=patch, positions=positions))
    local = whole.windowed(window)
    assert whole.radius is None
    assert local.radius == 2 * window * patch + patch - 1
    x = torch.randn(1, *shape, requires_grad=True)
    (grad,) = torch.autograd.grad(local(x, 0.5)[0, 0, 6, 6], x)
    (full,) = torch.autograd.grad(whole(x, 0.5)[0, 0, 6, 6], x)
    place = torch.arange(side)
    distance = torch.maximum((place - 6).abs()[:, None], (place - 6).abs()[None])
    assert distance.max() > local.radius
    assert (grad[0, 0][distance > local.radius] == 0).all()
    assert grad[0, 0][distance <= local.radius].abs().max() > 0
    assert (full[0, 0] != 0).all()


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_a_fresh_one_answers_by_its_moments_alone(patch: int) -> None:
    """The head begins at zero: whatever the blocks' weights are, they say nothing yet."""
    answers = []
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = DiTDenoiser(SHAPE, width=8, depth=2, heads=1, patch=patch)
        answers += [network(x, 0.5), awake(network)(x, 0.5)]
    assert torch.equal(answers[0], answers[2])
    assert not torch.allclose(answers[1], answers[0], atol=1e-3)


def test_windows_share_the_weights_and_the_widest_is_none() -> None:
    whole = awake(DiTDenoiser(SHAPE, width=8, depth=1, heads=1, patch=1))
    x = torch.randn(3, *SHAPE)
    assert whole.windowed(7).window is None
    assert torch.equal(whole.windowed(7)(x, 0.4), whole(x, 0.4))
    local = whole.windowed(2)
    before = local(x, 0.4)
    with torch.no_grad():
        whole.stem.weight.mul_(2)
    assert not torch.equal(local(x, 0.4), before)
    assert whole.window is None


def test_rotated_products_depend_on_the_distance_alone() -> None:
    turn = rotations((6, 6), 8, torch.device("cpu"))
    q, k = (torch.randn(8).expand(36, 8) for _ in range(2))
    products = rotated(q, turn) @ rotated(k, turn).T
    table = products.reshape(6, 6, 6, 6)
    assert torch.allclose(table[1, 1, 2, 4], table[3, 0, 4, 3], atol=1e-5)
    assert not torch.allclose(table[1, 1, 2, 4], table[1, 1, 4, 2], atol=1e-3)


def test_smaller_windows_cost_less_and_sizes_rise() -> None:
    shape = (1, 28, 28)
    cost = {size: count_flops(DiTDenoiser.of_size(shape, size), shape) for size in DIT_SIZES}
    assert list(cost.values()) == sorted(cost.values())
    for side, share in ((32, 0.8), (64, 0.45)):  # attention to all tokens grows with the square of their number
        shape = (1, side, side)
        small = DiTDenoiser.of_size(shape, "small")
        costs = [count_flops(small.windowed(w), shape) for w in (1, 2, 4, None)]
        assert costs == sorted(costs)
        assert costs[0] < share * costs[-1]


@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 18, 20)])
def test_any_image_size_goes_through_and_comes_back_from_disk(shape: tuple[int, int, int], tmp_path: Path) -> None:
    network = awake(DiTDenoiser(shape, width=16, depth=1, heads=2, window=1, classes=3))
    save_denoiser(network, tmp_path)
    again = load_denoiser(tmp_path)
    x, labels = torch.randn(2, *shape), torch.tensor([0, 2])
    assert isinstance(again, DiTDenoiser)
    assert again.window == 1
    assert torch.equal(again(x, 0.3, labels), network(x, 0.3, labels))
    assert not torch.equal(again(x, 0.3, labels.flip(0)), network(x, 0.3, labels))


def test_it_learns() -> None:
    data = torch.randn(200, 1, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, *SHAPE).contiguous()
    torch.manual_seed(0)
    network = DiTDenoiser(SHAPE, width=16, depth=1, heads=1)
    record = train(network, data, replace(get_preset("default"), lr=5e-3, ema=0.9), steps=150, batch=32, progress=False)
    assert record.val_loss < 0.6


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"width": 12, "heads": 2}, "4 \\* heads divides"),
        ({"positions": "none"}, "kind of positions"),
        ({"window": -1}, "window of attention"),
        ({"window": 1.5}, "window must be a whole number"),
    ],
)
def test_what_does_not_fit_is_refused(choices: dict[str, object], words: str) -> None:
    with pytest.raises(PhasewiseError, match=words):
        DiTDenoiser(SHAPE, **choices)


def test_an_unknown_size_is_named() -> None:
    with pytest.raises(PhasewiseError, match="coarse, small, medium, large"):
        DiTDenoiser.of_size(SHAPE, "huge")
