"""Two real guests: a U-Net (DDPM, predicts the noise) and a class-conditional transformer (flow matching, predicts the
velocity), made of diffusers' own classes, trained on images as its users do, saved by its own ``save_pretrained``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from phasewise.data import ImageData
from phasewise.errors import PhasewiseError
from phasewise.files import write_bytes
from phasewise.fit import minimise, one_cycle
from phasewise.tensors import read_tensors

NULL = 1000
"""The label that stands for none: the one diffusers' DiTPipeline uses."""
DROPPED = 0.1
"""Share of labels left out in training, for guidance without a classifier (Ho and Salimans 2022, arXiv 2207.12598)."""
DECAY = 0.999
EVERY = 250
"""Steps between two checkpoints."""

SIZES: dict[str, dict[str, Any]] = {
    "usual": {"unet": (16, 32, 64), "heads": 4, "layers": 6, "patch": 4, "groups": 8},
    "tiny": {"unet": (8, 8), "heads": 2, "layers": 2, "patch": 4, "groups": 4},
}
"""Usual ones learn in some minutes on a laptop; tiny ones are there for tests."""


def make_unet(shape: tuple[int, int, int], size: str = "usual") -> nn.Module:
    """A fresh ``UNet2DModel`` for images (C, H, W), of the size named."""
    from diffusers import UNet2DModel

    about = SIZES[size]
    n = len(about["unet"])
    return UNet2DModel(
        sample_size=shape[1], in_channels=shape[0], out_channels=shape[0], block_out_channels=about["unet"],
        layers_per_block=1, norm_num_groups=about["groups"],
        down_block_types=("DownBlock2D",) * (n - 1) + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (n - 1),
    )  # fmt: skip


def make_transformer(shape: tuple[int, int, int], size: str = "usual") -> nn.Module:
    """A fresh ``DiTTransformer2DModel`` for square images, with a label for none (:data:`NULL`)."""
    from diffusers import DiTTransformer2DModel

    about = SIZES[size]
    return DiTTransformer2DModel(
        num_attention_heads=about["heads"], attention_head_dim=32 if size == "usual" else 8, in_channels=shape[0],
        num_layers=about["layers"], sample_size=shape[1], patch_size=about["patch"], num_embeds_ada_norm=NULL,
        norm_num_groups=1,
    )  # fmt: skip


def make_schedulers() -> dict[str, Any]:
    """The noise that each is trained on."""
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

    return {"unet": DDPMScheduler(clip_sample=False), "transformer": FlowMatchEulerDiscreteScheduler(shift=1.0)}


def noise_loss(net: nn.Module, scheduler: Any, data: ImageData, batch: int, generator: torch.Generator) -> Any:
    """Mean squared error of the predicted noise (Ho et al. 2020, arXiv 2006.11239, eq. 14)."""

    def loss() -> Tensor:
        x, _ = drawn(data, batch, generator)
        z = torch.randn(x.shape, generator=generator)
        k = torch.randint(0, scheduler.config.num_train_timesteps, (batch,), generator=generator)
        return (net(scheduler.add_noise(x, z, k), k).sample - z).square().mean()

    return loss


def flow_loss(net: nn.Module, scheduler: Any, data: ImageData, batch: int, generator: torch.Generator) -> Any:
    """Mean squared error of the velocity z - x (Lipman et al. 2023), its times logit-normal (Esser et al. 2024)."""
    steps = scheduler.config.num_train_timesteps

    def loss() -> Tensor:
        x, labels = drawn(data, batch, generator)
        z = torch.randn(x.shape, generator=generator)
        sigma = torch.sigmoid(torch.randn(batch, generator=generator))
        labels = torch.where(torch.rand(batch, generator=generator) < DROPPED, NULL, labels)
        s = sigma[:, None, None, None]
        return (net((1 - s) * x + s * z, steps * sigma, class_labels=labels).sample - (z - x)).square().mean()

    return loss


def drawn(data: ImageData, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch of training images, in -1..1, and their labels."""
    if data.labels_train is None:
        raise PhasewiseError(f"{data.name} has no labels, which the transformer needs")
    rows = torch.randint(0, len(data.train), (batch,), generator=generator)
    low, high = data.pixel_range
    return 2 * (data.train[rows] - low) / (high - low) - 1, data.labels_train[rows]


LOSSES: dict[str, Callable[..., Any]] = {"unet": noise_loss, "transformer": flow_loss}
MAKERS: dict[str, Callable[..., nn.Module]] = {"unet": make_unet, "transformer": make_transformer}


def trained(
    kind: str, data: ImageData, steps: int, *, size: str = "usual", batch: int = 64, lr: float = 2e-3, seed: int = 0,
    checkpoint: Path | None = None, say: Callable[[str], None] | None = None,
) -> nn.Module:  # fmt: skip
    """The mean over training of a guest's weights (exponential); goes on from ``checkpoint`` where there is one, its
    optimiser afresh."""
    torch.manual_seed(seed)
    net = MAKERS[kind](data.image_shape, size)
    mean, done = copy.deepcopy(net), 0
    if checkpoint is not None and checkpoint.is_file():
        saved, about = read_tensors(checkpoint)
        done = int(about["step"])
        net.load_state_dict({k.removeprefix("net."): v for k, v in saved.items() if k.startswith("net.")})
        mean.load_state_dict({k.removeprefix("mean."): v for k, v in saved.items() if k.startswith("mean.")})
    generator = torch.Generator().manual_seed(seed + done)
    running = [0.0]

    def follow(step: int, loss: Tensor) -> None:
        at = done + step + 1
        weight = min(DECAY, at / (at + 10))
        with torch.no_grad():
            for ours, theirs in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
                ours.lerp_(theirs, 1 - weight) if ours.is_floating_point() else ours.copy_(theirs)
        running[0] += 0.02 * (float(loss) - running[0]) if step else float(loss)
        if at % EVERY == 0 or at == steps:
            if checkpoint is not None:
                both = {
                    f"{n}.{k}": v.contiguous()
                    for n, m in (("net", net), ("mean", mean))
                    for k, v in m.state_dict().items()
                }
                write_bytes(checkpoint, save_tensors(both, {"step": str(at)}))
            if say is not None:
                say(f"{kind}: step {at} of {steps}, loss {running[0]:.4f}")

    if done < steps:
        loss = LOSSES[kind](net, make_schedulers()[kind], data, batch, generator)
        minimise(
            net, loss, steps - done, lambda k: one_cycle(lr, done + k, steps, rise=0.05), clip=1.0, done=follow,
            failed=lambda k, v: f"the loss of the {kind} is {v} at step {k}; lower the learning rate",
        )  # fmt: skip
    return mean.eval()


def save_folder(kind: str, net: Any, folder: Path) -> Path:
    """A pipeline folder as diffusers' own ``save_pretrained`` makes it."""
    from diffusers import DDPMPipeline, DiTPipeline

    scheduler = make_schedulers()[kind]
    if kind == "unet":
        DDPMPipeline(net, scheduler).save_pretrained(str(folder))
    else:
        DiTPipeline(net, None, scheduler).save_pretrained(str(folder))
    return folder
