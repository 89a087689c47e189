"""Answers of a long job, kept one by one: a job that was cut off finds them again and measures only the rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from phasewise.files import read_json, write_json


class Kept:
    """Answers by what was asked, one file each under ``root``, in a folder for what they all depend on.

    Args:
        depends: files and words that every answer depends on: other networks never find these ones' answers.
    """

    def __init__(self, root: Path, depends: Iterable[Path | str]) -> None:
        digest = hashlib.sha256()
        for part in depends:
            content = part.read_bytes() if isinstance(part, Path) else part.encode()
            digest.update(hashlib.sha256(content).digest())
        self.folder = root / digest.hexdigest()[:16]

    def __call__(self, asked: dict[str, Any], measure: Callable[[], Any]) -> Any:
        """What is there for ``asked``, else what ``measure()`` gives, as JSON."""
        words = json.dumps(asked, sort_keys=True)
        file = self.folder / f"{hashlib.sha256(words.encode()).hexdigest()[:20]}.json"
        if not file.exists():
            write_json(file, {"asked": asked, "answer": measure()})
        return read_json(file)["answer"]
