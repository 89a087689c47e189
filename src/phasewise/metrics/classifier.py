"""A small classifier trained on the data's own labels: its penultimate layer as features, its probabilities as a view.

The features are the penultimate layer after its ReLU, multiplied by one number so that over the training images the D
features have mean variance 1.  Features that collapse onto their mean are therefore at distance D.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor, nn

from phasewise import checks, seeding
from phasewise.errors import CheckpointError, PhasewiseError, unknown
from phasewise.files import read_json, regular, write_bytes, write_json
from phasewise.fit import Snapshot, minimise, one_cycle
from phasewise.metrics.feature_base import FeatureNetwork, check_images, frozen, map_batches
from phasewise.results import Record
from phasewise.shapes import ImageShape
from phasewise.tensors import build_to_fit, checked_state, read_tensors
from phasewise.work import Work

if TYPE_CHECKING:
    from phasewise.data import ImageData

Progress = Callable[[int, int], None]

FORMAT = 1
CONFIG_FILE = "features.json"
WEIGHTS_FILE = "features.safetensors"
UNFINISHED_FILE = "unfinished.safetensors"
PEAK_RATE = 5e-3


class ClassifierFeatures(FeatureNetwork):
    """A small classifier; features are ``scale *`` its penultimate layer after the ReLU.

    ``architecture``: "plain", four convolutions, the first with a stride that brings any image to at most 16 x 16;
    "residual", eight convolutions with two residual pairs and maxima over 2 x 2 pixels between them; "mixer", patches
    mixed by depthwise 5 x 5 convolutions and by perceptrons in turn (Trockman, Kolter 2022, arXiv 2201.09792).  Make
    one with :func:`train_classifier` or :meth:`load`.
    """

    trained = True
    mean: Tensor
    std: Tensor
    scale: Tensor

    @checks.checked(image_shape=checks.image_shape, classes=checks.count, width=checks.count, dim=checks.count)
    def __init__(
        self,
        image_shape: ImageShape,
        classes: int,
        width: int = 32,
        dim: int = 64,
        architecture: str = "plain",
        **about: Any,
    ) -> None:
        super().__init__(about.pop("name", "untrained classifier"), dim, image_shape, **about)
        if architecture not in TRUNKS:
            raise PhasewiseError(unknown("architecture of a classifier", architecture, TRUNKS))
        self.classes, self.width, self.architecture = int(classes), int(width), architecture
        channels = image_shape[0]
        self.trunk, found = TRUNKS[architecture](image_shape, width)
        self.embed = nn.Sequential(nn.Linear(found, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU())
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
        kind = {} if self.architecture == "plain" else {"architecture": self.architecture}
        return {"format": FORMAT, **{k: getattr(self, k) for k in keys}, **kind, "training": self.training_record}

    def halved(self) -> ClassifierFeatures:
        """This network, its weights rounded to half precision in place: what :meth:`save` with ``half`` keeps."""
        for value in self.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half())
        return self

    def save(self, folder: str | Path, half: bool = False) -> Path:
        """Write weights and then their description into ``folder``; returns it.  ``half``: in half precision, which
        rounds them, so that features are the same again only for a network that was :meth:`halved` before."""
        folder = Path(folder)
        state = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        if half:
            state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        content = safetensors.torch.save(state)
        write_bytes(folder / WEIGHTS_FILE, content)  # first: the description vouches for the weights by their digest
        write_json(folder / CONFIG_FILE, {**self.config(), "sha256": hashlib.sha256(content).hexdigest()})
        return folder

    @classmethod
    @checks.checked(folder=checks.file)
    def load(cls, folder: str | Path) -> ClassifierFeatures:
        """The network saved in ``folder``, on the CPU.  Raises :class:`CheckpointError` when it is damaged."""
        folder = Path(folder)
        mend = "delete the folder and train the features again"
        weights = folder / WEIGHTS_FILE
        try:
            about = FeatureConfig.from_dict(read_json(folder / CONFIG_FILE, mend))
            if about.format != FORMAT:
                raise CheckpointError(f"{folder} was written by another version of phasewise; {mend}")
            regular(weights)
            if hashlib.sha256(weights.read_bytes()).hexdigest() != about.sha256:
                raise CheckpointError(f"{weights} does not belong to its {CONFIG_FILE}; {mend}")
            network = build_to_fit(functools.partial(cls, **about.arguments()), weights, cls.__name__, mend)
            network.load_state_dict(checked_state(network, read_tensors(weights, mend)[0], weights, mend))
        except CheckpointError:
            raise
        except (OSError, PhasewiseError) as error:
            raise CheckpointError(f"cannot load features from {folder} ({error}); {mend}") from error
        variances = [value for name, value in network.state_dict().items() if name.endswith("running_var")]
        if not all(bool((value > 0).all()) for value in (network.std, network.scale, *(v + 1e-30 for v in variances))):
            raise CheckpointError(f"{weights}: a standard deviation or a scale is not above 0; {mend}")
        network.training_record = about.training
        return frozen(network)


@dataclass(frozen=True)
class FeatureConfig(Record):
    """What ``features.json`` holds: see :meth:`ClassifierFeatures.config`; ``sha256`` of the weights beside it."""

    format: int
    image_shape: tuple[int, int, int]
    classes: int
    width: int
    dim: int
    name: str
    pixel_range: tuple[float, float]
    sha256: str
    architecture: str = "plain"
    test_accuracy: float | None = None
    training: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        if min(*self.image_shape, self.classes, self.width, self.dim) < 1:
            raise PhasewiseError(f"image_shape, classes, width and dim must be at least 1; got {self}")
        low, high = self.pixel_range
        if not -math.inf < low < high < math.inf:
            raise PhasewiseError(f"pixel_range must be two finite numbers, low and high; got {low} and {high}")

    def arguments(self) -> dict[str, Any]:
        """Of the constructor."""
        return {k: v for k, v in vars(self).items() if k not in ("format", "sha256", "training")}


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


Trunk = tuple[nn.Module, int]
"""What comes before the last two layers, and how many numbers it gives for an image."""


def _plain(image_shape: ImageShape, width: int) -> Trunk:
    channels, stride = image_shape[0], math.ceil(max(image_shape[1:]) / 16)
    layers = (
        _convolution(channels, width, stride + 2, stride),
        _convolution(width, width, 3, 1),
        _convolution(width, 2 * width, 3, 2),
        _convolution(2 * width, 2 * width, 3, 1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )
    return nn.Sequential(*layers), 8 * width


class _Residual(nn.Module):
    """``x + inner(x)``."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def _residual(image_shape: ImageShape, width: int) -> Trunk:
    """Eight convolutions; images above 32 pixels are folded into channels first."""
    fold = max(math.ceil(max(image_shape[1:]) / 32), 1)
    pairs = [_Residual(_convolution(w, w, 3, 1), _convolution(w, w, 3, 1)) for w in (2 * width, 8 * width)]
    layers = (
        _Fold(fold),
        _convolution(image_shape[0] * fold**2, width, 3, 1),
        _convolution(width, 2 * width, 3, 1), nn.MaxPool2d(2), pairs[0],
        _convolution(2 * width, 4 * width, 3, 1), nn.MaxPool2d(2),
        _convolution(4 * width, 8 * width, 3, 1), nn.MaxPool2d(2, ceil_mode=True), pairs[1],
        nn.AdaptiveMaxPool2d(1), nn.Flatten(),
    )  # fmt: skip
    return nn.Sequential(*layers), 8 * width


class _Fold(nn.Module):
    """``fold x fold`` pixels into channels, zeros beyond the border."""

    def __init__(self, fold: int) -> None:
        super().__init__()
        self.fold = fold

    def forward(self, x: Tensor) -> Tensor:
        below, right = -x.shape[2] % self.fold, -x.shape[3] % self.fold
        return nn.functional.pixel_unshuffle(nn.functional.pad(x, (0, right, 0, below)), self.fold)


def _mixer(image_shape: ImageShape, width: int) -> Trunk:
    """Patches of about a sixteenth of the side, then eight blocks of four times ``width`` channels."""
    patch, wide = max(math.ceil(max(image_shape[1:]) / 16), 1), 4 * width

    def after(layer: nn.Module) -> nn.Sequential:
        return nn.Sequential(layer, nn.GELU(), nn.BatchNorm2d(wide))

    blocks = [
        nn.Sequential(
            _Residual(after(nn.Conv2d(wide, wide, 5, padding=2, groups=wide))), after(nn.Conv2d(wide, wide, 1))
        )
        for _ in range(8)
    ]
    stem = after(nn.Conv2d(image_shape[0], wide, patch, patch, _ceil_padding(image_shape, patch)))
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()), wide


def _ceil_padding(image_shape: ImageShape, patch: int) -> tuple[int, int]:
    """Pixels added at either border so that patches cover the image."""
    down, across = (-(-(-n % patch) // 2) for n in image_shape[1:])
    return down, across


TRUNKS: dict[str, Callable[[ImageShape, int], Trunk]] = {"plain": _plain, "residual": _residual, "mixer": _mixer}
"""What a classifier may be: judges of different kinds are fooled by different faults."""


@checks.checked(
    seed=checks.seed,
    epochs=checks.count,
    batch=checks.count,
    width=checks.count,
    flip=checks.flag,
    precision=checks.precision,
    unfinished=checks.file,
    progress=checks.function,
    device=checks.device,
)
def train_classifier(
    data: ImageData,
    seed: int = 0,
    epochs: int | None = None,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
    architecture: str = "plain",
    flip: bool = False,
    batch: int | None = None,
    width: int = 32,
    precision: str = "float32",
    unfinished: str | Path | None = None,
) -> ClassifierFeatures:
    """Train :class:`ClassifierFeatures` on ``data.train`` and ``data.labels_train``; measure it on ``data.test``.

    Args:
        seed: fixes initial weights, order of images and shifts; the caller's random state is untouched.
        epochs: None gives about 1,500 steps within 4 (14 in colour) to 20 passes.
        progress: called as ``progress(steps done, steps in all)`` after each step.
        architecture: "plain", "residual" or "mixer" (:class:`ClassifierFeatures`); the latter two learn much better in
            colour, and take longer.  flip: mirror every other image at random.
        batch: images a step; None: 64 below 5,000 images, 128 from there on.
        width: channels of the first layer, which the others are multiples of.
        precision: of products while training, "float32" or "bfloat16"; the latter is several times faster where the
            processor has matrix instructions for it, and slower where it has none.
        unfinished: file (.safetensors) that keeps a training which is cut off: the same call goes on from it.  Whoever
            named it deletes it once the network is saved.

    Raises :class:`PhasewiseError` when there are no labels, fewer than two classes, or images of constant colour, and
    :class:`CheckpointError` for an ``unfinished`` of another training.
    """
    images, labels, classes = labelled(data)
    if epochs is not None and epochs < 1:
        raise PhasewiseError(f"epochs must be at least 1, got {epochs}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeding.narrow(seed))  # torch.manual_seed would reset accelerators as well
        network = _untrained(data, classes, width, architecture)
    std, mean = torch.std_mean(images, dim=(0, 2, 3), keepdim=True, correction=0)
    if not bool((std > 0).all()):
        raise PhasewiseError("a channel of the training images is constant; drop it or check the data")
    network.mean.copy_(mean)
    network.std.copy_(std)
    network.to(device)
    passes = _epochs(len(images), images.shape[1]) if epochs is None else epochs
    size = _batch(len(images)) if batch is None else min(batch, len(images))
    in_half, kept = precision == "bfloat16", None if unfinished is None else Path(unfinished)
    about = {
        "fingerprint": data.fingerprint, "seed": str(seed), "passes": str(passes), "batch": str(size),
        "flip": str(flip), "precision": precision,
    }  # fmt: skip
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # a snapshot puts back the random state of where it was made
        _fit(network, images, labels, passes, size, flip, in_half, seeding.plain(seed), progress, kept, about)
    frozen(network)
    # the mean variance of the features becomes 1
    network.scale.copy_(network.extract(images).double().var(0).mean().rsqrt())
    _describe(network, data, seed, passes)
    return network


def labelled(data: ImageData) -> tuple[Tensor, Tensor, int]:
    """Training images, their labels and the number of classes; PhasewiseError where no classifier can be trained."""
    labels = getattr(data, "labels_train", None)
    if labels is None:
        raise PhasewiseError("these images have no labels to train a classifier on; use PCAFeatures.fit(images)")
    check_images(data.train, None)
    if labels.shape != data.train.shape[:1] or int(labels.min()) < 0:
        raise PhasewiseError("labels must be whole numbers >= 0, one per training image")
    if int(labels.min()) == int(labels.max()):
        raise PhasewiseError("all training labels are equal, no classifier can be trained; use PCAFeatures.fit(images)")
    return data.train.float().cpu(), labels.long().cpu(), int(labels.max()) + 1


def _batch(n: int) -> int:
    return min(n, 64 if n < 5000 else 128)


def _epochs(n: int, channels: int) -> int:
    steps = max(1, n // _batch(n))
    return min(20, max(4 if channels == 1 else 14, math.ceil(1500 / steps)))


def classifier_work(
    data: ImageData, n: int, classes: int, device: str | torch.device = "cpu", most: int | None = None, **how: Any
) -> list[Work]:
    """What :func:`cached_classifier` of ``n`` images like the few training images of ``data`` takes where it is
    trained: a pass over them, as often as it is trained on, and a reading of each image for the scale of its features.

    ``most`` and ``how`` as there.
    """
    passes = _epochs(n, data.image_shape[0]) if most is None else min(most, _epochs(n, data.image_shape[0]))
    images = data.train.float().cpu()
    labels = torch.arange(len(images)) % classes
    with torch.random.fork_rng(devices=[]):  # the caller's random state is left alone
        network = _untrained(data, classes, how.get("width", 32), how.get("architecture", "plain")).to(device)
    settings = how.get("flip", False), how.get("precision") == "bfloat16", seeding.plain(0), None, None

    def train() -> None:
        network.requires_grad_(True)
        _fit(network, images, labels, 1, len(images), *settings)

    return [
        Work(train, passes * (n // _batch(n)) * _batch(n) / len(images)),
        Work(lambda: network.extract(images), n / len(images)),
    ]


def _untrained(data: ImageData, classes: int, width: int, architecture: str) -> ClassifierFeatures:
    return ClassifierFeatures(data.image_shape, classes, width, pixel_range=data.pixel_range, architecture=architecture)


def _fit(
    network: ClassifierFeatures,
    images: Tensor,
    labels: Tensor,
    epochs: int,
    batch: int,
    flip: bool,
    in_half: bool,
    generator: torch.Generator,
    progress: Progress | None,
    unfinished: Path | None,
    about: Mapping[str, str] | None = None,
) -> None:
    n, device = images.shape[0], network.mean.device
    total = epochs * (n // batch)
    passes = _Passes(n, batch, generator)
    snapshot = None
    if unfinished is not None:
        snapshot = Snapshot(unfinished, (generator,), passes.state, passes.back, about)
    images, labels = images.to(device), labels.to(device)

    def loss_of() -> Tensor:
        chosen = passes.draw()
        shown = random_shift(images[chosen.to(device)], max(images.shape[2:]) // 14, generator)
        if flip:
            mirrored = (torch.rand(len(shown), generator=generator) < 0.5).to(device)
            shown = torch.where(mirrored[:, None, None, None], shown.flip(3), shown)
        with torch.autocast(device.type, torch.bfloat16, enabled=in_half):
            logits = network.logits(shown)
        return nn.functional.cross_entropy(logits.float(), labels[chosen.to(device)])

    def done(step: int, _: Tensor) -> None:
        if progress is not None:
            progress(step + 1, total)

    minimise(network, loss_of, total, lambda step: one_cycle(PEAK_RATE, step, total), done=done, snapshot=snapshot)


class _Passes:
    """Numbers (batch,) of images, every image once a pass but for those that fill no batch."""

    def __init__(self, n: int, batch: int, generator: torch.Generator) -> None:
        self.n, self.batch, self.generator = n, batch, generator
        self.order = torch.arange(0)

    def draw(self) -> Tensor:
        if not len(self.order):
            self.order = torch.randperm(self.n, generator=self.generator)[: self.n // self.batch * self.batch]
        chosen, self.order = self.order[: self.batch], self.order[self.batch :]
        return chosen

    def state(self) -> dict[str, Tensor]:
        return {"order": self.order}

    def back(self, state: Mapping[str, Tensor]) -> None:
        self.order = state["order"]


def random_shift(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each of (B, C, H, W) images moved by up to ``most`` pixels either way, edge pixels repeated."""
    if most == 0:
        return images
    count, _, height, width = images.shape
    # views: every shift of every image, without a copy
    windows = nn.functional.pad(images, (most,) * 4, mode="replicate").unfold(2, height, 1).unfold(3, width, 1)
    rows, columns = torch.randint(0, 2 * most + 1, (2, count), generator=generator).to(images.device)
    return windows[torch.arange(count, device=images.device), :, rows, columns]


def _describe(network: ClassifierFeatures, data: ImageData, seed: int, epochs: int) -> None:
    labels = getattr(data, "labels_test", None)
    if labels is not None and len(labels):
        network.test_accuracy = network.accuracy(data.test, labels)
    accuracy = "not measured" if network.test_accuracy is None else f"{100 * network.test_accuracy:.2f} %"
    kind = "" if network.architecture == "plain" else f"{network.architecture} "
    network.name = (
        f"{kind}classifier features of {data.name} ({network.dim} dimensions, seed {seed}, test accuracy {accuracy})"
    )
    network.training_record = {
        "data": data.name,
        "fingerprint": data.fingerprint,
        "seed": seed,
        "epochs": epochs,
        "n": int(data.train.shape[0]),
    }


def cache_name(fingerprint: str, seed: int, **how: Any) -> str:
    """Name of the folder that keeps the classifier of the images of this fingerprint, of this seed, of this
    architecture and width where they are not the usual ones."""
    kind = (str(how[k]) for k in ("architecture", "width") if k in how)
    return "-".join((f"classifier-{fingerprint[:16]}-seed{seed}", *kind))


def cached_classifier(
    data: ImageData,
    seed: int,
    cache_dir: str | Path | None,
    progress: Progress | None,
    device: str | torch.device,
    most: int | None = None,
    **how: Any,
) -> ClassifierFeatures:
    """The classifier of these data and this seed, from ``cache_dir`` where it is there, trained and kept otherwise.

    ``most``: as many passes at most; ``how``: what :func:`train_classifier` is asked for beyond its usual."""
    folder = None if cache_dir is None else Path(cache_dir) / cache_name(data.fingerprint, seed, **how)
    if folder is not None and (folder / CONFIG_FILE).is_file():
        return ClassifierFeatures.load(folder).to(device)
    epochs = None if most is None else min(most, _epochs(len(data.train), data.image_shape[0]))
    unfinished = None if folder is None else folder / UNFINISHED_FILE
    network = train_classifier(
        data, seed=seed, epochs=epochs, progress=progress, device=device, unfinished=unfinished, **how
    )
    if folder is not None and unfinished is not None:
        network.save(folder)
        unfinished.unlink(missing_ok=True)
    return network


@checks.checked(batch=checks.count)
def classifier_summary(
    samples: Tensor, classifier: ClassifierFeatures, batch: int = 256, labels: Tensor | None = None
) -> dict[str, Any]:
    """How a classifier sees ``samples`` (N, C, H, W).  Samples have no true class, so there is no accuracy; those that
    were drawn of a class have ``class_seen``, the share put into it: ``labels``, (N,) integers.

    Entropies in nats, with p(c|x) the classifier's probabilities and H(p) = -sum p log p:

    * ``confidence``: mean of max_c p(c|x), and ``confidence_stderr``;
    * ``entropy``: mean of H(p(.|x)), low when single samples look like one class;
    * ``class_entropy``: H of the mean prediction, at most log(classes), low when classes are missing;
    * ``histogram_entropy``: H of the fractions assigned to each class, and ``histogram`` those fractions.
    """
    p = classifier.probabilities(samples, batch).double()
    best, n = p.amax(1), p.shape[0]
    first = p.argmax(1)
    histogram = torch.bincount(first, minlength=p.shape[1]).double() / n
    seen = {} if labels is None else {"class_seen": float((first == labels.cpu()).double().mean())}
    return {
        "confidence": float(best.mean()),
        "confidence_stderr": float(best.std() / math.sqrt(n)) if n > 1 else math.nan,
        "entropy": float(_entropy(p).mean()),
        "class_entropy": float(_entropy(p.mean(0))),
        "histogram_entropy": float(_entropy(histogram)),
        "histogram": histogram.tolist(),
        "classes": int(p.shape[1]),
        "n": n,
        **seen,
    }


def _entropy(p: Tensor) -> Tensor:
    return -torch.special.xlogy(p, p).sum(-1)  # 0 log 0 = 0
