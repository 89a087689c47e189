"""Photographs of any side judged by a classifier of small ones: the whole brought to its size, and tiles at full size.

Classifiers that learn from some 3,000 photographs hardly tell what networks add to a linear filter.  Those of CIFAR-10
have seen 45,000, of other things; that features of other images judge is what the usual FID does, too.  They see 32 x
32 pixels.  A larger image is seen twice: averaged to that size, and as it is, in the tiles round its centre.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from phasewise.metrics import ClassifierFeatures
from phasewise.metrics.feature_base import FeatureNetwork, frozen

TILES = 2
"""A side."""


class Borrowed(FeatureNetwork):
    """``judge`` of small square images, for larger ones whose side is a multiple of theirs: its features of the whole
    image, averaged down, and behind them the mean of those of the tiles round the centre."""

    trained = True

    def __init__(self, judge: ClassifierFeatures, side: int) -> None:
        assert judge.image_shape is not None
        channels, own, _ = judge.image_shape
        assert side % own == 0, f"{side} is no multiple of {own}"
        assert side > own, f"images of {own} pixels need no borrowed judge"
        super().__init__(judge.name, 2 * judge.dim, (channels, side, side), judge.pixel_range, judge.test_accuracy)
        self.judge, self.side = judge, own
        frozen(self)

    def forward(self, images: Tensor) -> Tensor:
        whole, seen = images.shape[-1], TILES * self.side
        first = (whole - seen) // 2
        centre = images[..., first : first + seen, first : first + seen]
        cut = centre.unfold(2, self.side, self.side).unfold(3, self.side, self.side)  # (N, C, k, k, s, s)
        tiles = self.judge(cut.permute(2, 3, 0, 1, 4, 5).flatten(0, 2)).unflatten(0, (-1, len(images))).mean(0)
        return torch.cat([self.judge(F.avg_pool2d(images, whole // self.side)), tiles], 1)
