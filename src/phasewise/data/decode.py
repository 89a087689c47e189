r"""Encoded images (PNG, JPEG, ...) to arrays of integer levels with one or three channels.

Conventions, by kind of image file (Pillow mode):

* gray (1, L), and palettes (P) that hold only grays: one channel; colour, and other palettes: three.
* transparency (LA, RGBA, PA, or a transparent colour): composited on white, then as above.
* 16-bit gray: uint16; 32-bit gray (TIFF): int32; all others 8 bits.  CMYK, YCbCr, LAB, HSV: converted to RGB.
* rotation marks of photographs (EXIF) are obeyed, in PNG too; of an animation the first frame is taken.

``color="gray"`` weighs RGB by ITU-R BT.601, ``0.299 R + 0.587 G + 0.114 B``; ``color="rgb"`` repeats the channel.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
from PIL import Image, ImageOps

from phasewise.data.form import Array, Form
from phasewise.errors import DataError

UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
TURNED = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}
"""Where a PNG may say that it is turned: looked at only where one is there, which it is in few."""
LARGE = 2**18
"""Pixels from which on decoding in several threads is worth it: Pillow frees the interpreter within one image."""
AT_ONCE = 64


def decode_rows(
    blobs: Iterable[tuple[int, bytes | None]],
    count: int,
    describe: Callable[[int], str],
    form: Form,
    room: Callable[[tuple[int, ...], np.dtype], Array] = np.empty,
) -> Array:
    """The ``count`` encoded images ``(row, bytes)`` in their order and in ``form``: (count, C, H, W).

    ``describe(row)`` says where an image came from; ``room(shape, dtype)`` gives the array to fill, which is all the
    memory that is taken besides a few images.  Raises :class:`DataError` naming the image that cannot be decoded, or
    the two that differ in size, number of channels or bits.
    """
    out, first = np.empty((0, 0, 0, 0), dtype=np.uint8), ""
    for done, (row, pixels) in enumerate(_decoded(iter(blobs), describe, form)):
        if done == 0:
            out, first = room((count, *pixels.shape), pixels.dtype), describe(row)
        if pixels.shape != out.shape[1:]:
            _refuse_shape(first, out.shape[1:], describe(row), pixels.shape)
        same = pixels.dtype == out.dtype
        out[done] = pixels if same else _of_one_depth(pixels, out.dtype, first, partial(describe, row), form.raw)
    return out


def _decoded(
    blobs: Iterator[tuple[int, bytes | None]], describe: Callable[[int], str], form: Form
) -> Iterator[tuple[int, Array]]:
    """(row, pixels in form), in order; in threads where the first image is large."""

    def work(one: tuple[int, bytes | None]) -> tuple[int, Array]:
        row, blob = one
        if blob is None:
            raise DataError(f"{describe(row)} holds no image bytes; store the encoded image in the file itself")
        pixels = decode(blob, partial(describe, row))
        if form.keeps and pixels.size <= LARGE:
            return row, pixels
        made = form.apply(pixels[None], describe(row))[0]
        averaged = pixels.dtype == np.uint16 and made.dtype == np.float32
        return row, made / np.float32(257) if averaged and not form.raw else made  # in units of 8 bits, like the rest

    for one in islice(blobs, 1):
        yield work(one)
        if not _is_large(one[1]):
            yield from map(work, blobs)
            return
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            while batch := list(islice(blobs, AT_ONCE)):
                yield from pool.map(work, batch)


def _is_large(blob: bytes | None) -> bool:
    """Whether an image that was decoded before has many pixels."""
    with Image.open(io.BytesIO(blob or b"")) as image:
        return image.width * image.height >= LARGE


def _refuse_shape(first: str, shape: tuple[int, ...], second: str, other: tuple[int, ...]) -> None:
    if shape[1:] != other[1:]:
        raise DataError(
            f"{first} is {shape[1]}x{shape[2]} pixels (height x width) but {second} is {other[1]}x{other[2]}; "
            "resize all images to one size first, or bring them to one with crop and resize (--crop square --resize 64)"
        )
    names = {1: "one channel (gray)", 3: "three channels (RGB)"}
    raise DataError(
        f"{first} has {names[shape[0]]} but {second} has {names[other[0]]}; convert the files, or pass color='gray' or "
        "color='rgb' to load_images (--color)"
    )


def _of_one_depth(pixels: Array, wanted: np.dtype, first: str, where: Callable[[], str], raw: bool) -> Array:
    """8 bits as 16 or the other way round: what :func:`to_8_bits` makes of both is the same."""
    kinds = {pixels.dtype, wanted}
    if raw or not kinds <= {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise DataError(
            f"{first} has {8 * wanted.itemsize} bits a pixel but {where()} has {8 * pixels.itemsize}; save all images "
            "with as many bits"
        )
    return to_8_bits(pixels) if wanted == np.uint8 else pixels.astype(np.uint16) * 257


def to_8_bits(values: Array) -> Array:
    """uint16 to uint8, ``round(v / 257)``: 65535 / 255 = 257, rounded in whole numbers."""
    return ((values.astype(np.int32) + 128) // 257).astype(np.uint8)


def decode(blob: bytes, where: Callable[[], str]) -> Array:
    """One encoded image as (C, H, W), C = 1 or 3: uint8, or uint16 or int32 where the file has as many bits.

    Raises :class:`DataError` naming ``where()``, at once for an image whose header says more than Pillow's limit.
    """
    try:
        with Image.open(io.BytesIO(blob)) as image:
            most = Image.MAX_IMAGE_PIXELS or math.inf
            if image.width * image.height > most:  # of the header: nothing is decoded
                raise DataError(
                    f"{where()} is {image.height}x{image.width} pixels (height x width), more than the "
                    f"{most / 1e6:.0f} million that one image may have; make it smaller or remove it"
                )
            image.load()
            plain = image.format == "PNG" and not image.info.keys() & TURNED
            upright = image if plain else ImageOps.exif_transpose(image)
    except UNDECODABLE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{where()} cannot be decoded as an image ({len(blob)} bytes: {error}); replace or remove it"
        ) from error
    pixels = np.asarray(upright) if _is_plain(upright) else _simplify(upright, image.format, where)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _is_plain(image: Image.Image) -> bool:
    return image.mode in ("L", "RGB") and "transparency" not in image.info


def _simplify(image: Image.Image, kind: str | None, where: Callable[[], str]) -> Array:
    """The image as (H, W) or (H, W, 3), by the rules of the module's head."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        # what Pillow reads of a PNG or a PGM as mode I has 16 bits
        sixteen = image.mode != "I" or kind in ("PNG", "PPM")
        return values.astype(np.uint16) if sixteen else values.astype(np.int32)
    if image.mode == "F":
        raise DataError(f"{where()} holds real-valued pixels; save the set as an npz file and state its pixel_range")
    gray = image.mode in ("1", "L", "LA", "La") or (image.mode in ("P", "PA") and _gray_palette(image))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    return np.asarray(image.getchannel(0) if gray else image)


def _gray_palette(image: Image.Image) -> bool:
    colours = np.array(image.getpalette("RGB") or [0], dtype=np.uint8)
    # R = G = B in every entry
    return len(colours) % 3 == 0 and bool((colours.reshape(-1, 3) == colours[::3, None]).all())
