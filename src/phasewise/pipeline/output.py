"""Samples as files: one PNG grid, a folder of single PNGs, or one array (.npz, .npy) of uint8."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from phasewise.errors import PhasewiseError
from phasewise.files import write_bytes
from phasewise.pipeline.recording import to_uint8
from phasewise.report.pictures import picture, tile

FORMS = (".png", ".npz", ".npy")


def check_output(out: Path, channels: int | None = None) -> None:
    """Refuse what samples cannot be written to; to be asked before the sampling.

    Raises PhasewiseError for another suffix, for a folder that holds anything, and for pictures of ``channels`` colours
    that a PNG has not.
    """
    suffix = out.suffix.lower()
    if suffix and suffix not in FORMS and not out.is_dir():
        raise PhasewiseError(
            "samples are written as a grid to a name ending in .png, as an array to one ending in .npz or .npy, or one "
            f"by one into a folder (DIR/); not to {out.name!r}"
        )
    if is_folder(out) and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PhasewiseError(f"{out} is not an empty folder; give a new one for single images")
    if channels not in (None, 1, 3) and suffix not in (".npz", ".npy"):
        raise PhasewiseError(f"a PNG has 1 or 3 channels, these images have {channels}; give a name ending in .npz")


def is_folder(out: Path) -> bool:
    """Whether ``out`` is meant as a folder of single images."""
    return not out.suffix or out.is_dir()


def write_samples(images: Tensor, pixel_range: tuple[float, float], out: Path) -> Path:
    """Images (n, C, H, W) in pixel units, clamped, as uint8, in the form that ``out`` asks for by its name.

    ``DIR/``: 000000.png and on, for other programs and for :func:`phasewise.load_images`.  ``.npz``: an array
    ``images`` (n, H, W, C).  ``.npy``: that array alone.  ``.png``: a square grid.
    """
    check_output(out, images.shape[1])
    if is_folder(out):
        digits = max(6, len(str(len(images))))
        for k, image in enumerate(to_uint8(images, pixel_range).numpy()):
            write_bytes(out / f"{k:0{digits}d}.png", picture(tile(image[None], 1)).png)
        return out
    if out.suffix.lower() == ".png":
        return write_grid(images, pixel_range, out)
    pixels, buffer = to_uint8(images, pixel_range).permute(0, 2, 3, 1).numpy(), io.BytesIO()
    if out.suffix.lower() == ".npz":
        np.savez_compressed(buffer, images=pixels)
    else:
        np.save(buffer, pixels, allow_pickle=False)
    return write_bytes(out, buffer.getvalue())


def write_grid(images: Tensor, pixel_range: tuple[float, float], out: Path, side: int = 56) -> Path:
    """A square PNG grid of images (n, C, H, W) in pixel units, each enlarged by a whole factor to about ``side``."""
    if out.suffix.lower() != ".png":
        raise PhasewiseError(f"the grid is written as PNG; give a name ending in .png, not {out.name!r}")
    pixels = to_uint8(images, pixel_range).numpy()
    canvas = Image.fromarray(tile(pixels, math.ceil(math.sqrt(len(pixels)))))
    zoom = max(1, side // pixels.shape[-1])
    buffer = io.BytesIO()
    canvas.resize((canvas.width * zoom, canvas.height * zoom), Image.Resampling.NEAREST).save(buffer, "PNG")
    return write_bytes(out, buffer.getvalue())
