"""The images of a run: the one place where they are loaded from the options that say which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from phasewise.data import ImageData, image_shape, load_images
from phasewise.runs.parts import DataOptions
from phasewise.runs.sizes import SIDES


def images_of(asked: DataOptions, **changed: Any) -> ImageData:
    """The images that the options say; ``changed`` replaces some, such as ``data_dir`` on another machine."""
    asked = replace(asked, **changed)
    return load_images(asked.data, **asked.arguments())


def shape_of(asked: DataOptions) -> tuple[int, int, int]:
    """(C, H, W) of these images, read from the first."""
    return image_shape(asked.data, **asked.arguments())


def known_size(asked: DataOptions) -> tuple[int, int] | None:
    """(H, W) of these images where it is known without reading any: of named sets, and where it is asked for."""
    side = SIDES.get(asked.data)
    size = None if side is None else (side, side)
    for given in (asked.crop, asked.resize):
        if given not in (None, "square"):
            size = (given[0], given[-1])
    return size
