"""Local networks of exact radius that are told a plan: which plans there are, how one is read, and how all are trained.

A *plan* S is what a pixel may know beside its window.  Of p x p pixels: the means over blocks of the global network's
posterior mean of the same noisy image.  One network serves all plans, told which it gets, so that all have equal
training and equal capacity.  The noisy pixels pass through a :class:`LocalDenoiser` of exact radius alone; the plan
passes through a *reader*, perceptrons that see all of the plan and no noisy pixel, and whose answer is a small image
that the local network sees in its window.  Two controls share all of that: the reader is told another image's plan, or
the window is opened, that is the reader sees the whole noisy image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

import phasewise as pw
from phasewise import seeding
from phasewise.denoisers.layers import TimeEmbedding
from phasewise.denoisers.network import NetworkDenoiser, relative_log_snr
from phasewise.files import write_bytes
from phasewise.fit import cosine_decay, minimise
from phasewise.seeding import Purpose

PIXELS = {"1 x 1": 1, "2 x 2": 2, "4 x 4": 4, "7 x 7": 7, "14 x 14": 14, "28 x 28": 28}
"""Plans of pixels, by name: pixels a side.  The last is the answer itself: what the design can do when told all."""
SHUFFLED = "another's 14 x 14"
ALL, CLASSED = "28 x 28", "28 x 28, class"
SIDES = {**PIXELS, SHUFFLED: 14, CLASSED: 28}
KINDS = ("none", SHUFFLED, *PIXELS, "class", CLASSED, "open")
CLASS = ("class", CLASSED)
SEEN, SAID, WIDTH = 14, 4, 512
"""Pixels a side of a plan as the reader gets it, channels of what it says of so many pixels, and its own width."""
SPAN = (0.05, 0.95)
"""Noise times that are trained on, from and to."""
LEAST = 1e-4
"""Of the pixels' variance: what a lifted plan misses at least."""


def pooled(images: Tensor, side: int) -> Tensor:
    """Means over blocks, put back into all pixels of each: (B, 1, H, W) -> the same shape."""
    block = images.shape[-1] // side
    return F.interpolate(F.avg_pool2d(images, block), scale_factor=float(block))


class Told(nn.Module):
    """The network of the module's words: ``start``, a trained local network, with a reader beside it.

    It begins as ``start``: what is read of a plan first has weight 0.
    """

    missed: Tensor

    def __init__(self, start: pw.LocalDenoiser, images: Tensor, classes: int) -> None:
        super().__init__()
        self.local = pw.LocalDenoiser(**{**start.config(), "path": start.path, "context": 1 + SAID})
        own = start.state_dict()
        stem = torch.zeros_like(self.local.stem.weight)
        stem[:, : own["stem.weight"].shape[1]] = own["stem.weight"]
        self.local.load_state_dict({**own, "stem.weight": stem})
        self.classes = classes
        inputs = SEEN**2 + images[0].numel() + classes + len(KINDS) + 64
        self.embed = TimeEmbedding(64)
        self.first, self.second = nn.Linear(inputs, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, SAID * SEEN**2)
        self.trust = nn.Linear(len(KINDS) + 64, 1)
        left = [float((images - pooled(images, SIDES[k])).square().mean()) if k in SIDES else 1.0 for k in KINDS]
        self.register_buffer("missed", torch.tensor(left))

    def forward(self, x_t: Tensor, t: Tensor, plan: Tensor, kind: Tensor, labels: Tensor) -> Tensor:
        """Posterior means (B, 1, H, W) at times ``t`` (B,), of the kinds (B,); ``plan`` (B, 1, H, W) lifted, and
        ``labels`` (B,), count only where the kind has them."""
        local, s = self.local, t.view(-1, 1, 1, 1)
        alpha, root, sigma = local.precondition(s)
        h = (x_t - alpha * local.data_mean) / root
        log_snr = relative_log_snr(local.path, s, len(x_t), local.data_std.mean())
        skip, scale = local.data_mean + alpha * local.data_std**2 / root * h, local.data_std * sigma / root
        one = F.one_hot(kind, len(KINDS)).float()
        told = _of(kind, tuple(SIDES)).view(-1, 1, 1, 1)
        lifted = told * (plan - local.data_mean) / local.data_std
        # were the plan exact: the best linear guess from it and the pixel, beyond that from the pixel alone
        left = (self.missed[kind].view(-1, 1, 1, 1) / local.data_std**2).clamp(LEAST, 1.0) * local.data_std**2
        guess = (sigma**2 * (lifted * local.data_std + local.data_mean) + alpha * left * x_t) / (
            alpha**2 * left + sigma**2
        )
        more = told * (guess - skip) / scale
        time = self.embed(log_snr)
        seen = torch.cat(
            [
                F.avg_pool2d(lifted, lifted.shape[-1] // SEEN).flatten(1),
                _of(kind, ("open",))[:, None] * h.flatten(1),
                _of(kind, CLASS)[:, None] * F.one_hot(labels, self.classes).float(),
                one,
                time,
            ],
            1,
        )
        read = F.silu(self.first(seen))
        said = self.last(F.silu(read + self.second(read))).view(-1, SAID, SEEN, SEEN)
        near = F.interpolate(said, size=x_t.shape[-2:])
        trusted = torch.sigmoid(self.trust(torch.cat([one, time], 1))).view(-1, 1, 1, 1)
        return skip + scale * (local.backbone(torch.cat([h, more, near], 1), log_snr) + told * trusted * more)


def _of(kind: Tensor, names: tuple[str, ...]) -> Tensor:
    """(B,) 1 where the kind is one of those, else 0."""
    places = torch.tensor([KINDS.index(name) for name in names])
    return torch.isin(kind, places).float()


def plan_of(kind: str, answer: Tensor) -> Tensor:
    """The lifted plan of that kind, (B, 1, H, W), from the global network's answers; where plans are shuffled every
    image gets that of the one before it."""
    own = answer.roll(1, 0) if kind == SHUFFLED else answer
    return pooled(own, SIDES[kind]) if kind in SIDES else torch.zeros_like(answer)


def noised(images: Tensor, times: Tensor, seed: int, purpose: Purpose) -> Tensor:
    """Noisy images at each one's time, by the linear path; noise by seed and purpose."""
    t = times.view(-1, 1, 1, 1)
    return (1 - t) * images + t * torch.randn(images.shape, generator=seeding.generator(seed, purpose))


@torch.inference_mode()
def answers(teacher: pw.Denoiser, x_t: Tensor, times: Tensor, batch: int = 64) -> Tensor:
    """The teacher's posterior means."""
    return torch.cat([teacher(x, t) for x, t in zip(x_t.split(batch), times.split(batch), strict=True)])


def bank(teacher: pw.Denoiser, images: Tensor, span: tuple[float, float], file: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy images, their times, evenly drawn in ``span``, and the teacher's answers, kept in ``file``."""
    low, high = span
    times = low + (high - low) * torch.rand(len(images), generator=seeding.generator(0, Purpose.TRAINING_ORDER))
    x_t = noised(images, times, 0, Purpose.TRAINING_NOISE)
    if not file.is_file():
        write_bytes(file, save({"answers": answers(teacher, x_t, times).half()}))
    return x_t, times, load(file.read_bytes())["answers"].float()


def train(
    net: Told, images: Tensor, labels: Tensor, made: tuple[Tensor, Tensor, Tensor], steps: int, batch: int
) -> None:
    """All kinds alike: of each batch every image gets one at random.  What is learnt is the teacher's answer; the clean
    image where a class is told, of which the teacher knows nothing.  In the network's own unit of error."""
    x_t, times, answer = made
    generator = seeding.generator(0, Purpose.TRAINING_ORDER, 1)
    scale = net.local.output_scale(times)
    classed = torch.tensor([k in CLASS for k in KINDS])

    def loss() -> Tensor:
        at = torch.randint(len(x_t), (batch,), generator=generator)
        kind = torch.randint(len(KINDS), (batch,), generator=generator)
        plan = torch.zeros_like(answer[at])
        for number, name in enumerate(KINDS):
            if name in SIDES:
                here = kind == number
                plan[here] = plan_of(name, answer[at])[here]
        wanted = torch.where(classed[kind].view(-1, 1, 1, 1), images[at], answer[at])
        out = net(x_t[at], times[at], plan, kind, labels[at])
        return ((out - wanted) / scale[at]).square().mean()

    minimise(net, loss, steps, lambda step: {"lr": cosine_decay(1.5e-3, step, steps, 0.02)}, clip=1.0)


@torch.inference_mode()
def measured(
    net: Told, teacher: NetworkDenoiser, images: Tensor, labels: Tensor, times: tuple[float, ...], batch: int = 100
) -> Mapping[str, dict[str, list[list[float]]]]:
    """By kind: ``apart``, squared distance from the teacher's answer, and ``loss``, squared error, an image, each
    [value, standard error] by time; and the same errors' difference from the teacher's own (``over``), paired.
    ``gap``: the loss above that of the kind told the whole answer, without a class and with it."""
    found: dict[str, dict[str, list[list[float]]]] = {
        k: {"apart": [], "loss": [], "over": []} for k in (*KINDS, "global")
    }
    for kind in ("none", "class"):
        found[kind]["gap"] = []
    for t in times:
        at = torch.full((len(images),), t)
        x_t = noised(images, at, round(1000 * t), Purpose.LOSSES)
        answer = answers(teacher, x_t, at)
        own = _square(answer - images)
        errors = {}
        for number, kind in enumerate(KINDS):
            plan = plan_of(kind, answer)
            rows = [s.split(batch) for s in (x_t, at, plan, torch.full((len(images),), number), labels)]
            out = torch.cat([net(*parts) for parts in zip(*rows, strict=True)])
            errors[kind] = _square(out - images)
            found[kind]["apart"].append(_mean(_square(out - answer)))
            found[kind]["loss"].append(_mean(errors[kind]))
            found[kind]["over"].append(_mean(errors[kind] - own))
        found["global"]["loss"].append(_mean(own))
        found["class"]["gap"].append(_mean(errors["class"] - errors[CLASSED]))
        found["none"]["gap"].append(_mean(errors["none"] - errors[ALL]))
    return found


def _square(images: Tensor) -> Tensor:
    return images.double().square().sum((1, 2, 3))


def _mean(rows: Tensor) -> list[float]:
    return [float(rows.mean()), float(rows.std() / len(rows) ** 0.5)]


def trained(
    start: pw.LocalDenoiser, teacher: pw.Denoiser, images: Tensor, labels: Tensor, steps: int, batch: int, folder: Path
) -> Told:
    """The network, trained, or read from ``folder`` where it was before."""
    torch.manual_seed(0)
    net = Told(start, images, int(labels.max()) + 1)
    file = folder / f"told-{len(images)}-{steps}-{batch}.safetensors"
    if not file.is_file():
        made = bank(teacher, images, SPAN, folder / f"bank-{len(images)}.safetensors")
        train(net, images, labels.long(), made, steps, batch)
        write_bytes(file, save(net.state_dict()))
    net.load_state_dict(load(file.read_bytes()))
    return net.eval()
