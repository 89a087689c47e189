"""What every feature network is: a named, frozen map from images to R^D."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from phasewise import checks
from phasewise.errors import PhasewiseError
from phasewise.memory import not_finite
from phasewise.results import FRECHET
from phasewise.shapes import ImageShape


class FeatureNetwork(nn.Module, ABC):
    """``network(images) -> features``: (N, C, H, W) float in ``pixel_range`` -> (N, D) float32, frozen.

    Values outside ``pixel_range`` are taken as they are: a sampler's overshoot is part of what is judged.

    Attributes:
        name: plain description, printed beside every number computed with this network.
        dim: D.
        image_shape: (C, H, W), or None when any size is taken.
        pixel_range: the two numbers that stand for black and white.
        test_accuracy: fraction correct on held-out test images, or None for a network that does not classify.
        trained: whether its weights were learned from images; a class of yours says so itself.
    """

    trained: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        dim: int,
        image_shape: ImageShape | None,
        pixel_range: tuple[float, float] = (0.0, 1.0),
        test_accuracy: float | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.dim = int(dim)
        self.image_shape = None if image_shape is None else (image_shape[0], image_shape[1], image_shape[2])
        self.pixel_range = (float(pixel_range[0]), float(pixel_range[1]))
        self.test_accuracy = test_accuracy

    def __repr__(self) -> str:
        """One line; ``torch.nn.Module.__repr__(network)`` lists its layers."""
        return f"{type(self).__name__}({self.name!r}, {self.dim} features)"

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor: ...

    @property
    def distance(self) -> str:
        """What a Frechet distance in these features is called: FID for a trained network alone."""
        return "FID" if self.trained else FRECHET

    @property
    def num_features(self) -> int:
        """D, under the name torchmetrics asks for."""
        return self.dim

    def digest(self) -> str:
        """What it is made of, in 64 characters: class, weights and moments, pixel range.  Two networks of one digest
        give the same features, whatever they are called."""
        return tensors_digest(self, repr((type(self).__qualname__, self.dim, self.pixel_range)))

    def extract(self, images: Tensor, batch: int = 256) -> Tensor:
        """Features of (N, C, H, W) images on this network's device, ``batch`` at a time: (N, D) float32 on the CPU.

        Raises :class:`PhasewiseError` on a wrong shape, an empty set, or NaN and infinite pixels.
        """
        return map_batches(self, self, images, batch)


def tensors_digest(module: nn.Module, about: str = "") -> str:
    """SHA-256, in hex digits, of ``about`` and of all weights and buffers of ``module``, by name, type and shape."""
    found = hashlib.sha256(about.encode())
    for name, value in sorted(module.state_dict().items()):
        plain = value.detach().cpu().contiguous()
        found.update(repr((name, plain.dtype, tuple(plain.shape))).encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


a_feature_network = checks.made(
    FeatureNetwork, "a feature network", "make one by phasewise.metrics.default_features(data)"
)
"""A feature network, as an argument."""


def map_batches(network: FeatureNetwork, function: Callable[[Tensor], Tensor], images: Tensor, batch: int) -> Tensor:
    """``function`` over checked ``images`` in batches, without gradients, in evaluation mode."""
    images, batch = check_images(images, network.image_shape), checks.count(batch, "batch")
    device = next((t.device for t in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            parts = [function(part.to(device, torch.float32)).float().cpu() for part in images.split(batch)]
    finally:
        network.train(training)
    return torch.cat(parts)


def check_images(images: Tensor, image_shape: ImageShape | None) -> Tensor:
    """``images`` as a tensor; PhasewiseError unless they are finite float (N, C, H, W), N >= 1, of that shape."""
    images = checks.tensor(images, "images")
    if images.dim() != 4 or images.shape[0] < 1:
        raise PhasewiseError(f"images must have shape (N, C, H, W) with N >= 1, got {tuple(images.shape)}")
    if image_shape is not None and tuple(images.shape[1:]) != image_shape:
        raise PhasewiseError(
            f"images of shape {tuple(images.shape[1:])} do not fit a feature network for {image_shape}; "
            "resize or crop them, or build features for this size"
        )
    if not images.is_floating_point():
        raise PhasewiseError(f"images must be floating point in the data's pixel range, got {images.dtype}")
    bad = not_finite(images)
    if bad:
        raise PhasewiseError(
            f"{bad} of {images.shape[0]} images contain NaN or infinite pixels; the sampler diverged: "
            "use more steps, or check the denoiser"
        )
    return images


def frozen(network: Any) -> Any:
    """``network`` in evaluation mode, without gradients."""
    return network.eval().requires_grad_(False)
