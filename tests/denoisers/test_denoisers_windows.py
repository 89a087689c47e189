"""Windows of attention: every kernel is masked attention; flex is taken where it can run, its table made once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention

from phasewise.denoisers import DiTDenoiser, for_inference, windows
from phasewise.denoisers.transformer import POSITIONS
from phasewise.denoisers.windows import KERNELS, fused_attention, takes_flex, window_attention
from phasewise.errors import PhasewiseError, PhasewiseWarning
from phasewise.flops import as_written
from phasewise.metrics import count_flops
from phasewise.sampling import for_sampling, sample

SHAPE = (1, 12, 10)
Grid = tuple[int, int]
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(scope="module", autouse=True)
def reference() -> Iterator[None]:
    """In place of the kernel ``flex_attention`` uncompiled, which is PyTorch's own reference."""
    with pytest.MonkeyPatch.context() as patch, torch._dynamo.config.patch(recompile_limit=64):
        if not torch.cuda.is_available():
            patch.setattr(windows, "_compiled", lambda: flex_attention)
        yield


def masked(q: Tensor, k: Tensor, v: Tensor, grid: Grid, window: int) -> Tensor:
    """Softmax over the tokens within ``window``, by a mask over all pairs."""
    spots = torch.stack(torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij"), -1).flatten(0, 1)
    near = (spots[:, None] - spots[None]).abs().amax(-1) <= window
    scores = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).masked_fill(~near.to(q.device), -torch.inf)
    return scores.softmax(-1) @ v


def drawn(grid: Grid, heads: int = 2, dim: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, heads, grid[0] * grid[1], dim, generator=generator)


def awake(positions: str = "both", **choices: Any) -> DiTDenoiser:
    """With weights that say something: gates and head begin at 0."""
    torch.manual_seed(0)
    network = DiTDenoiser(SHAPE, **{"width": 16, "depth": 2, "heads": 2, "patch": 1, **choices}, positions=positions)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape))
    return network.eval()


grids = st.tuples(st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=30, deadline=None)
@given(grids, st.integers(0, 6), st.integers(1, 3), st.sampled_from(("tiles", "dense", "auto")), st.integers(0, 2**31))
def test_windows_are_masked_attention(grid: Grid, window: int, heads: int, kernel: str, seed: int) -> None:
    q, k, v = drawn(grid, heads, seed=seed)
    got = window_attention(q, k, v, grid, window, kernel)
    torch.testing.assert_close(got, masked(q, k, v, grid, window), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("gathered", [1, 2 * 25 * 6**2 * 2 * 4])
def test_tiles_are_gathered_a_few_images_at_a_time(gathered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image and two, of five: on a CPU the memory of all of them at once would take longer than the products."""
    monkeypatch.setattr(windows, "GATHERED", gathered)
    grid, calls = (20, 17), []
    tiled = windows._tiled
    monkeypatch.setattr(windows, "_tiled", lambda q, *rest: calls.append(len(q)) or tiled(q, *rest))
    q, k, v = torch.randn(3, 5, 2, 20 * 17, 4, generator=torch.Generator().manual_seed(0))
    got = window_attention(q, k, v, grid, 1, "tiles")
    torch.testing.assert_close(got, masked(q, k, v, grid, 1), atol=2e-6, rtol=1e-5)
    assert sum(calls) == 5
    assert max(calls) == (1 if gathered == 1 else 2)


@settings(max_examples=10, deadline=None)
@given(grids, st.integers(0, 6), st.integers(0, 2**31))
def test_so_are_the_blocks_of_flex_attention(grid: Grid, window: int, seed: int) -> None:
    q, k, v = drawn(grid, seed=seed)
    assert takes_flex(q, k, v, "flex")
    got = window_attention(q, k, v, grid, window, "flex")
    torch.testing.assert_close(got, masked(q, k, v, grid, window), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("grid", "window", "heads", "dim"), [((16, 16), 2, 3, 32), ((3, 67), 1, 1, 6)])
def test_flex_takes_any_heads_and_skips_the_blocks_that_no_window_reaches(
    grid: Grid, window: int, heads: int, dim: int
) -> None:
    q, k, v = drawn(grid, heads, dim)
    got = window_attention(q, k, v, grid, window, "flex")
    torch.testing.assert_close(got, masked(q, k, v, grid, window), atol=2e-6, rtol=1e-5)
    blocks = windows.block_mask(grid, window, q.device)
    size, near = windows.BLOCKS["cpu"], windows.near(grid, window, q.device)
    padded = F.pad(near, (0, -len(near) % size) * 2).unflatten(0, (-1, size)).unflatten(2, (-1, size))
    assert torch.equal(blocks.to_dense()[0, 0].bool(), padded.any(3).any(1))


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_has_the_gradient_of_masked_attention(kernel: str) -> None:
    grid = (9, 8)
    leaves = [x.requires_grad_() for x in drawn(grid)]
    weights = torch.randn(2, 2, 72, 4, generator=torch.Generator().manual_seed(1))
    got = torch.autograd.grad((window_attention(*leaves, grid, 2, kernel) * weights).sum(), leaves)
    exact = torch.autograd.grad((masked(*leaves, grid, 2) * weights).sum(), leaves)
    for one, other in zip(got, exact, strict=True):
        torch.testing.assert_close(one, other, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_network_answers_alike_by_every_kernel(positions: str) -> None:
    whole, x, labels = awake(positions, classes=3), torch.randn(2, *SHAPE), torch.tensor([0, 2])
    with torch.inference_mode():
        by = {kernel: whole.windowed(2, attention=kernel)(x, 0.5, labels) for kernel in KERNELS}
        assert torch.equal(by["auto"], by["tiles"])
        for kernel in ("flex", "dense"):
            torch.testing.assert_close(by[kernel], by["tiles"], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(whole(x, 0.5, labels), by["tiles"], atol=1e-2)


def test_flex_is_taken_where_it_is_asked_for_and_can_run() -> None:
    q, k, v = drawn((16, 16), dim=16)
    assert [kernel for kernel in KERNELS if takes_flex(q, k, v, kernel)] == ["flex"]
    with as_written():
        assert not takes_flex(q, k, v, "flex")
    assert not takes_flex(q.requires_grad_(), k, v, "flex")
    with FakeTensorMode():

        def takes(
            kernel: str, learning: bool = False, dtype: torch.dtype = torch.bfloat16, n: int = 256, dim: int = 16
        ):
            q, k, v = (torch.empty(1, 2, n, dim, dtype=dtype, device="cuda", requires_grad=learning) for _ in range(3))
            return takes_flex(q, k, v, kernel)

        assert takes("auto")
        assert takes("flex")
        assert takes("auto", dtype=torch.float32)
        assert not takes("tiles")
        assert takes("flex", learning=True)
        assert not takes("auto", learning=True)
        for refused in ({"dtype": torch.float64}, {"n": 127}, {"dim": 12}):
            assert not takes("auto", **refused)
            assert not takes("flex", **refused)


def test_a_compiled_network_takes_flex_and_its_table_is_made_once_outside_the_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Any] = []
    graphs: list[torch.fx.GraphModule] = []
    create = windows.create_block_mask
    monkeypatch.setattr(windows, "create_block_mask", lambda *a, **o: made.append(a) or create(*a, **o))
    monkeypatch.setattr(windows, "_MASKS", {})

    def traced(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f: compile(f, backend=traced, fullgraph=True))  # no compiler
    network = awake().windowed(2, attention="flex")
    fast = for_inference(network, compile=True)
    with torch.inference_mode():
        for batch in (2, 3, 5):
            x = torch.randn(batch, *SHAPE)
            exact = network.windowed(2, attention="dense")(x, 0.5)
            torch.testing.assert_close(fast(x, 0.5), exact, atol=1e-4, rtol=1e-4)
    assert len(made) == 1
    assert 1 <= len(graphs) <= 2  # the first batch, and any other: by one graph where a batch was seen to vary before
    for graph in graphs:
        calls = [node.target for node in graph.graph.nodes if node.op == "call_function"]
        assert calls.count(torch.ops.higher_order.flex_attention) == network.depth


def test_an_exported_network_and_a_counted_one_have_tiles() -> None:
    network = awake().windowed(1, attention="flex")
    x, log_snr = torch.randn(2, *SHAPE), torch.zeros(2)

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, h: Tensor, log_snr: Tensor) -> Tensor:
            return self.network.backbone(h, log_snr)

    graph = torch.export.export(Backbone(), (x, log_snr), strict=False).graph
    assert not any("flex" in str(node.target) for node in graph.nodes)
    assert count_flops(network, SHAPE) == count_flops(network.windowed(1), SHAPE)


def test_a_kernel_that_does_not_run_gives_way_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = drawn((8, 8))
    blocks = windows.block_mask((8, 8), 1, q.device)
    monkeypatch.setattr(windows, "_REFUSED", set())

    def refuse(words: str) -> None:
        def kernel(*_: Any, **__: Any) -> Tensor:
            raise RuntimeError(words)

        monkeypatch.setattr(windows, "_compiled", lambda: kernel)

    refuse("CUDA out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        fused_attention(q, k, v, blocks)
    refuse("no working triton\nat line 3")
    with pytest.warns(PhasewiseWarning, match=r"does not run here \(no working triton\); windows"):
        assert fused_attention(q, k, v, blocks) is None
    monkeypatch.setattr(windows, "_compiled", lambda: pytest.fail("asked again"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fused_attention(q, k, v, blocks) is None


def test_an_unknown_kernel_is_named() -> None:
    with pytest.raises(PhasewiseError, match=r"unknown kernel of attention 'flexx'; known: auto, tiles, flex, dense"):
        awake().windowed(1, attention="flexx")


# --- on a GPU -------------------------------------------------------------------------------------------------------


@pytest.fixture
def full_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in float32, not in TF32."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@gpu
@pytest.mark.usefixtures("full_products")
@pytest.mark.parametrize(("grid", "window", "heads", "dim"), [((16, 16), 2, 3, 32), ((17, 23), 4, 2, 24)])
def test_on_a_gpu_flex_is_masked_attention_with_its_gradient(grid: Grid, window: int, heads: int, dim: int) -> None:
    leaves = [x.cuda().requires_grad_() for x in drawn(grid, heads, dim)]
    assert takes_flex(*leaves, "flex")
    got, exact = window_attention(*leaves, grid, window, "flex"), masked(*leaves, grid, window)
    torch.testing.assert_close(got, exact, atol=1e-4, rtol=1e-3)
    weights = torch.randn_like(exact)
    for one, other in zip(
        torch.autograd.grad((got * weights).sum(), leaves),
        torch.autograd.grad((exact * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    with torch.inference_mode():
        low = window_attention(*(x.bfloat16() for x in leaves), grid, window)
        torch.testing.assert_close(low.float(), exact.detach(), atol=3e-2, rtol=3e-2)


@gpu
@pytest.mark.usefixtures("full_products")
def test_on_a_gpu_networks_compiled_and_captured_take_flex() -> None:
    whole = awake(width=32, depth=1, heads=2, patch=1)  # 120 tokens: too few
    network = DiTDenoiser((1, 16, 16), width=32, depth=1, heads=2, patch=1, window=2).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    assert sample(whole.windowed(2).cuda(), 2, steps=2).isfinite().all()
    on_gpu = network.cuda()
    exact = sample(on_gpu.windowed(2, attention="dense"), 3, steps=2)
    for ready in (
        lambda: sample(on_gpu, 3, steps=2),
        lambda: sample(for_inference(on_gpu, compile=True), 3, steps=2),
        lambda: for_sampling(on_gpu, batch=3, steps=2)(3),
    ):
        torch.testing.assert_close(ready(), exact, atol=2e-3, rtol=2e-3)
