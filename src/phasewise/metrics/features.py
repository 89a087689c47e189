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

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import read_json, write_bytes, write_json

if TYPE_CHECKING:
    from phasewise.data import ImageData

ImageShape = tuple[int, int, int]
Progress = Callable[[int, int], None]

FORMAT = 1
CONFIG_FILE = "features.json"
WEIGHTS_FILE = "features.safetensors"

KINDS = ("auto", "classifier", "inception", "pca", "random")


class FeatureNetwork(nn.Module, ABC):
    """``network(images) -> features``: (N, C, H, W) float in ``pixel_range`` -> (N, D) float32, frozen.

    Values outside ``pixel_range`` are taken as they are: a sampler's overshoot is part of what is judged.

    Attributes:
        name: plain description, printed beside every number computed with this network.
        dim: D.
        image_shape: (C, H, W), or None when any size is taken.
        pixel_range: the two numbers that stand for black and white.
        test_accuracy: fraction correct on held-out test images, or None for a network that does not classify.
    """

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

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor: ...

    @property
    def num_features(self) -> int:
        """D, under the name torchmetrics asks for."""
        return self.dim

    def extract(self, images: Tensor, batch: int = 256) -> Tensor:
        """Features of (N, C, H, W) images on this network's device, ``batch`` at a time: (N, D) float32 on the CPU.

        Raises :class:`PhasewiseError` on a wrong shape, an empty set, or NaN and infinite pixels.
        """
        return map_batches(self, self, images, batch)


def map_batches(network: FeatureNetwork, function: Callable[[Tensor], Tensor], images: Tensor, batch: int) -> Tensor:
    """``function`` over checked ``images`` in batches, without gradients, in evaluation mode."""
    _check_images(images, network.image_shape)
    if batch < 1:
        raise PhasewiseError(f"batch must be at least 1, got {batch}")
    device = next((t.device for t in (*network.parameters(), *network.buffers())), torch.device("cpu"))
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            parts = [function(part.to(device, torch.float32)).float().cpu() for part in images.split(batch)]
    finally:
        network.train(training)
    return torch.cat(parts)


def _check_images(images: Tensor, image_shape: ImageShape | None) -> None:
    if images.dim() != 4 or images.shape[0] < 1:
        raise PhasewiseError(f"images must have shape (N, C, H, W) with N >= 1, got {tuple(images.shape)}")
    if image_shape is not None and tuple(images.shape[1:]) != image_shape:
        raise PhasewiseError(
            f"images of shape {tuple(images.shape[1:])} do not fit a feature network for {image_shape}; "
            "resize or crop them, or build features for this size"
        )
    if not images.is_floating_point():
        raise PhasewiseError(f"images must be floating point in the data's pixel range, got {images.dtype}")
    bad = int((~torch.isfinite(images).flatten(1).all(1)).sum())
    if bad:
        raise PhasewiseError(
            f"{bad} of {images.shape[0]} images contain NaN or infinite pixels; the sampler diverged: "
            "use more steps, or check the denoiser"
        )


class ClassifierFeatures(FeatureNetwork):
    """A four-layer convolutional classifier; features are ``scale *`` its penultimate layer after the ReLU.

    The first convolution has a stride that brings any image to at most 16 x 16.  Make one with
    :func:`train_classifier` or :meth:`load`.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor

    def __init__(self, image_shape: ImageShape, classes: int, width: int = 32, dim: int = 64, **about: Any) -> None:
        super().__init__(about.pop("name", "untrained classifier"), dim, image_shape, **about)
        self.classes, self.width = int(classes), int(width)
        channels, stride = image_shape[0], math.ceil(max(image_shape[1:]) / 16)
        self.trunk = nn.Sequential(
            _convolution(channels, width, stride + 2, stride),
            _convolution(width, width, 3, 1),
            _convolution(width, 2 * width, 3, 2),
            _convolution(2 * width, 2 * width, 3, 1),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.embed = nn.Sequential(nn.Linear(8 * width, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU())
        self.head = nn.Linear(dim, self.classes)
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        self.register_buffer("scale", torch.ones(()))
        self.training_record: dict[str, Any] = {}
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def penultimate(self, images: Tensor) -> Tensor:
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.embed(self.trunk(x))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.penultimate(images)

    def logits(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes), before the softmax."""
        return self.head(self.penultimate(images))

    def probabilities(self, images: Tensor, batch: int = 256) -> Tensor:
        """(N, C, H, W) -> (N, classes) on the CPU; rows sum to 1."""
        return map_batches(self, lambda x: self.logits(x).softmax(1), images, batch)

    def accuracy(self, images: Tensor, labels: Tensor, batch: int = 256) -> float:
        """Fraction of ``images`` put into their class, ``labels`` (N,) integers."""
        return float((self.probabilities(images, batch).argmax(1) == labels.cpu()).double().mean())

    def config(self) -> dict[str, Any]:
        """JSON-ready: constructor arguments and how the network was trained."""
        keys = ("image_shape", "classes", "width", "dim", "name", "pixel_range", "test_accuracy")
        return {"format": FORMAT, **{k: getattr(self, k) for k in keys}, "training": self.training_record}

    def save(self, folder: str | Path) -> Path:
        """Write weights and then their description into ``folder``; returns it."""
        folder = Path(folder)
        state = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        content = safetensors.torch.save(state)
        write_bytes(folder / WEIGHTS_FILE, content)
        write_json(folder / CONFIG_FILE, {**self.config(), "sha256": hashlib.sha256(content).hexdigest()})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> ClassifierFeatures:
        """The network saved in ``folder``, on the CPU.  Raises :class:`CheckpointError` when it is damaged."""
        folder = Path(folder)
        mend = "delete the folder and train the features again"
        config = read_json(folder / CONFIG_FILE)
        try:
            if config.pop("format") != FORMAT:
                raise CheckpointError(f"{folder} was written by another version of phasewise; {mend}")
            digest, training = config.pop("sha256"), config.pop("training")
            config["image_shape"] = tuple(config["image_shape"])
            content = (folder / WEIGHTS_FILE).read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise CheckpointError(f"{folder / WEIGHTS_FILE} does not belong to its {CONFIG_FILE}; {mend}")
            network = cls(**config)
            network.load_state_dict(safetensors.torch.load(content))
        except (OSError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"cannot load features from {folder} ({error}); {mend}") from error
        network.training_record = training
        return _frozen(network)


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _frozen(network: Any) -> Any:
    return network.eval().requires_grad_(False)


def train_classifier(
    data: ImageData,
    seed: int = 0,
    epochs: int | None = None,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> ClassifierFeatures:
    """Train :class:`ClassifierFeatures` on ``data.train`` and ``data.labels_train``; measure it on ``data.test``.

    Args:
        seed: fixes initial weights, order of images and shifts; the caller's random state is untouched.
        epochs: None gives about 1,500 steps within 4 (8 in colour) to 20 passes.
        progress: called as ``progress(steps done, steps in all)`` after each step.

    Raises :class:`PhasewiseError` when there are no labels, fewer than two classes, or images of constant colour.
    """
    images, labels, classes = _labelled(data)
    if epochs is not None and epochs < 1:
        raise PhasewiseError(f"epochs must be at least 1, got {epochs}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = ClassifierFeatures(data.image_shape, classes, pixel_range=data.pixel_range)
    std, mean = torch.std_mean(images, dim=(0, 2, 3), keepdim=True, correction=0)
    if not bool((std > 0).all()):
        raise PhasewiseError("a channel of the training images is constant; drop it or check the data")
    network.mean.copy_(mean)
    network.std.copy_(std)
    network.to(device)
    passes = _epochs(images) if epochs is None else epochs
    _fit(network, images, labels, passes, torch.Generator().manual_seed(seed), progress)
    _frozen(network)
    network.scale.copy_(network.extract(images).double().var(0).mean().rsqrt())
    _describe(network, data, seed, passes)
    return network


def _labelled(data: ImageData) -> tuple[Tensor, Tensor, int]:
    labels = getattr(data, "labels_train", None)
    if labels is None:
        raise PhasewiseError("these images have no labels to train a classifier on; use PCAFeatures.fit(images)")
    _check_images(data.train, None)
    if labels.shape != data.train.shape[:1] or int(labels.min()) < 0:
        raise PhasewiseError("labels must be whole numbers >= 0, one per training image")
    if int(labels.min()) == int(labels.max()):
        raise PhasewiseError("all training labels are equal, no classifier can be trained; use PCAFeatures.fit(images)")
    return data.train.float().cpu(), labels.long().cpu(), int(labels.max()) + 1


def _batch(n: int) -> int:
    return min(n, 64 if n < 5000 else 128)


def _epochs(images: Tensor) -> int:
    steps = max(1, images.shape[0] // _batch(images.shape[0]))
    return min(20, max(4 if images.shape[1] == 1 else 8, math.ceil(1500 / steps)))


def _fit(
    network: ClassifierFeatures,
    images: Tensor,
    labels: Tensor,
    epochs: int,
    generator: torch.Generator,
    progress: Progress | None,
) -> None:
    n, batch, device = images.shape[0], _batch(images.shape[0]), network.mean.device
    total = epochs * (n // batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=total, pct_start=0.2)
    network.train()
    for step in range(total):
        if step % (n // batch) == 0:
            order = torch.randperm(n, generator=generator)
        chosen = order[: n // batch * batch].reshape(-1, batch)[step % (n // batch)]
        shifted = random_shift(images[chosen], max(images.shape[2:]) // 14, generator)
        loss = nn.functional.cross_entropy(network.logits(shifted.to(device)), labels[chosen].to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step + 1 < total:
            rate.step()
        if progress is not None:
            progress(step + 1, total)


def random_shift(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each of (B, C, H, W) images moved by up to ``most`` pixels either way, edge pixels repeated."""
    if most == 0:
        return images
    count, _, height, width = images.shape
    windows = nn.functional.pad(images, (most,) * 4, mode="replicate").unfold(2, height, 1).unfold(3, width, 1)
    rows, columns = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    return windows[torch.arange(count), :, rows, columns]


def _describe(network: ClassifierFeatures, data: ImageData, seed: int, epochs: int) -> None:
    labels = getattr(data, "labels_test", None)
    if labels is not None and len(labels):
        network.test_accuracy = network.accuracy(data.test, labels)
    accuracy = "not measured" if network.test_accuracy is None else f"{100 * network.test_accuracy:.2f} %"
    network.name = (
        f"classifier features of {data.name} ({network.dim} dimensions, seed {seed}, test accuracy {accuracy})"
    )
    network.training_record = {
        "data": data.name,
        "fingerprint": data.fingerprint,
        "seed": seed,
        "epochs": epochs,
        "n": int(data.train.shape[0]),
    }


class RandomFeatures(FeatureNetwork):
    """Two convolutions with fixed random weights, 2 x 2 average pooling and a random projection. Not FID."""

    def __init__(
        self, image_shape: ImageShape, seed: int = 0, dim: int = 64, pixel_range: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        name = f"fixed random convolutional features ({dim} dimensions, seed {seed}; not FID)"
        super().__init__(name, dim, image_shape, pixel_range)
        generator = torch.Generator().manual_seed(seed)
        stride = math.ceil(max(image_shape[1:]) / 16)
        self.first = nn.Conv2d(image_shape[0], 32, stride + 2, stride, padding=1)
        self.second = nn.Conv2d(32, 64, 3, padding=1)
        self.last = nn.Linear(256, dim)
        for weight in self.parameters():
            fan = weight[0].numel() if weight.dim() > 1 else 4
            weight.data = torch.randn(weight.shape, generator=generator) * math.sqrt(2 / fan)
        _frozen(self)

    def forward(self, images: Tensor) -> Tensor:
        low, high = self.pixel_range
        x = self.first((2 * images - low - high) / (high - low)).relu()
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
    def fit(
        cls, images: Tensor, dim: int = 64, seed: int = 0, pixel_range: tuple[float, float] = (0.0, 1.0)
    ) -> PCAFeatures:
        """From (N, C, H, W) images; ``dim`` is lowered to N - 1 or C H W where there are not more.

        Large images go through a randomised decomposition seeded by ``seed`` (Halko et al. 2011, arXiv 0909.4061).
        """
        from sklearn.decomposition import PCA

        _check_images(images, None)
        if images.shape[0] < 2:
            raise PhasewiseError("principal components need at least two images")
        pixels = images.flatten(1).cpu().numpy()
        rank = min(dim, pixels.shape[0] - 1, pixels.shape[1])
        found = PCA(n_components=rank, random_state=seed).fit(pixels)
        mean = torch.from_numpy(found.mean_).reshape(images.shape[1:])
        return cls(mean, torch.from_numpy(found.components_), pixel_range)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean).flatten(1) @ self.components.T


class InceptionFeatures(FeatureNetwork):
    """2,048 pooled features of a given Inception-v3 that takes (N, 3, H, W) uint8. Grey images are repeated thrice."""

    def __init__(self, inception: nn.Module, pixel_range: tuple[float, float] = (0.0, 1.0), dim: int = 2048) -> None:
        super().__init__(f"Inception-v3 pool features ({dim} dimensions)", dim, None, pixel_range)
        self.inception = inception
        _frozen(self)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1] not in (1, 3):
            raise PhasewiseError(f"Inception takes grey or RGB images, not {images.shape[1]} channels")
        low, high = self.pixel_range
        x = ((images - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8)  # what the network takes
        return self.inception(x.expand(-1, 3, -1, -1))


def inception_features(
    weights: str | Path | None = None, pixel_range: tuple[float, float] = (0.0, 1.0)
) -> InceptionFeatures:
    """The FID network of Heusel et al. 2017 (arXiv 1706.08500), from torch-fidelity's weights file. Downloads nothing.

    ``weights``: that file; None looks in torch.hub's checkpoint folder.  Raises :class:`PhasewiseError` when the file
    or the package torch-fidelity is missing.
    """
    default = Path(torch.hub.get_dir()) / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    path = default if weights is None else Path(weights)
    if not path.is_file():
        raise PhasewiseError(
            f"no Inception weights at {path}; put torch-fidelity's weights file there, or use default_features(data)"
        )
    try:
        import torch_fidelity  # type: ignore[import-not-found]  # noqa: F401
        from torchmetrics.image.fid import NoTrainInceptionV3
    except ImportError as error:
        raise PhasewiseError(
            f"Inception features need torchmetrics and torch-fidelity ({error}): install them, "
            "or use default_features(data)"
        ) from error
    return InceptionFeatures(NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path)), pixel_range)


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
        raise PhasewiseError(f"unknown features {kind!r}; known: {', '.join(KINDS)}")
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
    return _cached_classifier(data, seed, cache_dir, progress, device)


def _cached_classifier(
    data: ImageData, seed: int, cache_dir: str | Path | None, progress: Progress | None, device: str | torch.device
) -> ClassifierFeatures:
    folder = None if cache_dir is None else Path(cache_dir) / f"classifier-{data.fingerprint[:16]}-seed{seed}"
    if folder is not None and (folder / CONFIG_FILE).is_file():
        return ClassifierFeatures.load(folder).to(device)
    network = train_classifier(data, seed=seed, progress=progress, device=device)
    if folder is not None:
        network.save(folder)
    return network


def classifier_summary(samples: Tensor, classifier: ClassifierFeatures, batch: int = 256) -> dict[str, Any]:
    """How a classifier sees ``samples`` (N, C, H, W).  Samples have no true class, so there is no accuracy.

    Entropies in nats, with p(c|x) the classifier's probabilities and H(p) = -sum p log p:

    * ``confidence``: mean of max_c p(c|x), and ``confidence_stderr``;
    * ``entropy``: mean of H(p(.|x)), low when single samples look like one class;
    * ``class_entropy``: H of the mean prediction, at most log(classes), low when classes are missing;
    * ``histogram_entropy``: H of the fractions assigned to each class, and ``histogram`` those fractions.
    """
    p = classifier.probabilities(samples, batch).double()
    best, n = p.amax(1), p.shape[0]
    histogram = torch.bincount(p.argmax(1), minlength=p.shape[1]).double() / n
    return {
        "confidence": float(best.mean()),
        "confidence_stderr": float(best.std() / math.sqrt(n)) if n > 1 else math.nan,
        "entropy": float(_entropy(p).mean()),
        "class_entropy": float(_entropy(p.mean(0))),
        "histogram_entropy": float(_entropy(histogram)),
        "histogram": histogram.tolist(),
        "classes": int(p.shape[1]),
        "n": n,
    }


def _entropy(p: Tensor) -> Tensor:
    return -torch.special.xlogy(p, p).sum(-1)
