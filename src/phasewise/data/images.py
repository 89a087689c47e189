r"""What every room takes as data: three disjoint parts of one image set, and their moments.

Pixels ``x`` are float32 in ``pixel_range = (lo, hi)``; moments are over all training pixels::

    mean = E[x],      std = sqrt(E[(x - mean)^2]),      to_unit(x) = (x - lo) / (hi - lo)
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from phasewise import checks
from phasewise.errors import DataError
from phasewise.results import DataRecord

PixelRange = tuple[float, float]
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """One image set, split.

    Attributes:
        name: the set's name, or the folder or file it came from.
        train, validation, test: (N, C, H, W) float32, all of one (C, H, W).
        labels_train, labels_validation, labels_test: (N,) int64 from 0, or None.
        pixel_range: (lo, hi), the values of black and white.
        white_level: the integer that became ``hi`` when the source was read; None of real-valued pixels.
        class_names: what the source calls class 0, 1, ..., where those are not their numbers; else None.

    Raises :class:`DataError` when parts differ in image shape or labels do not match the images one to one.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    labels_train: Tensor | None = None
    labels_validation: Tensor | None = None
    labels_test: Tensor | None = None
    pixel_range: PixelRange = (0.0, 1.0)
    white_level: int | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixel_range", check_pixel_range(self.pixel_range))
        for part in PARTS:
            images, labels = getattr(self, part), getattr(self, f"labels_{part}")
            if images.dim() != 4 or images.dtype != torch.float32:
                raise DataError(
                    f"{self.name}: {part} must be a float32 tensor (N, C, H, W), got {images.dtype} of shape "
                    f"{tuple(images.shape)}; convert it first, or give the raw pixels to load_images"
                )
            if images.shape[1:] != self.train.shape[1:]:
                raise DataError(
                    f"{self.name}: {part} images are {describe_shape(images)}, train images "
                    f"{describe_shape(self.train)}; resize them to one size"
                    + ("" if images.shape[1] == self.train.shape[1] else " and pass color='gray' or color='rgb'")
                )
            if labels is not None and (labels.dtype != torch.int64 or labels.shape != images.shape[:1]):
                raise DataError(
                    f"{self.name}: {part} has {len(images)} images but labels {labels.dtype} of shape "
                    f"{tuple(labels.shape)}; give one int64 label per image, or None"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.shape[1:]
        return (channels, height, width)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of images in each part."""
        return {part: len(getattr(self, part)) for part in PARTS}

    @cached_property
    def mean(self) -> float:
        """Mean over all training pixels, in pixel units."""
        return float(self.mean_per_channel.double().mean())

    @cached_property
    def std(self) -> float:
        """Standard deviation over all training pixels (all channels together), in pixel units."""
        mean, std = self.mean_per_channel.double(), self.std_per_channel.double()
        # law of total variance: within channels and between them
        return math.sqrt(float((std**2 + (mean - self.mean) ** 2).mean()))

    @property
    def mean_per_channel(self) -> Tensor:
        """(C,) means over the training images, in pixel units."""
        return self._channel_moments[1]

    @property
    def std_per_channel(self) -> Tensor:
        """(C,) standard deviations over the training images, in pixel units."""
        return self._channel_moments[0]

    @cached_property
    def _channel_moments(self) -> tuple[Tensor, Tensor]:
        std, mean = torch.std_mean(self.train, dim=(0, 2, 3), correction=0)
        return std, mean

    @cached_property
    def classes(self) -> int | None:
        """Largest label plus one over all labelled parts; None without labels."""
        labels = [x for x in (self.labels_train, self.labels_validation, self.labels_test) if x is not None]
        return 1 + max(int(x.max()) for x in labels if len(x)) if labels else None

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of a SHA-256 over pixels, labels and split: equal exactly when the data are."""
        digest = hashlib.sha256()
        for part in PARTS:
            for array in (getattr(self, part), getattr(self, f"labels_{part}")):
                # the shape too: a moved border is another split
                digest.update(f"{part} {None if array is None else tuple(array.shape)};".encode())
                if array is not None:
                    digest.update(memoryview(array.cpu().contiguous().numpy()).cast("B"))
        return digest.hexdigest()[:16]

    def record(self) -> DataRecord:
        """What a run writes down about its data."""
        return DataRecord(
            name=self.name,
            image_shape=self.image_shape,
            pixel_range=self.pixel_range,
            sizes=self.sizes,
            mean=self.mean,
            std=self.std,
            classes=self.classes,
            fingerprint=self.fingerprint,
            white_level=self.white_level,
        )

    def to(self, device: torch.device | str) -> ImageData:
        """The same data with every tensor on ``device``."""
        tensors: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **tensors)

    def to_unit(self, x: Tensor) -> Tensor:
        """``x`` (any shape, pixel units) mapped so that ``pixel_range`` becomes [0, 1]; nothing is clamped."""
        low, high = self.pixel_range
        return (x - low) / (high - low)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{n} {part}" for part, n in self.sizes.items())
        low, high = self.pixel_range
        levels = "" if self.white_level is None else f" from levels 0..{self.white_level}"
        return f"ImageData({self.name}: {describe_shape(self.train)}, {sizes}, pixels in [{low:g}, {high:g}]{levels})"


images_or_set = checks.either(checks.made(ImageData, "an image set"), checks.images)
"""An ImageData, or a tensor of images, as an argument."""


def check_pixel_range(pixel_range: PixelRange) -> PixelRange:
    """``(lo, hi)`` as floats; raises :class:`DataError` unless both are finite and lo < hi."""
    try:
        low, high = (float(v) for v in pixel_range)
    except (TypeError, ValueError) as error:
        raise DataError(f"pixel_range must be two numbers such as (0, 1), got {pixel_range!r}") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise DataError(f"pixel_range must be (low, high) with low < high, both finite; got ({low:g}, {high:g})")
    return (low, high)


def describe_shape(images: Tensor) -> str:
    """``CxHxW`` of images (N, C, H, W), for messages."""
    return "x".join(str(n) for n in images.shape[1:])
