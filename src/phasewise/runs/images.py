"""The images of a run: the one place where they are loaded from the options that say which."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from phasewise.data import ImageData, first_look, load_images
from phasewise.runs.parts import DataOptions
from phasewise.runs.sizes import NAMED, known_size


def images_of(asked: DataOptions, **changed: Any) -> ImageData:
    """The images that the options say; ``changed`` replaces some, such as ``data_dir`` on another machine."""
    asked = replace(asked, **changed)
    return load_images(asked.data, **asked.arguments())


def outline_of(asked: DataOptions) -> tuple[tuple[int, int], int]:
    """(H, W) of these images and the number to train on, whatever the limit; where neither follows from a name, the
    first image and their count tell."""
    known = known_size(asked)
    if known is not None and asked.data in NAMED:
        return known, NAMED[asked.data].train
    shape, train = first_look(asked.data, **asked.arguments())
    return known or shape[1:], train
