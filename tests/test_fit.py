"""The fit loop against one written out by hand, and the rates against torch's own and their ends."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.fit import Snapshot, cosine_decay, linear_decay, minimise, one_cycle, warm_up

PEAK = 5e-3


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6, 19, 20, 101])
def test_one_cycle_has_the_numbers_of_torch_to_the_bit(steps: int) -> None:
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=PEAK)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK, total_steps=steps, pct_start=0.2)
    for step in range(steps):
        group = optimiser.param_groups[0]
        assert one_cycle(PEAK, step, steps) == {"lr": group["lr"], "betas": group["betas"]}
        if step + 1 < steps:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # no step of the optimiser lies between: only the rate is asked for
                theirs.step()


def test_one_cycle_stands_where_the_rise_is_one_step() -> None:
    """torch divides by zero here."""
    rates = [one_cycle(PEAK, step, 5)["lr"] for step in range(5)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == PEAK


def test_rates_begin_and_end_where_they_say() -> None:
    assert [warm_up(1.0, step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert (linear_decay(3.0, 0, 10), linear_decay(3.0, 10, 10)) == (3, 0)
    assert cosine_decay(2.0, 0, 10) == 2
    assert cosine_decay(2.0, 5, 10) == pytest.approx(1)
    assert cosine_decay(2.0, 10, 10, floor=0.25) == pytest.approx(0.5)


def task(seed: int) -> tuple[nn.Linear, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(seed)
    net = nn.Linear(4, 1)
    return net, [(x, x.sum(1, keepdim=True)) for x in torch.randn(12, 8, 4)]


def test_the_loop_is_the_one_written_out() -> None:
    net, batches = task(0)
    twin, _ = task(0)
    optimiser = torch.optim.AdamW(twin.parameters(), lr=PEAK, betas=(0.8, 0.9), weight_decay=0.1)
    losses = []
    for step, (x, y) in enumerate(batches):
        optimiser.param_groups[0]["lr"] = PEAK / (step + 1)
        loss = (twin(x) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        optimiser.step()
        losses.append((step, float(loss.detach())))
    told, drawn = [], iter(batches)

    def loss_of() -> Tensor:
        assert net.training
        x, y = next(drawn)
        return (net(x) - y).square().mean()

    minimise(
        net, loss_of, 12, lambda step: {"lr": PEAK / (step + 1)}, weight_decay=0.1, betas=(0.8, 0.9), clip=0.5,
        done=lambda step, loss: told.append((step, float(loss))),
    )  # fmt: skip
    assert told == losses
    assert not net.training
    torch.testing.assert_close(net.state_dict(), twin.state_dict(), rtol=0, atol=0)


def test_a_loss_that_is_not_finite_stops_before_its_step() -> None:
    net, _ = task(0)
    values = iter([1.0, math.nan])
    seen = []

    def loss_of() -> Tensor:
        seen.append(net.weight.detach().clone())
        return net.weight.square().sum() * next(values)

    with pytest.raises(PhasewiseError, match="step 1 gave nan; lower lr"):
        minimise(
            net, loss_of, 9, lambda _: {"lr": PEAK}, failed=lambda step, v: f"step {step} gave {v}; lower lr"
        )  # fmt: skip
    assert torch.equal(net.weight, seen[-1])
    assert not torch.equal(seen[0], seen[1])


class Cut(Exception):
    """The power went."""


def fitted(file: Path | None, cut: int | None = None, steps: int = 12) -> nn.Module:
    """A fit that draws from a stream of its own, from the global one, and remembers its last loss."""
    rng = torch.Generator().manual_seed(3)
    memory = {"last": torch.zeros(())}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.BatchNorm1d(4), nn.Linear(4, 1))

        def loss_of() -> Tensor:
            loss = net(torch.randn(8, 3, generator=rng)).square().mean() * (1 + 0.1 * memory["last"])
            memory["last"] = loss.detach()
            return loss

        def done(step: int, _: Tensor) -> None:
            if step == cut:
                raise Cut

        snapshot = None if file is None else Snapshot(file, (rng,), lambda: memory, memory.update, every=0.0)
        minimise(net, loss_of, steps, lambda step: {"lr": PEAK / (step + 1)}, done=done, snapshot=snapshot)
    return net


@pytest.mark.parametrize("cut", [0, 5, 11])
def test_a_fit_that_was_cut_off_goes_on_to_the_same_bits(tmp_path: Path, cut: int) -> None:
    whole, file = fitted(None), tmp_path / "deep" / "fit.safetensors"
    with pytest.raises(Cut):
        fitted(file, cut)
    found = fitted(file)
    torch.testing.assert_close(found.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert not found.training
    again = fitted(file, cut=0)  # nothing is left to do
    torch.testing.assert_close(again.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_a_snapshot_of_another_fit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "fit.safetensors"
    fitted(file)
    with pytest.raises(CheckpointError, match="is of another fit, of steps 12, not 5; delete it"):
        fitted(file, steps=5)
    net, _ = task(0)
    with pytest.raises(CheckpointError, match=r"fit.safetensors is not for this Linear.*delete it"):
        minimise(net, lambda: net.weight.sum(), 12, lambda _: {"lr": PEAK}, snapshot=Snapshot(file))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="delete it to begin that fit anew"):
        fitted(file)
