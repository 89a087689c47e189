"""Evaluation mode for as long as something is measured or drawn, and every module's own mode put back after."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from torch import nn

F = TypeVar("F", bound=Callable[..., Any])


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


def in_evaluation(function: F) -> F:
    """``function`` with every module among its arguments, alone or in a mapping, in evaluation mode meanwhile."""

    @functools.wraps(function)
    def within(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        with evaluating(*(part for one in given for part in (one.values() if isinstance(one, Mapping) else (one,)))):
            return function(*args, **kwargs)

    return cast(F, within)
