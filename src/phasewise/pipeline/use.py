"""What commands need around a run: its config from options, the run that is there."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phasewise.errors import PhasewiseError, RunFolderError
from phasewise.files import read_json, regular
from phasewise.pipeline.models import need_folder, pixel_range_of, split_source
from phasewise.runs.config import NOTHING, RunConfig, coerced, flattened, follow, is_labelled, make_config, usual_size
from phasewise.runs.images import outline_of
from phasewise.runs.parts import HOMES
from phasewise.runs.run import Run
from phasewise.runs.sizes import known_size


def default_folder(data: str | None, model: Mapping[str, str] | None = None) -> Path:
    """``runs/NAME``, NAME being the last part of what --data says, after that of the reference --model if any."""
    name = Path(data or "digits").name.split(".")[0] or "run"
    sources = list((model or {}).values())[:1]
    return Path("runs") / "-".join([*(split_source(source)[0].resolve().name for source in sources), name])


def config_for(folder: Path, size: str, given: dict[str, Any]) -> RunConfig:
    """The config that options ask for: ``given`` on top of the run already in ``folder``, or else of the size."""
    found = Run(folder).config
    if found is not None and ("data" not in given or given["data"] == found.data.data) and size in ("auto", found.size):
        return found.changed(**follow(coerced(given), found.flat()))
    if given.get("model"):
        given = of_model(given)
    asked = RunConfig().changed(**{n: v for n, v in given.items() if v is not None and HOMES[n][0] == "data"}).data
    sides, train = known_size(asked), None
    # how many there are decides how often they are passed over, which takes a look at a set of no name
    if sides is None or usual_size(size, max(sides)) == "cpu":
        sides, train = outline_of(asked)
    return make_config(max(sides), size, labelled=is_labelled(asked), train=train, **given)


def of_model(given: dict[str, Any]) -> dict[str, Any]:
    """The options with the pixel range that the reference takes, where they say none.

    Raises PhasewiseError for a model that is not there, and for a model without data.
    """
    for source in given["model"].values():
        need_folder(source)
    if not given.get("data"):
        raise PhasewiseError("say which images the network was trained on: --data, a folder or a name")
    pixels = pixel_range_of(next(iter(given["model"].values())))
    return given if pixels is None or given.get("pixel_range") else {**given, "pixel_range": pixels}


def read_options(file: Path) -> dict[str, Any]:
    """Options by name, and perhaps "size", from a TOML file or a run's own ``run.json``.

    Raises PhasewiseError for a file that is neither, or that has an option which does not exist.
    """
    if file.suffix.lower() == ".json":
        values = read_json(file)
        values = values.get("config", values) if isinstance(values, dict) else values
    else:
        try:
            regular(file)
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except PhasewiseError:
            raise
        except OSError as error:
            raise PhasewiseError(f"cannot read {file}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of a number too long
            raise PhasewiseError(f"{file} is not valid TOML ({error})") from error
    if not isinstance(values, dict):
        raise PhasewiseError(f"{file} holds no options; it should have tables such as [train] or [schedule]")
    size = {"size": values["size"]} if "size" in values else {}
    flat = flattened(values)
    if flat.get("cmi_crop", 0) is None:  # JSON's null is that run's choice, where the size may choose otherwise
        flat["cmi_crop"] = NOTHING["cmi_crop"]
    return {**size, **flat}


def need_run(folder: Path, what: str) -> Run:
    """The run in ``folder``; RunFolderError naming the command that makes one where there is none."""
    run = Run(folder)
    if run.config is None:
        raise RunFolderError(f"{folder} holds no phasewise run to {what}; make one with `phasewise run --out {folder}`")
    return run
