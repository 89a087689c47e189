"""Evaluation mode for as long as something is measured or drawn, and every module's own mode put back after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*modules: object) -> Iterator[None]:
    """``modules`` (what is no module is left alone) in evaluation mode; each submodule's own mode is put back."""
    # one by one: train() and eval() set a whole tree alike
    parts = [part for module in modules if isinstance(module, nn.Module) for part in module.modules()]
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
