r"""Encoded images (PNG, JPEG, ...) to uint8 arrays with one or three channels.

Conventions, by kind of image file (Pillow mode):

* gray (1, L), and palettes (P) that hold only grays: one channel; colour, and other palettes: three.
* transparency (LA, RGBA, PA, or a transparent colour): composited on white, then as above.
* 16-bit gray (I;16, I): scaled to 8 bits, ``round(v / 257)``.  CMYK, YCbCr, LAB, HSV: converted to RGB.
* rotation marks of photographs (EXIF) are obeyed; of an animation the first frame is taken.

``color="gray"`` weighs RGB by ITU-R BT.601, ``0.299 R + 0.587 G + 0.114 B``; ``color="rgb"`` repeats the channel.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from phasewise.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]
Color = Literal["gray", "rgb"]
LUMA = (0.299, 0.587, 0.114)
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


def decode_rows(
    fetch: Callable[[int], bytes | None], describe: Callable[[int], str], rows: Array, color: Color | None
) -> Array:
    """Decode images ``rows``: (n, C, H, W) uint8, filled in place as they are read.

    ``fetch(row)`` gives the encoded bytes, ``describe(row)`` says where they came from.  Raises :class:`DataError`
    naming the image that cannot be decoded, or the two that differ in size or in number of channels.
    """
    out = np.empty((0, 0, 0, 0), dtype=np.uint8)
    for k, row in enumerate(rows.tolist()):
        blob = fetch(row)
        if blob is None:
            raise DataError(f"{describe(row)} holds no image bytes; store the encoded image in the file itself")
        pixels = recolour(decode(blob, partial(describe, row))[None], color)[0]
        if k == 0:
            out = np.empty((len(rows), *pixels.shape), dtype=np.uint8)
        if pixels.shape != out.shape[1:]:
            _refuse_shape(describe(int(rows[0])), out.shape[1:], describe(row), pixels.shape)
        out[k] = pixels
    return out


def _refuse_shape(first: str, shape: tuple[int, ...], second: str, other: tuple[int, ...]) -> None:
    if shape[1:] != other[1:]:
        raise DataError(
            f"{first} is {shape[1]}x{shape[2]} pixels (height x width) but {second} is {other[1]}x{other[2]}; "
            "resize all images to one size first"
        )
    names = {1: "one channel (gray)", 3: "three channels (RGB)"}
    raise DataError(
        f"{first} has {names[shape[0]]} but {second} has {names[other[0]]}; convert the files, or in Python "
        "pass color='gray' or color='rgb' to load_images"
    )


def decode(blob: bytes, where: Callable[[], str]) -> Array:
    """One encoded image as (C, H, W) uint8, C = 1 or 3. Raises :class:`DataError` naming ``where()``."""
    try:
        with Image.open(io.BytesIO(blob)) as image:
            image.load()
            upright = image if image.format == "PNG" else ImageOps.exif_transpose(image)
    except UNDECODABLE as error:
        raise DataError(
            f"{where()} cannot be decoded as an image ({len(blob)} bytes: {error}); replace or remove it"
        ) from error
    pixels = np.asarray(upright if _is_plain(upright) else _simplify(upright, where))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _is_plain(image: Image.Image) -> bool:
    return image.mode in ("L", "RGB") and "transparency" not in image.info


def _simplify(image: Image.Image, where: Callable[[], str]) -> Image.Image:
    """The image in mode L or RGB, by the rules of the module's head."""
    if image.mode.startswith("I"):
        return _from_16_bits(image, where)
    if image.mode == "F":
        raise DataError(f"{where()} holds real-valued pixels; save the set as an npz file and state its pixel_range")
    gray = image.mode in ("1", "L", "LA", "La") or (image.mode in ("P", "PA") and _gray_palette(image))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    return image.getchannel(0) if gray else image


def _gray_palette(image: Image.Image) -> bool:
    colours = np.array(image.getpalette("RGB") or [0], dtype=np.uint8)
    # R = G = B in every entry
    return len(colours) % 3 == 0 and bool((colours.reshape(-1, 3) == colours[::3, None]).all())


def _from_16_bits(image: Image.Image, where: Callable[[], str]) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"{where()} holds 32-bit pixels up to {values.max()}; save it with 8 or 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 / 255 = 257, rounded in whole numbers


def recolour(images: Array, color: Color | None) -> Array:
    """(N, C, H, W) images with the channels that ``color`` asks for; the dtype stays. None: as they are.

    Raises :class:`DataError` when C is neither 1 nor 3.
    """
    channels = images.shape[1]
    if color is None or channels == {"gray": 1, "rgb": 3}[color]:
        return images
    if channels not in (1, 3):
        raise DataError(
            f"images with {channels} channels cannot be made {color}; leave color out or give 1 or 3 channels"
        )
    if color == "rgb":
        return np.repeat(images, 3, axis=1)
    mixed = sum(np.float32(w) * images[:, k : k + 1] for k, w in enumerate(LUMA))
    whole = np.issubdtype(images.dtype, np.integer)
    return np.asarray(np.rint(mixed) if whole else mixed).astype(images.dtype)
