"""Denoisers as people share models: a folder with a model card, and repositories of the Hugging Face hub.

On disk lies what :func:`phasewise.save_denoiser` writes (config.json and weights.safetensors; of a hybrid, a folder for
each member) and README.md, the card.  Folders need no library; the hub needs ``huggingface_hub``, an extra.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from phasewise.denoisers.base import Denoiser
from phasewise.denoisers.card import MARK, PLACE, model_card
from phasewise.denoisers.io import load_denoiser, save_denoiser
from phasewise.errors import CheckpointError, PhasewiseError
from phasewise.files import refuse_remote_code, write_text
from phasewise.results import Record, TrainingRecord

CARD = "README.md"
FETCHED = ["*.json", "*.safetensors", CARD]
"""Of a repository nothing else is fetched: no code, no pickles."""
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
NETWORK = ("huggingface_hub", "httpx", "httpx2", "httpcore", "requests", "urllib3")
"""Packages whose errors are the hub's, whichever its library uses."""


def save_shared(
    denoiser: Denoiser, folder: str | Path, *, half: bool = False, records: Sequence[Record] = (), place: str = PLACE
) -> Path:
    """:meth:`Denoiser.save_pretrained`; ``place`` is what the card says it is loaded from."""
    folder = save_denoiser(denoiser, folder, half=half)
    beside = folder / "training.json"
    if beside.is_file() and not any(isinstance(r, TrainingRecord) for r in records):
        records = [TrainingRecord.load(beside), *records]
    card = folder / CARD
    if not card.is_file() or MARK in card.read_text(encoding="utf-8", errors="replace"):
        write_text(card, model_card(denoiser, records, place))
    return folder


def load_shared(
    cls: type[Denoiser],
    source: str | os.PathLike[str],
    *,
    device: str | torch.device,
    **where: Any,
) -> Denoiser:
    """:meth:`Denoiser.from_pretrained`; ``where``: revision, token, cache_dir, local_files_only, force_download."""
    folder = Path(source) if os.path.isdir(source) else _fetched(source, **where)
    refuse_remote_code(folder)
    found = load_denoiser(folder, device)
    if not isinstance(found, cls):
        name = type(found).__name__
        raise PhasewiseError(
            f"{source} holds a {name}, not a {cls.__name__}; load it with {name}.from_pretrained, or with "
            "Denoiser.from_pretrained, which takes any"
        )
    return found


def push(
    denoiser: Denoiser,
    repo_id: str,
    *,
    half: bool,
    records: Sequence[Record],
    **how: Any,
) -> str:
    """:meth:`Denoiser.push_to_hub` by the hub's own mixin; ``how``: token, private, branch, create_pr, commit_message.

    Everything is written before the hub is asked for anything: what cannot be saved makes no empty repository.
    """
    hub = _library(f"pushing to {repo_id}")
    with tempfile.TemporaryDirectory() as made:
        save_shared(denoiser, made, half=half, records=records, place=repo_id)

        class Folder(hub.ModelHubMixin):  # type: ignore[name-defined]
            """What the mixin pushes: the folder as it was written."""

            def _save_pretrained(self, save_directory: Path) -> None:
                shutil.copytree(made, save_directory, dirs_exist_ok=True)

        try:
            return str(Folder().push_to_hub(repo_id, **how))
        except Exception as error:
            raise _of_hub(error, f"cannot push to {repo_id}") from error


def _fetched(source: str | os.PathLike[str], *, local_files_only: bool, **where: Any) -> Path:
    """The folder that the hub's library keeps of a repository, fetched where it is not there yet."""
    name = os.fspath(source)
    if not isinstance(source, str) or not REPOSITORY.fullmatch(name):
        raise CheckpointError(
            f"there is no folder {name}; give the folder that save_pretrained wrote, or a repository of the hub by its "
            "name, OWNER/NAME"
        )
    hub = _library(f"there is no folder {name} here, and fetching it")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=FETCHED, local_files_only=local_files_only, **where))
    except Exception as error:
        if local_files_only and isinstance(error, FileNotFoundError):
            raise CheckpointError(
                f"{name} is not on this machine and local_files_only forbids fetching it; call once without "
                "local_files_only, or give the cache_dir or folder that holds it"
            ) from error
        raise _of_hub(error, f"cannot fetch {name}") from error


def _of_hub(error: Exception, what: str) -> Exception:
    """An error of the hub or the network as one of ours, naming what may be wrong; any other as it is."""
    known = isinstance(error, OSError) or type(error).__module__.split(".")[0] in NETWORK
    if isinstance(error, PhasewiseError) or not known:
        return error
    causes = {
        "RepositoryNotFoundError": "there is no such repository, or it is private: check the name, and the token",
        "GatedRepoError": "it is gated: ask its owner for access, and give a token",
        "RevisionNotFoundError": "it has no such revision: check the branch, tag or commit",
        "HFValidationError": "that is no name of a repository: give OWNER/NAME",
        "LocalTokenNotFoundError": "a token is needed: `hf auth login`, or token=...",
    }
    cause = causes.get(type(error).__name__, "check the network, the name and the token")
    first = (str(error).splitlines() or [""])[0][:160]
    return PhasewiseError(f"{what}: {cause} ({type(error).__name__}: {first})")


def _library(what: str) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise PhasewiseError(f"{what} needs the library huggingface_hub: pip install 'phasewise[hub]'") from error
    return huggingface_hub
