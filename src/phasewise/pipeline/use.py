"""What commands need around a run: its config from options, its hybrid for sampling, a grid of pictures."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from phasewise.data import load_images
from phasewise.denoisers import HybridDenoiser, load_denoiser
from phasewise.denoisers.io import schedule_from
from phasewise.errors import PhasewiseError, RunFolderError
from phasewise.files import read_json, write_bytes
from phasewise.pipeline.config import RunConfig, follow, make_config
from phasewise.pipeline.folder import read_config
from phasewise.report.pictures import tile
from phasewise.results import DataRecord

SIDES = {"digits": 8, "mnist": 28, "fashion_mnist": 28, "cifar10": 32, "trashnet64": 64}


def default_folder(data: str | None) -> Path:
    """``runs/NAME``, NAME being the last part of what --data says."""
    name = Path(data or "digits").name.split(".")[0]
    return Path("runs") / (name or "run")


def config_for(folder: Path, size: str, given: dict[str, Any]) -> RunConfig:
    """The config that options ask for: ``given`` on top of the run already in ``folder``, or else of the size."""
    found = read_config(folder)
    if found is not None and ("data" not in given or given["data"] == found.data) and size in ("auto", found.size):
        there = found.to_dict()
        return RunConfig.from_dict({**there, **follow(given, there)})
    data = given.get("data", "digits")
    if data in SIDES:
        side = SIDES[data]
    else:
        side = max(load_images(data, data_dir=given.get("data_dir"), limit=100).image_shape[1:])
    return make_config(side, size, **given)


def load_hybrid(source: Path, schedule: str, device: str = "cpu") -> tuple[HybridDenoiser, tuple[float, float]]:
    """The hybrid of a run's schedule by name, and the pixel range of its images."""
    if read_config(source) is None:
        raise RunFolderError(f"{source} holds no phasewise run; make one with `phasewise run --out {source}`")
    file = source / "records" / "schedules.json"
    if not file.is_file():
        raise RunFolderError(f"{source} has no schedules yet; make them with `phasewise schedule --out {source}`")
    schedules = read_json(file)
    if schedule not in schedules:
        raise PhasewiseError(f"{source} has no schedule {schedule!r}; it has {', '.join(schedules) or 'none'}")
    plan = schedule_from(schedules[schedule], file)
    members = {name: load_denoiser(source / "models" / name, device) for name in dict.fromkeys(plan.assignment)}
    return HybridDenoiser(members, plan), DataRecord.from_dict(read_json(source / "records" / "data.json")).pixel_range


def check_png_name(out: Path) -> None:
    """Raises PhasewiseError for a name that is no PNG's; to be asked before the sampling."""
    if out.suffix.lower() != ".png":
        raise PhasewiseError(f"the grid is written as PNG; give a name ending in .png, not {out.name!r}")


def write_grid(images: Tensor, pixel_range: tuple[float, float], out: Path, side: int = 56) -> Path:
    """A square PNG grid of images (n, C, H, W) in pixel units, each enlarged by a whole factor to about ``side``."""
    check_png_name(out)
    low, high = pixel_range
    pixels = ((images - low) / (high - low)).clamp(0, 1).mul(255).round().byte().numpy()
    canvas = Image.fromarray(tile(pixels, math.ceil(math.sqrt(len(pixels)))))
    zoom = max(1, side // pixels.shape[-1])
    buffer = io.BytesIO()
    canvas.resize((canvas.width * zoom, canvas.height * zoom), Image.Resampling.NEAREST).save(buffer, "PNG")
    return write_bytes(out, buffer.getvalue())
