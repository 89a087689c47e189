"""Latents are images too: encoded once, denoised like any image, judged by what they decode to.

A diffusion model of latents (Rombach et al. 2022, arXiv 2112.10752) works on what an autoencoder makes of pixels,
scaled to about unit variance as diffusers' pipelines do::

    latent = (mode of the encoder's posterior - shift) * scaling,      pixels = decoder(latent / scaling + shift)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from phasewise import checks
from phasewise.bridges.diffusers.folder import check_own, is_there, json_object, read_network
from phasewise.bridges.diffusers.library import library
from phasewise.bridges.diffusers.model import plain_config
from phasewise.data import ImageData
from phasewise.data.images import PARTS
from phasewise.denoisers import Denoiser
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import write_bytes
from phasewise.metrics import FeatureNetwork
from phasewise.metrics.feature_base import a_feature_network, tensors_digest
from phasewise.modes import evaluating
from phasewise.tensors import read_tensors

KEPT = 32
"""Hex digits of the digest in the name of a file of latents."""


def an_autoencoder(value: Any, name: str) -> Any:
    """An autoencoder of diffusers, as an argument."""
    if isinstance(value, nn.Module) and all(hasattr(value, part) for part in ("encode", "decode", "config")):
        return value
    raise PhasewiseError(
        f"{name} must be an autoencoder of diffusers, such as AutoencoderKL; got {checks.shown(value)}"
    )


image_data = checks.made(ImageData, "an image set", "make one by pw.load_images(...)")


@checks.checked(folder=checks.file)
def read_vae(folder: str | Path) -> Any:
    """The autoencoder of a pipeline folder, or one in a folder of its own: float32, in eval mode, without gradients.

    From safetensors alone, and of diffusers' own classes; raises PhasewiseError for what is none of these.
    """
    folder = Path(folder)
    library()
    index = folder / "model_index.json"
    if index.is_file():
        found = json_object(index)
        if not is_there(found, "vae"):
            raise PhasewiseError(f"{folder} has no autoencoder (vae); its network denoises pixels")
        check_own(found, "vae", folder)
        folder = folder / "vae"
    if not (folder / "config.json").is_file():
        raise PhasewiseError(f"{folder} holds no autoencoder (no config.json); give one made by save_pretrained")
    return an_autoencoder(read_network(folder), "vae").requires_grad_(False)


@checks.checked(
    data=image_data,
    vae=an_autoencoder,
    network=checks.made(Denoiser, "a denoiser"),
    batch=checks.count,
    cache_dir=checks.file,
)
def encode(
    data: ImageData,
    vae: Any,
    *,
    network: Denoiser | None = None,
    batch: int = 16,
    cache_dir: str | Path | None = None,
) -> ImageData:
    """``data`` as latents, (N, c, h, w) in each part, labels kept; the mode of the encoder's posterior, no gradient.

    Args:
        data: pixels in any range; the autoencoder is shown them as -1 to 1.
        vae: an autoencoder of diffusers.
        network: denoiser of latents that they are for; another shape is refused before all is encoded.
        batch: images at a time.
        cache_dir: where latents are kept, by a digest of autoencoder and images, and found the next time.

    ``pixel_range`` of the answer is the least and largest latent of the training images.  Raises PhasewiseError for
    images of other channels than the autoencoder takes (latents taken for pixels), sides that it does not halve evenly,
    and a network of another shape; CheckpointError for a damaged file of latents.
    """
    taken = vae.config.get("in_channels", 3)
    if data.image_shape[0] != taken:
        latents = "; are they latents already?" if data.image_shape[0] == latent_channels(vae) else ""
        raise PhasewiseError(f"{data.name} has {data.image_shape[0]} channels, the autoencoder takes {taken}{latents}")
    shape = latent_shape(vae, data.image_shape)
    if network is not None and network.image_shape != shape:
        raise PhasewiseError(
            f"the autoencoder makes latents {shape} of images {data.image_shape}, the {type(network).__name__} takes "
            f"{network.image_shape}; give the autoencoder it was trained with, and images of its size"
        )
    file = None if cache_dir is None else Path(cache_dir) / f"latents-{_digest(data, vae)}.safetensors"
    parts = _encoded(data, vae, batch) if file is None or not file.exists() else _read(file, data, shape)
    if file is not None and not file.exists():
        write_bytes(file, save_tensors(parts))
    span = (float(parts["train"].min()), float(parts["train"].max()))
    named: dict[str, Any] = {**parts, "name": f"{data.name} (latents)", "pixel_range": span, "white_level": None}
    return dataclasses.replace(data, **named)


@checks.checked(latents=checks.images, vae=an_autoencoder, batch=checks.count)
def decode(latents: Tensor, vae: Any, *, batch: int = 16, pixel_range: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """(N, c, h, w) latents as images (N, C, H, W) in ``pixel_range``, unclamped, on the latents' device.

    Raises PhasewiseError for another number of channels than the autoencoder's latents have.
    """
    _check_latents(latents, vae)
    with evaluating(vae), torch.inference_mode():
        parts = [_decoded(part, vae, pixel_range).to(latents.device) for part in latents.split(batch)]
    return torch.cat(parts).clone()


class DecodedFeatures(FeatureNetwork):
    """``features`` of decoded latents: FID and the penalty ``frechet`` judge the images, not the latents.

    Takes latents (N, c, h, w) as :func:`encode` makes them; ``vae`` decodes them into the pixel range of ``features``.
    Compare sets of latents by it, both decoded; to judge against real pixels, :func:`decode` and use ``features``.

    Raises PhasewiseError, when made, where the autoencoder does not give images of the shape that ``features`` takes.
    """

    @checks.checked(features=a_feature_network, vae=an_autoencoder)
    def __init__(self, features: FeatureNetwork, vae: Any) -> None:
        inner = features.image_shape
        if inner is not None and inner[0] != vae.config.get("out_channels", 3):
            raise PhasewiseError(
                f"the autoencoder gives images of {vae.config.get('out_channels', 3)} channels, the features take "
                f"{inner[0]}"
            )
        shape = None if inner is None else latent_shape(vae, inner)
        super().__init__(f"{features.name}, of decoded latents", features.dim, shape, features.pixel_range)
        self.features, self.vae = features, vae
        self.test_accuracy = features.test_accuracy
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        _check_latents(images, self.vae)
        return self.features(_decoded(images, self.vae, self.pixel_range))

    @property
    def distance(self) -> str:
        return self.features.distance

    def digest(self) -> str:
        return hashlib.sha256((self.features.digest() + _vae_digest(self.vae)).encode()).hexdigest()


def latent_channels(vae: Any) -> int | None:
    found = vae.config.get("latent_channels")
    return None if found is None else int(found)


def latent_shape(vae: Any, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(c, h, w) of the latents of one image (C, H, W), by encoding a black one."""
    found = tuple(_encode(torch.zeros(1, *image_shape), vae).shape[1:])
    back = tuple(_decoded(torch.zeros(1, *found), vae, (0.0, 1.0)).shape[1:])
    if back[1:] != tuple(image_shape[1:]):
        raise PhasewiseError(
            f"the autoencoder makes images {image_shape} into latents {found} and back into {back}; crop or resize "
            "them to sides that it halves evenly"
        )
    return (found[0], found[1], found[2])


def _encode(pixels: Tensor, vae: Any) -> Tensor:
    """Scaled latents of pixels in -1..1; the latents are where the pixels were."""
    weight = next(vae.parameters())
    with evaluating(vae), torch.inference_mode():
        found = vae.encode(pixels.to(weight.device, weight.dtype))
        latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        shift, scale = _moments(vae, latents)
        return ((latents - shift) * scale).to(pixels.device, torch.float32)


def _decoded(latents: Tensor, vae: Any, pixel_range: tuple[float, float]) -> Tensor:
    weight, (low, high) = next(vae.parameters()), pixel_range
    latents = latents.to(weight.device, weight.dtype)
    shift, scale = _moments(vae, latents)
    pixels = vae.decode(latents / scale + shift).sample.float()
    return low + (high - low) * (pixels + 1) / 2


def _moments(vae: Any, like: Tensor) -> tuple[Any, Any]:
    """Shift and scaling of the latents, as pipelines of diffusers read them from the config."""
    config = vae.config
    scale: Any = float(config.get("scaling_factor") or 1.0)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (torch.tensor(v, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1) for v in (mean, std))
        return mean, scale / std
    return float(config.get("shift_factor") or 0.0), scale


def _encoded(data: ImageData, vae: Any, batch: int) -> dict[str, Tensor]:
    """By part, on the CPU."""
    parts = {name: getattr(data, name) for name in PARTS}
    return {
        name: torch.cat([_encode(2 * data.to_unit(x) - 1, vae) for x in images.split(batch)]).clone(
            memory_format=torch.contiguous_format
        )
        for name, images in parts.items()
    }


def _digest(data: ImageData, vae: Any) -> str:
    about = f"{_vae_digest(vae)} {data.fingerprint} {data.pixel_range}"
    return hashlib.sha256(about.encode()).hexdigest()[:KEPT]


def _vae_digest(vae: Any) -> str:
    return tensors_digest(vae, json.dumps([type(vae).__name__, plain_config(vae)]))


def _read(file: Path, data: ImageData, shape: tuple[int, int, int]) -> dict[str, Tensor]:
    found = read_tensors(file)[0]
    wanted = {name: (count, *shape) for name, count in data.sizes.items()}
    if {name: tuple(value.shape) for name, value in found.items()} != wanted:
        raise CheckpointError(f"{file} holds other latents than those of {data.name}; delete it and run again")
    return found


def _check_latents(latents: Tensor, vae: Any) -> None:
    known = latent_channels(vae)
    if known is not None and latents.shape[1] != known:
        pixels = "; are they pixels? encode them first" if latents.shape[1] == vae.config.get("in_channels") else ""
        raise PhasewiseError(
            f"latents of shape {tuple(latents.shape)} have {latents.shape[1]} channels, those of the autoencoder "
            f"{known}{pixels}"
        )
