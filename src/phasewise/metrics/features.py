r"""Named feature networks: maps ``phi: image -> R^D`` in which sets of images are compared.

A Frechet distance means nothing without its ``phi``, so every network here carries a plain ``name``:

* :class:`ClassifierFeatures`: penultimate layer (after its ReLU) of a small classifier trained on the data's own
  labels, multiplied by one number so that over the training images the D features have mean variance 1.  Features
  that collapse onto their mean are therefore at distance D.
* :class:`InceptionFeatures`: the usual FID network, where its weights are already on disk.
* :class:`PCAFeatures`: leading principal components in pixel units, for data without labels.
* :class:`RandomFeatures`: a fixed random convolutional network, for images without any data to fit.

Distances on the last two are Frechet distances, but not FID, and their names say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from phasewise import checks, seeding
from phasewise.errors import PhasewiseError, unknown
from phasewise.metrics.classifier import (
    FeatureConfig,
    Progress,
    cache_name,
    cached_classifier,
    classifier_work,
    labelled,
)
from phasewise.metrics.feature_base import FeatureNetwork, check_images, frozen
from phasewise.processor import fast_in_bfloat16
from phasewise.shapes import ImageShape
from phasewise.work import Work

if TYPE_CHECKING:
    from phasewise.data import ImageData

KINDS = ("auto", "classifier", "inception", "pca", "random")


class RandomFeatures(FeatureNetwork):
    """Two convolutions with fixed random weights, 2 x 2 average pooling and a random projection. Not FID."""

    @checks.checked(image_shape=checks.image_shape, seed=checks.seed, dim=checks.count)
    def __init__(
        self, image_shape: ImageShape, seed: int = 0, dim: int = 64, pixel_range: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        name = f"fixed random convolutional features ({dim} dimensions, seed {seed}; not FID)"
        super().__init__(name, dim, image_shape, pixel_range)
        generator = seeding.plain(seed)
        stride = math.ceil(max(image_shape[1:]) / 16)
        self.first = nn.Conv2d(image_shape[0], 32, stride + 2, stride, padding=1)
        self.second = nn.Conv2d(32, 64, 3, padding=1)
        self.last = nn.Linear(256, dim)
        for weight in self.parameters():
            # variance 2 / fan-in keeps what passes a ReLU of order one (He et al. 2015, arXiv 1502.01852)
            fan = weight[0].numel() if weight.dim() > 1 else 4
            weight.data = torch.randn(weight.shape, generator=generator) * math.sqrt(2 / fan)
        frozen(self)

    def forward(self, images: Tensor) -> Tensor:
        low, high = self.pixel_range
        x = self.first((2 * images - low - high) / (high - low)).relu()  # pixels in [-1, 1]
        return self.last(nn.functional.adaptive_avg_pool2d(self.second(x).relu(), 2).flatten(1))


class PCAFeatures(FeatureNetwork):
    """Coordinates along the leading principal components, in pixel units: ``(x - mean) @ components.T``.  Not FID.

    The Frechet distance on them is the squared 2-Wasserstein distance between Gaussians fitted to the projected images.
    """

    mean: Tensor
    components: Tensor

    def __init__(self, mean: Tensor, components: Tensor, pixel_range: tuple[float, float] = (0.0, 1.0)) -> None:
        name = f"principal components of the pixels ({components.shape[0]} dimensions; not FID)"
        super().__init__(name, components.shape[0], (mean.shape[0], mean.shape[1], mean.shape[2]), pixel_range)
        self.register_buffer("mean", mean.float())
        self.register_buffer("components", components.float())

    @classmethod
    @checks.checked(images=checks.tensor, dim=checks.count, seed=checks.seed)
    def fit(
        cls, images: Tensor, dim: int = 64, seed: int = 0, pixel_range: tuple[float, float] = (0.0, 1.0)
    ) -> PCAFeatures:
        """From (N, C, H, W) images; ``dim`` is lowered to N - 1 or C H W where there are not more.

        Large images go through a randomised decomposition seeded by ``seed`` (Halko et al. 2011, arXiv 0909.4061).
        """
        from sklearn.decomposition import PCA

        images = check_images(images, None)
        if images.shape[0] < 2:
            raise PhasewiseError("principal components need at least two images")
        pixels = images.flatten(1).cpu().numpy()
        rank = min(dim, pixels.shape[0] - 1, pixels.shape[1])  # n centred images span at most n - 1 directions
        found = PCA(n_components=rank, random_state=seeding.narrow(seed)).fit(pixels)
        mean = torch.from_numpy(found.mean_).reshape(images.shape[1:])
        return cls(mean, torch.from_numpy(found.components_), pixel_range)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean).flatten(1) @ self.components.T


class InceptionFeatures(FeatureNetwork):
    """2,048 pooled features of a given Inception-v3 that takes (N, 3, H, W) uint8. Grey images are repeated thrice."""

    trained = True

    def __init__(self, inception: nn.Module, pixel_range: tuple[float, float] = (0.0, 1.0), dim: int = 2048) -> None:
        super().__init__(f"Inception-v3 pool features ({dim} dimensions)", dim, None, pixel_range)
        self.inception = inception
        frozen(self)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1] not in (1, 3):
            raise PhasewiseError(f"Inception takes grey or RGB images, not {images.shape[1]} channels")
        low, high = self.pixel_range
        x = ((images - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8)  # what the network takes
        return self.inception(x.expand(-1, 3, -1, -1))


@checks.checked(weights=checks.file)
def inception_features(
    weights: str | Path | None = None, pixel_range: tuple[float, float] = (0.0, 1.0)
) -> InceptionFeatures:
    """The FID network of Heusel et al. 2017 (arXiv 1706.08500), from torch-fidelity's weights file. Downloads nothing.

    ``weights``: that file; None looks in torch.hub's checkpoint folder.  Raises :class:`PhasewiseError` when the file
    or the package torch-fidelity is missing.
    """
    path = _need_inception(weights)
    from torchmetrics.image.fid import NoTrainInceptionV3

    return InceptionFeatures(NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path)), pixel_range)


def check_features(data: ImageData, kind: str) -> None:
    """Raise :class:`PhasewiseError` where :func:`default_features` would, without making them."""
    if kind == "inception":
        _need_inception(None)
    elif kind == "classifier":
        labelled(data)


def _need_inception(weights: str | Path | None) -> Path:
    """The weights file, where it and the packages are there."""
    default = Path(torch.hub.get_dir()) / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    path = default if weights is None else Path(weights)
    if not path.is_file():
        raise PhasewiseError(
            f"no Inception weights at {path}; put torch-fidelity's weights file there, or use default_features(data)"
        )
    try:
        import torch_fidelity  # type: ignore[import-not-found]  # noqa: F401
        import torchmetrics.image.fid  # noqa: F401
    except ImportError as error:
        raise PhasewiseError(
            f"Inception features need torchmetrics and torch-fidelity ({error}): install them, "
            "or use default_features(data)"
        ) from error
    return path


@checks.checked(
    seed=checks.seed,
    cache_dir=checks.file,
    progress=checks.function,
    device=checks.device,
    kind=checks.one_of(KINDS, "features"),
)
def default_features(
    data: ImageData | Tensor,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
    kind: str = "auto",
) -> FeatureNetwork:
    """The feature network of ``kind``: "auto", "classifier", "inception", "pca" or "random".

    "auto" is a classifier where ``data`` has labels of two or more classes, principal components otherwise.  A trained
    classifier is kept in ``cache_dir`` under the data's fingerprint and the seed, and found there next time.
    """
    if kind not in KINDS:
        raise PhasewiseError(unknown("features", kind, KINDS))
    images = data if isinstance(data, Tensor) else data.train
    bounds = (0.0, 1.0) if isinstance(data, Tensor) else data.pixel_range
    if kind == "inception":
        return inception_features(pixel_range=bounds).to(device)
    if kind == "random":
        shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
        return RandomFeatures(shape, seed, pixel_range=bounds).to(device)
    labels = None if isinstance(data, Tensor) else data.labels_train
    if kind == "pca" or (kind == "auto" and (labels is None or int(labels.min()) == int(labels.max()))):
        return PCAFeatures.fit(images, seed=seed, pixel_range=bounds).to(device)
    if isinstance(data, Tensor):
        raise PhasewiseError("classifier features need labels; give an ImageData with labels, or features 'pca'")
    return cached_classifier(data, seed, cache_dir, progress, device, **_recipe(data.image_shape[0], unseen=False))


RECIPES: dict[tuple[bool, bool], dict[str, Any]] = {
    (False, False): {},
    (False, True): {"architecture": "residual", "width": 16, "most": 10},
    (True, False): {"architecture": "residual", "width": 32, "flip": True},
    (True, True): {"architecture": "plain", "width": 64, "flip": True},
}
"""By (colour, unseen): what the two judges' classifiers are trained by.  They differ in architecture.  A few plain
convolutions tell grey shapes apart, but not what photographs show; there, mirror images are as likely."""


def _recipe(channels: int, unseen: bool) -> dict[str, Any]:
    found = dict(RECIPES[channels > 1, unseen])
    if channels > 1 and fast_in_bfloat16():
        found["precision"] = "bfloat16"
    return found


@checks.checked(
    seed=checks.seed,
    cache_dir=checks.file,
    progress=checks.function,
    device=checks.device,
    kind=checks.one_of(KINDS, "features"),
)
def unseen_features(
    data: ImageData | Tensor,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
    kind: str = "auto",
) -> FeatureNetwork:
    """A second feature network beside ``default_features(.., kind=kind)`` of the same ``seed``, for a judge that no
    penalty sees: of another architecture, with weights, order of images and shifts of its own.

    A classifier where ``data`` has labels of two or more classes, residual for grey images as the first one is for
    colour (:data:`RECIPES`); else random features, or principal components where the first are random.  A classifier is
    kept in ``cache_dir`` and found there next time.
    """
    labels = None if isinstance(data, Tensor) else data.labels_train
    own = _unseen_seed(seed)
    if isinstance(data, Tensor) or labels is None or int(labels.min()) == int(labels.max()):
        return default_features(data, own, device=device, kind="pca" if kind == "random" else "random")
    return cached_classifier(data, own, cache_dir, progress, device, **_recipe(data.image_shape[0], unseen=True))


@dataclass(frozen=True)
class FeatureWork:
    """What a feature network takes: ``making`` it, and one ``reading`` of one image."""

    making: tuple[Work, ...]
    reading: Work


def feature_work(
    data: ImageData, n: int, classes: int | None, kind: str, unseen: bool, device: str | torch.device = "cpu"
) -> FeatureWork | None:
    """Of :func:`default_features` (``unseen``: of :func:`unseen_features`) of this ``kind`` for ``n`` images like the
    few of ``data``, labelled with ``classes`` or not at all (None).

    None of a network that is not made here.
    """
    labelled_ = classes is not None and classes > 1
    if kind == "inception" and not unseen:
        return None
    if labelled_ and (unseen or kind in ("auto", "classifier")):
        assert classes is not None
        making = classifier_work(data, n, classes, device, **_recipe(data.image_shape[0], unseen))
        return FeatureWork(tuple(making[:2]), Work(making[1].once, 1 / len(data.train)))
    images, making = data.train.to(device), []
    network: FeatureNetwork = RandomFeatures(data.image_shape, pixel_range=data.pixel_range)
    if unseen == (kind == "random"):
        network = PCAFeatures.fit(images, pixel_range=data.pixel_range)
        making = [Work(lambda: PCAFeatures.fit(images), n / len(images))]
    network = network.to(device)
    return FeatureWork(tuple(making), Work(lambda: network.extract(images), 1 / len(images)))


def kept_name(fingerprint: str, channels: int, seed: int, unseen: bool = False) -> str:
    """Name of the folder that keeps the classifier of :func:`default_features`, or of :func:`unseen_features`, of
    images of so many ``channels``."""
    return cache_name(fingerprint, _unseen_seed(seed) if unseen else seed, **RECIPES[channels > 1, unseen])


def is_judge(about: FeatureConfig, fingerprint: str, channels: int, seed: int, unseen: bool = False) -> bool:
    """Whether the classifier of this description was trained as :func:`default_features`, or :func:`unseen_features`,
    of this ``seed`` would train one on the images of this ``fingerprint``, but perhaps for more passes or fewer."""
    asked = {"architecture": "plain", "width": 32} | RECIPES[channels > 1, unseen]
    own_seed = _unseen_seed(seed) if unseen else seed
    made = about.training.get("fingerprint"), about.training.get("seed"), about.architecture, about.width
    return made == (fingerprint, own_seed, asked["architecture"], asked["width"])


def _unseen_seed(seed: int) -> int:
    return seeding.stage_seed(seed, seeding.Stage.UNSEEN)
