"""Safetensors files, read with bounds, and networks that are built only where their weights are there.

The header of a file says name, type and shape of every tensor.  So a config that asks for more than its weights file
holds (a width of 30,000, a million blocks) is refused by comparing shapes, before memory or time is spent on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import AGAIN, regular

M = TypeVar("M", bound=nn.Module)
Sizes = dict[str, tuple[int, ...]]
UNBUILDABLE = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What a constructor may raise on arguments that make no sense."""
MOST_DERIVED = 1 << 26
"""Numbers that a network may hold beside its weights, because they follow from its shape."""
MANY, FEW = 4, 1000
"""A constructor may put a parameter in place several times; more often than this, on average, none does.  A network of
few is built whole, so that what differs can be named."""


@contextmanager
def opened(path: str | Path, framework: str = "pt", mend: str = AGAIN) -> Iterator[Any]:
    """The safetensors file at ``path`` as :func:`safetensors.safe_open` gives it.

    Raises CheckpointError, within too, where it is missing, no regular file, truncated, or lacks what is asked of it.
    """
    try:
        regular(path)
        with safe_open(str(path), framework=framework) as handle:
            yield handle
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} is corrupt or no safetensors file ({why}); {mend}") from error
    except PhasewiseError as error:
        raise error if isinstance(error, CheckpointError) else CheckpointError(f"{error}; {mend}") from error


def read_tensors(path: str | Path, mend: str = AGAIN) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, on the CPU, and the texts of the header; errors as :func:`opened`."""
    with opened(path, mend=mend) as handle:
        # a copy: what was mapped changes, or breaks the process, when the file does
        return {name: handle.get_tensor(name).clone() for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118


def read_sizes(path: str | Path, mend: str = AGAIN) -> Sizes:
    """The shape of every tensor in the file, from its header alone; errors as :func:`opened`."""
    with opened(path, mend=mend) as handle:
        return {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118


def check_sizes(sizes: Sizes, wanted: Sizes, path: object, kind: str, mend: str = AGAIN) -> None:
    """Raise CheckpointError naming the first tensor in which the file at ``path``, of ``sizes``, differs from what a
    ``kind`` of module has."""
    missing, extra = sorted(wanted.keys() - sizes.keys()), sorted(sizes.keys() - wanted.keys())
    if missing or extra:
        raise CheckpointError(f"{path} is not for this {kind}: missing {missing[:3]}, unexpected {extra[:3]}; {mend}")
    for name, shape in wanted.items():
        if sizes[name] != shape:
            raise CheckpointError(
                f"{path}: {name} has shape {sizes[name]}, this {kind} needs {shape}; it was trained for other images "
                f"or another size; {mend}"
            )


def sizes_of(state: Mapping[str, Tensor]) -> Sizes:
    return {name: tuple(value.shape) for name, value in state.items()}


def build_to_fit(build: Callable[[], M], path: str | Path, kind: str, mend: str = AGAIN) -> M:
    """``build()``, a module, once it is known that the file at ``path`` holds its state, shape by shape.

    It is built without memory first, and no further than there are tensors in the file.  Raises CheckpointError where
    they do not fit, or where the arguments that ``build`` has make no sense.
    """
    sizes = read_sizes(path, mend)
    try:
        sketch = _sketched(build, len(sizes), f"{path} is not for this {kind}")
        if sketch is not None:
            state = sketch.state_dict()
            check_sizes(sizes, sizes_of(state), path, kind, mend)
            derived = sum(b.numel() for name, b in sketch.named_buffers() if name not in state)
            if derived > MOST_DERIVED:
                raise CheckpointError(
                    f"this {kind} would hold {derived:,} numbers beside its weights in {path}; {mend}"
                )
        return build()
    except CheckpointError:
        raise
    except UNBUILDABLE as error:
        raise CheckpointError(f"the saved config does not fit {kind} ({error}); {mend}") from error


def _sketched(build: Callable[[], M], count: int, what: str) -> M | None:
    """The module on no device, its tensors without memory; None where its constructor looks at their values."""
    try:
        with torch.device("meta"), _at_most(count, what):
            return build()
    except RuntimeError as error:
        if "meta" in str(error):
            return None
        raise


@contextmanager
def _at_most(count: int, what: str) -> Iterator[None]:
    """Within it, building modules in this thread with more than ``count`` parameters raises CheckpointError."""
    here, seen = threading.get_ident(), 0

    def counted(*_: Any) -> None:
        nonlocal seen
        if threading.get_ident() == here:
            seen += 1
            if seen > MANY * count + FEW:
                raise CheckpointError(f"{what}: it would have far more than the {count} tensors that are in the file")

    watch = hooks.register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        watch.remove()


def checked_state(
    module: nn.Module, tensors: Mapping[str, Tensor], path: object, mend: str = AGAIN
) -> dict[str, Tensor]:
    """``tensors`` in the types of the module's own state; floats that were halved come back.

    Raises CheckpointError where names, shapes or kinds do not fit, or where a number is none.
    """
    own = module.state_dict()
    check_sizes(sizes_of(tensors), sizes_of(own), path, type(module).__name__, mend)
    fitted = {}
    for name, value in own.items():
        given = tensors[name].to(value.dtype) if _alike(tensors[name], value) else None
        if given is None or not bool(given.isfinite().all()):
            raise CheckpointError(f"{path}: {name} holds NaN, infinity or numbers of another kind; {mend}")
        fitted[name] = given
    return fitted


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether both hold floats, or both hold whole numbers."""
    return not a.is_complex() and a.is_floating_point() == b.is_floating_point()
