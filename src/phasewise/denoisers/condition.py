"""A condition carried to those who take one: said once, for samplers, losses and schedules alike.

A consumer checks what it was given with :func:`condition_rows`, once, and binds each batch's share with :func:`bind`::

    rows = condition_rows(cond, len(images), denoisers.values())
    for part in batches:
        bind(denoiser, rows, part)(x_t[part], t)
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from phasewise.denoisers.base import Condition, Denoiser, Given, as_rows
from phasewise.errors import PhasewiseError


def condition_rows(cond: Condition | None, n: int, denoisers: Iterable[Denoiser]) -> Tensor | None:
    """``cond`` as one row for each of ``n`` images, (n, ...), or None where there is none.

    Raises PhasewiseError for another number of rows, or where none of the ``denoisers`` takes a condition.
    """
    if cond is None:
        return None
    kinds = []
    for denoiser in denoisers:
        if denoiser.takes_condition:
            return as_rows(cond, n)
        kinds.append(type(denoiser).__name__)
    raise PhasewiseError(f"cond is given, but {', '.join(dict.fromkeys(kinds)) or 'nobody'} takes no condition")


def first_rows(cond: Condition | None, n: int) -> Condition | None:
    """The first ``n`` rows of a condition that has a row per image; a single label, or none, as it is."""
    return cond[:n] if isinstance(cond, Tensor) and cond.dim() else cond


def bind(denoiser: Denoiser, rows: Tensor | None, part: slice = slice(None)) -> Denoiser:
    """``denoiser`` given the ``part`` of ``rows``, where there are any and it takes a condition; else itself."""
    return denoiser.given(rows[part]) if rows is not None and denoiser.takes_condition else denoiser


def unbound(denoiser: Denoiser, cond: Condition | None) -> tuple[Denoiser, Condition | None]:
    """``denoiser`` and its condition apart, where it has one bound and ``cond`` is None: rows for all images can then
    be bound batch by batch."""
    return (denoiser.member, denoiser.cond) if isinstance(denoiser, Given) and cond is None else (denoiser, cond)
