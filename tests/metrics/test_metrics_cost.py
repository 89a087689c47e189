from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from phasewise.errors import PhasewiseError
from phasewise.metrics import cost, count_flops, measure_ms

SHAPE = (3, 8, 10)


class Convolution(nn.Module):
    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 5, padding=2, groups=groups)

    def forward(self, x_t: Tensor, t: float) -> Tensor:
        return self.layer(x_t) + t


class Tokens(nn.Module):
    """A layer over the 80 pixels as tokens of width 16."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.lift, self.layer, self.lower = nn.Linear(3, 16), layer, nn.Linear(16, 3)

    def forward(self, x_t: Tensor, t: float) -> Tensor:
        h = self.lift(x_t.flatten(2).transpose(1, 2))
        h = self.layer(h, h, h)[0] if isinstance(self.layer, nn.MultiheadAttention) else self.layer(h)
        return self.lower(h).transpose(1, 2).reshape(x_t.shape)


class TimeEmbedding(nn.Module):
    """Embeds the one time of a call, whatever the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(32, 3)

    def forward(self, x_t: Tensor, t: float) -> Tensor:
        return x_t * self.embed(torch.full((1, 32), t))[..., None, None]


PIXELS = 8 * 10
ENDS = 2 * PIXELS * 2 * 3 * 16
PROJECTIONS = 2 * PIXELS * 16 * (3 * 16 + 16)
ATTENTION = 2 * 2 * PIXELS * PIXELS * 16


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_convolution_matches_the_hand_count_at_any_batch(batch: int) -> None:
    assert count_flops(Convolution(), SHAPE, batch) == 2 * PIXELS * 3 * 3 * 25


def test_grouped_convolution_counts_only_what_it_multiplies() -> None:
    assert count_flops(Convolution(groups=3), SHAPE) == 2 * PIXELS * 3 * 25


@pytest.mark.parametrize("batch", [1, 3])
def test_attention_is_seen_on_the_cpu(batch: int) -> None:
    attention = Tokens(nn.MultiheadAttention(16, 4, batch_first=True))
    assert count_flops(attention, SHAPE, batch) == ENDS + PROJECTIONS + ATTENTION


def test_encoder_layer_is_not_hidden_by_its_fused_path() -> None:
    layer = Tokens(nn.TransformerEncoderLayer(16, 4, dim_feedforward=40, batch_first=True))
    feed_forward = 2 * PIXELS * 2 * 16 * 40
    assert count_flops(layer, SHAPE) == ENDS + PROJECTIONS + ATTENTION + feed_forward
    assert torch.backends.mha.get_fastpath_enabled()


def test_work_done_once_a_call_is_shared_among_its_images() -> None:
    assert count_flops(TimeEmbedding(), SHAPE, 1) == 2 * 32 * 3
    assert count_flops(TimeEmbedding(), SHAPE, 4) == 2 * 32 * 3 // 4


def test_modes_gradients_and_random_state_are_left_alone() -> None:
    net = Tokens(nn.Dropout(0.5)).train()
    net.lift.eval()
    state = torch.get_rng_state()
    count_flops(net, SHAPE)
    measure_ms({"net": net}, SHAPE, batch=2, repeats=1)
    assert torch.equal(state, torch.get_rng_state())
    assert (net.training, net.layer.training, net.lift.training) == (True, True, False)
    assert torch.is_grad_enabled()


class Clock:
    """A machine whose speed drifts, and its clock."""

    def __init__(self, drift: float) -> None:
        self.now, self.slowness, self.drift, self.order = 0.0, 1.0, drift, ""

    def denoiser(self, name: str, seconds: float) -> Callable[[Tensor, float], Tensor]:
        def call(x_t: Tensor, t: float) -> Tensor:
            self.now += seconds * self.slowness
            self.slowness *= self.drift
            self.order += name
            return x_t

        return call


def test_ratios_hold_while_the_machine_slows_down(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(drift=1.05)
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock.now)
    got = measure_ms({"a": clock.denoiser("a", 0.01), "b": clock.denoiser("b", 0.03)}, SHAPE, batch=4, repeats=9)
    assert got["b"][0] / got["a"][0] == pytest.approx(3 * 1.05, rel=1e-9)
    assert clock.order.endswith("ab" * 9)


def test_units_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(drift=1.0)
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock.now)
    got = measure_ms(
        {"a": clock.denoiser("a", 0.02), "short": clock.denoiser("s", 1 / 512)}, SHAPE, batch=10, repeats=3
    )
    assert got["a"] == pytest.approx((2.0, 0.0))
    assert got["short"] == pytest.approx((1e2 / 512, 0.0))
    assert clock.order == "as" + "as" + "asss" * 3  # warm-up, calibration, rounds of at least 5 ms


def test_a_real_network_takes_time_in_proportion_to_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """By this process's own processor time, which neighbours on the machine hardly touch."""
    monkeypatch.setattr(cost.time, "perf_counter", cost.time.process_time)
    light = Convolution()

    def heavy(x_t: Tensor, t: float) -> Tensor:
        return [light(x_t, t) for _ in range(8)][-1]

    got = measure_ms({"light": light, "heavy": heavy}, (3, 32, 32), batch=8, repeats=9)
    assert 3 < got["heavy"][0] / got["light"][0] < 20
    assert got["light"][0] > 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(PhasewiseError, match="image_shape"):
        count_flops(Convolution(), (8, 8), 1)  # type: ignore[arg-type]
    with pytest.raises(PhasewiseError, match="batch"):
        count_flops(Convolution(), SHAPE, 0)
    with pytest.raises(PhasewiseError, match="give at least one"):
        measure_ms({}, SHAPE)
