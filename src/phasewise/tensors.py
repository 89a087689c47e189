"""Safetensors files, read with bounds, and networks that are built only where their weights are there.

The header of a file says name, type and shape of every tensor.  So a config that asks for more than its weights file
holds (a width of 30,000, a million blocks) is refused by comparing shapes, before memory or time is spent on it.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import AGAIN, regular, write_bytes

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


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def optimiser_state(
    tensors: dict[str, Tensor], groups: Sequence[Sequence[Tensor]], path: Path, mend: str
) -> dict[int, dict[str, Tensor]]:
    """State of the optimiser by number of the parameter, whose fields are the same within a group.

    Raises CheckpointError where it is not of these ``groups`` of parameters."""
    parameters = [(p, number) for number, group in enumerate(groups) for p in group]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in part_of(tensors, "optimiser.").items():
        number, _, field = name.partition(".")
        known = number in map(str, range(len(parameters)))
        if not known or tuple(value.shape) not in ((), tuple(parameters[int(number)][0].shape)):
            raise CheckpointError(f"{path}: optimiser.{name} is of another network; {mend}")
        state.setdefault(int(number), {})[field] = value
    kinds = {(parameters[index][1], frozenset(fields)) for index, fields in state.items()}
    if len(kinds) > len({number for number, _ in kinds}):
        raise CheckpointError(f"{path} lacks a part of the optimiser's state; {mend}")
    return state


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


# --- weights in the old form ----------------------------------------------------------------------------------------

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
"""Endings of weights that ``torch.save`` wrote: pickles, which run whatever was put into them when they are loaded."""
NESTED = ("state_dict", "model_state_dict", "model", "module")
"""Where training programs put a network's weights among other things."""


def need_safetensors(folder: str | Path) -> None:
    """Raise CheckpointError, showing the way to safetensors, where ``folder`` holds weights in pickle form alone."""
    names = sorted(file.name for file in Path(folder).iterdir()) if Path(folder).is_dir() else []
    old = [name for name in names if name.endswith(PICKLED)]
    if old and not any(name.endswith(".safetensors") for name in names):
        file = str(Path(folder) / old[0])
        raise CheckpointError(
            f"{folder} holds its weights as a pickle only ({old[0]}), which can run code when it is loaded; "
            f"phasewise.tensors.convert_to_safetensors({file!r}) reads nothing but numbers from it and writes them "
            "beside it"
        )


def read_pickled(path: str | Path) -> dict[str, Tensor]:
    """Weights by name, on the CPU, from a file that ``torch.save`` wrote, by ``torch.load(weights_only=True)``, which
    builds tensors and plain containers and refuses everything else; a state dict may lie one level down, as trainers
    leave it (:data:`NESTED`).

    Raises CheckpointError where the file asks for anything but numbers, is none of these, or holds no weights.
    """
    try:
        size = regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of storages that newer versions call otherwise
            found = torch.load(str(path), map_location="cpu", weights_only=True)
    except PhasewiseError as error:
        raise CheckpointError(str(error)) from error
    except Exception as error:  # whatever a stranger's file makes an unpickler say
        why = (str(error).splitlines() or [""])[0][:120]
        raise CheckpointError(
            f"{path} is no file of plain weights ({type(error).__name__}: {why}), so it is not read; ask its maker for "
            "a .safetensors file, or for a plain state dict"
        ) from error
    state = found
    for name in NESTED:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            state = found[name]
            break
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        held = ", ".join(map(str, list(found)[:6])) if isinstance(found, dict) else type(found).__name__
        raise CheckpointError(
            f"{path} holds no weights by name (it holds {held or 'nothing'}); save the network's state_dict()"
        )
    for name, value in state.items():
        # an expanded view of one number can claim any size
        if value.layout != torch.strided or value.is_quantized or value.numel() * value.element_size() > size:
            raise CheckpointError(f"{path}: {name} is no plain tensor of the file's own numbers; save it anew")
    return {str(name): value.detach() for name, value in state.items()}


def convert_to_safetensors(path: str | Path) -> Path:
    """Write the weights of a pickled file beside it, under its name ending in ``.safetensors``; returns that path.

    Raises CheckpointError as :func:`read_pickled`, and where that file is there already.
    """
    path = Path(path)
    target = path.with_suffix(".safetensors")
    if target.exists():
        raise CheckpointError(f"{target} is there already; delete it, or use it as it is")
    # a copy of each: safetensors takes no two tensors of one memory, as tied weights are
    return write_bytes(target, save_tensors({k: v.clone().contiguous() for k, v in read_pickled(path).items()}))
