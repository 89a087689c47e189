from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from phasewise.errors import PhasewiseError
from phasewise.flops import FORMULAS, heavy
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


IMAGE = torch.randn(3, 8, 10, generator=torch.Generator().manual_seed(0))
MATRIX = torch.randn(240, 240, generator=torch.Generator().manual_seed(1))


class Recurrent(nn.Module):
    """A recurrent layer over the 80 pixels of an image."""

    def __init__(self, kind: type[nn.Module], **options: Any) -> None:
        super().__init__()
        self.layer = kind(3, 5, batch_first=True, **options)
        self.lower = nn.Linear(10 if options.get("bidirectional") else 5, 3)

    def forward(self, x_t: Tensor, t: float) -> Tensor:
        return self.lower(self.layer(x_t.flatten(2).transpose(1, 2))[0]).transpose(1, 2).reshape(x_t.shape)


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(10, 10, 10)

    def forward(self, x_t: Tensor, t: float) -> Tensor:
        return self.layer(x_t, x_t)


def gates(number: int) -> int:
    """Of a layer from 3 to 5 numbers over all pixels."""
    return 2 * PIXELS * number * (3 * 5 + 5 * 5)


LOWER = 2 * PIXELS * 5 * 3
SEEN: dict[str, tuple[Any, int]] = {
    "mv": (lambda x, t: MATRIX.mv(x.flatten()).view_as(x), 2 * 240**2),
    "matmul": (lambda x, t: (MATRIX @ x.flatten()).view_as(x), 2 * 240**2),
    "addmv": (lambda x, t: torch.addmv(x.flatten(), MATRIX, x.flatten()).view_as(x), 2 * 240**2),
    "dot": (lambda x, t: x * torch.dot(x.flatten(), IMAGE.flatten()), 2 * 240),
    "addr": (lambda x, t: x + torch.addr(MATRIX, x.flatten(), x.flatten()).mean(), 2 * 240**2),
    "addbmm": (lambda x, t: x + torch.addbmm(torch.zeros(8, 8), x[0], x[0].mT).mean(), 2 * 3 * 8 * 10 * 8),
    "cdist": (lambda x, t: x + torch.cdist(x[0, 0], IMAGE[0], p=1.0).mean(), 3 * 8 * 8 * 10),
    "cdist, many": (lambda x, t: x + torch.cdist(x.view(80, 3), IMAGE.view(80, 3)).mean(), 3 * 80 * 80 * 3),
    "LSTM": (Recurrent(nn.LSTM), gates(4) + LOWER),
    "LSTM both ways": (Recurrent(nn.LSTM, bidirectional=True), 2 * (gates(4) + LOWER)),
    "GRU": (Recurrent(nn.GRU), gates(3) + LOWER),
    "RNN": (Recurrent(nn.RNN), gates(1) + LOWER),
    "Bilinear": (Bilinear(), 3 * 24 * 10**3),
}


@pytest.mark.parametrize(("denoiser", "flops"), SEEN.values(), ids=SEEN)
def test_products_of_every_kind_match_the_hand_count(denoiser: Any, flops: int) -> None:
    assert count_flops(denoiser, SHAPE) == flops


@torch.library.custom_op("tests::secret", mutates_args=())
def secret(x: Tensor) -> Tensor:
    return x + 1


UNSEEN: dict[str, tuple[Any, str]] = {
    "solve": (lambda x, t: torch.linalg.solve(MATRIX, x.flatten()).view_as(x), "aten._linalg_solve_ex"),
    "svd": (lambda x, t: x + torch.linalg.svdvals(x[0, 0]).sum(), "aten._linalg_svd"),
    "sparse": (lambda x, t: torch.sparse.mm(MATRIX.to_sparse(), x.view(240, 1)).view_as(x), "aten._sparse"),
    "custom": (lambda x, t: secret(x), "tests.secret"),
    "numpy": (lambda x, t: torch.from_numpy(np.sin(x.numpy())), "Tensor.numpy"),
    "numpy by name": (lambda x, t: torch.from_numpy(np.asarray(x) * 2), "numpy"),
}


@pytest.mark.parametrize(("denoiser", "name"), UNSEEN.values(), ids=UNSEEN)
def test_what_cannot_be_counted_is_refused_by_name(denoiser: Any, name: str) -> None:
    with pytest.raises(PhasewiseError, match=rf"the FLOPs of {name}.* cannot be counted.*flops_per_image"):
        count_flops(denoiser, SHAPE)


def test_every_product_that_pytorch_has_is_counted_or_refused() -> None:
    """By name: whatever it is called in this version, none is free."""
    counted = {str(op).removeprefix("aten.") for op in (*flop_registry, *FORMULAS)}
    names = {
        str(name).split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names() if "aten::" in name
    }
    products = [n for n in names if re.search(r"mm_?$|mv_?$|dot$|rnn|lstm|gru|matmul|bilinear|solve|cdist|conv", n)]
    free = re.compile(
        r"upsample|backward|_copy|_out$|indices|quantized|slice|convert|thnn_fused|glu|.*_helper|adaptive"
    )
    left = [n for n in products if not (n.strip("_") in counted or n in counted or heavy(n) or free.search(n))]
    composite = [
        n for n in left if torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{n}", "CompositeImplicitAutograd")
    ]
    assert sorted(set(left) - set(composite)) == []


class Outside(nn.Module):
    """Says its own cost, and does something else with what can be seen."""

    flops_per_image = 1000

    def forward(self, x_t: Tensor, t: float) -> Tensor:
        return torch.from_numpy((MATRIX @ x_t.reshape(-1, 240).T).T.numpy()).view_as(x_t)


def test_a_module_that_says_its_cost_is_believed_and_not_looked_into() -> None:
    assert count_flops(Outside(), SHAPE, batch=3) == 1000
    inner = Convolution()
    inner.add_module("outside", Outside())
    inner.forward = lambda x_t, t: inner.outside(inner.layer(x_t), t)  # type: ignore[method-assign]
    assert count_flops(inner, SHAPE) == 1000 + 2 * PIXELS * 3 * 3 * 25


def test_what_a_first_call_sets_up_is_left_out() -> None:
    kept: dict[str, Tensor] = {}

    def filtered(x: Tensor, t: float) -> Tensor:
        if not kept:
            kept["inverse"] = torch.linalg.inv(MATRIX)
        return (kept["inverse"] @ x.flatten()).view_as(x)

    assert count_flops(filtered, SHAPE) == 2 * 240**2


def test_counting_before_the_first_call_leaves_a_network_to_be_compiled() -> None:
    """Without a compiler of the machine: what matters is that the compiler is asked at all."""
    asked: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        asked.append(len(inputs))
        return graph.forward

    net = Convolution().eval().requires_grad_(False)
    compiled = torch.compile(lambda x, t: net.layer(x) + t, backend=backend)
    assert count_flops(compiled, SHAPE) == 2 * PIXELS * 3 * 3 * 25
    assert not asked
    compiled(torch.zeros(1, *SHAPE), 0.5)
    assert len(asked) == 1


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
