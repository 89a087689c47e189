r"""What integer pixels mean: one scale for the whole source, by its kind of number, stated, never by part.

Level ``v`` of ``0 .. L`` becomes ``lo + (hi - lo) v / L``.  ``L``, the white level, is what was asked for; else 255
for image files (16-bit ones are rounded to 8 bits), and for arrays 1 where every pixel of every part is 0 or 1, 255
where none is larger, 65535 for uint16.  Anything else has to be stated.  Pixels that use less than half of the levels
are warned of: 12 bits in 16-bit files, four bits in bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from phasewise.data.cache import large_array
from phasewise.data.decode import to_8_bits
from phasewise.data.form import Array
from phasewise.data.images import PixelRange
from phasewise.data.parts import Part, Parts, Stored
from phasewise.errors import DataError, PhasewiseWarning

SAY = "say it with white_level= (--white-level)"
MOST = 2**24
"""Largest white level: float32 tells whole numbers apart up to here."""


def check_white_level(white: int | None) -> None:
    whole = isinstance(white, (int, np.integer)) and not isinstance(white, bool)
    if white is not None and not (whole and 1 <= white <= MOST):
        raise DataError(f"white_level must be the whole number that is white, 1 to {MOST}, or None; got {white!r}")


def white_level_of(parts: Parts, stored: Sequence[tuple[str, Stored]], asked: int | None) -> int | None:
    """The level of white of the integer parts, of which ``stored`` are the rows read; None where all are real-valued.

    Raises :class:`DataError` for integers that no rule of the module's head covers, parts whose kinds contradict each
    other, and pixels beyond the level.
    """
    whole = {key: part for key, part in parts.items() if part.span is None}
    if not whole:
        if asked is not None:
            raise DataError("white_level is for integer pixels; real-valued ones are taken as they stand (pixel_range)")
        return None
    where = " and ".join(part.where for part in whole.values())
    seen = [(whole[key], pixels) for key, pixels in stored if key in whole]
    # of an array, all pixels speak, of files, those that were decoded
    ends = [part.extent or _extent(pixels) for part, pixels in seen]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    if low < 0:
        raise DataError(
            f"{where} holds integers from {low} to {high}, and levels begin at 0; save it as uint8, or as float32 and "
            "state its pixel_range"
        )
    kinds = {_kind(part, pixels) for part, pixels in seen}
    given = next((part.white for part in whole.values() if part.white is not None), None)
    white = asked or given or _usual(whole, kinds, high, where)
    if high > white:
        raise DataError(f"{where} holds pixels up to {high}, above the white level {white}; {SAY}")
    if asked is None and given is None:
        _warn_of_few(where, kinds, low, high, white)
    return white


def _kind(part: Part, stored: Stored) -> np.dtype:
    """Kind of the integers in the source."""
    if part.kind is not None:
        return part.kind
    # averaged areas are in units of 8 bits, whatever they were of
    return np.dtype(np.uint8) if stored.pixels.dtype == np.float32 else stored.pixels.dtype


def _extent(stored: Stored) -> tuple[int, int]:
    ends = [(int(np.floor(chunk.min())), int(np.ceil(chunk.max()))) for _, chunk in stored.chunks()]
    return min(e[0] for e in ends), max(e[1] for e in ends)


def _usual(whole: Parts, kinds: set[np.dtype], high: int, where: str) -> int:
    sixteen = np.dtype(np.uint16) in kinds
    if any(part.encoded for part in whole.values()) and np.dtype(np.int32) not in kinds:
        if len(kinds) > 1:
            raise DataError(f"{where} differ in bits a pixel; save all images with as many bits")
        return 65535 if sixteen else 255
    if np.dtype(bool) in kinds and high > 1:
        raise DataError(f"{where} mix bool and other integers, which have other whites; save all as one kind")
    if high <= 255:
        return 1 if high <= 1 else 255
    if not sixteen or high > 65535:
        raise DataError(
            f"{where} holds integers up to {high}; integer pixels are read as 0..255 (uint16: 0..65535), so save it as "
            f"uint8 or uint16, or, if another level is white, {SAY}"
        )
    if len(kinds) > 1:
        raise DataError(f"{where} mix uint16 and other integers, which have other whites; save all as one kind")
    return 65535


def _warn_of_few(where: str, kinds: set[np.dtype], low: int, high: int, white: int) -> None:
    """Warn where pixels use less than half of the levels: most likely another level is white."""
    full = 2 ** high.bit_length() - 1
    text = ""
    if white in (255, 65535) and 0 < high <= white // 2:
        bits = {255: 8, 65535: 16}[white]
        text = (
            f"{where}: pixels go from {low} to {high} only, of {white}, as if {bits} bits held {high.bit_length()}; "
            f"if {full} is white, or another level, {SAY}"
        )
    elif white == 255 and np.dtype(np.uint16) in kinds:
        text = f"{where}: 16-bit pixels go up to {high} only and are read as 0..255; if another level is white, {SAY}"
    if text:
        warnings.warn(text, PhasewiseWarning, stacklevel=4)


def scale(stored: Stored, pixel_range: PixelRange, white: int | None, *, to_8: bool = False) -> Tensor:
    """The images as float32 (n, C, H, W) in ``pixel_range``; ``white`` None: real values, as they stand.

    ``to_8``: levels of 16 bits are rounded to 8 first.
    """
    low, high = pixel_range
    out = large_array(stored.shape)
    table: Array | None = None
    if white is not None and stored.pixels.dtype.itemsize <= 2 and stored.pixels.dtype.kind in "bu":
        # one float per level, looked up by every pixel
        levels = np.arange(2 ** (8 * stored.pixels.dtype.itemsize))
        rounded = to_8 and stored.pixels.dtype == np.uint16
        levels, most = (to_8_bits(levels), 255) if rounded else (levels, white)
        table = (low + (high - low) * levels / most).astype(np.float32)
    for where, chunk in stored.chunks():
        if table is not None:
            out[where] = table[chunk.astype(np.uint8) if chunk.dtype == np.bool_ else chunk]
        elif white is not None:
            out[where] = low + (high - low) * chunk.astype(np.float64) / white
        else:
            out[where] = chunk
    return torch.from_numpy(out)
