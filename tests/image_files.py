"""Sets of small images as tests write them: arrays, PNG, tables, folders; and what a refusal says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from phasewise.data import load_images
from phasewise.errors import DataError


def pixels(n: int = 40, shape: tuple[int, ...] = (6, 5), seed: int = 0) -> np.ndarray:
    """n different images with the full range of levels; the first pixel numbers the image."""
    images = np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)
    images.reshape(n, -1)[:, 0] = np.arange(n)
    images.reshape(n, -1)[:, 1:3] = (0, 255)
    return images


def png(image: np.ndarray | Image.Image) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, "png")
    return out.getvalue()


def table(images: np.ndarray | list[bytes], labels: Any = None, image: str = "image") -> pa.Table:
    blobs = [x if isinstance(x, bytes) else png(x) for x in images]
    columns: dict[str, Any] = {image: pa.array([{"bytes": b, "path": None} for b in blobs])}
    return pa.table(columns if labels is None else {**columns, "label": pa.array(labels)})


def write_folder(folder: Path, images: np.ndarray, names: list[str] | None = None) -> Path:
    for k, image in enumerate(images):
        path = folder / (f"{k:03d}.png" if names is None else f"{names[k]}/{k:03d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    return folder


def refused(source: Any, *words: str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_images(source, **options)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    return message
