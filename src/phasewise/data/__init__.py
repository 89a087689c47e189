"""Data: named sets, folders, parquet, npz, hub ids and tensors, all read into one :class:`ImageData`."""

from __future__ import annotations

from phasewise.data.images import ImageData
from phasewise.data.labels import condition_of_part
from phasewise.data.load import as_images, first_look, load_images, training_share
from phasewise.data.parts import ask_channels
from phasewise.data.sources import KNOWN, source_state

__all__ = [
    "KNOWN",
    "ImageData",
    "as_images",
    "ask_channels",
    "condition_of_part",
    "first_look",
    "load_images",
    "source_state",
    "training_share",
]
