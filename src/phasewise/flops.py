r"""Floating-point operations of a call, counted; what cannot be counted is refused by name, never free.

A multiply and an add count as two.  Counted are matrix and vector products, convolutions, attention, recurrent layers
and distances.  Taken as free are biases, norms, activations, softmax, comparisons, interpolation and Fourier
transforms, which in a network are a few per cent.  Attention is only seen in its plain form, so it is counted under
the MATH kernel and without the fused encoder layer; compiled networks are counted as written, for what runs under a
counter would never be compiled again.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from phasewise.errors import PhasewiseError

Denoise = Callable[[Tensor, float], Tensor]
Shape = Sequence[int]

PROBE_TIME = 0.5
HEAVY = {
    "mm", "bmm", "mv", "addmm", "addmv", "addbmm", "baddbmm", "dot", "vdot", "addr", "matmul", "linear", "conv",
    "conv2d", "conv3d", "convolution", "rnn", "lstm", "gru", "linalg", "cholesky", "trilinear", "cdist", "attention",
    "solve", "spsolve", "svd", "qr", "lu", "eig", "inverse", "sspaddmm", "hspmm", "smm",
}  # fmt: skip
"""Words in the names of operations whose cost is more than a few per number."""
LIGHT = frozenset(("linalg_vector_norm", "linalg_cross", "linalg__powsum", "_linalg_check_errors"))
OUTSIDE = {
    torch.Tensor.numpy: "Tensor.numpy", torch.Tensor.__array__: "numpy", torch.Tensor.data_ptr: "Tensor.data_ptr",
    torch.Tensor.__dlpack__: "dlpack",
}  # fmt: skip
"""Ways in which an image leaves PyTorch, out of the counter's sight."""


def count_call(denoiser: Denoise, x: Tensor) -> int:
    """FLOPs of one call ``denoiser(x, 0.5)`` for all of ``x`` (B, C, H, W); what a first call sets up is left out.

    A module that says its cost itself, as ``flops_per_image``, is believed, and not looked into.

    Raises PhasewiseError naming an operation that cannot be counted.
    """
    said = None if isinstance(denoiser, nn.Module) else getattr(denoiser, "flops_per_image", None)
    if said is not None:
        return int(said) * len(x)
    with as_written(), primed(denoiser, x):
        denoiser(x, PROBE_TIME)  # filters and tables that are made once
        counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        with ExitStack() as stack:
            told = _Told(counter)
            stack.enter_context(told.listening(denoiser))
            stack.enter_context(_Refusing(counter, told))  # outside the counter, which takes operations apart
            stack.enter_context(counter)
            stack.enter_context(_Staying(x.numel(), told))
            denoiser(x, PROBE_TIME)
    return counter.get_total_flops() + told.extra


def primed(denoiser: Denoise, x: Tensor) -> AbstractContextManager[None]:
    """What a call that leans on earlier steps of a sampler finds there, where ``denoiser`` is such a one."""
    ready = getattr(denoiser, "primed", None)
    return nullcontext() if ready is None else ready(x, PROBE_TIME)


def _product(a: Shape, b: Shape) -> int:
    """Of a matrix or vector with a vector."""
    return 2 * math.prod(a)


def _addmv(bias: Shape, matrix: Shape, vector: Shape, **_: Any) -> int:
    return 2 * math.prod(matrix)


def _addbmm(bias: Shape, a: Shape, b: Shape, **_: Any) -> int:
    return 2 * math.prod(a) * b[2]


def _outer(bias: Shape, a: Shape, b: Shape, **_: Any) -> int:
    return 2 * a[0] * b[0]


def _trilinear(a: Shape, b: Shape, c: Shape, *expanded: Any, **_: Any) -> int:
    """Two multiplies and an add for every entry of the three factors broadcast together."""
    full = []
    for shape, places in zip((a, b, c), expanded[:3], strict=True):
        sizes = list(shape)
        for place in sorted(places):
            sizes.insert(place, 1)
        full.append(sizes)
    return 3 * math.prod(max(sizes) for sizes in zip(*full, strict=True))


def _layer(x: Shape, inputs: Shape, hidden: Shape, *_: Any, **__: Any) -> int:
    """One direction of a recurrent layer: both of its matrices at every step."""
    return 2 * math.prod(x[:-1]) * (math.prod(inputs) + math.prod(hidden))


def _layers(x: Shape, weights: Sequence[Shape], *_: Any, **__: Any) -> int:
    return 2 * math.prod(x[:-1]) * sum(math.prod(w) for w in weights if len(w) == 2)


def _distances(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    """A difference, its power and an add for every coordinate of every pair."""
    return 3 * math.prod(a) * b[-2]


def _plain(formula: Callable[..., int]) -> Callable[..., int]:
    """``formula`` without what the counter tells it of the answer."""
    return lambda *args, out_shape=None, **options: formula(*args, **options)


_aten = torch.ops.aten
FORMULAS: dict[Any, Callable[..., int]] = {
    _aten.mv: _plain(_product), _aten.dot: _plain(_product), _aten.vdot: _plain(_product), _aten.addmv: _plain(_addmv),
    _aten.addbmm: _plain(_addbmm), _aten.addr: _plain(_outer), _aten._trilinear: _plain(_trilinear),
    _aten.mkldnn_rnn_layer: _plain(_layer), _aten._cudnn_rnn: _plain(_layers), _aten._cdist_forward: _plain(_distances),
    _aten._euclidean_dist: _plain(_distances),
}  # fmt: skip
"""What PyTorch's own counter has no formula for, by operation; from shapes."""


def heavy(name: str) -> bool:
    """Whether an operation of PyTorch, by its name without namespace, costs more than a few FLOPs per number."""
    return name not in LIGHT and not name.startswith("upsample") and bool(HEAVY & set(name.split("_")))


class _Told:
    """Modules that say their own cost: FLOPs to add to the count, and how many of them are at work right now."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter, self.extra, self.inside, self._before = counter, 0, 0, 0

    @contextmanager
    def listening(self, denoiser: Denoise) -> Iterator[None]:
        modules = denoiser.modules() if isinstance(denoiser, nn.Module) else ()
        with ExitStack() as stack:
            for module in modules:
                said = getattr(module, "flops_per_image", None)
                if said is not None:
                    stack.callback(module.register_forward_pre_hook(self._begin(int(said))).remove)
                    stack.callback(module.register_forward_hook(self._end, always_call=True).remove)
            yield

    def _begin(self, said: int) -> Callable[..., None]:
        def begin(_: nn.Module, args: tuple[Any, ...]) -> None:
            if not self.inside:
                self.extra, self._before = self.extra + said * len(args[0]), self.counter.get_total_flops()
            self.inside += 1

        return begin

    def _end(self, *_: Any) -> None:
        self.inside -= 1
        if not self.inside:  # what could be seen of it is in what it says
            self.extra -= self.counter.get_total_flops() - self._before


class _Refusing(TorchDispatchMode):
    """Raises for operations that cost something and that the counter has no formula for."""

    def __init__(self, counter: FlopCounterMode, told: _Told) -> None:
        super().__init__()
        self.known, self.told = counter.flop_registry, told

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func._overloadpacket
        space, _, name = str(packet).partition(".")
        if (
            packet not in self.known
            and not self.told.inside
            and (space not in ("aten", "prim", "prims") or heavy(name))
        ):
            raise _cannot(f"{space}.{name}")
        return func(*args, **(kwargs or {}))


class _Staying(TorchFunctionMode):
    """Raises where as many numbers as the images have leave PyTorch."""

    def __init__(self, numbers: int, told: _Told) -> None:
        super().__init__()
        self.numbers, self.told = numbers, told

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in OUTSIDE and not self.told.inside and args[0].numel() >= self.numbers:
            raise _cannot(OUTSIDE[func])
        return func(*args, **(kwargs or {}))


def _cannot(what: str) -> PhasewiseError:
    return PhasewiseError(
        f"the FLOPs of {what} cannot be counted; use operations that can, or let the denoiser say what a call costs: "
        "an attribute flops_per_image, multiply and add counted as two"
    )


@contextmanager
def as_written() -> Iterator[None]:
    """Compiled networks run uncompiled, attention as matrix products, which the counter can see."""
    fused = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fused)
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(_counting.reset, _counting.set(True))
        if "torch._dynamo" in sys.modules:  # else nothing can be compiled, and importing it takes a second
            # a compiler that meets a counter gives the code up for good, in the whole process
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


_counting: ContextVar[bool] = ContextVar("counting", default=False)


def counting() -> bool:
    """Whether a call is being counted: what has several forms then takes one that the counter can see."""
    return _counting.get()
